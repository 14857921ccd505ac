/**
 * @file The quantised blocks of GGUF files, as numbers. A block holds 32 or 256 neighbours of a row; each formula is the value
 * of one element, and says how its bits lie. All arithmetic is f32, as ggml's.
 *
 * Layouts: ggml, src/ggml-common.h and ggml-quants.c (MIT).
 */
import { bfloat16Value, halfValue } from "../../core/half.ts";

/** How a type is stored, and how a block of it becomes `elements` numbers. */
export interface BlockType {
  readonly elements: number;
  readonly bytes: number;
  readonly decode: (block: DataView, out: Float32Array) => void;
}

const fround = Math.fround;
const half = (b: DataView, at: number): number => halfValue(b.getUint16(at, true));
/** Elements 0 … 15 lie in the lower halves of 16 bytes, 16 … 31 in the upper ones. */
const nibble = (b: DataView, at: number, i: number): number =>
  (b.getUint8(at + (i & 15)) >> (i < 16 ? 0 : 4)) & 15;
const bit = (b: DataView, at: number, i: number): number => (b.getUint32(at, true) >>> i) & 1;

/** 32 elements: `scale·(code − zero)`, or `scale·code + least`. */
function simple(bytes: number, value: (b: DataView, i: number) => number): BlockType {
  const decode = (b: DataView, out: Float32Array) => {
    for (let i = 0; i < 32; i++) out[i] = value(b, i);
  };
  return { elements: 32, bytes, decode };
}

/** 256 elements. */
const large = (bytes: number, decode: BlockType["decode"]): BlockType => ({
  elements: 256,
  bytes,
  decode,
});

const one = (bytes: number, value: (b: DataView) => number): BlockType => ({
  elements: 1,
  bytes,
  decode: (b, out) => {
    out[0] = value(b);
  },
});

/**
 * The eight scales and minima of 6 bits in 12 bytes: the first four of each in the lower six bits of bytes 0 … 3 and 4 … 7; of
 * the others the lower four bits in bytes 8 … 11 (scale, minimum), the upper two on top of the first eight bytes.
 */
function sixBits(b: DataView, at: number, j: number): [scale: number, least: number] {
  const byte = (i: number) => b.getUint8(at + i);
  if (j < 4) return [byte(j) & 63, byte(j + 4) & 63];
  return [
    (byte(j + 4) & 15) | ((byte(j - 4) >> 6) << 4),
    (byte(j + 4) >> 4) | ((byte(j) >> 6) << 4),
  ];
}

/** Q4_K and Q5_K: eight groups of 32 with a scale and a minimum; pairs of groups share 32 bytes of nibbles. */
function grouped(codes: number, high: number | undefined): BlockType["decode"] {
  return (b, out) => {
    const [d, least] = [half(b, 0), half(b, 2)];
    for (let j = 0; j < 8; j++) {
      const [scale, minimum] = sixBits(b, 4, j);
      const [dl, ml] = [fround(d * scale), fround(least * minimum)];
      for (let i = 0; i < 32; i++) {
        const low = (b.getUint8(codes + 32 * (j >> 1) + i) >> (4 * (j & 1))) & 15;
        const top = high === undefined ? 0 : ((b.getUint8(high + i) >> j) & 1) << 4;
        out[32 * j + i] = fround(dl * (low | top)) - ml;
      }
    }
  };
}

/** By ggml's number of the type. */
export const blockTypes: Readonly<Record<number, readonly [name: string, type: BlockType]>> = {
  0: ["F32", one(4, (b) => b.getFloat32(0, true))],
  1: ["F16", one(2, (b) => half(b, 0))],
  2: ["Q4_0", simple(18, (b, i) => half(b, 0) * (nibble(b, 2, i) - 8))],
  3: ["Q4_1", simple(20, (b, i) => fround(half(b, 0) * nibble(b, 4, i)) + half(b, 2))],
  6: ["Q5_0", simple(22, (b, i) => half(b, 0) * ((nibble(b, 6, i) | (bit(b, 2, i) << 4)) - 16))],
  7: [
    "Q5_1",
    simple(24, (b, i) => fround(half(b, 0) * (nibble(b, 8, i) | (bit(b, 4, i) << 4))) + half(b, 2)),
  ],
  8: ["Q8_0", simple(34, (b, i) => half(b, 0) * b.getInt8(2 + i))],
  10: [
    "Q2_K",
    // 16 bytes of scale (low) and minimum (high), 64 of codes, d, dmin. Groups of 16; 128 elements share 32 bytes.
    large(84, (b, out) => {
      const [d, least] = [half(b, 80), half(b, 82)];
      for (let i = 0; i < 256; i++) {
        const scales = b.getUint8(i >> 4);
        const code = (b.getUint8(16 + 32 * (i >> 7) + (i & 31)) >> (2 * ((i >> 5) & 3))) & 3;
        out[i] = fround(fround(d * (scales & 15)) * code) - fround(least * (scales >> 4));
      }
    }),
  ],
  11: [
    "Q3_K",
    // 32 bytes with the codes' third bits (set: nothing to subtract), 64 of lower bits, 12 of scales, d.
    large(110, (b, out) => {
      const d = half(b, 108);
      for (let i = 0; i < 256; i++) {
        const group = i >> 4;
        const low = (b.getUint8(96 + (group & 7)) >> (group < 8 ? 0 : 4)) & 15;
        const high = (b.getUint8(104 + (group & 3)) >> (2 * (group >> 2))) & 3;
        const scale = fround(d * ((low | (high << 4)) - 32));
        const code = (b.getUint8(32 + 32 * (i >> 7) + (i & 31)) >> (2 * ((i >> 5) & 3))) & 3;
        const set = (b.getUint8(i & 31) >> (i >> 5)) & 1;
        out[i] = scale * (code - (set ? 0 : 4));
      }
    }),
  ],
  // d, dmin, 12 bytes of scales, (Q5_K: 32 of fifth bits,) 128 of nibbles.
  12: ["Q4_K", large(144, grouped(16, undefined))],
  13: ["Q5_K", large(176, grouped(48, 16))],
  14: [
    "Q6_K",
    // 128 bytes of nibbles, 64 of upper bits, 16 scales, d. Of each 128 elements, 64 bytes hold two halves of nibbles.
    large(210, (b, out) => {
      const d = half(b, 208);
      for (let i = 0; i < 256; i++) {
        const [part, inside] = [i >> 7, i & 127];
        const low = (b.getUint8(64 * part + (inside & 63)) >> (inside < 64 ? 0 : 4)) & 15;
        const high = (b.getUint8(128 + 32 * part + (inside & 31)) >> (2 * (inside >> 5))) & 3;
        out[i] = fround(d * b.getInt8(192 + (i >> 4))) * ((low | (high << 4)) - 32);
      }
    }),
  ],
  30: ["BF16", one(2, (b) => bfloat16Value(b.getUint16(0, true)))],
};

/** All elements of a tensor's bytes. */
export function dequantize({ elements, bytes, decode }: BlockType, data: Uint8Array): Float32Array {
  const count = data.length / bytes;
  const out = new Float32Array(count * elements);
  for (let i = 0; i < count; i++)
    decode(
      new DataView(data.buffer, data.byteOffset + i * bytes, bytes),
      out.subarray(i * elements, (i + 1) * elements),
    );
  return out;
}
