/**
 * @file Generation: the prompt in one pass, then one pass per token, whose attention finds the keys
 * and values of all before in a cache of fixed length.
 *
 * Decides: how prompts of unequal length stand in one batch (padded on the left, so that all end at
 * the same slot; positions count real tokens only), that a plan is made once per length of prompt
 * (its images are part of it) and once for decoding, when to stop. Leaves to others: the choice of
 * a token (sampling.ts), text (text-stream.ts), what prompts are (prompts.ts), several hypotheses
 * at once (beam.ts), where images go (../multimodal).
 *
 * Shape letters: P prompts, n hypotheses of each, B = P·n sequences, T positions of the longest
 * prompt, S slots of the cache, V vocabulary, D width.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import {
  arange,
  compile,
  type DType,
  type Generator as RandomGenerator,
  rand,
  type Tensor,
  tensor,
  where,
} from "../../core/index.ts";
import { KVCache, type Module } from "../../nn/index.ts";
import type { Images } from "../multimodal/vision-language.ts";
import { type BeamSettings, searchBeams } from "./beam.ts";
import {
  checkPrompts,
  countOf,
  type GenerativeModel,
  idsOf,
  lengthsOf,
  type Prompts,
  sees,
} from "./prompts.ts";
import { checkSampling, chooseToken, type SamplingSettings } from "./sampling.ts";
import { type Decoder, TextStream } from "./text-stream.ts";

export interface GenerateOptions extends SamplingSettings {
  readonly maxNewTokens: number;
  /** Ids that end a sequence; they are no part of the result. */
  readonly stopTokens?: readonly number[];
  /**
   * Texts that end a sequence, wherever in a token they begin; no part of the text. They need a
   * tokenizer.
   */
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
  /**
   * The scores that the tokens were chosen from, [B, V] row by row; -∞ of an image's placeholder.
   */
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
 * Generates with one model, in eval mode; afterwards its modules are in the mode they were in.
 *
 * The scores of a prompt are those of a pass over it without a cache, alone or in a batch, and so
 * are those of all tokens after it. One exception: where experts have a capacity, such a pass over
 * more text may drop other tokens than those before it did (`ExpertsConfig.capacityFactor`); here
 * no new token is dropped.
 *
 *     const generator = new Generator(model, { length: 512 });
 *     const options = { maxNewTokens: 100, tokenizer };
 *     const { texts } = await generator.generate([tokenizer.encode("Once")], options);
 *     for await (const { texts } of generator.stream(prompts, options)) console.log(texts[0]);
 *     await new Generator(mm1, { length: 512 }).generate({ ids: [prompt], images }, options);
 */
export class Generator {
  readonly model: GenerativeModel;
  readonly length: number;
  readonly #cacheDtype: DType | undefined;
  readonly #sessions = new Map<string, Session>();

  constructor(model: GenerativeModel, { length, cacheDtype }: GeneratorOptions) {
    this.model = model;
    this.length = length;
    this.#cacheDtype = cacheDtype;
  }

  /**
   * The cache and the plans for P prompts; kept, because making plans takes longer than many
   * tokens.
   */
  #session(P: number, n = 1): Session {
    const key = `${P} ${n}`;
    let session = this.#sessions.get(key);
    if (!session) {
      session = new Session(this.model, [P, n], this.length, this.#cacheDtype);
      this.#sessions.set(key, session);
    }
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
   * Token by token. Streams of one batch size share a cache: one has to be read to its end, or left
   * (`break`), before the next begins.
   */
  async *stream(prompts: Prompts, options: GenerateOptions): AsyncGenerator<GenerationStep> {
    checkSampling(options);
    if (options.stopStrings?.length && !options.tokenizer)
      throw new ArgumentError(describe("generate", "a tokenizer for stopStrings", "none"));
    checkPrompts(this.model, prompts, options.maxNewTokens, this.length);
    const session = this.#session(countOf(prompts));
    session.take();
    try {
      yield* this.#steps(session, prompts, options);
    } catch (error) {
      this.#forget(session);
      throw error;
    } finally {
      session.release();
    }
  }

  /** After a pass that failed nobody knows what its cache holds. */
  #forget(session: Session): void {
    for (const [key, own] of this.#sessions) if (own === session) this.#sessions.delete(key);
  }

  async *#steps(
    session: Session,
    prompts: Prompts,
    options: GenerateOptions,
  ): AsyncGenerator<GenerationStep> {
    const { stopTokens = [], stopStrings = [], tokenizer, maxNewTokens, generator } = options;
    const { B } = session;
    const seen = idsOf(prompts).map((ids) => [...ids]);
    const streams = seen.map((ids) => {
      const image = session.imageToken === null ? -1 : ids.lastIndexOf(session.imageToken);
      const text = ids.slice(image + 1); // Placeholders are no text.
      return tokenizer && new TextStream(tokenizer, stopStrings, text);
    });
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
    prompts: Prompts,
    options: BeamSettings & { readonly tokenizer?: Decoder },
  ): Promise<{ tokens: number[][]; texts: string[]; scores: number[] }> {
    const beams = options.beams;
    if (!(Number.isInteger(beams) && beams >= 1))
      throw new ArgumentError(describe("search", "beams ≥ 1", `${beams}`));
    checkPrompts(this.model, prompts, options.maxNewTokens, this.length);
    const session = this.#session(countOf(prompts), beams);
    session.take();
    const search = async () => {
      const logits = session.start(prompts, options.maxNewTokens);
      return searchBeams(session, logits, idsOf(prompts), options);
    };
    const found = await search()
      .catch((error: unknown) => {
        this.#forget(session);
        throw error;
      })
      .finally(() => session.release());
    const texts = found.map(({ tokens }) => options.tokenizer?.decode(tokens) ?? "");
    return { tokens: found.map((f) => f.tokens), texts, scores: found.map((f) => f.score) };
  }
}

