/**
 * @file fast-check arbitraries for tensors. What they draw is data, never a seed, so that a failing case shrinks: towards fewer
 * and smaller axes, fewer views and simpler numbers.
 */
import fc from "fast-check";
import { type DType, floatLimits, dtypes as info, isFloat } from "../core/dtype.ts";
import type { Shape } from "../core/index.ts";
import { numel } from "../core/shape.ts";
import { TensorCase, type View } from "./cases.ts";

export interface ShapeOptions {
  /** Default 0. */
  readonly minRank?: number;
  /** Default 4. */
  readonly maxRank?: number;
  /** Default 9: beyond the 8 lanes of a vector. */
  readonly maxDim?: number;
  /** Whether axes may have no elements (default). */
  readonly empty?: boolean;
}

/** Shapes; axes of size 1, which broadcast, and of size 0 are rarer than others. */
export function shapes({
  minRank = 0,
  maxRank = Math.max(minRank, 4),
  maxDim = 9,
  empty = true,
}: ShapeOptions = {}): fc.Arbitrary<number[]> {
  const few = { weight: 3, arbitrary: fc.constant(1) };
  const many = { weight: 12, arbitrary: fc.integer({ min: 1, max: maxDim }) };
  const none = { weight: 1, arbitrary: fc.constant(0) };
  const size = fc.oneof({ withCrossShrink: true }, few, many, ...(empty ? [none] : []));
  return fc.array(size, { minLength: minRank, maxLength: maxRank });
}

/** Every dtype, or those given. */
export const dtypes = (
  from: readonly DType[] = Object.keys(info) as DType[],
): fc.Arbitrary<DType> => fc.constantFrom(...from);

const ranges: { readonly [D in DType]?: readonly [min: number, max: number] } = {
  i32: [-1000, 1000],
  u32: [0, 2000],
  i8: [-128, 127],
  u8: [0, 255],
  bool: [0, 1],
};

/** The least positive number of each float type. */
const least = { f32: 2 ** -149, f16: 2 ** -24, bf16: 2 ** -133 } as const;
const extremes: { readonly [D in DType]?: readonly number[] } = {
  i32: [-(2 ** 31), 2 ** 31 - 1],
  u32: [2 ** 32 - 1],
};

/** NaN, the infinities, zeros of both signs, ties of rounding, subnormals and the largest numbers; of integers the ends. */
export const specialValues = (dtype: DType): readonly number[] => {
  if (!isFloat(dtype)) return extremes[dtype] ?? ranges[dtype]!;
  const float = dtype as keyof typeof least;
  const [tiny, { max }] = [least[float], floatLimits[float]];
  return [NaN, Infinity, -Infinity, -0, 0, 0.5, -0.5, 1.5, 2.5, tiny, -tiny, max, -max];
};

/** Numbers of a dtype: floats from -4 to 4, most of them short binary fractions, so that they repeat and print short. */
export function numbers(
  dtype: DType = "f32",
  { special = false }: { readonly special?: boolean | readonly number[] } = {},
): fc.Arbitrary<number> {
  const [min, max] = ranges[dtype] ?? [-64, 64];
  const short = fc.integer({ min, max }).map((k) => (isFloat(dtype) ? k / 16 : k));
  const long = fc.double({ min: -4, max: 4, noNaN: true }).map((x) => Math.fround(x));
  // GPUs may take subnormal numbers as 0, so only special values have them.
  const full = long.map((x) => (Math.abs(x) < 2 ** -14 ? 0 : x));
  const list = special === true ? specialValues(dtype) : special || [];
  return fc.oneof(
    { withCrossShrink: true },
    { weight: 4, arbitrary: short },
    ...(isFloat(dtype) ? [{ weight: 4, arbitrary: full }] : []),
    ...(list.length > 0 ? [{ weight: 3, arbitrary: fc.constantFrom(...list) }] : []),
  );
}

