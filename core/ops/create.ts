/**
 * @file Making tensors: from data, filled, counted. Only data is uploaded; a filled or counted
 * tensor is a literal or a counter in the graph, costs no memory and fuses into whatever reads it.
 */
import { defaultDevice, deviceNamed } from "../device.ts";
import { type DType, dtypes, isFloat, isHalf, isInt, roundTo, type TypedArray } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { DeviceName, Node } from "../graph/node.ts";
import { bufferLeaf, constant } from "../graph/primitives.ts";
import { formatShape, numel, type Shape } from "../shape.ts";
import { fromNode, Tensor } from "../tensor.ts";
import { checkShape } from "./axes.ts";
import { checkDType, literal, nodeOf } from "./promotion.ts";

/** How a new tensor is stored. */
export interface TensorOptions {
  dtype?: DType;
  /** Where its data lives; the default device unless given. */
  device?: DeviceName;
  /** Whether `backward` computes a gradient for it. */
  requiresGrad?: boolean;
}

/** Numbers or booleans in arrays nested to any depth. */
export type NestedArray = number | boolean | readonly NestedArray[];
/** Flat data in row-major order. */
export type FlatData =
  | TypedArray
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Float64Array
  | BigInt64Array;

/**
 * A tensor with a copy of the data: nested arrays, one number or boolean, or a typed array with its
 * `shape` (one axis by default). Numbers are f32 unless `dtype` says otherwise, booleans bool; a
 * typed array keeps its type (16-bit and 64-bit integers become i32, checked, and doubles f32).
 * Halves are rounded to nearest; data for bf16 comes as numbers of any kind.
 */
export function tensor(
  data: NestedArray | FlatData,
  options: TensorOptions & { shape?: Shape } = {},
): Tensor {
  if (data instanceof Tensor)
    throw new ArgumentError(describe("tensor", "data", "a Tensor", "use detach() for a copy"));
  const { values, shape, dtype: natural } = ArrayBuffer.isView(data) ? flat(data) : nested(data);
  const dtype = options.dtype ?? natural;
  checkDType("tensor", dtype);
  const wanted = options.shape ? checkShape("tensor", options.shape) : shape;
  if (numel(wanted) !== values.length)
    throw new ShapeError(
      describe("tensor", `${numel(wanted)} values for ${formatShape(wanted)}`, `${values.length}`),
    );
  return upload(stored(values, dtype), dtype, wanted, options);
}

/** Zeros of the given shape. */
export function zeros(shape: Shape, options: TensorOptions = {}): Tensor {
  return filled("zeros", shape, 0, options.dtype ?? "f32", options);
}

/** Ones of the given shape. */
export function ones(shape: Shape, options: TensorOptions = {}): Tensor {
  return filled("ones", shape, 1, options.dtype ?? "f32", options);
}

/** One value everywhere; a boolean makes a bool tensor unless `dtype` is given. */
export function full(shape: Shape, value: number | boolean, options: TensorOptions = {}): Tensor {
  const natural = typeof value === "boolean" ? "bool" : "f32";
  return filled("full", shape, value, options.dtype ?? natural, options);
}

/** Zeros like another tensor. */
export function zerosLike(x: Tensor, options: TensorOptions = {}): Tensor {
  return zeros(x.shape, { dtype: x.dtype, ...options });
}

/** Ones like another tensor. */
export function onesLike(x: Tensor, options: TensorOptions = {}): Tensor {
  return ones(x.shape, { dtype: x.dtype, ...options });
}

/** One value, in the shape and dtype of another tensor. */
export function fullLike(x: Tensor, value: number | boolean, options: TensorOptions = {}): Tensor {
  return full(x.shape, value, { dtype: x.dtype, ...options });
}

/**
 * `start, start + step, …` below (for negative steps above) `end`; `arange(n)` counts from 0.
 * Integral arguments give i32, others f32.
 */
