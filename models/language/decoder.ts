/**
 * @file A decoder-only language model in the manner of Llama (https://arxiv.org/abs/2302.13971):
 * RMSNorm before each half of a block, rotary positions, causal attention with grouped queries,
 * SwiGLU; and Mixtral's and MM1's, whose feed-forward layers are mixtures of experts (moe.ts) in
 * all blocks or in every n-th.
 *
 * It takes embeddings rather than ids, so that image tokens can stand among them; `embed` makes
 * embeddings of ids. Decides: the architecture, who sees whom (padding, packed documents, windows),
 * the loss. Leaves to others: known sizes (presets.ts), other libraries' names for the weights
 * (huggingface.ts), generation (generate.ts).
 *
 * Shape letters: B batch, T positions, S keys (T, or the length of a cache), D width, V vocabulary,
 * E experts.
 */

import { ArgumentError, describe } from "../../core/errors.ts";
import {
  arange,
  cat,
  checkpoint,
  crossEntropy,
  full,
  linear,
  logicalNot,
  logicalOr,
  type Tensor,
  where,
} from "../../core/index.ts";
import { expectShape } from "../../nn/checks.ts";
import {
  type AttendOptions,
  Embedding,
  GatedMLP,
  init,
  type KVCache,
  Linear,
  Module,
  MultiheadAttention,
  RMSNorm,
} from "../../nn/index.ts";
import { type ActivationName, activationNamed } from "../activations.ts";
import { type ExpertsConfig, MixtureOfExperts, routerLoss } from "./moe.ts";
import { type RopeParameters, rotaryOf } from "./rope.ts";

/** Marks positions without a target, as in PyTorch. */
export const NO_TARGET = -100;

export interface LanguageConfig {
  readonly vocabulary: number;
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  /** Hidden width of the gated layers, and of each expert. */
  readonly hidden: number;
  /** Of the gates: "silu" (SwiGLU) unless given. */
  readonly activation?: ActivationName;
  /** Heads of keys and values; as many as of queries unless given. */
  readonly kvHeads?: number;
  /** Width of a head; width / heads unless given. */
  readonly headDim?: number;
  /** Of the norms; 1e-6 unless given. */
  readonly eps?: number;
  /** θ = 10 000 without stretching unless given. */
  readonly rope?: RopeParameters;
  /**
   * The longest text of the training; it bounds nothing, some rope types depend on it. 2048 unless
   * given.
   */
  readonly maxPositions?: number;
  /** Queries and keys are normalised per head. */
  readonly qkNorm?: boolean;
  /** Biases of attention's linear maps, or of those to queries, keys and values alone. */
  readonly attentionBias?: boolean | "qkv";
  readonly mlpBias?: boolean;
  /** Drops attention weights while training. */
  readonly attentionDropout?: number;
  /** A position sees itself and the window − 1 before it; all before it unless given. */
  readonly window?: number;
  /** The head is the embedding table. */
  readonly tied?: boolean;
  /** The id whose embedding stays as it is: it gets no gradient as an input. */
  readonly padding?: number;
  /**
   * The factor of (log Z)² in the loss (PaLM, https://arxiv.org/abs/2204.02311, §5): keeps the
   * logits from drifting. 0 unless given.
   */
  readonly zLoss?: number;
  readonly experts?: ExpertsConfig;
}

export interface LanguageOptions {
  /** [B, S]: true or 1 for tokens, false or 0 for padding, which nobody sees; on either side. */
  readonly mask?: Tensor;
  /**
   * [B, T] i32: which example each position of a packed sequence is of, neighbours alike. Attention
   * stays within examples and positions begin at 0 in each.
   */
  readonly documents?: Tensor;
  /**
   * [T] or [B, T], for the rotary turns; 0, 1, 2, … unless given (from the cache's position on, if
   * there is one).
   */
  readonly positions?: Tensor;
  /** Keys and values of the positions before; takes these positions too. */
  readonly cache?: KVCache;
  /**
   * Keeps only the inputs of each block for the gradient, and computes what is inside once more.
   */
  readonly checkpoint?: boolean;
}

/** y = x + attention(norm(x)); y + feedForward(norm(y)): [B, T, D] → [B, T, D]. */
export class DecoderBlock extends Module {
  norm1: RMSNorm;
  attention: MultiheadAttention;
  norm2: RMSNorm;
  feedForward: GatedMLP | MixtureOfExperts;

  constructor(config: LanguageConfig, sparse: boolean) {
    super();
    const { width, heads, kvHeads, headDim, hidden, eps = 1e-6, attentionBias = false } = config;
    this.norm1 = new RMSNorm(width, { eps });
    this.attention = new MultiheadAttention(width, heads, {
      ...{ causal: true, kvHeads, headDim, bias: attentionBias !== false },
      ...{ qkNorm: config.qkNorm ? eps : undefined, dropout: config.attentionDropout },
    });
    if (attentionBias === "qkv") this.attention.out.bias = null;
    this.norm2 = new RMSNorm(width, { eps });
    const activation = activationNamed(config.activation ?? "silu");
    this.feedForward = sparse
      ? new MixtureOfExperts(width, hidden, config.experts!, activation)
      : new GatedMLP(width, hidden, { activation, bias: config.mlpBias });
  }

