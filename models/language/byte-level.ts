/**
 * @file GPT-2's view of text as bytes
 * (https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf,
 * §2.2): its pieces, and its alphabet, in which each byte is one printable character.
 */

/**
 * GPT-2's pieces: English clitics; a run of letters, of digits, or of other signs, each with one space in front; the
 * rest of the white space. Its \s is Unicode's White_Space, JavaScript's is not quite.
 */
export const PIECES =
  /'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/**
 * The character of each byte: printable bytes of Latin-1 stand for themselves, the others are the characters
 * from 256 on.
 */
export const characters: readonly string[] = (() => {
  const printable = (b: number) => (b > 32 && b < 127) || (b > 160 && b !== 173);
  let hidden = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : hidden++));
})();

/** The bytes in the order of their characters, in which they get their ids. */
export const alphabet: readonly number[] = characters
  .map((_, b) => b)
  .sort((a, b) => characters[a].charCodeAt(0) - characters[b].charCodeAt(0));

export const byteOf: ReadonlyMap<string, number> = new Map(characters.map((c, b) => [c, b]));

/** Bytes → text. What is not UTF-8 (a model may emit any bytes) becomes U+FFFD. */
export const textOf = (bytes: Uint8Array): string =>
  // Without ignoreBOM a byte order mark at the start would vanish.
  new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
