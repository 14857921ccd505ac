/**
 * @file The reference device: what every primitive means, in plain loops over float64, each node
 * rounded to its dtype. It defines the right answer, so it is written to be read; speed is the
 * other backends' concern.
 *
 * `evaluate` interprets any graph and is what the tests of the transforms use; `round: false`
 * leaves floats in float64, which makes finite differences sharp.
 */
import {
  type DType,
  dtypes,
  floatToInt,
  fromStored,
  isFloat,
  isHalf,
  roundTo,
  type TypedArray,
  toStored,
} from "../dtype.ts";
import { ArgumentError, describe, IndexOutOfRangeError } from "../errors.ts";
import { is, type Node } from "../graph/node.ts";
import {
  type Primitive,
  type Region,
  type Running,
  rules,
  type Storage,
} from "../graph/primitives.ts";
import { topological } from "../graph/walk.ts";
import { erf, threefry2x32 } from "../math.ts";
import { numel, type Shape, sameShape, stridesOf } from "../shape.ts";
import { lowerRegions } from "../transform/region.ts";
import type { Backend, CanonicalGraph, Executable } from "./backend.ts";
import { cpuRun, type KernelTime, observer, type Timed } from "./observe.ts";

type Data = Float64Array;

interface Context {
  readonly round: boolean;
  /** Values of placeholders, and run-time key and counter of random leaves. */
  readonly feeds: ReadonlyMap<Node, ArrayLike<number>>;
}

type Meaning<P extends Primitive> = (n: Node<P>, src: readonly Data[], context: Context) => Data;

/** Dispatched by the loop below instead of by the table. */
type InLoop = "region";

// --- views ---------------------------------------------------------------------------------------

/** Copies the elements at offset + Σ iₐ·strides[a], row-major over `shape`. */
function strided(x: Data, offset: number, shape: Shape, strides: readonly number[]): Data {
  const out = new Float64Array(numel(shape));
  if (out.length === 0) return out;
  const rank = shape.length;
  const [inner, step] = rank ? [shape[rank - 1], strides[rank - 1]] : [1, 0];
  const at = new Array<number>(rank).fill(0);
  let from = offset;
  for (let to = 0; ; ) {
    for (let i = 0, p = from; i < inner; i++, p += step) out[to++] = x[p];
    let axis = rank - 2;
    for (; axis >= 0; axis--) {
      from += strides[axis];
      if (++at[axis] < shape[axis]) break;
      from -= strides[axis] * shape[axis];
      at[axis] = 0;
    }
    if (axis < 0) return out;
  }
}

/** Broadcasts, aligned right. */
function spread(x: Data, from: Shape, to: Shape): Data {
  if (sameShape(from, to)) return x;
  const own = stridesOf(from);
  const missing = to.length - from.length;
  const strides = to.map((_, i) => (i < missing || from[i - missing] === 1 ? 0 : own[i - missing]));
  return strided(x, 0, to, strides);
}

const transpose = (x: Data, shape: Shape, axes: readonly number[]): Data => {
  const strides = stridesOf(shape);
  return strided(
    x,
    0,
    axes.map((a) => shape[a]),
    axes.map((a) => strides[a]),
  );
};

/** Sizes before, on and after an axis. */
const around = (shape: Shape, axis: number) =>
  [numel(shape.slice(0, axis)), shape[axis], numel(shape.slice(axis + 1))] as const;

// --- kinds of meaning ----------------------------------------------------------------------------

type Unary = "neg" | "abs" | "exp" | "log" | "sin" | "cos" | "sqrt" | "tanh" | "erf" | "floor";

function map1(f: (x: number, dtype: DType) => number): Meaning<Unary | "round" | "not"> {
  return (n, [x]) => x.map((v) => f(v, n.dtype));
}