/** B sequences in one cache: n of each prompt. */
export class Session {
  readonly B: number;
  /** Null where the model does not see. */
  readonly imageToken: number | null;
  readonly #device: Tensor["device"];
  readonly #copies: number;
  readonly #model: GenerativeModel;
  #modules: readonly Module[] = [];
  readonly #cache: KVCache;
  #taken = false;
  /** How many slots at the start of each row hold padding, [B]. */
  #padding: Tensor;
  readonly #first: (given: Tensor, padding: Tensor, images?: Images) => Tensor;
  readonly #later: (ids: Tensor, padding: Tensor) => Tensor;
  readonly #permute: (rows: Tensor) => void;

  constructor(
    model: GenerativeModel,
    [prompts, copies]: readonly [P: number, n: number],
    length: number,
    dtype: DType | undefined,
  ) {
    const B = prompts * copies;
    this.B = B;
    this.#copies = copies;
    this.#model = model;
    const language = sees(model) ? model.language : model;
    this.#device = language.tokens.weight.device;
    this.imageToken = sees(model) ? model.config.imageToken : null;
    const cache = new KVCache(language, { batchSize: B, length, dtype });
    this.#cache = cache;
    this.#padding = this.#ints(new Array<number>(B).fill(0));
    const scores = (x: Tensor, padding: Tensor): Tensor => {
      const T = x.shape[1];
      const first = padding.unsqueeze(1); // [B, 1]
      const positions = cache.position.add(arange(T)).sub(first).clamp(0); // [B, T]
      const mask = arange(length).ge(first); // [B, S]
      const hidden = language.forward(x, { cache, positions, mask });
      const logits = language.logits(hidden.select(1, T - 1)).float(); // [B, V]
      // A placeholder is no text, and what stands in it could not be read.
      const { imageToken } = this;
      return imageToken === null
        ? logits
        : where(arange(logits.shape[1]).eq(imageToken), -Infinity, logits);
    };
    this.#later = compile((ids: Tensor, padding: Tensor) => scores(language.embed(ids), padding));
    // Images are encoded within the plan of the prompt, and once for all hypotheses.
    this.#first = compile((given: Tensor, padding: Tensor, images?: Images) => {
      const embed = () => (sees(model) ? model.embed(given, images) : model.embed(given));
      const x = given.ndim === 3 ? given : embed(); // [P, T, D]
      return scores(copies === 1 ? x : x.repeatInterleave(copies, 0), padding);
    });
    this.#permute = compile((rows: Tensor) => {
      for (const cell of [...cache.keys, ...cache.values]) cell.assign(cell.indexSelect(0, rows));
    });
  }

  #ints(values: readonly number[], shape = [values.length]): Tensor {
    return tensor(Int32Array.from(values), { shape, device: this.#device });
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

  /** Reads prompts that checkPrompts has seen; scores [B, V] of the tokens after them. */
  start(prompts: Prompts, maxNewTokens: number): Tensor {
    const P = this.B / this.#copies;
    const lengths = lengthsOf(prompts);
    this.#modules = this.#model.modules();
    this.#cache.reset();
    const pad = (T: number) => {
      const padding = lengths.flatMap((n) => new Array<number>(this.#copies).fill(T - n));
      this.#padding = this.#ints(padding);
    };
    if ("embeddings" in prompts) {
      const { embeddings } = prompts;
      pad(embeddings.shape[1]);
      return this.#inEval(() => this.#first(embeddings, this.#padding));
    }
    const longest = Math.max(...lengths);
    const room = this.#cache.length - maxNewTokens + 1;
    // A power of two: few plans for prompts of all lengths.
    const T = Math.max(longest, Math.min(room, 2 ** Math.ceil(Math.log2(Math.max(longest, 8)))));
    pad(T);
    // Nobody sees it, but it must not stand for an image.
    const filler = this.imageToken === 0 ? 1 : 0;
    const ids = idsOf(prompts).flatMap((row) => [
      ...new Array<number>(T - row.length).fill(filler),
      ...row,
    ]);
    const images = "images" in prompts ? prompts.images : undefined;
    return this.#inEval(() => this.#first(this.#ints(ids, [P, T]), this.#padding, images));
  }

  /** One more token per sequence; scores [B, V] of those after them. */
  next(tokens: readonly number[]): Tensor {
    return this.#inEval(() => this.#later(this.#ints(tokens, [this.B, 1]), this.#padding));
  }

  /**
   * Recording a pass is synchronous: whoever trains between two tokens finds the modules as they
   * were.
   */
  #inEval(pass: () => Tensor): Tensor {
    const training = this.#modules.filter((m) => m.training);
    if (training.length === 0) return pass();
    const modes = this.#modules.map((m) => [m, m.training] as const);
    this.#model.eval();
    try {
      return pass();
    } finally {
      // Parents come first: what they set below them is mended by what follows.
      for (const [m, mode] of modes) m.train(mode);
    }
  }

  /** Row i becomes what row `rows[i]` was. All rows must have as much padding as those. */
  permute(rows: readonly number[]): void {
    if (rows.some((row, i) => row !== i)) this.#permute(this.#ints(rows));
  }
}
