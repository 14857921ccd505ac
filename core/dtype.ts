/**
 * @file Data types: what a tensor stores, how types promote, and how the host sees them.
 *
 * Promotion follows PyTorch (categories bool < integer < floating). PyTorch's int64 is `i32` here.
 * Reference: https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc
 */

export type DType = "f32" | "i32" | "u32" | "i8" | "u8" | "bool";

export type TypedArray = Float32Array | Int32Array | Uint32Array | Int8Array | Uint8Array;

export type DTypeCategory = "bool" | "int" | "float";

interface DTypeInfo {
  readonly bytes: number;
  readonly category: DTypeCategory;
  readonly signed: boolean;
  readonly array: new (source: number | ArrayLike<number> | ArrayBufferLike) => TypedArray;
}

export const dtypes: Readonly<Record<DType, DTypeInfo>> = {
  f32: { bytes: 4, category: "float", signed: true, array: Float32Array },
  i32: { bytes: 4, category: "int", signed: true, array: Int32Array },
  u32: { bytes: 4, category: "int", signed: false, array: Uint32Array },
  i8: { bytes: 1, category: "int", signed: true, array: Int8Array },
  u8: { bytes: 1, category: "int", signed: false, array: Uint8Array },
  bool: { bytes: 1, category: "bool", signed: false, array: Uint8Array },
};

export const isFloat = (dtype: DType): boolean => dtypes[dtype].category === "float";
export const isInt = (dtype: DType): boolean => dtypes[dtype].category === "int";

/** The type of `a ∘ b` for two tensors, as `torch.promote_types`. */
export function promote(a: DType, b: DType): DType {
  if (a === b) return a;
  const rank = { bool: 0, int: 1, float: 2 } as const;
  const [ra, rb] = [rank[dtypes[a].category], rank[dtypes[b].category]];
  if (ra !== rb) return ra > rb ? a : b;
  // Two different integer types: the wider one; of i8 and u8 the type that holds both. PyTorch refuses
  // most mixes with its uint32; here u32 wins over every narrower type and over i32, as in C.
  if (a === "u32" || b === "u32") return "u32";
  return "i32";
}

/** Rounds or wraps a number to what `dtype` stores: `Math.fround` for f32, modulo 2ⁿ for integers. */
export function roundTo(dtype: DType, x: number): number {
  switch (dtype) {
    case "f32":
      return Math.fround(x);
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
