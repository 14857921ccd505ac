/**
 * @file The captioning task of `npm run mm1`: which images are learned, which are never seen, and how they become
 * batches.
 *
 * Concepts: animals, plants, food and drink. Three vendors' renderings are for training; the fourth draws everything
 * as soft three-dimensional models, a style that never occurs in training. So a right caption has to come from what
 * the picture shows.
 */
import { NO_TARGET, type WordTokenizer } from "hinode/models";
import type { Rendering, Vendor } from "./emoji.ts";

export const UNSEEN_VENDOR: Vendor = "fluent";
/** emojibase's groups: 3 animals and nature, 4 food and drink. */
const GROUPS = [3, 4];

export interface CaptionTask {
  readonly train: readonly Rendering[];
  readonly unseenVendor: readonly Rendering[];
}

export function captionTask(renderings: readonly Rendering[]): CaptionTask {
  const chosen = renderings.filter((r) => GROUPS.includes(r.concept.group));
  const train = chosen.filter((r) => r.vendor !== UNSEEN_VENDOR);
  const known = new Set(train.map((r) => r.concept));
  const unseenVendor = chosen.filter((r) => r.vendor === UNSEEN_VENDOR && known.has(r.concept));
  return { train, unseenVendor };
}

export interface TextBatch {
  readonly length: number;
  /** [B, T]: <bos>, the caption's tokens, <pad>… */
  readonly inputs: Int32Array;
  /** [B, T]: the caption's tokens, <eos>, NO_TARGET… */
  readonly targets: Int32Array;
}

export function encodeCaptions(
  captions: readonly string[],
  tokenizer: WordTokenizer,
  length: number,
): TextBatch {
  const inputs = new Int32Array(captions.length * length).fill(tokenizer.pad);
  const targets = new Int32Array(captions.length * length).fill(NO_TARGET);
  captions.forEach((caption, i) => {
    const ids = tokenizer.encode(caption);
    if (ids.length + 1 > length)
      throw new RangeError(
        `"${caption}" has ${ids.length} tokens; ${length} positions hold at most ${length - 1}`,
      );
    inputs.set([tokenizer.bos, ...ids], i * length);
    targets.set([...ids, tokenizer.eos], i * length);
  });
  return { length, inputs, targets };
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
