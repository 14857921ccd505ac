/**
 * @file A word-level tokenizer with a byte fallback: every string survives encode and decode, no token is "unknown".
 *
 * A word carries the space in front of it (as in GPT-2's pre-tokenizer), so decoding is plain concatenation. Words
 * seen while building get one id each, most frequent first; any other piece of text becomes its UTF-8 bytes.
 * Ids: the specials, then 256 bytes, then the words.
 */
import { ArgumentError, describe } from "../../core/errors.ts";

export const specials = ["<pad>", "<bos>", "<eos>", "<image>"] as const;

const BYTES = 256;
const utf8 = new TextEncoder();
/** A run of letters and marks, a run of digits, a run of other signs, each with one space in front; or the rest of the white space. */
const PIECES = / ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s/gu;

export class WordTokenizer {
  readonly pad = 0;
  readonly bos = 1;
  readonly eos = 2;
  readonly image = 3;
  readonly words: readonly string[];
  readonly #ids: ReadonlyMap<string, number>;

  constructor(words: readonly string[]) {
    this.words = words;
    this.#ids = new Map(words.map((w, i) => [w, specials.length + BYTES + i]));
    if (this.#ids.size !== words.length)
      throw new ArgumentError(describe("WordTokenizer", "distinct words", "a repeated word"));
  }

  /** Collects the words of `texts`, most frequent first (ties in alphabetical order, so the result is reproducible). */
  static train(texts: Iterable<string>, options: { maxWords?: number } = {}): WordTokenizer {
    const counts = new Map<string, number>();
    for (const text of texts)
      for (const piece of split(text)) counts.set(piece, (counts.get(piece) ?? 0) + 1);
    const order = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    return new WordTokenizer(order.slice(0, options.maxWords).map(([word]) => word));
  }

  get vocabularySize(): number {
    return specials.length + BYTES + this.words.length;
  }

  /** Text → ids, without specials. */
  encode(text: string): number[] {
    return split(text).flatMap((piece) => {
      const id = this.#ids.get(piece);
      return id !== undefined ? [id] : Array.from(utf8.encode(piece), (b) => specials.length + b);
    });
  }

  /** Ids → text; specials are left out. Bytes that are not UTF-8 (a model may emit any) become U+FFFD. */
  decode(ids: Iterable<number>): string {
    const bytes: number[] = [];
    for (const id of ids) {
      if (!(Number.isInteger(id) && id >= 0 && id < this.vocabularySize))
        throw new ArgumentError(describe("decode", `ids below ${this.vocabularySize}`, `${id}`));
      if (id < specials.length) continue;
      if (id < specials.length + BYTES) bytes.push(id - specials.length);
      else bytes.push(...utf8.encode(this.words[id - specials.length - BYTES]));
    }
    const text = new TextDecoder().decode(Uint8Array.from(bytes));
    return text.startsWith(" ") ? text.slice(1) : text; // the space that split() put in front
  }
}

/** The pieces of " " + text: with the leading space, a first word and a later one are the same word. */
const split = (text: string): string[] => ` ${text}`.match(PIECES) ?? [];
