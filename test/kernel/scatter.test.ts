/** @file Scatter-add by owner against the plain loop, through the interpreter. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { checkKernel } from "../../core/kernel/check.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import { scatterAddKernel } from "../../core/kernel/scatter.ts";
import { linearize } from "../../core/schedule/symbolic.ts";

interface Case {
  outer: number;
  size: number;
  count: number;
  inner: number;
  indexInner: boolean;
}

const kernelOf = ({ outer, size, count, inner, indexInner }: Case) =>
  scatterAddKernel({
    name: "scatterAdd",
    outer,
    size,
    count,
    inner,
    dtype: "f32",
    buffers: [
      { dtype: "i32", size: outer * count * (indexInner ? inner : 1), access: "read" },
      { dtype: "f32", size: outer * count * inner, access: "read" },
      { dtype: "f32", size: outer * size * inner, access: "write" },
    ],
    scalars: 0,
    index: (o, j, i) => ({
      k: "load",
      dtype: "i32",
      buffer: 0,
      index: indexInner
        ? linearize([o, j, i], [outer, count, inner])
        : linearize([o, j], [outer, count]),
    }),
    indexInner,
    src: (o, j, i) => ({
      k: "load",
      dtype: "f32",
      buffer: 1,
      index: linearize([o, j, i], [outer, count, inner]),
    }),
    out: (o, p, i) => linearize([o, p, i], [outer, size, inner]),
    outBuffer: 2,
  });

const dims = fc.record({
  outer: fc.integer({ min: 1, max: 4 }),
  size: fc.integer({ min: 1, max: 7 }),
  count: fc.integer({ min: 0, max: 9 }),
  inner: fc.constantFrom(1, 2, 5, 16, 33, 70, 150),
  indexInner: fc.boolean(),
});

test("sums at the indexed positions, in order, without races", () => {
  fc.assert(
    fc.property(dims, (c) => {
      const { outer, size, count, inner, indexInner } = c;
      const kernel = kernelOf(c);
      checkKernel(kernel, "wasm");
      const index = new Int32Array(outer * count * (indexInner ? inner : 1)).map(
        (_, n) => (n * 31 + 7) % size,
      );
      const src = new Float32Array(outer * count * inner).map((_, n) => Math.fround(1 / (n + 1)));
      const out = new Float32Array(outer * size * inner).fill(9);
      expect(interpret(kernel, [index, src, out], new Uint32Array(0))).toEqual({});
      const want = new Float32Array(out.length);
      for (let o = 0; o < outer; o++)
        for (let j = 0; j < count; j++)
          for (let i = 0; i < inner; i++) {
            const p = index[indexInner ? (o * count + j) * inner + i : o * count + j];
            want[(o * size + p) * inner + i] += src[(o * count + j) * inner + i];
          }
      expect(out).toEqual(want); // the same bits: the order is fixed
    }),
    { numRuns: 150 },
  );
});

test("an index outside is reported and does no harm", () => {
  const kernel = kernelOf({ outer: 1, size: 4, count: 3, inner: 2, indexInner: false });
  const index = new Int32Array([1, -7, 4]);
  const out = new Float32Array(8);
  const result = interpret(kernel, [index, new Float32Array(6).fill(1), out], new Uint32Array(0));
  expect(result.error).toEqual({ position: 0, value: -7 });
});

test("wide rows make several tasks", () => {
  expect(
    kernelOf({ outer: 1, size: 9, count: 4, inner: 512, indexInner: false }).range.extent,
  ).toBe(16);
});
