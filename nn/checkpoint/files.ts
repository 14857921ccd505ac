/**
 * @file safetensors on disk, for Node: saved tensor by tensor and atomically (a temporary file in the same folder, flushed,
 * then renamed: an interrupted save leaves the old file as it was), read header first and tensors on demand.
 *
 * Node's modules are asked for at run time, so bundles for browsers do not contain them.
 */
import { CheckpointError, describe, HinodeError } from "../../core/errors.ts";
import type { DeviceName, Tensor } from "../../core/index.ts";
import type { StateDict } from "../module.ts";
import { type Header, headerLength, parseHeader, type StoredEntry } from "./header.ts";
import { fault, quoted } from "./json.ts";
import { type Storable, StoredTensor, writing } from "./safetensors.ts";

type FileHandle = Awaited<ReturnType<ReturnType<typeof files>["open"]>>;

/** Bytes per system call; Node takes no more than 2³¹ − 1. */
const PIECE = 2 ** 28;

/**
 * Writes tensors to a file; their values are those at the call, even if training goes on meanwhile. The path holds
 * either what it held before or the whole new file, at every moment.
 */
export async function saveSafetensors(
  path: string,
  tensors: Readonly<Record<string, Storable>>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const { chunks } = writing(tensors, metadata);
  const fs = files();
  const temporary = `${path}.tmp-${crypto.randomUUID()}`;
  let file: FileHandle | undefined;
  try {
    file = await fs.open(temporary, "wx");
    for await (const chunk of chunks) await writeAll(file, chunk);
    // On disk before the name is: a crash in between must not leave an empty file under it.
    await file.sync();
    await file.close();
    file = undefined;
    await fs.rename(temporary, path);
  } catch (error) {
    await file?.close().catch(() => {});
    await fs.rm(temporary, { force: true }).catch(() => {});
    throw wrapped(error, path, "a file that can be written");
  }
  await syncFolder(path);
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
  let file: FileHandle | undefined;
  try {
    file = await files().open(path, "r");
    const stat = await file.stat();
    if (!stat.isFile()) throw fault(path, "a file", "something else under this path");
    const start = await readAll(file, 0, Math.min(8, stat.size), path);
    const length = headerLength(start, stat.size, path);
    const header = await readAll(file, 8, length, path);
    return new SafetensorsFile(path, parseHeader(header, stat.size - 8 - length, path), {
      handle: file,
      begin: 8 + length,
    });
  } catch (error) {
    await file?.close().catch(() => {});
    throw wrapped(error, path, "a file that can be read");
  }
}

/** An open file: what it holds is known, data is read on demand. */
export class SafetensorsFile {
  readonly path: string;
  readonly entries: ReadonlyMap<string, StoredEntry>;
  readonly metadata: ReadonlyMap<string, string>;
  readonly #handle: FileHandle;
  /** Where the data begins. */
  readonly #begin: number;

  /** Use `openSafetensors`. */
  constructor(path: string, header: Header, from: { handle: unknown; begin: number }) {
    this.path = path;
    this.entries = header.entries;
    this.metadata = header.metadata;
    this.#handle = from.handle as FileHandle;
    this.#begin = from.begin;
  }

  /** Reads one tensor's bytes. */
  async read(name: string): Promise<StoredTensor> {
    const entry = this.entries.get(name);
    if (!entry) throw fault(this.path, `one of its ${this.entries.size} tensors`, quoted(name));
    const { begin, end } = entry;
    try {
      const bytes = await readAll(this.#handle, this.#begin + begin, end - begin, this.path);
      return new StoredTensor(entry, bytes, 0, this.path);
    } catch (error) {
      throw wrapped(error, this.path, `tensor ${quoted(name)}, readable`);
    }
  }

  /** Reads one tensor to the default device or the given one. */
  async tensor(name: string, options: { device?: DeviceName } = {}): Promise<Tensor> {
    return (await this.read(name)).tensor(options);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Not an import, static or dynamic: bundlers for browsers would want to resolve it. */
function files() {
  const fs = globalThis.process?.getBuiltinModule?.("node:fs/promises");
  if (fs) return fs;
  throw new CheckpointError(
    describe("files", "Node", "another environment", "use encodeSafetensors and decodeSafetensors"),
  );
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, Math.min(PIECE, bytes.length - at));
    at += bytesWritten;
  }
}

/** `length` was checked against the file's size; the file may still have shrunk since. */
async function readAll(file: FileHandle, from: number, length: number, path: string) {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const { bytesRead } = await file.read(bytes, at, Math.min(PIECE, length - at), from + at);
    if (bytesRead === 0)
      throw fault(
        path,
        `${length} bytes at ${from}`,
        `${at}`,
        "the file changed while it was read",
      );
    at += bytesRead;
  }
  return bytes;
}

/** Makes a rename survive a power cut; some systems cannot, and the file is whole either way. */
async function syncFolder(path: string): Promise<void> {
  try {
    const folder = process.getBuiltinModule("node:path").dirname(path);
    const handle = await files().open(folder, "r");
    await handle.sync().finally(() => handle.close());
  } catch {
    // Windows opens no folders.
  }
}

/** An error of the file system under Hinode's name; others pass. */
function wrapped(error: unknown, path: string, expected: string): unknown {
  if (error instanceof HinodeError || !(error instanceof Error) || !("code" in error)) return error;
  return new CheckpointError(describe(path, expected, error.message), { cause: error });
}
