import fc from "fast-check";
import * as h from "hinode";
import { ArgumentError, IndexOutOfRangeError, ShapeError, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import {
  arrays,
  at,
  build,
  expectGradients,
  expectTensor,
  make,
  numel,
  type Plain,
  runs,
  shapes,
  values,
} from "./support.ts";

const atLeastOne = arrays(
  values.f32,
  shapes.filter((s) => s.length > 0),
);
const withAxis = atLeastOne.chain((a) => fc.tuple(fc.constant(a), fc.nat(a.shape.length - 1)));
const wrap = (i: number, n: number): number => ((i % n) + n) % n;

/** What numpy's `list[start:stop:step]` gives of 0 … n-1. */
function pythonRange(n: number, start?: number | null, stop?: number | null, step = 1): number[] {
  const clip = (v: number, lo: number, hi: number) => Math.min(Math.max(v < 0 ? v + n : v, lo), hi);
  const [lo, hi] = step > 0 ? [0, n] : [-1, n - 1];
  let i = start == null ? (step > 0 ? lo : hi) : clip(start, lo, hi);
  const end = stop == null ? (step > 0 ? hi : lo) : clip(stop, lo, hi);
  const out: number[] = [];
  for (; step > 0 ? i < end : i > end; i += step) out.push(i);
  return out;
}

const pick = (a: Plain, axis: number, list: readonly number[]): Plain =>
  build(
    a.shape.map((d, i) => (i === axis ? list.length : d)),
    (i) =>
      at(
        a,
        i.map((v, k) => (k === axis ? list[v] : v)),
      ),
  );

onEachDevice("movement", () => {
  test("reshape, view, flatten, unflatten keep the order", async () => {
    await fc.assert(
      fc.asyncProperty(arrays(), async (a) => {
        const x = make(a);
        const n = numel(a.shape);
        await expectTensor(x.reshape([n, 1]), { shape: [n, 1], data: a.data });
        if (n > 0) await expectTensor(x.view([1, -1]), { shape: [1, n], data: a.data });
        await expectTensor(x.flatten(), { shape: [n], data: a.data });
      }),
      runs,
    );
    const x = h.zeros([2, 3, 4]);
    expect(x.flatten(1).shape).toEqual([2, 12]);
    expect(x.flatten(0, 1).shape).toEqual([6, 4]);
    expect(x.unflatten(-1, [2, -1]).shape).toEqual([2, 3, 2, 2]);
    expect(() => x.reshape([5, -1])).toThrow(ShapeError);
    expect(() => x.reshape([7])).toThrow(
      /reshape: expected a shape of 24 elements, got \[2, 3, 4\] → \[7\]/,
    );
    expect(h.zeros([0, 3]).reshape([-1]).shape).toEqual([0]);
  });

  test("permute, transpose, T, mT, movedim", async () => {
    const permuted = arrays().chain((a) =>
      fc.tuple(
        fc.constant(a),
        fc.shuffledSubarray([...a.shape.keys()], { minLength: a.shape.length }),
      ),
    );
    await fc.assert(
      fc.asyncProperty(permuted, async ([a, axes]) => {
        const shape = axes.map((d) => a.shape[d]);
        const back = (i: number[]) => a.shape.map((_, d) => i[axes.indexOf(d)]);
        await expectTensor(
          make(a).permute(axes),
          build(shape, (i) => at(a, back(i))),
        );
      }),
      runs,
    );
    const x = h.zeros([2, 3, 4]);
    expect(x.transpose(0, -1).shape).toEqual([4, 3, 2]);
    expect(x.swapaxes(0, 1).shape).toEqual([3, 2, 4]);
    expect([x.T.shape, x.mT.shape]).toEqual([
      [4, 3, 2],
      [2, 4, 3],
    ]);
    expect(x.movedim(0, 2).shape).toEqual([3, 4, 2]);
    expect(x.movedim([0, 1], [-1, 0]).shape).toEqual([3, 4, 2]);
    expect(() => x.permute([0, 1])).toThrow(ArgumentError);
    for (const name of ["reshape", "permute", "expand", "repeat", "tile"] as const)
      expect(() => x[name](2 as never)).toThrow(/an array of integers, got 2/);
    expect(() => x.permute([0, 1, 1])).toThrow(ArgumentError);
  });

  test("squeeze and unsqueeze", () => {
    const x = h.zeros([1, 3, 1]);
    expect(x.squeeze().shape).toEqual([3]);
    expect(x.squeeze(0).shape).toEqual([3, 1]);
    expect(x.squeeze(1).shape).toEqual([1, 3, 1]);
    expect(x.squeeze([0, 2]).shape).toEqual([3]);
    expect(x.unsqueeze(-1).shape).toEqual([1, 3, 1, 1]);
    expect(tensor(1).unsqueeze(0).shape).toEqual([1]);
    expect(() => x.unsqueeze(5)).toThrow(ArgumentError);
  });

  test("expand, repeat, tile, repeatInterleave", async () => {
    await fc.assert(
      fc.asyncProperty(
        arrays(),
        fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 5, maxLength: 5 }),
        async (a, counts) => {
          const times = counts.slice(0, a.shape.length);
          const modulo = (i: number[]) =>
            at(
              a,
              i.map((v, k) => v % a.shape[k]),
            );
          await expectTensor(
            make(a).repeat(times),
            build(
              a.shape.map((d, i) => d * times[i]),
              modulo,
            ),
          );
          const lead = build([2, ...a.shape], (i) => at(a, i.slice(1)));
          await expectTensor(make(a).expand([2, ...a.shape.map(() => -1)]), lead);
          await expectTensor(make(a).repeat([2, ...a.shape.map(() => 1)]), lead);
        },
      ),
      runs,
    );
    const x = tensor([[1, 2]]);
    expect(await x.tile([2]).tolist()).toEqual([[1, 2, 1, 2]]);
    expect(await x.repeatInterleave(2, 1).tolist()).toEqual([[1, 1, 2, 2]]);
    expect(await x.repeatInterleave(2).tolist()).toEqual([1, 1, 2, 2]);
    const counts = tensor([3, 0, 1], { dtype: "i32" });
    const of = (outputSize?: number) =>
      tensor([5, 6, 7]).repeatInterleave(counts, 0, { outputSize });
    expect(await of(4).tolist()).toEqual([5, 5, 5, 7]);
    expect(() => of()).toThrow(/outputSize/);
    await expect(of(5).data()).rejects.toThrow(IndexOutOfRangeError);
    await expect(of(3).data()).rejects.toThrow(IndexOutOfRangeError);
    expect(await x.broadcastTo([2, 2]).tolist()).toEqual([
      [1, 2],
      [1, 2],
    ]);
    expect(x.expandAs(h.zeros([3, 2])).shape).toEqual([3, 2]);
    expect(() => x.expand([2, 3])).toThrow(ShapeError);
    expect(() => x.repeat([2])).toThrow(ArgumentError);
  });

  test("flip and roll", async () => {
    await fc.assert(
      fc.asyncProperty(withAxis, fc.integer({ min: -12, max: 12 }), async ([a, axis], by) => {
        const n = a.shape[axis];
        const backwards = [...Array(n).keys()].reverse();
        await expectTensor(make(a).flip(axis), pick(a, axis, backwards));
        await expectTensor(
          make(a).roll(by, axis),
          pick(
            a,
            axis,
            [...Array(n).keys()].map((i) => wrap(i - by, n)),
          ),
        );
      }),
      runs,
    );
    expect(
      await tensor([
        [1, 2],
        [3, 4],
      ])
        .roll(1)
        .tolist(),
    ).toEqual([
      [4, 1],
      [2, 3],
    ]);
    expect(
      await tensor([
        [1, 2],
        [3, 4],
      ])
        .roll([1, 1], [0, 1])
        .tolist(),
    ).toEqual([
      [4, 3],
      [2, 1],
    ]);
  });

  test("pad, also by negative amounts", async () => {
    const amount = fc.integer({ min: -2, max: 3 });
    await fc.assert(
      fc.asyncProperty(withAxis, amount, amount, async ([a, axis], lo, hi) => {
        fc.pre(a.shape[axis] + Math.min(lo, 0) + Math.min(hi, 0) >= 0);
        const behind = a.shape.length - 1 - axis;
        const amounts = [...Array(2 * behind).fill(0), lo, hi];
        const shape = a.shape.map((d, i) => (i === axis ? d + lo + hi : d));
        fc.pre(shape[axis] >= 0);
        const want = build(shape, (i) => {
          const j = i[axis] - lo;
          return j < 0 || j >= a.shape[axis]
            ? 7
            : at(
                a,
                i.map((v, k) => (k === axis ? j : v)),
              );
        });
        await expectTensor(make(a).pad(amounts, 7), want);
      }),
      runs,
    );
    expect(() => tensor([1, 2]).pad([1])).toThrow(ArgumentError);
    expect(() => tensor([1, 2]).pad([-2, -1])).toThrow(ShapeError);
  });

  test("slice is Python's", async () => {
    const bound = fc.option(fc.integer({ min: -12, max: 12 }));
    const step = fc.integer({ min: -4, max: 4 }).filter((s) => s !== 0);
    await fc.assert(
      fc.asyncProperty(withAxis, bound, bound, step, async ([a, axis], start, stop, by) => {
        const want = pick(a, axis, pythonRange(a.shape[axis], start, stop, by));
        await expectTensor(make(a).slice(axis, start, stop, by), want);
        const all = Array(axis).fill({});
        await expectTensor(make(a).index(...all, { start, stop, step: by }), want);
      }),
      numRuns(60),
    );
    expect(() => tensor([1]).slice(0, 0, 1, 0)).toThrow(/a step other than 0/);
  });

  test("index", async () => {
    const x = h.arange(24).reshape([2, 3, 4]);
    expect(await x.index(1, -1, 0).item()).toBe(20);
    expect(x.index("...", 0).shape).toEqual([2, 3]);
    expect(x.index(0, "...", { stop: 2 }).shape).toEqual([3, 2]);
    expect(x.index(null, "...", null).shape).toEqual([1, 2, 3, 4, 1]);
    const positions = tensor(
      [
        [2, 0],
        [-1, 1],
      ],
      { dtype: "i32" },
    );
    expect(await x.index(0, positions, 1).tolist()).toEqual([
      [9, 1],
      [9, 5],
    ]);
    expect(x.index({ start: 5 }).shape).toEqual([0, 3, 4]);
    expect(() => x.index(2)).toThrow(/an index within axis 0 of size 2, got 2/);
    expect(() => x.index(0, 0, 0, 0)).toThrow(ArgumentError);
    expect(() => x.index("...", "...")).toThrow(ArgumentError);
  });

  test("narrow, select, split, chunk, unbind", async () => {
    const x = h.arange(10).reshape([5, 2]);
    expect(await x.narrow(0, 1, 2).tolist()).toEqual([
      [2, 3],
      [4, 5],
    ]);
    expect(await x.narrow(0, -1, 1).tolist()).toEqual([[8, 9]]);
    expect(await x.select(1, -1).tolist()).toEqual([1, 3, 5, 7, 9]);
    expect(x.split(2).map((t) => t.shape[0])).toEqual([2, 2, 1]);
    expect(x.split([1, 0, 4]).map((t) => t.shape[0])).toEqual([1, 0, 4]);
    expect(x.chunk(3).map((t) => t.shape[0])).toEqual([2, 2, 1]);
    expect(x.chunk(7).length).toBe(5);
    const [, second] = x.unbind(1);
    expect(await second.tolist()).toEqual([1, 3, 5, 7, 9]);
    expect(() => x.split([1, 2])).toThrow(/sizes that add up to 5/);
    expect(() => x.narrow(0, 4, 2)).toThrow(ArgumentError);
    expect(h.zeros([0, 2]).chunk(3).length).toBe(3);
  });

  test("cat undoes split, stack undoes unbind", async () => {
    await fc.assert(
      fc.asyncProperty(withAxis, async ([a, axis]) => {
        fc.pre(a.shape[axis] > 0);
        const x = make(a);
        await expectTensor(h.cat(x.split(2, axis), axis), a);
        await expectTensor(h.stack(x.unbind(axis), axis), a);
      }),
      runs,
    );
    expect(h.cat([tensor([1]), tensor([2], { dtype: "i32" })]).dtype).toBe("f32");
    expect(() => h.cat([])).toThrow(ArgumentError);
    expect(() => h.cat([h.zeros([2, 3]), h.zeros([2, 4])])).toThrow(ShapeError);
    expect(() => h.stack([h.zeros([2]), h.zeros([3])])).toThrow(ShapeError);
    expect(() => h.cat([tensor(1), tensor(2)])).toThrow(/use stack/);
  });

  test("tril, triu, diagonal", async () => {
    const offsets = fc.integer({ min: -4, max: 4 });
    const matrix = arrays(values.f32, fc.array(fc.nat(5), { minLength: 2, maxLength: 3 }));
    await fc.assert(
      fc.asyncProperty(matrix, offsets, async (a, k) => {
        const keep = (test: (d: number) => boolean) =>
          build(a.shape, (i) => (test(i.at(-1)! - i.at(-2)!) ? at(a, i) : 0));
        await expectTensor(
          make(a).tril(k),
          keep((d) => d <= k),
        );
        await expectTensor(
          make(a).triu(k),
          keep((d) => d >= k),
        );
        const [rows, columns] = a.shape.slice(-2);
        const list: number[] = [];
        for (let r = 0; r < rows; r++) if (r + k >= 0 && r + k < columns) list.push(r);
        const shape = [...a.shape.slice(0, -2), list.length];
        const want = build(shape, (i) =>
          at(a, [...i.slice(0, -1), list[i.at(-1)!], list[i.at(-1)!] + k]),
        );
        await expectTensor(make(a).diagonal(k, -2, -1), want);
      }),
      runs,
    );
    expect(await h.ones([2, 3], { dtype: "bool" }).tril().tolist()).toEqual([
      [true, false, false],
      [true, true, false],
    ]);
    expect(() => tensor([1]).tril()).toThrow(ShapeError);
  });

  test("results are values: assigning one changes no other", async () => {
    const x = tensor([1, 2, 3]);
    const y = x.reshape([3, 1]).reshape([3]);
    await h.realize(y);
    x.assign(tensor([7, 8, 9]));
    expect([await x.tolist(), await y.tolist()]).toEqual([
      [7, 8, 9],
      [1, 2, 3],
    ]);
  });

  describe("gradients", () => {
    const x: Plain = { shape: [2, 3], data: [0.3, -0.7, 1.4, 2.2, -1.9, 0.9] };
    const moves: Record<string, (t: h.Tensor) => h.Tensor> = {
      reshape: (t) => t.reshape([3, 2]),
      permute: (t) => t.T,
      expand: (t) => t.unsqueeze(0).expand([2, 2, 3]),
      repeat: (t) => t.repeat([2, 2]),
      pad: (t) => t.pad([1, -1, 0, 2]),
      slice: (t) => t.slice(1, null, null, -2),
      flip: (t) => t.flip([0, 1]),
      roll: (t) => t.roll(1, 1),
      cat: (t) => h.cat([t, t.mul(2)], 1),
      index: (t) => t.index("...", tensor([2, 0, 2], { dtype: "i32" })),
      diagonal: (t) => t.diagonal(),
      tril: (t) => t.tril(),
    };
    test.for(Object.entries(moves))("%s", async ([, f]) => expectGradients(f, [x]));
  });
});
