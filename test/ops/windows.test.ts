import fc from "fast-check";
import * as h from "hinode";
import { tensor } from "hinode";
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
  type Plain,
  runs,
  values,
} from "./support.ts";

const line = fc.tuple(fc.integer({ min: 2, max: 6 }), fc.nat(3), fc.nat(3));
const continued: Record<h.PadMode, (i: number, size: number) => number> = {
  reflect: (i, n) => (i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i),
  replicate: (i, n) => Math.min(Math.max(i, 0), n - 1),
  circular: (i, n) => (i + n) % n,
};

onEachDevice("windows and padding", () => {
  test.for(Object.entries(continued))("pad: %s", async ([mode, from]) => {
    await fc.assert(
      fc.asyncProperty(line, line, async ([h0, a, b], [w, c, d]) => {
        const cut = (v: number, size: number) => Math.min(v, size - 1);
        const [top, bottom, left, right] = [cut(a, h0), cut(b, h0), cut(c, w), cut(d, w)];
        const x = build([2, h0, w], ([n, i, j]) => 100 * n + 10 * i + j);
        const want = build([2, h0 + top + bottom, w + left + right], ([n, i, j]) =>
          at(x, [n, from(i - top, h0), from(j - left, w)]),
        );
        await expectTensor(make(x).pad([left, right, top, bottom], mode as h.PadMode), want);
      }),
      runs,
    );
    const far = () => h.ones([2]).pad([4, 0], mode as h.PadMode);
    if (mode === "replicate") expect(far().shape).toEqual([6]);
    else expect(far).toThrow(/at most/);
  });

  test("unfold takes windows, fold2d is the transpose of unfold2d", async () => {
    const pair = fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 }));
    await fc.assert(
      fc.asyncProperty(
        pair,
        pair,
        fc.tuple(fc.nat(1), fc.nat(1)),
        pair,
        async (kernelSize, stride, padding, dilation) => {
          const options = { stride, padding, dilation };
          const [x, size] = [h.randn([2, 2, 8, 9]), [8, 9] as const];
          const columns = h.unfold2d(x, kernelSize, options);
          const y = h.randn(columns.shape);
          // ⟨unfold x, y⟩ = ⟨x, fold y⟩
          const left = Number(await columns.mul(y).sum().item());
          const right = Number(
            await x
              .mul(h.fold2d(y, size, kernelSize, options))
              .sum()
              .item(),
          );
          expect(right).toBeCloseTo(left, 3);
        },
      ),
      numRuns(15),
    );
    const x = build([7, 2], ([i, j]) => 10 * i + j);
    await expectTensor(
      make(x).unfold(0, 3, 2),
      build([3, 2, 3], ([w, j, k]) => 10 * (2 * w + k) + j),
    );
    expect(() => h.ones([2]).unfold(0, 3, 1)).toThrow(/windows within axis 0/);
    expect(h.unfold2d(h.ones([3, 4, 4]), 2).shape).toEqual([12, 9]);
  });

  test("pixelShuffle and pixelUnshuffle undo each other", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 3 }),
        async (r, c) => {
          const x = build([2, c * r * r, 2, 3], (i) => i.reduce((s, v) => 20 * s + v, 0));
          const big = make(x).pixelShuffle(r);
          await expectTensor(
            big,
            build([2, c, 2 * r, 3 * r], ([n, k, i, j]) =>
              at(x, [n, (k * r + (i % r)) * r + (j % r), Math.floor(i / r), Math.floor(j / r)]),
            ),
          );
          await expectTensor(big.pixelUnshuffle(r), x);
        },
      ),
      runs,
    );
  });

  test("rot90, diff, tensorSplit", async () => {
    const x = build([2, 3], ([i, j]) => 3 * i + j);
    await expectTensor(
      make(x).rot90(),
      build([3, 2], ([i, j]) => at(x, [j, 2 - i])),
    );
    await expectTensor(
      make(x).rot90(-1),
      build([3, 2], ([i, j]) => at(x, [1 - j, i])),
    );
    await expectTensor(
      make(x).rot90(2, [1, 0]),
      build([2, 3], ([i, j]) => at(x, [1 - i, 2 - j])),
    );
    expect(await tensor([1, 4, 9, 16]).diff({ n: 2 }).tolist()).toEqual([2, 2]);
    expect(await tensor([true, false, false]).diff().tolist()).toEqual([true, false]);
    expect(
      h
        .arange(7)
        .tensorSplit(3)
        .map((t) => t.shape[0]),
    ).toEqual([3, 2, 2]);
    expect(
      h
        .arange(7)
        .tensorSplit([2, 5, 9])
        .map((t) => t.shape[0]),
    ).toEqual([2, 3, 2, 0]);
  });

  test("gradients", async () => {
    const x = build([1, 2, 3, 4], (i) => Math.sin(i.reduce((s, v) => 5 * s + v, 1)));
    await expectGradients((t) => t.pad([1, 2, 2, 1], "reflect").square(), [x]);
    await expectGradients((t) => t.pad([1, 2], "circular").square(), [x]);
    await expectGradients((t) => h.unfold2d(t, 2, { padding: 1, stride: 2 }).square(), [x]);
    await expectGradients((t) => h.fold2d(t.reshape([1, 8, 3]), [4, 2], 2).square(), [x]);
  });
});

