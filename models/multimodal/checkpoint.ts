/**
 * @file Folders of models that see, of any kind: those that are a LLaVA are the Hugging Face
 * library's, all others (MM1) have our configuration in `config.json` and our names in the weights.
 */
import { loadOwn, saveOwn } from "../own-folder.ts";
import { type LoadCheckpointOptions, readConfig, type SaveOptions } from "../weights.ts";
import { loadLlava } from "./huggingface.ts";
import { type VisionLanguageConfig, VisionLanguageModel } from "./vision-language.ts";

const TYPE = "hinode_vision_language";

/**
 * Writes a folder that `loadVisionLanguageModel` reads, of a quantised model too; `saveLlava`
 * writes one for the Hugging Face library.
 */
export const saveVisionLanguageModel = (
  folder: string,
  model: VisionLanguageModel,
  options: SaveOptions = {},
): Promise<void> => saveOwn(folder, TYPE, model, options);

/**
 * A model from a folder of `saveVisionLanguageModel`, `saveLlava` or the Hugging Face library's
 * LLaVA and LLaVA-NeXT, in eval mode. Weights are read one after the other, and converted to
 * `dtype` on their way.
 * @throws CheckpointError that lists all weights that do not fit.
 */
export async function loadVisionLanguageModel(
  folder: string,
  options: LoadCheckpointOptions = {},
): Promise<VisionLanguageModel> {
  const json = await readConfig(folder);
  if (json.model_type !== TYPE) return loadLlava(folder, options);
  const make = (config: VisionLanguageConfig) => new VisionLanguageModel(config);
  return loadOwn(folder, json, "a VisionLanguageConfig", make, options);
}
