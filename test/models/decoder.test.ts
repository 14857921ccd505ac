/** @file The language model: who sees whom, stretched positions, sizes, and Hugging Face's names and settings. */
import { manualSeed, randn, rmsNorm, scaledDotProductAttention, type Tensor, tensor } from "hinode";
import {
  huggingFaceConfigOf,
  type LanguageConfig,
  LanguageModel,
  languageConfigOf,
  languageNames,
  languagePresets,
  loadWeights,
  NO_TARGET,
  nextTokens,
  parameterCount,
  rotaryOf,
  storedWeights,
} from "hinode/models";
import { MultiheadAttention, rotate } from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const tiny: LanguageConfig = {
  ...{ vocabulary: 11, width: 8, depth: 2, heads: 4, hidden: 12 },
  ...{ kvHeads: 2, headDim: 4, qkNorm: true, eps: 1e-5 },
};
const ids = (rows: number[][]) => tensor(rows, { dtype: "i32" });
const close = { rtol: 1e-4, atol: 1e-5 };

onEachDevice("LanguageModel", () => {
  let model: LanguageModel;
  beforeAll(() => {
    manualSeed(1);
    model = new LanguageModel(tiny);
  });

  const rows = (t: Tensor, b: number, from: number, count: number) =>
    t.select(0, b).narrow(0, from, count).data();
  const hidden = (tokens: number[][], options = {}) =>
    model.forward(model.embed(ids(tokens)), options);

  test("padding on either side changes nothing", async () => {
    const alone = await hidden([[1, 2, 3]]).data();
    const mask = ids([
      [0, 0, 1, 1, 1],
      [1, 1, 1, 0, 0],
    ]);
    const padded = hidden([[9, 9, 1, 2, 3], [1, 2, 3, 9, 9]], { mask }); // biome-ignore format: rows
    expect(difference(await rows(padded, 0, 2, 3), alone, close)).toBeNull();
    expect(difference(await rows(padded, 1, 0, 3), alone, close)).toBeNull();
  });

  test("packed examples do not see each other, and begin at position 0", async () => {
    const documents = ids([[7, 7, 7, 2, 2]]);
    const packed = hidden([[1, 2, 3, 4, 5]], { documents });
    for (const [tokens, from] of [
      [[1, 2, 3], 0],
      [[4, 5], 3],
    ] as const) {
      // biome-ignore format: rows
      const alone = await hidden([[...tokens]]).data();
      expect(difference(await rows(packed, 0, from, tokens.length), alone, close)).toBeNull();
    }
    expect(await nextTokens(ids([[1, 2, 3, 4, 5]]), documents).tolist()).toEqual([
      [2, 3, NO_TARGET, 5, NO_TARGET],
    ]);
  });

  test("a window hides what is further back", async () => {
    const windowed = new LanguageModel({ ...tiny, depth: 1, window: 2 });
    const of = (tokens: number[]) => windowed.forward(windowed.embed(ids([tokens])));
    const [a, b] = [of([1, 2, 3, 4]), of([5, 2, 3, 4])];
    // In one layer the third position sees two: the first token has no part in it.
    expect(difference(await rows(a, 0, 2, 2), await rows(b, 0, 2, 2), close)).toBeNull();
    expect(difference(await rows(a, 0, 1, 1), await rows(b, 0, 1, 1), close)).not.toBeNull();
  });

  test("the loss is the formula's, with z-loss; checkpointed blocks have the same gradients", async () => {
    const scored = new LanguageModel({ ...tiny, zLoss: 0.5, tied: true });
    const tokens = ids([[1, 2, 3, 4]]);
    const targets = ids([[2, NO_TARGET, 4, 5]]);
    const logits = (await scored
      .logits(scored.forward(scored.embed(tokens)))
      .tolist()) as number[][][];
    let want = 0;
    for (const [t, target] of [
      [0, 2],
      [2, 4],
      [3, 5],
    ]) {
      // biome-ignore format: rows
      const row = logits[0][t];
      const logZ = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
      want += (logZ - row[target] + 0.5 * logZ ** 2) / 3;
    }
    const gradients = async (options: object) => {
      scored.zeroGrad();
      const loss = scored.loss(tokens, targets, options);
      loss.backward();
      expect(Number(await loss.item())).toBeCloseTo(want, 4);
      return scored.blocks[0].attention.qkv!.weight.grad!.data();
    };
    const plain = await gradients({});
    expect(difference(await gradients({ checkpoint: true }), plain, close)).toBeNull();
  });

  test("heads of any width, normalised, as PyTorch's operators one by one", async () => {
    const options = { headDim: 4, kvHeads: 1, qkNorm: 1e-5, causal: true, bias: false };
    const attention = new MultiheadAttention(6, 2, options);
    attention.kNorm!.weight = tensor([1, 2, 3, 4]);
    const x = randn([2, 3, 6]);
    const [q, k, v] = attention.qkv!.forward(x).split([8, 4, 4], -1);
    const heads = (t: Tensor, count: number) => t.reshape([2, 3, count, 4]).transpose(1, 2);
    const y = scaledDotProductAttention(
      rmsNorm(heads(q, 2), [4], undefined, 1e-5),
      rmsNorm(heads(k, 1), [4], tensor([1, 2, 3, 4]), 1e-5),
      heads(v, 1),
      { isCausal: true, enableGqa: true },
    );
    const want = attention.out.forward(y.transpose(1, 2).flatten(-2));
    expect(difference(await attention.forward(x).data(), await want.data(), close)).toBeNull();
  });

  test("given turns and their amplitude; a length that is known when it runs", async () => {
    const turned = rotate(tensor([[1, 0, 0, 1], [1, 0, 0, 1]]), { frequencies: [0.5, 0.25], amplitude: 2 }); // biome-ignore format: one line
    const [c, s] = [2 * Math.cos(0.5), 2 * Math.sin(0.5)];
    const [d, t] = [2 * Math.cos(0.25), 2 * Math.sin(0.25)];
    // Pairs (0, 2) and (1, 3).
    expect(difference(await turned.data(), [2, 0, 0, 2, c, -t, s, d], close)).toBeNull();
    const rope = { type: "dynamic", factor: 2 } as const;
    for (const length of [8, 40]) {
      const now = rotaryOf(rope, 8, 16, tensor(length, { dtype: "i32" })).frequencies as Tensor;
      const known = rotaryOf(rope, 8, 16, length).frequencies as number[];
      expect(difference(await now.data(), known, close)).toBeNull();
    }
  });

  test("Hugging Face's names, there and back", async () => {
    const config: LanguageConfig = { ...tiny, qkNorm: false, experts: { count: 3 } };
    const [a, b] = [new LanguageModel(config), new LanguageModel(config)];
    const state = storedWeights(languageNames(a));
    expect(state["model.layers.1.self_attn.k_proj.weight"].shape).toEqual([8, 8]);
    expect(state["model.layers.0.block_sparse_moe.experts.2.w2.weight"].shape).toEqual([8, 12]);
    await loadWeights(languageNames(b), state);
    const x = randn([1, 3, 8]);
    expect(await b.forward(x).data()).toEqual(await a.forward(x).data());
  });
});

