import fc from "fast-check";
import * as h from "hinode";
import { IndexOutOfRangeError, ShapeError, type Tensor, tensor } from "hinode";
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
  type Plain,
  positions,
  runs,
  values,
} from "./support.ts";

const shape = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 3 });
/**
 * A source, an axis, and an index of any length on the axis, no longer than the source elsewhere.
 */
const gatherCase = arrays(values.f32, shape).chain((a) =>
  fc
    .tuple(
      fc.nat(a.shape.length - 1),
      fc.integer({ min: 0, max: 7 }),
      fc.array(fc.nat(2), { minLength: 3, maxLength: 3 }),
    )
    .chain(([axis, length, cut]) => {
      const own = a.shape.map((d, i) => (i === axis ? length : Math.max(d - cut[i], 1)));
      return fc.tuple(fc.constant(a), fc.constant(axis), filled(own, fc.nat(a.shape[axis] - 1)));
    }),
);
const put = (i: readonly number[], axis: number, v: number) =>
  i.map((x, k) => (k === axis ? v : x));
const ints = (p: Plain): Tensor => make(p, "i32");

onEachDevice("indexing", () => {
  test("gather, with a smaller index", async () => {
    await fc.assert(
      fc.asyncProperty(gatherCase, ([a, axis, index]) =>
        expectTensor(
          make(a).gather(axis, ints(index)),
          build(index.shape, (i) => at(a, put(i, axis, at(index, i)))),
        ),
      ),
      numRuns(40),
    );
    expect(() => h.zeros([2, 3]).gather(1, h.zeros([3, 1], { dtype: "i32" }))).toThrow(ShapeError);
    expect(() => h.zeros([2]).gather(0, h.zeros([2]))).toThrow(/an integer index/);
    expect(
      await tensor(5)
        .gather(0, tensor(0, { dtype: "i32" }))
        .item(),
    ).toBe(5);
  });

  test("scatterAdd adds up repeats", async () => {
    await fc.assert(
      fc.asyncProperty(gatherCase, async ([a, axis, index]) => {
        const source = build(index.shape, (i) => 1 + i.reduce((s, v) => s + v, 0));
        const want = [...a.data];
        const place = build(a.shape, (i) => i.reduce((s, v, k) => s * a.shape[k] + v, 0));
        let k = 0;
        for (const i of positions(index.shape)) {
          want[at(place, put(i, axis, index.data[k]))] += source.data[k];
          k++;
        }
        await expectTensor(
          make(a).scatterAdd(axis, ints(index), make(source)),
          { shape: a.shape, data: want },
          { rtol: 1e-5, atol: 1e-5 },
        );
      }),
      numRuns(40),
    );
  });

  test("indexSelect, takeAlongDim", async () => {
    await fc.assert(
      fc.asyncProperty(gatherCase, async ([a, axis, index]) => {
        const list = index.data.slice(0, index.shape[axis]);
        const row: Plain = { shape: [list.length], data: list };
        const want = build(put(a.shape, axis, list.length), (i) =>
          at(a, put(i, axis, list[i[axis]])),
        );
        await expectTensor(make(a).indexSelect(axis, ints(row)), want);
        const column = {
          shape: a.shape.map((_, i) => (i === axis ? list.length : 1)),
          data: list.map((v) => v - a.shape[axis]),
        };
        await expectTensor(make(a).takeAlongDim(ints(column), axis), want);
      }),
      runs,
    );
  });

  test("embedding takes indices of any shape; the padding row gets no gradient", async () => {
    const w = tensor(
      [
        [1, 2],
        [3, 4],
        [5, 6],
      ],
      { requiresGrad: true },
    );
    const i = tensor(
      [
        [2, 0],
        [2, 1],
      ],
      { dtype: "i32" },
    );
    const rows = h.embedding(i, w, { paddingIdx: 1 });
    expect(await rows.tolist()).toEqual([
      [
        [5, 6],
        [1, 2],
      ],
      [
        [5, 6],
        [3, 4],
      ],
    ]);
    rows.sum().backward();
    expect(await w.grad!.tolist()).toEqual([
      [1, 1],
      [0, 0],
      [2, 2],
    ]);
    expect(h.embedding(h.zeros([0, 4], { dtype: "i32" }), w).shape).toEqual([0, 4, 2]);
    expect(h.embedding(tensor(1, { dtype: "u8" }), w).shape).toEqual([2]);
    expect(() => h.embedding(i.float(), w)).toThrow(/an integer index/);
  });

  test("oneHot", async () => {
    expect(await h.oneHot(tensor([1, 0], { dtype: "i32" }), 3).tolist()).toEqual([
      [0, 1, 0],
      [1, 0, 0],
    ]);
    expect(await h.oneHot(tensor(2, { dtype: "i32" }), 3).tolist()).toEqual([0, 0, 1]);
  });

  test("an index out of range is an error when the result is read", async () => {
    const bad = tensor([0, 7], { dtype: "i32" });
    const x = h.ones([3]);
    for (const t of [
      x.gather(0, bad),
      x.gather(0, tensor([-1], { dtype: "i32" })),
      x.indexSelect(0, bad),
      h.embedding(bad, h.ones([3, 2])),
      x.scatterAdd(0, bad, h.ones([2])),
      h.oneHot(bad, 3),
      x.index(tensor([-4], { dtype: "i32" })),
    ])
      await expect(t.data()).rejects.toThrow(IndexOutOfRangeError);
  });

  test("gradients", async () => {
    const x: Plain = { shape: [3, 2], data: [0.3, -0.7, 1.4, 2.2, -1.9, 0.9] };
    const index = tensor(
      [
        [2, 0],
        [2, 2],
      ],
      { dtype: "i32" },
    );
    await expectGradients((t) => t.gather(0, index).square(), [x]);
    await expectGradients((t) => h.embedding(index, t).sin(), [x]);
    await expectGradients(
      (t, s) => t.scatterAdd(0, index, s).square(),
      [x, { shape: [2, 2], data: [1, -0.5, 0.3, 0.8] }],
    );
    await expectGradients(
      (t) => t.indexSelect(1, tensor([1, 1, 0], { dtype: "i32" })).square(),
      [x],
    );
  });
});
