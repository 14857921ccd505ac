/**
 * @file Zip archives, as far as `.npz` and PyTorch's files need them: stored and deflated members, found through the central
 * directory (its 64-bit form too), each read when asked for and checked by its CRC. Written archives stay below 4 GiB.
 *
 * Format: PKWARE's APPNOTE.TXT 6.3.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import type { ByteFile } from "./disk.ts";
import { fault, quoted } from "./json.ts";

export interface ZipMember {
  readonly name: string;
  /** 0 stored, 8 deflated. */
  readonly method: number;
  readonly crc: number;
  readonly packed: number;
  readonly size: number;
  /** Where its local header begins. */
  readonly offset: number;
}

/** A directory beyond this is no archive of tensors. */
const MAX_DIRECTORY = 2 ** 28;
const MAX_32 = 2 ** 32 - 1;
/** Deflate's largest factor: a member that claims more is a bomb. */
const MAX_RATIO = 1032;

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
const wide = (view: DataView, at: number): number => Number(view.getBigUint64(at, true));

/** The members of an archive by name. */
export async function readDirectory(file: ByteFile): Promise<Map<string, ZipMember>> {
  const { at, bytes, count } = await findDirectory(file);
  if (bytes > MAX_DIRECTORY) throw fault(file.name, "a zip directory below 256 MiB", `${bytes}`);
  const directory = await file.read(at, bytes, "the zip directory");
  const view = viewOf(directory);
  const members = new Map<string, ZipMember>();
  let next = 0;
  for (let i = 0; i < count; i++) {
    if (next + 46 > bytes || view.getUint32(next, true) !== 0x02014b50)
      throw fault(file.name, `${count} members in the zip directory`, `${i}`);
    const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((o) =>
      view.getUint16(next + o, true),
    );
    const end = next + 46 + nameBytes + extraBytes;
    if (end + commentBytes > bytes)
      throw fault(file.name, "a whole zip directory", "a part of one");
    const name = new TextDecoder().decode(directory.subarray(next + 46, next + 46 + nameBytes));
    const sizes = [24, 20, 42].map((o) => view.getUint32(next + o, true));
    // Sizes that do not fit stand in an extra field, in this order.
    for (let at = next + 46 + nameBytes; at + 4 <= end; at += 4 + view.getUint16(at + 2, true)) {
      if (view.getUint16(at, true) !== 1) continue;
      let from = at + 4;
      for (const [j, size] of sizes.entries())
        if (size === MAX_32 && from + 8 <= end) {
          sizes[j] = wide(view, from);
          from += 8;
        }
    }
    const [size, packed, offset] = sizes;
    const [flags, method] = [view.getUint16(next + 8, true), view.getUint16(next + 10, true)];
    if (flags & 1) throw fault(file.name, "members without a password", quoted(name));
    if (members.has(name)) throw fault(file.name, "each name once", `${quoted(name)} twice`);
    members.set(name, { name, method, crc: view.getUint32(next + 16, true), packed, size, offset });
    next = end + commentBytes;
  }
  return members;
}

/** Where the directory is: said at the end of the file, before a comment of up to 64 KiB. */
async function findDirectory(
  file: ByteFile,
): Promise<{ at: number; bytes: number; count: number }> {
  const from = Math.max(0, file.size - 22 - 0xffff);
  const tail = await file.read(from, file.size - from, "the end of a zip archive");
  const view = viewOf(tail);
  let end = tail.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0)
    throw fault(file.name, "a zip archive", "a file without its end", "it may be cut off");
  const count = view.getUint16(end + 10, true);
  const [bytes, at] = [view.getUint32(end + 12, true), view.getUint32(end + 16, true)];
  if (count !== 0xffff && bytes !== MAX_32 && at !== MAX_32) return { at, bytes, count };
  if (end < 20 || view.getUint32(end - 20, true) !== 0x07064b50)
    throw fault(file.name, "the place of the 64-bit zip directory", "none");
  const record = viewOf(
    await file.read(wide(view, end - 12), 56, "the 64-bit end of a zip archive"),
  );
  if (record.getUint32(0, true) !== 0x06064b50)
    throw fault(file.name, "the 64-bit end of a zip archive", "other bytes");
  return { at: wide(record, 48), bytes: wide(record, 40), count: wide(record, 32) };
}

