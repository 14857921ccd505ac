/**
 * @file Attention with several heads, and rotary positions. Covers PyTorch's nn.MultiheadAttention (batch first): masks,
 * weights, keys and values from elsewhere; and what language models use: causal, grouped queries, rotary positions.
 *
 * Shape letters: B batch (any leading axes), L queries, S keys, D width, H heads, K heads of keys and values,
 * d width of a head (D / H unless given).
 */

import { ArgumentError, describe, ShapeError } from "../core/errors.ts";
import {
  arange,
  asTensor,
  attentionWeights,
  cat,
  logicalNot,
  logicalOr,
  scaledDotProductAttention,
  stack,
  type Tensor,
  where,
} from "../core/index.ts";
import { formatShape } from "../core/shape.ts";
import { xavierUniform_, zeros_ } from "./init.ts";
import { Linear } from "./linear.ts";
import { Module } from "./module.ts";
import { type LayerNorm, RMSNorm } from "./norm.ts";

export interface AttentionOptions {
  /** Position t sees positions ≤ t only. */
  readonly causal?: boolean;
  readonly bias?: boolean;
  /** Turns queries and keys by their position. */
  readonly rotary?: boolean | RotaryOptions;
  /**
   * Heads of keys and values, each shared by a group of query heads (https://arxiv.org/abs/2305.13245); as many as query
   * heads by default.
   */
  readonly kvHeads?: number;
  /** d, the width of a head. */
  readonly headDim?: number;
  /**
   * RMS-normalises queries and keys per head, with this eps, before they turn
   * (https://arxiv.org/abs/2010.04245); not unless given.
   */
  readonly qkNorm?: number;
  /** Widths of what keys and values are made of, where they are not the queries'. */
  readonly kdim?: number;
  readonly vdim?: number;
  /** The probability with which a weight is dropped while training. */
  readonly dropout?: number;
}

export interface AttendOptions {
  /**
   * [L, S], [B·H, L, S] or what broadcasts to [B, H, L, S]. As in PyTorch's module, and unlike its function, bool means:
   * true is NOT seen. Floats are added to the scores.
   */
  readonly attnMask?: Tensor | null;
  /** [B, S]: padding, which no query sees, is true; or floats, which are added to the scores. */
  readonly keyPaddingMask?: Tensor | null;
  /** As `causal`, for this call. */
  readonly isCausal?: boolean;
  /** Of the queries, for rotary attention of a module to itself: [L] or [B, L]; 0, 1, 2, … unless given. */
  readonly positions?: Tensor;
  /** Rotary positions for this call, instead of the module's own: some ways to stretch them depend on the length. */
  readonly rotary?: RotaryOptions;
  /** Gives [output, weights]. */
  readonly needWeights?: boolean;
  /** Weights [B, L, S], the mean over the heads (the default), or [B, H, L, S]. */
  readonly averageAttnWeights?: boolean;
}

/**
 * softmax(Q Kᵀ / √d) V per head, between linear maps: queries [B, L, D], keys [B, S, kdim], values [B, S, vdim] → [B, L, D].
 * A query that sees no key gets the output's bias, where PyTorch gives NaN. https://arxiv.org/abs/1706.03762
 */
export class MultiheadAttention extends Module {
  /** Queries, keys and values in one matrix [D + 2·K·d, D], one matmul; null if kdim or vdim is another width. */
  qkv: Linear | null = null;
  /** The three on their own, where `qkv` is null. */
  q: Linear | null = null;
  k: Linear | null = null;
  v: Linear | null = null;
  out: Linear;
  /** Of queries and of keys, per head; null without `qkNorm`. Some models have LayerNorms here. */
  qNorm: RMSNorm | LayerNorm | null = null;
  kNorm: RMSNorm | LayerNorm | null = null;
  readonly heads: number;
  readonly kvHeads: number;
  readonly causal: boolean;
  readonly rotary: RotaryOptions | null;
  readonly dropout: number;

