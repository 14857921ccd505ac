/**
 * @file Data types: what a tensor stores, how types promote, and how the host sees them.
 *
 * Promotion follows PyTorch (categories bool < integer < floating). PyTorch's int64 is `i32` here.
 * Reference: https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc
 *
 * f16 and bf16 are halves: every primitive computes in at least f32 and rounds its result to the half, once. So a value is the
 * same number whether it was stored or not, and what is fused cannot change a result.
 */
import {
  bfloat16Bits,
  bfloat16ToFloat,
  bfloat16Value,
  floatToBfloat16,
  floatToHalf,
  halfBits,
  halfToFloat,
  halfValue,
  roundToBfloat16,
  roundToHalf,
} from "./half.ts";
import { numel, type Shape } from "./shape.ts";

export type DType = "f32" | "f16" | "bf16" | "i32" | "u32" | "i8" | "u8" | "bool";

export type TypedArray =
  | Float32Array
  | Float16Array
  | Int32Array
  | Uint32Array
  | Int8Array
  | Uint8Array;

/** As a device stores elements: halves as their bits. */
export type StoredArray = TypedArray | Uint16Array;

export type DTypeCategory = "bool" | "int" | "float";

interface DTypeInfo {
  readonly bytes: number;
  readonly category: DTypeCategory;
  readonly signed: boolean;
  /** What the host sees. Of bf16 that is f32, and of f16 too where an engine has no Float16Array. */
  readonly array: new (
    source: number | ArrayLike<number> | ArrayBufferLike,
  ) => TypedArray;
}

export interface Codec {
  /** The bits of the half next to x. */
  readonly encode: (x: number) => number;
  readonly decode: (bits: number) => number;
}

/** How halves are stored. Elements of other types are what they are. */
export const codecs: { readonly [D in DType]?: Codec } = {
  f16: { encode: halfBits, decode: halfValue },
  bf16: { encode: bfloat16Bits, decode: bfloat16Value },
};

const hasHalf = typeof Float16Array !== "undefined";

export const dtypes: Readonly<Record<DType, DTypeInfo>> = {
  f32: { bytes: 4, category: "float", signed: true, array: Float32Array },
  f16: { bytes: 2, category: "float", signed: true, array: hasHalf ? Float16Array : Float32Array },
  bf16: { bytes: 2, category: "float", signed: true, array: Float32Array },
  i32: { bytes: 4, category: "int", signed: true, array: Int32Array },
  u32: { bytes: 4, category: "int", signed: false, array: Uint32Array },
  i8: { bytes: 1, category: "int", signed: true, array: Int8Array },
  u8: { bytes: 1, category: "int", signed: false, array: Uint8Array },
  bool: { bytes: 1, category: "bool", signed: false, array: Uint8Array },
};

export const isFloat = (dtype: DType): boolean => dtypes[dtype].category === "float";
export const isInt = (dtype: DType): boolean => dtypes[dtype].category === "int";
/** The 16-bit floats, which are stored but not computed with. */
export const isHalf = (dtype: DType): boolean => dtype === "f16" || dtype === "bf16";

/** The largest finite number of each float type, and the distance from 1 to the next one (torch.finfo's max and eps). */
export const floatLimits = {
  f32: { max: (2 - 2 ** -23) * 2 ** 127, eps: 2 ** -23 },
  f16: { max: 65504, eps: 2 ** -10 },
  bf16: { max: (2 - 2 ** -7) * 2 ** 127, eps: 2 ** -7 },
} as const;

/** Elements as a device stores them. A view where nothing has to be converted. */
export function toStored(dtype: DType, data: TypedArray): StoredArray {
  if (dtype === "bf16") return floatToBfloat16(data);
  if (dtype !== "f16") return data;
  if (data instanceof Float32Array) return floatToHalf(data);
  return new Uint16Array(data.buffer, data.byteOffset, data.length);
}

/** The elements that a device has stored in `buffer`: a view of it where nothing has to be converted. */
export function fromStored(dtype: DType, buffer: ArrayBufferLike): TypedArray {
  if (dtype === "bf16") return bfloat16ToFloat(new Uint16Array(buffer));
  if (dtype === "f16" && !hasHalf) return halfToFloat(new Uint16Array(buffer));
  return new dtypes[dtype].array(buffer);
}

/** The type of `a ∘ b` for two tensors, as `torch.promote_types`. */
export function promote(a: DType, b: DType): DType {
  if (a === b) return a;
  const rank = { bool: 0, int: 1, float: 2 } as const;
  const [ra, rb] = [rank[dtypes[a].category], rank[dtypes[b].category]];
  if (ra !== rb) return ra > rb ? a : b;
  // f16 has the finer steps, bf16 the wider range: only f32 holds both.
  if (ra === rank.float) return "f32";
  // Two different integer types: the wider one; of i8 and u8 the type that holds both. PyTorch refuses
  // most mixes with its uint32; here u32 wins over every narrower type and over i32, as in C.
  if (a === "u32" || b === "u32") return "u32";
  return "i32";
}

/** Rounds or wraps a number to what `dtype` stores: to the nearest float, modulo 2ⁿ for integers. */
export function roundTo(dtype: DType, x: number): number {
  switch (dtype) {
    case "f32":
      return Math.fround(x);
    case "f16":
      return roundToHalf(x);
    case "bf16":
      return roundToBfloat16(x);
    case "i32":
      return x | 0;
    case "u32":
      return x >>> 0;
    case "i8":
      return (x << 24) >> 24;
    case "u8":
      return x & 255;
    case "bool":
      return x === 0 ? 0 : 1;
  }
}

/**
 * Converts a float to an integer type as every backend does: truncated toward zero, saturated at the 32-bit
 * range, NaN to 0 (WebAssembly's `trunc_sat`); 8-bit types then wrap. PyTorch leaves these cases undefined.
 */
export function floatToInt(dtype: DType, x: number): number {
  if (Number.isNaN(x)) return 0;
  const t = Math.trunc(x);
  if (dtype === "u32") return Math.min(Math.max(t, 0), 4294967295);
  return roundTo(dtype, Math.min(Math.max(t, -2147483648), 2147483647));
}

/** The bytes that a tensor takes. */
export const bytesOf = (t: { readonly shape: Shape; readonly dtype: DType }): number =>
  numel(t.shape) * dtypes[t.dtype].bytes;
