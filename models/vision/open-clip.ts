/**
 * @file open_clip's own way of publishing a CLIP: `open_clip_config.json` (or a file of its
 * model_configs) and the weights under names of their own (names.ts). DFN's and LAION's encoders
 * come in this form.
 *
 * A setting that we do not know is an error, never ignored.
 */
import { writeFile } from "../../nn/checkpoint/disk.ts";
import { saveSafetensors } from "../../nn/index.ts";
import {
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
  storedWeights,
} from "../weights.ts";
import { CLIP, type ClipConfig, clipVisionConfig } from "./clip.ts";
import { clipParts, refuseParts } from "./huggingface.ts";
import { openClipNames } from "./names.ts";
import { sidesOf } from "./positions.ts";

const words = (text: string) => text.split(" ");

/** Of both towers: what we have with one value only, open_clip's default. */
const fixed: ConfigJson = { ls_init_value: null, act_kwargs: null, norm_kwargs: null, final_ln_after_pool: false, block_type: null, attn_type: null, qk_norm: false, scaled_cosine_attn: false, scale_heads: false, scale_attn_inner: false, scale_attn: false, scale_fc: false }; // biome-ignore format: a table
const fixedVision: ConfigJson = { ...fixed, patch_dropout: 0, attentional_pool: false, no_ln_pre: false, pos_embed_type: "learnable", pool_type: "tok", timm_model_name: null }; // biome-ignore format: a table
const fixedText: ConfigJson = { ...fixed, embed_cls: false, no_causal_mask: false, pool_type: "argmax", proj_bias: false, proj_type: "linear", hf_model_name: null }; // biome-ignore format: a table
const fixedClip: ConfigJson = { custom_text: false, init_logit_bias: null, nonscalar_logit_scale: false, multimodal_cfg: null }; // biome-ignore format: a table

/**
 * What is read here, and what changes no number beside the values above: parts of towers that are
 * not, tokenizers.
 */
const knownVision = words("layers width head_width mlp_ratio patch_size image_size output_tokens attn_pooler_queries attn_pooler_heads timm_model_pretrained timm_pool timm_proj timm_proj_bias timm_drop timm_drop_path"); // biome-ignore format: a table
const knownText = words("context_length vocab_size width heads layers mlp_ratio output_tokens pad_id eos_id hf_tokenizer_name tokenizer_mode tokenizer_kwargs hf_model_pretrained hf_proj_type hf_pooler_type"); // biome-ignore format: a table
const knownClip = words("embed_dim quick_gelu vision_cfg text_cfg init_logit_scale cast_dtype");

/**
 * A file of open_clip's model_configs, or an `open_clip_config.json`, which has the same under
 * `model_cfg`.
 * @throws ArgumentError for a setting of another kind, or one that we do not have.
 */
export function openClipConfigOf(file: ConfigJson): ClipConfig {
  const json = (file.model_cfg ?? file) as ConfigJson;
  const vision = (json.vision_cfg ?? {}) as ConfigJson;
  const text = (json.text_cfg ?? {}) as ConfigJson;
  for (const [part, known, only] of [
    [json, knownClip, fixedClip],
    [vision, knownVision, fixedVision],
    [text, knownText, fixedText],
  ] as const) {
    refuseUnknown(part, known, only);
    refuseOthers(part, only);
  }
  const activation = flag(json, "quick_gelu") ? "quick_gelu" : "gelu";
  const width = number(vision, "width", 768);
  const heads = width / number(vision, "head_width", 64);
  if (!Number.isInteger(heads)) refuse("head_width", `a divisor of ${width}`, vision.head_width);
  const textWidth = number(text, "width", 512);
  return {
    embed: number(json, "embed_dim"),
    vision: clipVisionConfig({
      imageSize: imageSize(vision, "image_size", 224),
      patchSize: patchSize(vision, "patch_size", 16),
      channels: 3,
      width,
      // A residual network has a list here.
      depth: number(vision, "layers", 12),
      heads,
      hidden: Math.trunc(width * number(vision, "mlp_ratio", 4)),
      activation,
    }),
    text: {
      vocabulary: number(text, "vocab_size", 49_408),
      context: number(text, "context_length", 77),
      width: textWidth,
      depth: number(text, "layers", 12),
      heads: number(text, "heads", 8),
      hidden: Math.trunc(textWidth * number(text, "mlp_ratio", 4)),
      activation,
    },
  };
}

/**
 * A CLIP from a folder with `open_clip_config.json` and `open_clip_model.safetensors`, in eval
 * mode.
 * @throws CheckpointError that lists all weights that do not fit.
 */
export async function loadOpenCLIP(
  folder: string,
  options: LoadCheckpointOptions = {},
): Promise<CLIP> {
  const model = new CLIP(openClipConfigOf(await readConfig(folder, "open_clip_config.json")));
  await loadCheckpoint(`${folder}/open_clip_model.safetensors`, model, openClipNames, options);
  return model.eval();
}

/**
 * `open_clip_config.json` from which open_clip makes the same CLIP.
 * @throws ArgumentError for a model that it does not have.
 */
export function openClipJson({ config }: CLIP): ConfigJson {
  const { vision, text } = config;
  refuseParts("openClipJson", vision, clipParts);
  const no = (expected: string, got: unknown) => refuse("openClipJson", expected, got);
  if (vision.antialias === false) no("antialias: true, open_clip's way to resize positions", false);
  if (vision.channels !== 3) no("3 channels", vision.channels);
  for (const { eps = 1e-5 } of [vision, text]) if (eps !== 1e-5) no("norms with eps 1e-5", eps);
  const { activation = "gelu" } = vision;
  const both = [activation, text.activation ?? "gelu"];
  if (new Set(both).size > 1 || !["gelu", "quick_gelu"].includes(activation))
    no("gelu or quick_gelu in both towers", both);
  // The text's vector is at its highest id.
  const { endOfText = text.vocabulary - 1 } = text;
  if (endOfText !== text.vocabulary - 1) no(`an end of text of ${text.vocabulary - 1}`, endOfText);
  const [height, width] = sidesOf(vision.imageSize);
  const ratio = ({ width, hidden }: { readonly width: number; readonly hidden: number }) => {
    const mlp_ratio = hidden / width;
    return Math.trunc(width * mlp_ratio) === hidden
      ? { mlp_ratio }
      : { mlp_ratio: (hidden + 0.5) / width };
  };
  const model_cfg = {
    embed_dim: config.embed,
    quick_gelu: activation === "quick_gelu",
    vision_cfg: {
      image_size: height === width ? width : [height, width],
      ...{ layers: vision.depth, width: vision.width, head_width: vision.width / vision.heads },
      ...{ ...ratio(vision), patch_size: vision.patchSize },
    },
    text_cfg: {
      ...{ context_length: text.context, vocab_size: text.vocabulary },
      ...{ width: text.width, heads: text.heads, layers: text.depth, ...ratio(text) },
    },
  };
  // How images are prepared is no part of a model: open_clip takes its defaults.
  return { model_cfg, preprocess_cfg: {} };
}

/** Writes a folder that `loadOpenCLIP` and open_clip read. The folder must exist. */
export async function saveOpenCLIP(folder: string, clip: CLIP): Promise<void> {
  const config = openClipJson(clip);
  const tensors = storedWeights(openClipNames(clip));
  await saveSafetensors(`${folder}/open_clip_model.safetensors`, tensors, { format: "pt" });
  const text = `${JSON.stringify(config, null, 2)}\n`;
  await writeFile(`${folder}/open_clip_config.json`, [new TextEncoder().encode(text)]);
}
