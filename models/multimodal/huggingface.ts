/**
 * @file The Hugging Face library's LLaVA and LLaVA-NeXT (CLIP's image tower, two linear maps, Llama
 * or Mistral): what `config.json` says as our configuration, where the checkpoint's weights are in
 * our model, and folders.
 *
 * The library's classes pass over settings that they do not have, and so do we; one that they have,
 * that changes the numbers and that we do not have is an error.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { CAbstractor } from "../connectors/c-abstractor.ts";
import { cAbstractorNames, mlpConnectorNames } from "../connectors/names.ts";
import { MlpConnector } from "../connectors/projection.ts";
import { LLAVA_NEXT_PINPOINTS } from "../image/anyres.ts";
import { huggingFaceConfigOf, languageConfigOf, languageNames } from "../language/huggingface.ts";
import { activation, type ConfigJson, flag, number, refuse } from "../settings.ts";
import { clipVisionConfigOf, clipVisionJson } from "../vision/huggingface.ts";
import { clipVisionNames } from "../vision/names.ts";
import {
  type LoadCheckpointOptions,
  loadCheckpoint,
  type NameMap,
  type Names,
  readConfig,
  type SaveOptions,
  saveCheckpoint,
} from "../weights.ts";
import { type VisionLanguageConfig, VisionLanguageModel } from "./vision-language.ts";

/**
 * Where a `text_config` is silent: LlamaConfig's and MistralConfig's own values. Published LLaVAs
 * rely on them.
 */
const textDefaults: Readonly<Record<string, ConfigJson>> = {
  llama: {
    ...{ vocab_size: 32_000, hidden_size: 4096, intermediate_size: 11_008 },
    ...{ num_hidden_layers: 32, num_attention_heads: 32, max_position_embeddings: 2048 },
  },
  mistral: {
    ...{ vocab_size: 32_000, hidden_size: 4096, intermediate_size: 14_336 },
    ...{ num_hidden_layers: 32, num_attention_heads: 32, num_key_value_heads: 8 },
    ...{ max_position_embeddings: 131_072, sliding_window: 4096 },
  },
};

/** The image tower of LLaVA-1.5 and 1.6, where there is no `vision_config`. */
const visionDefaults: ConfigJson = {
  ...{ image_size: 336, patch_size: 14, hidden_size: 1024, intermediate_size: 4096 },
  ...{ num_hidden_layers: 24, num_attention_heads: 16 },
};

/**
 * `config.json` of a LlavaForConditionalGeneration or LlavaNextForConditionalGeneration.
 * @throws ArgumentError for another kind of model, a setting of another kind, or one that we do not
 * have.
 */
export function llavaConfigOf(json: ConfigJson): VisionLanguageConfig {
  const type = json.model_type ?? "llava";
  if (type !== "llava" && type !== "llava_next") refuse("model_type", "llava or llava_next", type);
  const vision = (json.vision_config ?? visionDefaults) as ConfigJson;
  const visionType = vision.model_type ?? "clip_vision_model";
  if (visionType !== "clip_vision_model") refuse("vision_config", "clip_vision_model", visionType);
  const text = (json.text_config ?? {}) as ConfigJson;
  const strategy = json.vision_feature_select_strategy ?? "default";
  if (strategy !== "default" && strategy !== "full")
    refuse("vision_feature_select_strategy", "default or full", strategy);
  const layer = json.vision_feature_layer ?? -2;
  if (![layer].flat().every(Number.isInteger)) refuse("vision_feature_layer", "integers", layer);
  const token = number(json, "image_token_index", number(json, "image_token_id", 32_000));
  const config: VisionLanguageConfig = {
    vision: clipVisionConfigOf(vision),
    connector: {
      kind: "mlp",
      activation: activation(json, "projector_hidden_act", "gelu"),
      bias: flag(json, "multimodal_projector_bias", true),
    },
    language: languageConfigOf({
      ...textDefaults[`${text.model_type ?? "llama"}`],
      ...text,
      // The whole model's word counts.
      tie_word_embeddings: json.tie_word_embeddings ?? text.tie_word_embeddings ?? false,
    }),
    imageToken: token,
    layer: layer as number | number[],
    classToken: strategy === "full",
  };
  if (type === "llava") return config;
  if (strategy === "full") refuse("vision_feature_select_strategy", "default, for tiles", strategy);
  const pinpoints = (json.image_grid_pinpoints ?? LLAVA_NEXT_PINPOINTS) as [number, number][];
  return { ...config, pinpoints };
}

/**
 * The names in published checkpoints of LLaVA and LLaVA-NeXT; a C-Abstractor's are Honeybee's below
 * `projector.`.
 * @throws ArgumentError for another connector.
 */
export function llavaNames(model: VisionLanguageModel): NameMap {
  const { vision, connector, language, newline } = model;
  function* names(): Names {
    if (newline) yield ["image_newline", { cell: newline }];
    yield* clipVisionNames(vision, "vision_tower.vision_model.");
    if (connector instanceof MlpConnector)
      yield* mlpConnectorNames(connector, "multi_modal_projector.");
    else if (connector instanceof CAbstractor) yield* cAbstractorNames(connector, "projector.");
    else throw new ArgumentError(describe("llavaNames", "an MLP or a C-Abstractor", connector.constructor.name)); // biome-ignore format: one line
    yield* languageNames(language, { prefix: "language_model." });
  }
  return new Map(names());
}

/**
 * A LLaVA or LLaVA-NeXT from a folder of the Hugging Face library, in eval mode.
 * @throws CheckpointError that lists all weights that do not fit.
 */
export async function loadLlava(
  folder: string,
  options: LoadCheckpointOptions = {},
): Promise<VisionLanguageModel> {
  const model = new VisionLanguageModel(llavaConfigOf(await readConfig(folder)));
  await loadCheckpoint(folder, model, llavaNames, options);
  return model.eval();
}

/**
 * `config.json` from which the Hugging Face library makes the same model.
 * @throws ArgumentError for a model that the library does not have.
 */
export function llavaJson({ config, connector }: VisionLanguageModel): ConfigJson {
  const { vision, language, layer, classToken = false, pinpoints, imageToken } = config;
  if (!(connector instanceof MlpConnector) || config.connector.kind !== "mlp")
    throw new ArgumentError(describe("llavaJson", "an MLP", connector.constructor.name));
  if (layer === undefined || config.interpolate)
    throw new ArgumentError(
      describe("llavaJson", "a layer, and images of one size", JSON.stringify({ layer })),
    );
  return {
    architectures: [
      pinpoints ? "LlavaNextForConditionalGeneration" : "LlavaForConditionalGeneration",
    ],
    model_type: pinpoints ? "llava_next" : "llava",
    vision_config: clipVisionJson(vision),
    text_config: huggingFaceConfigOf(language),
    image_token_index: imageToken,
    projector_hidden_act: config.connector.activation ?? "gelu",
    multimodal_projector_bias: connector.up.bias !== null,
    vision_feature_layer: layer,
    vision_feature_select_strategy: classToken ? "full" : "default",
    tie_word_embeddings: language.tied ?? false,
    ...(pinpoints ? { image_grid_pinpoints: pinpoints } : {}),
  };
}

/** Writes a folder that `loadLlava` and the Hugging Face library read. */
export const saveLlava = (
  folder: string,
  model: VisionLanguageModel,
  options: SaveOptions = {},
): Promise<void> => saveCheckpoint(folder, llavaNames(model), llavaJson(model), options);
