/** @file Modules that are functions: activations, pooling, padding, rearranging; each against its function. */
import * as hinode from "hinode";
import { arange, manualSeed, nn, rand, randn, type Tensor, tensor } from "hinode";
import { beforeAll, describe, expect, test } from "vitest";
import { onEachDevice, useDevice } from "../support/devices.ts";

/** The same values: a module calls its function, so there is nothing to round. */
async function expectSame(got: Tensor, want: Tensor): Promise<void> {
  expect(got.shape).toEqual(want.shape);
  expect(await got.data()).toEqual(await want.data());
}

type Case = [text: string, make: () => nn.Layer, f: (x: Tensor) => Tensor];

const activations: Case[] = [
  ["CELU(alpha=2)", () => new nn.CELU(2), (x) => hinode.celu(x, 2)],
  ["ELU(alpha=0.5)", () => new nn.ELU(0.5), (x) => hinode.elu(x, 0.5)],
  ["GELU()", () => new nn.GELU(), (x) => x.gelu()],
  ["GELU(approximate=\"tanh\")", () => new nn.GELU({ approximate: "tanh" }), (x) => x.gelu({ approximate: "tanh" })],
  ["GLU(dim=0)", () => new nn.GLU(0), (x) => hinode.glu(x, 0)],
  ["Hardshrink()", () => new nn.Hardshrink(), (x) => hinode.hardshrink(x, 0.5)],
  ["Hardsigmoid()", () => new nn.Hardsigmoid(), hinode.hardsigmoid],
  ["Hardswish()", () => new nn.Hardswish(), hinode.hardswish],
  ["Hardtanh(minVal=-2, maxVal=0.5)", () => new nn.Hardtanh(-2, 0.5), (x) => x.clamp(-2, 0.5)],
  ["LeakyReLU(negativeSlope=0.1)", () => new nn.LeakyReLU(0.1), (x) => hinode.leakyRelu(x, 0.1)],
  ["LogSigmoid()", () => new nn.LogSigmoid(), hinode.logSigmoid],
  ["LogSoftmax(dim=1)", () => new nn.LogSoftmax(1), (x) => x.logSoftmax(1)],
  ["Mish()", () => new nn.Mish(), hinode.mish],
  ["ReLU()", () => new nn.ReLU(), (x) => x.relu()],
  ["ReLU6()", () => new nn.ReLU6(), hinode.relu6],
  ["SELU()", () => new nn.SELU(), hinode.selu],
  ["Sigmoid()", () => new nn.Sigmoid(), (x) => x.sigmoid()],
  ["SiLU()", () => new nn.SiLU(), (x) => x.silu()],
  ["Softmax(dim=-1)", () => new nn.Softmax(-1), (x) => x.softmax(-1)],
  ["Softmin(dim=0)", () => new nn.Softmin(0), (x) => x.neg().softmax(0)],
  ["Softplus(beta=2, threshold=3)", () => new nn.Softplus(2, 3), (x) => hinode.softplus(x, 2, 3)],
  ["Softshrink(lambd=0.2)", () => new nn.Softshrink(0.2), (x) => hinode.softshrink(x, 0.2)],
  ["Softsign()", () => new nn.Softsign(), hinode.softsign],
  ["Tanh()", () => new nn.Tanh(), (x) => x.tanh()],
  ["Tanhshrink()", () => new nn.Tanhshrink(), hinode.tanhshrink],
  ["Threshold(threshold=0.1, value=20)", () => new nn.Threshold(0.1, 20), (x) => hinode.threshold(x, 0.1, 20)],
]; // biome-ignore format: a table

