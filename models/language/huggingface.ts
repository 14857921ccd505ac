/**
 * @file Hugging Face's Llama, Mistral and Mixtral (and Qwen's, whose heads are normalised): what `config.json`
 * says as our configuration and back, and where the checkpoint's weights are in our model.
 *
 * A setting that would change the numbers and that we do not know is an error, never ignored.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { layerNames, type NameMap, type Names, qkvNames } from "../weights.ts";
import type { DecoderBlock, LanguageConfig, LanguageModel } from "./decoder.ts";
import { MixtureOfExperts } from "./moe.ts";
import type { RopeParameters } from "./rope.ts";

/** A parsed `config.json`. */
export type HuggingFaceConfig = Readonly<Record<string, unknown>>;

const refuse = (what: string, expected: string, got: unknown): never => {
  throw new ArgumentError(describe("languageConfigOf", `${what}: ${expected}`, `${got}`));
};

/**
 * `config.json` of a LlamaForCausalLM, MistralForCausalLM, MixtralForCausalLM or Qwen3ForCausalLM, by version 4
 * or 5 of the library, → our configuration.
 * @throws ArgumentError for another kind of model, or a setting that we do not have.
 */
export function languageConfigOf(json: HuggingFaceConfig): LanguageConfig {
  const type = json.model_type ?? "llama";
  const types = ["llama", "mistral", "mixtral", "qwen3"];
  if (!types.includes(type as string)) refuse("model_type", `one of ${types.join(", ")}`, type);
  const number = (name: string): number => {
    const value = json[name];
    return typeof value === "number" ? value : refuse(name, "a number", value);
  };
  const optional = (name: string) => ((json[name] ?? null) === null ? undefined : number(name));
  const flag = (name: string) => json[name] === true;
  const act = json.hidden_act ?? "silu";
  if (act !== "silu" && act !== "swish") refuse("hidden_act", "silu", act);
  // Noise on the router's inputs while training: no released model has it.
  if (json.router_jitter_noise) refuse("router_jitter_noise", "0", json.router_jitter_noise);
  const maxPositions = number("max_position_embeddings");
  // Llama has no window; Qwen's is off unless it says otherwise.
  const windowed = type === "mistral" || type === "mixtral" || flag("use_sliding_window");
  const padding = optional("pad_token_id");
  return {
    vocabulary: number("vocab_size"),
    width: number("hidden_size"),
    depth: number("num_hidden_layers"),
    heads: number("num_attention_heads"),
    kvHeads: optional("num_key_value_heads"),
    headDim: optional("head_dim"),
    hidden: number("intermediate_size"),
    eps: optional("rms_norm_eps"),
    rope: ropeOf(json, maxPositions),
    maxPositions,
    qkNorm: type === "qwen3",
    attentionBias: flag("attention_bias"),
    mlpBias: flag("mlp_bias"),
    attentionDropout: optional("attention_dropout"),
    window: windowed ? optional("sliding_window") : undefined,
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

/** Version 5 has all in `rope_parameters`; version 4 `rope_theta` beside a `rope_scaling` that may be null. */
function ropeOf(json: HuggingFaceConfig, maxPositions: number): RopeParameters {
  const said = (json.rope_parameters ?? json.rope_scaling ?? {}) as Record<string, unknown>;
  const number = <T>(name: string, otherwise: T): number | T => {
    const value = said[name] ?? otherwise;
    if (value === undefined) refuse("rope_parameters", name, "none");
    return value as number | T;
  };
  const none = null as null | undefined;
  const given = (name: string) => number(name, none) ?? undefined;
  const theta = (said.rope_theta ?? json.rope_theta ?? 10_000) as number;
  const required = (name: string) => number(name, undefined) as number;
  if ((said.partial_rotary_factor ?? json.partial_rotary_factor ?? 1) !== 1)
    refuse("partial_rotary_factor", "1", said.partial_rotary_factor ?? json.partial_rotary_factor);
  const type = `${said.rope_type ?? said.type ?? "default"}`;
  switch (type) {
    case "default":
      return { theta };
    case "linear":
    case "dynamic":
      return { type, theta, factor: required("factor") };
    case "llama3":
      return {
        ...{ type, theta, factor: required("factor") },
        lowFreqFactor: required("low_freq_factor"),
        highFreqFactor: required("high_freq_factor"),
        originalMaxPositions: required("original_max_position_embeddings"),
      };
    case "yarn": {
      const originalMaxPositions = number("original_max_position_embeddings", maxPositions);
      return {
        ...{ type, theta, originalMaxPositions },
        factor: number("factor", maxPositions / originalMaxPositions),
        attentionFactor: given("attention_factor"),
        betaFast: given("beta_fast"),
        betaSlow: given("beta_slow"),
        mscale: given("mscale"),
        mscaleAllDim: given("mscale_all_dim"),
        truncate: said.truncate as boolean | undefined,
      };
    }
    default:
      return refuse("rope_type", "default, linear, dynamic, llama3 or yarn", type);
  }
}

/** The other way: a `config.json` (version 5) from which the library makes the same model, for weights in f32. */
export function huggingFaceConfigOf(config: LanguageConfig): HuggingFaceConfig {
  const { experts, qkNorm = false, rope = {}, window } = config;
  const unable = (what: string) =>
    new ArgumentError(describe("huggingFaceConfigOf", "a model that the library has", what));
  if (experts && ((experts.every ?? 1) !== 1 || experts.capacityFactor !== undefined))
    throw unable("experts in some blocks only, or of limited capacity");
  if (qkNorm && experts) throw unable("normalised heads and experts");
  if (rope.interleaved) throw unable("interleaved rotary positions");
  const kind = experts ? "Mixtral" : qkNorm ? "Qwen3" : window !== undefined ? "Mistral" : "Llama";
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
    hidden_act: "silu",
    max_position_embeddings: config.maxPositions ?? 2048,
    rms_norm_eps: config.eps ?? 1e-6,
    rope_parameters: { rope_type: type, rope_theta: theta, ...Object.fromEntries(named) },
    attention_bias: config.attentionBias ?? false,
    attention_dropout: config.attentionDropout ?? 0,
    mlp_bias: config.mlpBias ?? false,
    tie_word_embeddings: config.tied ?? false,
    pad_token_id: config.padding ?? null,
    sliding_window: window ?? null,
    ...(qkNorm && window !== undefined ? { use_sliding_window: true } : {}),
    ...(experts
      ? {
          num_local_experts: experts.count,
          num_experts_per_tok: experts.perToken ?? 2,
          output_router_logits: (experts.balanceWeight ?? 0.01) > 0,
          router_aux_loss_coef: experts.balanceWeight ?? 0.01,
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
};

/**
 * The names of a LlamaForCausalLM, MixtralForCausalLM or Qwen3ForCausalLM. `prefix` stands before all names;
 * `body` before those of all but the head.
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
