/**
 * @file What the functions of linalg share: batches of matrices as [B, M, N] and back, and what is
 * refused. Halves are, as in PyTorch.
 */
import { isHalf } from "../dtype.ts";
import { DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { broadcast, numel } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { describeNode, floatNode } from "./promotion.ts";

export interface Matrices {
  /** As given, and as [B, M, N]. */
  readonly whole: Node;
  readonly node: Node;
  /** [B, …] with the batch axes of x again. */
  back(n: Node): Tensor;
}

export function matrices(op: string, x: Tensor): Matrices {
  const whole = floatNode(op, x);
  if (isHalf(whole.dtype))
    throw new DTypeError(
      describe(op, "f32", describeNode(whole), "convert it with .float() first"),
    );
  if (whole.shape.length < 2)
    throw new ShapeError(describe(op, "matrices [*, M, N]", describeNode(whole)));
  const lead = whole.shape.slice(0, -2);
  const node = g.reshape(whole, [numel(lead), ...whole.shape.slice(-2)]);
  return { whole, node, back: (n) => fromNode(g.reshape(n, [...lead, ...n.shape.slice(1)])) };
}

export function square(op: string, x: Tensor): Matrices {
  const found = matrices(op, x);
  const [, m, n] = found.node.shape;
  if (m !== n)
    throw new ShapeError(describe(op, "square matrices [*, N, N]", describeNode(found.whole)));
  return found;
}

export function refuseEmpty(op: string, n: Node): void {
  if (n.shape.includes(0))
    throw new ShapeError(describe(op, "matrices that are not empty", describeNode(n)));
}

/** 1 for each matrix of the batch. */
export const ones = (n: Node): Node => g.expand(g.scalarLike(n, 1), [n.shape[0]]);

/** Two batches of matrices as [B, …], B their common batch. */
export function together(op: string, a: Node, b: Node) {
  const lead = b.shape.length < 2 ? null : broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const sizes = a.shape.slice(-2);
  if (!lead || b.shape.at(-2) !== sizes[0] || b.dtype !== a.dtype)
    throw new ShapeError(
      describe(
        op,
        "matrices [*, M, N] and [*, M, K] of one dtype",
        `${describeNode(a)}, ${describeNode(b)}`,
      ),
    );
  const nodes = [a, b].map((m) => {
    const size = m.shape.slice(-2);
    return g.reshape(g.expand(m, [...lead, ...size]), [numel(lead), ...size]);
  });
  return { lead, sizes, nodes };
}

/** X of a·X = b by `f`, or of X·a = b as its transpose. */
export function sided(
  op: string,
  a: Node,
  b: Node,
  left: boolean,
  f: (a: Node, b: Node) => Node,
): Tensor {
  const flipped = (m: Node): Node => {
    const rank = m.shape.length;
    if (left || rank < 2) return m;
    return g.permute(m, [...[...m.shape.keys()].slice(0, -2), rank - 1, rank - 2]);
  };
  const { lead, nodes } = together(op, flipped(a), flipped(b));
  const [p, q] = nodes;
  const x = q.shape.includes(0) ? q : f(p, q);
  return fromNode(flipped(g.reshape(x, [...lead, ...x.shape.slice(1)])));
}
