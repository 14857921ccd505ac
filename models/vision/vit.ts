/**
 * @file A vision transformer (https://arxiv.org/abs/2010.11929): patches as tokens, pre-norm blocks, no class token,
 * because the connector takes the whole grid.
 *
 * Shape letters: B batch, C channels, S image side, P patch side, n = S / P patches per side, D width.
 */
import { ArgumentError, describe, ShapeError } from "../../core/errors.ts";
import type { Tensor } from "../../core/index.ts";
import { formatShape } from "../../core/shape.ts";
import {
  init,
  LayerNorm,
  Linear,
  MLP,
  Module,
  MultiheadAttention,
  TransformerBlock,
} from "../../nn/index.ts";

export interface VisionConfig {
  readonly imageSize: number;
  readonly patchSize: number;
  readonly channels: number;
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  /** Hidden width of the MLPs. */
  readonly hidden: number;
  /**
   * Spread of the initial positions. 0.02 is usual for long trainings; in one of a minute the position of a patch then
   * stays invisible for most of it.
   */
  readonly positionStd?: number;
}

/** Images [B, C, S, S] → patch embeddings with learned positions [B, n², D]. */
export class PatchEmbedding extends Module {
  projection: Linear;
  /** [n², D] */
  positions: Tensor;
  readonly config: VisionConfig;

  constructor(config: VisionConfig) {
    super();
    const { imageSize, patchSize, channels, width, positionStd = 0.02 } = config;
    if (imageSize % patchSize !== 0)
      throw new ArgumentError(
        describe(
          "PatchEmbedding",
          "an image size divisible by the patch size",
          `${imageSize} / ${patchSize}`,
        ),
      );
    this.config = config;
    this.projection = new Linear(channels * patchSize ** 2, width);
    this.positions = init.normal([(imageSize / patchSize) ** 2, width], positionStd);
  }

  forward(images: Tensor): Tensor {
    const { imageSize: S, patchSize: P, channels: C } = this.config;
    const [B] = images.shape;
    if (formatShape(images.shape) !== formatShape([B, C, S, S]))
      throw new ShapeError(
        describe("PatchEmbedding", `[B, ${C}, ${S}, ${S}]`, formatShape(images.shape)),
      );
    const n = S / P;
    // A convolution whose stride equals its kernel is a reshape and a matrix product.
    const patches = images
      .reshape([B, C, n, P, n, P])
      .permute([0, 2, 4, 1, 3, 5]) // [B, n, n, C, P, P]
      .reshape([B, n * n, C * P * P]);
    return this.projection.forward(patches).add(this.positions); // [B, n², D]
  }
}

/** [B, C, S, S] → [B, n², D] */
export class VisionTransformer extends Module {
  embed: PatchEmbedding;
  blocks: TransformerBlock[];
  norm: LayerNorm;

  constructor(config: VisionConfig) {
    super();
    const { width, depth, heads, hidden } = config;
    this.embed = new PatchEmbedding(config);
    this.blocks = Array.from(
      { length: depth },
      () =>
        new TransformerBlock({
          norm1: new LayerNorm(width),
          attention: new MultiheadAttention(width, heads),
          norm2: new LayerNorm(width),
          feedForward: new MLP(width, hidden),
        }),
    );
    this.norm = new LayerNorm(width);
  }

  forward(images: Tensor): Tensor {
    let x = this.embed.forward(images);
    for (const block of this.blocks) x = block.forward(x);
    return this.norm.forward(x);
  }
}
