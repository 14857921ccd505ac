/**
 * @file What checkpoints call the weights of a ViT, in each library's layout: the Hugging Face
 * library's CLIP and ViT, timm, open_clip. A block has the same parts everywhere; a table says what
 * each of these is called. Parts that timm alone has (registers, norms of queries and keys,
 * LayerScale) have timm's names in every layout.
 */
import type { LayerNorm, MLP, TransformerBlock } from "../../nn/index.ts";
import { layerNames, type NameMap, type Names, qkvNames } from "../weights.ts";
import type { AttentionPool, ViTClassifier } from "./classifier.ts";
import type { CLIP } from "./clip.ts";
import type { ViT } from "./vit.ts";

/** Names of a block's parts below the block's own. */
export interface BlockStyle {
  readonly norm1: string;
  /** Queries, keys and values as three layers, or the weight and the bias of the one. */
  readonly qkv: readonly [q: string, k: string, v: string] | { readonly weight: string; readonly bias: string }; // biome-ignore format: one line
  readonly out: string;
  readonly norm2: string;
  readonly up: string;
  readonly down: string;
}

/** transformers.CLIPEncoderLayer */
const clipBlock: BlockStyle = {
  norm1: "layer_norm1",
  qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
  out: "self_attn.out_proj",
  norm2: "layer_norm2",
  up: "mlp.fc1",
  down: "mlp.fc2",
};

/** transformers.ViTLayer */
const vitBlock: BlockStyle = {
  norm1: "layernorm_before",
  qkv: ["attention.attention.query", "attention.attention.key", "attention.attention.value"],
  out: "attention.output.dense",
  norm2: "layernorm_after",
  up: "intermediate.dense",
  down: "output.dense",
};

/** timm.models.vision_transformer.Block; AIM's, but for the norms' names */
export const timmBlock: BlockStyle = {
  norm1: "norm1",
  qkv: { weight: "attn.qkv.weight", bias: "attn.qkv.bias" },
  out: "attn.proj",
  norm2: "norm2",
  up: "mlp.fc1",
  down: "mlp.fc2",
};

/** open_clip.transformer.ResidualAttentionBlock, and OpenAI's */
const openClipBlock: BlockStyle = {
  norm1: "ln_1",
  qkv: { weight: "attn.in_proj_weight", bias: "attn.in_proj_bias" },
  out: "attn.out_proj",
  norm2: "ln_2",
  up: "mlp.c_fc",
  down: "mlp.c_proj",
};

/** Of blocks in a row: `<prefix>0.…`, `<prefix>1.…`. */
export function* blockNames(
  prefix: string,
  blocks: readonly TransformerBlock[],
  style: BlockStyle,
): Names {
  for (const [i, block] of blocks.entries()) {
    const at = (part: string) => `${prefix}${i}.${part}`;
    const { attention } = block;
    const { up, down } = block.feedForward as MLP;
    yield* layerNames(at(style.norm1), block.norm1 as LayerNorm);
    if ("weight" in style.qkv) {
      const { weight, bias } = attention.qkv!;
      yield [at(style.qkv.weight), { cell: weight }];
      if (bias) yield [at(style.qkv.bias), { cell: bias }];
    } else {
      const [q, k, v] = style.qkv.map(at);
      yield* qkvNames([q, k, v], attention);
    }
    const { qNorm, kNorm } = attention;
    if (qNorm && kNorm) {
      yield* layerNames(at("attn.q_norm"), qNorm);
      yield* layerNames(at("attn.k_norm"), kNorm);
    }
    yield* layerNames(at(style.out), attention.out);
    yield* layerNames(at(style.norm2), block.norm2 as LayerNorm);
    yield* layerNames(at(style.up), up);
    yield* layerNames(at(style.down), down);
    if (block.scale1 && block.scale2) {
      yield [at("ls1.gamma"), { cell: block.scale1 }];
      yield [at("ls2.gamma"), { cell: block.scale2 }];
    }
  }
}

/** The patch projection, which checkpoints have as a convolution's weight [D, C, P, P]. */
function* patchNames(name: string, { embed, config }: ViT): Names {
  const { weight, bias } = embed.projection;
  const shape = [config.width, config.channels, config.patchSize, config.patchSize];
  yield [`${name}.weight`, { cell: weight, shape }];
  if (bias) yield [`${name}.bias`, { cell: bias }];
}

/** A class token and positions with leading axes of 1, as the checkpoint has them. */
function* tokenNames(token: string, positions: string, { embed }: ViT, rank: 1 | 3): Names {
  const leading = (shape: readonly number[], to: number) => [...Array(to - shape.length).fill(1), ...shape]; // biome-ignore format: one line
  const { classToken, registers, positions: cell } = embed;
  if (classToken) yield [token, { cell: classToken, shape: leading(classToken.shape, rank) }];
  if (registers) yield ["reg_token", { cell: registers, shape: leading(registers.shape, 3) }];
  if (cell) yield [positions, { cell, shape: leading(cell.shape, rank === 1 ? 2 : 3) }];
}

