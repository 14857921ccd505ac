/**
 * @file Rows on a CPU: one task walks the reduced axes by itself. Long sums are summed in blocks, and costly values that
 * several phases need are kept in scratch. What the phases compute is phases.ts's.
 */
import { isFloat } from "../dtype.ts";
import type { Node } from "../graph/node.ts";
import { beneath } from "../schedule/access.ts";
import { type Group, isReduce } from "../schedule/group.ts";
import { weightOf } from "../schedule/stores.ts";
import { type Index, iadd, imin, imul, isub, ivar, num } from "../schedule/symbolic.ts";
import type { Evaluator } from "./evaluate.ts";
import { type Stmt, serial, variable } from "./ir.ts";
import { type Loop, laneOf, mapIndices } from "./loops.ts";
import { type Nest, nestIn } from "./nest.ts";
import type { At, Reduction, RowPlan, RowSchedule } from "./phases.ts";

/** Sums longer than this are summed in blocks (of so many elements over the lanes, of so many one by one). */
const sumBlock = 4096;
const serialBlock = 256;
/** Sums of blocks are added up in groups of this many. */
const sumFan = 64;
/** Sums of a block are of this level, those of a group of blocks of the one below, and those of all of level 0. */
export const blockLevel = 2;
/** Elements of scratch that a row may keep between phases. */
const maxKept = 1 << 14;

export function serialRows(
  group: Group,
  ev: Evaluator,
  nest: Nest,
  at: At,
  plan: RowPlan,
): RowSchedule {
  const loops = nest.reduced;
  const inner = loops[loops.length - 1] ?? null;
  const long = inner !== null && sumsInBlocks(inner, inner === nest.lanes);
  const keep =
    nest.lanes?.reduced === true && extentOf(loops) <= maxKept ? rowsToKeep(group, plan) : null;
  return {
    pass(phase, reductions, element) {
      const sums = reductions.filter((r) => r.combine === "sum");
      const blocked = long && sums.some((r) => isFloat(r.dtype));
      const blocks = new Map(blocked ? sums.map((r) => [r.node, ev.fresh("b")] as const) : []);
      const nameAt = (r: Reduction, level: number): string =>
        level === 0 ? r.name : `${blocks.get(r.node)}${level === blockLevel ? "" : "g"}`;
      const summed = (body: Stmt, from: number, to: number): Stmt[] => [
        ...sums.map(
          (r): Stmt => ({ k: "acc", name: nameAt(r, from), dtype: r.dtype, combine: "sum" }),
        ),
        body,
        ...sums.map(
          (r): Stmt => ({
            k: "update",
            name: nameAt(r, to),
            value: variable(r.dtype, nameAt(r, from)),
          }),
        ),
      ];
      const walk = (i: number): void => {
        if (i === loops.length) {
          for (const n of keep?.get(phase.number) ?? [])
            keepRow(ev, n, at(group.members.get(n)!), nest);
          element(blocks);
          return;
        }
        const mode = loops[i] === nest.lanes ? "vector" : "serial";
        nestIn(ev, mode, loops[i], () => walk(i + 1));
        if (blocked && i === loops.length - 1) loopInBlocks(ev, loops[i], summed);
      };
      walk(0);
    },
  };
}

/**
 * Costly members that several phases need: computed in the first of them, kept in scratch for the others.
 * Returns them by that first phase.
 */
function rowsToKeep(group: Group, { phaseOf, isFull }: RowPlan): Map<number, Set<Node>> {
  const usedIn = new Map<Node, Set<number>>();
  const roots = [...group.members.keys()].filter(
    (n) => isReduce(n) || (group.stores.has(n) && isFull(n)),
  );
  for (const root of roots) {
    const phase = phaseOf.get(root)!;
    const stack = isReduce(root) ? [beneath(root.src[0])] : [root];
    const seen = new Set<Node>();
    for (let n = stack.pop(); n; n = stack.pop()) {
      if (seen.has(n) || !group.members.has(n) || isReduce(n) || !isFull(n)) continue;
      seen.add(n);
      const list = usedIn.get(n);
      if (list) list.add(phase);
      else usedIn.set(n, new Set([phase]));
      for (const s of n.src) stack.push(beneath(s));
    }
  }
  const keep = new Map<number, Set<Node>>();
  for (const [n, used] of usedIn) {
    if (used.size < 2 || weightOf(n) < 10) continue;
    const first = Math.min(...used);
    const list = keep.get(first);
    if (list) list.add(n);
    else keep.set(first, new Set([n]));
  }
  return keep;
}

export const extentOf = (loops: readonly Loop[]): number =>
  loops.reduce((n, loop) => n * loop.extent, 1);

/** Is a sum along the loop, in lanes or one by one, long enough for blocks? */
export const sumsInBlocks = (loop: Loop, inLanes: boolean): boolean =>
  loop.extent > (inLanes ? sumBlock : serialBlock);

/**
 * Replaces the loop just emitted by loops over blocks, each with sums of its own that are then added up, `sumFan` at a
 * time: no sum has more than some hundred terms, so the error hardly grows with the length. `summed` puts a body, whose
 * sums are those of level `from`, between what clears them and what adds them to those of level `to`.
 */
export function loopInBlocks(
  ev: Evaluator,
  loop: Loop,
  summed: (body: Stmt, from: number, to: number) => Stmt[],
): void {
  const { stmts } = ev.scopes[ev.depth];
  const emitted = stmts.pop() as Extract<Stmt, { k: "loop" }>;
  const name = laneOf(loop);
  const width = emitted.mode === "vector" ? sumBlock : serialBlock;
  const blocks = Math.ceil(loop.extent / width);
  const groups = Math.ceil(blocks / sumFan);
  // Block g·sumFan + b covers elements from width times that.
  const block = iadd(
    imul(ivar(`${name}g`, groups), sumFan),
    ivar(`${name}b`, Math.min(sumFan, blocks)),
  );
  const begin = imul(block, width);
  const env = new Map([[name, iadd(begin, ivar(name, width))]]);
  const inner: Stmt = {
    ...emitted,
    extent: imin(num(width), isub(num(loop.extent), begin)),
    body: mapIndices(emitted.body, env),
  };
  const over = (extent: Index, suffix: string, body: readonly Stmt[]): Stmt =>
    serial(`${name}${suffix}`, extent, body);
  if (groups === 1) {
    stmts.push(over(num(blocks), "b", summed(inner, blockLevel, 0)));
    return;
  }
  const left = isub(num(blocks), imul(ivar(`${name}g`, groups), sumFan));
  const group = over(imin(num(sumFan), left), "b", summed(inner, blockLevel, 1));
  stmts.push(over(num(groups), "g", summed(group, 1, 0)));
}

/** Writes one row of `n` to scratch, and makes later evaluations read it. */
function keepRow(ev: Evaluator, n: Node, at: readonly Index[], nest: Nest): void {
  const { value } = ev.evaluate(n, at);
  const local = ev.fresh("k");
  let index: Index = num(0);
  for (const loop of nest.reduced)
    for (const axis of loop.axes)
      index = iadd(imul(index, axis.extent), ivar(axis.name, axis.extent));
  const size = extentOf(nest.reduced);
  ev.scopes[0].stmts.unshift({ k: "local", name: local, dtype: n.dtype, size });
  // In the phase that writes it the value is still in a register: known evaluations are found first.
  const { depth } = ev;
  ev.kept.set(n, () => ({ value: { k: "localLoad", dtype: n.dtype, local, index }, depth }));
  ev.scopes[depth].stmts.push({ k: "localStore", local, index, value });
}
