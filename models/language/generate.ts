/**
 * @file Generation: the prompt in one pass, then one pass per token, whose attention finds the keys and values
 * of all before in a cache of fixed length.
 *
 * Decides: how prompts of unequal length stand in one batch (padded on the left, so that all end at the same
 * slot; positions count real tokens only), that a plan is made once per length of prompt and once for decoding,
 * when to stop. Leaves to others: the choice of a token (sampling.ts), text (text-stream.ts), several
 * hypotheses at once (beam.ts).
 *
 * Shape letters: B sequences, T positions of the longest prompt, S slots of the cache, V vocabulary, D width.
 */
import { ArgumentError, describe, ShapeError } from "../../core/errors.ts";
import {
  arange,
  compile,
  type DType,
  type Generator as RandomGenerator,
  rand,
  type Tensor,
  tensor,
} from "../../core/index.ts";
import { formatShape } from "../../core/shape.ts";
import { KVCache } from "../../nn/index.ts";
import { type BeamSettings, searchBeams } from "./beam.ts";
import type { LanguageModel } from "./decoder.ts";
import { checkSampling, chooseToken, type SamplingSettings } from "./sampling.ts";
import { type Decoder, TextStream } from "./text-stream.ts";

/**
 * Ids per sequence, of any lengths; or embeddings [B, T, D] (images among them), all T positions real or as
 * `lengths` says.
 */
export type Prompts =
  | readonly (readonly number[])[]
  | {
      readonly embeddings: Tensor;
      /** How many positions at the end of each row are real; all unless given. */
      readonly lengths?: readonly number[];
    };

export interface GenerateOptions extends SamplingSettings {
  readonly maxNewTokens: number;
  /** Ids that end a sequence; they are no part of the result. */
  readonly stopTokens?: readonly number[];
  /** Texts that end a sequence, wherever in a token they begin; no part of the text. They need a tokenizer. */
  readonly stopStrings?: readonly string[];
  /** Makes texts of the ids. */
  readonly tokenizer?: Decoder;
  /** Of the random choices; the global one unless given. */
  readonly generator?: RandomGenerator;
}

/** What one more position has brought. */
export interface GenerationStep {
  /** Per sequence: the new token; null once it has ended. */
  readonly tokens: readonly (number | null)[];
  /** Per sequence: the text that is certain by now; "" without a tokenizer. */
  readonly texts: readonly string[];
  /** The scores that the tokens were chosen from, [B, V] row by row. */
  readonly scores: Float32Array;
}

export interface Generation {
  /** Per sequence, without the prompt and the stop token. */
  readonly tokens: number[][];
  /** Per sequence, how its prompt goes on, without a stop string; "" without a tokenizer. */
  readonly texts: string[];
  /** Milliseconds of the pass over the prompt, and of each pass after it. */
  readonly milliseconds: { readonly prompt: number; readonly perToken: readonly number[] };
  /** Of all sequences together, after the prompt. */
  readonly tokensPerSecond: number;
}

export interface GeneratorOptions {
  /** S: the most tokens of a sequence, prompt included. */
  readonly length: number;
  /** In which type keys and values are kept; the weights' unless given. */
  readonly cacheDtype?: DType;
}

/**
 * Generates with one model, in eval mode.
 *
 *     const generator = new Generator(model, { length: 512 });
 *     const { texts } = await generator.generate([tokenizer.encode("Once")], { maxNewTokens: 100, tokenizer });
 *     for await (const { texts } of generator.stream(prompts, options)) process.stdout.write(texts[0]);
 */
export class Generator {
  readonly model: LanguageModel;
  readonly length: number;
  readonly #cacheDtype: DType | undefined;
  readonly #sessions = new Map<number, Session>();

  constructor(model: LanguageModel, { length, cacheDtype }: GeneratorOptions) {
    this.model = model;
    this.length = length;
    this.#cacheDtype = cacheDtype;
  }

