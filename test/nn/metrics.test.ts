/** @file Metrics over batches, eager and compiled, against counting in plain JavaScript. */
import {
  compile,
  defaultDevice,
  manualSeed,
  randint,
  randn,
  setDefaultDevice,
  type Tensor,
  tensor,
} from "hinode";
import { metrics } from "hinode/nn";
import { describe, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

const BATCHES = 3;
const CLASSES = 5;

/** Scores and targets of some batches, as tensors and as rows; every fourth target is −100. */
async function batches() {
  manualSeed(11);
  const all: { scores: Tensor; target: Tensor; rows: { scores: number[]; target: number }[] }[] =
    [];
  for (let b = 0; b < BATCHES; b++) {
    const scores = randn([8, CLASSES]);
    const drawn = await randint(0, CLASSES, [8]).data();
    const labels = Int32Array.from(drawn, (x, i) => (i % 4 === 3 ? -100 : Number(x)));
    const flat = await scores.data();
    const rows = [...labels].map((target, i) => ({
      target,
      scores: [...flat.slice(i * CLASSES, (i + 1) * CLASSES)].map(Number),
    }));
    all.push({ scores, target: tensor(labels), rows });
  }
  return all;
}

const best = (scores: number[]): number => scores.indexOf(Math.max(...scores));
const logSumExp = (scores: number[]): number =>
  Math.log(scores.map(Math.exp).reduce((a, b) => a + b));

onEachDevice("metrics", () => {
  test.each(["eager", "compiled"])("of classes, %s", async (mode) => {
    const all = await batches();
    const ignoreIndex = -100;
    const top1 = new metrics.Accuracy({ ignoreIndex });
    const top3 = new metrics.Accuracy({ topK: 3, ignoreIndex });
    const perplexity = new metrics.Perplexity();
    const confusion = new metrics.ConfusionMatrix({ classes: CLASSES, ignoreIndex });
    const report = new metrics.PrecisionRecallF1({ classes: CLASSES, ignoreIndex });
    const every = [top1, top3, perplexity, confusion, report];
    const update = (scores: Tensor, target: Tensor) => {
      for (const metric of every) metric.update(scores, target);
    };
    const run = mode === "compiled" ? compile(update) : update;
    for (let pass = 0; pass < 2; pass++) {
      // What the first pass has counted is forgotten.
      for (const metric of every) metric.reset();
      for (const { scores, target } of all) run(scores, target);
    }

    const rows = all.flatMap((b) => b.rows).filter((r) => r.target !== ignoreIndex);
    const share = (holds: (r: (typeof rows)[0]) => boolean) =>
      rows.filter(holds).length / rows.length;
    expect(await top1.result()).toBe(share((r) => best(r.scores) === r.target));
    const rank = (r: (typeof rows)[0]) => r.scores.filter((s) => s > r.scores[r.target]).length;
    expect(await top3.result()).toBe(share((r) => rank(r) < 3));
    const losses = rows.map((r) => logSumExp(r.scores) - r.scores[r.target]);
    const mean = losses.reduce((a, b) => a + b) / rows.length;
    expect(await perplexity.result()).toBeCloseTo(Math.exp(mean), 4);
    const matrix = Array.from({ length: CLASSES }, () => Array<number>(CLASSES).fill(0));
    for (const r of rows) matrix[r.target][best(r.scores)]++;
    expect(await confusion.result()).toEqual(matrix);

    const got = await report.result();
    const classes = matrix.map((row, k) => {
      const predicted = matrix.reduce((sum, other) => sum + other[k], 0);
      const support = row.reduce((a, b) => a + b);
      const [precision, recall] = [row[k] / (predicted || 1), row[k] / (support || 1)];
      const f1 = row[k] === 0 ? 0 : (2 * precision * recall) / (precision + recall);
      return { precision, recall, f1, support };
    });
    for (const [k, want] of classes.entries()) {
      expect(got.classes[k].support).toBe(want.support);
      expect(got.classes[k].f1).toBeCloseTo(want.f1, 12);
      expect(got.classes[k].precision).toBeCloseTo(want.precision, 12);
      expect(got.classes[k].recall).toBeCloseTo(want.recall, 12);
    }
    expect(got.f1).toBeCloseTo(classes.reduce((sum, c) => sum + c.f1, 0) / CLASSES, 12);
  });

  test("ties go to the first class, and a NaN is never found", async () => {
    const accuracy = async (scores: number[][], target: number[], topK = 1) => {
      const metric = new metrics.Accuracy({ topK });
      metric.update(tensor(scores), tensor(Int32Array.from(target)));
      return metric.result();
    };
    expect(await accuracy([[1, 1, 0]], [0])).toBe(1);
    expect(await accuracy([[1, 1, 0]], [1])).toBe(0);
    expect(await accuracy([[1, 1, 0]], [1], 2)).toBe(1);
    expect(await accuracy([[Number.NaN, 1, 0]], [0], 2)).toBe(0);
    expect(await accuracy([[Number.NaN, 1, 0]], [1])).toBe(0);
    expect(await accuracy([[-Infinity, 1, Infinity]], [2])).toBe(1);
  });

  test("means: weighted, without the loss of digits of a plain sum, and moving", async () => {
    const mean = new metrics.Mean();
    mean.update(tensor([1, 2, 3]));
    mean.update(tensor(10), 7);
    expect(await mean.result()).toBeCloseTo((1 + 2 + 3 + 70) / 10, 6);
    // 2²⁴ + 1 is no f32: a plain sum would stay at 2²⁴.
    const long = new metrics.Mean();
    long.update(tensor(2 ** 24));
    for (let i = 0; i < 8; i++) long.update(tensor(1));
    expect(await long.result()).toBe(Math.fround(2 ** 24 + 8) / 9);
    const moving = new metrics.MovingAverage({ decay: 0.5 });
    for (const x of [4, 2]) moving.update(tensor(x));
    expect(await moving.result()).toBeCloseTo((0.25 * 4 + 0.5 * 2) / 0.75, 6);
    expect(await new metrics.Mean().result()).toBeNaN();
  });

  test("labels instead of scores; classes out of range are told when the result is read", async () => {
    const labels = (list: number[]) => tensor(Int32Array.from(list));
    const matrix = new metrics.ConfusionMatrix({ classes: 2 });
    matrix.update(labels([0, 1, 1]), labels([0, 0, 1]));
    expect(await matrix.result()).toEqual([[1, 1], [0, 1]]); // biome-ignore format: a matrix
    matrix.update(labels([0, 2]), labels([-1, 1]));
    await expect(matrix.result()).rejects.toThrow(/classes from 0 to 1, got 2 pairs/);
    const accuracy = new metrics.Accuracy();
    accuracy.update(tensor([[1, 2]]), labels([2]));
    await expect(accuracy.result()).rejects.toThrow(/targets from 0 to C − 1, got 1 others/);
    const micro = new metrics.PrecisionRecallF1({ classes: 2, average: "micro" });
    micro.update(labels([0, 1, 1]), labels([0, 0, 1]));
    expect((await micro.result()).f1).toBeCloseTo(2 / 3, 12);
    const weighted = new metrics.PrecisionRecallF1({ classes: 2, average: "weighted" });
    weighted.update(labels([0, 1, 1]), labels([0, 0, 1]));
    expect((await weighted.result()).precision).toBeCloseTo((2 * 1 + 1 * 0.5) / 3, 12);
  });
});

describe("mistakes", () => {
  test("are named", () => {
    const labels = tensor(new Int32Array(2));
    expect(() => new metrics.Accuracy({ topK: 0 })).toThrow(/topK ≥ 1/);
    expect(() => new metrics.Accuracy().update(tensor([[1, 2]]), labels)).toThrow(
      /scores \[\.\.\., C\]/,
    );
    expect(() => new metrics.MovingAverage({ decay: 1 })).toThrow(/decay < 1/);
    expect(() => new metrics.ConfusionMatrix({ classes: 3 }).update(tensor([[1, 2], [3, 4]]), labels)).toThrow(
      /scores of 3 classes, got 2/,
    ); // biome-ignore format: short
  });
});

test("on a device that is not the default one", async () => {
  const { name } = defaultDevice();
  setDefaultDevice("reference");
  try {
    const device = "wasm";
    const accuracy = new metrics.Accuracy({ topK: 2, device });
    const scores = tensor([[3, 2, 1], [3, 2, 1]], { device }); // biome-ignore format: one line
    accuracy.update(scores, tensor(new Int32Array([1, 2]), { device }));
    expect(await accuracy.result()).toBe(0.5);
  } finally {
    setDefaultDevice(name);
  }
});
