/**
 * @file CLIP: sizes, contrastive loss, ends of texts, zero-shot classification, and weights under
 * other libraries' names.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CheckpointError,
  defaultDevice,
  init,
  manualSeed,
  noGrad,
  randn,
  type Tensor,
  tensor,
} from "hinode";
import {
  CLIP,
  type ClipConfig,
  clipConfig,
  clipJson,
  clipNames,
  clipSizes,
  contrastiveLoss,
  loadCLIP,
  loadCLIPVision,
  loadOpenCLIP,
  loadWeights,
  openClipConfigOf,
  openClipJson,
  openClipNames,
  saveCLIP,
  saveOpenCLIP,
  storedWeights,
  zeroShotLogits,
  zeroShotWeights,
} from "hinode/models";
import { optim, saveSafetensors } from "hinode/nn";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { devices } from "../support/devices.ts";

const config: ClipConfig = {
  embed: 6,
  vision: {
    ...{ imageSize: 8, patchSize: 4, channels: 3, width: 8, depth: 1, heads: 2, hidden: 12 },
    ...{ classToken: true, preNorm: true, patchBias: false, activation: "quick_gelu" },
  },
  text: {
    ...{ vocabulary: 11, context: 6, width: 12, depth: 2, heads: 3, hidden: 16 },
    activation: "quick_gelu",
  },
};
const folder = mkdtempSync(join(tmpdir(), "hinode-clip-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ids = (rows: number[][]) => tensor(rows, { dtype: "i32" });
const close = { rtol: 1e-4, atol: 1e-5 };

/** Parameters of a tower of transformer blocks whose MLP is four times as wide. */
const blocks = (depth: number, d: number) => depth * (12 * d * d + 13 * d);

