import fc from "fast-check";
import * as h from "hinode";
import { type DType, DTypeError, promote, ShapeError, type Tensor, tensor } from "hinode";
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
  type Plain,
  runs,
  values,
} from "./support.ts";

const f = Math.fround;
const roundEven = (x: number): number => {
  const r = Math.round(x);
  return Math.abs(x % 1) === 0.5 && r % 2 !== 0 ? r - 1 : r;
};
const pythonMod = (x: number, y: number): number => {
  const r = x % y;
  return r !== 0 && r < 0 !== y < 0 ? r + y : r;
};

/** [ours, JavaScript's, whether arguments must be positive]. */
const unary: Record<string, [(x: Tensor) => Tensor, (x: number) => number, boolean?]> = {
  neg: [h.neg, (x) => -x],
  abs: [h.abs, Math.abs],
  sign: [h.sign, Math.sign],
  square: [h.square, (x) => x * x],
  exp: [h.exp, Math.exp],
  exp2: [h.exp2, (x) => 2 ** x],
  expm1: [h.expm1, Math.expm1],
  log: [h.log, Math.log, true],
  log2: [h.log2, Math.log2, true],
  log10: [h.log10, Math.log10, true],
  log1p: [h.log1p, Math.log1p, true],
  sqrt: [h.sqrt, Math.sqrt, true],
  rsqrt: [h.rsqrt, (x) => 1 / Math.sqrt(x), true],
  reciprocal: [h.reciprocal, (x) => 1 / x, true],
  sin: [h.sin, Math.sin],
  cos: [h.cos, Math.cos],
  tan: [(x) => x.mul(0.3).tan(), (x) => Math.tan(f(x * f(0.3)))],
  sinh: [h.sinh, Math.sinh],
  cosh: [h.cosh, Math.cosh],
  tanh: [h.tanh, Math.tanh],
  floor: [h.floor, Math.floor],
  ceil: [h.ceil, Math.ceil],
  trunc: [h.trunc, Math.trunc],
  round: [h.round, roundEven],
  frac: [h.frac, (x) => x - Math.trunc(x)],
};

const binary: Record<string, [(a: Tensor, b: Tensor) => Tensor, (x: number, y: number) => number]> =
  {
    add: [h.add, (x, y) => f(x + y)],
    sub: [h.sub, (x, y) => f(x - y)],
    mul: [h.mul, (x, y) => f(x * y)],
    div: [h.div, (x, y) => f(x / y)],
    maximum: [h.maximum, Math.max],
    minimum: [h.minimum, Math.min],
    fmod: [h.fmod, (x, y) => x % y],
    remainder: [h.remainder, (x, y) => f(pythonMod(x, y))],
    eq: [h.eq, (x, y) => Number(x === y)],
    ne: [h.ne, (x, y) => Number(x !== y)],
    lt: [h.lt, (x, y) => Number(x < y)],
    le: [h.le, (x, y) => Number(x <= y)],
    gt: [h.gt, (x, y) => Number(x > y)],
    ge: [h.ge, (x, y) => Number(x >= y)],
  };