/** Of pictures [2, 4, 6, 6]. */
const pictures: Case[] = [
  ["Softmax2d()", () => new nn.Softmax2d(), (x) => x.softmax(1)],
  ["MaxPool2d(kernelSize=2, padding=1)", () => new nn.MaxPool2d(2, { padding: 1 }), (x) => hinode.maxPool2d(x, 2, { padding: 1 })],
  ["AvgPool2d(kernelSize=[3,2], stride=2)", () => new nn.AvgPool2d([3, 2], { stride: 2 }), (x) => hinode.avgPool2d(x, [3, 2], { stride: 2 })],
  ["AdaptiveAvgPool2d(outputSize=[1,null])", () => new nn.AdaptiveAvgPool2d([1, null]), (x) => hinode.adaptiveAvgPool2d(x, [1, null])],
  [
    "LPPool2d(normType=2, kernelSize=2, stride=1)",
    () => new nn.LPPool2d(2, 2, { stride: 1 }),
    (x) => hinode.lpPool2d(x, 2, 2, { stride: 1 }),
  ],
  ["AdaptiveMaxPool2d(outputSize=4)", () => new nn.AdaptiveMaxPool2d(4), (x) => hinode.adaptiveMaxPool2d(x, 4)],
  ["ZeroPad2d(padding=1)", () => new nn.ZeroPad2d(1), (x) => x.pad([1, 1, 1, 1])],
  ["ConstantPad2d(padding=[1,0,2,-1], value=3)", () => new nn.ConstantPad2d([1, 0, 2, -1], 3), (x) => x.pad([1, 0, 2, -1], 3)],
  ["ReflectionPad2d(padding=2)", () => new nn.ReflectionPad2d(2), (x) => x.pad([2, 2, 2, 2], "reflect")],
  ["ReplicationPad2d(padding=[1,2,0,1])", () => new nn.ReplicationPad2d([1, 2, 0, 1]), (x) => x.pad([1, 2, 0, 1], "replicate")],
  ["CircularPad2d(padding=1)", () => new nn.CircularPad2d(1), (x) => x.pad([1, 1, 1, 1], "circular")],
  ["PixelShuffle(upscaleFactor=2)", () => new nn.PixelShuffle(2), (x) => hinode.pixelShuffle(x, 2)],
  ["PixelUnshuffle(downscaleFactor=3)", () => new nn.PixelUnshuffle(3), (x) => hinode.pixelUnshuffle(x, 3)],
  ["Unfold(kernelSize=2, stride=2)", () => new nn.Unfold(2, { stride: 2 }), (x) => hinode.unfold2d(x, 2, { stride: 2 })],
  ["Upsample(scaleFactor=2, mode=\"bilinear\")", () => new nn.Upsample({ scaleFactor: 2, mode: "bilinear" }), (x) => hinode.interpolate(x, { scaleFactor: 2, mode: "bilinear" })],
  ["UpsamplingNearest2d(size=9)", () => new nn.UpsamplingNearest2d({ size: 9 }), (x) => hinode.interpolate(x, { size: 9 })],
  ["UpsamplingBilinear2d(scaleFactor=2)", () => new nn.UpsamplingBilinear2d({ scaleFactor: 2 }), (x) => hinode.interpolate(x, { scaleFactor: 2, mode: "bilinear", alignCorners: true })],
  ["Flatten()", () => new nn.Flatten(), (x) => x.reshape([2, 144])],
  ["Flatten(startDim=0, endDim=1)", () => new nn.Flatten(0, 1), (x) => x.reshape([8, 6, 6])],
  ["Unflatten(dim=1, unflattenedSize=[2,-1])", () => new nn.Unflatten(1, [2, -1]), (x) => x.reshape([2, 2, 2, 6, 6])],
  ["Identity()", () => new nn.Identity(3, { bias: false }), (x) => x],
]; // biome-ignore format: a table

// The functions have tests on every device.
describe("modules call their functions", () => {
  let x: Tensor, picture: Tensor;
  beforeAll(async () => {
    await useDevice("reference");
    manualSeed(41);
    x = randn([4, 3]).mul(2);
    picture = rand([2, 4, 6, 6]);
  });

  test.each(activations)("%s", async (text, make, f) => {
    const layer = make();
    expect(String(layer)).toBe(text);
    await expectSame(layer.forward(x), f(x));
  });

  test.each(pictures)("%s", async (text, make, f) => {
    const layer = make();
    expect(String(layer)).toBe(text);
    await expectSame(layer.forward(picture), f(picture));
  });

  test("the other ranks", async () => {
    const line = rand([2, 3, 8]);
    const block = rand([1, 2, 4, 4, 4]);
    await expectSame(new nn.MaxPool1d(2).forward(line), hinode.maxPool1d(line, 2));
    await expectSame(new nn.MaxPool3d(2).forward(block), hinode.maxPool3d(block, 2));
    await expectSame(new nn.AvgPool1d(3).forward(line), hinode.avgPool1d(line, 3));
    await expectSame(new nn.AvgPool3d(2).forward(block), hinode.avgPool3d(block, 2));
    await expectSame(new nn.AdaptiveAvgPool1d(3).forward(line), hinode.adaptiveAvgPool1d(line, 3));
    await expectSame(new nn.AdaptiveMaxPool1d(3).forward(line), hinode.adaptiveMaxPool1d(line, 3));
    await expectSame(
      new nn.AdaptiveAvgPool3d(2).forward(block),
      hinode.adaptiveAvgPool3d(block, 2),
    );
    await expectSame(
      new nn.AdaptiveMaxPool3d(2).forward(block),
      hinode.adaptiveMaxPool3d(block, 2),
    );
    await expectSame(new nn.LPPool1d(2, 3).forward(line), hinode.lpPool1d(line, 2, 3));
    await expectSame(new nn.LPPool3d(2, 2).forward(block), hinode.lpPool3d(block, 2, 2));
    const at3 = new nn.MaxPool3d(2, { returnIndices: true }).forward(block);
    expect(new nn.MaxUnpool3d(2).forward(at3.values, at3.indices).shape).toEqual(block.shape);
    for (const [pad, fill] of [
      [new nn.ZeroPad1d(1), 0],
      [new nn.ConstantPad1d(1, 2), 2],
      [new nn.ReflectionPad1d(1), "reflect"],
      [new nn.ReplicationPad1d(1), "replicate"],
      [new nn.CircularPad1d(1), "circular"],
    ] as const)
      await expectSame(pad.forward(line), line.pad([1, 1], fill));
    for (const [pad, fill] of [
      [new nn.ZeroPad3d(1), 0],
      [new nn.ConstantPad3d(1, 2), 2],
      [new nn.ReflectionPad3d(1), "reflect"],
      [new nn.ReplicationPad3d(1), "replicate"],
      [new nn.CircularPad3d(1), "circular"],
    ] as const)
      await expectSame(pad.forward(block), block.pad([1, 1, 1, 1, 1, 1], fill));
    expect(() => new nn.ReflectionPad2d(1).forward(line.select(0, 0))).toThrow(/2 spatial axes/);
    expect(() => new nn.ZeroPad2d([1, 1]).forward(picture)).toThrow(/one number or 4/);
  });

  test("CosineSimilarity and PairwiseDistance", async () => {
    const [a, b] = [x, x.mul(2).add(1)];
    await expectSame(
      new nn.CosineSimilarity({ dim: 0 }).forward(a, b),
      hinode.cosineSimilarity(a, b, 0),
    );
    await expectSame(
      new nn.PairwiseDistance({ p: 1, keepdim: true }).forward(a, b),
      hinode.pairwiseDistance(a, b, 1, 1e-6, true),
    );
  });
});

