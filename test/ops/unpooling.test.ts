import fc from "fast-check";
import * as h from "hinode";
import { ArgumentError, IndexOutOfRangeError, ShapeError, tensor } from "hinode";
import { expect, test } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import { build, expectGradients, expectTensor, make, type Plain } from "./support.ts";

const geometry = fc
  .record({
    height: fc.integer({ min: 4, max: 8 }),
    width: fc.integer({ min: 4, max: 8 }),
    kernel: fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })),
    stride: fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })),
    pad: fc.boolean(),
    dilation: fc.integer({ min: 1, max: 2 }),
    seed: fc.integer(),
  })
  .map((r) => ({ ...r, padding: r.kernel.map((k) => (r.pad ? Math.floor(k / 2) : 0)) }))
  .filter((r) =>
    r.kernel.every((k, i) => r.dilation * (k - 1) < [r.height, r.width][i] + 2 * r.padding[i]),
  );
const picture = (shape: number[], seed: number): Plain =>
  // + 0: a rounded -0 is a 0.
  build(shape, ([n, y, x]) => Math.round(4 * Math.sin(seed + 7 * n + 3 * y + 5 * x)) + 0);

onEachDevice("max pooling with indices", () => {
  test("the indices are those of the first maxima", async () => {
    await fc.assert(
      fc.asyncProperty(
        geometry,
        async ({ height, width, kernel, stride, padding, dilation, seed }) => {
          const x = picture([2, height, width], seed);
          const options = { stride, padding, dilation, returnIndices: true } as const;
          const { values, indices } = h.maxPool2d(make(x), kernel, options);
          expect(indices.dtype).toBe("i32");
          const found = await indices.data();
          const best = await values.data();
          const [rows, columns] = values.shape.slice(1);
          for (const [i, at] of found.entries()) {
            const plane = Math.floor(i / (rows * columns));
            const [r, c] = [Math.floor(i / columns) % rows, i % columns];
            let want = -1;
            let most = -Infinity;
            for (let ky = 0; ky < kernel[0]; ky++)
              for (let kx = 0; kx < kernel[1]; kx++) {
                const yy = r * stride[0] + ky * dilation - padding[0];
                const xx = c * stride[1] + kx * dilation - padding[1];
                if (yy < 0 || xx < 0 || yy >= height || xx >= width) continue;
                const v = x.data[(plane * height + yy) * width + xx];
                if (v > most) [most, want] = [v, yy * width + xx];
              }
            expect([at, best[i]]).toEqual([want, most]);
          }
        },
      ),
      numRuns(25),
    );
  });

  test("1-d and 3-d", async () => {
    const line = h.maxPool1d(tensor([[1, 5, 2, 9, 9]]), 2, { stride: 1, returnIndices: true });
    expect(await line.indices.tolist()).toEqual([[1, 1, 3, 3]]);
    const cube = h.arange(27).float().reshape([1, 3, 3, 3]);
    const { indices } = h.maxPool3d(cube, 2, { stride: 1, returnIndices: true });
    expect(await indices.flatten().tolist()).toEqual([13, 14, 16, 17, 22, 23, 25, 26]);
  });

  test("of bins: the first in the order of memory, also of nothing but -∞", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.tuple(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 7 })),
        fc.tuple(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 8 })),
        fc.infiniteStream(fc.constantFrom(-Infinity, -1, 0, 2)),
        async ([height, width], size, numbers) => {
          const x = build([1, height, width], () => numbers.next().value!);
          const pooled = h.adaptiveMaxPool2d(make(x), size, { returnIndices: true });
          const [values, indices] = [await pooled.values.data(), await pooled.indices.data()];
          for (let i = 0; i < size[0] * size[1]; i++) {
            const [r, c] = [Math.floor(i / size[1]), i % size[1]];
            const bin = (j: number, length: number, count: number) => [
              Math.floor((j * length) / count),
              Math.ceil(((j + 1) * length) / count),
            ];
            const [top, bottom] = bin(r, height, size[0]);
            const [left, right] = bin(c, width, size[1]);
            let want = top * width + left;
            for (let row = top; row < bottom; row++)
              for (let column = left; column < right; column++)
                if (x.data[row * width + column] > x.data[want]) want = row * width + column;
            expect([indices[i], values[i]]).toEqual([want, x.data[want]]);
          }
        },
      ),
      numRuns(40),
    );
    const ties = make(
      build([1, 4], ([, c]) => [3, 3, 1, 1][c]),
      "f32",
      true,
    );
    h.adaptiveMaxPool1d(ties, 2).sum().backward();
    await expectTensor(ties.grad!, { shape: [1, 4], data: [1, 0, 1, 0] });
  });

  test("maxUnpool puts the maxima back", async () => {
    const x = tensor([
      [
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [9, 10, 11, 12],
      ],
    ]);
    const { values, indices } = h.maxPool2d(x, [1, 2], { returnIndices: true });
    const back = h.maxUnpool2d(values, indices, [1, 2]);
    expect(await back.tolist()).toEqual([
      [
        [0, 2, 0, 4],
        [0, 6, 0, 8],
        [0, 10, 0, 12],
      ],
    ]);
    // Of overlapping windows the same maximum comes back once.
    const line = tensor([[1, 9, 2, 0]]);
    const pooled = h.maxPool1d(line, 2, { stride: 1, returnIndices: true });
    const [v, i] = [pooled.values, pooled.indices];
    expect(await h.maxUnpool1d(v, i, 2, { stride: 1 }).tolist()).toEqual([[0, 9, 2, 0]]);
    const larger = h.maxUnpool1d(v.slice(1, 0, 1), i.slice(1, 0, 1), 2, { outputSize: [3] });
    expect(await larger.tolist()).toEqual([[0, 9, 0]]);
    expect(() => h.maxUnpool1d(v, i, 2, { outputSize: [12] })).toThrow(ArgumentError);
    expect(() => h.maxUnpool1d(v, i.slice(1, 1), 2)).toThrow(ShapeError);
    const wrong = h.maxUnpool1d(v, i.add(50), 2).data();
    await expect(wrong).rejects.toThrow(IndexOutOfRangeError);
    const volume = h.maxPool3d(h.ones([1, 2, 4, 4]), 2, { returnIndices: true });
    expect(h.maxUnpool3d(volume.values, volume.indices, 2).shape).toEqual([1, 2, 4, 4]);
  });

  test("gradients", async () => {
    // No two elements are close to each other.
    const x = build([1, 5, 6], ([, r, c]) => ((7 * (6 * r + c)) % 30) / 20);
    const options = { stride: 1, returnIndices: true } as const;
    await expectGradients(
      (t) => {
        const { values, indices } = h.maxPool2d(t.sin(), 2, { returnIndices: true });
        return h.maxUnpool2d(values.square(), indices, 2);
      },
      [x],
    );
    // PyTorch's rule: each pooled value gets the gradient of the place it went to.
    const t = make(
      build([1, 3], ([, c]) => [1, 9, 2][c]),
      "f32",
      true,
    );
    const { values, indices } = h.maxPool1d(t, 2, options);
    h.maxUnpool1d(values, indices, 2, { stride: 1 })
      .mul(tensor([1, 10, 100]))
      .sum()
      .backward();
    await expectTensor(t.grad!, { shape: [1, 3], data: [0, 20, 0] });
  });
});
