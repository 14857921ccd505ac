/**
 * @file The header of a safetensors file, checked completely: a file that passes is described exactly by its entries,
 * without hole, overlap or byte left over. What the header claims is compared with the file's size before anything is
 * allocated for it.
 *
 * Format: https://huggingface.co/docs/safetensors#format
 */
import type { DType } from "../../core/dtype.ts";
import type { Shape } from "../../core/shape.ts";
import { fault, JsonReader, quoted } from "./json.ts";

/** What a file may hold, its bytes per element, and the dtype that it is read as. */
export const storedDTypes = {
  F32: { bytes: 4, dtype: "f32" },
  I32: { bytes: 4, dtype: "i32" },
  U32: { bytes: 4, dtype: "u32" },
  I8: { bytes: 1, dtype: "i8" },
  U8: { bytes: 1, dtype: "u8" },
  BOOL: { bytes: 1, dtype: "bool" },
  F16: { bytes: 2, dtype: "f16" },
  BF16: { bytes: 2, dtype: "bf16" },
  F64: { bytes: 8, dtype: "f32" },
  I16: { bytes: 2, dtype: "i32" },
  U16: { bytes: 2, dtype: "i32" },
  I64: { bytes: 8, dtype: "i32" },
} as const satisfies Record<string, { bytes: number; dtype: DType }>;

export type StoredDType = keyof typeof storedDTypes;

/** One tensor of a file, as the header describes it. */
export interface StoredEntry {
  readonly name: string;
  /** The type in the file. */
  readonly stored: StoredDType;
  /** The type that it is read as. */
  readonly dtype: DType;
  readonly shape: Shape;
  /** Bytes begin … end − 1 after the header. */
  readonly begin: number;
  readonly end: number;
}

export interface Header {
  readonly entries: ReadonlyMap<string, StoredEntry>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** The format's own limit: more than that is an attack, or no safetensors file. */
export const MAX_HEADER = 100_000_000;
/** Kernels index with 32 bits. */
const MAX_DIM = 2 ** 31 - 1;
const MAX_RANK = 64;

/** Bytes of the header after the eight that say so. */
export function headerLength(start: Uint8Array, fileBytes: number, source: string): number {
  if (start.length < 8 || fileBytes < 8)
    throw fault(source, "a safetensors file, of 8 bytes or more", `${fileBytes} bytes`);
  const view = new DataView(start.buffer, start.byteOffset, 8);
  const length = view.getUint32(4, true) * 2 ** 32 + view.getUint32(0, true);
  if (length > fileBytes - 8)
    throw fault(
      source,
      `a header within the file's ${fileBytes} bytes`,
      `a header length of ${length}`,
      "the file is truncated, or not a safetensors file",
    );
  if (length > MAX_HEADER)
    throw fault(source, `a header of at most ${MAX_HEADER} bytes`, `${length} bytes`);
  return length;
}

/** Parses and checks a header that `dataBytes` of data follow. */
export function parseHeader(bytes: Uint8Array, dataBytes: number, source: string): Header {
  const read = new JsonReader(bytes, source);
  const entries = new Map<string, StoredEntry>();
  let metadata: Map<string, string> | undefined;
  // The format wants the brace first, so that a file can be told from others.
  read.expect("{");
  read.members((name) => {
    if (name === "__metadata__") {
      if (metadata) throw fault(source, 'one "__metadata__"', "two");
      metadata = read.strings();
    } else {
      if (entries.has(name)) throw fault(source, "each name once", `${quoted(name)} twice`);
      read.tensor = name;
      entries.set(name, entryOf(read, name));
      read.tensor = undefined;
    }
  });
  read.finish();
  checkLayout([...entries.values()], dataBytes, source);
  return { entries, metadata: metadata ?? new Map() };
}

/** The entries, one after the other, must be the data. */
function checkLayout(entries: StoredEntry[], dataBytes: number, source: string): void {
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  let before: string | undefined;
  const of = (name: string) => `${source}: tensor ${quoted(name)}`;
  for (const { name, begin, end } of entries) {
    if (end > dataBytes)
      throw fault(
        of(name),
        `data within the file's ${dataBytes} bytes`,
        `${begin} … ${end}, cut off`,
      );
    if (begin !== at) {
      const where = before === undefined ? "the header" : quoted(before);
      const what = begin < at ? "an overlap" : "a hole";
      throw fault(of(name), `data that begins at ${at}, where ${where} ends`, `${begin}, ${what}`);
    }
    at = end;
    before = name;
  }
  if (at !== dataBytes)
    throw fault(source, `${at} bytes of data, as the header says`, `${dataBytes}`);
}

/** `{"dtype": …, "shape": […], "data_offsets": [begin, end]}`, in any order. */
function entryOf(read: JsonReader, name: string): StoredEntry {
  let type: string | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  read.expect("{");
  read.members((key) => {
    if (key === "dtype" && type === undefined) type = read.string();
    else if (key === "shape" && !shape) shape = read.integers(MAX_RANK);
    else if (key === "data_offsets" && !offsets) offsets = read.integers(2);
    else throw read.fault("the keys dtype, shape and data_offsets, each once", quoted(key));
  });
  if (type === undefined || !shape || offsets?.length !== 2)
    throw read.fault(
      "dtype, shape and two data_offsets",
      `dtype ${type ? "given" : "missing"}, shape ${shape ? "given" : "missing"}, offsets [${offsets ?? ""}]`,
    );
  if (!Object.hasOwn(storedDTypes, type))
    throw read.fault(`a dtype of ${Object.keys(storedDTypes).join(", ")}`, quoted(type));
  const stored = type as StoredDType;
  const { bytes, dtype } = storedDTypes[stored];
  let size: number = bytes;
  for (const dim of shape) {
    size *= dim;
    if (dim > MAX_DIM || size > Number.MAX_SAFE_INTEGER)
      throw read.fault("a shape that fits into memory", `[${shape.join(", ")}]`);
  }
  const [begin, end] = offsets;
  if (end - begin !== size)
    throw read.fault(
      `${size} bytes for ${stored}[${shape.join(", ")}]`,
      `${end - begin}, from ${begin} to ${end}`,
    );
  return { name, stored, dtype, shape, begin, end };
}
