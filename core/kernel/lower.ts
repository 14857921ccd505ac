/**
 * @file Schedules a group as loops for a CPU: maps, and rows of reductions (phases.ts, row.ts). matmul and scatter are
 * templates.ts's, and GPUs have schedules of their own (gpu/).
 *
 * The outermost loop over kept axes is the kernel's parallel range; if only the lanes' loop is left, blocks of it.
 */
import { dtypes } from "../dtype.ts";
import type { Node } from "../graph/node.ts";
import { type Group, isReduce } from "../schedule/group.ts";
import { type Index, iadd, imin, imul, isub, ivar, num, substitute } from "../schedule/symbolic.ts";
import { numel } from "../shape.ts";
import { columnsAtOnce, combinesColumns, emitColumns } from "./columns.ts";
import { Evaluator } from "./evaluate.ts";
import { type Kernel, type KernelKind, type Stmt, serial as serialLoop } from "./ir.ts";
import { laneOf, loopEnv, mapIndices } from "./loops.ts";
import { nestIn, planNest } from "./nest.ts";
import { emitRow, planRow } from "./phases.ts";
import { serialRows } from "./row.ts";
import { unswitch } from "./unswitch.ts";

export interface Lowered {
  readonly kernel: Kernel;
  /** The node whose storage each buffer is. */
  readonly nodes: readonly Node[];
  /** Bytes read and written, each element once. */
  readonly traffic: number;
  /** Random leaves: words 3i … 3i+2 of the kernel's scalars. */
  readonly randoms: readonly Node<"random">[];
  /** May the value `n`, stored here, be written over the storage of `old`, read here? */
  overwritable(old: Node, n: Node): boolean;
}

/** Elements per parallel iteration of a one-dimensional map: 16 KB of f32, large against a call, small against a cache. */
const block = 4096;
export function lowerNest(group: Group, inMemory: (n: Node) => boolean): Lowered {
  const nest = planNest(group, inMemory);
  const { kept, reduced, lanes } = nest;
  const at = (map: readonly Index[]) => map.map((x) => substitute(x, nest.env));
  const ev = new Evaluator(inMemory);
  const plan = planRow(group);
  ev.push([]);

  // The range is the outermost kept loop; if only the lanes are left, blocks of them.
  const outer = kept.filter((loop) => loop !== lanes);
  const range = outer.shift() ?? null;
  // Lanes of a task.
  const alone = reduced.length > 0 && lanes ? columnsAtOnce(lanes, true) : block;
  const split = !range && lanes && !lanes.reduced && lanes.extent >= 2 * alone;
  const width = split ? alone : (lanes?.extent ?? 1);
  const columns = combinesColumns(group, nest);
  const body = (): void => {
    // Down columns, a cache line or two of each row are taken at a time; what is more than a sum needs the registers.
    const unroll = reduced.length > 0 && group.members.size <= 4 ? 8 : 0;
    const row = () => emitRow(group, ev, at, plan, serialRows(group, ev, nest, at, plan));
    if (columns) walkColumns();
    else if (lanes && !lanes.reduced) nestIn(ev, "vector", lanes, row, unroll);
    else row();
  };
  const walkColumns = (): void => {
    const atOnce = split ? width : columnsAtOnce(lanes!, false);
    const { stmts } = ev.scopes[ev.depth];
    const before = stmts.length;
    emitColumns(group, ev, at, nest, plan, atOnce);
    if (split || lanes!.extent <= atOnce) return;
    const blocks = num(Math.ceil(lanes!.extent / atOnce));
    const walk = blockLoop(stmts.splice(before), laneOf(lanes!), lanes!.extent, atOnce);
    stmts.push(serialLoop("p", blocks, walk));
  };
  const serial = (i: number): void => {
    if (i === outer.length) body();
    else nestIn(ev, "serial", outer[i], () => serial(i + 1));
  };
  let rangeInfo = { var: "p", extent: 1 };
  let stmts: Stmt[];
  if (range) {
    rangeInfo = { var: laneOf(range), extent: range.extent };
    ev.push(range.axes.map((a) => a.name));
    serial(0);
    const inner = ev.pop().stmts;
    const by = ivar(rangeInfo.var, range.extent);
    stmts = [
      ...ev.pop().stmts,
      ...(range.axes.length > 1 ? mapIndices(inner, loopEnv(range, by)) : inner),
    ];
  } else {
    serial(0);
    stmts = ev.pop().stmts;
    if (split) {
      stmts = blockLoop(stmts, laneOf(lanes), lanes.extent, width);
      rangeInfo = { var: "p", extent: Math.ceil(lanes.extent / width) };
    }
  }
  const flops = ev.flopsPerElement * numel(group.space);
  return finish(group, ev, nestKind(group), rangeInfo, unswitch(stmts), flops);
}

