/**
 * @file GPU schedules that walk lines (sorting, running combinations, scatter-add), invocation by invocation with race
 * detection, against the reference: lines that share a workgroup, that fill it, and that need passes over memory.
 */
import { describe, expect, test } from "vitest";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import { type DType, dtypes } from "../../core/dtype.ts";
import * as g from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { placeholder } from "../../core/graph/primitives.ts";
import { lowerForGpu } from "../../core/kernel/gpu/lower.ts";
import { schedule } from "../../core/schedule/schedule.ts";
import { numel } from "../../core/shape.ts";
import { runGraph } from "../support/differential.ts";
import { difference, generator, type RandomGraph } from "../support/graphs.ts";
import { gpuTarget, InterpretedGpuBackend } from "../support/interpreted.ts";

const reference = new ReferenceBackend();
/** The least that WebGPU guarantees, and one whose small memory makes lines long that are quickly interpreted. */
const backends = [
  new InterpretedGpuBackend(),
  new InterpretedGpuBackend({ invocations: 64, sharedBytes: 512 }),
];

interface Input {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly element: (i: number) => number;
}

function graphOf(inputs: readonly Input[], f: (...xs: Node[]) => Node): RandomGraph {
  const leaves = inputs.map(({ shape, dtype }) => placeholder(dtype, shape, "wasm"));
  const data = inputs.map(({ shape, dtype, element }) => {
    const values = new dtypes[dtype].array(numel(shape));
    for (let i = 0; i < values.length; i++)
      values[i] = dtype === "bool" ? Number(element(i) > 0) : element(i);
    return values;
  });
  const [randoms, words] = [[], new Uint32Array(0)];
  return { inputs: leaves, data, randoms, words, outputs: [f(...leaves)] };
}

function agree(graph: RandomGraph, what: string): void {
  const [output] = graph.outputs;
  const [want] = runGraph(reference, graph);
  for (const backend of backends)
    expect(difference(runGraph(backend, graph)[0], want, output.dtype), what).toBeNull();
}

/** Few different values, so that there are ties; NaN, both zeros, and both infinities among them. */
const awkward = [0, -0, 1, -1, NaN, Infinity, -Infinity, 2.5, -2.5, 1e-30, -1e-30, 3];
const pick = (seed: number) => (i: number) => awkward[(i * 7919 + seed + (i >> 3)) % 12];
const small = (seed: number) => {
  const next = generator(seed);
  return () => Math.round(next() * 16) / 8 - 1;
};

const stagesOf = (outputs: readonly Node[], inputs: RandomGraph["inputs"]) =>
  schedule(inputs, outputs).steps.flatMap((step) => {
    if (step.k !== "group") return [];
    const reads = new Set(step.reads);
    return lowerForGpu(step.group, (n) => reads.has(n), gpuTarget).stages;
  });

describe("sort", () => {
  const shapes = [
    [1, 1, 1],
    [1, 2, 1],
    [70, 5, 3],
    [9, 32, 1],
    [2, 33, 2],
    [1, 65, 1],
    [2, 100, 1],
    [1, 257, 3],
    [1, 520, 1],
  ];
  for (const dtype of ["f32", "bf16", "i32", "u32", "i8", "u8", "bool"] as const)
    test(`${dtype}: stable, in both directions`, () => {
      for (const [n, shape] of shapes.entries())
        for (const descending of [false, true]) {
          const input = { shape, dtype, element: pick(n) };
          agree(
            graphOf([input], (x) => g.argsort(x, 1, descending)),
            `${shape}`,
          );
        }
    });

  test("one kernel while a line fits a workgroup, then one more per doubling", () => {
    const kernels = (count: number): number => {
      const { inputs, outputs } = graphOf(
        [{ shape: [count], dtype: "f32", element: () => 0 }],
        (x) => g.argsort(x, 0, false),
      );
      return stagesOf(outputs, inputs).length;
    };
    expect([kernels(2048), kernels(2049), kernels(4096), kernels(4097)]).toEqual([1, 2, 2, 3]);
  });
});

describe("running combinations", () => {
  const shapes = [
    [1, 1, 1],
    [3, 7, 1],
    [2, 33, 5],
    [1, 257, 2],
    [1, 1030, 1],
    [5000, 3, 1],
  ];
  for (const dtype of ["f32", "f16", "i32", "u8"] as const)
    for (const combine of ["sum", "prod", "max", "min"] as const)
      test(`${combine} of ${dtype}`, () => {
        for (const [n, shape] of shapes.entries())
          for (const reverse of [false, true]) {
            // Many lines: one type is enough for a schedule that does not look at it.
            if (shape[0] > 1000 && (dtype !== "f32" || combine !== "sum")) continue;
            const exact = combine === "max" || combine === "min";
            // Products stay finite and exact: of ones and twos with halves.
            const factors = [1, 1, 1, 2, 0.5, -1];
            const element = exact
              ? pick(n)
              : combine === "prod"
                ? (i: number) => (dtype[0] === "f" ? factors[(i * 7) % 6] : i % 3)
                : small(n);
            agree(
              graphOf([{ shape, dtype, element }], (x) => g.cumulative(x, 1, combine, reverse)),
              `${shape} ${reverse}`,
            );
          }
      });

  test("few long lines are cut into segments", () => {
    const input: Input = { shape: [2, 17000], dtype: "i32", element: (i) => (i % 7) - 3 };
    for (const reverse of [false, true]) {
      const graph = graphOf([input], (x) => g.cumulative(x, 1, "sum", reverse));
      expect(stagesOf(graph.outputs, graph.inputs).length).toBe(3);
      agree(graph, "segments");
    }
  });
});

describe("scatter-add", () => {
  const index = (size: number, seed: number) => {
    const next = generator(seed);
    return () => Math.floor(next() * size);
  };
  /** [outer, count, inner], size. */
  const shapes: [number[], number][] = [
    [[1, 1, 1], 1],
    [[2, 7, 3], 5],
    [[1, 32, 4], 3],
    [[1, 33, 1], 100],
    [[3, 65, 2], 4],
    [[1, 300, 3], 17],
  ];
  for (const dtype of ["f32", "bf16", "i32"] as const)
    test(`${dtype}, with an index of its own everywhere and with an expanded one`, () => {
      for (const [n, [shape, size]] of shapes.entries()) {
        const src = { shape, dtype, element: small(n) };
        const where: Input = { shape, dtype: "i32", element: index(size, n) };
        agree(
          graphOf([where, src], (i, x) => g.scatterAdd(i, x, 1, size)),
          `${shape}`,
        );
        const line: Input = { shape: [1, shape[1], 1], dtype: "i32", element: index(size, n) };
        agree(
          graphOf([line, src], (i, x) => g.scatterAdd(g.expand(i, shape), x, 1, size)),
          `${shape} expanded`,
        );
      }
    });

  test("an index outside is an error", () => {
    for (const count of [5, 50]) {
      const where: Input = { shape: [count], dtype: "i32", element: (i) => (i === 3 ? 9 : 0) };
      const src: Input = { shape: [count], dtype: "f32", element: () => 1 };
      const graph = graphOf([where, src], (i, x) => g.scatterAdd(i, x, 0, 9));
      for (const backend of backends) expect(() => runGraph(backend, graph)).toThrow(/index 9/);
    }
  });
});
