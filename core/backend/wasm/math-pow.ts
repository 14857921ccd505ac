/**
 * @file pow and fmod of four floats, as functions that kernels call. Both work in float64, where a float's logarithm has
 * bits to spare: what remains is the rounding to float32.
 */
import type { FunctionSource } from "./assembler.ts";
import { returnVector, vectorParam, vectorParams } from "./emit-call.ts";
import {
  apply,
  call,
  type Expr,
  Fn,
  f32x4,
  f64,
  f64x2,
  i32,
  i32x4,
  i64,
  lane,
  lanes32,
  local,
  shuffle,
} from "./emit-expr.ts";
import { abs, add2, and, choose, lt, mul, mul2, or, poly2, sub2, type Target } from "./math-ops.ts";

const infinity = (): Expr => f32x4(Number.POSITIVE_INFINITY);
const signBit = (): Expr => i32x4(-2147483648);
/** Applies only to the high word of each float64. */
const highWords = (x: number): Expr => i32x4(0, x, 0, x);
const upper = (v: Expr): Expr => shuffle(lanes32(2, 3, 2, 3), v, v);
const joinHalves = (low: Expr, high: Expr): Expr => {
  const d = (v: Expr) => apply("f32x4.demote_f64x2_zero", v);
  return shuffle(lanes32(0, 1, 4, 5), d(low), d(high));
};

/** log2 of two positive normal float64, relative error below 2⁻⁴⁰: 2/ln2 · atanh((m - 1)/(m + 1)) as a series. */
function log2(t: Target, x: Expr): Expr {
  // x = 2^e·m, √½ ≤ m < √2; the exponent stands in the high words.
  const e = apply("i32x4.shr_s", apply("i32x4.sub", x, highWords(0x3fe6a09e)), i32(20));
  const m = apply("i32x4.sub", x, and(apply("i32x4.shl", e, i32(20)), highWords(-1)));
  const s = apply("f64x2.div", sub2(m, f64x2(1)), add2(m, f64x2(1)));
  const terms = [13, 11, 9, 7, 5, 3, 1].map((k) => 2 / Math.LN2 / k);
  const fraction = mul2(s, poly2(t, mul2(s, s), terms));
  const exponent = apply("f64x2.convert_low_i32x4_s", shuffle(lanes32(1, 3, 1, 3), e, e));
  return add2(exponent, fraction);
}

/** 2^p for |p| ≤ 200, relative error below 2⁻³¹. */
function exp2(t: Target, p: Expr): Expr {
  const n = apply("f64x2.nearest", p);
  const g = mul2(sub2(p, n), f64x2(Math.LN2));
  const factorials = [40320, 5040, 720, 120, 24, 6, 2, 1, 1];
  const e = poly2(
    t,
    g,
    factorials.map((f) => 1 / f),
  );
  const integer = apply("i32x4.trunc_sat_f64x2_s_zero", n);
  const exponent = apply("i32x4.shl", apply("i32x4.add", integer, i32x4(1023)), i32(20));
  // Into the high words: bytes 16 … 31 select the zeros.
  return mul2(e, shuffle(lanes32(4, 0, 4, 1), exponent, i32x4(0)));
}

/**
 * (x, y) → x^y, ≤ 1 ulp everywhere, special cases as IEEE 754 (pow(1, NaN) = pow(NaN, 0) = pow(-1, ±∞) = 1, unlike
 * JavaScript's).
 */
export function makePow(t: Target): FunctionSource {
  const fn = new Fn(vectorParams(2), false);
  const [x, y] = [vectorParam(fn, 0), vectorParam(fn, 1)];
  const a = abs(x);
  const eq = (p: Expr, q: Expr) => apply("f32x4.eq", p, q);
  const unordered = (p: Expr) => apply("f32x4.ne", p, p);
  const half = (av: Expr, yv: Expr): Expr => {
    const d = apply("f64x2.promote_low_f32x4", av);
    const raw = log2(t, d);
    const zero = apply("f64x2.eq", d, f64x2(0));
    const infinite = apply("f64x2.eq", d, f64x2(Number.POSITIVE_INFINITY));
    const logarithm = choose(
      zero,
      f64x2(Number.NEGATIVE_INFINITY),
      choose(infinite, f64x2(Number.POSITIVE_INFINITY), raw),
    );
    const p = mul2(apply("f64x2.promote_low_f32x4", yv), logarithm);
    // pmin and pmax in this order keep NaN.
    return exp2(t, apply("f64x2.pmax", apply("f64x2.pmin", p, f64x2(200)), f64x2(-200)));
  };
  const magnitude = joinHalves(half(a, y), half(upper(a), upper(y)));
  const whole = (v: Expr) => eq(v, apply("f32x4.floor", v));
  const integer = whole(y);
  const odd = apply("v128.andnot", integer, whole(mul(y, f32x4(0.5))));
  const one = f32x4(1);
  // |x| = 1: 0·∞ is NaN above, but 1 to any power is 1.
  const unit = apply("v128.andnot", eq(a, one), unordered(y));
  const signed = or(choose(unit, one, magnitude), and(and(x, signBit()), odd));
  const negative = and(lt(x, f32x4(0)), lt(a, infinity()));
  const undefinedLanes = or(
    apply("v128.andnot", negative, integer),
    or(unordered(x), unordered(y)),
  );
  const always = or(eq(y, f32x4(0)), eq(x, one));
  const result = choose(always, one, choose(undefinedLanes, f32x4(Number.NaN), signed));
  return returnVector(fn, result);
}

