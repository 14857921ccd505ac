/** @file Reductions in two stages, reductions that share a kernel, and what kernels walk down columns. */
import fc from "fast-check";
import { compile, explain, grad, init, layerNorm, randn, type Tensor } from "hinode";
import { beforeAll, describe, expect, test } from "vitest";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import type { DType } from "../../core/dtype.ts";
import * as g from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { node } from "../../core/graph/primitives.ts";
import { forCpu as rewrites } from "../../core/schedule/select.ts";
import { claimsNothing } from "../../core/schedule/simplify.ts";
import { splitReduction, splitting } from "../../core/schedule/split.ts";
import { numel } from "../../core/shape.ts";
import { compareOnRandomGraphs, runGraph } from "../support/differential.ts";
import { randomGradientGraph, randomHalfGraph, randomStateGraph } from "../support/graphs.ts";
import { forCpu, InterpretedBackend } from "../support/interpreted.ts";
import { graphOf, kept, leaf, softmax } from "../support/schedule-cases.ts";
import { seed } from "../support/seed.ts";

const reference = new ReferenceBackend();
const wasm = new WasmBackend({ threads: 1 });
/** Limits that small tensors are beyond. */
const eager = splitting({ elements: 4, part: 1, rows: 1, longRow: 1 });
const interpreted = new InterpretedBackend(forCpu, claimsNothing, eager);

type Reduction = "sum" | "prod" | "amax" | "amin" | "argmax";
const reduced = (op: Reduction, x: Node, axes: readonly number[]): Node =>
  op === "argmax" ? g.argmax(x, axes[0]) : node(op, [x], { axes });

describe("two stages", () => {
  // [shape, axes]: all, runs of axes, axes apart, down columns, short and odd factors.
  const shapes: [number[], number[]][] = [
    [[1 << 18], [0]],
    [[3 * 5 * 7 * 2503], [0]],
    [
      [512, 513],
      [0, 1],
    ],
    [[2, 1 << 17], [1]],
    [
      [4, 3, 128, 192],
      [0, 2, 3],
    ],
    [[3000, 96], [0]],
    [[1024, 256], [0]],
    [[90_000, 3], [0]],
    [[2, 1111, 130], [1]],
    [[70, 4099], [0]],
  ];
  const cases = shapes.map(([shape, axes]) => ({ name: `${shape} over ${axes}`, shape, axes }));
  test.each(cases)("$name is reduced in parts, to the same", ({ shape, axes }) => {
    const only = axes.length === 1;
    const dtypes: DType[] = shape[0] === 1024 ? ["f32", "f16", "i32", "u8"] : ["f32"];
    for (const dtype of dtypes) {
      const x = leaf(shape, dtype);
      expect(splitReduction(g.sum(x, axes), x), "split").not.toBeNull();
      // Sums of sixteenths are exact.
      const ops: Reduction[] = ["sum", "amax", "amin", ...(only ? (["argmax"] as const) : [])];
      const graph = graphOf({ outputs: ops.map((op) => reduced(op, x, axes)) }, seed);
      expect(runGraph(wasm, graph)).toEqual(runGraph(reference, graph));
    }
  });

  test("argmax finds the first of equal ones and of several NaN, in whatever part they are", () => {
    const n = 1 << 18;
    const x = leaf([n]);
    const graph = { ...graphOf({ outputs: [g.argmax(x, 0)] }, seed) };
    const place = fc.integer({ min: 0, max: n - 1 });
    fc.assert(
      fc.property(fc.array(place, { minLength: 1, maxLength: 5 }), fc.boolean(), (places, nan) => {
        const data = graph.data[0].slice();
        for (const p of places) data[p] = nan ? Number.NaN : 100;
        const [at] = runGraph(wasm, { ...graph, data: [data] });
        expect(at[0]).toBe(Math.min(...places));
      }),
      { numRuns: 10 },
    );
  });

  test("a product, a mean of squares and softmax over a long line, with what is around them", () => {
    const x = leaf([1 << 18]);
    const near1 = g.exp(g.mul(x, g.scalarLike(x, 2 ** -12)));
    const y = g.sub(x, g.sum(x, [0]));
    const outputs = [
      reduced("prod", near1, [0]),
      g.div(g.sum(g.mul(y, y), [0]), g.scalarLike(x, 1 << 18)),
      softmax(g.reshape(x, [1, 1 << 18]), 1),
    ];
    const graph = graphOf({ outputs }, seed);
    const [got, want] = [runGraph(wasm, graph), runGraph(reference, graph)];
    for (const [i, values] of got.entries())
      for (const [j, v] of values.entries())
        if (!(Math.abs(v - want[i][j]) <= 1e-4 * Math.abs(want[i][j])))
          expect.fail(`output ${i}, element ${j}: ${v}, not ${want[i][j]}`);
  });

  test("what has tasks enough, is short, or has no divisor, stays whole", () => {
    const whole = (shape: number[], axes: number[]) => {
      const x = leaf(shape);
      expect(splitReduction(g.sum(x, axes), x)).toBeNull();
    };
    whole([1 << 17], [0]);
    whole([16, 1 << 17], [1]);
    whole([8, 1 << 15], [1]);
    whole([64, 16384], [0]);
    whole([524_287], [0]);
  });

  test("random graphs in stages agree with the reference", () => {
    compareOnRandomGraphs(interpreted, seed, seed + 60);
    compareOnRandomGraphs(interpreted, seed, seed + 30, 12, randomGradientGraph);
    compareOnRandomGraphs(interpreted, seed, seed + 20, 14, randomStateGraph);
    compareOnRandomGraphs(interpreted, seed, seed + 20, 12, randomHalfGraph);
  });
});

