/**
 * @file The captioning task of `npm run mm1`: which images are learned, which are never seen, and how they become
 * batches.
 *
 * Concepts: animals, plants, food and drink. Three vendors' renderings are for training; the fourth draws everything
 * as soft three-dimensional models, a style that never occurs in training. So a right caption has to come from what
 * the picture shows.
 */
import { type BpeTokenizer, NO_TARGET } from "hinode/models";
import type { Rendering, Vendor } from "./emoji.ts";
import { heldOutConcepts } from "./split.ts";

export const UNSEEN_VENDOR: Vendor = "fluent";
/** emojibase's groups: 3 animals and nature, 4 food and drink. */
const GROUPS = [3, 4];
const HELD_OUT = { salt: "hinode-mm1-v1", share: 0.12 };

export interface CaptionTask {
  readonly train: readonly Rendering[];
  /** Concepts of the training set, drawn by a vendor that is not in it. */
  readonly unseenVendor: readonly Rendering[];
  /** The training set's vendors, drawing concepts that are not in it, nor variants of any that is. */
  readonly unseenConcept: readonly Rendering[];
}

export function captionTask(renderings: readonly Rendering[]): CaptionTask {
  const chosen = renderings.filter((r) => GROUPS.includes(r.concept.group));
  const heldOut = heldOutConcepts(chosen, HELD_OUT);
  const [familiar, unfamiliar] = [true, false].map((seen) =>
    chosen.filter((r) => (r.vendor !== UNSEEN_VENDOR) === seen),
  );
  const train = familiar.filter((r) => !heldOut.has(r.concept));
  const known = new Set(train.map((r) => r.concept));
  return {
    train,
    unseenVendor: unfamiliar.filter((r) => known.has(r.concept)),
    unseenConcept: familiar.filter((r) => heldOut.has(r.concept)),
  };
}

// ---- text

/** The text that the tokenizer sees: with a space in front, a caption's first word is the token that it is elsewhere. */
export const captionText = (caption: string): string => ` ${caption}`;

/** The caption that a model wrote. */
export const captionOf = (tokenizer: BpeTokenizer, ids: readonly number[]): string =>
  tokenizer.decode(ids).replace(/^ /, "");

export interface TextBatch {
  /** [B, W]: the placeholders of an image, <bos>, the caption's tokens, <eos>, <pad>… */
  readonly ids: Int32Array;
  /** [B, W]: the caption's tokens and <eos> where they stand, NO_TARGET elsewhere. */
  readonly labels: Int32Array;
  /** W */
  readonly width: number;
}

export interface TextLayout {
  /** The most tokens of a caption, <eos> among them. */
  readonly length: number;
  /** Image tokens before each caption. */
  readonly imageTokens: number;
}

/** What stands before a caption. */
export function promptOf(tokenizer: BpeTokenizer, imageTokens: number): number[] {
  const image = new Array<number>(imageTokens).fill(tokenizer.special("<image>"));
  return [...image, tokenizer.special("<bos>")];
}

export function encodeCaptions(
  captions: readonly string[],
  tokenizer: BpeTokenizer,
  { length, imageTokens }: TextLayout,
): TextBatch {
  const [pad, eos] = ["<pad>", "<eos>"].map((name) => tokenizer.special(name));
  const prompt = promptOf(tokenizer, imageTokens);
  const width = prompt.length + length;
  const ids = new Int32Array(captions.length * width).fill(pad);
  const labels = new Int32Array(captions.length * width).fill(NO_TARGET);
  captions.forEach((caption, i) => {
    const said = [...tokenizer.encode(captionText(caption)), eos];
    if (said.length > length)
      throw new RangeError(
        `"${caption}" has ${said.length - 1} tokens; ${length} positions hold at most ${length - 1}`,
      );
    ids.set([...prompt, ...said], i * width);
    labels.set(said, i * width + prompt.length);
  });
  return { ids, labels, width };
}
