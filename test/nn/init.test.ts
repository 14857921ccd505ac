/** @file Initialisers, and what each layer starts with: PyTorch's distributions, by range and moments. */
import { Generator, manualSeed, nn, type Tensor, zeros } from "hinode";
import { beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice, useDevice } from "../support/devices.ts";

const { init } = nn;

/** Standard deviation of the data, and its largest size. */
async function spread(t: Tensor): Promise<{ mean: number; std: number; largest: number }> {
  const values = Array.from(await t.data());
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const std = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length);
  return { mean, std, largest: values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) };
}

/**
 * 5σ bounds on mean and variance of n samples; the seed is fixed, and so are the bits. Of a uniform distribution the
 * kurtosis is 1.8, of a Gaussian 3.
 */
async function expectUniform(t: Tensor, bound: number): Promise<void> {
  const n = t.shape.reduce((a, b) => a * b, 1);
  const { mean, std, largest } = await spread(t);
  const sigma = bound / Math.sqrt(3);
  expect(largest).toBeLessThanOrEqual(bound * (1 + 1e-6));
  expect(Math.abs(mean)).toBeLessThan((5 * sigma) / Math.sqrt(n));
  expect(Math.abs(std ** 2 / sigma ** 2 - 1)).toBeLessThan(5 * Math.sqrt(0.8 / n));
}

async function expectNormal(t: Tensor, sigma: number): Promise<void> {
  const n = t.shape.reduce((a, b) => a * b, 1);
  const { mean, std } = await spread(t);
  expect(Math.abs(mean)).toBeLessThan((5 * sigma) / Math.sqrt(n));
  expect(Math.abs(std ** 2 / sigma ** 2 - 1)).toBeLessThan(5 * Math.sqrt(2 / n));
}

onEachDevice("initialisers", () => {
  beforeAll(() => {
    manualSeed(11);
  });
  const weight = () => zeros([40, 30, 3]);
  const [fanIn, fanOut] = [90, 120];

  test("they fill in place, also parameters, and return the tensor", async () => {
    const p = nn.parameter(zeros([2, 3]));
    expect(init.constant_(p, 2.5)).toBe(p);
    expect(await p.data()).toEqual(new Float32Array(6).fill(2.5));
    expect(p.requiresGrad).toBe(true);
    expect(await init.ones_(p).data()).toEqual(new Float32Array(6).fill(1));
    expect(await init.zeros_(p).data()).toEqual(new Float32Array(6));
    expect(await init.eye_(p).tolist()).toEqual([
      [1, 0, 0],
      [0, 1, 0],
    ]);
  });

  test("uniform and Gaussian", async () => {
    await expectUniform(init.uniform_(weight(), -2, 2), 2);
    await expectNormal(init.normal_(weight(), 0, 3), 3);
    const generator = () => new Generator(5);
    const same = [0, 0].map(() => init.normal_(zeros([4]), 0, 1, { generator: generator() }));
    expect(await same[0].data()).toEqual(await same[1].data());
  });

  test("xavier and kaiming have PyTorch's variances", async () => {
    const xavier = 2 * Math.sqrt(2 / (fanIn + fanOut));
    await expectUniform(init.xavierUniform_(weight(), { gain: 2 }), Math.sqrt(3) * xavier);
    await expectNormal(init.xavierNormal_(weight(), { gain: 2 }), xavier);
    const he = Math.sqrt(2 / fanIn);
    await expectUniform(init.kaimingUniform_(weight()), Math.sqrt(3) * he);
    await expectUniform(init.kaimingUniform_(weight(), { a: Math.sqrt(5) }), 1 / Math.sqrt(fanIn));
    const back = { mode: "fanOut", nonlinearity: "tanh" } as const;
    await expectNormal(init.kaimingNormal_(weight(), back), 5 / 3 / Math.sqrt(fanOut));
    expect(() => init.xavierUniform_(zeros([3]))).toThrow(/2 … Infinity axes/);
    expect(() => init.kaimingNormal_(weight(), { mode: "fan_in" as "fanIn" })).toThrow(/fanOut/);
  });

  test("truncated normal stays within its bounds and has the variance of what is left", async () => {
    const t = init.truncNormal_(weight(), 0, 2, { a: -2, b: 2 });
    const { mean, std, largest } = await spread(t);
    expect(largest).toBeLessThanOrEqual(2);
    // Cut at ±σ: variance σ²(1 − 2φ(1)/(2Φ(1) − 1)).
    const want = 2 * Math.sqrt(1 - (2 * 0.24197072) / 0.68268949);
    expect(std).toBeCloseTo(want, 1);
    expect(mean).toBeCloseTo(0, 1);
    const above = await init.truncNormal_(zeros([1000]), 0, 1, { a: 1, b: Infinity }).data();
    expect(Math.min(...above)).toBeGreaterThanOrEqual(1);
    expect(() => init.truncNormal_(weight(), 0, 1, { a: 2, b: 1 })).toThrow(/a < b/);
  });

  test("orthogonal rows or columns", async () => {
    for (const shape of [
      [3, 5],
      [5, 3],
      [4, 2, 2],
    ]) {
      const q = init.orthogonal_(zeros(shape), { gain: 2 }).reshape([shape[0], -1]);
      const product = shape[0] <= q.shape[1] ? q.matmul(q.T) : q.T.matmul(q);
      const n = product.shape[0];
      const want = Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 4 : 0));
      expect(difference(await product.data(), want, { rtol: 0, atol: 1e-5 })).toBeNull();
    }
  });

  test("dirac keeps channels, per group", async () => {
    const x = nn.init.uniform_(zeros([1, 4, 5]));
    const conv = new nn.Conv1d(4, 4, 3, { padding: 1, groups: 2, bias: false });
    init.dirac_(conv.weight, 2);
    expect(await conv.forward(x).data()).toEqual(await x.data());
    const plane = await init.dirac_(zeros([3, 2, 2, 3])).data(); // 1 at [o, o, 1, 1]
    expect([...plane].flatMap((v, i) => (v === 1 ? [i] : []))).toEqual([4, 22]);
  });

  test("sparse has the same number of zeros in each column", async () => {
    const values = (await init.sparse_(zeros([10, 6]), 0.25).tolist()) as number[][];
    for (let c = 0; c < 6; c++) expect(values.filter((row) => row[c] === 0).length).toBe(3);
    expect(values.flat().every((v) => Math.abs(v) < 0.06)).toBe(true);
  });

  test("gains", () => {
    expect(init.calculateGain("relu")).toBe(Math.SQRT2);
    expect(init.calculateGain("leakyRelu", Math.sqrt(5))).toBeCloseTo(Math.sqrt(1 / 3), 12);
    expect(() => init.calculateGain("gelu" as "relu")).toThrow(/one of linear/);
  });
});

