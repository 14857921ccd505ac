/**
 * @file Positions of patches: fixed 2-d sines and cosines, and learned ones resized to the grid of
 * an image of another size.
 *
 * Shape letters: h, w patches per column and per row, D width, k rows ahead of the grid (a class
 * token's).
 */
import { ArgumentError, describe, ShapeError } from "../../core/errors.ts";
import { cat, interpolate, type Tensor, tensor } from "../../core/index.ts";
import { formatShape } from "../../core/shape.ts";

/** Patches per column and per row. */
export type Grid = readonly [h: number, w: number];

/** Both sides, of a square where one number says it. */
export const sidesOf = (size: number | Grid): Grid =>
  typeof size === "number" ? [size, size] : size;

/**
 * Fixed positions [h·w, D] of a grid in row-major order, or [k + h·w, D] with k rows of zeros for
 * what stands ahead (1 for `classToken`): the first half of the channels is of the column, the
 * second of the row; each has D/4 sines, then D/4 cosines, of the index times 10000^(−j / (D/4)).
 * As in MAE (https://arxiv.org/abs/2111.06377) and AIM (https://arxiv.org/abs/2401.08541).
 */
export function sinCosPositions(
  [h, w]: Grid,
  width: number,
  options: { readonly classToken?: boolean; readonly prefix?: number } = {},
): Tensor {
  if (width % 4 !== 0)
    throw new ArgumentError(describe("sinCosPositions", "a width divisible by 4", `${width}`));
  const quarter = width / 4;
  const first = options.prefix ?? (options.classToken ? 1 : 0);
  const rows = new Float32Array((first + h * w) * width);
  // On the host, in f64: an f32 angle of a far patch has few digits left after the turns.
  for (let p = 0; p < h * w; p++)
    for (const [half, place] of [p % w, Math.floor(p / w)].entries())
      for (let j = 0; j < quarter; j++) {
        const angle = place * 10_000 ** (-j / quarter);
        const at = (first + p) * width + 2 * half * quarter + j;
        rows[at] = Math.sin(angle);
        rows[at + quarter] = Math.cos(angle);
      }
  return tensor(rows, { shape: [first + h * w, width] });
}

/**
 * Positions [k + h·w, D] of one grid → [k + h'·w', D] of another, by bicubic interpolation; the k
 * rows ahead stay. `antialias` (the default) widens the filter where the grid shrinks and takes
 * Pillow's cubic (a = −0.5), as open_clip and timm do when they load weights; without it the cubic
 * is PyTorch's (a = −0.75), as in the Hugging Face library's `interpolate_pos_encoding`. The two
 * differ also where the grid grows.
 */
export function resizePositions(
  positions: Tensor,
  from: Grid,
  to: Grid,
  options: { readonly antialias?: boolean } = {},
): Tensor {
  const [rows, width] = positions.shape;
  const k = rows - from[0] * from[1];
  if (positions.ndim !== 2 || k < 0)
    throw new ShapeError(
      describe("resizePositions", `[k + ${from[0]} · ${from[1]}, D]`, formatShape(positions.shape)),
    );
  if (from[0] === to[0] && from[1] === to[1]) return positions;
  const { antialias = true } = options;
  const grid = positions.narrow(0, k, rows - k).T.reshape([1, width, ...from]); // [1, D, h, w]
  const resized = interpolate(grid, { size: to, mode: "bicubic", antialias }).reshape([
    width,
    to[0] * to[1],
  ]).T; // [h'·w', D]
  return k === 0 ? resized : cat([positions.narrow(0, 0, k), resized], 0);
}