/** A member's bytes. */
export async function readMember(file: ByteFile, member: ZipMember): Promise<Uint8Array> {
  const { name, method, crc, packed, size, offset } = member;
  const where = `${file.name}: member ${quoted(name)}`;
  const local = viewOf(await file.read(offset, 30, where));
  if (local.getUint32(0, true) !== 0x04034b50) throw fault(where, "its header", "other bytes");
  const begin = offset + 30 + local.getUint16(26, true) + local.getUint16(28, true);
  if (method !== 0 && method !== 8)
    throw fault(where, "stored or deflated data", `method ${method}`);
  const possible = method === 0 ? packed === size : size <= packed * MAX_RATIO;
  if (!possible) throw fault(where, `a size that ${packed} bytes can have`, `${size}`);
  const data = await file.read(begin, packed, where);
  const bytes = method === 0 ? data : await inflated(data, size, where);
  if (crc32(bytes) !== crc) throw fault(where, "data with its CRC", "other data");
  return bytes;
}

async function inflated(data: Uint8Array, size: number, where: string): Promise<Uint8Array> {
  let bytes: Uint8Array;
  try {
    bytes = await collect(through(data, new DecompressionStream("deflate-raw")), size);
  } catch (error) {
    throw fault(where, "deflated data", (error as Error).message);
  }
  if (bytes.length === size) return bytes;
  throw fault(where, `${size} bytes, as the directory says`, "another number");
}

/** All parts as one; no more are taken once they are more than `most` bytes. */
export async function collect(
  parts: AsyncIterable<Uint8Array>,
  most = Infinity,
): Promise<Uint8Array> {
  const found: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  for await (const part of parts) {
    found.push(part as Uint8Array<ArrayBuffer>);
    if ((bytes += part.length) > most) break;
  }
  return new Uint8Array(await new Blob(found).arrayBuffer());
}

async function* through(
  data: Uint8Array,
  by: DecompressionStream | CompressionStream,
): AsyncGenerator<Uint8Array> {
  const writer = by.writable.getWriter();
  // A failure is seen by the reader as well.
  const written = writer.write(data as Uint8Array<ArrayBuffer>).then(() => writer.close());
  written.catch(() => {});
  const reader = by.readable.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** An archive, part by part. `compress` deflates its members. */
export async function* zipped(
  members: AsyncIterable<readonly [name: string, bytes: Uint8Array]>,
  compress: boolean,
): AsyncGenerator<Uint8Array> {
  const directory: Uint8Array[] = [];
  let at = 0;
  for await (const [name, bytes] of members) {
    const text = new TextEncoder().encode(name);
    const data = compress ? await deflated(bytes) : bytes;
    if (at + data.length > MAX_32)
      throw new ArgumentError(describe("npz", "an archive below 4 GiB", "more", "use safetensors"));
    const header = (signature: number, inDirectory: boolean) => {
      const view = new DataView(new ArrayBuffer(inDirectory ? 46 : 30));
      view.setUint32(0, signature, true);
      if (inDirectory) view.setUint16(4, 20, true);
      const from = inDirectory ? 6 : 4;
      // Version 2.0, names in UTF-8, no date (1 January 1980): the same tensors make the same bytes.
      const fields = [20, 0x0800, compress ? 8 : 0, 0, 0x21];
      for (const [i, value] of fields.entries()) view.setUint16(from + 2 * i, value, true);
      view.setUint32(from + 10, crc32(bytes), true);
      view.setUint32(from + 14, data.length, true);
      view.setUint32(from + 18, bytes.length, true);
      view.setUint16(from + 22, text.length, true);
      if (inDirectory) view.setUint32(42, at, true);
      return new Uint8Array(view.buffer);
    };
    directory.push(header(0x02014b50, true), text);
    for (const part of [header(0x04034b50, false), text, data]) {
      yield part;
      if (part === data) at += 30 + text.length + data.length;
    }
  }
  const bytes = directory.reduce((n, part) => n + part.length, 0);
  const count = directory.length / 2;
  if (at + bytes > MAX_32 || count >= 0xffff)
    throw new ArgumentError(describe("npz", "fewer than 65535 members below 4 GiB", `${count}`));
  yield* directory;
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, count, true);
  end.setUint16(10, count, true);
  end.setUint32(12, bytes, true);
  end.setUint32(16, at, true);
  yield new Uint8Array(end.buffer);
}

const deflated = (bytes: Uint8Array): Promise<Uint8Array> =>
  collect(through(bytes, new CompressionStream("deflate-raw")));

const table = new Uint32Array(256).map((_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) crc = (crc >>> 8) ^ table[(crc ^ byte) & 255];
  return ~crc >>> 0;
}
