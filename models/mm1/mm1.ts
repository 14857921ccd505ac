/**
 * @file MM1 in its simplest form (https://arxiv.org/abs/2403.09611): image encoder, connector, and a decoder that reads
 * the image tokens before the text.
 *
 * Shape letters: B batch, I image tokens, T text positions, D width of the language model, V vocabulary.
 */
import { cat, crossEntropy, type Tensor } from "../../core/index.ts";
import { Module } from "../../nn/index.ts";
import { AveragePoolConnector } from "../connectors/average-pool.ts";
import { type LanguageConfig, LanguageModel, NO_TARGET } from "../language/decoder.ts";
import { ViT, type ViTConfig } from "../vision/vit.ts";

export { NO_TARGET };

export interface Mm1Config {
  readonly vision: ViTConfig & { readonly imageSize: number };
  /** Image tokens per side of the pooled grid. */
  readonly grid: number;
  readonly language: LanguageConfig;
}

export class Mm1 extends Module {
  vision: ViT;
  connector: AveragePoolConnector;
  language: LanguageModel;
  readonly config: Mm1Config;

  constructor(config: Mm1Config) {
    super();
    const { vision, grid, language } = config;
    this.config = config;
    this.vision = new ViT(vision);
    this.connector = new AveragePoolConnector({
      visionWidth: vision.width,
      grid,
      width: language.width,
    });
    this.language = new LanguageModel(language);
  }

  /** Images [B, C, S, S] → image tokens [B, I, D]. */
  encode(images: Tensor): Tensor {
    return this.connector.forward(this.vision.forward(images));
  }

  /**
   * Image tokens [B, I, D] and ids [B, T] → scores of the token after each text position [B, T, V]. Image tokens
   * [1, I, D] stand before every text: the image is encoded once.
   */
  decode(imageTokens: Tensor, ids: Tensor): Tensor {
    const [, I, D] = imageTokens.shape;
    const [B, T] = ids.shape;
    const x = cat([imageTokens.expand([B, I, D]), this.language.embed(ids)], 1); // [B, I + T, D]
    const hidden = this.language.forward(x).narrow(1, I, T); // [B, T, D]: no scores for image positions
    return this.language.logits(hidden);
  }

  forward(images: Tensor, ids: Tensor): Tensor {
    return this.decode(this.encode(images), ids);
  }

  /**
   * Mean next-token loss on text positions. `targets` [B, T] are the ids one position ahead, NO_TARGET where there is
   * nothing to predict (padding).
   */
  loss(images: Tensor, ids: Tensor, targets: Tensor): Tensor {
    const logits = this.forward(images, ids);
    const [B, T, V] = logits.shape;
    return crossEntropy(logits.reshape([B * T, V]), targets.reshape([B * T]), {
      ignoreIndex: NO_TARGET,
    });
  }
}
