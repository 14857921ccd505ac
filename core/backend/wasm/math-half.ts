/**
 * @file Halves in vectors. A half in a register is the f32 of the same value; in memory it is 16 bits, which pass here through
 * the upper halves of the lanes ("raw" lanes: the lower halves do not matter). So a bf16 in a register is its own raw form.
 */
import { type DType, isHalf } from "../../dtype.ts";
import { apply, type Expr, f32x4, i32, i32x4 } from "./emit-expr.ts";
import { abs, add, and, mul, or, sub } from "./math-ops.ts";

const sign = (x: Expr): Expr => and(x, i32x4(-2147483648));
const upper = (x: Expr): Expr => and(x, i32x4(0xffff0000 | 0));

/** f32 lanes rounded to a half, to nearest, ties to even. */
export function roundLanes(dtype: DType, x: Expr): Expr {
  if (dtype === "bf16") {
    const odd = and(apply("i32x4.shr_u", x, i32(16)), i32x4(1));
    const rounded = apply("i32x4.add", apply("i32x4.add", x, odd), i32x4(0x7fff));
    // All ones is a NaN, which the carry might have made a number.
    return upper(or(rounded, apply("f32x4.ne", x, x)));
  }
  // 65536 rounds to itself here and is infinity; pmin(x, c) keeps NaN.
  const a = apply("f32x4.pmin", abs(x), f32x4(65536));
  // A power of two 2¹³ times a's own (or that of the subnormals): adding it rounds a at its eleventh bit.
  const power = apply("f32x4.pmax", and(a, i32x4(0x7f800000)), f32x4(2 ** -14));
  const magic = mul(power, f32x4(2 ** 13));
  const rounded = sub(add(a, magic), magic);
  const infinite = and(apply("f32x4.eq", rounded, f32x4(65536)), i32x4(0x7f800000));
  return or(or(rounded, infinite), sign(x));
}

/** Raw lanes of a value in a register. */
export function toBits(dtype: DType, x: Expr): Expr {
  if (dtype !== "f16") return x;
  // The exponents' biases differ by 112; the subnormals of one are those of the other, infinity stays.
  const scaled = mul(x, f32x4(2 ** -112));
  return or(and(apply("i32x4.shl", scaled, i32(3)), i32x4(0x7fff0000)), sign(x));
}

/** The value of raw lanes; what is no half is left as it is. */
export function fromBits(dtype: DType, raw: Expr): Expr {
  if (!isHalf(dtype)) return raw;
  if (dtype === "bf16") return upper(raw);
  const small = apply("i32x4.shr_u", and(raw, i32x4(0x7fff0000)), i32(3));
  const value = mul(small, f32x4(2 ** 112));
  const special = and(apply("f32x4.ge", value, f32x4(65536)), i32x4(0x7f800000));
  return or(or(value, special), sign(raw));
}
