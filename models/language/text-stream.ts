/**
 * @file Text from tokens as they come: whole characters only, and nothing of a stop string. A token
 * may end in the middle of a character's bytes, or begin what may become a stop string; both wait
 * for the next one.
 */

/** Ids → text, as our tokenizers have it. */
export interface Decoder {
  decode(ids: Iterable<number>): string;
}

/** Enough ids for what is before a token to be seen as it is: a byte of a character, a word. */
const CONTEXT = 8;

export class TextStream {
  readonly #decoder: Decoder;
  readonly #stops: readonly string[];
  readonly #ids: number[];
  /**
   * A few ids before those not shown yet are decoded with them: what a token is as text depends on
   * its neighbours.
   */
  #context = 0;
  #read: number;
  /** Text that is decoded but may belong to a stop string. */
  #held = "";
  /** All text so far, without the stop string. */
  text = "";
  /** Whether a stop string has come. */
  stopped = false;

  /**
   * `before`: the ids that the text goes on from; it begins with the space behind them, if there is
   * one.
   */
  constructor(decoder: Decoder, stops: readonly string[] = [], before: readonly number[] = []) {
    this.#decoder = decoder;
    this.#ids = before.slice(-CONTEXT);
    this.#read = this.#ids.length;
    this.#stops = stops.filter((s) => s.length > 0);
  }

  /** Takes a token; gives the text that is now certain. */
  push(id: number): string {
    if (this.stopped) return "";
    this.#ids.push(id);
    const known = this.#decoder.decode(this.#ids.slice(this.#context, this.#read));
    const all = this.#decoder.decode(this.#ids.slice(this.#context));
    // U+FFFD at the end: bytes of a character that is not complete.
    if (all.length <= known.length || all.endsWith("\uFFFD")) return "";
    this.#context = this.#read;
    this.#read = this.#ids.length;
    return this.#add(all.slice(known.length));
  }

  /** The rest, when no more tokens come. */
  end(): string {
    if (this.stopped) return "";
    const known = this.#decoder.decode(this.#ids.slice(this.#context, this.#read));
    const rest = this.#add(
      this.#decoder.decode(this.#ids.slice(this.#context)).slice(known.length),
    );
    this.#context = this.#read = this.#ids.length;
    const last = this.#held;
    this.#held = "";
    this.text += last;
    return rest + last;
  }

  #add(more: string): string {
    const waiting = this.#held + more;
    const found = this.#stops.map((s) => waiting.indexOf(s)).filter((at) => at >= 0);
    this.stopped = found.length > 0;
    const sure = this.stopped ? Math.min(...found) : waiting.length - this.#possible(waiting);
    this.#held = this.stopped ? "" : waiting.slice(sure);
    this.text += waiting.slice(0, sure);
    return waiting.slice(0, sure);
  }

  /** How many characters at the end may begin a stop string. */
  #possible(text: string): number {
    const longest = Math.max(0, ...this.#stops.map((s) => s.length - 1));
    for (let n = Math.min(longest, text.length); n > 0; n--)
      if (this.#stops.some((s) => s.startsWith(text.slice(-n)))) return n;
    return 0;
  }
}
