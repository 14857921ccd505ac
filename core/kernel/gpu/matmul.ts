/**
 * @file Schedules matrix products for a GPU, and convolutions, whose operands are windows read in place: evaluates operands
 * and epilogue at the positions that a form asks for (matmul-tile.ts chooses it; matmul-tiled.ts and matmul-few.ts have
 * them), and adds up the parts of K where it was split.
 *
 * Parts are written to a temporary and added by a second kernel, always in the same order: a sum by atomics would differ
 * from run to run.
 */
import type { Node } from "../../graph/node.ts";
import { placeholder } from "../../graph/primitives.ts";
import { isMovement } from "../../schedule/access.ts";
import { type Group, spaceVars } from "../../schedule/group.ts";
import {
  type Cond,
  delinearize,
  type Index,
  iadd,
  imul,
  ivar,
  linearize,
  num,
  substitute,
} from "../../schedule/symbolic.ts";
import { numel } from "../../shape.ts";
import { Evaluator } from "../evaluate.ts";
import { constValue, type Stmt, serial, type Value, variable, wideType } from "../ir.ts";
import { kernelOf } from "../lower.ts";
import { lane, lanes } from "./lanes.ts";
import type { GpuLowered, Stage, Temporary } from "./lower.ts";
import { columnsProduct, directProduct, dotProduct } from "./matmul-few.ts";
import { matrixCopies, matrixProduct, maxMatrixCopied } from "./matmul-matrix.ts";
import { sidesOf } from "./matmul-operand.ts";
import { guard, type Product, resultLanes, type Scheduled, transposed } from "./matmul-product.ts";
import { type Choose, chooseForm, type Form, type ProductShape } from "./matmul-tile.ts";
import { tiledProduct } from "./matmul-tiled.ts";
import { groupVar, threadVar, workgroupSize } from "./stage.ts";
import type { GpuTarget } from "./target.ts";

/** `choose` decides the form: the guess of matmul-tile.ts, or what a tuner has measured. */
export function lowerMatmul(
  group: Group,
  inMemory: (n: Node) => boolean,
  target: GpuTarget,
  choose: Choose = chooseForm,
): GpuLowered {
  const dot = [...group.members.keys()].find((n) => n.op === "dot")!;
  const [batch, m, k] = dot.src[0].shape;
  const n = dot.src[1].shape[2];
  const dtype = wideType(dot.dtype);
  const ev = new Evaluator(inMemory);
  const sides = sidesOf(dot, ev);
  const operands = [...ev.nodes];
  const epilogue = epilogueOf(group, dot, ev);
  // Once at plain variables: this registers the buffers and shows which inputs the results may overwrite.
  const finishSize = epilogue(spaceVars(group.space), constValue(dtype, 0), []).length;
  const accesses = [...ev.accesses];

  const shape: ProductShape = {
    batch,
    m,
    n,
    k,
    dtype,
    aAlongK: sides.a.alongK,
    bAlongK: sides.b.alongK,
    halves: dot.src.every((x) => x.dtype === "f16"),
  };
  const product: Product = {
    ...shape,
    ...sides,
    finish: (at, sum, mask) => epilogue([at.b, at.m, at.n], sum, mask),
    finishSize,
    padded: false,
  };
  const form = choose(shape, target);
  const own = 2 * batch * m * n * k;
  const after = ev.flopsPerElement * batch * m * n;
  // Copies of a long epilogue, one for each matrix, would be too much code.
  const apart = form.form === "matrix" && finishSize * matrixCopies(form) > maxMatrixCopied;
  const halves = form.form === "matrix" ? sidesOf(dot, ev, false) : {};
  const stages =
    form.form === "direct" || (form.splits === 1 && !apart)
      ? [stageOf(group, dot, ev, schedule({ ...product, ...halves }, form, target), own + after)]
      : inParts(group, dot, inMemory, product, form, target, [own, after]);
  const overwritable = (old: Node, result: Node): boolean => {
    // Other workgroups may still need what an operand is made of.
    if (old.dtype !== result.dtype || operands.includes(old)) return false;
    const [read, write] = [ev.nodes.indexOf(old), ev.nodes.indexOf(result)];
    const stored = accesses.find((a) => a.buffer === write && a.store);
    const reads = accesses.filter((a) => a.buffer === read && !a.store);
    return !!stored && reads.every((a) => !a.masked && a.index.key === stored.index.key);
  };
  return { stages, overwritable };
}

