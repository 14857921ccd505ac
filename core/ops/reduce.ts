/**
 * @file Reductions. `dim` is one axis, several or, left out, all; the reduced axes disappear unless
 * `keepdim`. Sums and products of bool, i8 and u8 are i32. Every export is also a Tensor method
 * (`variance` also as `var`).
 */
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { axesOf, type Dim, kept } from "./axes.ts";
import { sqrtSafe, truth } from "./compose.ts";
import { floatNode, inFloat32, inWide, isHalfTensor, nodeOf, widened } from "./promotion.ts";
import { meanNode, moments, nonEmpty, normNode, position } from "./reductions.ts";

/** Which divisor a variance has: n - correction. */
export type VarianceOptions = { correction?: number; keepdim?: boolean };

/** The sum; of nothing 0. Integers wrap at 32 bits. */
export function sum(x: Tensor, dim?: Dim, keepdim = false): Tensor {
  return reduced("sum", g.sum, widened(nodeOf("sum", x)), dim, keepdim);
}

/** The product; of nothing 1. */
export function prod(x: Tensor, dim?: Dim, keepdim = false): Tensor {
  return reduced("prod", g.prod, widened(nodeOf("prod", x)), dim, keepdim);
}

/** The arithmetic mean of floats; of nothing NaN. */
export function mean(x: Tensor, dim?: Dim, keepdim = false): Tensor {
  return reduced("mean", meanNode, floatNode("mean", x), dim, keepdim);
}

/** The maximum; NaN wins. Equal maxima share the gradient equally. */
export function amax(x: Tensor, dim?: Dim, keepdim = false): Tensor {
  return extremum("amax", g.amax, x, dim, keepdim);
}

/** The minimum; NaN wins. Equal minima share the gradient equally. */
export function amin(x: Tensor, dim?: Dim, keepdim = false): Tensor {
  return extremum("amin", g.amin, x, dim, keepdim);
}

/**
 * The index (i32) of the first maximum along `dim`, or in the flattened tensor; NaN counts as the
 * maximum.
 */
export function argmax(x: Tensor, dim?: number, keepdim = false): Tensor {
  return fromNode(position("argmax", nodeOf("argmax", x), dim, keepdim, false));
}

/**
 * The index (i32) of the first minimum along `dim`, or in the flattened tensor; NaN counts as the
 * minimum.
 */
export function argmin(x: Tensor, dim?: number, keepdim = false): Tensor {
  return fromNode(position("argmin", nodeOf("argmin", x), dim, keepdim, true));
}

/** True if every element is true (not 0); of nothing true. */
export function all(x: Tensor, dim?: Dim, keepdim = false): Tensor {
  const count = (n: Node, axes: readonly number[]): Node => {
    const failures = g.sum(g.cast(g.not(n), "i32"), axes);
    return g.eq(failures, g.scalarLike(failures, 0));
  };
  return reduced("all", count, truth(nodeOf("all", x)), dim, keepdim);
}

/** True if some element is true (not 0); of nothing false. */
export function any(x: Tensor, dim?: Dim, keepdim = false): Tensor {
  const count = (n: Node, axes: readonly number[]): Node => truth(g.sum(g.cast(n, "i32"), axes));
  return reduced("any", count, truth(nodeOf("any", x)), dim, keepdim);
}

/** The number of elements that are not 0, i32. */
export function countNonzero(x: Tensor, dim?: Dim): Tensor {
  const ones = g.cast(truth(nodeOf("countNonzero", x)), "i32");
  return reduced("countNonzero", g.sum, ones, dim, false);
}

/**
 * The variance `Σ(x - mean)²/(n - correction)` in two passes; the default correction 1 makes it
 * unbiased. As a method also `x.var(…)`.
 */
export function variance(
  x: Tensor,
  dim?: Dim,
  { correction = 1, keepdim = false }: VarianceOptions = {},
): Tensor {
  const f = (n: Node, axes: readonly number[]): Node => moments(n, axes, correction).variance;
  return reduced("variance", f, floatNode("variance", x), dim, keepdim);
}

/** The standard deviation, the root of `variance`; its gradient is 0 where it is 0. */
export function std(
  x: Tensor,
  dim?: Dim,
  { correction = 1, keepdim = false }: VarianceOptions = {},
): Tensor {
  const f = (n: Node, axes: readonly number[]): Node =>
    sqrtSafe(moments(n, axes, correction).variance);
  return reduced("std", f, floatNode("std", x), dim, keepdim);
}

/** The variance and the mean, from one computation of the mean. */
export function varMean(
  x: Tensor,
  dim?: Dim,
  options: VarianceOptions = {},
): [variance: Tensor, mean: Tensor] {
  if (isHalfTensor(x)) return inFloat32("varMean", varMean, x, dim, options);
  const { correction = 1, keepdim = false } = options;
  const n = floatNode("varMean", x);
  const axes = axesOf("varMean", dim, n.shape.length);
  const { mean, variance } = moments(n, axes, correction);
  const shape = keepdim ? mean.shape : variance.shape;
  return [fromNode(g.reshape(variance, shape)), fromNode(g.reshape(mean, shape))];
}

/**
 * The p-norm `(Σ|x|ᵖ)^(1/p)` over `dim`: p = 2 by default; ∞ and -∞ give the largest and smallest
 * |x|, 0 counts what is not 0. The gradient of the 2-norm at 0 is 0.
 */
export function norm(x: Tensor, p = 2, dim?: Dim, keepdim = false): Tensor {
  return reduced("norm", (n, axes) => normNode(n, axes, p), floatNode("norm", x), dim, keepdim);
}

// --- helpers -------------------------------------------------------------------------------------

function reduced(
  op: string,
  f: (n: Node, axes: readonly number[]) => Node,
  n: Node,
  dim: Dim,
  keepdim: boolean,
): Tensor {
  const axes = axesOf(op, dim, n.shape.length);
  const result = inWide((x) => f(x, axes), n);
  return fromNode(keepdim ? kept(result, axes, n) : result);
}

function extremum(
  op: string,
  f: (n: Node, axes: readonly number[]) => Node,
  x: Tensor,
  dim: Dim,
  keepdim: boolean,
): Tensor {
  const n = nodeOf(op, x);
  nonEmpty(op, n, axesOf(op, dim, n.shape.length));
  const numbers = n.dtype === "bool" ? g.cast(n, "i32") : n;
  const result = reduced(op, f, numbers, dim, keepdim);
  return n.dtype === "bool" ? fromNode(truth(result.node)) : result;
}
