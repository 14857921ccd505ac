/**
 * @file Language models that see: where image tokens go, who sees them, the loss, tiles,
 * generation, folders.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CheckpointError,
  defaultDevice,
  init,
  manualSeed,
  randn,
  type Tensor,
  tensor,
} from "hinode";
import {
  expandImageTokens,
  Generator,
  llavaConfigOf,
  llavaJson,
  llavaNames,
  loadLlava,
  mm1Config,
  mm1Sizes,
  NO_TARGET,
  parameterCount,
  saveCheckpoint,
  saveLlava,
  spliceImages,
  type VisionLanguageConfig,
  VisionLanguageModel,
} from "hinode/models";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

/** 4 image tokens per image of 4 × 4 patches. */
const config: VisionLanguageConfig = {
  vision: {
    ...{ imageSize: 8, patchSize: 2, channels: 3, width: 8, depth: 1, heads: 2, hidden: 8 },
    classToken: true,
  },
  connector: { kind: "average", tokens: 4 },
  language: { vocabulary: 11, width: 8, depth: 1, heads: 2, hidden: 12 },
  imageToken: 3,
};
const nextJson = {
  model_type: "llava_next",
  vision_config: {
    ...{ hidden_size: 8, intermediate_size: 8, num_hidden_layers: 2, num_attention_heads: 2 },
    ...{ image_size: 4, patch_size: 2 },
  },
  text_config: {
    ...{ vocab_size: 11, hidden_size: 8, intermediate_size: 12, num_hidden_layers: 1 },
    ...{ num_attention_heads: 2, max_position_embeddings: 64 },
  },
  image_token_index: 3,
  image_grid_pinpoints: [[4, 8], [8, 4]], // biome-ignore format: one line
};
const close = { rtol: 1e-4, atol: 1e-5 };
const ids = (rows: number[][]) => tensor(rows, { dtype: "i32" });
const folder = mkdtempSync(join(tmpdir(), "hinode-llava-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

onEachDevice("VisionLanguageModel", (device) => {
  let model: VisionLanguageModel;
  let images: Tensor;
  beforeAll(() => {
    manualSeed(6);
    model = new VisionLanguageModel(config);
    images = randn([2, 3, 8, 8]);
  });
  const image = (i: number) => images.narrow(0, i, 1);

  test("image tokens take the placeholders' places in order, and must be as many", async () => {
    const text = randn([2, 3, 2]);
    const at = [[true, false, true], [false, false, true]]; // biome-ignore format: one line
    const mask = tensor(at, { dtype: "bool" });
    const rows = tensor([[1, 2], [3, 4], [5, 6]]); // biome-ignore format: one line
    const words = (await text.tolist()) as number[][][];
    let next = 0;
    const want = at.map((row, b) => row.map((isImage, t) => (isImage ? [1 + 2 * next, 2 + 2 * next++] : words[b][t]))); // biome-ignore format: one line
    expect(await spliceImages(text, mask, rows).tolist()).toEqual(want);
    await expect(spliceImages(text, mask, rows.narrow(0, 0, 2)).data()).rejects.toThrow(
      /indices within/,
    );
    await expect(spliceImages(text, mask, rows.narrow(0, 0, 1)).data()).rejects.toThrow(
      /indices within/,
    );
    expect(() => spliceImages(text, mask, randn([3, 4]))).toThrow(/\[R, 2\].*got \[3, 4\]/);
  });

  test.skipIf(device === "webgpu")("a placeholder needs no row in the table", async () => {
    const [a, b] = [3, -200].map((imageToken) => {
      const other = new VisionLanguageModel({ ...config, imageToken });
      Object.assign(other, {
        vision: model.vision,
        connector: model.connector,
        language: model.language,
      });
      return other.embed(ids([[1, ...new Array<number>(4).fill(imageToken), 5]]), image(0)).data();
    });
    expect(await a).toEqual(await b);
  });

  test("packed examples, each with its image, see nothing of one another", async () => {
    const [first, second] = [[1, 3, 3, 3, 3, 4, 5], [1, 6, 3, 3, 3, 3, 7]]; // biome-ignore format: one line
    const documents = ids([[...first.map(() => 0), ...second.map(() => 1)]]);
    const packed = await model.forward(ids([[...first, ...second]]), images, { documents }).data();
    const apart = [first, second].map((row, i) => model.forward(ids([row]), image(i)).data());
    const [a, b] = await Promise.all(apart);
    expect(difference(packed, [...a, ...b], close)).toBeNull();
  });

  test.skipIf(device === "webgpu")("the loss is on text alone", async () => {
    const row = [1, 3, 3, 3, 3, 4, 5, 2];
    // Placeholders and padding are no targets; what they are told to be does not matter.
    const padded = ids([[...row, 0, 0]]);
    const mask = ids([[...row.map(() => 1), 0, 0]]);
    const logits = (await model.forward(padded, image(0), { mask }).tolist()) as number[][][];
    const terms = [[4, 4], [5, 5], [6, 2]].map(([t, target]) => {
      const scores = logits[0][t];
      return Math.log(scores.reduce((a, s) => a + Math.exp(s), 0)) - scores[target];
    }); // biome-ignore format: one line
    const loss = Number(await model.loss(padded, image(0), { mask }).item());
    expect(Math.abs(loss - terms.reduce((a, b) => a + b) / 3)).toBeLessThan(1e-4);
    const answer = ids([row.map((id, t) => (t === 7 ? id : NO_TARGET))]);
    const one = Number(await model.loss(ids([row]), image(0), { labels: answer }).item());
    expect(Math.abs(one - terms[2])).toBeLessThan(1e-4);
  });

  test.skipIf(device === "webgpu")(
    "parts can be frozen, and blocks computed once more for the gradient",
    async () => {
      const other = new VisionLanguageModel(config);
      other.vision.requiresGrad_(false);
      const row = ids([[1, 3, 3, 3, 3, 4, 5]]);
      const gradient = async (checkpoint: boolean) => {
        other.connector.zeroGrad();
        other.loss(row, image(0), { checkpoint }).backward();
        const [weight] = other.connector.parameters();
        return await weight.grad!.data();
      };
      const plain = await gradient(false);
      expect(Math.max(...plain.map(Math.abs))).toBeGreaterThan(0);
      expect(difference(await gradient(true), plain, close)).toBeNull();
      expect(other.vision.parameters().every((p) => p.grad === null)).toBe(true);
    },
  );

  test.skipIf(device === "webgpu")("greedy generation from a prompt with an image is the uncached pass's", async () => {
    const prompt = [1, 3, 3, 3, 3, 4];
    const want = [...prompt];
    for (let i = 0; i < 3; i++) {
      const last = model.forward(ids([want]), image(1)).select(1, want.length - 1).squeeze(0);
      const scores = (await last.tolist()) as number[];
      scores[3] = -Infinity; // A placeholder is never written.
      want.push(scores.indexOf(Math.max(...scores)));
    }
    const generator = new Generator(model, { length: 16 });
    const said = [want.slice(prompt.length)];
    for (const prompts of [
      { ids: [prompt], images: image(1) },
      { embeddings: model.embed(ids([prompt]), image(1)) },
    ])
      expect((await generator.generate(prompts, { maxNewTokens: 3 })).tokens).toEqual(said);
  }); // biome-ignore format: the name is long

  test("an image never goes on in the next row of the batch", async () => {
    const rows = [[1, 3, 3, 3, 5], [3, 3, 3, 3, 3]]; // biome-ignore format: one line
    await expect(model.forward(ids(rows), images).data()).rejects.toThrow(/indices within/);
    await expect(model.loss(ids(rows), images).data()).rejects.toThrow(/indices within/);
    const both = [[1, 5, 3, 3, 3, 3, 3, 3, 3, 3], [1, 5, 6, 7, 8, 9, 1, 2, 4, 5]]; // biome-ignore format: one line
    expect(Number(await model.loss(ids(both), images).item())).toBeGreaterThan(0);
    const generator = new Generator(model, { length: 16 });
    const run = (rows: number[][], given: Tensor) =>
      generator.generate({ ids: rows, images: given }, { maxNewTokens: 1 });
    await expect(run([[1, 3, 3, 3], rows[1]], images)).rejects.toThrow(
      /images of 4,4 tokens\), got 3,5 placeholders/,
    );
    await expect(run([[1, 3, 3, 3, 3]], images)).rejects.toThrow(/for all images/);
    const made = model.imageRows(images);
    await expect(run([[1, 3, 3, 3, 3]], made)).rejects.toThrow(/8 rows of image tokens/);
    await expect(run([[1, 3, 3, 3, 3]], images.select(0, 0))).rejects.toThrow(/\[N, C, H, W\]/);
    // Nothing has failed on the device, so the next is as usual.
    const said = await run(
      [
        [1, 3, 3, 3, 3],
        [3, 3, 3, 3, 6],
      ],
      images,
    );
    expect(
      (
        await run(
          [
            [1, 3, 3, 3, 3],
            [3, 3, 3, 3, 6],
          ],
          made,
        )
      ).tokens,
    ).toEqual(said.tokens);
  });

  test.skipIf(device === "webgpu")(
    "after a pass that failed the next one is as if it had not been",
    async () => {
      const generator = new Generator(model, { length: 16 });
      const prompt = (id: number) => ({ ids: [[1, id, 3, 3, 3, 3]], images: image(0) });
      const options = { maxNewTokens: 3 };
      const { tokens } = await generator.generate(prompt(4), options);
      await expect(generator.generate(prompt(11), options)).rejects.toThrow(/indices within/);
      expect((await generator.generate(prompt(4), options)).tokens).toEqual(tokens);
      const search = (id: number) => generator.search(prompt(id), { ...options, beams: 2 });
      const found = await search(4);
      await expect(search(11)).rejects.toThrow(/indices within/);
      expect(await search(4)).toEqual(found);
    },
  );

  test.skipIf(device === "webgpu")("tiles: their count, their order, and what follows them", async () => {
    const llava = new VisionLanguageModel(llavaConfigOf(nextJson));
    const imageSizes = [{ width: 8, height: 4 }, { width: 3, height: 9 }]; // biome-ignore format: one line
    const pixelValues = randn([2, 4, 3, 4, 4]);
    const counts = llava.tokenCounts({ pixelValues, imageSizes });
    const rows = await llava.imageRows({ pixelValues, imageSizes }).tolist() as number[][];
    expect(rows.length).toBe(counts[0] + counts[1]);
    const tokens = (await llava.encode(pixelValues.select(0, 0).narrow(0, 0, 3)).tolist()) as number[][][];
    const newline = (await llava.newline!.tolist()) as number[];
    const [whole, left, right] = tokens;
    const want = [
      ...whole,
      ...[left[0], left[1], right[0], right[1], newline],
      ...[left[2], left[3], right[2], right[3], newline],
    ];
    expect(difference(rows.slice(0, counts[0]).flat(), want.flat(), close)).toBeNull();
    const text = [expandImageTokens([1, 3, 5, 3], 3, counts)];
    const scores = llava.forward(ids(text), { pixelValues, imageSizes });
    expect(scores.shape).toEqual([1, 2 + counts[0] + counts[1], 11]);
    expect(() => llava.imageRows(pixelValues.select(1, 0))).toThrow(/imageSizes/);
    expect(() => llava.imageRows({ pixelValues, imageSizes: imageSizes.slice(1) })).toThrow(/\[1, ≥/);
    expect(() => expandImageTokens([1, 3], 3, [2, 2])).toThrow(/2 placeholders/);
  }); // biome-ignore format: the name is long

  test.skipIf(device === "webgpu")("a folder of the Hugging Face library is read strictly", async () => {
    const llava = new VisionLanguageModel(llavaConfigOf(nextJson)).eval();
    const path = join(folder, defaultDevice().name);
    mkdirSync(path);
    await saveLlava(path, llava);
    const loaded = await loadLlava(path);
    expect(loaded.config.pinpoints).toEqual(nextJson.image_grid_pinpoints);
    const pixels = randn([1, 3, 4, 4]);
    const scores = (of: VisionLanguageModel) =>
      of.forward(ids([[1, 3, 3, 3, 3, 5]]), of.encode(pixels).squeeze(0)).data();
    expect(await scores(loaded)).toEqual(await scores(llava));
    const other = { ...llavaJson(llava), model_type: "llava" };
    await saveCheckpoint(path, llavaNames(llava), other);
    await expect(loadLlava(path)).rejects.toThrow(CheckpointError);
  }); // biome-ignore format: the name is long
});

describe("configurations", () => {
  beforeAll(async () => {
    await init({ device: "wasm" });
  });

  test("MM1's sizes, whose models are made without memory for their weights", () => {
    const count = (model: VisionLanguageModel) =>
      model.parameters().reduce((n, p) => n + p.shape.reduce((a, b) => a * b, 1), 0);
    const connectors: Partial<Record<string, number>> = { "1.2B": 22_713_856, "3B": 31_056_704, "7B": 39_447_360 }; // biome-ignore format: one line
    for (const size of mm1Sizes) {
      const model = new VisionLanguageModel(mm1Config(size));
      const [vision, language] = [model.vision, model.language].map((part) => part.parameters().reduce((n, p) => n + p.shape.reduce((a, b) => a * b, 1), 0)); // biome-ignore format: one line
      expect(language).toBe(parameterCount(model.config.language).total);
      // CLIP's image tower without its projection, which the connector has no use for.
      const [width, published] = size === "1.2B" ? [1024, 304.29] : [1280, 632.68];
      const projection = width * (size === "1.2B" ? 768 : 1024);
      expect(((vision + projection) / 1e6).toFixed(2)).toBe(published.toFixed(2));
      const rest = count(model) - vision - language;
      if (connectors[size]) expect(rest).toBe(connectors[size]);
      // 1344 pixels: five sub-images of 672, each 48 × 48 patches.
      expect(model.connector.tokensOf([48, 48])).toBe(144);
    }
    expect(() => mm1Config("2B" as "3B")).toThrow(/1\.2B, 3B/);
  });

  test("LLaVA-NeXT's token counts", () => {
    const model = new VisionLanguageModel(llavaConfigOf({ model_type: "llava_next" }));
    const sizes = [[640, 480], [480, 640], [2000, 500], [300, 300], [1200, 1200], [800, 400]]; // biome-ignore format: one line
    const imageSizes = sizes.map(([width, height]) => ({ width, height }));
    const counts = model.tokenCounts({ pixelValues: randn([1]), imageSizes });
    expect(counts).toEqual([2340, 2352, 1890, 1176, 2928, 1752]);
    const plain = new VisionLanguageModel(llavaConfigOf({}));
    expect(plain.tokenCounts(randn([2, 3, 336, 336]))).toEqual([576, 576]);
    const full = llavaConfigOf({ vision_feature_select_strategy: "full", vision_feature_layer: [-2, 3] }); // biome-ignore format: one line
    expect(new VisionLanguageModel(full).tokenCounts(randn([1, 3, 336, 336]))).toEqual([577]);
  });

  test("what we do not have is refused", () => {
    expect(() => llavaConfigOf({ model_type: "blip" })).toThrow(/llava or llava_next, got "blip"/);
    expect(() => llavaConfigOf({ vision_config: { model_type: "siglip" } })).toThrow(/clip_vision/);
    expect(() => llavaConfigOf({ vision_feature_select_strategy: "cls" })).toThrow(
      /default or full/,
    );
    expect(() => llavaJson(new VisionLanguageModel(config))).toThrow(/expected an MLP/);
    const clip = { classToken: true, preNorm: true, patchBias: false };
    const seeing = (vision: object) => () =>
      llavaJson(new VisionLanguageModel({ ...config, connector: { kind: "mlp" }, layer: -1, vision: { ...config.vision, ...clip, ...vision } })); // biome-ignore format: one line
    expect(seeing({})).not.toThrow();
    expect(seeing({ preNorm: false })).toThrow(/with its preNorm/);
    expect(seeing({ qkvBias: false })).toThrow(/with its qkvBias/);
    expect(() => llavaConfigOf({ multimodal_projector_bias: 1 })).toThrow(/true or false, got 1/);
    expect(() => llavaConfigOf({ image_token_index: "3" })).toThrow(/image_token_index: a number/);
    expect(() => new VisionLanguageModel({ ...config, classToken: true })).toThrow(
      /linear or an MLP/,
    );
    const deep = new VisionLanguageModel({ ...config, layer: 4 });
    expect(() => deep.encode(randn([1, 3, 8, 8]))).toThrow(/2 hidden states, got 4/);
  });
});
