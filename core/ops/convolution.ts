/**
 * @file Convolutions over 1, 2 or 3 spatial axes as matrix products that read windows of the input in place (no copy of
 * the windows is ever made; Chellapilla et al. 2006 made one). Each is one node with a gradient of its own: the input's is
 * a convolution of the spread-out cotangent with the flipped weights, the weight's a product with the same windows.
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

/** A convolution without padding: x [N, C, S…] (padded already), w [O, C/G, K…] → [N, O, S'…]. */
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

function forward(x: Node, w: Node, { stride, dilation, groups }: Geometry): Node {
  const [N, C] = x.shape;
  const [O, , ...K] = w.shape;
  const r = K.length;
  const all = windows(x, K, stride, dilation);
  const S = all.shape.slice(2, 2 + r);
  // [N, G, C/G, S…, K…] → [N, G, C/G, K…, S…]: columns of windows, neighbours in memory along S.
  const split = g.reshape(all, [N, groups, C / groups, ...S, ...K]);
  const columns = g.permute(split, [0, 1, 2, ...range(3 + r, r), ...range(3, r)]);
  const depth = (C / groups) * product(K);
  const right = g.reshape(columns, [N * groups, depth, product(S)]);
  const rows = g.reshape(w, [1, groups, O / groups, depth]);
  const left = g.reshape(g.expand(rows, [N, groups, O / groups, depth]), [
    N * groups,
    O / groups,
    depth,
  ]);
  return g.reshape(g.dot(left, right), [N, O, ...S]);
}

/** The cotangent of the (padded) input of shape `shape`: [N, C, S…]. */
function inputGradient(
  ct: Node,
  w: Node,
  { stride, dilation, groups }: Geometry,
  shape: Shape,
): Node {
  const [O, perGroup, ...K] = w.shape;
  const r = K.length;
  let spread = ct;
  for (let i = 0; i < r; i++) spread = spreadOut(spread, 2 + i, stride[i]);
  // Zeros around, so that every element of the input meets all windows that held it.
  const lo = K.map((k, i) => dilation[i] * (k - 1));
  const hi = K.map((_, i) => shape[2 + i] - spread.shape[2 + i]);
  const padded = g.pad(spread, [0, 0, ...lo], [0, 0, ...hi]);
  // [O, C/G, K…] → [C, O/G, K…], mirrored.
  const mirrored = g.reshape(g.flip(w, range(2, r)), [groups, O / groups, perGroup, ...K]);
  const turned = g.permute(mirrored, [0, 2, 1, ...range(3, r)]);
  const weights = g.reshape(turned, [groups * perGroup, O / groups, ...K]);
  // Not a node with its own gradient again, which would have one again …: this one is differentiated as it stands.
  return forward(padded, weights, { stride: K.map(() => 1), dilation, groups });
}

/** Puts stride - 1 zeros between neighbours of an axis. */
function spreadOut(x: Node, axis: number, stride: number): Node {
  if (stride === 1) return x;
  const at = (n: number) => [
    ...x.shape.slice(0, axis),
    x.shape[axis],
    n,
    ...x.shape.slice(axis + 1),
  ];
  const zeros = [...x.shape, 0].map(() => 0);
  const after = zeros.map((_, i) => (i === axis + 1 ? stride - 1 : 0));
  const apart = g.pad(g.reshape(x, at(1)), zeros, after);
  const merged = x.shape.map((d, i) => (i === axis ? d * stride : d));
  const length = (x.shape[axis] - 1) * stride + 1;
  const start = merged.map(() => 0);
  return g.slice(
    g.reshape(apart, merged),
    start,
    merged.map((d, i) => (i === axis ? length : d)),
  );
}

/** [O, C/G, K…]: over all windows at once, so that the contraction is long and there is one product per group. */
function weightGradient(ct: Node, x: Node, w: Node, { stride, dilation, groups }: Geometry): Node {
  const [N, C] = x.shape;
  const [O, , ...K] = w.shape;
  const r = K.length;
  const all = windows(x, K, stride, dilation);
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
  const padded = g.pad(x, [0, 0, ...lo], [0, 0, ...hi]);
  if (spans.some((s, i) => s + 1 > padded.shape[2 + i]))
    throw new ShapeError(
      describe(
        op,
        "an input at least as large as the kernel",
        `${describeNode(x)}, ${describeNode(w)}`,
      ),
    );
  const y = convNode(padded, w, { stride: steps, dilation: gaps, groups });
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
  const shape = [x.shape[0], perGroup * groups, ...whole];
  const y = inputGradient(x, w, { stride: steps, dilation: gaps, groups }, shape);
  const inner = whole.map((d, i) => d - 2 * cut[i]);
  return finished(op, g.slice(y, [0, 0, ...cut], [shape[0], shape[1], ...inner]), b, batched);
}
