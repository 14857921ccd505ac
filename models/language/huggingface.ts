/**
 * @file Hugging Face's Llama, Mistral and Mixtral (and Qwen 2 and 3): what `config.json`
 * says as our configuration and back, and where the checkpoint's weights are in our model.
 *
 * The library's classes pass over settings that they do not have, and so do we; one that they have,
 * that changes the numbers and that we do not have is an error.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import {
  activation as activationOf,
  type ConfigJson,
  flag as flagOf,
  number as numberOf,
  numbers,
  optional as optionalOf,
  refuse,
} from "../settings.ts";
import { layerNames, type NameMap, type Names, qkvNames } from "../weights.ts";
import type { DecoderBlock, LanguageConfig, LanguageModel } from "./decoder.ts";
import { MixtureOfExperts } from "./moe.ts";
import type { RopeParameters } from "./rope.ts";

/**
 * What the library takes where a `config.json` is silent, as far as it differs from our defaults.
 */
const classDefaults: Readonly<Record<string, ConfigJson>> = {
  llama: {},
  mistral: { num_key_value_heads: 8, sliding_window: 4096 },
  mixtral: {
    num_key_value_heads: 8,
    rms_norm_eps: 1e-5,
    rope_theta: 1e6,
    router_aux_loss_coef: 0.001,
  },
  qwen2: { num_key_value_heads: 32 },
  qwen3: { num_key_value_heads: 32, head_dim: 128 },
};

/**
 * `config.json` of a LlamaForCausalLM, MistralForCausalLM, MixtralForCausalLM, Qwen2ForCausalLM or
 * Qwen3ForCausalLM, by version 4 or 5 of the library, → our configuration.
 * @throws ArgumentError for another kind of model, or a setting that we do not have.
 */
export function languageConfigOf(given: ConfigJson): LanguageConfig {
  const type = `${given.model_type ?? "llama"}`;
  if (!Object.hasOwn(classDefaults, type))
    refuse("model_type", `one of ${Object.keys(classDefaults).join(", ")}`, type);
  const json = { ...classDefaults[type], ...given };
  const number = (name: string) => numberOf(json, name);
  const optional = (name: string) => optionalOf(json, name);
  const flag = (name: string) => flagOf(json, name);
  const activation = activationOf(json, "hidden_act", "silu");
  // Noise on the router's inputs while training: no released model has it.
  if (json.router_jitter_noise) refuse("router_jitter_noise", "0", json.router_jitter_noise);
  const maxPositions = number("max_position_embeddings");
  // Llama has no window; Qwen's is off unless it says otherwise.
  const windowed = type === "mistral" || type === "mixtral" || flag("use_sliding_window");
  const window = windowed ? optional("sliding_window") : undefined;
  // Qwen's window may begin at a layer; others say what each layer has.
  const kind = window === undefined ? "full_attention" : "sliding_attention";
  const kinds = [json.layer_types ?? []].flat();
  if (kinds.some((k) => k !== kind)) refuse("layer_types", kind, kinds);
  if (kinds.length === 0 && window !== undefined && flag("use_sliding_window"))
    if ((json.max_window_layers ?? 28) !== 0)
      refuse("max_window_layers", "0: a window in all layers", json.max_window_layers);
  const padding = optional("pad_token_id");
  return {
    vocabulary: number("vocab_size"),
    width: number("hidden_size"),
    depth: number("num_hidden_layers"),
    heads: number("num_attention_heads"),
    kvHeads: optional("num_key_value_heads"),
    headDim: optional("head_dim"),
    hidden: number("intermediate_size"),
    // Both are names of the default.
    activation: activation === "silu" || activation === "swish" ? undefined : activation,
    eps: optional("rms_norm_eps"),
    rope: ropeOf(json, maxPositions),
    maxPositions,
    qkNorm: type === "qwen3",
    // Qwen2's queries, keys and values have biases, whatever is said.
    attentionBias: type === "qwen2" ? "qkv" : flag("attention_bias"),
    mlpBias: flag("mlp_bias"),
    attentionDropout: optional("attention_dropout"),
    window,
    tied: flag("tie_word_embeddings"),
    padding: padding !== undefined && padding < 0 ? undefined : padding,
    experts:
      type !== "mixtral"
        ? undefined
        : {
            count: number("num_local_experts"),
            perToken: optional("num_experts_per_tok"),
            balance: "all",
            // Only asked for its router's logits does Mixtral add the loss.
            balanceWeight: flag("output_router_logits") ? number("router_aux_loss_coef") : 0,
          },
  };
}