export interface TensorsOptions {
  readonly shape?: Shape | fc.Arbitrary<Shape>;
  readonly dtype?: DType | fc.Arbitrary<DType>;
  /** Whether special values are among the others, or which. */
  readonly special?: boolean | readonly number[];
  /** What its elements are instead. */
  readonly values?: fc.Arbitrary<number>;
}

/** Anything but an arbitrary stands for itself. */
export const arbitraryOf = <T>(x: T | fc.Arbitrary<T>): fc.Arbitrary<T> =>
  x instanceof fc.Arbitrary ? x : fc.constant(x);

/** Tensors: of shapes() and f32 unless told otherwise. */
export function tensors({
  shape = shapes(),
  dtype = "f32",
  special = false,
  values,
}: TensorsOptions = {}): fc.Arbitrary<TensorCase> {
  return fc.tuple(arbitraryOf<Shape>(shape), arbitraryOf<DType>(dtype)).chain(([of, type]) => {
    const n = numel(of);
    const element = values ?? numbers(type, { special });
    return fc
      .array(element, { minLength: n, maxLength: n })
      .map((data) => new TensorCase(data, of, type));
  });
}

/** Two shapes that broadcast: axes set to 1, or dropped from the left. */
export function broadcastablePairs(
  options: ShapeOptions = {},
): fc.Arbitrary<[left: number[], right: number[]]> {
  const rank = options.maxRank ?? 4;
  const ones = fc.array(fc.boolean(), { minLength: rank, maxLength: rank });
  const side = fc.tuple(ones, fc.nat(2));
  return fc.tuple(shapes(options), side, side).map(([shape, ...sides]) => {
    const [left, right] = sides.map(([one, drop]) =>
      shape.map((d, i) => (one[i] ? 1 : d)).slice(Math.min(drop, shape.length)),
    );
    return [left, right];
  });
}

/** Numbers that pick a view whatever the shape is, so that a step can be left out and the others keep their sense. */
const picks = fc.record({
  method: fc.constantFrom<View["method"]>("permute", "flip", "slice", "expand"),
  axis: fc.nat(7),
  by: fc.nat(7),
});

/** The view that the numbers pick of a shape, and the shape that it has. */
function viewOf(
  shape: Shape,
  { method, axis, by }: { method: View["method"]; axis: number; by: number },
): [View, Shape] | null {
  const a = axis % Math.max(1, shape.length);
  const replaced = (d: number) => shape.map((old, i) => (i === a ? d : old));
  if (method === "expand") {
    if (shape[a] === 1) {
      const to = replaced(1 + (by % 4));
      return [{ method, args: [to] }, to];
    }
    const to = [1 + (by % 3), ...shape];
    return to.length <= 5 ? [{ method, args: [to] }, to] : null;
  }
  if (shape.length === 0) return null;
  if (method === "flip") return [{ method, args: [[a]] }, shape];
  if (method === "permute") {
    const axes = shape.map((_, i) => (i + 1 + by) % shape.length);
    return [{ method, args: [axes] }, axes.map((i) => shape[i])];
  }
  const step = 1 + (by % 3);
  const start = shape[a] > 1 ? by % 2 : 0;
  const size = Math.max(0, Math.ceil((shape[a] - start) / step));
  return [{ method, args: [a, start, shape[a], step] }, replaced(size)];
}

/** Tensors of which views were taken: transposed, flipped, stepped and cut, expanded. */
export function stridedViews(options: TensorsOptions = {}): fc.Arbitrary<TensorCase> {
  return fc.tuple(tensors(options), fc.array(picks, { maxLength: 4 })).map(([base, steps]) => {
    let shape = base.baseShape;
    const views: View[] = [];
    for (const pick of steps) {
      const found = viewOf(shape, pick);
      if (!found || numel(found[1]) > 4096) continue;
      views.push(found[0]);
      shape = found[1];
    }
    return new TensorCase(base.values, base.baseShape, base.dtype, views);
  });
}
