/** @file What hand-written GPU kernels are built of, and data to run them on. */
import { type DType, dtypes, isFloat, type StoredArray, toStored } from "../../core/dtype.ts";
import type { BufferInfo, Combine, Kernel, Stmt, Value } from "../../core/kernel/ir.ts";
import { type Index, iadd, imul, ivar, num } from "../../core/schedule/symbolic.ts";
import { generator } from "../support/graphs.ts";
import { serial } from "../wasm/harness.ts";

export interface Case {
  readonly name: string;
  readonly kernel: Kernel;
  readonly data: StoredArray[];
  readonly words?: Uint32Array;
}

export const allTypes: readonly DType[] = ["f32", "f16", "bf16", "i32", "u32", "i8", "u8", "bool"];

/** Elements of a dtype as a device stores them: small numbers, or for integers also the extreme ones. */
export function sample(dtype: DType, n: number, seed = 1, extreme = false): StoredArray {
  const next = generator(seed + n);
  const int = (m: number): number => Math.floor(next() * m);
  const { bytes, signed } = dtypes[dtype];
  const top = 2 ** (8 * bytes - (signed ? 1 : 0)) - 1;
  const values = new dtypes[dtype].array(n);
  for (let i = 0; i < n; i++) {
    if (isFloat(dtype)) values[i] = (int(129) - 64) / 8;
    else if (dtype === "bool") values[i] = int(2);
    else if (extreme && int(3) === 0) values[i] = [top, signed ? -top - 1 : 0, 0][int(3)];
    else values[i] = int(21) - (signed ? 10 : 0);
  }
  return toStored(dtype, values);
}

export const zeros = (dtype: DType, n: number): StoredArray =>
  toStored(dtype, new dtypes[dtype].array(n));

export const t = (n: number): Index => ivar("t", n);
export const g = (n: number): Index => ivar("g", n);
export const l = ivar("l", 4);

export interface Made {
  groups: number;
  threads: number;
  buffers: readonly (readonly [DType, number, BufferInfo["access"]])[];
  body: readonly Stmt[];
  scalars?: number;
}

export function gpuKernel(
  name: string,
  { groups, threads, buffers, body, scalars = 0 }: Made,
): Kernel {
  return {
    name,
    kind: "map",
    buffers: buffers.map(([dtype, size, access]) => ({ dtype, size, access })),
    scalars,
    range: { var: "g", extent: groups },
    threads: { var: "t", extent: threads },
    body,
    flops: 0,
  };
}

export const make = (
  name: string,
  made: Made,
  data?: StoredArray[],
  words?: Uint32Array,
): Case => ({
  name,
  kernel: gpuKernel(name, made),
  data:
    data ??
    made.buffers.map(([dtype, n, access], i) =>
      access === "read" ? sample(dtype, n, i) : zeros(dtype, n),
    ),
  words,
});

/** The position of lane l of invocation t of workgroup g, in blocks of 4. */
export const position = (groups: number, threads: number): Index =>
  iadd(imul(g(groups), 4 * threads), imul(t(threads), 4), l);

export const local = (name: string, dtype: DType, size: number): Stmt => ({
  k: "local",
  name,
  dtype,
  size,
});
export const shared = (name: string, dtype: DType, size: number): Stmt => ({
  k: "shared",
  name,
  dtype,
  size,
});
export const localStore = (name: string, index: Index, value: Value): Stmt => ({
  k: "localStore",
  local: name,
  index,
  value,
});
export const localLoad = (dtype: DType, name: string, index: Index): Value => ({
  k: "localLoad",
  dtype,
  local: name,
  index,
});
export const acc = (name: string, dtype: DType, combine: Combine): Stmt => ({
  k: "acc",
  name,
  dtype,
  combine,
});
export const update = (
  name: string,
  value: Value,
  more: { times?: Value; at?: Index } = {},
): Stmt => ({
  k: "update",
  name,
  value,
  ...more,
});
export const barrier: Stmt = { k: "barrier" };
export const allReduce = (name: string, width: number, lanes = 1): Stmt => ({
  k: "allReduce",
  name,
  width,
  lanes,
});
export const when = (cond: readonly Index[], ...body: Stmt[]): Stmt => ({ k: "if", cond, body });
export const plain = (name: string, extent: number, body: Stmt[], unroll?: number): Stmt =>
  serial(name, num(extent), body, unroll);
