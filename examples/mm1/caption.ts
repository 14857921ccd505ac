/** @file `--caption <image file>`: a trained model says what is on any picture. */
import { access } from "node:fs/promises";
import { Generator, loadMm1 } from "hinode/models";
import sharp from "sharp";
import { captionOf, promptOf } from "../data/captions.ts";
import { render } from "../data/emoji.ts";
import { imagesOf } from "../data/planes.ts";
import { Stop } from "../support/cli.ts";
import { sideOf } from "./evaluate.ts";

/** More than any caption of the training set has. */
const MAX_TOKENS = 16;

export async function captionFile(modelFile: string, imageFile: string): Promise<string> {
  for (const [path, hint] of [
    [modelFile, "npm run mm1 trains a model, and --out names its folder"],
    [imageFile, "--caption takes the path of an image"],
  ])
    await access(path).catch(() => {
      throw new Stop(`${path}: no such file; ${hint}`);
    });
  const { model, tokenizer } = await loadMm1(modelFile);
  const size = sideOf(model);
  let pixels: Uint8Array;
  try {
    // Photos lie on their side and drawings have margins; the training images were upright and cut to their outline.
    pixels = await render(await sharp(imageFile).rotate().trim().png().toBuffer(), size);
  } catch (error) {
    throw new Stop(`${imageFile}: expected an image, got: ${(error as Error).message}`);
  }
  const images = imagesOf([pixels], size);
  const prompt = promptOf(tokenizer, model.tokenCounts(images)[0]);
  const generator = new Generator(model, { length: prompt.length + MAX_TOKENS });
  const { tokens } = await generator.generate(
    { ids: [prompt], images },
    { maxNewTokens: MAX_TOKENS, stopTokens: [tokenizer.special("<eos>")] },
  );
  return captionOf(tokenizer, tokens[0]);
}
