/**
 * Every primitive on WebAssembly, and some cases of it on WebGPU, against the float64 reference: random shapes with 0-d, empty and size-1 axes,
 * broadcasting, operands that are views (transposed, reversed, stepped, repeated), all dtypes, special values.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import { requestGpu } from "../../core/backend/webgpu/adapter.ts";
import { WebGpuBackend } from "../../core/backend/webgpu/backend.ts";
import { codecs, type DType, dtypes, isFloat, isHalf, type TypedArray } from "../../core/dtype.ts";
import type { Node } from "../../core/graph/node.ts";
import {
  constant,
  node,
  type Primitive,
  placeholder,
  randomBits,
  rules,
} from "../../core/graph/primitives.ts";
import { numel } from "../../core/shape.ts";
import { scanNodes } from "../../core/transform/scan.ts";
import { runGraph, runGraphOn } from "../support/differential.ts";
import { generator, type RandomGraph } from "../support/graphs.ts";

const wasm = [
  new WasmBackend(),
  new WasmBackend({ relaxed: false }),
  new WasmBackend({ address: 64 }),
];
const reference = new ReferenceBackend();
const webgpu = new WebGpuBackend(await requestGpu());
/** Cases on WebGPU per primitive: each takes some tenths of a second, nearly all of it in SwiftShader's compiler. */
const gpuCases = 4;

const special = [
  0,
  -0,
  1,
  -1,
  0.5,
  -2.5,
  3,
  NaN,
  Infinity,
  -Infinity,
  1e-30,
  1e30,
  1.5,
  2.5,
  -0.3,
  7.25,
  // The edges of f16: its smallest number, subnormals, its largest number, and what rounds to infinity.
  6e-8,
  -1e-5,
  65504,
  -65520,
];
const floats: DType[] = ["f32", "f16", "bf16"];
const numbers: DType[] = [...floats, "i32", "u32", "i8", "u8"];
const ints: DType[] = ["i32", "u32", "i8", "u8"];

/** Which dtypes an element-wise primitive takes, and the ulp that WebAssembly may differ by. */
const elementwise: Partial<Record<Primitive, { types: DType[]; ulp?: number }>> = {
  neg: { types: numbers },
  abs: { types: numbers },
  exp: { types: floats, ulp: 2 },
  log: { types: floats, ulp: 2 },
  sin: { types: floats, ulp: 4 },
  cos: { types: floats, ulp: 4 },
  tanh: { types: floats, ulp: 4 },
  erf: { types: floats, ulp: 4 },
  sqrt: { types: floats },
  floor: { types: floats },
  round: { types: floats },
  not: { types: [...ints, "bool"] },
  add: { types: numbers },
  sub: { types: numbers },
  mul: { types: numbers },
  div: { types: floats },
  idiv: { types: ints },
  rem: { types: numbers },
  pow: { types: floats, ulp: 4 },
  max: { types: numbers },
  min: { types: numbers },
  lt: { types: [...numbers, "bool"] },
  le: { types: [...numbers, "bool"] },
  eq: { types: [...numbers, "bool"] },
  and: { types: [...ints, "bool"] },
  or: { types: [...ints, "bool"] },
  xor: { types: [...ints, "bool"] },
  shl: { types: ints },
  shr: { types: ints },
  where: { types: [...numbers, "bool"] },
  cast: { types: [...numbers, "bool"] },
  bitcast: { types: [...floats, "i32", "u32"] },
};

/** Builds one graph from a seed; the pieces that all cases share. */
class Case {
  readonly next: () => number;
  readonly inputs: Node<"placeholder">[] = [];
  readonly data: TypedArray[] = [];

  constructor(seed: number) {
    this.next = generator(seed);
  }

  int(n: number): number {
    return Math.floor(this.next() * n);
  }

  pick<T>(list: readonly T[]): T {
    return list[this.int(list.length)];
  }

  shape(rank = this.int(4)): number[] {
    return Array.from({ length: rank }, () => this.pick([1, 2, 3, 4, 5, 7, 8, 9, 17, 0, 2, 3]));
  }

  input(dtype: DType, shape: readonly number[], values: readonly number[] = special): Node {
    const p = placeholder(dtype, shape, "wasm");
    const data = new dtypes[dtype].array(numel(shape));
    for (let i = 0; i < data.length; i++)
      data[i] =
        dtype === "bool"
          ? this.int(2)
          : isFloat(dtype)
            ? this.next() < 0.3
              ? this.pick(values)
              : (this.next() - 0.5) * 8
            : this.next() < 0.3
              ? this.pick([0, 1, -1, 127, -128, 255, 2 ** 31 - 1, -(2 ** 31), 65536])
              : this.int(20) - 10;
    this.inputs.push(p);
    this.data.push(data);
    return p;
  }

