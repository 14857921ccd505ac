import fc from "fast-check";
import * as h from "hinode";
import { ArgumentError, type DType, DTypeError, ShapeError, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { numRuns, onEachDevice } from "../support/devices.ts";
import { arrays, expectTensor, make, values } from "./support.ts";

onEachDevice("creation", (device) => {
  test("nested arrays round-trip", async () => {
    await fc.assert(
      fc.asyncProperty(arrays(), async (a) => {
        fc.pre(!a.shape.includes(0));
        const list = await make(a).tolist();
        await expectTensor(tensor(list), a, {}, "f32");
      }),
    );
    expect(tensor([1, 2]).dtype).toBe("f32");
    expect(tensor([[true], [false]]).dtype).toBe("bool");
    expect(tensor([true, 0]).dtype).toBe("f32");
    expect(tensor(3).shape).toEqual([]);
    expect(tensor([[], []]).shape).toEqual([2, 0]);
    expect(tensor([1]).device).toBe(device);
  });

  test("ragged and foreign data are refused, with the place", () => {
    expect(() => tensor([[1, 2], [3]])).toThrow(ShapeError);
    expect(() => tensor([[1, 2], [3]])).toThrow(
      /an array of length 2 at depth 1, got an array of length 1/,
    );
    expect(() => tensor([[1], 2])).toThrow(/got number 2/);
    expect(() => tensor([1, [2]])).toThrow(ShapeError);
    expect(() => tensor(["1"] as never)).toThrow(/got string 1/);
    expect(() => tensor(tensor(1) as never)).toThrow(ArgumentError);
  });

  test("typed arrays keep their type, copied at the call", async () => {
    const data = new Float32Array([1, 2, 3, 4]);
    const x = tensor(data, { shape: [2, 2] });
    data[0] = 9;
    expect(await x.tolist()).toEqual([
      [1, 2],
      [3, 4],
    ]);
    const types: [h.FlatData, DType][] = [
      [new Float32Array(1), "f32"],
      [new Float64Array(1), "f32"],
      [new Int32Array(1), "i32"],
      [new Uint32Array(1), "u32"],
      [new Int16Array(1), "i32"],
      [new Int8Array(1), "i8"],
      [new Uint8Array(1), "u8"],
      [new Uint8ClampedArray(1), "u8"],
      [BigInt64Array.of(5n), "i32"],
    ];
    for (const [array, dtype] of types) expect(tensor(array).dtype).toBe(dtype);
    expect(await tensor(new Uint8Array([0, 7]), { dtype: "bool" }).tolist()).toEqual([false, true]);
    expect(() => tensor(data, { shape: [3] })).toThrow(/3 values for \[3\], got 4/);
  });

  test("integers out of range are refused, not wrapped", () => {
    expect(() => tensor([256], { dtype: "u8" })).toThrow(DTypeError);
    expect(() => tensor([-1], { dtype: "u32" })).toThrow(/integers within 0 … 4294967295/);
    expect(() => tensor([1.5], { dtype: "i32" })).toThrow(DTypeError);
    expect(() => tensor(BigInt64Array.of(2n ** 40n))).toThrow(/1099511627776 at position 0/);
  });

  test("every dtype stores its extremes", async () => {
    const extremes: [DType, number[]][] = [
      ["i32", [-2147483648, 2147483647]],
      ["u32", [0, 4294967295]],
      ["i8", [-128, 127]],
      ["u8", [0, 255]],
      ["f32", [-3.4028234663852886e38, 1.401298464324817e-45, Infinity, -Infinity, NaN]],
    ];
    for (const [dtype, list] of extremes)
      expect(await tensor(list, { dtype }).tolist()).toEqual(list);
  });

  test("filled tensors", async () => {
    expect(await h.zeros([2, 1]).tolist()).toEqual([[0], [0]]);
    expect(await h.ones([2], { dtype: "u8" }).tolist()).toEqual([1, 1]);
    expect(await h.full([2], 7).tolist()).toEqual([7, 7]);
    expect(h.full([2], true).dtype).toBe("bool");
    expect(h.full([2], 1, { dtype: "i32" }).dtype).toBe("i32");
    const x = tensor([1, 2], { dtype: "i8" });
    expect([h.zerosLike(x).dtype, h.onesLike(x).dtype, h.fullLike(x, 5).dtype]).toEqual([
      "i8",
      "i8",
      "i8",
    ]);
    expect(await h.zeros([0, 3]).tolist()).toEqual([]);
    expect(h.zeros([2], { requiresGrad: true }).requiresGrad).toBe(true);
    expect(() => h.zeros([-1])).toThrow(ArgumentError);
    expect(() => h.zeros(3 as never)).toThrow(/a shape of non-negative integers/);
    expect(() => h.full([1], 0.5, { dtype: "i32" })).toThrow(DTypeError);
  });

  test("an unknown dtype is refused by name", () => {
    const dtype = "float32" as never;
    for (const make of [
      () => tensor([1], { dtype }),
      () => h.zeros([1], { dtype }),
      () => h.arange(3, { dtype }),
    ])
      expect(make).toThrow(/a dtype of f32, .*got 'float32'/);
  });

  test("filled tensors cost no memory until they are needed", () => {
    expect(h.zeros([4]).node.op).toBe("expand");
    expect(h.arange(4).node.op).toBe("iota");
  });

  describe("counted tensors", () => {
    test("arange", async () => {
      expect(await h.arange(4).tolist()).toEqual([0, 1, 2, 3]);
      expect(await h.arange(2, 9, 3).tolist()).toEqual([2, 5, 8]);
      expect(await h.arange(5, 0, -2).tolist()).toEqual([5, 3, 1]);
      expect(await h.arange(0.5, 2, 0.5).tolist()).toEqual([0.5, 1, 1.5]);
      expect([
        h.arange(3).dtype,
        h.arange(0.5, 2).dtype,
        h.arange(3, { dtype: "f32" }).dtype,
      ]).toEqual(["i32", "f32", "f32"]);
      expect(h.arange(0).shape).toEqual([0]);
      expect(() => h.arange(0, 3, -1)).toThrow(ArgumentError);
      expect(() => h.arange(0, 3, 0)).toThrow(ArgumentError);
    });

    test("linspace is exact at both ends", async () => {
      await fc.assert(
        fc.asyncProperty(
          values.f32,
          values.f32,
          fc.integer({ min: 2, max: 20 }),
          async (a, b, n) => {
            const got = await h.linspace(a, b, n).data();
            expect(got[0] === a && got[n - 1] === b).toBe(true);
            const want = Array.from(got, (_, i) => a + ((b - a) * i) / (n - 1));
            expect(difference(got, want, { rtol: 1e-6, atol: 1e-6 })).toBeNull();
          },
        ),
        numRuns(20),
      );
      expect(await h.linspace(3, 9, 1).tolist()).toEqual([3]);
      expect(h.linspace(0, 1, 0).shape).toEqual([0]);
    });

    test("eye", async () => {
      expect(await h.eye(2).tolist()).toEqual([
        [1, 0],
        [0, 1],
      ]);
      expect(await h.eye(2, 3, { dtype: "i32" }).tolist()).toEqual([
        [1, 0, 0],
        [0, 1, 0],
      ]);
    });
  });

  test("moving between devices", async () => {
    const other = device === "wasm" ? "reference" : "wasm";
    const x = tensor([1, 2]);
    const y = await x.to(other);
    expect([y.device, await y.tolist()]).toEqual([other, [1, 2]]);
    expect(await x.to(device)).toBe(x);
    expect(() => x.add(y)).toThrow(h.DeviceError);
    expect(h.zeros([2], { device: other }).device).toBe(other);
    expect(y.add(1).device).toBe(other);
  });
});
