/**
 * @file safetensors in memory: tensors to bytes and back, in any environment.
 *
 * Reading is lazy: decoding allocates nothing for the data, and each `data()` is a view of the bytes where dtype and
 * alignment allow it. Bytes are little-endian, as is every machine that runs JavaScript.
 */
import { type DType, dtypes, type TypedArray, toStored } from "../../core/dtype.ts";
import { ArgumentError, describe } from "../../core/errors.ts";
import { type DeviceName, Tensor, uploadTensor } from "../../core/index.ts";
import { formatShape, numel, type Shape } from "../../core/shape.ts";
import { elementsOf } from "./elements.ts";
import { headerLength, MAX_HEADER, parseHeader, type StoredEntry } from "./header.ts";
import { fault, quoted } from "./json.ts";

/** A tensor's parts on the host. */
export interface HostTensor {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: TypedArray;
}

export type Storable = Tensor | HostTensor;

/** One tensor of a file, with its bytes. */
export class StoredTensor {
  readonly entry: StoredEntry;
  readonly #bytes: Uint8Array;
  readonly #begin: number;
  readonly #source: string;

  /** `bytes` hold its data from `begin` on, and perhaps others'. */
  constructor(entry: StoredEntry, bytes: Uint8Array, begin: number, source: string) {
    this.entry = entry;
    this.#bytes = bytes;
    this.#begin = begin;
    this.#source = source;
  }

  get name(): string {
    return this.entry.name;
  }
  get dtype(): DType {
    return this.entry.dtype;
  }
  get shape(): Shape {
    return this.entry.shape;
  }

  /** The elements in row-major order: a view of the file's bytes, or a copy if they are unaligned or converted. */
  data(): TypedArray {
    const { stored, begin, end } = this.entry;
    const fail = (expected: string, got: string, at: number) =>
      fault(
        `${this.#source}: tensor ${quoted(this.name)}`,
        expected,
        `${got} at position ${at} of ${stored}${formatShape(this.shape)}`,
      );
    const bytes = this.#bytes.subarray(this.#begin, this.#begin + end - begin);
    return elementsOf(stored, bytes, fail);
  }

  /** A copy on a device. */
  tensor(options: { device?: DeviceName } = {}): Tensor {
    return uploadTensor(this.data(), this.dtype, this.shape, options.device);
  }
}

/**
 * Reads a whole file from memory. `source` names it in errors.
 * @throws CheckpointError for whatever is not a well-formed file; `data()` of a tensor throws it for values that the
 *   tensor's dtype cannot hold.
 */
export function decodeSafetensors(
  bytes: Uint8Array,
  source = "decodeSafetensors",
): { tensors: ReadonlyMap<string, StoredTensor>; metadata: ReadonlyMap<string, string> } {
  const begin = 8 + headerLength(bytes, bytes.length, source);
  const { entries, metadata } = parseHeader(bytes.subarray(8, begin), bytes.length - begin, source);
  const tensors = new Map<string, StoredTensor>();
  const data = bytes.subarray(begin);
  for (const [name, entry] of entries)
    tensors.set(name, new StoredTensor(entry, data, entry.begin, source));
  return { tensors, metadata };
}

/** The bytes of a file with these tensors, whose values are those at the call. */
export async function encodeSafetensors(
  tensors: Readonly<Record<string, Storable>>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<Uint8Array> {
  const { bytes, chunks } = writing(tensors, metadata);
  const file = new Uint8Array(bytes);
  let at = 0;
  for await (const chunk of chunks) {
    file.set(chunk, at);
    at += chunk.length;
  }
  return file;
}

/** The file's size, and its bytes in order: the header, then tensor by tensor, each downloaded when it is its turn. */
export function writing(
  tensors: Readonly<Record<string, Storable>>,
  metadata: Readonly<Record<string, string>>,
): { bytes: number; chunks: AsyncGenerator<Uint8Array> } {
  const parts = Object.entries(tensors).map(([name, value]) => part(name, value));
  // The order of the reference implementation: wide types first, so that everything is aligned.
  const rank = (p: Part) => order.indexOf(p.dtype);
  parts.sort((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
  let at = 0;
  const members = parts.map(({ name, dtype, shape, bytes }) => {
    const offsets = [at, (at += bytes)];
    const entry = { dtype: dtype.toUpperCase(), shape, data_offsets: offsets };
    return `${JSON.stringify(name)}:${JSON.stringify(entry)}`;
  });
  for (const [key, value] of Object.entries(metadata)) checkText(key, value);
  if (Object.keys(metadata).length > 0)
    members.unshift(`"__metadata__":${JSON.stringify(metadata)}`);
  const text = new TextEncoder().encode(`{${members.join(",")}}`);
  if (text.length > MAX_HEADER)
    throw new ArgumentError(
      describe("safetensors", `names and metadata below ${MAX_HEADER} bytes`, `${text.length}`),
    );
  // Padded with spaces: the data begins at a multiple of 8.
  const header = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  header.set(text, 8);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  return { bytes: header.length + at, chunks: chunksOf(header, parts) };
}

async function* chunksOf(header: Uint8Array, parts: readonly Part[]): AsyncGenerator<Uint8Array> {
  yield header;
  for (const { dtype, read } of parts) {
    const { buffer, byteOffset, byteLength } = toStored(dtype, await read());
    yield new Uint8Array(buffer, byteOffset, byteLength);
  }
}

interface Part {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly bytes: number;
  readonly read: () => Promise<TypedArray> | TypedArray;
}

const order: readonly DType[] = ["f32", "u32", "i32", "f16", "bf16", "i8", "u8", "bool"];

function part(name: string, value: Storable): Part {
  checkText(name);
  if (name === "__metadata__")
    throw new ArgumentError(describe("safetensors", "a tensor's name", name, "it is reserved"));
  const { dtype, shape } = value;
  const bytes = numel(shape) * dtypes[dtype].bytes;
  if (!(value instanceof Tensor)) {
    if (!(value.data instanceof dtypes[dtype].array) || value.data.length !== numel(shape))
      throw new ArgumentError(
        describe(
          `safetensors: ${quoted(name)}`,
          `a ${dtypes[dtype].array.name} of ${numel(shape)} for ${dtype}${formatShape(shape)}`,
          `${value.data?.constructor.name} of ${value.data?.length}`,
        ),
      );
    return { name, dtype, shape, bytes, read: () => value.data };
  }
  // Training may go on while the file is written: this cell keeps the version of now.
  const snapshot = value.detach();
  const read = async () => {
    const data = await snapshot.data();
    snapshot.dispose();
    return data;
  };
  return { name, dtype, shape, bytes, read };
}

function checkText(...texts: unknown[]): void {
  for (const text of texts)
    if (typeof text !== "string" || !text.isWellFormed())
      throw new ArgumentError(
        describe("safetensors", "names and metadata of well-formed strings", String(text)),
      );
}
