/**
 * @file pow and the remainder of floats. pow needs a logarithm with some 33 good bits, so it works with pairs of floats whose
 * high part has its last 12 bits cleared: products of two high parts are exact, and so are the differences below, fused
 * or not. The remainder works on integers and is exact.
 */
import { byLane, type Helpers, type Writer } from "./wgsl-helper.ts";

const remainder = (
  w: Writer,
): string => `// The exact remainder with the sign of x, 8 bits of the quotient per step.
fn ${w.id}(x: f32, y: f32) -> f32 {
  let ax = bitcast<u32>(x) & 0x7fffffffu;
  let ay = bitcast<u32>(y) & 0x7fffffffu;
  if (ax >= 0x7f800000u || ay > 0x7f800000u || ay == 0u) { return ${w.use("nan")}(); }
  if (ax < ay) { return x; }
  let ex = max(ax >> 23u, 1u);
  let ey = max(ay >> 23u, 1u);
  let my = (ay & 0x7fffffu) | select(0x800000u, 0u, ay < 0x800000u);
  var r = ((ax & 0x7fffffu) | select(0x800000u, 0u, ax < 0x800000u)) % my;
  var shift = ex - ey;
  while (shift > 0u) {
    let step = min(shift, 8u);
    r = (r << step) % my;
    shift -= step;
  }
  let sign = bitcast<u32>(x) & 0x80000000u;
  if (r == 0u) { return bitcast<f32>(sign); }
  let up = min(countLeadingZeros(r) - 8u, ey - 1u);
  return bitcast<f32>(sign | ((r << up) + ((ey - up - 1u) << 23u)));
}
`;

/** Coefficients of atanh(s)/s beyond 1 + s²/3, in s². */
const series = [1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5];

const hi = (x: number): number => {
  const f = new Float32Array([x]);
  new Uint32Array(f.buffer)[0] &= 0xfffff000;
  return f[0];
};

const pair = (x: number): string => `vec2f(${hi(x)}, ${Math.fround(x - hi(x))})`;

const exponents = [1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2];

const power = (w: Writer): string => {
  const horner = (x: string, cs: readonly number[]): string =>
    cs.slice(1).reduce((sum, c) => `fma(${sum}, ${x}, ${Math.fround(c)})`, `${Math.fround(cs[0])}`);
  return `fn ${w.id}(x: f32, y: f32) -> f32 {
  let ax = bitcast<u32>(x) & 0x7fffffffu;
  let ay = bitcast<u32>(y) & 0x7fffffffu;
  if (ay == 0u || bitcast<u32>(x) == 0x3f800000u) { return 1.0; }
  if (ax > 0x7f800000u || ay > 0x7f800000u) { return ${w.use("nan")}(); }
  // From 2^24 on every float is an even integer.
  let whole = ay >= 0x4b800000u || floor(y) == y;
  let odd = whole && ay < 0x4b800000u && (i32(y) & 1) == 1;
  let below = bitcast<u32>(x) >= 0x80000000u;
  if (below && !whole && ax != 0u && ax < 0x7f800000u) { return ${w.use("nan")}(); }
  let sign = select(0u, 0x80000000u, below && odd);
  if (ax == 0x3f800000u) { return bitcast<f32>(sign | ax); }
  let rising = (ax > 0x3f800000u) == (bitcast<u32>(y) < 0x80000000u);
  let limit = bitcast<f32>(sign | select(0u, 0x7f800000u, rising));
  if (ax == 0u || ax >= 0x7f800000u || ay >= 0x7f800000u) { return limit; }

  let logarithm = ${w.use("log2Pair")}(ax);
  let estimate = y * (logarithm.x + logarithm.y);
  if (estimate >= 129.0 || estimate <= -151.0) { return limit; }
  let high = ${w.use("highPart")}(y);
  let p = ${w.use("mulPair")}(logarithm, vec2f(high, y - high));
  let n = round(p.x);
  let g = ((p.x - n) + p.y) * ${Math.fround(Math.LN2)};
  let e = fma(${horner("g", exponents)}, g * g, g) + 1.0;
  // 2^n in two factors, as it may itself be subnormal or 2^128.
  let k = i32(n);
  let half = k >> 1u;
  let y2 = e * bitcast<f32>((half + 127) << 23u) * bitcast<f32>((k - half + 127) << 23u);
  return bitcast<f32>(bitcast<u32>(y2) | sign);
}
`;
};

const log2Pair = (w: Writer): string => {
  const horner = series
    .slice(1)
    .reduce((sum, c) => `fma(${sum}, t, ${Math.fround(c)})`, `${Math.fround(series[0])}`);
  const third = hi(1 / 3);
  return `// log2 of a positive finite float, given by its bits, with a relative error of about 2^-34.
fn ${w.id}(bits: u32) -> vec2f {
  let subnormal = bits < 0x800000u;
  let scaled = select(bits, bitcast<u32>(f32(bits)), subnormal);
  // 2^e·m with √½ ≤ m < √2.
  let e = bitcast<i32>(scaled - 0x3f3504f3u) >> 23u;
  let m = bitcast<f32>(bitcast<i32>(scaled) - (e << 23u));
  let exponent = f32(e) - select(0.0, 149.0, subnormal);
  // s = (m - 1)/(m + 1), log2 m = 2/ln 2 · atanh s.
  let f = m - 1.0;
  let below = ${w.use("highPart")}(m + 1.0);
  let rest = m - (below - 1.0);
  let quotient = ${w.use("highPart")}(f / (m + 1.0));
  let s = vec2f(quotient, ((f - quotient * below) - quotient * rest) / (m + 1.0));
  let square = ${w.use("mulPair")}(s, s);
  let t = square.x + square.y;
  let factor = ${w.use("addPair")}(${third}, ${Math.fround(1 / 3 - third)} + t * (${horner}));
  let v = ${w.use("mulPair")}(s, ${w.use("mulPair")}(square, factor));
  let sum = ${w.use("highPart")}(s.x + (v.x + (s.y + v.y)));
  let atanh = vec2f(sum, ((s.x - sum) + v.x) + (s.y + v.y));
  let fraction = ${w.use("mulPair")}(atanh, ${pair(2 / Math.LN2)});
  let total = ${w.use("highPart")}(exponent + (fraction.x + fraction.y));
  return vec2f(total, ((exponent - total) + fraction.x) + fraction.y);
}
`;
};

export const powerMakers = {
  rem: { of: "f32", make: byLane("rem", ["x", "y"], remainder) },
  pow: { of: "f32", make: byLane("pow", ["x", "y"], power) },
  log2Pair: { of: null, make: log2Pair },
  highPart: {
    of: null,
    make: (w) => `fn ${w.id}(x: f32) -> f32 {
  return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u);
}
`,
  },
  /** high + low for a high part with its last bits cleared and a smaller one. */
  addPair: {
    of: null,
    make: (w) => `fn ${w.id}(high: f32, low: f32) -> vec2f {
  let sum = ${w.use("highPart")}(high + low);
  return vec2f(sum, (high - sum) + low);
}
`,
  },
  mulPair: {
    of: null,
    make: (w) => `fn ${w.id}(a: vec2f, b: vec2f) -> vec2f {
  return ${w.use("addPair")}(a.x * b.x, a.x * b.y + (a.y * b.x + a.y * b.y));
}
`,
  },
} satisfies Helpers;
