/**
 * @file Sampling at places that a tensor names: spatial transformers (Jaderberg et al. 2015, arXiv
 * 1506.02025). A sample is a sum of few neighbours, each looked up and weighted; the weights carry
 * the gradient to the grid. Geometry and names are those of PyTorch's GridSampler.h. None is a
 * method.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { numel, type Shape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { tensor } from "./create.ts";
import { lit } from "./custom.ts";
import { matmulNodes } from "./matmul.ts";
import { describeNode, floatNode, inFloat32, isHalfTensor } from "./promotion.ts";

export interface GridSampleOptions {
  /**
   * How many neighbours count: "bilinear" (default; in three dimensions all eight), "nearest",
   * "bicubic" (in two).
   */
  mode?: "bilinear" | "nearest" | "bicubic";
  /**
   * What lies outside: zeros (default), the nearest element of the border, or the mirrored input.
   */
  paddingMode?: "zeros" | "border" | "reflection";
  /** Whether ±1 are the centres of the outermost elements, instead of their outer edges. */
  alignCorners?: boolean;
}

/**
 * input [N, C, H, W] at grid [N, h, w, 2], whose last axis holds (x, y), -1 … 1 from left to right
 * and from top to bottom → [N, C, h, w]. Likewise [N, C, D, H, W] at [N, d, h, w, 3] → [N, C, d, h,
 * w]. A place that is not finite is outside.
 */
export function gridSample(input: Tensor, grid: Tensor, options: GridSampleOptions = {}): Tensor {
  if (isHalfTensor(input) || isHalfTensor(grid))
    return inFloat32("gridSample", gridSample, input, grid, options);
  const [x, at] = [floatNode("gridSample", input), floatNode("gridSample", grid)];
  const rank = x.shape.length - 2;
  const fits = (rank === 2 || rank === 3) && at.shape.length === rank + 2;
  if (!fits || at.shape.at(-1) !== rank || at.shape[0] !== x.shape[0] || x.shape.includes(0))
    throw new ShapeError(
      describe(
        "gridSample",
        "[N, C, H, W] and a grid [N, h, w, 2], or [N, C, D, H, W] and [N, d, h, w, 3]",
        `${describeNode(x)}, ${describeNode(at)}`,
      ),
    );
  const { mode = "bilinear", paddingMode = "zeros", alignCorners = false } = options;
  if (!["bilinear", "nearest", "bicubic"].includes(mode) || (mode === "bicubic" && rank === 3))
    throw new ArgumentError(
      describe("gridSample", "mode 'bilinear', 'nearest' or, in two dimensions, 'bicubic'", mode),
    );
  if (!["zeros", "border", "reflection"].includes(paddingMode))
    throw new ArgumentError(
      describe("gridSample", "paddingMode 'zeros', 'border' or 'reflection'", paddingMode),
    );
  const spatial = x.shape.slice(2);
  const places = at.shape.slice(1, -1);
  const count = numel(places);
  const points = g.reshape(at, [x.shape[0], count, rank]);
  const taps = spatial.map((size, i) => {
    // The grid names the last axis first.
    const column = rank - 1 - i;
    const place = g.slice(points, [0, 0, column], [x.shape[0], count, 1]);
    const given = g.reshape(place, [x.shape[0], 1, count]);
    return tapsOf(given, { size, mode, paddingMode, alignCorners });
  });
  const out = weightedSum(x, spatial, taps, count);
  return fromNode(g.reshape(out, [...x.shape.slice(0, 2), ...places]));
}

/**
 * The grid for gridSample that an affine map makes: theta [N, 2, 3] and size [N, C, H, W] → [N, H,
 * W, 2], or theta [N, 3, 4] and size [N, C, D, H, W] → [N, D, H, W, 3].
 */
export function affineGrid(
  theta: Tensor,
  size: Shape,
  { alignCorners = false }: { alignCorners?: boolean } = {},
): Tensor {
  if (isHalfTensor(theta))
    return inFloat32("affineGrid", affineGrid, theta, size, { alignCorners });
  const n = floatNode("affineGrid", theta);
  const rank = size.length - 2;
  const fits = (rank === 2 || rank === 3) && n.shape.length === 3 && n.shape[0] === size[0];
  if (!fits || n.shape[1] !== rank || n.shape[2] !== rank + 1)
    throw new ShapeError(
      describe(
        "affineGrid",
        "theta [N, 2, 3] for [N, C, H, W], or [N, 3, 4] for [N, C, D, H, W]",
        `${describeNode(n)} for [${size.join(", ")}]`,
      ),
    );
  const spatial = size.slice(2);
  const lines = spatial.map((d) =>
    Array.from({ length: d }, (_, i) => {
      if (alignCorners) return d > 1 ? (2 * i) / (d - 1) - 1 : 0;
      return (2 * i + 1) / d - 1;
    }),
  );
  const count = numel(spatial);
  const base = new Float32Array(count * (rank + 1));
  for (let p = 0; p < count; p++) {
    let rest = p;
    for (let axis = rank - 1; axis >= 0; axis--) {
      base[p * (rank + 1) + rank - 1 - axis] = lines[axis][rest % spatial[axis]];
      rest = Math.floor(rest / spatial[axis]);
    }
    base[p * (rank + 1) + rank] = 1;
  }
  const device = n.device ?? undefined;
  const homogeneous = tensor(base, { shape: [1, count, rank + 1], device }).node;
  const all = g.expand(homogeneous, [size[0], count, rank + 1]);
  const out = matmulNodes(all, g.permute(n, [0, 2, 1]));
  return fromNode(g.reshape(out, [size[0], ...spatial, rank]));
}

