/**
 * @file A trained MM1 in one safetensors file: weights, and in the metadata the configuration and the tokenizer, so that
 * the file is all that captioning needs.
 */
import { CheckpointError, describe } from "../../core/errors.ts";
import { loadModel, openSafetensors, saveModel } from "../../nn/index.ts";
import { BpeTokenizer } from "../language/bpe.ts";
import { Mm1, type Mm1Config } from "./mm1.ts";

const KEYS = { config: "mm1.config", tokenizer: "mm1.tokenizer" } as const;

/** Written atomically; `metadata` is noted besides. */
export function saveMm1(
  path: string,
  model: Mm1,
  tokenizer: BpeTokenizer,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  return saveModel(path, model, {
    ...metadata,
    [KEYS.config]: JSON.stringify(model.config),
    [KEYS.tokenizer]: JSON.stringify(tokenizer),
  });
}

/**
 * The model (in eval mode) and the tokenizer of a file that saveMm1 wrote.
 * @throws CheckpointError when the file is another one or contradicts itself.
 */
export async function loadMm1(path: string): Promise<{ model: Mm1; tokenizer: BpeTokenizer }> {
  const read = async (key: string): Promise<unknown> => {
    await using file = await openSafetensors(path);
    const text = file.metadata.get(key);
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
  const model = new Mm1(config);
  await loadModel(path, model);
  model.eval();
  return { model, tokenizer };
}

/** Every size is a number in a range in which a wrong file can do no harm; what fits is checked by the modules. */
function isConfig(x: unknown): x is Mm1Config {
  const { vision, grid, language } = (x ?? {}) as Partial<Record<keyof Mm1Config, unknown>>;
  const sizes = (part: unknown, names: readonly string[]) =>
    names.every((name) => {
      const size = (part as Record<string, unknown> | undefined)?.[name];
      return Number.isInteger(size) && (size as number) > 0 && (size as number) < 2 ** 20;
    });
  const common = ["width", "depth", "heads", "hidden"];
  return (
    sizes({ grid }, ["grid"]) &&
    sizes(vision, [...common, "imageSize", "patchSize", "channels"]) &&
    sizes(language, [...common, "vocabulary"])
  );
}

const refuse = (path: string, expected: string, got: string, cause?: unknown) =>
  new CheckpointError(describe(`${path} as an MM1`, expected, got, "saveMm1 writes such files"), {
    cause,
  });
