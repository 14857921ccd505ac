/**
 * @file Models and tokenizers in the format of llama2.c (github.com/karpathy/llama2.c, export version 0), in
 * which the TinyStories models are published.
 *
 * A model: seven i32 (width, hidden, depth, heads, kvHeads, vocabulary, positions), then f32 weights, of each
 * kind those of all layers, row-major. A vocabulary below 0 says that the head is a matrix of its own. Its
 * heads turn neighbours (2i, 2i + 1) by their positions, not halves; the tables of cosines that follow the
 * weights are not needed. A tokenizer: i32 of the longest token, then per token f32 score, i32 bytes, UTF-8. A
 * pair is joined by the score of what it makes.
 */
import { CheckpointError, describe } from "../../core/errors.ts";
import { tensor } from "../../core/index.ts";
import { loadWeights } from "../weights.ts";
import { type LanguageConfig, LanguageModel } from "./decoder.ts";
import { languageNames } from "./huggingface.ts";
import { Tokenizer } from "./tokenizer.ts";

const refuse = (what: string, expected: string, got: string): never => {
  throw new CheckpointError(describe(what, expected, got));
};

export async function readLlama2c(bytes: Uint8Array): Promise<LanguageModel> {
  const what = "readLlama2c";
  if (bytes.length < 28) refuse(what, "a header of 28 bytes", `${bytes.length}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const header = Array.from({ length: 7 }, (_, i) => view.getInt32(4 * i, true));
  const [width, hidden, depth, heads, kvHeads, signed, maxPositions] = header;
  const vocabulary = Math.abs(signed);
  const sizes = [width, hidden, depth, heads, kvHeads, vocabulary, maxPositions];
  if (sizes.some((n) => n < 1 || n > 2 ** 20) || width % heads !== 0 || heads % kvHeads !== 0)
    refuse(what, "seven sizes of a model", `${header}`);
  const headDim = width / heads;
  const config: LanguageConfig = {
    ...{ vocabulary, width, depth, heads, kvHeads, hidden, maxPositions, eps: 1e-5 },
    ...{ tied: signed > 0, rope: { interleaved: true } },
  };
  let at = 28;
  const take = (...shape: number[]) => {
    const count = shape.reduce((a, b) => a * b, 1);
    if (at + 4 * count > bytes.length)
      refuse(what, `${at + 4 * count} bytes and more`, `${bytes.length}`);
    // Copied: the data may start at any byte.
    const data = new Float32Array(new Uint8Array(bytes.subarray(at, at + 4 * count)).buffer);
    at += 4 * count;
    return tensor(data, { shape });
  };
  const each = (...shape: number[]) => Array.from({ length: depth }, () => take(...shape));
  const [kv, square] = [kvHeads * headDim, [width, width] as const];
  const embedding = take(vocabulary, width);
  // In the order of the file.
  const layers = {
    input_layernorm: each(width),
    "self_attn.q_proj": each(...square),
    "self_attn.k_proj": each(kv, width),
    "self_attn.v_proj": each(kv, width),
    "self_attn.o_proj": each(...square),
    post_attention_layernorm: each(width),
    "mlp.gate_proj": each(hidden, width),
    "mlp.down_proj": each(width, hidden),
    "mlp.up_proj": each(hidden, width),
  };
  const norm = take(width);
  at += 4 * maxPositions * headDim; // cosines and sines
  const model = new LanguageModel(config);
  await loadWeights(languageNames(model), {
    "model.embed_tokens.weight": embedding,
    "model.norm.weight": norm,
    ...(config.tied ? {} : { "lm_head.weight": take(vocabulary, width) }),
    ...Object.fromEntries(
      Object.entries(layers).flatMap(([name, tensors]) =>
        tensors.map((t, i) => [`model.layers.${i}.${name}.weight`, t]),
      ),
    ),
  });
  if (at !== bytes.length) refuse(what, `${at} bytes`, `${bytes.length}`);
  return model;
}

/** `vocabulary`: how many tokens, which the file does not say. */
export function readLlama2cTokenizer(bytes: Uint8Array, vocabulary: number): Tokenizer {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  const vocab = new Map<string, number>();
  const scores: number[] = [];
  let at = 4;
  for (let id = 0; id < vocabulary; id++) {
    const length = at + 8 <= bytes.length ? view.getInt32(at + 4, true) : -1;
    if (length < 0 || at + 8 + length > bytes.length)
      refuse("readLlama2cTokenizer", `${vocabulary} tokens`, `${id}`);
    scores.push(view.getFloat32(at, true));
    const text = utf8.decode(bytes.subarray(at + 8, at + 8 + length));
    // <s> and </s> are written between line ends; spaces stand for SentencePiece's ▁.
    const special = id === 1 || id === 2;
    vocab.set(special ? text.trim() : text.replaceAll(" ", "▁"), id);
    at += 8 + length;
  }
  const merges: [left: string, right: string, score: number][] = [];
  for (const [text, id] of vocab) {
    const letters = [...text];
    for (let cut = 1; cut < letters.length; cut++) {
      const [left, right] = [letters.slice(0, cut).join(""), letters.slice(cut).join("")];
      if (vocab.has(left) && vocab.has(right)) merges.push([left, right, scores[id]]);
    }
  }
  merges.sort((a, b) => b[2] - a[2]);
  const special = (id: number, content: string) => ({ id, content, special: true });
  return new Tokenizer({
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    model: {
      vocab: Object.fromEntries(vocab),
      merges: merges.map(([left, right]) => [left, right]),
      ...{ byte_fallback: true, fuse_unk: true, unk_token: "<unk>" },
    },
    added_tokens: [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>" } }, { Sequence: { id: "A" } }],
      special_tokens: { "<s>": { ids: [1] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        ...[{ type: "ByteFallback" }, { type: "Fuse" }],
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
  });
}
