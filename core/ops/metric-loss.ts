/**
 * @file Similarities and distances of vectors, and the losses made of them: what embeddings are compared and trained with.
 * None is a method.
 */
import { describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { add } from "./arithmetic.ts";
import { axisOf, kept } from "./axes.ts";
import { relu, square } from "./compose.ts";
import { lit } from "./custom.ts";
import { einsum } from "./einsum.ts";
import type { ElementLossOptions } from "./loss.ts";
import { reducedLoss } from "./loss-parts.ts";
import {
  describeNode,
  floatNode,
  floatPair,
  inFloat32,
  isHalfTensor,
  nodeOf,
} from "./promotion.ts";
import { normNode } from "./reductions.ts";

export interface MarginLossOptions extends ElementLossOptions {
  margin?: number;
}

export interface TripletOptions extends MarginLossOptions {
  /** The norm of the distances; 2 by default. */
  p?: number;
  /** Added to differences, so that the gradient of a distance of 0 is finite. */
  eps?: number;
  /** Takes the nearer of anchor and positive to the negative (Balntas et al. 2016). */
  swap?: boolean;
}

/** The cosine of the angle between vectors along `dim`: `x1·x2/(max(|x1|, eps)·max(|x2|, eps))`; they broadcast. */
export function cosineSimilarity(x1: Tensor, x2: Tensor, dim = 1, eps = 1e-8): Tensor {
  if (isHalfTensor(x1)) return inFloat32("cosineSimilarity", cosineSimilarity, x1, x2, dim, eps);
  const [a, b] = floatPair("cosineSimilarity", x1, x2);
  const rank = Math.max(a.shape.length, b.shape.length);
  const axis = axisOf("cosineSimilarity", dim, rank);
  const full = (n: Node): Node =>
    g.reshape(n, [...Array(rank - n.shape.length).fill(1), ...n.shape]);
  const unit = (n: Node): Node => {
    const length = kept(normNode(n, [axis], 2), [axis], n);
    return g.div(n, g.where(g.lt(length, lit(n, eps)), lit(n, eps), length));
  };
  return fromNode(g.sum(g.mul(unit(full(a)), unit(full(b))), [axis]));
}

/** `|x1 - x2 + eps|` in the p-norm along the last axis. */
export function pairwiseDistance(
  x1: Tensor,
  x2: Tensor,
  p = 2,
  eps = 1e-6,
  keepdim = false,
): Tensor {
  if (isHalfTensor(x1))
    return inFloat32("pairwiseDistance", pairwiseDistance, x1, x2, p, eps, keepdim);
  const [a, b] = floatPair("pairwiseDistance", x1, x2);
  const d = g.add(g.sub(a, b), lit(a, eps));
  if (d.shape.length === 0)
    throw new ShapeError(describe("pairwiseDistance", "vectors", describeNode(d)));
  const last = [d.shape.length - 1];
  const length = normNode(d, last, p);
  return fromNode(keepdim ? kept(length, last, d) : length);
}

/** `1 - cos` of the pairs with target 1, `max(0, cos - margin)` of those with target -1. */
export function cosineEmbeddingLoss(
  x1: Tensor,
  x2: Tensor,
  target: Tensor,
  options: MarginLossOptions = {},
): Tensor {
  if (isHalfTensor(x1))
    return inFloat32("cosineEmbeddingLoss", cosineEmbeddingLoss, x1, x2, target, options);
  const { reduction = "mean", margin = 0 } = options;
  const op = "cosineEmbeddingLoss";
  const [a, b] = floatPair(op, x1, x2);
  const t = nodeOf(op, target);
  if (a.shape.length !== t.shape.length + 1 || b.shape.length !== a.shape.length)
    throw new ShapeError(
      describe(
        op,
        "vectors [N, D] and targets [N], or [D] and []",
        [a, b, t].map(describeNode).join(", "),
      ),
    );
  const last = [a.shape.length - 1];
  const total = (n: Node): Node => g.add(g.sum(square(n), last), lit(n, 1e-12));
  const cosine = g.div(g.sum(g.mul(a, b), last), g.sqrt(g.mul(total(a), total(b))));
  const is = (value: number): Node => g.eq(t, g.scalarLike(t, value));
  const apart = relu(g.sub(cosine, lit(cosine, margin)));
  const negative = g.where(is(-1), apart, lit(cosine, 0));
  return reducedLoss(op, g.where(is(1), g.sub(lit(cosine, 1), cosine), negative), reduction);
}

/** `max(0, d(anchor, positive) - d(anchor, negative) + margin)` (Schroff et al. 2015, arXiv 1503.03832). */
export function tripletMarginLoss(
  anchor: Tensor,
  positive: Tensor,
  negative: Tensor,
  options: TripletOptions = {},
): Tensor {
  if (isHalfTensor(anchor))
    return inFloat32("tripletMarginLoss", tripletMarginLoss, anchor, positive, negative, options);
  const { reduction = "mean", margin = 1, p = 2, eps = 1e-6, swap = false } = options;
  const distance = (a: Tensor, b: Tensor): Node => pairwiseDistance(a, b, p, eps).node;
  const near = distance(anchor, positive);
  const own = distance(anchor, negative);
  const far = swap ? g.min(own, distance(positive, negative)) : own;
  const loss = relu(g.add(g.sub(near, far), lit(near, margin)));
  return reducedLoss("tripletMarginLoss", loss, reduction);
}

/** `max(0, -target·(x1 - x2) + margin)`: with target 1, x1 should be the larger one. */
export function marginRankingLoss(
  x1: Tensor,
  x2: Tensor,
  target: Tensor,
  options: MarginLossOptions = {},
): Tensor {
  if (isHalfTensor(x1))
    return inFloat32("marginRankingLoss", marginRankingLoss, x1, x2, target, options);
  const { reduction = "mean", margin = 0 } = options;
  const op = "marginRankingLoss";
  const [a, b] = floatPair(op, x1, x2);
  const difference = g.mul(g.sub(b, a), g.cast(floatNode(op, target), a.dtype));
  return reducedLoss(op, relu(g.add(difference, lit(a, margin))), reduction);
}

/** `x1ᵀ·weight[k]·x2 + bias[k]` for each k: [*, I], [*, J], [K, I, J], [K] → [*, K]. */
export function bilinear(x1: Tensor, x2: Tensor, weight: Tensor, bias?: Tensor | null): Tensor {
  const [a, b, w] = [x1, x2, weight].map((t) => floatNode("bilinear", t));
  const fits =
    w.shape.length === 3 && a.shape.at(-1) === w.shape[1] && b.shape.at(-1) === w.shape[2];
  if (!fits)
    throw new ShapeError(
      describe(
        "bilinear",
        "[*, I], [*, J] and a weight [K, I, J]",
        [a, b, w].map(describeNode).join(", "),
      ),
    );
  const product = einsum("...i,kij,...j->...k", x1, weight, x2);
  return bias ? add(product, fromNode(floatNode("bilinear", bias))) : product;
}
