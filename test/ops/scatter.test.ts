import fc from "fast-check";
import * as h from "hinode";
import { IndexOutOfRangeError, tensor } from "hinode";
import { expect, test } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import {
  arrays,
  at,
  build,
  expectGradients,
  expectTensor,
  filled,
  make,
  numel,
  type Plain,
  positions,
  runs,
  values,
} from "./support.ts";

const shape = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 3 });
/** An array, an axis, an index with repeats that may be smaller on the other axes, and a source of the index's shape. */
const cases = arrays(values.f32, shape).chain((a) =>
  fc
    .tuple(
      fc.nat(a.shape.length - 1),
      fc.integer({ min: 1, max: 9 }),
      fc.array(fc.nat(2), { minLength: 3, maxLength: 3 }),
    )
    .chain(([axis, length, cut]) => {
      const own = a.shape.map((d, i) => (i === axis ? length : Math.max(d - cut[i], 1)));
      const index = filled(own, fc.nat(a.shape[axis] - 1));
      return fc.record({
        a: fc.constant(a),
        axis: fc.constant(axis),
        index,
        source: filled(own, values.f32),
      });
    }),
);

/** Walks over the index in row-major order and gives each position of `a` with what was there to `write`. */
function written(
  a: Plain,
  axis: number,
  index: Plain,
  write: (old: number, i: number) => number,
): Plain {
  const data = [...a.data];
  let k = 0;
  for (const i of positions(index.shape)) {
    const place = i
      .map((v, d) => (d === axis ? index.data[k] : v))
      .reduce((s, v, d) => s * a.shape[d] + v, 0);
    data[place] = write(data[place], k++);
  }
  return { shape: a.shape, data };
}
const ints = (p: Plain) => make(p, "i32");

