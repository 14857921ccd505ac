/**
 * @file Division of 32-bit integers, four lanes at once through float64: a quotient of integers below 2³² is farther
 * from the next integer than float64's rounding reaches, so truncating the float quotient is exact.
 */
import { apply, type Expr, i32x4, lanes32, shuffle } from "./emit-expr.ts";
import { choose } from "./math-ops.ts";

/** Truncated quotient. x / 0 = 0, and the smallest integer / -1 wraps to itself; nothing traps. */
export function integerDivide(x: Expr, y: Expr, unsigned: boolean): Expr {
  const s = unsigned ? "u" : "s";
  const convert = (e: Expr) => apply(`f64x2.convert_low_i32x4_${s}`, e);
  const upper = (e: Expr) => shuffle(lanes32(2, 3, 2, 3), e, e);
  const quotient = (a: Expr, b: Expr) =>
    apply(`i32x4.trunc_sat_f64x2_${s}_zero`, apply("f64x2.div", convert(a), convert(b)));
  const low = quotient(x, y);
  const high = quotient(upper(x), upper(y));
  const q = shuffle(lanes32(0, 1, 4, 5), low, high);
  // 0/0 truncates to 0 already, but x/0 saturates.
  const defined = apply("v128.and", q, apply("i32x4.ne", y, i32x4(0)));
  if (unsigned) return defined;
  return choose(apply("i32x4.eq", y, i32x4(-1)), apply("i32x4.neg", x), defined);
}

/** x - y·(x / y), with the sign of x; x rem 0 = 0. */
export function integerRemainder(x: Expr, y: Expr, unsigned: boolean): Expr {
  const q = integerDivide(x, y, unsigned);
  const r = apply("i32x4.sub", x, apply("i32x4.mul", q, y));
  return apply("v128.and", r, apply("i32x4.ne", y, i32x4(0)));
}
