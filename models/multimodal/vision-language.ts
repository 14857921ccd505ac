/**
 * @file A language model that sees: image encoder, connector, and a decoder in whose sequence image
 * tokens take the places of placeholders, wherever in the text these stand and however many images
 * there are. LLaVA, LLaVA-NeXT and MM1 (https://arxiv.org/abs/2403.09611) are this class with other
 * configurations.
 *
 *     images → ViT, one of its layers → connector → rows of image tokens
 *     ids    → embeddings, the rows in the places of `imageToken` → decoder → scores
 *
 * An image of k tokens has k placeholders in the ids: expandImageTokens makes them of one. Tokens
 * are dealt out in order, images by rows of the batch and then by places in the row. The loss is on
 * text alone.
 *
 * Decides: which layer is read, how tokens are dealt out, how tiles are put together, that scores
 * are computed for text alone where only the loss is asked for. Leaves to others: pixels and tiles
 * (../image), MM1's sizes (../mm1), other libraries' names (huggingface.ts), generation (`new
 * Generator(model, …)`, whose prompts may have images).
 *
 * Shape letters: B sequences, T positions, N images (or sub-images), k tokens of each, R rows of
 * image tokens in all, D width of the language model, V vocabulary.
 */
import { ArgumentError, describe, ShapeError } from "../../core/errors.ts";
import { arange, cat, embedding, type Tensor, tensor, where, zeros } from "../../core/index.ts";
import { formatShape } from "../../core/shape.ts";
import { init, Module } from "../../nn/index.ts";
import { type ConnectorChoice, createConnector } from "../connectors/choice.ts";
import type { Connector } from "../connectors/connector.ts";
import { type AnyresOptions, anyresLayout, anyresTokens, mergeAnyres } from "../image/anyres.ts";
import type { ImageSize } from "../image/image.ts";
import {
  type LanguageConfig,
  LanguageModel,
  type LanguageOptions,
  type LanguagePass,
  NO_TARGET,
  nextTokens,
} from "../language/decoder.ts";
import { type ImageOptions, ViT, type ViTConfig } from "../vision/vit.ts";

export interface VisionLanguageConfig {
  readonly vision: ViTConfig;
  readonly connector: ConnectorChoice;
  readonly language: LanguageConfig;
  /** The id of a placeholder. It needs no row in the embedding table: LLaVA's own code has −200. */
  readonly imageToken: number;
  /**
   * The encoder's hidden state that the connector reads: 0 is before the first block, −1 after the
   * last, −2 before it; of several the channels are put side by side. Unless given, the last one
   * behind the final norm.
   */
  readonly layer?: number | readonly number[];
  /** Whether the connector also gets the class token (it does not by default). */
  readonly classToken?: boolean;
  /** Images come as LLaVA-NeXT's tiles; of these sizes, [height, width] in pixels. */
  readonly pinpoints?: AnyresOptions["pinpoints"];
  /**
   * Takes images of any size: the encoder's positions, and the connector's, are resized to their
   * grid.
   */
  readonly interpolate?: boolean;
}

/** LLaVA-NeXT's images: what LlavaNextImageProcessor gives. */
export interface TiledImages {
  /**
   * [N, tiles, C, S, S], the whole image first; what follows an image's own tiles is not looked at.
   */
  readonly pixelValues: Tensor;
  readonly imageSizes: readonly ImageSize[];
}

/** [N, C, H, W], or tiles where the model has `pinpoints`. */
export type Images = Tensor | TiledImages;

/**
 * `checkpoint`: keeps only the inputs of the encoder's blocks for the gradient, and computes what
 * is inside once more.
 */
type EncodeOptions = Pick<ImageOptions, "checkpoint">;

export class VisionLanguageModel extends Module {
  vision: ViT;
  connector: Connector;
  language: LanguageModel;
  /** [D]: stands at the end of each row of tiles; null without `pinpoints`. */
  newline: Tensor | null;
  readonly config: VisionLanguageConfig;

  constructor(config: VisionLanguageConfig) {
    super();
    const { vision, connector, language, layer, pinpoints, classToken } = config;
    if (classToken && ((connector.kind !== "linear" && connector.kind !== "mlp") || pinpoints))
      throw new ArgumentError(
        describe("VisionLanguageModel", "classToken with a linear or an MLP connector, without tiles", "a connector of grids"),
      ); // biome-ignore format: one line
    this.config = config;
    this.vision = new ViT(vision);
    this.connector = createConnector(connector, {
      visionWidth: vision.width * [layer].flat().length,
      patches: this.vision.grid,
      width: language.width,
    });
    this.language = new LanguageModel(language);
    this.newline = pinpoints ? init.normal([language.width], language.width ** -0.5) : null;
  }

