/**
 * @file Thin builders: one function per primitive, and the few compositions that every layer needs.
 *
 * A builder that would change nothing returns its argument (reshape to the same shape, cast to the
 * same dtype), so transforms and operators may call them freely. All other simplification belongs
 * to the schedule.
 */
import type { DType } from "../dtype.ts";
import { type Shape, sameShape } from "../shape.ts";
import { freshUid, type Node } from "./node.ts";
import { type AttrsOf, constant, node, type Primitive, type Running } from "./primitives.ts";

/** Primitives without attributes, as functions of their sources. */
type Plain = {
  [P in Primitive]: AttrsOf[P] extends Readonly<Record<string, never>> ? P : never;
}[Primitive];

const unary =
  (op: Plain) =>
  (x: Node): Node =>
    node(op, [x]);
const binary =
  (op: Plain) =>
  (a: Node, b: Node): Node =>
    node(op, [a, b]);

export const neg = unary("neg");
export const abs = unary("abs");
export const exp = unary("exp");
export const log = unary("log");
export const sin = unary("sin");
export const cos = unary("cos");
export const sqrt = unary("sqrt");
export const tanh = unary("tanh");
export const erf = unary("erf");
export const floor = unary("floor");
/** Rounds half to even. */
export const round = unary("round");
export const not = unary("not");

export const add = binary("add");
export const sub = binary("sub");
export const mul = binary("mul");
export const div = binary("div");
/** Integer division, truncating. */
export const idiv = binary("idiv");
/** Remainder with the dividend's sign. */
export const rem = binary("rem");
export const pow = binary("pow");
export const max = binary("max");
export const min = binary("min");
export const lt = binary("lt");
export const le = binary("le");
export const eq = binary("eq");
export const and = binary("and");
export const or = binary("or");
export const xor = binary("xor");
export const shl = binary("shl");
export const shr = binary("shr");

export const where = (condition: Node, a: Node, b: Node): Node => node("where", [condition, a, b]);

export const cast = (x: Node, dtype: DType): Node =>
  x.dtype === dtype ? x : node("cast", [x], { dtype });
export const bitcast = (x: Node, dtype: DType): Node =>
  x.dtype === dtype ? x : node("bitcast", [x], { dtype });

// --- movement ------------------------------------------------------------------------------------

export const reshape = (x: Node, shape: Shape): Node =>
  sameShape(x.shape, shape) ? x : node("reshape", [x], { shape });

export const permute = (x: Node, axes: readonly number[]): Node =>
  axes.length === x.shape.length && axes.every((a, i) => a === i)
    ? x
    : node("permute", [x], { axes });

/** Broadcasts to `shape`, aligned right. */
export const expand = (x: Node, shape: Shape): Node =>
  sameShape(x.shape, shape) ? x : node("expand", [x], { shape });

export const pad = (x: Node, lo: readonly number[], hi: readonly number[], value = 0): Node =>
  lo.length === x.shape.length && [...lo, ...hi].every((n) => n === 0)
    ? x
    : node("pad", [x], { lo, hi, value });

/** Windows of `size` along `axis`, as a new last axis. */
export const window = (x: Node, axis: number, size: number, stride = 1, dilation = 1): Node =>
  node("window", [x], { axis, size, stride, dilation });

/** `size` elements from `start` on each axis, every `step`-th. */
export const slice = (
  x: Node,
  start: readonly number[],
  size: readonly number[],
  step: readonly number[] = size.map(() => 1),
): Node =>
  sameShape(x.shape, size) && start.every((s) => s === 0) && step.every((s) => s === 1)
    ? x
    : node("slice", [x], { start, size, step });

export const flip = (x: Node, axes: readonly number[]): Node =>
  axes.length === 0 ? x : node("flip", [x], { axes });

export const concat = (xs: readonly Node[], axis: number): Node =>
  xs.length === 1 ? xs[0] : node("concat", xs, { axis });

// --- reductions, contraction, indexing -----------------------------------------------------------

const reduction =
  (op: "sum" | "prod" | "amax" | "amin") =>
  (x: Node, axes: readonly number[]): Node =>
    axes.length === 0 ? x : node(op, [x], { axes });

export const sum = reduction("sum");
export const prod = reduction("prod");
export const amax = reduction("amax");
export const amin = reduction("amin");
export const argmax = (x: Node, axis: number): Node => node("argmax", [x], { axis });

/** [B, M, K] · [B, K, N] → [B, M, N] */
export const dot = binary("dot");

/** As torch.gather; index has x's shape except on `axis`. */
export const gather = (x: Node, index: Node, axis: number): Node =>
  node("gather", [x, index], { axis });

/** Zeros with `size` on `axis`, plus `src` added at `index`. */
export const scatterAdd = (index: Node, src: Node, axis: number, size: number): Node =>
  node("scatterAdd", [index, src], { axis, size });

/** `size` elements from run-time starts, one i32 scalar per axis, clamped so that they fit. */
export const dynamicSlice = (x: Node, starts: readonly Node[], size: Shape): Node =>
  sameShape(x.shape, size) ? x : node("dynamicSlice", [x, ...starts], { size });

/** x with `update` written at run-time starts. */
export const dynamicUpdateSlice = (x: Node, update: Node, starts: readonly Node[]): Node =>
  node("dynamicUpdateSlice", [x, update, ...starts]);

/** The running `combine` along an axis; from the end with `reverse`. */
export const cumulative = (x: Node, axis: number, combine: Running, reverse = false): Node =>
  node("cumulative", [x], { axis, combine, reverse });

/** The positions (i32) that sort each line along an axis, stable. */
export const argsort = (x: Node, axis: number, descending = false): Node =>
  node("argsort", [x], { axis, descending });

// --- structure and leaves ------------------------------------------------------------------------

/** The same value under a fresh identity. */
export const alias = (x: Node): Node => node("alias", [x], { uid: freshUid() });
export const detach = unary("detach");
export const assign = binary("assign");

/** 0, 1, … length-1 as i32. */
export const iota = (length: number): Node => node("iota", [], { length });

/** A 0-d literal of x's dtype. */
export const scalarLike = (x: Node, value: number): Node => constant(value, x.dtype);
/** A literal of x's dtype, broadcast to its shape. */
export const fullLike = (x: Node, value: number): Node => expand(scalarLike(x, value), x.shape);

/** 1, 0 or -1; of NaN 0. */
export const sign = (x: Node): Node => {
  const zero = scalarLike(x, 0);
  return sub(cast(lt(zero, x), x.dtype), cast(lt(x, zero), x.dtype));
};
export const zerosLike = (x: Node): Node => fullLike(x, 0);

/**
 * Reduced axes put back with size 1: what a reduction's result needs to broadcast against its
 * source.
 */
export const keepdim = (x: Node, axes: readonly number[], source: Shape): Node =>
  reshape(
    x,
    source.map((d, i) => (axes.includes(i) ? 1 : d)),
  );

/**
 * The transpose of broadcasting to x's shape: sums the axes that `shape` lacks or has with size 1.
 */
export function sumTo(x: Node, shape: Shape): Node {
  if (sameShape(x.shape, shape)) return x;
  const missing = x.shape.length - shape.length;
  const repeated = (d: number, i: number) => i < missing || (shape[i - missing] === 1 && d !== 1);
  const axes = x.shape.flatMap((d, i) => (repeated(d, i) ? [i] : []));
  return reshape(sum(x, axes), shape);
}