onEachDevice("modules of functions in use", () => {
  let picture: Tensor;
  beforeAll(() => {
    manualSeed(42);
    picture = rand([2, 4, 6, 6]);
  });

  test("they stand in Sequential, under their numbers", async () => {
    const net = new nn.Sequential(
      new nn.Conv2d(4, 2, 3),
      new nn.BatchNorm2d(2),
      new nn.ReLU(),
      new nn.MaxPool2d(2),
      new nn.Flatten(),
    );
    expect(net.forward(picture).shape).toEqual([2, 8]);
    expect(Object.keys(net.stateDict())[0]).toBe("0.weight");
    expect(String(net)).toMatch(/\(2\): ReLU\(\)\n {2}\(3\): MaxPool2d\(kernelSize=2\)/);
  });

  test("max pooling with indices, and back", async () => {
    const pool = new nn.MaxPool2d(2, { stride: 2, returnIndices: true });
    const { values, indices } = pool.forward(picture);
    const back = new nn.MaxUnpool2d(2);
    const y = back.forward(values, indices);
    expect(y.shape).toEqual(picture.shape);
    await expectSame(y.flatten(2).gather(2, indices.flatten(2)), values.flatten(2));
    expect(await y.ne(0).sum().item()).toBe(2 * 4 * 9);
    expect(back.forward(values, indices, [2, 4, 7, 6]).shape).toEqual([2, 4, 7, 6]);
    expect(back.forward(values, indices, [7, 6]).shape).toEqual([2, 4, 7, 6]);
    expect(String(new nn.MaxUnpool1d(3, { stride: 2 }))).toBe(
      "MaxUnpool1d(kernelSize=3, stride=2, padding=0)",
    );
  });

  test("ChannelShuffle deals the groups out; Fold adds patches up", async () => {
    const channels = arange(6).reshape([1, 6, 1]).float();
    const shuffled = new nn.ChannelShuffle(2).forward(channels);
    expect(await shuffled.flatten().tolist()).toEqual([0, 3, 1, 4, 2, 5]);
    expect(() => new nn.ChannelShuffle(4).forward(channels)).toThrow(/divides C/);
    const columns = new nn.Unfold(2, { stride: 2 }).forward(picture);
    await expectSame(new nn.Fold([6, 6], 2, { stride: 2 }).forward(columns), picture);
  });

  test("PReLU learns its slopes", async () => {
    const layer = new nn.PReLU(3, { init: 0.5 });
    expect(String(layer)).toBe("PReLU(numParameters=3)");
    const y = layer.forward(tensor([[-1, 2, -4]]));
    expect(await y.data()).toEqual(new Float32Array([-0.5, 2, -2]));
    y.sum().backward();
    expect(await layer.weight.grad!.data()).toEqual(new Float32Array([-1, 0, -4]));
    expect(() => new nn.PReLU(0)).toThrow(/one parameter or more/);
  });

  test("RReLU draws its slopes while training, and takes the mean in evaluation", async () => {
    const layer = new nn.RReLU(0.1, 0.3);
    const x = tensor([-1, -1, -1, 2]);
    const y = await layer.forward(x).data();
    expect(new Set(y).size).toBe(4);
    expect(y[3]).toBe(2);
    for (const v of y.subarray(0, 3)) expect(v > -0.3001 && v < -0.0999).toBe(true);
    await expectSame(layer.eval().forward(x), hinode.leakyRelu(x, 0.2));
    expect(() => new nn.RReLU(0.3, 0.1)).toThrow(/lower ≤ upper/);
  });
});
