/**
 * @file Dropout beyond single elements, and other functions with noise of their own: whole
 * channels, SELU's dropout, random slopes, Gumbel noise. Masks are drawn from the given or the
 * default generator. None is a method.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import { bernoulli, dropout, type Generator, rand, uniform } from "../random.ts";
import type { Tensor } from "../tensor.ts";
import { leakyRelu } from "./activation.ts";
import { axisOf } from "./axes.ts";
import { full, ones } from "./create.ts";
import { oneHot } from "./indexing.ts";
import { where } from "./join.ts";
import { describeNode, floatNode, inFloat32, isHalfTensor } from "./promotion.ts";

export interface DropoutOptions {
  /** Whether to drop at all; true by default unless the function says otherwise. */
  training?: boolean;
  generator?: Generator;
}

/**
 * Whole channels of [N, C, L] or [C, L] set to 0 with probability p, the others scaled by 1/(1 - p)
 * (Tompson et al. 2014, arXiv 1411.4280).
 */
export function dropout1d(x: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor {
  return channels("dropout1d", x, p, options, { 2: 1, 3: 2 });
}

/** As dropout1d, of [N, C, H, W]; three axes are [N, C, L], as in PyTorch. */
export function dropout2d(x: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor {
  return channels("dropout2d", x, p, options, { 3: 2, 4: 2 });
}

/** As dropout1d, of [N, C, D, H, W] or [C, D, H, W]. */
export function dropout3d(x: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor {
  return channels("dropout3d", x, p, options, { 4: 1, 5: 2 });
}

/**
 * For networks of SELU: what is dropped takes SELU's limit instead of 0, and all is scaled and
 * shifted so that mean 0 and variance 1 stay (Klambauer et al. 2017, arXiv 1706.02515). As in
 * PyTorch `training` is false by default here, unlike that of `dropout`.
 */
export function alphaDropout(x: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor {
  return saturated("alphaDropout", x, p, options, x.shape);
}

/** `alphaDropout` of whole channels of [N, C, *]; `training` is false by default. */
export function featureAlphaDropout(x: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor {
  if (x.shape.length < 2)
    throw new ShapeError(describe("featureAlphaDropout", "[N, C, *]", describeNode(x.node)));
  return saturated("featureAlphaDropout", x, p, options, perChannel(x, 2));
}

export interface RreluOptions extends DropoutOptions {
  lower?: number;
  upper?: number;
}

/**
 * x where positive, elsewhere times a slope drawn from [lower, upper) for each element in training,
 * else their mean (Xu et al. 2015, arXiv 1505.00853). `training` is false by default, as in
 * PyTorch.
 */
export function rrelu(x: Tensor, options: RreluOptions = {}): Tensor {
  if (isHalfTensor(x)) return inFloat32("rrelu", rrelu, x, options);
  const { lower = 1 / 8, upper = 1 / 3, training = false, generator } = options;
  if (!(lower <= upper))
    throw new ArgumentError(describe("rrelu", "lower ≤ upper", `${lower}, ${upper}`));
  if (!training) return leakyRelu(x, (lower + upper) / 2);
  floatNode("rrelu", x);
  return where(x.gt(0), x, x.mul(uniform(x.shape, lower, upper, { generator })));
}

export interface GumbelSoftmaxOptions {
  /** The temperature; 1 by default. */
  tau?: number;
  /** One-hot vectors, with the gradient of the soft ones. */
  hard?: boolean;
  /** -1 by default. */
  dim?: number;
  generator?: Generator;
}

/**
 * Samples of the distribution `softmax(logits)` that carry a gradient: `softmax((logits +
 * noise)/tau)` (Jang et al. 2016, arXiv 1611.01144).
 */
export function gumbelSoftmax(logits: Tensor, options: GumbelSoftmaxOptions = {}): Tensor {
  if (isHalfTensor(logits)) return inFloat32("gumbelSoftmax", gumbelSoftmax, logits, options);
  const { tau = 1, hard = false, dim = -1, generator } = options;
  floatNode("gumbelSoftmax", logits);
  if (!(tau > 0)) throw new ArgumentError(describe("gumbelSoftmax", "tau > 0", String(tau)));
  // An exponential variable; a uniform one is a multiple of 2⁻²⁴, and its 0 counts as half a step.
  const exponential = rand(logits.shape, { generator })
    .neg()
    .log1p()
    .neg()
    .clampMin(2 ** -25);
  const soft = logits.sub(exponential.log()).div(tau).softmax(dim);
  if (!hard) return soft;
  const axis = axisOf("gumbelSoftmax", dim, logits.shape.length);
  const chosen = oneHot(soft.argmax(axis), logits.shape[axis]).to(logits.dtype).movedim(-1, axis);
  return chosen.sub(soft.detach()).add(soft);
}

// --- helpers -------------------------------------------------------------------------------------

/** −λα of SELU, its limit towards −∞. */
const limit = -1.7580993408473766;

/** The first `axes` axes, then ones. */
const perChannel = (x: Tensor, axes: number): number[] => x.shape.map((d, i) => (i < axes ? d : 1));

function channels(
  op: string,
  x: Tensor,
  p: number,
  options: DropoutOptions,
  before: Readonly<Record<number, number>>,
): Tensor {
  floatNode(op, x);
  const axes = before[x.shape.length];
  if (axes === undefined)
    throw new ShapeError(
      describe(op, `a tensor of ${Object.keys(before).join(" or ")} axes`, describeNode(x.node)),
    );
  if (options.training === false || p === 0) return x;
  return x.mul(dropout(ones(perChannel(x, axes), { dtype: x.dtype }), p, options));
}

function saturated(
  op: string,
  x: Tensor,
  p: number,
  { training = false, generator }: DropoutOptions,
  shape: readonly number[],
): Tensor {
  if (isHalfTensor(x)) return inFloat32(op, saturated, op, x, p, { training, generator }, shape);
  floatNode(op, x);
  if (!(p >= 0 && p <= 1)) throw new ArgumentError(describe(op, "p in 0 … 1", String(p)));
  if (!training || p === 0) return x;
  if (p === 1) return x.mul(0);
  const keep = bernoulli(full(shape, 1 - p), { generator }).bool();
  const a = 1 / Math.sqrt((limit ** 2 * p + 1) * (1 - p));
  return where(keep, x, limit)
    .mul(a)
    .add(-limit * a * p);
}
