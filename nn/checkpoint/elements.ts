/**
 * @file From the bytes of a file to elements. Types that Hinode has no tensors of are converted: I16 and U16 exactly to i32,
 * F64 rounded to f32 and I64 to i32, where a value outside the range is an error. BF16 has no array type on the host: its
 * elements are given as f32.
 */
import { dtypes, type TypedArray } from "../../core/dtype.ts";
import { bfloat16ToFloat, halfToFloat } from "../../core/half.ts";
import { numel } from "../../core/shape.ts";
import { type StoredDType, storedDTypes } from "./header.ts";

/** The elements in row-major order; a view of `bytes` where type and alignment allow it. */
export function elementsOf(stored: StoredDType, bytes: Uint8Array, fail: Fail): TypedArray {
  const convert = converters[stored];
  if (convert) return convert(bytes, fail);
  const { array, bytes: size } = dtypes[storedDTypes[stored].dtype];
  return aligned(bytes, array as View<TypedArray>, size);
}

type View<A> = new (buffer: ArrayBufferLike, offset: number, length: number) => A;

/** A view if the bytes are aligned to elements of `size` bytes, else one of a copy. */
function aligned<A>(bytes: Uint8Array, Typed: View<A>, size: number): A {
  // The constructor copies; slice() would not, on a Buffer of Node's.
  const { buffer, byteOffset } = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
  return new Typed(buffer, byteOffset, bytes.length / size);
}

/** Makes the error about the value at a position. */
type Fail = (expected: string, got: string, at: number) => Error;

const converters: { readonly [S in StoredDType]?: (bytes: Uint8Array, fail: Fail) => TypedArray } =
  {
    // An engine without Float16Array shows f16 as f32 too; others take the general way.
    ...(dtypes.f16.array === dtypes.f32.array
      ? { F16: (bytes: Uint8Array) => halfToFloat(aligned(bytes, Uint16Array, 2)) }
      : {}),
    BF16: (bytes: Uint8Array) => bfloat16ToFloat(aligned(bytes, Uint16Array, 2)),
    I16: (bytes: Uint8Array) => new Int32Array(aligned(bytes, Int16Array, 2)),
    U16: (bytes: Uint8Array) => new Int32Array(aligned(bytes, Uint16Array, 2)),
    F64: (bytes: Uint8Array, fail: Fail) => {
      const source = aligned(bytes, Float64Array, 8);
      const out = new Float32Array(source);
      for (let i = 0; i < out.length; i++)
        if (Math.abs(out[i]) === Infinity && Number.isFinite(source[i]))
          throw fail("doubles within the range of f32", `${source[i]}`, i);
      return out;
    },
    I64: (bytes: Uint8Array, fail: Fail) => {
      const words = aligned(bytes, Int32Array, 4);
      const out = new Int32Array(words.length / 2);
      for (let i = 0; i < out.length; i++) {
        const [low, high] = [words[2 * i], words[2 * i + 1]];
        // In range exactly when the upper half repeats the sign.
        if (high !== low >> 31) {
          const value = (BigInt(high) << 32n) | BigInt(low >>> 0);
          throw fail("integers within the range of i32", `${value}`, i);
        }
        out[i] = low;
      }
      return out;
    },
    BOOL: (bytes: Uint8Array, fail: Fail) => {
      const at = bytes.findIndex((byte) => byte > 1);
      if (at >= 0) throw fail("0 or 1 for each bool", `${bytes[at]}`, at);
      return aligned(bytes, Uint8Array, 1);
    },
  };

/** The elements of a strided view in row-major order. */
export function gathered(
  data: TypedArray,
  offset: number,
  shape: readonly number[],
  strides: readonly number[],
): TypedArray {
  const out = data.slice(0, numel(shape));
  const index = shape.map(() => 0);
  for (let i = 0, from = offset; i < out.length; i++) {
    out[i] = data[from];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++index[axis] < shape[axis]) break;
      from -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return out;
}