  constructor(width: number, heads: number, options: AttentionOptions = {}) {
    super();
    const { bias, kvHeads = heads, kdim = width, vdim = width, rotary = false, qkNorm } = options;
    const { headDim = width / heads } = options;
    if (!Number.isInteger(headDim) || headDim < 1 || heads % kvHeads !== 0)
      throw new ArgumentError(
        describe(
          "MultiheadAttention",
          "a width divisible by the heads, and these by kvHeads",
          `${width} / ${heads}, ${heads} / ${kvHeads}`,
        ),
      );
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.causal = options.causal ?? false;
    this.rotary = rotary === true ? {} : rotary || null;
    this.dropout = options.dropout ?? 0;
    const [inner, shared] = [heads * headDim, kvHeads * headDim];
    if (kdim === width && vdim === width)
      this.qkv = new Linear(width, inner + 2 * shared, { bias });
    else {
      this.q = new Linear(width, inner, { bias });
      this.k = new Linear(kdim, shared, { bias });
      this.v = new Linear(vdim, shared, { bias });
    }
    this.out = new Linear(inner, width, { bias });
    if (qkNorm !== undefined) {
      this.qNorm = new RMSNorm(headDim, { eps: qkNorm });
      this.kNorm = new RMSNorm(headDim, { eps: qkNorm });
    }
    for (const layer of [this.qkv, this.q, this.k, this.v]) if (layer) xavierUniform_(layer.weight);
    for (const layer of this.children())
      if (layer instanceof Linear && layer.bias) zeros_(layer.bias);
  }

  protected override torchNames(): Readonly<Record<string, string>> {
    return torchNames;
  }

  /** Attends from `query` to `key` and `value`, which are `query` itself unless given. */
  forward(
    query: Tensor,
    key: Tensor | undefined,
    value: Tensor | undefined,
    options: AttendOptions & { readonly needWeights: true },
  ): [output: Tensor, weights: Tensor];
  forward(query: Tensor, key?: Tensor, value?: Tensor, options?: AttendOptions): Tensor;
  forward(
    query: Tensor,
    key = query,
    value = key,
    options: AttendOptions = {},
  ): Tensor | [output: Tensor, weights: Tensor] {
    let [q, k, v] = this.#project(query, key, value); // [B, H, L, d], [B, K, S, d] twice
    if (this.qNorm && this.kNorm) [q, k] = [this.qNorm.forward(q), this.kNorm.forward(k)];
    const earlier = query === key && key === value && memory?.holds(this) ? memory : null;
    const start = earlier?.start(q.shape.at(-2)!) ?? null;
    const rotary = options.rotary ?? this.rotary;
    if (rotary) {
      const positions = options.positions ?? start?.add(arange(q.shape.at(-2)!));
      const turn = { ...rotary, positions: positions && headless(positions) };
      [q, k] = [rotate(q, turn), rotate(k, turn)];
    }
    if (earlier) [k, v] = earlier.extend(this, k, v);
    const isCausal = earlier !== null || (options.isCausal ?? this.causal);
    const dropoutP = this.dropout > 0 && this.training ? this.dropout : 0;
    const attnMask = this.#mask(q, k, isCausal, options, start);
    const settings = { attnMask, isCausal: isCausal && !attnMask, dropoutP };
    const merge = (y: Tensor) => this.out.forward(y.transpose(-3, -2).flatten(-2)); // [B, L, D]
    if (!options.needWeights) {
      const enableGqa = this.kvHeads !== this.heads;
      return merge(scaledDotProductAttention(q, k, v, { ...settings, enableGqa }));
    }
    const group = this.heads / this.kvHeads;
    const all = (x: Tensor) => (group > 1 ? x.repeatInterleave(group, -3) : x);
    const weights = attentionWeights(q, all(k), settings); // [B, H, L, S]
    const output = merge(weights.matmul(all(v)));
    return [output, (options.averageAttnWeights ?? true) ? weights.mean(-3) : weights];
  }

