import { compile, grad, init, manualSeed, randn, type Tensor, tensor } from "hinode";
import { AveragePoolConnector, captioner, Mm1, PatchEmbedding } from "hinode/models";
import { optim } from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { devices } from "../support/devices.ts";

const config = {
  vision: { imageSize: 8, patchSize: 2, channels: 3, width: 8, depth: 1, heads: 2, hidden: 16 },
  grid: 2,
  language: { vocabulary: 9, width: 8, depth: 1, heads: 2, hidden: 12 },
};
const ids = (rows: number[][]) => tensor(rows, { dtype: "i32" });

describe.each(devices)("MM1 on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
    manualSeed(5);
  });

  test("patches are the convolution's: channel, row, column inside, row-major outside", async () => {
    const embed = new PatchEmbedding(config.vision);
    const images = randn([2, 3, 8, 8]);
    const x = (await images.tolist()) as number[][][][];
    const w = (await embed.projection.weight.tolist()) as number[][];
    const b = (await embed.projection.bias!.tolist()) as number[];
    const positions = (await embed.positions.tolist()) as number[][];
    const want: number[] = [];
    for (const image of x)
      for (let patch = 0; patch < 16; patch++)
        for (let o = 0; o < 8; o++) {
          let sum = b[o] + positions[patch][o];
          for (let c = 0; c < 3; c++)
            for (let i = 0; i < 2; i++)
              for (let j = 0; j < 2; j++)
                sum +=
                  w[o][c * 4 + i * 2 + j] *
                  image[c][2 * Math.floor(patch / 4) + i][2 * (patch % 4) + j];
          want.push(sum);
        }
    expect(
      difference(await embed.forward(images).data(), want, { rtol: 1e-4, atol: 1e-5 }),
    ).toBeNull();
    expect(() => embed.forward(randn([2, 3, 8, 9]))).toThrow(/\[B, 3, 8, 8\], got \[2, 3, 8, 9\]/);
  });

  test("the connector averages cells of the patch grid", async () => {
    const connector = new AveragePoolConnector({ visionWidth: 1, patches: 4, grid: 2, width: 1 });
    connector.projection.weight = tensor([[1]]);
    connector.projection.bias = tensor([0]);
    const grid = Array.from({ length: 16 }, (_, i) => [i]);
    const cells = await connector.forward(tensor([grid])).data();
    expect([...cells]).toEqual([2.5, 4.5, 10.5, 12.5]);
    expect(connector.tokens).toBe(4);
  });

  test("text sees the image and the text before it, nothing else", async () => {
    const model = new Mm1(config);
    const images = randn([1, 3, 8, 8]);
    const reach = grad((x: Tensor) =>
      model
        .forward(x, ids([[1, 4, 5]]))
        .narrow(1, 0, 1)
        .sum(),
    )(images);
    expect(Number(await reach.abs().sum().item())).toBeGreaterThan(0);
    const logits = (rows: number[][]) => model.forward(images, ids(rows)).data();
    const [a, b] = [await logits([[1, 4, 5]]), await logits([[1, 4, 6]])];
    const V = config.language.vocabulary;
    expect(difference(a.slice(0, 2 * V), b.slice(0, 2 * V), { rtol: 0, atol: 1e-6 })).toBeNull();
    expect(difference(a.slice(2 * V), b.slice(2 * V), { rtol: 0, atol: 1e-6 })).not.toBeNull();
  });

  test("padding has no loss", async () => {
    const model = new Mm1(config);
    const images = randn([2, 3, 8, 8]);
    const short = await model.loss(images, ids([[1], [1]]), ids([[4], [5]])).item();
    const padded = model.loss(images, ids([[1, 0, 0], [1, 0, 0]]), ids([[4, -100, -100], [5, -100, -100]])); // biome-ignore format: rows
    expect(Number(await padded.item())).toBeCloseTo(Number(short), 5);
  });

  test("it learns to tell two images apart, and captions them", async () => {
    manualSeed(1);
    const model = new Mm1(config);
    const adamw = new optim.AdamW(model.parameters(), { lr: 1e-2 });
    const images = randn([2, 3, 8, 8]);
    const [inputs, targets] = [ids([[1, 4, 5], [1, 6, 0]]), ids([[4, 5, 2], [6, 2, -100]])]; // biome-ignore format: rows
    const step = compile((x: Tensor, y: Tensor, z: Tensor) => {
      const loss = model.loss(x, y, z);
      adamw.zeroGrad();
      loss.backward();
      adamw.step();
      return loss;
    });
    let loss = Number.NaN;
    for (let i = 0; i < 40; i++) loss = Number(await step(images, inputs, targets).item());
    expect(loss).toBeLessThan(0.1);
    const caption = captioner(model, { bos: 1, eos: 2, pad: 0, maxTokens: 4 });
    expect(await caption(images)).toEqual([[4, 5], [6]]);
  });
});
