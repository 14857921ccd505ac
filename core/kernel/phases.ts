/**
 * @file What one row of a group computes, whatever machine runs it: its reductions in phases, each a pass over the reduced
 * axes, where what needs the result of an earlier reduction belongs to a later phase; full rows, stored in the pass of
 * their phase; and values per row, stored at the end. How a pass walks the reduced axes, how accumulators of several
 * walkers are combined and what is kept between passes is a schedule's: row.ts for CPUs, gpu/row.ts for GPUs.
 */
import type { DType } from "../dtype.ts";
import type { Node } from "../graph/node.ts";
import { beneath, broadcastIndex } from "../schedule/access.ts";
import { type Group, isReduce } from "../schedule/group.ts";
import { freeVars, type Index } from "../schedule/symbolic.ts";
import type { Evaluator } from "./evaluate.ts";
import { type Combine, type Value, variable, widen, wideType } from "./ir.ts";
import { sourceIndex } from "./nest.ts";

export interface Phase {
  readonly number: number;
  readonly reductions: readonly Node[];
  /** Members over the whole row that this pass stores. */
  readonly full: readonly Node[];
}

export interface RowPlan {
  readonly phases: readonly Phase[];
  /** Stored members with one value per row. */
  readonly perRow: readonly Node[];
  /** In which phase a member can be evaluated; for a reduction: in which it runs. */
  readonly phaseOf: ReadonlyMap<Node, number>;
  /** Does the member vary along the row? */
  isFull(n: Node): boolean;
}

/** Where a reduction gathers: an accumulator that its schedule may divide into several. */
export interface Reduction {
  readonly node: Node;
  readonly name: string;
  readonly combine: Combine;
  /** Of what is gathered, and of the result (argmax: an index). */
  readonly dtype: DType;
  readonly result: DType;
}

export interface RowSchedule {
  /**
   * Walks the reduced axes: calls `element` once, in a scope of their variables, for what one element contributes, and puts
   * loops around that. `element` updates the accumulator that `into` names for a node, or the reduction's own.
   */
  pass(
    phase: Phase,
    reductions: readonly Reduction[],
    element: (into?: ReadonlyMap<Node, string>) => void,
  ): void;
  /** Where the whole reduction is after the pass; by default in its accumulator. */
  result?(reduction: Reduction): Value;
}

export const combineOf: Partial<Record<Node["op"], Combine>> = {
  sum: "sum",
  prod: "prod",
  amax: "max",
  amin: "min",
  argmax: "argmax",
};

export function planRow(group: Group): RowPlan {
  const reducedVars = new Set(group.reduced.map((i) => `s${i}`));
  const isFull = (n: Node): boolean =>
    group.members.get(n)!.some((x) => [...freeVars(x)].some((v) => reducedVars.has(v)));
  const phaseOf = new Map<Node, number>();
  for (const n of group.members.keys()) {
    let phase = 0;
    for (const s of n.src) {
      const source = beneath(s);
      if (!group.members.has(source)) continue;
      phase = Math.max(phase, phaseOf.get(source)! + (isReduce(source) ? 1 : 0));
    }
    phaseOf.set(n, phase);
  }
  const members = [...group.members.keys()];
  const stores = [...group.stores.keys()];
  const phases: Phase[] = [];
  for (let number = 0; number <= Math.max(0, ...phaseOf.values()); number++) {
    const reductions = members.filter((n) => isReduce(n) && phaseOf.get(n) === number);
    const full = stores.filter((n) => !isReduce(n) && isFull(n) && phaseOf.get(n) === number);
    if (reductions.length + full.length > 0) phases.push({ number, reductions, full });
  }
  const perRow = stores.filter((n) => isReduce(n) || !isFull(n));
  return { phases, perRow, phaseOf, isFull };
}

export type At = (map: readonly Index[]) => Index[];

/** One row, in the scope that is open: its passes, then what it stores once. */
export function emitRow(
  group: Group,
  ev: Evaluator,
  at: At,
  plan: RowPlan,
  schedule: RowSchedule,
): void {
  for (const phase of plan.phases) emitPhase(group, ev, at, phase, schedule);
  emitPerRow(group, ev, at, plan);
}

/** Everything is evaluated before anything is written: a result may lie over an input that another one reads. */
export function emitPerRow(group: Group, ev: Evaluator, at: At, plan: RowPlan): void {
  const stores = plan.perRow.map((n) => ev.write(group, n, at(group.members.get(n)!)));
  ev.scopes[ev.depth].stmts.push(...stores);
}

export function emitPhase(
  group: Group,
  ev: Evaluator,
  at: At,
  phase: Phase,
  schedule: RowSchedule,
): readonly Reduction[] {
  const reductions = declareReductions(ev, phase);
  const names = new Map(reductions.map((r) => [r.node, r.name] as const));
  schedule.pass(phase, reductions, (into) => {
    const stmts = ev.scopes[ev.depth].stmts;
    for (const n of phase.reductions) {
      const index = at(sourceIndex(n, group));
      const x = n.src[0];
      const name = into?.get(n) ?? names.get(n)!;
      const product =
        n.op === "sum" &&
        x.op === "mul" &&
        x.dtype === "f32" && // products of halves are rounded before they are summed
        group.members.has(x) &&
        !ev.kept.has(x);
      if (product) {
        const [a, b] = x.src.map((s) => ev.evaluate(s, broadcastIndex(index, s.shape)).value);
        stmts.push({ k: "update", name, value: a, times: b });
      } else {
        const value = widen(ev.evaluate(x, index).value);
        const where = n.op === "argmax" ? { at: index[(n as Node<"argmax">).attrs.axis] } : {};
        stmts.push({ k: "update", name, value, ...where });
      }
    }
    for (const n of phase.full) stmts.push(ev.write(group, n, at(group.members.get(n)!)));
  });
  bindReductions(ev, reductions, schedule);
  return reductions;
}

export function declareReductions(ev: Evaluator, phase: Phase): Reduction[] {
  return phase.reductions.map((node) => {
    const name = ev.fresh("a");
    const combine = combineOf[node.op]!;
    const result = wideType(node.dtype);
    const dtype = combine === "argmax" ? wideType(node.src[0].dtype) : result;
    ev.scopes[ev.depth].stmts.push({ k: "acc", name, dtype, combine });
    return { node, name, combine, dtype, result };
  });
}

export function bindReductions(
  ev: Evaluator,
  reductions: readonly Reduction[],
  schedule: RowSchedule,
): void {
  for (const r of reductions)
    ev.bind(r.node, schedule.result?.(r) ?? variable(r.result, r.name), ev.depth);
}
