/**
 * @file From pictures to a vision tower's input, as the image processors of CLIP and LLaVA do it
 * (Hugging Face transformers): resize, crop, rescale, normalise, to [B, C, H, W]. A processor is
 * made from the `preprocessor_config.json` next to a model's weights; what a config does not say is
 * as there. Tiles are the affair of anyres.ts and sub-images.ts.
 */
import { ArgumentError, describe, ShapeError } from "../../core/errors.ts";
import { type Tensor, tensor } from "../../core/index.ts";
import { roundEven } from "../../core/math.ts";
import type { Resample } from "./filters.ts";
import {
  centerCrop,
  checkLevels,
  convertImage,
  type ImageSize,
  padToSquare,
  type RawImage,
} from "./image.ts";
import { type ResizeOptions, resizeImage } from "./resize.ts";

/** What the encoders of OpenAI, DFN and LLaVA have been trained with (R, G, B). */
export const CLIP_MEAN: readonly number[] = [0.48145466, 0.4578275, 0.40821073];
export const CLIP_STD: readonly number[] = [0.26862954, 0.26130258, 0.27577711];
/** What AIM and most ImageNet classifiers have been trained with. */
export const IMAGENET_MEAN: readonly number[] = [0.485, 0.456, 0.406];
export const IMAGENET_STD: readonly number[] = [0.229, 0.224, 0.225];

/**
 * Pixels: the shorter side (of an integer too), with a bound for the longer one if there is one,
 * and the aspect kept; or both, whatever the aspect ("squash").
 */
export type SizeConfig =
  | number
  | { readonly shortest_edge: number; readonly longest_edge?: number | null }
  | ImageSize;

/** The fields of `preprocessor_config.json` that are read; others are ignored. */
export interface PreprocessorConfig {
  readonly do_convert_rgb?: boolean | null;
  readonly do_resize?: boolean;
  readonly size?: SizeConfig;
  /** Pillow's number of the filter, or its name. */
  readonly resample?: Resample | number;
  readonly do_center_crop?: boolean;
  readonly crop_size?: number | ImageSize;
  readonly do_rescale?: boolean;
  readonly rescale_factor?: number;
  readonly do_normalize?: boolean;
  readonly image_mean?: number | readonly number[];
  readonly image_std?: number | readonly number[];
  /** LLaVA: pad to a square first. LLaVA-NeXT: pad the number of tiles to the most of the batch. */
  readonly do_pad?: boolean | null;
  /** LLaVA-NeXT: the sizes [height, width] that an image may be cut into tiles at. */
  readonly image_grid_pinpoints?: readonly (readonly [number, number])[];
}

export interface ProcessorOptions {
  /**
   * Which of the two implementations there is followed where they differ by a level or a pixel: the
   * one on Pillow (default), or the "fast" one on torchvision.
   */
  arithmetic?: "pillow" | "torch";
}

const defaults = {
  do_convert_rgb: true,
  do_resize: true,
  size: { shortest_edge: 224 },
  resample: "bicubic",
  do_center_crop: true,
  crop_size: { width: 224, height: 224 },
  do_rescale: true,
  rescale_factor: 1 / 255,
  do_normalize: true,
  image_mean: CLIP_MEAN,
  image_std: CLIP_STD,
} as const satisfies PreprocessorConfig;

/** CLIP's: the shorter side to size, the middle of it, normalised. */
export class CLIPImageProcessor {
  readonly config: PreprocessorConfig &
    Required<Omit<PreprocessorConfig, "do_pad" | "image_grid_pinpoints">>;
  readonly arithmetic: "pillow" | "torch"; // biome-ignore format: one type

  constructor(config: PreprocessorConfig = {}, { arithmetic = "pillow" }: ProcessorOptions = {}) {
    // Files written by older versions have nulls for what they do not say.
    const said = Object.entries(config).filter(
      ([, value]) => value !== undefined && value !== null,
    );
    this.config = { ...defaults, ...Object.fromEntries(said) };
    this.arithmetic = arithmetic;
    sizeOf(this.config.size, { width: 1, height: 1 });
  }

  /**
   * Images of any sizes → [B, C, H, W] on the default device. All must come out at one size: the
   * crop sees to that.
   */
  process(images: RawImage | readonly RawImage[]): Tensor {
    return stacked([images].flat().map((image) => this.planes(this.prepare(image))));
  }

  /** The steps on 8-bit pixels. */
  prepare(image: RawImage): RawImage {
    const { do_resize, do_center_crop, size, crop_size } = this.config;
    let ready = this.convert(image);
    if (do_resize) ready = this.resize(ready, sizeOf(size, ready));
    if (!do_center_crop) return ready;
    const crop =
      typeof crop_size === "number" ? { width: crop_size, height: crop_size } : crop_size;
    // One crops from ⌊d/2⌋ on, the other from d/2 towards 0: not the same where the image is
    // smaller than the crop.
    const round = this.arithmetic === "torch" ? Math.trunc : Math.floor;
    return centerCrop(ready, crop, { round });
  }

