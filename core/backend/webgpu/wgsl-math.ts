/**
 * @file The functions that kernels may call, printed only where they are used: elementary functions where the native ones
 * are too inaccurate or undefined, NaN-safe comparisons, integer division and casts with our meaning, packed types.
 *
 * A maker writes the text for a width of 1 to 4 lanes, `F` standing for the type of its floats, `U`, `I` and `B` for the
 * others. NaN is told by its bits, since WGSL lets a compiler assume that there is none. exp, log, tanh and erf are those of
 * the WebAssembly backend (see there for where the coefficients are from), with the same bounds in ulp.
 */
import type { GpuTarget } from "../../kernel/gpu/target.ts";
import { type Register, typeName } from "./wgsl-expr.ts";
import { type Helper, type HelperName, type Helpers, poly, type Writer } from "./wgsl-helper.ts";
import { halfMakers } from "./wgsl-math-half.ts";
import { integerMakers } from "./wgsl-math-int.ts";
import { powerMakers } from "./wgsl-math-pow.ts";
import { trigMakers } from "./wgsl-math-trig.ts";

const unary = (of: Register, body: (w: Writer) => string): Helper => ({
  of,
  make: (w) => `fn ${w.id}(x: ${w.F}) -> ${w.F} {\n${body(w)}\n}\n`,
});

const extremum = (name: "max" | "min"): Helper => ({
  of: "f32",
  make: (w) => `fn ${w.id}(a: ${w.F}, b: ${w.F}) -> ${w.F} {
  let chosen = select(${name}(a, b), b, ${w.use("isNan")}(b));
  return select(chosen, a, ${w.use("isNan")}(a));
}
`,
});

/** n and e^r of x = n·ln2 + r with |r| ≤ ln2/2, as lines. ln 2 = high + low; n·high is exact. */
const reduceExp = (w: Writer, x: string): string => `  let n = round(${x} * ${Math.LOG2E});
  let r = fma(n, ${w.F}(0.00021219444005469057), fma(n, ${w.F}(-0.693359375), ${x}));
  let tail = ${poly(w, "r", [0.0013820776, 0.008369249, 0.04166828, 0.16666517, 0.49999994])};
  let e = fma(tail, r * r, r) + 1.0;`;

const power2 = (w: Writer, n: string): string => `bitcast<${w.F}>((${n} + 127) << ${w.U}(23u))`;

