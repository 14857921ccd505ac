/** @file Joined tensors: whatever is joined along whatever axis has the reference's bits, and is copied part by part. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Backend } from "../../core/backend/backend.ts";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import * as g from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { runGraph } from "../support/differential.ts";
import type { RandomGraph } from "../support/graphs.ts";
import { forCpu, InterpretedBackend } from "../support/interpreted.ts";
import { graphOf, leaf } from "../support/schedule-cases.ts";
import { seed } from "../support/seed.ts";

/** The results; a sum of one element may keep the sign of a zero. */
const values = (backend: Backend, graph: RandomGraph): number[][] =>
  runGraph(backend, graph).map((v) => Array.from(v, (x) => Number(x) + 0));

const reference = new ReferenceBackend();
const wasm = new WasmBackend({ threads: 1 });
const interpreted = new InterpretedBackend(forCpu);

/** Parts of these sizes along an axis of a tensor of rank 3. */
const partsOf = (sizes: readonly number[], axis: number, rest: readonly [number, number]): Node[] =>
  sizes.map((size) => leaf(rest.toSpliced(axis, 0, size), "f32"));

const stepwise = (parts: readonly Node[], axis: number): Node =>
  parts.reduce((all, part) => g.concat([all, part], axis));

const kernelsOf = (output: Node) => {
  const graph = graphOf({ outputs: [output] }, seed);
  const { kernels } = wasm.prepare({ ...graph, key: "" });
  return kernels.map(({ source }) => source);
};
const loopsIn = (source: string): number => source.match(/vector /g)?.length ?? 0;

describe("joined tensors", () => {
  test("have the reference's bits", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 21 }), { minLength: 2, maxLength: 20 }),
        fc.integer({ min: 0, max: 2 }),
        fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 19 })),
        fc.constantFrom("plain", "mapped", "shifted", "rows", "columns", "sliced"),
        (sizes, axis, rest, use) => {
          const parts = partsOf(sizes, axis, rest);
          const x = stepwise(parts, axis);
          const last = x.shape[2] - 1;
          const outputs: Record<typeof use, () => Node> = {
            plain: () => x,
            mapped: () => g.mul(x, g.add(x, g.expand(leaf([1, 1, 1], "f32"), x.shape))),
            shifted: () => g.add(x, g.concat([g.slice(x, [0, 0, last], [...x.shape.slice(0, 2), 1]), g.slice(x, [0, 0, 0], [...x.shape.slice(0, 2), last])], 2)), // biome-ignore format: one line
            rows: () => g.sum(x, [2]),
            columns: () => g.sum(x, [0]),
            sliced: () => g.mul(g.slice(x, [0, 0, last >> 1], [...x.shape.slice(0, 2), last + 1 - (last >> 1)]), g.slice(x, [0, 0, 0], [...x.shape.slice(0, 2), last + 1 - (last >> 1)])), // biome-ignore format: one line
          };
          if (use === "shifted" && last === 0) return;
          const graph = graphOf({ outputs: [outputs[use]()] }, seed);
          const want = values(reference, graph);
          expect(values(wasm, graph)).toEqual(want);
          expect(values(interpreted, graph)).toEqual(want);
        },
      ),
      { numRuns: 40 },
    );
  });

  test("step by step are joined at once, each part by a loop of its own", () => {
    for (const axis of [0, 1, 2]) {
      const sources = kernelsOf(stepwise(partsOf([16, 8, 24], axis, [9, 33]), axis));
      expect(sources, `axis ${axis}`).toHaveLength(1);
      expect(sources[0]).not.toContain("?");
      expect(loopsIn(sources[0])).toBe(3);
    }
  });

  test("parts of few lanes are selected, as a loop for each would be mostly idle", () => {
    const [source] = kernelsOf(stepwise(partsOf([3, 2, 40], 2, [9, 33]), 2));
    expect(source).toContain("?");
    expect(loopsIn(source)).toBe(1);
  });
});
