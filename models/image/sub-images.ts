/**
 * @file MM1's high resolution (arXiv 2403.09611, section 4.1; after SPHINX, Monkey and LLaVA-NeXT):
 * an image is seen whole, at the encoder's resolution, and cut into 2 × 2 crops of twice that. Both
 * views are squares, whatever the aspect. 1344 is 5 sub-images of 672, 896 five of 448 and 1792
 * five of 896, for which the encoder's position embeddings are resized.
 *
 * Not said in the paper, and decided here: the whole image comes first, the crops follow row by
 * row, and nothing stands between them.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import type { Tensor } from "../../core/index.ts";
import { cutTiles } from "./anyres.ts";
import type { RawImage } from "./image.ts";
import {
  CLIPImageProcessor,
  type PreprocessorConfig,
  type ProcessorOptions,
  stacked,
} from "./processor.ts";

export interface SubImageOptions {
  /** The side of what is cut, in pixels: 896, 1344 (default), 1792, or any multiple of `grid`. */
  readonly resolution?: number;
  /** Crops per side (default 2). 1 is the whole image alone, at `resolution`. */
  readonly grid?: number;
}

export interface SubImageBatch {
  /** [N, C, S, S]: the sub-images of all images, in order. */
  readonly pixelValues: Tensor;
  /** How many of the N each image has. */
  readonly counts: readonly number[];
}

/** The side of a sub-image, and how many an image has: 672 and 5 for the defaults. */
export function subImageLayout({ resolution = 1344, grid = 2 }: SubImageOptions = {}): {
  readonly side: number;
  readonly count: number;
} {
  const side = resolution / grid;
  if (!(Number.isInteger(grid) && grid > 0 && Number.isInteger(side) && side > 0))
    throw new ArgumentError(
      describe("sub-images", "a resolution that the grid divides", `${resolution} / ${grid}`),
    );
  return { side, count: grid === 1 ? 1 : grid * grid + 1 };
}

/** MM1's images: as sub-images, or some of them whole only. */
export class SubImageProcessor {
  readonly side: number;
  readonly count: number;
  readonly #grid: number;
  readonly #clip: CLIPImageProcessor;

  /** Of the config: filter, mean, deviation and scale. */
  constructor(
    options: SubImageOptions = {},
    config: PreprocessorConfig = {},
    processor: ProcessorOptions = {},
  ) {
    const { side, count } = subImageLayout(options);
    [this.side, this.count, this.#grid] = [side, count, options.grid ?? 2];
    this.#clip = new CLIPImageProcessor(config, processor);
  }

  /**
   * The images of one prompt. With `full`, only that many at its end are cut, and those before are
   * seen whole at the side of a sub-image: with 5 · 144 tokens per image few demonstrations would
   * fit (MM1's mixed-resolution few-shot prompts).
   */
  process(
    images: readonly RawImage[],
    { full = images.length }: { full?: number } = {},
  ): SubImageBatch {
    const parts = images.map((image, i) => this.split(image, i >= images.length - full));
    return {
      pixelValues: stacked(parts.flat().map((part) => this.#clip.planes(part))),
      counts: parts.map((list) => list.length),
    };
  }

  /** One image's sub-images as pixels, or the whole one alone. */
  split(image: RawImage, cut = true): RawImage[] {
    const { side } = this;
    const converted = this.#clip.convert(image);
    const squashed = (size: number) => this.#clip.resize(converted, { width: size, height: size });
    const whole = squashed(side);
    if (!cut || this.#grid === 1) return [whole];
    return [whole, ...cutTiles(squashed(side * this.#grid), side)];
  }
}
