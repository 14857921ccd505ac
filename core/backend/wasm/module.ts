/** @file Compiles kernels and binds them to a memory; knows what the engine can do. */
import type { Kernel } from "../../kernel/ir.ts";
import { worthWide } from "../../kernel/target.ts";
import { assemble, Code, compileModule, type FunctionSource } from "./assembler.ts";
import { emitKernels } from "./emit.ts";
import { registersCanWiden, withWideRegisters } from "./engine.ts";
import type { Unit } from "./threads.ts";

export interface InstantiateOptions {
  readonly address: 32 | 64;
  readonly relaxed: boolean;
  /** Kernels that are worth it get registers of 256 bits (where `wideTarget`). */
  readonly wide?: boolean;
}

export interface BoundKernel {
  /** Runs begin … end-1 of the parallel range; args is the argument block's address (bigint with 64-bit addresses). */
  readonly run: (begin: number, end: number, args: number | bigint) => void;
  /** Bytes of the thread-private area whose address stands in the argument block. */
  readonly scratchBytes: number;
  /** The module that it is in, and its number there. */
  readonly unit: Unit;
  readonly index: number;
}

const isShared = (memory: WebAssembly.Memory): boolean =>
  typeof SharedArrayBuffer !== "undefined" && memory.buffer instanceof SharedArrayBuffer;

/** V8 pairs what leads to neighbouring stores, so reductions of rows stay as they are. */
export const gainsWidth = ({ kind, flops }: Kernel): boolean =>
  flops >= worthWide && kind !== "row" && kind !== "reduce";

export function instantiate(
  kernels: readonly Kernel[],
  memory: WebAssembly.Memory,
  options: InstantiateOptions,
): BoundKernel[] {
  const large = options.wide ? kernels.filter(gainsWidth) : [];
  if (large.length === 0) return bind(kernels, memory, options);
  const bound = new Map<Kernel, BoundKernel>();
  const wide = withWideRegisters(() => {
    const made = bind(large, memory, options);
    // Over no elements: what is read of an argument block is not used. V8 optimises at the second call.
    const nothing = options.address === 64 ? 0n : 0;
    for (const { run } of made) for (let i = 0; i < 3; i++) run(0, 0, nothing);
    return made;
  });
  for (const [i, k] of large.entries()) bound.set(k, wide[i]);
  const rest = kernels.filter((k) => !bound.has(k));
  const others = rest.length > 0 ? bind(rest, memory, options) : [];
  for (const [i, k] of rest.entries()) bound.set(k, others[i]);
  return kernels.map((k) => bound.get(k)!);
}

/** Kernels as one module: compiling one of many functions costs much less than many of one. */
function bind(
  kernels: readonly Kernel[],
  memory: WebAssembly.Memory,
  options: InstantiateOptions,
): BoundKernel[] {
  const { bytes, scratchBytes } = emitKernels(kernels, { ...options, shared: isShared(memory) });
  const unit: Unit = { module: compileModule(bytes), count: kernels.length };
  const instance = new WebAssembly.Instance(unit.module, { m: { m: memory } });
  return kernels.map((_, index) => ({
    run: instance.exports[`k${index}`] as BoundKernel["run"],
    scratchBytes: scratchBytes[index],
    unit,
    index,
  }));
}

/** What kernels may count on here. Relaxed multiply-add that rounds once tells that the processor has 256 bits. */
export function wideTarget(): boolean {
  if (!registersCanWiden() || !detectRelaxed()) return false;
  const body = new Code();
  const x = 1 + 2 ** -12;
  for (const value of [x, x, -x * x]) {
    body.f32(value);
    body.op("f32x4.splat");
  }
  body.op("f32x4.relaxed_madd");
  body.opU("f32x4.extract_lane", 0);
  const probe: FunctionSource = { params: [], results: ["f32"], locals: [], body, exported: "f" };
  const module = compileModule(assemble([probe], { address: 32, shared: false }));
  const m = new WebAssembly.Memory({ initial: 0 });
  const { f } = new WebAssembly.Instance(module, { m: { m } }).exports as { f: () => number };
  return f() !== 0;
}

let relaxed: boolean | undefined;

/** Whether the engine has relaxed SIMD (multiply-add in one rounding, where the machine has it). */
export function detectRelaxed(): boolean {
  if (relaxed !== undefined) return relaxed;
  const body = new Code();
  for (let i = 0; i < 3; i++) body.v128(new Uint8Array(16));
  body.op("f32x4.relaxed_madd");
  body.op("drop");
  const probe: FunctionSource = { params: [], results: [], locals: [], body };
  const bytes = assemble([probe], { address: 32, shared: false });
  return (relaxed = WebAssembly.validate(bytes as Uint8Array<ArrayBuffer>));
}
