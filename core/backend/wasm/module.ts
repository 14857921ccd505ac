/** @file Compiles kernels and binds them to a memory; knows what the engine can do. */
import type { Kernel } from "../../kernel/ir.ts";
import { assemble, Code, compileModule, type FunctionSource } from "./assembler.ts";
import { emitKernels } from "./emit.ts";
import type { Unit } from "./threads.ts";

export interface InstantiateOptions {
  readonly address: 32 | 64;
  readonly relaxed: boolean;
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

export function instantiate(
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
