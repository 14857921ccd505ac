/**
 * @file LLaVA-NeXT's way with images of any resolution ("anyres"): the whole image squashed to one
 * tile, and besides it the image at the best of some given sizes, padded with black and cut into
 * tiles. After the encoder the tiles' features are put together again, the padding is cut off, and
 * every row ends with a newline token. Numbers and roundings are those of Hugging Face's processor
 * and model. Sizes in lists are [height, width].
 */
import { ArgumentError, describe, ShapeError } from "../../core/errors.ts";
import { cat, type Tensor } from "../../core/index.ts";
import { formatShape } from "../../core/shape.ts";
import { centerCrop, cropImage, type ImageSize, type RawImage } from "./image.ts";
import {
  CLIPImageProcessor,
  type PreprocessorConfig,
  type ProcessorOptions,
  stacked,
} from "./processor.ts";

type HeightWidth = readonly [height: number, width: number];

/** Those of LLaVA-1.6, for tiles of 336 pixels. */
export const LLAVA_NEXT_PINPOINTS: readonly HeightWidth[] = [
  [336, 672],
  [672, 336],
  [672, 672],
  [1008, 336],
  [336, 1008],
];

/**
 * The size that keeps most of an image's pixels, and of several such sizes the one that wastes
 * least.
 */
export function selectBestResolution(
  { width, height }: ImageSize,
  pinpoints: readonly HeightWidth[],
): ImageSize {
  let best: ImageSize | null = null;
  let [most, least] = [0, Infinity];
  for (const [h, w] of pinpoints) {
    const scale = Math.min(w / width, h / height);
    const shown = Math.trunc(width * scale) * Math.trunc(height * scale);
    const effective = Math.min(shown, width * height);
    const wasted = w * h - effective;
    if (effective > most || (effective === most && wasted < least)) {
      [most, least] = [effective, wasted];
      best = { width: w, height: h };
    }
  }
  if (best) return best;
  throw new ArgumentError(
    describe(
      "selectBestResolution",
      "at least one size [height, width]",
      JSON.stringify(pinpoints),
    ),
  );
}

/** The largest size with the image's aspect inside of another one, rounded up. */
export function fitInside({ width, height }: ImageSize, target: ImageSize): ImageSize {
  const across = target.width / width;
  const down = target.height / height;
  return across < down
    ? { width: target.width, height: Math.min(Math.ceil(height * across), target.height) }
    : { width: Math.min(Math.ceil(width * down), target.width), height: target.height };
}

export interface LlavaNextBatch {
  /**
   * [B, T, C, S, S]: the whole image, then its tiles row by row, then zeros up to the most tiles of
   * the batch.
   */
  readonly pixelValues: Tensor;
  /** How many of the T are an image's own. */
  readonly tiles: readonly number[];
  readonly imageSizes: readonly ImageSize[];
}

/**
 * LLaVA-NeXT's: `process` makes a tile of the whole image, and tiles of S × S (`crop_size`) of the
 * resized one.
 */
export class LlavaNextImageProcessor {
  readonly pinpoints: readonly HeightWidth[];
  readonly #clip: CLIPImageProcessor;

  constructor(config: PreprocessorConfig = {}, options: ProcessorOptions = {}) {
    this.#clip = new CLIPImageProcessor(config, options);
    this.pinpoints = config.image_grid_pinpoints ?? LLAVA_NEXT_PINPOINTS;
  }

