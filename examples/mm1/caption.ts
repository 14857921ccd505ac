/** @file `--caption <image file>`: a trained model says what is on any picture. */
import { access } from "node:fs/promises";
import { captioner, loadMm1 } from "hinode/models";
import sharp from "sharp";
import { captionOf } from "../data/captions.ts";
import { render } from "../data/emoji.ts";
import { imagesOf } from "../data/planes.ts";
import { Stop } from "../support/cli.ts";

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
  const size = model.config.vision.imageSize;
  let pixels: Uint8Array;
  try {
    // Photos lie on their side and drawings have margins; the training images were upright and cut to their outline.
    pixels = await render(await sharp(imageFile).rotate().trim().png().toBuffer(), size);
  } catch (error) {
    throw new Stop(`${imageFile}: expected an image, got: ${(error as Error).message}`);
  }
  const [pad, bos, eos] = ["<pad>", "<bos>", "<eos>"].map((name) => tokenizer.special(name));
  const write = captioner(model, { pad, bos, eos, maxTokens: MAX_TOKENS });
  const [ids] = await write(imagesOf([pixels], size));
  return captionOf(tokenizer, ids);
}
