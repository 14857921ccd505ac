/**
 * @file Self-attention with several heads, and rotary positions.
 *
 * Shape letters: B batch, T positions, D width, H heads, d = D / H width of a head.
 */

import { ArgumentError, describe } from "../core/errors.ts";
import { arange, cat, scaledDotProductAttention, type Tensor } from "../core/index.ts";
import { Linear } from "./linear.ts";
import { Module } from "./module.ts";

export interface AttentionOptions {
  /** Position t sees positions ≤ t only. */
  readonly causal?: boolean;
  readonly bias?: boolean;
  /** Turns queries and keys by their position. */
  readonly rotary?: boolean;
}

/** softmax(Q Kᵀ / √d) V per head: [B, T, D] → [B, T, D]. https://arxiv.org/abs/1706.03762 */
export class MultiheadAttention extends Module {
  /** Queries, keys and values in one matrix: three times the columns, one matmul. */
  qkv: Linear;
  out: Linear;
  readonly heads: number;
  readonly causal: boolean;
  readonly rotary: boolean;

  constructor(width: number, heads: number, options: AttentionOptions = {}) {
    super();
    if (width % heads !== 0)
      throw new ArgumentError(
        describe("MultiheadAttention", "a width divisible by the heads", `${width} / ${heads}`),
      );
    this.qkv = new Linear(width, 3 * width, { bias: options.bias });
    this.out = new Linear(width, width, { bias: options.bias });
    this.heads = heads;
    this.causal = options.causal ?? false;
    this.rotary = options.rotary ?? false;
  }

  forward(x: Tensor): Tensor {
    const [B, T, D] = x.shape;
    const [H, d] = [this.heads, D / this.heads];
    const qkv = this.qkv.forward(x).reshape([B, T, 3, H, d]).permute([2, 0, 3, 1, 4]); // [3, B, H, T, d]
    let [q, k, v] = [qkv.select(0, 0), qkv.select(0, 1), qkv.select(0, 2)]; // [B, H, T, d] each
    if (this.rotary) [q, k] = [rotate(q), rotate(k)];
    const y = scaledDotProductAttention(q, k, v, { isCausal: this.causal }); // [B, H, T, d]
    return this.out.forward(y.permute([0, 2, 1, 3]).reshape([B, T, D]));
  }
}

/**
 * Rotary positions (https://arxiv.org/abs/2104.09864) on [B, H, T, d]: the pair (i, i + d/2) turns by
 * t · base^(−2i/d), so that the product of a query and a key depends on their distance.
 */
export function rotate(x: Tensor, options: { base?: number } = {}): Tensor {
  const [T, d] = x.shape.slice(-2);
  if (d % 2 !== 0)
    throw new ArgumentError(describe("rotate", "an even head width", `${d}`, "choose other heads"));
  const half = d / 2;
  const frequency = arange(half, { dtype: "f32" })
    .mul((-2 / d) * Math.log(options.base ?? 10_000))
    .exp(); // [d/2]
  const angle = arange(T, { dtype: "f32" }).unsqueeze(1).mul(frequency); // [T, d/2]
  const [cos, sin] = [angle.cos(), angle.sin()];
  const [a, b] = [x.narrow(-1, 0, half), x.narrow(-1, half, half)]; // [B, H, T, d/2]
  return cat([a.mul(cos).sub(b.mul(sin)), b.mul(cos).add(a.mul(sin))], -1);
}
