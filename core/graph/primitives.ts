/**
 * @file The primitives: every computation is a graph of these. This file gives each its attributes, arity, and
 * its shape and dtype rule; the other columns of the table (gradient, jvp, batching, float64 meaning) stand
 * where they are used and are exhaustive over `Primitive` too: a missing rule is a type error.
 *
 * Element-wise primitives broadcast like NumPy; their sources share one dtype (casts are explicit, the Tensor
 * methods insert them). All other primitives take exactly the shapes that their rule names.
 */
import type { DType } from "../dtype.ts";
import { dtypes, isFloat, isInt } from "../dtype.ts";
import { ArgumentError, DeviceError, DTypeError, describe, ShapeError } from "../errors.ts";
import { broadcast, formatShape, numel, type Shape, sameShape } from "../shape.ts";
import { type DeviceName, freshUid, type Node, rawNode, type SubGraph } from "./node.ts";

/** A device allocation, as the graph sees it: an opaque object that a leaf holds. */
export interface Storage {
  readonly bytes: number;
}

/**
 * Attention over q [B, H, L, E], k [B, K, S, E], v [B, K, S, V], all of one float type, and a mask that broadcasts to [B, H, L,
 * S]: bool, or float that is added. Head h reads the keys of head h·K / H; with `causal`, row i those up to i.
 * forward (q, k, v, mask?) → output [B, H, L, V] and lse [B, H, L], f32: the logarithm of each row's sum of exponentials.
 * backward (q, k, v, dO, lse, delta, mask?) → dq, dk, dv; delta [B, H, L], f32, is Σ dO·output.
 */
export interface Attention {
  readonly pass: "forward" | "backward";
  readonly scale: number;
  readonly causal: boolean;
}

/** A kernel that the program brought along. kernel/custom.ts knows what is in it, and transforms only what is here. */
export interface OwnKernel {
  /** Equal for kernels that do the same. */
  readonly key: string;
  /** How many of the region's sources it reads, from the first; what follows them is for the body alone. */
  readonly inputs: number;
  /** Where it runs: elsewhere the body does. */
  readonly devices: readonly DeviceName[];
  /** The device of a call whose sources are on none. */
  readonly home: DeviceName;
  /** The kernel for a batch of `size`, which the sources that `which` marks have as their first axis, and all results. */
  batched(which: readonly boolean[], size: number): OwnKernel | null;
}

/** What a region is; its transforms live in transform/region.ts. */
export interface Region {
  readonly kind: "custom" | "checkpoint" | "scan";
  readonly name: string;
  /**
   * custom, checkpoint: params ↔ sources, results ↔ outputs.
   * scan: params = [carries…, slices of xs…, constants…]; results = [new carries…, slices of ys…].
   */
  readonly body: SubGraph;
  /** scan only. */
  readonly scan?: {
    readonly length: number;
    readonly carries: number;
    readonly xs: number;
    readonly reverse: boolean;
  };
  /**
   * Own gradient: (sources, outputs, cotangents) → one cotangent or null per source. `need` tells for which one is asked.
   */
  readonly vjp?: (
    src: readonly Node[],
    out: readonly Node[],
    ct: readonly Node[],
    need: (i: number) => boolean,
  ) => (Node | null)[];
  /** Own batching: the results for sources that have, or lack, a batch of `size` as their first axis; all results have it. */
  readonly batch?: (
    src: readonly { readonly node: Node; readonly batched: boolean }[],
    size: number,
  ) => readonly Node[];
  /** Kernels of its own may compute it, as a whole. The body says what, for everybody else. */
  readonly attention?: Attention;
  /** The same of a kernel of the program's own. */
  readonly kernel?: OwnKernel;
}

type None = Readonly<Record<string, never>>;
type Axes = { readonly axes: readonly number[] };

/** What `cumulative` combines with. */
export type Running = "sum" | "prod" | "max" | "min";

/** The longest line that argsort takes: its keys and positions are in scratch, twice, 16 bytes an element. */
export const maxSorted = 1 << 21;

