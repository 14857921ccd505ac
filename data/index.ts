/** @file hinode/data: datasets, samplers, the loader, streams of tar shards and parquet, progress bars. */
export { type Collated, defaultCollate } from "./collate.ts";
export {
  ConcatDataset,
  Dataset,
  IterableDataset,
  type PassContext,
  randomSplit,
  type SampleContext,
  type Streamed,
  Subset,
  TensorDataset,
} from "./dataset.ts";
export { DataLoader, type DataLoaderOptions, type DataLoaderState } from "./loader.ts";
export {
  openParquet,
  type ParquetColumn,
  ParquetDataset,
  type ParquetFile,
  type ParquetOptions,
  parquetDataset,
} from "./parquet.ts";
export {
  Progress,
  type ProgressOptions,
  type ProgressOutput,
  progress,
  type Tracked,
} from "./progress.ts";
export {
  BatchSampler,
  RandomSampler,
  type RandomSamplerOptions,
  type Sampler,
  SequentialSampler,
  ShardedSampler,
  type ShardedSamplerOptions,
  type Sized,
  WeightedRandomSampler,
} from "./sampler.ts";
export type { SeedOptions } from "./seed.ts";
export type { HostArray, NumberArray } from "./stack.ts";
export type { ByteSource } from "./stream.ts";
export {
  type Decoder,
  type WebDataset,
  type WebDatasetOptions,
  type WebSample,
  webDataset,
} from "./webdataset.ts";