/** transformers.CLIPVisionModel; names begin with `vision_model.` in published checkpoints. */
export function clipVisionNames(vit: ViT, prefix = "vision_model."): NameMap {
  const at = `${prefix}embeddings.`;
  function* names(): Names {
    yield* tokenNames(`${at}class_embedding`, `${at}position_embedding.weight`, vit, 1);
    yield* patchNames(`${at}patch_embedding`, vit);
    // The library's own spelling.
    if (vit.preNorm) yield* layerNames(`${prefix}pre_layrnorm`, vit.preNorm);
    yield* blockNames(`${prefix}encoder.layers.`, vit.blocks, clipBlock);
    if (vit.norm) yield* layerNames(`${prefix}post_layernorm`, vit.norm);
  }
  return new Map(names());
}

/** transformers.CLIPModel */
export function clipNames(clip: CLIP): NameMap {
  const { vision, text, visionProjection, textProjection, logitScale } = clip;
  function* names(): Names {
    yield ["logit_scale", { cell: logitScale }];
    yield ["text_model.embeddings.token_embedding.weight", { cell: text.tokens.weight }];
    yield ["text_model.embeddings.position_embedding.weight", { cell: text.positions }];
    yield* blockNames("text_model.encoder.layers.", text.blocks, clipBlock);
    yield* layerNames("text_model.final_layer_norm", text.norm);
    yield* clipVisionNames(vision);
    yield* layerNames("visual_projection", visionProjection);
    yield* layerNames("text_projection", textProjection);
  }
  return new Map(names());
}

/** open_clip's CLIP and OpenAI's own. Both projections are x W there. */
export function openClipNames(clip: CLIP): NameMap {
  const { vision, text, visionProjection, textProjection, logitScale } = clip;
  function* names(): Names {
    yield ["positional_embedding", { cell: text.positions }];
    yield ["text_projection", { cell: textProjection.weight, transposed: true }];
    yield ["logit_scale", { cell: logitScale }];
    yield* tokenNames("visual.class_embedding", "visual.positional_embedding", vision, 1);
    yield ["visual.proj", { cell: visionProjection.weight, transposed: true }];
    yield* patchNames("visual.conv1", vision);
    if (vision.preNorm) yield* layerNames("visual.ln_pre", vision.preNorm);
    yield* blockNames("visual.transformer.resblocks.", vision.blocks, openClipBlock);
    if (vision.norm) yield* layerNames("visual.ln_post", vision.norm);
    yield* blockNames("transformer.resblocks.", text.blocks, openClipBlock);
    yield ["token_embedding.weight", { cell: text.tokens.weight }];
    yield* layerNames("ln_final", text.norm);
  }
  return new Map(names());
}

/** transformers.ViTForImageClassification */
export function vitNames({ vit, head }: ViTClassifier): NameMap {
  function* names(): Names {
    yield* tokenNames("vit.embeddings.cls_token", "vit.embeddings.position_embeddings", vit, 3);
    yield* patchNames("vit.embeddings.patch_embeddings.projection", vit);
    yield* blockNames("vit.encoder.layer.", vit.blocks, vitBlock);
    if (vit.norm) yield* layerNames("vit.layernorm", vit.norm);
    yield* layerNames("classifier", head);
  }
  return new Map(names());
}

/** timm.models.vision_transformer.VisionTransformer */
export function timmNames({ vit, attentionPool, poolNorm, head }: ViTClassifier): NameMap {
  function* names(): Names {
    yield* tokenNames("cls_token", "pos_embed", vit, 3);
    yield* patchNames("patch_embed.proj", vit);
    if (vit.preNorm) yield* layerNames("norm_pre", vit.preNorm);
    yield* blockNames("blocks.", vit.blocks, timmBlock);
    if (vit.norm) yield* layerNames("norm", vit.norm);
    if (attentionPool) yield* attentionPoolNames("attn_pool", attentionPool);
    if (poolNorm) yield* layerNames("fc_norm", poolNorm);
    yield* layerNames("head", head);
  }
  return new Map(names());
}

/** timm.layers.AttentionPoolLatent */
function* attentionPoolNames(name: string, { latent, attention, norm, mlp }: AttentionPool): Names {
  yield [`${name}.latent`, { cell: latent, shape: [1, ...latent.shape] }];
  const { weight, bias } = attention.qkv!;
  const D = latent.shape[1];
  for (const [part, rows] of [
    ["q", [0, D]],
    ["kv", [D, 2 * D]],
  ] as const) {
    // biome-ignore format: pairs
    yield [`${name}.${part}.weight`, { cell: weight, rows }];
    if (bias) yield [`${name}.${part}.bias`, { cell: bias, rows }];
  }
  yield* layerNames(`${name}.proj`, attention.out);
  yield* layerNames(`${name}.norm`, norm);
  yield* layerNames(`${name}.mlp.fc1`, mlp.up);
  yield* layerNames(`${name}.mlp.fc2`, mlp.down);
}
