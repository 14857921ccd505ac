/**
 * @file CLIP (https://arxiv.org/abs/2103.00020): an image tower and a text tower that are trained
 * to give the same vector for an image and its caption. MM1's image encoders were trained this way;
 * the image tower is a ViT with a class token, a norm ahead of the blocks and a patch projection
 * without bias.
 *
 * Shape letters: B images, N texts, T text positions, E width of the shared space.
 */
import { ArgumentError, describe, ShapeError } from "../../core/errors.ts";
import { arange, crossEntropy, noGrad, normalize, type Tensor } from "../../core/index.ts";
import { formatShape } from "../../core/shape.ts";
import { Embedding, init, LayerNorm, Linear, type MLP, Module, type TransformerBlock } from "../../nn/index.ts"; // biome-ignore format: one line
import type { ActivationName } from "../activations.ts";
import { encoderBlock, type ImageOptions, ViT, type ViTConfig } from "./vit.ts";

export interface ClipTextConfig {
  readonly vocabulary: number;
  /** Positions: the longest text. */
  readonly context: number;
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  /** Hidden width of the MLPs. */
  readonly hidden: number;
  readonly activation?: ActivationName;
  readonly eps?: number;
  /**
   * The token whose position is the text's vector: its first place. Without it, the place of the
   * highest id, which is the same in OpenAI's vocabulary, where the end of a text is the last token
   * of all.
   */
  readonly endOfText?: number;
}

export interface ClipConfig {
  /** E */
  readonly embed: number;
  readonly vision: ViTConfig;
  readonly text: ClipTextConfig;
}

/** The temperature at the start, as the logarithm of the factor: ln(1 / 0.07). */
const INITIAL_SCALE = Math.log(1 / 0.07);
/** The largest factor is 100: above, training was unstable (§2.5 of the paper). */
const MAX_SCALE = Math.log(100);

/** Token ids [N, T] → states [N, T, D]; a position sees itself and those before it. */
export class ClipText extends Module {
  tokens: Embedding;
  /** [context, D] */
  positions: Tensor;
  blocks: TransformerBlock[];
  norm: LayerNorm;
  readonly config: ClipTextConfig;

  constructor(config: ClipTextConfig) {
    super();
    const { vocabulary, context, width, depth, eps } = config;
    this.config = config;
    this.tokens = new Embedding(vocabulary, width, { std: 0.02 });
    this.positions = init.normal([context, width], 0.01);
    this.blocks = Array.from({ length: depth }, () => encoderBlock(config, { causal: true }));
    this.norm = new LayerNorm(width, { eps });
  }

  /**
   * depth + 1 states [N, T, D], none with the final norm. `mask` [N, T]: 0 where there is padding,
   * which no position sees.
   */
  hiddenStates(ids: Tensor, mask?: Tensor): Tensor[] {
    const [, T] = ids.shape;
    const { context } = this.config;
    if (ids.ndim !== 2 || T > context)
      throw new ShapeError(describe("ClipText", `ids [N, T ≤ ${context}]`, formatShape(ids.shape)));
    const states = [this.tokens.forward(ids).add(this.positions.narrow(0, 0, T))];
    const keyPaddingMask = mask?.eq(0);
    for (const block of this.blocks) states.push(block.forward(states.at(-1)!, { keyPaddingMask }));
    return states;
  }

  forward(ids: Tensor, mask?: Tensor): Tensor {
    return this.norm.forward(this.hiddenStates(ids, mask).at(-1)!);
  }

  /** States [N, T, D] with the final norm → those at the end of each text [N, D]. */
  pool(states: Tensor, ids: Tensor): Tensor {
    const { endOfText } = this.config;
    const end = endOfText === undefined ? ids.argmax(1) : ids.eq(endOfText).int().argmax(1); // [N]
    const [N, , D] = states.shape;
    return states.gather(1, end.reshape([N, 1, 1]).expand([N, 1, D])).squeeze(1);
  }
}

export class CLIP extends Module {
  vision: ViT;
  text: ClipText;
  /** [E, Dv] and [E, Dt] */
  visionProjection: Linear;
  textProjection: Linear;
  /** Scalar: the logarithm of what similarities are multiplied by. */
  logitScale: Tensor;
  readonly config: ClipConfig;

  constructor(config: ClipConfig) {
    super();
    const { embed, vision, text } = config;
    // The class token's state is the image's vector, and first values are drawn for learned
    // positions.
    if (!vision.classToken || (vision.positions ?? "learned") !== "learned")
      throw new ArgumentError(
        describe("CLIP", "an image tower with a class token and learned positions", "another"),
      );
    this.config = config;
    this.vision = new ViT(vision);
    this.text = new ClipText(text);
    this.visionProjection = new Linear(vision.width, embed, { bias: false });
    this.textProjection = new Linear(text.width, embed, { bias: false });
    this.logitScale = init.zeros([]);
    this.#initialize();
  }

  /** Image vectors [B, E] of length 1. */
  encodeImage(images: Tensor, options: ImageOptions = {}): Tensor {
    return normalize(this.projectImage(this.vision.hiddenStates(images, options).at(-1)!));
  }

  /** The image tower's last hidden state [B, T, Dv] → vectors [B, E], not yet of length 1. */
  projectImage(state: Tensor): Tensor {
    return this.visionProjection.forward(this.vision.normalize(state.select(1, 0)));
  }

