/**
 * @file Files of a tar archive as they stream by: ustar, GNU's long names, pax headers with path and size. Links, folders and
 * devices are passed over. An archive that ends before its end mark is an error: a part of it is missing.
 *
 * Format: POSIX.1-2017, pax, "ustar Interchange Format".
 */
import { DataError, describe } from "../core/errors.ts";
import type { ByteReader } from "./stream.ts";

const BLOCK = 512;
/** Names and pax records; more is no name. */
const MAX_NAME = 2 ** 20;

export interface TarFile {
  readonly path: string;
  /** Where its header begins. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** The regular files, each read when it is asked for. */
export async function* tarFiles(reader: ByteReader): AsyncGenerator<TarFile> {
  const fail = (expected: string, got: string) =>
    new DataError(describe(`${reader.name}, byte ${reader.position}`, expected, got));
  const take = async (length: number, what: string): Promise<Uint8Array> => {
    const padded = Math.ceil(length / BLOCK) * BLOCK;
    const bytes = await reader.read(length);
    const whole = bytes.length === length && (await reader.skip(padded - length));
    if (!whole) throw fail(`${padded} bytes of ${what}`, "the end; the archive is cut off");
    return bytes;
  };
  /** What a pax or long-name entry says of the next one. */
  let next: { path?: string; size?: number } = {};
  for (;;) {
    const offset = reader.position;
    const header = await take(BLOCK, "a header or the end mark");
    if (header.every((byte) => byte === 0)) return;
    checkSum(header, offset, reader.name);
    const type = String.fromCharCode(header[156] || 0x30);
    const size = next.size ?? number(header.subarray(124, 136));
    if (!(Number.isSafeInteger(size) && size >= 0)) throw fail("a size", `${size}`);
    if (type === "x" || type === "L" || type === "g") {
      if (size > MAX_NAME) throw fail(`a name below ${MAX_NAME} bytes`, `${size}`);
      const record = await take(size, "a name");
      if (type === "x") next = { ...next, ...paxOf(record, fail) };
      else if (type === "L") next = { ...next, path: text(record) };
      continue;
    }
    const prefix =
      text(header.subarray(257, 262)) === "ustar" ? text(header.subarray(345, 500)) : "";
    const name = text(header.subarray(0, 100));
    const path = next.path ?? (prefix ? `${prefix}/${name}` : name);
    next = {};
    if (type === "0" || type === "7")
      yield { path, offset, bytes: await take(size, JSON.stringify(path)) };
    // Links and devices have no data, whatever their size says; other kinds may have.
    else if (!"123456".includes(type)) await take(size, JSON.stringify(path));
  }
}

function checkSum(header: Uint8Array, offset: number, name: string): void {
  const stated = number(header.subarray(148, 156));
  let sum = 8 * 0x20;
  for (const [i, byte] of header.entries()) if (i < 148 || i >= 156) sum += byte;
  if (sum === stated) return;
  throw new DataError(
    describe(
      `${name}, byte ${offset}`,
      "a tar header with its check sum",
      `${stated} where ${sum} should be`,
    ),
  );
}

/** Octal digits, or big-endian bytes after a set bit (GNU, for sizes beyond 8 GiB). */
function number(field: Uint8Array): number {
  if (field[0] & 0x80)
    return field.subarray(1).reduce((n, byte) => n * 256 + byte, field[0] & 0x7f);
  const digits = text(field).trim();
  return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : digits === "" ? 0 : Number.NaN;
}

function text(field: Uint8Array): string {
  const end = field.indexOf(0);
  return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end));
}

/** Records of `length key=value\n`, where the length counts itself. */
function paxOf(record: Uint8Array, fail: (expected: string, got: string) => Error) {
  const found: { path?: string; size?: number } = {};
  for (let at = 0; at < record.length; ) {
    const [, length, key] = /^(\d+) ([^=]+)=/.exec(text(record.subarray(at, at + 100))) ?? [];
    const end = at + Number(length);
    if (!(end > at && end <= record.length)) throw fail("a pax record", "another text");
    const begin = at + length.length + key.length + 2;
    const value = new TextDecoder().decode(record.subarray(begin, end - 1));
    if (key === "path") found.path = value;
    if (key === "size") found.size = /^\d+$/.test(value) ? Number(value) : Number.NaN;
    at = end;
  }
  return found;
}
