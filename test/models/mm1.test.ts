import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CheckpointError,
  compile,
  grad,
  init,
  manualSeed,
  randn,
  type Tensor,
  tensor,
} from "hinode";
import {
  AveragePoolConnector,
  BpeTokenizer,
  captioner,
  loadMm1,
  Mm1,
  PatchEmbedding,
  saveMm1,
} from "hinode/models";
import { optim, saveModel } from "hinode/nn";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { devices } from "../support/devices.ts";

const config = {
  vision: { imageSize: 8, patchSize: 2, channels: 3, width: 8, depth: 1, heads: 2, hidden: 16 },
  grid: 2,
  language: { vocabulary: 9, width: 8, depth: 1, heads: 2, hidden: 12 },
};
const folder = mkdtempSync(join(tmpdir(), "hinode-mm1-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

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
    const connector = new AveragePoolConnector({ visionWidth: 1, grid: 2, width: 1 });
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

  test("one image stands before every text", async () => {
    const model = new Mm1(config);
    const image = randn([1, 3, 8, 8]);
    const texts = ids([[1, 4, 5], [1, 6, 7]]); // biome-ignore format: rows
    const one = await model.forward(image, texts).data();
    const two = await model.forward(image.expand([2, 3, 8, 8]), texts).data();
    expect(difference(one, two, { rtol: 1e-5, atol: 1e-6 })).toBeNull();
  });

  test("a file holds all that captioning needs", async () => {
    const tokenizer = BpeTokenizer.train(["red apple"], { vocabSize: 270, minFrequency: 1 });
    const vocabulary = tokenizer.vocabularySize;
    const model = new Mm1({ ...config, language: { ...config.language, vocabulary } });
    const path = join(folder, `${device}.safetensors`);
    await saveMm1(path, model, tokenizer);
    const loaded = await loadMm1(path);
    expect(loaded.model.config).toEqual(model.config);
    expect(loaded.model.training).toBe(false);
    expect(loaded.tokenizer.encode("red pear")).toEqual(tokenizer.encode("red pear"));
    const images = randn([2, 3, 8, 8]);
    const text = ids([[1, 4, 5], [1, 6, 7]]); // biome-ignore format: rows
    const scores = (of: Mm1) => of.forward(images, text).data();
    expect(await scores(loaded.model)).toEqual(await scores(model));
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
    for (let i = 0; i < 50; i++) loss = Number(await step(images, inputs, targets).item());
    expect(loss).toBeLessThan(0.1);
    const caption = captioner(model, { bos: 1, eos: 2, pad: 0, maxTokens: 4 });
    expect(await caption(images)).toEqual([[4, 5], [6]]);
  });
});

test("files that are no MM1, or contradict themselves, are refused", async () => {
  await init({ device: "wasm" });
  const path = join(folder, "other.safetensors");
  const model = new Mm1(config);
  const tokenizer = BpeTokenizer.train(["a"], { vocabSize: 260 });
  const metadata = (config: unknown, tokenizer: unknown) => ({
    "mm1.config": JSON.stringify(config),
    "mm1.tokenizer": JSON.stringify(tokenizer),
  });
  const sized = { ...config, language: { ...config.language, vocabulary: 260 } };
  const cases: [Record<string, string>, RegExp][] = [
    [{}, /metadata "mm1.config", got none.*saveMm1/s],
    [{ "mm1.config": "{" }, /JSON as "mm1.config"/],
    [metadata({ ...config, grid: -1 }, tokenizer), /sizes of a vision and a language model/],
    [metadata({ ...config, vision: null }, tokenizer), /sizes/],
    [metadata(config, { model: 3 }), /a tokenizer, got BpeTokenizer: expected a model/],
    [metadata(config, tokenizer), /a tokenizer of 9 tokens, got 260/],
    [metadata(sized, tokenizer), /language.tokens.weight: expected f32\[260, 8\], got F32\[9, 8\]/],
  ];
  for (const [notes, message] of cases) {
    await saveModel(path, model, notes);
    const failure = await loadMm1(path).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(CheckpointError);
    expect((failure as Error).message).toMatch(message);
  }
});
