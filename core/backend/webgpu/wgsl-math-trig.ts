/**
 * @file sin and cos over all floats. WGSL promises nothing for large arguments and no relative accuracy near multiples of π.
 * So the argument is reduced with integers (Payne & Hanek 1983): exact for every float, and out of reach of what a
 * compiler may do to float arithmetic. The polynomials on |r| ≤ π/4 are those of the WebAssembly backend.
 */
import { byLane, type Helper, type Helpers, poly, type Writer } from "./wgsl-helper.ts";

/** π/2 as a number of 12 bits, whose product with another such number is exact, and the rest. */
const halfPiHigh = 1.570556640625;
const halfPiLow = Math.fround(Math.PI / 2 - halfPiHigh);

/** 2/π after the point, behind 32 zeros for arguments down to ½. */
const twoOverPi =
  "0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu, 0xdebbc561u";

const reduce = (w: Writer): string => `// x = n·π/2 + r; returns r as a sum of two, and n modulo 4.
fn ${w.id}(x: f32) -> vec3f {
  let exponent = (bitcast<u32>(x) >> 23u) & 255u;
  if (exponent < 126u) { return vec3f(x, 0.0, 0.0); }
  if (exponent == 255u) { return vec3f(${w.use("nan")}(), 0.0, 0.0); }
  // |x|·2/π modulo 4 needs the bits of 2/π from one position on: a window of 96.
  var digits = array<u32, 9>(${twoOverPi});
  let m = (bitcast<u32>(x) & 0x7fffffu) | 0x800000u;
  let first = (exponent - 120u) >> 5u;
  let shift = (exponent - 120u) & 31u;
  // In two shifts, as shifting by 32 would shift by 0.
  let back = 31u - shift;
  let a = (digits[first] << shift) | ((digits[first + 1u] >> 1u) >> back);
  let b = (digits[first + 1u] << shift) | ((digits[first + 2u] >> 1u) >> back);
  let c = (digits[first + 2u] << shift) | ((digits[first + 3u] >> 1u) >> back);
  // Quarter turns as a number with 2 bits before the point and 62 after it: high · 2^32 + low.
  let rest = ${w.use("mulHigh")}(m, c);
  var low = m * b + rest;
  let carry = select(0u, 1u, low < rest);
  var high = m * a + ${w.use("mulHigh")}(m, b) + carry;
  let n = (high + 0x20000000u) >> 30u;
  high -= n << 30u;
  let negative = (high >> 31u) == 1u;
  if (negative) {
    low = ~low + 1u;
    high = ~high + select(0u, 1u, low == 0u);
  }
  // The 32 leading bits, as 24 and 8, times π/2 as high + low.
  let empty = high == 0u;
  let word = select(high, low, empty);
  let next = select(low, 0u, empty);
  let up = countLeadingZeros(word);
  let top = (word << up) | ((next >> 1u) >> (31u - up));
  let scale = bitcast<f32>((97u - up - select(0u, 32u, empty)) << 23u);
  let upper = f32(top >> 8u) * 256.0 * scale;
  let lower = f32(top & 255u) * scale;
  let high_part = ${w.use("highPart")}(upper);
  let low_part = upper - high_part;
  let p = high_part * ${halfPiHigh};
  let q = high_part * ${halfPiLow} + (low_part * ${halfPiHigh} + (low_part * ${halfPiLow} + lower * ${Math.fround(Math.PI / 2)}));
  let r = vec2f(p + q, (p - (p + q)) + q);
  // sin is odd, cos even: both r and n change sign with x.
  let turns = select(n, 4u - n, x < 0.0) & 3u;
  return vec3f(select(r, -r, negative != (x < 0.0)), f32(turns));
}
`;

const wave = (quarter: 0 | 1): Helper => ({
  of: "f32",
  make: byLane(
    quarter ? "cos" : "sin",
    ["x"],
    (w) => `fn ${w.id}(x: f32) -> f32 {
  let reduced = ${w.use("reduceAngle")}(x);
  return ${w.use("quadrant")}(reduced.x, reduced.y, u32(reduced.z)${quarter ? " + 1u" : ""});
}
`,
  ),
});

export const trigMakers = {
  sin: wave(0),
  cos: wave(1),
  reduceAngle: { of: null, make: reduce },
  quadrant: {
    of: null,
    make: (w) => `// sin(r + rest + n·π/2)
fn ${w.id}(r: f32, rest: f32, n: u32) -> f32 {
  let z = r * r;
  let odd = fma(${poly(w, "z", [-0.00019518599, 0.008332191, -0.16666655])}, z * r, rest) + r;
  // The sum loses the sign of -0.
  let sine = bitcast<f32>(bitcast<u32>(odd) | (bitcast<u32>(r) & 0x80000000u));
  let even = fma(${poly(w, "z", [2.4432553e-5, -0.0013887311, 0.041666646])}, z * z, -r * rest);
  let cosine = even + fma(-0.5, z, 1.0);
  let y = select(sine, cosine, (n & 1u) == 1u);
  return select(y, -y, (n & 2u) == 2u);
}
`,
  },
} satisfies Helpers;
