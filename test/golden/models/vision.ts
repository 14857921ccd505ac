/**
 * @file The group `models`: CLIP, its image tower alone, and the ViT classifiers of the Hugging
 * Face library and of timm.
 */
import {
  binaryCrossEntropyWithLogits,
  crossEntropy,
  mseLoss,
  normalize,
  type Tensor,
} from "hinode";
import {
  CLIP,
  clipConfigOf,
  clipNames,
  clipVisionConfigOf,
  clipVisionNames,
  contrastiveLoss,
  type ImageOptions,
  timmConfigOf,
  timmNames,
  ViT,
  ViTClassifier,
  vitConfigOf,
  vitNames,
} from "hinode/models";
import type { Architecture, Fixture, Tensors } from "./architecture.ts";

/** Whether the call takes images of other sizes than the configuration's. */
const optionsOf = ({ config }: Fixture): ImageOptions => ({
  interpolate: config.interpolate_pos_encoding === true,
});
const imageArguments = ["interpolate_pos_encoding"];

/** States by the names `<name>.0`, `<name>.1`, … */
export const numbered = (name: string, states: readonly Tensor[]): Tensors =>
  Object.fromEntries(states.map((t, i) => [`${name}.${i}`, t]));

const clip: Architecture<CLIP> = {
  class: /\.CLIPModel$/,
  arguments: imageArguments,
  build: ({ config }) => new CLIP(clipConfigOf(config)),
  weights: clipNames,

  forward(model, { pixel_values: images, input_ids: ids, attention_mask: mask }, fixture) {
    const vision = model.vision.hiddenStates(images, optionsOf(fixture)).at(-1)!;
    const text = model.text.forward(ids, mask);
    const [image, words] = [model.projectImage(vision), model.projectText(text, ids)];
    const [image_embeds, text_embeds] = [normalize(image), normalize(words)];
    const logits = model.logits(image_embeds, text_embeds);
    const outputs = {
      logits_per_image: logits,
      logits_per_text: logits.T,
      image_embeds,
      text_embeds,
      vision_pooler_output: image,
      text_pooler_output: words,
      text_last_hidden_state: text,
      vision_last_hidden_state: vision,
    };
    return { outputs, loss: contrastiveLoss(logits) };
  },

  extra: (model, _given, fixture, { pixel_values, input_ids, attention_mask }) => ({
    ...numbered(
      "vision_hidden_states",
      model.vision.hiddenStates(pixel_values, optionsOf(fixture)),
    ),
    ...numbered("text_hidden_states", model.text.hiddenStates(input_ids, attention_mask)),
  }),
};

const clipVision: Architecture<ViT> = {
  class: /\.CLIPVisionModel$/,
  arguments: imageArguments,
  build: ({ config }) => new ViT(clipVisionConfigOf(config)),
  weights: (model) => clipVisionNames(model),

  forward(model, { pixel_values, ...cotangents }, fixture) {
    const states = model.hiddenStates(pixel_values, optionsOf(fixture));
    const last = states.at(-1)!;
    const pooled = model.normalize(last.select(1, 0));
    const { cot_last, cot_pool, cot_penultimate } = cotangents;
    const loss = last
      .mul(cot_last)
      .sum()
      .add(pooled.mul(cot_pool).sum())
      .add(states.at(-2)!.mul(cot_penultimate).sum());
    const outputs = {
      last_hidden_state: last,
      pooler_output: pooled,
      ...numbered("hidden_states", states),
    };
    return { outputs, loss };
  },

  extra(model, given): Tensors {
    const images = given["interpolated.pixel_values"];
    if (!images) return {};
    const last = model.hiddenStates(images, { interpolate: true }).at(-1)!;
    return {
      "interpolated.last_hidden_state": last,
      "interpolated.pooler_output": model.normalize(last.select(1, 0)),
    };
  },
};

const vit: Architecture<ViTClassifier> = {
  class: /\.ViTForImageClassification$/,
  arguments: imageArguments,
  build: ({ config }) => new ViTClassifier(vitConfigOf(config)),
  weights: vitNames,

  forward(model, { pixel_values, labels }, fixture) {
    const states = model.vit.hiddenStates(pixel_values, optionsOf(fixture));
    const logits = model.classify(model.vit.normalize(states.at(-1)!));
    const outputs = { logits, ...numbered("hidden_states", states) };
    return { outputs, loss: classificationLoss(logits, labels) };
  },

  extra(model, given): Tensors {
    const images = given["interpolated.pixel_values"];
    return images ? { "interpolated.logits": model.forward(images, { interpolate: true }) } : {};
  },
};

/**
 * The library takes its loss by the labels: numbers of classes, several at once, or one number to
 * predict.
 */
function classificationLoss(logits: Tensor, labels: Tensor): Tensor {
  if (logits.shape[1] === 1) return mseLoss(logits.squeeze(1), labels.float());
  return labels.ndim === 2
    ? binaryCrossEntropyWithLogits(logits, labels.float())
    : crossEntropy(logits, labels);
}

const timm: Architecture<ViTClassifier> = {
  class: /timm\..*\.VisionTransformer$/,
  build: ({ config }) => new ViTClassifier(timmConfigOf(config)),
  weights: timmNames,

  forward(model, { pixel_values, labels }, { config }) {
    const features = model.vit.forward(pixel_values, { interpolate: config.dynamic_img_size });
    const logits = model.classify(features);
    return { outputs: { features, logits }, loss: crossEntropy(logits, labels) };
  },
};

export const vision = [clip, clipVision, vit, timm] as readonly Architecture[];
