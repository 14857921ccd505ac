import fc from "fast-check";
import * as h from "hinode";
import { ArgumentError, DTypeError, ShapeError, type Tensor, tensor } from "hinode";
import { afterEach, expect, test, vi } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import {
  arrays,
  at,
  build,
  expectGradients,
  expectTensor,
  filled,
  make,
  values,
} from "./support.ts";

const shape = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 3 });
/** A tensor, the sizes of a part of it, starts around its range, and which of them are tensors. */
const sliceCase = arrays(values.f32, shape).chain((x) => {
  const rank = x.shape.length;
  return fc.record({
    x: fc.constant(x),
    sizes: fc.tuple(...x.shape.map((d) => fc.integer({ min: 0, max: d }))),
    starts: fc.tuple(...x.shape.map((d) => fc.integer({ min: -d - 2, max: d + 2 }))),
    late: fc.array(fc.boolean(), { minLength: rank, maxLength: rank }),
  });
});
const clamped = (start: number, size: number, whole: number): number =>
  Math.max(0, Math.min(start < 0 ? start + whole : start, whole - size));
const scalar = (v: number): Tensor => tensor(v, { dtype: "i32" });
const startsOf = ({ starts, late }: { starts: number[]; late: boolean[] }) =>
  starts.map((s, i) => (late[i] ? scalar(s) : s));

afterEach(() => {
  vi.restoreAllMocks();
});

