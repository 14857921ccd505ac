/**
 * @file Whole models in folders: what is saved is what is loaded, in one file or in shards; what
 * does not fit is named; weights are halved or quantised on their way, one after the other.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"; // biome-ignore format: one line
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  ArgumentError,
  CheckpointError,
  defaultDevice,
  manualSeed,
  randn,
  type Tensor,
  tensor,
} from "hinode";
import {
  BpeTokenizer,
  CAbstractor,
  CLIP,
  cAbstractorNames,
  clipNames,
  clipVisionConfig,
  Generator,
  LanguageModel,
  layerNames,
  loadCheckpoint,
  loadCLIP,
  loadLanguageModel,
  loadMm1,
  loadVisionLanguageModel,
  loadWeightsFile,
  type MixtureOfExperts,
  ownNames,
  readLlama2c,
  readLlama2cTokenizer,
  saveCheckpoint,
  saveCLIP,
  saveLanguageModel,
  saveMm1,
  saveVisionLanguageModel,
  type VisionLanguageConfig,
  VisionLanguageModel,
  ViT,
} from "hinode/models";
import { convertWeights, Linear, loadModel, Module, QuantizedLinear, saveModel } from "hinode/nn";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { useDevice } from "../support/devices.ts";

const root = mkdtempSync(join(tmpdir(), "hinode-weights-"));
afterAll(() => rmSync(root, { recursive: true }));
let folders = 0;
const folder = (): string => {
  const path = join(root, `${folders++}`);
  mkdirSync(path);
  return path;
};
const fixture = (name: string) =>
  new Uint8Array(readFileSync(join(import.meta.dirname, "..", "fixtures", name)));
const ids = (rows: number[][]) => tensor(rows, { dtype: "i32" });

beforeAll(() => useDevice("wasm"));

describe("stories260K", () => {
  const tokenizer = readLlama2cTokenizer(fixture("tok512.bin"), 512);
  let model: LanguageModel;
  let path: string;
  let want: Tensor;
  const prompt = tokenizer.encode("Once upon a time, there was");
  const scores = (of: LanguageModel) => of.logits(of.forward(of.embed(ids([prompt]))));
  const tell = async (of: LanguageModel, count: number): Promise<readonly number[]> => {
    const generator = new Generator(of, { length: 128 });
    return (await generator.generate([prompt], { maxNewTokens: count })).tokens[0];
  };

  beforeAll(async () => {
    model = (await readLlama2c(fixture("stories260K.bin"))).eval();
    path = folder();
    // The library has no interleaved heads: their rows in its order. Here the numbers matter, not
    // the story.
    const config = { ...model.config, rope: {} };
    const names = new Map([...model.namedTensors()].map(([name, cell]) => [name, { cell }]));
    await saveCheckpoint(path, names, { config });
    want = scores(model);
  });

  /** The same model, filled from the folder. */
  const loaded = async (options: Parameters<typeof loadModel>[2]): Promise<LanguageModel> => {
    const other = (await readLlama2c(fixture("stories260K.bin"))).eval();
    for (const p of other.parameters()) p.requiresGrad = false;
    await loadModel(join(path, "model.safetensors"), other, options);
    return other;
  };
  const error = async (other: LanguageModel): Promise<number> =>
    (await scores(other).sub(want).norm().div(want.norm()).item()) as number;

  test("int8 tells the same story, in a fraction of the memory", async () => {
    const other = await loaded({ dtype: "int8", groupSize: 32 });
    expect(other.blocks[0].attention.out).toBeInstanceOf(QuantizedLinear);
    expect(await tell(other, 60)).toEqual(await tell(model, 60));
    expect(await error(other)).toBeLessThan(0.02);
  });

  test("int4 stays near, halves nearer", async () => {
    const int4 = await loaded({ dtype: "int4", groupSize: 32 });
    const off = await error(int4);
    expect(off).toBeGreaterThan(0.01);
    expect(off).toBeLessThan(0.3);
    expect((await tell(int4, 4)).slice(0, 2)).toEqual((await tell(model, 4)).slice(0, 2));
    for (const [dtype, bound] of [["f16", 0.005], ["bf16", 0.04]] as const) {
      const half = await loaded({ dtype });
      expect(half.parameters().every((p) => p.dtype === dtype)).toBe(true);
      expect(await error(half)).toBeLessThan(bound);
      expect((await tell(half, 4)).slice(0, 2)).toEqual((await tell(model, 4)).slice(0, 2));
    } // biome-ignore format: pairs
  });

  test("only some layers; and what asks for nonsense is told", async () => {
    const other = await loaded({ dtype: "int8", targets: ["out"] });
    expect(other.blocks[0].attention.out).toBeInstanceOf(QuantizedLinear);
    expect(other.blocks[0].attention.qkv).toBeInstanceOf(Linear);
    await expect(loaded({ dtype: "f64" as "f16" })).rejects.toThrow(/f16, bf16, int8 or int4/);
    await expect(loaded({ groupSize: 8 })).rejects.toThrow(/with dtype int8 or int4, got none/);
  });
});

