/**
 * @file Modules that move elements and learn nothing: shapes, patches, pixels as channels, resizing. All but Identity
 * are functions with their arguments given once.
 */
import { describe, ShapeError } from "../core/errors.ts";
import {
  channelShuffle,
  flatten,
  fold2d,
  type InterpolateOptions,
  interpolate,
  type PatchOptions,
  pixelShuffle,
  pixelUnshuffle,
  type Tensor,
  unflatten,
  unfold2d,
} from "../core/index.ts";
import type { Pair } from "../core/ops/windows.ts";
import { formatShape, type Shape } from "../core/shape.ts";
import { moduleOf } from "./functional-module.ts";

/** x itself; arguments of a layer that it stands in for are ignored. */
export class Identity extends moduleOf((x, ..._ignored: unknown[]) => x) {
  override extraRepr(): string {
    return "";
  }
}

/** The axes startDim … endDim as one: all but the first unless given. */
export class Flatten extends moduleOf(
  (x, startDim: number = 1, endDim: number = -1) => flatten(x, startDim, endDim),
  "startDim",
  "endDim",
) {}

/** The axis `dim` as several, of which one size may be -1. */
export class Unflatten extends moduleOf(
  (x, dim: number, unflattenedSize: Shape) => unflatten(x, dim, unflattenedSize),
  "dim",
  "unflattenedSize",
) {}

/** [*, C·r², H, W] → [*, C, H·r, W·r] */
export class PixelShuffle extends moduleOf(pixelShuffle, "upscaleFactor") {}
/** [*, C, H·r, W·r] → [*, C·r², H, W] */
export class PixelUnshuffle extends moduleOf(pixelUnshuffle, "downscaleFactor") {}

/** Channels of several groups interleaved, so that grouped convolutions mix: [N, C, S…]. arXiv 1707.01083 */
export class ChannelShuffle extends moduleOf(channelShuffle, "groups") {}

/** The patches that a convolution reads, as columns: [N, C, H, W] → [N, C·kh·kw, L]. */
export class Unfold extends moduleOf(
  (x, kernelSize: Pair, options?: PatchOptions) => unfold2d(x, kernelSize, options),
  "kernelSize",
) {}

/** The transpose of Unfold: columns [N, C·kh·kw, L] added up to pictures [N, C, H, W]. */
export class Fold extends moduleOf(
  (x, outputSize: Pair, kernelSize: Pair, options?: PatchOptions) =>
    fold2d(x, outputSize, kernelSize, options),
  "outputSize",
  "kernelSize",
) {}

/** `interpolate` with its options: `new Upsample({ scaleFactor: 2, mode: "bilinear" })`. */
export class Upsample extends moduleOf((x, options: InterpolateOptions) =>
  interpolate(x, options),
) {}

type Scaling = Pick<InterpolateOptions, "size" | "scaleFactor">;

/** Of [N, C, H, W], to the nearest neighbour. */
export class UpsamplingNearest2d extends moduleOf((x, options: Scaling) =>
  interpolate(picture(x), { ...options, mode: "nearest" }),
) {}

/** Of [N, C, H, W], bilinear with the corners in place. */
export class UpsamplingBilinear2d extends moduleOf((x, options: Scaling) =>
  interpolate(picture(x), { ...options, mode: "bilinear", alignCorners: true }),
) {}

function picture(x: Tensor): Tensor {
  if (x.ndim === 4) return x;
  throw new ShapeError(describe("upsampling", "[N, C, H, W]", formatShape(x.shape)));
}
