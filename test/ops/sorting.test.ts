/** @file Operators along lines: running combinations, sorting, searching, drawing positions. */
import fc from "fast-check";
import * as h from "hinode";
import { type Tensor, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";
import { arrays, build, expectGradients, fullShapes, runs, values } from "./support.ts";

const both = async ({ values, indices }: { values: Tensor; indices: Tensor }) => [
  await values.tolist(),
  await indices.tolist(),
];

onEachDevice("running combinations", () => {
  test("sums and products widen small integers", async () => {
    const x = tensor([true, true, false, true]);
    expect(await x.cumsum(0).tolist()).toEqual([1, 2, 2, 3]);
    expect(x.cumsum(0).dtype).toBe("i32");
    const y = tensor([200, 100, 2], { dtype: "u8" });
    expect(await y.cumsum(0).tolist()).toEqual([200, 300, 302]);
    expect(await y.cumprod(-1).tolist()).toEqual([200, 20000, 40000]);
    expect(await tensor(5).cumsum(0).item()).toBe(5);
    expect(h.zeros([0, 3]).cumsum(0).shape).toEqual([0, 3]);
    expect(() => y.cumsum(1)).toThrow(h.ArgumentError);
  });

  test("extrema give the last position, NaN wins", async () => {
    const x = tensor([1, 3, 3, 2, NaN, 7]);
    expect(await both(x.cummax(0))).toEqual([
      [1, 3, 3, 3, NaN, NaN],
      [0, 1, 2, 2, 4, 4],
    ]);
    expect(await both(tensor([2, 2, 1, 4], { dtype: "i32" }).cummin(0))).toEqual([
      [2, 2, 1, 1],
      [0, 1, 2, 2],
    ]);
    expect(await both(tensor([false, true, false]).cummax(0))).toEqual([
      [false, true, true],
      [0, 1, 1],
    ]);
  });

  test("log Σ eˣ neither overflows nor forgets small first elements", async () => {
    const x = tensor([-Infinity, -1000, -1000, 0, 1000, 1000, Infinity, 3]);
    const got = (await x.logcumsumexp(0).tolist()) as number[];
    const want = [-Infinity, -1000, -1000 + Math.LN2, 0, 1000, 1000 + Math.LN2, Infinity, Infinity];
    for (const [i, w] of want.entries())
      if (Number.isFinite(w)) expect(got[i]).toBeCloseTo(w, 3);
      else expect(got[i]).toBe(w);
    expect(Number.isNaN(await tensor([1, NaN, 1]).logcumsumexp(0).select(0, 2).item())).toBe(true);
  });

  test("a product's gradient where factors are 0, twice", async () => {
    const x = tensor([2, 0, 3, 0, 5], { requiresGrad: true });
    x.cumprod(0).sum().backward();
    // d/dx₁ (x₀ + x₀x₁ + x₀x₁x₂ + …) = 2 + 6 + 0; beyond the second zero only what stands before both counts.
    expect(await x.grad!.tolist()).toEqual([1, 8, 0, 0, 0]);
    const second = h.hessian((t: Tensor) => t.cumprod(0).sum())(tensor([2, 0, 3, 0, 5])) as Tensor;
    // ∂²/∂x₁∂x₃ of x₀x₁x₂x₃ (1 + x₄)
    expect(((await second.tolist()) as number[][])[1][3]).toBe(2 * 3 * (1 + 5));
  });
});

onEachDevice("sorting", () => {
  test("any axis, both directions, as a stable sort of each line", async () => {
    await fc.assert(
      fc.asyncProperty(
        arrays(
          values.i32.map((v) => v % 5),
          fullShapes.filter((s) => s.length > 0),
        ),
        fc.nat(),
        fc.boolean(),
        async ({ shape, data }, at, descending) => {
          const dim = at % shape.length;
          const x = tensor(data, { shape, dtype: "i32" });
          const { values: sorted, indices } = x.sort({ dim, descending });
          expect(await x.gather(dim, indices).tolist()).toEqual(await sorted.tolist());
          const lines = (t: Tensor) => t.movedim(dim, -1).reshape([-1, shape[dim]]).tolist();
          const [v, i] = [await lines(sorted), await lines(indices)] as number[][][];
          for (const [l, line] of v.entries())
            for (let j = 1; j < line.length; j++) {
              const step = descending ? line[j - 1] - line[j] : line[j] - line[j - 1];
              expect(step > 0 || (step === 0 && i[l][j] > i[l][j - 1])).toBe(true);
            }
        },
      ),
      runs,
    );
  });

  test("NaN is the largest", async () => {
    const x = tensor([NaN, 1, -Infinity, Infinity, NaN]);
    expect(await x.argsort().tolist()).toEqual([2, 1, 3, 0, 4]);
    expect(await x.argsort({ descending: true }).tolist()).toEqual([0, 4, 3, 1, 2]);
    expect(await tensor(3).sort().values.item()).toBe(3);
    expect(await x.topk(2).indices.tolist()).toEqual([0, 4]);
  });

  test("topk, kthvalue, msort, median, quantile", async () => {
    const x = tensor([
      [3, 1, 2, 5],
      [4, 8, 6, 7],
    ]);
    expect(await both(x.topk(2))).toEqual([
      [
        [5, 3],
        [8, 7],
      ],
      [
        [3, 0],
        [1, 3],
      ],
    ]);
    expect(await both(x.topk(1, 0, false))).toEqual([[[3, 1, 2, 5]], [[0, 0, 0, 0]]]);
    expect(() => x.topk(5)).toThrow(h.ArgumentError);
    expect(await both(x.kthvalue(2))).toEqual([
      [2, 6],
      [2, 2],
    ]);
    expect(x.kthvalue(1, 0, true).values.shape).toEqual([1, 4]);
    expect(await x.T.msort().tolist()).toEqual([
      [1, 4],
      [2, 6],
      [3, 7],
      [5, 8],
    ]);
    expect(await both(x.median(1))).toEqual([
      [2, 6],
      [2, 2],
    ]);
    expect(await x.median().item()).toBe(4);
    expect(await x.to("i32").median().item()).toBe(4);
    expect(await x.quantile(0.5).item()).toBe(4.5);
    expect(await x.quantile(0.25, 1).tolist()).toEqual([1.75, 5.5]);
    expect(x.quantile(1, 1, { keepdim: true }).shape).toEqual([2, 1]);
    expect(() => x.quantile(1.5)).toThrow(h.ArgumentError);
  });

  test("a NaN makes medians and quantiles NaN", async () => {
    const x = tensor([1, NaN, 3, NaN]);
    expect(await x.median().item()).toBeNaN();
    expect(await x.quantile(0).item()).toBeNaN();
    expect(await both(x.median(0))).toEqual([NaN, 1]);
  });

  test("the median of all shares its gradient, that along an axis does not", async () => {
    const x = tensor([2, 1, 2, 9], { requiresGrad: true });
    x.median().backward();
    expect(await x.grad!.tolist()).toEqual([0.5, 0, 0.5, 0]);
    x.grad = null;
    x.median(0).values.backward();
    expect(await x.grad!.tolist()).toEqual([1, 0, 0, 0]);
  });

  test("gradients go to where the values came from", async () => {
    // Distinct values, further apart than the step of the differences.
    const x = build([4, 3], ([i, j]) => (((3 * i + j) * 5) % 12) / 4 - 1.3);
    const cases: ((t: Tensor) => Tensor)[] = [
      (t) => t.sort({ dim: 0, descending: true }).values,
      (t) => t.topk(2).values,
      (t) => t.kthvalue(2, 0).values,
      (t) => t.quantile(0.3, 1),
      (t) => t.cumsum(1),
      (t) => t.cumprod(1),
      (t) => t.logcumsumexp(0),
      (t) => t.cummax(1).values,
      (t) => t.cummin(0).values,
    ];
    for (const f of cases) await expectGradients(f, [x]);
  });

  test("inside vmap and compile", async () => {
    const x = tensor([
      [3, 1, 2],
      [9, 7, 8],
    ]);
    const f = h.vmap((t: Tensor) => t.sort().values.cumsum(0));
    const want = [
      [1, 3, 6],
      [7, 15, 24],
    ];
    expect(await (f(x) as Tensor).tolist()).toEqual(want);
    expect(await ((await h.compile(f)(x)) as Tensor).tolist()).toEqual(want);
  });
});

onEachDevice("searching", () => {
  test("before and after equal elements, in short and long sequences", async () => {
    for (const n of [1, 5, 127, 300]) {
      const sorted = Array.from({ length: n }, (_, i) => Math.floor(i / 2));
      const wanted = [-1, 0, 1, 2.5, n / 2, n, NaN];
      const [s, v] = [tensor(sorted), tensor(wanted)];
      const count = (f: (e: number, v: number) => boolean) =>
        wanted.map((x) => (Number.isNaN(x) ? n : sorted.filter((e) => f(e, x)).length));
      expect(await h.searchsorted(s, v).tolist()).toEqual(count((e, x) => e < x));
      expect(await v.bucketize(s, { right: true }).tolist()).toEqual(count((e, x) => e <= x));
    }
    const rows = h.searchsorted(tensor([[1, 2], [5, 6]]), tensor([[2], [2]])); // biome-ignore format: rows
    expect(await rows.tolist()).toEqual([[1], [0]]);
    expect(() => h.searchsorted(h.zeros([2, 3]), h.zeros([3, 3]))).toThrow(h.ShapeError);
  });

  test("nonzero and unique are promises", async () => {
    const x = tensor([
      [0, 3, 0],
      [3, NaN, -1],
    ]);
    expect(await (await x.nonzero()).tolist()).toEqual([
      [0, 1],
      [1, 0],
      [1, 1],
      [1, 2],
    ]);
    expect((await h.zeros([2]).nonzero()).shape).toEqual([0, 1]);
    const { values: v, inverse, counts } = await x.unique();
    expect(await v.tolist()).toEqual([-1, 0, 3, NaN]);
    expect(await counts.tolist()).toEqual([1, 2, 2, 1]);
    expect(await inverse.tolist()).toEqual([
      [1, 2, 1],
      [2, 3, 0],
    ]);
    await expect(
      (async () =>
        await (
          h.compile((t: Tensor) => t.unique() as never) as never as (t: Tensor) => Promise<unknown>
        )(x))(),
    ).rejects.toThrow();
  });
});

onEachDevice("drawing positions", () => {
  const generator = () => new h.Generator(7);
  test("a permutation has every position once", async () => {
    const p = (await h.randperm(1000, { generator: generator() }).tolist()) as number[];
    expect([...p].sort((a, b) => a - b)).toEqual([...p.keys()]);
    expect(p.filter((v, i) => v === i).length).toBeLessThan(10);
    expect(await h.randperm(0).tolist()).toEqual([]);
    expect(() => h.randperm(-1)).toThrow(h.ArgumentError);
  });

  const frequencies = (drawn: readonly number[], n: number): number[] =>
    Array.from({ length: n }, (_, i) => drawn.filter((v) => v === i).length / drawn.length);
  const near = (got: readonly number[], want: readonly number[]) => {
    for (const [i, w] of want.entries()) expect(Math.abs(got[i] - w)).toBeLessThan(0.025);
  };
  const weights = [1, 0, 3, 4, 0, 2, 0];
  const probabilities = weights.map((w) => w / 10);

  test("with replacement each is drawn as often as its weight says", async () => {
    const drawn = tensor(weights).multinomial(4000, true, { generator: generator() });
    near(frequencies((await drawn.tolist()) as number[], 7), probabilities);
    expect(drawn.dtype).toBe("i32");
  });

  test("without replacement positions differ, and weights of 0 come last", async () => {
    const rows = h
      .expand(tensor(weights), [2000, 7])
      .multinomial(4, false, { generator: generator() });
    const list = (await rows.tolist()) as number[][];
    for (const row of list) expect([...row].sort()).toEqual([0, 2, 3, 5]);
    near(frequencies(list.map((r) => r[0]), 7), probabilities); // biome-ignore format: one line
    expect(() => tensor(weights).multinomial(8)).toThrow(h.ArgumentError);
  });

  test("categories from logits", async () => {
    const logits = h.expand(tensor(weights).log(), [4000, 7]);
    const drawn = (await h
      .categorical(logits, -1, { generator: generator() })
      .tolist()) as number[];
    near(frequencies(drawn, 7), probabilities);
  });
});

describe("names", () => {
  test("methods and functions are the same", () => {
    for (const name of ["cumsum", "sort", "topk", "median", "bucketize", "multinomial"] as const)
      expect(typeof h.zeros([1])[name]).toBe("function");
  });
});