onEachDevice("slices at run-time starts", (device) => {
  test("dynamicSlice takes what fits, from either end", async () => {
    await fc.assert(
      fc.asyncProperty(sliceCase, ({ x, sizes, ...s }) => {
        const from = s.starts.map((v, i) => clamped(v, sizes[i], x.shape[i]));
        return expectTensor(
          make(x).dynamicSlice(startsOf(s), sizes),
          build(sizes, (p) => at(x, p.map((v, i) => v + from[i]))), // biome-ignore format: one line
        );
      }),
      numRuns(25),
    );
  });

  test("dynamicUpdateSlice writes there and nowhere else", async () => {
    const withUpdate = sliceCase.chain((c) =>
      filled(c.sizes, values.f32).map((update) => ({ ...c, update })),
    );
    await fc.assert(
      fc.asyncProperty(withUpdate, ({ x, sizes, update, ...s }) => {
        const from = s.starts.map((v, i) => clamped(v, sizes[i], x.shape[i]));
        return expectTensor(
          make(x).dynamicUpdateSlice(make(update), startsOf(s)),
          build(x.shape, (p) => {
            const place = p.map((v, i) => v - from[i]);
            return place.every((v, i) => v >= 0 && v < sizes[i]) ? at(update, place) : at(x, p);
          }),
        );
      }),
      numRuns(25),
    );
  });

  test("gradients", async () => {
    const [i, j] = [scalar(1), scalar(9)];
    const some = (dims: number[]) => build(dims, (p) => Math.sin(3 * p[0] + p[1] + 1));
    await expectGradients((x) => x.sin().dynamicSlice([i, j], [2, 3]).square(), [some([4, 5])]);
    await expectGradients(
      (x, u) => x.square().dynamicUpdateSlice(u.sin(), [i, j]).sin(),
      [some([4, 5]), some([2, 3])],
    );
  });

  test("vmap over starts", async () => {
    const x = tensor([1, 2, 3, 4, 5]);
    const starts = tensor([0, 2, 9], { dtype: "i32" });
    const parts = h.vmap((s: Tensor) => x.dynamicSlice([s], [2]))(starts);
    expect(await parts.tolist()).toEqual([
      [1, 2],
      [3, 4],
      [4, 5],
    ]);
    const written = h.vmap((s: Tensor) => x.dynamicUpdateSlice(tensor([0, 0]), [s]))(starts);
    expect(await written.tolist()).toEqual([
      [0, 0, 3, 4, 5],
      [1, 2, 0, 0, 5],
      [1, 2, 3, 0, 0],
    ]);
  });

  test("refuses what does not fit", () => {
    const x = h.zeros([4, 5]);
    expect(() => x.dynamicSlice([0], [2, 2])).toThrow(ArgumentError);
    expect(() => x.dynamicSlice([0, 0], [5, 2])).toThrow(ShapeError);
    expect(() => x.dynamicSlice([0.5, 0], [2, 2])).toThrow(/integral starts/);
    expect(() => x.dynamicSlice([tensor(1), 0], [2, 2])).toThrow(/0-d integer tensor/);
    expect(() => x.dynamicUpdateSlice(h.zeros([2]), [0, 0])).toThrow(ShapeError);
    expect(() => x.dynamicUpdateSlice(h.zeros([2, 2], { dtype: "i32" }), [0, 0])).toThrow(
      DTypeError,
    );
  });

  test("one compiled step fills and reads a cache at every position", async () => {
    const [heads, length, width] = [2, 64, 8];
    const cache = h.zeros([heads, length, width]);
    let traces = 0;
    const step = h.compile((k: Tensor, pos: Tensor) => {
      traces++;
      cache.assign(h.dynamicUpdateSlice(cache, k.mul(2), [0, pos, 0]));
      // Reads the new version, and one position of it.
      return [cache.sum([1, 2]), cache.dynamicSlice([0, pos, 0], [heads, 1, width]).sum()];
    });
    const key = h.ones([heads, 1, width]);
    await step(key, scalar(0))[0].data();
    await step(key, scalar(1))[0].data();
    const { plansPrepared } = h.defaultDevice().statistics();
    const copies = vi.spyOn(Uint8Array.prototype, "copyWithin");
    for (let pos = 2; pos < 20; pos++) {
      const [sums, here] = step(key, scalar(pos));
      expect(await sums.tolist()).toEqual([0, 1].map(() => 2 * (pos + 1) * width));
      expect(await here.item()).toBe(2 * heads * width);
    }
    expect(traces).toBe(1);
    expect(h.defaultDevice().statistics().plansPrepared).toBe(plansPrepared);
    // The cache stays where it is.
    expect(copies).not.toHaveBeenCalled();
    if (device !== "wasm") return;
    const [update, ...rest] = h.explain(step, key, scalar(3)).kernels;
    // Reads the key and the position, writes the slice.
    expect(update.bytes).toBe(2 * key.numel * 4 + 4);
    expect(update.writes[0]).toMatchObject({ shape: cache.shape, reason: "new state" });
    for (const kernel of rest)
      expect(kernel.writes.every((w) => w.shape.length === 0 || w.shape[0] === heads)).toBe(true);
  });

  test("a version that somebody still holds is copied, not overwritten", async () => {
    const cache = h.zeros([4, 2]);
    const step = h.compile((k: Tensor, pos: Tensor) => {
      cache.assign(cache.dynamicUpdateSlice(k, [pos, 0]));
    });
    const row = h.ones([1, 2]);
    step(row, scalar(0));
    const before = cache.add(0);
    const held = h.stack([cache, cache]);
    step(row, scalar(2));
    step(row, scalar(3));
    const one = [1, 1];
    const none = [0, 0];
    expect(await before.tolist()).toEqual([one, none, none, none]);
    expect(await held.select(0, 1).tolist()).toEqual([one, none, none, none]);
    expect(await cache.tolist()).toEqual([one, none, one, one]);
  });

  test("layers of one cache, each written and then read, share its storage", async () => {
    const [layers, length, width] = [3, 16, 4];
    const cache = h.zeros([layers, length, width]);
    const step = h.compile((x: Tensor, pos: Tensor) => {
      let y = x;
      for (let layer = 0; layer < layers; layer++) {
        cache.assign(cache.dynamicUpdateSlice(y.reshape([1, 1, width]), [layer, pos, 0]));
        y = cache.select(0, layer).sum(0).add(1);
      }
      return y;
    });
    const plain = (steps: number): number => {
      const filled = Array.from({ length: layers }, () => 0);
      let y = 0;
      for (let pos = 0; pos < steps; pos++) {
        y = 1;
        for (let layer = 0; layer < layers; layer++) y = (filled[layer] += y) + 1;
      }
      return y;
    };
    const x = h.ones([width]);
    await step(x, scalar(0)).data();
    await step(x, scalar(1)).data();
    const copies = vi.spyOn(Uint8Array.prototype, "copyWithin");
    for (let pos = 2; pos < 6; pos++)
      expect(await step(x, scalar(pos)).tolist()).toEqual(Array(width).fill(plain(pos + 1)));
    expect(copies).not.toHaveBeenCalled();
    if (device !== "wasm") return;
    const { scratchBytes } = h.explain(step, x, scalar(0));
    expect(scratchBytes).toBeLessThan(layers * length * width * 4);
  });
});
