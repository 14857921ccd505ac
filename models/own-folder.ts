/**
 * @file Folders of models that no other library has: our configuration in `config.json`, our names
 * in the weights. Those that were quantised are noted with their formats, so that integers are
 * loaded into integers.
 */
import { isFloat } from "../core/dtype.ts";
import { ArgumentError, CheckpointError, describe } from "../core/errors.ts";
import { type Module, QuantizedLinear } from "../nn/index.ts";
import { emptyQuantized } from "../nn/quantized.ts";
import {
  type LoadCheckpointOptions,
  loadCheckpoint,
  ownNames,
  type SaveOptions,
  saveCheckpoint,
} from "./weights.ts";

type Json = Readonly<Record<string, unknown>>;

/** What is noted of a model with integers. */
export interface Quantized {
  /** Layers of one format, by path. */
  readonly layers: readonly {
    readonly bits: 8 | 4;
    readonly groupSize: number;
    readonly targets: readonly string[];
  }[];
  /** The type of the other weights. */
  readonly rest: "f32" | "f16" | "bf16";
}

/** Null where no layer is quantised. */
export function quantizedOf(model: Module): Quantized | null {
  const formats = new Map<string, Quantized["layers"][number] & { targets: string[] }>();
  for (const [path, layer] of model.namedModules()) {
    if (!(layer instanceof QuantizedLinear)) continue;
    const { bits, groupSize } = layer;
    const key = `${bits} ${groupSize}`;
    const format = formats.get(key) ?? { bits, groupSize, targets: [] };
    format.targets.push(path);
    formats.set(key, format);
  }
  if (formats.size === 0) return null;
  const other = model.parameters().find((p) => isFloat(p.dtype));
  return { layers: [...formats.values()], rest: (other?.dtype ?? "f32") as Quantized["rest"] };
}

/**
 * Makes the layers of a model what they were when `quantizedOf` looked at it: zeros, to load into.
 */
export function likeQuantized(model: Module, { layers, rest }: Quantized): void {
  model.to(rest); // Before there are scales, which stay f32.
  for (const format of layers) emptyQuantized(model, format);
}

/** That integers are not converted once more. */
export function refuseConversion(path: string, { dtype }: LoadCheckpointOptions): void {
  if (dtype === undefined) return;
  const expected = "no dtype, as there are integers already";
  throw new ArgumentError(describe(path, expected, `"${dtype}"`));
}

/** Writes a folder that `loadOwn` reads: weights as they are, integers too. It must exist. */
export function saveOwn(
  folder: string,
  type: string,
  model: Module & { readonly config: object },
  options: SaveOptions,
): Promise<void> {
  const quantized = quantizedOf(model);
  const json = { model_type: type, config: model.config, ...(quantized ? { quantized } : {}) };
  return saveCheckpoint(folder, ownNames(model), json, options);
}

/**
 * The model of a folder that `saveOwn` wrote, in eval mode; `make` makes one of the configuration.
 * @throws CheckpointError when the configuration is none, or that lists all weights that do not
 *   fit; ArgumentError for a `dtype` where there are integers already.
 */
export async function loadOwn<M extends Module>(
  folder: string,
  { config, quantized }: Json,
  kind: string,
  make: (config: never) => M,
  options: LoadCheckpointOptions,
): Promise<M> {
  const path = `${folder}/config.json`;
  if (quantized) refuseConversion(path, options);
  let model: M;
  try {
    model = make(config as never);
    if (quantized) likeQuantized(model, quantized as Quantized);
  } catch (cause) {
    throw new CheckpointError(describe(path, kind, (cause as Error).message), { cause });
  }
  await loadCheckpoint(folder, model, ownNames, options);
  return model.eval();
}
