/** @file AIM: who sees whom, what is predicted from where, the probe, and the published sizes. */
import { grad, init, manualSeed, randn, type Tensor, tensor, zeros } from "hinode";
import {
  Aim,
  AimClassifier,
  aimClassifierConfigOf,
  aimClassifierNames,
  aimConfig,
  aimConfigOf,
  aimHead,
  aimProbeLayers,
  aimSizes,
  aimTrunkConfig,
  loadWeights,
  outsidePrefix,
  PixelHead,
  samplePrefix,
  storedWeights,
  ViT,
} from "hinode/models";
import { type MLP, type Module, optim } from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

/** 3 × 3 patches of 2 × 2 pixels. */
const trunk = aimTrunkConfig({ imageSize: 6, patchSize: 2, channels: 1, width: 8, depth: 2, heads: 2 }); // biome-ignore format: one line
const close = { rtol: 1e-4, atol: 1e-5 };
const parametersOf = (model: Module) =>
  model.parameters().reduce((n, p) => n + p.shape.reduce((a, b) => a * b, 1), 0);

onEachDevice("AIM", (device) => {
  let model: Aim;
  beforeAll(() => {
    manualSeed(2);
    model = new Aim(trunk, { depth: 1, hidden: 8 });
  });

  /** Per patch, whether position k's prediction depends on it. */
  async function reach(k: number, prefix: number): Promise<boolean[]> {
    const outside = outsidePrefix(tensor([prefix], { dtype: "i32" }), 9);
    const gradient = await grad((x: Tensor) => model.forward(x, outside).predicted.select(1, k).square().sum())(randn([1, 1, 6, 6])).data(); // biome-ignore format: one line
    return Array.from({ length: 9 }, (_, p) => {
      const [row, column] = [2 * Math.floor(p / 3), 2 * (p % 3)];
      return [0, 1, 6, 7].some((d) => gradient[row * 6 + column + d] !== 0);
    });
  }

  test("a position sees the prefix, itself and what is before it, so it predicts the next patch", async () => {
    expect(await reach(4, 1)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8].map((p) => p <= 4));
    expect(await reach(1, 5)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8].map((p) => p <= 4));
  });

  test("the loss is of patches outside the prefix, each against the position before it", async () => {
    const images = randn([2, 1, 6, 6]);
    const lengths = [2, 7];
    const outside = outsidePrefix(tensor(lengths, { dtype: "i32" }), 9);
    const pixels = (await images.tolist()) as number[][][][];
    const predicted = (await model.forward(images, outside).predicted.tolist()) as number[][][];
    let [sum, count] = [0, 0];
    for (let b = 0; b < 2; b++)
      for (let p = lengths[b]; p < 9; p++, count++) {
        const patch = [0, 1, 2, 3].map(
          (i) => pixels[b][0][2 * Math.floor(p / 3) + (i >> 1)][2 * (p % 3) + (i & 1)],
        );
        const mean = patch.reduce((a, x) => a + x) / 4;
        const spread = Math.sqrt(patch.reduce((a, x) => a + (x - mean) ** 2, 0) / 3 + 1e-6);
        for (const [i, x] of patch.entries())
          sum += ((x - mean) / spread - predicted[b][p - 1][i]) ** 2 / 4;
      }
    const loss = Number(await model.loss(images, outside).item());
    expect(Math.abs(loss - sum / count)).toBeLessThan(1e-4 * loss);
  });

  test("sampled prefixes leave something to see and something to predict", async () => {
    manualSeed(7);
    const masks = (await samplePrefix(40, 3).tolist()) as boolean[][];
    const kinds = new Set(masks.map((row) => row.map(Number).join("")));
    expect([...kinds].sort()).toEqual(["001", "011"]);
    expect(() => samplePrefix(1, 1)).toThrow(/at least 2 patches/);
    expect(() => model.forward(randn([1, 1, 6, 6]), zeros([1, 9]))).toThrow(/bool\[B, K\]/);
  });

  test.skipIf(device === "webgpu")(
    "the probe trains on batch statistics, judges by running ones, and keeps ml-aim's names",
    async () => {
      manualSeed(4);
      const probe = new AimClassifier(trunk, { classes: 3, layers: [1], queries: 2 });
      const images = randn([4, 1, 6, 6]);
      const classes = tensor([0, 2, 1, 2], { dtype: "i32" });
      const adamw = new optim.AdamW(probe.head.parameters(), { lr: 0.05 });
      const losses: number[] = [];
      for (let i = 0; i < 3; i++) {
        const loss = probe.loss(images, classes);
        adamw.zeroGrad();
        loss.backward();
        adamw.step();
        losses.push(Number(await loss.item()));
      }
      expect(losses[2]).toBeLessThan(losses[0]);
      probe.eval();
      const whole = await probe.forward(images).data();
      const one = await probe.forward(images.narrow(0, 0, 1)).data();
      expect(difference(one, whole.slice(0, 3), close)).toBeNull();

      const stored = storedWeights(aimClassifierNames(probe));
      expect(stored["head.cls_token"].shape).toEqual([1, 2, 8]);
      expect(stored["trunk.blocks.1.attn.qkv.weight"].shape).toEqual([24, 8]);
      const loaded = new AimClassifier(trunk, { classes: 3, layers: [1], queries: 2 });
      const count = tensor(3, { dtype: "i32" });
      await loadWeights(aimClassifierNames(loaded), {
        ...stored,
        "head.bn.num_batches_tracked": count,
      });
      expect(difference(await loaded.eval().forward(images).data(), whole, close)).toBeNull();
    },
  );
});

