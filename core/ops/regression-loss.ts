/**
 * @file Losses element by element beyond the squared and absolute difference: robust ones and negative log-likelihoods.
 * All reduce by their mean unless asked otherwise. None is a method.
 */
import { describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { formatShape, sameShape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { square } from "./compose.ts";
import { lit, withPartials, xlogyNode } from "./custom.ts";
import type { ElementLossOptions, Reduction } from "./loss.ts";
import { lossPair, reducedLoss } from "./loss-parts.ts";
import { describeNode, floatNode, inFloat32, isHalfTensor } from "./promotion.ts";

export interface SmoothL1Options extends ElementLossOptions {
  /** Where the square becomes linear; 1 by default. With 0 it is the l1Loss. */
  beta?: number;
}

export interface HuberOptions extends ElementLossOptions {
  /** Where the square becomes linear; 1 by default. */
  delta?: number;
}

export interface KlDivOptions {
  /** As for other losses, or "batchmean": the sum divided by the first axis, the divergence's definition. */
  reduction?: Reduction | "batchmean";
  /** Whether the target holds log-probabilities. */
  logTarget?: boolean;
}

export interface WeightedLossOptions extends ElementLossOptions {
  /** A factor per element; broadcasts. */
  weight?: Tensor;
}

export interface PoissonOptions extends ElementLossOptions {
  /** Whether the input is the logarithm of the rate; true by default. */
  logInput?: boolean;
  /** Whether to add Stirling's approximation of log(target!). */
  full?: boolean;
  /** Keeps the logarithm of a rate of 0 finite. */
  eps?: number;
}

export interface GaussianOptions extends ElementLossOptions {
  /** Whether to add the constant log(2π)/2. */
  full?: boolean;
  /** The least variance. */
  eps?: number;
}

/** `d²/(2·beta)` where |d| < beta, `|d| - beta/2` elsewhere, of `d = input - target`. */
export function smoothL1Loss(input: Tensor, target: Tensor, options: SmoothL1Options = {}): Tensor {
  if (isHalfTensor(input)) return inFloat32("smoothL1Loss", smoothL1Loss, input, target, options);
  const { reduction = "mean", beta = 1 } = options;
  const op = "smoothL1Loss";
  const d = g.sub(...lossPair(op, input, target));
  if (beta === 0) return reducedLoss(op, g.abs(d), reduction);
  const size = g.abs(d);
  const inside = g.mul(square(d), lit(d, 0.5 / beta));
  const outside = g.sub(size, lit(d, beta / 2));
  return reducedLoss(op, g.where(g.lt(size, lit(d, beta)), inside, outside), reduction);
}

/** `d²/2` where |d| ≤ delta, `delta·(|d| - delta/2)` elsewhere (Huber 1964). */
export function huberLoss(input: Tensor, target: Tensor, options: HuberOptions = {}): Tensor {
  if (isHalfTensor(input)) return inFloat32("huberLoss", huberLoss, input, target, options);
  const { reduction = "mean", delta = 1 } = options;
  const d = g.sub(...lossPair("huberLoss", input, target));
  const size = g.abs(d);
  const inside = g.mul(square(d), lit(d, 0.5));
  const outside = g.mul(g.sub(size, lit(d, delta / 2)), lit(d, delta));
  return reducedLoss("huberLoss", g.where(g.le(size, lit(d, delta)), inside, outside), reduction);
}

/**
 * The Kullback-Leibler divergence of the target from the input, which holds log-probabilities:
 * `target·(log target - input)`. A target of 0 contributes 0.
 */
export function klDiv(input: Tensor, target: Tensor, options: KlDivOptions = {}): Tensor {
  if (isHalfTensor(input)) return inFloat32("klDiv", klDiv, input, target, options);
  const { reduction = "mean", logTarget = false } = options;
  const [x, t] = lossPair("klDiv", input, target);
  const loss = logTarget ? g.mul(g.exp(t), g.sub(t, x)) : g.sub(xlogyNode(t, t), g.mul(t, x));
  if (reduction !== "batchmean") return reducedLoss("klDiv", loss, reduction);
  const rows = x.shape[0] ?? 1;
  return fromNode(g.div(reducedLoss("klDiv", loss, "sum").node, lit(x, rows)));
}

/**
 * The cross-entropy of probabilities with targets in 0 … 1: `-(t·log x + (1 - t)·log(1 - x))`, with logarithms of at least
 * -100. For logits use binaryCrossEntropyWithLogits, which loses nothing near 0 and 1.
 */
export function binaryCrossEntropy(
  input: Tensor,
  target: Tensor,
  options: WeightedLossOptions = {},
): Tensor {
  if (isHalfTensor(input))
    return inFloat32("binaryCrossEntropy", binaryCrossEntropy, input, target, options);
  const { reduction = "mean", weight } = options;
  const op = "binaryCrossEntropy";
  const [x, t] = lossPair(op, input, target);
  if (!sameShape(x.shape, t.shape))
    throw new ShapeError(
      describe(op, `a target ${formatShape(x.shape)}`, describeNode(t), "expand it first"),
    );
  const bounded = (n: Node): Node => {
    const l = g.log(n);
    return g.where(g.lt(l, lit(l, -100)), lit(l, -100), l);
  };
  const other = (n: Node): Node => g.sub(lit(n, 1), n);
  const value = (p: Node, q: Node): Node =>
    g.neg(g.add(g.mul(q, bounded(p)), g.mul(other(q), bounded(other(p)))));
  // As PyTorch, the gradient is bounded by 1e12 instead of being 0 where the logarithm is cut off.
  const loss = withPartials(op, x, t, value, (p, q) => {
    const spread = g.mul(p, other(p));
    const least = lit(spread, 1e-12);
    const slope = g.div(g.sub(p, q), g.where(g.lt(spread, least), least, spread));
    return [slope, g.sub(bounded(other(p)), bounded(p))];
  });
  return reducedLoss(op, weight ? g.mul(loss, floatNode(op, weight)) : loss, reduction);
}

/** The negative log-likelihood of counts under Poisson rates: `rate - target·log rate`. */
export function poissonNllLoss(
  input: Tensor,
  target: Tensor,
  options: PoissonOptions = {},
): Tensor {
  if (isHalfTensor(input))
    return inFloat32("poissonNllLoss", poissonNllLoss, input, target, options);
  const { reduction = "mean", logInput = true, full = false, eps = 1e-8 } = options;
  const [x, t] = lossPair("poissonNllLoss", input, target);
  const loss = logInput
    ? g.sub(g.exp(x), g.mul(t, x))
    : g.sub(x, g.mul(t, g.log(g.add(x, lit(x, eps)))));
  if (!full) return reducedLoss("poissonNllLoss", loss, reduction);
  // log t! ≈ t·log t - t + log(2πt)/2, for counts above 1.
  const many = g.lt(lit(t, 1), t);
  const n = g.where(many, t, lit(t, 1));
  const half = g.mul(g.log(g.mul(n, lit(n, 2 * Math.PI))), lit(n, 0.5));
  const stirling = g.add(g.sub(g.mul(n, g.log(n)), n), half);
  const all = g.add(loss, g.where(many, stirling, lit(t, 0)));
  return reducedLoss("poissonNllLoss", all, reduction);
}

/**
 * The negative log-likelihood under normal distributions with mean `input` and the given variances:
 * `(log var + (input - target)²/var)/2`. Variances below `eps` count as `eps`, with the gradient of an ordinary one.
 */
export function gaussianNllLoss(
  input: Tensor,
  target: Tensor,
  variance: Tensor,
  options: GaussianOptions = {},
): Tensor {
  if (isHalfTensor(input))
    return inFloat32("gaussianNllLoss", gaussianNllLoss, input, target, variance, options);
  const { reduction = "mean", full = false, eps = 1e-6 } = options;
  const [x, t] = lossPair("gaussianNllLoss", input, target);
  const given = floatNode("gaussianNllLoss", variance);
  const v =
    given.shape.length === x.shape.length - 1 ? g.reshape(given, [...given.shape, 1]) : given;
  const least = lit(v, eps);
  const safe = g.add(v, g.detach(g.where(g.lt(v, least), g.sub(least, v), lit(v, 0))));
  const loss = g.mul(g.add(g.log(safe), g.div(square(g.sub(x, t)), safe)), lit(x, 0.5));
  const all = full ? g.add(loss, lit(loss, Math.log(2 * Math.PI) / 2)) : loss;
  return reducedLoss("gaussianNllLoss", all, reduction);
}