onEachDevice("diagonals, grids and products", () => {
  test("diagEmbed puts the last axis on a diagonal", async () => {
    await fc.assert(
      fc.asyncProperty(
        arrays(
          values.f32,
          fullShapes.filter((s) => s.length > 0),
        ),
        fc.integer({ min: -3, max: 3 }),
        async (a, offset) => {
          const n = a.shape.at(-1)! + Math.abs(offset);
          const want = build([...a.shape.slice(0, -1), n, n], (i) => {
            const [row, column] = i.slice(-2);
            return column - row === offset ? at(a, [...i.slice(0, -2), Math.min(row, column)]) : 0;
          });
          await expectTensor(h.diagEmbed(make(a), offset), want);
        },
      ),
      numRuns(40),
    );
    expect(await h.diag(tensor([1, 2])).tolist()).toEqual([[1, 0], [0, 2]]); // biome-ignore format: rows
    expect(await tensor([[1, 2], [3, 4]]).trace().item()).toBe(5); // biome-ignore format: rows
    expect(h.diagEmbed(h.ones([4, 2, 3]), 0, 0, 2).shape).toEqual([3, 4, 3, 2]);
  });

  test("cdist: near the definition by both ways", async () => {
    const definition = (a: Plain, b: Plain, p: number) =>
      build([a.shape[0], b.shape[0]], ([i, j]) => {
        const d = Array.from({ length: a.shape[1] }, (_, k) =>
          Math.abs(at(a, [i, k]) - at(b, [j, k])),
        );
        return p === Infinity ? Math.max(...d) : d.reduce((s, v) => s + v ** p, 0) ** (1 / p);
      });
    const sizes = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.constantFrom(3, 30));
    await fc.assert(
      fc.asyncProperty(
        sizes.chain(([n, m]) => fc.tuple(filled([n, 4], values.f32), filled([m, 4], values.f32))),
        fc.constantFrom(1, 2, 3, Infinity),
        async ([a, b], p) => {
          await expectTensor(h.cdist(make(a), make(b), p), definition(a, b, p), {
            rtol: 1e-3,
            atol: 5e-3,
          });
        },
      ),
      numRuns(20),
    );
    const x = build([4, 3], ([i, j]) => i * j + i);
    await expectTensor(
      h.pdist(make(x)),
      build([6], ([k]) => [1, 2, 3, 1, 2, 1][k] * Math.sqrt(14)),
      { rtol: 1e-6 },
    );
  });

  test("the added products", async () => {
    const [x, a, b] = [h.randn([3]), h.randn([4, 2, 5]), h.randn([4, 5, 3])];
    const near = async (got: h.Tensor, want: h.Tensor) =>
      expectTensor(
        got,
        { shape: want.shape, data: [...(await want.data())] },
        { rtol: 1e-5, atol: 1e-5 },
      );
    await near(h.baddbmm(x, a, b, { beta: 2, alpha: 3 }), x.mul(2).add(a.matmul(b).mul(3)));
    await near(h.addbmm(x, a, b), x.add(a.matmul(b).sum(0)));
    await near(
      h.addmm(x, a.select(0, 1), b.select(0, 1), { beta: 0 }),
      a.select(0, 1).matmul(b.select(0, 1)),
    );
    await near(
      h.multiDot([a.select(0, 0), b.select(0, 0), h.ones([3])]),
      a.select(0, 0).matmul(b.select(0, 0)).sum(1),
    );
    const m = h.randn([3, 3]);
    await near(h.matrixPower(m, 5), m.matmul(m).matmul(m).matmul(m).matmul(m));
    await near(h.matrixPower(m, 0), h.eye(3));
    await near(h.cross(tensor([1, 0, 0]), tensor([0, 1, 0])), tensor([0, 0, 1]));
    await near(h.matrixNorm(tensor([[1, -2], [3, 4]]), 1), tensor(6)); // biome-ignore format: rows
    await near(h.matrixNorm(tensor([[1, -2], [3, 4]]), -Infinity, [0, 1], true), tensor([[3]])); // biome-ignore format: rows
    expect(() => h.addmm(x, a, b)).toThrow(/a 2-d and a 2-d/);
  });

  test("grids", async () => {
    const [i, j] = h.meshgrid([tensor([1, 2]), tensor([3, 4, 5])], "xy");
    expect(i.shape).toEqual([3, 2]);
    expect(await j.tolist()).toEqual([[3, 3], [4, 4], [5, 5]]); // biome-ignore format: rows
    expect(await h.cartesianProd(tensor([1, 2]), tensor([3, 4])).tolist()).toEqual([[1, 3], [1, 4], [2, 3], [2, 4]]); // biome-ignore format: rows
    expect(await h.blockDiag(tensor([[1]]), tensor([2, 3])).tolist()).toEqual([[1, 0, 0], [0, 2, 3]]); // biome-ignore format: rows
    expect(await h.triuIndices(2, 3, 1).tolist()).toEqual([[0, 0, 1], [1, 2, 2]]); // biome-ignore format: rows
    expect(await h.trilIndices(2, 3, -1).tolist()).toEqual([[1], [0]]);
    expect(await h.logspace(0, 3, 4, { base: 2 }).tolist()).toEqual([1, 2, 4, 8]);
    expect(await h.vander(tensor([1, 2, 3]), 3, true).tolist()).toEqual([[1, 1, 1], [1, 2, 4], [1, 3, 9]]); // biome-ignore format: rows
    expect([h.atleast1d(tensor(1)), h.atleast2d(tensor([1])), h.atleast3d(h.ones([2, 3]))].map((t) => t.shape)).toEqual([[1], [1, 1], [2, 3, 1]]); // biome-ignore format: rows
  });
});
