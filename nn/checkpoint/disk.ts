/**
 * @file Files on disk, for Node: written atomically (a temporary file in the same folder, flushed, then renamed: an
 * interrupted save leaves the old file as it was), read piece by piece. Bytes in memory can take a file's place.
 *
 * Node's modules are asked for at run time, so bundles for browsers do not contain them.
 */
import { CheckpointError, describe, HinodeError } from "../../core/errors.ts";
import { fault } from "./json.ts";

type FileHandle = Awaited<ReturnType<ReturnType<typeof files>["open"]>>;

/** Bytes per system call; Node takes no more than 2³¹ − 1. */
const PIECE = 2 ** 28;

/** Something with bytes at positions. */
export interface ByteFile {
  readonly name: string;
  readonly size: number;
  /**
   * Exactly `length` bytes from `from` on. What a header claims is compared with the file's size before anything is
   * allocated. `what` says what was wanted, in errors.
   */
  read(from: number, length: number, what?: string): Promise<Uint8Array>;
  close(): Promise<void>;
}

/**
 * Opens a file and makes of it what `use` makes; closes it only if that fails. Bytes are used as they are, under the name
 * "bytes".
 */
export async function openFile<T>(
  source: string | Uint8Array,
  use: (file: ByteFile) => Promise<T>,
): Promise<T> {
  if (typeof source !== "string") return use(fileOf(source));
  const path = source;
  let handle: FileHandle | undefined;
  try {
    handle = await files().open(path, "r");
    const stat = await handle.stat();
    if (!stat.isFile()) throw fault(path, "a file", "something else under this path");
    return await use(new DiskFile(path, stat.size, handle));
  } catch (error) {
    await handle?.close().catch(() => {});
    throw wrapped(error, path, "a file that can be read");
  }
}

class DiskFile implements ByteFile {
  readonly name: string;
  readonly size: number;
  readonly #handle: FileHandle;

  constructor(name: string, size: number, handle: FileHandle) {
    this.name = name;
    this.size = size;
    this.#handle = handle;
  }

  async read(from: number, length: number, what = "bytes that can be read"): Promise<Uint8Array> {
    checkRange(this, from, length);
    try {
      return await readAll(this.#handle, from, length, this.name);
    } catch (error) {
      throw wrapped(error, this.name, what);
    }
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

/** Bytes as a file: what is read are views. */
export function fileOf(bytes: Uint8Array, name = "bytes"): ByteFile {
  const file = { name, size: bytes.length, close: async () => {} };
  const read = async (from: number, length: number) => {
    checkRange(file, from, length);
    return bytes.subarray(from, from + length);
  };
  return { ...file, read };
}

function checkRange({ name, size }: { name: string; size: number }, from: number, length: number) {
  if (from >= 0 && length >= 0 && from + length <= size) return;
  throw fault(name, `${length} bytes at ${from}`, `a file of ${size} bytes`, "it may be cut off");
}

/** The whole file. */
export const readFile = (path: string): Promise<Uint8Array> =>
  openFile(path, async (file) => {
    const bytes = await file.read(0, file.size);
    await file.close();
    return bytes;
  });

/** Writes a file. The path holds either what it held before or all of the chunks, at every moment. */
export async function writeFile(
  path: string,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<void> {
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
