/**
 * @file Systems of equations of linalg and their kin: inverses, determinants, least squares, the
 * pseudo-inverse and the rank.
 */
import { ArgumentError, describe } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { type Shape, sameShape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { matrices, ones, refuseEmpty, sided, square, together } from "./linalg-operands.ts";
import { qrNode, singularValues, svdNode } from "./linalg-orthogonal.ts";
import {
  detNode,
  inverseNode,
  slogdetNode,
  solveNode,
  transposed,
  triangularSolve,
  withGradient,
} from "./linalg-solve.ts";
import { floatNode } from "./promotion.ts";

export interface SolveOptions {
  /** Whether the matrix stands on the left of the unknown; true by default. */
  left?: boolean;
}

/**
 * X of `a·X = b`, or of `X·a = b` with `left: false`: a [*, N, N], b [*, N, K] (on the right [*, K,
 * N]), batches broadcast. b may be vectors [*, N] with a's batch axes. LU with partial pivoting; of
 * a singular a the result is infinite or NaN.
 */
export function solve(a: Tensor, b: Tensor, { left = true }: SolveOptions = {}): Tensor {
  const op = "linalg.solve";
  const [n, m] = [square(op, a).whole, floatNode(op, b)];
  const vector = m.shape.length === 1 || sameShape(m.shape, n.shape.slice(0, -1));
  const columns = vector
    ? g.reshape(m, left ? [...m.shape, 1] : [...m.shape.slice(0, -1), 1, m.shape.at(-1)!])
    : m;
  const x = sided(op, n, columns, left, solveNode);
  return vector ? fromNode(g.reshape(x.node, x.shape.toSpliced(left ? -1 : -2, 1))) : x;
}

export interface TriangularOptions extends SolveOptions {
  /** Which triangle of the matrix holds it; the rest is not read. */
  upper: boolean;
  /** The diagonal counts as ones and is not read. */
  unitriangular?: boolean;
}

/**
 * X of `a·X = b` (or `X·a = b`) with a triangular a [*, N, N]; b as for `solve`, always matrices.
 */
export function solveTriangular(a: Tensor, b: Tensor, options: TriangularOptions): Tensor {
  const op = "linalg.solveTriangular";
  const { upper, left = true, unitriangular = false } = options ?? {};
  if (typeof upper !== "boolean")
    throw new ArgumentError(describe(op, "{ upper: true } or { upper: false }", String(upper)));
  // From the right, the transposed triangle is the other one.
  const shape = { upper: upper === left, unit: unitriangular };
  return sided(op, square(op, a).whole, floatNode(op, b), left, (p, q) =>
    triangularSolve(p, q, shape),
  );
}

/**
 * The inverses of [*, N, N]; infinite or NaN of a singular matrix. To apply one to something,
 * `solve` is better.
 */
export function inv(x: Tensor): Tensor {
  const { node, back } = square("linalg.inv", x);
  return node.shape.includes(0) ? x : back(inverseNode(node));
}

/**
 * The determinants [*] of [*, N, N]. 0 of a singular matrix, whose gradient is the cofactors all
 * the same.
 */
export function det(x: Tensor): Tensor {
  const { node, back } = square("linalg.det", x);
  return back(node.shape[1] === 0 ? ones(node) : detNode(node));
}

/** The sign and log|det| of [*, N, N], each [*]: 0 and -Infinity of a singular matrix. */
export function slogdet(x: Tensor): { sign: Tensor; logabsdet: Tensor } {
  const { node, back } = square("linalg.slogdet", x);
  const empty = node.shape[1] === 0;
  const [sign, logabsdet] = (empty ? [ones(node), g.zerosLike(ones(node))] : slogdetNode(node)).map(
    back,
  );
  return { sign, logabsdet };
}

/**
 * The X for which |a·X - b| is least, a [*, M, N] of full rank, b [*, M, K] or [*, M]; of several
 * (M < N) the shortest. By QR. `residuals` are the squared errors [*, K] for M > N, else empty.
 */
export function lstsq(a: Tensor, b: Tensor): { solution: Tensor; residuals: Tensor } {
  const op = "linalg.lstsq";
  const [n, m] = [matrices(op, a).whole, floatNode(op, b)];
  refuseEmpty(op, n);
  const vector = m.shape.length === n.shape.length - 1;
  const wanted = vector ? g.reshape(m, [...m.shape, 1]) : m;
  const { lead, nodes, sizes } = together(op, n, wanted);
  const [p, q] = nodes;
  const [rows, columns] = sizes;
  const up = { upper: true, unit: false };
  let x: Node;
  if (rows >= columns) {
    const [Q, R] = qrNode(p);
    x = triangularSolve(R, g.dot(transposed(Q), q), up);
  } else {
    const [Q, R] = qrNode(transposed(p));
    x = g.dot(Q, triangularSolve(transposed(R), q, { upper: false, unit: false }));
  }
  const shaped = (y: Node, rest: Shape): Tensor =>
    fromNode(g.reshape(y, [...lead, ...(vector ? rest.slice(0, -1) : rest)]));
  const k = q.shape[2];
  const error = g.sub(q, g.dot(p, x));
  const none = g.slice(q, [0, 0, 0], [q.shape[0], 0, k]);
  const residuals =
    rows > columns
      ? fromNode(g.reshape(g.sum(g.mul(error, error), [1]), [...lead, k]))
      : fromNode(g.reshape(none, [0]));
  return { solution: shaped(x, [columns, k]), residuals };
}

export interface ToleranceOptions {
  /** Singular values up to this count as 0; 0 by default. */
  atol?: number;
  /** The same relative to the largest one; max(M, N)·2⁻²³ by default, and 0 if `atol` is given. */
  rtol?: number;
}

/**
 * The Moore-Penrose inverse [*, N, M] of [*, M, N], from the singular values above the tolerance.
 * Gradient: Golub & Pereyra 1973, for a rank that stays as it is.
 */
export function pinv(x: Tensor, options: ToleranceOptions = {}): Tensor {
  const { node, back } = matrices("linalg.pinv", x);
  refuseEmpty("linalg.pinv", node);
  const invert = (a: Node): Node => {
    const [p] = withGradient(
      "pinv",
      ([a]) => {
        const [u, s, v] = svdNode(a);
        const small = belowTolerance(s, a, options);
        const inverse = g.where(
          small,
          g.scalarLike(s, 0),
          g.div(g.scalarLike(s, 1), g.where(small, g.scalarLike(s, 1), s)),
        );
        return [g.dot(g.mul(v, g.reshape(inverse, [s.shape[0], 1, s.shape[1]])), transposed(u))];
      },
      [a],
      ([a], [outer], [ct]) => {
        const t = transposed;
        const pt = t(outer);
        const ctT = t(ct);
        const first = g.dot(g.dot(pt, ct), pt);
        const left = g.sub(ctT, g.dot(a, g.dot(outer, ctT)));
        const right = g.sub(ctT, g.dot(g.dot(ctT, outer), a));
        const second = g.dot(left, g.dot(outer, pt));
        const third = g.dot(g.dot(pt, outer), right);
        return [g.sub(g.add(second, third), first)];
      },
    );
    return p;
  };
  return back(invert(node));
}

/** The number of singular values above the tolerance, i32 [*], of [*, M, N]. */
export function matrixRank(x: Tensor, options: ToleranceOptions = {}): Tensor {
  const { node, back } = matrices("linalg.matrixRank", x);
  refuseEmpty("linalg.matrixRank", node);
  const small = belowTolerance(singularValues(node), node, options);
  return back(g.sum(g.cast(g.not(small), "i32"), [1]));
}

/** Which singular values, [B, K], count as 0. */
function belowTolerance(s: Node, a: Node, { atol, rtol }: ToleranceOptions): Node {
  const [batch, m, n] = a.shape;
  const relative = rtol ?? (atol === undefined ? Math.max(m, n) * 2 ** -23 : 0);
  const largest = g.reshape(g.amax(s, [1]), [batch, 1]);
  const limit = g.max(g.mul(largest, g.scalarLike(s, relative)), g.scalarLike(s, atol ?? 0));
  return g.le(s, limit);
}