  /** An input of `shape` that is a view of something else. */
  view(dtype: DType, shape: readonly number[], values = special): Node {
    switch (this.int(6)) {
      case 0: {
        const axes = shape.map((_, i) => i).reverse();
        return node("permute", [this.input(dtype, [...shape].reverse(), values)], { axes });
      }
      case 1:
        return node("flip", [this.input(dtype, shape, values)], { axes: shape.map((_, i) => i) });
      case 2: {
        const x = this.input(
          dtype,
          shape.map((d) => 2 * d + 1),
          values,
        );
        return node("slice", [x], {
          start: shape.map(() => 1),
          size: [...shape],
          step: shape.map(() => 2),
        });
      }
      case 3:
        return node(
          "expand",
          [
            this.input(
              dtype,
              shape.map((d, i) => (i % 2 ? 1 : d)),
              values,
            ),
          ],
          { shape: [...shape] },
        );
      case 4:
        return node("reshape", [this.input(dtype, [numel(shape)], values)], { shape: [...shape] });
      default:
        return this.input(dtype, shape, values);
    }
  }

  /** A shape that broadcasts into `shape`. */
  narrower(shape: readonly number[]): number[] {
    return shape.slice(this.int(shape.length + 1)).map((d) => (this.next() < 0.3 ? 1 : d));
  }

  graph(...outputs: Node[]): RandomGraph {
    return {
      inputs: this.inputs,
      data: this.data,
      randoms: [],
      words: new Uint32Array(0),
      outputs,
    };
  }
}

const bits = new Int32Array(1);
const float = new Float32Array(bits.buffer);
/** Floats as integers whose difference counts the representable numbers between. */
function ordered(x: number, dtype: DType): number {
  const half = codecs[dtype]?.encode(x);
  if (half !== undefined) return half >= 32768 ? 32768 - half : half;
  float[0] = x;
  return bits[0] < 0 ? -2147483648 - bits[0] : bits[0];
}

interface Comparison {
  readonly graph: RandomGraph;
  readonly ulp: number;
  readonly absolute: number;
}

/** What to run on WebGPU, while a test collects it. */
let collected: Comparison[] | null = null;

function compare(graph: RandomGraph, ulp: number, absolute = 0): void {
  if (collected) collected.push({ graph, ulp, absolute });
  else {
    const want = runGraph(reference, graph);
    for (const backend of wasm)
      expectClose({ graph, ulp, absolute }, runGraph(backend, graph), want);
  }
}

function expectClose(
  { graph, ulp, absolute }: Comparison,
  got: readonly TypedArray[],
  want: readonly TypedArray[],
): void {
  graph.outputs.forEach((output, o) => {
    expect(got[o].length).toBe(want[o].length);
    for (let i = 0; i < want[o].length; i++) {
      const [a, b] = [got[o][i], want[o][i]];
      if (Object.is(a, b) || (a === b && ulp > 0)) continue;
      const near = isFloat(output.dtype) && Number.isFinite(a) && Number.isFinite(b);
      // Halves are computed in f32: what differs there by some ulp is rounded alike, or to neighbours.
      const allowed = isHalf(output.dtype) ? Math.min(ulp, 1) : ulp;
      const distance = Math.abs(ordered(a, output.dtype) - ordered(b, output.dtype));
      if (near && (distance <= allowed || Math.abs(a - b) <= absolute)) continue;
      // Results below the smallest normal number may be flushed.
      if (near && Math.abs(a - b) < 1.2e-38) continue;
      expect(a, `${output.op} ${output.dtype}[${output.shape}] element ${i}`).toBe(b);
    }
  });
}

/** Runs a few cases of a property on WebGPU, their kernels compiled in parallel. */
async function checkOnGpu(run: (c: Case) => void, least = 0): Promise<void> {
  const comparisons: (Comparison & { readonly seed: number })[] = [];
  for (const seed of fc.sample(seeds, gpuCases)) {
    collected = [];
    run(new Case(seed));
    comparisons.push(...collected.map((c) => ({ ...c, seed })));
    collected = null;
  }
  await Promise.all(
    comparisons.map(async (comparison) => {
      const { graph, seed, ulp } = comparison;
      try {
        const got = await runGraphOn(webgpu, graph);
        const compared = { ...comparison, ulp: Math.max(ulp, least) };
        expectClose(compared, got, runGraph(reference, graph));
      } catch (error) {
        throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
      }
    }),
  );
}

