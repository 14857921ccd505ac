/**
 * @file The vision transformer (https://arxiv.org/abs/2010.11929): an image is cut into patches,
 * each is a token, and pre-norm blocks let all of them attend to one another. CLIP's image tower,
 * AIM's trunk, the classifiers of timm and of the Hugging Face library, and MM1's encoder are this
 * class with other options; what each of these calls its weights is in names.ts.
 *
 * Shape letters: B batch, C channels, H and W the image's sides, P patch side, h = ⌊H / P⌋ and w =
 * ⌊W / P⌋ patches per column and per row, R registers, k = R + 1 with a class token and R without,
 * T = k + h·w tokens, D width.
 */
import { isFloat } from "../../core/dtype.ts";
import { ArgumentError, describe, ShapeError } from "../../core/errors.ts";
import { cat, checkpoint, type Tensor } from "../../core/index.ts";
import { formatShape } from "../../core/shape.ts";
import {
  buffer,
  init,
  LayerNorm,
  Linear,
  MLP,
  Module,
  MultiheadAttention,
  parameter,
  TransformerBlock,
} from "../../nn/index.ts";
import { type ActivationName, activationNamed } from "../activations.ts";
import { type Grid, resizePositions, sidesOf, sinCosPositions } from "./positions.ts";

export interface ViTConfig {
  /** Side of the images that the positions are of, or [height, width]. */
  readonly imageSize: number | readonly [height: number, width: number];
  readonly patchSize: number;
  readonly channels: number;
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  /** Width of a head: width / heads unless given. */
  readonly headDim?: number;
  /** Hidden width of the MLPs. */
  readonly hidden: number;
  /** The exact GELU unless given. */
  readonly activation?: ActivationName;
  /** Of all layer norms: 1e-5 unless given. */
  readonly eps?: number;
  /**
   * A learned token ahead of the patches; none unless asked for: most connectors take the grid
   * alone.
   */
  readonly classToken?: boolean;
  /**
   * Learned tokens between the class token and the patches (https://arxiv.org/abs/2309.16588): none
   * unless given.
   */
  readonly registers?: number;
  /** Learned (the default), or fixed sines and cosines (positions.ts), or none. */
  readonly positions?: "learned" | "sincos" | "none";
  /** The class token and the registers have positions too (the default). */
  readonly classPosition?: boolean;
  /**
   * Spread of the initial positions. 0.02 is usual for long trainings; in one of a minute the
   * position of a patch then stays invisible for most of it.
   */
  readonly positionStd?: number;
  /**
   * How learned positions follow an image of another size: antialiased (the default, as open_clip)
   * or not (as the Hugging Face library).
   */
  readonly antialias?: boolean;
  /** Whether the patch projection has a bias (the default). */
  readonly patchBias?: boolean;
  /** A layer norm of the patches before positions are added, as in AIM. */
  readonly patchNorm?: boolean;
  /** A layer norm before the first block, as in CLIP. */
  readonly preNorm?: boolean;
  /** A layer norm after the last block (the default). */
  readonly finalNorm?: boolean;
  /**
   * Whether the blocks' linear maps have biases (the default); that to queries, keys and values may
   * differ.
   */
  readonly bias?: boolean;
  readonly qkvBias?: boolean;
  /** Layer norms of queries and keys, per head. */
  readonly qkNorm?: boolean;
  /**
   * What a block's halves add is multiplied by parameters that begin at this value (LayerScale);
   * not unless given.
   */
  readonly layerScale?: number;
}

export interface ImageOptions {
  /**
   * Takes images of any size and resizes the positions to their grid; without, a size other than
   * the model's is an error.
   */
  readonly interpolate?: boolean;
  /**
   * Keeps only the inputs of each block for the gradient, and computes what is inside once more.
   */
  readonly checkpoint?: boolean;
}

export interface SelectOptions extends ImageOptions {
  /**
   * Which hidden state: 0 is before the first block, `depth` (or −1) after the last, −2 before it,
   * as in LLaVA. Unless given, the last one and the final norm. Of several, their features side by
   * side.
   */
  readonly layer?: number | readonly number[];
  /** Whether the class token, and the registers, stay (they do not by default). */
  readonly classToken?: boolean;
}

/**
 * Images [B, C, H, W] → patch embeddings with positions [B, T, D], the class token first, then
 * registers.
 */
export class PatchEmbedding extends Module {
  /** A convolution whose stride is its kernel, as a matrix: [D, C·P·P]. */
  projection: Linear;
  norm: LayerNorm | null;
  /** [D] */
  classToken: Tensor | null;
  /** [R, D] */
  registers: Tensor | null;
  /**
   * [T, D], or [h·w, D] if the rows ahead of the patches have none. Fixed ones are no part of a
   * state dict.
   */
  positions: Tensor | null;
  readonly config: ViTConfig;