/** Element-wise, values per row, or also whole rows after their reductions. */
export function nestKind(group: Group): KernelKind {
  const members = [...group.members.keys()];
  if (!members.some(isReduce)) return members.some((n) => n.op === "gather") ? "gather" : "map";
  const onlyReduce = [...group.stores.keys()].every((n) => numel(n.shape) !== numel(group.space));
  return onlyReduce ? "reduce" : "row";
}

/** Turns vector loops over `lane` into blocks of `width` lanes, block number `p`. */
function blockLoop(stmts: readonly Stmt[], lane: string, extent: number, width: number): Stmt[] {
  const p = ivar("p", Math.ceil(extent / width));
  const begin = imul(p, width);
  const env = new Map([[lane, iadd(begin, ivar(lane, width))]]);
  const cut = (s: Stmt): Stmt => {
    if (s.k !== "loop") return s;
    if (s.var !== lane) return { ...s, body: s.body.map(cut) };
    const left = isub(num(extent), begin);
    return { ...s, extent: imin(num(width), left), body: mapIndices(s.body, env) };
  };
  return stmts.map(cut);
}

/** What a schedule decides of a kernel. */
export type Schedule = Pick<Kernel, "kind" | "range" | "threads" | "body" | "flops">;

/** The kernel of a group, whose operands and results `ev` has evaluated. */
export const kernelOf = (group: Group, ev: Evaluator, schedule: Schedule): Kernel => ({
  name: nameOf(group, schedule.kind === "gather" ? "map" : schedule.kind),
  buffers: ev.buffers,
  scalars: 3 * ev.randoms.length,
  ...schedule,
});

export function finish(
  group: Group,
  ev: Evaluator,
  kind: KernelKind,
  range: { var: string; extent: number },
  body: readonly Stmt[],
  flops: number,
): Lowered {
  const kernel = kernelOf(group, ev, { kind, range, body, flops });
  const overwritable = (old: Node, n: Node): boolean => {
    const buffer = ev.nodes.indexOf(old);
    const target = ev.nodes.indexOf(n);
    const write = ev.accesses.find((a) => a.buffer === target && a.store);
    if (!write || old.dtype !== n.dtype) return false;
    // A whole row is read in several passes: only what is written after the last of them may lie over an input.
    const rowStore = group.reduced.length > 0 && numel(n.shape) === numel(group.space);
    if (rowStore && numel(n.shape) > 1) return false;
    const reads = ev.accesses.filter((a) => a.buffer === buffer && !a.store);
    return reads.every((a) => !a.masked && a.index.key === write.index.key);
  };
  const traffic = trafficOf(group, ev);
  return { kernel, nodes: ev.nodes, traffic, randoms: ev.randoms, overwritable };
}

/** A loop nest touches no more of a buffer than it has accesses to it, which matters where it picks (gather, slices). */
export function trafficOf(group: Group, ev: Evaluator): number {
  const nest = group.kind === "map" || group.kind === "row" || group.kind === "update";
  return ev.buffers.reduce((total, { size, dtype }, buffer) => {
    const accesses = ev.accesses.filter((a) => a.buffer === buffer).length;
    const touched = nest ? Math.min(size, accesses * numel(group.space)) : size;
    return total + touched * dtypes[dtype].bytes;
  }, 0);
}

/** What a name does not mention: the kernel's kind says it. */
const named = new Set(["cast", "dot", "scatterAdd", "cumulative", "argsort", "region", "project"]);

/** kind_op_op_shape: enough to recognise a kernel in a report. */
function nameOf(group: Group, kind: string): string {
  const ops = [...new Set([...group.members.keys()].map((n) => n.op))].filter((o) => !named.has(o));
  const shape = group.space.join("x") || "scalar";
  return [
    kind,
    ...ops.slice(0, 5),
    ...(ops.length > 5 ? [`${ops.length - 5}more`] : []),
    shape,
  ].join("_");
}
