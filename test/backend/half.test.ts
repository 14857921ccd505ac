/**
 * @file f16 and bf16 below the Tensor: conversions of every bit pattern and of what lies between, on the host and in
 * kernels; sums that must not be halves themselves; values that are the same in a register as in memory.
 */
import { describe, expect, test } from "vitest";
import type { Backend } from "../../core/backend/backend.ts";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import { codecs, type DType, dtypes, promote, roundTo, type TypedArray } from "../../core/dtype.ts";
import * as g from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { constant, node, placeholder } from "../../core/graph/primitives.ts";
import {
  bfloat16ToFloat,
  floatToBfloat16,
  floatToHalf,
  halfToFloat,
  roundToBfloat16,
  roundToHalf,
} from "../../core/half.ts";
import { planMemory } from "../../core/schedule/memory.ts";
import { numel } from "../../core/shape.ts";
import { gradients } from "../../core/transform/vjp.ts";
import { runGraph } from "../support/differential.ts";

const halves = ["f16", "bf16"] as const;
const backends: Record<string, Backend> = {
  reference: new ReferenceBackend(),
  wasm: new WasmBackend(),
  "wasm, separate multiply-add": new WasmBackend({ relaxed: false }),
  "wasm, 64-bit addresses": new WasmBackend({ address: 64 }),
};

const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
const arrays = {
  f16: { from: floatToHalf, to: halfToFloat, round: roundToHalf },
  bf16: { from: floatToBfloat16, to: bfloat16ToFloat, round: roundToBfloat16 },
};

/** Every value of a type, the middles between neighbours, and the floats right beside these. */
function around(dtype: "f16" | "bf16"): Float32Array {
  const values = [...arrays[dtype].to(all)].filter(Number.isFinite).sort((a, b) => a - b);
  const middles = values.slice(1).map((v, i) => v / 2 + values[i] / 2);
  // Halfway from the largest number to the one that would come next.
  const max = { f16: 65520, bf16: (2 - 2 ** -8) * 2 ** 127 }[dtype];
  const floats = Float32Array.from([...middles, max, -max]);
  const bits = new Int32Array(floats.buffer);
  const beside = (step: number) =>
    new Float32Array(bits.map((b, i) => (floats[i] === 0 ? b : b + step)).buffer);
  const extremes = [0, -0, NaN, Infinity, -Infinity, 3.4e38, -3.4e38, 1e-45, -1e-45, 1e-40];
  return Float32Array.from([...values, ...floats, ...beside(1), ...beside(-1), ...extremes]);
}

/** To nearest, ties to even, by comparing with both neighbours. */
function nearest(dtype: "f16" | "bf16", sorted: readonly number[], x: number): number {
  if (!Number.isFinite(x)) return x;
  const a = Math.abs(x);
  let [low, high] = [0, sorted.length];
  while (low + 1 < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= a) low = middle;
    else high = middle;
  }
  const below = sorted[low];
  const infinite = low + 1 === sorted.length;
  const above = infinite ? 2 * below - sorted[low - 1] : sorted[low + 1];
  const even = codecs[dtype]!.encode(below) % 2 === 0;
  const down = a - below < above - a || (a - below === above - a && even);
  const result = down ? below : infinite ? Infinity : above;
  return Object.is(x, -0) || x < 0 ? -result : result;
}

function run(backend: Backend, inputs: [Node, TypedArray][], ...outputs: Node[]): TypedArray[] {
  return runGraph(backend, {
    inputs: inputs.map(([n]) => n as Node<"placeholder">),
    data: inputs.map(([, d]) => d),
    randoms: [],
    words: new Uint32Array(0),
    outputs,
  }) as TypedArray[];
}

const input = (dtype: DType, shape: number[], values: ArrayLike<number>): [Node, TypedArray] => [
  placeholder(dtype, shape, "wasm"),
  new dtypes[dtype].array(values),
];

const differences = (got: ArrayLike<number>, want: ArrayLike<number>): number =>
  Array.from(want).findIndex((w, i) => !Object.is(got[i], w));

