/**
 * @file Configurations of image models as other libraries write them, as ours: the Hugging Face
 * library's CLIP and ViT (`config.json`), timm's VisionTransformer (its arguments); and folders of
 * the Hugging Face library, read and written. What their weights are called is in names.ts.
 *
 * Of timm every argument must be known. The Hugging Face library's classes pass over what they do
 * not have, and so do we; a setting that they have, that changes the numbers and that we do not
 * have is an error.
 */
import type { ActivationName } from "../activations.ts";
import {
  activation,
  type ConfigJson,
  flag,
  imageSize,
  number,
  patchSize,
  refuse,
  refuseOthers,
  refuseUnknown,
} from "../settings.ts";
import {
  type LoadCheckpointOptions,
  loadCheckpoint,
  readConfig,
  type SaveOptions,
  saveCheckpoint,
} from "../weights.ts";
import { type Pooling, ViTClassifier, type ViTClassifierConfig } from "./classifier.ts";
import { CLIP, type ClipConfig, type ClipTextConfig, clipVisionConfig } from "./clip.ts";
import { clipNames, clipVisionNames, vitNames } from "./names.ts";
import { sidesOf } from "./positions.ts";
import { ViT, type ViTConfig } from "./vit.ts";

/** Dropout is not in these models: a configuration must not ask for it. */
const refuseDropout = (json: ConfigJson, ...names: string[]): void =>
  refuseOthers(json, Object.fromEntries(names.map((name) => [name, 0])));

/**
 * `config.json` of a CLIPVisionModel, or the `vision_config` of a larger model. `antialias` is our
 * own setting there: the library has none.
 * @throws ArgumentError for a setting of another kind, or one that we do not have.
 */
export function clipVisionConfigOf(json: ConfigJson): ViTConfig {
  refuseDropout(json, "attention_dropout");
  return clipVisionConfig({
    imageSize: imageSize(json, "image_size", 224),
    patchSize: patchSize(json, "patch_size", 32),
    channels: number(json, "num_channels", 3),
    width: number(json, "hidden_size", 768),
    depth: number(json, "num_hidden_layers", 12),
    heads: number(json, "num_attention_heads", 12),
    hidden: number(json, "intermediate_size", 3072),
    activation: activation(json, "hidden_act", "quick_gelu"),
    eps: number(json, "layer_norm_eps", 1e-5),
    antialias: flag(json, "antialias"),
  });
}