  convert(image: RawImage): RawImage {
    return this.config.do_convert_rgb ? convertImage(image, "RGB") : image;
  }

  resize(image: RawImage, size: ImageSize): RawImage {
    return resizeImage(image, size, resampling(this.config.resample, this.arithmetic));
  }

  /** Levels become numbers: [H, W, C] → [C, H, W]. */
  planes(image: RawImage): Planes {
    checkLevels("image processor", image);
    const { width, height, channels: C, data } = image;
    const area = width * height;
    const out = new Float32Array(C * area);
    for (let c = 0; c < C; c++) {
      const values = this.#values(c, C);
      for (let i = 0; i < area; i++) out[c * area + i] = values[data[i * C + c]];
    }
    return { shape: [C, height, width], data: out };
  }

  /** What the 256 levels of a channel become, each step rounded as NumPy's float32 is. */
  #values(channel: number, channels: number): Float32Array {
    const { do_rescale, rescale_factor, do_normalize, image_mean, image_std } = this.config;
    const of = (values: number | readonly number[], what: string): number => {
      if (typeof values === "number") return Math.fround(values);
      if (values.length !== channels)
        throw new ArgumentError(
          describe("image processor", `${channels} channels in ${what}`, `${values.length}`),
        );
      return Math.fround(values[channel]);
    };
    const scaled = Float32Array.from({ length: 256 }, (_, v) =>
      do_rescale ? v * rescale_factor : v,
    );
    if (!do_normalize) return scaled;
    const [mean, std] = [of(image_mean, "image_mean"), of(image_std, "image_std")];
    return scaled.map((v) => Math.fround(v - mean) / std);
  }
}

/** LLaVA's: as CLIP's, of the image in a square of the mean colour if the config has `do_pad`. */
export class LlavaImageProcessor extends CLIPImageProcessor {
  override prepare(image: RawImage): RawImage {
    const { do_pad, image_mean } = this.config;
    if (!do_pad) return super.prepare(image);
    const level = (x: number) => Math.trunc(x * 255);
    const fill = typeof image_mean === "number" ? level(image_mean) : image_mean.map(level);
    return super.prepare(padToSquare(this.convert(image), fill));
  }
}

/** What a resized image's sizes are. */
function sizeOf(size: SizeConfig, { width, height }: ImageSize): ImageSize {
  if (typeof size === "object" && "width" in size) {
    if (size.width > 0 && size.height > 0) return { width: size.width, height: size.height };
  } else {
    const { shortest_edge, longest_edge } =
      typeof size === "object" ? size : { shortest_edge: size, longest_edge: null };
    if (shortest_edge > 0) return keepingAspect({ width, height }, shortest_edge, longest_edge);
  }
  throw new ArgumentError(
    describe(
      "image processor",
      "a size of shortest_edge, or of width and height",
      JSON.stringify(size),
    ),
  );
}

function keepingAspect(
  { width, height }: ImageSize,
  shortest: number,
  longest?: number | null,
): ImageSize {
  const [short, long] = width <= height ? [width, height] : [height, width];
  let side = shortest;
  let exact = shortest;
  if (longest && (long / short) * shortest > longest) {
    exact = (longest * short) / long;
    side = roundEven(exact);
  }
  // As many sizes are whole only by rounding, the order of operations counts: times, then divided.
  const other = short === side ? long : Math.trunc((exact * long) / short);
  return width <= height ? { width: side, height: other } : { width: other, height: side };
}

/**
 * torchvision resizes tensors by no more than these; Hugging Face takes bicubic for Lanczos there.
 */
function resampling(
  resample: Resample | number,
  arithmetic: "pillow" | "torch",
): Pick<ResizeOptions, "resample" | "arithmetic"> {
  if (arithmetic === "pillow") return { resample, arithmetic };
  return { resample: resample === "lanczos" || resample === 1 ? "bicubic" : resample, arithmetic };
}

/** A float image, channels first. */
export interface Planes {
  readonly shape: readonly [channels: number, height: number, width: number];
  readonly data: Float32Array;
}

/** Images of one size → [B, C, H, W]. */
export function stacked(images: readonly Planes[]): Tensor {
  const shapes = new Set(images.map(({ shape }) => shape.join(" × ")));
  if (shapes.size !== 1)
    throw new ShapeError(
      describe(
        "image processor",
        "images that come out at one size",
        [...shapes].join(", ") || "no images",
        "set do_center_crop, or a size of width and height",
      ),
    );
  const { shape, data } = images[0];
  const all = new Float32Array(images.length * data.length);
  for (const [i, image] of images.entries()) all.set(image.data, i * data.length);
  return tensor(all, { shape: [images.length, ...shape] });
}