/** `f` sees the operands' dtype, which is not the result's in comparisons. */
function map2(f: (x: number, y: number, dtype: DType) => number) {
  return (n: Node, [a, b]: readonly Data[]): Data => {
    const { dtype } = n.src[0];
    const x = spread(a, n.src[0].shape, n.shape);
    const y = spread(b, n.src[1].shape, n.shape);
    return x.map((v, i) => f(v, y[i], dtype));
  };
}

/** The reduced axes as rows. */
function reduce(row: (x: Data, dtype: DType) => number) {
  return (n: Node<"sum" | "prod" | "amax" | "amin" | "argmax">, [x]: readonly Data[]): Data => {
    const { shape } = n.src[0];
    const axes = "axes" in n.attrs ? n.attrs.axes : [n.attrs.axis];
    const kept = shape.flatMap((_, i) => (axes.includes(i) ? [] : [i]));
    const rows = transpose(x, shape, [...kept, ...axes]);
    const count = axes.reduce((c, a) => c * shape[a], 1);
    const out = new Float64Array(numel(n.shape));
    for (let i = 0; i < out.length; i++)
      out[i] = row(rows.subarray(i * count, (i + 1) * count), n.dtype);
    return out;
  };
}

/** a·b; the product of two 32-bit integers does not fit a float64. */
const times = (a: number, b: number, dtype: DType): number =>
  isFloat(dtype) ? a * b : Math.imul(a, b);

/** As in C and PyTorch: pow(1, NaN) = pow(-1, ±∞) = 1, where JavaScript has NaN. */
const power = (a: number, b: number): number =>
  a === 1 || (a === -1 && Math.abs(b) === Infinity) ? 1 : a ** b;

