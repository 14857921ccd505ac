/**
 * @file Triangular systems, Cholesky and LU factors and what is made of them, on batches of
 * matrices [B, n, n] of nodes. Each factorisation is one loop over columns or rows (`scan`), so
 * that the number of kernels does not grow with n, and one region whose gradient is the published
 * formula, written in these same functions: it is differentiable again. The public functions
 * are in linalg-systems.ts, linalg-factors.ts and linalg-measures.ts, their checks in linalg-operands.ts.
 */
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant, type Region } from "../graph/primitives.ts";
import { callRegion, parameterLike } from "../transform/closure.ts";
import { scanNodes } from "../transform/scan.ts";
import { lowerMask } from "./compose.ts";

export const transposed = (a: Node): Node => g.permute(a, [0, 2, 1]);

/** The matrix of ones on the diagonal, as a mask [n, n]. */
export const diagonalMask = (n: number): Node =>
  g.eq(g.reshape(g.iota(n), [n, 1]), g.reshape(g.iota(n), [1, n]));

/** [B, n, n] → [B, n] */
export const diagonalOf = (a: Node): Node =>
  g.sum(g.where(diagonalMask(a.shape[1]), a, g.scalarLike(a, 0)), [2]);

/** [B, n] → [B, n, n] */
export const diagonalFrom = (d: Node): Node => {
  const [batch, n] = d.shape;
  return g.where(diagonalMask(n), g.reshape(d, [batch, 1, n]), g.scalarLike(d, 0));
};

/** Batches of identity matrices like a. */
export const identityLike = (a: Node): Node =>
  g.expand(g.cast(diagonalMask(a.shape[2]), a.dtype), [a.shape[0], a.shape[2], a.shape[2]]);

/** The triangle of a batch of square matrices, with or without its diagonal. */
export function triangle(a: Node, upper: boolean, diagonal = true): Node {
  const [, rows, columns] = a.shape;
  const zero = g.scalarLike(a, 0);
  if (upper) return g.where(lowerMask(rows, columns, diagonal ? -1 : 0), zero, a);
  return g.where(lowerMask(rows, columns, diagonal ? 0 : -1), a, zero);
}

/**
 * f as one region with this gradient, which is only built when it is asked for: it may use the
 * function itself, for the transposed matrix. Both must not use nodes from outside.
 */
export function withGradient(
  name: string,
  f: (params: readonly Node[]) => Node[],
  args: readonly Node[],
  vjp: NonNullable<Region["vjp"]>,
): Node[] {
  const params = args.map((a) => parameterLike(a));
  return callRegion({ kind: "custom", name, body: { params, results: f(params) }, vjp }, args);
}

// --- triangular systems --------------------------------------------------------------------------

export interface Triangle {
  readonly upper: boolean;
  /** The diagonal counts as ones, whatever it holds. */
  readonly unit: boolean;
}

/**
 * X of A·X = B, A [B, n, n] triangular (the rest of it is not read), B [B, n, k]. Gradients (Giles
 * 2008): with Y = A⁻ᵀ·X̄, B̄ = Y and Ā = -Y·Xᵀ within the triangle.
 */
export function triangularSolve(a: Node, b: Node, shape: Triangle): Node {
  const { upper, unit } = shape;
  const [x] = withGradient(
    "solveTriangular",
    ([p, q]) => [substituted(p, q, shape)],
    [a, b],
    ([p], [out], [ct]) => {
      const y = triangularSolve(transposed(p), ct, { upper: !upper, unit });
      return [triangle(g.neg(g.dot(y, transposed(out))), upper, !unit), y];
    },
  );
  return x;
}

/** Row after row: xᵢ = (bᵢ - Σ aᵢⱼ·xⱼ)/aᵢᵢ; the rows to come are still 0 in the sum. */
function substituted(a: Node, b: Node, { upper, unit }: Triangle): Node {
  const [batch, n, k] = b.shape;
  const byRow = (m: Node): Node => g.permute(m, [1, 0, 2]);
  const others = byRow(triangle(a, upper, false));
  const pivots = unit
    ? g.fullLike(g.slice(a, [0, 0, 0], [batch, n, 1]), 1)
    : g.reshape(diagonalOf(a), [batch, n, 1]);
  const row = g.reshape(g.iota(n), [n, 1]);
  const { carries } = scanNodes(
    ([x], [i, left, pivot, right]) => {
      const known = g.reshape(g.dot(g.reshape(left, [batch, 1, n]), x), [batch, k]);
      const value = g.div(g.sub(right, known), pivot);
      return { carries: [g.where(g.eq(row, i), g.reshape(value, [batch, 1, k]), x)], ys: [] };
    },
    [g.zerosLike(b)],
    [g.iota(n), others, byRow(pivots), byRow(b)],
    upper,
  );
  return carries[0];
}

