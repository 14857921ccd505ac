/** @file Norms, conditions, powers and the exponential of matrices, and tensors as matrices, of linalg. */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { numel, sameShape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { scanNodes } from "../transform/scan.ts";
import { axisOf, type Dim } from "./axes.ts";
import { matrixNorm as plainNorm } from "./distances.ts";
import { svdvals } from "./linalg-factors.ts";
import { matrices, refuseEmpty, square } from "./linalg-operands.ts";
import { singularValues } from "./linalg-orthogonal.ts";
import { identityLike } from "./linalg-solve.ts";
import { inv, solve } from "./linalg-systems.ts";
import { matrixPower as plainPower } from "./linear-algebra.ts";
import { describeNode, floatNode } from "./promotion.ts";
import { norm as plainVectorNorm } from "./reduce.ts";

/** The p-norm of the vectors along `dim`, of all elements by default. */
export function vectorNorm(x: Tensor, ord = 2, dim?: Dim, keepdim = false): Tensor {
  return plainVectorNorm(x, ord, dim, keepdim);
}

/**
 * The norm of vectors or matrices, as `dim` says: one axis or two. Without `dim` that of a vector
 * or matrix x; without `ord` too, the root of the sum of all squares.
 */
export function norm(x: Tensor, ord?: LinalgNorm, dim?: Dim, keepdim = false): Tensor {
  const axes = dim === undefined ? undefined : [dim].flat();
  if (ord === undefined && axes?.length !== 2) return vectorNorm(x, 2, dim, keepdim);
  const count = axes ? axes.length : floatNode("linalg.norm", x).shape.length;
  if (count === 2) return matrixNorm(x, ord, (axes as [number, number]) ?? [-2, -1], keepdim);
  if (count !== 1 || typeof ord !== "number")
    throw new ArgumentError(
      describe(
        "linalg.norm",
        "one or two dims, and a number as the ord of a vector",
        `${ord} for ${count}`,
      ),
    );
  return vectorNorm(x, ord, dim, keepdim);
}

export type LinalgNorm = "fro" | "nuc" | number;

/**
 * A norm of the matrices in two axes: "fro", "nuc" (the sum of the singular values), the largest or
 * smallest one (2, -2), or the largest or smallest sum of |x| of a column (1, -1) or a row (∞, -∞).
 */
export function matrixNorm(
  x: Tensor,
  ord: LinalgNorm = "fro",
  dim: readonly [number, number] = [-2, -1],
  keepdim = false,
): Tensor {
  if (ord !== "nuc" && Math.abs(ord as number) !== 2)
    return plainNorm(x, ord as "fro", dim, keepdim);
  const op = "linalg.matrixNorm";
  const n = floatNode(op, x);
  const axes = dim.map((d) => axisOf(op, d, n.shape.length));
  const rest = [...n.shape.keys()].filter((a) => !axes.includes(a));
  if (rest.length !== n.shape.length - 2)
    throw new ArgumentError(describe(op, "two different dims", `[${dim.join(", ")}]`));
  const { node, back } = matrices(op, fromNode(g.permute(n, [...rest, ...axes])));
  refuseEmpty(op, node);
  const s = singularValues(node);
  const value = back(ord === "nuc" ? g.sum(s, [1]) : ord === 2 ? g.amax(s, [1]) : g.amin(s, [1]));
  if (!keepdim) return value;
  return fromNode(
    g.reshape(
      value.node,
      n.shape.map((d, i) => (axes.includes(i) ? 1 : d)),
    ),
  );
}

/**
 * The condition number |x|·|x⁻¹| in a matrix norm; the ratio of the largest to the smallest
 * singular value (of [*, M, N]) by default.
 */
export function cond(x: Tensor, p: LinalgNorm = 2): Tensor {
  if (Math.abs(p as number) !== 2) return matrixNorm(x, p).mul(matrixNorm(inv(x), p));
  const s = svdvals(x);
  const [first, last] = [s.select(-1, 0), s.select(-1, -1)];
  return p === 2 ? first.div(last) : last.div(first);
}

/**
 * Square matrices [*, N, N] to an integral power, by repeated squaring; a negative one of the
 * inverse.
 */
export function matrixPower(x: Tensor, power: number): Tensor {
  return power < 0 ? plainPower(inv(x), -power) : plainPower(x, power);
}

/**
 * e^x of [*, N, N]: the Taylor polynomial of x/2ˢ, whose norm is at most 1/2, squared s times
 * (Moler & Van Loan 2003); s is at most 25. An error grows with the norm, as in every method of
 * this kind.
 */
export function matrixExp(x: Tensor): Tensor {
  const { node, back } = square("linalg.matrixExp", x);
  if (node.shape.includes(0)) return x;
  return back(exponential(node));
}

/** The sum of products along `dim` (the last by default); the operands broadcast. */
export function vecdot(a: Tensor, b: Tensor, dim = -1): Tensor {
  return a.mul(b).sum(dim);
}

/**
 * The inverse under `tensordot`: x [*a, *b] with as many elements in a (its first `ind` axes) as in
 * b → [*b, *a].
 */
export function tensorinv(x: Tensor, ind = 2): Tensor {
  const { shape } = x;
  const [first, rest] = [shape.slice(0, ind), shape.slice(ind)];
  if (!(Number.isInteger(ind) && ind > 0) || numel(first) !== numel(rest))
    throw new ShapeError(
      describe(
        "linalg.tensorinv",
        "as many elements in the first axes as in the others",
        `ind ${ind} of ${describeNode(x.node)}`,
      ),
    );
  return inv(x.reshape([numel(first), numel(rest)])).reshape([...rest, ...first]);
}

/** X for which `tensordot(a, X, X.ndim) = b`: a [*b, *X] with as many elements in X as in b. */
export function tensorsolve(a: Tensor, b: Tensor): Tensor {
  const rest = a.shape.slice(b.shape.length);
  const count = numel(b.shape);
  if (!sameShape(a.shape.slice(0, b.shape.length), b.shape) || numel(rest) !== count)
    throw new ShapeError(
      describe(
        "linalg.tensorsolve",
        "[*b, *X] and [*b] with as many elements in X as in b",
        `${describeNode(a.node)}, ${describeNode(b.node)}`,
      ),
    );
  return solve(a.reshape([count, count]), b.reshape([count])).reshape(rest);
}

/** Squarings: a norm of 2²⁴ overflows, or if it does not, has no digits left. */
const squarings = 25;

function exponential(a: Node): Node {
  const [batch] = a.shape;
  const scalar = (v: Node): Node => g.reshape(v, [batch, 1, 1]);
  const size = g.detach(scalar(g.amax(g.sum(g.abs(a), [1]), [1])));
  // The first power of two that brings the norm below 1/2, counted by comparisons: exact, unlike a
  // logarithm.
  const powers = Array.from({ length: squarings }, (_, s) => 2 ** (s - 1));
  const each = (p: number): Node => g.lt(g.scalarLike(a, p), size);
  const count = powers.map((p) => g.cast(each(p), "i32")).reduce((x, y) => g.add(x, y));
  const factor = powers
    .map((p) => g.where(each(p), g.scalarLike(a, 0.5), g.scalarLike(a, 1)))
    .reduce((x, y) => g.mul(x, y));
  const small = g.mul(a, factor);
  const one = identityLike(a);
  // Horner: 1 + x(1 + x/2(1 + x/3(…))); 2⁻⁹/9! is below f32's resolution.
  let sum = one;
  for (let k = 8; k >= 1; k--)
    sum = g.add(one, g.mul(g.dot(small, sum), g.scalarLike(a, Math.fround(1 / k))));
  const { carries } = scanNodes(
    ([y], [s]) => ({ carries: [g.where(g.lt(s, count), g.dot(y, y), y)], ys: [] }),
    [sum],
    [g.iota(squarings)],
  );
  return carries[0];
}
