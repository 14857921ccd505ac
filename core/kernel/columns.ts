/**
 * @file Reductions down columns on a CPU: the rows are walked in the order of memory, with the lanes along them, and what each
 * column has so far stands in scratch. (A loop down each column would fetch a cache line or two of every row.)
 */
import { isFloat } from "../dtype.ts";
import type { Node } from "../graph/node.ts";
import { type Group, isReduce } from "../schedule/group.ts";
import { imod, ivar } from "../schedule/symbolic.ts";
import type { Evaluator } from "./evaluate.ts";
import { identity } from "./interpret-values.ts";
import { constValue, op, type Stmt, type Value, variable, widen, wideType } from "./ir.ts";
import { type Loop, laneOf } from "./loops.ts";
import { type Nest, nestIn, sourceIndex } from "./nest.ts";
import { type At, combineOf, emitPerRow, type RowPlan } from "./phases.ts";
import { blockLevel, loopInBlocks, sumsInBlocks } from "./row.ts";
import { operation } from "./running.ts";

/** Sums of so many columns stay in registers. */
const fewColumns = 32;
/** Columns of a task: at most 4 KB of a row, at least 256 bytes; in between, so many tasks. */
const [widest, narrowest] = [1024, 64];
const wantedTasks = 2;
/** Vectors side by side: with one, the costly part of a row waits for its sums (gelu's gradients: 1.03 → 0.88 ms). */
const unroll = 4;

/** How many columns are walked at once: those of a task if they alone make tasks. */
export const columnsAtOnce = ({ extent }: Loop, alone: boolean): number =>
  alone
    ? Math.min(
        widest,
        Math.max(narrowest, Math.floor(extent / wantedTasks / narrowest) * narrowest),
      )
    : Math.min(widest, extent);

/** Does the group only combine values along other axes than the lanes', which are more than registers hold? */
export function combinesColumns(group: Group, { lanes, reduced }: Nest): boolean {
  if (!lanes || lanes.reduced || reduced.length === 0 || lanes.extent <= fewColumns) return false;
  return [...group.members.keys()].every((n) => !isReduce(n) || n.op !== "argmax");
}

/** The columns of a task, `width` of them, in the scope that is open: a walk over the rows for each phase. */
export function emitColumns(
  group: Group,
  ev: Evaluator,
  at: At,
  nest: Nest,
  plan: RowPlan,
  width: number,
): void {
  const lanes = nest.lanes!;
  const column = imod(ivar(laneOf(lanes), lanes.extent), width);
  const prefix = ev.fresh("a");
  const all = plan.phases.flatMap((phase) => phase.reductions);
  const locals = new Set<string>();
  const place = (n: Node, level: number) => {
    const local = `${prefix}_${all.indexOf(n)}_${level}`;
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
  const add = (n: Node, level: number, value: Value): Stmt => {
    const combine = combineOf[n.op] as keyof typeof operation;
    return write(n, level, op(operation[combine], value.dtype, read(n, level), value));
  };
  // What earlier phases found is read once per vector.
  const found: Node[] = [];
  const along = (body: (stmts: Stmt[]) => void): void => {
    const inner = (): void => {
      const { stmts } = ev.scopes[ev.depth];
      for (const n of found) {
        const name = ev.fresh("c");
        stmts.push({ k: "let", name, value: read(n, 0) });
        ev.bind(n, variable(wideType(n.dtype), name), ev.depth);
      }
      body(stmts);
    };
    nestIn(ev, "vector", lanes, inner, unroll);
  };
  for (const { reductions, full } of plan.phases) {
    const ofEach = (stmt: (n: Node) => Stmt): Stmt => {
      nestIn(
        ev,
        "vector",
        lanes,
        () => ev.scopes[ev.depth].stmts.push(...reductions.map(stmt)),
        unroll,
      );
      return ev.scopes[ev.depth].stmts.pop()!;
    };
    const clear = (level: number): Stmt =>
      ofEach((n) => {
        const dtype = wideType(n.dtype);
        return write(n, level, constValue(dtype, identity(combineOf[n.op]!, dtype)));
      });
    const summed = (body: Stmt, from: number, to: number): Stmt[] => [
      clear(from),
      body,
      ofEach((n) => add(n, to, read(n, from))),
    ];
    const walk = (i: number): void => {
      const loop = nest.reduced[i];
      const last = i === nest.reduced.length - 1;
      const sums = reductions.some((n) => n.op === "sum" && isFloat(n.dtype));
      const blocked = last && sums && sumsInBlocks(loop, false);
      const row = (stmts: Stmt[]): void => {
        for (const n of reductions) {
          const { value } = ev.evaluate(n.src[0], at(sourceIndex(n, group)));
          stmts.push(add(n, blocked ? blockLevel : 0, widen(value)));
        }
        for (const n of full) stmts.push(ev.write(group, n, at(group.members.get(n)!)));
      };
      nestIn(ev, "serial", loop, () => (last ? along(row) : walk(i + 1)));
      if (blocked) loopInBlocks(ev, loop, summed);
    };
    if (reductions.length > 0) ev.scopes[ev.depth].stmts.push(clear(0));
    walk(0);
    found.push(...reductions);
  }
  if (plan.perRow.length > 0) along(() => emitPerRow(group, ev, at, plan));
}
