/**
 * @file Losses. With class indices the target's log-probability is picked by a masked sum over the
 * classes rather than by a gather: the whole loss is then one pass over each row, forward and
 * backward.
 */
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { formatShape, numel, sameShape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { along } from "./axes.ts";
import { logSigmoid, square } from "./compose.ts";
import {
  describeNode,
  floatNode,
  indexNode,
  inFloat32,
  isHalfTensor,
  nodeOf,
} from "./promotion.ts";
import { logSoftmaxParts } from "./reductions.ts";

/** How the losses of single elements are combined. */
export type Reduction = "mean" | "sum" | "none";

export interface ClassLossOptions {
  /** "mean" (over the targets that are not ignored, weighted), "sum" or "none". */
  reduction?: Reduction;
  /**
   * Targets with this class contribute nothing, neither loss nor gradient. None by default, where PyTorch
   * ignores -100: counting the rest would cost every loss a kernel. A -100 that was meant so gives NaN.
   */
  ignoreIndex?: number;
  /** A factor per class, [C]. */
  weight?: Tensor;
}

export interface CrossEntropyOptions extends ClassLossOptions {
  /**
   * Moves this share of the probability evenly to all classes (Szegedy et al. 2015, arXiv
   * 1512.00567).
   */
  labelSmoothing?: number;
}

export interface ElementLossOptions {
  reduction?: Reduction;
}

export interface BinaryLossOptions extends ElementLossOptions {
  /** A factor per element; broadcasts. */
  weight?: Tensor;
  /** A factor for the positive class; broadcasts. */
  posWeight?: Tensor;
}

/**
 * The cross-entropy between softmax(logits) and the target. logits [C], [N, C] or [N, C, d…];
 * target either class indices (integers, the logits' shape without C) or probabilities (floats, the
 * logits' shape). A class out of range makes the loss NaN.
 */
export function crossEntropy(
  logits: Tensor,
  target: Tensor,
  options: CrossEntropyOptions = {},
): Tensor {
  if (isHalfTensor(logits)) return inFloat32("crossEntropy", crossEntropy, logits, target, options);
  const { reduction = "mean", ignoreIndex, labelSmoothing = 0, weight } = options;
  const x = floatNode("crossEntropy", logits);
  if (!(labelSmoothing >= 0 && labelSmoothing <= 1))
    throw new ArgumentError(
      describe("crossEntropy", "labelSmoothing in 0 … 1", `${labelSmoothing}`),
    );
  const axis = classAxis("crossEntropy", x);
  const { shifted, logTotal } = logSoftmaxParts(x, axis);
  if (isFloat(target.dtype)) {
    if (!sameShape(target.shape, x.shape))
      throw new ShapeError(
        describe(
          "crossEntropy",
          `probabilities ${formatShape(x.shape)}`,
          describeNode(target.node),
        ),
      );
    const p = smoothed(nodeOf("crossEntropy", target), labelSmoothing, x.shape[axis]);
    const w = weight ? g.mul(p, classWeights("crossEntropy", x, axis, weight)) : p;
    // Σ p·(log Σ eˣ - x), not -Σ p·logp: with p = 0 a class of probability 0 adds 0, as long as x
    // is finite.
    const rows = g.sum(g.mul(w, g.sub(logTotal, shifted)), [axis]);
    // Probabilities have no ignored rows: the mean divides by the number of rows.
    return combined("crossEntropy", rows, reduction, g.scalarLike(rows, numel(rows.shape)));
  }
  const parts = { x, axis, logTotal, shifted, labelSmoothing };
  return indexed("crossEntropy", parts, target, { reduction, ignoreIndex, weight });
}

/**
 * The negative log-likelihood: as crossEntropy with class indices, for inputs that are
 * log-probabilities already. A class out of range makes the loss NaN.
 */
export function nllLoss(
  logProbabilities: Tensor,
  target: Tensor,
  options: ClassLossOptions = {},
): Tensor {
  if (isHalfTensor(logProbabilities))
    return inFloat32("nllLoss", nllLoss, logProbabilities, target, options);
  const { reduction = "mean", ignoreIndex, weight } = options;
  const x = floatNode("nllLoss", logProbabilities);
  const axis = classAxis("nllLoss", x);
  const parts = { x, axis, logTotal: null, shifted: x, labelSmoothing: 0 };
  return indexed("nllLoss", parts, target, { reduction, ignoreIndex, weight });
}

/** `(input - target)²`. */
export function mseLoss(input: Tensor, target: Tensor, options: ElementLossOptions = {}): Tensor {
  if (isHalfTensor(input)) return inFloat32("mseLoss", mseLoss, input, target, options);
  return elementLoss("mseLoss", square, input, target, options);
}

/** `|input - target|`. */
export function l1Loss(input: Tensor, target: Tensor, options: ElementLossOptions = {}): Tensor {
  if (isHalfTensor(input)) return inFloat32("l1Loss", l1Loss, input, target, options);
  return elementLoss("l1Loss", g.abs, input, target, options);
}

/**
 * The cross-entropy of sigmoid(input) with targets in 0 … 1, element by element and stable for any
 * input: `-(posWeight·t·log σ(x) + (1 - t)·log σ(-x))`.
 */
export function binaryCrossEntropyWithLogits(
  input: Tensor,
  target: Tensor,
  options: BinaryLossOptions = {},
): Tensor {
  if (isHalfTensor(input))
    return inFloat32(
      "binaryCrossEntropyWithLogits",
      binaryCrossEntropyWithLogits,
      input,
      target,
      options,
    );
  const { reduction = "mean", weight, posWeight } = options;
  const op = "binaryCrossEntropyWithLogits";
  const [x, t] = [floatNode(op, input), floatNode(op, target)];
  sameShapes(op, x, t);
  // log σ(-x) = log σ(x) - x, so one logarithm serves both terms.
  const logP = logSigmoid(x);
  const positive = posWeight ? g.mul(floatNode(op, posWeight), t) : t;
  const negative = g.mul(g.sub(g.scalarLike(t, 1), t), g.sub(logP, x));
  const loss = g.neg(g.add(g.mul(positive, logP), negative));
  const weighted = weight ? g.mul(loss, floatNode(op, weight)) : loss;
  return combined(op, weighted, reduction, g.scalarLike(weighted, numel(weighted.shape)));
}

// --- helpers, on nodes ---------------------------------------------------------------------------

interface Parts {
  readonly x: Node;
  readonly axis: number;
  /** log Σ e^shifted; null where `shifted` is the log-probability itself. */
  readonly logTotal: Node | null;
  readonly shifted: Node;
  readonly labelSmoothing: number;
}

function classAxis(op: string, x: Node): number {
  if (x.shape.length === 0)
    throw new ShapeError(describe(op, "[C], [N, C] or [N, C, d…]", describeNode(x)));
  return x.shape.length === 1 ? 0 : 1;
}

function classWeights(op: string, x: Node, axis: number, weight: Tensor): Node {
  const w = floatNode(op, weight);
  if (!sameShape(w.shape, [x.shape[axis]]))
    throw new ShapeError(describe(op, `a weight [${x.shape[axis]}]`, describeNode(w)));
  return along(w, axis, x.shape.length);
}

const smoothed = (p: Node, amount: number, classes: number): Node =>
  amount === 0
    ? p
    : g.add(
        g.mul(p, g.scalarLike(p, Math.fround(1 - amount))),
        g.scalarLike(p, Math.fround(amount / classes)),
      );

/** The loss with class indices. */
function indexed(
  op: string,
  { x, axis, logTotal, shifted, labelSmoothing }: Parts,
  target: Tensor,
  { reduction = "mean", ignoreIndex, weight }: ClassLossOptions,
): Tensor {
  const t = indexNode(op, target);
  const classes = x.shape[axis];
  const rowShape = x.shape.filter((_, i) => i !== axis);
  if (!sameShape(t.shape, rowShape))
    throw new ShapeError(
      describe(
        op,
        `class indices ${formatShape(rowShape)} for ${describeNode(x)}`,
        describeNode(t),
      ),
    );
  const zero = g.scalarLike(x, 0);
  const column = g.keepdim(t, [axis], x.shape);
  const isTarget = g.eq(along(g.iota(classes), axis, x.shape.length), column);
  const pick = (n: Node): Node => g.sum(g.where(isTarget, n, zero), [axis]);
  const total = logTotal && g.reshape(logTotal, rowShape);
  const minus = (picked: Node): Node => (total ? g.sub(total, picked) : g.neg(picked));

  const w = weight ? classWeights(op, x, axis, weight) : null;
  const rowWeight = w && pick(w);
  let loss = minus(pick(shifted));
  if (rowWeight) loss = g.mul(loss, rowWeight);
  if (labelSmoothing > 0) {
    // The mean over all classes of (weighted) -log p.
    const each = total ? g.sub(logTotal!, shifted) : g.neg(shifted);
    const spread = g.sum(w ? g.mul(each, w) : each, [axis]);
    const keep = g.scalarLike(x, Math.fround(1 - labelSmoothing));
    const share = g.scalarLike(x, Math.fround(labelSmoothing / classes));
    loss = g.add(g.mul(loss, keep), g.mul(spread, share));
  }
  // As unsigned numbers, negative classes are too large as well: one comparison.
  const valid = g.lt(g.bitcast(t, "u32"), constant(classes, "u32"));
  const checked = g.where(valid, loss, g.scalarLike(x, NaN));
  const every = (n: Node): Node => g.sum(n, [...n.shape.keys()]);
  if (ignoreIndex === undefined) {
    const divisor = rowWeight ? every(rowWeight) : g.scalarLike(x, numel(rowShape));
    return combined(op, checked, reduction, divisor);
  }
  const ignore = constant(ignoreIndex, "i32");
  const ignored = g.eq(t, ignore);
  const counted = g.where(ignored, zero, rowWeight ?? g.scalarLike(x, 1));
  return combined(op, g.where(ignored, zero, checked), reduction, every(counted));
}

function sameShapes(op: string, x: Node, t: Node): void {
  if (!sameShape(x.shape, t.shape))
    throw new ShapeError(
      describe(op, "input and target of one shape", `${describeNode(x)}, ${describeNode(t)}`),
    );
}

function elementLoss(
  op: string,
  f: (difference: Node) => Node,
  input: Tensor,
  target: Tensor,
  { reduction = "mean" }: ElementLossOptions,
): Tensor {
  const [x, t] = [floatNode(op, input), floatNode(op, target)];
  if (x.dtype !== t.dtype)
    throw new DTypeError(describe(op, "one dtype", `${describeNode(x)}, ${describeNode(t)}`));
  sameShapes(op, x, t);
  const loss = f(g.sub(x, t));
  return combined(op, loss, reduction, g.scalarLike(loss, numel(loss.shape)));
}

function combined(op: string, loss: Node, reduction: Reduction, divisor: Node): Tensor {
  if (reduction === "none") return fromNode(loss);
  const total = g.sum(loss, [...loss.shape.keys()]);
  if (reduction === "sum") return fromNode(total);
  if (reduction === "mean") return fromNode(g.div(total, divisor));
  throw new ArgumentError(describe(op, "reduction 'mean', 'sum' or 'none'", String(reduction)));
}