/**
 * Version 5 has all in `rope_parameters`; version 4 `rope_theta` beside a `rope_scaling` that may
 * be null.
 */
function ropeOf(json: ConfigJson, maxPositions: number): RopeParameters {
  const said = (json.rope_parameters ?? json.rope_scaling ?? {}) as ConfigJson;
  const either = (name: string, otherwise: number) =>
    numberOf(said, name, numberOf(json, name, otherwise));
  const theta = either("rope_theta", 10_000);
  const share = either("partial_rotary_factor", 1);
  const partial = share === 1 ? {} : { partialRotaryFactor: share };
  const number = (name: string, otherwise?: number) => numberOf(said, name, otherwise);
  const given = (name: string) => optionalOf(said, name);
  const type = `${said.rope_type ?? said.type ?? "default"}`;
  switch (type) {
    case "default":
      return { theta, ...partial };
    case "linear":
    case "dynamic":
      return { type, theta, ...partial, factor: number("factor") };
    case "llama3":
      return {
        ...{ type, theta, ...partial, factor: number("factor") },
        lowFreqFactor: number("low_freq_factor"),
        highFreqFactor: number("high_freq_factor"),
        originalMaxPositions: number("original_max_position_embeddings"),
      };
    case "yarn": {
      const originalMaxPositions = number("original_max_position_embeddings", maxPositions);
      return {
        ...{ type, theta, ...partial, originalMaxPositions },
        factor: number("factor", maxPositions / originalMaxPositions),
        attentionFactor: given("attention_factor"),
        betaFast: given("beta_fast"),
        betaSlow: given("beta_slow"),
        mscale: given("mscale"),
        mscaleAllDim: given("mscale_all_dim"),
        truncate: flagOf(said, "truncate", true),
      };
    }
    case "longrope":
    case "su": {
      // Phi-3 has the original length beside, not among, these parameters.
      return {
        ...{ type: "longrope", theta, ...partial },
        shortFactor: numbers(said, "short_factor"),
        longFactor: numbers(said, "long_factor"),
        originalMaxPositions: either("original_max_position_embeddings", maxPositions),
        factor: given("factor"),
        attentionFactor: given("attention_factor"),
      };
    }
    default:
      return refuse("rope_type", "default, linear, dynamic, llama3, yarn or longrope", type);
  }
}

/**
 * The other way: a `config.json` (version 5) from which the library makes the same model, for
 * weights in f32.
 * @throws ArgumentError for a model, or a loss, that the library does not have.
 */
export function huggingFaceConfigOf(config: LanguageConfig): ConfigJson {
  const { experts, qkNorm = false, rope = {}, window } = config;
  const unable = (what: string) =>
    new ArgumentError(describe("huggingFaceConfigOf", "a model that the library has", what));
  if (experts && ((experts.every ?? 1) !== 1 || experts.capacityFactor !== undefined))
    throw unable("experts in some blocks only, or of limited capacity");
  if (config.zLoss || experts?.zWeight) throw unable("a z-loss of the logits, or of the router's");
  const { balance = "first", balanceWeight = 0.01 } = experts ?? {};
  if (experts && balance === "first" && balanceWeight > 0)
    throw unable('a load-balance loss of first choices (balance: "all" is its)');
  if (qkNorm && experts) throw unable("normalised heads and experts");
  if (rope.interleaved) throw unable("interleaved rotary positions");
  const qkv = config.attentionBias === "qkv";
  if (qkv && (experts || qkNorm))
    throw unable("biases of queries, keys and values alone, and more");
  const kind = experts
    ? "Mixtral"
    : qkNorm
      ? "Qwen3"
      : qkv
        ? "Qwen2"
        : window !== undefined
          ? "Mistral"
          : "Llama";
  if (kind !== "Llama" && config.mlpBias) throw unable(`${kind} with biases in the MLP`);
  if ((kind === "Mixtral" || kind === "Mistral") && config.attentionBias)
    throw unable(`${kind} with biases in attention`);
  const { type = "default", theta = 10_000, interleaved: _, ...scaling } = rope;
  const named = Object.entries(scaling).map(([name, value]) => [ROPE_NAMES[name], value]);
  return {
    architectures: [`${kind}ForCausalLM`],
    model_type: kind.toLowerCase(),
    vocab_size: config.vocabulary,
    hidden_size: config.width,
    intermediate_size: config.hidden,
    num_hidden_layers: config.depth,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads ?? config.heads,
    head_dim: config.headDim ?? config.width / config.heads,
    hidden_act: config.activation ?? "silu",
    max_position_embeddings: config.maxPositions ?? 2048,
    rms_norm_eps: config.eps ?? 1e-6,
    rope_parameters: { rope_type: type, rope_theta: theta, ...Object.fromEntries(named) },
    attention_bias: config.attentionBias === true,
    attention_dropout: config.attentionDropout ?? 0,
    mlp_bias: config.mlpBias ?? false,
    tie_word_embeddings: config.tied ?? false,
    pad_token_id: config.padding ?? null,
    sliding_window: window ?? null,
    ...((qkNorm || qkv) && window !== undefined
      ? { use_sliding_window: true, max_window_layers: 0 }
      : {}),
    ...(experts
      ? {
          num_local_experts: experts.count,
          num_experts_per_tok: experts.perToken ?? 2,
          output_router_logits: balanceWeight > 0,
          router_aux_loss_coef: balanceWeight,
        }
      : {}),
    torch_dtype: "float32",
  };
}

