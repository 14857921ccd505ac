/** @file Linear and Bilinear: the layers that own a matrix, or several. */
import { ArgumentError, describe } from "../core/errors.ts";
import { bilinear, linear, type Tensor } from "../core/index.ts";
import { kaimingUniform, uniform } from "./init.ts";
import { Module } from "./module.ts";

/** y = x Wᵀ + b on the last axis: [..., in] → [..., out]. */
export class Linear extends Module {
  /** [out, in] */
  weight: Tensor;
  /** [out] */
  bias: Tensor | null;
  readonly inFeatures: number;
  readonly outFeatures: number;

  constructor(inFeatures: number, outFeatures: number, options: { bias?: boolean } = {}) {
    super();
    this.weight = kaimingUniform([outFeatures, inFeatures], inFeatures);
    this.bias = (options.bias ?? true) ? kaimingUniform([outFeatures], inFeatures) : null;
    this.inFeatures = inFeatures;
    this.outFeatures = outFeatures;
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }

  /** The outputs start … start + count − 1 alone: [..., in] → [..., count]. */
  part(x: Tensor, start: number, count: number): Tensor {
    const rows = (t: Tensor) => t.narrow(0, start, count);
    return linear(x, rows(this.weight), this.bias && rows(this.bias));
  }

  override extraRepr(): string {
    const { inFeatures, outFeatures } = this;
    return `inFeatures=${inFeatures}, outFeatures=${outFeatures}, bias=${this.bias !== null}`;
  }
}

/** yₒ = x₁ᵀ Wₒ x₂ + bₒ on the last axis: [..., in1] and [..., in2] → [..., out]. */
export class Bilinear extends Module {
  /** [out, in1, in2] */
  weight: Tensor;
  /** [out] */
  bias: Tensor | null;

  constructor(
    in1Features: number,
    in2Features: number,
    outFeatures: number,
    options: { bias?: boolean } = {},
  ) {
    super();
    if (!(in1Features > 0))
      throw new ArgumentError(describe("Bilinear", "in1Features > 0", `${in1Features}`));
    const bound = 1 / Math.sqrt(in1Features);
    this.weight = uniform([outFeatures, in1Features, in2Features], bound);
    this.bias = (options.bias ?? true) ? uniform([outFeatures], bound) : null;
  }

  forward(x1: Tensor, x2: Tensor): Tensor {
    return bilinear(x1, x2, this.weight, this.bias);
  }

  override extraRepr(): string {
    const [outFeatures, in1Features, in2Features] = this.weight.shape;
    const facts = { in1Features, in2Features, outFeatures, bias: this.bias !== null };
    return Object.entries(facts)
      .map((fact) => fact.join("="))
      .join(", ");
  }
}
