/**
 * @file Models in several safetensors files, as the Hugging Face libraries lay them out: an index,
 * `model.safetensors.index.json`, says which file each tensor is in. Opening reads the index and the headers, tensors are
 * read on demand.
 */
import { bytesOf } from "../../core/dtype.ts";
import { ArgumentError, describe } from "../../core/errors.ts";
import type { DeviceName, Tensor } from "../../core/index.ts";
import type { StateDict } from "../module.ts";
import { readFile, writeFile } from "./disk.ts";
import { openSafetensors, type SafetensorsFile, saveSafetensors } from "./files.ts";
import { MAX_HEADER, type StoredEntry } from "./header.ts";
import { fault, quoted } from "./json.ts";
import type { Storable, StoredTensor } from "./safetensors.ts";

/** One file of tensors, or several that are one. */
export interface TensorFile extends AsyncDisposable {
  readonly entries: ReadonlyMap<string, StoredEntry>;
  read(name: string): Promise<StoredTensor>;
  tensor(name: string, options?: { device?: DeviceName }): Promise<Tensor>;
  close(): Promise<void>;
}

const SUFFIX = ".safetensors.index.json";

/** A safetensors file, or the index of several. */
export const openTensors = (path: string): Promise<TensorFile> =>
  path.endsWith(".index.json") ? openShardedSafetensors(path) : openSafetensors(path);

/**
 * Opens the files that an index names. Close the result, or declare it `await using`.
 * @throws CheckpointError for an index that is none, a file that is missing, or a tensor that is not in its file.
 */
export async function openShardedSafetensors(path: string): Promise<ShardedSafetensors> {
  const places = placesOf(await readFile(path), path);
  const folder = path.slice(0, Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1);
  const files = new Map<string, SafetensorsFile>();
  try {
    for (const name of new Set(places.values()))
      files.set(name, await openSafetensors(folder + name));
    const found = [...places].map(([tensor, name]) => {
      const file = files.get(name)!;
      const entry = file.entries.get(tensor);
      if (!entry) throw fault(path, `tensor ${quoted(tensor)} in ${name}`, "a file without it");
      return [tensor, { entry, file }] as const;
    });
    return new ShardedSafetensors(path, new Map(found));
  } catch (error) {
    for (const file of files.values()) await file.close();
    throw error;
  }
}

/** The tensors of several open files. */
export class ShardedSafetensors implements TensorFile {
  readonly path: string;
  readonly entries: ReadonlyMap<string, StoredEntry>;
  readonly #files: ReadonlyMap<string, SafetensorsFile>;

  /** Use `openShardedSafetensors`. */
  constructor(
    path: string,
    found: ReadonlyMap<string, { readonly entry: StoredEntry; readonly file: SafetensorsFile }>,
  ) {
    this.path = path;
    this.entries = new Map([...found].map(([name, { entry }]) => [name, entry]));
    this.#files = new Map([...found].map(([name, { file }]) => [name, file]));
  }

  /** Reads one tensor's bytes. */
  async read(name: string): Promise<StoredTensor> {
    const file = this.#files.get(name);
    if (file) return file.read(name);
    throw fault(this.path, `one of its ${this.entries.size} tensors`, quoted(name));
  }

  /** Reads one tensor to the default device or the given one. */
  async tensor(name: string, options: { device?: DeviceName } = {}): Promise<Tensor> {
    return (await this.read(name)).tensor(options);
  }

  async close(): Promise<void> {
    for (const file of new Set(this.#files.values())) await file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** All tensors that an index names, on the default device or the given one. */
export async function loadShardedSafetensors(
  path: string,
  options: { device?: DeviceName } = {},
): Promise<StateDict> {
  await using file = await openShardedSafetensors(path);
  const found: [string, Tensor][] = [];
  for (const name of file.entries.keys()) found.push([name, await file.tensor(name, options)]);
  return Object.fromEntries(found);
}

/**
 * Writes tensors, in their order, to files of at most `maxShardSize` bytes of data (5·10⁹ unless given; a larger tensor has
 * a file of its own), then the index. For "out/model.safetensors.index.json" the files are
 * "out/model-00001-of-00003.safetensors" and so on.
 */
export async function saveShardedSafetensors(
  path: string,
  tensors: Readonly<Record<string, Storable>>,
  options: { maxShardSize?: number; metadata?: Readonly<Record<string, string>> } = {},
): Promise<void> {
  const { maxShardSize = 5e9, metadata = { format: "pt" } } = options;
  const refuse = (expected: string, got: string) =>
    new ArgumentError(describe("saveShardedSafetensors", expected, got));
  if (!path.endsWith(SUFFIX)) throw refuse(`a path that ends in ${SUFFIX}`, quoted(path));
  if (!(maxShardSize > 0)) throw refuse("maxShardSize > 0, in bytes", `${maxShardSize}`);
  const shards: { tensors: Record<string, Storable>; bytes: number }[] = [];
  for (const [name, value] of Object.entries(tensors)) {
    const bytes = bytesOf(value);
    const last = shards.at(-1);
    if (last && last.bytes + bytes <= maxShardSize) {
      last.tensors[name] = value;
      last.bytes += bytes;
    } else shards.push({ tensors: { [name]: value }, bytes });
  }
  const stem = path.slice(0, -SUFFIX.length);
  const digits = (n: number) => `${n}`.padStart(5, "0");
  const places: [string, string][] = [];
  for (const [i, shard] of shards.entries()) {
    const file = `${stem}-${digits(i + 1)}-of-${digits(shards.length)}.safetensors`;
    await saveSafetensors(file, shard.tensors, metadata);
    const base = file.slice(Math.max(file.lastIndexOf("/"), file.lastIndexOf("\\")) + 1);
    for (const name of Object.keys(shard.tensors)) places.push([name, base]);
  }
  const total = shards.reduce((sum, { bytes }) => sum + bytes, 0);
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(places) };
  await writeFile(path, [new TextEncoder().encode(`${JSON.stringify(index, null, 2)}\n`)]);
}

/** Which file each tensor is in, by the index. */
function placesOf(bytes: Uint8Array, path: string): Map<string, string> {
  if (bytes.length > MAX_HEADER)
    throw fault(path, `an index below ${MAX_HEADER} bytes`, `${bytes.length} bytes`);
  let index: unknown;
  try {
    index = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw fault(path, "an index in JSON", (error as Error).message);
  }
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map))
    throw fault(path, "an object with a weight_map", "another value");
  // The files lie beside the index: a path could lead anywhere.
  for (const [name, file] of Object.entries(map))
    if (typeof file !== "string" || !/^[^/\\:]+$/.test(file) || file.startsWith(".."))
      throw fault(path, `a file's name for ${quoted(name)}`, quoted(String(file)));
  return new Map(Object.entries(map) as [string, string][]);
}
