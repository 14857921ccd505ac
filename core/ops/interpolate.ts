/**
 * @file Resizing of the spatial axes, PyTorch's `F.interpolate`. All modes but the nearest neighbour are linear and
 * separable, so each axis is one small matrix [out, in] of weights, made on the host, and a matrix product; a
 * neighbour is a look-up, or only addressed where every element is repeated or every k-th one taken. The geometry is
 * that of PyTorch's UpSample.h, antialiased filters that of Pillow, whose support grows with the reduction.
 */
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { formatShape, numel, sameShape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { tensor } from "./create.ts";
import { indexSelectNode } from "./lookup.ts";
import { describeNode, inWide, nodeOf } from "./promotion.ts";

const ranks = {
  nearest: [1, 2, 3],
  "nearest-exact": [1, 2, 3],
  linear: [1],
  bilinear: [2],
  bicubic: [2],
  trilinear: [3],
  area: [1, 2, 3],
} as const;
export type InterpolationMode = keyof typeof ranks;

export interface InterpolateOptions {
  /** The new spatial sizes, or one for all axes. Either this or `scaleFactor`. */
  size?: number | readonly number[];
  /** New size over old size, of each axis or of all; the new size is rounded down. */
  scaleFactor?: number | readonly number[];
  /**
   * "nearest" (default), "linear" of [N, C, L], "bilinear" and "bicubic" of [N, C, H, W], "trilinear" of [N, C, D, H, W],
   * "area" (means of what falls together), or "nearest-exact": the element below the new one's centre, as other libraries
   * take it, where "nearest" takes the one below its edge.
   */
  mode?: InterpolationMode;
  /** The first and the last elements stay where they are, instead of the outer edges (linear and cubic modes). */
  alignCorners?: boolean;
  /** Take old size / new size for the distance of two samples, not the given factor, where that is not the same. */
  recomputeScaleFactor?: boolean;
  /** Average over all that a new element covers when the picture shrinks ("bilinear", "bicubic"). */
  antialias?: boolean;
}

/** One axis: its sizes, and the distance of neighbouring samples if it is not what follows from these. */
interface Axis {
  readonly from: number;
  readonly to: number;
  readonly step: number | null;
  readonly alignCorners: boolean;
}

/**
 * x, [N, C, L], [N, C, H, W] or [N, C, D, H, W], with its spatial axes resized. Gradients flow through all modes;
 * "nearest" and "nearest-exact" take integers too.
 */
export function interpolate(x: Tensor, options: InterpolateOptions): Tensor {
  const n = nodeOf("interpolate", x);
  const { mode = "nearest", alignCorners = false, antialias = false } = options;
  const rank = n.shape.length - 2;
  const fits: readonly number[] | undefined = ranks[mode];
  if (!fits)
    throw new ArgumentError(
      describe("interpolate", `mode ${Object.keys(ranks).join(", ")}`, String(mode)),
    );
  if (!fits.includes(rank) || n.shape.includes(0))
    throw new ShapeError(
      describe(
        "interpolate",
        `[N, C, …] with ${fits.join(" or ")} spatial axes for '${mode}', none of them empty`,
        describeNode(n),
      ),
    );
  const nearest = mode === "nearest" || mode === "nearest-exact";
  if (alignCorners && (nearest || mode === "area"))
    throw new ArgumentError(
      describe("interpolate", "alignCorners with a linear or cubic mode", `'${mode}'`),
    );
  if (antialias && mode !== "bilinear" && mode !== "bicubic")
    throw new ArgumentError(
      describe("interpolate", "antialias with 'bilinear' or 'bicubic'", `'${mode}'`),
    );
  if (!nearest && !isFloat(n.dtype))
    throw new DTypeError(
      describe(
        "interpolate",
        `a float tensor for '${mode}'`,
        describeNode(n),
        "use .float() first",
      ),
    );
  const axes = axesOf(n, alignCorners, options);
  if (nearest) return fromNode(axes.reduce((y, a, i) => lookUp(y, 2 + i, positions(a, mode)), n));
  // Pillow's order: what shrinks most first would be cheaper, but its roundings are the ones to meet.
  const weights = weightsOf(mode, antialias, axes);
  const resized = (m: Node) =>
    axes.reduceRight((y, a, i) => product(y, 2 + i, weights(a), a, x), m);
  return fromNode(inWide(resized, n));
}

function axesOf(n: Node, alignCorners: boolean, options: InterpolateOptions): Axis[] {
  const { size, scaleFactor, recomputeScaleFactor = false } = options;
  const sizes = n.shape.slice(2);
  const given = size ?? scaleFactor;
  const list = typeof given === "number" ? sizes.map(() => given) : given;
  if ((size === undefined) === (scaleFactor === undefined) || list?.length !== sizes.length)
    throw new ArgumentError(
      describe(
        "interpolate",
        `either size or scaleFactor, one number or ${sizes.length}`,
        JSON.stringify({ size, scaleFactor }),
      ),
    );
  return sizes.map((from, i) => {
    const to = size === undefined ? Math.floor(from * list[i]) : list[i];
    if (!(Number.isInteger(to) && to > 0))
      throw new ArgumentError(
        describe("interpolate", "positive sizes", `${list[i]} for axis ${2 + i} of ${formatShape(n.shape)}`),
      ); // biome-ignore format: one condition
    const step = size === undefined && !recomputeScaleFactor ? 1 / list[i] : null;
    return { from, to, step, alignCorners };
  });
}

/** The distance of neighbouring samples in elements of the source. */
function stepOf({ from, to, step, alignCorners }: Axis): number {
  if (alignCorners) return to > 1 ? (from - 1) / (to - 1) : 0;
  return step ?? from / to;
}

// --- neighbours ------------------------------------------------------------------------------------------------------

/** The source of each new element. Rounded to f32 where PyTorch is: it decides which neighbour it is. */
function positions(axis: Axis, mode: InterpolationMode): number[] {
  const { from, to } = axis;
  const step = Math.fround(stepOf(axis));
  const offset = mode === "nearest" ? 0 : 0.5;
  return Array.from({ length: to }, (_, i) =>
    from === to ? i : Math.min(Math.floor(Math.fround((i + offset) * step)), from - 1),
  );
}

function lookUp(n: Node, axis: number, at: readonly number[]): Node {
  const { shape } = n;
  const [from, to] = [shape[axis], at.length];
  if (from === to && at.every((p, i) => p === i)) return n;
  const replaced = (d: number) => shape.map((s, i) => (i === axis ? d : s));
  const [times, every] = [to / from, from / to];
  if (Number.isInteger(times) && at.every((p, i) => p === Math.floor(i / times))) {
    const apart = g.reshape(n, shape.toSpliced(axis + 1, 0, 1));
    return g.reshape(g.expand(apart, shape.toSpliced(axis + 1, 0, times)), replaced(to));
  }
  if (Number.isInteger(every) && at.every((p, i) => p === at[0] + every * i))
    return g.slice(
      n,
      shape.map((_, i) => (i === axis ? at[0] : 0)),
      replaced(to),
      shape.map((_, i) => (i === axis ? every : 1)),
    );
  const { node } = tensor(Int32Array.from(at), { dtype: "i32", device: n.device ?? undefined });
  return indexSelectNode(n, axis, node);
}

// --- weights ---------------------------------------------------------------------------------------------------------

/** The row of weights of new element i, as [position, weight]; the same position may come several times. */
type Row = (axis: Axis, i: number) => readonly (readonly [number, number])[];

function weightsOf(mode: InterpolationMode, antialias: boolean, axes: readonly Axis[]) {
  const same = sameShape(axes.map((a) => a.from), axes.map((a) => a.to)); // biome-ignore format: one line
  const cubic = mode === "bicubic";
  const row: Row = antialias
    ? filtered(cubic ? 2 : 1, cubic ? (x) => cubicKernel(x, -0.5) : triangle)
    : mode === "area"
      ? meanRow
      : cubic
        ? cubicRow
        : linearRow;
  // PyTorch copies what keeps its size, whatever the factor; of a cubic picture only if both axes do.
  return (axis: Axis): Row | null =>
    (cubic ? same : axis.from === axis.to) && !antialias ? null : row;
}

/** n with `axis` multiplied by the matrix of weights. */
function product(n: Node, axis: number, row: Row | null, a: Axis, x: Tensor): Node {
  if (!row) return n;
  const matrix = new Float32Array(a.to * a.from);
  for (let i = 0; i < a.to; i++)
    for (const [at, weight] of row(a, i)) matrix[i * a.from + at] += weight;
  const { node } = tensor(matrix, { shape: [1, a.to, a.from], device: x.device });
  const before = numel(n.shape.slice(0, axis));
  const after = numel(n.shape.slice(axis + 1));
  const shape = n.shape.map((d, i) => (i === axis ? a.to : d));
  if (after === 1) {
    const rows = g.reshape(n, [1, before, a.from]);
    return g.reshape(g.dot(rows, g.permute(node, [0, 2, 1])), shape);
  }
  const blocks = g.reshape(n, [before, a.from, after]);
  return g.reshape(g.dot(g.expand(node, [before, a.to, a.from]), blocks), shape);
}

/** Where new element i lies between the elements of the source. */
const sourceOf = (axis: Axis, i: number): number =>
  axis.alignCorners ? stepOf(axis) * i : stepOf(axis) * (i + 0.5) - 0.5;

const linearRow: Row = (axis, i) => {
  const at = Math.max(sourceOf(axis, i), 0);
  const low = Math.min(Math.floor(at), axis.from - 1);
  const part = Math.min(at - low, 1);
  return [
    [low, 1 - part],
    [Math.min(low + 1, axis.from - 1), part],
  ];
};

/** Keys' cubic convolution kernel. */
function cubicKernel(distance: number, a: number): number {
  const x = Math.abs(distance);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

const triangle = (x: number): number => Math.max(1 - Math.abs(x), 0);

const cubicRow: Row = (axis, i) => {
  const at = sourceOf(axis, i);
  const low = Math.floor(at);
  // Beyond the edge the outermost element goes on.
  return [-1, 0, 1, 2].map((k) => {
    const position = Math.min(Math.max(low + k, 0), axis.from - 1);
    return [position, cubicKernel(at - low - k, -0.75)] as const;
  });
};

const meanRow: Row = ({ from, to }, i) => {
  const start = Math.floor((i * from) / to);
  const end = Math.ceil(((i + 1) * from) / to);
  return Array.from({ length: end - start }, (_, k) => [start + k, 1 / (end - start)] as const);
};

/** A kernel of the given radius, stretched where the picture shrinks, cut off at the edges and normalised. */
const filtered =
  (radius: number, kernel: (x: number) => number): Row =>
  (axis, i) => {
    const step = stepOf(axis);
    const stretch = Math.max(step, 1);
    const center = step * (i + 0.5);
    const first = Math.max(Math.trunc(center - radius * stretch + 0.5), 0);
    const end = Math.min(Math.trunc(center + radius * stretch + 0.5), axis.from);
    const weights = Array.from({ length: end - first }, (_, k) =>
      kernel((first + k - center + 0.5) / stretch),
    );
    const total = weights.reduce((sum, w) => sum + w, 0);
    return weights.map((w, k) => [first + k, w / total] as const);
  };
