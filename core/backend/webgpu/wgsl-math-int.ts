/** @file Integers: division with our meaning for zero, floored index arithmetic, bytes in words, and random bits. */
import type { Helpers, Writer } from "./wgsl-helper.ts";

const rotations = [13, 15, 26, 6, 17, 29, 16, 24];

function threefry(w: Writer): string {
  const lines: string[] = [];
  for (let round = 0; round < 20; round++) {
    lines.push(`a += b; b = rotate_left(b, ${rotations[round % 8]}u) ^ a;`);
    if (round % 4 !== 3) continue;
    const s = (round + 1) / 4;
    const keys = ["k0", "k1", "k2"];
    lines.push(`a += ${keys[s % 3]}; b += ${keys[(s + 1) % 3]} + ${s}u;`);
  }
  const rotate = w.use("rotateLeft");
  return `// First word of Threefry-2x32 with 20 rounds (Salmon et al. 2011).
fn ${w.id}(k0: ${w.U}, k1: ${w.U}, c0: ${w.U}, c1: ${w.U}) -> ${w.U} {
  let k2 = k0 ^ k1 ^ ${w.U}(0x1bd11bdau);
  var a = c0 + k0;
  var b = c1 + k1;
  ${lines.join("\n  ").replaceAll("rotate_left", rotate)}
  return a;
}
`;
}

const wins = (scalar: "I" | "U") => ({
  make: (
    w: Writer,
  ): string => `fn ${w.id}(x: ${w[scalar]}, at: ${w.I}, best: ${w[scalar]}, best_at: ${w.I}) -> ${w.B} {
  return (x > best) | ((x == best) & (at < best_at));
}
`,
});

const quotient = (scalar: "I" | "U") => ({
  make: (w: Writer): string => `fn ${w.id}(x: ${w[scalar]}, y: ${w[scalar]}) -> ${w[scalar]} {
  return select(x / y, ${w[scalar]}(), y == ${w[scalar]}()); // x / 0 = 0
}
`,
});

export const integerMakers = {
  divide: { of: "i32", ...quotient("I") },
  divideUnsigned: { of: "u32", ...quotient("U") },
  winsInt: { of: "i32", ...wins("I") },
  winsUnsigned: { of: "u32", ...wins("U") },
  floorMod: {
    of: null,
    make: (w) => `fn ${w.id}(x: i32, by: i32) -> i32 {
  let rest = x % by;
  return select(rest, rest + by, rest < 0);
}
`,
  },
  floorDiv: {
    of: null,
    make: (w) => `fn ${w.id}(x: i32, by: i32) -> i32 {
  return (x - ${w.use("floorMod")}(x, by)) / by;
}
`,
  },
  rotateLeft: {
    of: "u32",
    make: (w) => `fn ${w.id}(x: ${w.U}, by: u32) -> ${w.U} {
  return (x << ${w.U}(by)) | (x >> ${w.U}(32u - by));
}
`,
  },
  threefry: { of: "u32", make: threefry },
  /** The upper word of a product. */
  mulHigh: {
    of: null,
    make: (w) => `fn ${w.id}(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let cross = (a >> 16u) * (b & 0xffffu);
  let other = (a & 0xffffu) * (b >> 16u);
  let carry = ((low >> 16u) + (cross & 0xffffu) + (other & 0xffffu)) >> 16u;
  return (a >> 16u) * (b >> 16u) + (cross >> 16u) + (other >> 16u) + carry;
}
`,
  },
  signByte: {
    of: null,
    make: (w) => `fn ${w.id}(word: u32) -> i32 {
  return extractBits(bitcast<i32>(word), 0u, 8u);
}
`,
  },
  loadBytes: {
    of: null,
    make: (w) => `fn ${w.id}(word: u32) -> vec4u {
  return (vec4u(word) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u);
}
`,
  },
  loadSigned: {
    of: null,
    make: (w) => `fn ${w.id}(word: u32) -> vec4i {
  return (vec4i(bitcast<i32>(word)) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u);
}
`,
  },
  loadBools: {
    of: null,
    make: (w) => `fn ${w.id}(word: u32) -> vec4<bool> {
  return (vec4u(word) & vec4u(1u, 0x100u, 0x10000u, 0x1000000u)) != vec4u();
}
`,
  },
  storeBytes: {
    of: null,
    make: (w) => `fn ${w.id}(x: vec4u) -> u32 {
  return x.x | (x.y << 8u) | (x.z << 16u) | (x.w << 24u);
}
`,
  },
  storeSigned: {
    of: null,
    make: (w) => `fn ${w.id}(x: vec4i) -> u32 {
  return ${w.use("storeBytes")}(bitcast<vec4u>(x) & vec4u(255u));
}
`,
  },
  storeBools: {
    of: null,
    make: (w) => `fn ${w.id}(x: vec4<bool>) -> u32 {
  return ${w.use("storeBytes")}(vec4u(x));
}
`,
  },
} satisfies Helpers;
