/**
 * @file A reader for the JSON of safetensors headers, which knows their one shape: JSON.parse would keep the last of two equal
 * keys, and would build whatever a hostile header asks for before anyone can look at it. What it allocates besides
 * the header's text are the strings and numbers that it returns.
 */
import { CheckpointError, describe } from "../../core/errors.ts";

/** A name for messages; a hostile one may be as long as the file. */
export const quoted = (name: string): string =>
  JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name);

/** `source` is the file. */
export function fault(source: string, expected: string, got: string, hint?: string) {
  return new CheckpointError(describe(source, expected, got, hint));
}

export class JsonReader {
  /** The tensor that is being read, for messages. */
  tensor: string | undefined;
  readonly #text: string;
  readonly #source: string;
  #at = 0;

  constructor(bytes: Uint8Array, source: string) {
    this.#source = source;
    try {
      // A byte order mark is kept, and refused where the brace should be.
      this.#text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      throw fault(source, "a header in UTF-8", "other bytes");
    }
  }

  /** An error about the file, or about the tensor that is being read. */
  fault(expected: string, got: string): CheckpointError {
    const { tensor } = this;
    const where = tensor === undefined ? "" : `: tensor ${quoted(tensor)}`;
    return fault(this.#source + where, expected, got);
  }

  /** One character, exactly here. */
  expect(char: string): void {
    if (!this.#accept(char)) throw this.#unexpected(`"${char}"`);
  }

  /** The rest of an object after its brace: `member` reads the value of each key. */
  members(member: (key: string) => void): void {
    this.#space();
    if (this.#accept("}")) return;
    for (;;) {
      this.#space();
      const key = this.string();
      this.#space();
      this.expect(":");
      this.#space();
      member(key);
      this.#space();
      if (this.#accept("}")) return;
      this.expect(",");
    }
  }

  /** An object of strings. */
  strings(): Map<string, string> {
    const found = new Map<string, string>();
    this.expect("{");
    this.members((key) => {
      if (found.has(key)) throw this.fault("each key of the metadata once", `${quoted(key)} twice`);
      found.set(key, this.string());
    });
    return found;
  }

  /** A string; JSON.parse resolves its escapes and refuses wrong ones. */
  string(): string {
    if (!this.#accept('"')) throw this.#unexpected("a string");
    const text = this.#text;
    const begin = this.#at;
    let plain = true;
    for (let c = text.charCodeAt(begin); c !== QUOTE; c = text.charCodeAt(++this.#at)) {
      if (c < SPACE || c === BACKSLASH) plain = false;
      if (c === BACKSLASH) this.#at++;
      if (this.#at >= text.length) throw this.#unexpected("the end of a string");
    }
    const inside = text.slice(begin, this.#at++);
    if (plain) return inside;
    try {
      const value: string = JSON.parse(`"${inside}"`);
      // Half of a surrogate pair could not be written to a file again.
      if (value.isWellFormed()) return value;
    } catch {
      // Said below.
    }
    throw this.fault("strings as JSON writes them", quoted(inside));
  }

  /** A list of at most `most` integers. */
  integers(most: number): number[] {
    this.expect("[");
    this.#space();
    if (this.#accept("]")) return [];
    // Counted first: an array that grows takes a hundred bytes more, for each tensor twice.
    let count = 1;
    for (let i = this.#at; i < this.#text.length && this.#text.charCodeAt(i) !== BRACKET; i++)
      if (this.#text.charCodeAt(i) === COMMA && ++count > most)
        throw this.fault(`at most ${most} numbers in a list`, "more");
    const found = new Array<number>(count);
    for (let i = 0; i < count; i++) {
      if (i > 0) this.expect(",");
      this.#space();
      found[i] = this.#integer();
      this.#space();
    }
    this.expect("]");
    return found;
  }

  /** Only white space may follow; files pad with it. */
  finish(): void {
    this.#space();
    if (this.#at < this.#text.length) throw this.#unexpected("the end of the header");
  }

  #integer(): number {
    const text = this.#text;
    const begin = this.#at;
    let value = 0;
    for (let c = text.charCodeAt(begin); isDigit(c); c = text.charCodeAt(++this.#at))
      value = value * 10 + (c - ZERO);
    const length = this.#at - begin;
    const leadingZero = length > 1 && text.charCodeAt(begin) === ZERO;
    const next = text.charAt(this.#at);
    if (length === 0 && next !== "-") throw this.#unexpected("a number");
    if (leadingZero || "-.eE".includes(next || " ") || value > Number.MAX_SAFE_INTEGER)
      throw this.fault("integers from 0 to 2⁵³ − 1", text.slice(begin, begin + 20));
    return value;
  }

  #accept(char: string): boolean {
    if (this.#text.charCodeAt(this.#at) !== char.charCodeAt(0)) return false;
    this.#at++;
    return true;
  }

  #space(): void {
    for (let c = this.#text.charCodeAt(this.#at); isSpace(c); c = this.#text.charCodeAt(this.#at))
      this.#at++;
  }

  #unexpected(expected: string): CheckpointError {
    const rest = this.#text.slice(this.#at, this.#at + 20);
    const where = `${expected} at character ${this.#at} of the header`;
    return this.fault(where, rest === "" ? "its end" : quoted(rest));
  }
}

const [SPACE, QUOTE, COMMA, ZERO, BACKSLASH, BRACKET] = [0x20, 0x22, 0x2c, 0x30, 0x5c, 0x5d];
const isSpace = (c: number): boolean => c === SPACE || c === 0x0a || c === 0x0d || c === 0x09;
const isDigit = (c: number): boolean => c >= ZERO && c < ZERO + 10;