describe("on the host", () => {
  test("f16 is what Float16Array says", () => {
    expect(differences(halfToFloat(all), new Float16Array(all.buffer))).toBe(-1);
    const x = around("f16");
    const want = new Float16Array(x);
    expect(differences(new Float16Array(floatToHalf(x).buffer), want)).toBe(-1);
    expect(differences(x.map(roundToHalf), want)).toBe(-1);
  });

  test.each(halves)("%s: all patterns there and back, halfway cases to even", (dtype) => {
    const { from, to, round } = arrays[dtype];
    const { encode, decode } = codecs[dtype]!;
    const values = to(all);
    const back = from(values);
    for (let i = 0; i < 65536; i++) {
      if (!Number.isNaN(values[i])) expect(back[i]).toBe(i);
      else expect(decode(back[i])).toBeNaN();
      if (!Object.is(decode(i), values[i])) expect.fail(`pattern ${i}`);
    }
    const x = around(dtype);
    const sorted = [...values].filter((v) => v >= 0 && v < Infinity && !Object.is(v, -0));
    sorted.sort((a, b) => a - b);
    const want = Array.from(x, (v) => nearest(dtype, sorted, v));
    expect(differences(to(from(x)), want)).toBe(-1);
    expect(differences(Array.from(x, round), want)).toBe(-1);
    expect(
      differences(
        Array.from(x, (v) => decode(encode(v))),
        want,
      ),
    ).toBe(-1);
  });

  test("doubles are rounded once", () => {
    // By way of f32 this would be a tie, and go down to even.
    const x = 1 + 2 ** -11 + 2 ** -40;
    expect(roundToHalf(x)).toBe(1 + 2 ** -10);
    expect(roundToHalf(Math.fround(x))).toBe(1);
    expect(roundToBfloat16(1 + 2 ** -8 + 2 ** -50)).toBe(1 + 2 ** -7);
    expect([roundToHalf(1e300), roundToBfloat16(-1e300)]).toEqual([Infinity, -Infinity]);
    expect([...floatToHalf([x, 65519.999, 65520])]).toEqual([0x3c01, 0x7bff, 0x7c00]);
  });

  test("promotion, as torch.promote_types", () => {
    const names: DType[] = ["f32", "f16", "bf16", "i32", "i8", "u8", "bool"];
    const table = Object.fromEntries(
      halves.map((a) => [a, Object.fromEntries(names.map((b) => [b, promote(a, b)]))]),
    );
    const ints = (t: DType) => ({ i32: t, i8: t, u8: t, bool: t });
    expect(table).toEqual({
      f16: { f32: "f32", f16: "f16", bf16: "f32", ...ints("f16") },
      bf16: { f32: "f32", f16: "f32", bf16: "bf16", ...ints("bf16") },
    });
    for (const a of halves) for (const b of names) expect(promote(b, a)).toBe(promote(a, b));
  });

  test("places in memory stay aligned", () => {
    const { offsets } = planMemory([
      { bytes: 2 * 3, first: 0, last: 1 },
      { bytes: 2 * 33, first: 0, last: 1 },
      { bytes: 4 * 5, first: 0, last: 1 },
    ]);
    expect(offsets.every((o) => o % 64 === 0)).toBe(true);
  });
});

