/**
 * @file Attention on a GPU: which of it has kernels, and their lowering. attention-forward.ts and attention-backward.ts have the
 * schedules, attention-tile.ts chooses their tiles.
 */
import type { Node } from "../../graph/node.ts";
import type { Group } from "../../schedule/group.ts";
import type { Claims } from "../../schedule/simplify.ts";
import { attentionName, fitsKernels, flopsOf, partsOf, sizesOfRegion } from "../attention-parts.ts";
import { Evaluator } from "../evaluate.ts";
import { kernelOf } from "../lower.ts";
import { keysPass, queriesPass } from "./attention-backward.ts";
import { forwardPass } from "./attention-forward.ts";
import { Workgroup } from "./attention-product.ts";
import {
  type AttentionPass,
  attentionTiles,
  type ChooseAttentionTile,
  chooseAttentionTile,
} from "./attention-tile.ts";
import type { GpuLowered, Stage } from "./lower.ts";
import { groupVar, threadVar } from "./stage.ts";
import type { GpuTarget } from "./target.ts";

/** Fewer queries leave tiles mostly empty, and 256 KB of scores may as well be stored: the kernels take long to compile. */
const leastRows = 8;
const leastScores = 1 << 16;

/** Whether a region is attention that these kernels compute on a GPU. */
export const attentionOnGpu =
  (target: GpuTarget): Claims =>
  (region) => {
    if (!region.attention || !fitsKernels(region)) return false;
    const sizes = sizesOfRegion(region);
    const { batch, heads, queries, keys } = sizes;
    if (queries <= leastRows || batch * heads * queries * keys < leastScores) return false;
    const passes: AttentionPass[] = ["forward", "queries", "keys"];
    return passes.every((pass) => attentionTiles(pass, sizes, target).length > 0);
  };

const schedules = { forward: forwardPass, queries: queriesPass, keys: keysPass };

export function lowerAttention(
  group: Group,
  inMemory: (n: Node) => boolean,
  target: GpuTarget,
  choose: ChooseAttentionTile = chooseAttentionTile,
): GpuLowered {
  const parts = partsOf(group);
  const [first, second, third] = parts.results;
  const backward: AttentionPass[] = [
    ...(first ? ["queries" as const] : []),
    ...(second || third ? ["keys" as const] : []),
  ];
  const passes = parts.attention.pass === "forward" ? ["forward" as const] : backward;
  const stages = passes.map((pass): Stage => {
    const ev = new Evaluator(inMemory);
    const tile = choose(pass, parts.sizes, target)!;
    const { groups, threads, body } = schedules[pass](new Workgroup(parts, ev, tile, pass));
    const kernel = kernelOf(group, ev, {
      kind: "attention",
      range: { var: groupVar, extent: groups },
      threads: { var: threadVar, extent: threads },
      body,
      flops: flopsOf(parts) / passes.length,
    });
    const name = attentionName(parts) + (pass === "forward" ? "" : `_${pass}`);
    return { kernel: { ...kernel, name }, buffers: ev.nodes, randoms: ev.randoms };
  });
  return { stages, overwritable: () => false };
}
