/**
 * @file The filters of Pillow's `resize` and what they weigh: for each new position of an axis,
 * which old ones it is made of and how much of each. When an axis shrinks the filter is stretched,
 * so that every old pixel counts (antialiasing). The order of operations is that of Pillow's
 * Resample.c: the weights are rounded to integers later, and must be equal.
 */
import { ArgumentError, describe } from "../../core/errors.ts";

export type Resample = "nearest" | "box" | "bilinear" | "hamming" | "bicubic" | "lanczos";

/** Pillow's numbers of the filters, which are what preprocessor_config.json holds. */
const numbers: readonly Resample[] = [
  "nearest",
  "lanczos",
  "bilinear",
  "bicubic",
  "box",
  "hamming",
];

interface Filter {
  /** Beyond this distance the weight is 0. */
  readonly radius: number;
  readonly weight: (x: number) => number;
}

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

/** Pillow writes these two as C floats. */
const [HAMMING_0, HAMMING_1] = [Math.fround(0.54), Math.fround(0.46)];

const filters: Readonly<Record<Exclude<Resample, "nearest">, Filter>> = {
  box: { radius: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { radius: 1, weight: (x) => Math.max(1 - Math.abs(x), 0) },
  hamming: {
    radius: 1,
    weight: (x) =>
      Math.abs(x) >= 1 ? 0 : sinc(Math.abs(x)) * (HAMMING_0 + HAMMING_1 * Math.cos(x * Math.PI)),
  },
  // Keys' kernel with a = −1/2, where interpolation without antialiasing usually has −3/4.
  bicubic: {
    radius: 2,
    weight: (distance) => {
      const x = Math.abs(distance);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
    },
  },
  lanczos: { radius: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** A filter by its name or by Pillow's number. */
export function resampleOf(name: Resample | number): Resample {
  const found = typeof name === "number" ? numbers[name] : name;
  if (!numbers.includes(found))
    throw new ArgumentError(
      describe("resample", `0 to 5 or one of ${numbers.join(", ")}`, String(name)),
    );
  return found;
}

/** New position i is the sum over k < count[i] of weights[i · size + k] · old[first[i] + k]. */
export interface Taps {
  readonly size: number;
  readonly first: Int32Array;
  readonly count: Int32Array;
  readonly weights: Float64Array;
}

/** `to` positions over the part [start, end) of an axis of `from`. */
export function tapsOf(
  name: Exclude<Resample, "nearest">,
  from: number,
  to: number,
  [start, end]: readonly [number, number],
): Taps {
  const { radius, weight } = filters[name];
  const scale = Math.fround(end - start) / to;
  const stretch = Math.max(scale, 1);
  const support = radius * stretch;
  const size = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(to);
  const count = new Int32Array(to);
  const weights = new Float64Array(to * size);
  const shrink = 1 / stretch;
  for (let i = 0; i < to; i++) {
    const center = start + (i + 0.5) * scale;
    first[i] = Math.max(Math.trunc(center - support + 0.5), 0);
    count[i] = Math.min(Math.trunc(center + support + 0.5), from) - first[i];
    const row = weights.subarray(i * size, i * size + count[i]);
    let total = 0;
    for (let k = 0; k < row.length; k++) {
      row[k] = weight((k + first[i] - center + 0.5) * shrink);
      total += row[k];
    }
    if (total !== 0) for (let k = 0; k < row.length; k++) row[k] /= total;
  }
  return { size, first, count, weights };
}