function roundHalfEven(x: number): number {
  const r = Math.round(x);
  return Math.abs(x % 1) === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

function argmax(x: Data): number {
  let best = 0;
  for (let i = 0; i < x.length; i++) {
    if (Number.isNaN(x[i])) return i;
    if (x[i] > x[best]) best = i;
  }
  return best;
}

/** `f` of each line along `axis`, a copy of it, in the line's place. */
function alongLines(
  x: Data,
  shape: Shape,
  axis: number,
  f: (line: Data) => Data,
  kept = shape[axis],
): Data {
  const [outer, count, inner] = around(shape, axis);
  const out = new Float64Array(outer * kept * inner);
  for (let o = 0; o < outer; o++)
    for (let i = 0; i < inner; i++) {
      const at = (j: number, n: number) => (o * n + j) * inner + i;
      const line = f(Float64Array.from({ length: count }, (_, j) => x[at(j, count)]));
      for (let j = 0; j < kept; j++) out[at(j, kept)] = line[j];
    }
  return out;
}

function runningStep(combine: Running, dtype: DType): (a: number, b: number) => number {
  switch (combine) {
    case "sum":
      return isFloat(dtype) ? (a, b) => a + b : (a, b) => (a + b) | 0;
    case "prod":
      return (a, b) => times(a, b, dtype);
    case "max":
      return Math.max;
    case "min":
      return Math.min;
  }
}

/** NaN is larger than everything and equal to itself. */
const order = (a: number, b: number): number =>
  a < b ? -1 : a > b ? 1 : Number(Number.isNaN(a)) - Number(Number.isNaN(b));

/** The position that an index names, or the error. */
function position(op: string, index: number, size: number, axis: number): number {
  if (index >= 0 && index < size) return index;
  const error = new IndexOutOfRangeError(
    describe(op, `indices within 0 … ${size - 1} on axis ${axis}`, `${index}`),
  );
  // Nothing is ever overwritten here.
  error.stateIntact = true;
  throw error;
}

/** Where a slice of `size` begins in a row-major array, its starts moved so that it fits. */
const offsetOf = (starts: readonly Data[], size: Shape, shape: Shape): number =>
  stridesOf(shape).reduce(
    (at, stride, i) => at + stride * Math.max(0, Math.min(starts[i][0], shape[i] - size[i])),
    0,
  );

const same = (_: Node, [x]: readonly Data[]): Data => x;

function missing(n: Node, op: string): never {
  throw new ArgumentError(describe("evaluate", "a value for every leaf", `none for ${op} ${n.id}`));
}

// --- the table -----------------------------------------------------------------------------------

export const meanings = {
  constant: ({ attrs }) => Float64Array.of(attrs.value),
  buffer: ({ attrs }) => Float64Array.from((attrs.storage as ReferenceStorage).data),
  placeholder: (n, _, { feeds }) => Float64Array.from(feeds.get(n) ?? missing(n, n.op)),
  iota: ({ attrs }) => Float64Array.from({ length: attrs.length }, (_, i) => i),
  random: (n, _, { feeds }) => {
    const [key0, key1, counter] = Array.from(feeds.get(n) ?? [...n.attrs.key, n.attrs.counter]);
    return new Float64Array(numel(n.shape)).map((_, i) => threefry2x32(key0, key1, i, counter));
  },

  neg: map1((x) => -x),
  abs: map1(Math.abs),
  exp: map1(Math.exp),
  log: map1(Math.log),
  sin: map1(Math.sin),
  cos: map1(Math.cos),
  sqrt: map1(Math.sqrt),
  tanh: map1(Math.tanh),
  erf: map1(erf),
  floor: map1(Math.floor),
  round: map1(roundHalfEven),
  not: map1((x, dtype) => (dtype === "bool" ? 1 - x : ~x)),

  add: map2((a, b) => a + b),
  sub: map2((a, b) => a - b),
  mul: map2(times),
  div: map2((a, b) => a / b),
  // x / 0 is ∞ or NaN here, which rounds to 0 as an integer.
  idiv: map2((a, b) => Math.trunc(a / b)),
  rem: map2((a, b) => a % b),
  pow: map2(power),
  max: map2((a, b) => Math.max(a, b)),
  min: map2((a, b) => Math.min(a, b)),
  lt: map2((a, b) => +(a < b)),
  le: map2((a, b) => +(a <= b)),
  eq: map2((a, b) => +(a === b)),
  and: map2((a, b) => a & b),
  or: map2((a, b) => a | b),
  xor: map2((a, b) => a ^ b),
  shl: map2((a, b) => a << b),
  shr: map2((a, b, dtype) => (dtypes[dtype].signed ? a >> b : a >>> b)),
  where: (n, src) => {
    const [c, x, y] = src.map((s, i) => spread(s, n.src[i].shape, n.shape));
    return c.map((v, i) => (v ? x[i] : y[i]));
  },
  cast: (n, [x], { round }) => {
    const [from, to] = [n.src[0].dtype, n.dtype];
    if (isFloat(from) && dtypes[to].category === "int") return x.map((v) => floatToInt(to, v));
    // As PyTorch, integers become halves through f32.
    if (!isFloat(from) && isHalf(to) && round) return x.map(Math.fround);
    return to === "bool" ? x.map((v) => (v === 0 ? 0 : 1)) : x;
  },
  bitcast: (n, [x]) => {
    const { dtype } = n.src[0];
    const { buffer } = toStored(dtype, new dtypes[dtype].array(x));
    return Float64Array.from(fromStored(n.dtype, buffer));
  },

  reshape: same,
  permute: (n, [x]) => transpose(x, n.src[0].shape, n.attrs.axes),
  expand: (n, [x]) => spread(x, n.src[0].shape, n.shape),
  pad: (n, [x]) => {
    const { shape } = n.src[0];
    const strides = stridesOf(n.shape);
    const start = n.attrs.lo.reduce((p, l, i) => p + l * strides[i], 0);
    const out = new Float64Array(numel(n.shape)).fill(n.attrs.value);
    // Where each source element goes: the positions themselves, read as a strided view.
    const positions = Float64Array.from(out.keys());
    if (x.length)
      for (const [i, p] of strided(positions, start, shape, strides).entries()) out[p] = x[i];
    return out;
  },
  slice: (n, [x]) => {
    const { start, step } = n.attrs;
    const own = stridesOf(n.src[0].shape);
    const offset = start.reduce((p, s, i) => p + s * own[i], 0);
    return strided(
      x,
      offset,
      n.shape,
      own.map((s, i) => s * step[i]),
    );
  },
  window: (n, [x]) => {
    const { axis, stride, dilation } = n.attrs;
    const own = stridesOf(n.src[0].shape);
    const along = own.map((s, i) => (i === axis ? s * stride : s));
    return strided(x, 0, n.shape, [...along, own[axis] * dilation]);
  },
  flip: (n, [x]) => {
    const own = stridesOf(n.shape);
    const { axes } = n.attrs;
    const offset = axes.reduce((p, a) => p + (n.shape[a] - 1) * own[a], 0);
    return strided(
      x,
      offset,
      n.shape,
      own.map((s, i) => (axes.includes(i) ? -s : s)),
    );
  },
  concat: (n, src) => {
    const [outer, , inner] = around(n.shape, n.attrs.axis);
    const out = new Float64Array(numel(n.shape));
    let to = 0;
    for (let o = 0; o < outer; o++)
      for (const [i, x] of src.entries()) {
        const run = n.src[i].shape[n.attrs.axis] * inner;
        out.set(x.subarray(o * run, (o + 1) * run), to);
        to += run;
      }
    return out;
  },

  sum: reduce((x, dtype) => x.reduce((s, v) => (isFloat(dtype) ? s + v : (s + v) | 0), 0)),
  prod: reduce((x, dtype) => x.reduce((p, v) => times(p, v, dtype), 1)),
  amax: reduce((x) => x.reduce((m, v) => Math.max(m, v))),
  amin: reduce((x) => x.reduce((m, v) => Math.min(m, v))),
  argmax: reduce(argmax),

  dot: (n, [x, y]) => {
    const [batch, rows, columns] = n.shape;
    const inner = n.src[0].shape[2];
    const out = new Float64Array(numel(n.shape));
    const float = isFloat(n.dtype);
    for (let b = 0; b < batch; b++)
      for (let r = 0; r < rows; r++)
        for (let k = 0; k < inner; k++) {
          const a = x[(b * rows + r) * inner + k];
          const from = (b * inner + k) * columns;
          const to = (b * rows + r) * columns;
          if (float) for (let c = 0; c < columns; c++) out[to + c] += a * y[from + c];
          else
            for (let c = 0; c < columns; c++)
              out[to + c] = (out[to + c] + Math.imul(a, y[from + c])) | 0;
        }
    return out;
  },
  gather: (n, [x, index]) => {
    const { axis } = n.attrs;
    const [, count, inner] = around(n.shape, axis);
    const size = n.src[0].shape[axis];
    return index.map((at, i) => {
      const outer = Math.floor(i / (count * inner));
      return x[(outer * size + position("gather", at, size, axis)) * inner + (i % inner)];
    });
  },
  scatterAdd: (n, [index, x]) => {
    const { axis, size } = n.attrs;
    const [, count, inner] = around(n.src[1].shape, axis);
    const out = new Float64Array(numel(n.shape));
    for (let i = 0; i < x.length; i++) {
      const outer = Math.floor(i / (count * inner));
      const at = position("scatterAdd", index[i], size, axis);
      out[(outer * size + at) * inner + (i % inner)] += x[i];
    }
    return out;
  },
  dynamicSlice: (n, [x, ...starts]) => {
    const strides = stridesOf(n.src[0].shape);
    return strided(x, offsetOf(starts, n.shape, n.src[0].shape), n.shape, strides);
  },
  dynamicUpdateSlice: (n, [x, update, ...starts]) => {
    const { shape } = n.src[1];
    const out = x.slice();
    const positions = Float64Array.from(out.keys());
    const to = strided(positions, offsetOf(starts, shape, n.shape), shape, stridesOf(n.shape));
    for (const [i, p] of to.entries()) out[p] = update[i];
    return out;
  },

  cumulative: (n, [x]) => {
    const { axis, combine, reverse } = n.attrs;
    const step = runningStep(combine, n.dtype);
    return alongLines(x, n.shape, axis, (line) => {
      if (reverse) line.reverse();
      for (let j = 1; j < line.length; j++) line[j] = step(line[j - 1], line[j]);
      return reverse ? line.reverse() : line;
    });
  },
  argsort: (n, [x]) => {
    const { axis, descending } = n.attrs;
    const sign = descending ? -1 : 1;
    const positions = (line: Data): Data =>
      Float64Array.from(line.keys()).sort((i, j) => sign * order(line[i], line[j]));
    return alongLines(x, n.src[0].shape, axis, positions, n.shape[axis]);
  },

  alias: same,
  detach: same,
  assign: (_, [, value]) => value,
  region: "region",
  project: "region",
} satisfies { readonly [P in Primitive]: Meaning<P> | InLoop };

/** The one place where values become what their dtype can hold; a pad's value may need it too. */
function settle(data: Data, dtype: DType, round: boolean): Data {
  if (isFloat(dtype) && !round) return data;
  if (dtype === "f32") return data.map(Math.fround);
  return data.map((v) => roundTo(dtype, v));
}

// --- interpretation ------------------------------------------------------------------------------

/** A graph in the order of execution; a loop's body is one more. */
class Program {
  readonly #order: readonly Node[];
  readonly #roots: readonly Node[];
  /** lastUse[i]: the nodes whose values nobody reads after step i. */
  readonly #lastUse: readonly Node[][];
  readonly #bodies = new Map<Region, Program>();

  constructor(roots: readonly Node[]) {
    this.#roots = roots;
    this.#order = topological(roots);
    const last = new Map<Node, number>();
    for (const [i, n] of this.#order.entries()) for (const s of [n, ...n.src]) last.set(s, i);
    for (const r of roots) last.delete(r);
    const lastUse: Node[][] = this.#order.map(() => []);
    for (const [n, i] of last) lastUse[i].push(n);
    this.#lastUse = lastUse;
    for (const n of this.#order)
      if (is(n, "region")) {
        const { region } = n.attrs;
        this.#bodies.set(region, new Program(region.body.results));
      }
  }

  run(context: Context, times: KernelTime[] | null = null): Data[] {
    const values = new Map<Node, Data>();
    const ofRegion = new Map<Node, Data[]>();
    for (const [i, n] of this.#order.entries()) {
      const src = n.src.map((s) => values.get(s)!);
      const start = times ? performance.now() : 0;
      if (is(n, "region")) ofRegion.set(n, this.#loop(n, src, context));
      else if (is(n, "project")) values.set(n, ofRegion.get(n.src[0])![n.attrs.index]);
      else {
        const data = (meanings[n.op] as Meaning<Primitive>)(n, src, context);
        const { kind } = rules[n.op];
        const moved = kind === "movement" || kind === "structure";
        values.set(n, moved && n.op !== "pad" ? data : settle(data, n.dtype, context.round));
      }
      // What happens inside a loop is told as one.
      if (times && computes(n)) times.push({ kernel: timed(n), start, end: performance.now() });
      for (const dead of this.#lastUse[i]) {
        values.delete(dead);
        ofRegion.delete(dead);
      }
    }
    return this.#roots.map((r) => values.get(r)!);
  }

  /** A scan, step by step. Other regions were inlined. */
  #loop({ attrs: { region } }: Node<"region">, src: readonly Data[], context: Context): Data[] {
    const { params, results } = region.body;
    const { length, carries, xs, reverse } = region.scan!;
    const body = this.#bodies.get(region)!;
    let carry = src.slice(0, carries);
    const ys = results.slice(carries).map((r) => new Float64Array(length * numel(r.shape)));
    for (let step = 0; step < length; step++) {
      const t = reverse ? length - 1 - step : step;
      const values = params.map((p, i) => {
        if (i < carries) return carry[i];
        const size = numel(p.shape);
        return i < carries + xs ? src[i].subarray(t * size, (t + 1) * size) : src[i];
      });
      const out = body.run({
        round: context.round,
        feeds: new Map(params.map((p, i) => [p, values[i]])),
      });
      carry = out.slice(0, carries);
      for (const [i, y] of ys.entries()) y.set(out[carries + i], t * out[carries + i].length);
    }
    return [...carry, ...ys];
  }
}

export interface EvaluateOptions {
  /** false: floats stay float64. */
  readonly round?: boolean;
}

const computes = ({ op }: Node): boolean => {
  const { kind } = rules[op];
  if (op === "reshape") return false;
  return op === "region" || op === "random" || (kind !== "leaf" && kind !== "structure");
};

/** A primitive as the profiler sees it. */
function timed(n: Node): Timed {
  const size = (x: Node) => numel(x.shape);
  const bytes = [n, ...n.src].reduce((sum, x) => sum + size(x) * dtypes[x.dtype].bytes, 0);
  const { kind } = rules[n.op];
  const work = kind === "elementwise" ? size(n) : kind === "reduce" ? size(n.src[0]) : 0;
  const flops = n.op === "dot" ? 2 * size(n) * n.src[0].shape[2] : work;
  return { name: n.op, kind: "primitive", bytes, flops };
}

type Feeds = ReadonlyMap<Node, ArrayLike<number>>;

/** What computes the values of nodes, row-major, as float64, from those of the placeholders. */
export function evaluator(
  outputs: readonly Node[],
): (feeds: Feeds, options?: EvaluateOptions) => Float64Array[] {
  const program = new Program(lowerRegions(outputs));
  return (feeds, { round = true } = {}) => program.run({ round, feeds });
}

/** The same, once. */
export const evaluate = (
  outputs: readonly Node[],
  feeds: Feeds = new Map(),
  options?: EvaluateOptions,
): Float64Array[] => evaluator(outputs)(feeds, options);

export interface ReferenceStorage extends Storage {
  data: TypedArray;
}

export class ReferenceBackend implements Backend {
  readonly name = "reference";
  #liveBytes = 0;

  prepare(graph: CanonicalGraph): Executable {
    const program = new Program(lowerRegions(graph.outputs));
    return {
      kernels: [],
      scratchBytes: 0,
      run: (inputs, words) => {
        const feeds = new Map<Node, ArrayLike<number>>();
        for (const [i, p] of graph.inputs.entries())
          feeds.set(p, (inputs[i] as ReferenceStorage).data);
        for (const [i, r] of graph.randoms.entries())
          feeds.set(r, words.subarray(3 * i, 3 * i + 3));
        const times: KernelTime[] | null = observer ? [] : null;
        const start = times ? performance.now() : 0;
        const out = program.run({ round: true, feeds }, times);
        if (times) observer!.run(cpuRun(this.name, start, times));
        return out.map((data, i) => this.upload(data, graph.outputs[i].dtype));
      },
    };
  }

  upload(data: ArrayLike<number>, dtype: DType): ReferenceStorage {
    const copy = new dtypes[dtype].array(data);
    // Halves that the host sees as f32.
    if (isHalf(dtype) && copy instanceof Float32Array)
      for (let i = 0; i < copy.length; i++) copy[i] = roundTo(dtype, copy[i]);
    this.#liveBytes += copy.byteLength;
    return { bytes: copy.byteLength, data: copy };
  }

  download(storage: Storage, dtype: DType, size: number): TypedArray {
    return new dtypes[dtype].array((storage as ReferenceStorage).data.subarray(0, size));
  }

  free(storage: Storage): void {
    const own = storage as ReferenceStorage;
    this.#liveBytes -= own.data.byteLength;
    own.data = new Uint8Array(0);
  }

  memory(): { liveBytes: number; reservedBytes: number } {
    return { liveBytes: this.#liveBytes, reservedBytes: this.#liveBytes };
  }
}