const seeds = fc.integer({ min: 0, max: 2 ** 31 - 1 });
const check = (run: (c: Case) => void, numRuns = 60): void => {
  fc.assert(
    fc.property(seeds, (seed) => run(new Case(seed))),
    { numRuns },
  );
};

/** One property per primitive that is not element-wise. */
const others: Partial<Record<Primitive, (c: Case) => void>> = {
  constant: (c) => {
    const value = constant(c.pick(special), c.pick(floats));
    compare(c.graph(node("expand", [value], { shape: c.shape() })), 0);
  },
  placeholder: (c) => compare(c.graph(c.input(c.pick(numbers), c.shape())), 0),
  iota: (c) =>
    compare(
      c.graph(
        node("reshape", [node("iota", [], { length: 12 })], {
          shape: c.pick([[12], [3, 4], [2, 1, 6]]),
        }),
      ),
      0,
    ),
  reshape: (c) => {
    const x = c.view(c.pick([...numbers, "bool"]), c.pick([[4, 6], [2, 3, 4], [24], [1, 24]]));
    compare(
      c.graph(node("reshape", [x], { shape: c.pick([[24], [3, 8], [6, 2, 2], [12, 1, 2]]) })),
      0,
    );
  },
  permute: (c) => {
    const x = c.view(c.pick([...numbers, "bool"]), c.shape());
    compare(
      c.graph(node("permute", [x], { axes: x.shape.map((_, i) => i).sort(() => c.next() - 0.5) })),
      0,
    );
  },
  expand: (c) => {
    const shape = c.shape();
    compare(c.graph(node("expand", [c.view(c.pick(numbers), c.narrower(shape))], { shape })), 0);
  },
  pad: (c) => {
    const x = c.view(c.pick(numbers), c.shape());
    const some = () => x.shape.map(() => c.int(4));
    compare(c.graph(node("pad", [x], { lo: some(), hi: some(), value: c.pick([0, 3, 7]) })), 0);
    const f = c.view(c.pick(floats), c.shape());
    compare(
      c.graph(
        node("pad", [f], {
          lo: f.shape.map(() => 2),
          hi: f.shape.map(() => 1),
          value: c.pick([NaN, -Infinity, Infinity, -0]),
        }),
      ),
      0,
    );
  },
  slice: (c) => {
    const x = c.view(c.pick(numbers), c.shape());
    const start = x.shape.map((d) => c.int(d));
    const step = x.shape.map(() => 1 + c.int(3));
    const size = x.shape.map((d, i) =>
      d === 0 ? 0 : 1 + Math.floor((d - 1 - start[i]) / step[i]),
    );
    compare(c.graph(node("slice", [x], { start, size, step })), 0);
  },
  window: (c) => {
    const [size, dilation] = [1 + c.int(3), 1 + c.int(2)];
    const shape = c.shape(1 + c.int(3));
    const axis = c.int(shape.length);
    shape[axis] = dilation * (size - 1) + 1 + c.int(9);
    const x = c.view(c.pick(numbers), shape);
    compare(c.graph(node("window", [x], { axis, size, stride: 1 + c.int(3), dilation })), 0);
  },
  flip: (c) => {
    const x = c.view(c.pick([...numbers, "bool"]), c.shape());
    compare(
      c.graph(node("flip", [x], { axes: x.shape.map((_, i) => i).filter(() => c.next() < 0.5) })),
      0,
    );
  },
  concat: (c) => {
    const shape = c.shape(1 + c.int(3));
    const axis = c.int(shape.length);
    const dtype = c.pick([...numbers, "bool"] as DType[]);
    const parts = Array.from({ length: 1 + c.int(4) }, () =>
      c.view(
        dtype,
        shape.map((d, i) => (i === axis ? c.int(5) : d)),
      ),
    );
    compare(c.graph(node("concat", parts, { axis })), 0);
  },
  sum: (c) => reduction(c, "sum"),
  prod: (c) => reduction(c, "prod"),
  amax: (c) => reduction(c, "amax"),
  amin: (c) => reduction(c, "amin"),
  argmax: (c) => {
    const x = c.view(
      c.pick(numbers),
      c.shape(1 + c.int(3)).map((d) => d || 2),
    );
    compare(c.graph(node("argmax", [x], { axis: c.int(x.shape.length) })), 0);
  },
  dot: (c) => {
    const [b, m, k, n] = [
      1 + c.int(3),
      c.pick([1, 2, 5, 6, 7, 13]),
      c.pick([0, 1, 3, 8, 19]),
      c.pick([1, 2, 4, 7, 8, 9, 17]),
    ];
    const dtype = c.pick(["f32", "f32", "f16", "bf16", "i32", "u8"] as DType[]);
    const small = [0.5, -1, 2, 0.25];
    compare(
      c.graph(node("dot", [c.view(dtype, [b, m, k], small), c.view(dtype, [b, k, n], small)])),
      64,
      2e-5,
    );
  },
  gather: (c) => {
    const shape = c.shape(1 + c.int(3)).map((d) => d || 3);
    const axis = c.int(shape.length);
    const x = c.view(c.pick([...numbers, "bool"]), shape);
    const index = c.input(
      "i32",
      shape.map((d, i) => (i === axis ? c.int(9) : d)),
    );
    const values = c.data[c.data.length - 1];
    for (let i = 0; i < values.length; i++) values[i] = c.int(shape[axis]);
    compare(c.graph(node("gather", [x, index], { axis })), 0);
  },
  scatterAdd: (c) => {
    const shape = c.shape(1 + c.int(3));
    const axis = c.int(shape.length);
    const size = 1 + c.int(6);
    const index = c.input("i32", shape);
    const values = c.data[c.data.length - 1];
    for (let i = 0; i < values.length; i++) values[i] = c.int(size);
    const x = c.view(c.pick([...floats, "i32", "u8"]), shape, [0.5, 1, -2]);
    compare(c.graph(node("scatterAdd", [index, x], { axis, size })), 16, 1e-5);
  },
  dynamicSlice: (c) => {
    const x = c.view(c.pick([...numbers, "bool"]), c.shape());
    const size = x.shape.map((d) => c.int(d + 1));
    compare(c.graph(node("dynamicSlice", [x, ...starts(c, x)], { size })), 0);
  },
  dynamicUpdateSlice: (c) => {
    const dtype = c.pick([...numbers, "bool"] as DType[]);
    const x = c.view(dtype, c.shape());
    const part = c.view(dtype, x.shape.map((d) => c.int(d + 1))); // biome-ignore format: one line
    compare(c.graph(node("dynamicUpdateSlice", [x, part, ...starts(c, x)])), 0);
    // Into a state, by two updates one after the other.
    const d = new Case(c.int(2 ** 31));
    const state = d.input(dtype, d.shape());
    const parts = [0, 1].map(() => d.view(dtype, state.shape.map((n) => d.int(n + 1)))); // biome-ignore format: one line
    const once = node("dynamicUpdateSlice", [state, parts[0], ...starts(d, state)]);
    const twice = node("dynamicUpdateSlice", [once, parts[1], ...starts(d, state)]);
    const reader = node("eq", [d.next() < 0.5 ? once : state, state]);
    compare(d.graph(node("assign", [state, twice]), reader), 0);
  },
  cumulative: (c) => {
    const combine = c.pick(["sum", "prod", "max", "min"] as const);
    const exact = combine === "max" || combine === "min";
    const dtype = c.pick(numbers);
    // Long lines are summed in blocks; lines at hand are walked side by side.
    const shape = c.pick([c.shape(1 + c.int(3)), [c.int(400), 1 + c.int(9)], [c.int(6), 300]]);
    const x = c.view(dtype, shape, exact ? special : [0.5, 1, -1]);
    const source = combine === "prod" && isFloat(dtype) ? node("tanh", [x]) : x;
    const attrs = { axis: c.int(shape.length), combine, reverse: c.next() < 0.5 };
    compare(c.graph(node("cumulative", [source], attrs)), exact ? 0 : 64, 1e-4);
  },
  argsort: (c) => {
    const shape = c.pick([c.shape(1 + c.int(3)), [c.int(400), 1 + c.int(9)], [c.int(6), 300]]);
    const x = c.view(c.pick([...numbers, "bool"]), shape);
    const attrs = { axis: c.int(shape.length), descending: c.next() < 0.5 };
    compare(c.graph(node("argsort", [x], attrs)), 0);
  },
  random: (c) => {
    const leaf = randomBits(c.shape(), [c.int(2 ** 32), c.int(2 ** 32)], c.int(2 ** 32));
    const words = Uint32Array.of(...leaf.attrs.key, leaf.attrs.counter);
    compare({ inputs: [], data: [], randoms: [leaf], words, outputs: [leaf] }, 0);
  },
  region: (c) => {
    const [t, n] = [1 + c.int(5), 1 + c.int(6)];
    const dtype = c.pick(floats);
    const xs = c.input(dtype, [t, n], [0.5, -1]);
    const init = c.input(dtype, [n], [0.25, 1]);
    const { carries, ys } = scanNodes(
      ([h], [x]) => {
        const next = node("tanh", [node("add", [node("mul", [h, constant(0.5, dtype)]), x])]);
        return { carries: [next], ys: [node("sum", [node("mul", [next, next])], { axes: [0] })] };
      },
      [init],
      [xs],
      c.next() < 0.5,
    );
    compare(c.graph(...carries, ...ys), 64, 1e-5);
  },
  alias: (c) => compare(c.graph(node("alias", [c.view(c.pick(floats), c.shape())], { uid: 1 })), 0),
  detach: (c) => compare(c.graph(node("detach", [c.view(c.pick(floats), c.shape())])), 0),
  assign: (c) => {
    const dtype = c.pick(floats);
    const [x, y] = [c.input(dtype, [3, 4]), c.view(dtype, [3, 4])];
    compare(c.graph(node("assign", [x, node("neg", [y])])), 0);
  },
};

