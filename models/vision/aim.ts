/**
 * @file AIM, the autoregressive image model (https://arxiv.org/abs/2401.08541), one of the encoders
 * that MM1 compares: a ViT without a class token, whose linear maps have no biases, learns to
 * predict the pixels of each patch from the patches before it.
 *
 * Pretraining: attention is causal in raster order but for a prefix, all of whose patches everybody
 * sees; the loss is on the patches outside of it. Position k predicts patch k + 1: its own patch it
 * sees. Prefixes of random lengths are what lets the trunk attend both ways afterwards, as it does
 * for the probe and in front of a language model.
 *
 * Decides: the masks, the targets, the pixel head, the published sizes, ml-aim's names. Leaves to
 * others: the trunk (vit.ts), the probe (aim-probe.ts), the order of pixels in a patch and how they
 * are normalised (../image/patches.ts).
 *
 * Shape letters: B images, C channels, P patch side, K patches, D width, F = P · P · C pixel values
 * of a patch.
 */
import { ArgumentError, describe, ShapeError } from "../../core/errors.ts";
import { arange, type Generator, logicalAnd, randint, type Tensor } from "../../core/index.ts";
import { formatShape } from "../../core/shape.ts";
import { init, LayerNorm, Linear, MLP, Module } from "../../nn/index.ts";
import { normalizedPatches, patchify } from "../image/patches.ts";
import {
  type ConfigJson,
  flag,
  imageSize,
  number,
  patchSize,
  refuseOthers,
  refuseUnknown,
} from "../settings.ts";
import { layerNames, type NameMap, type Names } from "../weights.ts";
import { type BlockStyle, blockNames, timmBlock } from "./names.ts";
import { ViT, type ViTConfig } from "./vit.ts";

/**
 * AIM's trunk: fixed positions, a norm behind the patch projection, no biases, and what is given
 * otherwise.
 */
export function aimTrunkConfig(
  config: Pick<ViTConfig, "imageSize" | "patchSize" | "width" | "depth" | "heads"> &
    Partial<ViTConfig>,
): ViTConfig {
  const { channels = 3, hidden = 4 * config.width, eps = 1e-6, bias = false } = config;
  return { positions: "sincos", patchNorm: true, ...config, channels, hidden, eps, bias };
}

/** A ViT whose patch projection begins as a linear map's would (MAE's way). */
export function aimTrunk(config: ViTConfig): ViT {
  if (config.classToken)
    throw new ArgumentError(describe("AIM", "a trunk without a class token", "classToken: true"));
  const trunk = new ViT(config);
  init.xavierUniform_(trunk.embed.projection.weight);
  return trunk;
}

// --- pretraining ---------------------------------------------------------------------------------

export interface PixelHeadConfig {
  /**
   * Width of the head; with it a linear map from D comes first. D, and no such map, unless given.
   * The paper's is 2048.
   */
  readonly width?: number;
  /** MLP blocks; the paper's 12 unless given. */
  readonly depth?: number;
  /** Hidden width of the MLPs: four times the head's unless given. */
  readonly hidden?: number;
  /** Whether its linear maps have biases; they do not by default. */
  readonly bias?: boolean;
}

/**
 * What a patch is predicted to look like, from its own token alone: [B, K, D] → [B, K, F]. It is
 * dropped after pretraining.
 */
export class PixelHead extends Module {
  input: Linear | null;
  norms: LayerNorm[];
  mlps: MLP[];
  norm: LayerNorm;
  output: Linear;

  constructor(
    inputs: number,
    outputs: number,
    eps: number | undefined,
    config: PixelHeadConfig = {},
  ) {
    super();
    const { width = inputs, depth = 12, hidden = 4 * width, bias = false } = config;
    this.input = config.width === undefined ? null : new Linear(inputs, width, { bias });
    this.norms = Array.from({ length: depth }, () => new LayerNorm(width, { eps }));
    this.mlps = Array.from({ length: depth }, () => new MLP(width, hidden, { bias }));
    this.norm = new LayerNorm(width, { eps });
    this.output = new Linear(width, outputs, { bias });
  }

  forward(tokens: Tensor): Tensor {
    let x = this.input ? this.input.forward(tokens) : tokens;
    for (const [i, mlp] of this.mlps.entries()) x = x.add(mlp.forward(this.norms[i].forward(x)));
    return this.output.forward(this.norm.forward(x));
  }
}

