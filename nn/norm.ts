/** @file Normalisation over the last axis. */
import { layerNorm, rmsNorm, type Tensor } from "../core/index.ts";
import { ones, zeros } from "./init.ts";
import { Module } from "./module.ts";

/** (x − mean) / √(variance + eps) · weight + bias, per row of the last axis. https://arxiv.org/abs/1607.06450 */
export class LayerNorm extends Module {
  /** [D] */
  weight: Tensor;
  /** [D] */
  bias: Tensor;
  readonly eps: number;

  constructor(width: number, options: { eps?: number } = {}) {
    super();
    this.weight = ones([width]);
    this.bias = zeros([width]);
    this.eps = options.eps ?? 1e-5;
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight.shape, this.weight, this.bias, this.eps);
  }
}

/** x / √(mean(x²) + eps) · weight, per row of the last axis. https://arxiv.org/abs/1910.07467 */
export class RMSNorm extends Module {
  /** [D] */
  weight: Tensor;
  readonly eps: number;

  constructor(width: number, options: { eps?: number } = {}) {
    super();
    this.weight = ones([width]);
    this.eps = options.eps ?? 1e-6;
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight.shape, this.weight, this.eps);
  }
}