describe("folders of the Hugging Face library", () => {
  const config = {
    ...{ vocabulary: 50, width: 32, depth: 2, heads: 4, kvHeads: 2, hidden: 48 },
    ...{ maxPositions: 64, eps: 1e-5 },
  };
  const make = async () => {
    const { LanguageModel } = await import("hinode/models");
    manualSeed(3);
    return new LanguageModel(config).eval();
  };
  const scoresOf = (m: LanguageModel) => m.logits(m.forward(m.embed(ids([[1, 2, 3]])))).data();

  test("one file or shards: the same model", async () => {
    const model = await make();
    const want = await scoresOf(model);
    const [one, many] = [folder(), folder()];
    await saveLanguageModel(one, model);
    await saveLanguageModel(many, model, { maxShardSize: 10_000 });
    expect(readdirSync(one).sort()).toEqual(["config.json", "model.safetensors"]);
    const shards = readdirSync(many).filter((name) => name.endsWith(".safetensors"));
    expect(shards.length).toBeGreaterThan(3);
    const index = JSON.parse(readFileSync(join(many, "model.safetensors.index.json"), "utf8"));
    expect(new Set(Object.values(index.weight_map))).toEqual(new Set(shards));
    // What the library's own code looks for.
    expect(Object.keys(index.weight_map)).toContain("model.layers.1.self_attn.k_proj.weight");
    for (const path of [one, many]) {
      const other = await loadLanguageModel(path);
      expect(other.config.kvHeads).toBe(2);
      expect(await scoresOf(other)).toEqual(want);
    }
    // From shards in another type.
    const half = await loadLanguageModel(many, { dtype: "bf16" });
    expect(half.head!.weight.dtype).toBe("bf16");
    const int8 = await loadLanguageModel(many, { dtype: "int8", groupSize: 16 });
    expect(int8.head).toBeInstanceOf(QuantizedLinear);
    expect(difference(await scoresOf(int8), want, { rtol: 0, atol: 0.05 })).toBeNull();
  });

  test("what does not fit is named, all of it, and nothing is read", async () => {
    const path = folder();
    const model = await make();
    await saveLanguageModel(path, model);
    const refused = async (edit: (config: Record<string, unknown>) => void, ...said: RegExp[]) => {
      const text = readFileSync(join(path, "config.json"), "utf8");
      const json = JSON.parse(text);
      edit(json);
      writeFileSync(join(path, "config.json"), JSON.stringify(json));
      const error = await loadLanguageModel(path, { dtype: "int8" }).catch((e) => e);
      expect(error).toBeInstanceOf(CheckpointError);
      for (const part of said) expect(error.message).toMatch(part);
      writeFileSync(join(path, "config.json"), text);
    };
    await refused((c) => {
      c.num_hidden_layers = 3;
    }, /missing: model\.layers\.2\.input_layernorm\.weight, .*layers\.2\.mlp\.down_proj\.weight/);
    await refused((c) => {
      c.num_hidden_layers = 1;
    }, /unexpected: .*model\.layers\.1\.mlp\.up_proj\.weight/);
    await refused(
      (c) => {
        c.intermediate_size = 40;
      },
      /layers\.0\.mlp\.gate_proj\.weight: expected f32\[40, 32\], got f32\[48, 32\]/,
      /layers\.1\.mlp\.down_proj\.weight: expected f32\[32, 40\], got f32\[32, 48\]/,
    );
    const file = join(path, "model.safetensors");
    truncateSync(file, readFileSync(file).length - 1);
    await expect(loadLanguageModel(path)).rejects.toThrow(/data within the file's .*cut off/);
    rmSync(file);
    await expect(loadLanguageModel(path)).rejects.toThrow(/model\.safetensors or .*index\.json/);
    writeFileSync(join(path, "config.json"), "{");
    await expect(loadLanguageModel(path)).rejects.toThrow(CheckpointError);
  });
});

test("a model that sees, with any connector; and Honeybee's names for a C-Abstractor", async () => {
  const vision = {
    ...{ imageSize: 8, patchSize: 2, channels: 3, width: 8, depth: 1, heads: 2, hidden: 8 },
    classToken: true,
  };
  const config: VisionLanguageConfig = {
    vision,
    connector: { kind: "c-abstractor", tokens: 4, hidden: 16, depth: 1 },
    language: { vocabulary: 11, width: 8, depth: 1, heads: 2, hidden: 12, qkNorm: true },
    imageToken: 3,
  };
  const model = new VisionLanguageModel(config).eval();
  const [images, text] = [randn([1, 3, 8, 8]), ids([[1, 3, 3, 3, 3, 5]])];
  const scores = (of: VisionLanguageModel) => of.forward(text, images).data();
  const path = folder();
  await saveVisionLanguageModel(path, model, { maxShardSize: 4000 });
  expect(await scores(await loadVisionLanguageModel(path))).toEqual(await scores(model));
  const int8 = await loadVisionLanguageModel(path, { dtype: "int8" });
  expect(int8.vision.embed.projection).toBeInstanceOf(QuantizedLinear);
  expect(difference(await scores(int8), await scores(model), { rtol: 0, atol: 0.1 })).toBeNull();
  // Images are f32 all the same.
  const mixed = { dtype: "int8", rest: "bf16", targets: [/blocks/, "projection"] } as const;
  const integersAndHalves = await loadVisionLanguageModel(path, mixed);
  for (const half of [
    await loadVisionLanguageModel(path, { dtype: "f16" }),
    await loadVisionLanguageModel(path, { dtype: "bf16" }),
    integersAndHalves,
  ]) {
    expect(half.parameters().every((p) => p.dtype !== "f32")).toBe(true);
    expect(half.forward(text, images).dtype).toBe(half.language.norm.weight!.dtype);
    const got = await half.forward(text, images).float().data();
    expect(difference(got, await scores(model), { rtol: 0, atol: 0.1 })).toBeNull();
  }
  // What is quantised is saved and loaded as it is, in folders and in one file.
  const again = folder();
  await saveVisionLanguageModel(again, integersAndHalves);
  const same = await loadVisionLanguageModel(again);
  expect(same.language.blocks[0].attention.out).toBeInstanceOf(QuantizedLinear);
  expect(same.connector.parameters()[0].dtype).toBe("bf16");
  expect(await scores(same)).toEqual(await scores(integersAndHalves));
  await expect(loadVisionLanguageModel(again, { dtype: "int8" })).rejects.toThrow(
    /no dtype, as there are integers already, got "int8"/,
  );
  const connector = model.connector as CAbstractor;
  const alone = folder();
  await saveCheckpoint(alone, cAbstractorNames(connector, "projector."), {});
  const other = new CAbstractor(connector.config);
  await loadCheckpoint(alone, other, (c) => cAbstractorNames(c), { prefix: "projector." });
  const features = randn([1, 16, 8]);
  const tokens = (c: CAbstractor) => c.forward(features).data();
  expect(await tokens(other)).toEqual(await tokens(connector));
  writeFileSync(join(path, "config.json"), '{"model_type": "hinode_vision_language", "config": 1}');
  await expect(loadVisionLanguageModel(path)).rejects.toThrow(/a VisionLanguageConfig/);
});

test("one file of a model and its tokenizer: integers are saved, and made on the way", async () => {
  const tokenizer = BpeTokenizer.train(["red apple"], { vocabSize: 270, minFrequency: 1 });
  const sizes = { width: 8, depth: 1, heads: 2, hidden: 12 };
  const model = new VisionLanguageModel({
    vision: { imageSize: 8, patchSize: 4, channels: 3, ...sizes },
    connector: { kind: "mlp" },
    language: { vocabulary: tokenizer.vocabularySize, ...sizes },
    imageToken: 3,
  }).eval();
  const [images, text] = [randn([1, 3, 8, 8]), ids([[1, 3, 3, 3, 3, 5]])];
  const scores = (of: VisionLanguageModel) => of.forward(text, images).data();
  const [floats, integers] = [0, 1].map((i) => join(folder(), `${i}.safetensors`));
  await saveMm1(floats, model, tokenizer);
  const { model: int8 } = await loadMm1(floats, { dtype: "int8", groupSize: 4 });
  expect(int8.language.head).toBeInstanceOf(QuantizedLinear);
  await saveMm1(integers, int8, tokenizer);
  expect(await scores((await loadMm1(integers)).model)).toEqual(await scores(int8));
  await expect(loadMm1(integers, { dtype: "f16" })).rejects.toThrow(/integers already/);
});

test.each(["learned", "sincos"] as const)(
  "an encoder in halves with %s positions takes images in f32 of any size",
  async (positions) => {
    const sizes = { width: 8, depth: 1, heads: 2, hidden: 16, positions, classToken: true };
    const vit = new ViT({ imageSize: 8, patchSize: 4, channels: 3, ...sizes });
    const images = randn([1, 3, 12, 12]);
    const tokens = () => vit.forward(images, { interpolate: true });
    const want = await tokens().data();
    vit.to("f16");
    expect(tokens().dtype).toBe("f16");
    expect(difference(await tokens().float().data(), want, { rtol: 0, atol: 0.05 })).toBeNull();
  },
);

test("a CLIP in halves takes images in f32; the library's format refuses integers", async () => {
  const tower = { width: 8, depth: 1, heads: 2, hidden: 16 };
  const clip = new CLIP({
    embed: 6,
    vision: clipVisionConfig({ imageSize: 8, patchSize: 4, channels: 3, ...tower }),
    text: { vocabulary: 20, context: 6, ...tower },
  });
  const path = folder();
  await saveCLIP(path, clip);
  const images = randn([2, 3, 8, 8]);
  const want = await clip.eval().encodeImage(images).data();
  for (const dtype of ["f16", "bf16"] as const) {
    const half = await loadCLIP(path, { dtype });
    const features = half.encodeImage(images);
    expect(features.dtype).toBe(dtype);
    expect(difference(await features.float().data(), want, { rtol: 0, atol: 0.1 })).toBeNull();
  }
  const int8 = await loadCLIP(path, { dtype: "int8" });
  const refused = /a layer of floats, got integers of 8 bits/;
  await expect(async () => saveCLIP(folder(), int8)).rejects.toThrow(refused);
  expect(() => [...layerNames("up", int8.visionProjection)]).toThrow(ArgumentError);
  expect(() => clipNames(int8)).toThrow(refused);
});

describe("language models that no other library has", () => {
  const config = {
    ...{ vocabulary: 30, width: 16, depth: 2, heads: 2, hidden: 16 },
    experts: { count: 4, every: 2, capacityFactor: 2, zWeight: 0.001 },
  };
  const scores = (of: LanguageModel) => of.logits(of.forward(of.embed(ids([[1, 2, 3]])))).data();

  test("experts in some blocks, of a capacity: in our own format", async () => {
    const model = new LanguageModel(config).eval();
    const [path, quantized] = [folder(), folder()];
    await expect(saveLanguageModel(path, model)).rejects.toThrow(/format: "hinode" writes any/);
    await saveLanguageModel(path, model, { format: "hinode" });
    const other = await loadLanguageModel(path);
    expect(other.config).toEqual(config);
    expect(await scores(other)).toEqual(await scores(model));
    // Its router and its experts stay floats.
    const int8 = await loadLanguageModel(path, { dtype: "int8", groupSize: 8 });
    const { router, gate } = int8.blocks[1].feedForward as MixtureOfExperts;
    expect(router).toBeInstanceOf(Linear);
    expect(gate.dtype).toBe("f32");
    expect(int8.blocks[1].attention.out).toBeInstanceOf(QuantizedLinear);
    await expect(saveLanguageModel(quantized, int8)).rejects.toThrow(/format: "hinode"/);
    await saveLanguageModel(quantized, int8, { format: "hinode" });
    expect(await scores(await loadLanguageModel(quantized))).toEqual(await scores(int8));
    const named = await loadLanguageModel(path, { dtype: "int4", targets: ["router"] });
    expect((named.blocks[1].feedForward as MixtureOfExperts).router).toBeInstanceOf(QuantizedLinear); // biome-ignore format: one line
    const nonsense = saveLanguageModel(path, model, { format: "gguf" as "hinode" });
    await expect(nonsense).rejects.toThrow(/"huggingface" or "hinode", got "gguf"/);
    await expect(loadLanguageModel(path, { rest: "f16" })).rejects.toThrow(/with dtype int8/);
  });
});

class Tower extends Module {
  layers: Linear[];
  constructor(depth: number, width: number) {
    super();
    this.layers = Array.from({ length: depth }, () => new Linear(width, width, { bias: false }));
  }
  forward(x: Tensor): Tensor {
    return this.layers.reduce((y, layer) => layer.forward(y), x);
  }
}

test("a map is compared with the file once", async () => {
  let walks = 0;
  class Counted<K, V> extends Map<K, V> {
    override [Symbol.iterator]() {
      walks++;
      return super[Symbol.iterator]();
    }
  }
  const path = join(folder(), "tower.safetensors");
  await saveModel(path, new Tower(2, 4));
  const counted = (tower: Tower) => new Counted(ownNames(tower));
  await loadWeightsFile(path, counted(new Tower(2, 4)));
  const once = walks;
  await loadCheckpoint(path, new Tower(2, 4), counted);
  expect(walks).toBe(2 * once);
});

test.each([
  [{ dtype: "int8", rest: "f16" }, 1 + 4 / 128],
  [{ dtype: "f16" }, 2],
] as const)("a model made as %o never has all of its weights as floats", async (options, bytes) => {
  const [depth, width] = [12, 256];
  const device = defaultDevice();
  await device.collect();
  const before = device.memory().liveBytes;
  const tower = await convertWeights(new Tower(depth, width), options);
  // No garbage was collected: nothing but the result was kept.
  const kept = device.memory().liveBytes - before;
  expect(kept).toBeGreaterThan(0.99 * bytes * depth * width ** 2);
  expect(kept).toBeLessThan(1.1 * bytes * depth * width ** 2);
  const y = await tower
    .forward(randn([1, width]).to("f16"))
    .float()
    .norm()
    .item();
  expect(Number.isFinite(y)).toBe(true);
});

test("int8 on load: one cell at a time is there as floats", async () => {
  const [depth, width] = [24, 512];
  const path = join(folder(), "tower.safetensors");
  const tower = new Tower(depth, width);
  await saveModel(path, tower);
  for (const p of tower.parameters()) p.dispose();
  const device = defaultDevice();
  await device.collect();
  const before = device.memory().liveBytes;
  let most = 0;
  const { upload } = device;
  // Every tensor of the file passes here.
  device.upload = function (...args: Parameters<typeof upload>) {
    const handle = upload.apply(this, args);
    most = Math.max(most, this.memory().liveBytes - before);
    return handle;
  };
  const other = new Tower(depth, width);
  try {
    await loadModel(path, other, { dtype: "int8" });
  } finally {
    device.upload = upload;
  }
  const [floats, integers] = [4 * width ** 2, width ** 2 * (1 + 4 / 128)];
  // All layers as integers, one as floats; and what a kernel needs while it runs.
  expect(most).toBeGreaterThan(floats);
  expect(most).toBeLessThan(1.1 * depth * integers + 3 * floats);
  expect(most).toBeLessThan(0.4 * depth * floats);
});
