/**
 * @file The steps of a Hugging Face tokenizer.json around its model: what is done to the text before
 * (normalizer, pre_tokenizer), to the ids after (post_processor), and to the tokens on the way back (decoder).
 * Those that CLIP, GPT-2, Llama and their kin use; another is an error, because without it the ids would be
 * wrong.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { byteOf, characters, PIECES, textOf } from "./byte-level.ts";

/** A part of the file, parsed; null where there is none. */
// biome-ignore lint/suspicious/noExplicitAny: every type of part has fields of its own
type Json = any;

const utf8 = new TextEncoder();

const unknown = (part: string, json: Json): never => {
  throw new ArgumentError(
    describe("Tokenizer", `a ${part} that is known here`, JSON.stringify(json)?.slice(0, 80)),
  );
};

/** A pattern as the file has it: a string to find, or a regular expression of Oniguruma's. */
function patternOf(pattern: { String?: string; Regex?: string }): RegExp {
  if (pattern.String !== undefined) return new RegExp(RegExp.escape(pattern.String), "gu");
  // Its \s is Unicode's White_Space, JavaScript's is not quite; and JavaScript forbids escapes that do nothing.
  const source = pattern.Regex!.replace(/\\([\s\S])/gu, (all, c: string) => {
    if (c === "s") return "\\p{White_Space}";
    if (c === "S") return "\\P{White_Space}";
    return /[\p{L}\p{N}^$\\.*+?()[\]{}|/-]/u.test(c) ? all : c;
  });
  try {
    return new RegExp(source, "gu");
  } catch {
    return unknown("regular expression", pattern.Regex);
  }
}

// --- text → text ----------------------------------------------------------------------------------------------------

export type Normalizer = (text: string) => string;

export function normalizerOf(json: Json): Normalizer {
  switch (json?.type) {
    case undefined:
      return (text) => text;
    case "Sequence": {
      const all: Normalizer[] = json.normalizers.map(normalizerOf);
      return (text) => all.reduce((t, step) => step(t), text);
    }
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
      return (text) => text.normalize(json.type);
    case "Lowercase":
      return (text) => text.toLowerCase();
    case "StripAccents":
      return (text) => text.replace(/\p{Mn}/gu, "");
    case "Prepend":
      return (text) => (text === "" ? "" : json.prepend + text);
    case "Strip":
      return (text) => {
        const left = json.strip_left ? text.trimStart() : text;
        return json.strip_right ? left.trimEnd() : left;
      };
    case "Replace": {
      const pattern = patternOf(json.pattern);
      return (text) => text.replace(pattern, () => json.content);
    }
    default:
      return unknown("normalizer", json);
  }
}

// --- text → words ---------------------------------------------------------------------------------------------------

/** A piece of the text; `first`: nothing stands before it. */
export interface Piece {
  readonly text: string;
  readonly first: boolean;
}
export type PreTokenizer = (piece: Piece) => Piece[];