export interface AttrsOf {
  // leaves
  /** A 0-d literal. Interned by its bits: -0 ≠ 0. */
  constant: { readonly value: number };
  /** Data on a device. `uid` names this version of the storage. */
  buffer: { readonly uid: number; readonly storage: Storage };
  /** A parameter of a function being traced. */
  placeholder: { readonly uid: number; readonly name: string };
  /** [length] i32: 0, 1, 2, … */
  iota: { readonly length: number };
  /** Threefry-2x32 bits (u32): element i is the first word of threefry(key, [i, counter]). */
  random: {
    readonly uid: number;
    readonly key: readonly [number, number];
    readonly counter: number;
  };
  // element-wise, one source
  neg: None;
  abs: None;
  exp: None;
  log: None;
  sin: None;
  cos: None;
  sqrt: None;
  tanh: None;
  erf: None;
  floor: None;
  round: None;
  not: None;
  // element-wise, two sources
  add: None;
  sub: None;
  mul: None;
  div: None;
  idiv: None;
  rem: None;
  pow: None;
  max: None;
  min: None;
  lt: None;
  le: None;
  eq: None;
  and: None;
  or: None;
  xor: None;
  shl: None;
  shr: None;
  /** where(condition: bool, a, b) */
  where: None;
  cast: { readonly dtype: DType };
  bitcast: { readonly dtype: DType };
  // movement
  reshape: { readonly shape: Shape };
  /** Output axis i is source axis axes[i]. */
  permute: Axes;
  /** Broadcast to `shape`: aligned right, size-1 axes repeat. */
  expand: { readonly shape: Shape };
  /** Constant padding; lo, hi ≥ 0 per axis. */
  pad: { readonly lo: readonly number[]; readonly hi: readonly number[]; readonly value: number };
  /** Per axis start, start + step, … ; `size` elements; step ≥ 1. */
  slice: {
    readonly start: readonly number[];
    readonly size: readonly number[];
    readonly step: readonly number[];
  };
  flip: Axes;
  /**
   * Sliding windows along one axis, as a new last axis of `size`: out[…, o, …, k] = x[…, o·stride + k·dilation, …].
   * Only addressed, never copied: a convolution is a product that reads windows.
   */
  window: {
    readonly axis: number;
    readonly size: number;
    readonly stride: number;
    readonly dilation: number;
  };
  concat: { readonly axis: number };
  // reductions; the reduced axes disappear
  sum: Axes;
  prod: Axes;
  amax: Axes;
  amin: Axes;
  /** i32 index of the first maximum along one axis (NaN counts as the maximum), which disappears. */
  argmax: { readonly axis: number };
  /** [B, M, K] · [B, K, N] → [B, M, N] */
  dot: None;
  /** gather(x, index: i32): as torch.gather: out[..i..] = x[.. index[..i..] on axis ..]; out has index's shape. */
  gather: { readonly axis: number };
  /** scatterAdd(index: i32, src): zeros of index's shape with `size` on `axis`, plus src added at index. */
  scatterAdd: { readonly axis: number; readonly size: number };
  /**
   * dynamicSlice(x, ...starts: i32[], one per axis): `size` elements of each axis from a run-time start, which is
   * clamped so that they fit.
   */
  dynamicSlice: { readonly size: Shape };
  /** dynamicUpdateSlice(x, update, ...starts): x with `update` written there. Assigned to x's cell it writes in place. */
  dynamicUpdateSlice: None;
  // along the lines of one axis
  /**
   * The running combination: out[j] combines x[0] … x[j], or x[j] … x[n-1] with `reverse`. NaN wins max and min. How a
   * running float sum is rounded is the backend's choice (it may sum in blocks).
   */
  cumulative: { readonly axis: number; readonly combine: Running; readonly reverse: boolean };
  /**
   * The i32 positions that sort each line, stable also when descending. NaN is larger than everything, -0 equals 0.
   * `first`: only so many of them (schedule/select.ts asks for them, on processors).
   */
  argsort: { readonly axis: number; readonly descending: boolean; readonly first?: number };
  // structure
  /** A fresh identity for the same value: what transforms differentiate with respect to. */
  alias: { readonly uid: number };
  /** The same value, without a gradient. */
  detach: None;
  /** assign(target, value): the value, to be stored in the target's storage. */
  assign: None;
  region: { readonly uid: number; readonly region: Region };
  project: { readonly index: number };
}

export type Primitive = keyof AttrsOf;

export interface Signature {
  readonly dtype: DType;
  readonly shape: Shape;
}