// Seeds give the same bits on every device.
describe("what layers start with", () => {
  beforeAll(async () => {
    await useDevice("wasm");
    manualSeed(12);
  });
  const fan = (n: number) => 1 / Math.sqrt(n);
  const linear = () => new nn.Linear(100, 60);
  const uniforms: [string, () => { weight: Tensor; bias: Tensor | null }, number][] = [
    ["Linear", linear, fan(100)],
    ["Bilinear", () => new nn.Bilinear(20, 10, 30), fan(20)],
    ["Conv1d", () => new nn.Conv1d(20, 40, 5, { groups: 2 }), fan(50)],
    ["Conv2d", () => new nn.Conv2d(20, 40, [3, 2]), fan(120)],
    ["Conv3d", () => new nn.Conv3d(6, 40, 2), fan(48)],
    // Of a transposed convolution's weight [C, O/groups, K…] it is the second axis, too.
    ["ConvTranspose2d", () => new nn.ConvTranspose2d(20, 40, 3, { groups: 2 }), fan(180)],
  ];
  test.each(uniforms)("%s: uniform", async (_, make, bound) => {
    const layer = make();
    await expectUniform(layer.weight, bound);
    await expectUniform(layer.bias!, bound);
  });

  test("Embedding: Gaussian, padding 0", async () => {
    const layer = new nn.Embedding(100, 30, { paddingIdx: -1 });
    await expectNormal(layer.weight.narrow(0, 0, 99), 1);
    expect(await layer.weight.select(0, 99).data()).toEqual(new Float32Array(30));
  });

  test("MultiheadAttention: xavier inside, Linear's weight outside, biases 0", async () => {
    const layer = new nn.MultiheadAttention(32, 4);
    await expectUniform(layer.qkv!.weight, Math.sqrt(6 / (96 + 32)));
    await expectUniform(layer.out.weight, fan(32));
    for (const bias of [layer.qkv!.bias!, layer.out.bias!])
      expect((await spread(bias)).largest).toBe(0);
  });

  test("norms: 1 and 0", async () => {
    for (const layer of [new nn.BatchNorm2d(3), new nn.GroupNorm(1, 3), new nn.LayerNorm(3)]) {
      expect(await layer.weight!.data()).toEqual(new Float32Array([1, 1, 1]));
      expect(await layer.bias!.data()).toEqual(new Float32Array(3));
    }
    expect(await new nn.PReLU(2).weight.data()).toEqual(new Float32Array([0.25, 0.25]));
  });

  test("Transformer: xavier for all matrices", async () => {
    const options = { numEncoderLayers: 1, numDecoderLayers: 1, dimFeedforward: 40 };
    const model = new nn.Transformer(24, 2, options);
    await expectUniform(model.decoder.layers.at(0).linear1.weight, Math.sqrt(6 / 64));
    await expectUniform(model.encoder.layers.at(0).selfAttn.out.weight, Math.sqrt(6 / 48));
  });
});
