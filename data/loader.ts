/**
 * @file DataLoader: batches of a dataset, epoch after epoch. It decides when batches are made (ahead of their use, perhaps in
 * worker threads) and keeps the place, so that a run can be resumed in the middle of an epoch. The order is the
 * sampler's, what a batch looks like the collation's.
 */
import { ArgumentError, describe } from "../core/errors.ts";
import type { DeviceName } from "../core/index.ts";
import { type Collated, defaultCollate, toTensors } from "./collate.ts";
import type { Dataset, Streamed } from "./dataset.ts";
import { WorkerPool } from "./pool.ts";
import { fetchSamples, type Pass, passBatches } from "./produce.ts";
import type { RandomKey } from "./random.ts";
import { BatchSampler, RandomSampler, type Sampler, SequentialSampler } from "./sampler.ts";
import { keyOf, type SeedOptions } from "./seed.ts";
import type { WorkerRequest } from "./worker.ts";

/** `seed` and `generator` decide the shuffling and what samples draw (`context.random`). */
export interface DataLoaderOptions<S, B> extends SeedOptions {
  /** Samples per batch; 1 unless given, as in PyTorch. */
  readonly batchSize?: number;
  /** Another order each epoch. */
  readonly shuffle?: boolean;
  /** Which samples, in which order: instead of `shuffle`. */
  readonly sampler?: Sampler;
  /** Which batches: instead of `batchSize`, `shuffle`, `sampler` and `dropLast`. */
  readonly batchSampler?: Sampler<number[]>;
  /** Whether a last batch of fewer samples is left out. */
  readonly dropLast?: boolean;
  /** Samples to a batch, on the main thread; `defaultCollate` unless given. */
  readonly collate?: (samples: S[]) => B | Promise<B>;
  /** Where the default collation puts its tensors. */
  readonly device?: DeviceName;
  /** Threads that make batches (Node); 0 unless given. */
  readonly numWorkers?: number;
  /**
   * The dataset's module, for worker threads: `new URL("./my-dataset.ts", import.meta.url)`. Its default export is the
   * dataset, or a function that makes one of `workerData`. An export named `collate` makes the batches, in the
   * thread; else they are stacked there as `defaultCollate` does, unless the option `collate` asks for the samples.
   */
  readonly worker?: URL | string;
  readonly workerData?: unknown;
  /** Batches that are made ahead of the one in use; 2 per worker unless given, 0 without workers. */
  readonly prefetch?: number;
}

/** A loader's place: as JSON it can be kept with a checkpoint. */
export type DataLoaderState = {
  version: 1;
  /** The epoch, and how many of its batches were delivered. */
  epoch: number;
  batch: number;
  key: number[];
  samplerKey: number[] | null;
  /** What the place is counted in: samples of the dataset (null if iterable) and batches of an epoch or their size. */
  samples: number | null;
  unit: number;
};

/** What makes an epoch's batches; `next` may be called again before the last call's batch has come. */
interface Producer {
  next(): Promise<{ done: boolean; batch?: unknown }>;
  /** Whether the process should wait for it. */
  hold?(on: boolean): void;
  close(): Promise<void>;
}

/**
 * Batches as an async iterable: each `for await` is one epoch. Leaving it early ends its threads, and the next one is
 * another epoch, as in PyTorch. An error of the dataset is thrown where its batch would have come, after those before it.
 *
 *     const loader = new DataLoader(dataset, { batchSize: 32, shuffle: true, seed: 0 });
 *     for (let epoch = 0; epoch < 3; epoch++)
 *       for await (const [x, y] of loader) await step(x, y);
 */
export class DataLoader<S, B = Collated<S>> implements AsyncIterable<B> {
  readonly dataset: Dataset<S> | Streamed<S>;
  readonly batchSize: number;
  readonly #options: DataLoaderOptions<S, B>;
  /** None for an iterable dataset, which has its own order. */
  readonly #batches: Sampler<number[]> | undefined;
  readonly #workers: number;
  readonly #prefetch: number;
  #key: RandomKey;
  #place = { epoch: 0, batch: 0 };
  /** Where the next iteration begins. */
  #next = { epoch: 0, batch: 0 };

  constructor(dataset: Dataset<S> | Streamed<S>, options: DataLoaderOptions<S, B> = {}) {
    const { batchSize = 1, numWorkers = 0, worker } = options;
    this.dataset = dataset;
    this.batchSize = count("batchSize", batchSize, 1);
    this.#workers = count("numWorkers", numWorkers, 0);
    this.#prefetch = count("prefetch", options.prefetch ?? 2 * numWorkers, 0);
    this.#options = options;
    if (numWorkers > 0 && worker === undefined)
      refuse(
        "worker: the URL of the dataset's module",
        `numWorkers: ${numWorkers} without`,
        "objects with functions cannot cross threads",
      );
    this.#key = keyOf(options);
    this.#batches = this.#samplerOf(dataset);
  }

  /** Batches per epoch; undefined for an iterable dataset. */
  get length(): number | undefined {
    return this.#batches?.length;
  }

