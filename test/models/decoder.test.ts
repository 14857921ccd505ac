/**
 * @file The language model: who sees whom, stretched positions, sizes, and Hugging Face's names and
 * settings.
 */
import {
  manualSeed,
  noGrad,
  randn,
  rmsNorm,
  scaledDotProductAttention,
  type Tensor,
  tensor,
} from "hinode";
import {
  huggingFaceConfigOf,
  type LanguageConfig,
  LanguageModel,
  languageConfigOf,
  languageNames,
  languagePresets,
  loadWeights,
  type MixtureOfExperts,
  NO_TARGET,
  nextTokens,
  parameterCount,
  rotaryOf,
  storedWeights,
} from "hinode/models";
import { type GatedMLP, MultiheadAttention, rotate } from "hinode/nn";
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

  test("padding takes no place at an expert that is full", async () => {
    const sparse = new LanguageModel({ ...tiny, experts: { count: 4, capacityFactor: 1 } });
    const of = (tokens: number[][], options = {}) =>
      sparse.forward(sparse.embed(ids(tokens)), options);
    const text = [1, 2, 3, 4, 5];
    const alone = await of([text]).data();
    const left = [9, 9, 9, ...text];
    const right = [...text, 9, 9, 9];
    const mask = ids([left.map((_, t) => Number(t >= 3)), right.map((_, t) => Number(t < 5))]);
    const padded = of([left, right], { mask });
    expect(difference(await rows(padded, 0, 3, 5), alone, close)).toBeNull();
    expect(difference(await rows(padded, 1, 0, 5), alone, close)).toBeNull();
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

  test("gates of another activation, and experts with it", async () => {
    const x = randn([1, 2, 8]);
    const dense = new LanguageModel({ ...tiny, activation: "relu" }).blocks[0]
      .feedForward as GatedMLP;
    const want = dense.down.forward(dense.gate.forward(x).relu().mul(dense.up.forward(x)));
    expect(difference(await dense.forward(x).data(), await want.data(), close)).toBeNull();
    // One expert of one is the dense layer with its weights.
    const experts = { count: 1, perToken: 1 };
    const sparse = new LanguageModel({ ...tiny, activation: "relu", experts }).blocks[0].feedForward as MixtureOfExperts; // biome-ignore format: one line
    noGrad(() => {
      for (const part of ["gate", "up", "down"] as const)
        sparse[part].assign(dense[part].weight.unsqueeze(0));
    });
    const [mixed] = sparse.forward(x);
    expect(difference(await mixed.data(), await want.data(), close)).toBeNull();
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
    const part = rotate(tensor([[1, 2, 3, 4, 5, 6], [1, 0, 0, 1, 5, 6]]), { width: 4, frequencies: [0.5, 0.25], amplitude: 2 }); // biome-ignore format: one line
    const want = [2, 4, 6, 8, 5, 6, c, -t, s, d, 5, 6];
    expect(difference(await part.data(), want, close)).toBeNull();
    expect(() => rotate(tensor([[1, 2]]), { width: 4 })).toThrow(
      /even (head )?width of at most 2, got 4/,
    );
    const factors = { shortFactor: [1, 2, 3, 4], longFactor: [2, 3, 4, 5] };
    for (const rope of [
      { type: "dynamic", factor: 2 },
      { type: "longrope", originalMaxPositions: 16, ...factors },
    ] as const)
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
    for (const attentionBias of [true, "qkv"] as const) {
      const biased = { ...tiny, attentionBias, mlpBias: true, tied: true };
      expect(new LanguageModel(biased).numParameters()).toBe(parameterCount(biased).total);
    }
  });

  test("config.json of versions 4 and 5, and back", () => {
    const shared = {
      ...{ model_type: "llama", vocab_size: 11, hidden_size: 8, intermediate_size: 12 },
      ...{ num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2 },
      ...{ max_position_embeddings: 64, rms_norm_eps: 1e-5, tie_word_embeddings: true },
    };
    const scaling = { factor: 4, low_freq_factor: 1, high_freq_factor: 4 };
    const stretch = { ...scaling, original_max_position_embeddings: 16 };
    const old = { ...shared, rope_theta: 5e5, rope_scaling: { ...stretch, type: "llama3" } };
    const newer = {
      ...shared,
      rope_parameters: { ...stretch, rope_type: "llama3", rope_theta: 5e5 },
    };
    expect(languageConfigOf(old)).toEqual(languageConfigOf(newer));
    const back = languageConfigOf(huggingFaceConfigOf(languageConfigOf(newer)));
    expect(back).toEqual({ ...languageConfigOf(newer), headDim: 2, attentionDropout: 0 });
    expect(languageConfigOf({ ...shared, hidden_act: "gelu" }).activation).toBe("gelu");
    expect(languageConfigOf({ ...shared, hidden_act: "swish" }).activation).toBeUndefined();
    const qwen = { ...shared, model_type: "qwen2", sliding_window: 4 };
    expect(languageConfigOf(qwen)).toMatchObject({ attentionBias: "qkv", window: undefined });
    const windowed = { ...qwen, use_sliding_window: true };
    expect(() => languageConfigOf(windowed)).toThrow(/max_window_layers: 0/);
    const all = languageConfigOf({ ...windowed, max_window_layers: 0 });
    expect(all.window).toBe(4);
    expect(languageConfigOf(huggingFaceConfigOf(all))).toMatchObject({
      window: 4,
      attentionBias: "qkv",
    });
    const mixed = { ...windowed, layer_types: ["full_attention", "sliding_attention"] };
    expect(() => languageConfigOf(mixed)).toThrow(/layer_types: sliding_attention/);
    const { rms_norm_eps: _, num_key_value_heads: __, ...silent } = shared;
    const moe = { ...silent, model_type: "mixtral", num_local_experts: 2 };
    expect(languageConfigOf(moe)).toMatchObject({ eps: 1e-5, kvHeads: 8, rope: { theta: 1e6 } });
    const { experts } = languageConfigOf({ ...moe, output_router_logits: true });
    expect(experts).toMatchObject({ balance: "all", balanceWeight: 0.001 });
    const loose = { ...shared, rope_theta: "10000" };
    expect(() => languageConfigOf(loose)).toThrow(/rope_theta: a number, got "10000"/);
    expect(() => languageConfigOf({ ...shared, attention_bias: "no" })).toThrow(/true or false/);
    expect(() => languageConfigOf({ ...shared, hidden_act: "snake" })).toThrow(/silu.*"snake"/);
    expect(() => languageConfigOf({ ...shared, rope_scaling: { type: "ntk" } })).toThrow(
      /got "ntk"/,
    );
    // Phi-3 says the original length beside the factors, and "su" for longrope.
    const su = { type: "su", short_factor: [1], long_factor: [2] };
    const phi = { ...shared, original_max_position_embeddings: 32, partial_rotary_factor: 0.5 };
    expect(languageConfigOf({ ...phi, rope_scaling: su }).rope).toMatchObject({
      ...{ type: "longrope", originalMaxPositions: 32, partialRotaryFactor: 0.5 },
      ...{ shortFactor: [1], longFactor: [2] },
    });
    const long = languageConfigOf({ ...phi, rope_scaling: su });
    expect(languageConfigOf(huggingFaceConfigOf(long)).rope).toEqual(long.rope);
    expect(() => languageConfigOf({ ...phi, rope_scaling: { type: "su" } })).toThrow(
      /short_factor: a list/,
    );
  });

  test("losses that the library lacks are no part of its config.json", () => {
    const experts = { count: 2, balance: "all", balanceWeight: 0.01 } as const;
    const of = (config: object) => () => huggingFaceConfigOf({ ...tiny, qkNorm: false, ...config });
    expect(of({ experts })()).toMatchObject({ output_router_logits: true, router_aux_loss_coef: 0.01 }); // biome-ignore format: one line
    expect(of({ experts: { ...experts, balance: "first" } })).toThrow(/first choices/);
    expect(of({ experts: { count: 2 } })).toThrow(/first choices/);
    expect(of({ experts: { count: 2, balanceWeight: 0 } })).not.toThrow();
    expect(of({ experts: { ...experts, zWeight: 0.001 } })).toThrow(/z-loss/);
    expect(of({ zLoss: 1e-4 })).toThrow(/z-loss/);
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
    const factors = {
      shortFactor: [1, 2, 3, 4],
      longFactor: [4, 5, 6, 7],
      originalMaxPositions: 8,
    };
    const longrope = { type: "longrope", factor: undefined, ...factors };
    near(turns(longrope).frequencies, plain.map((f, i) => f / (i + 1))); // biome-ignore format: one line
    near(turns(longrope, 9).frequencies, plain.map((f, i) => f / (i + 4))); // biome-ignore format: one line
    // 16 positions of 8: √(1 + ln 2 / ln 8).
    expect(turns(longrope).amplitude).toBeCloseTo(Math.sqrt(4 / 3), 12);
    expect(turns({ ...longrope, factor: 1 }).amplitude).toBe(1);
    expect(() => turns({ ...longrope, longFactor: [1] })).toThrow(/4 factors.*got 1/);
    // Half of the eight channels turn, as a head of four would.
    const half = turns({ type: "linear", partialRotaryFactor: 0.5 });
    near(half.frequencies, [1 / 4, 1 / 40]);
    expect(half.width).toBe(4);
    expect(() => turns({ partialRotaryFactor: 0.4 })).toThrow(/even number of a head's 8 channels/);
  });
});
