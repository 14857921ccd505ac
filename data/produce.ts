/** @file From a dataset to lists of samples, on whichever thread: with what a sample may know of its place in training. */
import type { Dataset, PassContext, SampleContext, Streamed } from "./dataset.ts";
import { type RandomKey, uniforms } from "./random.ts";

/** An epoch of a loader: what samples' randomness is drawn by. */
export interface Pass {
  readonly key: RandomKey;
  readonly epoch: number;
}

/** The samples at these positions; asynchronous ones are fetched together. */
export async function fetchSamples<S>(
  dataset: Dataset<S>,
  indices: readonly number[],
  { key, epoch }: Pass,
): Promise<S[]> {
  const context = (index: number): SampleContext => {
    let draw: (() => number) | undefined;
    // Two parts more than a sampler's key, so that no two streams are the same.
    return { epoch, random: () => (draw ??= uniforms(...key, epoch, index, 0))() };
  };
  return Promise.all(indices.map((i) => dataset.get(i, context(i))));
}

/** An iterable dataset's samples in lists of `batchSize`. */
export async function* passBatches<S>(
  dataset: Streamed<S>,
  context: PassContext,
  batchSize: number,
  dropLast: boolean,
): AsyncGenerator<S[]> {
  let batch: S[] = [];
  for await (const sample of dataset.iterate(context)) {
    batch.push(sample);
    if (batch.length < batchSize) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0 && !dropLast) yield batch;
}
