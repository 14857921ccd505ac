/** @file Normalisation of channels: running statistics in and out of compiled steps, evaluation, options, errors. */
import { join } from "node:path";
import {
  compile,
  groupNorm,
  instanceNorm,
  manualSeed,
  nn,
  randn,
  type Tensor,
  tensor,
} from "hinode";
import { beforeAll, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const golden = join(import.meta.dirname, "../golden/data");
const close = { rtol: 1e-5, atol: 1e-5 };

/** Mean and unbiased variance of each channel of [N, C, L]. */
function statistics(x: number[][][]): { mean: number[]; variance: number[] } {
  const channels = x[0].map((_, c) => x.flatMap((example) => example[c]));
  const mean = channels.map((v) => v.reduce((a, b) => a + b, 0) / v.length);
  const variance = channels.map(
    (v, c) => v.reduce((a, b) => a + (b - mean[c]) ** 2, 0) / (v.length - 1),
  );
  return { mean, variance };
}

const lerp = (a: number[], b: number[], t: number): number[] => a.map((v, i) => v + t * (b[i] - v));

onEachDevice("channel norms", () => {
  beforeAll(() => {
    manualSeed(31);
  });
  const expectClose = async (got: Tensor, want: ArrayLike<number>) =>
    expect(difference(await got.data(), want, close)).toBeNull();

  test.each([0.1, null])("running statistics with momentum %s", async (momentum) => {
    for (const compiled of [false, true]) {
      const layer = new nn.BatchNorm1d(3, { momentum });
      const forward = compiled
        ? compile((x: Tensor) => layer.forward(x))
        : (x: Tensor) => layer.forward(x);
      let [mean, variance] = [
        [0, 0, 0],
        [1, 1, 1],
      ];
      for (let n = 1; n <= 3; n++) {
        const x = randn([4, 3, 2]).mul(n).add(n);
        const values = (await x.tolist()) as number[][][];
        const fresh = statistics(values);
        const share = momentum ?? 1 / n;
        [mean, variance] = [lerp(mean, fresh.mean, share), lerp(variance, fresh.variance, share)];
        const y = forward(x);
        const want = values.flatMap((example) =>
          example.flatMap((line, c) => {
            const biased = (fresh.variance[c] * 7) / 8;
            return line.map((v) => (v - fresh.mean[c]) / Math.sqrt(biased + 1e-5));
          }),
        );
        await expectClose(y, want);
      }
      await expectClose(layer.runningMean!, mean);
      await expectClose(layer.runningVar!, variance);
      expect(await layer.numBatchesTracked!.item()).toBe(3);
      layer.eval();
      const [a, b, c] = mean.map((m, i) => (1 - m) / Math.sqrt(variance[i] + 1e-5));
      await expectClose(layer.forward(tensor([[1, 1, 1]])), [a, b, c]);
      expect(await layer.numBatchesTracked!.item()).toBe(3);
      layer.resetRunningStats();
      expect(await layer.runningVar!.data()).toEqual(new Float32Array([1, 1, 1]));
      expect(await layer.numBatchesTracked!.item()).toBe(0);
    }
  });

  test("PyTorch's outputs, gradients and running statistics", async () => {
    await using file = await nn.openSafetensors(join(golden, "nn.safetensors"));
    // Even cases are in training and also give the statistics afterwards.
    for (const id of ["batch_norm-0", "batch_norm-3"]) {
      const get = (name: string) => file.tensor(`${id}/${name}`);
      const names = ["weight", "bias", "running_mean", "running_var"];
      const values = await Promise.all(names.map((_, i) => get(`in${i + 1}`)));
      const x = await get("in0");
      const layer = new (x.ndim === 4 ? nn.BatchNorm2d : nn.BatchNorm1d)(x.shape[1]);
      const state = Object.fromEntries(names.map((name, i) => [name, values[i]]));
      layer.loadStateDict({ ...state, num_batches_tracked: tensor(0, { dtype: "i32" }) });
      layer.train(id === "batch_norm-0");
      x.requiresGrad = true;
      const y = layer.forward(x);
      y.mul(await get("cot0"))
        .sum()
        .backward();
      const pairs: [Tensor, string][] = [
        [y, "out0"],
        [x.grad!, "grad0"],
        [layer.weight!.grad!, "grad1"],
        [layer.bias!.grad!, "grad2"],
      ];
      if (layer.training) pairs.push([layer.runningMean!, "out1"], [layer.runningVar!, "out2"]);
      for (const [got, name] of pairs) {
        const want = await (await get(name)).data();
        expect(difference(await got.data(), want, { rtol: 3e-5, atol: 2e-5 }), name).toBeNull();
      }
    }
  });

  test("a compiled step changes with train and eval, and trains weight and bias", async () => {
    const layer = new nn.BatchNorm2d(2);
    const sgd = new nn.optim.SGD(layer.parameters(), { lr: 0.5 });
    const x = randn([2, 2, 3, 3]);
    const step = compile((input: Tensor) => {
      const loss = nn.mseLoss(layer.forward(input), input.mul(3).add(1));
      sgd.zeroGrad();
      loss.backward();
      sgd.step();
      return loss;
    });
    const first = Number(await step(x).item());
    let last = first;
    for (let i = 0; i < 10; i++) last = Number(await step(x).item());
    expect(last).toBeLessThan(first / 10);
    expect(await layer.numBatchesTracked!.item()).toBe(11);
    const forward = compile((input: Tensor) => layer.forward(input));
    const [trained] = await forward(x).data();
    layer.eval();
    const [evaluated] = await forward(x).data();
    expect(evaluated).not.toBe(trained);
    expect(await layer.numBatchesTracked!.item()).toBe(12);
  });

  test("without running statistics the batch's count, also in evaluation; without weights they are 1 and 0", async () => {
    const layer = new nn.BatchNorm1d(2, { trackRunningStats: false, affine: false }).eval();
    expect([...layer.namedTensors()]).toEqual([]);
    await expectClose(layer.forward(tensor([[1, 4], [3, 0]])), [-1, 1, 1, -1]); // biome-ignore format: rows
  });

  test("in half precision the statistics stay f32", async () => {
    const layer = new nn.BatchNorm1d(2);
    const x = tensor([[1, 4], [3, 0]], { dtype: "f16" }); // biome-ignore format: rows
    expect(layer.forward(x).dtype).toBe("f16");
    expect(layer.runningMean!.dtype).toBe("f32");
    await expectClose(layer.runningMean!, [0.2, 0.2]);
  });

  test("InstanceNorm: per example, with running means over the batch, unbatched too", async () => {
    const x = randn([2, 3, 4]);
    const plain = new nn.InstanceNorm1d(3);
    expect(plain.parameters()).toEqual([]);
    await expectClose(plain.forward(x), await instanceNorm(x).data());
    await expectClose(plain.forward(x.select(0, 1)), await plain.forward(x).select(0, 1).data());
    const layer = new nn.InstanceNorm1d(3, { trackRunningStats: true, affine: true });
    await expectClose(layer.forward(x), await instanceNorm(x).data());
    const each = ((await x.tolist()) as number[][][]).map((example) => statistics([example]));
    const both = (key: "mean" | "variance") => lerp(each[0][key], each[1][key], 0.5);
    const mean = lerp([0, 0, 0], both("mean"), 0.1);
    const variance = lerp([1, 1, 1], both("variance"), 0.1);
    await expectClose(layer.runningMean!, mean);
    await expectClose(layer.runningVar!, variance);
    layer.eval();
    const line = tensor([[[2], [2], [2]]]); // one place is enough in evaluation
    const want = mean.map((m, i) => (2 - m) / Math.sqrt(variance[i] + 1e-5));
    await expectClose(layer.forward(line), want);
    expect(() => plain.forward(line)).toThrow(/more than one place/);
  });

  test("GroupNorm and LocalResponseNorm", async () => {
    const x = randn([2, 4, 3]);
    const layer = new nn.GroupNorm(2, 4, { eps: 1e-3 });
    await expectClose(layer.forward(x), await groupNorm(x, 2, null, null, 1e-3).data());
    expect(new nn.GroupNorm(2, 4, { affine: false }).parameters()).toEqual([]);
    const response = new nn.LocalResponseNorm(2, 0.5, 1, 2);
    const [a, b] = [3, 4];
    // Each channel and the one before it: x / (2 + 0.5·Σx²/2).
    await expectClose(response.forward(tensor([[[a], [b]]])), [
      a / (2 + 0.25 * a * a),
      b / (2 + 0.25 * (a * a + b * b)),
    ]);
    expect(String(response)).toBe("LocalResponseNorm(size=2, alpha=0.5, beta=1, k=2)");
  });

  test("wrong channels and axes are refused, by name", () => {
    const layer = new nn.BatchNorm2d(3);
    expect(() => layer.forward(randn([2, 3]))).toThrow(/BatchNorm2d.*4 axes/s);
    expect(() => layer.forward(randn([2, 4, 1, 1]))).toThrow(/3 channels at axis 1/);
    expect(() => new nn.BatchNorm1d(3).forward(randn([1, 3]))).toThrow(/more than one value/);
    expect(() => new nn.GroupNorm(2, 3)).toThrow(/multiple of groups/);
    expect(() => new nn.BatchNorm1d(0)).toThrow(/positive number of features/);
    expect(String(new nn.BatchNorm1d(3))).toBe(
      "BatchNorm1d(3, eps=0.00001, momentum=0.1, affine=true, trackRunningStats=true)",
    );
  });
});
