/**
 * @file MM1: one model from any encoder, connector and decoder; what it sees, learns and writes;
 * its file.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CheckpointError, cat, compile, explain, init, manualSeed, randn, type Tensor, tensor, zeros } from "hinode"; // biome-ignore format: one line
import {
  AveragePoolConnector,
  aimTrunkConfig,
  BpeTokenizer,
  clipVisionConfig,
  Generator,
  type LanguageConfig,
  loadMm1,
  mm1Config,
  PatchEmbedding,
  saveMm1,
  type VisionLanguageConfig,
  VisionLanguageModel,
} from "hinode/models";
import { optim, saveModel, summary } from "hinode/nn";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const IMAGE = 3;
/** Four image tokens per image. */
const vision = { imageSize: 8, patchSize: 2, channels: 3, width: 8, depth: 1, heads: 2, hidden: 16 }; // biome-ignore format: one line
const language: LanguageConfig = { vocabulary: 9, width: 8, depth: 1, heads: 2, hidden: 12 };
const config: VisionLanguageConfig = {
  ...{ vision, language, imageToken: IMAGE },
  connector: { kind: "average", tokens: 4 },
};
const image = (tokens = 4) => new Array<number>(tokens).fill(IMAGE);
const folder = mkdtempSync(join(tmpdir(), "hinode-mm1-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ids = (rows: number[][]) => tensor(rows, { dtype: "i32" });
const close = { rtol: 1e-4, atol: 1e-5 };

/** A training step of what is not frozen, compiled. */
function trainer(model: VisionLanguageModel, options: { lr?: number; checkpoint?: boolean } = {}) {
  const { lr = 1e-2, checkpoint = false } = options;
  const adamw = new optim.AdamW(model.parameters().filter((p) => p.requiresGrad), { lr }); // biome-ignore format: one line
  return compile((text: Tensor, images: Tensor) => {
    const loss = model.loss(text, images, { checkpoint });
    adamw.zeroGrad();
    loss.backward();
    adamw.step();
    return loss;
  });
}

onEachDevice("MM1", (device) => {
  beforeAll(() => {
    manualSeed(5);
  });

  test("patches are the convolution's: channel, row, column inside, row-major outside", async () => {
    const embed = new PatchEmbedding(config.vision);
    const images = randn([2, 3, 8, 8]);
    const x = (await images.tolist()) as number[][][][];
    const w = (await embed.projection.weight.tolist()) as number[][];
    const b = (await embed.projection.bias!.tolist()) as number[];
    const positions = (await embed.positions!.tolist()) as number[][];
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

  test.skipIf(device === "webgpu")(
    "a place sees the images and words before it, wherever these stand, and nothing behind",
    async () => {
      const model = new VisionLanguageModel({ ...config, language: { ...language, depth: 2 } });
      const [a, b, c] = [1, 2, 3].map(() => randn([1, 3, 8, 8]));
      const scores = async (last: number, ...images: Tensor[]) => {
        const row = [1, 4, ...image(), 5, ...image(), last];
        return ((await model.forward(ids([row]), cat(images)).tolist()) as number[][][])[0];
      };
      const before = await scores(6, a, b);
      const firstChange = (after: number[][]) =>
        after.findIndex((row, t) => difference(row, before[t], close) !== null);
      expect(firstChange(await scores(6, a, c))).toBe(7);
      expect(firstChange(await scores(6, c, b))).toBe(2);
      expect(firstChange(await scores(7, a, b))).toBe(11);
      expect(firstChange(await scores(6, a, b))).toBe(-1);
    },
  );

  test.skipIf(device === "webgpu")(
    "the loss of packed examples is that of the examples apart",
    async () => {
      const model = new VisionLanguageModel({ ...config, language: { ...language, zLoss: 0.1 } });
      const images = randn([2, 3, 8, 8]);
      const rows = [[...image(), 4, 5], [1, 6, 7, ...image(), 8, 2]]; // biome-ignore format: one line
      const loss = async (value: Tensor) => Number(await value.item());
      const documents = ids([rows.flatMap((row, i) => row.map(() => i))]);
      const packed = await loss(model.loss(ids([rows.flat()]), images, { documents }));
      const apart = rows.map((row, i) => loss(model.loss(ids([row]), images.narrow(0, i, 1))));
      // Two words are predicted in the first example, four in the second.
      expect(packed).toBeCloseTo((2 * (await apart[0]) + 4 * (await apart[1])) / 6, 4);
    },
  );

  const { width: _, ...sizes } = vision;
  test.skipIf(device === "webgpu").each<[string, VisionLanguageConfig]>([
    [
      "CLIP, C-Abstractor, tied decoder with normalised heads",
      {
        vision: clipVisionConfig({ ...sizes, width: 12, depth: 2, activation: "quick_gelu" }),
        connector: { kind: "c-abstractor", tokens: 4, hidden: 8, depth: 1 },
        language: { ...language, tied: true, qkNorm: true, zLoss: 1e-3 },
        imageToken: IMAGE,
      },
    ],
    [
      "AIM, attention, experts in every second block",
      {
        vision: aimTrunkConfig({ ...sizes, width: 16 }),
        connector: { kind: "attention", tokens: 4 },
        language: { ...language, depth: 2, experts: { count: 2, every: 2, zWeight: 1e-3, capacityFactor: 2 } }, // biome-ignore format: one line
        imageToken: IMAGE,
      },
    ],
    [
      "an inner layer, MLP, grouped queries",
      {
        ...{ vision: { ...vision, depth: 2, finalNorm: false }, imageToken: IMAGE, layer: -1 },
        connector: { kind: "mlp" },
        language: { ...language, kvHeads: 1 },
      },
    ],
  ])("%s: all learns, and the cache writes what full passes would", async (_, config) => {
    manualSeed(3);
    const model = new VisionLanguageModel(config);
    const images = randn([3, 3, 8, 8]);
    const [k] = model.tokenCounts(images);
    // Two images in one prompt, one in the other, which is shorter.
    const prompts = [[1, ...image(k), 4, ...image(k), 5], [1, 6, ...image(k)]]; // biome-ignore format: one line
    const long = prompts[0].length;
    const text = ids(prompts.map((p) => [...p, ...new Array<number>(long - p.length).fill(7)]));
    model.loss(text, images).backward();
    for (const [name, p] of model.namedParameters())
      expect(Number(await p.grad!.abs().sum().item()), name).toBeGreaterThan(0);

    model.eval();
    const generator = new Generator(model, { length: long + 3 });
    const given = { ids: prompts, images };
    const { tokens } = await generator.generate(given, { maxNewTokens: 3 });
    const own = [images.narrow(0, 0, 2), images.narrow(0, 2, 1)];
    for (const [b, prompt] of prompts.entries()) {
      const said = [...prompt];
      for (let i = 0; i < 3; i++) {
        const filled = ids([[...said, ...new Array<number>(long + 2 - said.length).fill(0)]]);
        const last = model
          .forward(filled, own[b])
          .select(1, said.length - 1)
          .squeeze(0);
        const scores = (await last.tolist()) as number[];
        scores[IMAGE] = -Infinity; // A placeholder is never written.
        said.push(scores.indexOf(Math.max(...scores)));
      }
      expect(tokens[b]).toEqual(said.slice(prompt.length));
    }
    const one = await generator.search(given, { beams: 1, maxNewTokens: 3 });
    expect(one.tokens).toEqual(tokens);
    const rows = model.imageRows(images);
    const two = await generator.search({ ids: prompts, images: rows }, { beams: 2, maxNewTokens: 3 }); // biome-ignore format: one line
    for (const [b, score] of two.scores.entries())
      expect(score).toBeGreaterThanOrEqual(one.scores[b] - 1e-5);
  });

  test.skipIf(device === "webgpu").each([
    ["the encoder frozen", ["vision"]],
    ["the connector alone trained", ["vision", "language"]],
    ["nothing frozen", []],
  ] as const)("%s: a step leaves frozen weights bit for bit", async (_, frozen) => {
    const model = new VisionLanguageModel(config);
    for (const part of frozen) model[part].requiresGrad_(false);
    const read = async () =>
      new Map(await Promise.all(model.namedParameters().map(async ([name, p]) => [name, await p.data()] as const))); // biome-ignore format: one line
    const before = await read();
    await trainer(model)(ids([[1, ...image(), 4, 5, 6, 7, 8, 2, 0]]), randn([1, 3, 8, 8])).item();
    for (const [name, after] of await read()) {
      const isFrozen = frozen.some((part) => name.startsWith(`${part}.`));
      if (isFrozen) expect(after, name).toEqual(before.get(name));
      else expect(after, name).not.toEqual(before.get(name));
    }
  });

  test.skipIf(device !== "wasm")("blocks computed once more need less memory", async () => {
    const deep = { depth: 6, width: 16, heads: 2, hidden: 64 };
    const model = new VisionLanguageModel({
      ...config,
      vision: { ...vision, ...deep, imageSize: 16 },
      language: { ...language, ...deep },
    });
    const text = ids([[1, ...image(), ...new Array<number>(59).fill(4)]]);
    const images = randn([1, 3, 16, 16]);
    const scratch = (checkpoint: boolean) =>
      explain(trainer(model, { checkpoint }), text, images).scratchBytes;
    expect(scratch(true)).toBeLessThan(0.6 * scratch(false));
    const loss = async (checkpoint: boolean) => {
      model.zeroGrad();
      model.loss(text, images, { checkpoint }).backward();
      return Promise.all(model.parameters().map((p) => p.grad!.data()));
    };
    const [plain, again] = [await loss(false), await loss(true)];
    for (const [i, g] of plain.entries()) expect(difference(again[i], g, close)).toBeNull();
  });

  test("a file holds all that captioning needs", async () => {
    const tokenizer = BpeTokenizer.train(["red apple"], { vocabSize: 270, minFrequency: 1 });
    const vocabulary = tokenizer.vocabularySize;
    const model = new VisionLanguageModel({ ...config, language: { ...language, vocabulary } });
    const path = join(folder, `${device}.safetensors`);
    await saveMm1(path, model, tokenizer);
    const loaded = await loadMm1(path);
    expect(loaded.model.config).toEqual(model.config);
    expect(loaded.model.training).toBe(false);
    expect(loaded.tokenizer.encode("red pear")).toEqual(tokenizer.encode("red pear"));
    const images = randn([1, 3, 8, 8]);
    const scores = (of: VisionLanguageModel) =>
      of.forward(ids([[1, ...image(), 5]]), images).data();
    expect(await scores(loaded.model)).toEqual(await scores(model));
  });

  test("it learns to tell two images apart, and captions them", async () => {
    manualSeed(1);
    const model = new VisionLanguageModel(config);
    const images = randn([2, 3, 8, 8]);
    const step = trainer(model);
    const text = ids([[...image(), 1, 4, 5, 2], [...image(), 1, 6, 2, 2]]); // biome-ignore format: rows
    let loss = Number.NaN;
    for (let i = 0; i < 60; i++) loss = Number(await step(text, images).item());
    expect(loss).toBeLessThan(0.2);
    const prompt = [...image(), 1];
    const { tokens } = await new Generator(model.eval(), { length: 16 }).generate(
      { ids: [prompt, prompt], images },
      { maxNewTokens: 4, stopTokens: [2] },
    );
    expect(tokens).toEqual([[4, 5], [6]]);
  });

  test("images without placeholders, and placeholders without images, are refused", async () => {
    const model = new VisionLanguageModel(config);
    const images = randn([1, 3, 8, 8]);
    const generate = (prompts: never) => new Generator(model, { length: 8 }).generate(prompts, { maxNewTokens: 1 }); // biome-ignore format: one line
    await expect(generate([[1, ...image()]] as never)).rejects.toThrow(/placeholders alone/);
    await expect(generate({ ids: [[1, 4]], images } as never)).rejects.toThrow(/images alone/);
    await expect(generate({ ids: [[1, ...image(3)]], images } as never)).rejects.toThrow(/images of 4 tokens\), got 3 placeholders/); // biome-ignore format: one line
    const blind = new Generator(model.language, { length: 8 });
    await expect(blind.generate({ ids: [[1, ...image()]], images }, { maxNewTokens: 1 })).rejects.toThrow(/a model that sees/); // biome-ignore format: one line
    await expect(model.loss(ids([[1, ...image(5), 4]]), images).data()).rejects.toThrow(/indices within/); // biome-ignore format: one line
  });
});

describe("without a kernel", () => {
  beforeAll(async () => {
    await init({ device: "wasm" });
  });

  test("the 30B as a table: its weights are never made", { timeout: 60_000 }, () => {
    const model = new VisionLanguageModel(mm1Config("30B"));
    const before = process.memoryUsage().rss;
    const table = summary(model, [zeros([1, 200], { dtype: "i32" }), zeros([1, 3, 378, 378])], { depth: 1 }); // biome-ignore format: one line
    // Counted here from the widths: 32·1024 tokens twice; per block four maps of attention, three
    // of SwiGLU, norms.
    const block = 4 * 7168 ** 2 + 3 * 7168 * 19_200 + 2 * 7168 + 2 * 128;
    const parameters = new Map(table.rows.map((row) => [row.path, row.parameters]));
    expect(parameters.get("language")).toBe(2 * 32 * 1024 * 7168 + 48 * block + 7168);
    expect(table.parameters).toBe(30_862_132_800);
    expect(table.parameterBytes).toBe(4 * table.parameters);
    expect(table.rows[0].outputs).toEqual([[1, 200, 32 * 1024]]);
    // The table of a model of 123 GB, in a hundredth of that and less.
    expect(process.memoryUsage().rss - before).toBeLessThan(1e9);
  });

  test("the encoders and connectors of the ablations", () => {
    const model = new VisionLanguageModel(
      mm1Config("1.2B", { encoder: "AIM-600M", connector: { kind: "average", tokens: 64 } }),
    );
    expect(model.vision.config.width).toBe(1536);
    expect(model.connector.tokensOf(model.vision.grid)).toBe(64);
    expect(model.connector).toBeInstanceOf(AveragePoolConnector);
    expect(() => mm1Config("3B", { encoder: "AIM-2B" as "AIM-1B" })).toThrow(/600M, 1B, 3B, 7B/);
  });
});

test("files that are no MM1, or contradict themselves, are refused", async () => {
  await init({ device: "wasm" });
  const path = join(folder, "other.safetensors");
  const model = new VisionLanguageModel(config);
  const tokenizer = BpeTokenizer.train(["a"], { vocabSize: 260 });
  const metadata = (config: unknown, tokenizer: unknown) => ({
    "mm1.config": JSON.stringify(config),
    "mm1.tokenizer": JSON.stringify(tokenizer),
  });
  const sized = { ...config, language: { ...language, vocabulary: 260 } };
  const cases: [Record<string, string>, RegExp][] = [
    [{}, /metadata "mm1.config", got none.*saveMm1/s],
    [{ "mm1.config": "{" }, /JSON as "mm1.config"/],
    [metadata({ ...config, connector: { kind: "average", tokens: -1 } }, tokenizer), /sizes of a vision and a language model/], // biome-ignore format: one line
    [metadata({ ...config, vision: null }, tokenizer), /sizes/],
    [metadata(config, { model: 3 }), /a tokenizer, got BpeTokenizer: expected a model/],
    [metadata(config, tokenizer), /a tokenizer of 9 tokens, got 260/],
    [metadata({ ...sized, connector: { kind: "magic" } }, tokenizer), /sizes that fit together, got createConnector/], // biome-ignore format: one line
    [metadata(sized, tokenizer), /language.tokens.weight: expected f32\[260, 8\], got F32\[9, 8\]/],
  ];
  for (const [notes, message] of cases) {
    await saveModel(path, model, notes);
    const failure = await loadMm1(path).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(CheckpointError);
    expect((failure as Error).message).toMatch(message);
  }
});
