import fc from "fast-check";
import * as h from "hinode";
import { type DType, DTypeError, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";
import {
  arrays,
  at,
  broadcasting,
  broadcastShape,
  build,
  expectGradients,
  expectTensor,
  make,
  map1,
  runs,
  values,
} from "./support.ts";

onEachDevice("selection, logic and bits", () => {
  test("where broadcasts its three operands", async () => {
    await fc.assert(
      fc.asyncProperty(broadcasting(values.bool), broadcasting(values.f32), async ([c], [a, b]) => {
        const pair = broadcastShape(a.shape, b.shape);
        fc.pre(
          c.shape.every(
            (d, i) => d === 1 || [undefined, 1, d].includes(pair[i - c.shape.length + pair.length]),
          ),
        );
        const shape = broadcastShape(c.shape, pair);
        const want = build(shape, (i) => {
          const inner = i.slice(i.length - pair.length).map((v, k) => (pair[k] === 1 ? 0 : v));
          return at(c, i) ? at(a, inner) : at(b, inner);
        });
        await expectTensor(h.where(make(c, "bool"), make(a), make(b)), want);
      }),
      runs,
    );
  });

  test("where takes numbers, and keeps NaN out of the other branch", async () => {
    const x = tensor([4, 0, -1], { requiresGrad: true });
    const y = h.where(x.gt(0), x.sqrt(), 0);
    expect(await y.tolist()).toEqual([2, 0, 0]);
    expect(h.where(x.gt(0), 1, 0).dtype).toBe("f32");
    expect(h.where(x.gt(0), tensor([1], { dtype: "i32" }), 7).dtype).toBe("i32");
    expect(await x.where(x.gt(0), -1).tolist()).toEqual([4, -1, -1]);
    expect(() => h.where(x, 1, 0)).toThrow(DTypeError);
  });

  test("maskedFill and clamp", async () => {
    await fc.assert(
      fc.asyncProperty(arrays(), async (a) => {
        const x = make(a);
        await expectTensor(
          x.maskedFill(x.lt(0), -1),
          map1(a, (v) => (v < 0 ? -1 : v)),
        );
        await expectTensor(
          x.clamp(-1, 2),
          map1(a, (v) => Math.min(Math.max(v, -1), 2)),
        );
        await expectTensor(
          x.clampMin(0.5),
          map1(a, (v) => Math.max(v, 0.5)),
        );
        await expectTensor(
          x.clampMax(tensor(0.5)),
          map1(a, (v) => Math.min(v, 0.5)),
        );
      }),
      runs,
    );
    expect(await tensor([0, 5]).clamp(2, -2).tolist()).toEqual([-2, -2]);
    expect(await tensor([NaN]).clamp(-1, 1).tolist()).toEqual([NaN]);
    expect(await tensor([1, 9], { dtype: "u8" }).clamp(2, 5).tolist()).toEqual([2, 5]);
    expect(() => tensor([1]).clamp()).toThrow(/at least one of min and max/);
    expect(() => tensor([1]).maskedFill(tensor([true]), tensor([1, 2]))).toThrow(/0-d value/);
    const x = { shape: [4], data: [-2, -0.3, 0.4, 3] };
    await expectGradients((t, lo) => t.clamp(lo, 1), [x, { shape: [1], data: [-1] }]);
  });

  test("logic treats numbers as truth", async () => {
    const [a, b] = [tensor([0, 2, NaN, 0]), tensor([true, true, false, false])];
    expect(await a.logicalAnd(b).tolist()).toEqual([false, true, false, false]);
    expect(await a.logicalOr(b).tolist()).toEqual([true, true, true, false]);
    expect(await a.logicalXor(b).tolist()).toEqual([true, false, true, false]);
    expect(await a.logicalNot().tolist()).toEqual([true, false, false, true]);
  });

  describe("bits", () => {
    const wrap: Record<string, (v: number) => number> = {
      i32: (v) => v | 0,
      u32: (v) => v >>> 0,
      i8: (v) => (v << 24) >> 24,
      u8: (v) => v & 255,
    };
    const types = fc.constantFrom<DType>("i32", "u32", "i8", "u8");

    test("and, or, xor, not", async () => {
      await fc.assert(
        fc.asyncProperty(
          types,
          fc.array(fc.tuple(fc.nat(127), fc.nat(127)), { minLength: 1 }),
          async (dtype, list) => {
            const w = wrap[dtype];
            const [x, y] = [0, 1].map((k) => list.map((p) => w(p[k])));
            const [a, b] = [x, y].map((data) => tensor(data, { dtype }));
            const shape = [list.length];
            await expectTensor(
              a.bitwiseAnd(b),
              { shape, data: x.map((v, i) => w(v & y[i])) },
              {},
              dtype,
            );
            await expectTensor(
              a.bitwiseOr(b),
              { shape, data: x.map((v, i) => w(v | y[i])) },
              {},
              dtype,
            );
            await expectTensor(
              a.bitwiseXor(b),
              { shape, data: x.map((v, i) => w(v ^ y[i])) },
              {},
              dtype,
            );
            await expectTensor(a.bitwiseNot(), { shape, data: x.map((v) => w(~v)) }, {}, dtype);
          },
        ),
        runs,
      );
      expect(await tensor([true, false]).bitwiseNot().tolist()).toEqual([false, true]);
      expect(() => tensor([1]).bitwiseAnd(1)).toThrow(DTypeError);
    });

    test("shifts, also by counts outside the width", async () => {
      const counts = [0, 1, 7, 31, 32, 100, -1];
      const x = [1, -1, 5, -100, 2147483647];
      const inside = (n: number) => n >= 0 && n < 32;
      for (const n of counts) {
        const a = tensor(x, { dtype: "i32" });
        const left = x.map((v) => (inside(n) ? v << n : 0));
        const right = x.map((v) => (inside(n) ? v >> n : v >> 31));
        const many = tensor(
          x.map(() => n),
          { dtype: "i32" },
        );
        for (const count of [n, many]) {
          await expectTensor(a.bitwiseLeftShift(count), { shape: [5], data: left });
          await expectTensor(a.bitwiseRightShift(count), { shape: [5], data: right });
        }
      }
      const u = tensor([4294967295, 8], { dtype: "u32" });
      expect(await u.bitwiseRightShift(4).tolist()).toEqual([268435455, 0]);
      expect(await u.bitwiseRightShift(40).tolist()).toEqual([0, 0]);
      expect(await tensor([-128], { dtype: "i8" }).bitwiseRightShift(50).tolist()).toEqual([-1]);
    });
  });
});
