/** @file The pre-norm transformer block, from parts: x + s₁·attention(norm(x)), then x + s₂·feedForward(norm(x)). */
import type { Tensor } from "../core/index.ts";
import type { AttendOptions, MultiheadAttention } from "./attention.ts";
import type { Layer } from "./container.ts";
import { constant_, ones } from "./init.ts";
import { Module } from "./module.ts";

export interface BlockParts {
  readonly norm1: Layer;
  readonly attention: MultiheadAttention;
  readonly norm2: Layer;
  readonly feedForward: Layer;
  /**
   * With it, what each half adds is multiplied per channel by a parameter that begins at this value: LayerScale
   * (https://arxiv.org/abs/2103.17239).
   */
  readonly layerScale?: { readonly width: number; readonly value: number };
}

/** [B, T, D] → [B, T, D]. Vision and language models differ in the parts that they hand in. */
export class TransformerBlock extends Module {
  norm1: Layer;
  attention: MultiheadAttention;
  norm2: Layer;
  feedForward: Layer;
  /** [D], of the attention and of the feed-forward layer; null without LayerScale. */
  scale1: Tensor | null;
  scale2: Tensor | null;

  constructor(parts: BlockParts) {
    super();
    this.norm1 = parts.norm1;
    this.attention = parts.attention;
    this.norm2 = parts.norm2;
    this.feedForward = parts.feedForward;
    const { layerScale } = parts;
    const scale = () => (layerScale ? constant_(ones([layerScale.width]), layerScale.value) : null);
    this.scale1 = scale();
    this.scale2 = scale();
  }

  /** `options`: masks, as the attention takes them. */
  forward(x: Tensor, options: Omit<AttendOptions, "needWeights"> = {}): Tensor {
    const h = this.norm1.forward(x);
    const attended = this.attention.forward(h, h, h, options);
    const y = x.add(this.scale1 ? attended.mul(this.scale1) : attended);
    const fed = this.feedForward.forward(this.norm2.forward(y));
    return y.add(this.scale2 ? fed.mul(this.scale2) : fed);
  }
}
