/**
 * @file sin and cos over all floats. The argument is reduced modulo π/2 in float64 (Cody & Waite, two parts), exactly
 * enough for |x| < 2²⁶; vectors with a larger lane call a helper that reduces those lanes with 192 bits of 2/π (Payne &
 * Hanek 1983). Both end in the same two float32 polynomials on |r| ≤ π/4.
 */
import type { FunctionSource } from "./assembler.ts";
import { callVector, returnVector, vectorParam, vectorParams } from "./emit-call.ts";
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
  opaque,
  shuffle,
} from "./emit-expr.ts";
import {
  abs,
  and,
  choose,
  madd,
  mul,
  mul2,
  nmadd,
  or,
  poly,
  sub2,
  type Target,
  xor,
} from "./math-ops.ts";

/** π/2 = high + low; the high part has 25 bits, so n·high is exact in float64 for n < 2²⁸. */
const halfPiHigh = 1.5707963109016418;
const halfPiLow = 1.5893254773528196e-8;
const large = 2 ** 26;
/** 1.5·2⁵²: as `magic` in math.ts, the integer stands in the low word. */
const magic2 = f64x2(6755399441055744);

interface Reduced {
  /** x - n·π/2 */
  readonly r: Expr;
  /** Multiple of π/2, modulo 2³²; only its two low bits count. */
  readonly n: Expr;
}

function reduce(x: Expr): Reduced {
  const half = (v: Expr) => {
    const d = apply("f64x2.promote_low_f32x4", v);
    const shifted = apply("f64x2.add", mul2(d, f64x2(2 / Math.PI)), magic2);
    const n = sub2(shifted, magic2);
    const r = sub2(sub2(d, mul2(n, f64x2(halfPiHigh))), mul2(n, f64x2(halfPiLow)));
    return { shifted, r: apply("f32x4.demote_f64x2_zero", r) };
  };
  const low = half(x);
  const high = half(shuffle(lanes32(2, 3, 2, 3), x, x));
  return {
    r: shuffle(lanes32(0, 1, 4, 5), low.r, high.r),
    n: shuffle(lanes32(0, 2, 4, 6), low.shifted, high.shifted),
  };
}

/** sin(r + n·π/2) */
function quadrant(t: Target, { r, n }: Reduced): Expr {
  const z = mul(r, r);
  const s = poly(t, z, [-0.00019518599, 0.008332191, -0.16666655]);
  // The sign is or-ed in again for r = -0, which the sum would lose.
  const sin = or(madd(t, s, mul(z, r), r), and(r, i32x4(-2147483648)));
  const c = poly(t, z, [2.4432553e-5, -0.0013887311, 0.041666646]);
  const cos = madd(t, c, mul(z, z), nmadd(t, f32x4(0.5), z, f32x4(1)));
  const odd = apply("i32x4.shr_s", apply("i32x4.shl", n, i32(31)), i32(31));
  const sign = apply("i32x4.shl", and(n, i32x4(2)), i32(30));
  return xor(choose(odd, cos, sin), sign);
}

const shifted = (reduced: Reduced, quarter: Expr): Reduced => ({
  r: reduced.r,
  n: apply("i32x4.add", reduced.n, quarter),
});

/** sin (quarter = 0) or cos (quarter = 1), ≤ 2 ulp for all finite x; NaN for ±∞ and NaN. */
export function sine(t: Target, x: Expr, quarter: 0 | 1): Expr {
  const reduced = reduce(x);
  const near = quadrant(t, quarter ? shifted(reduced, i32x4(1)) : reduced);
  const far = apply("f32x4.ge", abs(x), f32x4(large));
  return opaque("v128", [x, near, apply("v128.any_true", far)], (fn, [value, fast, any]) => {
    fn.push(any);
    fn.code.open("if", "v128");
    fn.push(callVector(t.helper("trigLarge"), value, i32(quarter)));
    fn.code.op("else");
    fn.push(fast);
    fn.code.end();
  });
}