  /** The cache and the plans for B sequences; kept, because making plans takes longer than many tokens. */
  #session(B: number): Session {
    let session = this.#sessions.get(B);
    if (!session)
      this.#sessions.set(B, (session = new Session(this.model, B, this.length, this.#cacheDtype)));
    return session;
  }

  /** All tokens at once. */
  async generate(prompts: Prompts, options: GenerateOptions): Promise<Generation> {
    const tokens: number[][] = Array.from({ length: countOf(prompts) }, () => []);
    const texts = tokens.map(() => "");
    const times: number[] = [];
    let last = performance.now();
    for await (const step of this.stream(prompts, options)) {
      for (const [b, token] of step.tokens.entries()) if (token !== null) tokens[b].push(token);
      for (const [b, text] of step.texts.entries()) texts[b] += text;
      const now = performance.now();
      times.push(now - last);
      last = now;
    }
    const [prompt = 0, ...perToken] = times;
    const seconds = perToken.reduce((a, b) => a + b, 0) / 1000;
    const later = tokens.reduce((n, t) => n + Math.max(0, t.length - 1), 0);
    const tokensPerSecond = seconds > 0 ? later / seconds : 0;
    return { tokens, texts, milliseconds: { prompt, perToken }, tokensPerSecond };
  }

  /**
   * Token by token. Streams of one batch size share a cache: one has to be read to its end, or left (`break`),
   * before the next begins.
   */
  async *stream(prompts: Prompts, options: GenerateOptions): AsyncGenerator<GenerationStep> {
    const session = this.#session(countOf(prompts));
    session.take();
    try {
      yield* this.#steps(session, prompts, options);
    } finally {
      session.release();
    }
  }

  async *#steps(
    session: Session,
    prompts: Prompts,
    options: GenerateOptions,
  ): AsyncGenerator<GenerationStep> {
    checkSampling(options);
    const { stopTokens = [], stopStrings = [], tokenizer, maxNewTokens, generator } = options;
    if (stopStrings.length > 0 && !tokenizer)
      throw new ArgumentError(describe("generate", "a tokenizer for stopStrings", "none"));
    const { B } = session;
    const seen = Array.isArray(prompts) ? prompts.map((ids) => [...ids]) : emptyLists(B);
    const streams = seen.map((ids) => tokenizer && new TextStream(tokenizer, stopStrings, ids));
    const ended = new Array<boolean>(B).fill(false);
    const chance = options.temperature
      ? await rand([maxNewTokens, B], { generator }).data()
      : new Float32Array(maxNewTokens * B);
    let logits = session.start(prompts, maxNewTokens);
    for (let step = 0; step < maxNewTokens; step++) {
      const scores = (await logits.data()) as Float32Array;
      const V = scores.length / B;
      const tokens: (number | null)[] = [];
      const texts: string[] = [];
      for (let b = 0; b < B; b++) {
        const row = scores.subarray(b * V, (b + 1) * V);
        const token = ended[b] ? null : chooseToken(row, seen[b], options, chance[step * B + b]);
        const stops = token !== null && stopTokens.includes(token);
        tokens.push(stops ? null : token);
        let text = "";
        if (token !== null && !stops) {
          seen[b].push(token);
          text = streams[b]?.push(token) ?? "";
        }
        if (!ended[b] && (stops || streams[b]?.stopped || step + 1 === maxNewTokens)) {
          ended[b] = true;
          text += streams[b]?.end() ?? "";
        }
        texts.push(text);
      }
      if (tokens.some((t) => t !== null) || texts.some(Boolean)) yield { tokens, texts, scores };
      if (ended.every(Boolean)) return;
      // What stands after the end of a sequence is seen by nobody.
      logits = session.next(tokens.map((t) => t ?? 0));
    }
  }

  /** The best of several hypotheses per sequence, found by beam search. */
  async search(
    prompts: readonly (readonly number[])[],
    options: BeamSettings & { readonly tokenizer?: Decoder },
  ): Promise<{ tokens: number[][]; texts: string[]; scores: number[] }> {
    const beams = options.beams;
    if (!(Number.isInteger(beams) && beams >= 1))
      throw new ArgumentError(describe("search", "beams ≥ 1", `${beams}`));
    const session = this.#session(prompts.length * beams);
    session.take();
    const found = await searchBeams(session, prompts, options).finally(() => session.release());
    const texts = found.map(({ tokens }) => options.tokenizer?.decode(tokens) ?? "");
    return { tokens: found.map((f) => f.tokens), texts, scores: found.map((f) => f.score) };
  }
}

const countOf = (prompts: Prompts): number =>
  "embeddings" in prompts ? prompts.embeddings.shape[0] : prompts.length;
const emptyLists = (B: number): number[][] => Array.from({ length: B }, () => []);

/** B sequences in one cache. */
export class Session {
  readonly B: number;
  readonly #model: LanguageModel;
  readonly #cache: KVCache;
  #taken = false;
  /** How many slots at the start of each row hold padding, [B]. */
  #padding: Tensor;
  readonly #ofIds: (ids: Tensor, padding: Tensor) => Tensor;
  readonly #ofEmbeddings: (x: Tensor, padding: Tensor) => Tensor;
  readonly #permute: (rows: Tensor) => void;