/** How a batch was predicted. */
export interface AimPass {
  /** The raw outputs of the blocks, [B, K, D] each. */
  readonly blocks: readonly Tensor[];
  /** Behind the final norm, [B, K, D]. */
  readonly tokens: Tensor;
  /** [B, K, F]: at k what patch k + 1 looks like; the last one predicts nothing. */
  readonly predicted: Tensor;
}

/** The pretraining model: trunk and pixel head. */
export class Aim extends Module {
  trunk: ViT;
  head: PixelHead;

  constructor(trunk: ViTConfig, head: PixelHeadConfig = {}) {
    super();
    const { width, patchSize, channels, eps } = trunk;
    this.trunk = aimTrunk(trunk);
    this.head = new PixelHead(width, patchSize * patchSize * channels, eps, head);
  }

  /**
   * Images [B, C, H, W]; `outside` [B, K]: true for patches outside the prefix (outsidePrefix,
   * samplePrefix).
   */
  forward(images: Tensor, outside: Tensor): AimPass {
    let x = this.trunk.embed.forward(images);
    const attnMask = hiddenFrom(outside).unsqueeze(1); // [B, 1, K, K]
    const blocks = this.trunk.blocks.map((block) => {
      x = block.forward(x, { attnMask });
      return x;
    });
    const tokens = this.trunk.normalize(x);
    return { blocks, tokens, predicted: this.head.forward(tokens) };
  }

  /** Patches with mean 0 and variance 1 each, [B, K, F]; pixels by row, column, channel. */
  targets(images: Tensor): Tensor {
    const { patchSize: P } = this.trunk.config;
    const [h, w] = this.trunk.grid;
    // A rest that no patch covers is not seen by the trunk either.
    const covered = images.narrow(2, 0, h * P).narrow(3, 0, w * P);
    return normalizedPatches(patchify(covered, P));
  }

  /**
   * The mean squared error of patches 1 … K − 1 as positions 0 … K − 2 predict them, [B, K − 1].
   */
  errors({ predicted }: AimPass, targets: Tensor): Tensor {
    const K = targets.shape[1];
    const difference = predicted.narrow(1, 0, K - 1).sub(targets.narrow(1, 1, K - 1));
    return difference.square().mean(-1);
  }

  /** The mean of the errors over all patches outside a prefix, of all images together. */
  loss(images: Tensor, outside: Tensor): Tensor {
    return this.lossOf(this.errors(this.forward(images, outside), this.targets(images)), outside);
  }

  /** As loss, of errors [B, K − 1]. */
  lossOf(errors: Tensor, outside: Tensor): Tensor {
    const counted = outside.narrow(1, 1, errors.shape[1]).float();
    return errors.mul(counted).sum().div(counted.sum());
  }
}

/** Prefix lengths [B] → [B, K]: true for the patches behind the prefix. */
export const outsidePrefix = (lengths: Tensor, patches: number): Tensor =>
  arange(patches).ge(lengths.unsqueeze(1));

/**
 * `outsidePrefix` of random lengths, each of 1 … K − 1 equally likely: every image has something to
 * predict.
 */
export function samplePrefix(
  batch: number,
  patches: number,
  options: { readonly generator?: Generator } = {},
): Tensor {
  if (patches < 2)
    throw new ArgumentError(describe("samplePrefix", "at least 2 patches", `${patches}`));
  return outsidePrefix(randint(1, patches, [batch], options), patches);
}

/**
 * Who is hidden from whom, [B, K queries, K keys]: patches behind the query that are outside of the
 * prefix [B, K].
 */
export function hiddenFrom(outside: Tensor): Tensor {
  const [, K] = outside.shape;
  if (outside.ndim !== 2 || outside.dtype !== "bool")
    throw new ShapeError(
      describe("Aim", "bool[B, K], true outside the prefix", `${outside.dtype}${formatShape(outside.shape)}`), // biome-ignore format: one line
    );
  const place = arange(K);
  const later = place.gt(place.unsqueeze(1)); // [K, K]
  return logicalAnd(later, outside.unsqueeze(1));
}

// --- published sizes -----------------------------------------------------------------------------

/**
 * ml-aim's, with the six blocks (counted from 0) whose mean classifies ImageNet best. Heads are 128
 * wide.
 */
