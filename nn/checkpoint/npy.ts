/**
 * @file NumPy's `.npy`: one array, as bytes and as files. Reads versions 1 to 3, both byte orders and both memory orders;
 * 64-bit types are converted as elements.ts does. Python objects are refused: they are pickles.
 *
 * Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
import { type DType, type TypedArray, toStored } from "../../core/dtype.ts";
import { ArgumentError, describe } from "../../core/errors.ts";
import { type DeviceName, Tensor, uploadTensor } from "../../core/index.ts";
import { formatShape, numel } from "../../core/shape.ts";
import { readFile, writeFile } from "./disk.ts";
import { elementsOf, gathered } from "./elements.ts";
import { type StoredDType, storedDTypes } from "./header.ts";
import { fault, quoted } from "./json.ts";
import type { HostTensor, Storable } from "./safetensors.ts";

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
/** NumPy itself takes 10,000. */
const MAX_TEXT = 2 ** 16;

/** NumPy's kinds with their sizes. Its u8 (uint64) is handled apart. */
const kinds: Readonly<Record<string, StoredDType>> = {
  f4: "F32",
  f2: "F16",
  f8: "F64",
  i1: "I8",
  i2: "I16",
  i4: "I32",
  i8: "I64",
  u1: "U8",
  u2: "U16",
  u4: "U32",
  b1: "BOOL",
};

/** bf16 is written as f32, which holds it exactly: NumPy has no such type. */
const names: Readonly<Record<DType, string>> = {
  f32: "<f4",
  f16: "<f2",
  bf16: "<f4",
  i32: "<i4",
  u32: "<u4",
  i8: "|i1",
  u8: "|u1",
  bool: "|b1",
};

/**
 * Reads an array; `source` names it in errors. float64 is rounded to f32, int64 and uint16 become i32, uint64 u32.
 * @throws CheckpointError for whatever is not a well-formed file, and for values that the dtype cannot hold.
 */
export function decodeNpy(bytes: Uint8Array, source = "decodeNpy"): HostTensor {
  if (MAGIC.some((byte, i) => bytes[i] !== byte) || bytes.length < 10)
    throw fault(source, "an .npy file, which begins with \\x93NUMPY", "other bytes");
  const version = bytes[6];
  if (version < 1 || version > 3) throw fault(source, "version 1, 2 or 3", `${version}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const begin = version === 1 ? 10 : 12;
  const length =
    version === 1
      ? view.getUint16(8, true)
      : bytes.length < 12
        ? Infinity
        : view.getUint32(8, true);
  if (length > Math.min(MAX_TEXT, bytes.length - begin))
    throw fault(source, "a header within the file and below 64 KiB", `${length} bytes`);
  const header = new TextDecoder().decode(bytes.subarray(begin, begin + length));
  const { descr, fortran, shape } = parse(header, source);
  const kind = descr.slice(1);
  const wide = kind === "u8";
  if (!wide && !Object.hasOwn(kinds, kind))
    throw fault(source, `a dtype of ${Object.keys(kinds).join(", ")}, u8`, quoted(descr));
  const stored = wide ? "I64" : kinds[kind];
  const { bytes: size } = storedDTypes[stored];
  const data = bytes.subarray(begin + length);
  if (data.length !== numel(shape) * size)
    throw fault(
      source,
      `${numel(shape) * size} bytes of data for ${descr}${formatShape(shape)}`,
      `${data.length}`,
    );
  const own = descr[0] === ">" && size > 1 ? swapped(data, size) : data;
  const fail = (expected: string, got: string, at: number) =>
    fault(source, expected, `${got} at position ${at} of ${descr}${formatShape(shape)}`);
  const values = wide ? fromUint64(own, fail) : elementsOf(stored, own, fail);
  const dtype = wide ? "u32" : storedDTypes[stored].dtype;
  return { dtype, shape, data: fortran ? rowMajor(values, shape) : values };
}

/** The bytes of an `.npy` file (version 1, row-major, little-endian); bf16 as f32. */
export async function encodeNpy(value: Storable): Promise<Uint8Array> {
  const { dtype, shape } = value;
  const data = value instanceof Tensor ? await value.data() : value.data;
  if (data.length !== numel(shape))
    throw new ArgumentError(
      describe("encodeNpy", `${numel(shape)} elements for ${formatShape(shape)}`, `${data.length}`),
    );
  // The host has bf16 as f32 already.
  const stored = dtype === "bf16" ? data : toStored(dtype, data);
  const list = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${names[dtype]}', 'fortran_order': False, 'shape': (${list}), }`;
  // The data begins at a multiple of 64; the header ends with a line feed.
  const begin = Math.ceil((10 + text.length + 1) / 64) * 64;
  const file = new Uint8Array(begin + stored.byteLength).fill(0x20, 0, begin);
  file.set(MAGIC);
  file.set([1, 0, (begin - 10) & 255, (begin - 10) >> 8], 6);
  file.set(new TextEncoder().encode(text), 10);
  file[begin - 1] = 0x0a;
  file.set(new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength), begin);
  return file;
}

