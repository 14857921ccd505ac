/**
 * @file What generation begins with. Decides which prompts there are and what is checked of them
 * before a device is asked: lengths, and that no image's tokens would end in the next prompt.
 * Leaves to others: what is made of them (generate.ts).
 *
 * Shape letters: P prompts, T positions of the longest, S slots of the cache, D width.
 */
import { ArgumentError, describe, ShapeError } from "../../core/errors.ts";
import type { Tensor } from "../../core/index.ts";
import { formatShape } from "../../core/shape.ts";
import { type Images, isRows, type VisionLanguageModel } from "../multimodal/vision-language.ts";
import type { LanguageModel } from "./decoder.ts";

/** A language model, or one that sees. */
export type GenerativeModel = LanguageModel | VisionLanguageModel;

/** Ids per sequence, of any lengths; with images; or what has been embedded already. */
export type Prompts =
  | readonly (readonly number[])[]
  | {
      /** With as many placeholders as the images have tokens (`expandImageTokens`). */
      readonly ids: readonly (readonly number[])[];
      /**
       * Of all sequences, in their order; or rows of image tokens. The model must be one that sees.
       */
      readonly images: Images;
    }
  | {
      /** [P, T, D] */
      readonly embeddings: Tensor;
      /** How many positions at the end of each row are real; all unless given. */
      readonly lengths?: readonly number[];
    };

/** Whether prompts may have images. */
export const sees = (model: GenerativeModel): model is VisionLanguageModel => "language" in model;
/** P */
export const countOf = (prompts: Prompts): number =>
  "embeddings" in prompts ? prompts.embeddings.shape[0] : idsOf(prompts).length;

/** Nothing is known of the ids behind embeddings. */
export const idsOf = (prompts: Prompts): readonly (readonly number[])[] => {
  if ("embeddings" in prompts) return Array.from({ length: countOf(prompts) }, () => []);
  return "ids" in prompts ? prompts.ids : prompts;
};

/** How many positions of each row are real. */
export const lengthsOf = (prompts: Prompts): readonly number[] => {
  if (!("embeddings" in prompts)) return idsOf(prompts).map((ids) => ids.length);
  const [P, T] = prompts.embeddings.shape;
  return prompts.lengths ?? new Array<number>(P).fill(T);
};

/** All that is known without the device; a mistake that it finds has cost nothing. */
export function checkPrompts(
  model: GenerativeModel,
  prompts: Prompts,
  maxNewTokens: number,
  S: number,
): void {
  const refuse = (expected: string, got: string, hint?: string): never => {
    throw new ArgumentError(describe("generate", expected, got, hint));
  };
  if (!(Number.isInteger(maxNewTokens) && maxNewTokens >= 1))
    refuse("maxNewTokens ≥ 1", `${maxNewTokens}`);
  const lengths = lengthsOf(prompts);
  let longest = Math.max(...lengths);
  if ("embeddings" in prompts) {
    const { shape } = prompts.embeddings;
    if (shape.length !== 3 || lengths.length !== shape[0])
      throw new ShapeError(
        describe("generate", `embeddings [${lengths.length}, T, D]`, formatShape(shape)),
      );
    longest = shape[1];
  }
  if (lengths.length === 0) refuse("one prompt or more", "none");
  if (lengths.some((n) => !(n >= 1 && n <= longest)))
    refuse("prompts of 1 position or more", `${lengths}`, "begin with <bos>");
  // The last new token needs no slot: nothing comes after it.
  if (longest > S - maxNewTokens + 1)
    refuse(`at most ${S} positions`, `${longest} + ${maxNewTokens} new ones`);
  checkPlaceholders(model, prompts, refuse);
}

/**
 * Image tokens are dealt out row by row: the images of a row must have as many as it has
 * placeholders.
 */
function checkPlaceholders(
  model: GenerativeModel,
  prompts: Prompts,
  refuse: (expected: string, got: string, hint?: string) => never,
): void {
  const images = "images" in prompts ? prompts.images : undefined;
  if (!sees(model)) {
    if (images) refuse("a model that sees, and images and placeholders for them", "images alone");
    return;
  }
  const { imageToken } = model.config;
  const placeholders = idsOf(prompts).map((row) => row.filter((id) => id === imageToken).length);
  const all = placeholders.reduce((a, b) => a + b, 0);
  if (all > 0 !== (images !== undefined))
    refuse(
      "a model that sees, and images and placeholders for them",
      images ? "images alone" : "placeholders alone",
    );
  if (!images) return;
  const rows = isRows(images);
  const counts = rows ? new Array<number>(images.shape[0]).fill(1) : model.tokenCounts(images);
  const said = rows ? `${counts.length} rows of image tokens` : `images of ${counts} tokens`;
  let i = 0;
  for (let room of placeholders) {
    while (i < counts.length && counts[i] <= room) room -= counts[i++];
    if (room > 0)
      refuse(
        `in each prompt as many placeholders as its images have tokens (${said})`,
        `${placeholders} placeholders`,
        "expandImageTokens makes them of one",
      );
  }
  if (i < counts.length)
    refuse(`placeholders for all images (${said})`, `${placeholders} placeholders`);
}