  constructor(config: ViTConfig) {
    super();
    const {
      patchSize,
      channels,
      width,
      eps,
      patchBias,
      classToken = false,
      registers = 0,
    } = config;
    const { positionStd = 0.02, patchNorm = false, positions = "learned" } = config;
    const [h, w] = gridOf(config);
    if (h < 1 || w < 1)
      throw new ArgumentError(
        describe("PatchEmbedding", "an image of at least one patch", `${config.imageSize} / ${patchSize}`), // biome-ignore format: one line
      );
    this.config = config;
    this.projection = new Linear(channels * patchSize ** 2, width, { bias: patchBias });
    this.norm = patchNorm ? new LayerNorm(width, { eps }) : null;
    this.classToken = classToken ? init.normal([width], 0.02) : null;
    this.registers = registers > 0 ? init.normal([registers, width], 0.02) : null;
    const first = (config.classPosition ?? true) ? prefixOf(config) : 0;
    this.positions =
      positions === "none"
        ? null
        : positions === "sincos"
          ? buffer(sinCosPositions([h, w], width, { prefix: first }), { persistent: false })
          : init.normal([first + h * w, width], positionStd);
  }

  forward(images: Tensor, options: ImageOptions = {}): Tensor {
    const { patchSize: P, channels: C, imageSize } = this.config;
    const [H, W] = sidesOf(imageSize);
    const [B, , height, width] = images.shape;
    const fits = options.interpolate
      ? images.ndim === 4 && images.shape[1] === C && Math.min(height, width) >= P
      : formatShape(images.shape) === formatShape([B, C, H, W]);
    if (!fits)
      throw new ShapeError(
        describe(
          "PatchEmbedding",
          options.interpolate ? `[B, ${C}, ≥ ${P}, ≥ ${P}]` : `[B, ${C}, ${H}, ${W}]`,
          formatShape(images.shape),
          options.interpolate ? undefined : "interpolate: true takes other sizes",
        ),
      );
    const [h, w] = [Math.floor(height / P), Math.floor(width / P)];
    // A convolution whose stride equals its kernel is a reshape and a matrix product. It has no
    // window for a rest.
    const patches = images
      .narrow(2, 0, h * P)
      .narrow(3, 0, w * P)
      .reshape([B, C, h, P, w, P])
      .permute([0, 2, 4, 1, 3, 5]) // [B, h, w, C, P, P]
      .reshape([B, h * w, C * P * P]);
    const projected = this.projection.forward(this.#asWeights(patches));
    const x = this.norm ? this.norm.forward(projected) : projected; // [B, h·w, D]
    const positions = this.#positionsFor([h, w]);
    const ahead = [this.classToken?.unsqueeze(0), this.registers].filter((t) => t != null); // [1, D], [R, D]
    const withAhead = (t: Tensor) =>
      ahead.length === 0
        ? t
        : cat([...ahead.map((a) => a.unsqueeze(0).expand([B, ...a.shape])), t], 1);
    if (!positions) return withAhead(x);
    const all = positions.shape[0] > h * w;
    return all ? withAhead(x).add(positions) : withAhead(x.add(positions));
  }

  /** Floats as what the model has: images are f32, and its weights may be halves (or integers). */
  #asWeights(x: Tensor): Tensor {
    const [first] = this.parameters();
    return first && isFloat(x.dtype) ? x.to(first.dtype) : x;
  }

  #positionsFor(grid: Grid): Tensor | null {
    const { positions: own } = this;
    if (!own) return null;
    const from = gridOf(this.config);
    const { positions = "learned", width, antialias } = this.config;
    if (from[0] === grid[0] && from[1] === grid[1]) return own;
    if (positions === "learned") return resizePositions(own, from, grid, { antialias });
    const prefix = own.shape[0] - from[0] * from[1];
    return sinCosPositions(grid, width, { prefix }).to(own.dtype);
  }
}

/** Images [B, C, H, W] → tokens [B, T, D] after the final norm. */
export class ViT extends Module {
  embed: PatchEmbedding;
  preNorm: LayerNorm | null;
  blocks: TransformerBlock[];
  norm: LayerNorm | null;
  readonly config: ViTConfig;

  constructor(config: ViTConfig) {
    super();
    const { width, depth, eps, preNorm = false, finalNorm = true } = config;
    this.config = config;
    this.embed = new PatchEmbedding(config);
    this.preNorm = preNorm ? new LayerNorm(width, { eps }) : null;
    this.blocks = Array.from({ length: depth }, () => encoderBlock(config));
    this.norm = finalNorm ? new LayerNorm(width, { eps }) : null;
  }

