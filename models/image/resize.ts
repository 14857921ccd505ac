/**
 * @file Resizing on the host, bit for bit as Pillow does it: across, then down, each pass rounded
 * to 8 bits, with integer weights. Sums are made in doubles, which hold these integers exactly;
 * float images go through the same loops unrounded.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { type Resample, resampleOf, type Taps, tapsOf } from "./filters.ts";
import {
  checkImage,
  checkSize,
  cropImage,
  type ImageSize,
  likeArray,
  type Pixels,
  type RawImage,
} from "./image.ts";

export interface ResizeOptions {
  /** The filter (default "bicubic"), by its name or Pillow's number of it. */
  resample?: Resample | number;
  /**
   * The part of the image that is resized: left, upper, right, lower in pixels, fractions too
   * (default: all of it).
   */
  box?: readonly [number, number, number, number];
  /**
   * Whose weights 8-bit images are multiplied with: Pillow's of 22 fractional bits (default), or as
   * many bits as fit into 16, with which PyTorch resizes uint8 tensors; the results differ by a
   * level now and then.
   */
  arithmetic?: "pillow" | "torch";
}

/** 32 bits less 8 of a pixel and 2 for sums outside of 0 … 255. */
const PILLOW_BITS = 22;

/**
 * The image at another size, of both sides independently. Alpha weighs the colours, as in Pillow.
 */
export function resizeImage<D extends Pixels>(
  image: RawImage<D>,
  size: ImageSize,
  options: ResizeOptions = {},
): RawImage<D> {
  checkImage("resizeImage", image);
  checkSize("resizeImage", size);
  const resample = resampleOf(options.resample ?? "bicubic");
  const { arithmetic = "pillow" } = options;
  const box = boxOf(image, options.box);
  const [left, upper, right, lower] = box;
  const { width, height } = size;
  const across = width !== image.width || left !== 0 || right !== width;
  const down = height !== image.height || upper !== 0 || lower !== height;
  if (!across && !down) return cropImage(image, { left: 0, top: 0, width, height });
  if (resample === "nearest") return nearest(image, size, box);

  const { channels: C } = image;
  const alpha = C % 2 === 0 && image.data instanceof Uint8Array;
  let data: Pixels = alpha ? premultiplied(image.data as Uint8Array, C) : image.data;
  // Only the rows that the second pass reads.
  const taps = tapsOf(resample, image.height, height, [upper, lower]);
  const begin = down ? taps.first[0] : 0;
  const end = down ? taps.first[height - 1] + taps.count[height - 1] : image.height;
  if (across) {
    const rows = data.subarray(begin * image.width * C, end * image.width * C);
    const columns = tapsOf(resample, image.width, width, [left, right]);
    const out = likeArray(data, (end - begin) * width * C);
    resizeRows(rows, out, { from: image.width, to: width, inner: C, taps: columns }, arithmetic);
    data = out;
    for (let i = 0; i < height; i++) taps.first[i] -= begin;
  }
  if (down) {
    const out = likeArray(data, height * width * C);
    const from = across ? end - begin : image.height;
    resizeColumns(data, out, { from, to: height, inner: width * C, taps }, arithmetic);
    data = out;
  }
  if (alpha) straightened(data as Uint8Array, C);
  return { width, height, channels: C, data: data as D };
}

/** Both sides become what is asked for, whatever the aspect was. */
export const squashImage = <D extends Pixels>(
  image: RawImage<D>,
  side: number,
  options: ResizeOptions = {},
): RawImage<D> => resizeImage(image, { width: side, height: side }, options);

function boxOf(
  { width, height }: ImageSize,
  given: ResizeOptions["box"],
): readonly [number, number, number, number] {
  const box = given ?? [0, 0, width, height];
  // Pillow keeps the box in C floats.
  const [left, upper, right, lower] = box.map(Math.fround);
  if (!(left >= 0 && upper >= 0 && right <= width && lower <= height && left < right && upper < lower))
    throw new ArgumentError(
      describe("resizeImage", `a box inside of ${width} × ${height}`, `[${box}]`),
    ); // biome-ignore format: one condition
  return [left, upper, right, lower];
}

// --- the two passes ------------------------------------------------------------------------------

interface Pass {
  /** Lengths of the axis that is resized. */
  readonly from: number;
  readonly to: number;
  /** How many numbers lie between two neighbours of it. */
  readonly inner: number;
  readonly taps: Taps;
}

/**
 * Weights as 8-bit images take them: integers, `bits` of which are a fraction. Floats stay as they
 * are, with 0 bits.
 */
function fixed(taps: Taps, src: Pixels, arithmetic: "pillow" | "torch") {
  const { weights } = taps;
  if (src instanceof Float32Array) return { weights, bits: 0, half: 0 };
  const bits = arithmetic === "pillow" ? PILLOW_BITS : bitsOf16(weights);
  const one = 2 ** bits;
  const rounded = weights.map((w) => Math.trunc(w * one + (w < 0 ? -0.5 : 0.5)));
  return { weights: rounded, bits, half: one / 2 };
}

