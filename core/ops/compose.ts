/**
 * @file Numerically careful compositions on nodes, shared by several operators. None overflows
 * where its value is finite, each keeps its relative accuracy near its zero, and each has the right
 * derivatives of every order at its branch points, because both branches are smooth there or the
 * branch is taken on one side only.
 */
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";

const c = g.scalarLike;

export const ceil = (x: Node): Node => g.neg(g.floor(g.neg(x)));

export function trunc(x: Node): Node {
  const f = g.floor(g.abs(x));
  return g.where(g.lt(x, c(x, 0)), g.neg(f), f);
}

export const square = (x: Node): Node => g.mul(x, x);

export const reciprocal = (x: Node): Node => g.div(c(x, 1), x);

export const rsqrt = (x: Node): Node => reciprocal(g.sqrt(x));

/** √x whose gradient at 0 is 0 instead of ∞: PyTorch's choice for std and for norms. */
export function sqrtSafe(x: Node): Node {
  const zero = g.eq(x, c(x, 0));
  return g.where(zero, c(x, 0), g.sqrt(g.where(zero, c(x, 1), x)));
}

/**
 * log(1 + x). With u the rounded 1 + x, log(u) + (x - (u - 1))/u makes up for what the addition
 * lost (Kahan). The correction is rounding noise, not part of the function: detached, the gradient
 * stays 1/(1 + x).
 */
export function log1p(x: Node): Node {
  const one = c(x, 1);
  const u = g.add(x, one);
  const lost = g.div(g.sub(x, g.sub(u, one)), u);
  return g.add(g.log(u), g.detach(g.where(g.lt(g.abs(x), one), lost, c(x, 0))));
}

/**
 * eˣ - 1. Within ±1 Kahan's (u - 1)·x/log(u), u the rounded eˣ; it too enters as a detached
 * correction, so that the gradient is eˣ.
 */
export function expm1(x: Node): Node {
  const one = c(x, 1);
  const u = g.exp(x);
  const rough = g.sub(u, one);
  const exact = g.where(g.eq(u, one), x, g.div(g.mul(rough, x), g.log(u)));
  const near = g.lt(g.abs(x), one);
  return g.add(rough, g.detach(g.where(near, g.sub(exact, rough), c(x, 0))));
}

/**
 * -|x|, whose derivative at 0 is -1: what follows is the smooth continuation of its right-hand
 * branch.
 */
const negAbs = (x: Node, negative: Node): Node => g.where(negative, x, g.neg(x));

/**
 * 1/(1 + e⁻ˣ) for x ≥ 0 and eˣ/(1 + eˣ) below: the exponential never overflows, its tail keeps all
 * digits.
 */
export function sigmoid(x: Node): Node {
  const negative = g.lt(x, c(x, 0));
  const e = g.exp(negAbs(x, negative));
  return g.div(g.where(negative, e, c(x, 1)), g.add(e, c(x, 1)));
}

/** log(sigmoid(x)) = min(x, 0) - log1p(e^-|x|). */
export function logSigmoid(x: Node): Node {
  const negative = g.lt(x, c(x, 0));
  return g.sub(g.where(negative, x, c(x, 0)), log1p(g.exp(negAbs(x, negative))));
}

/** log(1 + e^(βx))/β, and x itself where βx exceeds the threshold. */
export function softplus(x: Node, beta = 1, threshold = 20): Node {
  const z = beta === 1 ? x : g.mul(x, c(x, beta));
  const linear = g.lt(c(x, threshold), z);
  const soft = log1p(g.exp(g.where(linear, c(x, 0), z)));
  return g.where(linear, x, beta === 1 ? soft : g.div(soft, c(x, beta)));
}

/** max(x, 0): the gradient at 0 is 0, and NaN stays NaN. */
export const relu = (x: Node): Node => g.where(g.le(x, c(x, 0)), c(x, 0), x);

/** True where x is neither infinite nor NaN. */
export const isFiniteNode = (x: Node): Node => g.lt(g.abs(x), c(x, Infinity));

/** Casts to bool: x ≠ 0, NaN included. */
export const truth = (x: Node): Node => g.cast(x, "bool");

/** Row number ≥ column number - diagonal: [rows, columns], the mask of tril. */
export function lowerMask(rows: number, columns: number, diagonal = 0): Node {
  const row = g.reshape(g.iota(rows), [rows, 1]);
  const limit = diagonal === 0 ? row : g.add(row, constant(diagonal, "i32"));
  return g.le(g.reshape(g.iota(columns), [1, columns]), limit);
}

/** Elements start … end-1 of one axis. */
export function part(n: Node, axis: number, start: number, end: number): Node {
  const size = n.shape.map((d, i) => (i === axis ? end - start : d));
  return g.slice(
    n,
    size.map((d, i) => (i === axis && d > 0 ? start : 0)),
    size,
  );
}
