import fc from "fast-check";
import * as h from "hinode";
import { type DType, ShapeError, type Tensor, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import {
  arrays,
  at,
  build,
  close,
  expectGradients,
  expectTensor,
  fullShapes,
  make,
  numel,
  type Plain,
  positions,
  runs,
  shapes,
  values,
} from "./support.ts";

/** An array, some of its axes (maybe none: all), and keepdim. */
const cases = (shape: fc.Arbitrary<readonly number[]> = shapes, value = values.f32) =>
  arrays(value, shape).chain((a) =>
    fc.tuple(fc.constant(a), fc.subarray([...a.shape.keys()]), fc.boolean()),
  );

function reduceBy(
  a: Plain,
  dims: readonly number[],
  keepdim: boolean,
  f: (list: number[]) => number,
): Plain {
  const axes = dims.length === 0 ? [...a.shape.keys()] : dims;
  const keptShape = a.shape.map((d, i) => (axes.includes(i) ? 1 : d));
  const inner = a.shape.map((d, i) => (axes.includes(i) ? d : 1));
  const full = build(keptShape, (i) =>
    f(
      [...positions(inner)].map((j) =>
        at(
          a,
          i.map((v, k) => v + j[k]),
        ),
      ),
    ),
  );
  return {
    shape: keepdim ? keptShape : a.shape.filter((_, i) => !axes.includes(i)),
    data: full.data,
  };
}

const total = (list: number[]) => list.reduce((s, v) => s + v, 0);
const average = (list: number[]) => total(list) / list.length;
const spread = (correction: number) => (list: number[]) =>
  total(list.map((v) => (v - average(list)) ** 2)) / Math.max(list.length - correction, 0);
const logsumexp = (list: number[]) => {
  const m = Math.max(...list);
  return list.length === 0 ? -Infinity : m + Math.log(total(list.map((v) => Math.exp(v - m))));
};

type Reduce = (x: Tensor, dim: number[], keepdim: boolean) => Tensor;
const reductions: Record<string, [Reduce, (list: number[]) => number, "full"?]> = {
  sum: [h.sum, total],
  mean: [h.mean, average],
  prod: [h.prod, (l) => l.reduce((p, v) => p * v, 1)],
  amax: [h.amax, (l) => Math.max(...l), "full"],
  amin: [h.amin, (l) => Math.min(...l), "full"],
  variance: [(x, d, k) => h.variance(x, d, { keepdim: k }), spread(1), "full"],
  "variance, biased": [
    (x, d, k) => h.variance(x, d, { keepdim: k, correction: 0 }),
    spread(0),
    "full",
  ],
  std: [(x, d, k) => h.std(x, d, { keepdim: k }), (l) => Math.sqrt(spread(1)(l)), "full"],
  logsumexp: [h.logsumexp, logsumexp],
  norm: [(x, d, k) => h.norm(x, 2, d, k), (l) => Math.sqrt(total(l.map((v) => v * v)))],
  "1-norm": [(x, d, k) => h.norm(x, 1, d, k), (l) => total(l.map(Math.abs))],
  "3-norm": [
    (x, d, k) => h.norm(x, 3, d, k),
    (l) => Math.cbrt(total(l.map((v) => Math.abs(v) ** 3))),
  ],
  all: [h.all, (l) => Number(l.every((v) => v !== 0))],
  any: [h.any, (l) => Number(l.some((v) => v !== 0))],
};

onEachDevice("reductions", () => {
  test.for(Object.entries(reductions))("%s over any axes", async ([, [ours, theirs, full]]) => {
    await fc.assert(
      fc.asyncProperty(cases(full ? fullShapes : shapes), ([a, dims, keepdim]) =>
        expectTensor(ours(make(a), dims, keepdim), reduceBy(a, dims, keepdim, theirs), {
          rtol: 2e-5,
          atol: 2e-5,
        }),
      ),
      runs,
    );
  });

  test("argmax and argmin find the first", async () => {
    const few = fc.integer({ min: -2, max: 2 });
    await fc.assert(
      fc.asyncProperty(
        arrays(
          few,
          fullShapes.filter((s) => s.length > 0),
        ).chain((a) => fc.tuple(fc.constant(a), fc.nat(a.shape.length - 1))),
        fc.constantFrom<DType>("f32", "i32", "i8"),
        async ([a, axis], dtype) => {
          const x = make(a, dtype);
          for (const [ours, pick] of [
            [h.argmax, Math.max],
            [h.argmin, Math.min],
          ] as const) {
            const first = (l: number[]) => l.indexOf(pick(...l));
            await expectTensor(ours(x, axis, true), reduceBy(a, [axis], true, first), {}, "i32");
            await expectTensor(ours(x), { shape: [], data: [first([...a.data])] });
            const both = (ours === h.argmax ? h.max : h.min)(x, axis);
            await expectTensor(
              both.values,
              reduceBy(a, [axis], false, (l) => pick(...l)),
              {},
              dtype,
            );
            await expectTensor(both.indices, reduceBy(a, [axis], false, first));
          }
        },
      ),
      runs,
    );
    expect(await tensor([0, 255, 0], { dtype: "u8" }).argmin().item()).toBe(0);
    expect(await tensor([5, -2147483648], { dtype: "i32" }).argmin().item()).toBe(1);
    expect(await tensor([1, NaN, 3, NaN]).argmax().item()).toBe(1);
    expect(await tensor([1, NaN, 3, NaN]).argmin().item()).toBe(1);
    expect(await tensor([false, true]).argmax().item()).toBe(1);
  });

  test("small integers and bools are summed in i32", async () => {
    expect(await tensor([200, 100], { dtype: "u8" }).sum().item()).toBe(300);
    expect(await tensor([100, 100], { dtype: "i8" }).prod().item()).toBe(10000);
    const count = tensor([true, false, true]).sum();
    expect([count.dtype, await count.item()]).toEqual(["i32", 2]);
    expect(
      await tensor([
        [1, 0],
        [2, 3],
      ])
        .countNonzero(0)
        .tolist(),
    ).toEqual([2, 1]);
    expect(tensor([1], { dtype: "u32" }).sum().dtype).toBe("u32");
    expect(
      await tensor([[true], [false]])
        .amax(1)
        .tolist(),
    ).toEqual([true, false]);
  });

  test("reductions of nothing", async () => {
    const none = h.zeros([2, 0]);
    expect(await none.sum(1).tolist()).toEqual([0, 0]);
    expect(await none.prod().item()).toBe(1);
    expect(await none.mean().item()).toBeNaN();
    expect(await none.all().item()).toBe(true);
    expect(await none.any().item()).toBe(false);
    expect(await none.logsumexp(1).tolist()).toEqual([-Infinity, -Infinity]);
    expect(none.amax(0).shape).toEqual([0]);
    expect(() => none.amax()).toThrow(ShapeError);
    expect(() => none.argmax()).toThrow(ShapeError);
  });

  test("NaN and infinities", async () => {
    const x = tensor([
      [1, NaN, 3],
      [Infinity, 0, -Infinity],
    ]);
    expect(await x.amax(1).tolist()).toEqual([NaN, Infinity]);
    expect(await x.amin(1).tolist()).toEqual([NaN, -Infinity]);
    expect(await x.sum(1).tolist()).toEqual([NaN, NaN]);
    const rows = tensor([
      [-Infinity, -Infinity],
      [Infinity, 1],
      [1000, 1000],
    ]);
    const lse = (await rows.logsumexp(1).tolist()) as number[];
    expect(lse.slice(0, 2)).toEqual([-Infinity, Infinity]);
    expect(lse[2]).toBeCloseTo(1000 + Math.log(2), 3);
    expect(await x.isnan().any().item()).toBe(true);
  });

  test("variance is two-pass", async () => {
    const x = tensor([10000.5, 10001.5, 10002.5, 9999.5]);
    expect((await x.variance().item()) as number).toBeCloseTo(5 / 3, 4);
    expect(await tensor([5]).var().item()).toBeNaN();
    const [v, m] = tensor([
      [1, 3],
      [2, 6],
    ]).varMean(1);
    expect([await v.tolist(), await m.tolist()]).toEqual([
      [2, 8],
      [2, 4],
    ]);
  });

  test("axes: negative, 0-d, and what is refused", async () => {
    const x = h.ones([2, 3]);
    expect(x.sum(-1).shape).toEqual([2]);
    expect(x.sum([]).shape).toEqual([]);
    expect(await tensor(3).sum(0).item()).toBe(3);
    expect(await tensor(3).mean(-1).item()).toBe(3);
    expect(() => x.sum(2)).toThrow(/sum: expected a dim within -2 … 1, got 2/);
    expect(() => x.sum([0, -2])).toThrow(/distinct dims/);
    expect(() => tensor([1, 2]).int().mean()).toThrow(/\.float\(\)/);
  });

  describe("gradients", () => {
    const x: Plain = { shape: [2, 3], data: [0.3, -0.7, 1.4, 2.2, -1.9, 0.9] };
    test.for(Object.entries(reductions).filter(([n]) => n !== "all" && n !== "any"))(
      "%s",
      async ([, [ours]]) => {
        await expectGradients((t) => ours(t, [1], false), [x]);
        await expectGradients((t) => ours(t, [], true), [x], { step: 3e-3, tolerance: 3e-2 });
      },
    );
    test("ties share, max with a dim takes the first", async () => {
      const t = tensor([[1, 1, 0]]);
      expect(
        await h
          .grad((y: Tensor) => y.amax())(t)
          .tolist(),
      ).toEqual([[0.5, 0.5, 0]]);
      expect(
        await h
          .grad((y: Tensor) => y.max(1).values.sum())(t)
          .tolist(),
      ).toEqual([[1, 0, 0]]);
    });
    test("norm and std at 0 have the gradient 0", async () => {
      const zero = h.zeros([3]);
      expect(
        await h
          .grad((y: Tensor) => y.norm())(zero)
          .tolist(),
      ).toEqual([0, 0, 0]);
      expect(
        await h
          .grad((y: Tensor) => y.std())(h.ones([3]))
          .tolist(),
      ).toEqual([0, 0, 0]);
    });
    test("prod with zeros", async () => {
      const g = h.grad((y: Tensor) => y.prod());
      expect(await g(tensor([2, 0, 3])).tolist()).toEqual([0, 6, 0]);
      expect(await g(tensor([2, 0, 0])).tolist()).toEqual([0, 0, 0]);
    });
  });

  describe("softmax and normalisation", () => {
    const rows = arrays(
      values.f32,
      fullShapes.filter((s) => s.length > 0),
    ).chain((a) => fc.tuple(fc.constant(a), fc.nat(a.shape.length - 1)));
    const alongAxis = (a: Plain, axis: number, f: (list: number[], v: number) => number): Plain =>
      build(a.shape, (i) => {
        const list = Array.from({ length: a.shape[axis] }, (_, k) =>
          at(
            a,
            i.map((v, j) => (j === axis ? k : v)),
          ),
        );
        return f(list, at(a, i));
      });

    test("softmax and logSoftmax", async () => {
      await fc.assert(
        fc.asyncProperty(rows, async ([a, axis]) => {
          const log = (l: number[], v: number) => v - logsumexp(l);
          await expectTensor(
            make(a).softmax(axis),
            alongAxis(a, axis, (l, v) => Math.exp(log(l, v))),
            close,
          );
          await expectTensor(make(a).logSoftmax(axis), alongAxis(a, axis, log), {
            rtol: 1e-5,
            atol: 1e-5,
          });
        }),
        runs,
      );
      const large = tensor([[1e4, 1e4 - 1, -1e4]]);
      expect((await large.softmax(-1).data())[0]).toBeCloseTo(1 / (1 + Math.exp(-1)), 5);
      expect((await large.logSoftmax(-1).data())[2]).toBeCloseTo(-20000.3133, 1);
      expect(await tensor(3).softmax(0).item()).toBe(1);
      expect(h.zeros([0, 3]).softmax(-1).shape).toEqual([0, 3]);
      expect(
        await tensor([[1, -Infinity]])
          .softmax(1)
          .tolist(),
      ).toEqual([[1, 0]]);
    });

    test("layerNorm and rmsNorm", async () => {
      const scaled = (l: number[], v: number) => (v - average(l)) / Math.sqrt(spread(0)(l) + 1e-5);
      const rms = (l: number[], v: number) =>
        v / Math.sqrt(average(l.map((u) => u * u)) + 2 ** -23);
      await fc.assert(
        fc.asyncProperty(rows, async ([a]) => {
          const last = a.shape.length - 1;
          const width = a.shape[last];
          const weight = tensor(Array.from({ length: width }, (_, i) => 1 + i / 4));
          const apply = (f: typeof scaled, bias: number): Plain => {
            const n = alongAxis(a, last, f);
            return build(a.shape, (i) => at(n, i) * (1 + i[last] / 4) + bias);
          };
          const tolerance = { rtol: 1e-3, atol: 2e-3 };
          const bias = h.full([width], 0.5);
          await expectTensor(
            h.layerNorm(make(a), width, weight, bias),
            apply(scaled, 0.5),
            tolerance,
          );
          await expectTensor(h.rmsNorm(make(a), [width], weight), apply(rms, 0), tolerance);
        }),
        numRuns(12),
      );
      const x = h.arange(24).float().reshape([2, 3, 4]);
      const whole = x.layerNorm([3, 4]);
      expect((await whole.mean([1, 2]).data())[0]).toBeCloseTo(0, 5);
      expect(() => x.layerNorm([3])).toThrow(/layerNorm: expected an input of shape \[\*, 3\]/);
      expect(() => x.layerNorm(4, h.ones([3]))).toThrow(/weight of shape \[4\]/);
    });

    test("gradients", async () => {
      const x: Plain = { shape: [2, 4], data: [0.3, -0.7, 1.4, 2.2, -1.9, 0.9, 0.1, -0.4] };
      const w: Plain = { shape: [4], data: [1.2, 0.7, -0.4, 1] };
      await expectGradients((t) => t.softmax(1), [x]);
      await expectGradients((t) => t.logSoftmax(0), [x]);
      await expectGradients((t, a, b) => t.layerNorm([4], a, b), [x, w, w]);
      await expectGradients((t, a) => t.rmsNorm([4], a), [x, w]);
      await expectGradients((t) => t.normalize(2, 1), [x]);
    });
  });

  test("sums of many elements", async () => {
    expect(await h.ones([3, 50000]).sum(1).tolist()).toEqual([50000, 50000, 50000]);
    expect(numel([50000])).toBe(50000);
  });

  // Integers, so that the sums are exact in whatever order; more rows than two levels of blocks hold.
  test.each([
    [600, 200],
    [16500, 33],
    [300, 2100],
  ])("sums down the columns of %i × %i, beside the values", async (rows, columns) => {
    const value = (i: number, j: number): number => ((7 * i + 3 * j) % 11) - 5;
    const x: Plain = build([rows, columns], ([i, j]) => value(i, j));
    const sums = h.compile((t: Tensor) => {
      const doubled = t.mul(2);
      return [doubled, doubled.sum(0), t.mul(doubled).sum(0), t.to("i32").sum(0)];
    });
    const [doubled, ...found] = await Promise.all(sums(make(x)).map((t) => t.data()));
    expect(doubled).toEqual(Float32Array.from(x.data, (v) => 2 * v));
    const terms = [(v: number) => 2 * v, (v: number) => 2 * v * v, (v: number) => v];
    for (const [k, term] of terms.entries()) {
      const column = (j: number): number => {
        let sum = 0;
        for (let i = 0; i < rows; i++) sum += term(value(i, j));
        return sum;
      };
      expect([...found[k]]).toEqual(Array.from({ length: columns }, (_, j) => column(j)));
    }
  });
});
