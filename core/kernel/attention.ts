/**
 * @file Attention on a CPU: which of it has kernels of its own, and their lowering. attention-forward.ts and
 * attention-backward.ts have the loops.
 */
import { dtypes } from "../dtype.ts";
import type { Node } from "../graph/node.ts";
import type { Group } from "../schedule/group.ts";
import type { Claims } from "../schedule/simplify.ts";
import { backwardBody } from "./attention-backward.ts";
import { forwardBody } from "./attention-forward.ts";
import { attentionName, fitsKernels, flopsOf, partsOf, sizesOfRegion } from "./attention-parts.ts";
import { Evaluator } from "./evaluate.ts";
import { kernelOf, type Lowered } from "./lower.ts";

/** Scores of more bytes than this leave every cache on their way from one kernel of the expansion to the next. */
const largeScores = 16 << 20;
/** Tiles of fewer rows are mostly empty. */
const leastRows = 8;
/** A causal mask that leaves out less than the rest pays for nothing. */
const largestShare = 0.7;

/**
 * Whether a region is attention that these kernels are faster at than its expansion (November 2026, one thread of two-core Zen
 * 5, forward and backward, 8 heads of 64): where a causal mask leaves scores out (T = 256: 2.2 times, 1024: 2.4 times), and
 * where all scores together are large (T = 1024: 1.06 times). Else computing them twice costs as much as storing them.
 */
export const attentionOnCpu: Claims = (region) => {
  if (!region.attention || !fitsKernels(region)) return false;
  const { batch, heads, queries, keys } = sizesOfRegion(region);
  if (queries < leastRows) return false;
  if (4 * batch * heads * queries * keys >= largeScores) return true;
  if (!region.attention.causal) return false;
  const square = Math.min(queries, keys);
  const seen = (square * (square + 1)) / 2 + (queries - square) * keys;
  return seen <= largestShare * queries * keys;
};

export function lowerAttention(group: Group, inMemory: (n: Node) => boolean): Lowered {
  const parts = partsOf(group);
  const ev = new Evaluator(inMemory);
  const { range, body } = (parts.attention.pass === "forward" ? forwardBody : backwardBody)(
    parts,
    ev,
  );
  const schedule = { kind: "attention", range, body, flops: flopsOf(parts) } as const;
  const kernel = { ...kernelOf(group, ev, schedule), name: attentionName(parts) };
  const traffic = ev.buffers.reduce((n, b) => n + b.size * dtypes[b.dtype].bytes, 0);
  return { kernel, nodes: ev.nodes, traffic, randoms: ev.randoms, overwritable: () => false };
}
