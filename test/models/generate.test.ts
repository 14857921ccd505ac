/**
 * @file Generation: what the cache gives is what full passes give; choices; stops; beams; streams.
 */
import { compile, manualSeed, type Tensor, tensor } from "hinode";
import { BpeTokenizer, candidates, chooseToken, Generator, LanguageModel, TextStream } from "hinode/models"; // biome-ignore format: one line
import { KVCache } from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const V = 13;
const ids = (rows: number[][]) => tensor(rows, { dtype: "i32" });
const prompts = [[3], [1, 4, 1, 5, 9, 2]];

onEachDevice("Generator", () => {
  let model: LanguageModel;
  let generator: Generator;
  beforeAll(() => {
    manualSeed(4);
    model = new LanguageModel({
      ...{ vocabulary: V, width: 16, depth: 2, heads: 4, kvHeads: 2, hidden: 16 },
      ...{ window: 6, rope: { type: "dynamic", factor: 2 }, maxPositions: 32 },
    });
    // Scores far enough apart that rounding decides nothing.
    model.head!.weight = model.head!.weight.mul(20).detach();
    generator = new Generator(model, { length: 16 });
  });

  /**
   * Scores [V] of the token after `text`, without a cache; filled up on the right, so that one plan
   * does for all.
   */
  const full = async (text: number[]) => {
    const row = Array.from({ length: 10 }, (_, t) => text[t] ?? 0);
    const mask = ids([row.map((_, t) => Number(t < text.length))]);
    const all = model.logits(model.forward(model.embed(ids([row])), { mask }));
    return ((await all.tolist()) as number[][][])[0][text.length - 1];
  };

  test("prompts of unequal length: the scores and tokens of passes over the whole text", async () => {
    const texts = prompts.map((p) => [...p]);
    let steps = 0;
    for await (const { tokens, scores } of generator.stream(prompts, { maxNewTokens: 4 })) {
      steps++;
      for (const [b, text] of texts.entries()) {
        const want = await full(text);
        const got = scores.subarray(b * V, (b + 1) * V);
        expect(difference(got, want, { rtol: 1e-4, atol: 1e-4 })).toBeNull();
        expect(tokens[b]).toBe(chooseToken(want, [], {}, 0));
        text.push(tokens[b]!);
      }
    }
    expect(steps).toBe(4);
  });

  test("from embeddings, some rows with padding before them: as from ids", async () => {
    const options = { maxNewTokens: 3 };
    const { tokens } = await generator.generate(prompts, options);
    const padded = prompts.map((p) => [...new Array<number>(6 - p.length).fill(0), ...p]);
    const embedded = { embeddings: model.embed(ids(padded)), lengths: [1, 6] };
    expect((await generator.generate(embedded, options)).tokens).toEqual(tokens);
  });

  test("a stop token ends its sequence alone", async () => {
    const { tokens: all } = await generator.generate(prompts, { maxNewTokens: 4 });
    const stop = all[0][1];
    const { tokens } = await generator.generate(prompts, { maxNewTokens: 4, stopTokens: [stop] });
    const until = (row: number[]) => (row.includes(stop) ? row.slice(0, row.indexOf(stop)) : row);
    expect(tokens).toEqual(all.map(until));
  });

  test("random choices are repeated by the seed, and one candidate is no choice", async () => {
    const options = { maxNewTokens: 5, temperature: 1.5, topP: 0.95 };
    const run = (more = {}) => {
      manualSeed(6);
      return generator.generate(prompts, { ...options, ...more }).then((r) => r.tokens);
    };
    expect(await run()).toEqual(await run());
    const greedy = await generator.generate(prompts, { maxNewTokens: 5 });
    expect(await run({ topK: 1 })).toEqual(greedy.tokens);
  });

  test("one beam is greedy; many find the best of all texts", async () => {
    const { tokens } = await generator.generate(prompts, { maxNewTokens: 3 });
    const one = await generator.search(prompts, { beams: 1, maxNewTokens: 3 });
    expect(one.tokens).toEqual(tokens);
    // With a beam per token two steps are an exhaustive search.
    const { tokens: found, scores } = await generator.search([[3, 1]], { beams: V, maxNewTokens: 2, lengthPenalty: 0 }); // biome-ignore format: one line
    const logP = (row: number[]) => {
      const Z = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
      return row.map((x) => x - Z);
    };
    const first = logP(await full([3, 1]));
    let best = { score: -Infinity, text: [0, 0] };
    for (const [a, p] of first.entries())
      for (const [b, q] of logP(await full([3, 1, a])).entries())
        if (p + q > best.score) best = { score: p + q, text: [a, b] };
    expect(found[0]).toEqual(best.text);
    expect(scores[0]).toBeCloseTo(best.score, 3);
  });

  test("decoding is one plan for all positions", async () => {
    const cache = new KVCache(model, { batchSize: 1, length: 5 });
    let plans = 0;
    const step = compile((x: Tensor) => {
      plans++;
      return model.forward(model.embed(x), { cache });
    });
    for (let t = 0; t < 5; t++) await step(ids([[t]])).data();
    expect(plans).toBe(1);
  });

  test("experts with a capacity: a prompt's scores are those of a pass over it alone", async () => {
    const config = { vocabulary: V, width: 16, depth: 2, heads: 4, hidden: 16 };
    const sparse = new LanguageModel({ ...config, experts: { count: 8, capacityFactor: 2 } });
    const roomy = new LanguageModel({ ...config, experts: { count: 8 } });
    roomy.loadStateDict(sparse.stateDict());
    const last = async (of: LanguageModel, text: number[]) =>
      ((await of.logits(of.forward(of.embed(ids([text])))).tolist()) as number[][][])[0].at(-1)!;
    const writer = new Generator(sparse, { length: 16 });
    const steps = async (of: number[][], maxNewTokens: number) => {
      const all: { tokens: readonly (number | null)[]; scores: Float32Array }[] = [];
      for await (const step of writer.stream(of, { maxNewTokens })) all.push(step);
      return all;
    };
    const near = { rtol: 1e-4, atol: 1e-5 };
    const texts = [[3, 1, 4, 1, 5], [9, 2, 6]]; // biome-ignore format: one line
    const together = await steps(texts, 4);
    for (const [b, text] of texts.entries()) {
      const row = (scores: Float32Array) => scores.subarray(b * V, (b + 1) * V);
      const want = await last(sparse, text);
      // The capacity has a part in it.
      expect(difference(want, await last(roomy, text), near)).not.toBeNull();
      expect(difference(row(together[0].scores), want, near)).toBeNull();
      for (const [i, step] of (await steps([text], 4)).entries()) {
        expect(together[i].tokens[b]).toBe(step.tokens[0]);
        expect(difference(row(together[i].scores), step.scores, near)).toBeNull();
      }
    }
    // A token that comes alone is never dropped.
    const words = [[3], [9]];
    for (const { tokens, scores } of await steps(words, 4))
      for (const [b, word] of words.entries()) {
        const got = scores.subarray(b * V, (b + 1) * V);
        expect(difference(got, await last(roomy, word), near)).toBeNull();
        word.push(tokens[b]!);
      }
  });

  test("a model that trains generates in eval mode, and goes on training", async () => {
    const config = { vocabulary: V, width: 16, depth: 1, heads: 2, hidden: 16 };
    const trained = new LanguageModel({ ...config, attentionDropout: 0.5 });
    trained.blocks[0].norm1.eval();
    const modes = () => trained.modules().map((m) => m.training);
    const before = modes();
    const stream = new Generator(trained, { length: 8 }).stream([[3, 1, 4]], { maxNewTokens: 2 });
    const text = [3, 1, 4];
    for await (const { tokens, scores } of stream) {
      expect(modes()).toEqual(before);
      trained.eval();
      const all = trained.logits(trained.forward(trained.embed(ids([text])))).select(1, -1);
      expect(difference(scores, await all.data(), { rtol: 1e-4, atol: 1e-5 })).toBeNull();
      trained.train();
      trained.blocks[0].norm1.eval();
      text.push(tokens[0]!);
    }
  });

  test("mistakes are named", async () => {
    const run = (p: number[][], options: object) =>
      generator.generate(p, { maxNewTokens: 2, ...options });
    await expect(run([[]], {})).rejects.toThrow(/prompts of 1/);
    await expect(run([[1]], { maxNewTokens: 17 })).rejects.toThrow(/at most 16 positions/);
    await expect(run([[1]], { maxNewTokens: -1 })).rejects.toThrow(/maxNewTokens ≥ 1, got -1/);
    await expect(run([], {})).rejects.toThrow(/one prompt or more/);
    await expect(run([[1], []], {})).rejects.toThrow(/1 position or more, got 1,0/);
    await expect(generator.search([], { beams: 2, maxNewTokens: 1 })).rejects.toThrow(/one prompt/);
    await expect(run([[1]], { topP: 0 })).rejects.toThrow(/topP in \(0, 1\]/);
    const stream = generator.stream([[1]], { maxNewTokens: 2 });
    await stream.next();
    await expect(run([[2]], {})).rejects.toThrow(/one stream of 1 sequences at a time/);
    await stream.return(undefined);
    expect((await run([[2]], {})).tokens[0].length).toBe(2);
    await expect(run([[1]], { stopStrings: ["x"] })).rejects.toThrow(/a tokenizer/);
  });
});

