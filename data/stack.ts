/**
 * @file Samples to a batch on the host, in a worker thread as well as in the main one: what is numbers becomes one array with
 * a new first axis, containers stay containers. Making tensors of the arrays is left to collate.ts.
 */
import type { DType } from "../core/dtype.ts";
import { DataError, describe } from "../core/errors.ts";
import { formatShape, numel, type Shape, sameShape } from "../core/shape.ts";

/** Numbers as `tensor` takes them. */
export type NumberArray =
  | Float32Array
  | Float16Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array;

/** A tensor's parts, which may cross threads. */
export interface HostArray {
  readonly data: NumberArray;
  readonly shape: Shape;
  /** The array's own type unless given; `bool` and `bf16` have no array of their own. */
  readonly dtype?: DType;
}

/** What a stack does with values it does not know: tensors, on the main thread. */
export type Join = (values: readonly unknown[], path: string) => unknown;

/**
 * Stacks samples of one structure. Numbers become f32, booleans bool, bigints i32 (checked), each of shape [B]; an array
 * of numbers `[B, n]`; `{ data, shape }` becomes `[B, …shape]`. Strings stay a list. Objects and arrays are
 * stacked member by member (as `torch.utils.data.default_collate`).
 */
export function stack(samples: readonly unknown[], join?: Join, path = "sample"): unknown {
  const [first] = samples;
  const fail = (expected: string, got: string, hint?: string): never => {
    throw new DataError(describe("collate", `${path}: ${expected}`, got, hint));
  };
  const all = (test: (x: unknown) => boolean, kind: string) => {
    const at = samples.findIndex((x) => !test(x));
    if (at >= 0) fail(`${kind} in each sample`, `${kindOf(samples[at])} in sample ${at}`);
  };
  const ofType = (type: string) => all((x) => typeof x === type, `a ${type}`);
  switch (typeof first) {
    case "number":
      ofType("number");
      return { data: Float32Array.from(samples as number[]), shape: [samples.length] };
    case "boolean":
      ofType("boolean");
      return {
        data: Uint8Array.from(samples, (x) => Number(x)),
        shape: [samples.length],
        dtype: "bool",
      };
    case "bigint": {
      ofType("bigint");
      const big = samples.find((x) => (x as bigint) !== BigInt.asIntN(32, x as bigint));
      if (big !== undefined) fail("bigints within the range of i32", `${big}`);
      return { data: Int32Array.from(samples, (x) => Number(x)), shape: [samples.length] };
    }
    case "string":
      ofType("string");
      return [...samples];
  }
  if (isNumberArray(first) || isHostArray(first)) {
    all((x) => isNumberArray(x) || isHostArray(x), "an array of numbers");
    return stackArrays(samples.map(toHost), fail);
  }
  if (Array.isArray(first)) {
    all((x) => Array.isArray(x) && x.length === first.length, `a list of ${first.length}`);
    return first.map((_, i) =>
      stack(
        samples.map((x) => (x as unknown[])[i]),
        join,
        `${path}[${i}]`,
      ),
    );
  }
  if (isPlainObject(first)) {
    const keys = Object.keys(first);
    const same = (x: unknown) =>
      isPlainObject(x) &&
      Object.keys(x).length === keys.length &&
      keys.every((k) => Object.hasOwn(x, k));
    all(same, `an object of ${keys.join(", ")}`);
    const member = (key: string) =>
      stack(
        samples.map((x) => (x as Record<string, unknown>)[key]),
        join,
        `${path}.${key}`,
      );
    return Object.fromEntries(keys.map((key) => [key, member(key)]));
  }
  if (join) return join(samples, path);
  return fail(
    "numbers, booleans, strings, typed arrays, { data, shape }, lists and objects",
    kindOf(first),
    "give the loader a collate function",
  );
}

const toHost = (x: unknown): HostArray =>
  isNumberArray(x) ? { data: x, shape: [x.length] } : (x as HostArray);

function stackArrays(
  arrays: readonly HostArray[],
  fail: (expected: string, got: string) => never,
): HostArray {
  const [{ data, shape, dtype }] = arrays;
  const text = (a: HostArray) => `${a.dtype ?? a.data.constructor.name}${formatShape(a.shape)}`;
  const size = numel(shape);
  const out = new (data.constructor as new (length: number) => typeof data)(size * arrays.length);
  for (const [i, a] of arrays.entries()) {
    const equal = a.data.constructor === data.constructor && a.dtype === dtype;
    if (!equal || !sameShape(a.shape, shape)) fail(text(arrays[0]), `${text(a)} in sample ${i}`);
    if (a.data.length !== size) fail(`${size} numbers for ${text(a)}`, `${a.data.length}`);
    (out as { set(source: unknown, at: number): void }).set(a.data, i * size);
  }
  return { data: out, shape: [arrays.length, ...shape], dtype };
}

const isNumberArray = (x: unknown): x is NumberArray =>
  ArrayBuffer.isView(x) && !(x instanceof DataView);

/** Whether x is `{ data, shape }` rather than an object of the user's. */
export const isHostArray = (x: unknown): x is HostArray =>
  isPlainObject(x) && isNumberArray(x.data) && Array.isArray(x.shape);

/** Not an instance of some class: its members are all there is to it. */
export function isPlainObject(x: unknown): x is Record<string, unknown> {
  if (typeof x !== "object" || x === null) return false;
  const prototype = Object.getPrototypeOf(x);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function kindOf(x: unknown): string {
  if (Array.isArray(x)) return `a list of ${x.length}`;
  if (typeof x !== "object" || x === null) return String(x === null ? null : typeof x);
  if (isPlainObject(x)) return `an object of ${Object.keys(x).join(", ") || "nothing"}`;
  return x.constructor.name;
}
