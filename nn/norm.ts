/** @file Normalisation over the last axes. */
import { layerNorm, rmsNorm, type Tensor } from "../core/index.ts";
import { formatShape } from "../core/shape.ts";
import { ones, zeros } from "./init.ts";
import { Module } from "./module.ts";

/** (x − mean) / √(variance + eps) · weight + bias, per row of the last axes. https://arxiv.org/abs/1607.06450 */
export class LayerNorm extends Module {
  /** Of the normalised axes, as bias; null without the affine map. */
  weight: Tensor | null;
  bias: Tensor | null;
  readonly shape: readonly number[];
  readonly eps: number;

  /** `shape`: the last axes, or the width of the one. `elementwiseAffine: false`: neither weight nor bias. */
  constructor(
    shape: number | readonly number[],
    options: { eps?: number; elementwiseAffine?: boolean; bias?: boolean } = {},
  ) {
    super();
    const { eps = 1e-5, elementwiseAffine = true, bias = true } = options;
    this.shape = typeof shape === "number" ? [shape] : [...shape];
    this.weight = elementwiseAffine ? ones([...this.shape]) : null;
    this.bias = elementwiseAffine && bias ? zeros([...this.shape]) : null;
    this.eps = eps;
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, this.shape, this.weight, this.bias, this.eps);
  }

  override extraRepr(): string {
    return `${formatShape(this.shape)}, eps=${this.eps}`;
  }
}

/** x / √(mean(x²) + eps) · weight, per row of the last axes. https://arxiv.org/abs/1910.07467 */
export class RMSNorm extends Module {
  /** Of the normalised axes; null without it. */
  weight: Tensor | null;
  readonly shape: readonly number[];
  readonly eps: number;

  /** `eps` is 2⁻²³, f32's, unless given. */
  constructor(
    shape: number | readonly number[],
    options: { eps?: number; elementwiseAffine?: boolean } = {},
  ) {
    super();
    const { eps = 2 ** -23, elementwiseAffine = true } = options;
    this.shape = typeof shape === "number" ? [shape] : [...shape];
    this.weight = elementwiseAffine ? ones([...this.shape]) : null;
    this.eps = eps;
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.shape, this.weight, this.eps);
  }

  override extraRepr(): string {
    return `${formatShape(this.shape)}, eps=${this.eps}`;
  }
}