type Rule<P extends Primitive> = {
  readonly arity: number | "any";
  readonly kind:
    | "leaf"
    | "elementwise"
    | "movement"
    | "reduce"
    | "contract"
    | "index"
    | "line"
    | "structure";
  /** Checks the sources and gives the result's dtype and shape. */
  readonly infer: (src: readonly Node[], attrs: AttrsOf[P], op: P) => Signature;
};

const types = (src: readonly Node[]): string =>
  src.map((s) => `${s.dtype}${formatShape(s.shape)}`).join(", ");

function elementwise(
  arity: number,
  accepts: "float" | "number" | "int" | "bits" | "any",
  out?: DType,
) {
  const ok: Record<typeof accepts, (d: DType) => boolean> = {
    float: isFloat,
    number: (d) => d !== "bool",
    int: isInt,
    bits: (d) => !isFloat(d),
    any: () => true,
  };
  const infer = (src: readonly Node[], _: unknown, op: string): Signature => {
    const dtype = src[0].dtype;
    if (!src.every((s) => s.dtype === dtype && ok[accepts](dtype)))
      throw new DTypeError(
        describe(op, `${accepts} operands of one dtype`, types(src), "cast with .to(dtype)"),
      );
    return { dtype: out ?? dtype, shape: broadcastOrThrow(op, src) };
  };
  return { arity, kind: "elementwise", infer } as const;
}

function broadcastOrThrow(op: string, src: readonly Node[]): Shape {
  const first = src[0].shape;
  if (src.every((s) => s.shape === first)) return first;
  const shape = broadcast(...src.map((s) => s.shape));
  if (!shape)
    throw new ShapeError(
      describe(
        op,
        "shapes that broadcast",
        types(src),
        "axes align from the right and must be equal or 1",
      ),
    );
  return shape;
}

function checkAxes(op: string, axes: readonly number[], x: Node): void {
  const seen = new Set(axes);
  if (
    seen.size !== axes.length ||
    axes.some((a) => !Number.isInteger(a) || a < 0 || a >= x.shape.length)
  )
    throw new ArgumentError(
      describe(
        op,
        `distinct axes within 0 … ${x.shape.length - 1}`,
        `[${axes.join(", ")}] for ${types([x])}`,
      ),
    );
}

/** Of a slice of x at run-time starts: as many sizes as axes, within x; an i32 scalar for each start. */
function checkDynamic(op: string, x: Node, size: Shape, starts: readonly Node[]): void {
  const rank = x.shape.length;
  if (size.length !== rank || size.some((d, i) => !(d >= 0 && d <= x.shape[i])))
    throw new ShapeError(describe(op, `sizes within ${types([x])}`, formatShape(size)));
  if (starts.length !== rank || starts.some((s) => s.dtype !== "i32" || s.shape.length > 0))
    throw new ArgumentError(describe(op, `${rank} starts, i32 scalars`, types(starts)));
}

function reduce(accepts: (d: DType) => boolean, nonEmpty: boolean) {
  const infer = (src: readonly Node[], { axes }: Axes, op: string): Signature => {
    const [x] = src;
    checkAxes(op, axes, x);
    if (!accepts(x.dtype)) throw new DTypeError(describe(op, "a numeric operand", types(src)));
    if (nonEmpty && axes.some((a) => x.shape[a] === 0))
      throw new ShapeError(describe(op, "at least one element per reduction", types(src)));
    return { dtype: x.dtype, shape: x.shape.filter((_, i) => !axes.includes(i)) };
  };
  return { arity: 1, kind: "reduce", infer } as const;
}

const number = (d: DType): boolean => d !== "bool";
const leaf = { arity: 0, kind: "leaf" } as const;

function leafError(op: string): never {
  throw new ArgumentError(`${op}: made through its own function, with a given shape and dtype`);
}