const floatMakers = {
  inf: {
    of: null,
    make: (w) => `fn ${w.id}() -> f32 {
  var bits = 0x7f800000u; // a variable: WGSL refuses infinite constants
  return bitcast<f32>(bits);
}
`,
  },
  nan: {
    of: null,
    make: (w) => `fn ${w.id}() -> f32 {
  var bits = 0x7fc00000u; // a variable: WGSL refuses NaN as a constant
  return bitcast<f32>(bits);
}
`,
  },
  isNan: {
    of: "f32",
    make: (w) => `fn ${w.id}(x: ${w.F}) -> ${w.B} {
  return (bitcast<${w.U}>(x) & ${w.U}(0x7fffffffu)) > ${w.U}(0x7f800000u);
}
`,
  },
  max: extremum("max"),
  min: extremum("min"),
  copySign: {
    of: "f32",
    make: (w) => `fn ${w.id}(magnitude: ${w.F}, sign: ${w.F}) -> ${w.F} {
  let bit = bitcast<${w.U}>(sign) & ${w.U}(0x80000000u);
  return bitcast<${w.F}>(bitcast<${w.U}>(magnitude) | bit);
}
`,
  },
  /** ≤ 1.2 ulp; subnormal results within 1 of their units, or 0 where the GPU has none. */
  exp: unary(
    "f32",
    (w) => `  let a = clamp(x, ${w.F}(-104.0), ${w.F}(89.0));
${reduceExp(w, "a")}
  // 2^n in two factors, as it may itself be subnormal or 2^128.
  let k = ${w.I}(n);
  let half = k >> ${w.U}(1u);
  let y = e * ${power2(w, "half")} * ${power2(w, "(k - half)")};
  return select(y, x, ${w.use("isNan")}(x));`,
  ),
  /** ≤ 1 ulp for all x > 0. */
  log: unary(
    "f32",
    (w) => `  let bits = bitcast<${w.U}>(x);
  // A subnormal is its bits times 2^-149.
  let subnormal = bits < ${w.U}(0x00800000u);
  let scaled = select(bits, bitcast<${w.U}>(${w.F}(bits)), subnormal);
  // x = 2^e·m with √½ ≤ m < √2.
  let e = bitcast<${w.I}>(scaled - ${w.U}(0x3f3504f3u)) >> ${w.U}(23u);
  let m = bitcast<${w.F}>(bitcast<${w.I}>(scaled) - (e << ${w.U}(23u)));
  let exponent = ${w.F}(e) - select(${w.F}(), ${w.F}(149.0), subnormal);
  let f = m - 1.0;
  let square = f * f;
  let tail = ${poly(
    w,
    "f",
    [
      0.0674919, -0.11670025, 0.118835375, -0.1240624, 0.1422036, -0.16667989, 0.20002072,
      -0.2500001, 0.33333313,
    ],
  )};
  let low = fma(exponent, ${w.F}(-0.00021219444005469057), square * f * tail);
  let y = fma(exponent, ${w.F}(0.693359375), f + fma(${w.F}(-0.5), square, low));
  // ∞ and NaN are their own logarithms.
  let negative = select(x, ${w.F}(${w.use("nan", 1)}()), (bits >> ${w.U}(31u)) == ${w.U}(1u));
  let special = select(negative, ${w.F}(-${w.use("inf", 1)}()), (bits << ${w.U}(1u)) == ${w.U}(0u));
  return select(y, special, (bits - ${w.U}(1u)) >= ${w.U}(0x7f7fffffu));`,
  ),
  /** ≤ 2 ulp. */
  tanh: unary(
    "f32",
    (w) => `  let a = min(abs(x), ${w.F}(9.25));
  let z = a * a;
  let tail = ${poly(w, "z", [-0.005692296, 0.020628167, -0.053736515, 0.13331406, -0.3333328])};
  let small = fma(a * z, tail, a);
  let large = 1.0 - 2.0 / (${w.use("expNormal")}(a + a) + 1.0);
  let y = ${w.use("copySign")}(select(large, small, a < ${w.F}(0.625)), x);
  return select(y, x, ${w.use("isNan")}(x));`,
  ),
  /** e^x for -87 ≤ x ≤ 88. */
  expNormal: unary("f32", (w) => `${reduceExp(w, "x")}\n  return e * ${power2(w, `${w.I}(n)`)};`),
  /** ≤ 2 ulp. Above 0.93 as 1 - 2^-v with v = -log2 erfc a as a polynomial. */
  erf: unary(
    "f32",
    (w) => `  let a = min(abs(x), ${w.F}(4.0)); // erf 4 rounds to 1
  let z = a * a;
  let series = ${poly(
    w,
    "z",
    [-0.00059595786, 0.004987352, -0.026762966, 0.11281731, -0.3761249, 0.12837915],
  )};
  let small = a * (1.0 + series);
  let v = a * ${poly(
    w,
    "a",
    [-0.0003095996, 0.0046454747, -0.033046514, 0.15189697, 0.9171202, 1.6281102],
  )};
  let n = round(v);
  let f = n - v;
  let root = ${poly(
    w,
    "f",
    [0.001340233, 0.0096794935, 0.05550277, 0.24021985, 0.69314724, 1.0000001],
  )};
  let large = fma(-root, ${power2(w, `-${w.I}(n)`)}, ${w.F}(1.0));
  let y = ${w.use("copySign")}(select(large, small, a < ${w.F}(0.93)), x);
  return select(y, x, ${w.use("isNan")}(x));`,
  ),
  /** Truncated, saturated at the 32-bit range, NaN to 0. */
  toInt: {
    of: "f32",
    make: (w) => `fn ${w.id}(x: ${w.F}) -> ${w.I} {
  let top = select(${w.I}(x), ${w.I}(2147483647), x >= ${w.F}(2147483648.0));
  return select(top, ${w.I}(), ${w.use("isNan")}(x));
}
`,
  },
  toUnsigned: {
    of: "f32",
    make: (w) => `fn ${w.id}(x: ${w.F}) -> ${w.U} {
  let top = select(${w.U}(x), ${w.U}(4294967295u), x >= ${w.F}(4294967296.0));
  return select(top, ${w.U}(), ${w.use("isNan")}(x));
}
`,
  },
  /** Not ±0; NaN is true. */
  isTrue: {
    of: "f32",
    make: (w) => `fn ${w.id}(x: ${w.F}) -> ${w.B} {
  return (bitcast<${w.U}>(x) << ${w.U}(1u)) != ${w.U}();
}
`,
  },
  /** Whether (value, index) is better than the best so far: larger, or as large and earlier; NaN is largest. */
  wins: {
    of: "f32",
    make: (w) => `fn ${w.id}(x: ${w.F}, at: ${w.I}, best: ${w.F}, best_at: ${w.I}) -> ${w.B} {
  let x_nan = ${w.use("isNan")}(x);
  let best_nan = ${w.use("isNan")}(best);
  let larger = (!best_nan) & (x_nan | (x > best));
  let equal = (x_nan & best_nan) | (x == best);
  return larger | (equal & (at < best_at));
}
`,
  },
} satisfies Helpers;

const helpers: { readonly [N in HelperName]: Helper } = {
  ...floatMakers,
  ...integerMakers,
  ...halfMakers,
  ...trigMakers,
  ...powerMakers,
};

/** Names that helpers may have in a shader. */
export const isHelperName = (name: string): boolean =>
  name in helpers || /_(f32|i32|u32|bool|vec[234](f|i|u|bool))$/.test(name);

/** Scalars need no conversion of what is a scalar already. */
const plain = (text: string): string =>
  text
    .replace(/\bf32\((-?\d*\.\d+(?:e-?\d+)?|-?\d+e-?\d+|-?\w+\(\))\)/g, "$1")
    .replace(/\bu32\((\w+u)\)/g, "$1")
    .replace(/\bi32\((-?\d+)\)/g, "$1");

/** A helper's name in the shader, and its text, for a width. */
export function helperText(
  name: HelperName,
  width: number,
  use: (name: HelperName, width: number) => string,
  target: GpuTarget,
): { id: string; text: () => string } {
  const { of, make } = helpers[name];
  const id = of === null ? name : `${name}_${typeName(of, width).replace(/\W/g, "")}`;
  const w: Writer = {
    id,
    width,
    F: typeName("f32", width),
    I: typeName("i32", width),
    U: typeName("u32", width),
    B: typeName("bool", width),
    use: (other, other_width = width) => use(other, other_width),
    f16: target.f16,
  };
  return { id, text: () => (width === 1 ? plain(make(w)) : make(w)) };
}
