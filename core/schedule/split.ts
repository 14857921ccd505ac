/**
 * @file Reductions in two stages, for processors with threads: one that has few results but many elements is cut into parts
 * which are reduced side by side, then the parts' results are reduced. How many parts follows from sizes alone, so results
 * are the same bits for every number of threads. It happens before fusion: what is computed of the elements joins the first
 * stage, what follows the result the second. Sums of parts also round less than one long sum.
 *
 * GPUs share out long rows by themselves (kernel/gpu/row.ts).
 */
import { isHalf } from "../dtype.ts";
import * as g from "../graph/build.ts";
import { is, type Node } from "../graph/node.ts";
import { node, rules } from "../graph/primitives.ts";
import { numel } from "../shape.ts";

/**
 * What a backend would rather have than the node `n`, whose first source has been simplified to `x` (all of a dot's sources
 * have); null: the node as it is.
 */
export type Rewrite = (n: Node, x: Node) => Node | null;
export const asIs: Rewrite = () => null;

export interface SplitLimits {
  /** Elements from which a reduction by few tasks is split: a tenth of a millisecond, about. */
  readonly elements: number;
  /** Elements that each part has at least, and rows where they are walked down columns: the second stage stays small. */
  readonly part: number;
  readonly rows: number;
  /** Rows up to this are kept together with the maps over them (fuse.ts), which saves more than threads gain. */
  readonly longRow: number;
}

/** What fewer tasks reduce is split; as many are wanted then. */
const enoughTasks = 16;
const wantedTasks = 64;
/** Down columns a task walks up to so many at once (kernel/columns.ts). */
const columnsOfTask = 1024;

export const splitting =
  (limits: SplitLimits): Rewrite =>
  (n, x) => {
    if (rules[n.op].kind !== "reduce") return null;
    const axes = is(n, "argmax") ? [n.attrs.axis] : (n as Node<"sum">).attrs.axes;
    const { shape } = x;
    const total = numel(shape);
    if (total < limits.elements) return null;
    const kept = numel(n.shape);
    const inner = numel(shape.slice(axes[axes.length - 1] + 1));
    const tasks = (kept / inner) * Math.ceil(inner / columnsOfTask);
    if (tasks >= enoughTasks || (inner === 1 && total / kept <= limits.longRow)) return null;

    const run = longestRun(axes, shape);
    const extent = numel(shape.slice(run.first, run.end));
    const rows = inner > 1 ? limits.rows : 1;
    const wanted = Math.min(wantedTasks / tasks, total / tasks / limits.part, extent / rows);
    const parts = divisorNear(extent, wanted);
    if (parts < 2) return null;
    // The run becomes an axis of parts and one within them.
    const [before, after] = [shape.slice(0, run.first), shape.slice(run.end)];
    const whole = isHalf(n.dtype) && n.op !== "amax" && n.op !== "amin" ? g.cast(x, "f32") : x;
    const cut = g.reshape(whole, [...before, parts, extent / parts, ...after]);
    const at = run.first;
    if (is(n, "argmax")) return splitArgmax(n, cut, at);
    const moved = (a: number): number[] =>
      a < at ? [a] : a >= run.end ? [a - (run.end - at) + 2] : a === at ? [at + 1] : [];
    const first = node(n.op as "sum", [cut], { axes: axes.flatMap(moved) }, n.recompute);
    const left = axes.filter((a) => a < at).length;
    const second = node(n.op as "sum", [first], { axes: [at - left] }, n.recompute);
    return second.dtype === n.dtype ? second : g.cast(second, n.dtype);
  };

export const splitReduction = splitting({
  elements: 1 << 18,
  part: 1 << 14,
  rows: 16,
  longRow: 1 << 15,
});

/** Where each part has its best, and which part has the best of these: the earlier of equal ones, both times. */
function splitArgmax(n: Node<"argmax">, cut: Node, at: number): Node {
  const best = node("amax", [cut], { axes: [at + 1] }, n.recompute);
  const where = node("argmax", [cut], { axis: at + 1 }, n.recompute);
  const winner = node("argmax", [best], { axis: at }, n.recompute);
  const one = winner.shape.toSpliced(at, 0, 1);
  const within = g.reshape(g.gather(where, g.reshape(winner, one), at), winner.shape);
  return g.add(g.mul(winner, g.scalarLike(winner, cut.shape[at + 1])), within);
}

/** The longest run of neighbouring axes. */
function longestRun(
  axes: readonly number[],
  shape: readonly number[],
): { first: number; end: number } {
  let best = { first: 0, end: 0 };
  let size = 0;
  for (let i = 0; i < axes.length; ) {
    const first = axes[i];
    let end = first;
    for (; axes[i] === end; i++) end++;
    const extent = numel(shape.slice(first, end));
    if (extent > size) [best, size] = [{ first, end }, extent];
  }
  return best;
}

/** A divisor of `n` about as large as `wanted`: rather a smaller one, up to a factor of four; 1 if there is none. */
function divisorNear(n: number, wanted: number): number {
  if (wanted < 2) return 1;
  for (let d = Math.floor(wanted); d >= Math.max(2, wanted / 4); d--) if (n % d === 0) return d;
  for (let d = Math.ceil(wanted); d <= 4 * wanted; d++) if (n % d === 0) return d;
  return 1;
}