describe.each(Object.keys(backends))("in kernels on %s", (name) => {
  const backend = backends[name];

  test.each(halves)("%s: every pattern is loaded, every float rounded and stored", (dtype) => {
    const values = arrays[dtype].to(all);
    const x = input(dtype, [65536], values);
    const [wide, same] = run(backend, [x], g.cast(x[0], "f32"), g.reshape(x[0], [256, 256]));
    expect(differences(wide, values)).toBe(-1);
    expect(differences(same, values)).toBe(-1);
    const y = around(dtype);
    const f = input("f32", [y.length], y);
    const rounded = g.cast(f[0], dtype);
    // The way back is no reason to leave the rounding out.
    const [there, back] = run(backend, [f], rounded, g.cast(rounded, "f32"));
    const want = y.map((v) => roundTo(dtype, v));
    expect(differences(there, want)).toBe(-1);
    expect(differences(back, want)).toBe(-1);
  });

  test.each(halves)("%s: vectors and their tails", (dtype) => {
    for (let n = 1; n <= 17; n++)
      for (const rows of [1, 3]) {
        const values = Array.from({ length: rows * n }, (_, i) => roundTo(dtype, Math.sin(i) * 4));
        const x = input(dtype, [rows, n], values);
        const one = input(dtype, [rows, 1], values.slice(0, rows));
        const turned = g.flip(g.permute(x[0], [1, 0]), [0]);
        const [sum, moved, total, masked, column] = run(
          backend,
          [x, one],
          g.mul(g.add(x[0], one[0]), g.scalarLike(x[0], 0.3)),
          g.neg(turned),
          g.sum(x[0], [1]),
          g.pad(x[0], [1, 2], [0, 3], 1.5),
          g.sum(x[0], [0]),
        );
        const third = roundTo(dtype, 0.3);
        const at = (i: number, j: number) => values[i * n + j];
        for (let i = 0; i < rows; i++) {
          for (let j = 0; j < n; j++) {
            const want = roundTo(dtype, third * roundTo(dtype, at(i, j) + values[i]));
            expect(sum[i * n + j]).toBe(want);
            expect(moved[j * rows + i]).toBe(-at(i, n - 1 - j));
            expect(masked[(i + 1) * (n + 5) + j + 2]).toBe(at(i, j));
          }
          expect(masked[(i + 1) * (n + 5)]).toBe(1.5);
          const exact = values.slice(i * n, (i + 1) * n).reduce((a, b) => a + b, 0);
          expect(Math.abs(total[i] - exact)).toBeLessThan(0.02 * n);
        }
        for (let j = 0; j < n; j++) {
          const exact = Array.from({ length: rows }, (_, i) => at(i, j)).reduce((a, b) => a + b, 0);
          expect(column[j]).toBe(roundTo(dtype, exact));
        }
      }
  });

  test.each(halves)("%s: sums are f32 until they are stored", (dtype) => {
    // In halves 1 + 1 + … stops at 2048 or 256, and 0.001 would vanish long before.
    const n = 6000;
    const x = input(dtype, [n], new Array(n).fill(1));
    const index = input("i32", [n], new Array(n).fill(0));
    const row = g.reshape(x[0], [1, 1, n]);
    const outputs = [
      g.sum(x[0], [0]),
      g.reshape(g.dot(row, g.permute(row, [0, 2, 1])), []),
      g.reshape(g.scatterAdd(index[0], x[0], 0, 1), []),
      g.reshape(g.slice(g.cumulative(x[0], 0, "sum"), [n - 1], [1]), []),
      g.sum(g.expand(g.reshape(x[0], [n, 1]), [n, 8]), [0]),
    ];
    const got = run(backend, [x, index], ...outputs);
    for (const values of got) for (const v of values) expect(v).toBe(roundTo(dtype, n));
    const [scan] = run(backend, [x], g.cumulative(x[0], 0, "sum"));
    expect(scan.findIndex((v, i) => v !== roundTo(dtype, i + 1))).toBe(-1);
  });

  test.each(halves)("%s: products of all shapes", (dtype) => {
    // Whole numbers: every sum is exact, so the order does not matter.
    const whole = (size: number, seed: number) =>
      Array.from({ length: size }, (_, i) => ((i * 7919 + seed) % 7) - 3);
    for (const [b, m, k, n] of [
      [1, 1, 5, 1],
      [2, 3, 17, 5],
      [1, 40, 33, 29],
      [1, 7, 900, 18],
      [3, 100, 8, 70],
    ]) {
      const [x, y] = [whole(b * m * k, 1), whole(b * k * n, 3)];
      const left = input(dtype, [b, m, k], x);
      const right = input(dtype, [b, n, k], y);
      const bias = input(dtype, [n], whole(n, 5));
      const product = g.dot(left[0], g.permute(right[0], [0, 2, 1]));
      const [got] = run(backend, [left, right, bias], g.add(product, bias[0]));
      for (let i = 0; i < got.length; i++) {
        const [batch, row, column] = [Math.floor(i / (m * n)), Math.floor(i / n) % m, i % n];
        let sum = 0;
        for (let j = 0; j < k; j++)
          sum += x[(batch * m + row) * k + j] * y[(batch * n + column) * k + j];
        expect(got[i]).toBe(roundTo(dtype, roundTo(dtype, sum) + bias[1][column]));
      }
    }
  });

  test.each(halves)("%s: a value is the same whether it is stored or not", (dtype) => {
    // A maximum is found among its elements, wherever both are computed: the gradient of amax depends on it.
    const values = Array.from({ length: 24 * 50 }, (_, i) => Math.cos(i * i) * 3);
    const x = input(dtype, [24, 50], values);
    const y = g.exp(g.mul(x[0], g.scalarLike(x[0], 0.37)));
    const top = g.amax(y, [1]);
    const hits = g.sum(g.cast(g.eq(y, g.reshape(top, [24, 1])), "i32"), [1]);
    const total = g.sum(g.mul(g.cast(top, "f32"), constant(1, "f32")), [0]);
    const [gradient] = gradients([total], [constant(1, "f32")], [x[0]]);
    const whole = run(backend, [x], hits, gradient!);
    expect(Math.min(...whole[0])).toBeGreaterThanOrEqual(1);
    expect(whole[1].every(Number.isFinite)).toBe(true);
    // Stored in between, the same numbers.
    const [stored] = run(backend, [x], y);
    const again = input(dtype, [24, 50], stored);
    const [a] = run(backend, [again], g.amax(again[0], [1]));
    const [b] = run(backend, [x], top);
    expect(differences(a, b)).toBe(-1);
  });

  test.each(halves)("%s: order and extrema", (dtype) => {
    const special = [3, -0, 0, NaN, -Infinity, Infinity, 2 ** -14, -(2 ** -14), 1.5, 1.5, -2, 7];
    const x = input(dtype, [12], special);
    const [up, down, arg, low, high] = run(
      backend,
      [x],
      g.argsort(x[0], 0),
      g.argsort(x[0], 0, true),
      g.argmax(x[0], 0),
      g.amin(g.slice(x[0], [4], [8]), [0]),
      g.amax(g.slice(x[0], [4], [8]), [0]),
    );
    expect([...up]).toEqual([4, 10, 7, 1, 2, 6, 8, 9, 0, 11, 5, 3]);
    expect([...down]).toEqual([3, 5, 11, 0, 8, 9, 6, 1, 2, 7, 10, 4]);
    expect([arg[0], low[0], high[0]]).toEqual([3, -Infinity, Infinity]);
    const n = 3000;
    const long = input(
      dtype,
      [n],
      Array.from({ length: n }, (_, i) => Math.sin(i) * 100),
    );
    const [order, sorted] = run(
      backend,
      [long],
      g.argsort(long[0], 0),
      g.gather(long[0], g.argsort(long[0], 0), 0),
    );
    expect(new Set(order).size).toBe(n);
    expect(sorted.findIndex((v, i) => i > 0 && v < sorted[i - 1])).toBe(-1);
  });
});

