/**
 * @file Samplers: which samples an epoch consists of, and in which order. An order is a function of the epoch's number, so
 * that a run can be resumed in the middle of one; what is random names its key.
 */
import { ArgumentError, describe } from "../core/errors.ts";
import { permutation, type RandomKey, uniforms } from "./random.ts";
import { keyOf, type SeedOptions } from "./seed.ts";

/** Positions, or whole batches of them, for each epoch. */
export interface Sampler<T = number> {
  /** How many an epoch has. */
  readonly length: number;
  /** Those of one epoch, counted from 0. */
  iterate(epoch: number): Iterable<T>;
  /** What randomness is drawn by; a loader saves it, and sets it when it resumes. */
  key?: RandomKey;
}

/** What samplers want to know: a dataset, or a number of samples. */
export type Sized = number | { readonly length: number };

/** 0 … length − 1. */
export class SequentialSampler implements Sampler {
  readonly length: number;

  constructor(source: Sized) {
    this.length = lengthOf("SequentialSampler", source);
  }

  *iterate(): Generator<number> {
    for (let i = 0; i < this.length; i++) yield i;
  }
}

export interface RandomSamplerOptions extends SeedOptions {
  /** Whether a sample may be drawn again before all others were; false unless given. */
  readonly replacement?: boolean;
  /** How many samples an epoch has; all unless given. Without replacement, more than all are several shuffles. */
  readonly numSamples?: number;
}

/** All samples in another order each epoch, or `numSamples` drawn with replacement. */
export class RandomSampler implements Sampler {
  readonly length: number;
  readonly replacement: boolean;
  key: RandomKey;
  readonly #count: number;

