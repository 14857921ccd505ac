/** @file CLIP: sizes, contrastive loss, ends of texts, zero-shot classification, and weights under other libraries' names. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
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
  clipNames,
  clipSizes,
  contrastiveLoss,
  loadCLIP,
  loadCLIPVision,
  loadWeights,
  openClipNames,
  saveCLIP,
  storedWeights,
  zeroShotLogits,
  zeroShotWeights,
} from "hinode/models";
import { optim } from "hinode/nn";
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

  /** [embed, grid, patch, vision depth and width, text depth and width], and the total of the published weights. */
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

  // Names and files are the same on every device: none of the rest is worth SwiftShader's compiling.
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
      }
      await expect(loadCLIP(join(folder, "nowhere"))).rejects.toThrow(/nowhere/);
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
