/**
 * @file Sums down columns on a CPU: the rows are walked in the order of memory, with the lanes along them, and what each
 * column has so far stands in scratch. (A loop down each column would fetch a cache line or two of every row.)
 */
import { isFloat } from "../dtype.ts";
import type { Node } from "../graph/node.ts";
import { type Group, isReduce } from "../schedule/group.ts";
import { imod, ivar } from "../schedule/symbolic.ts";
import type { Evaluator } from "./evaluate.ts";
import { constValue, op, type Stmt, type Value, widen, wideType } from "./ir.ts";
import { type Loop, laneOf } from "./loops.ts";
import { type Nest, nestIn, sourceIndex } from "./nest.ts";
import { type At, emitPerRow, type RowPlan } from "./phases.ts";
import { blockLevel, loopInBlocks, sumsInBlocks } from "./row.ts";

/** Sums of so many columns stay in registers. */
const fewColumns = 32;
/** Columns of a task: at most 4 KB of a row, at least 256 bytes; in between, so many tasks. */
const [widest, narrowest] = [1024, 64];
const wantedTasks = 2;
/** Vectors side by side: with one, the costly part of a row waits for its sums (gelu's gradients: 1.03 → 0.88 ms). */
const unroll = 4;

/** How many columns a task walks where nothing else is split. */
export const columnsOfTask = ({ extent }: Loop): number =>
  Math.min(widest, Math.max(narrowest, Math.floor(extent / wantedTasks / narrowest) * narrowest));

/** Does the group only add up, along other axes than the lanes'? `width`: columns of a task. */
export function sumsColumns(
  group: Group,
  { lanes, reduced }: Nest,
  plan: RowPlan,
  width: number,
): boolean {
  if (!lanes || lanes.reduced || reduced.length === 0 || plan.phases.length !== 1) return false;
  if (lanes.extent <= fewColumns || width > widest) return false;
  return [...group.members.keys()].every((n) => !isReduce(n) || n.op === "sum");
}

/** The columns of a task, `width` of them, in the scope that is open. */
export function emitColumns(
  group: Group,
  ev: Evaluator,
  at: At,
  nest: Nest,
  plan: RowPlan,
  width: number,
): void {
  const [{ reductions: sums, full }] = plan.phases;
  const lanes = nest.lanes!;
  const column = imod(ivar(laneOf(lanes), lanes.extent), width);
  const prefix = ev.fresh("a");
  const locals = new Set<string>();
  const place = (n: Node, level: number) => {
    const local = `${prefix}_${sums.indexOf(n)}_${level}`;
    const dtype = wideType(n.dtype);
    if (!locals.has(local))
      ev.scopes[0].stmts.unshift({ k: "local", name: local, dtype, size: width });
    locals.add(local);
    return { local, dtype, index: column };
  };
  const read = (n: Node, level: number): Value => ({ k: "localLoad", ...place(n, level) });
  const write = (n: Node, level: number, value: Value): Stmt => {
    const { local, index } = place(n, level);
    return { k: "localStore", local, index, value };
  };
  const add = (n: Node, level: number, value: Value): Stmt =>
    write(n, level, op("add", value.dtype, read(n, level), value));
  const along = (body: (stmts: Stmt[]) => void): void =>
    nestIn(ev, "vector", lanes, () => body(ev.scopes[ev.depth].stmts), unroll);
  const ofEach = (stmt: (n: Node) => Stmt): Stmt => {
    along((stmts) => stmts.push(...sums.map(stmt)));
    return ev.scopes[ev.depth].stmts.pop()!;
  };
  const clear = (level: number): Stmt =>
    ofEach((n) => write(n, level, constValue(wideType(n.dtype), 0)));
  const summed = (body: Stmt, from: number, to: number): Stmt[] => [
    clear(from),
    body,
    ofEach((n) => add(n, to, read(n, from))),
  ];
  const walk = (i: number): void => {
    const loop = nest.reduced[i];
    const last = i === nest.reduced.length - 1;
    const blocked = last && sumsInBlocks(loop, false) && sums.some((n) => isFloat(n.dtype));
    const row = (stmts: Stmt[]): void => {
      for (const n of sums) {
        const { value } = ev.evaluate(n.src[0], at(sourceIndex(n, group)));
        stmts.push(add(n, blocked ? blockLevel : 0, widen(value)));
      }
      for (const n of full) stmts.push(ev.write(group, n, at(group.members.get(n)!)));
    };
    nestIn(ev, "serial", loop, () => (last ? along(row) : walk(i + 1)));
    if (blocked) loopInBlocks(ev, loop, summed);
  };
  ev.scopes[ev.depth].stmts.push(clear(0));
  walk(0);
  along(() => {
    for (const n of sums) ev.bind(n, read(n, 0), ev.depth);
    emitPerRow(group, ev, at, plan);
  });
}
