/** @file Pixels become a model's input: ink on white, and for training a new view of the drawing each time. */
import { type Tensor, tensor } from "hinode";

export const CHANNELS = 3;

/** White, which is no ink. */
export const blankPicture = (size: number): Uint8Array => new Uint8Array(size ** 2 * 3).fill(255);

/** Pictures of [size, size, 3] → images [B, 3, size, size]; with `random`, each seen anew. */
export function imagesOf(
  pictures: readonly Uint8Array[],
  size: number,
  random?: () => number,
): Tensor {
  const planes = CHANNELS * size * size;
  const data = new Float32Array(pictures.length * planes);
  pictures.forEach((pixels, i) => {
    toPlanes(pixels, size, data.subarray(i * planes, (i + 1) * planes), random);
  });
  return tensor(data, { shape: [pictures.length, CHANNELS, size, size] });
}

/**
 * Pixels [size, size, 3] → ink [3, size, size], written to `out`: 0 where the image is white, 2 where a channel is dark.
 * With white at 0 the empty background says nothing, and training starts faster than with white at 1. With
 * `random`, a new view of the same drawing: moved, scaled, turned a little and recoloured, because vendors differ in
 * exactly these.
 */
export function toPlanes(
  pixels: Uint8Array,
  size: number,
  out: Float32Array,
  random?: () => number,
): void {
  const between = (low: number, high: number) => (random ? low + (high - low) * random() : 0);
  const scale = Math.exp(between(-0.17, 0.17));
  const aspect = Math.exp(between(-0.08, 0.08));
  const angle = between(-0.2, 0.2);
  const [cos, sin] = [Math.cos(angle) * scale, Math.sin(angle) * scale];
  const centre = (size - 1) / 2;
  const [shiftX, shiftY] = [centre + between(-2.5, 2.5), centre + between(-2.5, 2.5)];
  const gain = [0, 1, 2].map(() => Math.exp(between(-0.1, 0.1)) / 127.5);
  const fade = between(0, 0.5) ** 2; // towards grey
  const plane = size * size;
  const ink = [0, 0, 0];
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      const dx = (x - centre) * aspect;
      const dy = y - centre;
      addInk(pixels, size, cos * dx - sin * dy + shiftX, sin * dx + cos * dy + shiftY, ink);
      const mean = (ink[0] + ink[1] + ink[2]) / 3;
      for (let c = 0; c < 3; c++) {
        const v = (ink[c] + (mean - ink[c]) * fade) * gain[c];
        out[c * plane + y * size + x] = Math.min(v, 2);
      }
    }
}

/** Bilinear look-up; writes into `ink` because this runs for every pixel of every training image. */
function addInk(pixels: Uint8Array, size: number, x: number, y: number, ink: number[]): void {
  const [x0, y0] = [Math.floor(x), Math.floor(y)];
  const [fx, fy] = [x - x0, y - y0];
  ink[0] = ink[1] = ink[2] = 0;
  for (let j = 0; j < 2; j++)
    for (let i = 0; i < 2; i++) {
      const [sx, sy] = [x0 + i, y0 + j];
      const weight = (i ? fx : 1 - fx) * (j ? fy : 1 - fy);
      if (weight === 0 || sx < 0 || sy < 0 || sx >= size || sy >= size) continue;
      const at = (sy * size + sx) * 3;
      ink[0] += weight * (255 - pixels[at]);
      ink[1] += weight * (255 - pixels[at + 1]);
      ink[2] += weight * (255 - pixels[at + 2]);
    }
}
