/**
 * @file Margin losses against their formulas in plain JavaScript, ctcLoss against the sum over all
 * alignments.
 */
import * as h from "hinode";
import { type Tensor, tensor } from "hinode";
import { expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";
import { build, expectGradients, expectTensor, make, type Plain } from "./support.ts";

const close = { rtol: 1e-5, atol: 1e-5 };
const scores = build([3, 4], ([i, j]) => Math.sin(1 + 2 * i * i + 3 * j));
const at = (i: number, j: number): number => scores.data[4 * i + j];
const integers = (list: readonly number[], shape = [list.length]): Tensor =>
  tensor(Int32Array.from(list), { shape });
const none = { reduction: "none" } as const;
const hinge = (x: number): number => Math.max(0, x);
const list = (n: number, f: (i: number) => number): Plain => build([n], ([i]) => f(i));

onEachDevice("margin losses", () => {
  test("of pairs", async () => {
    const signs = build([3, 4], ([i, j]) => ((i + j) % 2 ? 1 : -1));
    const pair = (f: (x: number, y: number) => number): Plain => ({
      shape: [3, 4],
      data: scores.data.map((x, k) => f(x, signs.data[k])),
    });
    const [x, y] = [make(scores), make(signs)];
    await expectTensor(
      h.hingeEmbeddingLoss(x, y, { margin: 0.5, ...none }),
      pair((a, s) => (s > 0 ? a : hinge(0.5 - a))),
      close,
    );
    await expectTensor(
      h.softMarginLoss(x, y, none),
      pair((a, s) => Math.log1p(Math.exp(-a * s))),
      close,
    );
    await expectTensor(h.softMarginLoss(tensor([-90]), tensor([1])), { shape: [], data: [90] });
  });

  test("of several classes", async () => {
    const x = make(scores);
    const y = [3, 0, 2];
    const factors = [0.5, 1, 2, 3];
    const multi = (p: number) =>
      list(
        3,
        (i) =>
          (factors[y[i]] *
            [0, 1, 2, 3].reduce(
              (s, j) => s + (j === y[i] ? 0 : hinge(0.8 - at(i, y[i]) + at(i, j)) ** p),
              0,
            )) /
          4,
      );
    for (const p of [1, 2] as const)
      await expectTensor(
        h.multiMarginLoss(x, integers(y), { p, margin: 0.8, weight: tensor(factors), ...none }),
        multi(p),
        close,
      );

    // PyTorch's documentation has this example: 0.25·((1 - (0.1 - 0.2)) + (1 - (0.1 - 0.4)) + …) =
    // 0.85.
    const labels = integers([3, 0, -1, 1]);
    await expectTensor(
      h.multilabelMarginLoss(tensor([0.1, 0.2, 0.4, 0.8]), labels),
      { shape: [], data: [0.85] },
      close,
    );
    await expectGradients(
      (t) => h.multilabelMarginLoss(t, integers([3, 0, -1, 1, 2, -1, 0, 0, -1, 0, 1, 2], [3, 4])),
      [scores],
    );

    const truth = build([3, 4], ([i, j]) => (i + j) % 2);
    const sigmoid = (v: number): number => 1 / (1 + Math.exp(-v));
    const soft = list(
      3,
      (i) =>
        [0, 1, 2, 3].reduce(
          (s, j) => s - factors[j] * Math.log(sigmoid((i + j) % 2 ? at(i, j) : -at(i, j))),
          0,
        ) / 4,
    );
    await expectTensor(
      h.multilabelSoftMarginLoss(x, make(truth), { weight: tensor(factors), ...none }),
      soft,
      close,
    );
  });

  test("of triplets with a distance of one's own", async () => {
    const [a, b, c] = [0, 1, 2].map((k) => make(scores).roll(k, 0));
    const distanceFunction = (x: Tensor, y: Tensor) => x.sub(y).abs().sum(1);
    const taxi = (i: number, k: number, l: number): number =>
      [0, 1, 2, 3].reduce(
        (s, j) => s + Math.abs(at((i - k + 3) % 3, j) - at((i - l + 3) % 3, j)),
        0,
      );
    const want = list(3, (i) =>
      hinge(taxi(i, 0, 1) - Math.min(taxi(i, 0, 2), taxi(i, 1, 2)) + 0.5),
    );
    await expectTensor(
      h.tripletMarginWithDistanceLoss(a, b, c, {
        distanceFunction,
        margin: 0.5,
        swap: true,
        ...none,
      }),
      want,
      close,
    );
  });
});

/** -log of the sum over all paths of `time` steps that read as these labels. */
function negativeLogLikelihood(logits: Plain, n: number, labels: number[], time: number): number {
  const [, batch, classes] = logits.shape;
  let total = 0;
  for (let code = 0; code < classes ** time; code++) {
    const path = Array.from({ length: time }, (_, t) => Math.floor(code / classes ** t) % classes);
    const read = path.filter((k, t) => k !== 0 && k !== path[t - 1]);
    if (read.join() !== labels.join()) continue;
    total += Math.exp(path.reduce((s, k, t) => s + logits.data[(t * batch + n) * classes + k], 0));
  }
  return -Math.log(total);
}

onEachDevice("ctcLoss", (device) => {
  const raw = build([4, 3, 3], ([t, n, k]) => Math.sin(1 + 3 * t + n * n + 2 * k * k));
  const targets = [[1, 2], [1, 1], [2, 0]]; // biome-ignore format: rows
  const [times, sizes] = [[4, 3, 4], [2, 2, 1]]; // biome-ignore format: rows

  test("is the sum over all alignments", async () => {
    const logProbs = make(raw).logSoftmax(2);
    const plain = { shape: raw.shape, data: [...(await logProbs.data())] };
    const want = list(3, (n) =>
      negativeLogLikelihood(plain, n, targets[n].slice(0, sizes[n]), times[n]),
    );
    await expectTensor(
      h.ctcLoss(logProbs, integers(targets.flat(), [3, 2]), times, sizes, none),
      want,
      close,
    );
    if (device === "webgpu") return;
    // One after the other, and as a mean over labels and batch.
    const joined = integers([1, 2, 1, 1, 2]);
    const mean = { shape: [], data: [want.data.reduce((s, l, n) => s + l / sizes[n] / 3, 0)] };
    await expectTensor(h.ctcLoss(logProbs, joined, integers(times), integers(sizes)), mean, close);
    await expectTensor(h.ctcLoss(logProbs, joined, times, sizes), mean, close);
  });

  test("what does not fit into the time is infinite, or 0, without a gradient", async () => {
    const loss = (x: Tensor, zeroInfinity: boolean) =>
      h.ctcLoss(x.logSoftmax(1), integers([1, 1]), 2, 2, { zeroInfinity });
    const x = make(build([4, 3], ([t, k]) => t - k));
    expect(await loss(x, false).item()).toBe(Infinity);
    if (device === "webgpu") return;
    expect(await loss(x, true).item()).toBe(0);
    expect(
      await h
        .grad((v: Tensor) => loss(v, false))(x)
        .abs()
        .sum()
        .item(),
    ).toBe(0);
    const certain = await h.ctcLoss(h.zeros([2, 3]), integers([]), 2, 0).item();
    expect(Math.abs(certain as number)).toBe(0);
  });

  test.skipIf(device === "webgpu")("gradients", async () => {
    const loss = (x: Tensor) =>
      h.ctcLoss(x.logSoftmax(2), integers(targets.flat(), [3, 2]), times, sizes);
    await expectGradients(loss, [raw]);
  });
});
