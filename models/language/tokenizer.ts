/**
 * @file Tokenizers as Hugging Face's tokenizer.json describes them, with byte-pair encoding as the model:
 * GPT-2's and Llama 3's kind (bytes as characters), CLIP's (words with an end mark), and SentencePiece's as
 * Llama 2 has it (▁ for a space, unknown characters as bytes).
 *
 * Decides: the model, and added tokens, which are found in the text before all else. The steps around it are in
 * tokenizer-parts.ts, merging in join.ts. Truncation and padding in the file are not obeyed. A tokenizer that
 * is trained here is a BpeTokenizer (bpe.ts), whose file this reads too.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { joinPairs, type RankedMerge } from "./join.ts";
import {
  decoderOf,
  type Normalizer,
  normalizerOf,
  type PreTokenizer,
  postProcessorOf,
  preTokenizerOf,
  type TokenDecoder,
} from "./tokenizer-parts.ts";

interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Not within a word. */
  readonly single_word?: boolean;
  /** Takes the white space on that side with it. */
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
  /** Looked for in the normalized text, not in the text as it is. */
  readonly normalized?: boolean;
  /** Stands for no text: decoding leaves it out. */
  readonly special?: boolean;
}

interface BpeModel {
  readonly type?: string;
  readonly vocab: Readonly<Record<string, number>>;
  readonly merges: readonly (string | readonly [string, string])[];
  readonly unk_token?: string | null;
  readonly fuse_unk?: boolean;
  readonly byte_fallback?: boolean;
  readonly ignore_merges?: boolean;
  readonly continuing_subword_prefix?: string | null;
  readonly end_of_word_suffix?: string | null;
}

export interface TokenizerFile {
  readonly model: BpeModel;
  readonly added_tokens?: readonly AddedToken[];
  readonly normalizer?: unknown;
  readonly pre_tokenizer?: unknown;
  readonly post_processor?: unknown;
  readonly decoder?: unknown;
}

const utf8 = new TextEncoder();
/** Words whose ids are remembered. */
const CACHED = 2 ** 15;

const misfit = (expected: string, got: unknown): ArgumentError =>
  new ArgumentError(describe("Tokenizer", expected, `${got}`));

export class Tokenizer {
  /** Position = id; undefined where no token has the id. */
  readonly tokens: readonly (string | undefined)[];
  readonly #model: BpeModel;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #ranks = new Map<number, RankedMerge>();
  readonly #added: ReadonlyMap<string, AddedToken>;
  readonly #special: ReadonlySet<number>;
  /** Finds added tokens, in the text as it is and in the normalized text; null where there are none. */
  readonly #early: RegExp | null;
  readonly #late: RegExp | null;
  readonly #normalize: Normalizer;
  readonly #cut: PreTokenizer;
  readonly #frame: (ids: number[]) => number[];
  readonly #decode: TokenDecoder;
  readonly #cache = new Map<string, readonly number[]>();

  constructor(file: TokenizerFile) {
    const { model, added_tokens: added = [] } = file;
    if ((model?.type ?? "BPE") !== "BPE" || !model?.vocab || !Array.isArray(model.merges))
      throw misfit('a model of type "BPE" with vocab and merges', model?.type);
    this.#model = model;
    const ids = new Map(Object.entries(model.vocab));
    for (const { content, id } of added) ids.set(content, id);
    this.#ids = ids;
    const tokens: (string | undefined)[] = [];
    for (const [token, id] of ids) tokens[id] = token;
    this.tokens = tokens;
    this.#added = new Map(added.map((t) => [t.content, t]));
    this.#special = new Set(added.filter((t) => t.special).map((t) => t.id));
    this.#normalize = normalizerOf(file.normalizer);
    this.#cut = preTokenizerOf(file.pre_tokenizer);
    this.#frame = postProcessorOf(file.post_processor);
    this.#decode = decoderOf(file.decoder);
    const isLate = (t: AddedToken) => t.normalized ?? !t.special;
    this.#early = patternOf(added.filter((t) => !isLate(t)));
    this.#late = patternOf(added.filter(isLate));
    const prefix = model.continuing_subword_prefix ?? "";
    const idOf = (token: string) => {
      const id = ids.get(token);
      if (id === undefined) throw misfit("merges of tokens in the vocabulary", `"${token}"`);
      return id;
    };
    for (const [rank, merge] of model.merges.entries()) {
      // Older files write "left right".
      const [left, right] = typeof merge === "string" ? merge.split(" ") : merge;
      const joined = idOf(left + right.slice(right.startsWith(prefix) ? prefix.length : 0));
      this.#ranks.set(this.#key(idOf(left), idOf(right)), { rank, joined });
    }
  }

  /** From the parsed content of a tokenizer.json. @throws ArgumentError for parts that are not known here. */
  static fromJSON(json: unknown): Tokenizer {
    return new Tokenizer(json as TokenizerFile);
  }