describe("sizes", () => {
  beforeAll(async () => {
    await init({ device: "wasm" });
  });

  test("parameters of the published trunks, without making them", () => {
    const counts = aimSizes.map((size) => {
      const { width: d, depth } = aimConfig(size);
      const count = parametersOf(new ViT(aimConfig(size)));
      // Blocks of 12 d² and two norms; a patch projection with bias, its norm; the final norm.
      expect(count).toBe(depth * (12 * d * d + 4 * d) + 588 * d + d + 2 * d + 2 * d);
      return (count / 1e9).toFixed(3);
    });
    expect(counts).toEqual(["0.681", "1.209", "2.720", "6.445"]);
    expect(parametersOf(new PixelHead(1536, 588, 1e-6, aimHead))).toBe(
      1536 * 2048 + 12 * (8 * 2048 * 2048 + 2 * 2048) + 2 * 2048 + 2048 * 588,
    );
    expect(aimProbeLayers("7B")).toEqual([14, 15, 16, 17, 18, 19]);
    expect(aimProbeLayers("3B", "last")).toEqual([18, 19, 20, 21, 22, 23]);
  });

  test("ml-aim's arguments, with its defaults", async () => {
    const json = { img_size: [8, 11], patch_size: 4, embed_dim: 8, num_blocks: 3, num_heads: 2 };
    const plain = { imageSize: [8, 11], channels: 3, hidden: 32, eps: 1e-6, bias: false, qkvBias: false, finalNorm: true }; // biome-ignore format: one line
    expect(aimConfigOf(json)).toMatchObject(plain);
    const more = { use_bias: true, mlp_ratio: 1.3, num_channels: 1, layer_norm_eps: 1e-5 };
    // Biases everywhere but to queries, keys and values.
    const { attention, feedForward } = new ViT(aimConfigOf({ ...json, ...more })).blocks[0];
    expect([attention.qkv!.bias, attention.out.bias?.shape]).toEqual([null, [8]]);
    expect((feedForward as MLP).up.outFeatures).toBe(10);
    const { trunk: read, probe } = aimClassifierConfigOf({ ...json, probe_layers: 2, num_classes: 4 }); // biome-ignore format: one line
    expect([read.depth, probe]).toEqual([3, { classes: 4, layers: [1, 2] }]);
    expect(aimClassifierConfigOf({ ...json, probe_layers: [0, 2] }).probe.layers).toEqual([0, 2]);
    expect(() => aimConfigOf({ ...json, cls_token: true })).toThrow(/cls_token: no such setting/);
    expect(() => aimConfigOf({ ...json, embed_dim: undefined })).toThrow(/embed_dim: a number/);
    const probe_ = (more: object) => () => aimClassifierConfigOf({ ...json, ...more });
    // Six layers unless said otherwise: more than there are.
    expect(probe_({})).toThrow(/probe_layers \(6 unless given\): 1 … 3 layers, got 6/);
    expect(probe_({ probe_layers: 0 })).toThrow(/1 … 3 layers, got 0/);
    expect(probe_({ probe_layers: ["a"] })).toThrow(/a list of numbers/);
    expect(probe_({ probe_layers: 2, num_classes: "4" })).toThrow(/num_classes: a number/);
    expect(() => aimConfigOf({ ...json, img_size: undefined })).toThrow(/img_size: a number/);
    expect(() => aimConfigOf({ ...json, img_size: "8" })).toThrow(/img_size: a number, got "8"/);
    expect(() => aimConfigOf({ ...json, ffn_dropout_rate: 0.1 })).toThrow(/ffn_dropout_rate: 0/);
    // Columns that no patch covers are no part of the targets.
    const wide = new Aim(aimConfigOf(json), { depth: 0 });
    const image = randn([1, 3, 8, 11]);
    const targets = await wide.targets(image).data();
    const square = new Aim(aimConfigOf({ ...json, img_size: 8 }), { depth: 0 });
    expect(targets).toEqual(await square.targets(image.narrow(3, 0, 8)).data());
  });

  test("what is not there is refused", () => {
    expect(() => aimConfig("2B" as "3B")).toThrow(/600M, 1B, 3B, 7B, got "2B"/);
    expect(() => new Aim({ ...trunk, classToken: true })).toThrow(/without a class token/);
    expect(() => new AimClassifier(trunk, { classes: 2, layers: [2] })).toThrow(/layers of 0 … 1/);
    expect(() => new AimClassifier(trunk, { classes: 2, heads: 3 })).toThrow(/8 \/ 3/);
    expect(new AimClassifier(trunk, { classes: 2 }).layers).toEqual([0, 1]);
  });
});
