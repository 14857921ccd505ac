/**
 * @file Searching: positions in sorted sequences, and what depends on the data for its shape and is therefore a promise
 * (`nonzero`, `unique`): it reads the values and cannot stand inside a compiled function. Every export is also a Tensor
 * method.
 */
import { describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import { sameShape, stridesOf } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { tensor } from "./create.ts";
import { flatten, insertionPoints } from "./ordering.ts";
import { describeNode, nodeOf, pair } from "./promotion.ts";

/**
 * Where each of `values` would be inserted in x, sorted along its last axis, to keep it sorted (i32): before equal
 * elements, after them with `right`. x is 1-d, or its other axes are those of `values`.
 */
export function searchsorted(
  x: Tensor,
  values: Tensor,
  { right = false }: { right?: boolean } = {},
): Tensor {
  const [sorted, v] = pair("searchsorted", x, values);
  if (sorted.shape.length === 1)
    return fromNode(g.reshape(insertionPoints(sorted, flatten(v), right), v.shape));
  if (!sameShape(sorted.shape.slice(0, -1), v.shape.slice(0, -1)) || sorted.shape.length === 0)
    throw new ShapeError(
      describe(
        "searchsorted",
        "a 1-d sequence, or equal shapes except for the last axis",
        `${describeNode(sorted)}, ${describeNode(v)}`,
      ),
    );
  return fromNode(insertionPoints(sorted, v, right));
}

/** The bucket of each element between sorted 1-d `boundaries` (i32): as `searchsorted(boundaries, x)`. */
export function bucketize(
  x: Tensor,
  boundaries: Tensor,
  options: { right?: boolean } = {},
): Tensor {
  const n = nodeOf("bucketize", boundaries);
  if (n.shape.length !== 1)
    throw new ShapeError(describe("bucketize", "1-d boundaries", describeNode(n)));
  return searchsorted(boundaries, x, options);
}

/** The positions of the elements that are not 0, [count, rank] of i32, in row-major order. */
export async function nonzero(x: Tensor): Promise<Tensor> {
  const { shape } = nodeOf("nonzero", x);
  const strides = stridesOf(shape);
  const found: number[] = [];
  let count = 0;
  for (const [i, v] of (await x.data()).entries()) {
    if (v === 0) continue;
    count++;
    for (const [axis, d] of shape.entries()) found.push(Math.floor(i / strides[axis]) % d);
  }
  const options = { dtype: "i32", shape: [count, shape.length], device: x.device } as const;
  return tensor(Int32Array.from(found), options);
}

/**
 * The different neighbours of x, flattened: each run of equal elements once, in x's order, with where each element of x went
 * and the length of each run. A promise, as `unique`.
 */
export async function uniqueConsecutive(x: Tensor): Promise<Unique> {
  const { shape, dtype } = nodeOf("uniqueConsecutive", x);
  const data = await x.data();
  const [values, counts]: number[][] = [[], []];
  const inverse = new Int32Array(data.length);
  for (const [i, v] of data.entries()) {
    if (i === 0 || v !== data[i - 1]) {
      values.push(v);
      counts.push(0);
    }
    counts[counts.length - 1]++;
    inverse[i] = values.length - 1;
  }
  const { device } = x;
  return {
    values: tensor(Float64Array.from(values), { dtype, device }),
    inverse: tensor(inverse, { dtype: "i32", shape, device }),
    counts: tensor(Int32Array.from(counts), { dtype: "i32", device }),
  };
}

export interface Unique {
  /** The different values in ascending order. */
  readonly values: Tensor;
  /** For each element of x where its value is among them (i32), in x's shape. */
  readonly inverse: Tensor;
  /** How often each value occurs (i32). */
  readonly counts: Tensor;
}

/** The different elements of x. Every NaN is different from every other, as in PyTorch. */
export async function unique(x: Tensor): Promise<Unique> {
  const { shape, dtype } = nodeOf("unique", x);
  const data = await x.data();
  const position = (a: number, b: number): number => (a < b ? -1 : a > b ? 1 : 0);
  const order = Array.from(data.keys()).sort(
    (i, j) =>
      Number(Number.isNaN(data[i])) - Number(Number.isNaN(data[j])) || position(data[i], data[j]),
  );
  const [values, counts]: number[][] = [[], []];
  const inverse = new Int32Array(data.length);
  for (const i of order) {
    if (values.length === 0 || values[values.length - 1] !== data[i]) {
      values.push(data[i]);
      counts.push(0);
    }
    counts[counts.length - 1]++;
    inverse[i] = values.length - 1;
  }
  const { device } = x;
  return {
    values: tensor(Float64Array.from(values), { dtype, device }),
    inverse: tensor(inverse, { dtype: "i32", shape, device }),
    counts: tensor(Int32Array.from(counts), { dtype: "i32", device }),
  };
}