/** Literal, given and computed starts, some of them outside. */
function starts(c: Case, x: Node): Node[] {
  return x.shape.map((d) => {
    const value = c.int(d + 4) - 2;
    if (c.next() < 0.3) return constant(value, "i32");
    const start = c.input("i32", []);
    c.data[c.data.length - 1][0] = value;
    return c.next() < 0.5 ? start : node("neg", [node("neg", [start])]);
  });
}

function reduction(c: Case, op: "sum" | "prod" | "amax" | "amin"): void {
  const dtype = c.pick(numbers);
  const shape = c.shape(1 + c.int(3)).map((d) => (op.startsWith("a") ? d || 1 : d));
  const values = op === "sum" || op === "prod" ? [0.5, 1, -1] : special;
  const x = c.view(dtype, shape, values);
  const axes = shape.map((_, i) => i).filter(() => c.next() < 0.6);
  const source = op === "prod" && isFloat(dtype) ? node("mul", [x, constant(0.3, dtype)]) : x;
  const exact = op === "amax" || op === "amin";
  // A sum depends on the order of its n terms of at most 4: where they cancel, by ulps of the partial sums.
  const order = op === "sum" ? numel(shape) * 4 * 2 ** -24 : 0;
  compare(c.graph(node(op, [source], { axes })), exact ? 0 : 64, exact ? 0 : 2e-5 + order);
}