export function arange(end: number, options?: TensorOptions): Tensor;
export function arange(start: number, end: number, options?: TensorOptions): Tensor;
export function arange(start: number, end: number, step: number, options?: TensorOptions): Tensor;
export function arange(...args: (number | TensorOptions | undefined)[]): Tensor {
  const numbers = args.filter((a) => typeof a === "number");
  const options = (args.find((a) => typeof a === "object") ?? {}) as TensorOptions;
  const [start, end, step] =
    numbers.length === 1 ? [0, numbers[0], 1] : [numbers[0], numbers[1], numbers[2] ?? 1];
  const length = Math.ceil((end - start) / step);
  if (!Number.isFinite(length) || length < 0)
    throw new ArgumentError(
      describe("arange", "finite bounds and a step towards the end", `${start}, ${end}, ${step}`),
    );
  const dtype = options.dtype ?? (numbers.every(Number.isInteger) ? "i32" : "f32");
  checkDType("arange", dtype);
  const wide = isHalf(dtype) ? "f32" : dtype;
  const counter = g.cast(g.iota(length), wide);
  const scaled = step === 1 ? counter : g.mul(counter, literal("arange", step, wide));
  const n = start === 0 ? scaled : g.add(scaled, literal("arange", start, wide));
  return placed(g.cast(n, dtype), options);
}

/** `steps` numbers from start to end, both included, evenly spaced. */
export function linspace(
  start: number,
  end: number,
  steps: number,
  options: TensorOptions = {},
): Tensor {
  checkShape("linspace", [steps]);
  const dtype = options.dtype ?? "f32";
  if (!isFloat(dtype)) throw new DTypeError(describe("linspace", "a float dtype", dtype));
  const wide = isHalf(dtype) ? "f32" : dtype;
  const lit = (x: number) => literal("linspace", x, wide);
  const step = steps > 1 ? (end - start) / (steps - 1) : 0;
  const i = g.iota(steps);
  // From both ends to the middle, as PyTorch: exact at the ends, symmetric in between.
  const rise = g.add(lit(start), g.mul(g.cast(i, wide), lit(step)));
  const left = g.sub(constant(steps - 1, "i32"), i);
  const fall = g.sub(lit(end), g.mul(g.cast(left, wide), lit(step)));
  const half = constant(Math.floor(steps / 2), "i32");
  const all = steps === 1 ? rise : g.where(g.lt(i, half), rise, fall);
  return placed(g.cast(all, dtype), options);
}

/** The identity matrix [rows, columns]. */
export function eye(rows: number, columns = rows, options: TensorOptions = {}): Tensor {
  checkShape("eye", [rows, columns]);
  const equal = g.eq(g.reshape(g.iota(rows), [rows, 1]), g.reshape(g.iota(columns), [1, columns]));
  return placed(g.cast(equal, options.dtype ?? "f32"), options);
}

// --- helpers -------------------------------------------------------------------------------------

/** A leaf with a copy of `values`. */
function upload(values: TypedArray, dtype: DType, shape: Shape, options: TensorOptions): Tensor {
  const device = options.device ? deviceNamed(options.device) : defaultDevice();
  const handle = device.upload(values, dtype, shape);
  return withGrad(new Tensor(bufferLeaf(handle, dtype, shape, device.name), true), options);
}

function withGrad(t: Tensor, { requiresGrad }: TensorOptions): Tensor {
  if (requiresGrad) t.requiresGrad = true;
  return t;
}

function filled(
  op: string,
  shape: Shape,
  value: number | boolean,
  dtype: DType,
  options: TensorOptions,
): Tensor {
  const size = checkShape(op, shape);
  const n = literal(op, value, dtype);
  // A literal has no device; one that is asked for is data there.
  if (options.device && options.device !== defaultDevice().name) {
    const data = new dtypes[dtype].array(numel(size)).fill(roundTo(dtype, Number(value)));
    return upload(data, dtype, size, options);
  }
  return withGrad(fromNode(g.expand(n, size)), options);
}

