/**
 * @file An image classifier: a ViT, one vector of its tokens, and a linear map to scores of
 * classes. How the tokens become one vector is where libraries differ: the class token (the
 * paper's, and the Hugging Face library's), the mean of the patches with a norm behind it (many of
 * timm's), or a learned query that attends to them (SigLIP's).
 *
 * Shape letters: B batch, T tokens, D width, N classes.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import type { Tensor } from "../../core/index.ts";
import { init, LayerNorm, Linear, MLP, Module, MultiheadAttention } from "../../nn/index.ts";
import { activationNamed } from "../activations.ts";
import { type ImageOptions, ViT, type ViTConfig } from "./vit.ts";

/**
 * "token": the class token; of the patches: "avg" their mean, "max", or "avgmax", the mean of both;
 * "map": `AttentionPool`.
 */
export type Pooling = "token" | "avg" | "max" | "avgmax" | "map";

export interface ViTClassifierConfig extends ViTConfig {
  readonly classes: number;
  /** "token" unless given. */
  readonly pool?: Pooling;
  /**
   * A layer norm of the pooled vector; combine with `finalNorm: false`, as timm does for all but
   * "token".
   */
  readonly poolNorm?: boolean;
  /** The class token and the registers are pooled with the patches; not by default. */
  readonly poolPrefix?: boolean;
}

/**
 * One learned query attends to the tokens; an MLP, with a norm before it, adds to what it has seen:
 * [B, T, D] → [B, D]. timm's AttentionPoolLatent, SigLIP's head (https://arxiv.org/abs/2303.15343).
 */
export class AttentionPool extends Module {
  /** The query, [1, D]. */
  latent: Tensor;
  /** Queries, keys and values in one matrix [3·D, D]; the result's is [D, D]. */
  attention: MultiheadAttention;
  /** Of D channels. */
  norm: LayerNorm;
  /** D → `hidden` → D, as a block's. */
  mlp: MLP;

  constructor({ width, heads, hidden, activation = "gelu", eps }: ViTConfig) {
    super();
    this.latent = init.normal([1, width], width ** -0.5);
    this.attention = new MultiheadAttention(width, heads);
    this.norm = new LayerNorm(width, { eps });
    this.mlp = new MLP(width, hidden, { activation: activationNamed(activation) });
  }

  forward(tokens: Tensor): Tensor {
    const query = this.latent.unsqueeze(0).expand([tokens.shape[0], ...this.latent.shape]);
    const seen = this.attention.forward(query, tokens, tokens); // [B, 1, D]
    return seen.add(this.mlp.forward(this.norm.forward(seen))).squeeze(1);
  }
}

/** Images [B, C, H, W] → scores [B, N]. */
export class ViTClassifier extends Module {
  vit: ViT;
  attentionPool: AttentionPool | null;
  poolNorm: LayerNorm | null;
  /** Its weight [N, D], its bias [N]. */
  head: Linear;
  readonly pool: Pooling;
  readonly poolPrefix: boolean;

  constructor(config: ViTClassifierConfig) {
    super();
    const { pool = "token", poolNorm = false, classes, width, eps, classToken } = config;
    if (pool === "token" && !classToken)
      throw new ArgumentError(
        describe("ViTClassifier", "classToken: true for the pooling 'token'", `${classToken}`),
      );
    this.vit = new ViT(config);
    this.pool = pool;
    this.poolPrefix = config.poolPrefix ?? false;
    this.attentionPool = pool === "map" ? new AttentionPool(config) : null;
    this.poolNorm = poolNorm ? new LayerNorm(width, { eps }) : null;
    this.head = new Linear(width, classes);
  }

  forward(images: Tensor, options: ImageOptions = {}): Tensor {
    return this.classify(this.vit.forward(images, options));
  }

  /** Tokens [B, T, D] as the ViT gives them → scores [B, N]. */
  classify(tokens: Tensor): Tensor {
    const pooled = this.#pooled(tokens); // [B, D]
    return this.head.forward(this.poolNorm ? this.poolNorm.forward(pooled) : pooled);
  }

  #pooled(tokens: Tensor): Tensor {
    if (this.pool === "token") return tokens.select(1, 0);
    const skipped = this.poolPrefix ? 0 : this.vit.prefix;
    const patches = tokens.narrow(1, skipped, tokens.shape[1] - skipped);
    if (this.attentionPool) return this.attentionPool.forward(patches);
    if (this.pool === "avg") return patches.mean(1);
    if (this.pool === "max") return patches.amax(1);
    return patches.mean(1).add(patches.amax(1)).mul(0.5);
  }
}
