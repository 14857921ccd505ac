/**
 * @file Weights under the names of other libraries' checkpoints. A name map says of every tensor in
 * a checkpoint where it is in a model: which parameter, which of its rows, in which layout. It is
 * read both ways: to load and to save.
 *
 * Decides: how a checkpoint's folder (`config.json` beside `model.safetensors`, or shards and their
 * index) is read and written, and what is said when it does not fit. The maps themselves live
 * beside the models.
 */
import { bytesOf, type DType, isFloat, isHalf } from "../core/dtype.ts";
import { ArgumentError, CheckpointError, describe } from "../core/errors.ts";
import { cat, type DeviceName, noGrad, realize, type Tensor } from "../core/index.ts";
import { formatShape, numel, type Shape, sameShape } from "../core/shape.ts";
import { type ConvertOptions, Receiver } from "../nn/checkpoint/convert.ts";
import { openFile, readFile, writeFile } from "../nn/checkpoint/disk.ts";
import { openTensors, saveShardedSafetensors } from "../nn/checkpoint/sharded.ts";
import {
  type LayerNorm,
  type Linear,
  type Module,
  type MultiheadAttention,
  type RMSNorm,
  type StateDict,
  saveSafetensors,
} from "../nn/index.ts";

/** Where one tensor of a checkpoint is in a model. */
export interface Place {
  /** The parameter or buffer. */
  readonly cell: Tensor;
  /**
   * Which rows of it (first axis), where the checkpoint has several tensors for one of ours; else
   * all.
   */
  readonly rows?: readonly [start: number, count: number];
  /** The checkpoint has the last two axes the other way round: it multiplies x W, not x Wᵀ. */
  readonly transposed?: boolean;
  /**
   * The checkpoint's shape, where the same elements in the same order have another: a
   * convolution's, say.
   */
  readonly shape?: Shape;
}

/**
 * Checkpoint name → place. Two names of one place are a tied weight: either is enough, the first is
 * saved.
 */
export type NameMap = ReadonlyMap<string, Place>;
export type Names = Iterable<readonly [name: string, place: Place]>;

// --- building maps -------------------------------------------------------------------------------

/** `<name>.weight` and, if there is one, `<name>.bias` of a layer. */
export function* layerNames(name: string, layer: Linear | LayerNorm | RMSNorm): Names {
  if (layer.weight) yield [`${name}.weight`, { cell: layer.weight }];
  const bias = "bias" in layer ? layer.bias : null;
  if (bias) yield [`${name}.bias`, { cell: bias }];
}

/** Queries, keys and values, one matrix here, that are three layers in the checkpoint. */
export function* qkvNames(names: readonly [string, string, string], a: MultiheadAttention): Names {
  const { weight, bias } = a.qkv!;
  const width = a.out.inFeatures;
  const shared = (weight.shape[0] - width) / 2; // grouped queries have fewer keys and values
  const rows = [[0, width], [width, shared], [width + shared, shared]] as const; // biome-ignore format: one line
  for (const [i, name] of names.entries()) {
    yield [`${name}.weight`, { cell: weight, rows: rows[i] }];
    if (bias) yield [`${name}.bias`, { cell: bias, rows: rows[i] }];
  }
}

// --- one place -----------------------------------------------------------------------------------

/** The shape that the checkpoint has for a place. */
export function storedShape({ cell, rows, transposed, shape }: Place): Shape {
  if (shape) return shape;
  const own = rows ? [rows[1], ...cell.shape.slice(1)] : [...cell.shape];
  return transposed ? [...own.slice(0, -2), own.at(-1)!, own.at(-2)!] : own;
}

/** A value of the cell's shape (its own, or a gradient) as the checkpoint has it. */
export function toStored(place: Place, value: Tensor = place.cell): Tensor {
  const own = place.rows ? value.narrow(0, ...place.rows) : value;
  return (place.transposed ? own.transpose(-1, -2) : own).reshape(storedShape(place));
}

/** The rows [count, …] of the cell that a checkpoint's tensor is. */
function fromStored({ cell, rows, transposed }: Place, value: Tensor): Tensor {
  const own = rows ? [rows[1], ...cell.shape.slice(1)] : [...cell.shape];
  return transposed ? value.transpose(-1, -2).reshape(own) : value.reshape(own);
}

// --- loading -------------------------------------------------------------------------------------

/** Where tensors come from: an open file, or tensors in memory. */
interface Source {
  readonly entries: ReadonlyMap<string, { readonly dtype: DType; readonly shape: Shape }>;
  tensor(name: string, options: { device: DeviceName }): Promise<Tensor>;
  /** Its tensors are another's, who goes on using them. */
  readonly lent?: boolean;
}

export interface LoadOptions {
  /**
   * Whether missing and unexpected names are errors (the default); a wrong shape or dtype always
   * is.
   */
  readonly strict?: boolean;
  /** What the checkpoint puts before the map's names: names without it are not looked at. */
  readonly prefix?: string;
  /**
   * Rounds weights in f32 for a model of halves (`model.to("bf16")` ahead of loading); without,
   * that is an error.
   */
  readonly round?: boolean;
}