  /** The largest id, plus one. */
  get vocabularySize(): number {
    return this.tokens.length;
  }

  /** The id of a token, added ones among them; undefined if there is none. */
  idOf(token: string): number | undefined {
    return this.#ids.get(token);
  }

  /** Text → ids. `addSpecialTokens: false` leaves out what the file puts around a text, such as <s>. */
  encode(text: string, { addSpecialTokens = true }: { addSpecialTokens?: boolean } = {}): number[] {
    const ids: number[] = [];
    for (const early of this.#parts(text, this.#early, true)) {
      if (early.added) ids.push(early.added.id);
      else {
        const normal = this.#normalize(early.text);
        for (const late of this.#parts(normal, this.#late, early.first)) {
          if (late.added) ids.push(late.added.id);
          else for (const word of this.#cut(late)) ids.push(...this.#encodeWord(word.text));
        }
      }
    }
    return addSpecialTokens ? this.#frame(ids) : ids;
  }

  /** Ids → text. `skipSpecialTokens: false` shows special tokens by their names. */
  decode(
    ids: Iterable<number>,
    { skipSpecialTokens = true }: { skipSpecialTokens?: boolean } = {},
  ): string {
    const tokens: string[] = [];
    for (const id of ids) {
      const token = this.tokens[id];
      if (token === undefined) throw misfit(`ids below ${this.tokens.length}`, id);
      if (!(skipSpecialTokens && this.#special.has(id))) tokens.push(token);
    }
    const text = this.#decode(tokens).join("");
    const suffix = this.#model.end_of_word_suffix;
    // CLIP's file has only its bytes decoded; its library does this.
    return suffix && text.includes(suffix) ? text.replaceAll(suffix, " ").trim() : text;
  }

  /** Texts and the added tokens between them. */
  *#parts(text: string, pattern: RegExp | null, first: boolean) {
    let end = 0;
    for (const match of pattern ? text.matchAll(pattern) : []) {
      if (match.index > end)
        yield { text: text.slice(end, match.index), first: first && end === 0, added: null };
      // White space that a token takes with it is no part of its name.
      const added = this.#added.get(match[0]) ?? this.#added.get(match[0].trim())!;
      yield { text: match[0], first: false, added };
      end = match.index + match[0].length;
    }
    if (end < text.length) yield { text: text.slice(end), first: first && end === 0, added: null };
  }

  #encodeWord(word: string): readonly number[] {
    const known = this.#cache.get(word);
    if (known) return known;
    const whole = this.#model.ignore_merges ? this.#ids.get(word) : undefined;
    const ids =
      whole === undefined
        ? joinPairs(this.#units(word), (left, right) => this.#ranks.get(this.#key(left, right)))
        : [whole];
    if (this.#cache.size >= CACHED) this.#cache.clear();
    this.#cache.set(word, ids);
    return ids;
  }

  /** The ids of a word's characters. */
  #units(word: string): number[] {
    const { unk_token, fuse_unk, byte_fallback } = this.#model;
    const prefix = this.#model.continuing_subword_prefix ?? "";
    const suffix = this.#model.end_of_word_suffix ?? "";
    const letters = [...word];
    const ids: number[] = [];
    let unknownBefore = false;
    for (const [i, letter] of letters.entries()) {
      const unit = (i > 0 ? prefix : "") + letter + (i + 1 === letters.length ? suffix : "");
      const id = this.#ids.get(unit);
      const bytes = id === undefined && byte_fallback ? this.#byteIds(unit) : null;
      if (id !== undefined) ids.push(id);
      else if (bytes) ids.push(...bytes);
      // A character without an id, bytes or an unknown token is dropped, as the reference does.
      else if (unk_token && !(fuse_unk && unknownBefore)) ids.push(this.#ids.get(unk_token)!);
      unknownBefore = id === undefined && !bytes;
    }
    return ids;
  }

  /** Of tokens such as <0xE2>; null if one of them is missing. */
  #byteIds(text: string): number[] | null {
    const name = (b: number) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`;
    const ids = Array.from(utf8.encode(text), (b) => this.#ids.get(name(b)));
    return ids.every((id) => id !== undefined) ? ids : null;
  }

  #key(left: number, right: number): number {
    return left * this.tokens.length + right;
  }
}

/** Finds any of the tokens, where several begin the longest. */
function patternOf(added: readonly AddedToken[]): RegExp | null {
  if (added.length === 0) return null;
  const alternatives = added
    .toSorted((a, b) => b.content.length - a.content.length)
    .map(({ content, lstrip, rstrip, single_word }) => {
      const word = single_word ? ["(?<![\\p{L}\\p{N}_])", "(?![\\p{L}\\p{N}_])"] : ["", ""];
      const own = word[0] + RegExp.escape(content) + word[1];
      return `${lstrip ? "\\s*" : ""}${own}${rstrip ? "\\s*" : ""}`;
    });
  return new RegExp(alternatives.join("|"), "gu");
}