  constructor(model: LanguageModel, B: number, length: number, dtype: DType | undefined) {
    this.B = B;
    this.#model = model;
    const cache = new KVCache(model, { batchSize: B, length, dtype });
    this.#cache = cache;
    this.#padding = this.#ints(new Array<number>(B).fill(0));
    const scores = (x: Tensor, padding: Tensor): Tensor => {
      const T = x.shape[1];
      const first = padding.unsqueeze(1); // [B, 1]
      const positions = cache.position.add(arange(T)).sub(first).clamp(0); // [B, T]
      const mask = arange(length).ge(first); // [B, S]
      const hidden = model.forward(x, { cache, positions, mask });
      return model.logits(hidden.select(1, T - 1)).float(); // [B, V]
    };
    this.#ofIds = compile((ids: Tensor, padding: Tensor) => scores(model.embed(ids), padding));
    this.#ofEmbeddings = compile(scores);
    this.#permute = compile((rows: Tensor) => {
      for (const cell of [...cache.keys, ...cache.values]) cell.assign(cell.indexSelect(0, rows));
    });
  }

  #ints(values: readonly number[], shape = [values.length]): Tensor {
    return tensor(Int32Array.from(values), { shape, device: this.#model.tokens.weight.device });
  }

  /** Another stream would mix its keys and values with those of this one. */
  take(): void {
    if (this.#taken)
      throw new ArgumentError(
        describe(
          "generate",
          `one stream of ${this.B} sequences at a time`,
          "another that has not ended",
          "another Generator has a cache of its own",
        ),
      );
    this.#taken = true;
  }

  release(): void {
    this.#taken = false;
  }

  /** Reads the prompts; scores [B, V] of the tokens after them. */
  start(prompts: Prompts, maxNewTokens: number): Tensor {
    const S = this.#cache.length;
    const embedded = "embeddings" in prompts ? prompts : null;
    const lengths = embedded
      ? (embedded.lengths ?? new Array<number>(this.B).fill(embedded.embeddings.shape[1]))
      : (prompts as readonly (readonly number[])[]).map((ids) => ids.length);
    const longest = embedded ? embedded.embeddings.shape[1] : Math.max(...lengths);
    // The last new token needs no slot: nothing comes after it.
    const room = S - maxNewTokens + 1;
    if (!(Number.isInteger(maxNewTokens) && maxNewTokens >= 1))
      throw new ArgumentError(describe("generate", "maxNewTokens ≥ 1", `${maxNewTokens}`));
    if (lengths.some((n) => n < 1 || n > longest))
      throw new ArgumentError(
        describe(
          "generate",
          `prompts of 1 … ${longest} positions`,
          `${lengths}`,
          "begin with <bos>",
        ),
      );
    if (longest > room)
      throw new ArgumentError(
        describe("generate", `at most ${S} positions`, `${longest} + ${maxNewTokens} new ones`),
      );
    this.#cache.reset();
    if (embedded) {
      const { shape } = embedded.embeddings;
      if (shape.length !== 3 || lengths.length !== this.B)
        throw new ShapeError(describe("generate", "embeddings [B, T, D]", formatShape(shape)));
      this.#padding = this.#ints(lengths.map((n) => longest - n));
      return this.#ofEmbeddings(embedded.embeddings, this.#padding);
    }
    // A power of two: few plans for prompts of all lengths.
    const T = Math.max(longest, Math.min(room, 2 ** Math.ceil(Math.log2(Math.max(longest, 8)))));
    this.#padding = this.#ints(lengths.map((n) => T - n));
    const ids = (prompts as readonly (readonly number[])[]).flatMap((row) => [
      ...new Array<number>(T - row.length).fill(0),
      ...row,
    ]);
    return this.#ofIds(this.#ints(ids, [this.B, T]), this.#padding);
  }

  /** One more token per sequence; scores [B, V] of those after them. */
  next(tokens: readonly number[]): Tensor {
    return this.#ofIds(this.#ints(tokens, [this.B, 1]), this.#padding);
  }

  /** Row i becomes what row `rows[i]` was. All rows must have as much padding as those. */
  permute(rows: readonly number[]): void {
    if (rows.some((row, i) => row !== i)) this.#permute(this.#ints(rows));
  }
}
