/**
 * @file Matrix products. The primitive is [B, M, K]·[B, K, N]; what happens here is finding B, M, K
 * and N in PyTorch's rules. A batch that only the left operand has becomes rows (x[..., D] @ W[D,
 * N] is one product with B = 1). Every export is also a Tensor method.
 */
import { isFloat } from "../dtype.ts";
import { DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { broadcast, numel, type Shape, sameShape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { describeNode, nodeOf, widest } from "./promotion.ts";

/**
 * The matrix product with PyTorch's rules: 1-d · 1-d is a scalar; a 1-d operand is a row on the
 * left, a column on the right, and its axis disappears; leading axes are batches and broadcast.
 * [..., M, K] @ [..., K, N] → [..., M, N].
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  const [x, y] = operands("matmul", a, b);
  return fromNode(matmulNodes(x, y));
}

/** [M, K] @ [K, N] → [M, N]. */
export function mm(a: Tensor, b: Tensor): Tensor {
  return ranked("mm", a, b, 2, 2);
}

/** [B, M, K] @ [B, K, N] → [B, M, N], without broadcasting. */
export function bmm(a: Tensor, b: Tensor): Tensor {
  const [x, y] = [nodeOf("bmm", a), nodeOf("bmm", b)];
  if (x.shape[0] !== y.shape[0])
    throw new ShapeError(
      describe(
        "bmm",
        "equal batches",
        `${describeNode(x)}, ${describeNode(y)}`,
        "matmul broadcasts",
      ),
    );
  return ranked("bmm", a, b, 3, 3);
}

/** [M, K] @ [K] → [M]. */
export function mv(a: Tensor, b: Tensor): Tensor {
  return ranked("mv", a, b, 2, 1);
}

/** [K] · [K] → 0-d. */
export function dot(a: Tensor, b: Tensor): Tensor {
  return ranked("dot", a, b, 1, 1);
}

/** [M], [N] → [M, N], all products. */
export function outer(a: Tensor, b: Tensor): Tensor {
  const [x, y] = operands("outer", a, b);
  if (x.shape.length !== 1 || y.shape.length !== 1)
    throw new ShapeError(
      describe("outer", "two 1-d tensors", `${describeNode(x)}, ${describeNode(y)}`),
    );
  return fromNode(g.mul(g.reshape(x, [x.shape[0], 1]), g.reshape(y, [1, y.shape[0]])));
}

/** `x @ weightᵀ + bias`: x [..., in], weight [out, in], bias [out] → [..., out]. */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor | null): Tensor {
  const [n, w] = operands("linear", x, weight);
  if (w.shape.length > 2 || w.shape.length === 0 || n.shape.at(-1) !== w.shape.at(-1))
    throw new ShapeError(
      describe(
        "linear",
        "an input [..., in] and a weight [out, in]",
        `${describeNode(n)}, ${describeNode(w)}`,
      ),
    );
  const product = matmulNodes(n, w.shape.length === 2 ? g.permute(w, [1, 0]) : w);
  if (!bias) return fromNode(product);
  const b = nodeOf("linear", bias);
  if (b.dtype !== product.dtype || !broadcastsTo(b.shape, product.shape))
    throw new ShapeError(
      describe("linear", `a bias [${w.shape[0]}] of ${product.dtype}`, describeNode(b)),
    );
  return fromNode(g.add(product, b));
}

// --- on nodes ------------------------------------------------------------------------------------

/** The product of nodes of one dtype under matmul's rules. */
export function matmulNodes(x: Node, y: Node): Node {
  const mismatch = (): never => {
    throw new ShapeError(
      describe(
        "matmul",
        "[..., M, K] @ [..., K, N]",
        `${describeNode(x)} @ ${describeNode(y)}`,
        "the last axis of the left operand meets the last but one of the right",
      ),
    );
  };
  if (x.shape.length === 0 || y.shape.length === 0) return mismatch();
  const a = x.shape.length === 1 ? [1, x.shape[0]] : x.shape;
  const b = y.shape.length === 1 ? [y.shape[0], 1] : y.shape;
  const [m, k] = a.slice(-2);
  const n = b.at(-1)!;
  if (b.at(-2) !== k) return mismatch();
  const [leadA, leadB] = [a.slice(0, -2), b.slice(0, -2)];
  const lead = broadcast(leadA, leadB);
  if (!lead) return mismatch();
  const rows = x.shape.length === 1 ? [] : [m];
  const columns = y.shape.length === 1 ? [] : [n];
  return g.reshape(batched(x, y, { lead, leadA, leadB, m, k, n }), [...lead, ...rows, ...columns]);
}

interface Sizes {
  lead: Shape;
  leadA: Shape;
  leadB: Shape;
  m: number;
  k: number;
  n: number;
}

/** The product as [B, M, N], with as much of the batch as possible in M. */
function batched(x: Node, y: Node, { lead, leadA, leadB, m, k, n }: Sizes): Node {
  if (numel(leadB) === 1 && leadB.every((d) => d === 1)) {
    const rows = numel(lead) * m;
    return g.dot(g.reshape(x, [1, rows, k]), g.reshape(y, [1, k, n]));
  }
  const spread = (z: Node, own: Shape, r: number, c: number): Node => {
    const shaped = sameShape(own, lead)
      ? z
      : g.expand(g.reshape(z, [...own, r, c]), [...lead, r, c]);
    return g.reshape(shaped, [numel(lead), r, c]);
  };
  return g.dot(spread(x, leadA, m, k), spread(y, leadB, k, n));
}

function operands(op: string, a: Tensor, b: Tensor): [Node, Node] {
  const [x, y] = widest(op, nodeOf(op, a), nodeOf(op, b));
  if (x.dtype !== y.dtype || x.dtype === "bool")
    throw new DTypeError(
      describe(
        op,
        "numeric operands of one dtype",
        `${describeNode(x)}, ${describeNode(y)}`,
        isFloat(x.dtype) || isFloat(y.dtype) ? "convert the other one with .float()" : undefined,
      ),
    );
  return [x, y];
}

function ranked(op: string, a: Tensor, b: Tensor, rankA: number, rankB: number): Tensor {
  const [x, y] = operands(op, a, b);
  if (
    x.shape.length !== rankA ||
    y.shape.length !== rankB ||
    x.shape.at(-1) !== y.shape.at(rankB === 1 ? 0 : -2)
  )
    throw new ShapeError(
      describe(
        op,
        `a ${rankA}-d and a ${rankB}-d tensor that fit`,
        `${describeNode(x)}, ${describeNode(y)}`,
      ),
    );
  return fromNode(matmulNodes(x, y));
}

const broadcastsTo = (from: Shape, to: Shape): boolean => {
  const shape = broadcast(from, to);
  return shape !== null && sameShape(shape, to);
};
