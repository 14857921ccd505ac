/**
 * @file CLIP's tokenizer from its list of merges (bpe_simple_vocab_16e6.txt of github.com/openai/CLIP):
 * byte-pair encoding of lower-case words, in which a mark ends each word, framed by a start and an end token.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { type Tensor, tensor } from "../../core/index.ts";
import { alphabet, characters } from "./byte-level.ts";
import { Tokenizer } from "./tokenizer.ts";

/** Ids in all: two per byte, one per merge, and the two around a text. */
const SIZE = 49_408;
const START = "<|startoftext|>";
const END = "<|endoftext|>";

/**
 * `vocabulary`: the text of the (unpacked) file, whose first line is a title. The tokenizer is that of Hugging
 * Face's CLIP; OpenAI's also mends broken Unicode and HTML before, which this does not.
 */
export function clipTokenizer(vocabulary: string): Tokenizer {
  const lines = vocabulary.split("\n").slice(1, SIZE - 512 - 2 + 1);
  const merges = lines.map((line) => line.split(" ") as [string, string]);
  if (merges.length !== SIZE - 514 || merges.some((pair) => pair.length !== 2))
    throw new ArgumentError(
      describe("clipTokenizer", `${SIZE - 514} merges, one per line`, `${merges.length} lines`),
    );
  const bytes = alphabet.map((b) => characters[b]);
  const tokens = [...bytes, ...bytes.map((c) => `${c}</w>`), ...merges.map((m) => m.join(""))];
  const [start, end] = [tokens.length, tokens.length + 1];
  const special = (id: number, content: string) => ({ id, content, special: true });
  return new Tokenizer({
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "NFC" },
        { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
        { type: "Lowercase" },
      ],
    },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        {
          type: "Split",
          pattern: { Regex: "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" },
          ...{ behavior: "Removed", invert: true },
        },
        { type: "ByteLevel", add_prefix_space: false },
      ],
    },
    model: {
      vocab: Object.fromEntries([...tokens, START, END].map((token, id) => [token, id])),
      merges,
      ...{ end_of_word_suffix: "</w>", unk_token: END },
    },
    added_tokens: [special(start, START), special(end, END)],
    post_processor: { type: "RobertaProcessing", cls: [START, start], sep: [END, end] },
    decoder: { type: "ByteLevel" },
  });
}

/**
 * Texts → ids [B, length] i32 as CLIP reads them: a text that is too long is cut and still ends with the end
 * token, a short one is filled up with `padding` (OpenAI's is 0, Hugging Face's the end token).
 */
export function clipTokens(
  tokenizer: Tokenizer,
  texts: readonly string[],
  { length = 77, padding = 0 }: { readonly length?: number; readonly padding?: number } = {},
): Tensor {
  const rows = texts.flatMap((text) => {
    const ids = tokenizer.encode(text);
    const cut = ids.length > length ? [...ids.slice(0, length - 1), ids.at(-1)!] : ids;
    return [...cut, ...new Array<number>(length - cut.length).fill(padding)];
  });
  return tensor(Int32Array.from(rows), { shape: [texts.length, length] });
}