  // ---- images

  /** Images [N, C, H, W] → image tokens [N, k, D]. */
  encode(images: Tensor, { checkpoint }: EncodeOptions = {}): Tensor {
    const { vision, layer, classToken = false, interpolate } = this.config;
    const features = this.vision.features(images, { layer, classToken, interpolate, checkpoint });
    const [h, w] = images.shape.slice(2).map((side) => Math.floor(side / vision.patchSize));
    return this.connector.forward(features, classToken ? undefined : [h, w]);
  }

  /** The image tokens of a batch in the order of the images, [R, D]. */
  imageRows(images: Images, options: EncodeOptions = {}): Tensor {
    const D = this.language.config.width;
    if ("imageSizes" in images) return this.#tiledRows(images, options);
    this.#checkUntiled();
    return this.encode(images, options).reshape([-1, D]);
  }

  /** How many tokens each image has: what expandImageTokens is told. */
  tokenCounts(images: Images): number[] {
    if ("imageSizes" in images)
      return images.imageSizes.map((size) => anyresTokens(size, this.#anyres()));
    this.#checkUntiled();
    const [N, , ...sides] = images.shape;
    if (images.ndim !== 4)
      throw new ShapeError(
        describe("VisionLanguageModel", "images [N, C, H, W]", formatShape(images.shape)),
      );
    const [h, w] = sides.map((side) => Math.floor(side / this.config.vision.patchSize));
    const extra = this.config.classToken ? this.vision.prefix : 0;
    return new Array<number>(N).fill(this.connector.tokensOf([h, w]) + extra);
  }

  #checkUntiled(): void {
    if (this.newline)
      throw new ArgumentError(
        describe("VisionLanguageModel", "pixelValues and imageSizes", "a tensor alone", "LlavaNextImageProcessor gives both"),
      ); // biome-ignore format: one line
  }

  #anyres(): AnyresOptions {
    const { vision, pinpoints } = this.config;
    if (!pinpoints || typeof vision.imageSize !== "number")
      throw new ArgumentError(describe("VisionLanguageModel", "a model of square tiles, with pinpoints", "another")); // biome-ignore format: one line
    return { tileSize: vision.imageSize, patchSize: vision.patchSize, pinpoints };
  }

  /** All tiles go through encoder and connector at once; then each image's are put together. */
  #tiledRows({ pixelValues, imageSizes }: TiledImages, options: EncodeOptions): Tensor {
    const layouts = imageSizes.map((size) => anyresLayout(size, this.#anyres()));
    const counts = layouts.map(({ rows, columns }) => 1 + rows * columns);
    const [N, most] = pixelValues.shape;
    if (pixelValues.ndim !== 5 || N !== layouts.length || N === 0 || Math.max(...counts) > most)
      throw new ShapeError(
        describe(
          "VisionLanguageModel",
          `pixelValues [${layouts.length}, ≥ ${Math.max(0, ...counts)}, C, S, S]`,
          formatShape(pixelValues.shape),
        ),
      );
    const own = counts.map((count, i) => pixelValues.select(0, i).narrow(0, 0, count));
    const tokens = this.encode(cat(own, 0), options); // [all tiles, n², D]
    let first = 0;
    const rows = layouts.map((layout, i) => {
      const merged = mergeAnyres(tokens.narrow(0, first, counts[i]), this.newline!, layout);
      first += counts[i];
      return merged;
    });
    return cat(rows, 0);
  }

  // ---- text

  /**
   * Ids [B, T], and images or rows of image tokens already made, → embeddings [B, T, D]. Reading
   * the result is an IndexOutOfRangeError where there are more or fewer placeholders than image
   * tokens, or where an image's would go on in the next row of ids; of rows already made nobody
   * knows where an image ends, so their number alone is checked.
   */
  embed(ids: Tensor, images?: Images, options: EncodeOptions = {}): Tensor {
    if (!images) return this.language.embed(ids);
    const isImage = ids.eq(this.config.imageToken);
    const text = this.language.embed(where(isImage, 0, ids)); // any row: it is replaced
    const counts = isRows(images) ? undefined : this.tokenCounts(images);
    return spliceImages(text, isImage, this.#rowsOf(images, options), counts);
  }

  #rowsOf(images: Images, options: EncodeOptions): Tensor {
    return isRows(images) ? images : this.imageRows(images, options);
  }

  /** All that a pass computes; images as `embed` takes them. */
  run(ids: Tensor, images?: Images, options: LanguageOptions = {}): LanguagePass {
    return this.language.run(this.embed(ids, images, options), options);
  }

  /** Scores of the next token, [B, T, V]. */
  forward(ids: Tensor, images?: Images, options: LanguageOptions = {}): Tensor {
    return this.language.logits(this.run(ids, images, options).states.at(-1)!);
  }

  /**
   * The mean next-token loss over text. `labels` [B, T]: ids, NO_TARGET where there is no loss
   * (padding, questions); the ids unless given. Placeholders never count; with `options.documents`
   * neither does the first token of each packed example, nor with `options.mask` padding.
   */
  loss(
    ids: Tensor,
    images?: Images,
    options: LanguageOptions & { readonly labels?: Tensor } = {},
  ): Tensor {
    const { labels = ids, ...rest } = options;
    const isImage = ids.eq(this.config.imageToken);
    const text = where(isImage, NO_TARGET, labels);
    const real = rest.mask ? where(rest.mask.ne(0), text, NO_TARGET) : text;
    const targets = nextTokens(real, rest.documents);
    const pass = this.run(ids, images, rest);
    if (!images) return this.language.lossOf(pass, targets, rest);
    // What stands before a text token predicts it; there are as many as places without an image,
    // and the head is large.
    const [B, T] = ids.shape;
    const R = isRows(images) ? images.shape[0] : sumOf(this.tokenCounts(images));
    const before = placesOf(isImage.logicalNot(), B * T - R).sub(1).remainder(B * T); // biome-ignore format: one line
    const hidden = pass.states.at(-1)!.flatten(0, 1).indexSelect(0, before);
    const chosen = targets.flatten().indexSelect(0, before);
    return this.language.lossOf({ ...pass, states: [hidden] }, chosen, rest);
  }
}

/** Image tokens already made, [R, D]. */
export const isRows = (images: Images): images is Tensor =>
  !("imageSizes" in images) && images.ndim === 2;

const sumOf = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0);