// --- Cholesky ------------------------------------------------------------------------------------

/**
 * The lower L of A = L·Lᵀ, of which only A's lower triangle is read; NaN from the column on where A
 * is not positive definite. Gradient (Murray 2016, arXiv 1602.07527): Ā = L⁻ᵀ·S·L⁻¹, S the
 * symmetric half of Lᵀ·L̄'s lower triangle.
 */
export function choleskyNode(a: Node): Node {
  const [l] = withGradient(
    "cholesky",
    ([p]) => [choleskyColumns(p)],
    [a],
    (_, [out], [ct]) => {
      const product = triangle(g.dot(transposed(out), ct), false);
      // Below the diagonal half of it, on the diagonal half of it from both triangles.
      const below = triangle(product, false, false);
      const both = g.add(product, transposed(below));
      const s = g.mul(both, g.scalarLike(both, 0.5));
      const up = { upper: true, unit: false };
      const left = triangularSolve(transposed(out), s, up);
      // (left · L⁻¹)ᵀ = L⁻ᵀ · leftᵀ
      return [transposed(triangularSolve(transposed(out), transposed(left), up))];
    },
  );
  return l;
}

/** Column after column of L, each taken off the rest of A as an outer product. */
function choleskyColumns(a: Node): Node {
  const [batch, n] = a.shape;
  const row = g.iota(n);
  const zero = g.scalarLike(a, 0);
  const { ys } = scanNodes(
    ([rest], [k]) => {
      const column = columnAt(rest, k);
      const root = g.sqrt(valueAt(column, k));
      const below = g.div(column, root);
      const l = g.where(g.lt(row, k), zero, g.where(g.eq(row, k), root, below));
      const taken = g.mul(g.reshape(l, [batch, n, 1]), g.reshape(l, [batch, 1, n]));
      return { carries: [g.sub(rest, taken)], ys: [l] };
    },
    [a],
    [g.iota(n)],
  );
  return g.permute(ys[0], [1, 2, 0]);
}

/** Column k (an i32 scalar) of [B, m, n]: [B, m]. */
export const columnAt = (a: Node, k: Node): Node => {
  const [batch, m] = a.shape;
  const zero = constant(0, "i32");
  return g.reshape(g.dynamicSlice(a, [zero, zero, k], [batch, m, 1]), [batch, m]);
};

/** Element k of each line of [B, n]: [B, 1]. */
export const valueAt = (line: Node, k: Node): Node => {
  const here = g.where(g.eq(g.iota(line.shape[1]), k), line, g.scalarLike(line, 0));
  return g.reshape(g.sum(here, [1]), [line.shape[0], 1]);
};

// --- LU ------------------------------------------------------------------------------------------

export interface Factors {
  /** U in the upper triangle, L without its ones below: [B, n, n]. */
  readonly lu: Node;
  /** Row i of L·U is row order[i] of A: i32 [B, n]. */
  readonly order: Node;
  /** The permutation's sign, ±1: [B]. */
  readonly sign: Node;
}

/**
 * L·U of A with its rows in another order: partial pivoting, as LAPACK's getrf. A column without a
 * pivot leaves a 0 on U's diagonal and goes on.
 */
