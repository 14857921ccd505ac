/**
 * @file How much memory a plan needs while it runs, and the least that its kernels could do with.
 *
 * The least holds for every order in which the kernels may run. Whoever calls holds the inputs all the time (parameters, the
 * optimizer's state, arguments), and in the end the outputs as well; an output in an input's storage needs no memory
 * of its own. While kernel k runs there must be, besides, what it reads and writes, and every value v whose producer p
 * and one of whose readers r are tied to k by dependencies, p → … → k → … → r, as in any order p runs before k, and r after
 * it: a training step's backward pass begins when all that is saved for it is there. Outputs made by what k needs are there too.
 * The bound is the largest such sum over all k. It takes the kernels as they are: what they store is decided before, and computing
 * more of it again may need less.
 */
import { bytesOf } from "../dtype.ts";
import type { Node } from "../graph/node.ts";
import { beneath } from "./access.ts";
import { loopScratch, type Plan, type Step } from "./schedule.ts";

export interface Footprint {
  /** Inputs, outputs and values between kernels, as they are laid out. */
  readonly peakBytes: number;
  /** No order of the plan's kernels needs less. */
  readonly leastBytes: number;
}

/** `scratchBytes`: as the device lays it out; `overwrites[i]`: the input in whose storage output i lies, or null. */
export function footprint(
  plan: Plan,
  scratchBytes: number,
  overwrites: readonly (number | null)[],
): Footprint {
  const fresh = new Set<Node>();
  plan.outputs.forEach(({ node }, i) => {
    if (overwrites[i] === null) fresh.add(node);
  });
  const total = (nodes: Iterable<Node>) => [...nodes].reduce((n, x) => n + bytesOf(x), 0);
  const inputs = total(plan.inputs);
  const outputs = total(fresh);
  const between = Math.max(outputs, ...aliveBetween(plan, fresh));
  return { peakBytes: inputs + outputs + scratchBytes, leastBytes: inputs + between };
}

const readsOf = (step: Step): readonly Node[] =>
  step.k === "loop" ? step.region.src.map(beneath) : step.reads;

/** For each step the bytes that are alive while it runs, whatever the order, besides inputs. */
function aliveBetween({ steps, places, outputs }: Plan, fresh: ReadonlySet<Node>): number[] {
  const producer = new Map<Node, number>();
  const readers = new Map<Node, number[]>();
  steps.forEach(({ group }, i) => {
    for (const n of group.stores.keys()) {
      producer.set(n, i);
      readers.set(n, []);
    }
  });
  // Which steps come before each in any order, as bits.
  const words = Math.ceil(steps.length / 32);
  const before = steps.map(() => new Uint32Array(words));
  const has = (bits: Uint32Array, i: number): boolean => ((bits[i >> 5] >> (i & 31)) & 1) === 1;
  const alive = steps.map((step, i) => {
    for (const n of readsOf(step)) {
      const p = producer.get(n);
      if (p === undefined || p === i) continue;
      readers.get(n)!.push(i);
      before[i][p >> 5] |= 1 << (p & 31);
      for (let w = 0; w < words; w++) before[i][w] |= before[p][w];
    }
    return step.k === "loop" ? loopScratch(step.region, step.body) : 0;
  });
  const results = new Set(outputs.map(({ node }) => node));
  for (const [n, found] of readers) {
    const p = producer.get(n)!;
    // State lies in the storage that it overwrites, and the updates before the last one lie where that does.
    const shares = steps[p].group.kind === "update" && places.get(n)!.k === "output";
    if (!fresh.has(n) && (shares || results.has(n))) continue;
    const until = new Uint32Array(words);
    for (const r of found) {
      until[r >> 5] |= 1 << (r & 31);
      for (let w = 0; w < words; w++) until[w] |= before[r][w];
    }
    const bytes = bytesOf(n);
    for (let k = 0; k < steps.length; k++)
      if (k === p || (has(before[k], p) && (fresh.has(n) || has(until, k)))) alive[k] += bytes;
  }
  return alive;
}
