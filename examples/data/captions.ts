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
  /** [B, T]: <bos>, the caption's tokens, <pad>… */
  readonly inputs: Int32Array;
  /** [B, T]: the caption's tokens, <eos>, NO_TARGET… */
  readonly targets: Int32Array;
}

export function encodeCaptions(
  captions: readonly string[],
  tokenizer: BpeTokenizer,
  length: number,
): TextBatch {
  const [pad, bos, eos] = ["<pad>", "<bos>", "<eos>"].map((name) => tokenizer.special(name));
  const inputs = new Int32Array(captions.length * length).fill(pad);
  const targets = new Int32Array(captions.length * length).fill(NO_TARGET);
  captions.forEach((caption, i) => {
    const ids = tokenizer.encode(captionText(caption));
    if (ids.length + 1 > length)
      throw new RangeError(
        `"${caption}" has ${ids.length} tokens; ${length} positions hold at most ${length - 1}`,
      );
    inputs.set([bos, ...ids], i * length);
    targets.set([...ids, eos], i * length);
  });
  return { inputs, targets };
}
