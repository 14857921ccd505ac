/** @file Losses with a margin and losses of several labels. None is a method. */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { sameShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { logSigmoid, relu, softplus } from "./compose.ts";
import { lit } from "./custom.ts";
import { indexSelectNode } from "./lookup.ts";
import type { ElementLossOptions } from "./loss.ts";
import { lossPair, reducedLoss } from "./loss-parts.ts";
import { type MarginLossOptions, pairwiseDistance } from "./metric-loss.ts";
import {
  describeNode,
  floatNode,
  indexNode,
  inFloat32,
  isHalfTensor,
  nodeOf,
} from "./promotion.ts";
import type { WeightedLossOptions } from "./regression-loss.ts";

export interface MultiMarginOptions extends MarginLossOptions {
  /** The power of each term, 1 (default) or 2. */
  p?: 1 | 2;
  /** A factor per class, [C]. */
  weight?: Tensor;
}

export interface DistanceTripletOptions extends MarginLossOptions {
  /** [N, D], [N, D] → [N]; `pairwiseDistance` by default. */
  distanceFunction?: (a: Tensor, b: Tensor) => Tensor;
  /** Takes the nearer of anchor and positive to the negative. */
  swap?: boolean;
}

/** The input where the target is 1, `max(0, margin - input)` where it is -1. */
export function hingeEmbeddingLoss(
  input: Tensor,
  target: Tensor,
  options: MarginLossOptions = {},
): Tensor {
  if (isHalfTensor(input))
    return inFloat32("hingeEmbeddingLoss", hingeEmbeddingLoss, input, target, options);
  const { margin = 1, reduction = "mean" } = options;
  const x = floatNode("hingeEmbeddingLoss", input);
  const t = nodeOf("hingeEmbeddingLoss", target);
  const is = (value: number): Node => g.eq(t, g.scalarLike(t, value));
  const zero = lit(x, 0);
  // As PyTorch: what is neither 1 nor -1 counts both ways.
  const apart = g.where(is(1), zero, relu(g.sub(lit(x, margin), x)));
  return reducedLoss("hingeEmbeddingLoss", g.add(apart, g.where(is(-1), zero, x)), reduction);
}

/** `log(1 + e^(-target·input))`, targets 1 and -1. */
export function softMarginLoss(
  input: Tensor,
  target: Tensor,
  options: ElementLossOptions = {},
): Tensor {
  if (isHalfTensor(input))
    return inFloat32("softMarginLoss", softMarginLoss, input, target, options);
  const [x, t] = lossPair("softMarginLoss", input, target);
  const loss = softplus(g.neg(g.mul(t, x)));
  return reducedLoss("softMarginLoss", loss, options.reduction ?? "mean");
}

/**
 * The mean over the classes (the last axis) of the binary cross-entropies of logits, times `weight`
 * [C]: `-(t·log σ(x) + (1 - t)·log σ(-x))`.
 */
export function multilabelSoftMarginLoss(
  input: Tensor,
  target: Tensor,
  options: WeightedLossOptions = {},
): Tensor {
  const op = "multilabelSoftMarginLoss";
  if (isHalfTensor(input)) return inFloat32(op, multilabelSoftMarginLoss, input, target, options);
  const { weight, reduction = "mean" } = options;
  const [x, t] = lossPair(op, input, target);
  const no = g.mul(g.sub(lit(t, 1), t), logSigmoid(g.neg(x)));
  const each = g.neg(g.add(g.mul(t, logSigmoid(x)), no));
  const last = x.shape.length - 1;
  if (last < 0) throw new ShapeError(describe(op, "classes on the last axis", describeNode(x)));
  const weighted = weight ? g.mul(each, floatNode(op, weight)) : each;
  const loss = g.div(g.sum(weighted, [last]), lit(x, x.shape[last]));
  return reducedLoss(op, loss, reduction);
}

/**
 * `Σ max(0, margin - x[y] + x[j])^p/C` over the classes j other than the target y, times weight[y].
 * input [N, C] or [C].
 */
export function multiMarginLoss(
  input: Tensor,
  target: Tensor,
  options: MultiMarginOptions = {},
): Tensor {
  const op = "multiMarginLoss";
  if (isHalfTensor(input)) return inFloat32(op, multiMarginLoss, input, target, options);
  const { p = 1, margin = 1, weight, reduction = "mean" } = options;
  if (p !== 1 && p !== 2) throw new ArgumentError(describe(op, "p of 1 or 2", String(p)));
  const { x, t, shape } = classes(op, input, target, 0);
  const [rows, count] = x.shape;
  const y = g.reshape(t, [rows, 1]);
  const excess = relu(g.add(g.sub(x, g.gather(x, y, 1)), lit(x, margin)));
  let each = p === 1 ? excess : g.mul(excess, excess);
  if (weight)
    each = g.mul(each, g.reshape(indexSelectNode(floatNode(op, weight), 0, t), [rows, 1]));
  const others = g.where(g.eq(g.iota(count), y), lit(x, 0), each);
  const loss = g.div(g.sum(others, [1]), lit(x, count));
  return reducedLoss(op, g.reshape(loss, shape), reduction);
}

/**
 * `Σ max(0, 1 - (x[y] - x[j]))/C` over the labels y of an example and the classes j that are none.
 * target, of the input's shape [N, C] or [C], lists the labels; the first -1 ends the list.
 */
export function multilabelMarginLoss(
  input: Tensor,
  target: Tensor,
  options: ElementLossOptions = {},
): Tensor {
  const op = "multilabelMarginLoss";
  if (isHalfTensor(input)) return inFloat32(op, multilabelMarginLoss, input, target, options);
  const { x, t, shape } = classes(op, input, target, 1);
  const [rows, count] = x.shape;
  const [zero, none] = [constant(0, "i32"), constant(-1, "i32")];
  const ended = g.cumulative(g.cast(g.eq(t, none), "i32"), 1, "sum");
  const listed = g.eq(ended, zero);
  const label = g.where(listed, t, zero);
  // [N, label, class]
  const hit = g.and(
    g.eq(g.reshape(label, [rows, count, 1]), g.iota(count)),
    g.reshape(listed, [rows, count, 1]),
  );
  const isLabel = g.reshape(g.amax(g.cast(hit, "i32"), [1]), [rows, 1, count]);
  const own = g.reshape(g.gather(x, label, 1), [rows, count, 1]);
  const excess = relu(g.add(g.sub(g.reshape(x, [rows, 1, count]), own), lit(x, 1)));
  const counts = g.and(g.reshape(listed, [rows, count, 1]), g.eq(isLabel, zero));
  const loss = g.div(g.sum(g.where(counts, excess, lit(x, 0)), [1, 2]), lit(x, count));
  return reducedLoss(op, g.reshape(loss, shape), options.reduction ?? "mean");
}

/** `max(0, d(anchor, positive) - d(anchor, negative) + margin)` with a distance of one's own. */
export function tripletMarginWithDistanceLoss(
  anchor: Tensor,
  positive: Tensor,
  negative: Tensor,
  options: DistanceTripletOptions = {},
): Tensor {
  const { distanceFunction = pairwiseDistance, margin = 1, swap = false } = options;
  const op = "tripletMarginWithDistanceLoss";
  // Only the two tensors: what follows in pairwiseDistance are its own options.
  const distance = (a: Tensor, b: Tensor): Node => floatNode(op, distanceFunction(a, b));
  const near = distance(anchor, positive);
  let far = distance(anchor, negative);
  if (swap) far = g.min(far, distance(positive, negative));
  return reducedLoss(
    op,
    relu(g.add(g.sub(near, far), lit(near, margin))),
    options.reduction ?? "mean",
  );
}

/** Scores [N, C] and integer targets with N and `more` axes; `shape` is that of the losses. */
function classes(op: string, input: Tensor, target: Tensor, more: 0 | 1) {
  const [n, t] = [floatNode(op, input), indexNode(op, target)];
  const lead = n.shape.slice(0, -1);
  const wanted = more ? n.shape : lead;
  // A single example's target may have one element instead of none.
  const single = !more && lead.length === 0 && sameShape(t.shape, [1]);
  if (n.shape.length < 1 || n.shape.length > 2 || !(single || sameShape(t.shape, wanted)))
    throw new ShapeError(
      describe(
        op,
        `scores [N, C] or [C] and targets ${more ? "of that shape" : "[N] or []"}`,
        `${describeNode(n)}, ${describeNode(t)}`,
      ),
    );
  const rows = lead[0] ?? 1;
  const count = n.shape.at(-1)!;
  const x = g.reshape(n, [rows, count]);
  return { x, t: g.reshape(t, more ? [rows, count] : [rows]), shape: lead };
}
