import * as h from "hinode";
import { ArgumentError, Generator, type Tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { threefry2x32 } from "../../core/math.ts";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const moments = (x: ArrayLike<number>): [mean: number, std: number] => {
  const list = Array.from(x);
  const mean = list.reduce((s, v) => s + v, 0) / list.length;
  return [mean, Math.sqrt(list.reduce((s, v) => s + (v - mean) ** 2, 0) / list.length)];
};

onEachDevice("randomness", () => {
  test("uniforms are the upper 24 bits of Threefry, exactly", async () => {
    const seed = 2 ** 40 + 12345;
    const generator = new Generator(seed);
    const first = await h.rand([7], { generator }).data();
    const second = await h.rand([2, 2], { generator }).data();
    const want = (n: number, counter: number) =>
      Array.from(
        { length: n },
        (_, i) => (threefry2x32(12345, 2 ** 8, i, counter) >>> 8) * 2 ** -24,
      );
    expect([...first]).toEqual(want(7, 0));
    expect([...second]).toEqual(want(4, 1));
  });

  test("like another tensor: its shape and dtype, the draws of that shape", async () => {
    const x = h.zeros([2, 3], { dtype: "f16" });
    for (const [like, plain] of [
      [h.randLike, h.rand],
      [h.randnLike, h.randn],
    ] as const) {
      const [a, b] = [new Generator(5), new Generator(5)];
      const drawn = like(x, { generator: a });
      expect([drawn.dtype, drawn.shape]).toEqual(["f16", [2, 3]]);
      const wanted = plain([2, 3], { dtype: "f16", generator: b });
      expect(await drawn.tolist()).toEqual(await wanted.tolist());
      expect(like(x, { dtype: "f32" }).dtype).toBe("f32");
    }
    const dice = h.randintLike(h.zeros([50], { dtype: "i32" }), 1, 7);
    expect(dice.dtype).toBe("i32");
    for (const eyes of await dice.data()) expect([1, 2, 3, 4, 5, 6]).toContain(eyes);
  });

  test("a seed repeats, a state continues", async () => {
    h.manualSeed(3);
    const a = await h.randn([5]).tolist();
    const state = h.defaultGenerator.state;
    const b = await h.randn([5]).tolist();
    h.manualSeed(3);
    expect(await h.randn([5]).tolist()).toEqual(a);
    h.defaultGenerator.state = state;
    expect(await h.randn([5]).tolist()).toEqual(b);
    expect(a).not.toEqual(b);
    expect(() => h.manualSeed(-1)).toThrow(ArgumentError);
    expect(() => h.manualSeed(0.5)).toThrow(ArgumentError);
  });

  test("the same tensor read twice is the same", async () => {
    const x = h.rand([3]);
    expect(await x.add(0).tolist()).toEqual(await x.tolist());
    expect(await x.sub(x).tolist()).toEqual([0, 0, 0]);
  });

  test("distributions have their moments", async () => {
    h.manualSeed(1);
    const check = async (x: Tensor, mean: number, std: number) => {
      const [m, s] = moments(await x.data());
      expect(Math.abs(m - mean)).toBeLessThan(0.03 * Math.max(std, 0.3));
      expect(Math.abs(s - std)).toBeLessThan(0.03 * std);
    };
    await check(h.rand([200, 200]), 0.5, Math.sqrt(1 / 12));
    await check(h.randn([40000]), 0, 1);
    await check(h.normal([40000], 3, 2), 3, 2);
    await check(h.uniform([40000], -1, 3), 1, 4 * Math.sqrt(1 / 12));
    await check(h.randint(-2, 3, [40000]).float(), 0, Math.sqrt(2));
    await check(h.bernoulli(h.full([40000], 0.3)), 0.3, Math.sqrt(0.21));
    for (const v of await h.randn([40000]).data()) expect(Number.isFinite(v)).toBe(true);
  });

  test("ranges are half open", async () => {
    h.manualSeed(2);
    const ints = h.randint(-2, 3, [2000]);
    expect([ints.dtype, [...new Set(await ints.data())].sort((a, b) => a - b)]).toEqual([
      "i32",
      [-2, -1, 0, 1, 2],
    ]);
    for (const v of await h.rand([5000]).data()) expect(v >= 0 && v < 1).toBe(true);
    expect(h.randint(0, 5, [2], { dtype: "u8" }).dtype).toBe("u8");
    expect(() => h.randint(3, 3, [1])).toThrow(ArgumentError);
    expect(
      await h
        .randint(-(2 ** 31), 2 ** 31 - 1, [100])
        .data()
        .then((d) => d.some((v) => v < 0)),
    ).toBe(true);
  });

  test("normals follow their distribution function", async () => {
    h.manualSeed(4);
    const x = [...(await h.randn([20000]).data())].sort((a, b) => a - b);
    // Quantiles of the standard normal distribution.
    const quantiles: [number, number][] = [
      [0.1, -1.2816],
      [0.25, -0.6745],
      [0.5, 0],
      [0.9, 1.2816],
      [0.99, 2.3263],
    ];
    for (const [p, z] of quantiles)
      expect(Math.abs(x[Math.floor(p * x.length)] - z)).toBeLessThan(0.08);
  });

  describe("dropout", () => {
    test("keeps the mean, and is the identity outside of training", async () => {
      h.manualSeed(5);
      const x = h.ones([20000]);
      const y = await h.dropout(x, 0.25).data();
      expect([...new Set(y)].sort()).toEqual([0, Math.fround(1 / 0.75)]);
      expect(Math.abs(moments(y)[0] - 1)).toBeLessThan(0.02);
      expect(x.dropout(0.5, { training: false })).toBe(x);
      expect(x.dropout(0)).toBe(x);
      expect(await h.ones([3]).dropout(1).tolist()).toEqual([0, 0, 0]);
      expect(() => x.dropout(1.5)).toThrow(ArgumentError);
    });
    test("backward sees the same mask", async () => {
      const x = h.ones([50], { requiresGrad: true });
      const y = x.dropout(0.5);
      y.sum().backward();
      expect(await x.grad!.tolist()).toEqual(await y.tolist());
    });
  });

  test("a compiled function draws anew at each call, like the eager one", async () => {
    const f = (x: Tensor) => x.add(h.rand([3]));
    const compiled = h.compile(f);
    const zero = h.tensor([0, 0, 0]);
    h.manualSeed(7);
    const eager = [await f(zero).tolist(), await f(zero).tolist(), await f(zero).tolist()];
    h.manualSeed(7);
    const got = [
      await compiled(zero).tolist(),
      await compiled(zero).tolist(),
      await compiled(zero).tolist(),
    ];
    expect(got).toEqual(eager);
    expect(got[1]).not.toEqual(got[0]);
  });

  test("also inside vmap, scan and checkpoint", async () => {
    const functions: Record<string, (x: Tensor) => Tensor> = {
      vmap: h.vmap((x: Tensor) => x.add(h.rand([2])), { randomness: "different" }),
      scan: (x) => h.scan((c: Tensor, y: Tensor) => [c, y.add(h.rand([2]))], h.tensor(0), x)[1],
      checkpoint: h.checkpoint((x: Tensor) => x.dropout(0.5)),
    };
    for (const [name, f] of Object.entries(functions)) {
      const x = h.ones([4, 2]);
      const compiled = h.compile((y: Tensor) => f(y));
      h.manualSeed(8);
      const eager = [await f(x).data(), await f(x).data(), await f(x).data()];
      h.manualSeed(8);
      for (const [i, want] of eager.entries())
        expect(
          difference(await compiled(x).data(), want, { rtol: 0, atol: 0 }),
          `${name}, call ${i}`,
        ).toBeNull();
      expect(eager[0], name).not.toEqual(eager[1]);
    }
  });
});
