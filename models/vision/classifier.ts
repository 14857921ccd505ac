/**
 * @file An image classifier: a ViT, one vector of its tokens, and a linear map to scores of classes. How the tokens become
 * one vector is where libraries differ: the class token (the paper's, and the Hugging Face library's), or the mean of the
 * patches with a norm behind it (many of timm's).
 *
 * Shape letters: B batch, T tokens, D width, N classes.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import type { Tensor } from "../../core/index.ts";
import { LayerNorm, Linear, Module } from "../../nn/index.ts";
import { type ImageOptions, ViT, type ViTConfig } from "./vit.ts";

/** "token": the class token; of the patches: "avg" their mean, "max", or "avgmax", the mean of both. */
export type Pooling = "token" | "avg" | "max" | "avgmax";

export interface ViTClassifierConfig extends ViTConfig {
  readonly classes: number;
  /** "token" unless given. */
  readonly pool?: Pooling;
  /** A layer norm of the pooled vector; combine with `finalNorm: false`, as timm does for all but "token". */
  readonly poolNorm?: boolean;
}

/** Images [B, C, H, W] → scores [B, N]. */
export class ViTClassifier extends Module {
  vit: ViT;
  poolNorm: LayerNorm | null;
  head: Linear;
  readonly pool: Pooling;

  constructor(config: ViTClassifierConfig) {
    super();
    const { pool = "token", poolNorm = false, classes, width, eps, classToken } = config;
    if (pool === "token" && !classToken)
      throw new ArgumentError(
        describe("ViTClassifier", "classToken: true for the pooling 'token'", `${classToken}`),
      );
    this.vit = new ViT(config);
    this.pool = pool;
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
    const { prefix } = this.vit;
    const patches = tokens.narrow(1, prefix, tokens.shape[1] - prefix);
    if (this.pool === "avg") return patches.mean(1);
    if (this.pool === "max") return patches.amax(1);
    return patches.mean(1).add(patches.amax(1)).mul(0.5);
  }
}
