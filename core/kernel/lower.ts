/**
 * @file Schedules a group as loops for a CPU: maps, and rows of reductions (row.ts). matmul and scatter are templates.ts's.
 *
 * The outermost loop over kept axes is the kernel's parallel range; if only the lanes' loop is left, blocks of it.
 */
import type { Node } from "../graph/node.ts";
import { type Group, isReduce } from "../schedule/group.ts";
import { type Index, iadd, imin, imul, isub, ivar, num, substitute } from "../schedule/symbolic.ts";
import { numel } from "../shape.ts";
import { Evaluator } from "./evaluate.ts";
import type { Kernel, KernelKind, Stmt } from "./ir.ts";
import { laneOf, loopEnv, mapIndices } from "./loops.ts";
import { nestIn, planNest } from "./nest.ts";
import { emitRow } from "./row.ts";

export interface Lowered {
  readonly kernel: Kernel;
  /** The node whose storage each buffer is. */
  readonly nodes: readonly Node[];
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
  ev.push([]);

  // The range is the outermost kept loop; if only the lanes are left, blocks of them.
  const outer = kept.filter((loop) => loop !== lanes);
  const range = outer.shift() ?? null;
  const body = (): void => {
    // Sums down columns take a cache line or two of each row at a time; what is more than a sum needs the registers.
    const unroll = reduced.length > 0 && group.members.size <= 4 ? 8 : 0;
    if (lanes && !lanes.reduced)
      nestIn(ev, "vector", lanes, () => emitRow(group, ev, nest, at), unroll);
    else emitRow(group, ev, nest, at);
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
    const width = reduced.length > 0 ? 64 : block;
    if (lanes && !lanes.reduced && lanes.extent >= 2 * width) {
      stmts = blockLoop(stmts, laneOf(lanes), lanes.extent, width);
      rangeInfo = { var: "p", extent: Math.ceil(lanes.extent / width) };
    }
  }
  const hasReduce = [...group.members.keys()].some(isReduce);
  const onlyReduce = [...group.stores.keys()].every((n) => numel(n.shape) !== numel(group.space));
  const kind: KernelKind = !hasReduce ? "map" : onlyReduce ? "reduce" : "row";
  return finish(group, ev, kind, rangeInfo, stmts, ev.flopsPerElement * numel(group.space));
}

/** Turns the vector loop over `lane` into blocks of `width` lanes, block number `p`. */
function blockLoop(stmts: readonly Stmt[], lane: string, extent: number, width: number): Stmt[] {
  const p = ivar("p", Math.ceil(extent / width));
  const begin = imul(p, width);
  const env = new Map([[lane, iadd(begin, ivar(lane, width))]]);
  return stmts.map((s) =>
    s.k === "loop" && s.var === lane
      ? { ...s, extent: imin(num(width), isub(num(extent), begin)), body: mapIndices(s.body, env) }
      : s,
  );
}

export function finish(
  group: Group,
  ev: Evaluator,
  kind: KernelKind,
  range: { var: string; extent: number },
  body: readonly Stmt[],
  flops: number,
): Lowered {
  const gathers = [...group.members.keys()].some((n) => n.op === "gather");
  const kernel: Kernel = {
    name: nameOf(group, kind),
    kind: kind === "map" && gathers ? "gather" : kind,
    buffers: ev.buffers,
    scalars: 3 * ev.randoms.length,
    range,
    body,
    flops,
  };
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
  return { kernel, nodes: ev.nodes, randoms: ev.randoms, overwritable };
}

/** What a name does not mention: the kernel's kind says it. */
const named = new Set(["cast", "dot", "scatterAdd", "cumulative", "argsort"]);

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
