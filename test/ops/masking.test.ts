import fc from "fast-check";
import * as h from "hinode";
import { DTypeError, IndexOutOfRangeError, ShapeError, type Tensor, tensor } from "hinode";
import { expect, test } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import {
  arrays,
  at,
  build,
  expectGradients,
  expectTensor,
  filled,
  fullShapes,
  make,
  numel,
  positions,
  values,
} from "./support.ts";

const masked = arrays(values.f32, fullShapes).chain((x) =>
  fc.tuple(fc.constant(x), filled(x.shape, values.bool)),
);
const bools = (data: boolean[] | boolean[][]): Tensor => tensor(data as never, { dtype: "bool" });

onEachDevice("boolean masks", () => {
  test("maskedSelect takes the true ones in order", async () => {
    await fc.assert(
      fc.asyncProperty(masked, async ([x, mask]) => {
        const data = x.data.filter((_, i) => mask.data[i]);
        await expectTensor(await make(x).maskedSelect(make(mask, "bool")), {
          shape: [data.length],
          data,
        });
      }),
      numRuns(25),
    );
    const wide = await tensor([[1], [2]]).maskedSelect(bools([true, false, true]));
    expect(await wide.tolist()).toEqual([1, 1, 2, 2]);
    await expect(h.zeros([2]).maskedSelect(h.zeros([2]))).rejects.toThrow(DTypeError);
    await expect(h.zeros([2]).maskedSelect(bools([true, true, true]))).rejects.toThrow(ShapeError);
  });

  test("maskedIndex is Python's x[mask], also beside other indices", async () => {
    const x = h.arange(24).reshape([2, 3, 4]);
    const rows = bools([
      [true, false, true],
      [false, false, true],
    ]);
    expect(await (await x.maskedIndex(rows)).tolist()).toEqual([
      [0, 1, 2, 3],
      [8, 9, 10, 11],
      [20, 21, 22, 23],
    ]);
    const last = bools([false, true, true, false]);
    expect((await x.maskedIndex("...", last)).shape).toEqual([2, 3, 2]);
    expect(await (await x.maskedIndex(1, { step: 2 }, last)).tolist()).toEqual([
      [13, 14],
      [21, 22],
    ]);
    expect(await (await x.maskedIndex(rows, { stop: 2 })).tolist()).toEqual([
      [0, 1],
      [8, 9],
      [20, 21],
    ]);
    expect((await x.maskedIndex(h.zeros([2], { dtype: "bool" }))).shape).toEqual([0, 3, 4]);
    await expect(x.maskedIndex(bools([true, true, true]))).rejects.toThrow(ShapeError);
    expect(() => x.index(rows)).toThrow(/maskedIndex/);
  });

  test("maskedScatter deals the source out in order", async () => {
    await fc.assert(
      fc.asyncProperty(masked, fc.nat(3), async ([x, mask], more) => {
        const count = mask.data.filter(Boolean).length;
        const source = Array.from({ length: count + more }, (_, i) => 100 + i);
        let next = 0;
        const data = x.data.map((v, i) => (mask.data[i] ? source[next++] : v));
        const result = make(x).maskedScatter(make(mask, "bool"), tensor(source));
        await expectTensor(result, { shape: x.shape, data });
        if (count === 0) return;
        const short = make(x).maskedScatter(make(mask, "bool"), tensor(source.slice(0, count - 1)));
        await expect(short.data()).rejects.toThrow(IndexOutOfRangeError);
      }),
      numRuns(25),
    );
    expect(() => h.zeros([2]).maskedScatter(bools([true, true]), h.ones([2]).to("i32"))).toThrow(
      DTypeError,
    );
  });

  test("indexPut by mask: one value, a row, or as many as there are", async () => {
    const x = h.arange(6).reshape([3, 2]);
    const mask = bools([true, false, true]);
    const put = (v: Tensor | number, accumulate = false) =>
      x.indexPut([mask], v, { accumulate }).tolist();
    expect(await put(9)).toEqual([
      [9, 9],
      [2, 3],
      [9, 9],
    ]);
    expect(await put(tensor([7, 8]), true)).toEqual([
      [7, 9],
      [2, 3],
      [11, 13],
    ]);
    expect(await put(tensor([[7, 8]]))).toEqual([
      [7, 8],
      [2, 3],
      [7, 8],
    ]);
    expect(await put(tensor([[7], [8]]))).toEqual([
      [7, 7],
      [2, 3],
      [8, 8],
    ]);
    await expect(put(h.zeros([3, 2]))).rejects.toThrow(IndexOutOfRangeError);
    const all = bools([
      [true, false],
      [false, true],
      [true, false],
    ]);
    expect(await x.indexPut([all], tensor([-1, -2, -3])).tolist()).toEqual([
      [-1, 1],
      [2, -2],
      [-3, 5],
    ]);
    expect(() => x.indexPut([bools([true])], 1)).toThrow(ShapeError);
    expect(() => x.indexPut([mask], h.zeros([3]))).toThrow(ShapeError);
  });

  test("gradients", async () => {
    const shape = [3, 2];
    const x = build(shape, ([i, j]) => Math.sin(i + 3 * j + 1));
    const mask = build(shape, ([i, j]) => Number((i + j) % 2 === 0));
    const m = make(mask, "bool");
    const count = [...positions(shape)].filter((p) => at(mask, p)).length;
    const source = build([count], ([i]) => Math.cos(i));
    await expectGradients((a, s) => a.square().maskedScatter(m, s.sin()), [x, source]);
    await expectGradients((a, s) => a.square().indexPut([m], s.sin()), [x, source]);
    const leaf = make(x, "f32", true);
    (await leaf.square().maskedSelect(m)).sum().backward();
    await expectTensor(
      leaf.grad!,
      build(shape, (p) => (at(mask, p) ? 2 * at(x, p) : 0)),
      { rtol: 1e-6 },
    );
    expect(numel(leaf.grad!.shape)).toBe(6);
  });

  test("what must read its mask throws inside transforms", async () => {
    const x = tensor([1, 2]);
    const m = bools([true, false]);
    let inner: Promise<Tensor> | undefined;
    h.compile((t: Tensor) => {
      inner = t.maskedSelect(m);
      inner.catch(() => {});
      return t;
    })(x);
    await expect(inner).rejects.toThrow(/read while/);
    const scattered = h.compile((t: Tensor) => t.maskedScatter(m, t.mul(10)));
    expect(await scattered(x).tolist()).toEqual([10, 2]);
  });
});
