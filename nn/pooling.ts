/**
 * @file Pooling as modules over 1, 2 or 3 spatial axes: `new AvgPool2d(2, { stride: 1 }).forward(x)` is
 * `avgPool2d(x, 2, { stride: 1 })`. Shapes, options and errors are the functions'.
 */
import {
  type AdaptiveMaxPoolOptions,
  type AdaptiveSize,
  adaptiveAvgPool1d,
  adaptiveAvgPool2d,
  adaptiveAvgPool3d,
  adaptiveMaxPool1d,
  adaptiveMaxPool2d,
  adaptiveMaxPool3d,
  avgPool1d,
  avgPool2d,
  avgPool3d,
  lpPool1d,
  lpPool2d,
  lpPool3d,
  type MaxPoolOptions,
  type MaxUnpoolOptions,
  maxPool1d,
  maxPool2d,
  maxPool3d,
  maxUnpool1d,
  maxUnpool2d,
  maxUnpool3d,
  type Tensor,
} from "../core/index.ts";
import type { PerAxis } from "../core/ops/convolution.ts";
import type { ValuesAndIndices } from "../core/ops/extrema.ts";
import { type FunctionModule, moduleOf } from "./functional-module.ts";
import { Module } from "./module.ts";

export class AvgPool1d extends moduleOf(avgPool1d, "kernelSize") {}
export class AvgPool2d extends moduleOf(avgPool2d, "kernelSize") {}
export class AvgPool3d extends moduleOf(avgPool3d, "kernelSize") {}

export class AdaptiveAvgPool1d extends moduleOf(adaptiveAvgPool1d, "outputSize") {}
export class AdaptiveAvgPool2d extends moduleOf(adaptiveAvgPool2d, "outputSize") {}
export class AdaptiveAvgPool3d extends moduleOf(adaptiveAvgPool3d, "outputSize") {}

export class LPPool1d extends moduleOf(lpPool1d, "normType", "kernelSize") {}
export class LPPool2d extends moduleOf(lpPool2d, "normType", "kernelSize") {}
export class LPPool3d extends moduleOf(lpPool3d, "normType", "kernelSize") {}

/** What max pooling gives: also where the maxima were, if the options ask for it. */
type Pooled<O> = O extends { readonly returnIndices: true } ? ValuesAndIndices : Tensor;

type MaxPooling<S, P> = new <O extends P = P>(
  size: S,
  options?: O,
) => FunctionModule<[size: S, options?: O], Pooled<O>>;

const maxPooling = (f: (x: Tensor, kernelSize: PerAxis, options?: MaxPoolOptions) => Tensor) =>
  moduleOf(f, "kernelSize") as unknown as MaxPooling<PerAxis, MaxPoolOptions>;

const adaptiveMaxPooling = (
  f: (x: Tensor, outputSize: AdaptiveSize, options?: AdaptiveMaxPoolOptions) => Tensor,
) => moduleOf(f, "outputSize") as unknown as MaxPooling<AdaptiveSize, AdaptiveMaxPoolOptions>;

/** With `{ returnIndices: true }` forward gives `{ values, indices }`: what MaxUnpool1d takes. */
export class MaxPool1d<O extends MaxPoolOptions = MaxPoolOptions> extends maxPooling(
  maxPool1d,
)<O> {}
/** As MaxPool1d. */
export class MaxPool2d<O extends MaxPoolOptions = MaxPoolOptions> extends maxPooling(
  maxPool2d,
)<O> {}
/** As MaxPool1d. */
export class MaxPool3d<O extends MaxPoolOptions = MaxPoolOptions> extends maxPooling(
  maxPool3d,
)<O> {}

/** With `{ returnIndices: true }` forward gives `{ values, indices }`. */
export class AdaptiveMaxPool1d<
  O extends AdaptiveMaxPoolOptions = AdaptiveMaxPoolOptions,
> extends adaptiveMaxPooling(adaptiveMaxPool1d)<O> {}
/** As AdaptiveMaxPool1d. */
export class AdaptiveMaxPool2d<
  O extends AdaptiveMaxPoolOptions = AdaptiveMaxPoolOptions,
> extends adaptiveMaxPooling(adaptiveMaxPool2d)<O> {}
/** As AdaptiveMaxPool1d. */
export class AdaptiveMaxPool3d<
  O extends AdaptiveMaxPoolOptions = AdaptiveMaxPoolOptions,
> extends adaptiveMaxPooling(adaptiveMaxPool3d)<O> {}

class MaxUnpool extends Module {
  readonly #rank: number;
  readonly #unpool: typeof maxUnpool1d;
  readonly kernelSize: PerAxis;
  readonly stride: PerAxis;
  readonly padding: PerAxis;

  constructor(
    rank: number,
    unpool: typeof maxUnpool1d,
    kernelSize: PerAxis,
    options: Omit<MaxUnpoolOptions, "outputSize"> = {},
  ) {
    super();
    this.#rank = rank;
    this.#unpool = unpool;
    this.kernelSize = kernelSize;
    this.stride = options.stride ?? kernelSize;
    this.padding = options.padding ?? 0;
  }

  /** `outputSize`: the spatial sizes, or the whole shape, of what was pooled. */
  forward(x: Tensor, indices: Tensor, outputSize?: readonly number[]): Tensor {
    const whole = outputSize?.length === this.#rank + 2;
    return this.#unpool(x, indices, this.kernelSize, {
      stride: this.stride,
      padding: this.padding,
      outputSize: whole ? outputSize.slice(2) : outputSize,
    });
  }

  override extraRepr(): string {
    const { kernelSize, stride, padding } = this;
    return Object.entries({ kernelSize, stride, padding })
      .map(([name, value]) => `${name}=${JSON.stringify(value)}`)
      .join(", ");
  }
}

type UnpoolArgs = [kernelSize: PerAxis, options?: Omit<MaxUnpoolOptions, "outputSize">];

/** The partial inverse of MaxPool1d: values back where the maxima were, zeros elsewhere. */
export class MaxUnpool1d extends MaxUnpool {
  constructor(...args: UnpoolArgs) {
    super(1, maxUnpool1d, ...args);
  }
}

/** The partial inverse of MaxPool2d. */
export class MaxUnpool2d extends MaxUnpool {
  constructor(...args: UnpoolArgs) {
    super(2, maxUnpool2d, ...args);
  }
}

/** The partial inverse of MaxPool3d. */
export class MaxUnpool3d extends MaxUnpool {
  constructor(...args: UnpoolArgs) {
    super(3, maxUnpool3d, ...args);
  }
}
