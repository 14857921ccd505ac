/** @file Runs hand-written kernels on a small memory of their own and checks that they write nothing else. */
import { instantiate } from "../../core/backend/wasm/module.ts";
import { type DType, dtypes, isHalf, type StoredArray } from "../../core/dtype.ts";
import type { BufferInfo, Kernel, Stmt, Value, ValueOp } from "../../core/kernel/ir.ts";
import { constValue, op, variable } from "../../core/kernel/ir.ts";
import { type Index, ivar, num } from "../../core/schedule/symbolic.ts";

export interface Mode {
  readonly address: 32 | 64;
  readonly relaxed: boolean;
}

export const modes: readonly Mode[] = [
  { address: 32, relaxed: false },
  { address: 32, relaxed: true },
  { address: 64, relaxed: false },
  { address: 64, relaxed: true },
];

export const modeName = (m: Mode): string =>
  `${m.address} bit, relaxed ${m.relaxed ? "on" : "off"}`;

const memories = new Map<number, WebAssembly.Memory>();

function memoryOf(address: 32 | 64, bytes: number): WebAssembly.Memory {
  const pages = Math.ceil(bytes / 65536) + 1;
  let memory = memories.get(address);
  if (!memory) {
    const descriptor =
      address === 64
        ? { address: "i64", initial: 1n, maximum: 32768n }
        : { initial: 1, maximum: 32768 };
    memory = new WebAssembly.Memory(descriptor as unknown as WebAssembly.MemoryDescriptor);
    memories.set(address, memory);
  }
  const missing = pages - memory.buffer.byteLength / 65536;
  if (missing > 0) memory.grow((address === 64 ? BigInt(missing) : missing) as number);
  return memory;
}

export interface Outcome {
  readonly buffers: readonly StoredArray[];
  /** 0, or 1 + number of the failing position, and its index. */
  readonly error: readonly [number, number];
}

const filler = 0xa5;

/** Runs the whole range (or begin … end) on copies of `data`; a number stands for that many filler elements. */
export function runKernel(
  kernel: Kernel,
  data: readonly (StoredArray | number)[],
  mode: Mode,
  options: { words?: Uint32Array; begin?: number; end?: number } = {},
): Outcome {
  const place: number[] = [];
  let top = 4096;
  kernel.buffers.forEach(({ dtype }, i) => {
    place.push(top);
    const d = data[i];
    const bytes = (typeof d === "number" ? d : d.length) * dtypes[dtype].bytes;
    top += Math.ceil((bytes + 128) / 64) * 64;
  });
  const scratch = top;
  const memory = memoryOf(mode.address, top + (1 << 16));
  const [bound] = instantiate([kernel], memory, mode);
  const bytes = new Uint8Array(memory.buffer);
  bytes.fill(filler, 0, scratch + bound.scratchBytes + 4096);
  const view = (i: number, n: number): StoredArray => {
    const { dtype } = kernel.buffers[i];
    const array = isHalf(dtype) ? Uint16Array : dtypes[dtype].array;
    return new (array as unknown as new (b: ArrayBufferLike, o: number, n: number) => StoredArray)(
      memory.buffer,
      place[i],
      n,
    );
  };
  const views = data.map((d, i) => view(i, typeof d === "number" ? d : d.length));
  data.forEach((d, i) => {
    if (typeof d !== "number") views[i].set(d);
  });
  const args = 64;
  const words = new DataView(memory.buffer);
  words.setBigUint64(args, BigInt(scratch), true);
  words.setUint32(args + 8, 0, true);
  words.setInt32(args + 12, 0, true);
  place.forEach((p, i) => {
    words.setBigUint64(args + 16 + 8 * i, BigInt(p), true);
  });
  const scalars = args + 16 + 8 * place.length;
  options.words?.forEach((w, i) => {
    words.setUint32(scalars + 4 * i, w, true);
  });
  const before = bytes.slice(0, scratch);
  const { begin = 0, end = kernel.range.extent } = options;
  bound.run(begin, end, mode.address === 64 ? BigInt(args) : args);
  checkUntouched(kernel, before, bytes, place, views, args);
  const error = [words.getUint32(args + 8, true), words.getInt32(args + 12, true)] as const;
  return { buffers: views.map((v) => v.slice()), error };
}

function checkUntouched(
  kernel: Kernel,
  before: Uint8Array,
  after: Uint8Array,
  place: readonly number[],
  views: readonly StoredArray[],
  args: number,
): void {
  const writable = new Uint8Array(before.length);
  writable.fill(1, args + 8, args + 16);
  kernel.buffers.forEach(({ access }, i) => {
    if (access !== "read") writable.fill(1, place[i], place[i] + views[i].byteLength);
  });
  for (let i = 0; i < before.length; i++)
    if (!writable[i] && before[i] !== after[i])
      throw new Error(`kernel ${kernel.name} wrote byte ${i}; buffers at ${place.join(", ")}`);
}

// --- writing kernels ----------------------------------------------------------------------------------------

export const buffer = (
  dtype: DType,
  size: number,
  access: BufferInfo["access"] = "read",
): BufferInfo => ({ dtype, size, access });

export function kernel(
  buffers: readonly BufferInfo[],
  body: readonly Stmt[],
  options: { range?: { var: string; extent: number }; scalars?: number; name?: string } = {},
): Kernel {
  return {
    name: options.name ?? "test",
    kind: "map",
    buffers,
    scalars: options.scalars ?? 0,
    range: options.range ?? { var: "g", extent: 1 },
    body,
    flops: 0,
  };
}

export const load = (
  dtype: DType,
  buffer: number,
  index: Index,
  mask?: readonly Index[],
): Value => ({
  k: "load",
  dtype,
  buffer,
  index,
  mask,
});
export const store = (
  buffer: number,
  index: Index,
  value: Value,
  mask?: readonly Index[],
): Stmt => ({ k: "store", buffer, index, value, mask });
export const vector = (
  name: string,
  extent: Index | number,
  body: Stmt[],
  unroll?: number,
): Stmt => ({
  k: "loop",
  mode: "vector",
  var: name,
  extent: typeof extent === "number" ? num(extent) : extent,
  unroll,
  body,
});
export const serial = (
  name: string,
  extent: Index | number,
  body: Stmt[],
  unroll?: number,
): Stmt => ({
  ...(vector(name, extent, body, unroll) as Extract<Stmt, { k: "loop" }>),
  mode: "serial",
});

/** out[i] = f(x[i], …) over n elements in blocks, as maps are scheduled. */
export function mapKernel(
  n: number,
  inputs: readonly DType[],
  out: DType,
  f: (...xs: Value[]) => Value,
  unroll?: number,
): Kernel {
  const i = ivar("i", n);
  const xs = inputs.map((d, b) => load(d, b, i));
  const buffers = [...inputs.map((d) => buffer(d, n)), buffer(out, n, "write")];
  return kernel(buffers, [vector("i", n, [store(inputs.length, i, f(...xs))], unroll)]);
}

export const f32 = (name: ValueOp, ...args: Value[]): Value => op(name, "f32", ...args);
export { constValue, op, variable };
