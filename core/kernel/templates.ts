/**
 * @file Groups whose kernel is a template: matrix products with prologue and epilogue, and scatter-add. This file
 * evaluates the operands and the epilogue at the indices that a template asks for; the loops are the template's.
 */

import type { Node } from "../graph/node.ts";
import { backward, isMovement } from "../schedule/access.ts";
import type { Group } from "../schedule/group.ts";
import { affineIn, type Index, ivar, linearize, substitute } from "../schedule/symbolic.ts";
import { numel } from "../shape.ts";
import { lowerAttention } from "./attention.ts";
import { lowerCustom } from "./custom.ts";
import { Evaluator } from "./evaluate.ts";
import { type Stmt, type Value, widen, wideType } from "./ir.ts";
import { linesOf } from "./lines.ts";
import { finish, type Lowered, lowerNest } from "./lower.ts";
import { matmulKernel } from "./matmul.ts";
import type { Operand } from "./operand.ts";
import { runningKernel } from "./running.ts";
import { scatterAddKernel } from "./scatter.ts";
import { sortKernel } from "./sort.ts";
import { type CpuTarget, narrow } from "./target.ts";

/** Schedules one group for a CPU. */
export function lowerGroup(
  group: Group,
  inMemory: (n: Node) => boolean,
  target: CpuTarget = narrow,
): Lowered {
  if (group.kind === "matmul") return lowerMatmul(group, inMemory, target);
  if (group.kind === "custom") return lowerCustom(group);
  if (group.kind === "attention") return lowerAttention(group, inMemory);
  if (group.kind === "scatter") return lowerScatter(group, inMemory);
  if (group.kind === "scan") return lowerScan(group, inMemory);
  if (group.kind === "sort") return lowerSort(group, inMemory);
  return lowerNest(group, inMemory);
}

/** The value of `n` at `index`, halves as f32, with the statements that it needs, in a scope of their own. */
export function operand(ev: Evaluator, n: Node, index: readonly Index[]): Operand {
  ev.push([]);
  const value = widen(ev.evaluate(n, index).value);
  return { stmts: ev.pop().stmts, value };
}

const indexVars = (names: readonly string[], shape: readonly number[]): Index[] =>
  shape.map((d, i) => ivar(names[i], d));

function lowerMatmul(group: Group, inMemory: (n: Node) => boolean, target: CpuTarget): Lowered {
  const dot = [...group.members.keys()].find((n) => n.op === "dot")!;
  const [a, b] = dot.src;
  const [batch, m, k] = a.shape;
  const n = b.shape[2];
  const ev = new Evaluator(inMemory);

  const epilogue = (index: readonly Index[], acc: Value): Stmt[] => {
    const env = new Map(index.map((x, i) => [`s${i}`, x] as const));
    ev.push([]);
    ev.bind(dot, acc, 0);
    const stores = [...group.stores.keys()].map((node) => {
      const at = group.members.get(node)!.map((x) => substitute(x, env));
      const { value } = ev.evaluate(node, at);
      return ev.store(node, at, value);
    });
    return [...ev.pop().stmts, ...stores];
  };
  // Once with the operands and once with the epilogue at plain variables: this registers every buffer, and the
  // addresses tell which inputs the results may overwrite (none that an operand reads).
  const space = indexVars(["s0", "s1", "s2"], group.space);
  operand(ev, a, indexVars(["mb", "mm", "mk"], a.shape));
  const before = ev.accesses.length;
  operand(ev, b, indexVars(["mb", "mk", "mn"], b.shape));
  const loads = ev.accesses.slice(before).map((access) => access.index);
  epilogue(space, { k: "const", dtype: wideType(dot.dtype), value: 0 });
  const accesses = [...ev.accesses];
  const flopsPerElement = ev.flopsPerElement;

  const template = matmulKernel({
    name: "matmul",
    batch,
    m,
    n,
    k,
    wide: target.wide,
    dtype: wideType(dot.dtype),
    buffers: ev.buffers,
    scalars: 3 * ev.randoms.length,
    a: (...index) => operand(ev, a, index),
    b: (...index) => operand(ev, b, index),
    bUnitStride: unitStride(b, inMemory, loads),
    epilogue: (i, j, l, acc) => epilogue([i, j, l], acc),
  });
  ev.accesses.splice(0, ev.accesses.length, ...accesses);
  const flops = 2 * batch * m * n * k + flopsPerElement * batch * m * n;
  const kind = readsWindows(b) || readsWindows(a) ? "conv" : "matmul";
  return finish(group, ev, kind, template.range, template.body, flops);
}

