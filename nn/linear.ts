/** @file Linear and Embedding: the two layers that own a matrix. */
import { embedding, linear, type Tensor } from "../core/index.ts";
import { kaimingUniform, normal } from "./init.ts";
import { Module } from "./module.ts";

/** y = x Wᵀ + b on the last axis: [..., in] → [..., out]. */
export class Linear extends Module {
  /** [out, in] */
  weight: Tensor;
  /** [out] */
  bias: Tensor | null;

  constructor(inFeatures: number, outFeatures: number, options: { bias?: boolean } = {}) {
    super();
    this.weight = kaimingUniform([outFeatures, inFeatures], inFeatures);
    this.bias = (options.bias ?? true) ? kaimingUniform([outFeatures], inFeatures) : null;
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }

  override extraRepr(): string {
    const [outFeatures, inFeatures] = this.weight.shape;
    return `inFeatures=${inFeatures}, outFeatures=${outFeatures}, bias=${this.bias !== null}`;
  }
}

/** Rows of a table: indices [...] → [..., width]. */
export class Embedding extends Module {
  /** [count, width] */
  weight: Tensor;

  constructor(count: number, width: number, options: { std?: number } = {}) {
    super();
    this.weight = normal([count, width], options.std ?? 1);
  }

  /** @throws IndexOutOfRangeError, when the result is read, for an index outside 0 … count − 1. */
  forward(index: Tensor): Tensor {
    return embedding(index, this.weight);
  }

  override extraRepr(): string {
    return this.weight.shape.join(", ");
  }
}
