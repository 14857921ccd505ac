/**
 * @file Random crops and flips of training images, with torchvision's distributions. The randomness
 * is the caller's.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { roundEven } from "../../core/math.ts";
import {
  checkImage,
  cropImage,
  flipImage,
  type ImageSize,
  type Pixels,
  type RawImage,
  type Region,
} from "./image.ts";
import { type ResizeOptions, resizeImage } from "./resize.ts";

/**
 * Uniform in [0, 1), the next one at each call: a data loader's `context.random`, or `Math.random`.
 */
export type Uniform = () => number;

export interface RandomCropOptions extends Pick<ResizeOptions, "resample" | "arithmetic"> {
  /**
   * Share of the image's area that the crop has (default 0.08 to 1; CLIP is trained with 0.9 to 1).
   */
  scale?: readonly [number, number];
  /** Its width over its height before resizing (default 3/4 to 4/3). */
  ratio?: readonly [number, number];
}

/** Crops tried before the whole image, or the most of it that has a ratio in bounds, is taken. */
const TRIES = 10;

/** Where `randomResizedCrop` cuts: torchvision's `RandomResizedCrop.get_params`. */
export function randomCropRegion(
  { width, height }: ImageSize,
  random: Uniform,
  { scale = [0.08, 1], ratio = [3 / 4, 4 / 3] }: RandomCropOptions = {},
): Region {
  if (!(0 < scale[0] && scale[0] <= scale[1] && 0 < ratio[0] && ratio[0] <= ratio[1]))
    throw new ArgumentError(
      describe("randomResizedCrop", "positive bounds in order", `scale ${scale}, ratio ${ratio}`),
    );
  const between = (low: number, high: number) => low + (high - low) * random();
  const below = (count: number) => Math.floor(random() * count);
  for (let i = 0; i < TRIES; i++) {
    const area = width * height * between(...scale);
    // Even in the logarithm: as often twice as wide as twice as high.
    const aspect = Math.exp(between(Math.log(ratio[0]), Math.log(ratio[1])));
    const w = roundEven(Math.sqrt(area * aspect));
    const h = roundEven(Math.sqrt(area / aspect));
    if (w < 1 || w > width || h < 1 || h > height) continue;
    const top = below(height - h + 1);
    return { left: below(width - w + 1), top, width: w, height: h };
  }
  const aspect = width / height;
  const w = aspect > ratio[1] ? Math.max(roundEven(height * ratio[1]), 1) : width;
  const h = aspect < ratio[0] ? Math.max(roundEven(width / ratio[0]), 1) : height;
  const [left, top] = [Math.floor((width - w) / 2), Math.floor((height - h) / 2)];
  return { left, top, width: w, height: h };
}

/** A random part of the image at a given size. */
export function randomResizedCrop<D extends Pixels>(
  image: RawImage<D>,
  size: ImageSize,
  random: Uniform,
  options: RandomCropOptions = {},
): RawImage<D> {
  checkImage("randomResizedCrop", image);
  const { resample, arithmetic } = options;
  const part = cropImage(image, randomCropRegion(image, random, options));
  return resizeImage(part, size, { resample, arithmetic });
}

/** The image, or with the given probability (default 0.5) its mirror image. */
export const randomFlip = <D extends Pixels>(
  image: RawImage<D>,
  random: Uniform,
  p = 0.5,
): RawImage<D> => (random() < p ? flipImage(image) : image);
