/**
 * @file A trained model that sees in one safetensors file: weights, and in the metadata the
 * configuration and the tokenizer, so that the file is all that captioning needs.
 */
import { CheckpointError, describe } from "../../core/errors.ts";
import { loadModel, openSafetensors, saveModel } from "../../nn/index.ts";
import { BpeTokenizer } from "../language/bpe.ts";
import { type VisionLanguageConfig, VisionLanguageModel } from "../multimodal/vision-language.ts";
import { likeQuantized, type Quantized, quantizedOf, refuseConversion } from "../own-folder.ts";
import type { LoadCheckpointOptions } from "../weights.ts";

const KEYS = { config: "mm1.config", tokenizer: "mm1.tokenizer", quantized: "mm1.quantized" } as const; // biome-ignore format: one line

/** Written atomically, integers of a quantised model as they are; `metadata` is noted besides. */
export function saveMm1(
  path: string,
  model: VisionLanguageModel,
  tokenizer: BpeTokenizer,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const quantized = quantizedOf(model);
  return saveModel(path, model, {
    ...metadata,
    ...(quantized ? { [KEYS.quantized]: JSON.stringify(quantized) } : {}),
    [KEYS.config]: JSON.stringify(model.config),
    [KEYS.tokenizer]: JSON.stringify(tokenizer),
  });
}

/**
 * The model (in eval mode) and the tokenizer of a file that saveMm1 wrote; weights are converted to
 * `dtype` while they are read.
 * @throws CheckpointError when the file is another one or contradicts itself, ArgumentError for a
 *   `dtype` where there are integers already.
 */
export async function loadMm1(
  path: string,
  options: LoadCheckpointOptions = {},
): Promise<{ model: VisionLanguageModel; tokenizer: BpeTokenizer }> {
  const read = async (key: string, required = true): Promise<unknown> => {
    await using file = await openSafetensors(path);
    const text = file.metadata.get(key);
    if (text === undefined && !required) return null;
    if (text === undefined) throw refuse(path, `metadata "${key}"`, "none");
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw refuse(path, `JSON as "${key}"`, "something else", cause);
    }
  };
  const config = await read(KEYS.config);
  if (!isConfig(config)) throw refuse(path, "sizes of a vision and a language model", "others");
  const json = await read(KEYS.tokenizer);
  let tokenizer: BpeTokenizer;
  try {
    tokenizer = BpeTokenizer.fromJSON(json);
  } catch (cause) {
    throw refuse(path, "a tokenizer", (cause as Error).message, cause);
  }
  if (tokenizer.vocabularySize !== config.language.vocabulary)
    throw refuse(
      path,
      `a tokenizer of ${config.language.vocabulary} tokens`,
      `${tokenizer.vocabularySize}`,
    );
  const quantized = (await read(KEYS.quantized, false)) as Quantized | null;
  if (quantized) refuseConversion(path, options);
  let model: VisionLanguageModel;
  try {
    model = new VisionLanguageModel(config);
    if (quantized) likeQuantized(model, quantized);
  } catch (cause) {
    throw refuse(path, "sizes that fit together", (cause as Error).message, cause);
  }
  await loadModel(path, model, options);
  model.eval();
  return { model, tokenizer };
}

/**
 * Every size is a number in a range in which a wrong file can do no harm; what fits is checked by
 * the modules.
 */
function isConfig(x: unknown): x is VisionLanguageConfig {
  const config = (x ?? {}) as Partial<Record<keyof VisionLanguageConfig, unknown>>;
  const { vision, connector, language, imageToken } = config;
  const inRange = (size: unknown) => Number.isInteger(size) && (size as number) > 0 && (size as number) < 2 ** 20; // biome-ignore format: one line
  const fieldOf = (part: unknown, name: string) => (part as Record<string, unknown> | undefined)?.[name]; // biome-ignore format: one line
  const sizes = (part: unknown, names: readonly string[]) =>
    names.every((name) => [fieldOf(part, name)].flat().every(inRange));
  const common = ["width", "depth", "heads", "hidden"];
  return (
    sizes(vision, [...common, "imageSize", "patchSize", "channels"]) &&
    typeof fieldOf(connector, "kind") === "string" &&
    inRange(fieldOf(connector, "tokens") ?? 1) &&
    sizes(language, [...common, "vocabulary"]) &&
    Number.isInteger(imageToken)
  );
}

const refuse = (path: string, expected: string, got: string, cause?: unknown) =>
  new CheckpointError(describe(`${path} as an MM1`, expected, got, "saveMm1 writes such files"), {
    cause,
  });
