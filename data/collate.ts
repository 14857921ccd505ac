/** @file Batches as tensors: the arrays that stack.ts made are uploaded, and tensors among the samples are stacked. */
import { DataError, describe } from "../core/errors.ts";
import { type DeviceName, stack as stackTensors, Tensor, tensor } from "../core/index.ts";
import { type HostArray, isHostArray, isPlainObject, type NumberArray, stack } from "./stack.ts";

/** What the default collation makes of samples of type S. */
export type Collated<S> = S extends number | bigint | boolean | NumberArray | HostArray | Tensor
  ? Tensor
  : S extends string
    ? string[]
    : S extends readonly unknown[] | object
      ? { -readonly [K in keyof S]: Collated<S[K]> }
      : never;

/**
 * Stacks B samples of one structure to a batch, as `torch.utils.data.default_collate`: tensors and typed arrays get a new
 * first axis, numbers become f32 [B] (a class is better given as a bigint, `3n`, which becomes i32), booleans bool,
 * `{ data, shape, dtype? }` a tensor [B, …shape]; strings stay a list, lists and objects are collated member by member.
 *
 * @throws DataError for samples that differ in structure, shape or type, or hold what has no batch (null, functions).
 */
export function defaultCollate<S>(
  samples: readonly S[],
  options: { device?: DeviceName } = {},
): Collated<S> {
  if (samples.length === 0) throw new DataError(describe("collate", "at least one sample", "none"));
  return toTensors(stack(samples, joinTensors), options) as Collated<S>;
}

function joinTensors(values: readonly unknown[], path: string): Tensor {
  const other = values.find((x) => !(x instanceof Tensor));
  if (other === undefined && values[0] !== undefined) return stackTensors(values as Tensor[]);
  const got = other === null || other === undefined ? String(other) : other.constructor.name;
  const expected = `${path}: tensors, arrays, numbers, strings, lists and objects`;
  throw new DataError(describe("collate", expected, got, "give the loader a collate function"));
}

/** Makes a tensor of each array in a batch. */
export function toTensors(batch: unknown, options: { device?: DeviceName }): unknown {
  if (isHostArray(batch)) {
    const { data, shape, dtype } = batch;
    return tensor(data, { shape, dtype, device: options.device });
  }
  if (Array.isArray(batch)) return batch.map((x) => toTensors(x, options));
  if (!isPlainObject(batch)) return batch;
  return Object.fromEntries(Object.entries(batch).map(([k, x]) => [k, toTensors(x, options)]));
}