onEachDevice("element-wise functions", (device) => {
  describe("of one operand", () => {
    test.for(Object.entries(unary))("%s", async ([, [ours, theirs, positive]]) => {
      const value = positive ? values.f32.map((x) => f(Math.abs(x) + 0.01)) : values.f32;
      await fc.assert(
        fc.asyncProperty(arrays(value), (a) => expectTensor(ours(make(a)), map1(a, theirs), close)),
        runs,
      );
    });

    const special = [0, -0, 1, -1, 0.5, -2.5, Infinity, -Infinity, NaN];
    const a: Plain = { shape: [special.length], data: special };
    const exact = "neg abs sqrt square floor ceil trunc round reciprocal".split(" ");
    test.for(exact)("%s of special values", async (name) => {
      const [ours, theirs] = unary[name];
      await expectTensor(
        ours(make(a)),
        map1(a, (x) => f(theirs(x))),
      );
    });

    const limits: [string, number[], number[]][] = [
      ["exp", [-Infinity, Infinity, NaN, 0, 89], [0, Infinity, NaN, 1, Infinity]],
      ["log", [0, -0, -1, Infinity, NaN, 1], [-Infinity, -Infinity, NaN, Infinity, NaN, 0]],
      ["log1p", [-1, Infinity, NaN, -2, 1e30], [-Infinity, Infinity, NaN, NaN, 69.07755]],
      ["expm1", [-Infinity, Infinity, NaN, 100, -100], [-1, Infinity, NaN, Infinity, -1]],
      ["tanh", [-Infinity, Infinity, NaN, 30], [-1, 1, NaN, 1]],
      ["erf", [-Infinity, Infinity, NaN, 5], [-1, 1, NaN, 1]],
      ["rsqrt", [0, Infinity, -1], [Infinity, 0, NaN]],
    ];
    test.for(limits)("%s at its limits", async ([name, x, want]) => {
      const method = (tensor(x) as unknown as Record<string, () => Tensor>)[name]();
      await expectTensor(method, { shape: [x.length], data: want }, { rtol: 1e-5 });
    });

    test("log1p and expm1 keep their digits near 0", async () => {
      const x = [1e-4, -1e-4, 3e-7, -3e-7, 1e-10, -1e-30, 0.01, 0.9, -0.9].map(f);
      const shape = [x.length];
      const tolerance = { rtol: 1e-6 };
      await expectTensor(h.log1p(tensor(x)), { shape, data: x.map(Math.log1p) }, tolerance);
      await expectTensor(h.expm1(tensor(x)), { shape, data: x.map(Math.expm1) }, tolerance);
      await expectTensor(h.sinh(tensor(x)), { shape, data: x.map(Math.sinh) }, tolerance);
      const slope = h.grad((t: Tensor) => t.log1p().sum())(tensor(x));
      await expectTensor(slope, { shape, data: x.map((v) => 1 / (1 + v)) }, tolerance);
      const curve = h.grad(h.grad((t: Tensor) => t.expm1().sum()) as never)(tensor(0.5));
      expect(await (curve as Tensor).item()).toBeCloseTo(Math.exp(0.5), 5);
    });

    test("isnan, isinf, isfinite", async () => {
      const x = tensor([1, NaN, Infinity, -Infinity, -0]);
      expect(await x.isnan().tolist()).toEqual([false, true, false, false, false]);
      expect(await x.isinf().tolist()).toEqual([false, false, true, true, false]);
      expect(await x.isfinite().tolist()).toEqual([true, false, false, false, true]);
      expect(await tensor([1, 2]).int().isfinite().tolist()).toEqual([true, true]);
    });

    test("round to decimals", async () => {
      const x = tensor([1.234, -2.345, 1250, 1350]);
      expect((await x.round({ decimals: 1 }).tolist()) as number[]).toEqual(
        [1.2, -2.3, 1250, 1350].map(f),
      );
      expect(await x.round({ decimals: -2 }).tolist()).toEqual(
        [0, 0, 1200, 1400].map((v, i) => (i === 1 ? -0 : v)),
      );
    });

    test("gradients", async () => {
      const x: Plain = { shape: [2, 3], data: [0.3, -0.7, 1.4, 2.2, -1.9, 0.9] };
      const positive = map1(x, (v) => Math.abs(v) + 0.4);
      for (const name of "exp expm1 sin cos tanh sinh cosh erf square abs".split(" "))
        await expectGradients((t) => (h as never as typeof unaryModule)[name](t), [x]);
      for (const name of "log log2 log10 log1p sqrt rsqrt reciprocal exp2".split(" "))
        await expectGradients((t) => (h as never as typeof unaryModule)[name](t), [positive]);
    });
  });

  describe("of two operands", () => {
    test.for(Object.entries(binary))("%s broadcasts", async ([, [ours, theirs]]) => {
      await fc.assert(
        fc.asyncProperty(broadcasting(values.f32), ([a, b]) =>
          expectTensor(ours(make(a), make(b)), map2(a, b, theirs), { rtol: 1e-6 }),
        ),
        runs,
      );
    });

    const special = [0, -0, 1, -1.5, Infinity, -Infinity, NaN, 3.4e38];
    const column: Plain = { shape: [special.length, 1], data: special.map(f) };
    const row: Plain = { shape: [special.length], data: special.map(f) };
    test.for(Object.entries(binary))("%s of special values", async ([name, [ours, theirs]]) => {
      // Python's and PyTorch's remainder differ from the formula only where the divisor is
      // infinite.
      const finite = name === "remainder" ? { shape: [3], data: [1, -1.5, 2] } : row;
      const left = name === "remainder" ? { shape: [4, 1], data: [0, 2, -7.25, NaN] } : column;
      // GPUs may take subnormal results as 0.
      await expectTensor(ours(make(left), make(finite)), map2(left, finite, theirs), {
        rtol: 1e-6,
        atol: device === "webgpu" ? 2 ** -126 : 0,
      });
    });

    test("rounding division", async () => {
      const check = async (x: number[], y: number[], dtype: DType) => {
        const [a, b] = [tensor(x, { dtype }), tensor(y, { dtype })];
        const shape = [x.length];
        const quotient = x.map((v, i) => v / y[i]);
        await expectTensor(a.floorDivide(b), { shape, data: quotient.map(Math.floor) }, {}, dtype);
        await expectTensor(a.div(b, { roundingMode: "floor" }), {
          shape,
          data: quotient.map(Math.floor),
        });
        await expectTensor(a.div(b, { roundingMode: "trunc" }), {
          shape,
          data: quotient.map(Math.trunc),
        });
        await expectTensor(
          a.remainder(b),
          { shape, data: x.map((v, i) => pythonMod(v, y[i])) },
          {},
          dtype,
        );
        await expectTensor(a.fmod(b), { shape, data: x.map((v, i) => v % y[i]) }, {}, dtype);
      };
      const nonZero = fc.integer({ min: -20, max: 20 }).filter((v) => v !== 0);
      const pairs = fc.array(fc.tuple(fc.integer({ min: -100, max: 100 }), nonZero), {
        minLength: 1,
        maxLength: 9,
      });
      await fc.assert(
        fc.asyncProperty(pairs, fc.constantFrom<DType>("i32", "i8", "f32"), (list, dtype) =>
          check(
            list.map(([x]) => x),
            list.map(([, y]) => y),
            dtype,
          ),
        ),
        runs,
      );
      await check([200, 7, 0], [7, 9, 3], "u8");
      await check([4000000000, 7, 0], [7, 9, 3], "u32");
    });

    test("powers", async () => {
      const x: Plain = { shape: [2, 2], data: [0.5, -1.5, 2, 3] };
      for (const n of [0, 1, 2, 3, 4, 5, -1, -2])
        await expectTensor(
          make(x).pow(n),
          map1(x, (v) => v ** n),
          { rtol: 1e-5 },
        );
      const p = map1(x, Math.abs);
      for (const n of [0.5, -0.5, 2.5])
        await expectTensor(
          make(p).pow(n),
          map1(p, (v) => v ** n),
          { rtol: 1e-5 },
        );
      await expectTensor(
        h.pow(2, make(x)),
        map1(x, (v) => 2 ** v),
        { rtol: 1e-5 },
      );
      await expectTensor(
        tensor([2, -3], { dtype: "i32" }).pow(3),
        { shape: [2], data: [8, -27] },
        {},
        "i32",
      );
      expect(await tensor([NaN, 0, Infinity]).pow(0).tolist()).toEqual([1, 1, 1]);
      expect(() => tensor([2], { dtype: "i32" }).pow(-1)).toThrow(DTypeError);
      for (const n of [2, 3, 0.5, -1, 2.5])
        await expectGradients((t) => t.pow(n), [map1(p, (v) => v + 0.3)]);
      await expectGradients((a, b) => a.pow(b), [p, { shape: [2], data: [1.5, -0.5] }]);
      const atZero = h.grad((t: Tensor) => t.pow(2).sum().add(t.pow(0).sum()))(tensor([0, 1]));
      expect(await atZero.tolist()).toEqual([0, 2]);
    });

    test("gradients", async () => {
      const a: Plain = { shape: [3, 1], data: [0.3, -0.7, 1.4] };
      const b: Plain = { shape: [2], data: [1.2, -0.6] };
      for (const g of [h.add, h.sub, h.mul, h.div, h.maximum, h.minimum])
        await expectGradients((x, y) => g(x, y), [a, b]);
      await expectGradients((x, y) => h.lerp(x, y, 0.3), [a, b]);
      await expectGradients((x, y, w) => h.lerp(x, y, w), [a, b, { shape: [], data: [0.7] }]);
      await expectGradients((x, y) => h.addcmul(x, y, x, { value: 0.5 }), [a, b]);
    });

    test("lerp meets its ends exactly", async () => {
      const [a, b] = [tensor([1e8, 0.1]), tensor([1, 0.3])];
      expect(await h.lerp(a, b, 1).tolist()).toEqual(await b.tolist());
      expect(await h.lerp(a, b, tensor([1, 0])).tolist()).toEqual([1, f(0.1)]);
    });
  });

  describe("dtypes", () => {
    const all: DType[] = ["f32", "i32", "u32", "i8", "u8", "bool"];
    const one = (dtype: DType) => tensor([1, 0, 1], { dtype });

    test("tensors promote", async () => {
      for (const a of all)
        for (const b of all) {
          const sum = one(a).add(one(b));
          expect(sum.dtype).toBe(promote(a, b));
          const want = a === "bool" && b === "bool" ? [1, 0, 1] : [2, 0, 2];
          expect([...(await sum.data())]).toEqual(want);
        }
    });

    test("a 0-d tensor does not widen its category", () => {
      const small = tensor([1, 2], { dtype: "i8" });
      expect(small.add(tensor(3, { dtype: "i32" })).dtype).toBe("i8");
      expect(small.add(tensor(3)).dtype).toBe("f32");
      expect(tensor(1, { dtype: "i8" }).add(tensor(3, { dtype: "i32" })).dtype).toBe("i32");
      expect(tensor([true]).add(tensor(3, { dtype: "u8" })).dtype).toBe("u8");
    });

    test("numbers keep the dtype", async () => {
      for (const dtype of ["f32", "i32", "u32", "i8", "u8"] as const)
        expect(one(dtype).add(2).dtype).toBe(dtype);
      expect(one("bool").add(1).dtype).toBe("i32");
      expect(one("bool").mul(0.5).dtype).toBe("f32");
      expect(one("f32").add(true).dtype).toBe("f32");
      expect(h.sub(1, one("i32")).dtype).toBe("i32");
      expect(await one("u8").add(-1).tolist()).toEqual([0, 255, 0]);
      expect(h.add(1, 2).dtype).toBe("f32");
      expect(Object.is(await tensor(-0).mul(1).item(), -0)).toBe(true);
      expect(await tensor(1).mul(NaN).item()).toBeNaN();
      expect(await tensor(-1).mul(Infinity).item()).toBe(-Infinity);
    });

    test("a fractional number with integers is refused, with advice", () => {
      expect(() => one("i32").add(0.5)).toThrow(DTypeError);
      expect(() => one("i32").add(0.5)).toThrow(
        /add: expected an integral number.*0\.5\n.*\.float\(\)/s,
      );
      expect(() => one("u8").lt(0.5)).toThrow(DTypeError);
      expect(() => one("i32").mul(NaN)).toThrow(DTypeError);
      expect(() => one("u8").add(300)).toThrow(h.ArgumentError);
      expect(() => one("i32").floorDivide(0)).toThrow(h.ArgumentError);
    });

    test("true division of integers gives f32", async () => {
      const q = tensor([7, -7], { dtype: "i32" }).div(2);
      expect([q.dtype, await q.tolist()]).toEqual(["f32", [3.5, -3.5]]);
      expect(one("bool").div(one("u8")).dtype).toBe("f32");
    });

    test("integers wrap", async () => {
      expect(await tensor([200], { dtype: "u8" }).add(100).tolist()).toEqual([44]);
      expect(await tensor([100], { dtype: "i8" }).mul(2).tolist()).toEqual([-56]);
      expect(await tensor([2147483647], { dtype: "i32" }).add(1).tolist()).toEqual([-2147483648]);
      expect(await tensor([0], { dtype: "u32" }).sub(1).tolist()).toEqual([4294967295]);
      expect(await tensor([-2147483648], { dtype: "i32" }).abs().tolist()).toEqual([-2147483648]);
    });

    test("bool arithmetic is logic", async () => {
      const [p, q] = [tensor([true, true, false]), tensor([true, false, false])];
      expect(await p.add(q).tolist()).toEqual([true, true, false]);
      expect(await p.mul(q).tolist()).toEqual([true, false, false]);
      expect(await p.maximum(q).tolist()).toEqual([true, true, false]);
      expect(() => p.sub(q)).toThrow(/logicalXor/);
      expect(() => p.neg()).toThrow(DTypeError);
    });

    test("functions of floats refuse integers", () => {
      for (const name of ["exp", "sqrt", "sigmoid", "gelu", "erf", "mean"])
        expect(() => (one("i32") as never as Record<string, () => void>)[name]()).toThrow(
          /\.float\(\)/,
        );
      expect(one("i32").floor().dtype).toBe("i32");
    });

    test("casts", async () => {
      const x = tensor([1.9, -1.9, 0, NaN, 3e9, -3e9]);
      expect(await x.int().tolist()).toEqual([1, -1, 0, 0, 2147483647, -2147483648]);
      expect(await x.bool().tolist()).toEqual([true, true, false, true, true, true]);
      expect(await x.to("u32").tolist()).toEqual([1, 0, 0, 0, 3000000000, 0]);
      expect(await tensor([300, -1], { dtype: "i32" }).to("u8").tolist()).toEqual([44, 255]);
      expect(await tensor([4294967295], { dtype: "u32" }).float().tolist()).toEqual([4294967296]);
    });
  });

  test("shapes that do not broadcast are refused with both shapes", () => {
    expect(() => h.zeros([2, 3]).add(h.zeros([4]))).toThrow(ShapeError);
    expect(() => h.zeros([2, 3]).add(h.zeros([4]))).toThrow(/add: .*f32\[2, 3\], f32\[4\]/);
    expect(() => h.add("1" as never, h.zeros([1]))).toThrow(
      /a Tensor, number or boolean, got string 1/,
    );
  });
});

declare const unaryModule: Record<string, (x: Tensor) => Tensor>;