function clipTextConfigOf(json: ConfigJson): ClipTextConfig {
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

/** `config.json` of a CLIPModel. @throws ArgumentError as clipVisionConfigOf. */
export const clipConfigOf = (json: ConfigJson): ClipConfig => ({
  embed: number(json, "projection_dim", 512),
  vision: clipVisionConfigOf((json.vision_config ?? {}) as ConfigJson),
  text: clipTextConfigOf((json.text_config ?? {}) as ConfigJson),
});

/** `config.json` of a ViTForImageClassification. @throws ArgumentError as clipVisionConfigOf. */
export function vitConfigOf(json: ConfigJson): ViTClassifierConfig {
  refuseDropout(json, "hidden_dropout_prob", "attention_probs_dropout_prob");
  const labels = json.id2label as ConfigJson | undefined;
  return {
    imageSize: imageSize(json, "image_size", 224),
    patchSize: patchSize(json, "patch_size", 16),
    channels: number(json, "num_channels", 3),
    width: number(json, "hidden_size", 768),
    depth: number(json, "num_hidden_layers", 12),
    heads: number(json, "num_attention_heads", 12),
    hidden: number(json, "intermediate_size", 3072),
    activation: activation(json, "hidden_act", "gelu"),
    eps: number(json, "layer_norm_eps", 1e-12),
    qkvBias: flag(json, "qkv_bias", true),
    classToken: true,
    antialias: flag(json, "antialias"),
    classes: number(json, "num_labels", labels ? Object.keys(labels).length : 2),
  };
}

/** timm's arguments that we have; another one that is given is refused. */
const timmArguments =
  "img_size patch_size in_chans num_classes global_pool embed_dim depth num_heads mlp_ratio qkv_bias qk_norm proj_bias init_values class_token pos_embed no_embed_class reg_tokens pre_norm final_norm fc_norm pool_include_prefix dynamic_img_size norm_layer act_layer weight_init fix_init".split(
    " ",
  );
/** Those that we have with one value only, timm's default. */
const timmFixed: ConfigJson = {
  ...{ scale_attn_norm: false, scale_mlp_norm: false, dynamic_img_pad: false, drop_rate: 0 },
  ...{ pos_drop_rate: 0, patch_drop_rate: 0, proj_drop_rate: 0, attn_drop_rate: 0 },
  ...{ drop_path_rate: 0, embed_norm_layer: null },
};
/** timm's names of activations that are others in the Hugging Face library. */
const timmActivations: Readonly<Record<string, ActivationName>> = {
  gelu_tanh: "gelu_pytorch_tanh",
};

/**
 * The arguments of timm's VisionTransformer, with its defaults. `dynamic_img_size` is the option
 * `interpolate` of each call here; what `weight_init` and `fix_init` say is of training from the
 * start, and looked at by nobody.
 * @throws ArgumentError for an argument of another kind, or one that we do not have.
 */
export function timmConfigOf(json: ConfigJson): ViTClassifierConfig {
  refuseUnknown(json, timmArguments, timmFixed);
  refuseOthers(json, timmFixed);
  const pool = `${json.global_pool ?? "token"}`;
  if (!["token", "avg", "max", "avgmax", "map"].includes(pool))
    refuse("global_pool", "token, avg, max, avgmax or map", pool);
  const norm = json.norm_layer ?? "layernorm";
  if (norm !== "layernorm") refuse("norm_layer", "layernorm", norm);
  const width = number(json, "embed_dim", 768);
  const classes = number(json, "num_classes", 1000);
  if (classes < 1) refuse("num_classes", "> 0", classes);
  const pooledNorm = flag(json, "fc_norm", pool !== "token" && pool !== "map");
  const finalNorm = flag(json, "final_norm", true);
  const preNorm = flag(json, "pre_norm", false);
  const positions = json.pos_embed ?? "learn";
  if (!["learn", "none", ""].includes(positions as string)) refuse("pos_embed", "learn or none", positions); // biome-ignore format: one line
  const act = `${json.act_layer ?? "gelu"}`;
  return {
    imageSize: imageSize(json, "img_size", 224),
    patchSize: patchSize(json, "patch_size", 16),
    channels: number(json, "in_chans", 3),
    width,
    depth: number(json, "depth", 12),
    heads: number(json, "num_heads", 12),
    hidden: Math.trunc(width * number(json, "mlp_ratio", 4)),
    activation: activation({ act_layer: timmActivations[act] ?? act }, "act_layer", "gelu"),
    eps: 1e-6,
    qkvBias: flag(json, "qkv_bias", true),
    qkNorm: flag(json, "qk_norm", false),
    bias: flag(json, "proj_bias", true),
    // 0 is none, as there.
    layerScale: number(json, "init_values", 0) || undefined,
    classToken: flag(json, "class_token", true),
    registers: number(json, "reg_tokens", 0),
    positions: positions === "learn" ? "learned" : "none",
    classPosition: !flag(json, "no_embed_class", false),
    patchBias: !preNorm,
    preNorm,
    finalNorm: finalNorm && !pooledNorm,
    classes,
    pool: pool as Pooling,
    poolNorm: finalNorm && pooledNorm,
    poolPrefix: flag(json, "pool_include_prefix", false),
  };
}

// --- folders -------------------------------------------------------------------------------------

/**
 * A CLIPModel from a folder of the Hugging Face library (`config.json`, `model.safetensors` or
 * shards), in eval mode.
 * @throws CheckpointError that lists all weights that do not fit.
 */
export async function loadCLIP(folder: string, options: LoadCheckpointOptions = {}): Promise<CLIP> {
  const model = new CLIP(clipConfigOf(await readConfig(folder)));
  await loadCheckpoint(folder, model, clipNames, options);
  return model.eval();
}

/**
 * The image tower alone, from a CLIPModel's folder or a CLIPVisionModel's, in eval mode.
 * @throws CheckpointError that lists all weights that do not fit.
 */
export async function loadCLIPVision(
  folder: string,
  options: LoadCheckpointOptions = {},
): Promise<ViT> {
  const json = await readConfig(folder);
  const vit = new ViT(clipVisionConfigOf((json.vision_config ?? json) as ConfigJson));
  const names = (vit: ViT) => clipVisionNames(vit, "");
  await loadCheckpoint(folder, vit, names, { prefix: "vision_model.", ...options });
  return vit.eval();
}

/** A ViTForImageClassification from a folder. */
export async function loadViT(
  folder: string,
  options: LoadCheckpointOptions = {},
): Promise<ViTClassifier> {
  const model = new ViTClassifier(vitConfigOf(await readConfig(folder)));
  await loadCheckpoint(folder, model, vitNames, options);
  return model.eval();
}

const towerJson = (tower: ViTConfig | ClipTextConfig): ConfigJson => ({
  hidden_size: tower.width,
  num_hidden_layers: tower.depth,
  num_attention_heads: tower.heads,
  intermediate_size: tower.hidden,
  hidden_act: tower.activation ?? "gelu",
  layer_norm_eps: tower.eps ?? 1e-5,
});

/**
 * Our own setting beside the library's, which never antialiases: at the configuration's size nobody
 * needs it.
 */
const antialiasJson = ({ antialias = true }: ViTConfig): ConfigJson =>
  antialias ? { antialias } : {};

/** What a ViTConfig means where it is silent. */
const silent = ({ bias = true }: ViTConfig) => ({
  ...{ classToken: false, positions: "learned", classPosition: true, registers: 0 },
  ...{ patchBias: true, patchNorm: false, preNorm: false, finalNorm: true },
  ...{ bias: true, qkvBias: bias, qkNorm: false, layerScale: undefined },
});
/** What the Hugging Face library's image models have, all of them. */
const fixed = {
  ...{ classToken: true, positions: "learned", classPosition: true, registers: 0 },
  ...{ patchNorm: false, finalNorm: true, bias: true, qkNorm: false, layerScale: undefined },
};

/** And CLIP's image tower. */
export const clipParts: ConfigJson = { ...fixed, preNorm: true, patchBias: false, qkvBias: true };

/**
 * Refuses a model that has other parts than the library's class: its weights would have no names,
 * or others' numbers.
 */
export function refuseParts(who: string, config: ViTConfig, parts: ConfigJson): void {
  const own: ConfigJson = { ...silent(config), ...definedOf(config) };
  const other = Object.entries(parts).filter(([name, value]) => own[name] !== value);
  const names = other.map(([name]) => name);
  const { width, heads, headDim = width / heads } = config;
  if (headDim !== width / heads) names.push("headDim");
  if (names.length > 0)
    refuse(who, `a model that the library has, with its ${names.join(", ")}`, config);
}

const definedOf = (config: object): ConfigJson =>
  Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));