/** The most bits with which the largest weight is below 2¹⁵. */
function bitsOf16(weights: Float64Array): number {
  const largest = weights.reduce((a, b) => Math.max(a, b), 0);
  let bits = 0;
  while (bits < PILLOW_BITS && Math.trunc(0.5 + largest * 2 ** (bits + 1)) < 2 ** 15) bits++;
  return bits;
}

/** The axis of pixels in rows; `inner` channels, so each is summed on its own. */
function resizeRows(src: Pixels, out: Pixels, pass: Pass, arithmetic: "pillow" | "torch"): void {
  const { weights, bits, half } = fixed(pass.taps, src, arithmetic);
  const { from, to, inner } = pass;
  if (inner === 3 && bits) {
    resizeRgbRows(src, out, pass, Int32Array.from(weights), bits);
    return;
  }
  const { size, first, count } = pass.taps;
  const rows = src.length / (from * inner);
  for (let y = 0; y < rows; y++)
    for (let i = 0; i < to; i++) {
      const [begin, end] = [i * size, i * size + count[i]];
      const start = (y * from + first[i]) * inner;
      for (let c = 0; c < inner; c++) {
        let sum = half;
        for (let k = begin, at = start + c; k < end; k++, at += inner) sum += weights[k] * src[at];
        out[(y * to + i) * inner + c] = bits ? clip(sum, bits) : sum;
      }
    }
}

/**
 * The same in 32-bit integers and three channels at a time: 11 ms of a 1024 × 768 image to 336 ×
 * 336 where the loop above takes 27 (November 2026), and nearly all images come this way.
 */
function resizeRgbRows(
  src: Pixels,
  out: Pixels,
  { from, to, taps: { size, first, count } }: Pass,
  weights: Int32Array,
  bits: number,
): void {
  const half = 1 << (bits - 1);
  const rows = src.length / (from * 3);
  for (let y = 0, next = 0; y < rows; y++)
    for (let i = 0; i < to; i++, next += 3) {
      const end = i * size + count[i];
      let [r, g, b] = [half, half, half];
      for (let k = i * size, at = (y * from + first[i]) * 3; k < end; k++, at += 3) {
        const weight = weights[k];
        r = (r + Math.imul(weight, src[at])) | 0;
        g = (g + Math.imul(weight, src[at + 1])) | 0;
        b = (b + Math.imul(weight, src[at + 2])) | 0;
      }
      out[next] = clip(r, bits);
      out[next + 1] = clip(g, bits);
      out[next + 2] = clip(b, bits);
    }
}

/** The axis of rows: whole rows are added, so that memory is read in its order. */
function resizeColumns(
  src: Pixels,
  out: Pixels,
  { to, inner, taps }: Pass,
  arithmetic: "pillow" | "torch",
): void {
  const { weights, bits, half } = fixed(taps, src, arithmetic);
  const { size, first, count } = taps;
  const sums = new Float64Array(inner);
  for (let i = 0; i < to; i++) {
    sums.fill(half);
    for (let k = 0; k < count[i]; k++) {
      const weight = weights[i * size + k];
      const row = (first[i] + k) * inner;
      for (let x = 0; x < inner; x++) sums[x] += weight * src[row + x];
    }
    for (let x = 0; x < inner; x++) out[i * inner + x] = bits ? clip(sums[x], bits) : sums[x];
  }
}

function clip(sum: number, bits: number): number {
  const level = sum >> bits;
  return level < 0 ? 0 : Math.min(level, 255);
}

// --- what is not a filter ------------------------------------------------------------------------

/**
 * The pixel under each new one's middle. Steps are added up, as Pillow does, whose roundings decide
 * at edges.
 */
function nearest<D extends Pixels>(
  { width: from, channels: C, data }: RawImage<D>,
  { width, height }: ImageSize,
  [left, upper, right, lower]: readonly [number, number, number, number],
): RawImage<D> {
  const positions = (count: number, start: number, end: number): number[] => {
    const step = Math.fround(end - start) / count;
    let at = start + step * 0.5;
    return Array.from({ length: count }, () => {
      const here = Math.trunc(at);
      at += step;
      return here;
    });
  };
  const columns = positions(width, left, right);
  const rows = positions(height, upper, lower);
  const out = likeArray(data, width * height * C);
  let next = 0;
  for (const y of rows)
    for (const x of columns) for (let c = 0; c < C; c++) out[next++] = data[(y * from + x) * C + c];
  return { width, height, channels: C, data: out };
}

/** Colours times alpha: what is transparent must not shine through at edges. */
function premultiplied(data: Uint8Array, channels: number): Uint8Array {
  const out = new Uint8Array(data);
  for (let i = 0; i < out.length; i += channels)
    for (let c = 0; c < channels - 1; c++) {
      const product = data[i + c] * data[i + channels - 1] + 128;
      out[i + c] = (product + (product >> 8)) >> 8;
    }
  return out;
}

function straightened(data: Uint8Array, channels: number): void {
  for (let i = 0; i < data.length; i += channels) {
    const alpha = data[i + channels - 1];
    if (alpha === 0 || alpha === 255) continue;
    for (let c = 0; c < channels - 1; c++)
      data[i + c] = Math.min(Math.trunc((255 * data[i + c]) / alpha), 255);
  }
}
