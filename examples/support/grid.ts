/** @file Tensors as pictures: torchvision's `make_grid` and `save_image`. */
import { pad, type Tensor } from "hinode";
import sharp from "sharp";
import { writeAtomic } from "./files.ts";

const GAP = 2; // pixels, black

/** Writes images [N, 1, H, W] with values in 0 … 1 as one PNG, `nrow` of them side by side. */
export async function saveImage(images: Tensor, path: string, { nrow = 8 } = {}): Promise<void> {
  const [n, , height, width] = images.shape;
  const columns = Math.min(nrow, n);
  const rows = Math.ceil(n / columns);
  const [h, w] = [GAP + height, GAP + width];
  // Missing pictures of the last row are black; then each has its gap above and to the left.
  const full = pad(images.reshape([n, height, width]), [0, 0, 0, 0, 0, rows * columns - n]);
  const grid = pad(full, [GAP, 0, GAP, 0])
    .reshape([rows, columns, h, w])
    .transpose(1, 2)
    .reshape([rows * h, columns * w]);
  const levels = pad(grid, [0, GAP, 0, GAP]).clamp(0, 1).mul(255).round().to("u8");
  const raw = { width: columns * w + GAP, height: rows * h + GAP, channels: 1 } as const;
  const png = await sharp((await levels.data()) as Uint8Array, { raw })
    .png()
    .toBuffer();
  await writeAtomic(path, png);
}