function schedule(p: Product, form: Form, target: GpuTarget): Scheduled {
  const oriented = "swap" in form && form.swap ? transposed(p) : p;
  switch (form.form) {
    case "tiled":
      return tiledProduct(p, form.tile, form.splits);
    case "matrix":
      return matrixProduct(p, form.tile, form.width, form.splits);
    case "dot":
      return dotProduct(oriented, form, target);
    case "columns":
      return columnsProduct(oriented, form);
    case "direct":
      return directProduct(oriented, form);
  }
}

/** Writes the group's results at a place, from the product's sum there. */
function epilogueOf(group: Group, dot: Node, ev: Evaluator) {
  return (index: readonly Index[], sum: Value, mask: Cond): Stmt[] => {
    const env = new Map(index.map((x, i) => [`s${i}`, x] as const));
    ev.push([]);
    ev.bind(dot, sum, 0);
    const stores = [...group.stores.keys()].map((n) => {
      const at = group.members.get(n)!.map((x) => substitute(x, env));
      const { value } = ev.evaluate(n, at, mask);
      return ev.store(n, at, value, mask);
    });
    return [...ev.pop().stmts, ...stores];
  };
}

/** The product with K in parts, and the kernel that adds them and goes on as the group says. */
function inParts(
  group: Group,
  dot: Node,
  inMemory: (n: Node) => boolean,
  product: Product,
  form: Exclude<Form, { form: "direct" }>,
  target: GpuTarget,
  [own, after]: readonly [number, number],
): Stage[] {
  const { splits } = form;
  const { batch, m, n, dtype } = product;
  // Rows of whole vec4s: parts are then written and read without regard to edges.
  const width = lanes * Math.ceil(n / lanes);
  const parts = placeholder(dtype, [splits, batch, m, width], null);
  const temporary: Temporary = { dtype, size: numel(parts.shape) };
  const known = (x: Node): boolean => x === parts || inMemory(x);

  const first = new Evaluator(known);
  const partial: Product = {
    ...product,
    ...sidesOf(dot, first, form.form !== "matrix"),
    finish: (at, sum, mask) => [first.store(parts, [at.split, at.b, at.m, at.n], sum, mask)],
    finishSize: 1,
    padded: true,
  };
  const work = schedule(partial, form, target);

  const last = new Evaluator(known);
  const items = batch * m * (width / lanes);
  const threads = workgroupSize(items, target);
  const groups = Math.ceil(items / threads);
  const e = iadd(imul(ivar(groupVar, groups), threads), ivar(threadVar, threads));
  const [b, row, quad] = delinearize(e, [batch, m, width / lanes]);
  const column = iadd(imul(quad, lanes), lane);
  const index = linearize([ivar("split", splits), b, row, column], parts.shape);
  const value: Value = { k: "load", dtype, buffer: last.buffer(parts, "read"), index };
  const epilogue = epilogueOf(group, dot, last);
  const total = resultLanes(product, imul(quad, lanes), (mask) => [
    { k: "acc", name: "sum", dtype, combine: "sum" },
    serial("split", num(splits), [{ k: "update", name: "sum", value }]),
    ...epilogue([b, row, column], variable(dtype, "sum"), mask),
  ]);
  const body = guard(e, items, total);
  return [
    stageOf(group, dot, first, work, own, "_parts", [parts, temporary]),
    stageOf(group, dot, last, { groups, threads, body }, after, "_sum", [parts, temporary]),
  ];
}

function stageOf(
  group: Group,
  dot: Node,
  ev: Evaluator,
  { groups, threads, subgroups, body }: Scheduled,
  flops: number,
  suffix = "",
  [parts, temporary]: readonly [Node, Temporary] | readonly [] = [],
): Stage {
  const kernel = kernelOf(group, ev, {
    kind: dot.src.some(readsWindows) ? "conv" : "matmul",
    range: { var: groupVar, extent: groups },
    threads: { var: threadVar, extent: threads },
    ...(subgroups && { subgroups }),
    body,
    flops,
  });
  return {
    kernel: { ...kernel, name: kernel.name + suffix },
    buffers: ev.nodes.map((n) => (n === parts ? temporary! : n)),
    randoms: ev.randoms,
  };
}

function readsWindows(n: Node): boolean {
  while (isMovement(n)) {
    if (n.op === "window") return true;
    n = n.src[0];
  }
  return false;
}