  /** Queries [B, H, L, d], keys and values [B, K, S, d]. */
  #project(query: Tensor, key: Tensor, value: Tensor): Tensor[] {
    const inputs = [query, key, value];
    const counts = [this.heads, this.kvHeads, this.kvHeads];
    const self = query === key && key === value;
    if (this.qkv && self && this.kvHeads === this.heads) {
      // Selecting from one more axis instead of splitting the last: 8 % of a step (November 2026).
      const all = this.qkv.forward(query).unflatten(-1, [3, this.heads, -1]);
      return inputs.map((_, i) => all.select(-3, i).transpose(-3, -2));
    }
    const parts = this.qkv
      ? this.#partsOf(this.qkv, inputs, self)
      : [this.q, this.k, this.v].map((layer, i) => layer!.forward(inputs[i]));
    return parts.map((x, i) => x.unflatten(-1, [counts[i], -1]).transpose(-3, -2));
  }

  /** What the rows for queries, keys and values make of the three inputs. */
  #partsOf(qkv: Linear, inputs: readonly Tensor[], self: boolean): Tensor[] {
    const inner = this.out.inFeatures;
    const shared = (qkv.outFeatures - inner) / 2;
    const sizes = [inner, shared, shared];
    if (self) return qkv.forward(inputs[0]).split(sizes, -1);
    const starts = [0, inner, inner + shared];
    return inputs.map((x, i) => qkv.part(x, starts[i], sizes[i]));
  }

  /**
   * All masks in one, as scaledDotProductAttention takes it; null if there is none, or the causal one alone.
   * `start`: the position of the first query among the keys, if it is not 0.
   */
  #mask(
    q: Tensor,
    k: Tensor,
    isCausal: boolean,
    options: AttendOptions,
    start: Tensor | null,
  ): Tensor | null {
    const { attnMask, keyPaddingMask } = options;
    const [L, S] = [q.shape.at(-2)!, k.shape.at(-2)!];
    const masks: Tensor[] = [];
    if (attnMask) {
      const full = [...q.shape.slice(0, -1), S]; // [B, H, L, S]
      const flat = attnMask.ndim === 3 && full.length > 3;
      masks.push(flat ? attnMask.reshape(full) : attnMask);
    }
    if (keyPaddingMask) {
      const want = [...q.shape.slice(0, -3), S];
      if (formatShape(keyPaddingMask.shape) !== formatShape(want))
        throw new ShapeError(
          describe(
            "MultiheadAttention",
            `keyPaddingMask ${formatShape(want)}`,
            formatShape(keyPaddingMask.shape),
          ),
        );
      masks.push(keyPaddingMask.unsqueeze(-2).unsqueeze(-2)); // [B, 1, 1, S]
    }
    if (masks.length === 0 && !start) return null;
    const row = arange(L).unsqueeze(1);
    if (isCausal) masks.push(arange(S).gt(start ? row.add(start) : row));
    const bools = masks.filter((m) => m.dtype === "bool");
    const blocked = bools.length > 0 ? bools.reduce(logicalOr) : null;
    const added = masks.filter((m) => m.dtype !== "bool");
    if (added.length === 0) return logicalNot(blocked!);
    const sum = added.reduce((a, b) => a.add(b));
    return blocked ? where(blocked, -Infinity, sum) : sum;
  }
}

/** Three biases are one in PyTorch where kdim or vdim is given: that one has no counterpart here. */
const torchNames = {
  "qkv.weight": "in_proj_weight",
  "qkv.bias": "in_proj_bias",
  "q.weight": "q_proj_weight",
  "k.weight": "k_proj_weight",
  "v.weight": "v_proj_weight",
  "out.weight": "out_proj.weight",
  "out.bias": "out_proj.bias",
};

