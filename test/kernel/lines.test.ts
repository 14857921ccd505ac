/** @file Kernels that walk lines, through the checker and the interpreter: running combinations, and both ways to sort. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import { type DType, dtypes } from "../../core/dtype.ts";
import * as g from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { maxSorted, node, placeholder } from "../../core/graph/primitives.ts";
import { numel } from "../../core/shape.ts";
import { runGraph } from "../support/differential.ts";
import type { RandomGraph } from "../support/graphs.ts";
import { InterpretedBackend } from "../support/interpreted.ts";

const reference = new ReferenceBackend();
const interpreted = new InterpretedBackend();
const wasm = new WasmBackend();

function graphOf(
  dtype: DType,
  shape: readonly number[],
  element: (i: number) => number,
  f: (x: Node) => Node,
): RandomGraph {
  const x = placeholder(dtype, shape, "wasm");
  const data = new dtypes[dtype].array(numel(shape));
  for (let i = 0; i < data.length; i++)
    data[i] = dtype === "bool" ? Number(element(i) > 0) : element(i);
  return { inputs: [x], data: [data], randoms: [], words: new Uint32Array(0), outputs: [f(x)] };
}

/** Few different values, so that there are ties; NaN, both zeros, and both infinities among them. */
const awkward = [0, -0, 1, -1, NaN, Infinity, -Infinity, 2.5, -2.5, 1e-30, -1e-30, 3];
const pick = (seed: number) => (i: number) => awkward[(i * 7919 + seed + (i >> 3)) % 12];

describe("sort", () => {
  /** [outer, count, inner]: networks over lines and over neighbours, digits, wide digits. */
  const shapes = [
    [1, 5, 1],
    [9, 7, 1],
    [3, 8, 2],
    [2, 33, 11],
    [1, 40, 1],
    [3, 100, 1],
    [1, 8300, 1],
    [2, 1030, 2],
  ];
  for (const dtype of ["f32", "i32", "u32", "i8", "u8", "bool"] as const)
    test(`${dtype}: stable, in both directions, without races or stray accesses`, () => {
      for (const [n, shape] of shapes.entries())
        for (const descending of [false, true]) {
          if (dtype !== "f32" && dtype !== "i8" && shape[1] > 8000) continue;
          const graph = graphOf(dtype, shape, pick(n), (x) => g.argsort(x, 1, descending));
          const [want] = runGraph(reference, graph);
          expect(runGraph(interpreted, graph)[0], `${shape}`).toEqual(want);
          expect(runGraph(wasm, graph)[0], `${shape}`).toEqual(want);
        }
    });

  /** [outer, count, inner], first: one block and several, whole and not; full and idle lanes; lines and neighbours. */
  const selections: [number[], number][] = [
    [[9, 100, 1], 5],
    [[8, 128, 1], 16],
    [[5, 130, 1], 17],
    [[2, 70, 7], 1],
    [[1, 300, 4], 40],
    [[3, 33, 2], 33],
  ];
  for (const dtype of ["f32", "i32", "u8"] as const)
    test(`${dtype}: the first few, as all would begin`, () => {
      for (const [n, [shape, first]] of selections.entries())
        for (const descending of [false, true]) {
          const attrs = { axis: 1, descending, first };
          const graph = graphOf(dtype, shape, pick(n), (x) => node("argsort", [x], attrs));
          const whole = { ...graph, outputs: [g.argsort(graph.inputs[0], 1, descending)] };
          const want = [...runGraph(reference, whole)[0]].filter(
            (_, i) => Math.floor(i / shape[2]) % shape[1] < first,
          );
          for (const backend of [reference, interpreted, wasm])
            expect([...runGraph(backend, graph)[0]], `${shape} ${backend.name}`).toEqual(want);
        }
    });

  test("all bits of a key count", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer(), { minLength: 33, maxLength: 60 }),
        fc.boolean(),
        (values, descending) => {
          for (const dtype of ["i32", "u32"] as const) {
            const f = (x: Node) => g.argsort(x, 0, descending);
            const graph = graphOf(dtype, [values.length], (i) => values[i], f);
            expect(runGraph(wasm, graph)).toEqual(runGraph(reference, graph));
          }
        },
      ),
      { numRuns: 30 },
    );
  });

  test("what it sorts by is computed on the way", () => {
    const graph = graphOf("f32", [5, 20], pick(3), (x) => g.argsort(g.abs(g.flip(x, [1])), 1));
    expect(runGraph(interpreted, graph)).toEqual(runGraph(reference, graph));
    expect(wasm.prepare({ ...graph, key: "" }).kernels.length).toBe(1);
  });

  test("a line longer than scratch is refused when it is made", () => {
    const x = placeholder("i32", [maxSorted + 1], "wasm");
    expect(() => g.argsort(x, 0)).toThrow("at most");
  });
});

describe("running combinations", () => {
  test("in all layouts, directions and types, without races or stray accesses", () => {
    // Side by side with and without rest, rows in one block of lanes and in two, sums in blocks.
    const shapes = [
      [1, 5, 1],
      [7, 6, 1],
      [8, 300, 1],
      [3, 129, 2],
      [2, 260, 5],
      [2, 3, 1030],
      [1, 128, 4],
    ];
    for (const shape of shapes)
      for (const combine of ["sum", "prod", "max", "min"] as const)
        for (const dtype of ["f32", "i8", "u32"] as const) {
          const exact = combine === "max" || combine === "min";
          const element = (i: number) => (exact ? pick(1)(i) : ((i * 31) % 5) / 2 - 1);
          const reverse = shape[0] % 2 === 0;
          const f = (x: Node) => g.cumulative(x, 1, combine, reverse);
          const graph = graphOf(dtype, shape, element, f);
          const [want] = runGraph(reference, graph);
          for (const backend of [interpreted, wasm])
            expect([...runGraph(backend, graph)[0]].map((v) => v + 0)).toEqual(
              [...want].map((v) => v + 0),
            );
        }
  });

  test("rounding errors of long sums stay small", () => {
    const n = 1 << 17;
    const graph = graphOf(
      "f32",
      [n],
      (i) => 0.1 + (i % 7) * 0.01,
      (x) => g.cumulative(x, 0, "sum"),
    );
    const [got, want] = [runGraph(wasm, graph)[0], runGraph(reference, graph)[0]];
    let worst = 0;
    for (let i = 0; i < n; i++) worst = Math.max(worst, Math.abs(got[i] / want[i] - 1));
    // One by one it would be 10⁻⁴ or so.
    expect(worst).toBeLessThan(3e-6);
  });
});
