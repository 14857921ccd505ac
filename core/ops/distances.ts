/**
 * @file Norms of matrices and distances between rows. Every export is also a Tensor method.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { axisOf } from "./axes.ts";
import { sqrtSafe, square } from "./compose.ts";
import { triuIndices } from "./grids.ts";
import { matmulNodes } from "./matmul.ts";
import { describeNode, floatNode, floatPair, inFloat32, isHalfTensor } from "./promotion.ts";
import { normNode } from "./reductions.ts";
import { index } from "./slicing.ts";

/** Which norm of a matrix: Frobenius, the largest (or smallest) sum of |x| of a column (1) or a row (∞). */
export type MatrixNorm = "fro" | 1 | -1 | number;

/** A norm of the matrices in two axes. The orders ±2 and "nuc", of singular values, are linalg.matrixNorm's. */
export function matrixNorm(
  x: Tensor,
  ord: MatrixNorm = "fro",
  dim: readonly [number, number] = [-2, -1],
  keepdim = false,
): Tensor {
  if (isHalfTensor(x)) return inFloat32("matrixNorm", matrixNorm, x, ord, dim, keepdim);
  const n = floatNode("matrixNorm", x);
  const [rows, columns] = dim.map((d) => axisOf("matrixNorm", d, n.shape.length));
  if (rows === columns || n.shape.length < 2)
    throw new ArgumentError(describe("matrixNorm", "two different dims", `[${dim.join(", ")}]`));
  if (ord !== "fro" && Math.abs(ord) !== 1 && Math.abs(ord) !== Infinity)
    throw new ArgumentError(
      describe("matrixNorm", "'fro', 1, -1, Infinity or -Infinity", String(ord)),
    );
  const both = [rows, columns].sort((a, b) => a - b);
  const shape = n.shape.flatMap((d, i) => (both.includes(i) ? (keepdim ? [1] : []) : [d]));
  if (ord === "fro") return fromNode(g.reshape(normNode(n, both, 2), shape));
  const summed = Math.abs(ord) === 1 ? rows : columns;
  const sums = g.sum(g.abs(n), [summed]);
  const other = both.find((a) => a !== summed)!;
  const left = [other > summed ? other - 1 : other];
  return fromNode(g.reshape((ord > 0 ? g.amax : g.amin)(sums, left), shape));
}

/**
 * Distances of all pairs of rows, [..., P, M] and [..., R, M] → [..., P, R], in the p-norm. For p = 2 and more than 25
 * rows the squares are taken apart, |a|² + |b|² - 2·a·b, which is a matrix product but loses digits for near points.
 */
export function cdist(a: Tensor, b: Tensor, p = 2): Tensor {
  if (isHalfTensor(a)) return inFloat32("cdist", cdist, a, b, p);
  const [x, y] = floatPair("cdist", a, b);
  if (x.shape.length < 2 || y.shape.length < 2 || x.shape.at(-1) !== y.shape.at(-1))
    throw new ShapeError(
      describe("cdist", "[..., P, M] and [..., R, M]", `${describeNode(x)}, ${describeNode(y)}`),
    );
  const widened = (n: Node, at: number) =>
    g.reshape(n, n.shape.toSpliced(n.shape.length + at, 0, 1));
  if (p === 2 && (x.shape.at(-2)! > 25 || y.shape.at(-2)! > 25)) {
    const lengths = (n: Node) => g.sum(square(n), [n.shape.length - 1]);
    const turned = g.permute(y, [...y.shape.keys()].map((i) => i + (i < y.shape.length - 2 ? 0 : i === y.shape.length - 1 ? -1 : 1))); // biome-ignore format: one line
    const twice = g.mul(matmulNodes(x, turned), g.scalarLike(x, -2));
    const total = g.add(g.add(widened(lengths(x), 0), widened(lengths(y), -1)), twice);
    return fromNode(sqrtSafe(g.where(g.lt(total, g.scalarLike(x, 0)), g.scalarLike(x, 0), total)));
  }
  const difference = g.sub(widened(x, -1), widened(y, -2));
  return fromNode(normNode(difference, [difference.shape.length - 1], p));
}

/** Distances of all pairs of different rows, [N, M] → [N·(N - 1)/2]: the upper triangle of cdist, row by row. */
export function pdist(x: Tensor, p = 2): Tensor {
  if (isHalfTensor(x)) return inFloat32("pdist", pdist, x, p);
  const n = floatNode("pdist", x);
  if (n.shape.length !== 2) throw new ShapeError(describe("pdist", "[N, M]", describeNode(n)));
  const pairs = triuIndices(n.shape[0], n.shape[0], 1);
  const [a, b] = [index(x, index(pairs, 0)), index(x, index(pairs, 1))];
  return fromNode(normNode(g.sub(a.node, b.node), [1], p));
}
