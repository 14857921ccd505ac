/**
 * @file Classification by description, without training (§3.1 of https://arxiv.org/abs/2103.00020):
 * every class is the mean of what the text tower makes of its name in several sentences, and an
 * image is of the class it is closest to.
 *
 * Shape letters: B images, N classes, E width of the shared space.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { noGrad, normalize, realize, stack, type Tensor } from "../../core/index.ts";
import type { CLIP } from "./clip.ts";

/**
 * Seven sentences that do almost as well as OpenAI's eighty on ImageNet; {} stands for the class.
 * The eighty, and the names of the classes, are in the repository of CLIP
 * (notebooks/Prompt_Engineering_for_ImageNet.ipynb); any list of such strings is taken as
 * `templates`.
 */
export const simpleTemplates: readonly string[] = [
  "itap of a {}.",
  "a bad photo of the {}.",
  "a origami {}.",
  "a photo of the large {}.",
  "a {} in a video game.",
  "art of the {}.",
  "a photo of the small {}.",
];

export interface ZeroShotOptions {
  /**
   * Texts → token ids [texts, T], as the model was trained: with start and end of text, all of one
   * length.
   */
  readonly tokenize: (texts: readonly string[]) => Tensor;
  /** Sentences with {} for the class: `simpleTemplates` unless given. */
  readonly templates?: readonly string[];
}

/**
 * The vectors [N, E] of classes: per class the mean over the templates of the text vectors, each of
 * length 1, at length 1 again. Made once for any number of images. A class at a time goes through
 * the text tower, so memory does not grow with N.
 */
export async function zeroShotWeights(
  clip: CLIP,
  classes: readonly string[],
  { tokenize, templates = simpleTemplates }: ZeroShotOptions,
): Promise<Tensor> {
  const without = templates.find((template) => !template.includes("{}"));
  if (classes.length === 0 || templates.length === 0 || without !== undefined)
    throw new ArgumentError(
      describe(
        "zeroShotWeights",
        "classes, and templates with {}",
        `${classes.length} classes, ${templates.length} templates${without === undefined ? "" : `, "${without}"`}`,
      ),
    );
  const vectors: Tensor[] = [];
  for (const name of classes) {
    const ids = tokenize(templates.map((template) => template.replaceAll("{}", () => name)));
    const vector = noGrad(() => normalize(clip.encodeText(ids).mean(0), 2, 0)); // [E]
    await realize(vector);
    vectors.push(vector);
  }
  return stack(vectors, 0);
}

/**
 * Scores [B, N] of images [B, C, H, W]: the model's factor (100 in trained models) times the
 * cosines; softmax makes them shares.
 */
export const zeroShotLogits = (clip: CLIP, weights: Tensor, images: Tensor): Tensor =>
  noGrad(() => clip.logits(clip.encodeImage(images), weights));
