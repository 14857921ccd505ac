/** @file The group `models`: connectors, AIM, and language models that see. */
import { crossEntropy, type Tensor, tensor } from "hinode";
import {
  Aim,
  AimClassifier,
  aimClassifierConfigOf,
  aimClassifierNames,
  aimConfigOf,
  aimNames,
  CAbstractor,
  type CAbstractorConfig,
  cAbstractorNames,
  clipVisionConfigOf,
  type GenerationStep,
  type GenerativeModel,
  Generator,
  hiddenFrom,
  type Images,
  languageConfigOf,
  llavaConfigOf,
  llavaNames,
  nextTokens,
  type Prompts,
  sinCosPositions,
  VisionLanguageModel,
} from "hinode/models";
import { NotCovered } from "../values.ts";
import type { Architecture, Fixture, Tensors } from "./architecture.ts";
import { numbered } from "./vision.ts";

/**
 * Honeybee's settings as ours. In words the fixtures say that eps is 1e-6; timm's class with an
 * activation, which is what they were made with, has 1e-5, our default.
 */
function cAbstractorConfig(
  json: Fixture["config"],
  fixture: Fixture,
  prefix = "",
): CAbstractorConfig {
  return {
    visionWidth: json.enc,
    patches: fixture.grid ?? Math.sqrt(json.num_input_tokens),
    tokens: json.queries,
    width: json.out,
    hidden: json.hidden,
    depth: json.depth,
    mlpDepth: json.mlp_depth,
    eosTokens: json.num_eos_tokens,
    preNorm: json.prenorm,
    positions: fixture.params.includes(`${prefix}pos_emb`),
  };
}

const cAbstractor: Architecture<CAbstractor> = {
  class: /RegStage.*AdaptiveAvgPool2d.*RegStage.*MLP/,
  build: (fixture) => new CAbstractor(cAbstractorConfig(fixture.config, fixture)),
  weights: (model) => cAbstractorNames(model),

  forward(model, { x, cotangent }) {
    const { local, pooled, tokens } = model.abstract(x, model.grid);
    const y = model.project(tokens);
    const n = Math.sqrt(model.config.tokens);
    const planes = (t: typeof x, [h, w]: readonly [number, number]) =>
      t.transpose(1, 2).reshape([t.shape[0], t.shape[2], h, w]);
    const outputs = {
      y,
      stage1: planes(local, model.grid),
      pooled: planes(pooled, [n, n]),
      stage2: planes(tokens, [n, n]),
    };
    return { outputs, loss: y.mul(cotangent).sum() };
  },
};

const aim: Architecture<Aim> = {
  class: /^aim\.v1\b.*PrefixCausalAttention/,

  build: (fixture) => {
    const { head_blocks: depth, prefix_lengths: _, num_patches: __, ...trunk } = fixture.config;
    const bias = fixture.params.includes("head.proj.bias");
    const config = aimConfigOf(trunk);
    return new Aim(config, { depth, hidden: config.hidden, bias });
  },

  weights: aimNames,

  forward(model, { pixel_values: images, mask: outside }) {
    const pass = model.forward(images, outside);
    const targets = model.targets(images);
    const errors = model.errors(pass, targets);
    const outputs = {
      tokens: model.trunk.embed.forward(images),
      trunk: pass.tokens,
      ...numbered("block_features", pass.blocks),
      pred: pass.predicted,
      targets,
      per_patch_loss: errors,
      attention_mask: hiddenFrom(outside).logicalNot(),
    };
    return { outputs, loss: model.lossOf(errors, outside) };
  },

  extra(_model, _given, { sincos }): Tensors {
    if (!sincos) return {};
    const { grid, dim, rect_cls: rect } = sincos;
    return {
      sincos: sinCosPositions(grid, dim),
      sincos_rect_cls: sinCosPositions([rect.h, rect.w], rect.dim, { classToken: rect.cls_token }),
    };
  },
};

const aimProbe: Architecture<AimClassifier> = {
  class: /^aim\.v1\b.*AttentionPoolingClassifier/,

  build: (fixture) => {
    const { trunk, probe } = aimClassifierConfigOf(fixture.config);
    return new AimClassifier(trunk, probe);
  },

  weights: aimClassifierNames,

  forward(model, { pixel_values: images, labels }) {
    const features = model.features(images);
    const logits = model.head.forward(features);
    return { outputs: { probe_input: features, logits }, loss: crossEntropy(logits, labels) };
  },

  extra(model, _given, _fixture, { pixel_values: images }) {
    model.eval();
    const eval_logits = model.forward(images);
    model.train();
    return { eval_logits, ...numbered("features", model.trunk.hiddenStates(images).slice(1)) };
  },
};