/** Keys and values of earlier positions: kv-cache.ts has them. */
export interface AttentionMemory {
  /** Whether it is for this module. */
  holds(module: MultiheadAttention): boolean;
  /** The position (0-d) of the first of L more queries. */
  start(L: number): Tensor;
  /**
   * Takes the keys and values [B, K, L, d] of new positions; gives those of all positions, [B, K, S, d], also
   * unused ones.
   */
  extend(module: MultiheadAttention, k: Tensor, v: Tensor): [k: Tensor, v: Tensor];
}

let memory: AttentionMemory | null = null;

/** Runs fn, in which the self-attention of modules that `next` holds also sees the positions before. */
export function withMemory<R>(next: AttentionMemory, fn: () => R): R {
  const before = memory;
  memory = next;
  try {
    return fn();
  } finally {
    memory = before;
  }
}

/** Positions [B, L] beside heads: [B, 1, L]. */
const headless = (positions: Tensor): Tensor =>
  positions.ndim > 1 ? positions.unsqueeze(-2) : positions;

export interface RotaryOptions {
  /** The wavelengths of the turns go from 2π to 2π · base. */
  readonly base?: number;
  /** Pairs (2i, 2i + 1), as in the paper, instead of (i, i + d/2), as in Llama's public code. */
  readonly interleaved?: boolean;
  /** How many channels turn, from the first one on (GPT-NeoX's partial rotary positions): all d unless given. */
  readonly width?: number;
  /** [d/2]: by how much each pair turns from one position to the next, instead of what `base` says. */
  readonly frequencies?: readonly number[] | Tensor;
  /** A factor for the turned pairs, 1 unless given: YaRN's (https://arxiv.org/abs/2309.00071). */
  readonly amplitude?: number;
}

/**
 * Rotary positions (https://arxiv.org/abs/2104.09864) on [..., T, d]: the pair (i, i + d/2) turns by t ·
 * base^(−2i/d), so that the product of a query and a key depends on their distance; d is `width`, if given. `positions` [T], or what
 * broadcasts to [..., T], are 0, 1, 2, … unless given.
 */
export function rotate(x: Tensor, options: RotaryOptions & { positions?: Tensor } = {}): Tensor {
  const { base = 10_000, interleaved = false, amplitude = 1, frequencies, positions } = options;
  const [T, all] = x.shape.slice(-2);
  const { width: d = all, ...rest } = options;
  if (d % 2 !== 0 || d < 0 || d > all)
    throw new ArgumentError(
      describe("rotate", `an even head width of at most ${all}`, `${d}`, "choose other heads"),
    );
  if (d < all) return cat([rotate(x.narrow(-1, 0, d), rest), x.narrow(-1, d, all - d)], -1);
  const half = d / 2;
  const given = frequencies && asTensor(frequencies, { device: x.device });
  if (given && formatShape(given.shape) !== formatShape([half]))
    throw new ShapeError(describe("rotate", `${half} frequencies`, formatShape(given.shape)));
  const frequency =
    given ??
    arange(half, { dtype: "f32" })
      .mul((-2 / d) * Math.log(base))
      .exp(); // [d/2]
  const t = positions ? positions.float() : arange(T, { dtype: "f32" });
  const angle = t.unsqueeze(-1).mul(frequency); // [..., T, d/2]
  const [cos, sin] = [angle.cos(), angle.sin()].map((t) =>
    amplitude === 1 ? t : t.mul(amplitude),
  );
  const [a, b] = interleaved
    ? x.unflatten(-1, [half, 2]).unbind(-1)
    : [x.narrow(-1, 0, half), x.narrow(-1, half, half)]; // [..., T, d/2]
  // Angles are f32: in halves a position beyond 256 has no digits left for them.
  const turned = [a.mul(cos).sub(b.mul(sin)), b.mul(cos).add(a.mul(sin))].map((t) => t.to(x.dtype));
  return interleaved ? stack(turned, -1).flatten(-2) : cat(turned, -1);
}