  /** The place after the batch that was delivered last: what is resumed there is exactly the rest. */
  state(): DataLoaderState {
    const { key, ...shape } = { ...this.#shape(), key: [...this.#key] };
    const samplerKey = this.#batches?.key ? [...this.#batches.key] : null;
    return { version: 1, ...this.#place, key, samplerKey, ...shape };
  }

  /** Makes the next iteration go on at a place that a loader of the same options was at. */
  load(state: DataLoaderState): void {
    const { samples, unit } = this.#shape();
    const { version, epoch, batch, key, samplerKey } = state;
    if (version !== 1 || samples !== state.samples || unit !== state.unit)
      refuse(
        `the state of a loader of ${samples ?? "any number of"} samples, ${unit} a unit`,
        JSON.stringify(state),
      );
    const keys = [epoch, batch, ...key, ...(samplerKey ?? [])];
    if (!keys.every((n) => Number.isSafeInteger(n) && n >= 0))
      refuse("a state of non-negative integers", JSON.stringify(state));
    this.#key = key;
    if (samplerKey && this.#batches) this.#batches.key = samplerKey;
    this.#place = { epoch, batch };
    this.#next = { epoch, batch };
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<B> {
    const { epoch, batch: first } = this.#next;
    this.#next = { epoch: epoch + 1, batch: 0 };
    this.#place = { epoch, batch: first };
    const producer = this.#produce(epoch, first);
    const ahead: ReturnType<Producer["next"]>[] = [];
    const fill = (most: number) => {
      while (ahead.length < most) {
        const made = producer.next();
        // Thrown when it is its turn.
        made.catch(() => {});
        ahead.push(made);
      }
    };
    try {
      for (let delivered = first; ; ) {
        // The one that is wanted, and those that may be made meanwhile and while it is used.
        fill(1 + this.#prefetch);
        producer.hold?.(true);
        const { done, batch } = await ahead.shift()!.finally(() => producer.hold?.(false));
        if (done) break;
        this.#place = { epoch, batch: ++delivered };
        yield batch as B;
      }
      this.#place = this.#next = { epoch: epoch + 1, batch: 0 };
    } finally {
      await producer.close();
    }
  }

  #samplerOf(dataset: Dataset<S> | Streamed<S>): Sampler<number[]> | undefined {
    const { batchSampler, sampler, shuffle, dropLast } = this.#options;
    if (!("get" in dataset)) {
      if (batchSampler || sampler || shuffle)
        refuse("an iterable dataset without sampler and shuffle", "one", "it has its own order");
      if (this.#workers > 1)
        refuse("numWorkers: 0 or 1 for an iterable dataset", `${this.#workers}`);
      return undefined;
    }
    if (batchSampler) {
      if (sampler || shuffle || dropLast || this.#options.batchSize !== undefined)
        refuse("batchSampler without batchSize, shuffle, sampler and dropLast", "both");
      return batchSampler;
    }
    if (sampler && shuffle) refuse("a sampler, or shuffle", "both");
    const order =
      sampler ?? (shuffle ? random(dataset.length, this.#key) : new SequentialSampler(dataset));
    return new BatchSampler(order, this.batchSize, { dropLast });
  }

  #shape() {
    const samples = "get" in this.dataset ? this.dataset.length : null;
    return { samples, unit: this.#batches?.length ?? this.batchSize };
  }

  #produce(epoch: number, first: number): Producer {
    const { dataset, batchSize } = this;
    const { dropLast = false } = this.#options;
    const pass: Pass = { key: [...this.#key], epoch };
    const context = { key: [...pass.key, epoch], epoch, skip: first * batchSize };
    const pool = this.#workers > 0 ? this.#startWorkers() : undefined;
    const batches = this.#batches?.iterate(epoch)[Symbol.iterator]();
    for (let i = 0; i < first; i++) batches?.next();
    let asked = 0;
    if (pool) {
      if (!batches) pool.ask(0, { begin: context, batchSize, dropLast }).catch(() => {});
      const request = (): WorkerRequest | undefined => {
        if (!batches) return null;
        const { done, value } = batches.next();
        return done ? undefined : { indices: value, pass };
      };
      const next = async () => {
        const wanted = request();
        if (wanted === undefined) return { done: true };
        const made = await pool.ask(asked++ % this.#workers, wanted);
        return made === undefined
          ? { done: true }
          : { done: false, batch: await this.#fromWorker(made) };
      };
      return { next, hold: (on) => pool.hold(on), close: () => pool.close() };
    }
    if (batches && "get" in dataset) {
      const next = async () => {
        const { done, value } = batches.next();
        if (done) return { done: true };
        if (dataset.batch && !this.#options.collate)
          return { done: false, batch: await dataset.batch(value) };
        return {
          done: false,
          batch: await this.#collate(await fetchSamples(dataset, value, pass)),
        };
      };
      return { next, close: async () => {} };
    }
    const lists = passBatches(dataset as Streamed<S>, context, batchSize, dropLast);
    const next = async () => {
      const { done, value } = await lists.next();
      return done ? { done } : { done: false, batch: await this.#collate(value) };
    };
    const close = async () => void (await lists.return(undefined));
    return { next, close };
  }

  #startWorkers(): WorkerPool {
    const { worker, workerData: data, collate } = this.#options;
    const length = "get" in this.dataset ? this.dataset.length : null;
    return new WorkerPool(this.#workers, `${worker}`, { data, raw: collate !== undefined, length });
  }

  #collate(samples: S[]): unknown {
    const { collate, device } = this.#options;
    return collate ? collate(samples) : defaultCollate(samples, { device });
  }

  #fromWorker(made: unknown): unknown {
    const { collate, device } = this.#options;
    return collate ? collate(made as S[]) : toTensors(made, { device });
  }
}

/** The sampler of `shuffle`, by the loader's own key. */
function random(length: number, key: RandomKey): RandomSampler {
  const sampler = new RandomSampler(length, { seed: 0 });
  sampler.key = key;
  return sampler;
}

function count(name: string, value: number, least: number): number {
  if (Number.isInteger(value) && value >= least) return value;
  return refuse(`${name}: an integer ≥ ${least}`, String(value));
}

function refuse(expected: string, got: string, hint?: string): never {
  throw new ArgumentError(describe("DataLoader", expected, got, hint));
}
