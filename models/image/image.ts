/**
 * @file What a picture is on the host: rows of interleaved 8-bit (or float) channels, and the
 * operations that move pixels without computing new ones: cropping, padding, flipping, and
 * conversion between modes. Results equal Pillow's.
 */
import { ArgumentError, describe } from "../../core/errors.ts";

/** 8-bit levels, or floats in a range that is the caller's affair. */
export type Pixels = Uint8Array | Float32Array;

/**
 * Pixels [height, width, channels], row by row. Channels: 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA.
 */
export interface RawImage<D extends Pixels = Uint8Array> {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly data: D;
}

/** A rectangle of whole pixels. It may reach beyond the image. */
export interface Region {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** Width and height in pixels. */
export interface ImageSize {
  readonly width: number;
  readonly height: number;
}

/** A level for all channels, or one for each. */
export type Fill = number | readonly number[];

export type ImageMode = "L" | "LA" | "RGB" | "RGBA";
const channelsOf: Readonly<Record<ImageMode, number>> = { L: 1, LA: 2, RGB: 3, RGBA: 4 };

/**
 * @throws ArgumentError if the sizes are not positive integers, or the data has not as many numbers
 * as they say.
 */
export function checkImage(op: string, { width, height, channels, data }: RawImage<Pixels>): void {
  checkSize(op, { width, height });
  const kind = data instanceof Uint8Array || data instanceof Float32Array;
  if (![1, 2, 3, 4].includes(channels) || !kind || data.length !== width * height * channels)
    throw new ArgumentError(
      describe(
        op,
        "1 to 4 channels, and width · height · channels numbers as Uint8Array or Float32Array",
        `${width} × ${height} × ${channels}, ${(data as Pixels)?.length} as ${(data as Pixels)?.constructor.name}`,
      ),
    );
}

/** The same of 8-bit images: floats would be cut off or looked up as levels. */
export function checkLevels(op: string, image: RawImage<Pixels>): void {
  checkImage(op, image);
  if (!(image.data instanceof Uint8Array))
    throw new ArgumentError(describe(op, "8-bit levels", "floats"));
}

export function checkSize(op: string, { width, height }: ImageSize): void {
  if (![width, height].every((n) => Number.isInteger(n) && n > 0))
    throw new ArgumentError(
      describe(op, "a width and a height that are positive integers", `${width} × ${height}`),
    );
}

/** An array of the same kind. */
export const likeArray = <D extends Pixels>(data: D, length: number): D =>
  (data instanceof Float32Array ? new Float32Array(length) : new Uint8Array(length)) as D;

/**
 * The pixels of a region; where it lies outside of the image, `fill` (0): what pads an image is a
 * crop larger than it.
 */
export function cropImage<D extends Pixels>(
  image: RawImage<D>,
  region: Region,
  fill: Fill = 0,
): RawImage<D> {
  checkImage("cropImage", image);
  checkSize("cropImage", region);
  const { left, top, width, height } = region;
  const { channels: C, data } = image;
  const levels = typeof fill === "number" ? Array(C).fill(fill) : fill;
  if (!Number.isInteger(left) || !Number.isInteger(top) || levels.length !== C)
    throw new ArgumentError(
      describe(
        "cropImage",
        `whole pixels for left and top, and one level for each of ${C} channels`,
        `${left}, ${top} and ${levels.length} levels`,
      ),
    );
  const out = likeArray(data, width * height * C);
  const inside = left >= 0 && top >= 0;
  if (!inside || left + width > image.width || top + height > image.height)
    for (let i = 0; i < out.length; i++) out[i] = levels[i % C];
  const from = Math.max(left, 0);
  const until = Math.min(left + width, image.width);
  const last = Math.min(top + height, image.height);
  for (let y = Math.max(top, 0); y < last && from < until; y++) {
    const row = y * image.width;
    out.set(
      data.subarray((row + from) * C, (row + until) * C),
      ((y - top) * width + from - left) * C,
    );
  }
  return { width, height, channels: C, data: out };
}

/** Margins in pixels, as torchvision's `pad`; negative ones crop. */
export function padImage<D extends Pixels>(
  image: RawImage<D>,
  margins: { left?: number; top?: number; right?: number; bottom?: number },
  fill: Fill = 0,
): RawImage<D> {
  const { left = 0, top = 0, right = 0, bottom = 0 } = margins;
  const width = image.width + left + right;
  const height = image.height + top + bottom;
  return cropImage(image, { left: -left, top: -top, width, height }, fill);
}

/** The image in the middle of a square as large as its longer side (LLaVA's `expand2square`). */
export function padToSquare<D extends Pixels>(image: RawImage<D>, fill: Fill = 0): RawImage<D> {
  const side = Math.max(image.width, image.height);
  const [left, top] = [image.width, image.height].map((n) => Math.floor((side - n) / 2));
  return cropImage(image, { left: -left, top: -top, width: side, height: side }, fill);
}

/**
 * The middle of an image; where it is smaller, `fill` around it. Half a pixel left over is rounded
 * down, the crop being further left and up and padding on these sides wider (transformers'
 * `center_crop`); with Math.trunc padding there is narrower.
 */
export function centerCrop<D extends Pixels>(
  image: RawImage<D>,
  size: ImageSize,
  { fill = 0, round = Math.floor }: { fill?: Fill; round?: (x: number) => number } = {},
): RawImage<D> {
  const left = round((image.width - size.width) / 2);
  const top = round((image.height - size.height) / 2);
  return cropImage(image, { left, top, width: size.width, height: size.height }, fill);
}

/** Left becomes right. */
export function flipImage<D extends Pixels>(image: RawImage<D>): RawImage<D> {
  checkImage("flipImage", image);
  const { width, height, channels: C, data } = image;
  const out = likeArray(data, data.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < C; c++)
        out[(y * width + x) * C + c] = data[(y * width + width - 1 - x) * C + c];
  return { width, height, channels: C, data: out };
}

/**
 * Pillow's `convert`: alpha is dropped or 255, grey is repeated, and colours become grey by ITU-R
 * 601-2, (19595 R + 38470 G + 7471 B + 2¹⁵) >> 16.
 */
export function convertImage(image: RawImage, mode: ImageMode): RawImage {
  checkLevels("convertImage", image);
  const { width, height, channels: from, data } = image;
  const to = channelsOf[mode];
  if (to === undefined)
    throw new ArgumentError(
      describe("convertImage", `a mode of ${Object.keys(channelsOf).join(", ")}`, `${mode}`),
    );
  if (from === to) return image;
  const out = new Uint8Array(width * height * to);
  const [colour, alpha] = [to >= 3, to % 2 === 0];
  for (let i = 0, j = 0; j < out.length; i += from, j += to) {
    const [r, g, b] = from >= 3 ? [data[i], data[i + 1], data[i + 2]] : [data[i], data[i], data[i]];
    if (colour) [out[j], out[j + 1], out[j + 2]] = [r, g, b];
    else out[j] = from < 3 ? r : (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16;
    if (alpha) out[j + to - 1] = from % 2 === 0 ? data[i + from - 1] : 255;
  }
  return { width, height, channels: to, data: out };
}
