/**
 * @file Configurations of image models as other libraries write them, as ours: the Hugging Face library's CLIP and ViT
 * (`config.json`), timm's VisionTransformer (its arguments); and folders of the Hugging Face library, read and written.
 * What their weights are called is in names.ts.
 *
 * A setting that would change the numbers and that we do not have is an error, never ignored.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { type ActivationName, activationNamed } from "../activations.ts";
import { type LoadOptions, loadWeightsFile, readConfig, saveCheckpoint } from "../weights.ts";
import { type Pooling, ViTClassifier, type ViTClassifierConfig } from "./classifier.ts";
import { CLIP, type ClipConfig, type ClipTextConfig, clipVisionConfig } from "./clip.ts";
import { clipNames, clipVisionNames, vitNames } from "./names.ts";
import { ViT, type ViTConfig } from "./vit.ts";

type Json = Readonly<Record<string, unknown>>;

const refuse = (what: string, expected: string, got: unknown): never => {
  throw new ArgumentError(describe("configuration", `${what}: ${expected}`, JSON.stringify(got)));
};

function number(json: Json, name: string, otherwise?: number): number {
  const value = json[name] ?? otherwise;
  return typeof value === "number" ? value : refuse(name, "a number", value);
}

function activation(json: Json, name: string, otherwise: ActivationName): ActivationName {
  const value = `${json[name] ?? otherwise}`;
  activationNamed(value); // Throws for a name that is none.
  return value as ActivationName;
}

function imageSize(json: Json, name: string, otherwise?: number): ViTConfig["imageSize"] {
  const value = json[name] ?? otherwise;
  const pair =
    Array.isArray(value) && value.length === 2 && value.every((n) => Number.isInteger(n));
  return pair ? [value[0], value[1]] : number(json, name, otherwise);
}

/** Dropout is not in these models: a configuration must not ask for it. */
function refuseDropout(json: Json, ...names: string[]): void {
  for (const name of names) if ((json[name] ?? 0) !== 0) refuse(name, "0", json[name]);
}

/** `config.json` of a CLIPVisionModel, or the `vision_config` of a larger model. */
export function clipVisionConfigOf(json: Json): ViTConfig {
  refuseDropout(json, "attention_dropout");
  return clipVisionConfig({
    imageSize: imageSize(json, "image_size", 224),
    patchSize: number(json, "patch_size", 32),
    channels: number(json, "num_channels", 3),
    width: number(json, "hidden_size", 768),
    depth: number(json, "num_hidden_layers", 12),
    heads: number(json, "num_attention_heads", 12),
    hidden: number(json, "intermediate_size", 3072),
    activation: activation(json, "hidden_act", "quick_gelu"),
    eps: number(json, "layer_norm_eps", 1e-5),
    antialias: false,
  });
}

function clipTextConfigOf(json: Json): ClipTextConfig {
  refuseDropout(json, "attention_dropout");
  const end = number(json, "eos_token_id", 49_407);
  return {
    vocabulary: number(json, "vocab_size", 49_408),
    context: number(json, "max_position_embeddings", 77),
    width: number(json, "hidden_size", 512),
    depth: number(json, "num_hidden_layers", 12),
    heads: number(json, "num_attention_heads", 8),
    hidden: number(json, "intermediate_size", 2048),
    activation: activation(json, "hidden_act", "quick_gelu"),
    eps: number(json, "layer_norm_eps", 1e-5),
    // Early configurations say 2, which is no end of a text; the library then takes the highest id.
    endOfText: end === 2 ? undefined : end,
  };
}

/** `config.json` of a CLIPModel. */
export const clipConfigOf = (json: Json): ClipConfig => ({
  embed: number(json, "projection_dim", 512),
  vision: clipVisionConfigOf((json.vision_config ?? {}) as Json),
  text: clipTextConfigOf((json.text_config ?? {}) as Json),
});

/** `config.json` of a ViTForImageClassification. */
export function vitConfigOf(json: Json): ViTClassifierConfig {
  refuseDropout(json, "hidden_dropout_prob", "attention_probs_dropout_prob");
  const labels = json.id2label as Json | undefined;
  return {
    imageSize: imageSize(json, "image_size", 224),
    patchSize: number(json, "patch_size", 16),
    channels: number(json, "num_channels", 3),
    width: number(json, "hidden_size", 768),
    depth: number(json, "num_hidden_layers", 12),
    heads: number(json, "num_attention_heads", 12),
    hidden: number(json, "intermediate_size", 3072),
    activation: activation(json, "hidden_act", "gelu"),
    eps: number(json, "layer_norm_eps", 1e-12),
    qkvBias: (json.qkv_bias ?? true) === true,
    classToken: true,
    antialias: false,
    classes: number(json, "num_labels", labels ? Object.keys(labels).length : 2),
  };
}

/** timm's arguments that we have; another one that is given is refused. */
const timmArguments = new Set(
  "img_size patch_size in_chans num_classes global_pool embed_dim depth num_heads mlp_ratio qkv_bias proj_bias class_token no_embed_class pre_norm final_norm fc_norm act_layer".split(
    " ",
  ),
);

