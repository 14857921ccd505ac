/** @file The pre-norm transformer block, from parts: x + attention(norm(x)), then x + feedForward(norm(x)). */
import type { Tensor } from "../core/index.ts";
import type { AttendOptions, MultiheadAttention } from "./attention.ts";
import type { Layer } from "./container.ts";
import { Module } from "./module.ts";

export interface BlockParts {
  readonly norm1: Layer;
  readonly attention: MultiheadAttention;
  readonly norm2: Layer;
  readonly feedForward: Layer;
}

/** [B, T, D] → [B, T, D]. Vision and language models differ in the parts that they hand in. */
export class TransformerBlock extends Module {
  norm1: Layer;
  attention: MultiheadAttention;
  norm2: Layer;
  feedForward: Layer;

  constructor(parts: BlockParts) {
    super();
    this.norm1 = parts.norm1;
    this.attention = parts.attention;
    this.norm2 = parts.norm2;
    this.feedForward = parts.feedForward;
  }

  /** `options`: masks, as the attention takes them. */
  forward(x: Tensor, options: Omit<AttendOptions, "needWeights"> = {}): Tensor {
    const h = this.norm1.forward(x);
    const y = x.add(this.attention.forward(h, h, h, options));
    return y.add(this.feedForward.forward(this.norm2.forward(y)));
  }
}