  constructor(source: Sized, options: RandomSamplerOptions = {}) {
    this.#count = lengthOf("RandomSampler", source);
    this.replacement = options.replacement ?? false;
    this.length = options.numSamples ?? this.#count;
    lengthOf("RandomSampler: numSamples", this.length);
    if (this.#count === 0 && this.length > 0)
      throw new ArgumentError(describe("RandomSampler", "samples to draw from", "none"));
    this.key = keyOf(options);
  }

  *iterate(epoch: number): Generator<number> {
    const random = uniforms(...this.key, epoch);
    if (this.replacement)
      for (let i = 0; i < this.length; i++) yield Math.floor(random() * this.#count);
    else
      for (let left = this.length; left > 0; left -= this.#count)
        yield* permutation(this.#count, random).subarray(0, left);
  }
}

/**
 * Positions drawn in proportion to weights (which need not sum to 1), as `torch.utils.data.WeightedRandomSampler`.
 * Without replacement each is drawn in proportion among those left (Efraimidis and Spirakis 2006: the largest u^(1/w)).
 */
export class WeightedRandomSampler implements Sampler {
  readonly length: number;
  readonly replacement: boolean;
  key: RandomKey;
  readonly #weights: Float64Array;

  constructor(
    weights: ArrayLike<number>,
    numSamples: number,
    { replacement = true, ...seed }: SeedOptions & { readonly replacement?: boolean } = {},
  ) {
    const op = "WeightedRandomSampler";
    this.#weights = Float64Array.from(weights);
    if (!this.#weights.every((w) => w >= 0 && w < Infinity))
      throw new ArgumentError(describe(op, "finite weights ≥ 0", "another"));
    this.length = lengthOf(`${op}: numSamples`, numSamples);
    this.replacement = replacement;
    const possible = this.#weights.filter((w) => w > 0).length;
    const least = replacement ? Math.min(1, numSamples) : numSamples;
    if (possible < least)
      throw new ArgumentError(
        describe(op, `${least} weights above 0`, `${possible}`, "or draw with replacement"),
      );
    this.key = keyOf(seed);
  }

  *iterate(epoch: number): Generator<number> {
    const random = uniforms(...this.key, epoch);
    const weights = this.#weights;
    if (!this.replacement) {
      // log u / w instead of u^(1/w), which underflows; 1 − u is never 0.
      const rank = weights.map((w) => (w > 0 ? Math.log(1 - random()) / w : -Infinity));
      const order = new Uint32Array(weights.length).map((_, i) => i);
      yield* order.sort((a, b) => rank[b] - rank[a] || a - b).subarray(0, this.length);
      return;
    }
    let sum = 0;
    const running = weights.map((w) => (sum += w));
    for (let i = 0; i < this.length; i++) {
      const target = random() * sum;
      // The first whose running sum is beyond the target: never one of weight 0.
      let [low, high] = [0, running.length - 1];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (running[middle] > target) high = middle;
        else low = middle + 1;
      }
      yield low;
    }
  }
}

/** Batches of another sampler's positions, in its order. */
export class BatchSampler implements Sampler<number[]> {
  readonly sampler: Sampler;
  readonly batchSize: number;
  readonly dropLast: boolean;

  constructor(sampler: Sampler, batchSize: number, { dropLast = false } = {}) {
    if (!(Number.isInteger(batchSize) && batchSize > 0))
      throw new ArgumentError(
        describe("BatchSampler", "batchSize: an integer ≥ 1", `${batchSize}`),
      );
    this.sampler = sampler;
    this.batchSize = batchSize;
    this.dropLast = dropLast;
  }

  get length(): number {
    const batches = this.sampler.length / this.batchSize;
    return this.dropLast ? Math.floor(batches) : Math.ceil(batches);
  }

  get key(): RandomKey | undefined {
    return this.sampler.key;
  }
  set key(key: RandomKey | undefined) {
    this.sampler.key = key;
  }

  *iterate(epoch: number): Generator<number[]> {
    let batch: number[] = [];
    for (const index of this.sampler.iterate(epoch)) {
      batch.push(index);
      if (batch.length < this.batchSize) continue;
      yield batch;
      batch = [];
    }
    if (batch.length > 0 && !this.dropLast) yield batch;
  }
}

export interface ShardedSamplerOptions {
  /** This process, 0 ≤ rank < worldSize. */
  readonly rank: number;
  readonly worldSize: number;
  /** True unless given, as in PyTorch. */
  readonly shuffle?: boolean;
  /** The same in all processes; 0 unless given. */
  readonly seed?: number;
  /** Whether samples that cannot be dealt out evenly are left out; else the first ones are dealt out again. */
  readonly dropLast?: boolean;
}

/**
 * Every `worldSize`-th position from `rank` on, after a shuffle that all processes share: each sees its own part of the
 * epoch, all of one size (`torch.utils.data.DistributedSampler`; the epoch's number comes from the loader).
 */
export class ShardedSampler implements Sampler {
  readonly length: number;
  key: RandomKey;
  readonly #count: number;
  readonly #options: Required<ShardedSamplerOptions>;

  constructor(source: Sized, options: ShardedSamplerOptions) {
    const { rank, worldSize } = options;
    const whole = Number.isInteger(rank) && Number.isInteger(worldSize);
    if (!whole || rank < 0 || rank >= worldSize)
      throw new ArgumentError(
        describe("ShardedSampler", "integers 0 ≤ rank < worldSize", `${rank}, ${worldSize}`),
      );
    this.#count = lengthOf("ShardedSampler", source);
    this.#options = { shuffle: true, seed: 0, dropLast: false, ...options };
    const share = this.#count / worldSize;
    this.length = this.#options.dropLast ? Math.floor(share) : Math.ceil(share);
    this.key = keyOf({ seed: this.#options.seed });
  }

  *iterate(epoch: number): Generator<number> {
    const { rank, worldSize, shuffle } = this.#options;
    const order = shuffle ? permutation(this.#count, uniforms(...this.key, epoch)) : undefined;
    for (let i = 0; i < this.length; i++) {
      const at = (i * worldSize + rank) % this.#count;
      yield order ? order[at] : at;
    }
  }
}

function lengthOf(op: string, source: Sized): number {
  const length = typeof source === "number" ? source : source.length;
  if (Number.isInteger(length) && length >= 0 && length <= 2 ** 32) return length;
  throw new ArgumentError(describe(op, "a number of samples", String(length)));
}