test("a chain of halves is one kernel, and moves half the bytes", () => {
  const kernels = (dtype: DType) => {
    const x = placeholder(dtype, [64, 128], "wasm");
    const y = g.tanh(g.add(g.mul(x, x), x));
    const graph = { key: "", inputs: [x], randoms: [], outputs: [y] };
    return new WasmBackend().prepare(graph).kernels;
  };
  const [f32, f16] = [kernels("f32"), kernels("f16")];
  expect([f32.length, f16.length]).toEqual([1, 1]);
  expect(f16[0].bytes * 2).toBe(f32[0].bytes);
  expect(numel(f16[0].writes[0].shape)).toBe(64 * 128);
});

test("the only casts that go are those that change nothing", () => {
  const source = (output: (x: Node) => Node) => {
    const x = placeholder("f32", [8], "wasm");
    const graph = { key: "", inputs: [x], randoms: [], outputs: [output(x)] };
    return new WasmBackend().prepare(graph).kernels[0].source.match(/f16\(|bf16\(/g)?.length ?? 0;
  };
  const round = (x: Node) => g.cast(g.cast(x, "f16"), "f32");
  expect(source((x) => g.neg(round(x)))).toBe(1);
  expect(source((x) => g.neg(round(round(x))))).toBe(1);
  expect(source((x) => g.neg(g.cast(node("cast", [g.cast(x, "bf16")], { dtype: "f16" }), "f32")))).toBe(2); // biome-ignore format: one line
});