// --- one axis ------------------------------------------------------------------------------------

interface Axis extends Required<GridSampleOptions> {
  readonly size: number;
}

/**
 * A neighbour along one axis: its position, which is inside, its weight, and whether it counts. All
 * [N, 1, P].
 */
interface Tap {
  readonly position: Node;
  readonly weight: Node | null;
  readonly inside: Node;
}

function tapsOf(given: Node, axis: Axis): Tap[] {
  const { size, mode, alignCorners } = axis;
  const one = lit(given, 1);
  // -1 … 1 → elements.
  const raw = alignCorners
    ? g.mul(g.add(given, one), lit(given, (size - 1) / 2))
    : g.div(g.sub(g.mul(g.add(given, one), lit(given, size)), one), lit(given, 2));
  if (mode === "nearest") return [tap(g.round(bounded(raw, axis)), null, axis)];
  if (mode === "bilinear") {
    const x = bounded(raw, axis);
    const first = g.detach(g.floor(x));
    const after = g.sub(x, first);
    return [tap(first, g.sub(one, after), axis), tap(g.add(first, one), after, axis)];
  }
  // Of the cubic kernel's four neighbours each is mirrored or clamped for itself.
  const x = finite(raw);
  const first = g.detach(g.floor(x));
  return cubicWeights(g.sub(x, first)).map((weight, i) =>
    tap(bounded(g.add(first, lit(first, i - 1)), axis), weight, axis),
  );
}

/** Keys's kernel with a = -0.75, for a place t after the second of four elements. */
function cubicWeights(t: Node): Node[] {
  const a = -0.75;
  const l = (v: number): Node => lit(t, v);
  const near = (d: Node): Node =>
    g.add(g.mul(g.mul(g.sub(g.mul(l(a + 2), d), l(a + 3)), d), d), l(1));
  const far = (d: Node): Node =>
    g.sub(g.mul(g.add(g.mul(g.sub(g.mul(l(a), d), l(5 * a)), d), l(8 * a)), d), l(4 * a));
  const one = l(1);
  return [far(g.add(t, one)), near(t), near(g.sub(one, t)), far(g.sub(l(2), t))];
}

function tap(position: Node, weight: Node | null, { size }: Axis): Tap {
  const p = g.detach(position);
  const [zero, last] = [lit(p, 0), lit(p, size - 1)];
  const inside = g.and(g.le(zero, p), g.le(p, last));
  return { position: g.cast(g.where(inside, p, zero), "i32"), weight, inside };
}

/**
 * What is not finite or far beyond any size is outside, as a number that converts to an integer.
 */
function finite(x: Node): Node {
  return g.where(g.lt(g.abs(x), lit(x, 2 ** 24)), x, lit(x, -100));
}

/**
 * Positions by the padding's rule: mirrored, then clamped, or left outside. At the border the
 * gradient is 0.
 */
function bounded(x: Node, { size, paddingMode, alignCorners }: Axis): Node {
  if (paddingMode === "zeros") return finite(x);
  const mirrored = paddingMode === "reflection" ? reflected(x, size, alignCorners) : x;
  const [zero, last] = [lit(x, 0), lit(x, size - 1)];
  const low = g.where(g.le(mirrored, zero), zero, mirrored);
  return finite(g.where(g.le(last, low), last, low));
}

/** Mirrored at the outermost centres, or at the outer edges, as often as it takes. */
function reflected(x: Node, size: number, alignCorners: boolean): Node {
  const [low, span] = alignCorners ? [0, size - 1] : [-0.5, size];
  if (span === 0) return lit(x, 0);
  const from = g.sub(x, lit(x, low));
  const distance = g.where(g.lt(from, lit(x, 0)), g.neg(from), from);
  const flips = g.detach(g.floor(g.div(distance, lit(x, span))));
  const extra = g.sub(distance, g.mul(flips, lit(x, span)));
  const half = g.mul(flips, lit(x, 0.5));
  const even = g.eq(g.floor(half), half);
  const inside = g.where(even, extra, g.sub(lit(x, span), extra));
  return g.add(inside, lit(x, low));
}

// --- all axes ------------------------------------------------------------------------------------

/** Σ over all combinations of one tap per axis: x [N, C, …spatial] → [N, C, P]. */
function weightedSum(x: Node, spatial: Shape, taps: readonly Tap[][], count: number): Node {
  const [batch, channels] = x.shape;
  const flat = g.reshape(x, [batch, channels, numel(spatial)]);
  let sum: Node | null = null;
  for (const choice of combinations(taps)) {
    let position: Node = constant(0, "i32");
    for (const [i, t] of choice.entries())
      position = g.add(g.mul(position, constant(spatial[i], "i32")), t.position);
    const index = g.expand(position, [batch, channels, count]);
    const inside = choice.map((t) => t.inside).reduce((a, b) => g.and(a, b));
    const value = g.where(inside, g.gather(flat, index, 2), lit(x, 0));
    const weights = choice.flatMap((t) => t.weight ?? []);
    const weighted =
      weights.length === 0
        ? value
        : g.mul(
            value,
            weights.reduce((a, b) => g.mul(a, b)),
          );
    sum = sum === null ? weighted : g.add(sum, weighted);
  }
  return sum!;
}

function combinations<T>(lists: readonly (readonly T[])[]): T[][] {
  return lists.reduce<T[][]>(
    (all, list) => all.flatMap((head) => list.map((t) => [...head, t])),
    [[]],
  );
}
