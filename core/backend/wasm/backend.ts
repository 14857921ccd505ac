/**
 * @file The CPU device: plans become WebAssembly programs over one linear memory (arena.ts) that holds every storage,
 * the scratch that all plans share (they run one after another), and their argument blocks.
 */

import { bytesOf, type DType, dtypes, fromStored, type TypedArray, toStored } from "../../dtype.ts";
import { ArgumentError, describe, OutOfMemoryError } from "../../errors.ts";
import { exactJson } from "../../graph/node.ts";
import type { Storage } from "../../graph/primitives.ts";
import { attentionOnCpu } from "../../kernel/attention.ts";
import type { Kernel } from "../../kernel/ir.ts";
import type { CpuTarget } from "../../kernel/target.ts";
import { footprint } from "../../schedule/footprint.ts";
import { schedule } from "../../schedule/schedule.ts";
import { forCpu } from "../../schedule/select.ts";
import { type Claims, claimsNothing } from "../../schedule/simplify.ts";
import type { Backend, CanonicalGraph, Executable } from "../backend.ts";
import { cpuRun, type KernelTime, observer } from "../observe.ts";
import { Arena, maxBytes } from "./arena.ts";
import { threadCount } from "./engine.ts";
import { type BoundKernel, detectRelaxed, gainsWidth, instantiate, wideTarget } from "./module.ts";
import { type Host, Program } from "./program.ts";
import { Threads } from "./threads.ts";

export interface WasmOptions {
  /** Most bytes that storages, plans and scratch may take together. */
  readonly budget?: number;
  /** Width of addresses: 32 unless given, 64 for budgets above 4 GiB: up to 16 GiB, and products take 2 to 3 times as long. */
  readonly address?: 32 | 64;
  /** The regions that kernels of their own compute (default: where they are faster). */
  readonly claims?: Claims;
  /** false: every primitive is a kernel of its own, to see what fusing saves. */
  readonly fused?: boolean;
  /** Fused multiply-add where the engine has relaxed SIMD (default: if it has). */
  readonly relaxed?: boolean;
  /** Threads to compute on, with the caller's own (default: HINODE_THREADS, else all that the machine has). */
  readonly threads?: number;
  /** Nanoseconds of work that are worth another thread. */
  readonly grain?: number;
  /** Milliseconds after which a thread that does not end its part counts as dead. */
  readonly patience?: number;
}

/** A thread that looks for work takes it in 0.3 µs, one that sleeps in 60; its part of the data comes out of the other cache. */
const defaultGrain = 20_000;

/** Memory that all programs share, as large as the most demanding one so far. */
interface Block {
  address: number;
  bytes: number;
}

interface WasmStorage extends Storage {
  readonly address: number;
  freed: boolean;
}

/** Compiled kernels are shared by all plans of a backend; beyond this many the oldest are dropped. */
const maxKernels = 4096;

export class WasmBackend implements Backend, Host {
  readonly name = "wasm";
  private readonly arena: Arena;
  private readonly address: 32 | 64;
  private readonly relaxed: boolean;
  private readonly claims: Claims;
  private readonly fused: boolean;
  private readonly kernels = new Map<string, BoundKernel>();
  private readonly scratch: Block = { address: 0, bytes: 0 };
  private readonly localsBlock: Block = { address: 0, bytes: 0 };
  readonly threads: Threads | null;
  readonly grain: number;
  readonly target: CpuTarget;
  locals = { address: 0, stride: 0, threads: 1 };
  /** Argument blocks of programs that were collected. */
  private readonly retired = new FinalizationRegistry<readonly number[]>((blocks) => {
    for (const block of blocks) this.arena.free(block);
  });
  private reserved: number[] = [];
  private view = { bytes: new Uint8Array(0), words: new Uint32Array(0) };

  constructor(options: WasmOptions = {}) {
    const { budget = 0 } = options;
    this.address = options.address ?? (budget > maxBytes[32] ? 64 : 32);
    if (budget > maxBytes[this.address])
      throw new ArgumentError(
        describe("init", `a budget of at most ${maxBytes[this.address]} bytes with addresses of ${this.address} bits`, `${budget}`), // biome-ignore format: one line
      );
    // V8 pairs nothing across the bounds checks that 64-bit addresses need, and tiles for pairs are slower alone.
    this.target = { wide: this.address === 32 && wideTarget() };
    this.fused = options.fused ?? true;
    this.claims = options.claims ?? (this.fused ? attentionOnCpu : claimsNothing);
    this.relaxed = options.relaxed ?? detectRelaxed();
    this.grain = options.grain ?? defaultGrain;
    const count = threadCount(options.threads);
    const arena = { address: this.address, budget: options.budget };
    this.arena = (count > 1 && sharedArena(arena)) || new Arena(arena);
    const { memory } = this.arena;
    const shared = count > 1 && !(memory.buffer instanceof ArrayBuffer);
    const { patience } = options;
    this.threads = shared ? new Threads({ count, memory, address: this.address, patience }) : null;
  }

  /** Starts the threads now, not with the first work that is worth them; resolves with how many will take part in it. */
  async ready(): Promise<number> {
    await this.threads?.ready();
    return this.threadCount;
  }

  /** Threads that kernels are computed on, the caller's own among them. */
  get threadCount(): number {
    return this.threads?.alive ?? 1;
  }

