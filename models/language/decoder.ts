/**
 * @file A decoder-only language model in the manner of Llama: RMSNorm, rotary positions, SwiGLU, causal attention.
 *
 * It takes embeddings rather than ids, so that image tokens can stand among them; `embed` makes embeddings of ids.
 * Shape letters: B batch, T positions, D width, V vocabulary.
 */
import type { Tensor } from "../../core/index.ts";
import {
  Embedding,
  Linear,
  Module,
  MultiheadAttention,
  RMSNorm,
  SwiGLU,
  TransformerBlock,
} from "../../nn/index.ts";

export interface LanguageConfig {
  readonly vocabulary: number;
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  /** Hidden width of the SwiGLU layers. */
  readonly hidden: number;
}

export class LanguageModel extends Module {
  tokens: Embedding;
  blocks: TransformerBlock[];
  norm: RMSNorm;
  head: Linear;

  constructor(config: LanguageConfig) {
    super();
    const { vocabulary, width, depth, heads, hidden } = config;
    this.tokens = new Embedding(vocabulary, width, { std: 0.02 });
    this.blocks = Array.from(
      { length: depth },
      () =>
        new TransformerBlock({
          norm1: new RMSNorm(width, { eps: 1e-6 }),
          attention: new MultiheadAttention(width, heads, {
            causal: true,
            rotary: true,
            bias: false,
          }),
          norm2: new RMSNorm(width, { eps: 1e-6 }),
          feedForward: new SwiGLU(width, hidden),
        }),
    );
    this.norm = new RMSNorm(width, { eps: 1e-6 });
    this.head = new Linear(width, vocabulary, { bias: false });
  }

  /** Ids [B, T] → embeddings [B, T, D]. */
  embed(ids: Tensor): Tensor {
    return this.tokens.forward(ids);
  }

  /** Embeddings [B, T, D] → hidden states [B, T, D]. */
  forward(x: Tensor): Tensor {
    for (const block of this.blocks) x = block.forward(x);
    return this.norm.forward(x);
  }

  /** Hidden states [..., D] → scores of the next token [..., V]. */
  logits(hidden: Tensor): Tensor {
    return this.head.forward(hidden);
  }
}