export interface LoadReport {
  readonly missing: string[];
  readonly unexpected: string[];
}

/**
 * Constants that older versions of the Hugging Face library stored among the weights, and the
 * number of batches that a batch norm has seen, which only one without momentum reads.
 */
const CONSTANTS = /(^|\.)(position_ids|rotary_emb\.inv_freq|masked_bias|num_batches_tracked)$/;

/**
 * Fills the cells of a map from tensors in memory.
 * @throws CheckpointError that lists everything that does not fit; nothing has changed then.
 */
export async function loadWeights(
  names: NameMap,
  state: StateDict,
  options: LoadOptions = {},
): Promise<LoadReport> {
  const source: Source = {
    lent: true,
    entries: new Map(Object.entries(state)),
    tensor: async (name: string, { device }: { device: DeviceName }) => state[name].to(device),
  };
  return await fillFrom(checkAll("loadWeights", names, source, options), source, assignTo);
}

/**
 * Fills the cells of a map from a safetensors file, the index of several (`….index.json`), or a
 * folder with `model.safetensors` or its index. One cell after the other: more than the largest is
 * never held twice. @throws CheckpointError that lists everything that does not fit, before a byte
 * of data is read.
 */
export async function loadWeightsFile(
  path: string,
  names: NameMap,
  options: LoadOptions = {},
): Promise<LoadReport> {
  await using file = await openTensors(await weightsAt(path));
  return await fillFrom(checkAll(path, names, file, options), file, assignTo);
}

/** `prefix`, `strict` and what weights are converted to while they are read. */
export interface LoadCheckpointOptions extends ConvertOptions, Omit<LoadOptions, "round"> {}

/**
 * Fills a model as `loadWeightsFile` does, and converts its weights on the way: `{ dtype: "int8" }`
 * puts quantised layers in the places of its Linear layers. `names` is called for the model as it
 * is. @throws CheckpointError that lists everything that does not fit, before a byte of data is
 * read.
 */
export async function loadCheckpoint<M extends Module>(
  path: string,
  model: M,
  names: (model: M) => NameMap,
  { strict, prefix, ...conversion }: LoadCheckpointOptions = {},
): Promise<LoadReport> {
  const map = names(model);
  await using file = await openTensors(await weightsAt(path));
  const options = { strict, prefix, round: conversion.dtype !== undefined };
  const plan = checkAll(path, map, file, options);
  const receiver = new Receiver(model, conversion);
  const take = (cell: Tensor, value: Tensor) => receiver.take(cell, value);
  const report = await fillFrom(plan, file, take);
  await receiver.finish();
  return report;
}

/** Gives a cell its value. */
type Take = (cell: Tensor, value: Tensor) => Promise<void>;

const assignTo: Take = async (cell, value) => {
  noGrad(() => cell.assign(value.to(cell.dtype)));
  await realize(cell);
};

/**
 * A model's own names (of quantised layers those of their integers): for checkpoints that no other
 * library reads.
 */
export const ownNames = (model: Module): NameMap =>
  new Map([...model.namedTensors()].map(([name, cell]) => [name, { cell }]));

type Parts = Map<number, readonly [name: string, place: Place]>;

/** What of a map is in a checkpoint, by cell and row. */
interface LoadPlan {
  readonly report: LoadReport;
  readonly cells: ReadonlyMap<Tensor, Parts>;
}

/**
 * Compares a map with what there is, before a value is read; throws the list of all that does not
 * fit.
 */
function checkAll(
  what: string,
  names: NameMap,
  { entries }: Source,
  { strict = true, prefix = "", round = false }: LoadOptions,
): LoadPlan {
  const known = (name: string) => names.has(name.slice(prefix.length)) || CONSTANTS.test(name);
  const unexpected = [...entries.keys()].filter((n) => n.startsWith(prefix) && !known(n));
  const missing: string[] = [];
  const misfits: string[] = [];
  const cells = new Map<Tensor, Parts>();
  for (const [name, place] of names) {
    const parts: Parts = cells.get(place.cell) ?? new Map();
    cells.set(place.cell, parts);
    const start = place.rows?.[0] ?? 0;
    const entry = entries.get(prefix + name);
    if (!entry) continue;
    const { dtype } = place.cell;
    const holds =
      entry.dtype === dtype ||
      (dtype === "f32" && isHalf(entry.dtype)) ||
      (round && isFloat(dtype) && isFloat(entry.dtype));
    const fits = sameShape(storedShape(place), entry.shape);
    if (!holds || !fits)
      misfits.push(
        `${prefix}${name}: expected ${place.cell.dtype}${formatShape(storedShape(place))}, ` +
          `got ${entry.dtype}${formatShape(entry.shape)}`,
      );
    if (!parts.has(start)) parts.set(start, [prefix + name, place]);
  }
  for (const [name, { cell, rows }] of names)
    if (!cells.get(cell)!.has(rows?.[0] ?? 0)) missing.push(prefix + name);
  const report = { missing, unexpected };
  refuseMisfits(what, names, strict ? report : null, misfits);
  return { report, cells };
}