  /**
   * Also the router's logits [B·T, E], where there are experts. `real` [B, T] bool: false for
   * padding.
   */
  forward(
    x: Tensor,
    options: AttendOptions,
    real: Tensor | null = null,
  ): [x: Tensor, routerLogits?: Tensor] {
    const seen = this.norm1.forward(x);
    const y = x.add(this.attention.forward(seen, undefined, undefined, options));
    const z = this.norm2.forward(y);
    if (this.feedForward instanceof GatedMLP) return [y.add(this.feedForward.forward(z))];
    const [mixed, routerLogits] = this.feedForward.forward(z, real);
    return [y.add(mixed), routerLogits];
  }
}

/** What a pass computes. */
export interface LanguagePass {
  /**
   * depth + 1 of [B, T, D]: the embeddings, what each block makes of them; the last one behind the
   * final norm.
   */
  readonly states: readonly Tensor[];
  /** Of each sparse block, [B·T, E]. */
  readonly routerLogits: readonly Tensor[];
}

export class LanguageModel extends Module {
  tokens: Embedding;
  blocks: DecoderBlock[];
  norm: RMSNorm;
  /** Null where the embedding table is the head. */
  head: Linear | null;
  readonly config: LanguageConfig;

  constructor(config: LanguageConfig) {
    super();
    const { vocabulary, width, depth, experts, padding, tied = false, eps = 1e-6 } = config;
    this.config = config;
    this.tokens = new Embedding(vocabulary, width, { std: 0.02, paddingIdx: padding });
    this.blocks = Array.from(
      { length: depth },
      (_, i) => new DecoderBlock(config, isSparse(experts, i)),
    );
    this.norm = new RMSNorm(width, { eps });
    this.head = tied ? null : new Linear(width, vocabulary, { bias: false });
    this.#initialize();
  }