onEachDevice("scatter", () => {
  test("the last one written stays", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ a, axis, index, source }) => {
        const want = written(a, axis, index, (_, i) => source.data[i]);
        await expectTensor(make(a).scatter(axis, ints(index), make(source)), want);
        const filledWith = written(a, axis, index, () => 2.5);
        await expectTensor(make(a).scatter(axis, ints(index), 2.5), filledWith);
      }),
      numRuns(40),
    );
  });

  test("scatterReduce, with and without what was there", async () => {
    const rules = {
      sum: [0, (x: number, y: number) => x + y],
      prod: [1, (x: number, y: number) => x * y],
      amax: [-Infinity, Math.max],
      amin: [Infinity, Math.min],
    } as const;
    await fc.assert(
      fc.asyncProperty(
        cases,
        fc.constantFrom("sum", "prod", "amax", "amin"),
        fc.boolean(),
        async ({ a, axis, index, source }, rule, includeSelf) => {
          const [start, combine] = rules[rule];
          const from = includeSelf ? a : written(a, axis, index, () => start);
          const want = written(from, axis, index, (old, i) => combine(old, source.data[i]));
          const got = make(a).scatterReduce(axis, ints(index), make(source), rule, { includeSelf });
          await expectTensor(got, want, { rtol: 1e-4, atol: 1e-4 });
        },
      ),
      numRuns(40),
    );
    const mean = tensor([10, 20, 30]).scatterReduce(
      0,
      tensor([0, 0], { dtype: "i32" }),
      tensor([1, 4]),
      "mean",
    );
    expect(await mean.tolist()).toEqual([5, 20, 30]);
  });

  test("indexAdd, indexCopy, indexFill", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ a, axis, index }) => {
        const list = index.data.slice(0, index.shape[axis]);
        const i = tensor(list, { dtype: "i32" });
        const source = build(
          a.shape.map((d, k) => (k === axis ? list.length : d)),
          (at) => at.reduce((s, v) => 3 * s + v, 1),
        );
        const spread: Plain = {
          shape: source.shape,
          data: build(source.shape, (p) => list[p[axis]]).data,
        };
        await expectTensor(
          make(a).indexAdd(axis, i, make(source), { alpha: 2 }),
          written(a, axis, spread, (old, k) => old + 2 * source.data[k]),
          { rtol: 1e-5, atol: 1e-4 },
        );
        await expectTensor(
          make(a).indexCopy(axis, i, make(source)),
          written(a, axis, spread, (_, k) => source.data[k]),
        );
        await expectTensor(
          make(a).indexFill(axis, i, -1),
          written(a, axis, spread, () => -1),
        );
      }),
      runs,
    );
  });

  test("several index tensors pick and put positions together", async () => {
    const value = fc.record({
      a: filled([3, 4, 2, 3], values.f32),
      i: filled([2, 1], fc.integer({ min: -3, max: 2 })),
      j: filled([4], fc.integer({ min: -2, max: 1 })),
    });
    await fc.assert(
      fc.asyncProperty(value, async ({ a, i, j }) => {
        const wrap = (p: Plain, index: number[], size: number) => (at(p, index) + size) % size;
        const both = (p: number[]) => [wrap(i, p, 3), wrap(j, p, 2)];
        // Apart: the tensors' axes come first.
        const apart = build([2, 4, 4, 3], ([p, q, r, s]) =>
          at(a, [both([p, q])[0], r, both([p, q])[1], s]),
        );
        await expectTensor(make(a).index(ints(i), {}, ints(j)), apart);
        // Neighbours: they stay in place.
        const turned = build([4, 3, 2, 3], ([r, x, y, s]) => at(a, [x, r, y, s]));
        const near = build([4, 2, 4, 3], ([r, p, q, s]) => at(turned, [r, ...both([p, q]), s]));
        await expectTensor(make(turned).index("...", ints(i), ints(j), {}), near);
        const flat: Plain = { shape: [3 * 4], data: a.data.slice(0, 12) };
        const put = make({ shape: [3, 4], data: flat.data }).indexPut([ints(i)], 7);
        const rows = new Set(i.data.map((v) => (v + 3) % 3));
        await expectTensor(
          put,
          build([3, 4], ([x, y]) => (rows.has(x) ? 7 : flat.data[x * 4 + y])),
        );
      }),
      runs,
    );
    const twice = tensor([0, 0], { dtype: "i32" });
    expect(await h.zeros([2, 2]).indexPut([twice, twice], tensor([1, 2]), { accumulate: true }).tolist()).toEqual([[3, 0], [0, 0]]); // biome-ignore format: rows
    expect(await h.zeros([2, 2]).indexPut([twice, twice], tensor([1, 2])).tolist()).toEqual([[2, 0], [0, 0]]); // biome-ignore format: rows
  });

  test("an index out of range is an error when the result is read", async () => {
    const [bad, good] = [tensor([5, 0], { dtype: "i32" }), tensor([0, 0], { dtype: "i32" })];
    const x = h.zeros([3]);
    const y = h.zeros([3, 9]);
    const ones = h.ones([2]);
    for (const t of [
      x.scatter(0, bad, ones),
      x.scatterReduce(0, bad, ones, "sum"),
      x.scatterReduce(0, bad, ones, "amax"),
      x.indexAdd(0, bad, ones),
      x.indexCopy(0, bad, ones),
      x.indexFill(0, bad, 1),
      x.indexPut([bad], 1),
      x.take(bad),
      // In range as a flat position, but not along its own axis.
      y.index(good, tensor([9, 0], { dtype: "i32" })),
    ])
      await expect(t.data()).rejects.toThrow(IndexOutOfRangeError);
  });

  test("gradients", async () => {
    const x: Plain = build([3, 4], ([i, j]) => Math.sin(4 * i + j));
    const s: Plain = build([2, 4], ([i, j]) => Math.cos(3 * i - j));
    const i = tensor([[0, 1, 2, 2], [2, 1, 0, 1]], { dtype: "i32" }); // biome-ignore format: rows
    await expectGradients((a, b) => a.scatter(0, i, b).square(), [x, s]);
    for (const rule of ["sum", "mean", "prod", "amax"] as const)
      await expectGradients((a, b) => a.scatterReduce(0, i, b, rule).square(), [x, s]);
    const rows = tensor([2, 0], { dtype: "i32" });
    await expectGradients((a, b) => a.indexCopy(0, rows, b).square(), [x, s]);
    await expectGradients((a) => a.index(rows, rows), [x]);
  });

  test("isin, take, histc, bincount", async () => {
    await fc.assert(
      fc.asyncProperty(
        arrays(fc.integer({ min: 0, max: 9 })),
        fc.array(fc.integer({ min: 0, max: 9 })),
        async (a, list) => {
          const found = h.isin(ints(a), tensor(list, { dtype: "i32" }));
          await expectTensor(
            found,
            { shape: a.shape, data: a.data.map((v) => Number(list.includes(v))) },
            {},
            "bool",
          );
          const counts = Array.from({ length: 10 }, (_, v) => a.data.filter((x) => x === v).length);
          const flat = { shape: [numel(a.shape)], data: a.data };
          await expectTensor(
            h.bincount(ints(flat), null, 10),
            { shape: [10], data: counts },
            {},
            "i32",
          );
          await expectTensor(h.histc(make(a), 10, -0.5, 9.5), { shape: [10], data: counts });
        },
      ),
      runs,
    );
    expect(await h.histc(tensor([1, 2, 1, 4]), 4).tolist()).toEqual([2, 1, 0, 1]);
    expect(await tensor([[1, 2], [3, 4]]).take(tensor([[3], [-4]], { dtype: "i32" })).tolist()).toEqual([[4], [1]]); // biome-ignore format: rows
  });
});
