/**
 * @file embeddingBag: bags as rows and by offsets against embedding and a reduction, bag by bag.
 */
import fc from "fast-check";
import * as h from "hinode";
import { embeddingBag, type Tensor, tensor } from "hinode";
import { expect, test } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import { build, expectGradients, expectTensor, make } from "./support.ts";

const weight = build([5, 3], ([i, j]) => Math.sin(3 * i + 1.7 * j * j + 1));
const row = (i: number): number[] => weight.data.slice(3 * i, 3 * i + 3);
const integers = (list: readonly number[], shape = [list.length]): Tensor =>
  tensor(Int32Array.from(list), { shape });
const modes = ["sum", "mean", "max"] as const;

const combined = (bag: readonly number[], mode: (typeof modes)[number]): number[] =>
  [0, 1, 2].map((d) => {
    const column = bag.map((i) => row(i)[d]);
    if (column.length === 0) return 0;
    if (mode === "max") return Math.max(...column);
    return column.reduce((a, b) => a + b, 0) / (mode === "mean" ? column.length : 1);
  });

onEachDevice("embeddingBag", (device) => {
  test("bags of any length, one after the other", async () => {
    const bags = fc.array(fc.array(fc.nat(4), { maxLength: 4 }), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(bags, fc.constantFrom(...modes), fc.boolean(), async (all, mode, last) => {
        const starts = all.map((_, i) => all.slice(0, i).flat().length);
        const offsets = integers(last ? [...starts, all.flat().length] : starts);
        const options = { mode, offsets, includeLastOffset: last, paddingIdx: 2 };
        const want = all.flatMap((bag) =>
          combined(
            bag.filter((i) => i !== 2),
            mode,
          ),
        );
        await expectTensor(
          embeddingBag(integers(all.flat()), make(weight), options),
          { shape: [all.length, 3], data: want },
          { atol: 1e-6 },
        );
      }),
      numRuns(15),
    );
  });

  test("rows as bags, with weights and padding, and their gradients", async () => {
    const input = integers([0, 1, 1, 3, 4, 2], [2, 3]);
    for (const mode of device === "webgpu" ? (["max"] as const) : modes) {
      const bag = (w: Tensor) => embeddingBag(input, w, { mode, paddingIdx: -1 });
      const want = [...combined([0, 1, 1], mode), ...combined([3, 2], mode)];
      await expectTensor(bag(make(weight)), { shape: [2, 3], data: want }, { atol: 1e-6 });
      const slope = h.grad((w: Tensor) => bag(w).sum())(make(weight));
      expect(await slope.select(0, 4).abs().sum().item()).toBe(0);
    }
    const per = build([2, 3], ([i, j]) => i + 0.5 * j - 0.7);
    const weighted = (w: Tensor, s: Tensor) =>
      embeddingBag(input, w, { mode: "sum", perSampleWeights: s });
    const first = [0, 1, 2].map((d) =>
      [0, 1, 1].reduce((s, i, k) => s + row(i)[d] * per.data[k], 0),
    );
    await expectTensor(
      weighted(make(weight), make(per)).select(0, 0),
      { shape: [3], data: first },
      { atol: 1e-6 },
    );
    if (device !== "webgpu") await expectGradients(weighted, [weight, per]);
  });

  test("arguments that do not fit are refused", () => {
    const w = make(weight);
    expect(() => embeddingBag(integers([0, 1]), w)).toThrow(/offsets/);
    expect(() =>
      embeddingBag(integers([0, 1], [1, 2]), w, { perSampleWeights: h.ones([1, 2]) }),
    ).toThrow(/mode 'sum'/);
  });
});