/** Reads an `.npy` file to the default device or the given one (Node). */
export async function loadNpy(
  path: string,
  options: { device?: DeviceName } = {},
): Promise<Tensor> {
  const { data, dtype, shape } = decodeNpy(await readFile(path), path);
  return uploadTensor(data, dtype, shape, options.device);
}

/** Writes one tensor to an `.npy` file, whole or not at all (Node). */
export async function saveNpy(path: string, value: Storable): Promise<void> {
  await writeFile(path, [await encodeNpy(value)]);
}

/** The header is a Python dictionary of three known keys. */
function parse(header: string, source: string) {
  const pattern =
    /\s*'(descr|fortran_order|shape)'\s*:\s*(?:'([<>|=]\w+)'|(True|False)|\(([\d\s,]*)\))\s*(?:,|(?=\}))/y;
  const fields = new Map<string, RegExpExecArray>();
  const refuse = () =>
    fault(
      source,
      "a header of descr, fortran_order and shape",
      quoted(header),
      "objects and records are not read",
    );
  const begin = header.indexOf("{") + 1;
  for (pattern.lastIndex = begin; ; ) {
    const at = pattern.lastIndex;
    const field = pattern.exec(header);
    if (!field) {
      if (begin === 0 || !/^\s*\}\s*$/.test(header.slice(at))) throw refuse();
      break;
    }
    fields.set(field[1], field);
  }
  const descr = fields.get("descr")?.[2];
  const order = fields.get("fortran_order")?.[3];
  const dims = fields.get("shape")?.[4];
  if (descr === undefined || order === undefined || dims === undefined) throw refuse();
  const shape = dims
    .split(",")
    .map((d) => d.trim())
    .filter((d) => d !== "")
    .map(Number);
  const size = shape.reduce((n, d) => n * Math.max(d, 1), 1);
  if (
    shape.length > 64 ||
    !(8 * size <= Number.MAX_SAFE_INTEGER) ||
    shape.some((d) => d >= 2 ** 31)
  )
    throw fault(source, "a shape that fits into memory", formatShape(shape));
  return { descr, fortran: order === "True", shape };
}

/** Each element's bytes the other way round. */
function swapped(data: Uint8Array, size: number): Uint8Array {
  const out = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i++) out[i - (i % size) + size - 1 - (i % size)] = data[i];
  return out;
}

function fromUint64(
  data: Uint8Array,
  fail: (expected: string, got: string, at: number) => Error,
): Uint32Array {
  const words = new Uint32Array(new Uint8Array(data).buffer);
  return new Uint32Array(words.length / 2).map((_, i) => {
    if (words[2 * i + 1] === 0) return words[2 * i];
    const value = (BigInt(words[2 * i + 1]) << 32n) | BigInt(words[2 * i]);
    throw fail("integers within the range of u32", `${value}`, i);
  });
}

/** Column-major elements in row-major order. */
function rowMajor(data: TypedArray, shape: readonly number[]): TypedArray {
  let stride = 1;
  const strides = shape.map((d) => (stride *= d) / d);
  return gathered(data, 0, shape, strides);
}