  process(images: RawImage | readonly RawImage[]): LlavaNextBatch {
    const list = [images].flat();
    const tiles = list.map((image) => {
      const made = this.tiles(image).map((tile) => this.#clip.planes(this.#clip.prepare(tile)));
      return { count: made.length, made };
    });
    const most = Math.max(...tiles.map(({ count }) => count));
    if (this.#clip.config.do_pad === false && tiles.some(({ count }) => count !== most))
      throw new ShapeError(
        describe(
          "LlavaNextImageProcessor",
          "images of one number of tiles",
          tiles.map(({ count }) => count).join(", "),
          "leave do_pad on, or process them one by one",
        ),
      );
    const blank = ({ made }: (typeof tiles)[number]) =>
      Array(most - made.length).fill({ ...made[0], data: new Float32Array(made[0].data.length) });
    const all = stacked(tiles.flatMap((t) => [...t.made, ...blank(t)]));
    return {
      pixelValues: all.reshape([list.length, most, ...all.shape.slice(1)]),
      tiles: tiles.map(({ count }) => count),
      imageSizes: list.map(({ width, height }) => ({ width, height })),
    };
  }

  /** The whole image squashed, then the tiles, as pixels before normalisation. */
  tiles(image: RawImage): RawImage[] {
    const clip = this.#clip;
    const converted = clip.convert(image);
    const { size, crop_size } = clip.config;
    const side = typeof crop_size === "number" ? crop_size : crop_size.height;
    const whole =
      typeof size === "object" && "width" in size
        ? size
        : squareOf(typeof size === "object" ? size.shortest_edge : size);
    const best = selectBestResolution(image, this.pinpoints);
    const fitted = clip.resize(converted, fitInside(image, best));
    const padded = centerCrop(fitted, best, { round: Math.trunc });
    return [clip.resize(converted, whole), ...cutTiles(padded, side)];
  }
}

const squareOf = (side: number): ImageSize => ({ width: side, height: side });

/** An image as tiles of `side` × `side`, row by row. Its sides must be multiples of that. */
export function cutTiles(image: RawImage, side: number): RawImage[] {
  const [rows, columns] = [image.height / side, image.width / side];
  if (!Number.isInteger(rows) || !Number.isInteger(columns))
    throw new ArgumentError(
      describe("cutTiles", `sides that are multiples of ${side}`, `${image.width} × ${image.height}`),
    ); // biome-ignore format: one condition
  return Array.from({ length: rows * columns }, (_, i) =>
    cropImage(image, {
      left: (i % columns) * side,
      top: Math.floor(i / columns) * side,
      ...squareOf(side),
    }),
  );
}

// --- features ------------------------------------------------------------------------------------

export interface AnyresOptions {
  /** Side of a tile in pixels and side of a patch: a tile has (tileSize / patchSize)² features. */
  readonly tileSize: number;
  readonly patchSize: number;
  readonly pinpoints?: readonly HeightWidth[];
}

/** How an image's features lie: what an encoder's output is put together by. */
export interface AnyresLayout {
  /** Tiles beside the whole image. */
  readonly rows: number;
  readonly columns: number;
  /** Patches per side of a tile. */
  readonly side: number;
  /** The part of the rows · side × columns · side features that is no padding. */
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
  /**
   * All tokens: side² of the whole image, height · width of the tiles, and a newline after each
   * row.
   */
  readonly tokens: number;
}

/** The layout of an image of this size in pixels. */
export function anyresLayout(image: ImageSize, options: AnyresOptions): AnyresLayout {
  const { tileSize, patchSize, pinpoints = LLAVA_NEXT_PINPOINTS } = options;
  const side = Math.floor(tileSize / patchSize);
  const best = selectBestResolution(image, pinpoints);
  const [rows, columns] = [best.height, best.width].map((n) => Math.floor(n / tileSize));
  let [height, width] = [rows * side, columns * side];
  let [top, left] = [0, 0];
  // Rounded at the seventh place first: a product that is whole must not become the integer below
  // it.
  const whole = (x: number) => Math.trunc(Number(x.toFixed(7)));
  if (image.width / image.height > width / height) {
    top = Math.floor((height - whole(image.height * (width / image.width))) / 2);
    height -= 2 * top;
  } else {
    left = Math.floor((width - whole(image.width * (height / image.height))) / 2);
    width -= 2 * left;
  }
  const tokens = side * side + height * width + height;
  return { rows, columns, side, top, left, height, width, tokens };
}

/** How many tokens an image of this size takes. */
export const anyresTokens = (image: ImageSize, options: AnyresOptions): number =>
  anyresLayout(image, options).tokens;

/**
 * One image's features [1 + tiles, n², D] (the whole image first; what follows the tiles is
 * padding) and the newline [D] → its tokens [T, D]: the whole image's, then the tiles' rows,
 * unpadded, each with a newline at its end.
 */
export function mergeAnyres(features: Tensor, newline: Tensor, layout: AnyresLayout): Tensor {
  const { rows, columns, side: n, top, left, height, width } = layout;
  const [count, patches, D] = features.shape;
  if (features.shape.length !== 3 || count < 1 + rows * columns || patches !== n * n)
    throw new ShapeError(
      describe("mergeAnyres", `[${1 + rows * columns}, ${n * n}, D]`, formatShape(features.shape)),
    );
  const grid = features
    .narrow(0, 1, rows * columns)
    .reshape([rows, columns, n, n, D])
    .permute([0, 2, 1, 3, 4]) // [rows, n, columns, n, D]
    .reshape([rows * n, columns * n, D])
    .narrow(0, top, height)
    .narrow(1, left, width);
  const ends = newline.reshape([1, 1, D]).expand([height, 1, D]);
  const tiles = cat([grid, ends], 1).reshape([height * (width + 1), D]);
  return cat([features.select(0, 0), tiles], 0);
}