/** Where the first `count` true elements of `marks` stand, row by row: [count] i32. */
function placesOf(marks: Tensor, count: number): Tensor {
  const flat = marks.flatten();
  const rank = flat.int().cumsum(0).sub(1);
  // What is not looked for goes to one more row at the end.
  const row = where(flat.logicalAnd(rank.lt(count)), rank, count);
  const places = zeros([count + 1], { dtype: "i32" });
  return places.scatterAdd(0, row, arange(flat.shape[0])).narrow(0, 0, count);
}

/**
 * Embeddings [B, T, D] with the rows [R, D] in the places where `isImage` [B, T] is true, in order.
 * Reading the result is an IndexOutOfRangeError unless there are exactly R such places and, where
 * `counts` says how many rows each image has, every image ends in the row of the batch that it
 * began in.
 */
export function spliceImages(
  text: Tensor,
  isImage: Tensor,
  rows: Tensor,
  counts?: readonly number[],
): Tensor {
  const [B, T, D] = text.shape;
  const [R] = rows.shape;
  if (rows.ndim !== 2 || rows.shape[1] !== D || R === 0 || R > B * T)
    throw new ShapeError(
      describe("spliceImages", `image tokens [R, ${D}], at most ${B * T}`, formatShape(rows.shape), "leave images out where there are none"),
    ); // biome-ignore format: one line
  const ordinal = isImage.reshape([-1]).int().cumsum(0).reshape([B, T]);
  // A mistake shows in every place: no row −1 exists.
  let right = isImage.int().sum().eq(R);
  if (counts) {
    let end = 0;
    const ends = new Set([0, ...counts.map((count) => (end += count))]);
    const isEnd = tensor(Int32Array.from({ length: R + 1 }, (_, i) => Number(ends.has(i))), { device: text.device }); // biome-ignore format: one line
    const reached = ordinal.select(1, T - 1).clamp(0, R);
    right = right.logicalAnd(isEnd.indexSelect(0, reached).ne(0).all());
  }
  const place = where(right, where(isImage, ordinal.sub(1), 0), -1);
  return where(isImage.unsqueeze(-1), embedding(place, rows.to(text.dtype)), text);
}

/**
 * Ids in which the i-th placeholder stands `counts[i]` times. @throws ArgumentError if there is not
 * one per count.
 */
export function expandImageTokens(
  ids: readonly number[],
  imageToken: number,
  counts: readonly number[],
): number[] {
  const images = ids.filter((id) => id === imageToken).length;
  if (images !== counts.length)
    throw new ArgumentError(
      describe("expandImageTokens", `${counts.length} placeholders, one per image`, `${images}`),
    );
  let i = 0;
  return ids.flatMap((id) => (id === imageToken ? new Array<number>(counts[i++]).fill(id) : [id]));
}
