/**
 * @file GGUF files (llama.cpp's): metadata and tensors, versions 2 and 3, little-endian. Opening reads the header; tensors are
 * read one by one and dequantised to f32, their elements by gguf-blocks.ts.
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import { type DeviceName, type Tensor, uploadTensor } from "../../core/index.ts";
import { formatShape, type Shape } from "../../core/shape.ts";
import { type ByteFile, openFile } from "./disk.ts";
import { elementsOf } from "./elements.ts";
import { blockTypes, dequantize } from "./gguf-blocks.ts";
import type { StoredDType } from "./header.ts";
import { storedDTypes } from "./header.ts";
import { fault, quoted } from "./json.ts";
import type { HostTensor } from "./safetensors.ts";

/** 64-bit integers are numbers where a number holds them exactly. */
export type GgufValue = number | bigint | boolean | string | GgufValue[];

export interface GgufEntry {
  readonly name: string;
  /** ggml's name of the type in the file, such as "Q4_K". */
  readonly type: string;
  /** Row-major, as everywhere here: the reverse of the file's order. */
  readonly shape: Shape;
  /** Bytes begin … end − 1 of the file. */
  readonly begin: number;
  readonly end: number;
}

/** Types that are no blocks. */
const plain: Readonly<Record<number, StoredDType>> = {
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
};

/** What is read at first; a longer header is read again from its start, twice as much each time. */
const FIRST = 2 ** 20;
const MAX_RANK = 4;

/**
 * Reads and checks the header of a file (Node) or of bytes. Close the result, or declare it `await using`.
 * @throws CheckpointError for whatever is not a well-formed file, or has tensors of a type that is not known.
 */
export async function openGguf(source: string | Uint8Array): Promise<GgufFile> {
  return openFile(source, async (file) => {
    for (let length = FIRST; ; length *= 2) {
      const bytes = await file.read(0, Math.min(length, file.size));
      const header = new HeaderReader(bytes, file).read();
      if (header) return new GgufFile(file, header);
    }
  });
}

/** All tensors of a file as f32 (integers as integers), on the default device or the given one (Node). */
export async function loadGguf(
  path: string,
  options: { device?: DeviceName } = {},
): Promise<Record<string, Tensor>> {
  await using file = await openGguf(path);
  const found: [string, Tensor][] = [];
  for (const name of file.entries.keys()) found.push([name, await file.tensor(name, options)]);
  return Object.fromEntries(found);
}

/** An open file: what it holds is known, data is read on demand. */
export class GgufFile {
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly entries: ReadonlyMap<string, GgufEntry>;
  readonly #file: ByteFile;

  /** Use `openGguf`. */
  constructor(file: unknown, header: GgufHeader) {
    this.#file = file as ByteFile;
    this.metadata = header.metadata;
    this.entries = header.entries;
  }