export function preTokenizerOf(json: Json): PreTokenizer {
  switch (json?.type) {
    case undefined:
      return (piece) => [piece];
    case "Sequence": {
      const all: PreTokenizer[] = json.pretokenizers.map(preTokenizerOf);
      return (piece) => all.reduce((pieces, step) => pieces.flatMap(step), [piece]);
    }
    case "ByteLevel": {
      const { add_prefix_space: prefix = true, use_regex: cut = true } = json;
      return ({ text, first }) => {
        const whole = prefix && !/^\p{White_Space}/u.test(text) ? ` ${text}` : text;
        const pieces = cut ? (whole.match(PIECES) ?? []) : [whole];
        const bytes = (t: string) => Array.from(utf8.encode(t), (b) => characters[b]).join("");
        return numbered(pieces.map(bytes), first);
      };
    }
    case "Split":
      return splitter(patternOf(json.pattern), json.behavior, json.invert);
    case "Whitespace":
      return splitter(/[\p{L}\p{N}\p{M}\p{Pc}]+|[^\p{L}\p{N}\p{M}\p{Pc}\p{White_Space}]+/gu, "Removed", true); // biome-ignore format: one line
    case "WhitespaceSplit":
      return splitter(/\p{White_Space}/gu, "Removed", false);
    case "Digits":
      return splitter(json.individual_digits ? /\p{N}/gu : /\p{N}+/gu, "Isolated", false);
    case "Punctuation":
      return splitter(/[\p{P}!-/:-@[-`{-~]/gu, json.behavior ?? "Isolated", false);
    case "Metaspace": {
      const { replacement = "▁", split = true } = json;
      const scheme = json.prepend_scheme ?? (json.add_prefix_space === false ? "never" : "always");
      const cut = splitter(new RegExp(RegExp.escape(replacement), "gu"), "MergedWithNext", false);
      return ({ text, first }) => {
        const marked = text.replaceAll(" ", replacement);
        const wanted = scheme === "always" || (scheme === "first" && first);
        const whole = wanted && !marked.startsWith(replacement) ? replacement + marked : marked;
        return split ? cut({ text: whole, first }) : [{ text: whole, first }];
      };
    }
    default:
      return unknown("pre_tokenizer", json);
  }
}

const numbered = (texts: readonly string[], first: boolean): Piece[] =>
  texts.filter(Boolean).map((text, i) => ({ text, first: first && i === 0 }));

/** Cuts at the matches of a pattern, or (`invert`) at what lies between them. */
function splitter(pattern: RegExp, behavior: string, invert: boolean): PreTokenizer {
  const joins: Record<string, (here: boolean, before: boolean) => boolean> = {
    Removed: () => false,
    Isolated: () => false,
    MergedWithPrevious: (here, before) => here && !before,
    MergedWithNext: (here, before) => before && !here,
    Contiguous: (here, before) => here === before,
  };
  const joinsBefore = joins[behavior] ?? unknown("behavior of Split", behavior);
  return ({ text, first }) => {
    const parts: { text: string; cut: boolean }[] = [];
    let end = 0;
    for (const match of text.matchAll(pattern)) {
      if (match[0] === "") continue;
      if (match.index > end) parts.push({ text: text.slice(end, match.index), cut: invert });
      parts.push({ text: match[0], cut: !invert });
      end = match.index + match[0].length;
    }
    if (end < text.length) parts.push({ text: text.slice(end), cut: invert });
    const pieces: string[] = [];
    for (const [i, part] of parts.entries()) {
      if (behavior === "Removed" && part.cut) continue;
      if (i > 0 && joinsBefore(part.cut, parts[i - 1].cut)) pieces[pieces.length - 1] += part.text;
      else pieces.push(part.text);
    }
    return numbered(pieces, first);
  };
}

// --- ids → ids ------------------------------------------------------------------------------------------------------

/** Adds what stands around a single text. */
export function postProcessorOf(json: Json): (ids: number[]) => number[] {
  switch (json?.type) {
    case undefined:
    case "ByteLevel": // It only moves offsets.
      return (ids) => ids;
    case "Sequence": {
      const all: ((ids: number[]) => number[])[] = json.processors.map(postProcessorOf);
      return (ids) => all.reduce((t, step) => step(t), ids);
    }
    case "RobertaProcessing":
    case "BertProcessing":
      return (ids) => [json.cls[1], ...ids, json.sep[1]];
    case "TemplateProcessing":
      return (ids) =>
        json.single.flatMap((part: Json) =>
          part.Sequence ? ids : json.special_tokens[part.SpecialToken.id].ids,
        );
    default:
      return unknown("post_processor", json);
  }
}

// --- tokens → text --------------------------------------------------------------------------------------------------

export type TokenDecoder = (tokens: string[]) => string[];

/** null: tokens are words, between which there is a space. */
export function decoderOf(json: Json): TokenDecoder {
  switch (json?.type) {
    case undefined:
      return (tokens) => [tokens.join(" ")];
    case "Sequence": {
      const all: TokenDecoder[] = json.decoders.map(decoderOf);
      return (tokens) => all.reduce((t, step) => step(t), tokens);
    }
    case "ByteLevel":
      return (tokens) => [textOf(Uint8Array.from(tokens.flatMap(bytesOf)))];
    case "Fuse":
      return (tokens) => [tokens.join("")];
    case "Replace": {
      const pattern = patternOf(json.pattern);
      return (tokens) => tokens.map((t) => t.replace(pattern, () => json.content));
    }
    case "Strip":
      return (tokens) => tokens.map((t) => stripped(t, json.content, json.start, json.stop));
    case "Metaspace": {
      const { replacement = "▁" } = json;
      const scheme = json.prepend_scheme ?? (json.add_prefix_space === false ? "never" : "always");
      return (tokens) =>
        tokens.map((t, i) => {
          const own = i === 0 && scheme !== "never" && t.startsWith(replacement) ? t.slice(1) : t;
          return own.replaceAll(replacement, " ");
        });
    }
    case "BPEDecoder": {
      const { suffix = "</w>" } = json;
      return (tokens) => tokens.map((t, i) => t.replaceAll(suffix, i + 1 < tokens.length ? " " : "")); // biome-ignore format: one line
    }
    case "ByteFallback":
      return bytesJoined;
    default:
      return unknown("decoder", json);
  }
}

/** A token in GPT-2's alphabet; an added one, in others, is its own text. */
function bytesOf(token: string): number[] {
  const bytes = Array.from(token, (c) => byteOf.get(c));
  return bytes.every((b) => b !== undefined) ? bytes : [...utf8.encode(token)];
}

function stripped(text: string, content: string, start: number, stop: number): string {
  let [from, to] = [0, text.length];
  while (from < start && text.startsWith(content, from)) from += content.length;
  for (
    let n = 0;
    n < stop && to > from && text.endsWith(content) && to - content.length >= from;
    n++
  )
    to -= content.length;
  return text.slice(from, to);
}

/** Neighbours such as <0xE2> become the text of their bytes, or U+FFFD each if they are none. */
function bytesJoined(tokens: string[]): string[] {
  const out: string[] = [];
  let bytes: number[] = [];
  const flush = () => {
    if (bytes.length === 0) return;
    const text = textOf(Uint8Array.from(bytes));
    out.push(text.includes("\uFFFD") ? "\uFFFD".repeat(bytes.length) : text);
    bytes = [];
  };
  for (const token of tokens) {
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
    if (byte) bytes.push(Number.parseInt(byte[1], 16));
    else {
      flush();
      out.push(token);
    }
  }
  flush();
  return out;
}
