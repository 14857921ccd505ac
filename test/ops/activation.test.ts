import fc from "fast-check";
import * as h from "hinode";
import { type Tensor, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";
import {
  arrays,
  close,
  expectGradients,
  expectTensor,
  make,
  map1,
  type Plain,
  runs,
} from "./support.ts";

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const softplus = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const limit = (x: number, lo: number, hi: number): number => Math.min(Math.max(x, lo), hi);
/** erf by its series, good enough for |x| < 5. */
function erf(x: number): number {
  let [term, sum] = [x, x];
  for (let n = 1; n < 120; n++) sum += (term *= (-x * x) / n) / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * sum;
}
const k = Math.sqrt(2 / Math.PI);

const activations: Record<string, [(x: Tensor) => Tensor, (x: number) => number]> = {
  relu: [h.relu, (x) => Math.max(x, 0)],
  relu6: [h.relu6, (x) => limit(x, 0, 6)],
  leakyRelu: [h.leakyRelu, (x) => (x > 0 ? x : 0.01 * x)],
  elu: [(x) => h.elu(x, 0.7), (x) => (x > 0 ? x : 0.7 * Math.expm1(x))],
  gelu: [h.gelu, (x) => 0.5 * x * (1 + erf(x / Math.SQRT2))],
  "gelu, tanh": [
    (x) => h.gelu(x, { approximate: "tanh" }),
    (x) => 0.5 * x * (1 + Math.tanh(k * (x + 0.044715 * x ** 3))),
  ],
  quickGelu: [h.quickGelu, (x) => x * sigmoid(1.702 * x)],
  silu: [h.silu, (x) => x * sigmoid(x)],
  sigmoid: [h.sigmoid, sigmoid],
  logSigmoid: [h.logSigmoid, (x) => -softplus(-x)],
  softplus: [h.softplus, softplus],
  "softplus, beta": [(x) => h.softplus(x, 2, 3), (x) => (2 * x > 3 ? x : softplus(2 * x) / 2)],
  mish: [h.mish, (x) => x * Math.tanh(softplus(x))],
  hardtanh: [h.hardtanh, (x) => limit(x, -1, 1)],
  hardswish: [h.hardswish, (x) => (x * limit(x + 3, 0, 6)) / 6],
};
const smooth = "gelu quickGelu silu sigmoid logSigmoid softplus mish elu".split(" ");

onEachDevice("activations", () => {
  test.for(Object.entries(activations))("%s", async ([, [ours, theirs]]) => {
    await fc.assert(
      fc.asyncProperty(arrays(), (a) => expectTensor(ours(make(a)), map1(a, theirs), close)),
      runs,
    );
  });

  test.for(Object.entries(activations))("%s: gradient", async ([, [ours]]) => {
    const x: Plain = { shape: [7], data: [-3.6, -1.3, -0.2, 0.4, 1.1, 2.6, 4.5] };
    await expectGradients(ours, [x], { step: 5e-3 });
  });

  const extremes = [-1e15, -1e4, -120, -89, -30, 0, 30, 89, 120, 1e4, 1e15];
  test.for(smooth)(
    "%s: finite with finite gradients of both orders, for any input",
    async (name) => {
      const f = (x: Tensor) => activations[name][0](x);
      const x = tensor(extremes);
      const slope = h.grad((t: Tensor) => f(t).sum());
      const curve = h.grad((t: Tensor) => slope(t).sum());
      for (const t of [f(x), slope(x), curve(x)])
        for (const v of await t.data()) expect(Number.isFinite(v)).toBe(true);
    },
  );

  test("tails keep their relative accuracy", async () => {
    const x = [-80, -40, -20, -10].map(Math.fround);
    const want = x.map(Math.exp);
    expect(
      difference(await h.sigmoid(tensor(x)).data(), x.map(sigmoid), { rtol: 1e-5, atol: 0 }),
    ).toBeNull();
    expect(
      difference(await h.softplus(tensor(x)).data(), want, { rtol: 1e-4, atol: 0 }),
    ).toBeNull();
    const negative = x.map((v) => -softplus(v));
    expect(
      difference(await h.logSigmoid(tensor(x).neg()).data(), negative, { rtol: 1e-4, atol: 0 }),
    ).toBeNull();
  });

  test("infinities and NaN", async () => {
    const x = tensor([-Infinity, Infinity, NaN]);
    expect(await x.relu().tolist()).toEqual([0, Infinity, NaN]);
    expect(await x.sigmoid().tolist()).toEqual([0, 1, NaN]);
    expect(await x.softplus().tolist()).toEqual([0, Infinity, NaN]);
    expect(await x.elu().tolist()).toEqual([-1, Infinity, NaN]);
    expect(await x.hardtanh().tolist()).toEqual([-1, 1, NaN]);
  });

  describe("gradients at kinks are PyTorch's", () => {
    const at = async (f: (x: Tensor) => Tensor, x: number[]) =>
      (await h
        .grad((t: Tensor) => f(t).sum())(tensor(x))
        .tolist()) as number[];
    test("relu, leakyRelu, elu at 0", async () => {
      expect(await at(h.relu, [0, -0])).toEqual([0, 0]);
      expect(await at((x) => x.leakyRelu(0.25), [0])).toEqual([0.25]);
      expect(await at(h.elu, [0])).toEqual([1]);
    });
    test("hardtanh and relu6 block their ends, clamp passes them", async () => {
      expect(await at(h.hardtanh, [-1, 0, 1])).toEqual([0, 1, 0]);
      expect(await at(h.relu6, [0, 6])).toEqual([0, 0]);
      expect(await at((x) => x.clamp(-1, 1), [-2, -1, 1, 2])).toEqual([0, 1, 1, 0]);
    });
    test("sigmoid and softplus at 0, first and second derivative", async () => {
      expect(await at(h.sigmoid, [0])).toEqual([0.25]);
      expect(await at(h.softplus, [0])).toEqual([0.5]);
      expect(await at(h.logSigmoid, [0])).toEqual([0.5]);
      const second = (f: (x: Tensor) => Tensor) =>
        at((x) => h.grad((t: Tensor) => f(t).sum())(x), [0]);
      expect(await second(h.softplus)).toEqual([0.25]);
      expect(await second(h.logSigmoid)).toEqual([-0.25]);
      expect((await second(h.sigmoid))[0]).toBeCloseTo(0, 7);
    });
  });

  test("an unknown kind of gelu is refused", () => {
    expect(() => h.gelu(tensor([1]), { approximate: "sigmoid" as never })).toThrow(
      /'none' or 'tanh'/,
    );
  });
});