function readsWindows(n: Node): boolean {
  while (isMovement(n)) {
    if (n.op === "window") return true;
    n = n.src[0];
  }
  return false;
}

/**
 * Are neighbouring columns of the operand neighbours in memory? Of one that is computed, those of most of its loads; a load of
 * a row's or a column's own value, as a scale, does not count.
 */
function unitStride(b: Node, inMemory: (n: Node) => boolean, loads: readonly Index[]): boolean {
  let index: readonly Index[] = indexVars(["mb", "mk", "mn"], b.shape);
  let n = b;
  while (isMovement(n)) {
    const access = backward(n, index);
    if (access.mask === false) return true;
    index = access.index;
    n = n.src[0];
  }
  if (inMemory(n)) return affineIn(linearize(index, n.shape), "mn") === 1;
  const both = loads.filter((at) => affineIn(at, "mn") !== 0 && affineIn(at, "mk") !== 0);
  const along = (axis: string) => both.filter((at) => affineIn(at, axis) === 1).length;
  return along("mn") >= along("mk");
}

function lowerScatter(group: Group, inMemory: (n: Node) => boolean): Lowered {
  const [scatter] = group.members.keys() as IterableIterator<Node<"scatterAdd">>;
  const [where, source] = scatter.src;
  const { axis, size } = scatter.attrs;
  const { outer, count, inner, at } = linesOf(where.shape, axis);
  const ev = new Evaluator(inMemory);
  const outBuffer = ev.buffer(scatter, "write");
  const probe: [Index, Index, Index] = [ivar("so", outer), ivar("sj", count), ivar("si", inner)];
  operand(ev, where, at(...probe));
  const seen = ev.accesses.length;
  operand(ev, source, at(...probe));
  const indexInner = ev.accesses.slice(0, seen).some((a) => affineIn(a.index, "si") !== 0);
  const template = scatterAddKernel({
    name: "scatter",
    outer,
    size,
    count,
    inner,
    dtype: scatter.dtype,
    buffers: ev.buffers,
    scalars: 3 * ev.randoms.length,
    index: (o, j, i) => operand(ev, where, at(o, j, i)),
    indexInner,
    src: (o, j, i) => operand(ev, source, at(o, j, i)),
    out: (o, p, i) => linearize(at(o, p, i), scatter.shape),
    outBuffer,
  });
  return finish(group, ev, "scatter", template.range, template.body, numel(source.shape));
}

/** A node of lines along one axis as its template sees it, [outer, axis, inner], and its source at such an index. */
function lineAccess(n: Node, axis: number, ev: Evaluator) {
  const { outer, count, inner, at } = linesOf(n.shape, axis);
  const outBuffer = ev.buffer(n, "write");
  const src = (o: Index, j: Index, i: Index): Operand => operand(ev, n.src[0], at(o, j, i));
  // Registers the buffers that the source reads.
  src(ivar("so", outer), ivar("sj", count), ivar("si", inner));
  const weight = 1 + ev.flopsPerElement;
  return {
    outer,
    count,
    inner,
    src,
    out: (o: Index, j: Index, i: Index) => linearize(at(o, j, i), n.shape),
    outBuffer,
    buffers: ev.buffers,
    scalars: 3 * ev.randoms.length,
    weight,
  };
}

function lowerScan(group: Group, inMemory: (n: Node) => boolean): Lowered {
  const [n] = group.members.keys() as IterableIterator<Node<"cumulative">>;
  const ev = new Evaluator(inMemory);
  const access = lineAccess(n, n.attrs.axis, ev);
  const types = { dtype: wideType(n.dtype), outDType: n.dtype };
  const { range, body } = runningKernel({ ...access, ...n.attrs, ...types });
  return finish(group, ev, "scan", range, body, access.weight * numel(n.shape));
}

function lowerSort(group: Group, inMemory: (n: Node) => boolean): Lowered {
  const [n] = group.members.keys() as IterableIterator<Node<"argsort">>;
  const ev = new Evaluator(inMemory);
  const access = lineAccess(n, n.attrs.axis, ev);
  const dtype = wideType(n.src[0].dtype);
  const { shape } = n.src[0];
  const count = shape[n.attrs.axis];
  const first = n.attrs.first ?? count;
  const { range, body, flops } = sortKernel({ ...access, ...n.attrs, count, first, dtype });
  return finish(group, ev, "sort", range, body, flops + access.weight * numel(shape));
}
