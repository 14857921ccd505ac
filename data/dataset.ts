/**
 * @file Datasets: where samples come from. Map-style ones are asked for a sample by its position, iterable ones give them in
 * their own order. Which positions are asked for is the sampler's affair, how samples become a batch the collation's.
 */
import { ArgumentError, describe, ShapeError } from "../core/errors.ts";
import { indexSelect, type Tensor, tensor } from "../core/index.ts";
import { formatShape } from "../core/shape.ts";
import { permutation, uniforms } from "./random.ts";
import { keyOf, type SeedOptions } from "./seed.ts";

/** Where a sample stands in training. */
export interface SampleContext {
  /** Counted from 0. */
  readonly epoch: number;
  /**
   * Uniform in [0, 1), the next one at each call: for augmentation. A function of the loader's seed, the epoch and the
   * sample's index, so it does not depend on the number of workers or on where a run was resumed.
   */
  readonly random: () => number;
}

/** Samples by position, as `torch.utils.data.Dataset`. Extend it, or pass any object with these two members. */
export abstract class Dataset<S> {
  /** The number of samples. */
  abstract readonly length: number;
  /** Sample `index`, 0 ≤ index < length, at once or as a promise. */
  abstract get(index: number, context?: SampleContext): S | Promise<S>;
  /**
   * The samples at these positions as one batch, where that is cheaper than one by one. A loader that is given no
   * `collate` uses it.
   */
  batch?(indices: readonly number[]): unknown;
}

/** Where a pass over an iterable dataset begins. */
export interface PassContext {
  readonly epoch: number;
  /** What the loader's seed and the epoch make of shuffling. */
  readonly key: readonly number[];
  /** How many samples to pass over, because a resumed run has had them. */
  readonly skip: number;
}

/** What a loader needs of an iterable dataset. */
export interface Streamed<S> {
  iterate(context: PassContext): Iterable<S> | AsyncIterable<S>;
}

/**
 * Samples in an order of their own, as `torch.utils.data.IterableDataset`: a stream, or more than fits anywhere. The same
 * context must give the same samples, or a resumed run would see others.
 */
export abstract class IterableDataset<S> implements Streamed<S> {
  abstract iterate(context: PassContext): Iterable<S> | AsyncIterable<S>;

  /** The first epoch, without a loader. */
  [Symbol.asyncIterator](): AsyncGenerator<S> {
    const samples = this.iterate({ epoch: 0, key: [0], skip: 0 });
    return (async function* () {
      yield* samples;
    })();
  }
}

/** Rows of tensors: sample i is row i of each, `tensors.map((t) => t.select(0, i))`. */
export class TensorDataset extends Dataset<Tensor[]> {
  readonly tensors: readonly Tensor[];
  readonly length: number;

  /** Tensors `[N, …]` of one N. */
  constructor(...tensors: Tensor[]) {
    super();
    const [first] = tensors;
    if (!first || tensors.some((t) => t.shape.length === 0 || t.shape[0] !== first.shape[0]))
      throw new ShapeError(
        describe(
          "TensorDataset",
          "tensors of one first size",
          tensors.map((t) => formatShape(t.shape)).join(", ") || "none",
        ),
      );
    this.tensors = tensors;
    this.length = first.shape[0];
  }

  get(index: number): Tensor[] {
    return this.tensors.map((t) => t.select(0, index));
  }

  /** One gather per tensor; a stack of rows would be a kernel per row. */
  override batch(indices: readonly number[]): Tensor[] {
    return this.tensors.map((t) => {
      const rows = tensor(Int32Array.from(indices), { device: t.device });
      return indexSelect(t, 0, rows);
    });
  }
}

/** The samples of a dataset at some positions, in that order. */
export class Subset<S> extends Dataset<S> {
  readonly dataset: Dataset<S>;
  readonly indices: ArrayLike<number>;
  readonly length: number;
  override batch?: (indices: readonly number[]) => unknown;

  constructor(dataset: Dataset<S>, indices: ArrayLike<number>) {
    super();
    for (let i = 0; i < indices.length; i++) checkIndex("Subset", indices[i], dataset.length);
    this.dataset = dataset;
    this.indices = indices;
    this.length = indices.length;
    if (dataset.batch) this.batch = (at) => dataset.batch!(at.map((i) => indices[i]));
  }

  get(index: number, context?: SampleContext): S | Promise<S> {
    return this.dataset.get(this.indices[index], context);
  }
}

/** Datasets one after the other. */
export class ConcatDataset<S> extends Dataset<S> {
  readonly datasets: readonly Dataset<S>[];
  readonly length: number;
  /** Where each dataset ends. */
  readonly #ends: readonly number[];

  constructor(datasets: readonly Dataset<S>[]) {
    super();
    if (datasets.length === 0)
      throw new ArgumentError(describe("ConcatDataset", "at least one dataset", "none"));
    let end = 0;
    this.datasets = datasets;
    this.#ends = datasets.map((d) => (end += d.length));
    this.length = end;
  }

  get(index: number, context?: SampleContext): S | Promise<S> {
    checkIndex("ConcatDataset", index, this.length);
    const which = this.#ends.findIndex((end) => index < end);
    const dataset = this.datasets[which];
    return dataset.get(index - this.#ends[which] + dataset.length, context);
  }
}

/**
 * Disjoint random subsets that together are the dataset. `lengths` are sizes that sum to its length, or fractions that
 * sum to 1: then each part gets ⌊fraction·length⌋ samples, and what is left over goes to the first parts, one each, as
 * `torch.utils.data.random_split`.
 */
export function randomSplit<S>(
  dataset: Dataset<S>,
  lengths: readonly number[],
  options: SeedOptions = {},
): Subset<S>[] {
  const sizes = sizesOf(lengths, dataset.length);
  const order = permutation(dataset.length, uniforms(...keyOf(options)));
  let at = 0;
  return sizes.map((size) => new Subset(dataset, order.subarray(at, (at += size))));
}

function sizesOf(lengths: readonly number[], total: number): number[] {
  const sum = lengths.reduce((a, b) => a + b, 0);
  const natural = lengths.every((n) => Number.isInteger(n) && n >= 0);
  if (natural && sum === total) return [...lengths];
  if (!lengths.every((n) => n >= 0 && n <= 1) || !(Math.abs(sum - 1) < 1e-9))
    throw new ArgumentError(
      describe(
        "randomSplit",
        `lengths that sum to ${total}, or fractions that sum to 1`,
        `[${lengths.join(", ")}], which sum to ${sum}`,
      ),
    );
  const sizes = lengths.map((f) => Math.floor(f * total));
  let left = total - sizes.reduce((a, b) => a + b, 0);
  for (let i = 0; left > 0; i = (i + 1) % sizes.length, left--) sizes[i]++;
  return sizes;
}

/** Refuses what is no position. */
export function checkIndex(op: string, index: number, length: number): void {
  if (Number.isInteger(index) && index >= 0 && index < length) return;
  throw new ArgumentError(describe(op, `positions in 0 … ${length - 1}`, String(index)));
}
