/**
 * @file Making tensors from tensors and counts: coordinate grids, block diagonals, index pairs, more axes. None is a
 * method.
 */
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import { constant } from "../graph/primitives.ts";
import { numel } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { checkShape } from "./axes.ts";
import { linspace, type TensorOptions, tensor } from "./create.ts";
import { cat, stack } from "./join.ts";
import { describeNode, nodeOf } from "./promotion.ts";

/**
 * Coordinates of a grid: one tensor per 1-d (or 0-d) operand, each varying along its own axis. With "xy" the first two
 * axes are exchanged, as columns come before rows in pictures.
 */
export function meshgrid(tensors: readonly Tensor[], indexing: "ij" | "xy" = "ij"): Tensor[] {
  if (indexing !== "ij" && indexing !== "xy")
    throw new ArgumentError(describe("meshgrid", "indexing 'ij' or 'xy'", String(indexing)));
  const nodes = tensors.map((t) => nodeOf("meshgrid", t));
  for (const n of nodes)
    if (n.shape.length > 1)
      throw new ShapeError(describe("meshgrid", "1-d tensors", describeNode(n)));
  const shape = nodes.map((n) => numel(n.shape));
  const swap = indexing === "xy" && nodes.length > 1;
  const order = shape.map((_, i) => (swap && i < 2 ? 1 - i : i));
  return nodes.map((n, i) => {
    const line = g.reshape(n, shape.map((d, k) => (k === i ? d : 1))); // biome-ignore format: one line
    return fromNode(g.permute(g.expand(line, shape), order));
  });
}

/** All tuples of one element of each 1-d tensor, as rows: [n₁·n₂·…, count]; of a single tensor, itself. */
export function cartesianProd(...tensors: readonly Tensor[]): Tensor {
  if (tensors.length === 1) return tensors[0];
  const columns = meshgrid(tensors).map((t) => fromNode(g.reshape(t.node, [numel(t.shape)])));
  return stack(columns, 1);
}

/** A matrix with the given matrices along its diagonal and zeros elsewhere; vectors count as rows. */
export function blockDiag(...tensors: readonly Tensor[]): Tensor {
  const blocks = tensors.map((t) => atleast2d(t));
  for (const t of blocks)
    if (t.shape.length !== 2)
      throw new ShapeError(describe("blockDiag", "at most two axes", describeNode(t.node)));
  const total = blocks.reduce((n, t) => n + t.shape[1], 0);
  let before = 0;
  const rows = blocks.map((t) => {
    const lo = [0, before];
    before += t.shape[1];
    return fromNode(g.pad(t.node, lo, [0, total - before]));
  });
  return cat(rows, 0);
}

/** `steps` numbers from base^start to base^end, evenly spaced on a logarithmic scale. */
export function logspace(
  start: number,
  end: number,
  steps: number,
  { base = 10, ...options }: TensorOptions & { base?: number } = {},
): Tensor {
  if (!isFloat(options.dtype ?? "f32"))
    throw new DTypeError(describe("logspace", "a float dtype", options.dtype!));
  const exponents = linspace(start, end, steps, { ...options, dtype: "f32" });
  const powers = g.pow(constant(Math.fround(base), "f32"), exponents.node);
  const t = fromNode(g.cast(powers, options.dtype ?? "f32"));
  if (options.requiresGrad) t.requiresGrad = true;
  return t;
}

/** Rows and columns of the elements on and below a diagonal, row by row: [2, count], i32. */
export function trilIndices(rows: number, columns: number, offset = 0): Tensor {
  return triangle("trilIndices", rows, columns, (r) => [0, Math.min(r + offset + 1, columns)]);
}

/** Rows and columns of the elements on and above a diagonal, row by row: [2, count], i32. */
export function triuIndices(rows: number, columns: number, offset = 0): Tensor {
  return triangle("triuIndices", rows, columns, (r) => [Math.max(r + offset, 0), columns]);
}

/** A 0-d tensor as one with an axis of size 1; others as they are. */
export function atleast1d(x: Tensor): Tensor {
  const n = nodeOf("atleast1d", x);
  return n.shape.length >= 1 ? x : fromNode(g.reshape(n, [1]));
}

/** With axes of size 1 in front until there are two. */
export function atleast2d(x: Tensor): Tensor {
  const n = nodeOf("atleast2d", x);
  return n.shape.length >= 2 ? x : fromNode(g.reshape(n, [1, numel(n.shape)]));
}

/** With axes of size 1 until there are three: a vector [n] becomes [1, n, 1], a matrix [m, n] [m, n, 1]. */
export function atleast3d(x: Tensor): Tensor {
  const n = nodeOf("atleast3d", x);
  if (n.shape.length >= 3) return x;
  const shape = n.shape.length === 2 ? [...n.shape, 1] : [1, numel(n.shape), 1];
  return fromNode(g.reshape(n, shape));
}

// --- helpers -------------------------------------------------------------------------------------

function triangle(
  op: string,
  rows: number,
  columns: number,
  rangeOf: (row: number) => [number, number],
): Tensor {
  checkShape(op, [rows, columns]);
  const pairs: [number, number][] = [];
  for (let r = 0; r < rows; r++) {
    const [from, to] = rangeOf(r);
    for (let c = from; c < to; c++) pairs.push([r, c]);
  }
  const flat = Int32Array.from([...pairs.map(([r]) => r), ...pairs.map(([, c]) => c)]);
  return tensor(flat, { shape: [2, pairs.length] });
}
