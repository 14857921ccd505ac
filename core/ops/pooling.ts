/**
 * @file Pooling: reductions over windows that are read in place, so each is one kernel. Spatial axes come last; leading axes
 * (batch, channels) are kept: [N, C, S…] or [C, S…].
 */
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { numel } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { regionNodes } from "../transform/region.ts";
import { gradients } from "../transform/vjp.ts";
import { along } from "./axes.ts";
import { type PerAxis, perAxis, windows } from "./convolution.ts";
import type { ValuesAndIndices } from "./extrema.ts";
import { describeNode, inFloat32, isHalfTensor, nodeOf } from "./promotion.ts";

export interface PoolOptions {
  /** Step between windows (default: the kernel's size). */
  stride?: PerAxis;
  /** Elements on both sides that are never the maximum, or zeros of the mean (default 0). */
  padding?: PerAxis;
  /** A last window that starts inside the input but ends outside of it counts too (default false). */
  ceilMode?: boolean;
}

export interface MaxPoolOptions extends PoolOptions {
  /** Step inside a window (default 1). */
  dilation?: PerAxis;
  /** Also tell where the maxima are (default false). */
  returnIndices?: boolean;
}

type WithIndices = MaxPoolOptions & { returnIndices: true };

export interface AvgPoolOptions extends PoolOptions {
  /** Zeros of the padding count as elements (default true). */
  countIncludePad?: boolean;
  /** Divides by this instead of the number of elements. */
  divisorOverride?: number;
}

/**
 * Maxima over windows of [*, L]; equal ones: the gradient goes to the first. With `returnIndices` also where in
 * [L] they are (i32): what maxUnpool1d takes.
 */
export function maxPool1d(
  input: Tensor,
  kernelSize: PerAxis,
  options: WithIndices,
): ValuesAndIndices;
export function maxPool1d(input: Tensor, kernelSize: PerAxis, options?: MaxPoolOptions): Tensor;
export function maxPool1d(input: Tensor, kernelSize: PerAxis, options?: MaxPoolOptions) {
  return maxPool("maxPool1d", 1, input, kernelSize, options);
}

/**
 * Maxima over windows of [*, H, W]; equal ones: the gradient goes to the first. With `returnIndices` also where in
 * [H, W] they are, counted row by row (i32): what maxUnpool2d takes.
 */
export function maxPool2d(
  input: Tensor,
  kernelSize: PerAxis,
  options: WithIndices,
): ValuesAndIndices;
export function maxPool2d(input: Tensor, kernelSize: PerAxis, options?: MaxPoolOptions): Tensor;
export function maxPool2d(input: Tensor, kernelSize: PerAxis, options?: MaxPoolOptions) {
  return maxPool("maxPool2d", 2, input, kernelSize, options);
}

/**
 * Maxima over windows of [*, D, H, W]; equal ones: the gradient goes to the first. With `returnIndices` also where in
 * [D, H, W] they are, counted row by row (i32): what maxUnpool3d takes.
 */
export function maxPool3d(
  input: Tensor,
  kernelSize: PerAxis,
  options: WithIndices,
): ValuesAndIndices;
export function maxPool3d(input: Tensor, kernelSize: PerAxis, options?: MaxPoolOptions): Tensor;
export function maxPool3d(input: Tensor, kernelSize: PerAxis, options?: MaxPoolOptions) {
  return maxPool("maxPool3d", 3, input, kernelSize, options);
}

/** Means over windows of [*, L]. */
export function avgPool1d(input: Tensor, kernelSize: PerAxis, options?: AvgPoolOptions): Tensor {
  return avgPool("avgPool1d", 1, input, kernelSize, options);
}

/** Means over windows of [*, H, W]. */
export function avgPool2d(input: Tensor, kernelSize: PerAxis, options?: AvgPoolOptions): Tensor {
  return avgPool("avgPool2d", 2, input, kernelSize, options);
}

/** Means over windows of [*, D, H, W]. */
export function avgPool3d(input: Tensor, kernelSize: PerAxis, options?: AvgPoolOptions): Tensor {
  return avgPool("avgPool3d", 3, input, kernelSize, options);
}

// --- windows --------------------------------------------------------------------------------------------------------

interface Pool {
  /** The input as [M, 1, S…], its leading axes, and the geometry. */
  readonly x: Node;
  readonly leading: readonly number[];
  readonly kernel: readonly number[];
  readonly stride: readonly number[];
  readonly dilation: readonly number[];
  readonly lo: readonly number[];
  /** What the last window needs beyond the input and beyond its padding. */
  readonly hi: readonly number[];
  readonly padding: readonly number[];
}

function prepare(
  op: string,
  rank: number,
  input: Tensor,
  kernelSize: PerAxis,
  { stride = kernelSize, padding = 0, dilation = 1, ceilMode = false }: MaxPoolOptions,
): Pool {
  const n = spatial(op, rank, input);
  const leading = n.shape.slice(0, -rank);
  const S = n.shape.slice(-rank);
  const kernel = perAxis(op, "kernelSize", kernelSize, rank, 1);
  const steps = perAxis(op, "stride", stride, rank, 1);
  const pads = perAxis(op, "padding", padding, rank, 0);
  const gaps = perAxis(op, "dilation", dilation, rank, 1);
  if (pads.some((p, i) => 2 * p > kernel[i]))
    throw new ArgumentError(
      describe(op, "padding of at most half the kernel", JSON.stringify(padding)),
    );
  const hi = S.map((d, i) => {
    const span = gaps[i] * (kernel[i] - 1) + 1;
    const free = d + 2 * pads[i] - span;
    if (free < 0)
      throw new ShapeError(
        describe(op, "an input at least as large as the kernel", describeNode(n)),
      );
    let count = (ceilMode ? Math.ceil(free / steps[i]) : Math.floor(free / steps[i])) + 1;
    // A window must start inside the input or its left padding.
    if ((count - 1) * steps[i] >= d + pads[i]) count--;
    return Math.max(pads[i], (count - 1) * steps[i] + span - d - pads[i]);
  });
  const x = g.reshape(n, [numel(leading), 1, ...S]);
  return { x, leading, kernel, stride: steps, dilation: gaps, lo: pads, hi, padding: pads };
}

