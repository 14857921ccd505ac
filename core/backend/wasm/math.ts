/**
 * @file exp, log, tanh and erf of four floats, inline and without branches. Each states its error bound in units in the
 * last place (ulp) over all floats; test/wasm/math.test.ts measures it against float64, with fused and with separate
 * multiply-add. Structure after Cephes (Moshier) and Juffa's erff; the coefficients are own minimax fits (weighted
 * least squares to the uniform limit, rounded to float32 one by one), so their last digits matter.
 */
import { apply, type Expr, f32x4, i32, i32x4 } from "./emit-expr.ts";
import {
  abs,
  add,
  and,
  choose,
  div,
  lt,
  madd,
  mul,
  nmadd,
  or,
  poly,
  sub,
  type Target,
} from "./math-ops.ts";

const log2e = f32x4(Math.LOG2E);
/** ln 2 = high + low; the high part has 9 significant bits, so n·high is exact for every exponent n. */
const ln2High = f32x4(0.693359375);
const ln2Low = f32x4(-0.00021219444005469057);
/** 1.5·2²³: adding it rounds to an integer, which then stands in the low bits. */
const magic = f32x4(12582912);
const one = f32x4(1);

const signBit = (): Expr => i32x4(-2147483648);

/** x = n·ln2 + r with |r| ≤ ln2/2; returns e^r and the bit pattern of 2^(n - 127 + bias), if that is normal. */
function reduceExp(t: Target, x: Expr, bias: number): { er: Expr; power: Expr } {
  // 1.5·2²³ + bias: adding it rounds to an integer, which then stands in the low bits.
  const magic = f32x4(12582912 + bias);
  const shifted = madd(t, x, log2e, magic);
  const n = sub(shifted, magic);
  const r = nmadd(t, n, ln2Low, nmadd(t, n, ln2High, x));
  const er = poly(t, r, [0.0013820776, 0.008369249, 0.04166828, 0.16666517, 0.49999994, 1, 1]);
  return { er, power: apply("i32x4.shl", shifted, i32(23)) };
}

/** e^x for -87 ≤ x ≤ 88, NaN stays NaN: for use inside other functions. */
function expNormal(t: Target, x: Expr): Expr {
  const { er, power } = reduceExp(t, x, 127);
  return mul(er, power);
}

/** e^x, ≤ 1.6 ulp for all x; subnormal results within 1 of their units; e^-∞ = 0, e^∞ = ∞. */
export function exp(t: Target, x: Expr): Expr {
  // pmin(x, c) keeps NaN: it is c only where c < x.
  const clamped = apply("f32x4.pmax", apply("f32x4.pmin", x, f32x4(89)), f32x4(-104));
  // Half the power, as 2^n itself may be 2¹²⁸; where it is subnormal, the last factor is what is missing.
  const { er, power } = reduceExp(t, clamped, 126);
  const normal = apply("i32x4.max_s", power, i32x4(1 << 23));
  const rest = apply("i32x4.add", apply("i32x4.sub", power, normal), f32x4(2));
  return mul(mul(er, normal), rest);
}

/** ln x, ≤ 1 ulp for all x > 0, subnormals included; ln ±0 = -∞, ln x = NaN for x < 0. */
export function log(t: Target, x: Expr): Expr {
  const subnormal = lt(x, f32x4(2 ** -126));
  const scaled = choose(subnormal, mul(x, f32x4(2 ** 23)), x);
  const shiftBack = and(subnormal, f32x4(23));
  // x = 2^e·m with √½ ≤ m < √2.
  const e = apply("i32x4.shr_s", apply("i32x4.sub", scaled, i32x4(0x3f3504f3)), i32(23));
  const m = apply("i32x4.sub", scaled, apply("i32x4.shl", e, i32(23)));
  const exponent = sub(apply("f32x4.convert_i32x4_s", e), shiftBack);
  const f = sub(m, one);
  const square = mul(f, f);
  const tail = poly(
    t,
    f,
    [
      0.0674919, -0.11670025, 0.118835375, -0.1240624, 0.1422036, -0.16667989, 0.20002072,
      -0.2500001, 0.33333313,
    ],
  );
  const correction = madd(t, exponent, ln2Low, mul(mul(square, f), tail));
  const y = nmadd(t, f32x4(0.5), square, correction);
  const result = madd(t, exponent, ln2High, add(f, y));
  // ∞ and NaN are their own logarithms; all ones is a NaN.
  const zero = apply("f32x4.eq", x, f32x4(0));
  const limit = or(choose(zero, f32x4(Number.NEGATIVE_INFINITY), x), lt(x, f32x4(0)));
  // Positive finite numbers are the bit patterns 1 … 0x7f7fffff.
  const irregular = apply("i32x4.ge_u", apply("i32x4.sub", x, i32x4(1)), i32x4(0x7f7fffff));
  return choose(irregular, limit, result);
}

/** tanh x, ≤ 2 ulp for all x. */
export function tanh(t: Target, x: Expr): Expr {
  const a = apply("f32x4.pmin", abs(x), f32x4(9.25));
  const z = mul(a, a);
  const tail = poly(t, z, [-0.005692296, 0.020628167, -0.053736515, 0.13331406, -0.3333328]);
  const small = madd(t, mul(a, z), tail, a);
  const large = sub(one, div(f32x4(2), add(expNormal(t, add(a, a)), one)));
  const magnitude = choose(lt(a, f32x4(0.625)), small, large);
  return or(magnitude, and(x, signBit()));
}

/**
 * erf x, ≤ 2 ulp for all x. Above 0.93 as 1 - 2^-v with v = -log2 erfc a as a polynomial: whole powers of two need no
 * argument reduction. A single rational function takes half the time of this, but is 7 ulp off near 1.
 */
export function erf(t: Target, x: Expr): Expr {
  // erf 4 rounds to 1.
  const a = apply("f32x4.pmin", abs(x), f32x4(4));
  const z = mul(a, a);
  const series = poly(
    t,
    z,
    [-0.00059595786, 0.004987352, -0.026762966, 0.11281731, -0.3761249, 0.12837915],
  );
  const small = madd(t, series, a, a);
  const v = mul(
    a,
    poly(t, a, [-0.0003095996, 0.0046454747, -0.033046514, 0.15189697, 0.9171202, 1.6281102]),
  );
  const shifted = add(v, magic);
  const f = sub(sub(shifted, magic), v);
  const root = poly(
    t,
    f,
    [0.001340233, 0.0096794935, 0.05550277, 0.24021985, 0.69314724, 1.0000001],
  );
  const scale = apply("i32x4.sub", one, apply("i32x4.shl", shifted, i32(23)));
  const large = nmadd(t, root, scale, one);
  const magnitude = choose(lt(a, f32x4(0.93)), small, large);
  return or(magnitude, and(x, signBit()));
}
