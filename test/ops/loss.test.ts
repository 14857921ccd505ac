import fc from "fast-check";
import * as h from "hinode";
import { ShapeError, type Tensor, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import { expectGradients, expectTensor, filled, make, type Plain, values } from "./support.ts";

const total = (list: readonly number[]) => list.reduce((s, v) => s + v, 0);
const classes = (list: number[]) => tensor(list, { dtype: "i32" });

/** The definition, row by row: loss and weight of each row, ignored rows with weight 0. */
function rows(x: Plain, target: number[], ignore: number, smoothing: number, weight?: number[]) {
  const [n, c] = x.shape;
  return Array.from({ length: n }, (_, i) => {
    const row = x.data.slice(i * c, i * c + c);
    const lse = Math.log(total(row.map(Math.exp)));
    const w = (k: number) => weight?.[k] ?? 1;
    if (target[i] === ignore) return [0, 0];
    const spread = total(row.map((v, k) => w(k) * (lse - v))) / c;
    const t = target[i];
    return [(1 - smoothing) * w(t) * (lse - row[t]) + smoothing * spread, w(t)];
  });
}

const ignoring = { ignoreIndex: -100 };

onEachDevice("losses", () => {
  test("crossEntropy with class indices", async () => {
    const problem = fc
      .tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 9 }))
      .chain(([n, c]) =>
        fc.tuple(
          filled([n, c], values.f32),
          fc.array(
            fc.oneof(
              { weight: 5, arbitrary: fc.nat(c - 1) },
              { weight: 1, arbitrary: fc.constant(-100) },
            ),
            { minLength: n, maxLength: n },
          ),
          fc.constantFrom(0, 0.1),
          fc.option(filled([c], fc.double({ min: 0.25, max: 2, noNaN: true }).map(Math.fround)), {
            nil: undefined,
          }),
        ),
      );
    await fc.assert(
      fc.asyncProperty(problem, async ([x, target, labelSmoothing, w]) => {
        const want = rows(x, target, -100, labelSmoothing, w && [...w.data]);
        const options = { ignoreIndex: -100, labelSmoothing, ...(w && { weight: make(w) }) };
        const tolerance = { rtol: 1e-4, atol: 1e-5 };
        const loss = (reduction: h.Reduction) =>
          h.crossEntropy(make(x), classes(target), { ...options, reduction });
        const [losses, weights] = [0, 1].map((k) => want.map((r) => r[k]));
        await expectTensor(loss("none"), { shape: [target.length], data: losses }, tolerance);
        await expectTensor(loss("sum"), { shape: [], data: [total(losses)] }, tolerance);
        await expectTensor(
          loss("mean"),
          { shape: [], data: [total(losses) / total(weights)] },
          tolerance,
        );
      }),
      numRuns(25),
    );
  });

  const logits: Plain = { shape: [2, 3], data: [0.3, -0.7, 1.4, 2.2, -1.9, 0.9] };

  test("classes stand in axis 1, alone or with positions behind", async () => {
    const x = h.arange(12).float().reshape([2, 3, 2]).sin();
    const t = tensor(
      [
        [0, 2],
        [1, 1],
      ],
      { dtype: "i32" },
    );
    const flat = h.crossEntropy(x.permute([0, 2, 1]).reshape([4, 3]), t.flatten(), {
      reduction: "none",
    });
    await expectTensor(
      h.crossEntropy(x, t, { reduction: "none" }).flatten(),
      { shape: [4], data: [...(await flat.data())] },
      { rtol: 1e-5 },
    );
    expect(h.crossEntropy(make(logits).select(0, 0), tensor(1, { dtype: "i32" })).shape).toEqual(
      [],
    );
  });

  test("probabilities as targets", async () => {
    const p = tensor([
      [0.2, 0.5, 0.3],
      [1, 0, 0],
    ]);
    const want = h.mul(p, make(logits).logSoftmax(1)).sum().neg().div(2);
    expect(await h.crossEntropy(make(logits), p).item()).toBeCloseTo(
      (await want.item()) as number,
      5,
    );
    await expectGradients(
      (x, q) => h.crossEntropy(x, q, { labelSmoothing: 0.1 }),
      [logits, { shape: [2, 3], data: [0.2, 0.5, 0.3, 0.6, 0.3, 0.1] }],
    );
  });

  test("large logits, ignored rows, and a class out of range", async () => {
    const x = tensor([
      [1e4, 1e4 - 2, 0],
      [1, 2, 3],
    ]);
    expect(await h.crossEntropy(x, classes([1, -100]), ignoring).item()).toBeCloseTo(
      2 + Math.log1p(Math.exp(-2)),
      3,
    );
    expect(await h.crossEntropy(x, classes([-100, -100]), ignoring).item()).toBeNaN();
    const none = h.crossEntropy(x, classes([-100, -100]), { ...ignoring, reduction: "sum" });
    expect(await none.item()).toBe(0);
    // Nothing is ignored unless asked for.
    expect(await h.crossEntropy(x, classes([1, -100])).item()).toBeNaN();
    for (const bad of [3, -1, 1000]) {
      expect(await h.crossEntropy(x, classes([0, bad])).item()).toBeNaN();
      const each = (await h
        .crossEntropy(x, classes([0, bad]), { reduction: "none" })
        .tolist()) as number[];
      expect(each.map(Number.isNaN)).toEqual([false, true]);
    }
  });

  test("gradients: softmax minus target, 0 for ignored rows", async () => {
    const g = h.grad((x: Tensor) =>
      h.crossEntropy(x, classes([2, -100]), { ...ignoring, reduction: "sum" }),
    );
    const got = (await g(make(logits)).tolist()) as number[][];
    const p = (await make(logits).softmax(1).tolist()) as number[][];
    expect(got[1]).toEqual([0, 0, 0]);
    expect(got[0][2]).toBeCloseTo(p[0][2] - 1, 5);
    expect(got[0][0]).toBeCloseTo(p[0][0], 5);
    await expectGradients(
      (x) => h.crossEntropy(x, classes([2, 0]), { labelSmoothing: 0.2 }),
      [logits],
    );
    await expectGradients(
      (x, w) => h.crossEntropy(x, classes([2, 0]), { weight: w }),
      [logits, { shape: [3], data: [1, 0.5, 2] }],
    );
  });

  test("nllLoss of log-probabilities is crossEntropy of logits", async () => {
    const t = classes([2, 0]);
    const x = make(logits);
    const got = h.nllLoss(x.logSoftmax(1), t, { weight: tensor([1, 2, 3]) });
    const want = await h.crossEntropy(x, t, { weight: tensor([1, 2, 3]) }).item();
    expect(await got.item()).toBeCloseTo(want as number, 5);
    expect(await h.nllLoss(x, classes([5, 0])).item()).toBeNaN();
  });

  test("mse, l1 and binary cross-entropy", async () => {
    const [x, y] = [tensor([1, -2, 3]), tensor([0, 2, 3])];
    expect(await h.mseLoss(x, y).item()).toBeCloseTo(17 / 3, 5);
    expect(await h.l1Loss(x, y, { reduction: "sum" }).item()).toBe(5);
    const t = tensor([0, 1, 0.25]);
    const bce = (v: number, p: number) =>
      -(p * Math.log(1 / (1 + Math.exp(-v))) + (1 - p) * Math.log(1 - 1 / (1 + Math.exp(-v))));
    const want = [bce(1, 0), bce(-2, 1), bce(3, 0.25)];
    await expectTensor(
      h.binaryCrossEntropyWithLogits(x, t, { reduction: "none" }),
      { shape: [3], data: want },
      { rtol: 1e-5 },
    );
    const extreme = h.binaryCrossEntropyWithLogits(tensor([1000, -1000]), tensor([0, 1]), {
      reduction: "none",
    });
    expect(await extreme.tolist()).toEqual([1000, 1000]);
    const p = { shape: [3], data: [1, -2, 0.5] };
    await expectGradients(
      (v) =>
        h.binaryCrossEntropyWithLogits(v, t, { posWeight: tensor(2), weight: tensor([1, 2, 3]) }),
      [p],
    );
    await expectGradients((v) => h.mseLoss(v, y), [p]);
  });

  test("what is refused", () => {
    const x = make(logits);
    expect(() => h.crossEntropy(x, classes([0]))).toThrow(
      /class indices \[2\] for f32\[2, 3\], got i32\[1\]/,
    );
    expect(() => h.crossEntropy(x, tensor([0, 1]))).toThrow(ShapeError);
    expect(() => h.crossEntropy(x, classes([0, 1]), { weight: tensor([1]) })).toThrow(
      /a weight \[3\]/,
    );
    expect(() => h.crossEntropy(x, classes([0, 1]), { labelSmoothing: 2 })).toThrow(/0 … 1/);
    expect(() => h.crossEntropy(x, classes([0, 1]), { reduction: "max" as never })).toThrow(
      /'mean', 'sum' or 'none'/,
    );
    expect(() => h.mseLoss(x, tensor([1, 2]))).toThrow(/one shape/);
  });
});