/** `image_sizes` [N, 2], height and width, beside tiles; a tensor alone otherwise. */
async function imagesOf({
  pixel_values: pixelValues,
  image_sizes: sizes,
}: Tensors): Promise<Images> {
  if (!sizes) return pixelValues;
  const list = (await sizes.tolist()) as [number, number][];
  return { pixelValues, imageSizes: list.map(([height, width]) => ({ width, height })) };
}

const llava: Architecture<VisionLanguageModel> = {
  class: /\.Llava(Next)?ForConditionalGeneration$/,
  arguments: ["vision_feature_layer", "vision_feature_select_strategy"],
  build: ({ config }) => new VisionLanguageModel(llavaConfigOf(config)),
  weights: llavaNames,

  async forward(model, inputs) {
    const { input_ids: ids, attention_mask: mask, labels } = inputs;
    const image_features = model.imageRows(await imagesOf(inputs));
    const pass = model.run(ids, image_features, { mask });
    const logits = model.language.logits(pass.states.at(-1)!);
    const loss = model.language.lossOf(pass, nextTokens(labels), { mask });
    return { outputs: { logits, image_features }, loss };
  },

  async extra(model, given, fixture, inputs): Promise<Tensors> {
    const { "generate.prompt": prompt, "generate.attention_mask": mask } = given;
    if (!prompt) return {};
    const { images: count, max_new_tokens: maxNewTokens } = fixture.generate;
    const first = (t: Tensor) => t.narrow(0, 0, count);
    const { pixel_values, image_sizes } = inputs;
    const images = await imagesOf({
      pixel_values: first(pixel_values),
      ...(image_sizes && { image_sizes: first(image_sizes) }),
    });
    const [B, T] = prompt.shape;
    const rows = (await prompt.tolist()) as number[][];
    const lengths = mask ? ((await mask.int().sum(1).tolist()) as number[]) : rows.map(() => T);
    const ids = rows.map((row, b) => row.slice(T - lengths[b]));
    const length = T + maxNewTokens;
    const steps = async (model: GenerativeModel, prompts: Prompts) => {
      const all: GenerationStep[] = [];
      const stream = new Generator(model, { length }).stream(prompts, { maxNewTokens });
      for await (const step of stream) all.push(step);
      return all;
    };
    const seeing = await steps(model, { ids, images });
    // A model that sees never writes a placeholder, so that one score is the decoder's own.
    const embeddings = model.embed(prompt, images);
    const blind = await steps(model.language, { embeddings, lengths });
    const tokens = Array.from({ length: B }, (_, b) => seeing.map((step) => step.tokens[b]!));
    const V = model.language.config.vocabulary;
    const scores = Float32Array.from(
      seeing.flatMap((step, i) =>
        [...step.scores].map((score, j) =>
          j % V === model.config.imageToken ? blind[i].scores[j] : score,
        ),
      ),
    );
    return {
      "generate.tokens": tensor(tokens, { dtype: "i32" }),
      "generate.step_logits": tensor(scores, { shape: [seeing.length, B, V] }),
    };
  },
};

/** "hidden_states[-2] without the class token". */
function layerOf(said: string): number {
  const layer = /hidden_states\[(-?\d+)\] without the class token/.exec(said)?.[1];
  if (layer === undefined) throw new NotCovered(`vision_feature "${said}"`);
  return Number(layer);
}

const mm1: Architecture<VisionLanguageModel> = {
  class: /^CLIPVisionModel -> C-Abstractor -> (Llama|Mistral|Mixtral|Qwen2|Qwen3)ForCausalLM$/,

  build(fixture) {
    const { vision_config, text_config, projector, image_token_index, vision_feature } = fixture.config; // biome-ignore format: one line
    const connector = cAbstractorConfig(projector, fixture, "projector.");
    return new VisionLanguageModel({
      vision: clipVisionConfigOf(vision_config),
      connector: { kind: "c-abstractor", ...connector },
      language: languageConfigOf(text_config),
      imageToken: image_token_index,
      layer: layerOf(vision_feature),
    });
  },

  weights: llavaNames,

  forward(model, { pixel_values, input_ids: ids, attention_mask: mask, labels }) {
    const image_tokens = model.encode(pixel_values);
    const pass = model.run(ids, image_tokens.flatten(0, 1), { mask });
    const logits = model.language.logits(pass.states.at(-1)!);
    const loss = model.language.lossOf(pass, nextTokens(labels), { mask });
    return { outputs: { logits, image_tokens }, loss };
  },

  extra: llava.extra,
};

export const multimodal = [cAbstractor, aim, aimProbe, llava, mm1] as readonly Architecture[];
