/**
 * @file Folders of language models: in the Hugging Face library's layout (Llama, Mistral, Mixtral,
 * Qwen 2, Qwen 3), or, for those that it does not have, with our configuration and our names.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { loadOwn, saveOwn } from "../own-folder.ts";
import {
  type LoadCheckpointOptions,
  loadCheckpoint,
  readConfig,
  type SaveOptions,
  saveCheckpoint,
} from "../weights.ts";
import { type LanguageConfig, LanguageModel } from "./decoder.ts";
import { huggingFaceConfigOf, languageConfigOf, languageNames } from "./huggingface.ts";

const TYPE = "hinode_language";

/**
 * A language model from a folder (`config.json`, `model.safetensors` or shards and their index),
 * in eval mode. Weights are read one after the other; `{ dtype: "int8" }` quantises the matrices
 * of Linear layers on their way (those of experts stay floats).
 * @throws CheckpointError that lists all weights that do not fit.
 */
export async function loadLanguageModel(
  folder: string,
  options: LoadCheckpointOptions = {},
): Promise<LanguageModel> {
  const json = await readConfig(folder);
  if (json.model_type === TYPE) {
    const make = (config: LanguageConfig) => new LanguageModel(config);
    return loadOwn(folder, json, "a LanguageConfig", make, options);
  }
  const model = new LanguageModel(languageConfigOf(json));
  await loadCheckpoint(folder, model, languageNames, options);
  return model.eval();
}

export interface SaveLanguageOptions extends SaveOptions {
  /**
   * "huggingface" (unless given): that library reads the folder too. "hinode": any model, with
   * experts in some blocks, of limited capacity, quantised.
   */
  readonly format?: "huggingface" | "hinode";
}

/**
 * Writes a folder that `loadLanguageModel` reads, and, unless `format` says otherwise, the Hugging
 * Face library.
 * @throws ArgumentError for a model that the format does not have.
 */
export async function saveLanguageModel(
  folder: string,
  model: LanguageModel,
  { format = "huggingface", ...options }: SaveLanguageOptions = {},
): Promise<void> {
  if (format === "hinode") return saveOwn(folder, TYPE, model, options);
  const op = "saveLanguageModel";
  if (format !== "huggingface")
    throw new ArgumentError(describe(op, 'format "huggingface" or "hinode"', `"${format}"`));
  let parts: Parameters<typeof saveCheckpoint>;
  try {
    parts = [folder, languageNames(model), huggingFaceConfigOf(model.config), options];
  } catch (cause) {
    const got = (cause as Error).message;
    const hint = 'format: "hinode" writes any model';
    throw new ArgumentError(describe(op, "a model that the library has", got, hint), { cause });
  }
  await saveCheckpoint(...parts);
}