describe("choices", () => {
  // Probabilities 0.5, 0.25, 0.125, 0.125.
  const scores = Float64Array.from([0.5, 0.25, 0.125, 0.125], Math.log);
  const kept = (settings: object) => candidates(scores, settings).ids;

  test("what each setting keeps", () => {
    expect(kept({ topK: 2 })).toEqual([0, 1]);
    expect(kept({ topK: 3 })).toEqual([0, 1, 2, 3]); // The fourth is as good as the third.
    expect(kept({ topP: 0.6 })).toEqual([0, 1]);
    expect(kept({ minP: 0.3 })).toEqual([0, 1]);
    const { probabilities } = candidates(scores, { temperature: 0.5, topK: 2 });
    expect(probabilities[0]).toBeCloseTo(0.8, 12); // 0.5² : 0.25²
  });

  test("the number in [0, 1) picks by probability; seen tokens are penalised", () => {
    const pick = (u: number) => chooseToken(scores, [], { temperature: 1 }, u);
    expect([0, 0.49, 0.51, 0.76, 0.99].map(pick)).toEqual([0, 0, 1, 2, 3]);
    // log 0.5 · 3 is below log 0.25; a positive score is divided.
    expect(chooseToken(scores, [0, 0], { repetitionPenalty: 3 }, 0)).toBe(1);
    expect(chooseToken([3, 2], [0], { repetitionPenalty: 2 }, 0)).toBe(1);
  });

  test("a token is drawn as the candidates say, of equal scores too; none from NaN or of -∞", () => {
    const scores = Float64Array.from([0, 2, -Infinity, 2, 1, 0, 2, -1]);
    for (const settings of [{ temperature: 1 }, { temperature: 0.7, topK: 4 }, { temperature: 2, topP: 0.8 }, { temperature: 1, minP: 0.2 }]) {
      const { ids, probabilities } = candidates(scores, settings);
      expect(ids).not.toContain(2);
      expect(probabilities.reduce((a, b) => a + b)).toBeCloseTo(1, 12);
      let below = 0;
      for (const [i, p] of probabilities.entries()) {
        expect(chooseToken(scores, [], settings, below + p / 2)).toBe(ids[i]);
        below += p;
      }
      expect(chooseToken(scores, [], settings, 1 - 2 ** -53)).toBe(ids.at(-1));
    }
    expect(() => chooseToken([1, Number.NaN], [], {}, 0)).toThrow(/got NaN/);
  }); // biome-ignore format: the settings

  test("a stream of text holds back half characters and what may become a stop string", () => {
    const tokenizer = BpeTokenizer.train([], { vocabSize: 260 });
    const feed = (text: string, stops: string[]) => {
      const stream = new TextStream(tokenizer, stops);
      const parts = tokenizer.encode(text).map((id) => stream.push(id));
      return { parts: [...parts, stream.end()], text: stream.text, stopped: stream.stopped };
    };
    expect(feed("aé\nb", []).parts).toEqual(["a", "", "é", "\n", "b", ""]);
    expect(feed("a\nb\n\nc", ["\n\n"])).toEqual({
      ...{ parts: ["a", "", "\nb", "", "", "", ""], text: "a\nb", stopped: true },
    });
    expect(feed("a\n", ["\n\n"]).parts).toEqual(["a", "", "\n"]);
  });
});
