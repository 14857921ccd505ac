import fc from "fast-check";
import * as h from "hinode";
import { type Tensor, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";
import {
  arrays,
  broadcasting,
  close,
  expectGradients,
  expectTensor,
  make,
  map1,
  map2,
  runs,
  values,
} from "./support.ts";

/** log |Γ| and its derivative in float64, by Stirling's series after moving the argument up to 25. */
function lgamma(x: number): number {
  if (x < 0.5) return Math.log(Math.PI / Math.abs(Math.sin(Math.PI * x))) - lgamma(1 - x);
  let [z, shift] = [x, 0];
  for (; z < 25; z++) shift += Math.log(z);
  const r = 1 / (z * z);
  return (
    (z - 0.5) * Math.log(z) -
    z +
    Math.log(2 * Math.PI) / 2 +
    (1 / 12 - r * (1 / 360 - r / 1260)) / z -
    shift
  );
}
function digamma(x: number): number {
  if (x < 0) return digamma(1 - x) - Math.PI / Math.tan(Math.PI * x);
  let [z, sum] = [x, 0];
  for (; z < 25; z++) sum += 1 / z;
  const r = 1 / (z * z);
  return Math.log(z) - 0.5 / z - r * (1 / 12 - r * (1 / 120 - r / 252)) - sum;
}

const unary: Record<
  string,
  [f: (x: Tensor) => Tensor, reference: (x: number) => number, low: number, high: number]
> = {
  asin: [h.asin, Math.asin, -1, 1],
  acos: [h.acos, Math.acos, -1, 1],
  atan: [h.atan, Math.atan, -50, 50],
  asinh: [h.asinh, Math.asinh, -1e6, 1e6],
  acosh: [h.acosh, Math.acosh, 1, 1e6],
  atanh: [h.atanh, Math.atanh, -0.999, 0.999],
  sinc: [h.sinc, (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x)), -3, 3],
  lgamma: [h.lgamma, lgamma, 0.01, 40],
  digamma: [h.digamma, digamma, 0.05, 40],
  softsign: [h.softsign, (x) => x / (1 + Math.abs(x)), -9, 9],
  selu: [
    h.selu,
    (x) => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x)),
    -9,
    9,
  ],
  celu: [(x) => h.celu(x, 2), (x) => (x > 0 ? x : 2 * Math.expm1(x / 2)), -9, 9],
  softshrink: [h.softshrink, (x) => (x > 0.5 ? x - 0.5 : x < -0.5 ? x + 0.5 : 0), -3, 3],
  hardshrink: [h.hardshrink, (x) => (Math.abs(x) <= 0.5 ? 0 : x), -3, 3],
  tanhshrink: [h.tanhshrink, (x) => x - Math.tanh(x), -9, 9],
};

