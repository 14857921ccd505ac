/**
 * @file MM1's published sizes as configurations of VisionLanguageModel (https://arxiv.org/abs/2403.09611): CLIP's ViT-H at 378
 * pixels, a C-Abstractor of 144 tokens, and a language model; the ablations' base is a ViT-L at 336 and 1.2B. They also tried
 * AIM's encoders, and 64 tokens by averages or attention: the options have them.
 *
 * Not said in the paper, and decided here: the dimensions of the language models (../language/presets.ts), that the last
 * layer is read behind its norm and without the class token, Honeybee's sizes for the C-Abstractor, the placeholder's id.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import type { ConnectorChoice } from "../connectors/choice.ts";
import { specials } from "../language/bpe.ts";
import { languagePresets } from "../language/presets.ts";
import type { VisionLanguageConfig } from "../multimodal/vision-language.ts";
import { type AimSize, aimConfig } from "../vision/aim.ts";
import { type ClipSize, clipConfig } from "../vision/clip.ts";
import type { ViTConfig } from "../vision/vit.ts";

const final: ClipSize = "H/14-378";

const sizes = {
  /** The base of the ablations. */
  "1.2B": { encoder: "L/14-336", language: "1.2B" },
  "3B": { encoder: final, language: "2.9B" },
  "7B": { encoder: final, language: "6.4B" },
  "30B": { encoder: final, language: "30B" },
  "3B-MoE": { encoder: final, language: "3B-MoE" },
  "7B-MoE": { encoder: final, language: "7B-MoE" },
} as const satisfies Record<string, { encoder: ClipSize; language: keyof typeof languagePresets }>;

export type Mm1Size = keyof typeof sizes;
export const mm1Sizes = Object.keys(sizes) as readonly Mm1Size[];

export type Mm1Encoder = ClipSize | `AIM-${AimSize}`;

export interface Mm1Options {
  /** A C-Abstractor of 144 tokens unless given. */
  readonly connector?: ConnectorChoice;
  /** The published one unless given. */
  readonly encoder?: Mm1Encoder;
}

function encoderConfig(name: Mm1Encoder): ViTConfig {
  if (name.startsWith("AIM-")) return aimConfig(name.slice(4) as AimSize);
  // DFN's encoders were trained with the quick GELU.
  return clipConfig(name as ClipSize, { activation: "quick_gelu" }).vision;
}

/**
 * A published size. Making the model takes no memory for its weights until they are used, so that those of the 30B can be
 * counted anywhere. Images of any size are taken, as the sub-images of high resolutions are larger than 378 pixels.
 */
export function mm1Config(size: Mm1Size, options: Mm1Options = {}): VisionLanguageConfig {
  if (!Object.hasOwn(sizes, size))
    throw new ArgumentError(describe("mm1Config", `one of ${mm1Sizes.join(", ")}`, `"${size}"`));
  const { encoder, language } = sizes[size];
  const { connector = { kind: "c-abstractor", tokens: 144 } } = options;
  return {
    vision: encoderConfig(options.encoder ?? encoder),
    connector,
    language: languagePresets[language],
    imageToken: specials.indexOf("<image>"),
    interpolate: true,
  };
}
