/**
 * @file 16-bit floats. In registers they are f32 that are exactly halves: rounding happens where a value becomes a half,
 * storing and loading only move bits. Rounding is to the nearest, ties to even, subnormals included.
 */
import type { Helpers } from "./wgsl-helper.ts";

export const halfMakers = {
  roundHalf: {
    of: "f32",
    make: (w) =>
      w.f16
        ? `fn ${w.id}(x: ${w.F}) -> ${w.F} {
  return ${w.F}(${w.width === 1 ? "f16" : `vec${w.width}h`}(x));
}
`
        : `fn ${w.id}(x: ${w.F}) -> ${w.F} {
  let bits = bitcast<${w.U}>(x) & ${w.U}(0x7fffffffu);
  let even = (bits + ${w.U}(0xfffu) + ((bits >> ${w.U}(13u)) & ${w.U}(1u))) & ${w.U}(0xffffe000u);
  let large = select(even, ${w.U}(0x7f800000u), even > ${w.U}(0x477fe000u));
  let kept = select(large, bits, bits >= ${w.U}(0x7f800000u));
  // Below 2^-14 multiples of 2^-24.
  let tiny = bitcast<${w.U}>(round(abs(x) * 16777216.0) * 5.960464477539063e-8);
  let sign = bitcast<${w.U}>(x) & ${w.U}(0x80000000u);
  return bitcast<${w.F}>(sign | select(kept, tiny, bits < ${w.U}(0x38800000u)));
}
`,
  },
  roundBrain: {
    of: "f32",
    make: (w) => `fn ${w.id}(x: ${w.F}) -> ${w.F} {
  let bits = bitcast<${w.U}>(x);
  let even = bits + ${w.U}(0x7fffu) + ((bits >> ${w.U}(16u)) & ${w.U}(1u));
  let kept = select(even, bits | ${w.U}(0x400000u), (bits & ${w.U}(0x7fffffffu)) > ${w.U}(0x7f800000u));
  return bitcast<${w.F}>(kept & ${w.U}(0xffff0000u));
}
`,
  },
  /** The f16 of 16 bits. */
  loadHalf: {
    of: "u32",
    make: (w) => `fn ${w.id}(half: ${w.U}) -> ${w.F} {
  let bits = half & ${w.U}(0x7fffu);
  let normal = (bits << ${w.U}(13u)) + ${w.U}(0x38000000u);
  let special = select(normal, (bits << ${w.U}(13u)) | ${w.U}(0x7f800000u), bits >= ${w.U}(0x7c00u));
  let tiny = bitcast<${w.U}>(${w.F}(bits) * 5.960464477539063e-8);
  let sign = (half & ${w.U}(0x8000u)) << ${w.U}(16u);
  return bitcast<${w.F}>(sign | select(special, tiny, bits < ${w.U}(0x400u)));
}
`,
  },
  /** The 16 bits of an f32 that is exactly an f16. */
  storeHalf: {
    of: "f32",
    make: (w) => `fn ${w.id}(x: ${w.F}) -> ${w.U} {
  let bits = bitcast<${w.U}>(x) & ${w.U}(0x7fffffffu);
  let normal = (bits - ${w.U}(0x38000000u)) >> ${w.U}(13u);
  let special = select(${w.U}(0x7c00u), ${w.U}(0x7e00u), bits > ${w.U}(0x7f800000u));
  let regular = select(normal, special, bits >= ${w.U}(0x7f800000u));
  let tiny = ${w.U}(abs(x) * 16777216.0);
  let sign = (bitcast<${w.U}>(x) >> ${w.U}(16u)) & ${w.U}(0x8000u);
  return sign | select(regular, tiny, bits < ${w.U}(0x38800000u));
}
`,
  },
  loadHalves: {
    of: null,
    make: (w) => `fn ${w.id}(pair: vec2u) -> vec4f {
  return ${w.use("loadHalf", 4)}(vec4u(pair.x, pair.x >> 16u, pair.y, pair.y >> 16u));
}
`,
  },
  storeHalves: {
    of: null,
    make: (w) => `fn ${w.id}(x: vec4f) -> vec2u {
  let halves = ${w.use("storeHalf", 4)}(x);
  return halves.xz | (halves.yw << vec2u(16u));
}
`,
  },
  loadBrains: {
    of: null,
    make: (w) => `fn ${w.id}(pair: vec2u) -> vec4f {
  let words = vec4u(pair.x << 16u, pair.x, pair.y << 16u, pair.y);
  return bitcast<vec4f>(words & vec4u(0xffff0000u));
}
`,
  },
  storeBrains: {
    of: null,
    make: (w) => `fn ${w.id}(x: vec4f) -> vec2u {
  let words = bitcast<vec4u>(x);
  return (words.xz >> vec2u(16u)) | (words.yw & vec2u(0xffff0000u));
}
`,
  },
} satisfies Helpers;
