/** @file Convolution layers: options, padding modes, output sizes, printing, errors. */

import * as hinode from "hinode";
import { compile, manualSeed, nn, pad, randn, type Tensor } from "hinode";
import { beforeAll, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const close = { rtol: 1e-5, atol: 1e-5 };

async function expectSame(got: Tensor, want: Tensor): Promise<void> {
  expect(got.shape).toEqual(want.shape);
  expect(difference(await got.data(), await want.data(), close)).toBeNull();
}

/** A 1-d convolution by its definition. */
function conv1d(
  x: number[][],
  w: number[][][],
  b: number[],
  { stride, dilation, groups }: { stride: number; dilation: number; groups: number },
): number[][] {
  const perGroup = w[0].length;
  const rows = w.length / groups;
  const length = Math.floor((x[0].length - dilation * (w[0][0].length - 1) - 1) / stride) + 1;
  return w.map((kernel, o) =>
    Array.from({ length }, (_, t) =>
      kernel.reduce((sum, line, c) => {
        const channel = x[Math.floor(o / rows) * perGroup + c];
        return line.reduce((s, v, k) => s + v * channel[t * stride + k * dilation], sum);
      }, b[o]),
    ),
  );
}

onEachDevice("convolution layers", () => {
  beforeAll(() => {
    manualSeed(21);
  });

  test("Conv1d is its definition, with stride, dilation, groups and reflected padding", async () => {
    const geometry = { stride: 2, dilation: 2, groups: 2 };
    const layer = new nn.Conv1d(4, 6, 3, { ...geometry, padding: 3, paddingMode: "reflect" });
    expect(layer.weight.shape).toEqual([6, 2, 3]);
    const x = randn([4, 9]);
    const padded = (await pad(x, [3, 3], "reflect").tolist()) as number[][];
    const weight = (await layer.weight.tolist()) as number[][][];
    const want = conv1d(padded, weight, (await layer.bias!.tolist()) as number[], geometry);
    expect(difference(await layer.forward(x).data(), want.flat(), close)).toBeNull();
  });

  test("'same' keeps the size in every padding mode; an odd one goes to the end", async () => {
    const x = randn([1, 2, 5, 6]);
    for (const paddingMode of ["zeros", "reflect", "replicate", "circular"] as const) {
      const layer = new nn.Conv2d(2, 3, [2, 3], { padding: "same", paddingMode, dilation: [3, 1] });
      const outer = pad(x, [1, 1, 1, 2], paddingMode === "zeros" ? 0 : paddingMode);
      await expectSame(
        layer.forward(x),
        hinode.conv2d(outer, layer.weight, layer.bias, { dilation: [3, 1] }),
      );
      expect(layer.forward(x).shape).toEqual([1, 3, 5, 6]);
    }
    const valid = new nn.Conv2d(2, 3, 3, { padding: "valid", bias: false });
    await expectSame(valid.forward(x), hinode.conv2d(x, valid.weight));
  });

  test("Conv3d and the transposed ones are their functions", async () => {
    const conv = new nn.Conv3d(2, 4, 2, { stride: [1, 2, 1], padding: 1, groups: 2 });
    const x = randn([1, 2, 3, 3, 3]);
    const options = { stride: [1, 2, 1], padding: 1, groups: 2 };
    await expectSame(conv.forward(x), hinode.conv3d(x, conv.weight, conv.bias, options));
    const geometry = { stride: 2, padding: 1, outputPadding: 1, dilation: 2, groups: 2 };
    const up1 = new nn.ConvTranspose1d(4, 6, 3, geometry);
    expect(up1.weight.shape).toEqual([4, 3, 3]);
    const y = randn([2, 4, 5]);
    await expectSame(up1.forward(y), hinode.convTranspose1d(y, up1.weight, up1.bias, geometry));
    const up3 = new nn.ConvTranspose3d(2, 1, 2);
    await expectSame(up3.forward(x), hinode.convTranspose3d(x, up3.weight, up3.bias));
  });

  test("a transposed convolution takes the size it is to restore", async () => {
    const down = new nn.Conv2d(1, 1, 3, { stride: 2, padding: 1 });
    const up = new nn.ConvTranspose2d(1, 1, 3, { stride: 2, padding: 1 });
    for (const shape of [
      [1, 1, 7, 7],
      [1, 1, 8, 7],
    ]) {
      const small = down.forward(randn(shape));
      expect(up.forward(small, shape).shape).toEqual(shape);
      expect(up.forward(small, shape.slice(2)).shape).toEqual(shape);
    }
    expect(() => up.forward(randn([1, 1, 4, 4]), [9, 7])).toThrow(/from \[7, 7\] to \[8, 8\]/);
  });

  test("a compiled step trains a convolution", async () => {
    const layer = new nn.Conv2d(1, 1, 3, { padding: 1, paddingMode: "circular" });
    const target = new nn.Conv2d(1, 1, 3, { padding: 1, paddingMode: "circular" });
    const sgd = new nn.optim.SGD(layer.parameters(), { lr: 0.3 });
    const x = randn([4, 1, 5, 5]);
    const wanted = target.forward(x).detach();
    const step = compile((input: Tensor, want: Tensor) => {
      const loss = nn.mseLoss(layer.forward(input), want);
      sgd.zeroGrad();
      loss.backward();
      sgd.step();
      return loss;
    });
    const first = Number(await step(x, wanted).item());
    let last = first;
    for (let i = 0; i < 8; i++) last = Number(await step(x, wanted).item());
    expect(last).toBeLessThan(first / 4);
  });

  test("they print their facts and refuse what cannot be", () => {
    expect(String(new nn.Conv2d(3, 8, 3, { padding: 1, bias: false }))).toBe(
      "Conv2d(3, 8, kernelSize=[3, 3], stride=[1, 1], padding=[1, 1], bias=false)",
    );
    const same = new nn.Conv1d(4, 8, 3, { padding: "same", paddingMode: "circular", groups: 2 });
    expect(String(same)).toBe(
      "Conv1d(4, 8, kernelSize=[3], stride=[1], padding=same, paddingMode=circular, groups=2)",
    );
    expect(String(new nn.ConvTranspose1d(4, 8, 3, { outputPadding: 1, stride: 2 }))).toBe(
      "ConvTranspose1d(4, 8, kernelSize=[3], stride=[2], outputPadding=[1])",
    );
    expect(() => new nn.Conv2d(3, 8, 3, { groups: 2 })).toThrow(/multiples of groups/);
    expect(() => new nn.Conv2d(3, 8, 3, { stride: 2, padding: "same" })).toThrow(/stride 1/);
    expect(() => new nn.Conv2d(3, 8, [3])).toThrow(/kernelSize as an integer/);
    const odd = { paddingMode: "mirror" as "reflect" };
    expect(() => new nn.Conv2d(3, 8, 3, odd)).toThrow(/'replicate'/);
    const layer = new nn.Conv2d(3, 8, 3, { padding: 1, paddingMode: "reflect" });
    expect(() => layer.forward(randn([3, 8]))).toThrow(/2 spatial axes/);
  });
});