  /** Reads one tensor; quantised ones become f32. */
  async read(name: string): Promise<HostTensor> {
    const entry = this.entries.get(name);
    if (!entry)
      throw fault(this.#file.name, `one of its ${this.entries.size} tensors`, quoted(name));
    const { type, shape, begin, end } = entry;
    const where = `${this.#file.name}: tensor ${quoted(name)}`;
    const bytes = await this.#file.read(begin, end - begin, where);
    const block = Object.values(blockTypes).find(([known]) => known === type)?.[1];
    if (block) return { dtype: "f32", shape, data: dequantize(block, bytes) };
    const stored = type as StoredDType;
    const fail = (expected: string, got: string, at: number) =>
      fault(where, expected, `${got} at position ${at} of ${type}${formatShape(shape)}`);
    return { dtype: storedDTypes[stored].dtype, shape, data: elementsOf(stored, bytes, fail) };
  }

  /** Reads one tensor to the default device or the given one. */
  async tensor(name: string, options: { device?: DeviceName } = {}): Promise<Tensor> {
    const { data, dtype, shape } = await this.read(name);
    return uploadTensor(data, dtype, shape, options.device);
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

interface GgufHeader {
  readonly metadata: Map<string, GgufValue>;
  readonly entries: Map<string, GgufEntry>;
}

/** What was read of the file is too short for its header. */
class More extends Error {}

class HeaderReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #file: ByteFile;
  #at = 0;

  constructor(bytes: Uint8Array, file: ByteFile) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#file = file;
  }

  /** The header; undefined if more of the file must be read for it. */
  read(): GgufHeader | undefined {
    try {
      return this.#header();
    } catch (error) {
      if (error instanceof More) return undefined;
      throw error;
    }
  }

  #header(): GgufHeader {
    if (this.#take(4) !== 0 || this.#view.getUint32(0, true) !== 0x46554747)
      throw this.#fault('a GGUF file, which begins with "GGUF"', "other bytes");
    const version = this.#u32();
    if (version !== 2 && version !== 3)
      throw this.#fault("version 2 or 3, little-endian", `${version}`);
    // The least that a tensor and a pair take: no more can be in the file.
    const tensors = this.#count(24);
    const pairs = this.#count(13);
    const metadata = new Map<string, GgufValue>();
    for (let i = 0; i < pairs; i++) {
      const key = this.#string();
      if (metadata.has(key)) throw this.#fault("each key once", `${quoted(key)} twice`);
      metadata.set(key, this.#value(this.#u32(), 0));
    }
    const found: { name: string; shape: number[]; type: number; offset: number }[] = [];
    for (let i = 0; i < tensors; i++) {
      const name = this.#string();
      const rank = this.#u32();
      if (rank > MAX_RANK)
        throw this.#fault(`at most ${MAX_RANK} axes of ${quoted(name)}`, `${rank}`);
      const shape = Array.from({ length: rank }, () => this.#size()).reverse();
      found.push({ name, shape, type: this.#u32(), offset: this.#size() });
    }
    const alignment = metadata.get("general.alignment") ?? 32;
    if (typeof alignment !== "number" || alignment < 1 || alignment % 1 !== 0)
      throw this.#fault("general.alignment: an integer ≥ 1", String(alignment));
    const begin = Math.ceil(this.#at / alignment) * alignment;
    const entries = new Map<string, GgufEntry>();
    for (const tensor of found) {
      if (entries.has(tensor.name))
        throw this.#fault("each name once", `${quoted(tensor.name)} twice`);
      entries.set(tensor.name, this.#entry(tensor, begin, alignment));
    }
    return { metadata, entries };
  }

  #entry(
    { name, shape, type, offset }: { name: string; shape: number[]; type: number; offset: number },
    begin: number,
    alignment: number,
  ): GgufEntry {
    const [known, block] = blockTypes[type] ?? [];
    const stored = plain[type];
    const text = known ?? stored;
    const where = `tensor ${quoted(name)}`;
    if (text === undefined)
      throw this.#fault(`${where} of a type that is known`, `ggml's type ${type}`);
    const { elements, bytes } = block ?? { elements: 1, bytes: storedDTypes[stored].bytes };
    const row = shape.at(-1) ?? 1;
    if (row % elements !== 0)
      throw this.#fault(`${where}: rows of a multiple of ${elements} for ${text}`, `${row}`);
    let size = bytes / elements;
    for (const dim of shape) size *= dim;
    if (offset % alignment !== 0)
      throw this.#fault(`${where} at a multiple of ${alignment}`, `${offset}`);
    const end = begin + offset + size;
    if (!(end <= this.#file.size))
      throw this.#fault(
        `${where}, ${text}${formatShape(shape)}, within ${this.#file.size} bytes`,
        `its end at ${end}`,
      );
    return { name, type: text, shape, begin: begin + offset, end };
  }

  #value(type: number, depth: number): GgufValue {
    const view = this.#view;
    switch (type) {
      case 0:
        return view.getUint8(this.#take(1));
      case 1:
        return view.getInt8(this.#take(1));
      case 2:
        return view.getUint16(this.#take(2), true);
      case 3:
        return view.getInt16(this.#take(2), true);
      case 4:
        return this.#u32();
      case 5:
        return view.getInt32(this.#take(4), true);
      case 6:
        return view.getFloat32(this.#take(4), true);
      case 7: {
        const byte = view.getUint8(this.#take(1));
        if (byte > 1) throw this.#fault("0 or 1 for a bool", `${byte}`);
        return byte === 1;
      }
      case 8:
        return this.#string();
      case 9:
        return this.#array(depth);
      case 10:
        return exact(view.getBigUint64(this.#take(8), true));
      case 11:
        return exact(view.getBigInt64(this.#take(8), true));
      case 12:
        return view.getFloat64(this.#take(8), true);
      default:
        throw this.#fault("a metadata type of 0 … 12", `${type}`);
    }
  }

  #array(depth: number): GgufValue[] {
    if (depth > 3) throw this.#fault("arrays in at most four levels", "more");
    const type = this.#u32();
    const count = this.#count([1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8][type] ?? 1);
    const values: GgufValue[] = [];
    for (let i = 0; i < count; i++) values.push(this.#value(type, depth + 1));
    return values;
  }

  #string(): string {
    const length = this.#count(1);
    const at = this.#take(length);
    return new TextDecoder().decode(this.#bytes.subarray(at, at + length));
  }

  /** A number of things of at least `bytes` bytes each, all of which must still be in the file. */
  #count(bytes: number): number {
    const count = this.#size();
    if (count * bytes > this.#file.size - this.#at)
      throw this.#fault(`a count within the file's ${this.#file.size} bytes`, `${count}`);
    return count;
  }

  #size(): number {
    const size = this.#view.getBigUint64(this.#take(8), true);
    if (size > 2n ** 53n) throw this.#fault("a size below 2⁵³", `${size}`);
    return Number(size);
  }

  #u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  /** Moves on by `length` bytes; where they begin. */
  #take(length: number): number {
    const at = this.#at;
    if (at + length > this.#bytes.length) {
      if (this.#bytes.length < this.#file.size) throw new More();
      throw this.#fault(`${length} more bytes of the header`, "the file's end", "it is cut off");
    }
    this.#at += length;
    return at;
  }

  #fault(expected: string, got: string, hint?: string) {
    return fault(`${this.#file.name}, byte ${this.#at}`, expected, got, hint);
  }
}

const exact = (value: bigint): number | bigint =>
  BigInt.asIntN(54, value) === value ? Number(value) : value;