async function fillFrom(
  { report, cells }: LoadPlan,
  source: Source,
  take: Take,
): Promise<LoadReport> {
  for (const [cell, parts] of cells) {
    // A cell of which the checkpoint has a part only keeps its values: a half-loaded matrix is no
    // use to anyone.
    const covered = [...parts.values()].reduce((n, [, p]) => n + numel(storedShape(p)), 0);
    if (covered !== numel(cell.shape)) continue;
    const read: Tensor[] = [];
    const pieces: Tensor[] = [];
    for (const [, [name, place]] of [...parts].sort(([a], [b]) => a - b)) {
      const value = await source.tensor(name, { device: cell.device });
      read.push(value);
      pieces.push(fromStored(place, value));
    }
    await take(cell, pieces.length === 1 ? pieces[0] : cat(pieces, 0));
    if (!source.lent) for (const value of read) value.dispose();
  }
  return report;
}

function refuseMisfits(
  what: string,
  names: NameMap,
  unmatched: LoadReport | null,
  misfits: readonly string[],
): void {
  const lines = [...misfits];
  for (const [title, list] of Object.entries(unmatched ?? {}))
    if (list.length > 0) lines.unshift(`${title}: ${list.join(", ")}`);
  if (lines.length === 0) return;
  const expected = `the names, shapes and dtypes of ${names.size} tensors`;
  const hint = "another layout of names: prefix; a part of the model: strict: false";
  throw new CheckpointError(describe(what, expected, lines.join("\n  "), hint));
}

// --- saving --------------------------------------------------------------------------------------

/** All tensors of a map as the checkpoint has them, tied ones once. */
export function storedWeights(names: NameMap): StateDict {
  const seen = new Map<Tensor, Set<number>>();
  const kept: [string, Tensor][] = [];
  for (const [name, place] of names) {
    const starts = seen.get(place.cell) ?? new Set();
    seen.set(place.cell, starts);
    const start = place.rows?.[0] ?? 0;
    if (starts.has(start)) continue;
    starts.add(start);
    kept.push([name, noGrad(() => toStored(place).detach())]);
  }
  return Object.fromEntries(kept);
}

const INDEX = "model.safetensors.index.json";
const SINGLE = "model.safetensors";

/** A file of weights, or the one in a folder that says where they are. */
async function weightsAt(path: string): Promise<string> {
  if (/\.(safetensors|json)$/.test(path)) return path;
  const folder = path;
  for (const name of [INDEX, SINGLE])
    if (await openFile(`${folder}/${name}`, (file) => file.close()).then(() => true, () => false)) return `${folder}/${name}`; // biome-ignore format: one line
  throw new CheckpointError(describe(folder, `${SINGLE} or ${INDEX}`, "neither"));
}

/** `config.json` of a checkpoint's folder. */
export async function readConfig(
  folder: string,
  name = "config.json",
): Promise<Readonly<Record<string, unknown>>> {
  const path = `${folder}/${name}`;
  const text = new TextDecoder().decode(await readFile(path));
  try {
    return JSON.parse(text);
  } catch (cause) {
    const got = (cause as Error).message;
    throw new CheckpointError(describe(path, "a configuration in JSON", got), { cause });
  }
}

export interface SaveOptions {
  /**
   * The most bytes of a file: 5·10⁹ unless given. A tensor that is larger has a file of its own.
   */
  readonly maxShardSize?: number;
}

/**
 * Writes a folder as the Hugging Face library does: `config.json` and the weights, in one file or,
 * above `maxShardSize` bytes, in shards with an index. The folder must exist.
 */
export async function saveCheckpoint(
  folder: string,
  names: NameMap,
  config: Readonly<Record<string, unknown>>,
  { maxShardSize = 5e9 }: SaveOptions = {},
): Promise<void> {
  if (!(maxShardSize > 0))
    throw new ArgumentError(describe("saveCheckpoint", "maxShardSize > 0, in bytes", `${maxShardSize}`)); // biome-ignore format: one line
  const tensors = storedWeights(names);
  const bytes = Object.values(tensors).reduce((n, t) => n + bytesOf(t), 0);
  const metadata = { format: "pt" };
  if (bytes <= maxShardSize) await saveSafetensors(`${folder}/${SINGLE}`, tensors, metadata);
  else await saveShardedSafetensors(`${folder}/${INDEX}`, tensors, { maxShardSize, metadata });
  const text = `${JSON.stringify(config, null, 2)}\n`;
  await writeFile(`${folder}/config.json`, [new TextEncoder().encode(text)]);
}
