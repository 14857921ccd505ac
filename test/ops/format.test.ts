import { inspect } from "node:util";
import type * as h from "hinode";
import { formatValues, tensor } from "hinode";
import { afterEach, expect, test, vi } from "vitest";
import { onEachDevice } from "../support/devices.ts";

const show = (list: number[], shape: number[], dtype: h.DType = "f32") =>
  formatValues(new Float64Array(list) as never, shape, dtype);

test("numbers share one format", () => {
  expect(show([1, -2, 3], [3])).toBe("[ 1., -2.,  3.]");
  expect(show([1.5, -20.25], [2])).toBe("[  1.5000, -20.2500]");
  expect(show([1e-7, 1], [2])).toBe("[1.0000e-7, 1.0000e+0]");
  expect(show([NaN, Infinity, -Infinity, -0], [4])).toBe("[ nan,  inf, -inf,  -0.]");
  expect(show([1, 0], [2], "bool")).toBe("[ true, false]");
  expect(show([1, -20], [2], "i32")).toBe("[  1, -20]");
  expect(show([2.5], [])).toBe("2.5000");
  expect(show([], [0, 2])).toBe("[]");
});

test("axes nest, long lines wrap, long axes are summarised", () => {
  expect(show([1, 2, 3, 4], [2, 2])).toBe("[[1., 2.],\n [3., 4.]]");
  expect(show([1, 2], [2, 1, 1])).toBe("[[[1.]],\n\n [[2.]]]");
  const long = show([...Array(40).keys()], [40]).split("\n");
  expect(Math.max(...long.map((l) => l.length))).toBeLessThanOrEqual(90);
  expect(long.length).toBeGreaterThan(1);
  expect(show([...Array(1001).keys()], [1001], "i32")).toBe(
    "[   0,    1,    2, ...,  998,  999, 1000]",
  );
});

onEachDevice("printing", (device) => {
  afterEach(() => vi.restoreAllMocks());

  test("shape, dtype and device always, values if they are there", async () => {
    const x = tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { requiresGrad: true },
    );
    const facts = `shape [2, 2], f32, ${device}, requiresGrad)`;
    // A GPU's values take an await.
    const shown = (values: string) =>
      device === "webgpu" ? "values on the GPU, see print(x)" : values;
    expect(String(x)).toBe(`Tensor(${shown("[[1., 2.],\n        [3., 4.]]")}, ${facts}`);
    expect(inspect(x)).toBe(String(x));
    const y = x.mul(2);
    expect(String(y)).toBe(`Tensor(not computed yet, shape [2, 2], f32, ${device})`);
    await y.data();
    const values = shown("[[2., 4.],\n        [6., 8.]]");
    expect(String(y)).toBe(`Tensor(${values}, shape [2, 2], f32, ${device})`);
    const named = tensor(1);
    named.name = "bias";
    expect(String(named)).toBe(`bias: Tensor(${shown("1.")}, shape [], f32, ${device})`);
  });

  test("print waits for the values", async () => {
    const log = vi.spyOn(console, "log").mockImplementation(() => {});
    await tensor([1, 2]).add(1).print();
    expect(log).toHaveBeenCalledWith(`Tensor([2., 3.], shape [2], f32, ${device})`);
  });
});