describe("one kernel", () => {
  beforeAll(() => init({ device: "wasm" }));
  const kinds = (fn: (...args: Tensor[]) => unknown, ...args: Tensor[]): string[] =>
    explain(compile(fn as never), ...(args as never[])).kernels.map((k) => k.kind);

  test("for the gradients of layerNorm's weight and bias", () => {
    const loss = (x: Tensor, w: Tensor, b: Tensor) => layerNorm(x, [12], w, b).tanh().sum();
    const all = [randn([6, 12]), randn([12]), randn([12])];
    const both = kinds(grad(loss, { argnums: [1, 2] }) as never, ...all).length;
    expect(both).toBe(kinds(grad(loss, { argnums: 1 }) as never, ...all).length);
  });
  test("for a maximum and where it is, and for sums of different values of one tensor", () => {
    const x = randn([6, 10]);
    expect(kinds((t) => [t.amax(1), t.argmax(1)], x)).toEqual(["reduce"]);
    expect(kinds((t) => [t.abs().sum(0), t.exp().sum(0), t.amin(0)], x)).toEqual(["reduce"]);
  });
  test("but not for sums of which one needs the other, nor along other axes", () => {
    const x = randn([6, 10]);
    expect(kinds((t) => [t.sum(1), t.sum(0)], x)).toEqual(["reduce", "reduce"]);
    const chained = (t: Tensor) => {
      const first = t.amax(0);
      return [first, t.mul(first.cumsum(0)).sum(0)];
    };
    expect(kinds(chained, x)).toEqual(["reduce", "scan", "reduce"]);
  });
});

describe("the first of sorted lines", () => {
  const attrsOf = (n: Node, x: Node) => rewrites(n, x)?.attrs;
  const sorted = g.argsort(leaf([8, 1200]), 1, true);
  const cut = (start: number, size: number) => g.slice(sorted, [0, start], [8, size]);
  test("are found, if they are few, without sorting the rest", () => {
    expect(attrsOf(cut(0, 50), sorted)).toEqual({ axis: 1, descending: true, first: 50 });
    expect(attrsOf(cut(1, 50), sorted)).toBeUndefined();
    expect(attrsOf(cut(0, 301), sorted)).toBeUndefined();
    const rows = g.slice(sorted, [0, 0], [4, 50]);
    expect(attrsOf(rows, sorted)).toBeUndefined();
  });
  test("as whole lines begin, with their values, also where somebody reads the rest", () => {
    const x = leaf([8, 1200]);
    const order = g.argsort(x, 1, true);
    const top = g.slice(order, [0, 0], [8, 50]);
    for (const outputs of [
      [top, g.gather(x, top, 1)],
      [top, order],
      [g.gather(x, top, 1), g.slice(order, [0, 1199], [8, 1])],
    ]) {
      const graph = graphOf({ outputs }, seed);
      expect(runGraph(wasm, graph)).toEqual(runGraph(reference, graph));
    }
  });
});

describe("down columns", () => {
  const both = [new WasmBackend({ threads: 1 }), new InterpretedBackend()];
  /** Columns in registers, in one go, in tasks, in several goes; rows in one block and in several. */
  const shapes: [number[], number][] = [
    [[40, 33], 0],
    [[2, 300, 40], 1],
    [[3, 5, 1100], 1],
    [[2, 3, 2500], 1],
    [[5, 200], 0],
    [[260, 130], 0],
  ];
  test.each(shapes)("of %j over %d: sums, extremes, products, several phases", (shape, axis) => {
    const [x, y] = [leaf(shape), leaf(shape)];
    const mean = (n: Node) =>
      g.reshape(g.div(g.sum(n, [axis]), g.scalarLike(n, shape[axis])), kept(n, axis));
    const d = g.sub(x, mean(x));
    const near1 = g.add(g.mul(x, g.scalarLike(x, 2 ** -8)), g.scalarLike(x, 1));
    for (const outputs of [
      [g.sum(x, [axis]), g.amax(g.mul(x, y), [axis])],
      [reduced("prod", near1, [axis]), reduced("amin", y, [axis])],
      [g.sum(g.mul(d, d), [axis]), d],
      [softmax(x, axis)],
      [g.mul(softmax(y, axis), g.sub(x, mean(g.mul(x, softmax(y, axis)))))],
    ]) {
      const graph = graphOf({ outputs }, seed);
      const want = runGraph(reference, graph);
      for (const backend of both)
        for (const [i, values] of runGraph(backend, graph).entries())
          for (const [j, v] of values.entries())
            if (!(Math.abs(v - want[i][j]) <= 1e-4 * Math.max(1, Math.abs(want[i][j]))))
              expect.fail(`output ${i}, element ${j}: ${v}, not ${want[i][j]}`);
    }
  });

  test("NaN wins extremes, integers keep to their type", () => {
    for (const dtype of ["f32", "f16", "i32", "u32", "i8", "u8"] as const) {
      const x = leaf([20, 50], dtype);
      const outputs = [g.amax(x, [0]), reduced("amin", x, [0]), g.sum(x, [0])];
      const graph = graphOf({ outputs }, seed);
      if (dtype === "f32") graph.data[0][7 * 50 + 3] = Number.NaN;
      const want = runGraph(reference, graph);
      expect(numel(outputs[0].shape)).toBe(50);
      for (const backend of both) expect(runGraph(backend, graph), dtype).toEqual(want);
    }
  });
});
