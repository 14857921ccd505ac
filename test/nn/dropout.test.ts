/** @file The dropout family: what is dropped together, what is kept in the mean, evaluation. */
import { compile, manualSeed, nn, ones, randn, type Tensor } from "hinode";
import { beforeAll, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

onEachDevice("dropout", () => {
  beforeAll(() => {
    manualSeed(51);
  });

  const channelwise: [string, nn.Layer, number[], count: number][] = [
    ["Dropout1d of [N, C, L]", new nn.Dropout1d(0.5), [8, 20, 3], 160],
    ["Dropout1d of [C, L]", new nn.Dropout1d(0.5), [160, 3], 160],
    ["Dropout2d of [N, C, H, W]", new nn.Dropout2d(0.5), [8, 20, 2, 2], 160],
    ["Dropout2d of [N, C, L]", new nn.Dropout2d(0.5), [8, 20, 2], 160],
    ["Dropout3d of [N, C, D, H, W]", new nn.Dropout3d(0.5), [8, 20, 2, 1, 2], 160],
    ["Dropout3d of [C, D, H, W]", new nn.Dropout3d(0.5), [160, 2, 1, 2], 160],
    ["DropPath of [N, T, D]", new nn.DropPath(0.5), [160, 2, 3], 160],
  ];
  test.each(channelwise)("%s drops whole ones", async (_, layer, shape, count) => {
    const rows = (await layer.forward(ones(shape)).reshape([count, -1]).tolist()) as number[][];
    for (const row of rows) expect(new Set(row).size).toBe(1);
    const kept = rows.filter((row) => row[0] === 2).length;
    expect(rows.every((row) => row[0] === 0 || row[0] === 2)).toBe(true);
    expect(Math.abs(kept - count / 2)).toBeLessThan(5 * Math.sqrt(count / 4)); // 5σ
  });

  test("AlphaDropout keeps mean 0 and variance 1, and has two values for one", async () => {
    const n = 20_000;
    const y = Array.from(await new nn.AlphaDropout(0.3).forward(randn([n])).data());
    const mean = y.reduce((a, b) => a + b, 0) / n;
    const variance = y.reduce((a, b) => a + (b - mean) ** 2, 0) / n;
    expect(Math.abs(mean)).toBeLessThan(5 / Math.sqrt(n));
    expect(Math.abs(variance - 1)).toBeLessThan(5 * Math.sqrt(3 / n));
    const [p, limit] = [0.3, -1.7580993408473766];
    const a = 1 / Math.sqrt((limit ** 2 * p + 1) * (1 - p));
    const values = await new nn.AlphaDropout(p).forward(ones([200])).data();
    const [dropped, kept] = [...new Set(values)].sort((u, v) => u - v);
    expect(dropped).toBeCloseTo(a * (limit - limit * p), 5);
    expect(kept).toBeCloseTo(a * (1 - limit * p), 5);
    const features = new nn.FeatureAlphaDropout(0.5).forward(ones([2, 30, 4]));
    const rows = (await features.reshape([60, 4]).tolist()) as number[][];
    for (const row of rows) expect(new Set(row).size).toBe(1);
    expect(new Set(rows.flat()).size).toBe(2);
  });

  test("all are the identity in evaluation, and zeros for p = 1", async () => {
    const x = ones([2, 3, 4]);
    for (const layer of [
      new nn.Dropout(1),
      new nn.Dropout1d(1),
      new nn.AlphaDropout(1),
      new nn.FeatureAlphaDropout(1),
      new nn.DropPath(1),
    ]) {
      expect(await layer.forward(x).data()).toEqual(new Float32Array(24));
      expect(layer.eval().forward(x)).toBe(x);
    }
    expect(() => new nn.Dropout2d().forward(ones([3, 4]))).toThrow(/3 or 4 axes/);
    expect(() => new nn.AlphaDropout(-1)).toThrow(/AlphaDropout.*0 … 1/);
    expect(String(new nn.DropPath(0.1, { scaleByKeep: false }))).toBe(
      "DropPath(p=0.1, scaleByKeep=false)",
    );
  });

  test("a compiled step draws anew at each call", async () => {
    const layer = new nn.DropPath(0.5, { scaleByKeep: false });
    const forward = compile((x: Tensor) => layer.forward(x));
    const [a, b] = [await forward(ones([64])).data(), await forward(ones([64])).data()];
    expect(a).not.toEqual(b);
    expect([...new Set([...a, ...b])].sort()).toEqual([0, 1]);
  });
});
