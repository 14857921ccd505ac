/** @file safetensors on disk, for Node: saved tensor by tensor, read header first and tensors on demand. */
import type { DeviceName, Tensor } from "../../core/index.ts";
import type { StateDict } from "../module.ts";
import { type ByteFile, openFile, writeFile } from "./disk.ts";
import { type Header, headerLength, parseHeader, type StoredEntry } from "./header.ts";
import { fault, quoted } from "./json.ts";
import { type Storable, StoredTensor, writing } from "./safetensors.ts";

/**
 * Writes tensors to a file; their values are those at the call, even if training goes on meanwhile. The path holds
 * either what it held before or the whole new file, at every moment.
 */
export async function saveSafetensors(
  path: string,
  tensors: Readonly<Record<string, Storable>>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  await writeFile(path, writing(tensors, metadata).chunks);
}

/** All tensors of a file, on the default device or the given one. */
export async function loadSafetensors(
  path: string,
  options: { device?: DeviceName } = {},
): Promise<StateDict> {
  await using file = await openSafetensors(path);
  const found: [string, Tensor][] = [];
  for (const name of file.entries.keys()) found.push([name, await file.tensor(name, options)]);
  return Object.fromEntries(found);
}

/** Reads and checks a file's header; tensors are read when asked for. Close the file, or declare it `await using`. */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  return openFile(path, async (file) => {
    const length = headerLength(await file.read(0, Math.min(8, file.size)), file.size, path);
    const header = parseHeader(await file.read(8, length), file.size - 8 - length, path);
    return new SafetensorsFile(path, header, { file, begin: 8 + length });
  });
}

/** An open file: what it holds is known, data is read on demand. */
export class SafetensorsFile {
  readonly path: string;
  readonly entries: ReadonlyMap<string, StoredEntry>;
  readonly metadata: ReadonlyMap<string, string>;
  readonly #file: ByteFile;
  /** Where the data begins. */
  readonly #begin: number;

  /** Use `openSafetensors`. */
  constructor(path: string, header: Header, from: { file: ByteFile; begin: number }) {
    this.path = path;
    this.entries = header.entries;
    this.metadata = header.metadata;
    this.#file = from.file;
    this.#begin = from.begin;
  }

  /** Reads one tensor's bytes. */
  async read(name: string): Promise<StoredTensor> {
    const entry = this.entries.get(name);
    if (!entry) throw fault(this.path, `one of its ${this.entries.size} tensors`, quoted(name));
    const { begin, end } = entry;
    const what = `tensor ${quoted(name)}, readable`;
    const bytes = await this.#file.read(this.#begin + begin, end - begin, what);
    return new StoredTensor(entry, bytes, 0, this.path);
  }

  /** Reads one tensor to the default device or the given one. */
  async tensor(name: string, options: { device?: DeviceName } = {}): Promise<Tensor> {
    return (await this.read(name)).tensor(options);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
