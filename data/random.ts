/**
 * @file Random numbers on the host, counter-based as the device's (core/random.ts): a draw is a function of a key and of how
 * many came before it. A key is a seed and what it is for (an epoch, a purpose, a sample's index), so an order can be
 * made again at any place without replaying what was drawn elsewhere, and is the same on every machine.
 */
import { threefry2x32 } from "../core/math.ts";

/** What random draws are named by: non-negative integers below 2⁵³. */
export type RandomKey = readonly number[];

/** Uniform numbers in [0, 1), multiples of 2⁻⁵³: each call of the result is the next one. */
export function uniforms(...key: number[]): () => number {
  let [k0, k1] = [0x9e3779b9, key.length];
  // Each part makes a new key from the one before (fold_in of jax.random).
  for (const part of key) {
    const [low, high] = [part >>> 0, Math.floor(part / 2 ** 32)];
    [k0, k1] = [threefry2x32(k0, k1, low, high), threefry2x32(k1, k0, high, ~low)];
  }
  let count = 0;
  const word = () => threefry2x32(k0, k1, count >>> 0, Math.floor(count++ / 2 ** 32));
  return () => ((word() >>> 5) * 2 ** 26 + (word() >>> 6)) * 2 ** -53;
}

/** 0 … count − 1 in a random order (Fisher and Yates, from the end). */
export function permutation(count: number, random: () => number): Uint32Array {
  const order = new Uint32Array(count).map((_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
