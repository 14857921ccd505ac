/**
 * @file The two 16-bit float formats as bits: IEEE binary16 (f16: 5 bits of exponent, 10 of fraction) and bfloat16 (bf16: the
 * upper half of an f32). JavaScript can hold one of them, and only since Float16Array, so both are converted here: for
 * uploads and downloads of every backend, checkpoints, and the reference's arithmetic.
 *
 * All conversions round to nearest, ties to even; what is too large becomes infinite, subnormals are kept and NaN stays NaN.
 */

const one = new Float64Array(1);
const words = new Uint32Array(one.buffer);
const single = new Float32Array(1);
const singleBits = new Uint32Array(single.buffer);

/** Rounds to `digits` bits of fraction; exponents below `least` share one unit. In one step from float64. */
function roundFloat(x: number, digits: number, least: number, largest: number): number {
  const a = Math.abs(x);
  if (!(a > 0)) return x;
  if (a > 2 * largest) return x < 0 ? -Infinity : Infinity;
  one[0] = a;
  const exponent = Math.max((words[1] >>> 20) - 1023, least);
  // The sum has a's last wanted bit as its own last bit, so adding rounds there, ties to even.
  const magic = 2 ** (exponent + 52 - digits);
  const rounded = a + magic - magic;
  const bounded = rounded > largest ? Infinity : rounded;
  return x < 0 ? -bounded : bounded;
}

/** The f16 next to x. */
export const roundToHalf = (x: number): number => roundFloat(x, 10, -14, 65504);
/** The bf16 next to x. */
export const roundToBfloat16 = (x: number): number => roundFloat(x, 7, -126, 2 ** 128 - 2 ** 120);

/** The f16 of an f32's bits. */
function halfOfBits(u: number): number {
  const sign = (u >>> 16) & 0x8000;
  const a = u & 0x7fffffff;
  // Below 2⁻¹⁴: adding ½ shifts the multiple of 2⁻²⁴ into the last bits, rounded.
  if (a < 0x38800000) {
    singleBits[0] = a;
    single[0] += 0.5;
    return sign | (singleBits[0] - 0x3f000000);
  }
  // From 2¹⁶ on, and NaN, whose first bit of fraction is set so that some bit is.
  if (a >= 0x47800000) return sign | (a > 0x7f800000 ? 0x7e00 | ((a >>> 13) & 0x3ff) : 0x7c00);
  // A carry goes on into the exponent, and from the largest number to infinity.
  return sign | ((a - 0x38000000 + 0xfff + ((a >>> 13) & 1)) >>> 13);
}

/** The bf16 of an f32's bits. */
const bfloat16OfBits = (u: number): number =>
  (u & 0x7fffffff) > 0x7f800000 ? (u >>> 16) | 0x40 : (u + 0x7fff + ((u >>> 16) & 1)) >>> 16;

/** The f32 bits of an f16. */
function bitsOfHalf(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return sign | 0x7f800000 | (fraction << 13);
  if (exponent > 0) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (fraction === 0) return sign;
  // A subnormal half is a normal f32: shift its leading bit out of the fraction.
  const shift = Math.clz32(fraction) - 21;
  return sign | ((113 - shift) << 23) | (((fraction << shift) & 1023) << 13);
}

/** The f16 next to x, as bits. */
export function halfBits(x: number): number {
  single[0] = roundToHalf(x);
  return halfOfBits(singleBits[0]);
}

/** The bf16 next to x, as bits. */
export function bfloat16Bits(x: number): number {
  single[0] = roundToBfloat16(x);
  return bfloat16OfBits(singleBits[0]);
}

export function halfValue(bits: number): number {
  singleBits[0] = bitsOfHalf(bits);
  return single[0];
}

export function bfloat16Value(bits: number): number {
  singleBits[0] = bits << 16;
  return single[0];
}

/** f16 bits of numbers. Float32Arrays take the short way; other numbers are rounded from float64 in one step. */
export const floatToHalf = (values: ArrayLike<number>): Uint16Array =>
  narrowed(values, roundToHalf, halfOfBits);

/** bf16 bits of numbers. */
export const floatToBfloat16 = (values: ArrayLike<number>): Uint16Array =>
  narrowed(values, roundToBfloat16, bfloat16OfBits);

function narrowed(
  values: ArrayLike<number>,
  round: (x: number) => number,
  bitsOf: (u: number) => number,
): Uint16Array {
  const exact = values instanceof Float32Array ? values : Float32Array.from(values, round);
  const source = new Uint32Array(exact.buffer, exact.byteOffset, exact.length);
  const out = new Uint16Array(source.length);
  for (let i = 0; i < out.length; i++) out[i] = bitsOf(source[i]);
  return out;
}

/** f32 bits of every f16: 256 KB, made when the first array is converted. */
let halves: Int32Array | undefined;

/** The values of f16 bits, as f32. */
export function halfToFloat(bits: Uint16Array): Float32Array {
  const table = (halves ??= Int32Array.from({ length: 65536 }, (_, i) => bitsOfHalf(i)));
  const out = new Float32Array(bits.length);
  // Copied as integers, so that the payloads of NaNs survive.
  const target = new Int32Array(out.buffer);
  for (let i = 0; i < bits.length; i++) target[i] = table[bits[i]];
  return out;
}

/** The values of bf16 bits, as f32. */
export function bfloat16ToFloat(bits: Uint16Array): Float32Array {
  const out = new Float32Array(bits.length);
  const target = new Int32Array(out.buffer);
  for (let i = 0; i < bits.length; i++) target[i] = bits[i] << 16;
  return out;
}