  /**
   * N(0, 1 / in) for all matrices, as AXLearn's decoders, and no biases; what is added to the
   * stream is smaller by √(2·depth), as in GPT-2, so that the stream does not grow with the depth.
   * With PyTorch's values for each layer the small MM1 of the examples wrote 33.6 % of its captions
   * exactly, with these 35.5 %, with GPT-2's N(0, 0.02²) 13 % (means of two or three seeds, each ±
   * 3 percentage points, November 2026).
   */
  #initialize(): void {
    const added = Math.sqrt(2 * this.blocks.length);
    const draw = (weight: Tensor, smaller = 1) =>
      init.normal_(weight, 0, 1 / Math.sqrt(weight.shape.at(-1)!) / smaller);
    for (const { attention, feedForward } of this.blocks) {
      draw(attention.qkv!.weight);
      draw(attention.out.weight, added);
      const { gate, up, down } = feedForward;
      const of = (part: Linear | Tensor) => (part instanceof Linear ? part.weight : part);
      draw(of(gate));
      draw(of(up));
      draw(of(down), added);
      if (feedForward instanceof MixtureOfExperts) draw(feedForward.router.weight);
      for (const layer of [attention.qkv, attention.out, gate, up, down])
        if (layer instanceof Linear && layer.bias) init.zeros_(layer.bias);
    }
    if (this.head) draw(this.head.weight);
  }

  /** Ids [B, T] → embeddings [B, T, D]. */
  embed(ids: Tensor): Tensor {
    return this.tokens.forward(ids);
  }

  /** Embeddings [B, T, D] → hidden states [B, T, D]. */
  forward(x: Tensor, options: LanguageOptions = {}): Tensor {
    return this.run(x, options).states.at(-1)!;
  }

  /** As forward; all that comes up on the way. */
  run(x: Tensor, options: LanguageOptions = {}): LanguagePass {
    const { cache } = options;
    const pass = () => this.#pass(x, options);
    return cache ? cache.use(pass) : pass();
  }

  #pass(x: Tensor, options: LanguageOptions): LanguagePass {
    const attend = this.#attendOptions(x, options);
    const real = realOf(x.shape[1], options);
    const states = [x];
    const routerLogits: Tensor[] = [];
    for (const block of this.blocks) {
      const run = (x: Tensor) => block.forward(x, attend, real);
      const [next, logits] = (options.checkpoint ? checkpoint(run) : run)(states.at(-1)!);
      states.push(next);
      if (logits) routerLogits.push(logits);
    }
    states[states.length - 1] = this.norm.forward(states.at(-1)!);
    return { states, routerLogits };
  }

  /** Hidden states [..., D] → scores of the next token [..., V]. */
  logits(hidden: Tensor): Tensor {
    return this.head ? this.head.forward(hidden) : linear(hidden, this.tokens.weight);
  }

  /**
   * The mean next-token loss over the positions that have a target, and, where the configuration
   * has them, the z-loss and the routers' losses. ids [B, T]; targets [B, T]: the ids one position
   * ahead, NO_TARGET where there is nothing to predict (`nextTokens` makes them).
   */
  loss(ids: Tensor, targets: Tensor, options: LanguageOptions = {}): Tensor {
    return this.lossOf(this.run(this.embed(ids), options), targets, options);
  }

  /** As loss, of a pass over embeddings, some of which may be those of images. */
  lossOf(pass: LanguagePass, targets: Tensor, { mask }: LanguageOptions = {}): Tensor {
    const { zLoss = 0, experts, vocabulary } = this.config;
    const logits = this.logits(pass.states.at(-1)!).reshape([-1, vocabulary]);
    const flat = targets.reshape([-1]);
    let loss = crossEntropy(logits, flat, { ignoreIndex: NO_TARGET });
    if (zLoss !== 0) {
      const counted = flat.ne(NO_TARGET);
      const squares = where(counted, logits.float().logsumexp(-1).square(), 0).sum();
      loss = loss.add(squares.div(counted.sum()).mul(zLoss));
    }
    if (!experts || pass.routerLogits.length === 0) return loss;
    return loss.add(routerLoss(pass.routerLogits, experts, mask ? mask.reshape([-1]) : null));
  }

  /** Who sees whom, and where everybody stands: the same for all blocks. */
  #attendOptions(x: Tensor, options: LanguageOptions): AttendOptions {
    const { heads, width, headDim = width / heads, rope = {}, window } = this.config;
    const { mask, documents, cache, positions } = options;
    const [B, T] = x.shape;
    const S = cache?.length ?? T;
    if (mask) expectShape("LanguageModel", "mask", mask, [B, S]);
    if (documents) expectShape("LanguageModel", "documents", documents, [B, T]);
    if (documents && cache)
      throw new ArgumentError(
        describe("LanguageModel", "documents or a cache", "both", "generate for one example each"),
      );
    const length = positions ? positions.amax().add(1) : (cache?.position.add(T) ?? T);
    const blocked: Tensor[] = [];
    // [B, 1, T, T]
    if (documents) blocked.push(documents.unsqueeze(2).ne(documents.unsqueeze(1)).unsqueeze(1));
    if (window !== undefined) {
      const rows = cache ? cache.position.add(arange(T)) : arange(T);
      blocked.push(arange(S).le(rows.unsqueeze(1).sub(window))); // [T, S]
    }
    return {
      isCausal: true,
      positions: positions ?? (documents && positionsWithin(documents)),
      rotary: rotaryOf(rope, headDim, this.config.maxPositions ?? 2048, length),
      keyPaddingMask: mask && (mask.dtype === "bool" ? logicalNot(mask) : mask.eq(0)),
      attnMask: blocked.length > 0 ? blocked.reduce(logicalOr) : null,
    };
  }
}

/** Whether block i has experts: the last of every n. */
export const isSparse = (experts: ExpertsConfig | undefined, i: number): boolean =>
  experts !== undefined && (i + 1) % (experts.every ?? 1) === 0;

/**
 * Which of a pass's T positions are no padding, [B, T] bool; null if all. With a cache the mask is
 * of all its slots.
 */
function realOf(T: number, { mask, cache }: LanguageOptions): Tensor | null {
  if (!mask) return null;
  const own = cache ? mask.indexSelect(1, cache.position.add(arange(T))) : mask;
  return own.dtype === "bool" ? own : own.ne(0);
}

/** Documents [B, T] → how many positions of the same one come before, [B, T]. */
function positionsWithin(documents: Tensor): Tensor {
  const [B, T] = documents.shape;
  const isNext = documents.narrow(1, 1, T - 1).ne(documents.narrow(1, 0, T - 1));
  const begins = cat([full([B, 1], true, { dtype: "bool" }), isNext], 1);
  return arange(T).sub(where(begins, arange(T), 0).cummax(1).values);
}

/**
 * Labels [B, T] (ids, NO_TARGET where there is no loss) → targets [B, T]: the label one position
 * ahead. The last position has none, nor, with `documents`, the last of each example.
 */
export function nextTokens(labels: Tensor, documents?: Tensor): Tensor {
  const [B, T] = labels.shape;
  const ahead = (t: Tensor) => t.narrow(1, 1, T - 1);
  const next = documents
    ? where(ahead(documents).eq(documents.narrow(1, 0, T - 1)), ahead(labels), NO_TARGET)
    : ahead(labels);
  return cat([next, full([B, 1], NO_TARGET, { dtype: labels.dtype })], 1);
}