/** (x, y) → the exact remainder with the sign of x, as C's fmodf. */
export function makeFmod(t: Target): FunctionSource {
  const fn = new Fn(vectorParams(2), false);
  const [x, y] = [vectorParam(fn, 0), vectorParam(fn, 1)];
  const [ax, ay] = [abs(x), abs(y)];
  const promote = (v: Expr) => apply("f64x2.promote_low_f32x4", v);
  // Exact while the quotient has few bits: its product with a float fits into float64.
  const half = (p: Expr, q: Expr) => {
    const quotient = apply("f64x2.trunc", apply("f64x2.div", promote(p), promote(q)));
    return {
      rest: sub2(promote(p), mul2(quotient, promote(q))),
      fits: apply("f64x2.lt", quotient, f64x2(2 ** 26)),
    };
  };
  const [low, high] = [half(ax, ay), half(upper(ax), upper(ay))];
  const fits = and(shuffle(lanes32(0, 2, 4, 6), low.fits, high.fits), lt(ay, infinity()));
  const rest = local("v128", fn.fresh("v128"));
  const other = local("v128", fn.fresh("v128"));
  const all = joinHalves(low.rest, high.rest);
  const misfits = apply("v128.not", fits);
  fn.expect(all, misfits);
  fn.push(all);
  fn.code.set(rest.imm);
  fn.push(misfits);
  fn.code.set(other.imm);
  fn.release();
  fn.push(apply("v128.any_true", other));
  fn.code.open("if");
  for (let l = 0; l < 4; l++) {
    const scalar = (v: Expr) => apply("f64.promote_f32", lane("f32x4.extract_lane", l, abs(v)));
    fn.push(lane("i32x4.extract_lane", l, other));
    fn.code.open("if");
    const exact = call("f64", t.helper("fmodLane"), scalar(x), scalar(y));
    fn.push(lane("f32x4.replace_lane", l, rest, apply("f32.demote_f64", exact)));
    fn.code.set(rest.imm);
    fn.code.end();
  }
  fn.code.end();
  return returnVector(fn, or(rest, and(x, signBit())));
}

/** (x, y: f64, both floats ≥ 0 or NaN) → x mod y: takes off 26 bits of the quotient per round, each exactly. */
export function makeFmodLane(): FunctionSource {
  const fn = new Fn(["f64", "f64"]);
  const { code } = fn;
  const [r, y] = [local("f64", 0), local("f64", 1)];
  const step = local("f64", fn.fresh("f64"));
  const shift = local("i64", fn.fresh("i64"));
  const exponent = (v: Expr) => apply("i64.shr_u", apply("i64.reinterpret_f64", v), i64(52));
  const valid = apply(
    "i32.and",
    apply("f64.lt", r, f64(Number.POSITIVE_INFINITY)),
    apply("f64.gt", y, f64(0)),
  );
  fn.push(apply("i32.eqz", valid));
  code.open("if");
  code.f64(Number.NaN);
  code.op("return");
  code.end();
  code.open("loop");
  fn.push(apply("f64.lt", r, y));
  code.open("if");
  code.get(r.imm);
  code.op("return");
  code.end();
  fn.push(apply("i64.sub", apply("i64.sub", exponent(r), exponent(y)), i64(26)));
  code.set(shift.imm);
  // No less than no shift: y itself.
  fn.push(apply("select", shift, i64(0), apply("i64.gt_s", shift, i64(0))));
  code.set(shift.imm);
  const bits = apply("i64.add", apply("i64.reinterpret_f64", y), apply("i64.shl", shift, i64(52)));
  fn.push(apply("f64.reinterpret_i64", bits));
  code.set(step.imm);
  const quotient = apply("f64.trunc", apply("f64.div", r, step));
  fn.push(apply("f64.sub", r, apply("f64.mul", quotient, step)));
  code.set(r.imm);
  code.opU("br", 0);
  code.end();
  code.op("unreachable");
  return { params: fn.params, results: ["f64"], locals: fn.locals, body: fn.finish() };
}