/**
 * `config.json` from which the Hugging Face library makes the same CLIPVisionModel.
 * @throws ArgumentError for a model that the library does not have.
 */
export function clipVisionJson(vision: ViTConfig): ConfigJson {
  refuseParts("clipVisionJson", vision, clipParts);
  const [height, width] = sidesOf(vision.imageSize);
  if (height !== width) refuse("clipVisionJson", "square images", vision.imageSize);
  return {
    model_type: "clip_vision_model",
    image_size: width,
    patch_size: vision.patchSize,
    num_channels: vision.channels,
    ...towerJson(vision),
    ...antialiasJson(vision),
  };
}

/**
 * `config.json` from which the Hugging Face library makes the same CLIPModel.
 * @throws ArgumentError for a model that the library does not have.
 */
export function clipJson({ config }: CLIP): ConfigJson {
  const { embed: projection_dim, vision, text } = config;
  if (text.endOfText === 2)
    refuse("clipJson", "an end of text that is not 2, which means none there", 2);
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

/**
 * `config.json` from which the Hugging Face library makes the same ViTForImageClassification.
 * @throws ArgumentError for a model that the library does not have.
 */
export function vitJson({ vit, head, pool, poolNorm }: ViTClassifier): ConfigJson {
  const { config } = vit;
  refuseParts("vitJson", config, { ...fixed, preNorm: false, patchBias: true });
  if (pool !== "token" || poolNorm) refuse("vitJson", "the class token without a norm", pool);
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
    ...antialiasJson(config),
    qkv_bias: config.qkvBias ?? true,
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
  options: SaveOptions = {},
): Promise<void> => saveCheckpoint(folder, vitNames(model), vitJson(model), options);

/** Writes a folder that `loadCLIP` and the Hugging Face library read. */
export const saveCLIP = (folder: string, clip: CLIP, options: SaveOptions = {}): Promise<void> =>
  saveCheckpoint(folder, clipNames(clip), clipJson(clip), options);
