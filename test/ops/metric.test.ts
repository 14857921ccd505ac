import fc from "fast-check";
import * as h from "hinode";
import { type Tensor, tensor } from "hinode";
import { expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";
import {
  broadcasting,
  build,
  expectGradients,
  expectTensor,
  make,
  map2,
  runs,
  values,
} from "./support.ts";

const near = async (got: Tensor, want: Tensor, tolerance = 1e-5) =>
  expectTensor(
    got,
    { shape: want.shape, data: [...(await want.data())] },
    { rtol: tolerance, atol: tolerance },
  );

onEachDevice("losses of pairs", () => {
  test("smoothL1Loss and huberLoss meet their pieces", async () => {
    await fc.assert(
      fc.asyncProperty(broadcasting(values.f32), async ([a, b]) => {
        const smooth = map2(a, b, (x, y) =>
          Math.abs(x - y) < 2 ? (x - y) ** 2 / 4 : Math.abs(x - y) - 1,
        );
        await expectTensor(
          h.smoothL1Loss(make(a), make(b), { beta: 2, reduction: "none" }),
          smooth,
          { rtol: 1e-5, atol: 1e-5 },
        );
        const huber = map2(a, b, (x, y) =>
          Math.abs(x - y) <= 2 ? (x - y) ** 2 / 2 : 2 * (Math.abs(x - y) - 1),
        );
        await expectTensor(h.huberLoss(make(a), make(b), { delta: 2, reduction: "none" }), huber, {
          rtol: 1e-5,
          atol: 1e-5,
        });
      }),
      runs,
    );
  });

  test("binaryCrossEntropy agrees with its form for logits, and is finite at 0 and 1", async () => {
    const [x, t] = [h.randn([3, 4]), h.rand([3, 4])];
    await near(h.binaryCrossEntropy(x.sigmoid(), t), h.binaryCrossEntropyWithLogits(x, t));
    const ends = tensor([0, 1, 0, 1]);
    const loss = h.binaryCrossEntropy(ends, tensor([0, 1, 1, 0]), { reduction: "none" });
    await near(loss, tensor([0, 0, 100, 100]));
    expect(() => h.binaryCrossEntropy(ends, h.ones([1]))).toThrow(/expand it/);
  });

  test("klDiv of a distribution from itself is 0", async () => {
    const p = h.randn([4, 5]).softmax(1);
    await near(h.klDiv(p.log(), p, { reduction: "batchmean" }), tensor(0), 1e-6);
    await near(h.klDiv(p.log(), p.log(), { logTarget: true }), tensor(0), 1e-6);
    expect(await h.klDiv(tensor([-1, -2]), tensor([0, 0]), { reduction: "none" }).tolist()).toEqual(
      [0, 0],
    );
  });

  test("the likelihoods", async () => {
    const [x, t] = [tensor([1, 2]), tensor([3, 0])];
    await near(h.poissonNllLoss(x, t, { logInput: false, eps: 0 }), tensor((1 + 2) / 2));
    const stirling = 3 * Math.log(3) - 3 + 0.5 * Math.log(6 * Math.PI);
    await near(
      h.poissonNllLoss(x, t, { logInput: false, eps: 0, full: true }),
      tensor((3 + stirling) / 2),
    );
    const v = tensor([0.5, 2]);
    const want = [Math.log(0.5) + 4 / 0.5, Math.log(2) + 4 / 2].map(
      (d) => d / 2 + Math.log(2 * Math.PI) / 2,
    );
    await near(h.gaussianNllLoss(x, t, v, { full: true, reduction: "none" }), tensor(want));
  });

  test("similarities and margins", async () => {
    const [a, b, c] = [h.randn([3, 4]), h.randn([3, 4]), h.randn([3, 4])];
    await near(h.cosineSimilarity(a, a.mul(3)), h.ones([3]));
    await near(h.cosineSimilarity(a, h.zeros([4])), h.zeros([3]));
    await near(h.pairwiseDistance(a, b, 2, 0), a.sub(b).norm(2, 1));
    const [near1, far] = [h.pairwiseDistance(a, b), h.pairwiseDistance(a, c)];
    await near(h.tripletMarginLoss(a, b, c), near1.sub(far).add(1).relu().mean());
    const signs = tensor([1, -1, 1]);
    const cosine = h.cosineSimilarity(a, b);
    const want = h.where(signs.eq(1), cosine.rsub(1), cosine.sub(0.1).relu()).mean();
    await near(h.cosineEmbeddingLoss(a, b, signs, { margin: 0.1 }), want);
    await near(
      h.marginRankingLoss(tensor([1, 2]), tensor([3, 1]), tensor([1, 1]), { margin: 0.5 }),
      tensor(1.25),
    );
    const w = h.randn([2, 4, 4]);
    await near(h.bilinear(a, b, w), h.einsum("ni,kij,nj->nk", a, w, b), 1e-4);
  });
});

onEachDevice("normalisation over channels", () => {
  const standard = (x: Tensor, dims: number[]) =>
    x.sub(x.mean(dims, true)).div(x.var(dims, { correction: 0, keepdim: true }).add(1e-5).sqrt());

  test("groupNorm, instanceNorm and batchNorm differ only in what they average over", async () => {
    const [x, w, b] = [h.randn([2, 6, 3, 2]), h.randn([6]), h.randn([6])];
    const affine = (y: Tensor) => y.mul(w.reshape([6, 1, 1])).add(b.reshape([6, 1, 1]));
    await near(
      h.groupNorm(x, 3, w, b),
      affine(standard(x.reshape([2, 3, 12]), [2]).reshape(x.shape)),
    );
    await near(h.instanceNorm(x, w, b), affine(standard(x, [2, 3])));
    await near(
      h.batchNorm(x, null, null, w, b, { training: true }),
      affine(standard(x, [0, 2, 3])),
    );
    await near(h.groupNorm(x, 1), h.layerNorm(x, [6, 3, 2]));
    expect(() => h.groupNorm(x, 4)).toThrow(/divides 6 channels/);
    expect(() => h.batchNorm(x)).toThrow(/training: true/);
    expect(() => h.batchNorm(h.ones([1, 2]), null, null, null, null, { training: true })).toThrow(
      /more than one value/,
    );
  });

  test("batchNorm in training moves the running statistics, outside it uses them", async () => {
    const x = h.randn([8, 3]);
    const [mean, variance] = [h.zeros([3]), h.ones([3])];
    h.batchNorm(x, mean, variance, null, null, { training: true, momentum: 0.5 });
    await near(mean, x.mean(0).mul(0.5));
    await near(variance, x.var(0).mul(0.5).add(0.5));
    await near(
      h.batchNorm(x, mean, variance, null, null, { eps: 0 }),
      x.sub(mean).div(variance.sqrt()),
    );
  });

  test("batchNorm inside a gradient: the statistics move, and carry none", async () => {
    const [mean, variance, x] = [h.zeros([2]), h.ones([2]), tensor([[1, 5], [3, 2], [2, 2]], { requiresGrad: true })]; // biome-ignore format: rows
    const y = h.batchNorm(x, mean, variance, null, null, { training: true, momentum: 1 });
    y.square().mul(x.detach()).sum().backward();
    await near(mean, tensor([2, 3]));
    expect(x.grad!.shape).toEqual([3, 2]);
    const step = h.compile((t: Tensor) =>
      h.batchNorm(t, mean, variance, null, null, { training: true, momentum: 1 }),
    );
    await near(step(x.detach().add(1)) as Tensor, y.detach());
    await near(mean, tensor([3, 4]));
  });

  test("localResponseNorm", async () => {
    const x = build([1, 4, 2], ([, c, i]) => c + i + 1);
    const want = build([1, 4, 2], ([, c, i]) => {
      let sum = 0;
      for (let k = Math.max(c - 1, 0); k <= Math.min(c + 1, 3); k++) sum += (k + i + 1) ** 2;
      return (c + i + 1) / (1 + (0.5 * sum) / 3) ** 0.75;
    });
    await expectTensor(h.localResponseNorm(make(x), 3, 0.5), want, { rtol: 1e-5 });
    await expectGradients((t) => h.localResponseNorm(t, 2, 0.5), [x]);
  });
});