/** Attributes → result, per primitive; exhaustive. */
export const rules: { readonly [P in Primitive]: Rule<P> } = {
  constant: { ...leaf, infer: (_s, _a, op) => leafError(op) },
  buffer: { ...leaf, infer: (_s, _a, op) => leafError(op) },
  placeholder: { ...leaf, infer: (_s, _a, op) => leafError(op) },
  random: { ...leaf, infer: (_s, _a, op) => leafError(op) },
  iota: { ...leaf, infer: (_s, { length }) => ({ dtype: "i32", shape: [length] }) },

  neg: elementwise(1, "number"),
  abs: elementwise(1, "number"),
  exp: elementwise(1, "float"),
  log: elementwise(1, "float"),
  sin: elementwise(1, "float"),
  cos: elementwise(1, "float"),
  sqrt: elementwise(1, "float"),
  tanh: elementwise(1, "float"),
  erf: elementwise(1, "float"),
  floor: elementwise(1, "float"),
  round: elementwise(1, "float"),
  not: elementwise(1, "bits"),

  add: elementwise(2, "number"),
  sub: elementwise(2, "number"),
  mul: elementwise(2, "number"),
  div: elementwise(2, "float"),
  idiv: elementwise(2, "int"),
  rem: elementwise(2, "number"),
  pow: elementwise(2, "float"),
  max: elementwise(2, "number"),
  min: elementwise(2, "number"),
  lt: elementwise(2, "any", "bool"),
  le: elementwise(2, "any", "bool"),
  eq: elementwise(2, "any", "bool"),
  and: elementwise(2, "bits"),
  or: elementwise(2, "bits"),
  xor: elementwise(2, "bits"),
  shl: elementwise(2, "int"),
  shr: elementwise(2, "int"),
  where: {
    arity: 3,
    kind: "elementwise",
    infer: (src, _, op) => {
      if (src[0].dtype !== "bool" || src[1].dtype !== src[2].dtype)
        throw new DTypeError(describe(op, "(bool, T, T)", types(src)));
      return { dtype: src[1].dtype, shape: broadcastOrThrow(op, src) };
    },
  },
  cast: { arity: 1, kind: "elementwise", infer: ([x], { dtype }) => ({ dtype, shape: x.shape }) },
  bitcast: {
    arity: 1,
    kind: "elementwise",
    infer: ([x], { dtype }, op) => {
      if (dtypes[x.dtype].bytes !== dtypes[dtype].bytes || x.dtype === "bool" || dtype === "bool")
        throw new DTypeError(describe(op, "two types of the same width", `${x.dtype} → ${dtype}`));
      return { dtype, shape: x.shape };
    },
  },

  reshape: {
    arity: 1,
    kind: "movement",
    infer: ([x], { shape }, op) => {
      if (numel(shape) !== numel(x.shape))
        throw new ShapeError(
          describe(
            op,
            `a shape of ${numel(x.shape)} elements`,
            `${types([x])} → ${formatShape(shape)}`,
          ),
        );
      return { dtype: x.dtype, shape };
    },
  },
  permute: {
    arity: 1,
    kind: "movement",
    infer: ([x], { axes }, op) => {
      checkAxes(op, axes, x);
      if (axes.length !== x.shape.length)
        throw new ArgumentError(describe(op, `${x.shape.length} axes`, `[${axes.join(", ")}]`));
      return { dtype: x.dtype, shape: axes.map((a) => x.shape[a]) };
    },
  },
  expand: {
    arity: 1,
    kind: "movement",
    infer: ([x], { shape }, op) => {
      const fit = broadcast(x.shape, shape);
      if (!fit || !sameShape(fit, shape))
        throw new ShapeError(
          describe(
            op,
            `a shape that ${types([x])} broadcasts to`,
            formatShape(shape),
            "only axes of size 1 repeat",
          ),
        );
      return { dtype: x.dtype, shape };
    },
  },
  pad: {
    arity: 1,
    kind: "movement",
    infer: ([x], { lo, hi }, op) => {
      if (
        lo.length !== x.shape.length ||
        hi.length !== x.shape.length ||
        [...lo, ...hi].some((v) => !(v >= 0))
      )
        throw new ArgumentError(
          describe(op, "non-negative lo and hi per axis", `${lo} / ${hi} for ${types([x])}`),
        );
      return { dtype: x.dtype, shape: x.shape.map((d, i) => d + lo[i] + hi[i]) };
    },
  },
  slice: {
    arity: 1,
    kind: "movement",
    infer: ([x], { start, size, step }, op) => {
      const fits = (i: number) =>
        step[i] >= 1 &&
        start[i] >= 0 &&
        size[i] >= 0 &&
        (size[i] === 0 || start[i] + (size[i] - 1) * step[i] < x.shape[i]);
      if (size.length !== x.shape.length || !size.every((_, i) => fits(i)))
        throw new ArgumentError(
          describe(
            op,
            "ranges inside the tensor",
            `start ${start}, size ${size}, step ${step} for ${types([x])}`,
          ),
        );
      return { dtype: x.dtype, shape: size };
    },
  },
  flip: {
    arity: 1,
    kind: "movement",
    infer: ([x], { axes }, op) => {
      checkAxes(op, axes, x);
      return { dtype: x.dtype, shape: x.shape };
    },
  },
  window: {
    arity: 1,
    kind: "movement",
    infer: ([x], { axis, size, stride, dilation }, op) => {
      const span = dilation * (size - 1) + 1;
      if (!(axis in x.shape && size >= 1 && stride >= 1 && dilation >= 1 && span <= x.shape[axis]))
        throw new ArgumentError(
          describe(
            op,
            `windows of ${size} (dilation ${dilation}, stride ${stride}) that fit axis ${axis}`,
            types([x]),
          ),
        );
      const count = Math.floor((x.shape[axis] - span) / stride) + 1;
      const shape = x.shape.map((d, i) => (i === axis ? count : d));
      return { dtype: x.dtype, shape: [...shape, size] };
    },
  },
  concat: {
    arity: "any",
    kind: "movement",
    infer: (src, { axis }, op) => {
      const first = src[0]?.shape;
      const fits = (s: Node) =>
        s.dtype === src[0].dtype &&
        s.shape.length === first.length &&
        s.shape.every((d, i) => i === axis || d === first[i]);
      if (!first || !(axis >= 0 && axis < first.length) || !src.every(fits))
        throw new ShapeError(
          describe(op, `equal dtypes and shapes except on axis ${axis}`, types(src)),
        );
      const total = src.reduce((n, s) => n + s.shape[axis], 0);
      return { dtype: src[0].dtype, shape: first.map((d, i) => (i === axis ? total : d)) };
    },
  },

  sum: reduce(number, false),
  prod: reduce(number, false),
  amax: reduce(number, true),
  amin: reduce(number, true),
  argmax: {
    arity: 1,
    kind: "reduce",
    infer: (src, { axis }, op) => ({
      ...reduce(number, true).infer(src, { axes: [axis] }, op),
      dtype: "i32",
    }),
  },

  dot: {
    arity: 2,
    kind: "contract",
    infer: (src, _, op) => {
      const [a, b] = src;
      const fits =
        a.shape.length === 3 &&
        b.shape.length === 3 &&
        a.shape[0] === b.shape[0] &&
        a.shape[2] === b.shape[1];
      if (!fits) throw new ShapeError(describe(op, "[B, M, K] and [B, K, N]", types(src)));
      if (a.dtype !== b.dtype || a.dtype === "bool")
        throw new DTypeError(describe(op, "numeric operands of one dtype", types(src)));
      return { dtype: a.dtype, shape: [a.shape[0], a.shape[1], b.shape[2]] };
    },
  },
  gather: {
    arity: 2,
    kind: "index",
    infer: (src, { axis }, op) => {
      const [x, index] = src;
      const fits =
        index.dtype === "i32" &&
        index.shape.length === x.shape.length &&
        axis >= 0 &&
        axis < x.shape.length &&
        index.shape.every((d, i) => i === axis || d === x.shape[i]);
      if (!fits)
        throw new ShapeError(
          describe(op, `an i32 index shaped like the source except on axis ${axis}`, types(src)),
        );
      return { dtype: x.dtype, shape: index.shape };
    },
  },
  scatterAdd: {
    arity: 2,
    kind: "index",
    infer: (src, { axis, size }, op) => {
      const [index, x] = src;
      if (
        index.dtype !== "i32" ||
        !sameShape(index.shape, x.shape) ||
        !(axis >= 0 && axis < x.shape.length)
      )
        throw new ShapeError(describe(op, "an i32 index and a source of one shape", types(src)));
      if (x.dtype === "bool") throw new DTypeError(describe(op, "a numeric source", types(src)));
      return { dtype: x.dtype, shape: x.shape.map((d, i) => (i === axis ? size : d)) };
    },
  },
  dynamicSlice: {
    arity: "any",
    kind: "index",
    infer: ([x, ...starts], { size }, op) => {
      checkDynamic(op, x, size, starts);
      return { dtype: x.dtype, shape: size };
    },
  },
  dynamicUpdateSlice: {
    arity: "any",
    kind: "index",
    infer: ([x, update, ...starts], _, op) => {
      if (update.dtype !== x.dtype)
        throw new DTypeError(describe(op, "one dtype", types([x, update])));
      checkDynamic(op, x, update.shape, starts);
      return { dtype: x.dtype, shape: x.shape };
    },
  },

  cumulative: {
    arity: 1,
    kind: "line",
    infer: ([x], { axis }, op) => {
      checkAxes(op, [axis], x);
      if (x.dtype === "bool") throw new DTypeError(describe(op, "a numeric operand", types([x])));
      return { dtype: x.dtype, shape: x.shape };
    },
  },
  argsort: {
    arity: 1,
    kind: "line",
    infer: ([x], { axis, first }, op) => {
      checkAxes(op, [axis], x);
      if (x.shape[axis] > maxSorted)
        throw new ShapeError(describe(op, `at most ${maxSorted} elements per line`, types([x])));
      return { dtype: "i32", shape: x.shape.with(axis, first ?? x.shape[axis]) };
    },
  },

  alias: { arity: 1, kind: "structure", infer: ([x]) => ({ dtype: x.dtype, shape: x.shape }) },
  detach: { arity: 1, kind: "structure", infer: ([x]) => ({ dtype: x.dtype, shape: x.shape }) },
  assign: {
    arity: 2,
    kind: "structure",
    infer: (src, _, op) => {
      const [target, value] = src;
      if (target.dtype !== value.dtype || !sameShape(target.shape, value.shape))
        throw new ShapeError(describe(op, "the target's shape and dtype", types(src)));
      return { dtype: target.dtype, shape: target.shape };
    },
  },
  // A region's own shape is meaningless: only its projections are values.
  region: { arity: "any", kind: "structure", infer: () => ({ dtype: "f32", shape: [] }) },
  project: {
    arity: 1,
    kind: "structure",
    infer: ([source], { index }, op) => {
      if (source.op !== "region") throw new ArgumentError(describe(op, "a region", source.op));
      const { region } = (source as Node<"region">).attrs;
      const result = region.body.results[index];
      const stacked = region.scan && index >= region.scan.carries;
      return {
        dtype: result.dtype,
        shape: stacked ? [region.scan!.length, ...result.shape] : result.shape,
      };
    },
  },
};

