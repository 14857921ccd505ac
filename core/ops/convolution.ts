/**
 * @file Convolutions over 1, 2 or 3 spatial axes as matrix products that read windows of the input in place (no copy of
 * the windows is ever made; Chellapilla et al. 2006 made one). Each is one node with a gradient of its own: the weight's is a
 * product with the same windows; the input's is a convolution of the cotangent with the mirrored weights.
 */
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { numel, type Shape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { regionNodes } from "../transform/region.ts";
import { describeNode, nodeOf } from "./promotion.ts";

/** One number for all spatial axes, or one per axis. */
export type PerAxis = number | readonly number[];

export interface ConvOptions {
  /** Step between windows (default 1). */
  stride?: PerAxis;
  /** Zeros on both sides (default 0); "same" keeps the size (stride 1; an odd one goes to the end), "valid" is 0. */
  padding?: PerAxis | "same" | "valid";
  /** Step inside a window (default 1). */
  dilation?: PerAxis;
  /** Channels are cut into this many groups that do not see one another (default 1). */
  groups?: number;
}

export interface ConvTransposeOptions {
  stride?: PerAxis;
  padding?: PerAxis;
  /** Further elements at the end: which of the inputs of equal output size is meant (default 0). */
  outputPadding?: PerAxis;
  dilation?: PerAxis;
  groups?: number;
}

/** input [N, C, L] or [C, L], weight [O, C/groups, K], bias [O] → [N, O, L']. */
export function conv1d(
  input: Tensor,
  weight: Tensor,
  bias?: Tensor | null,
  options?: ConvOptions,
): Tensor {
  return convolution("conv1d", 1, input, weight, bias, options);
}

/** input [N, C, H, W] or [C, H, W], weight [O, C/groups, KH, KW], bias [O] → [N, O, H', W']. */
export function conv2d(
  input: Tensor,
  weight: Tensor,
  bias?: Tensor | null,
  options?: ConvOptions,
): Tensor {
  return convolution("conv2d", 2, input, weight, bias, options);
}

/** input [N, C, D, H, W] or [C, D, H, W], weight [O, C/groups, KD, KH, KW], bias [O] → [N, O, D', H', W']. */
export function conv3d(
  input: Tensor,
  weight: Tensor,
  bias?: Tensor | null,
  options?: ConvOptions,
): Tensor {
  return convolution("conv3d", 3, input, weight, bias, options);
}

/** The transpose of conv1d: input [N, C, L], weight [C, O/groups, K], bias [O] → [N, O, L']. */
export function convTranspose1d(
  input: Tensor,
  weight: Tensor,
  bias?: Tensor | null,
  options?: ConvTransposeOptions,
): Tensor {
  return transposed("convTranspose1d", 1, input, weight, bias, options);
}

/** The transpose of conv2d: input [N, C, H, W], weight [C, O/groups, KH, KW], bias [O] → [N, O, H', W']. */
export function convTranspose2d(
  input: Tensor,
  weight: Tensor,
  bias?: Tensor | null,
  options?: ConvTransposeOptions,
): Tensor {
  return transposed("convTranspose2d", 2, input, weight, bias, options);
}

/** The transpose of conv3d: input [N, C, D, H, W], weight [C, O/groups, KD, KH, KW] → [N, O, D', H', W']. */
export function convTranspose3d(
  input: Tensor,
  weight: Tensor,
  bias?: Tensor | null,
  options?: ConvTransposeOptions,
): Tensor {
  return transposed("convTranspose3d", 3, input, weight, bias, options);
}

// --- on nodes -------------------------------------------------------------------------------------------------------

interface Geometry {
  readonly stride: readonly number[];
  readonly dilation: readonly number[];
  readonly groups: number;
  /** Zeros before the input, and behind it. */
  readonly lo: readonly number[];
  readonly hi: readonly number[];
}

const product = (shape: Shape): number => numel(shape);
const range = (from: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => from + i);

/** x [N, C, S…] → all windows [N, C, O…, K…], addressed in place. */
export function windows(
  x: Node,
  kernel: readonly number[],
  stride: readonly number[],
  dilation: readonly number[],
): Node {
  return kernel.reduce((n, k, i) => g.window(n, 2 + i, k, stride[i], dilation[i]), x);
}

/** x [N, C, S…], w [O, C/G, K…] → [N, O, S'…]. */
function convNode(x: Node, w: Node, geometry: Geometry): Node {
  const [result] = regionNodes(
    "custom",
    "convolution",
    ([a, b]) => [forward(a, b, geometry)],
    [x, w],
    ([a, b], _, [ct]) => [
      inputGradient(ct, b, geometry, a.shape),
      weightGradient(ct, a, b, geometry),
    ],
  );
  return result;
}

/** The transpose of convNode in its input: x [N, O, S'…], w [O, C/G, K…] → `shape`, [N, C, S…]. */
function transposedNode(x: Node, w: Node, geometry: Geometry, shape: Shape): Node {
  const [result] = regionNodes(
    "custom",
    "convTranspose",
    ([a, b]) => [inputGradient(a, b, geometry, shape)],
    [x, w],
    ([a, b], _, [ct]) => [forward(ct, b, geometry), weightGradient(a, ct, b, geometry)],
  );
  return result;
}

/** Zeros around the spatial axes; where there are fewer than none, elements are cut off. */
function padded(x: Node, lo: readonly number[], hi: readonly number[]): Node {
  const all = [0, 0, ...lo];
  const end = [0, 0, ...hi];
  const start = all.map((v) => Math.max(0, -v));
  const size = x.shape.map((d, i) => d - start[i] - Math.max(0, -end[i]));
  const positive = (list: readonly number[]) => list.map((v) => Math.max(0, v));
  return g.pad(g.slice(x, start, size), positive(all), positive(end));
}

function forward(x: Node, w: Node, { stride, dilation, groups, lo, hi }: Geometry): Node {
  const [N, C] = x.shape;
  const [O, , ...K] = w.shape;
  const r = K.length;
  const all = windows(padded(x, lo, hi), K, stride, dilation);
  const S = all.shape.slice(2, 2 + r);
  // [N, G, C/G, S…, K…] → [N, G, C/G, K…, S…]: columns of windows, neighbours in memory along S.
  const split = g.reshape(all, [N, groups, C / groups, ...S, ...K]);
  const columns = g.permute(split, [0, 1, 2, ...range(3 + r, r), ...range(3, r)]);
  const depth = (C / groups) * product(K);
  const right = g.reshape(columns, [N * groups, depth, product(S)]);
  const rows = g.reshape(w, [1, groups, O / groups, depth]);
  return g.reshape(g.dot(forBatch(rows, N), right), [N, O, ...S]);
}

/** [1, G, M, K] → [N·G, M, K]: the same for each input of the batch. */
function forBatch(rows: Node, N: number): Node {
  const [, groups, m, k] = rows.shape;
  return g.reshape(g.expand(rows, [N, groups, m, k]), [N * groups, m, k]);
}

/** Neighbouring phases of an axis, and the taps that each has. */
interface Phases {
  readonly first: number;
  readonly count: number;
  readonly taps: number;
}

/**
 * The cotangent of the input, which has the shape `shape`. Elements that are as far from the next window's first share
 * the taps k = stride·t + p of one phase p, so phases with as many taps are one convolution with as many times the
 * channels, and all results are put side by side (Shi et al. 2016, arXiv 1609.05158). Zeros between the elements of the
 * cotangent would have to be multiplied instead, as they are where windows also have gaps. With stride 1 it is the
 * convolution with the mirrored weights. No tap is made up: a zero times infinity would be one too many.
 */
function inputGradient(cotangent: Node, w: Node, geometry: Geometry, shape: Shape): Node {
  if (numel(shape) === 0 || numel(cotangent.shape) === 0) return zeros(shape, cotangent);
  const { groups, lo } = geometry;
  const [O, perGroup, ...K] = w.shape;
  const axes = range(0, K.length);
  let ct = cotangent;
  const stride = axes.map((i) => {
    if (geometry.dilation[i] === 1) return geometry.stride[i];
    ct = spreadOut(ct, 2 + i, geometry.stride[i]);
    return 1;
  });
  // The first and the number of groups of `stride` elements in which the input lies.
  const first = lo.map((v, i) => Math.floor(v / stride[i]));
  const count = lo.map((v, i) => Math.ceil((v + shape[2 + i]) / stride[i]) - first[i]);
  // [O, C/G, K…] → [G, O/G, C/G, (T, stride)…]
  const most = K.map((k, i) => Math.ceil(k / stride[i]));
  const none = w.shape.map(() => 0);
  const missing = [0, 0, ...K.map((k, i) => most[i] * stride[i] - k)];
  const split = g.reshape(g.pad(w, none, missing), [
    groups,
    O / groups,
    perGroup,
    ...axes.flatMap((i) => [most[i], stride[i]]),
  ]);
  const times = axes.map((i) => 3 + 2 * i);
  const places = axes.map((i) => 4 + 2 * i);

  /** [N, C, phases…, count…] */
  const together = (phases: readonly Phases[]): Node => {
    const all = [...shape.slice(0, 2), ...phases.map((p) => p.count), ...count];
    if (phases.some(({ taps }) => taps === 0)) return zeros(all, ct);
    const start = [0, 0, 0, ...phases.flatMap((p) => [0, p.first])];
    const size = [...split.shape.slice(0, 3), ...phases.flatMap((p) => [p.taps, p.count])];
    // [C, phases…, O/G, T…], the taps mirrored.
    const mirrored = g.flip(g.slice(split, start, size), times);
    const turned = g.permute(mirrored, [0, 2, ...places, 1, ...times]);
    const channels = shape[1] * product(phases.map((p) => p.count));
    const weights = g.reshape(turned, [channels, O / groups, ...phases.map(({ taps }) => taps)]);
    const dilation = axes.map((i) => geometry.dilation[i]);
    const span = phases.map(({ taps }, i) => dilation[i] * (taps - 1));
    const before = span.map((d, i) => d - first[i]);
    const after = span.map((d, i) => count[i] + d - ct.shape[2 + i] - before[i]);
    // Not a node with its own gradient again, which would have one again …: this one is differentiated as it stands.
    const one = { stride: axes.map(() => 1), dilation, groups, lo: before, hi: after };
    return g.reshape(forward(ct, weights, one), all);
  };
  const side = (chosen: readonly Phases[]): Node => {
    const i = chosen.length;
    if (i === K.length) return together(chosen);
    const parts = phasesOf(K[i], stride[i]).map((phases) => side([...chosen, phases]));
    return parts.length > 1 ? g.concat(parts, 2 + i) : parts[0];
  };

  const order = [0, 1, ...axes.flatMap((i) => [2 + K.length + i, 2 + i])];
  const joined = count.map((n, i) => n * stride[i]);
  const all = g.reshape(g.permute(side([]), order), [...shape.slice(0, 2), ...joined]);
  return g.slice(all, [0, 0, ...lo.map((v, i) => v % stride[i])], shape);
}

/** The phases of a stride over K taps: the first K mod stride have one tap more than the others. */
function phasesOf(K: number, stride: number): Phases[] {
  const more = K % stride;
  const taps = Math.floor(K / stride);
  return [
    { first: 0, count: more, taps: taps + 1 },
    { first: more, count: stride - more, taps },
  ].filter(({ count }) => count > 0);
}

const zeros = (shape: Shape, like: Node): Node => g.expand(g.scalarLike(like, 0), shape);

/** Puts step - 1 zeros between neighbours of an axis. */
function spreadOut(x: Node, axis: number, step: number): Node {
  if (step === 1) return x;
  const [before, size, after] = [x.shape.slice(0, axis), x.shape[axis], x.shape.slice(axis + 1)];
  const zeros = [...x.shape, 0].map(() => 0);
  const behind = zeros.map((_, i) => (i === axis + 1 ? step - 1 : 0));
  const apart = g.pad(g.reshape(x, [...before, size, 1, ...after]), zeros, behind);
  const joined = g.reshape(apart, [...before, size * step, ...after]);
  return g.slice(
    joined,
    x.shape.map(() => 0),
    [...before, (size - 1) * step + 1, ...after],
  );
}

/** [O, C/G, K…]: over all windows at once, so that the contraction is long and there is one product per group. */
function weightGradient(ct: Node, x: Node, w: Node, geometry: Geometry): Node {
  const { stride, dilation, groups, lo, hi } = geometry;
  const [N, C] = x.shape;
  const [O, , ...K] = w.shape;
  const r = K.length;
  const all = windows(padded(x, lo, hi), K, stride, dilation);
  const S = all.shape.slice(2, 2 + r);
  const places = product(S);
  const left = g.permute(g.reshape(ct, [N, groups, O / groups, places]), [1, 2, 0, 3]);
  const split = g.reshape(all, [N, groups, C / groups, ...S, ...K]);
  const right = g.permute(split, [1, 0, ...range(3, r), 2, ...range(3 + r, r)]);
  const depth = (C / groups) * product(K);
  const result = g.dot(
    g.reshape(left, [groups, O / groups, N * places]),
    g.reshape(right, [groups, N * places, depth]),
  );
  return g.reshape(result, w.shape);
}

// --- checks and options ---------------------------------------------------------------------------------------------

/** One number per spatial axis, each an integer ≥ least. */
export function perAxis(
  op: string,
  name: string,
  value: PerAxis,
  rank: number,
  least: number,
): number[] {
  const list = typeof value === "number" ? range(0, rank).map(() => value) : [...value];
  if (list.length !== rank || list.some((v) => !Number.isInteger(v) || v < least))
    throw new ArgumentError(
      describe(op, `${name} as an integer ≥ ${least} or ${rank} of them`, JSON.stringify(value)),
    );
  return list;
}

/** The operands as nodes, the input with a batch axis. */
function operands(
  op: string,
  rank: number,
  input: Tensor,
  weight: Tensor,
  bias: Tensor | null | undefined,
): { x: Node; w: Node; b: Node | null; batched: boolean } {
  const [n, w] = [nodeOf(op, input), nodeOf(op, weight)];
  const b = bias ? nodeOf(op, bias) : null;
  const batched = n.shape.length === rank + 2;
  if ((!batched && n.shape.length !== rank + 1) || w.shape.length !== rank + 2)
    throw new ShapeError(
      describe(
        op,
        `an input with ${rank} spatial axes, [N, C, …] or [C, …], and a weight of rank ${rank + 2}`,
        `${describeNode(n)}, ${describeNode(w)}`,
      ),
    );
  if (!isFloat(n.dtype) || w.dtype !== n.dtype || (b && b.dtype !== n.dtype))
    throw new DTypeError(
      describe(op, "float operands of one dtype", `${describeNode(n)}, ${describeNode(w)}`),
    );
  return { x: batched ? n : g.reshape(n, [1, ...n.shape]), w, b, batched };
}

function checkChannels(
  op: string,
  x: Node,
  w: Node,
  groups: number,
  channels: number,
  outputs: number,
): void {
  if (
    !(Number.isInteger(groups) && groups >= 1) ||
    x.shape[1] !== channels ||
    channels % groups ||
    outputs % groups
  )
    throw new ShapeError(
      describe(
        op,
        `channels that fit the weight in ${groups} groups`,
        `${describeNode(x)}, ${describeNode(w)}`,
        "the channels of input and output must be multiples of groups",
      ),
    );
}

function finished(op: string, y: Node, b: Node | null, batched: boolean): Tensor {
  let result = y;
  if (b) {
    if (b.shape.length !== 1 || b.shape[0] !== y.shape[1])
      throw new ShapeError(describe(op, `a bias of [${y.shape[1]}]`, describeNode(b)));
    result = g.add(y, g.reshape(b, [y.shape[1], ...y.shape.slice(2).map(() => 1)]));
  }
  return fromNode(batched ? result : g.reshape(result, result.shape.slice(1)));
}

function convolution(
  op: string,
  rank: number,
  input: Tensor,
  weight: Tensor,
  bias: Tensor | null | undefined,
  { stride = 1, padding = 0, dilation = 1, groups = 1 }: ConvOptions = {},
): Tensor {
  const { x, w, b, batched } = operands(op, rank, input, weight, bias);
  const [O, perGroup, ...K] = w.shape;
  checkChannels(op, x, w, groups, perGroup * groups, O);
  const steps = perAxis(op, "stride", stride, rank, 1);
  const gaps = perAxis(op, "dilation", dilation, rank, 1);
  const spans = K.map((k, i) => gaps[i] * (k - 1));
  if (padding === "same" && steps.some((s) => s !== 1))
    throw new ArgumentError(describe(op, "stride 1 with padding 'same'", JSON.stringify(stride)));
  const lo =
    padding === "same"
      ? spans.map((s) => s >> 1)
      : padding === "valid"
        ? spans.map(() => 0)
        : perAxis(op, "padding", padding, rank, 0);
  const hi = padding === "same" ? spans.map((s, i) => s - lo[i]) : lo;
  if (spans.some((s, i) => s + 1 > x.shape[2 + i] + lo[i] + hi[i]))
    throw new ShapeError(
      describe(
        op,
        "an input at least as large as the kernel",
        `${describeNode(x)}, ${describeNode(w)}`,
      ),
    );
  const y = convNode(x, w, { stride: steps, dilation: gaps, groups, lo, hi });
  return finished(op, y, b, batched);
}

function transposed(
  op: string,
  rank: number,
  input: Tensor,
  weight: Tensor,
  bias: Tensor | null | undefined,
  {
    stride = 1,
    padding = 0,
    outputPadding = 0,
    dilation = 1,
    groups = 1,
  }: ConvTransposeOptions = {},
): Tensor {
  const { x, w, b, batched } = operands(op, rank, input, weight, bias);
  const [C, perGroup, ...K] = w.shape;
  checkChannels(op, x, w, groups, C, perGroup * groups);
  if (x.shape.slice(2).includes(0))
    throw new ShapeError(describe(op, "an input with spatial axes of 1 or more", describeNode(x)));
  const steps = perAxis(op, "stride", stride, rank, 1);
  const gaps = perAxis(op, "dilation", dilation, rank, 1);
  const cut = perAxis(op, "padding", padding, rank, 0);
  const extra = perAxis(op, "outputPadding", outputPadding, rank, 0);
  const whole = K.map((k, i) => (x.shape[2 + i] - 1) * steps[i] + gaps[i] * (k - 1) + 1 + extra[i]);
  if (
    extra.some((e, i) => e >= Math.max(steps[i], gaps[i])) ||
    whole.some((d, i) => d <= 2 * cut[i])
  )
    throw new ArgumentError(
      describe(
        op,
        "outputPadding below stride or dilation, and padding that leaves something",
        JSON.stringify({ stride, padding, outputPadding, dilation }),
      ),
    );
  const inner = whole.map((d, i) => d - 2 * cut[i]);
  const shape = [x.shape[0], perGroup * groups, ...inner];
  // What outputPadding adds belongs to no window.
  const hi = cut.map((c, i) => c - extra[i]);
  const y = transposedNode(x, w, { stride: steps, dilation: gaps, groups, lo: cut, hi }, shape);
  return finished(op, y, b, batched);
}