  /**
   * Text vectors [N, E] of length 1. `mask` [N, T]: 0 where there is padding; behind a text's end
   * it changes nothing.
   */
  encodeText(ids: Tensor, mask?: Tensor): Tensor {
    return normalize(this.projectText(this.text.forward(ids, mask), ids));
  }

  /** The text tower's result [N, T, Dt] → vectors [N, E], not yet of length 1. */
  projectText(states: Tensor, ids: Tensor): Tensor {
    return this.textProjection.forward(this.text.pool(states, ids));
  }

  /** Scaled similarities [B, N]: how well each image fits each text. */
  logits(image: Tensor, text: Tensor): Tensor {
    return image.matmul(text.T).mul(this.logitScale.exp());
  }

  forward(images: Tensor, ids: Tensor, mask?: Tensor): Tensor {
    return this.logits(this.encodeImage(images), this.encodeText(ids, mask));
  }

  /** The contrastive loss of B images and their B texts, in the same order. */
  loss(images: Tensor, ids: Tensor, mask?: Tensor): Tensor {
    return contrastiveLoss(this.forward(images, ids, mask));
  }

  /** Keeps the temperature's factor within 1 … 100: call it after every optimizer step. */
  clampScale(): void {
    noGrad(() => this.logitScale.assign(this.logitScale.clamp(0, MAX_SCALE)));
  }

  /**
   * OpenAI's first values: residual branches that add little at the start, the less the deeper the
   * tower.
   */
  #initialize(): void {
    const { vision, text } = this;
    init.constant_(this.logitScale, INITIAL_SCALE);
    const towers = [
      [vision.blocks, vision.config],
      [text.blocks, text.config],
    ] as const;
    for (const [blocks, { width, depth }] of towers)
      for (const { attention, feedForward } of blocks) {
        const { up, down } = feedForward as MLP;
        const branch = (width * 2 * depth) ** -0.5;
        init.normal_(attention.qkv!.weight, 0, width ** -0.5);
        init.normal_(attention.out.weight, 0, branch);
        init.normal_(up.weight, 0, (2 * width) ** -0.5);
        init.normal_(down.weight, 0, branch);
      }
    const { embed } = vision;
    const scale = vision.config.width ** -0.5;
    if (embed.classToken) init.normal_(embed.classToken, 0, scale);
    init.normal_(embed.positions!, 0, scale);
    init.normal_(this.visionProjection.weight, 0, scale);
    init.normal_(this.textProjection.weight, 0, text.config.width ** -0.5);
  }
}

/**
 * The mean of two cross-entropies: each image among all texts, and each text among all images.
 * Logits [B, B].
 */
export function contrastiveLoss(logits: Tensor): Tensor {
  const [B, N] = logits.shape;
  if (logits.ndim !== 2 || B !== N)
    throw new ShapeError(
      describe("contrastiveLoss", "logits [B, B], pairs on the diagonal", formatShape(logits.shape)), // biome-ignore format: one line
    );
  const own = arange(B);
  return crossEntropy(logits, own).add(crossEntropy(logits.T, own)).mul(0.5);
}

// --- presets -------------------------------------------------------------------------------------

interface Size {
  readonly embed: number;
  readonly imageSize: number;
  readonly patchSize: number;
  readonly vision: readonly [depth: number, width: number, heads: number];
  readonly text: readonly [depth: number, width: number, heads: number];
}

/** open_clip's model_configs. The heads of H/14's image tower are 80 wide. */
const sizes = {
  "B/16": { embed: 512, imageSize: 224, patchSize: 16, vision: [12, 768, 12], text: [12, 512, 8] },
  "L/14": { embed: 768, imageSize: 224, patchSize: 14, vision: [24, 1024, 16], text: [12, 768, 12] },
  "L/14-336": { embed: 768, imageSize: 336, patchSize: 14, vision: [24, 1024, 16], text: [12, 768, 12] },
  "H/14": { embed: 1024, imageSize: 224, patchSize: 14, vision: [32, 1280, 16], text: [24, 1024, 16] },
  "H/14-378": { embed: 1024, imageSize: 378, patchSize: 14, vision: [32, 1280, 16], text: [24, 1024, 16] },
} as const satisfies Readonly<Record<string, Size>>; // biome-ignore format: a table

export type ClipSize = keyof typeof sizes;
export const clipSizes = Object.keys(sizes) as readonly ClipSize[];

/**
 * A published size. `activation` is "gelu" unless given; OpenAI's weights and DFN-5B's H/14 were
 * trained with "quick_gelu", LAION's with "gelu".
 */
export function clipConfig(
  size: ClipSize,
  { activation = "gelu" }: { readonly activation?: ActivationName } = {},
): ClipConfig {
  if (!Object.hasOwn(sizes, size))
    throw new ArgumentError(describe("clipConfig", `one of ${clipSizes.join(", ")}`, `"${size}"`));
  const { embed, imageSize, patchSize, vision, text }: Size = sizes[size];
  const tower = ([depth, width, heads]: Size["vision"]) => ({
    depth,
    width,
    heads,
    hidden: 4 * width,
    activation,
  });
  return {
    embed,
    vision: clipVisionConfig({ imageSize, patchSize, channels: 3, ...tower(vision) }),
    text: { vocabulary: 49_408, context: 77, ...tower(text) },
  };
}

/** What makes a ViT CLIP's image tower. */
export const clipVisionConfig = (config: ViTConfig): ViTConfig => ({
  ...config,
  classToken: true,
  preNorm: true,
  patchBias: false,
});