describe("sizes", () => {
  beforeAll(async () => {
    await init({ device: "wasm" });
  });

  /**
   * [embed, grid, patch, vision depth and width, text depth and width], and the total of the
   * published weights.
   */
  const published = {
    "B/16": [512, 14, 16, 12, 768, 12, 512, 149_620_737],
    "L/14": [768, 16, 14, 24, 1024, 12, 768, 427_616_513],
    "L/14-336": [768, 24, 14, 24, 1024, 12, 768, 427_944_193],
    "H/14": [1024, 16, 14, 32, 1280, 24, 1024, 986_109_441],
    "H/14-378": [1024, 27, 14, 32, 1280, 24, 1024, 986_714_881],
  } as const;

  test.for(clipSizes)(
    "%s has the published number of parameters, and costs no memory",
    async (size) => {
      const [embed, grid, patch, depth, d, textDepth, t, total] = published[size];
      const before = defaultDevice().memory().liveBytes;
      const model = new CLIP(clipConfig(size));
      const image = 3 * patch ** 2 * d + d + (grid ** 2 + 1) * d + blocks(depth, d) + 4 * d;
      expect(model.vision.numParameters()).toBe(image);
      expect(model.text.numParameters()).toBe(49_408 * t + 77 * t + blocks(textDepth, t) + 2 * t);
      expect(model.numParameters()).toBe(total);
      expect(total).toBe(image + d * embed + model.text.numParameters() + t * embed + 1);
      // Nor when something else is computed: first values wait until they are asked for.
      await randn([3]).data();
      expect(defaultDevice().memory().liveBytes - before).toBeLessThan(10_000);
    },
  );

  test("H/14's heads are 80 wide; another size is refused", () => {
    const { width, heads } = clipConfig("H/14").vision;
    expect(width / heads).toBe(80);
    const vision = { ...config.vision, classToken: false };
    expect(() => new CLIP({ ...config, vision })).toThrow(/with a class token/);
    expect(() => clipConfig("H/15" as "H/14")).toThrow(/B\/16, L\/14/);
  });

  test("open_clip's configurations are the sizes, and what we lack is refused", () => {
    const text = { context_length: 77, vocab_size: 49_408 };
    const files = {
      "B/16": { embed_dim: 512, vision_cfg: { image_size: 224, layers: 12, width: 768, patch_size: 16 }, text_cfg: { ...text, width: 512, heads: 8, layers: 12 } },
      "L/14-336": { embed_dim: 768, vision_cfg: { image_size: 336, layers: 24, width: 1024, patch_size: 14 }, text_cfg: { ...text, width: 768, heads: 12, layers: 12 } },
      "H/14-378": { embed_dim: 1024, quick_gelu: true, vision_cfg: { image_size: 378, layers: 32, width: 1280, head_width: 80, patch_size: 14 }, text_cfg: { ...text, width: 1024, heads: 16, layers: 24 } },
    } as const; // biome-ignore format: a table
    for (const size of ["B/16", "L/14-336", "H/14-378"] as const) {
      const activation = size === "H/14-378" ? "quick_gelu" : "gelu";
      expect(openClipConfigOf(files[size])).toEqual(clipConfig(size, { activation }));
      expect(openClipConfigOf({ model_cfg: files[size], preprocess_cfg: {} }).embed).toBe(files[size].embed_dim); // biome-ignore format: one line
    }
    const with_ = (vision: object, text: object = {}) => openClipConfigOf({ embed_dim: 4, vision_cfg: vision, text_cfg: text }); // biome-ignore format: one line
    expect(() => with_({ ls_init_value: 1e-5 })).toThrow(/ls_init_value: null, got 0.00001/);
    expect(() => with_({ layers: [3, 4, 6, 3] })).toThrow(/layers: a number, got \[3,4,6,3\]/);
    expect(() => with_({ head_width: 80 })).toThrow(/a divisor of 768/);
    expect(() => with_({ patch_size: [16, 8] })).toThrow(/square patches, got \[16,8\]/);
    expect(() => with_({}, { pool_type: "eos" })).toThrow(/pool_type: argmax, got "eos"/);
    expect(() => with_({ block_type: "custom" })).toThrow(/block_type: null, got "custom"/);
    expect(() => with_({ rope: true })).toThrow(/rope: no such setting/);
    expect(() => openClipConfigOf({ embed_dim: 4, multimodal_cfg: {} })).toThrow(/multimodal_cfg/);
    expect(() => openClipConfigOf({ embed_dim: 4, quick_gelu: "yes" })).toThrow(/true or false, got "yes"/); // biome-ignore format: one line
    // These change nothing without the tower that they are of.
    const inert = { timm_pool: "avg", timm_model_pretrained: false, output_tokens: true };
    expect(with_(inert)).toEqual(with_({}));
  });

  test("open_clip's configuration of a model, and what open_clip lacks is refused", () => {
    for (const size of ["B/16", "H/14-378"] as const) {
      const config = clipConfig(size, { activation: "quick_gelu" });
      expect(openClipConfigOf(openClipJson(new CLIP(config)))).toEqual(config);
    }
    const vision = { ...config.vision, imageSize: [8, 12] as const, hidden: 7 };
    const rectangle = openClipConfigOf(openClipJson(new CLIP({ ...config, vision })));
    expect(rectangle.vision).toMatchObject({ imageSize: [8, 12], hidden: 7, heads: 2 });
    const of = (vision: object, text: object = {}) => () =>
      openClipJson(new CLIP({ ...config, vision: { ...config.vision, ...vision }, text: { ...config.text, ...text } })); // biome-ignore format: one line
    expect(of({}, { endOfText: 10 })).not.toThrow();
    expect(of({}, { endOfText: 9 })).toThrow(/end of text of 10, got 9/);
    expect(of({ antialias: false })).toThrow(/antialias/);
    expect(of({ eps: 1e-6 })).toThrow(/eps 1e-5/);
    expect(of({ channels: 1 })).toThrow(/3 channels/);
    expect(of({ activation: "gelu" })).toThrow(/in both towers, got \["gelu","quick_gelu"\]/);
    expect(of({ layerScale: 1 })).toThrow(/with its layerScale/);
  });

  test("a model that the Hugging Face library lacks is refused, whatever it is that it lacks", () => {
    const of = (vision: object, text: object = {}) => () =>
      clipJson(new CLIP({ ...config, vision: { ...config.vision, ...vision }, text: { ...config.text, ...text } })); // biome-ignore format: one line
    expect(of({ headDim: 4, qkvBias: true, registers: 0, positions: "learned" })).not.toThrow();
    for (const [
      name,
      value,
    ] of Object.entries({ headDim: 8, qkvBias: false, bias: false, patchNorm: true, preNorm: false, patchBias: true, finalNorm: false, classPosition: false, registers: 1, qkNorm: true, layerScale: 1 })) // biome-ignore format: a table
      expect(of({ [name]: value }), name).toThrow(new RegExp(`with its .*${name}`));
    expect(of({ imageSize: [8, 12] })).toThrow(/square images, got \[8,12\]/);
    expect(of({ imageSize: [8, 8] })).not.toThrow();
    expect(of({}, { endOfText: 2 })).toThrow(/not 2/);
  });

  test("open_clip's names and shapes", () => {
    const names = openClipNames(new CLIP(clipConfig("B/16")));
    const stored = storedWeights(names);
    const shapes = Object.fromEntries(Object.entries(stored).map(([name, t]) => [name, t.shape]));
    expect(shapes).toMatchObject({
      logit_scale: [],
      positional_embedding: [77, 512],
      text_projection: [512, 512],
      "visual.proj": [768, 512],
      "visual.class_embedding": [768],
      "visual.positional_embedding": [197, 768],
      "visual.conv1.weight": [768, 3, 16, 16],
      "visual.transformer.resblocks.11.attn.in_proj_weight": [2304, 768],
      "transformer.resblocks.11.mlp.c_proj.bias": [512],
      "token_embedding.weight": [49_408, 512],
      "ln_final.weight": [512],
    });
    // 12 tensors per block in both towers, and what is around them.
    expect(Object.keys(shapes)).toHaveLength(2 * 12 * 12 + 14);
  });
});