describe("settings", () => {
  test("presets have the sizes of their names, without allocating", () => {
    const sizes = { "9M": 10.2e6, "85M": 84.9e6, "302M": 308e6, "1.2B": 1.233e9, "2.9B": 2.944e9, "6.4B": 6.476e9, "30B": 29.7e9, "3B-MoE": 64.8e9, "7B-MoE": 40e9 }; // biome-ignore format: a table
    for (const [name, size] of Object.entries(sizes)) {
      const config = languagePresets[name as keyof typeof sizes];
      const count = parameterCount(config);
      expect(count.nonEmbedding / size, name).toBeCloseTo(1, 2);
      // A model's weights are made when they are read: even the largest can be counted.
      expect(new LanguageModel(config).numParameters(), name).toBe(count.total);
    }
    const { "3B-MoE": sparse, "2.9B": dense } = languagePresets;
    const extra = 13 * (3 * 3072 * 8192 + 64 * 3072);
    expect(parameterCount(sparse).active - parameterCount(dense).total).toBe(extra);
    const biased = { ...tiny, attentionBias: true, mlpBias: true, tied: true };
    expect(new LanguageModel(biased).numParameters()).toBe(parameterCount(biased).total);
  });

  test("config.json of versions 4 and 5, and back", () => {
    const shared = {
      ...{ model_type: "llama", vocab_size: 11, hidden_size: 8, intermediate_size: 12 },
      ...{ num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2 },
      ...{ max_position_embeddings: 64, rms_norm_eps: 1e-5, tie_word_embeddings: true },
    };
    const scaling = { factor: 4, low_freq_factor: 1, high_freq_factor: 4 };
    const all = { ...scaling, original_max_position_embeddings: 16 };
    const old = { ...shared, rope_theta: 5e5, rope_scaling: { ...all, type: "llama3" } };
    const newer = { ...shared, rope_parameters: { ...all, rope_type: "llama3", rope_theta: 5e5 } };
    expect(languageConfigOf(old)).toEqual(languageConfigOf(newer));
    const back = languageConfigOf(huggingFaceConfigOf(languageConfigOf(newer)));
    expect(back).toEqual({ ...languageConfigOf(newer), headDim: 2, attentionDropout: 0 });
    expect(() => languageConfigOf({ ...shared, hidden_act: "gelu" })).toThrow(/silu, got gelu/);
    expect(() => languageConfigOf({ ...shared, rope_scaling: { type: "su" } })).toThrow(/got su/);
  });

  test("stretched positions", () => {
    const turns = (rope: object, length = 8) =>
      rotaryOf({ theta: 100, factor: 4, ...rope } as never, 8, 16, length);
    const plain = [0, 1, 2, 3].map((i) => 100 ** (-i / 4));
    const near = (got: unknown, want: number[]) =>
      expect(difference(got as number[], want, { rtol: 1e-12, atol: 0 })).toBeNull();
    near(turns({ type: "linear" }).frequencies, plain.map((f) => f / 4)); // biome-ignore format: one line
    near(turns({ type: "dynamic" }).frequencies, plain);
    // Twice the length: θ·(4·2 − 3)^(8/6).
    near(turns({ type: "dynamic" }, 32).frequencies, plain.map((_, i) => (100 * 5 ** (8 / 6)) ** (-i / 4))); // biome-ignore format: one line
    // In 64 positions the pairs turn 10.2, 3.2, 1.02 and 0.32 times.
    const llama3 = {
      type: "llama3",
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositions: 64,
    };
    const kept = (f: number) => ((64 * f) / (2 * Math.PI) - 1) / 3;
    const mixed = (f: number) => (f / 4) * (1 - kept(f)) + f * kept(f);
    near(turns(llama3).frequencies, [plain[0], mixed(plain[1]), mixed(plain[2]), plain[3] / 4]);
    const { frequencies, amplitude } = turns({ type: "yarn", originalMaxPositions: 64, betaFast: 8, betaSlow: 2 }); // biome-ignore format: one line
    // The ramp goes from pair ⌊0.21⌋ to pair ⌈1.41⌉.
    const [a, b, c, d] = plain;
    near(frequencies, [a, (b + b / 4) / 2, c / 4, d / 4]);
    expect(amplitude).toBeCloseTo(0.1 * Math.log(4) + 1, 12);
  });
});
