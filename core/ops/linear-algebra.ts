/**
 * @file Products of matrices and their relatives, and diagonals. Every contraction goes through einsum's grouping
 * or matmul; every export is also a Tensor method.
 */
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { add, mul, sub } from "./arithmetic.ts";
import { axisOf } from "./axes.ts";
import { part } from "./compose.ts";
import { eye } from "./create.ts";
import { einsum } from "./einsum.ts";
import { matmul } from "./matmul.ts";
import { describeNode, inFloat32, isHalfTensor, nodeOf } from "./promotion.ts";
import { diagonal } from "./slicing.ts";

/** Factors of `beta·x + alpha·product`; both 1 by default. With beta 0, x is not read: its NaN do not count. */
export interface ScaledOptions {
  beta?: number;
  alpha?: number;
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/**
 * The sum of products over axes: the last `dims` of a with the first of b, or the listed axes of each, in pairs. The
 * result has a's other axes, then b's.
 */
export function tensordot(
  a: Tensor,
  b: Tensor,
  dims: number | readonly [readonly number[], readonly number[]] = 2,
): Tensor {
  const [m, n] = [nodeOf("tensordot", a).shape.length, nodeOf("tensordot", b).shape.length];
  const range = (count: number, from: number) => Array.from({ length: count }, (_, i) => from + i);
  const [left, right] =
    typeof dims === "number"
      ? [range(dims, m - dims), range(dims, 0)]
      : dims.map((list, i) => list.map((d) => axisOf("tensordot", d, i === 0 ? m : n)));
  if (left.length !== right.length || left.some((d) => d < 0) || right.some((d) => d >= n))
    throw new ArgumentError(
      describe(
        "tensordot",
        "as many axes of a as of b",
        `${JSON.stringify(dims)} for ${m}-d and ${n}-d`,
      ),
    );
  for (const [i, d] of left.entries())
    if (a.shape[d] !== b.shape[right[i]])
      throw new ShapeError(
        describe(
          "tensordot",
          "equal sizes in each pair of axes",
          `${a.shape[d]} and ${b.shape[right[i]]}`,
        ),
      );
  const first = [...letters.slice(0, m)];
  const second = [...letters.slice(m, m + n)].map((l, i) => first[left[right.indexOf(i)]] ?? l);
  const output = [
    ...first.filter((_, i) => !left.includes(i)),
    ...second.filter((_, i) => !right.includes(i)),
  ];
  return einsum(`${first.join("")},${second.join("")}->${output.join("")}`, a, b);
}

/** The sum of products over the last axes; with a 0-d operand the plain product. */
export function inner(a: Tensor, b: Tensor): Tensor {
  const [m, n] = [nodeOf("inner", a), nodeOf("inner", b)];
  if (m.shape.length === 0 || n.shape.length === 0) return mul(a, b);
  return tensordot(a, b, [[-1], [-1]]);
}

/** The Kronecker product: every element of a times the whole of b. The shorter shape gets axes of size 1 in front. */
export function kron(a: Tensor, b: Tensor): Tensor {
  const [m, n] = [nodeOf("kron", a), nodeOf("kron", b)];
  const rank = Math.max(m.shape.length, n.shape.length);
  const full = (x: Node) => [...Array(rank - x.shape.length).fill(1), ...x.shape] as number[];
  const [p, q] = [full(m), full(n)];
  const product = mul(
    fromNode(g.reshape(m, p.flatMap((d) => [d, 1]))),
    fromNode(g.reshape(n, q.flatMap((d) => [1, d]))),
  ); // biome-ignore format: two operands
  return fromNode(g.reshape(product.node, p.map((d, i) => d * q[i]))); // biome-ignore format: one line
}

/** `beta·x + alpha·(a @ b)` with matrices; x broadcasts. */
export function addmm(x: Tensor, a: Tensor, b: Tensor, options: ScaledOptions = {}): Tensor {
  return scaledSum("addmm", x, ranked("addmm", a, 2, b, 2), options);
}

/** `beta·x + alpha·(a @ b)` with a matrix and a vector; x broadcasts. */
export function addmv(x: Tensor, a: Tensor, b: Tensor, options: ScaledOptions = {}): Tensor {
  return scaledSum("addmv", x, ranked("addmv", a, 2, b, 1), options);
}

/** `beta·x + alpha·(a @ b)` with batches of matrices; x broadcasts. */
export function baddbmm(x: Tensor, a: Tensor, b: Tensor, options: ScaledOptions = {}): Tensor {
  return scaledSum("baddbmm", x, ranked("baddbmm", a, 3, b, 3), options);
}

/** `beta·x + alpha·Σ (a @ b)`, summed over the batch; x broadcasts. */
export function addbmm(x: Tensor, a: Tensor, b: Tensor, options: ScaledOptions = {}): Tensor {
  for (const t of [a, b])
    if (nodeOf("addbmm", t).shape.length !== 3)
      throw new ShapeError(describe("addbmm", "batches of matrices", describeNode(t.node)));
  return scaledSum("addbmm", x, einsum("bij,bjk->ik", a, b), options);
}

/** `beta·x + alpha·(a ⊗ b)`, the outer product of two vectors. */
export function addr(x: Tensor, a: Tensor, b: Tensor, options: ScaledOptions = {}): Tensor {
  return scaledSum("addr", x, einsum("i,j->ij", a, b), options);
}

/** The sum of the main diagonal of a matrix. */
export function trace(x: Tensor): Tensor {
  const n = nodeOf("trace", x);
  if (n.shape.length !== 2) throw new ShapeError(describe("trace", "a matrix", describeNode(n)));
  return diagonal(x).sum();
}

/** The matrix with x on a diagonal (x 1-d), or the diagonal of x (x 2-d). */
export function diag(x: Tensor, offset = 0): Tensor {
  const rank = nodeOf("diag", x).shape.length;
  if (rank !== 1 && rank !== 2)
    throw new ShapeError(describe("diag", "one or two axes", describeNode(x.node)));
  return rank === 1 ? diagEmbed(x, offset) : diagonal(x, offset);
}

/** Matrices with the last axis of x on a diagonal; their axes are at dim0 and dim1 of the result. */
export function diagEmbed(x: Tensor, offset = 0, dim0 = -2, dim1 = -1): Tensor {
  const n = nodeOf("diagEmbed", x);
  const rank = n.shape.length + 1;
  const [a, b] = [axisOf("diagEmbed", dim0, rank), axisOf("diagEmbed", dim1, rank)];
  if (a === b || n.shape.length === 0)
    throw new ArgumentError(
      describe("diagEmbed", "an axis and two different dims", `${dim0}, ${dim1}`),
    );
  const length = n.shape.at(-1)!;
  const size = length + Math.abs(offset);
  // Row-major, neighbours on the diagonal are size + 1 apart: rows of size + 1 that start with an element each.
  const lead = n.shape.slice(0, -1);
  const zeros = lead.map(() => 0);
  const rows = g.pad(g.reshape(n, [...lead, length, 1]), [...zeros, 0, 0], [...zeros, 0, size]);
  const flat = g.reshape(rows, [...lead, length * (size + 1)]);
  const start = offset >= 0 ? offset : -offset * size;
  // What is cut off at the end are zeros that belong to rows below the last one.
  const total = size * size;
  const padded = g.pad(
    flat,
    [...zeros, start],
    [...zeros, Math.max(total - start - flat.shape.at(-1)!, 0)],
  );
  const square = g.reshape(g.slice(padded, [...zeros, 0], [...lead, total]), [...lead, size, size]);
  const [first, second] = [lead.length, lead.length + 1];
  const rest = [...lead.keys()];
  const order = Array.from({ length: rank }, (_, i) =>
    i === a ? first : i === b ? second : rest.shift()!,
  );
  return fromNode(g.permute(square, order));
}

/** A square matrix to a power of at least 0, by repeated squaring. */
export function matrixPower(x: Tensor, power: number): Tensor {
  const n = nodeOf("matrixPower", x);
  const [rows, columns] = n.shape.slice(-2);
  if (n.shape.length < 2 || rows !== columns || !(Number.isInteger(power) && power >= 0))
    throw new ArgumentError(
      describe(
        "matrixPower",
        "square matrices and a power of at least 0",
        `${describeNode(n)} to ${power}`,
      ),
    );
  let result: Tensor | null = null;
  for (let bits = power, square = x; bits > 0; bits = Math.floor(bits / 2)) {
    if (bits % 2 === 1) result = result ? matmul(result, square) : square;
    if (bits > 1) square = matmul(square, square);
  }
  return result ?? fromNode(g.expand(g.cast(eye(rows).node, n.dtype), n.shape));
}

/** The vector product along an axis of size 3; the operands broadcast. */
export function cross(a: Tensor, b: Tensor, dim = -1): Tensor {
  const axis = axisOf("cross", dim, Math.max(nodeOf("cross", a).shape.length, 1));
  if (
    a.shape[axis] !== 3 ||
    a.shape.length !== nodeOf("cross", b).shape.length ||
    b.shape[axis] !== 3
  )
    throw new ShapeError(
      describe(
        "cross",
        `axes of size 3 at dim ${dim}`,
        `${describeNode(a.node)}, ${describeNode(b.node)}`,
      ),
    );
  const turned = (x: Tensor, by: number): Tensor =>
    fromNode(g.concat([part(x.node, axis, by, 3), part(x.node, axis, 0, by)], axis));
  return sub(mul(turned(a, 1), turned(b, 2)), mul(turned(a, 2), turned(b, 1)));
}

/** Powers of a vector as columns, [n] → [n, columns]: descending from x^(columns-1), or ascending from 1. */
export function vander(x: Tensor, columns?: number, increasing = false): Tensor {
  const n = nodeOf("vander", x);
  if (n.shape.length !== 1)
    throw new ShapeError(describe("vander", "a 1-d tensor", describeNode(n)));
  const count = columns ?? n.shape[0];
  const column = g.reshape(n, [n.shape[0], 1]);
  const ones = g.fullLike(column, 1);
  const powers = Array.from({ length: count }, () => ones);
  for (let k = 1; k < count; k++) powers[k] = g.mul(powers[k - 1], column);
  if (count === 0) return fromNode(g.slice(column, [0, 0], [n.shape[0], 0]));
  return fromNode(g.concat(increasing ? powers : powers.reverse(), 1));
}

// --- helpers -------------------------------------------------------------------------------------

function ranked(op: string, a: Tensor, rankA: number, b: Tensor, rankB: number): Tensor {
  const [m, n] = [nodeOf(op, a), nodeOf(op, b)];
  if (
    m.shape.length !== rankA ||
    n.shape.length !== rankB ||
    (rankA === 3 && m.shape[0] !== n.shape[0])
  )
    throw new ShapeError(
      describe(
        op,
        `a ${rankA}-d and a ${rankB}-d tensor that fit`,
        `${describeNode(m)}, ${describeNode(n)}`,
      ),
    );
  return matmul(a, b);
}

function scaledSum(op: string, x: Tensor, product: Tensor, options: ScaledOptions): Tensor {
  if (isHalfTensor(product)) return inFloat32(op, scaledSum, op, x, product, options);
  const { beta = 1, alpha = 1 } = options;
  if (!isFloat(product.dtype) && !(Number.isInteger(beta) && Number.isInteger(alpha)))
    throw new DTypeError(describe(op, "integral factors for integers", `${beta}, ${alpha}`));
  const scaled = alpha === 1 ? product : mul(product, alpha);
  if (beta === 0) return scaled;
  return add(scaled, beta === 1 ? x : mul(x, beta));
}