onEachDevice("scaledDotProductAttention", () => {
  const random = (shape: number[], seed: number): Tensor => {
    h.manualSeed(seed);
    return h.randn(shape);
  };
  const [q, k, v] = [1, 2, 3].map((s) => () => random([2, 3, 5, 4], s));

  /** The definition, with a bool mask of the scores' shape. */
  const plain = (
    a: Tensor,
    b: Tensor,
    c: Tensor,
    mask?: Tensor,
    scale = 1 / Math.sqrt(a.shape.at(-1)!),
  ) => {
    const scores = a.matmul(b.mT).mul(scale);
    return (mask ? h.where(mask, scores, -1e30) : scores).softmax(-1).matmul(c);
  };
  const same = async (got: Tensor, want: Tensor) =>
    expectTensor(
      got,
      { shape: want.shape, data: [...(await want.data())] },
      { rtol: 1e-5, atol: 1e-6 },
    );

  test("is its definition", async () => {
    await same(h.scaledDotProductAttention(q(), k(), v()), plain(q(), k(), v()));
    await same(
      h.scaledDotProductAttention(q(), k(), v(), { scale: 0.2 }),
      plain(q(), k(), v(), undefined, 0.2),
    );
    const causal = h.ones([5, 5], { dtype: "bool" }).tril();
    await same(
      h.scaledDotProductAttention(q(), k(), v(), { isCausal: true }),
      plain(q(), k(), v(), causal),
    );
    const mask = random([5, 5], 4).gt(-0.5).logicalOr(h.eye(5).bool());
    await same(
      h.scaledDotProductAttention(q(), k(), v(), { attnMask: mask }),
      plain(q(), k(), v(), mask),
    );
    const added = h.where(mask, 0, -Infinity);
    await same(
      h.scaledDotProductAttention(q(), k(), v(), { attnMask: added }),
      plain(q(), k(), v(), mask),
    );
  });

  test("cross attention and other widths", async () => {
    const [b, c] = [random([3, 7, 4], 5), random([3, 7, 6], 6)];
    expect(h.scaledDotProductAttention(q(), b, c).shape).toEqual([2, 3, 5, 6]);
    await same(h.scaledDotProductAttention(q(), b, c), plain(q(), b, c));
    expect(
      h.scaledDotProductAttention(random([5, 4], 1), random([7, 4], 2), random([7, 4], 3), {
        isCausal: true,
      }).shape,
    ).toEqual([5, 4]);
  });

  test("a query that sees no key gives zeros with zero gradients", async () => {
    const mask = tensor([
      [true, true],
      [false, false],
    ]);
    const f = (a: Tensor, b: Tensor, c: Tensor) =>
      h.scaledDotProductAttention(a, b, c, { attnMask: mask });
    const [a, b, c] = [1, 2, 3].map((s) => random([2, 4], s));
    const out = (await f(a, b, c).tolist()) as number[][];
    expect(out[1]).toEqual([0, 0, 0, 0]);
    const grads = h.grad((x: Tensor, y: Tensor, z: Tensor) => f(x, y, z).square().sum(), {
      argnums: [0, 1, 2],
    })(a, b, c);
    for (const g of grads) for (const x of await g.data()) expect(Number.isFinite(x)).toBe(true);
    expect(((await grads[0].tolist()) as number[][])[1]).toEqual([0, 0, 0, 0]);
  });

  test("grouped queries repeat the key heads", async () => {
    const [a, b, c] = [random([2, 6, 3, 4], 1), random([2, 2, 5, 4], 2), random([2, 2, 5, 4], 3)];
    const wide = (t: Tensor) => t.repeatInterleave(3, 1);
    await same(
      h.scaledDotProductAttention(a, b, c, { enableGqa: true }),
      plain(a, wide(b), wide(c)),
    );
    const mask = random([2, 6, 3, 5], 4).gt(-1);
    await same(
      h.scaledDotProductAttention(a, b, c, { enableGqa: true, attnMask: mask }),
      h.scaledDotProductAttention(a, wide(b), wide(c), { attnMask: mask }),
    );
    expect(() =>
      h.scaledDotProductAttention(a, random([2, 4, 5, 4], 2), c, { enableGqa: true }),
    ).toThrow(ShapeError);
  });

  test("dropout draws from the generator", async () => {
    const f = () => {
      h.manualSeed(9);
      const [a, b, c] = [q(), k(), v()];
      h.manualSeed(9);
      return h.scaledDotProductAttention(a, b, c, { dropoutP: 0.5 }).tolist();
    };
    expect(await f()).toEqual(await f());
    expect(await f()).not.toEqual(await plain(q(), k(), v()).tolist());
  });

  describe("what is refused", () => {
    test("shapes and masks that do not fit", () => {
      expect(() => h.scaledDotProductAttention(q(), random([2, 3, 5, 3], 1), v())).toThrow(
        ShapeError,
      );
      expect(() =>
        h.scaledDotProductAttention(q(), k(), v(), {
          isCausal: true,
          attnMask: h.ones([5, 5]).bool(),
        }),
      ).toThrow(/attnMask or isCausal/);
    });
  });

  test("gradients", async () => {
    const p = (shape: number[], seed: number): Plain => ({
      shape,
      data: Array.from({ length: 6 }, (_, i) => Math.sin(seed + 2.3 * i)),
    });
    await expectGradients(
      (a, b, c) => h.scaledDotProductAttention(a, b, c, { isCausal: true }),
      [p([3, 2], 1), p([3, 2], 2), p([3, 2], 3)],
    );
  });
});
