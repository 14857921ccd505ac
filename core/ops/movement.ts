/**
 * @file Rearranging elements without computing: shapes, orders, repetition, parts of axes. Results
 * are values, not aliases (an in-place change of one tensor never shows in another). Every export
 * is also a Tensor method.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { formatShape, numel, type Shape } from "../shape.ts";
import { fromNode, Tensor } from "../tensor.ts";
import { axesOf, axisOf, checkArray, checkShape, type Dim } from "./axes.ts";
import { part } from "./compose.ts";
import { indexSelectNode } from "./lookup.ts";
import { insertionPoints } from "./ordering.ts";
import { type PadMode, padByMode } from "./padding.ts";
import { describeNode, indexNode, nodeOf } from "./promotion.ts";

/** The same elements, row-major, in another shape; one size may be -1 and is inferred. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const n = nodeOf("reshape", x);
  return fromNode(g.reshape(n, inferred("reshape", n.shape, shape)));
}

/** As `reshape`: a tensor has no strides that could stand in the way. */
export function view(x: Tensor, shape: Shape): Tensor {
  return reshape(x, shape);
}

/** The axes from `start` to `end`, both included, made one. */
export function flatten(x: Tensor, start = 0, end = -1): Tensor {
  const n = nodeOf("flatten", x);
  const rank = n.shape.length;
  if (rank === 0) return fromNode(g.reshape(n, [1]));
  const [a, b] = [axisOf("flatten", start, rank), axisOf("flatten", end, rank)];
  if (a > b) throw new ArgumentError(describe("flatten", "start ≤ end", `${start}, ${end}`));
  const middle = numel(n.shape.slice(a, b + 1));
  return fromNode(g.reshape(n, [...n.shape.slice(0, a), middle, ...n.shape.slice(b + 1)]));
}

/** One axis split into several; one of the sizes may be -1. */
export function unflatten(x: Tensor, dim: number, sizes: Shape): Tensor {
  const n = nodeOf("unflatten", x);
  const a = axisOf("unflatten", dim, n.shape.length);
  const parts = inferred("unflatten", [n.shape[a]], sizes);
  return fromNode(g.reshape(n, [...n.shape.slice(0, a), ...parts, ...n.shape.slice(a + 1)]));
}

/** Axes in another order: axis i of the result is axis `dims[i]` of x. */
export function permute(x: Tensor, dims: readonly number[]): Tensor {
  const n = nodeOf("permute", x);
  checkArray("permute", dims);
  return fromNode(
    g.permute(
      n,
      dims.map((d) => axisOf("permute", d, n.shape.length)),
    ),
  );
}

/** Two axes exchanged. */
export function transpose(x: Tensor, dim0: number, dim1: number): Tensor {
  const n = nodeOf("transpose", x);
  const rank = n.shape.length;
  const [a, b] = [axisOf("transpose", dim0, rank), axisOf("transpose", dim1, rank)];
  return fromNode(
    g.permute(
      n,
      n.shape.map((_, i) => (i === a ? b : i === b ? a : i)),
    ),
  );
}

/** As `transpose`. */
export function swapaxes(x: Tensor, dim0: number, dim1: number): Tensor {
  return transpose(x, dim0, dim1);
}

/** Moves axes to other positions; the rest keep their order. */
export function movedim(x: Tensor, from: Dim, to: Dim): Tensor {
  const n = nodeOf("movedim", x);
  const list = (d: Dim) => (d === undefined ? [] : typeof d === "number" ? [d] : [...d]);
  const [sources, targets] = [from, to].map((d) =>
    list(d).map((a) => axisOf("movedim", a, n.shape.length)),
  );
  if (sources.length !== targets.length)
    throw new ArgumentError(describe("movedim", "as many targets as sources", `${from}, ${to}`));
  const rest = [...n.shape.keys()].filter((a) => !sources.includes(a));
  const axes = n.shape.map((_, i) => {
    const at = targets.indexOf(i);
    return at >= 0 ? sources[at] : rest.shift()!;
  });
  return fromNode(g.permute(n, axes));
}

/** Removes axes of size 1: all, or those of `dim` that have size 1. */
export function squeeze(x: Tensor, dim?: Dim): Tensor {
  const n = nodeOf("squeeze", x);
  const axes = axesOf("squeeze", dim, n.shape.length);
  return fromNode(
    g.reshape(
      n,
      n.shape.filter((d, i) => d !== 1 || !axes.includes(i)),
    ),
  );
}