describe.each(devices)("CLIP on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
    manualSeed(3);
  });

  test("the contrastive loss of open_clip", async () => {
    const rows = (f: (i: number) => number) => {
      const t = tensor(Array.from({ length: 12 }, (_, i) => f(i))).reshape([3, 4]);
      return t.div(t.norm(2, 1, true));
    };
    const logits = rows(Math.sin)
      .matmul(rows((i) => Math.cos(0.9 * i)).T)
      .div(0.07);
    expect(await contrastiveLoss(logits).item()).toBeCloseTo(2.8495490077475294, 4);
    expect(() => contrastiveLoss(logits.narrow(0, 0, 2))).toThrow(/pairs on the diagonal/);
  });

  test("the temperature starts at 1 / 0.07 and stays below 100", async () => {
    const { logitScale } = new CLIP(config);
    expect(await logitScale.exp().item()).toBeCloseTo(1 / 0.07, 4);
    const model = new CLIP(config);
    for (const [value, kept] of [
      [7, Math.log(100)],
      [-1, 0],
      [2, 2],
    ]) {
      noGrad(() => model.logitScale.assign(tensor(value)));
      model.clampScale();
      expect(await model.logitScale.item()).toBeCloseTo(kept, 5);
    }
  });

  test("a text's vector is at its end, by either rule", async () => {
    const states = randn([2, 4, 12]);
    const texts = ids([[1, 9, 10, 9], [1, 5, 9, 0]]); // biome-ignore format: rows
    const [a, b] = (await states.tolist()) as number[][][];
    const highest = new CLIP(config).text.pool(states, texts);
    expect(await highest.tolist()).toEqual([a[2], b[2]]);
    const text = { ...config.text, endOfText: 9 };
    const first = new CLIP({ ...config, text }).text.pool(states, texts);
    expect(await first.tolist()).toEqual([a[1], b[2]]);
  });

  test("what stands behind the end changes nothing, and a text may not be too long", async () => {
    const model = new CLIP(config);
    const short = await model.encodeText(ids([[1, 4, 10]])).data();
    const padded = ids([[1, 4, 10, 0, 0]]);
    const mask = ids([[1, 1, 1, 0, 0]]);
    expect(difference(await model.encodeText(padded).data(), short, close)).toBeNull();
    expect(difference(await model.encodeText(padded, mask).data(), short, close)).toBeNull();
    expect(() => model.encodeText(ids([[1, 2, 3, 4, 5, 6, 7]]))).toThrow(/T ≤ 6.*\[1, 7\]/);
  });

  test("zero-shot: a class is the mean of its sentences, an image of the nearest", async () => {
    const model = new CLIP(config);
    // A token per letter: 1 starts, 10 ends, the class decides the middle.
    const seen: string[] = [];
    const tokenize = (texts: readonly string[]): Tensor => {
      seen.push(...texts);
      return ids(texts.map((text) => [1, text.length % 9, text.charCodeAt(2) % 9, 10]));
    };
    const templates = ["a {}.", "an old {}, {}"];
    const weights = await zeroShotWeights(model, ["cat", "$&"], { tokenize, templates });
    expect(seen).toEqual(["a cat.", "an old cat, cat", "a $&.", "an old $&, $&"]);
    const vectors = (await model.encodeText(tokenize(seen.slice())).tolist()) as number[][];
    const want = [0, 2].map((first) => {
      const sum = vectors[first].map((x, i) => x + vectors[first + 1][i]);
      const length = Math.hypot(...sum);
      return sum.map((x) => x / length);
    });
    expect(difference(await weights.data(), want.flat(), close)).toBeNull();

    const images = randn([3, 3, 8, 8]);
    const scores = (await zeroShotLogits(model, weights, images).tolist()) as number[][];
    const vectorsOfImages = (await model.encodeImage(images).tolist()) as number[][];
    const cosines = vectorsOfImages.flatMap((v) => want.map((w) => v.reduce((s, x, i) => s + x * w[i], 0) / 0.07)); // biome-ignore format: one line
    expect(difference(scores.flat(), cosines, { rtol: 1e-4, atol: 1e-4 })).toBeNull();
    await expect(
      zeroShotWeights(model, ["cat"], { tokenize, templates: ["a photo"] }),
    ).rejects.toThrow(/templates with \{\}.*"a photo"/);
  });

  // Names and files are the same on every device: none of the rest is worth SwiftShader's
  // compiling.
  test.skipIf(device === "webgpu")(
    "weights go through open_clip's names and the Hugging Face library's",
    async () => {
      const [a, b] = [new CLIP(config), new CLIP(config)];
      const images = randn([2, 3, 8, 8]);
      const texts = ids([[1, 3, 10], [1, 5, 10]]); // biome-ignore format: rows
      const want = await a.forward(images, texts).data();
      for (const names of [openClipNames, clipNames]) {
        const c = new CLIP(config);
        await loadWeights(names(c), storedWeights(names(a)));
        expect(difference(await c.forward(images, texts).data(), want, close)).toBeNull();
      }
      // A projection of x W under the name of one of x Wᵀ would be a wrong number.
      const stored = storedWeights(openClipNames(a));
      expect(await stored["visual.proj"].data()).toEqual(await a.visionProjection.weight.T.data());
      const { logit_scale: _, ...most } = stored;
      const wrong = { ...most, ln_final: tensor([1]), text_projection: tensor([[1]]) };
      const before = await b.forward(images, texts).data();
      const failure = loadWeights(openClipNames(b), wrong);
      await expect(failure).rejects.toThrow(CheckpointError);
      await expect(failure).rejects.toThrow(
        /unexpected: ln_final\s+missing: logit_scale\s+text_projection: expected f32\[12, 6\], got f32\[1, 1\]/,
      );
      expect(await b.forward(images, texts).data()).toEqual(before);
      const report = await loadWeights(openClipNames(b), { ...most, more: a.logitScale }, { strict: false }); // biome-ignore format: one line
      expect(report).toEqual({ missing: ["logit_scale"], unexpected: ["more"] });
      expect(difference(await b.forward(images, texts).data(), want, close)).toBeNull();
    },
  );

  test.skipIf(device === "webgpu")(
    "a folder of the Hugging Face library, in one file or in shards",
    async () => {
      const text = { ...config.text, endOfText: 9 };
      const model = new CLIP({ ...config, text });
      const images = randn([1, 3, 8, 8]);
      const texts = ids([[1, 9, 10]]);
      const want = await model.forward(images, texts).data();
      for (const maxShardSize of [undefined, 2000]) {
        const path = join(folder, `${device}-${maxShardSize}`);
        mkdirSync(path);
        await saveCLIP(path, model, { maxShardSize });
        const loaded = await loadCLIP(path);
        expect(loaded.training).toBe(false);
        expect(loaded.config.text.endOfText).toBe(9);
        expect(difference(await loaded.forward(images, texts).data(), want, close)).toBeNull();
        const vision = await loadCLIPVision(path);
        const states = [vision, model.vision].map((v) => v.forward(images).data());
        const [got, own] = await Promise.all(states);
        expect(difference(got, own, close)).toBeNull();
        // Images of another size, by antialiased positions.
        const large = randn([1, 3, 12, 12]);
        const wide = [loaded, model].map((m) => m.encodeImage(large, { interpolate: true }).data());
        expect(difference(await wide[0], await wide[1], close)).toBeNull();
        const half = await loadCLIPVision(path, { dtype: "bf16" });
        expect(half.norm!.weight!.dtype).toBe("bf16");
      }
      await expect(loadCLIP(join(folder, "nowhere"))).rejects.toThrow(/nowhere/);
      // The same weights in open_clip's folder.
      const other = new CLIP(config);
      const { vision: v, text: t } = config;
      const json = {
        ...{ embed_dim: config.embed, quick_gelu: true },
        vision_cfg: { image_size: 8, patch_size: 4, width: 8, layers: 1, head_width: 4, mlp_ratio: v.hidden / v.width }, // biome-ignore format: one line
        text_cfg: { vocab_size: 11, context_length: 6, width: 12, layers: 2, heads: 3, mlp_ratio: t.hidden / t.width }, // biome-ignore format: one line
      };
      const path = join(folder, `${device}-open`);
      mkdirSync(path);
      writeFileSync(join(path, "open_clip_config.json"), JSON.stringify({ model_cfg: json }));
      await saveSafetensors(join(path, "open_clip_model.safetensors"), storedWeights(openClipNames(other))); // biome-ignore format: one line
      const loaded = await loadOpenCLIP(path);
      const again = join(folder, `${device}-open-again`);
      mkdirSync(again);
      await saveOpenCLIP(again, other);
      const same = [other, loaded, await loadOpenCLIP(again)].map((m) => m.forward(images, texts).data()); // biome-ignore format: one line
      expect(await same[1]).toEqual(await same[0]);
      expect(await same[2]).toEqual(await same[0]);
    },
  );

  test.skipIf(device === "webgpu")("a few steps pair images with their texts", async () => {
    manualSeed(4);
    const model = new CLIP(config);
    const images = randn([3, 3, 8, 8]);
    const texts = ids([[1, 3, 10], [1, 5, 10], [1, 7, 10]]); // biome-ignore format: rows
    const optimizer = new optim.AdamW(model.parameters(), { lr: 0.003 });
    let last = 0;
    for (let i = 0; i < 12; i++) {
      const loss = model.loss(images, texts);
      loss.backward();
      optimizer.step();
      optimizer.zeroGrad();
      model.clampScale();
      last = Number(await loss.item());
    }
    expect(last).toBeLessThan(0.3);
    const best = await model.forward(images, texts).argmax(1).data();
    expect([...best]).toEqual([0, 1, 2]);
  });
});
