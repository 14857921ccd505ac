/**
 * @file Activations as modules, under PyTorch's names: `new LeakyReLU(0.1).forward(x)` is `leakyRelu(x, 0.1)`. Formulas,
 * defaults and gradients are the functions'. None has an in-place variant: a compiled step reuses memory by itself.
 */
import { ArgumentError, describe } from "../core/errors.ts";
import {
  celu,
  elu,
  type GeluOptions,
  gelu,
  glu,
  hardshrink,
  hardsigmoid,
  hardswish,
  hardtanh,
  leakyRelu,
  logSigmoid,
  logSoftmax,
  mish,
  prelu,
  relu,
  relu6,
  rrelu,
  selu,
  sigmoid,
  silu,
  softmax,
  softmin,
  softplus,
  softshrink,
  softsign,
  type Tensor,
  tanh,
  tanhshrink,
  threshold,
} from "../core/index.ts";
import { moduleOf } from "./functional-module.ts";
import { constant_, zeros } from "./init.ts";
import { Module } from "./module.ts";

export class CELU extends moduleOf(celu, "alpha") {}
export class ELU extends moduleOf(elu, "alpha") {}
/** `new GELU({ approximate: "tanh" })`: the approximation. */
export class GELU extends moduleOf((x, options?: GeluOptions) => gelu(x, options)) {}
export class GLU extends moduleOf(glu, "dim") {}
export class Hardshrink extends moduleOf(hardshrink, "lambd") {}
export class Hardsigmoid extends moduleOf(hardsigmoid) {}
export class Hardswish extends moduleOf(hardswish) {}
export class Hardtanh extends moduleOf(hardtanh, "minVal", "maxVal") {}
export class LeakyReLU extends moduleOf(leakyRelu, "negativeSlope") {}
export class LogSigmoid extends moduleOf(logSigmoid) {}
export class Mish extends moduleOf(mish) {}
export class ReLU extends moduleOf(relu) {}
export class ReLU6 extends moduleOf(relu6) {}
export class SELU extends moduleOf(selu) {}
export class Sigmoid extends moduleOf(sigmoid) {}
export class SiLU extends moduleOf(silu) {}
export class Softplus extends moduleOf(softplus, "beta", "threshold") {}
export class Softshrink extends moduleOf(softshrink, "lambd") {}
export class Softsign extends moduleOf(softsign) {}
export class Tanh extends moduleOf(tanh) {}
export class Tanhshrink extends moduleOf(tanhshrink) {}
export class Threshold extends moduleOf(threshold, "threshold", "value") {}

// Along an axis, which is asked for: PyTorch's guess at it is deprecated.
export class Softmax extends moduleOf(softmax, "dim") {}
export class LogSoftmax extends moduleOf(logSoftmax, "dim") {}
export class Softmin extends moduleOf(softmin, "dim") {}
/** Softmax over the channels of each place: [N, C, H, W] or [C, H, W]. */
export class Softmax2d extends moduleOf((x) => softmax(x, -3)) {}

/** x where positive, weight · x elsewhere, with a learned slope per channel (axis 1) or one for all. arXiv 1502.01852 */
export class PReLU extends Module {
  /** [numParameters] */
  weight: Tensor;

  constructor(numParameters = 1, options: { readonly init?: number } = {}) {
    super();
    if (!(Number.isInteger(numParameters) && numParameters >= 1))
      throw new ArgumentError(describe("PReLU", "one parameter or more", `${numParameters}`));
    this.weight = constant_(zeros([numParameters]), options.init ?? 0.25);
  }

  forward(x: Tensor): Tensor {
    return prelu(x, this.weight);
  }

  override extraRepr(): string {
    return `numParameters=${this.weight.shape[0]}`;
  }
}

/**
 * x where positive, elsewhere times a slope that is drawn from [lower, upper) per element while training, and their mean
 * in evaluation. https://arxiv.org/abs/1505.00853
 */
export class RReLU extends Module {
  readonly lower: number;
  readonly upper: number;

  constructor(lower = 1 / 8, upper = 1 / 3) {
    super();
    if (!(lower <= upper))
      throw new ArgumentError(describe("RReLU", "lower ≤ upper", `${lower}, ${upper}`));
    this.lower = lower;
    this.upper = upper;
  }

  forward(x: Tensor): Tensor {
    const { lower, upper, training } = this;
    return rrelu(x, { lower, upper, training });
  }
}
