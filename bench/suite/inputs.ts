/**
 * @file The numbers that the benchmarks compute with: from a hash of position and name, so that processes in JavaScript and
 * Python (../peers/pytorch.py) have the same bits without sending them to each other.
 */

export interface Input {
  readonly shape: readonly number[];
  readonly dtype: "f32" | "i32";
  /** Floats lie in [-scale, scale); integers in [0, scale). */
  readonly scale: number;
  /** Added to floats. */
  readonly shift?: number;
  /** Known before the work begins, as weights are: a runtime of fixed graphs may prepare it once. */
  readonly weight?: boolean;
}

/** FNV-1a of a name, 32 bits. */
export function seedOf(name: string): number {
  let h = 0x811c9dc5;
  for (const c of new TextEncoder().encode(name)) h = Math.imul(h ^ c, 0x01000193);
  return h >>> 0;
}

/** The values of the input called `name`: 24 bits of the finaliser of MurmurHash3, of seed + i·odd. */
export function valuesOf(
  name: string,
  input: Input,
): Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> {
  const size = input.shape.reduce((a, b) => a * b, 1);
  const floats = input.dtype === "f32";
  const out = floats ? new Float32Array(size) : new Int32Array(size);
  const seed = seedOf(name);
  const { scale, shift = 0 } = input;
  for (let i = 0; i < size; i++) {
    let h = (seed + Math.imul(i, 0x9e3779b1)) | 0;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    const uniform = ((h ^ (h >>> 16)) >>> 8) / 2 ** 24;
    out[i] = floats ? (2 * uniform - 1) * scale + shift : Math.floor(uniform * scale);
  }
  return out;
}

/** At most `count` values, evenly spaced: what processes compare. */
export function sampled(values: ArrayLike<number>, count = 2048): number[] {
  // Odd, so that no power of two as a row's length hides columns.
  const stride = Math.max(1, Math.ceil(values.length / count)) | 1;
  const out: number[] = [];
  for (let i = 0; i < values.length; i += stride) out.push(values[i]);
  return out;
}
