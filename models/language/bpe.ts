/**
 * @file Byte-level byte-pair encoding, GPT-2's kind of tokenizer
 * (https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf, §2.2).
 *
 * Text is cut into pieces (words with the space in front of them), pieces into UTF-8 bytes, and bytes are joined by learned
 * merges, the one learned first first. Every byte has an id, so no text is unknown and `decode(encode(s)) === s`.
 * Decides: encoding, decoding, and the file format: Hugging Face's tokenizer.json, in which each byte is one
 * printable character. Leaves to others: which merges to learn (bpe-train.ts).
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { learnMerges, type Merge } from "./bpe-train.ts";
import { alphabet, byteOf, characters, PIECES, textOf } from "./byte-level.ts";
import { joinPairs } from "./join.ts";

/** The special tokens of MM1's tokenizers: ids 0 … 3. */
export const specials = ["<pad>", "<bos>", "<eos>", "<image>"] as const;

export interface BpeTrainOptions {
  /** Ids in all: specials, 256 bytes, merges. Fewer when the corpus has nothing left to join. */
  readonly vocabSize: number;
  /** Tokens that stand for no text; they get the first ids. */
  readonly specials?: readonly string[];
  /** Pairs that occur less often are not joined; 2 unless given. */
  readonly minFrequency?: number;
}

const utf8 = new TextEncoder();
/** Pieces whose ids are remembered; real text repeats few of them most of the time. */
const CACHED = 2 ** 15;

export class BpeTokenizer {
  /** Special tokens and their ids. */
  readonly specials: ReadonlyMap<string, number>;
  /** All tokens in the printable alphabet, specials as they are; position = id. */
  readonly tokens: readonly string[];
  /** In the order in which they were learned, which is the order in which they apply. */
  readonly merges: readonly Merge[];
  /** Id → bytes; undefined for specials. */
  readonly #bytes: readonly (Uint8Array | undefined)[];
  /** Byte → id. */
  readonly #ids: Int32Array;
  readonly #ranks = new Map<number, { readonly rank: number; readonly joined: number }>();
  readonly #cache = new Map<string, readonly number[]>();

