/**
 * @file The vision transformer: positions on other grids, chosen layers, pooling, images of other
 * sizes, files.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { init, manualSeed, randn, scaledDotProductAttention, type Tensor, tensor } from "hinode";
import {
  clipVisionConfig,
  clipVisionJson,
  loadViT,
  loadWeights,
  loadWeightsFile,
  PatchEmbedding,
  resizePositions,
  resizeViT,
  saveViT,
  sinCosPositions,
  storedWeights,
  timmConfigOf,
  timmNames,
  ViT,
  ViTClassifier,
  type ViTConfig,
  vitConfigOf,
  vitJson,
  vitNames,
} from "hinode/models";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { devices } from "../support/devices.ts";

const config: ViTConfig = {
  ...{ imageSize: 8, patchSize: 2, channels: 1, width: 8, depth: 2, heads: 2, hidden: 12 },
};
const folder = mkdtempSync(join(tmpdir(), "hinode-vit-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const close = { rtol: 1e-4, atol: 1e-5 };
const same = async (a: Tensor, b: Tensor) => {
  expect(a.shape).toEqual(b.shape);
  expect(difference(await a.data(), await b.data(), close)).toBeNull();
};

describe.each(devices)("ViT on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
    manualSeed(8);
  });

  // Computed with PyTorch's interpolate on this grid, with and without antialias.
  const grid = [1, 2, 4, 8, 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8];
  const smaller = [1.197655, 2.636014, 5.683221, 4.474167, 4.063953, 2.981291, 5.116993, 4.407812, 6.84474]; // biome-ignore format: one line
  const plain = [1.278863, 2.650355, 6.536345, 4.419127, 4.219727, 2.617479, 4.876938, 3.864259, 7.340459]; // biome-ignore format: one line
  const larger = [0.789647, 1.318112, 2.316277, 3.522905, 6.475232, 8.753982];

  test("positions follow the grid; the rows ahead of it stay", async () => {
    const rows = tensor([-7, ...grid]).reshape([17, 1]);
    const resized = async (to: [number, number], antialias?: boolean) => [
      ...(await resizePositions(rows, [4, 4], to, { antialias }).data()),
    ];
    expect(difference(await resized([3, 3]), [-7, ...smaller], close)).toBeNull();
    expect(difference(await resized([3, 3], false), [-7, ...plain], close)).toBeNull();
    expect(difference((await resized([6, 6])).slice(1, 7), larger, close)).toBeNull();
    expect(resizePositions(rows, [4, 4], [4, 4])).toBe(rows);
    expect(() => resizePositions(rows, [5, 4], [4, 4])).toThrow(/\[k \+ 5 · 4, D\].*\[17, 1\]/);
  });

  test("sines and cosines: half the channels are of the column, half of the row", async () => {
    const got = (await sinCosPositions([2, 3], 8, { classToken: true }).tolist()) as number[][];
    const of = (p: number) => [Math.sin(p), Math.sin(p / 100), Math.cos(p), Math.cos(p / 100)];
    const want = [0, 1].flatMap((row) => [0, 1, 2].map((column) => [...of(column), ...of(row)]));
    expect(difference(got.flat(), [Array(8).fill(0), ...want].flat(2), close)).toBeNull();
    expect(() => sinCosPositions([2, 3], 6)).toThrow(/divisible by 4/);
    const embed = new PatchEmbedding({ ...config, positions: "sincos" });
    expect([...embed.namedTensors()].map(([name]) => name)).not.toContain("positions");
  });

  test("a chosen layer, with or without the class token", async () => {
    const vit = new ViT(clipVisionConfig(config));
    const images = randn([2, 1, 8, 8]);
    const states = vit.hiddenStates(images);
    expect(states.map((s) => s.shape)).toEqual(Array(3).fill([2, 17, 8]));
    await same(vit.features(images, { layer: -2 }), states[1].narrow(1, 1, 16));
    await same(vit.features(images, { layer: 2, classToken: true }), states[2]);
    await same(vit.features(images), vit.forward(images).narrow(1, 1, 16));
    expect(() => vit.features(images, { layer: 3 })).toThrow(/3 hidden states, got 3/);
    expect(vit.embed.projection.bias).toBeNull();
  });

  test("images of other sizes only where they are asked for, and wide ones", async () => {
    const vit = new ViT({ ...config, classToken: true });
    const wide = randn([1, 1, 6, 13]);
    expect(() => vit.forward(wide)).toThrow(/\[B, 1, 8, 8\], got \[1, 1, 6, 13\]/);
    expect(() => vit.forward(randn([1, 2, 8, 8]), { interpolate: true })).toThrow(/\[B, 1, ≥ 2/);
    const got = vit.forward(wide, { interpolate: true });
    expect(got.shape).toEqual([1, 1 + 3 * 6, 8]);
    // As a convolution: no window for the last column of pixels.
    const cut = resizeViT(vit, [6, 12]);
    expect(cut.grid).toEqual([3, 6]);
    await same(cut.forward(wide.narrow(3, 0, 12)), got);
    expect(cut.embed.positions!.requiresGrad).toBe(true);
    expect(cut.blocks).toBe(vit.blocks);
  });

  test("sines and cosines are made for the grid of the image", async () => {
    const vit = new ViT({ ...config, depth: 0, positions: "sincos", finalNorm: false });
    const image = randn([1, 1, 4, 8]);
    const patches = vit.embed.projection.forward(
      image.reshape([1, 1, 2, 2, 4, 2]).permute([0, 2, 4, 1, 3, 5]).reshape([1, 8, 4]),
    );
    const got = vit.forward(image, { interpolate: true });
    await same(got, patches.add(sinCosPositions([2, 4], 8)));
  });

  test("pooling: the class token, or the patches without it", async () => {
    const images = randn([2, 1, 8, 8]);
    const tokens = randn([2, 17, 8]);
    const t = (await tokens.tolist()) as number[][][];
    const pools = {
      token: (rows: number[]) => rows[0],
      avg: (rows: number[]) => rows.slice(1).reduce((a, b) => a + b) / 16,
      max: (rows: number[]) => Math.max(...rows.slice(1)),
      avgmax: (rows: number[]) => (pools.avg(rows) + pools.max(rows)) / 2,
    };
    for (const [pool, f] of Object.entries(pools)) {
      const arguments_ = { img_size: 8, patch_size: 2, in_chans: 1, embed_dim: 8, depth: 1, num_heads: 2, mlp_ratio: 1.6, num_classes: 3, global_pool: pool }; // biome-ignore format: one line
      const model = new ViTClassifier(timmConfigOf(arguments_));
      // timm norms what it has pooled, or all tokens, never both.
      expect([model.vit.norm === null, model.poolNorm === null]).toEqual(
        pool === "token" ? [false, true] : [true, false],
      );
      const pooled = tensor(t.map((rows) => rows[0].map((_, d) => f(rows.map((row) => row[d]))))); // [2, 8]
      await same(model.classify(tokens), model.head.forward(model.poolNorm?.forward(pooled) ?? pooled)); // biome-ignore format: one line
      expect(model.forward(images).shape).toEqual([2, 3]);
      expect(model.vit.config.hidden).toBe(12);
    }
    for (const [more, expected] of [
      [{ patch_dropout: 0 }, /patch_dropout: no such setting/],
      [{ drop_path_rate: 0.1 }, /drop_path_rate: 0, got 0.1/],
      [{ scale_attn_norm: true }, /scale_attn_norm: false/],
      [{ norm_layer: "rmsnorm" }, /norm_layer: layernorm/],
      [{ global_pool: "prr" }, /global_pool: token, avg/],
      [{ pos_embed: "rope" }, /pos_embed: learn or none/],
    ] as const)
      expect(() => timmConfigOf(more)).toThrow(expected);
    // Neither norm is there without the final one.
    const bare = new ViTClassifier(timmConfigOf({ img_size: 8, patch_size: 4, embed_dim: 8, depth: 0, num_heads: 2, final_norm: false, global_pool: "avg" })); // biome-ignore format: one line
    expect([bare.vit.norm, bare.poolNorm]).toEqual([null, null]);
    expect(() => new ViTClassifier({ ...config, classes: 2 })).toThrow(/classToken: true/);
  });

  // Of these parts SwiftShader would compile shaders for long, and none has a kernel of its own.
  test.skipIf(device === "webgpu")(
    "registers, norms of queries and keys, LayerScale, a query that pools",
    async () => {
      const extra = { reg_tokens: 2, qk_norm: true, init_values: 0.5, no_embed_class: true };
      const json = { img_size: 8, patch_size: 4, in_chans: 1, embed_dim: 8, depth: 1, num_heads: 2, mlp_ratio: 1, num_classes: 3, global_pool: "map", ...extra }; // biome-ignore format: one line
      const model = new ViTClassifier(timmConfigOf(json));
      const { vit, attentionPool: pool } = model;
      const images = randn([2, 1, 8, 8]);
      const rows = (t: Tensor, ...shape: number[]) => t.unsqueeze(0).expand([2, ...shape]);
      const x = vit.embed.forward(images);
      expect(x.shape).toEqual([2, 1 + 2 + 4, 8]);
      await same(x.narrow(1, 1, 2), rows(vit.embed.registers!, 2, 8));
      const without = { ...vit.config, registers: 0, classToken: false };
      const patches = new PatchEmbedding(without);
      Object.assign(patches, { projection: vit.embed.projection, positions: vit.embed.positions });
      await same(x.narrow(1, 3, 4), patches.forward(images));

      const [block] = vit.blocks;
      const { qkv, out, qNorm, kNorm } = block.attention;
      const heads = (t: Tensor) => t.reshape([2, 7, 2, 4]).transpose(1, 2);
      const [q, k, v] = qkv!.forward(block.norm1.forward(x)).split(8, -1).map(heads);
      const seen = scaledDotProductAttention(qNorm!.forward(q), kNorm!.forward(k), v);
      const y = x.add(out.forward(seen.transpose(1, 2).reshape([2, 7, 8])).mul(0.5));
      const want = y.add(block.feedForward.forward(block.norm2.forward(y)).mul(0.5));
      await same(vit.hiddenStates(images)[1], want);

      // The pool sees patches alone.
      const { attention, latent } = pool!;
      const tokens = vit.normalize(want).narrow(1, 3, 4);
      const pooled = attention.forward(rows(latent, 1, 8), tokens, tokens);
      const sum = pooled.add(pool!.mlp.forward(pool!.norm.forward(pooled))).select(1, 0);
      await same(model.forward(images), model.head.forward(sum));
      const names = storedWeights(timmNames(model));
      expect(names.reg_token.shape).toEqual([1, 2, 8]);
      expect(names.pos_embed.shape).toEqual([1, 4, 8]);
      expect(names["attn_pool.kv.weight"].shape).toEqual([16, 8]);
      expect(names["blocks.0.attn.k_norm.bias"].shape).toEqual([4]);
      await same(names["blocks.0.ls2.gamma"] as Tensor, tensor(Array(8).fill(0.5)));

      const all = new ViTClassifier(timmConfigOf({ ...json, global_pool: "avg", pos_embed: "none", pool_include_prefix: true, fc_norm: false })); // biome-ignore format: one line
      expect(all.vit.embed.positions).toBeNull();
      await same(all.classify(x), all.head.forward(x.mean(1)));
      expect(() => clipVisionJson(vit.config)).toThrow(/a model that the library has/);
    },
  );

  // Names and files are the same on every device.
  test.skipIf(device === "webgpu")(
    "the same weights under the names of timm and of the Hugging Face library",
    async () => {
      const json = { image_size: 8, patch_size: 2, num_channels: 1, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 12, num_labels: 3, qkv_bias: false, hidden_act: "gelu_new" }; // biome-ignore format: one line
      const [a, b] = [new ViTClassifier(vitConfigOf(json)), new ViTClassifier(vitConfigOf(json))];
      const names = [...vitNames(a).keys()];
      expect(names).toContain("vit.encoder.layer.0.attention.attention.query.weight");
      expect(names.filter((name) => /query|key|value/.test(name))).toHaveLength(3);
      const timm = storedWeights(timmNames(a));
      expect(timm["blocks.0.attn.qkv.weight"].shape).toEqual([24, 8]);
      expect(timm.pos_embed.shape).toEqual([1, 17, 8]);
      await loadWeights(timmNames(b), timm);
      const images = randn([2, 1, 8, 8]);
      await same(a.forward(images), b.forward(images));
      await saveViT(folder, a);
      const loaded = await loadViT(folder);
      await same(a.forward(images), loaded.forward(images));
      expect([loaded.vit.config.antialias, loaded.vit.config.qkvBias]).toEqual([false, false]);
      const other = (config: object) => () =>
        vitJson(new ViTClassifier({ ...vitConfigOf(json), ...config }));
      expect(vitConfigOf(other({ antialias: true })()).antialias).toBe(true);
      expect(vitConfigOf(other({ antialias: undefined })()).antialias).toBe(true);
      for (const [
        name,
        value,
      ] of Object.entries({ headDim: 8, patchNorm: true, finalNorm: false, preNorm: true, bias: false })) // biome-ignore format: a table
        expect(other({ [name]: value }), name).toThrow(new RegExp(`with its .*${name}`));
      expect(other({ headDim: 4 })).not.toThrow();
      expect(() => vitConfigOf({ ...json, qkv_bias: "no" })).toThrow(/true or false, got "no"/);
      // Halves are asked for twice: of the model, and as a loss of digits.
      const half = new ViTClassifier(vitConfigOf(json)).to("bf16");
      await expect(loadWeightsFile(folder, vitNames(half))).rejects.toThrow(
        /expected bf16.*got f32/,
      );
      await loadWeightsFile(folder, vitNames(half), { round: true });
      await same(half.head.weight, a.head.weight.to("bf16"));
      expect(() => vitConfigOf({ ...json, hidden_dropout_prob: 0.1 })).toThrow(
        /hidden_dropout_prob/,
      );
      expect(() => vitConfigOf({ ...json, hidden_act: "snake" })).toThrow(/quick_gelu.*"snake"/);
    },
  );
});
