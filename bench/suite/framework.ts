/** @file What a framework brings to the benchmark: its name, and a program made ready to be run many times. */
import type { Program } from "./programs.ts";

/** Where programs run: WebAssembly (for PyTorch and its like, the processor), or the GPU. */
export type Device = "wasm" | "webgpu";

export interface Framework {
  readonly name: string;
  readonly version: string;
  /** What a reader must know to compare it fairly. */
  readonly note?: string;
  prepare(program: Program): Promise<Prepared>;
}

export interface Prepared {
  /** Computes once, to the end. Inputs are resident; results stay where the framework leaves them. */
  run(): Promise<void> | void;
  /** Results to compare: before the first run. Of a training three losses, of decoding the tokens. */
  outputs(): Promise<ArrayLike<number>[]>;
  dispose(): void;
}

/** A program that this framework cannot run: said in the table in its own words. */
export class Unsupported extends Error {}
