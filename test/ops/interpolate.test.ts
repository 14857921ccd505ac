/** Values of bilinear, bicubic, antialiased and area resizing against PyTorch: test/golden. */
import fc from "fast-check";
import * as h from "hinode";
import { ArgumentError, DTypeError, ShapeError } from "hinode";
import { expect, test } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import { at, build, close, expectGradients, expectTensor, make, type Plain } from "./support.ts";

const picture = (shape: number[], seed = 0): Plain =>
  build(shape, (p) => Math.fround(Math.sin(p.reduce((s, v, i) => s + v * (2 * i + 3), seed + 1))));
const sizes = fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 9 }));

/** One axis resized by the textbook's formula. */
function linear(x: Plain, axis: number, to: number, alignCorners: boolean): Plain {
  const from = x.shape[axis];
  const shape = x.shape.map((d, i) => (i === axis ? to : d));
  return build(shape, (p) => {
    const source = alignCorners
      ? (p[axis] * (from - 1)) / Math.max(to - 1, 1)
      : ((p[axis] + 0.5) * from) / to - 0.5;
    const clamped = Math.min(Math.max(source, 0), from - 1);
    const low = Math.floor(clamped);
    const read = (i: number) => at(x, p.map((v, a) => (a === axis ? Math.min(i, from - 1) : v))); // biome-ignore format: one line
    return read(low) * (1 - clamped + low) + read(low + 1) * (clamped - low);
  });
}

onEachDevice("interpolate", () => {
  test("nearest neighbours, exact ones, and of integers", async () => {
    await fc.assert(
      fc.asyncProperty(sizes, sizes, async ([h1, h2], [w1, w2]) => {
        const x = picture([1, 2, h1, w1]);
        for (const mode of ["nearest", "nearest-exact"] as const) {
          const source = (i: number, from: number, to: number) =>
            Math.floor(((i + (mode === "nearest" ? 0 : 0.5)) * from) / to + 1e-6);
          const want = build([1, 2, h2, w2], ([n, c, i, j]) =>
            at(x, [n, c, source(i, h1, h2), source(j, w1, w2)]),
          );
          await expectTensor(h.interpolate(make(x), { size: [h2, w2], mode }), want);
        }
      }),
      numRuns(30),
    );
    const ints = h.arange(4).reshape([1, 1, 4]);
    expect(await h.interpolate(ints, { scaleFactor: 2 }).tolist()).toEqual([
      [[0, 0, 1, 1, 2, 2, 3, 3]],
    ]);
    expect(await h.interpolate(ints, { size: 2 }).tolist()).toEqual([[[0, 2]]]);
  });

  test("linear and trilinear", async () => {
    await fc.assert(
      fc.asyncProperty(sizes, sizes, fc.boolean(), async ([l1, l2], [d1, d2], alignCorners) => {
        const line = picture([2, 1, l1]);
        await expectTensor(
          h.interpolate(make(line), { size: l2, mode: "linear", alignCorners }),
          linear(line, 2, l2, alignCorners),
          close,
        );
        const volume = picture([1, 2, d1, l1, 3]);
        const size = [d2, l2, 4];
        const want = size.reduce((x, s, i) => linear(x, 2 + i, s, alignCorners), volume);
        await expectTensor(
          h.interpolate(make(volume), { size, mode: "trilinear", alignCorners }),
          want,
          close,
        );
      }),
      numRuns(20),
    );
  });

  test("area is the mean of what falls together", async () => {
    const x = make(picture([2, 3, 7, 5]));
    const means = await h.adaptiveAvgPool2d(x, [3, 2]).data();
    const area = h.interpolate(x, { size: [3, 2], mode: "area" });
    await expectTensor(area, { shape: [2, 3, 3, 2], data: [...means] }, close);
    const cube = h.interpolate(h.ones([1, 1, 4, 5, 6]), { scaleFactor: 0.5, mode: "area" });
    await expectTensor(
      cube,
      build([1, 1, 2, 2, 3], () => 1),
      close,
    );
  });

  test("weights add up to one, also where the filter is cut off", async () => {
    for (const mode of ["bilinear", "bicubic"] as const)
      for (const antialias of [false, true]) {
        const y = h.interpolate(h.ones([1, 1, 9, 4]), { size: [2, 7], mode, antialias });
        await expectTensor(
          y,
          build([1, 1, 2, 7], () => 1),
          close,
        );
      }
  });

  test("gradients", async () => {
    const x = picture([1, 1, 4, 3]);
    const options: h.InterpolateOptions[] = [
      { size: [3, 5] },
      { scaleFactor: 2 },
      { size: [2, 3] },
      { size: [6, 2], mode: "bilinear" },
      { scaleFactor: [1.5, 2], mode: "bicubic", antialias: true },
      { size: [2, 2], mode: "area" },
    ];
    for (const o of options) await expectGradients((t) => h.interpolate(t.sin(), o), [x]);
  });

  test("inside compile and vmap", async () => {
    const x = make(picture([3, 2, 4, 4]));
    const resize = (t: h.Tensor) => h.interpolate(t, { size: [6, 5], mode: "bicubic" });
    const want = { shape: [3, 2, 6, 5], data: [...(await resize(x).data())] };
    const compiled = h.compile(resize);
    for (let i = 0; i < 2; i++) await expectTensor(compiled(x), want, close);
    const mapped = h.vmap((t: h.Tensor) => resize(t.unsqueeze(0)).squeeze(0))(x);
    await expectTensor(mapped, want, close);
  });

  test("refuses what does not fit", () => {
    const x = h.zeros([1, 1, 4, 4]);
    expect(() => h.interpolate(x, {})).toThrow(ArgumentError);
    expect(() => h.interpolate(x, { size: 2, scaleFactor: 2 })).toThrow(ArgumentError);
    expect(() => h.interpolate(x, { size: [2] })).toThrow(ArgumentError);
    expect(() => h.interpolate(x, { size: 0 })).toThrow(/positive sizes/);
    expect(() => h.interpolate(x, { size: 2, mode: "linear" })).toThrow(ShapeError);
    expect(() => h.interpolate(x, { size: 2, mode: "cubic" as never })).toThrow(/bicubic/);
    expect(() => h.interpolate(x, { size: 2, alignCorners: true })).toThrow(/alignCorners/);
    expect(() => h.interpolate(x, { size: 2, antialias: true })).toThrow(/antialias/);
    expect(() => h.interpolate(x.to("i32"), { size: 2, mode: "bilinear" })).toThrow(DTypeError);
  });
});