/** A new axis of size 1 at `dim`. */
export function unsqueeze(x: Tensor, dim: number): Tensor {
  const n = nodeOf("unsqueeze", x);
  const a = axisOf("unsqueeze", dim, n.shape.length + 1);
  return fromNode(g.reshape(n, [...n.shape.slice(0, a), 1, ...n.shape.slice(a)]));
}

/** Axes of size 1 repeated to `shape`, new axes in front; -1 keeps a size. */
export function expand(x: Tensor, shape: Shape): Tensor {
  const n = nodeOf("expand", x);
  checkArray("expand", shape);
  const added = shape.length - n.shape.length;
  const sizes = shape.map((d, i) => (d === -1 && i >= added ? n.shape[i - added] : d));
  return fromNode(g.expand(n, checkShape("expand", sizes)));
}

/** As `expand`, without -1. */
export function broadcastTo(x: Tensor, shape: Shape): Tensor {
  return fromNode(g.expand(nodeOf("broadcastTo", x), checkShape("broadcastTo", shape)));
}

/** x broadcast to the shape of another tensor. */
export function expandAs(x: Tensor, other: Tensor): Tensor {
  return broadcastTo(x, other.shape);
}

/**
 * The whole tensor repeated `repeats[i]` times along axis i; extra counts make new axes in front.
 */
export function repeat(x: Tensor, repeats: readonly number[]): Tensor {
  const n = nodeOf("repeat", x);
  checkArray("repeat", repeats);
  const added = repeats.length - n.shape.length;
  if (added < 0)
    throw new ArgumentError(
      describe("repeat", `at least ${n.shape.length} counts`, formatShape(repeats)),
    );
  return fromNode(repeated(n, checkShape("repeat", repeats), added));
}

/** As `repeat`, but with too few counts the first axes are taken once. */
export function tile(x: Tensor, repeats: readonly number[]): Tensor {
  checkArray("tile", repeats);
  const missing = Math.max(nodeOf("tile", x).shape.length - repeats.length, 0);
  return repeat(x, [...Array(missing).fill(1), ...repeats]);
}

/**
 * Each element repeated `repeats` times along `dim`, or in the flattened tensor. A 1-d tensor of counts, one for each
 * position, needs the sum of them as `outputSize`: the shape cannot depend on the data. Where that is not the sum, reading
 * the result is an IndexOutOfRangeError.
 */
export function repeatInterleave(
  x: Tensor,
  repeats: number | Tensor,
  dim?: number,
  { outputSize }: { outputSize?: number } = {},
): Tensor {
  if (dim === undefined) return repeatInterleave(reshape(x, [-1]), repeats, 0, { outputSize });
  const n = nodeOf("repeatInterleave", x);
  const a = axisOf("repeatInterleave", dim, n.shape.length) + 1;
  if (repeats instanceof Tensor) return fromNode(interleaved(n, a - 1, repeats, outputSize));
  checkShape("repeatInterleave", [repeats]);
  const [head, tail] = [n.shape.slice(0, a), n.shape.slice(a)];
  const wide = g.expand(g.reshape(n, [...head, 1, ...tail]), [...head, repeats, ...tail]);
  return fromNode(g.reshape(wide, [...head.slice(0, -1), head[a - 1] * repeats, ...tail]));
}

function interleaved(n: Node, axis: number, repeats: Tensor, size: number | undefined): Node {
  const counts = indexNode("repeatInterleave", repeats);
  if (counts.shape.length !== 1 || counts.shape[0] !== n.shape[axis])
    throw new ShapeError(
      describe("repeatInterleave", `a number, or [${n.shape[axis]}] counts`, describeNode(counts)),
    );
  if (!(Number.isInteger(size) && size! >= 0))
    throw new ArgumentError(
      describe(
        "repeatInterleave",
        "the outputSize beside counts that are a tensor",
        String(size),
        "read it first: Number(await repeats.sum().item())",
      ),
    );
  const ends = g.cumulative(counts, 0, "sum");
  const at = insertionPoints(ends, g.iota(size!), true);
  const fits = g.eq(g.sum(counts, [0]), constant(size!, "i32"));
  return indexSelectNode(n, axis, g.where(fits, at, constant(-1, "i32")));
}

/** The order of elements along `dims` reversed. */
export function flip(x: Tensor, dims: Dim): Tensor {
  const n = nodeOf("flip", x);
  return fromNode(g.flip(n, axesOf("flip", dims, n.shape.length)));
}