onEachDevice("special functions", () => {
  test.for(Object.entries(unary))("%s", async ([, [ours, theirs, min, max]]) => {
    const value = fc.double({ min, max, noNaN: true }).map(Math.fround);
    await fc.assert(
      fc.asyncProperty(arrays(value), (a) => expectTensor(ours(make(a)), map1(a, theirs), close)),
      runs,
    );
  });

  test.for(Object.entries(unary))(
    "%s: gradient, and forward mode agrees",
    async ([, [ours, , low, high]]) => {
      const [a, b] = [Math.max(low, -4), Math.min(high, 4)];
      const data = [0.13, 0.31, 0.47, 0.62, 0.88].map((t) => Math.fround(a + t * (b - a)));
      await expectGradients(ours, [{ shape: [5], data }], { step: 1e-3 });
      const x = tensor(data);
      const [, forward] = h.jvp(ours, [x], [h.onesLike(x)]) as [Tensor, Tensor];
      const backward = h.grad((t: Tensor) => ours(t).sum())(x) as Tensor;
      await expectTensor(
        forward,
        { shape: [5], data: [...(await backward.data())] },
        { rtol: 1e-5, atol: 1e-6 },
      );
    },
  );

  test("erfinv inverts erf, erfc keeps its tail", async () => {
    const value = fc.double({ min: -2.5, max: 2.5, noNaN: true }).map(Math.fround);
    await fc.assert(
      fc.asyncProperty(arrays(value), (a) =>
        expectTensor(h.erfinv(make(a).erf()), a, { rtol: 2e-3, atol: 1e-6 }),
      ),
      runs,
    );
    // erfc(5), erfc(9), from tables.
    const tail = await h.erfc(tensor([5, 9, -5])).data();
    expect(tail[0] / 1.5374597944280349e-12).toBeCloseTo(1, 4);
    expect(tail[1] / 4.1370317465138e-37).toBeCloseTo(1, 4);
    expect(tail[2]).toBe(2);
  });

  test("lgamma and digamma below zero and at their poles", async () => {
    const x = [-0.5, -1.5, -2.25, -6.7];
    await expectTensor(
      h.lgamma(tensor(x)),
      { shape: [4], data: x.map(lgamma) },
      { rtol: 2e-6, atol: 2e-6 },
    );
    await expectTensor(
      h.digamma(tensor(x)),
      { shape: [4], data: x.map(digamma) },
      { rtol: 1e-5, atol: 3e-6 },
    );
    expect(await h.lgamma(tensor([0, -3, Infinity, -Infinity])).tolist()).toEqual(
      Array(4).fill(Infinity),
    );
    expect(await h.digamma(tensor([0, -3, Infinity])).tolist()).toEqual([-Infinity, NaN, Infinity]);
  });

  const binary: Record<
    string,
    [f: (a: Tensor, b: Tensor) => Tensor, g: (a: number, b: number) => number]
  > = {
    atan2: [h.atan2, Math.atan2],
    hypot: [h.hypot, Math.hypot],
    logaddexp: [h.logaddexp, (a, b) => Math.log(Math.exp(a) + Math.exp(b))],
    logaddexp2: [h.logaddexp2, (a, b) => Math.log2(2 ** a + 2 ** b)],
    copysign: [h.copysign, (a, b) => (b < 0 || Object.is(b, -0) ? -Math.abs(a) : Math.abs(a))],
    fmax: [h.fmax, Math.max],
    fmin: [h.fmin, Math.min],
  };
  test.for(Object.entries(binary))("%s", async ([, [ours, theirs]]) => {
    await fc.assert(
      fc.asyncProperty(broadcasting(values.f32), ([a, b]) =>
        expectTensor(ours(make(a), make(b)), map2(a, b, theirs), close),
      ),
      runs,
    );
    const [x, y] = [
      { shape: [4], data: [0.7, -1.2, 2.1, -0.4] },
      { shape: [2, 1], data: [1.6, -0.9] },
    ];
    if (ours !== h.copysign) await expectGradients(ours, [x, y], { step: 3e-3 });
  });

  test("nothing overflows where the result is finite", async () => {
    const lengths = h.hypot(tensor([3e38, 0, -Infinity]), tensor([1e38, 0, NaN]));
    await expectTensor(lengths, { shape: [3], data: [Math.hypot(3e38, 1e38), 0, Infinity] }, close);
    const sums = h.logaddexp(
      tensor([1000, -1000, Infinity, -Infinity]),
      tensor([1000, 0, 1, -Infinity]),
    );
    await expectTensor(
      sums,
      { shape: [4], data: [1000 + Math.LN2, 0, Infinity, -Infinity] },
      close,
    );
    expect(await h.xlogy(tensor([0, 0, 2]), tensor([0, Infinity, 1])).tolist()).toEqual([0, 0, 0]);
    expect(await h.fmax(tensor([NaN, 1, NaN]), tensor([1, NaN, NaN])).tolist()).toEqual([
      1,
      1,
      NaN,
    ]);
  });

  test("a zero of hypot and atan2 has the gradient 0", async () => {
    for (const f of [h.hypot, h.atan2]) {
      const g = h.grad((t: Tensor) => f(t, h.zeros([1])).sum());
      expect(await (g(h.zeros([1])) as Tensor).tolist()).toEqual([0]);
    }
  });

  test("nanToNum, nansum, nanmean", async () => {
    const x = tensor([1, NaN, Infinity, -Infinity]);
    expect(await x.nanToNum({ nan: 5, posinf: 6 }).tolist()).toEqual([
      1, 5, 6, -3.4028234663852886e38,
    ]);
    expect(await tensor([[1, NaN], [NaN, NaN]]).nansum(1).tolist()).toEqual([1, 0]); // biome-ignore format: rows
    expect(
      await tensor([[1, NaN, 3]])
        .nanmean(-1, true)
        .tolist(),
    ).toEqual([[2]]);
    const i = tensor([1, 2], { dtype: "i32" });
    expect(i.nanToNum()).toBe(i);
  });

  test("isclose and allclose", async () => {
    const [a, b] = [tensor([1, 1, Infinity, NaN]), tensor([1.000001, 1.1, Infinity, NaN])];
    expect(await h.isclose(a, b).tolist()).toEqual([true, false, true, false]);
    expect(await h.isclose(a, b, { equalNan: true, rtol: 0.2 }).tolist()).toEqual([
      true,
      true,
      true,
      true,
    ]);
    expect(await h.allclose(a, a)).toBe(false);
    expect(await a.allclose(a, { equalNan: true })).toBe(true);
  });

  describe("gates", () => {
    test("glu, softmin, prelu, threshold", async () => {
      const x = tensor([[1, -2, 0, 0]]);
      expect(await h.glu(x).tolist()).toEqual([[0.5, -1]]);
      expect(() => h.glu(x, 0)).toThrow(/an even size/);
      await expectTensor(h.softmin(x, 1), {
        shape: [1, 4],
        data: [...(await x.neg().softmax(1).data())],
      });
      expect(await h.prelu(x, tensor([1, 10, 1, 1])).tolist()).toEqual([[1, -20, 0, 0]]);
      expect(() => h.prelu(x, h.ones([3]))).toThrow(/per channel/);
      expect(await x.threshold(0, 7).tolist()).toEqual([[1, 7, 7, 7]]);
    });
  });
});