function deviceOf(op: string, src: readonly Node[]): DeviceName | null {
  let device: DeviceName | null = null;
  for (const s of src) {
    if (!s.device || s.device === device) continue;
    if (device)
      throw new DeviceError(
        describe(
          op,
          "tensors of one device",
          `${device} and ${s.device}`,
          "move one of them with await t.to(device)",
        ),
      );
    device = s.device;
  }
  return device;
}

/** Makes a checked node: the only way to add a non-leaf to the graph. */
export function node<P extends Primitive>(
  op: P,
  src: readonly Node[],
  attrs: AttrsOf[P] = {} as AttrsOf[P],
  recompute = 0,
): Node<P> {
  const rule = rules[op] as Rule<P>;
  if (rule.arity !== "any" && src.length !== rule.arity)
    throw new ArgumentError(describe(op, `${rule.arity} sources`, `${src.length}`));
  const { dtype, shape } = rule.infer(src, attrs, op);
  return rawNode(op, src, attrs, dtype, shape, deviceOf(op, src), recompute);
}

/** A 0-d literal of `dtype`; broadcasting makes it any shape. */
export const constant = (value: number, dtype: DType): Node<"constant"> =>
  rawNode("constant", [], { value }, dtype, [], null);

export const bufferLeaf = (
  storage: Storage,
  dtype: DType,
  shape: Shape,
  device: DeviceName,
): Node<"buffer"> => rawNode("buffer", [], { uid: freshUid(), storage }, dtype, shape, device);

export const placeholder = (
  dtype: DType,
  shape: Shape,
  device: DeviceName | null,
  name = "",
): Node<"placeholder"> =>
  rawNode("placeholder", [], { uid: freshUid(), name }, dtype, shape, device);

export const randomBits = (
  shape: Shape,
  key: readonly [number, number],
  counter: number,
): Node<"random"> => rawNode("random", [], { uid: freshUid(), key, counter }, "u32", shape, null);