  /** Use `train` or `fromJSON`. */
  constructor(tokens: readonly string[], merges: readonly Merge[], special: Iterable<string>) {
    const position = new Map(tokens.map((token, id) => [token, id]));
    if (position.size !== tokens.length) throw misfit("distinct tokens", "one twice");
    const names = [...special];
    const absent = names.find((name) => !position.has(name));
    if (absent !== undefined) throw misfit("special tokens with an id", `"${absent}"`);
    this.tokens = tokens;
    this.merges = merges;
    this.specials = new Map(names.map((name) => [name, position.get(name)!]));
    this.#bytes = tokens.map((token) => (this.specials.has(token) ? undefined : bytesOf(token)));
    this.#ids = Int32Array.from(characters, (c, byte) => {
      const id = position.get(c);
      if (id === undefined || this.specials.has(c))
        throw misfit("a token per byte", `${byte}: none`);
      return id;
    });
    for (const [rank, [left, right, joined]] of merges.entries())
      this.#ranks.set(this.#key(left, right), { rank, joined });
  }

  /** Learns the merges of a corpus. The same texts in any order give the same tokenizer. */
  static train(corpus: Iterable<string>, options: BpeTrainOptions): BpeTokenizer {
    const { vocabSize, specials: names = specials, minFrequency = 2 } = options;
    const tokens = [...names, ...alphabet.map((byte) => characters[byte])];
    if (!(Number.isSafeInteger(vocabSize) && vocabSize >= tokens.length))
      throw new ArgumentError(
        describe("BpeTokenizer.train", `vocabSize ≥ ${tokens.length}`, `${vocabSize}`),
      );
    const frequencies = new Map<string, number>();
    for (const text of corpus)
      for (const piece of pieces(text)) frequencies.set(piece, (frequencies.get(piece) ?? 0) + 1);
    const idOf = new Int32Array(256);
    for (const [i, byte] of alphabet.entries()) idOf[byte] = names.length + i;
    const position = new Map(tokens.map((token, id) => [token, id]));
    const merges: Merge[] = [];
    learnMerges(
      Array.from(frequencies.keys(), (piece) => Array.from(utf8.encode(piece), (b) => idOf[b])),
      [...frequencies.values()],
      {
        size: vocabSize,
        firstId: tokens.length,
        minFrequency,
        known: (left, right) => position.get(tokens[left] + tokens[right]),
        onMerge: (merge) => {
          const [left, right, joined] = merge;
          merges.push(merge);
          if (joined < tokens.length) return;
          position.set(tokens[left] + tokens[right], joined);
          tokens.push(tokens[left] + tokens[right]);
        },
      },
    );
    return new BpeTokenizer(tokens, merges, names);
  }

  get vocabularySize(): number {
    return this.tokens.length;
  }

  /** The id of a special token. */
  special(name: string): number {
    const id = this.specials.get(name);
    if (id !== undefined) return id;
    const known = [...this.specials.keys()].join(", ");
    throw new ArgumentError(describe("special", `one of ${known || "none"}`, `"${name}"`));
  }

  /**
   * Text → ids. A special token's name in the text is text like any other.
   * @throws ArgumentError for half a surrogate pair: that is no text, and has no bytes.
   */
  encode(text: string): number[] {
    const ids: number[] = [];
    for (const piece of pieces(text)) for (const id of this.#encodePiece(piece)) ids.push(id);
    return ids;
  }

  /** Ids → text; specials are left out. Bytes that are not UTF-8 (a model may emit any) become U+FFFD. */
  decode(ids: Iterable<number>): string {
    const parts: Uint8Array[] = [];
    for (const id of ids) {
      if (!(Number.isInteger(id) && id >= 0 && id < this.tokens.length))
        throw new ArgumentError(describe("decode", `ids below ${this.tokens.length}`, `${id}`));
      const bytes = this.#bytes[id];
      if (bytes) parts.push(bytes);
    }
    const all = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return textOf(all);
  }

  #encodePiece(piece: string): readonly number[] {
    const known = this.#cache.get(piece);
    if (known) return known;
    const ids = joinPairs(
      Array.from(utf8.encode(piece), (byte) => this.#ids[byte]),
      (left, right) => this.#ranks.get(this.#key(left, right)),
    );
    if (this.#cache.size >= CACHED) this.#cache.clear();
    this.#cache.set(piece, ids);
    return ids;
  }

  #key(left: number, right: number): number {
    return left * this.tokens.length + right;
  }

  /** The content of a tokenizer.json that Hugging Face's tokenizers read: `JSON.stringify(tokenizer)`. */
  toJSON(): object {
    const byteLevel = { type: "ByteLevel", trim_offsets: true, use_regex: true };
    return {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: Array.from(this.specials, ([content, id]) => ({
        ...{ id, content, single_word: false, lstrip: false, rstrip: false },
        ...{ normalized: false, special: true },
      })),
      normalizer: null,
      pre_tokenizer: { ...byteLevel, add_prefix_space: false },
      post_processor: null,
      decoder: { ...byteLevel, add_prefix_space: true },
      model: {
        ...{ type: "BPE", dropout: null, unk_token: null, fuse_unk: false, byte_fallback: false },
        ...{ continuing_subword_prefix: null, end_of_word_suffix: null, ignore_merges: false },
        vocab: Object.fromEntries(this.tokens.map((token, id) => [token, id])),
        merges: this.merges.map(([left, right]) => [this.tokens[left], this.tokens[right]]),
      },
    };
  }

  /**
   * From the parsed content of a tokenizer.json: byte-level BPE with GPT-2's pieces, as GPT-2's own.
   * @throws ArgumentError for other kinds of tokenizers and for content that contradicts itself.
   */
  static fromJSON(json: unknown): BpeTokenizer {
    const { model, pre_tokenizer, normalizer, added_tokens } = record(json, "an object");
    const bpe = record(model, "a model");
    const byteLevel = record(pre_tokenizer, 'a pre_tokenizer of type "ByteLevel"');
    const required: [what: string, got: unknown, wanted: unknown][] = [
      ["model.type", bpe.type, "BPE"],
      ["pre_tokenizer.type", byteLevel.type, "ByteLevel"],
      ["pre_tokenizer.add_prefix_space", byteLevel.add_prefix_space, false],
      ["pre_tokenizer.use_regex", byteLevel.use_regex ?? true, true],
      ["normalizer", normalizer ?? null, null],
      ["model.ignore_merges", bpe.ignore_merges ?? false, false],
      ["model.continuing_subword_prefix", bpe.continuing_subword_prefix || null, null],
      ["model.end_of_word_suffix", bpe.end_of_word_suffix || null, null],
    ];
    for (const [what, got, wanted] of required)
      if (got !== wanted) throw misfit(`${what} ${JSON.stringify(wanted)}`, JSON.stringify(got));

    const vocab = new Map(Object.entries(record(bpe.vocab, "model.vocab")));
    const names = list(added_tokens ?? [], "added_tokens").map((entry) => {
      const { content, id } = record(entry, "added tokens as objects");
      if (typeof content !== "string") throw misfit("added tokens with content", `${content}`);
      if ((vocab.get(content) ?? id) !== id)
        throw misfit(`one id of "${content}"`, `${vocab.get(content)} and ${id}`);
      vocab.set(content, id);
      return content;
    });
    const tokens: string[] = [];
    for (const [token, id] of vocab) {
      if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= vocab.size)
        throw misfit(`ids of "${token}" in 0 … ${vocab.size - 1}`, `${id}`);
      tokens[id as number] = token;
    }
    if (tokens.length !== Object.keys(tokens).length || tokens.length !== vocab.size)
      throw misfit(`${vocab.size} distinct ids`, "one twice");

    const idOf = (token: string) => {
      const id = vocab.get(token);
      if (id === undefined) throw misfit("merges of tokens in the vocabulary", `"${token}"`);
      return id as number;
    };
    const merges = list(bpe.merges, "model.merges").map((merge): Merge => {
      // Older files write "left right"; a space is no character of the alphabet.
      const parts = typeof merge === "string" ? merge.split(" ") : merge;
      if (!Array.isArray(parts) || parts.length !== 2 || parts.some((p) => typeof p !== "string"))
        throw misfit("merges of two tokens", JSON.stringify(merge));
      const [left, right] = parts as [string, string];
      return [idOf(left), idOf(right), idOf(left + right)];
    });
    return new BpeTokenizer(tokens, merges, names);
  }
}

function pieces(text: string): string[] {
  if (text.isWellFormed()) return text.match(PIECES) ?? [];
  const at = [...text].findIndex((c) => !c.isWellFormed());
  throw new ArgumentError(
    describe(
      "encode",
      "well-formed text",
      `half a surrogate pair as character ${at}`,
      "text.toWellFormed() puts U+FFFD in its place",
    ),
  );
}

/** The bytes of a token in the printable alphabet. */
function bytesOf(token: string): Uint8Array {
  return Uint8Array.from(token, (c) => {
    const byte = byteOf.get(c);
    if (byte === undefined) throw misfit("tokens in the byte-level alphabet", `"${token}"`);
    return byte;
  });
}

const misfit = (expected: string, got: string) =>
  new ArgumentError(describe("BpeTokenizer", expected, got));

function record(value: unknown, expected: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw misfit(expected, JSON.stringify(value)?.slice(0, 80) ?? "nothing");
}

function list(value: unknown, expected: string): unknown[] {
  if (Array.isArray(value)) return value;
  throw misfit(expected, JSON.stringify(value)?.slice(0, 80) ?? "nothing");
}
