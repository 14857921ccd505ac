/**
 * @file Images as tensors of patches. Patches are row-major; in a patch the order is row, column,
 * channel (MAE's and AIM's).
 *
 * Shape letters: B batch, C channels, H and W pixels, P patch side, N = (H / P)(W / P) patches, K =
 * P · P · C.
 */
import { describe, ShapeError } from "../../core/errors.ts";
import { type Tensor, variance } from "../../core/index.ts";
import { formatShape } from "../../core/shape.ts";

/** [B, C, H, W] → [B, N, P·P·C] */
export function patchify(images: Tensor, patchSize: number): Tensor {
  const [B, C, H, W] = images.shape;
  const [rows, columns] = [H / patchSize, W / patchSize];
  if (images.shape.length !== 4 || !Number.isInteger(rows) || !Number.isInteger(columns))
    throw new ShapeError(
      describe("patchify", `[B, C, H, W] with multiples of ${patchSize}`, formatShape(images.shape)),
    ); // biome-ignore format: one condition
  return images
    .reshape([B, C, rows, patchSize, columns, patchSize])
    .permute([0, 2, 4, 3, 5, 1]) // [B, rows, columns, P, P, C]
    .reshape([B, rows * columns, patchSize * patchSize * C]);
}

/** [B, N, P·P·C] → [B, C, H, W], for N = rows · columns (default: as many of both). */
export function unpatchify(
  patches: Tensor,
  patchSize: number,
  [rows, columns]: readonly [number, number] = squareGrid(patches.shape[1]),
): Tensor {
  const [B, N, K] = patches.shape;
  const C = K / (patchSize * patchSize);
  if (patches.shape.length !== 3 || N !== rows * columns || !Number.isInteger(C))
    throw new ShapeError(
      describe(
        "unpatchify",
        `[B, ${rows} · ${columns}, ${patchSize} · ${patchSize} · C]`,
        formatShape(patches.shape),
      ),
    );
  return patches
    .reshape([B, rows, columns, patchSize, patchSize, C])
    .permute([0, 5, 1, 3, 2, 4]) // [B, C, rows, P, columns, P]
    .reshape([B, C, rows * patchSize, columns * patchSize]);
}

const squareGrid = (count: number): readonly [number, number] => {
  const side = Math.round(Math.sqrt(count));
  return [side, side];
};

/** Each patch [..., K] with mean 0 and variance 1 (the unbiased one): what MAE and AIM regress. */
export function normalizedPatches(patches: Tensor, eps = 1e-6): Tensor {
  const spread = variance(patches, -1, { keepdim: true }).add(eps).sqrt();
  return patches.sub(patches.mean(-1, true)).div(spread);
}
