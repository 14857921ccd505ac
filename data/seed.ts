/** @file From what a user says about randomness to the key that draws are named by (random.ts). */
import { ArgumentError, describe } from "../core/errors.ts";
import { defaultGenerator, type Generator } from "../core/index.ts";
import type { RandomKey } from "./random.ts";

/** What the samplers and splits take; `seed` wins. Without either, the default generator is drawn from. */
export interface SeedOptions {
  /** A non-negative integer up to 2⁵³ − 1: the same order wherever it is used. */
  readonly seed?: number;
  /** Drawn from once, which moves it on by one. */
  readonly generator?: Generator;
}

/** The key that the options name. */
export function keyOf({ seed, generator = defaultGenerator }: SeedOptions): RandomKey {
  if (seed !== undefined) return [checkSeed(seed)];
  const { seed: key, counter } = generator.state;
  generator.state = { seed: key, counter: counter + 1 };
  return [key, counter];
}

/** Refuses what no generator takes. */
function checkSeed(seed: number): number {
  if (Number.isSafeInteger(seed) && seed >= 0) return seed;
  throw new ArgumentError(describe("seed", "an integer in 0 … 2⁵³ − 1", String(seed)));
}