const ROPE_NAMES: Readonly<Record<string, string>> = {
  factor: "factor",
  lowFreqFactor: "low_freq_factor",
  highFreqFactor: "high_freq_factor",
  originalMaxPositions: "original_max_position_embeddings",
  attentionFactor: "attention_factor",
  betaFast: "beta_fast",
  betaSlow: "beta_slow",
  mscale: "mscale",
  mscaleAllDim: "mscale_all_dim",
  truncate: "truncate",
  shortFactor: "short_factor",
  longFactor: "long_factor",
  partialRotaryFactor: "partial_rotary_factor",
};

/**
 * The names of a LlamaForCausalLM, MixtralForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM.
 * `prefix` stands before all names; `body` before those of all but the head.
 */
export function languageNames(
  model: LanguageModel,
  { prefix = "", body = `${prefix}model.` }: { prefix?: string; body?: string } = {},
): NameMap {
  function* names(): Names {
    yield [`${body}embed_tokens.weight`, { cell: model.tokens.weight }];
    for (const [i, block] of model.blocks.entries()) yield* blockNames(`${body}layers.${i}`, block);
    yield* layerNames(`${body}norm`, model.norm);
    if (model.head) yield* layerNames(`${prefix}lm_head`, model.head);
    else yield [`${prefix}lm_head.weight`, { cell: model.tokens.weight }];
  }
  return new Map(names());
}

function* blockNames(name: string, block: DecoderBlock): Names {
  const { attention, feedForward } = block;
  const inner = `${name}.self_attn`;
  yield* layerNames(`${name}.input_layernorm`, block.norm1);
  yield* qkvNames([`${inner}.q_proj`, `${inner}.k_proj`, `${inner}.v_proj`], attention);
  yield* layerNames(`${inner}.o_proj`, attention.out);
  if (attention.qNorm) yield* layerNames(`${inner}.q_norm`, attention.qNorm);
  if (attention.kNorm) yield* layerNames(`${inner}.k_norm`, attention.kNorm);
  yield* layerNames(`${name}.post_attention_layernorm`, block.norm2);
  if (feedForward instanceof MixtureOfExperts) {
    yield* expertNames(`${name}.block_sparse_moe`, feedForward);
    return;
  }
  yield* layerNames(`${name}.mlp.gate_proj`, feedForward.gate);
  yield* layerNames(`${name}.mlp.up_proj`, feedForward.up);
  yield* layerNames(`${name}.mlp.down_proj`, feedForward.down);
}

/** Mixtral has three matrices per expert, w1 the gate, w3 up, w2 down; we have three in all. */
function* expertNames(name: string, layer: MixtureOfExperts): Names {
  yield* layerNames(`${name}.gate`, layer.router);
  const cells = { w1: layer.gate, w2: layer.down, w3: layer.up };
  for (let e = 0; e < layer.router.outFeatures; e++)
    for (const [w, cell] of Object.entries(cells))
      yield [
        `${name}.experts.${e}.${w}.weight`,
        { cell, rows: [e, 1], shape: cell.shape.slice(1) },
      ];
}