const sizes = {
  "600M": { width: 1536, depth: 24, heads: 12, best: 14 },
  "1B": { width: 2048, depth: 24, heads: 16, best: 12 },
  "3B": { width: 3072, depth: 24, heads: 24, best: 12 },
  "7B": { width: 4096, depth: 32, heads: 32, best: 14 },
} as const;

export type AimSize = keyof typeof sizes;
export const aimSizes = Object.keys(sizes) as readonly AimSize[];

/** The paper's pixel head. */
export const aimHead: PixelHeadConfig = { width: 2048, depth: 12 };

/** A published trunk: images of 224 pixels unless `imageSize` is given, patches of 14. */
export function aimConfig(
  size: AimSize,
  { imageSize = 224 }: { readonly imageSize?: ViTConfig["imageSize"] } = {},
): ViTConfig {
  const { width, depth, heads } = sizeOf(size);
  return aimTrunkConfig({ imageSize, patchSize: 14, width, depth, heads });
}

/** The probe's layers of a published trunk: its last six, or the best. */
export function aimProbeLayers(size: AimSize, which: "last" | "best" = "best"): number[] {
  const { depth, best } = sizeOf(size);
  const first = which === "best" ? best : depth - 6;
  return Array.from({ length: 6 }, (_, i) => first + i);
}

function sizeOf(size: AimSize) {
  if (Object.hasOwn(sizes, size)) return sizes[size];
  throw new ArgumentError(describe("AIM", `one of ${aimSizes.join(", ")}`, `"${size}"`));
}

const aimArguments =
  "img_size patch_size num_channels embed_dim num_blocks num_heads mlp_ratio mlp_hidden_dim qkv_bias use_bias post_trunk_norm layer_norm_eps".split(
    " ",
  );
const aimFixed: ConfigJson = { ffn_dropout_rate: 0 };

/**
 * ml-aim's arguments of a backbone as ours.
 * @throws ArgumentError for an argument of another kind, or one that is not here.
 */
export function aimConfigOf(json: ConfigJson): ViTConfig {
  refuseUnknown(json, aimArguments, aimFixed);
  refuseOthers(json, aimFixed);
  const width = number(json, "embed_dim");
  return aimTrunkConfig({
    imageSize: imageSize(json, "img_size"),
    patchSize: patchSize(json, "patch_size"),
    channels: number(json, "num_channels", 3),
    width,
    depth: number(json, "num_blocks"),
    heads: number(json, "num_heads"),
    hidden: number(json, "mlp_hidden_dim", Math.trunc(width * number(json, "mlp_ratio", 4))),
    eps: number(json, "layer_norm_eps", 1e-6),
    bias: flag(json, "use_bias"),
    qkvBias: flag(json, "qkv_bias"),
    finalNorm: flag(json, "post_trunk_norm", true),
  });
}

// --- names ---------------------------------------------------------------------------------------

const aimBlock: BlockStyle = { ...timmBlock, norm1: "norm_1", norm2: "norm_2" };

/** ml-aim's backbone; its positions are computed, not stored. */
export function* aimTrunkNames(trunk: ViT): Names {
  const { projection, norm } = trunk.embed;
  const { width, channels, patchSize: P } = trunk.config;
  const patchifier = "preprocessor.patchifier";
  yield [`${patchifier}.proj.weight`, { cell: projection.weight, shape: [width, channels, P, P] }];
  if (projection.bias) yield [`${patchifier}.proj.bias`, { cell: projection.bias }];
  if (norm) yield* layerNames(`${patchifier}.norm`, norm);
  yield* blockNames("trunk.blocks.", trunk.blocks, aimBlock);
  if (trunk.norm) yield* layerNames("trunk.post_trunk_norm", trunk.norm);
}

/**
 * Backbone and pixel head. The head was never published: its names are ours, in ml-aim's manner.
 */
export function aimNames({ trunk, head }: Aim): NameMap {
  function* names(): Names {
    yield* aimTrunkNames(trunk);
    if (head.input) yield* layerNames("head.input", head.input);
    for (const [i, mlp] of head.mlps.entries()) {
      yield* layerNames(`head.norms.${i}`, head.norms[i]);
      yield* layerNames(`head.mlps.${i}.fc1`, mlp.up);
      yield* layerNames(`head.mlps.${i}.fc2`, mlp.down);
    }
    yield* layerNames("head.norm", head.norm);
    yield* layerNames("head.proj", head.output);
  }
  return new Map(names());
}
