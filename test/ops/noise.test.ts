/**
 * @file Functions with noise: what is dropped and what remains, and their moments, from a fixed
 * seed; with pools by p-norm and other layouts, the rest of torch.nn.functional.
 */
import * as h from "hinode";
import { Generator, type Tensor, tensor } from "hinode";
import { expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";
import { build, expectGradients, expectTensor, make } from "./support.ts";

const on = () => ({ training: true, generator: new Generator(7) });

onEachDevice("functions with noise", (device) => {
  test("whole channels are dropped or doubled", async () => {
    for (const [f, shape] of [
      [h.dropout1d, [8, 2]],
      [h.dropout2d, [4, 8, 1, 2]],
      [h.dropout3d, [8, 1, 1, 2]],
    ] as const) {
      // biome-ignore format: cases
      const y = f(h.ones(shape), 0.5, on()).flatten(0, -2);
      const [first, last] = [y.select(1, 0), y.select(1, 1)];
      expect(await first.eq(last).all().item()).toBe(true);
      const kinds = new Set((await first.tolist()) as number[]);
      expect([...kinds].sort()).toEqual([0, 2]);
    }
    const x = h.ones([2, 3, 4]);
    expect(h.dropout1d(x, 0.5, { training: false })).toBe(x);
    expect(() => h.dropout3d(x)).toThrow(/4 or 5 axes/);
  });

  test("alphaDropout keeps mean 0 and variance 1", async () => {
    const n = 1 << 12;
    const x = h.randn([n], { generator: new Generator(3) });
    const y = h.alphaDropout(x, 0.3, on());
    // Six standard errors of a mean and of a variance (of kurtosis below 4).
    expect(Math.abs((await y.mean().item()) as number)).toBeLessThan(6 / Math.sqrt(n));
    expect(Math.abs(((await y.var().item()) as number) - 1)).toBeLessThan(6 * Math.sqrt(3 / n));
    expect(h.alphaDropout(x)).toBe(x);
    const rows = h.featureAlphaDropout(h.zeros([4, 4, 2]), 0.5, on());
    expect(await rows.select(2, 0).eq(rows.select(2, 1)).all().item()).toBe(true);
  });

  test("rrelu draws slopes in training and takes their mean otherwise", async () => {
    const y = (await h
      .rrelu(h.full([64], -1), { lower: 0.2, upper: 0.4, ...on() })
      .tolist()) as number[];
    expect(Math.max(...y)).toBeLessThanOrEqual(-0.2);
    expect(Math.min(...y)).toBeGreaterThanOrEqual(-0.4);
    expect(new Set(y).size).toBeGreaterThan(32);
    await expectTensor(
      h.rrelu(tensor([-1, 2]), { lower: 0.2, upper: 0.4 }),
      { shape: [2], data: [-0.3, 2] },
      { rtol: 1e-6 },
    );
  });

  test("gumbelSoftmax samples its distribution; hard samples have the soft gradient", async () => {
    const n = 4096;
    const p = [0.1, 0.2, 0.7];
    const logits = tensor(p.map(Math.log)).expand([n, 3]);
    const samples = h.gumbelSoftmax(logits, { hard: true, generator: new Generator(5) });
    expect(await samples.sum(1).sub(1).abs().amax().item()).toBeLessThan(1e-6);
    const found = (await samples.mean(0).tolist()) as number[];
    for (const [k, q] of p.entries())
      expect(Math.abs(found[k] - q)).toBeLessThan(6 * Math.sqrt((q * (1 - q)) / n));
    const loss = (hard: boolean) => (x: Tensor) =>
      h
        .gumbelSoftmax(x, { hard, dim: 0, tau: 0.5, generator: new Generator(5) })
        .mul(tensor([1, 2, 3]))
        .sum();
    const x = tensor([0.1, 0.2, 0.3]);
    const want = h.grad(loss(false))(x);
    await expectTensor(
      h.grad(loss(true))(x),
      { shape: [3], data: [...(await want.data())] },
      { rtol: 1e-5, atol: 1e-6 },
    );
  });

  test("p-norms over windows, also where they are 0", async () => {
    const x = tensor([[[3, 4, 0, 0, 1]]]);
    await expectTensor(h.lpPool1d(x, 2, 2), { shape: [1, 1, 2], data: [5, 0] }, { atol: 1e-6 });
    await expectTensor(
      h.lpPool1d(x, 1, 3, { stride: 1 }),
      { shape: [1, 1, 3], data: [7, 4, 1] },
      { atol: 1e-6 },
    );
    const slope = h.grad((t: Tensor) => h.lpPool1d(t, 2, 2).sum())(x);
    await expectTensor(slope, { shape: [1, 1, 5], data: [0.6, 0.8, 0, 0, 0] }, { atol: 1e-6 });
    const y = build([1, 2, 3, 3], ([, c, i, j]) => 1 + c + 0.5 * i + 0.25 * j);
    const want = build(
      [1, 2, 1, 1],
      ([, c]) =>
        [0, 1]
          .flatMap((i) => [0, 1].map((j) => (1 + c + 0.5 * i + 0.25 * j) ** 3))
          .reduce((a, b) => a + b) **
        (1 / 3),
    );
    await expectTensor(h.lpPool2d(make(y), 3, 2), want, { rtol: 1e-5 });
    if (device !== "webgpu") await expectGradients((t) => h.lpPool2d(t, 3, 2, { stride: 1 }), [y]);
    expect(h.lpPool3d(h.ones([1, 1, 2, 2, 2]), 2, 2).shape).toEqual([1, 1, 1, 1, 1]);
  });

  test("bins in three dimensions, shuffled channels, time in front", async () => {
    const x = h.arange(8).float().reshape([1, 2, 2, 2]);
    await expectTensor(h.adaptiveAvgPool3d(x, [1, 2, 1]), {
      shape: [1, 1, 2, 1],
      data: [2.5, 4.5],
    });
    await expectTensor(h.adaptiveMaxPool3d(x, [null, 1, 1]), { shape: [1, 2, 1, 1], data: [3, 7] });
    const shuffled = h.channelShuffle(h.arange(6).reshape([1, 6, 1]), 2);
    expect(await shuffled.flatten().tolist()).toEqual([0, 3, 1, 4, 2, 5]);
    const [t, w] = [
      build([4, 2, 2], ([i, n, c]) => i + 2 * n - c),
      build([2, 2, 3], ([k, i, o]) => k - i + o),
    ];
    const want = build([3, 2, 3], ([i, n, o]) =>
      [0, 1]
        .flatMap((k) => [0, 1].map((c) => (i + k + 2 * n - c) * (k - c + o)))
        .reduce((a, b) => a + b, 10),
    );
    await expectTensor(h.convTbc(make(t), make(w), h.full([3], 10)), want, { rtol: 1e-5 });
  });

  test("uniqueConsecutive keeps the order", async () => {
    const { values, inverse, counts } = await h.uniqueConsecutive(tensor([[1, 1, 2], [2, 1, 3]])); // biome-ignore format: rows
    expect(await values.tolist()).toEqual([1, 2, 1, 3]);
    expect(await inverse.tolist()).toEqual([[0, 0, 1], [1, 2, 3]]); // biome-ignore format: rows
    expect(await counts.tolist()).toEqual([2, 2, 1, 1]);
  });
});