/** A float tensor with `rank` axes at least. */
export function spatial(op: string, rank: number, input: Tensor): Node {
  const n = nodeOf(op, input);
  if (n.shape.length < rank + 1 || n.shape.length > rank + 2)
    throw new ShapeError(
      describe(op, `[N, C, …] or [C, …] with ${rank} spatial axes`, describeNode(n)),
    );
  if (!isFloat(n.dtype)) throw new DTypeError(describe(op, "a float input", describeNode(n)));
  return n;
}

/** [M, 1, S…] → [M, 1, O…, K], each window's elements in row-major order. */
function flatWindows(x: Node, pool: Pool, fill: number): Node {
  const { kernel, stride, dilation, lo, hi } = pool;
  const all = windows(g.pad(x, [0, 0, ...lo], [0, 0, ...hi], fill), kernel, stride, dilation);
  const out = all.shape.slice(0, all.shape.length - kernel.length);
  return g.reshape(all, [...out, numel(kernel)]);
}

const restored = (y: Node, { leading }: Pool): Tensor =>
  fromNode(g.reshape(y, [...leading, ...y.shape.slice(2)]));

function maxPool(
  op: string,
  rank: number,
  input: Tensor,
  kernelSize: PerAxis,
  options: MaxPoolOptions = {},
): Tensor | ValuesAndIndices {
  const pool = prepare(op, rank, input, kernelSize, options);
  const last = rank + 2;
  const [y] = regionNodes(
    "custom",
    op,
    ([x]) => [g.amax(flatWindows(x, pool, -Infinity), [last])],
    [pool.x],
    ([x], _, [ct]) => {
      // To the first of equal maxima, as PyTorch.
      const all = flatWindows(x, pool, -Infinity);
      const first = g.keepdim(g.argmax(all, last), [last], all.shape);
      const hit = g.eq(g.iota(all.shape[last]), first);
      const share = g.where(hit, g.keepdim(ct, [last], all.shape), constant(0, ct.dtype));
      return gradients([all], [share], [x]);
    },
  );
  const values = restored(y, pool);
  return options.returnIndices ? { values, indices: restored(positions(pool), pool) } : values;
}

/** Where in the input the first maximum of each window is, as one number over its spatial axes. */
function positions(pool: Pool): Node {
  const { x, kernel, stride, dilation, lo } = pool;
  const i32 = (v: number): Node => constant(v, "i32");
  const k = g.argmax(flatWindows(x, pool, -Infinity), kernel.length + 2);
  let position: Node = i32(0);
  let below = numel(kernel);
  for (const [i, size] of kernel.entries()) {
    const [axis, length] = [i + 2, x.shape[i + 2]];
    below /= size;
    const inside = g.mul(g.rem(g.idiv(k, i32(below)), i32(size)), i32(dilation[i]));
    const begin = g.sub(g.mul(along(g.iota(k.shape[axis]), axis, k.shape.length), i32(stride[i])), i32(lo[i])); // biome-ignore format: one line
    // The first of equal maxima may be padding only where all are -∞.
    const at = g.min(g.max(g.add(begin, inside), i32(0)), i32(length - 1));
    position = g.add(g.mul(position, i32(length)), at);
  }
  return position;
}

function avgPool(
  op: string,
  rank: number,
  input: Tensor,
  kernelSize: PerAxis,
  settings: AvgPoolOptions = {},
): Tensor {
  if (isHalfTensor(input)) return inFloat32(op, avgPool, op, rank, input, kernelSize, settings);
  const { countIncludePad = true, divisorOverride, ...options } = settings;
  const pool = prepare(op, rank, input, kernelSize, options);
  const total = g.sum(flatWindows(pool.x, pool, 0), [rank + 2]);
  if (divisorOverride !== undefined) {
    if (divisorOverride === 0)
      throw new ArgumentError(describe(op, "a divisorOverride other than 0", "0"));
    return restored(g.div(total, g.scalarLike(total, divisorOverride)), pool);
  }
  // Per axis how many elements of a window count: all, except beyond the input, or beyond its padding.
  const { kernel, stride, padding, hi } = pool;
  let count: Node = g.scalarLike(total, 1);
  for (let i = 0; i < rank; i++) {
    const counted = pool.x.shape[2 + i] + (countIncludePad ? 2 * padding[i] : 0);
    const before = countIncludePad ? 0 : padding[i];
    const after = hi[i] + padding[i] + pool.x.shape[2 + i] - counted - before;
    const ones = g.expand(constant(1, total.dtype), [counted]);
    const sums = g.sum(g.window(g.pad(ones, [before], [after]), 0, kernel[i], stride[i]), [1]);
    const shape = total.shape.map((d, j) => (j === 2 + i ? d : 1));
    count = g.mul(count, g.reshape(sums, shape));
  }
  return restored(g.div(total, count), pool);
}
