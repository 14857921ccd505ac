/**
 * @file Adaptive pooling: over `outputSize` bins [⌊i·L/out⌋, ⌈(i+1)·L/out⌉) of each spatial axis, one axis after the other. Axes come
 * last; leading ones (batch, channels) are kept.
 */
import { ArgumentError, describe } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { numel } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import type { ValuesAndIndices } from "./extrema.ts";
import { spatial } from "./pooling.ts";
import { inWide } from "./promotion.ts";

/** A size for all axes or one for each; null keeps an axis. */
export type AdaptiveSize = number | null | readonly (number | null)[];

export interface AdaptiveMaxPoolOptions {
  /** Also tell where the maxima are (default false). */
  returnIndices?: boolean;
}

type WithIndices = AdaptiveMaxPoolOptions & { returnIndices: true };

/** Means over bins of [*, L]. */
export function adaptiveAvgPool1d(input: Tensor, outputSize: AdaptiveSize): Tensor {
  return averages("adaptiveAvgPool1d", 1, input, outputSize);
}

/** Means over bins of [*, H, W]. */
export function adaptiveAvgPool2d(input: Tensor, outputSize: AdaptiveSize): Tensor {
  return averages("adaptiveAvgPool2d", 2, input, outputSize);
}

/** Means over bins of [*, D, H, W]. */
export function adaptiveAvgPool3d(input: Tensor, outputSize: AdaptiveSize): Tensor {
  return averages("adaptiveAvgPool3d", 3, input, outputSize);
}

/**
 * Maxima over bins of [*, L]; equal ones: the gradient goes to the first. With `returnIndices` also where in [L] they are
 * (i32).
 */
export function adaptiveMaxPool1d(
  input: Tensor,
  outputSize: AdaptiveSize,
  options: WithIndices,
): ValuesAndIndices;
export function adaptiveMaxPool1d(
  input: Tensor,
  outputSize: AdaptiveSize,
  options?: AdaptiveMaxPoolOptions,
): Tensor;
export function adaptiveMaxPool1d(
  input: Tensor,
  outputSize: AdaptiveSize,
  options?: AdaptiveMaxPoolOptions,
) {
  return maxima("adaptiveMaxPool1d", 1, input, outputSize, options);
}

/** Maxima over bins of [*, H, W]; indices count row by row. See adaptiveMaxPool1d. */
export function adaptiveMaxPool2d(
  input: Tensor,
  outputSize: AdaptiveSize,
  options: WithIndices,
): ValuesAndIndices;
export function adaptiveMaxPool2d(
  input: Tensor,
  outputSize: AdaptiveSize,
  options?: AdaptiveMaxPoolOptions,
): Tensor;
export function adaptiveMaxPool2d(
  input: Tensor,
  outputSize: AdaptiveSize,
  options?: AdaptiveMaxPoolOptions,
) {
  return maxima("adaptiveMaxPool2d", 2, input, outputSize, options);
}

/** Maxima over bins of [*, D, H, W]; indices count row by row. See adaptiveMaxPool1d. */
export function adaptiveMaxPool3d(
  input: Tensor,
  outputSize: AdaptiveSize,
  options: WithIndices,
): ValuesAndIndices;
export function adaptiveMaxPool3d(
  input: Tensor,
  outputSize: AdaptiveSize,
  options?: AdaptiveMaxPoolOptions,
): Tensor;
export function adaptiveMaxPool3d(
  input: Tensor,
  outputSize: AdaptiveSize,
  options?: AdaptiveMaxPoolOptions,
) {
  return maxima("adaptiveMaxPool3d", 3, input, outputSize, options);
}

function sizesOf(op: string, rank: number, { shape }: Node, size: AdaptiveSize): number[] {
  const sizes = Array.isArray(size) ? size : new Array<number | null>(rank).fill(size as number);
  if (sizes.length !== rank || sizes.some((s) => s !== null && !(Number.isInteger(s) && s >= 1)))
    throw new ArgumentError(
      describe(op, `a positive size or null for ${rank} axes`, JSON.stringify(size)),
    );
  return sizes.map((s, i) => s ?? shape[shape.length - rank + i]);
}

function averages(op: string, rank: number, input: Tensor, size: AdaptiveSize): Tensor {
  let n = spatial(op, rank, input);
  for (const [i, wanted] of sizesOf(op, rank, n, size).entries()) {
    const axis = n.shape.length - rank + i;
    if (wanted !== n.shape[axis]) n = inWide((x) => meanOfBins(x, axis, wanted), n);
  }
  return fromNode(n);
}

function maxima(
  op: string,
  rank: number,
  input: Tensor,
  size: AdaptiveSize,
  { returnIndices = false }: AdaptiveMaxPoolOptions = {},
): Tensor | ValuesAndIndices {
  let n = spatial(op, rank, input);
  const sizes = sizesOf(op, rank, n, size);
  const places = n.shape.slice(-rank);
  let at = g.expand(g.reshape(g.iota(numel(places)), places), n.shape);
  // From the last axis on: of equal maxima, the first in the order of memory.
  for (let i = rank - 1; i >= 0; i--) {
    const axis = n.shape.length - rank + i;
    if (sizes[i] === n.shape[axis]) continue;
    const first = firstOfBins(n, axis, sizes[i]);
    [n, at] = [g.gather(n, first, axis), g.gather(at, first, axis)];
  }
  return returnIndices ? { values: fromNode(n), indices: fromNode(at) } : fromNode(n);
}

const i32 = (value: number): Node => constant(value, "i32");

/** [size]: where each bin starts. */
const starts = (length: number, size: number): Node =>
  g.idiv(g.mul(g.iota(size), i32(length)), i32(size));

/** [size, length] of bools: does the bin hold the element? */
function bins(length: number, size: number): Node {
  const j = g.iota(length);
  const begin = g.reshape(starts(length, size), [size, 1]);
  const i = g.reshape(g.iota(size), [size, 1]);
  const end = g.idiv(g.add(g.mul(g.add(i, i32(1)), i32(length)), i32(size - 1)), i32(size));
  return g.and(g.le(begin, j), g.lt(j, end));
}

/** x with `axis` last and a bin axis of 1 before it, and the way back. */
function binned(x: Node, axis: number): { lined: Node; back(y: Node): Node } {
  const order = x.shape.map((_, i) => i).filter((i) => i !== axis);
  const turned = g.permute(x, [...order, axis]);
  const lined = g.reshape(turned, [...turned.shape.slice(0, -1), 1, x.shape[axis]]);
  const inverse = x.shape.map((_, i) => (i === axis ? order.length : order.indexOf(i)));
  return { lined, back: (y) => g.permute(y, inverse) };
}

function meanOfBins(x: Node, axis: number, size: number): Node {
  const { lined, back } = binned(x, axis);
  const member = bins(x.shape[axis], size);
  const last = lined.shape.length - 1;
  const total = g.sum(g.where(member, lined, g.scalarLike(x, 0)), [last]);
  return back(g.div(total, g.sum(g.cast(member, x.dtype), [1])));
}

/** Where along the axis the first maximum of each bin is. */
function firstOfBins(x: Node, axis: number, size: number): Node {
  const { lined, back } = binned(x, axis);
  const length = x.shape[axis];
  const masked = g.where(bins(length, size), lined, g.scalarLike(x, -Infinity));
  // A bin of nothing but -∞ does not differ from what is masked before it.
  return back(g.max(g.argmax(masked, masked.shape.length - 1), starts(length, size)));
}