/** Leaves and structure that never reach a kernel as themselves. */
const elsewhere: Partial<Record<Primitive, string>> = {
  buffer: "becomes a placeholder of the plan",
  project: "tested with region",
};

test("every primitive is here", () => {
  const missing = (Object.keys(rules) as Primitive[]).filter(
    (op) => !(op in elementwise) && !(op in others) && !(op in elsewhere),
  );
  expect(missing).toEqual([]);
});

const elementwiseCase =
  (op: Primitive): ((c: Case) => void) =>
  (c) => {
    const { types, ulp = 0 } = elementwise[op]!;
    const dtype = c.pick(types);
    const shape = c.shape();
    const source = (i: number) =>
      c.view(op === "where" && i === 0 ? "bool" : dtype, i === 0 ? shape : c.narrower(shape));
    const src = Array.from({ length: rules[op].arity as number }, (_, i) => source(i));
    const to =
      op === "cast"
        ? c.pick([...numbers, "bool"] as DType[])
        : c.pick((isHalf(dtype) ? ["f16", "bf16"] : ["f32", "i32", "u32"]) as DType[]);
    const attrs = op === "cast" || op === "bitcast" ? { dtype: to } : {};
    const result = node(op, src, attrs as never);
    // Bits of a NaN are not comparable.
    compare(
      c.graph(op === "bitcast" && isFloat(to) ? node("bitcast", [result], { dtype: to }) : result),
      ulp,
    );
  };

const properties = Object.entries({
  ...Object.fromEntries(
    Object.keys(elementwise).map((op) => [op, elementwiseCase(op as Primitive)]),
  ),
  ...others,
}) as [Primitive, (c: Case) => void][];

describe("primitives on wasm", () => {
  for (const [op, property] of properties) test(op, () => check(property));
});

/** What WGSL allows natives to differ by, where that is more than wasm does. */
const gpuUlp: Partial<Record<Primitive, number>> = { div: 3, sqrt: 3 };

describe("primitives on webgpu", () => {
  for (const [op, property] of properties) test(op, () => checkOnGpu(property, gpuUlp[op]));
});
