/** @file What GPU schedules of loop nests have in common: finished stages, guards, and how many invocations a workgroup gets. */
import type { Node } from "../../graph/node.ts";
import type { Group } from "../../schedule/group.ts";
import { type Cond, type Index, isub, num } from "../../schedule/symbolic.ts";
import { numel } from "../../shape.ts";
import type { Evaluator } from "../evaluate.ts";
import type { Kernel, Stmt } from "../ir.ts";
import { kernelOf, nestKind, trafficOf } from "../lower.ts";
import type { GpuLowered, Stage, Temporary } from "./lower.ts";
import type { GpuTarget } from "./target.ts";

/** The workgroup's and the invocation's number, in every kernel of these schedules. */
export const groupVar = "g";
export const threadVar = "t";

/** Temporaries are placeholders to the evaluator: read and written as values in memory. */
export type Temporaries = ReadonlyMap<Node, Temporary>;

export function stageOf(
  group: Group,
  ev: Evaluator,
  shape: { readonly groups: number; readonly threads: number },
  body: readonly Stmt[],
  temporaries: Temporaries = new Map(),
): Stage {
  const kernel: Kernel = kernelOf(group, ev, {
    kind: nestKind(group),
    range: { var: groupVar, extent: shape.groups },
    threads: { var: threadVar, extent: shape.threads },
    body,
    flops: ev.flopsPerElement * numel(group.space),
  });
  const buffers = ev.nodes.map((n) => temporaries.get(n) ?? n);
  return { kernel, buffers, traffic: trafficOf(group, ev), randoms: ev.randoms };
}

/**
 * May a result, one of `results`, lie over an input? Only if the input is read by nobody but the invocation that writes it,
 * at the element that it then writes: others may run earlier or later. `depth`: the scope from which on nobody else runs.
 */
export function overwritableIn(
  ev: Evaluator,
  depth: number,
  results: readonly Node[],
): GpuLowered["overwritable"] {
  return (old, n) => {
    const target = ev.nodes.indexOf(n);
    const write = ev.accesses.find((a) => a.buffer === target && a.store);
    if (!write || !results.includes(n) || old.dtype !== n.dtype) return false;
    const buffer = ev.nodes.indexOf(old);
    return ev.accesses
      .filter((a) => a.buffer === buffer && !a.store)
      .every((a) => !a.masked && a.depth >= depth && a.index.key === write.index.key);
  };
}

/** `body` where the condition holds; as it is where it always does. */
export const guarded = (cond: Cond, body: readonly Stmt[]): readonly Stmt[] => {
  const needed = cond.filter((x) => x.min < 0);
  return needed.length > 0 ? [{ k: "if", cond: needed, body }] : body;
};

/** Entries of conditions: x < n, x = 0 (for x ≥ 0). */
export const below = (x: Index, n: number): Index => isub(num(n - 1), x);
export const isZero = (x: Index): Index => isub(num(0), x);

export const ceilPow2 = (n: number): number => 2 ** Math.ceil(Math.log2(Math.max(1, n)));
export const floorPow2 = (n: number): number => 2 ** Math.floor(Math.log2(Math.max(1, n)));

/** 256 invocations are 8 warps: enough to hide latencies, few enough that several workgroups share a processor. */
const usual = 256;
/** The least number that fills two warps, or a wave of 64. */
const least = 64;

/** Invocations of a workgroup for so many in all: fewer for small tensors, so that more processors have work. */
export function workgroupSize(needed: number, target: GpuTarget): number {
  const most = floorPow2(Math.min(usual, target.invocations));
  if (needed >= usual * 256) return most;
  return Math.min(most, ceilPow2(Math.min(needed, least)));
}
