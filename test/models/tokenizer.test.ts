/** @file Tokenizers from files: CLIP's and GPT-2's kind, SentencePiece's as Llama has it, added tokens; conversations. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { BpeTokenizer, chatParts, chatText, clipTokenizer, clipTokens, Tokenizer } from "hinode/models"; // biome-ignore format: one line
import { describe, expect, test } from "vitest";
import { normalizerOf, preTokenizerOf } from "../../models/language/tokenizer-parts.ts";

const fixture = (name: string) => readFileSync(join(import.meta.dirname, "..", "fixtures", name));

describe("CLIP's", () => {
  const file = gunzipSync(fixture("bpe_simple_vocab_16e6.txt.gz")).toString();
  const tokenizer = clipTokenizer(file);

  test.each<[text: string, ids: number[]]>([
    ["a photo of a cat", [320, 1125, 539, 320, 2368]],
    ["  Hello\n WORLD! ", [3306, 1002, 256]],
    ["a diagram", [320, 22697]],
  ])("%j has the published ids", (text, ids) => {
    expect(tokenizer.encode(text)).toEqual([49406, ...ids, 49407]);
  });

  test("digits one by one, clitics apart; back as words", () => {
    const ids = tokenizer.encode("it's 2024 naïve 日本", { addSpecialTokens: false });
    expect(ids.map((id) => tokenizer.tokens[id]).slice(0, 6)).toEqual(["it</w>", "'s</w>", "2</w>", "0</w>", "2</w>", "4</w>"]); // biome-ignore format: one line
    expect(tokenizer.decode(ids)).toBe("it 's 2 0 2 4 naïve 日本");
    expect(tokenizer.vocabularySize).toBe(49408);
  });

  test("rows of equal length, cut or filled up", async () => {
    const rows = await clipTokens(tokenizer, ["a cat", "a photo of a cat"], { length: 5 }).tolist();
    expect(rows).toEqual([[49406, 320, 2368, 49407, 0], [49406, 320, 1125, 539, 49407]]); // biome-ignore format: rows
    expect(() => clipTokenizer("title\na b\n")).toThrow(/48894 merges/);
  });
});

describe("GPT-2's kind", () => {
  const trained = BpeTokenizer.train(["the cat sat on the mat, the cat's hat"], { vocabSize: 280 });
  const file = JSON.parse(JSON.stringify(trained));
  const tokenizer = Tokenizer.fromJSON(file);

  test.each(["the cat's hats ", "été\n\n\t日本 🙂", "", "a  b   c"])("%j: as trained", (text) => {
    expect(tokenizer.encode(text)).toEqual(trained.encode(text));
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  });

  test("special tokens in the text, which the trained one takes for text", () => {
    const [eos] = [trained.special("<eos>")];
    expect(tokenizer.encode("the<eos>cat")).toEqual([
      ...trained.encode("the"),
      eos,
      ...trained.encode("cat"),
    ]);
    expect(tokenizer.decode([eos])).toBe("");
    expect(tokenizer.decode([eos], { skipSpecialTokens: false })).toBe("<eos>");
    const lstrip = { ...file, added_tokens: [{ id: eos, content: "<eos>", special: true, lstrip: true, rstrip: true }] }; // biome-ignore format: one line
    expect(new Tokenizer(lstrip).encode("a  <eos> b")).toEqual([...trained.encode("a"), eos, ...trained.encode("b")]); // biome-ignore format: one line
  });

  test("Llama 3's pieces: its regular expression, and words that are tokens", () => {
    const Regex = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"; // biome-ignore format: as published
    const cut = preTokenizerOf({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false }); // biome-ignore format: one line
    const pieces = (text: string) => cut({ text, first: true }).map((p) => p.text);
    expect(pieces("I'LL pay 12345 $!\n\n  now")).toEqual(["I", "'LL", " pay", " ", "123", "45", " $!\n\n", " ", " now"]); // biome-ignore format: one line
    const whole = { ...file, model: { ...file.model, merges: [], ignore_merges: true } };
    expect(new Tokenizer(whole).encode("the")).toEqual(trained.encode("the"));
  });
});

describe("SentencePiece's kind", () => {
  const bytes = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`); // biome-ignore format: one line
  const pieces = ["<unk>", "<s>", "</s>", ...bytes, "▁", "a", "b", "▁a", "ab", "▁ab"];
  const vocab = Object.fromEntries(pieces.map((token, id) => [token, id]));
  const model = { type: "BPE", vocab, merges: ["▁ a", "a b", "▁a b", "▁ ab"], byte_fallback: true, fuse_unk: true, unk_token: "<unk>" }; // biome-ignore format: one line
  const replace = { type: "Replace", pattern: { String: "▁" }, content: " " };
  const decoder = { type: "Sequence", decoders: [replace, { type: "ByteFallback" }, { type: "Fuse" }, { type: "Strip", content: " ", start: 1, stop: 0 }] }; // biome-ignore format: one line
  const normalizer = { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "▁" }, { ...replace, pattern: { String: " " }, content: "▁" }] }; // biome-ignore format: one line
  const show = (t: Tokenizer, text: string) => t.encode(text).map((id) => t.tokens[id]);

  test.each([
    ["as Llama 2's file has it", { normalizer }],
    ["with Metaspace, as newer files have it", { pre_tokenizer: { type: "Metaspace", prepend_scheme: "first", split: false } }], // biome-ignore format: one line
  ])("%s: characters that it lacks are bytes", (_, parts) => {
    const tokenizer = new Tokenizer({ model, decoder, ...parts });
    expect(show(tokenizer, "ab a é")).toEqual(["▁ab", "▁a", "▁", "<0xC3>", "<0xA9>"]);
    expect(tokenizer.decode(tokenizer.encode("ab a é"))).toBe("ab a é");
    // Half a character.
    expect(tokenizer.decode([4 + 0xc2])).toBe("\uFFFD");
  });

  test("without bytes they are unknown, neighbours once", () => {
    const tokenizer = new Tokenizer({ model: { ...model, byte_fallback: false }, decoder });
    expect(show(tokenizer, "aéèb")).toEqual(["a", "<unk>", "b"]);
  });

  test("what is not known is refused", () => {
    const file = (parts: object) => () => new Tokenizer({ model, ...parts });
    expect(file({ pre_tokenizer: { type: "BertPreTokenizer" } })).toThrow(
      /a pre_tokenizer that is known/,
    );
    expect(file({ model: { ...model, type: "Unigram" } })).toThrow(/of type "BPE"/);
    expect(file({ model: { ...model, merges: ["a z"] } })).toThrow(/"az"/);
    expect(() => new Tokenizer({ model }).decode([9999])).toThrow(/ids below/);
  });
});

test("the behaviours of Split, and normal forms", () => {
  const cut = (behavior: string, invert = false) =>
    preTokenizerOf({ type: "Split", pattern: { String: "-" }, behavior, invert })({
      ...{ text: "the-final--countdown", first: true },
    }).map((p) => p.text);
  // The examples of the library's documentation.
  expect(cut("Removed")).toEqual(["the", "final", "countdown"]);
  expect(cut("Isolated")).toEqual(["the", "-", "final", "-", "-", "countdown"]);
  expect(cut("MergedWithPrevious")).toEqual(["the-", "final-", "-", "countdown"]);
  expect(cut("MergedWithNext")).toEqual(["the", "-final", "-", "-countdown"]);
  expect(cut("Contiguous")).toEqual(["the", "-", "final", "--", "countdown"]);
  expect(cut("Removed", true)).toEqual(["-", "-", "-"]);
  const sequence = { type: "Sequence", normalizers: [{ type: "NFD" }, { type: "StripAccents" }, { type: "Lowercase" }] }; // biome-ignore format: one line
  expect(normalizerOf(sequence)("Été")).toBe("ete");
});

describe("conversations", () => {
  const user = (content: string) => ({ role: "user", content }) as const;
  const says = (content: string) => ({ role: "assistant", content }) as const;

  test("a prompt and its history in each template", () => {
    const talk = [{ role: "system", content: "S" } as const, user("q"), says("a"), user("r")];
    expect(chatText(talk, "chatml")).toBe("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n"); // biome-ignore format: as published
    expect(chatText(talk, "llama2")).toBe("<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nq [/INST] a </s><s>[INST] r [/INST]"); // biome-ignore format: as published
    expect(chatText(talk, "llama3")).toBe("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\na<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nr<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"); // biome-ignore format: as published
    expect(chatText(talk, "llava")).toBe("S USER: q ASSISTANT: a</s>USER: r ASSISTANT:");
  });

  test("the assistant's words are marked", () => {
    const own = chatParts([user("<image>\nq"), says("a")], "llava").filter((p) => p.own);
    expect(own).toEqual([{ text: "a</s>", own: true }]);
    expect(chatText([user("<image>"), says("a cat")], "plain")).toBe("<image>a cat\n");
    expect(() => chatParts([says("a")], "chatml")).toThrow(
      /user and assistant in turn, got assistant/,
    );
  });
});
