/**
 * @file One invocation per result, or per four neighbouring ones: maps, and reductions so short, or with so many results,
 * that one invocation does one alone.
 *
 * Neighbouring invocations take neighbouring elements, so that a warp's accesses fall into few memory transactions
 * (coalescing), and four elements per invocation make each access a vec4: a quarter of the instructions, and enough bytes
 * in flight to fill the bandwidth. The axes run as one long index as far as addresses allow (loops.ts merges them; what
 * remains is divided by constants). The elements after the last four are done one by one, by invocations of their own.
 * What reads across the grain (transposes) goes through workgroup memory: transpose.ts.
 */

import type { Node } from "../../graph/node.ts";
import type { Group } from "../../schedule/group.ts";
import { type Index, iadd, imul, isub, ivar, num, substitute } from "../../schedule/symbolic.ts";
import { Evaluator } from "../evaluate.ts";
import type { Stmt } from "../ir.ts";
import { mapIndices } from "../loops.ts";
import type { Nest } from "../nest.ts";
import { emitRow, type RowPlan } from "../phases.ts";
import { extentOf, serialRows } from "../row.ts";
import { accessesOf, elementEnv, lane, lanes, overLanes, worthVectors } from "./lanes.ts";
import type { GpuLowered } from "./lower.ts";
import {
  below,
  groupVar,
  guarded,
  overwritableIn,
  stageOf,
  threadVar,
  workgroupSize,
} from "./stage.ts";
import type { GpuTarget } from "./target.ts";
import { throughTile } from "./transpose.ts";

export function lowerMap(
  group: Group,
  inMemory: (n: Node) => boolean,
  target: GpuTarget,
  nest: Nest,
  plan: RowPlan,
): GpuLowered {
  const ev = new Evaluator(inMemory);
  const at = (map: readonly Index[]) => map.map((x) => substitute(x, nest.env));
  ev.push([]);
  ev.push(nest.kept.flatMap((loop) => loop.axes.map((a) => a.name)));
  const { depth } = ev;
  emitRow(group, ev, at, plan, serialRows(group, ev, nest, at, plan));
  const element = ev.pop().stmts;
  const before = ev.pop().stmts;

  const accesses = accessesOf(ev);
  const tiled = plan.phases.length === 0 ? throughTile(nest, element, accesses, target) : null;
  const vectors = worthVectors(nest.kept, accesses);
  const made = tiled ?? perInvocation(nest, element, vectors, target);
  const stage = stageOf(group, ev, made, [...before, ...made.body]);
  // What is uniform is read by all, unless there is only one. Rows are read in several passes, and not overwritten.
  const owned = made.groups * made.threads === 1 ? 0 : depth;
  return { stages: [stage], overwritable: overwritableIn(ev, owned, plan.perRow) };
}

/** Distributes the kept elements over invocations. */
function perInvocation(
  nest: Nest,
  element: readonly Stmt[],
  vectors: boolean,
  target: GpuTarget,
): { groups: number; threads: number; body: readonly Stmt[] } {
  const extent = extentOf(nest.kept);
  const quads = vectors ? Math.floor(extent / lanes) : 0;
  const needed = extent - quads * (lanes - 1);
  const threads = workgroupSize(needed, target);
  const groups = Math.ceil(needed / threads);
  const me = iadd(imul(ivar(groupVar, groups), threads), ivar(threadVar, threads));
  const one = (at: Index): Stmt[] => mapIndices(element, elementEnv(nest.kept, at));
  if (!vectors) return { groups, threads, body: guarded([below(me, extent)], one(me)) };
  const four = one(iadd(imul(me, lanes), lane));
  const body: Stmt[] = [...guarded([below(me, quads)], [overLanes(four)])];
  if (needed > quads) {
    const after = isub(me, num(quads));
    const rest = one(iadd(after, num(quads * lanes)));
    body.push({ k: "if", cond: [after, below(me, needed)].filter((x) => x.min < 0), body: rest });
  }
  return { groups, threads, body };
}
