/**
 * @file What the operator tests share: random arrays with awkward shapes, plain-JavaScript
 * counterparts of operators (row-major arrays with a shape), comparison, and gradients by finite
 * differences.
 */
import fc from "fast-check";
import { type DType, type Tensor, tensor } from "hinode";
import { broadcastablePairs, shapes as drawnShapes } from "hinode/testing";
import { expect } from "vitest";
import { roundTo } from "../../core/dtype.ts";
import { difference, type Tolerance } from "../support/close.ts";
import { numRuns } from "../support/devices.ts";

/** A row-major array without a library. */
export interface Plain {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

export const numel = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

/** Few runs with many shapes each: on a compiling backend every shape is a new plan. */
export const runs = numRuns(25);

/** Shapes of 0 to 4 axes with sizes 0, 1 and more. */
export const shapes = drawnShapes();
/** The same without empty axes. */
export const fullShapes = drawnShapes({ empty: false });

export const values: Record<Exclude<DType, never>, fc.Arbitrary<number>> = {
  // GPUs may take subnormal numbers as 0.
  f32: fc
    .double({ min: -4, max: 4, noNaN: true })
    .map((x) => (Math.abs(x) < 2 ** -126 ? 0 : Math.fround(x))),
  f16: fc.double({ min: -4, max: 4, noNaN: true }).map((x) => roundTo("f16", x)),
  bf16: fc.double({ min: -4, max: 4, noNaN: true }).map((x) => roundTo("bf16", x)),
  i32: fc.integer({ min: -1000, max: 1000 }),
  u32: fc.integer({ min: 0, max: 2000 }),
  i8: fc.integer({ min: -128, max: 127 }),
  u8: fc.integer({ min: 0, max: 255 }),
  bool: fc.integer({ min: 0, max: 1 }),
};

/** An array of the shape with values of the arbitrary. */
export const filled = (
  shape: readonly number[],
  value: fc.Arbitrary<number>,
): fc.Arbitrary<Plain> => {
  const n = numel(shape);
  return fc.array(value, { minLength: n, maxLength: n }).map((data) => ({ shape, data }));
};

export const arrays = (
  value: fc.Arbitrary<number> = values.f32,
  shape: fc.Arbitrary<readonly number[]> = shapes,
): fc.Arbitrary<Plain> => shape.chain((s) => filled(s, value));

/** Two arrays whose shapes broadcast. */
export const broadcasting = (value: fc.Arbitrary<number>): fc.Arbitrary<[Plain, Plain]> =>
  broadcastablePairs().chain(([a, b]) => fc.tuple(filled(a, value), filled(b, value)));

export const make = (p: Plain, dtype: DType = "f32", requiresGrad = false): Tensor =>
  tensor(dtype === "bool" ? [...p.data] : [...p.data], { dtype, shape: p.shape, requiresGrad });

export const map1 = (a: Plain, f: (x: number) => number): Plain => ({
  shape: a.shape,
  data: a.data.map(f),
});

const strides = (shape: readonly number[]): number[] =>
  shape.map((_, i) => numel(shape.slice(i + 1)));

/** All index tuples of a shape in row-major order. */
export function* positions(shape: readonly number[]): Generator<number[]> {
  const total = numel(shape);
  const step = strides(shape);
  for (let i = 0; i < total; i++) yield shape.map((d, a) => Math.floor(i / step[a]) % d);
}

/** The element at an index tuple; axes align from the right and size 1 repeats. */
export function at(a: Plain, index: readonly number[]): number {
  const step = strides(a.shape);
  const lead = index.length - a.shape.length;
  return a.data[a.shape.reduce((sum, d, i) => sum + (d === 1 ? 0 : index[lead + i]) * step[i], 0)];
}

/** An array computed position by position. */
export const build = (shape: readonly number[], f: (index: number[]) => number): Plain => ({
  shape,
  data: [...positions(shape)].map(f),
});

export function broadcastShape(a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const [x, y] = [a[i - rank + a.length] ?? 1, b[i - rank + b.length] ?? 1];
    return x === 1 ? y : x;
  });
}

export const map2 = (a: Plain, b: Plain, f: (x: number, y: number) => number): Plain =>
  build(broadcastShape(a.shape, b.shape), (i) => f(at(a, i), at(b, i)));

export async function expectTensor(
  t: Tensor,
  want: Plain,
  { rtol = 0, atol = 0 }: Partial<Tolerance> = {},
  dtype?: DType,
): Promise<void> {
  expect(t.shape).toEqual([...want.shape]);
  if (dtype) expect(t.dtype).toBe(dtype);
  expect(difference(await t.data(), want.data, { rtol, atol })).toBeNull();
}

/** What f32 arithmetic with a few roundings, and functions of a few ulp, should meet. */
export const close: Tolerance = { rtol: 3e-6, atol: 3e-6 };

/**
 * Compares backward's gradient of Σ f(xs)·w (w fixed, irregular) with central differences for each
 * input. The step and tolerance suit f32 values of about 1.
 */
export async function expectGradients(
  f: (...xs: Tensor[]) => Tensor,
  inputs: readonly Plain[],
  { step = 1e-2, tolerance = 2e-2 }: { step?: number; tolerance?: number } = {},
): Promise<void> {
  const weighted = (xs: Tensor[]): Tensor => {
    const y = f(...xs);
    const w = Array.from({ length: numel(y.shape) }, (_, i) => Math.cos(1.7 * i + 0.3));
    return y.mul(tensor(w, { shape: y.shape })).sum();
  };
  const leaves = inputs.map((p) => make(p, "f32", true));
  weighted(leaves).backward();
  for (const [k, p] of inputs.entries()) {
    const got = await leaves[k].grad!.data();
    expect(leaves[k].grad!.shape).toEqual([...p.shape]);
    const want: number[] = [];
    for (let i = 0; i < p.data.length; i++) {
      const moved = (delta: number) => {
        const data = p.data.map((v, j) => (j === i ? v + delta : v));
        return weighted(inputs.map((q, j) => make(j === k ? { shape: q.shape, data } : q)));
      };
      const [high, low] = [await moved(step).item(), await moved(-step).item()] as number[];
      want.push((high - low) / (2 * step));
    }
    expect(difference(got, want, { rtol: tolerance, atol: tolerance })).toBeNull();
  }
}