  prepare(graph: CanonicalGraph): Executable {
    const { fused } = this;
    const own = fused ? forCpu : undefined;
    const plan = schedule(graph.inputs, graph.outputs, this.claims, own, { fused });
    this.reserved = [];
    let program: Program;
    try {
      program = new Program(plan, graph.randoms, this);
    } catch (error) {
      for (const block of this.reserved) this.arena.free(block);
      throw error;
    }
    const sizes = plan.outputs.map(({ node }) => bytesOf(node));
    const executable: Executable = {
      kernels: program.reports,
      scratchBytes: plan.scratchBytes,
      footprint: () => footprint(plan, plan.scratchBytes, program.overwrites),
      run: (inputs, words, donate) => {
        this.grow(this.scratch, plan.scratchBytes);
        this.growLocals(program.localsBytes);
        const outputs: WasmStorage[] = [];
        try {
          for (const [i, bytes] of sizes.entries()) {
            const slot = program.overwrites[i];
            const inPlace = slot !== null && donate[slot];
            outputs.push(inPlace ? (inputs[slot] as WasmStorage) : this.storage(bytes));
          }
          const addresses = (list: readonly Storage[]) =>
            list.map((s) => (s as WasmStorage).address);
          const [from, to] = [addresses(inputs), addresses(outputs)];
          const times: KernelTime[] | null = observer ? [] : null;
          const start = times ? performance.now() : 0;
          if (program.shares) this.threads!.begin();
          program.run(from, to, this.scratch.address, words, times);
          if (times) observer!.run(cpuRun(this.name, start, times));
        } catch (error) {
          for (const s of outputs) if (!inputs.includes(s)) this.free(s);
          throw error;
        } finally {
          if (program.shares) this.threads!.end();
        }
        return outputs;
      },
    };
    this.retired.register(executable, this.reserved);
    return executable;
  }

  upload(data: TypedArray, dtype: DType): Storage {
    const { buffer, byteOffset, byteLength } = toStored(dtype, data);
    const storage = this.storage(byteLength);
    this.bytes().set(new Uint8Array(buffer, byteOffset, byteLength), storage.address);
    return storage;
  }

  download(storage: Storage, dtype: DType, size: number): TypedArray {
    const { address } = storage as WasmStorage;
    const { bytes } = dtypes[dtype];
    return fromStored(dtype, this.bytes().slice(address, address + size * bytes).buffer);
  }

  free(storage: Storage): void {
    const s = storage as WasmStorage;
    if (s.freed) return;
    s.freed = true;
    this.arena.free(s.address);
  }

  memory(): { liveBytes: number; reservedBytes: number } {
    return { liveBytes: this.arena.liveBytes, reservedBytes: this.arena.reservedBytes };
  }

  /** Ends the threads; what is asked for later is computed by the caller's own. */
  destroy(): void {
    this.threads?.destroy();
  }

  // --- Host ---

  compile(kernels: readonly Kernel[]): BoundKernel[] {
    const { wide } = this.target;
    const keys = kernels.map((k) => {
      return `${wide && gainsWidth(k)} ${exactJson({ ...k, name: "", flops: 0 })}`;
    });
    const fresh = new Map<string, Kernel>();
    keys.forEach((key, i) => {
      if (!this.kernels.has(key)) fresh.set(key, kernels[i]);
    });
    if (fresh.size > 0) {
      const { memory } = this.arena;
      const made = instantiate([...fresh.values()], memory, {
        address: this.address,
        relaxed: this.relaxed,
        wide,
      });
      let i = 0;
      for (const key of fresh.keys()) this.kernels.set(key, made[i++]);
    }
    const found = keys.map((key) => this.kernels.get(key)!);
    for (const key of this.kernels.keys()) {
      if (this.kernels.size <= maxKernels) break;
      this.kernels.delete(key);
    }
    return found;
  }

  reserve(bytes: number): number {
    const address = this.arena.allocate(bytes);
    this.reserved.push(address);
    this.bytes().fill(0, address, address + bytes);
    return address;
  }

  words(): Uint32Array {
    return this.views().words;
  }

  bytes(): Uint8Array {
    return this.views().bytes;
  }

  /** Views of the whole memory; growing detaches the old ones. */
  private views(): { bytes: Uint8Array; words: Uint32Array } {
    const { buffer } = this.arena.memory;
    if (this.view.bytes.buffer !== buffer)
      this.view = { bytes: new Uint8Array(buffer), words: new Uint32Array(buffer) };
    return this.view;
  }

  pointer(address: number): number | bigint {
    return this.address === 64 ? BigInt(address) : address;
  }

  private storage(bytes: number): WasmStorage {
    return { bytes, address: this.arena.allocate(bytes), freed: false };
  }

  /** Scratch for as many threads as there are, or for one if there is no room for more. */
  private growLocals(bytes: number): void {
    // A line more than is used, so that no two threads write to one.
    const stride = Math.max(this.locals.stride, Math.ceil(bytes / 64) * 64 + 64);
    const { threads } = this;
    if (stride === this.locals.stride) return;
    let count = threads?.count ?? 1;
    // If there is no room, what was freed must not be used.
    this.locals = { address: 0, stride: 0, threads: 1 };
    try {
      this.grow(this.localsBlock, count * stride);
    } catch (error) {
      if (count === 1 || !(error instanceof OutOfMemoryError)) throw error;
      count = 1;
      this.grow(this.localsBlock, stride);
    }
    this.locals = { address: this.localsBlock.address, stride, threads: count };
  }

  /** A block that could not be had leaves an empty one, so that what was freed is never used again. */
  private grow(block: Block, bytes: number): void {
    if (bytes <= block.bytes) return;
    if (block.bytes > 0) this.arena.free(block.address);
    block.bytes = 0;
    block.address = this.arena.allocate(bytes);
    block.bytes = bytes;
  }
}

/** Null where the system does not give a shared memory of the largest size. */
function sharedArena(options: { address: 32 | 64; budget?: number }): Arena | null {
  try {
    return new Arena({ ...options, shared: true });
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}