/** (x: a vector, quarter: i32) → a vector, for vectors with lanes of any size. */
export function makeTrigLarge(t: Target): FunctionSource {
  const fn = new Fn(vectorParams(1, "i32"), false);
  const x = vectorParam(fn, 0);
  const r = local("v128", fn.fresh("v128"));
  const n = local("v128", fn.fresh("v128"));
  const set = (target: Expr, value: Expr) => {
    fn.expect(value);
    fn.push(value);
    fn.code.set(target.imm);
    fn.release();
  };
  const start = reduce(x);
  fn.expect(start.r, start.n);
  fn.push(start.r);
  fn.code.set(r.imm);
  fn.push(start.n);
  fn.code.set(n.imm);
  fn.release();
  const packed = local("i64", fn.fresh("i64"));
  for (let l = 0; l < 4; l++) {
    const far = apply("f32x4.ge", abs(x), f32x4(large));
    fn.push(lane("i32x4.extract_lane", l, far));
    fn.code.open("if");
    set(packed, call("i64", t.helper("trigLane"), lane("i32x4.extract_lane", l, x)));
    set(r, lane("i32x4.replace_lane", l, r, apply("i32.wrap_i64", packed)));
    const quotient = apply("i32.wrap_i64", apply("i64.shr_u", packed, i64(32)));
    set(n, lane("i32x4.replace_lane", l, n, quotient));
    fn.code.end();
  }
  const result = quadrant(t, shifted({ r, n }, apply("i32x4.splat", local("i32", 2))));
  return returnVector(fn, result);
}

/** The first 256 bits of 2/π after the point. */
const twoOverPi = [
  0xa2f9836e4e441529n,
  0xfc2757d1f534ddc0n,
  0xdb6295993c439041n,
  0xfe5163abdebbc561n,
].map(i64);

/**
 * (bits of x: i32) → i64: n in the high word, the bits of the float r in the low one; |x| ≥ 2²⁶. With x = m·2^e and m an
 * integer of 24 bits, x·2/π modulo 4 needs only the bits of 2/π from position e - 2 on: two 64-bit windows.
 */
export function makeTrigLane(): FunctionSource {
  const fn = new Fn(["i32"]);
  const bits = local("i32", 0);
  const op = apply;
  const define = (e: Expr): Expr => {
    const kept = local(e.type, fn.fresh(e.type));
    fn.push(e);
    fn.code.set(kept.imm);
    return kept;
  };
  const exponent = define(op("i32.and", op("i32.shr_u", bits, i32(23)), i32(255)));
  fn.push(op("i32.eq", exponent, i32(255)));
  fn.code.open("if");
  fn.code.i64(0x7fc00000);
  fn.code.op("return");
  fn.code.end();
  const mantissa = op("i32.or", op("i32.and", bits, i32(0x7fffff)), i32(0x800000));
  const m = define(op("i64.extend_i32_u", mantissa));
  // e - 2, and the position inside its 64-bit word; e ≤ 104, so the window starts in the first or second one.
  const start = define(op("i64.extend_i32_u", op("i32.sub", exponent, i32(152))));
  const first = define(op("i64.lt_u", start, i64(64)));
  const shift = define(op("i64.and", start, i64(63)));
  const [w0, w1, w2] = [0, 1, 2].map((i) =>
    define(op("select", twoOverPi[i], twoOverPi[i + 1], first)),
  );
  // In two shifts, as shifting by 64 would shift by 0.
  const window = (a: Expr, b: Expr): Expr => {
    const rest = op("i64.shr_u", op("i64.shr_u", b, i64(1)), op("i64.sub", i64(63), shift));
    return op("i64.or", op("i64.shl", a, shift), rest);
  };
  const high = op("i64.mul", m, window(w0, w1));
  const low = op("i64.mul", m, op("i64.shr_u", window(w1, w2), i64(32)));
  // Quarter turns as a number with 2 bits before the point and 62 after it.
  const turns = define(op("i64.add", high, op("i64.shr_u", low, i64(32))));
  const n = define(op("i64.shr_u", op("i64.add", turns, i64(2n ** 61n)), i64(62)));
  const rest = op("i64.sub", turns, op("i64.shl", n, i64(62)));
  const scaled = op("f64.mul", op("f64.convert_i64_s", rest), f64(Math.PI * 2 ** -63));
  const r = define(op("i32.reinterpret_f32", op("f32.demote_f64", scaled)));
  // sin is odd, cos even: both r and n change sign with x.
  const sign = define(op("i32.and", bits, i32(-2147483648)));
  const signed = op("i64.extend_i32_u", op("i32.xor", r, sign));
  const negated = op("i64.sub", i64(0), n);
  const turned = op("select", negated, n, sign);
  fn.push(op("i64.or", op("i64.shl", turned, i64(32)), signed));
  return { params: fn.params, results: ["i64"], locals: fn.locals, body: fn.finish() };
}