function placed(n: Node, options: TensorOptions): Tensor {
  if (options.device && options.device !== defaultDevice().name)
    throw new ArgumentError(
      describe(
        "device",
        `the default device, ${defaultDevice().name}`,
        options.device,
        "counted tensors follow the tensors they meet",
      ),
    );
  return withGrad(fromNode(n), options);
}

interface Flat {
  readonly values: ArrayLike<number | boolean>;
  readonly shape: Shape;
  readonly dtype: DType;
}

function flat(data: ArrayBufferView): Flat {
  const shape = [(data as TypedArray).length];
  for (const [dtype, info] of Object.entries(dtypes) as [DType, (typeof dtypes)[DType]][])
    if (dtype !== "bool" && data instanceof info.array)
      return { values: data as TypedArray, shape, dtype };
  if (data instanceof Uint8ClampedArray)
    return { values: new Uint8Array(data), shape, dtype: "u8" };
  if (data instanceof Float64Array) return { values: data, shape, dtype: "f32" };
  if (data instanceof Int16Array || data instanceof Uint16Array)
    return { values: data, shape, dtype: "i32" };
  if (data instanceof BigInt64Array)
    return { values: Array.from(data, Number), shape, dtype: "i32" };
  throw new ArgumentError(describe("tensor", "a numeric typed array", data.constructor.name));
}

/** Flattens nested arrays; every array at one depth must have the same length. */
function nested(data: NestedArray): Flat {
  const shape: number[] = [];
  for (let d = data; Array.isArray(d); d = d[0]) {
    shape.push(d.length);
    if (d.length === 0) break;
  }
  const values: (number | boolean)[] = [];
  const walk = (d: NestedArray, depth: number): void => {
    if (depth === shape.length) {
      if (typeof d !== "number" && typeof d !== "boolean") ragged(d, depth);
      values.push(d as number | boolean);
      return;
    }
    if (!Array.isArray(d) || d.length !== shape[depth]) ragged(d, depth);
    for (const e of d as readonly NestedArray[]) walk(e, depth + 1);
  };
  const ragged = (d: unknown, depth: number): never => {
    const got = Array.isArray(d) ? `an array of length ${d.length}` : `${typeof d} ${String(d)}`;
    const want =
      depth < shape.length ? `an array of length ${shape[depth]}` : "a number or boolean";
    throw new ShapeError(
      describe("tensor", `${want} at depth ${depth}`, got, "arrays must not be ragged"),
    );
  };
  walk(data, 0);
  const bools = values.length > 0 && values.every((v) => typeof v === "boolean");
  return { values, shape, dtype: bools ? "bool" : "f32" };
}

/** The values in the array type of `dtype`; refuses integers that it cannot hold. */
function stored(values: ArrayLike<number | boolean>, dtype: DType): TypedArray {
  const { array, bytes, signed } = dtypes[dtype];
  // A Float32Array of halves is yet to be rounded.
  const rounds = isHalf(dtype) && new array(0) instanceof Float32Array;
  if (values instanceof array && dtype !== "bool" && !rounds) return values;
  const out = new array(values.length);
  const high = 2 ** (8 * bytes - (signed ? 1 : 0)) - 1;
  const low = signed ? -high - 1 : 0;
  for (let i = 0; i < out.length; i++) {
    const v = Number(values[i]);
    if (isInt(dtype) && !(Number.isInteger(v) && v >= low && v <= high))
      throw new DTypeError(
        describe(
          "tensor",
          `integers within ${low} … ${high} for ${dtype}`,
          `${v} at position ${i}`,
        ),
      );
    out[i] = dtype === "bool" ? Number(v !== 0) : rounds ? roundTo(dtype, v) : v;
  }
  return out;
}

/** As `tensor`, but a Tensor passes through (cast if `dtype` asks for it). */
export function asTensor(x: Tensor | NestedArray | FlatData, options: TensorOptions = {}): Tensor {
  if (!(x instanceof Tensor)) return tensor(x, options);
  return options.dtype && options.dtype !== x.dtype
    ? fromNode(g.cast(nodeOf("asTensor", x), options.dtype))
    : x;
}