  /** Rows of the result ahead of the patches. */
  get prefix(): number {
    return prefixOf(this.config);
  }

  /** Patches per column and per row of an image of the configured size. */
  get grid(): Grid {
    return gridOf(this.config);
  }

  forward(images: Tensor, options: ImageOptions = {}): Tensor {
    return this.normalize(this.hiddenStates(images, options).at(-1)!);
  }

  /** The final norm, if there is one. */
  normalize(x: Tensor): Tensor {
    return this.norm ? this.norm.forward(x) : x;
  }

  /**
   * depth + 1 states [B, T, D]: after the embedding (and its norm), then after every block; none
   * has the final norm.
   */
  hiddenStates(images: Tensor, options: ImageOptions = {}): Tensor[] {
    const x = this.embed.forward(images, options);
    const states = [this.preNorm ? this.preNorm.forward(x) : x];
    for (const block of this.blocks) {
      const run = (x: Tensor) => block.forward(x);
      states.push((options.checkpoint ? checkpoint(run) : run)(states.at(-1)!));
    }
    return states;
  }

  /**
   * What a connector reads: the tokens of a chosen layer, [B, h·w, D] or, with the class token, [B,
   * T, D]; of L layers, L·D wide.
   */
  features(images: Tensor, { layer, classToken = false, ...options }: SelectOptions = {}): Tensor {
    const states = this.hiddenStates(images, options);
    const stateOf = (i: number): Tensor => {
      const state = states.at(i);
      if (state) return state;
      const expected = `a layer of ${states.length} hidden states`;
      throw new ArgumentError(describe("ViT.features", expected, `${i}`));
    };
    const chosen =
      layer === undefined ? this.normalize(stateOf(-1)) : cat([layer].flat().map(stateOf), -1);
    const skipped = classToken ? 0 : this.prefix;
    return chosen.narrow(1, skipped, chosen.shape[1] - skipped);
  }
}

/**
 * A block of an encoder; `causal` where a token sees itself and those before it only, as in CLIP's
 * text tower.
 */
export function encoderBlock(
  config: Pick<ViTConfig, "width" | "heads" | "headDim" | "hidden" | "activation" | "eps" | "bias" | "qkvBias" | "qkNorm" | "layerScale">, // biome-ignore format: one line
  options: { readonly causal?: boolean } = {},
): TransformerBlock {
  const { width, heads, headDim, hidden, activation = "gelu", eps, bias } = config;
  const attention = new MultiheadAttention(width, heads, { bias, headDim, ...options });
  const inputs = attention.qkv!;
  if (config.qkvBias === false) inputs.bias = null;
  else if (config.qkvBias) inputs.bias ??= init.zeros([inputs.outFeatures]);
  if (config.qkNorm) {
    attention.qNorm = new LayerNorm(headDim ?? width / heads, { eps });
    attention.kNorm = new LayerNorm(headDim ?? width / heads, { eps });
  }
  const { layerScale } = config;
  return new TransformerBlock({
    layerScale: layerScale === undefined ? undefined : { width, value: layerScale },
    norm1: new LayerNorm(width, { eps }),
    attention,
    norm2: new LayerNorm(width, { eps }),
    feedForward: new MLP(width, hidden, { activation: activationNamed(activation), bias }),
  });
}

/**
 * The same model for images of another size: learned positions are resized once and become
 * parameters of that size, which is how an encoder is trained on at a higher resolution. All other
 * parameters are the given model's own.
 */
export function resizeViT(vit: ViT, imageSize: ViTConfig["imageSize"]): ViT {
  const next = new ViT({ ...vit.config, imageSize });
  const { embed, preNorm, blocks, norm } = vit;
  const { projection, norm: patchNorm, classToken, registers } = embed;
  Object.assign(next, { preNorm, blocks, norm });
  Object.assign(next.embed, { projection, norm: patchNorm, classToken, registers });
  if (embed.positions && vit.config.positions !== "sincos")
    next.embed.positions = parameter(
      resizePositions(embed.positions, vit.grid, next.grid, vit.config).detach(),
    );
  return next;
}

const prefixOf = ({ classToken, registers = 0 }: ViTConfig): number =>
  (classToken ? 1 : 0) + registers;

function gridOf({ imageSize, patchSize }: ViTConfig): Grid {
  const [h, w] = sidesOf(imageSize).map((side) => Math.floor(side / patchSize));
  return [h, w];
}