/**
 * Elements moved by `shifts` along `dims`; what leaves at one end returns at the other. Without
 * dims, in the flattened tensor.
 */
export function roll(x: Tensor, shifts: Dim, dims?: Dim): Tensor {
  const n = nodeOf("roll", x);
  const list = (d: Dim) => (d === undefined ? [] : typeof d === "number" ? [d] : [...d]);
  if (dims === undefined) return reshape(roll(reshape(x, [-1]), shifts, 0), n.shape);
  const [counts, axes] = [list(shifts), list(dims)];
  if (counts.length !== axes.length)
    throw new ArgumentError(describe("roll", "as many shifts as dims", `${shifts}, ${dims}`));
  const result = axes.reduce((m, dim, i) => {
    const a = axisOf("roll", dim, m.shape.length);
    const size = m.shape[a];
    const cut = size === 0 ? 0 : ((-counts[i] % size) + size) % size;
    return cut === 0 ? m : g.concat([part(m, a, cut, size), part(m, a, 0, cut)], a);
  }, n);
  return fromNode(result);
}

/**
 * Padding as PyTorch's `F.pad`: pairs (before, after) from the last axis backwards; negative amounts
 * crop. `x.pad([1, 2])` pads the last axis. `fill` is a number, or how the tensor goes on: "reflect"
 * (mirrored at the edge element), "replicate" (the edge element again) or "circular".
 */
export function pad(x: Tensor, amounts: readonly number[], fill: number | PadMode = 0): Tensor {
  const n = nodeOf("pad", x);
  const rank = n.shape.length;
  if (amounts.length % 2 !== 0 || amounts.length > 2 * rank || !amounts.every(Number.isInteger))
    throw new ArgumentError(
      describe("pad", `up to ${rank} pairs of integers`, formatShape(amounts)),
    );
  const lo = new Array<number>(rank).fill(0);
  const hi = new Array<number>(rank).fill(0);
  for (let i = 0; i < amounts.length; i += 2) {
    lo[rank - 1 - i / 2] = amounts[i];
    hi[rank - 1 - i / 2] = amounts[i + 1];
  }
  if (typeof fill !== "number") return fromNode(padByMode(n, lo, hi, fill));
  const start = lo.map((v) => Math.max(-v, 0));
  const size = n.shape.map((d, i) => d - start[i] + Math.min(hi[i], 0));
  if (size.some((d) => d < 0))
    throw new ShapeError(
      describe(
        "pad",
        "to crop at most what there is",
        `${describeNode(n)} by ${formatShape(amounts)}`,
      ),
    );
  const positive = (v: number) => Math.max(v, 0);
  const cropped = g.slice(
    n,
    start.map((s, i) => (size[i] === 0 ? 0 : s)),
    size,
  );
  return fromNode(g.pad(cropped, lo.map(positive), hi.map(positive), fill));
}

// --- helpers, on nodes ---------------------------------------------------------------------------

function repeated(n: Node, repeats: Shape, added: number): Node {
  const shape = [...Array(added).fill(1), ...n.shape];
  if (repeats.every((r) => r === 1)) return g.reshape(n, shape);
  // [.., 1, d, ..] → [.., r, d, ..] → [.., r·d, ..]; axes of size 1 need no partner.
  const split = shape.flatMap((d, i) => (repeats[i] === 1 || d === 1 ? [d] : [1, d]));
  const wide = shape.flatMap((d, i) =>
    repeats[i] === 1 ? [d] : d === 1 ? [repeats[i]] : [repeats[i], d],
  );
  return g.reshape(
    g.expand(g.reshape(n, split), wide),
    shape.map((d, i) => d * repeats[i]),
  );
}

/** `shape` with its -1 replaced by what the number of elements leaves for it. */
function inferred(op: string, from: Shape, shape: Shape): readonly number[] {
  checkArray(op, shape);
  const total = numel(from);
  const unknown = shape.indexOf(-1);
  const known = numel(shape.filter((_, i) => i !== unknown));
  const sizes = shape.map((d, i) => (i === unknown ? (known === 0 ? 0 : total / known) : d));
  if (sizes.some((d) => !Number.isInteger(d) || d < 0) || numel(sizes) !== total)
    throw new ShapeError(
      describe(
        op,
        `a shape of ${total} elements`,
        `${formatShape(from)} → ${formatShape(shape)}`,
        unknown >= 0 ? "one size may be -1 if the others divide the number of elements" : undefined,
      ),
    );
  return sizes;
}