/** The arguments of timm's VisionTransformer, with its defaults. */
export function timmConfigOf(json: Json): ViTClassifierConfig {
  for (const name of Object.keys(json))
    if (!timmArguments.has(name)) refuse(name, "no such argument", json[name]);
  const flag = (name: string, otherwise: boolean) => (json[name] ?? otherwise) === true;
  const pool = `${json.global_pool ?? "token"}`;
  if (!["token", "avg", "max", "avgmax"].includes(pool))
    refuse("global_pool", "token, avg, max or avgmax", pool);
  const width = number(json, "embed_dim", 768);
  const classes = number(json, "num_classes", 1000);
  if (classes < 1) refuse("num_classes", "> 0", classes);
  const poolNorm = flag("fc_norm", pool !== "token");
  const preNorm = flag("pre_norm", false);
  return {
    imageSize: imageSize(json, "img_size", 224),
    patchSize: number(json, "patch_size", 16),
    channels: number(json, "in_chans", 3),
    width,
    depth: number(json, "depth", 12),
    heads: number(json, "num_heads", 12),
    hidden: Math.trunc(width * number(json, "mlp_ratio", 4)),
    activation: activation(json, "act_layer", "gelu"),
    eps: 1e-6,
    qkvBias: flag("qkv_bias", true),
    bias: flag("proj_bias", true),
    classToken: flag("class_token", true),
    classPosition: !flag("no_embed_class", false),
    patchBias: !preNorm,
    preNorm,
    finalNorm: flag("final_norm", true) && !poolNorm,
    classes,
    pool: pool as Pooling,
    poolNorm,
  };
}

// --- folders --------------------------------------------------------------------------------------------------------

/**
 * A CLIPModel from a folder of the Hugging Face library (`config.json`, `model.safetensors` or shards), in eval mode.
 * @throws CheckpointError that lists all weights that do not fit.
 */
export async function loadCLIP(folder: string, options: LoadOptions = {}): Promise<CLIP> {
  const model = new CLIP(clipConfigOf(await readConfig(folder)));
  await loadWeightsFile(folder, clipNames(model), options);
  return model.eval();
}

/** The image tower alone, from a CLIPModel's folder or a CLIPVisionModel's. */
export async function loadCLIPVision(folder: string): Promise<ViT> {
  const json = await readConfig(folder);
  const vit = new ViT(clipVisionConfigOf((json.vision_config ?? json) as Json));
  await loadWeightsFile(folder, clipVisionNames(vit, ""), { prefix: "vision_model." });
  return vit.eval();
}

/** A ViTForImageClassification from a folder. */
export async function loadViT(folder: string, options: LoadOptions = {}): Promise<ViTClassifier> {
  const model = new ViTClassifier(vitConfigOf(await readConfig(folder)));
  await loadWeightsFile(folder, vitNames(model), options);
  return model.eval();
}

const towerJson = (tower: ViTConfig | ClipTextConfig): Json => ({
  hidden_size: tower.width,
  num_hidden_layers: tower.depth,
  num_attention_heads: tower.heads,
  intermediate_size: tower.hidden,
  hidden_act: tower.activation ?? "gelu",
  layer_norm_eps: tower.eps ?? 1e-5,
});

/** `config.json` from which the Hugging Face library makes the same CLIPVisionModel. */
export const clipVisionJson = (vision: ViTConfig): Json => ({
  model_type: "clip_vision_model",
  image_size: vision.imageSize,
  patch_size: vision.patchSize,
  num_channels: vision.channels,
  ...towerJson(vision),
});

/** `config.json` from which the Hugging Face library makes the same CLIPModel. */
export function clipJson({ config }: CLIP): Json {
  const { embed: projection_dim, vision, text } = config;
  return {
    architectures: ["CLIPModel"],
    model_type: "clip",
    projection_dim,
    vision_config: { ...clipVisionJson(vision), projection_dim },
    text_config: {
      model_type: "clip_text_model",
      vocab_size: text.vocabulary,
      max_position_embeddings: text.context,
      // 2 stands for "the highest id".
      eos_token_id: text.endOfText ?? 2,
      projection_dim,
      ...towerJson(text),
    },
  };
}

/** `config.json` from which the Hugging Face library makes the same ViTForImageClassification. */
export function vitJson({ vit, head, pool, poolNorm }: ViTClassifier): Json {
  const { config } = vit;
  const { bias = true, qkvBias = bias, positions = "learned", patchBias = true } = config;
  const plain =
    config.classToken && (config.classPosition ?? true) && bias && patchBias && vit.norm;
  const other = vit.preNorm || vit.embed.norm || poolNorm || pool !== "token" || config.headDim;
  if (!plain || other || positions !== "learned")
    refuse("vitJson", "a model that the library has", config);
  return {
    architectures: ["ViTForImageClassification"],
    model_type: "vit",
    image_size: config.imageSize,
    patch_size: config.patchSize,
    num_channels: config.channels,
    hidden_size: config.width,
    num_hidden_layers: config.depth,
    num_attention_heads: config.heads,
    intermediate_size: config.hidden,
    hidden_act: config.activation ?? "gelu",
    layer_norm_eps: config.eps ?? 1e-5,
    qkv_bias: qkvBias,
    num_labels: head.outFeatures,
    id2label: Object.fromEntries(
      Array.from({ length: head.outFeatures }, (_, i) => [i, `LABEL_${i}`]),
    ),
  };
}

/** Writes a folder that `loadViT` and the Hugging Face library read. */
export const saveViT = (
  folder: string,
  model: ViTClassifier,
  options: { readonly maxShardSize?: number } = {},
): Promise<void> => saveCheckpoint(folder, vitNames(model), vitJson(model), options);

/** Writes a folder that `loadCLIP` and the Hugging Face library read. */
export const saveCLIP = (
  folder: string,
  clip: CLIP,
  options: { readonly maxShardSize?: number } = {},
): Promise<void> => saveCheckpoint(folder, clipNames(clip), clipJson(clip), options);