export function luNode(a: Node): Factors {
  const [batch, n] = a.shape;
  const row = g.iota(n);
  const zero = g.scalarLike(a, 0);
  const { carries } = scanNodes(
    ([rest, order, sign], [k]) => {
      const size = g.where(g.lt(row, k), g.scalarLike(a, -1), g.abs(columnAt(rest, k)));
      const best = g.reshape(g.argmax(size, 1), [batch, 1]);
      const from = g.where(g.eq(row, k), best, g.where(g.eq(row, best), k, row));
      const swapped = g.gather(rest, g.expand(g.reshape(from, [batch, n, 1]), [batch, n, n]), 1);
      const column = columnAt(swapped, k);
      const pivot = valueAt(column, k);
      const none = g.eq(pivot, zero);
      const factor = g.div(column, g.where(none, g.scalarLike(a, 1), pivot));
      const below = g.reshape(g.lt(k, row), [n, 1]);
      const l = g.reshape(factor, [batch, n, 1]);
      const start = constant(0, "i32");
      const top = g.dynamicSlice(swapped, [start, k, start], [batch, 1, n]);
      const less = g.sub(swapped, g.mul(l, top));
      const right = g.where(g.lt(k, row), less, g.where(g.eq(row, k), l, swapped));
      return {
        carries: [
          g.where(below, right, swapped),
          g.gather(order, from, 1),
          g.where(g.eq(g.reshape(best, [batch]), k), sign, g.neg(sign)),
        ],
        ys: [],
      };
    },
    [a, g.expand(row, [batch, n]), g.expand(g.scalarLike(a, 1), [batch])],
    [g.iota(n)],
  );
  return { lu: carries[0], order: carries[1], sign: carries[2] };
}

function solveFactored({ lu, order }: Factors, b: Node): Node {
  const rows = g.gather(b, g.expand(g.reshape(order, [...order.shape, 1]), b.shape), 1);
  const y = triangularSolve(lu, rows, { upper: false, unit: true });
  return triangularSolve(lu, y, { upper: true, unit: false });
}

/** X of A·X = B, [B, n, n] and [B, n, k]. Gradients: B̄ = A⁻ᵀ·X̄, Ā = -B̄·Xᵀ (Giles 2008). */
export function solveNode(a: Node, b: Node): Node {
  const [x] = withGradient(
    "solve",
    ([p, q]) => [solveFactored(luNode(p), q)],
    [a, b],
    ([p], [out], [ct]) => {
      const y = solveNode(transposed(p), ct);
      return [g.neg(g.dot(y, transposed(out))), y];
    },
  );
  return x;
}

export const inverseNode = (a: Node): Node => solveNode(a, identityLike(a));

/**
 * The determinants [B]. Gradient (Jacobi): the matrix of cofactors, det·A⁻ᵀ; where the determinant
 * is 0 it is made from the factors with 2⁻⁴⁰ for each 0 on U's diagonal, whose error is of that
 * size.
 */
export function detNode(a: Node): Node {
  const [batch] = a.shape;
  const [out] = withGradient(
    "det",
    ([p]) => {
      const { lu, sign } = luNode(p);
      return [g.mul(sign, g.prod(diagonalOf(lu), [1]))];
    },
    [a],
    ([p], [det], [ct]) => {
      const zero = g.scalarLike(p, 0);
      const each = (x: Node): Node => g.reshape(x, [batch, 1, 1]);
      const singular = g.eq(det, zero);
      const regular = g.mul(each(det), transposed(inverseNode(p)));
      const factors = luNode(p);
      const lacking = diagonalFrom(g.cast(g.eq(diagonalOf(factors.lu), zero), p.dtype));
      const lu = g.add(factors.lu, g.mul(lacking, g.scalarLike(p, 2 ** -40)));
      const near = g.mul(factors.sign, g.prod(diagonalOf(lu), [1]));
      const inverse = solveFactored({ ...factors, lu }, identityLike(p));
      const limit = g.detach(g.mul(each(near), transposed(inverse)));
      return [g.mul(each(ct), g.where(each(singular), limit, regular))];
    },
  );
  return out;
}

/** The sign and log|det|, each [B]: 0 and -∞ of a singular matrix. Gradient of the latter: A⁻ᵀ. */
export function slogdetNode(a: Node): [sign: Node, logarithm: Node] {
  const [batch] = a.shape;
  const [sign, logarithm] = withGradient(
    "slogdet",
    ([p]) => {
      const { lu, sign } = luNode(p);
      const d = diagonalOf(lu);
      const zero = g.scalarLike(d, 0);
      const one = g.scalarLike(d, 1);
      const signs = g.where(g.lt(d, zero), g.neg(one), g.where(g.lt(zero, d), one, d));
      return [g.mul(sign, g.prod(signs, [1])), g.sum(g.log(g.abs(d)), [1])];
    },
    [a],
    ([p], _, [, ct]) => [g.mul(g.reshape(ct, [batch, 1, 1]), transposed(inverseNode(p)))],
  );
  return [sign, logarithm];
}
