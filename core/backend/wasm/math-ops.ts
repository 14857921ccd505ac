/**
 * @file Short names for the vector instructions that math*.ts writes its formulas with, and the multiply-add whose
 * meaning depends on the engine: fused where relaxed SIMD exists, rounded twice elsewhere. All bounds hold for both.
 */
import { apply, type Expr, f32x4, f64x2 } from "./emit-expr.ts";

/** Functions of the module that kernels call, made on first use. */
export type HelperName = "pow" | "fmod" | "fmodLane" | "trigLarge" | "trigLane";

/** What the code is made for. */
export interface Target {
  readonly address: 32 | 64;
  readonly relaxed: boolean;
  readonly helper: (name: HelperName) => number;
}

export const add = (a: Expr, b: Expr): Expr => apply("f32x4.add", a, b);
export const sub = (a: Expr, b: Expr): Expr => apply("f32x4.sub", a, b);
export const mul = (a: Expr, b: Expr): Expr => apply("f32x4.mul", a, b);
export const div = (a: Expr, b: Expr): Expr => apply("f32x4.div", a, b);
export const abs = (a: Expr): Expr => apply("f32x4.abs", a);
export const lt = (a: Expr, b: Expr): Expr => apply("f32x4.lt", a, b);
export const and = (a: Expr, b: Expr): Expr => apply("v128.and", a, b);
export const or = (a: Expr, b: Expr): Expr => apply("v128.or", a, b);
export const xor = (a: Expr, b: Expr): Expr => apply("v128.xor", a, b);
/** a where the mask's bits are set, else b. */
export const choose = (mask: Expr, a: Expr, b: Expr): Expr => apply("v128.bitselect", a, b, mask);

/** a·b + c */
export const madd = (t: Target, a: Expr, b: Expr, c: Expr): Expr =>
  t.relaxed ? apply("f32x4.relaxed_madd", a, b, c) : add(mul(a, b), c);
/** c - a·b */
export const nmadd = (t: Target, a: Expr, b: Expr, c: Expr): Expr =>
  t.relaxed ? apply("f32x4.relaxed_nmadd", a, b, c) : sub(c, mul(a, b));

/** Horner: coefficients from the highest power down. */
export function poly(t: Target, x: Expr, coefficients: readonly number[]): Expr {
  let sum = f32x4(coefficients[0]);
  for (const c of coefficients.slice(1)) sum = madd(t, sum, x, f32x4(c));
  return sum;
}

export const add2 = (a: Expr, b: Expr): Expr => apply("f64x2.add", a, b);
export const sub2 = (a: Expr, b: Expr): Expr => apply("f64x2.sub", a, b);
export const mul2 = (a: Expr, b: Expr): Expr => apply("f64x2.mul", a, b);

/** Horner in float64. */
export function poly2(t: Target, x: Expr, coefficients: readonly number[]): Expr {
  const step = (sum: Expr, c: number): Expr =>
    t.relaxed ? apply("f64x2.relaxed_madd", sum, x, f64x2(c)) : add2(mul2(sum, x), f64x2(c));
  return coefficients.slice(1).reduce(step, f64x2(coefficients[0]));
}
