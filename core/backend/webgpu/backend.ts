/**
 * @file The GPU device: its memory, its compiled kernels, and plans made executable on it. Plans become lists of commands
 * (program.ts) that are encoded and submitted as a whole (executable.ts): a run returns at once with the storages that it
 * will fill, and that it has ended, or failed, is learned later.
 */
import { type DType, dtypes, fromStored, type TypedArray, toStored } from "../../dtype.ts";
import { DeviceError, describe } from "../../errors.ts";
import { is, type Node } from "../../graph/node.ts";
import type { Storage } from "../../graph/primitives.ts";
import { attentionOnGpu } from "../../kernel/gpu/attention.ts";
import {
  type Choose,
  chooseForm,
  type Form,
  type ProductShape,
} from "../../kernel/gpu/matmul-tile.ts";
import type { GpuTarget } from "../../kernel/gpu/target.ts";
import { chooseFrom, shapeKey, type Tiles } from "../../kernel/gpu/tuned.ts";
import { schedule } from "../../schedule/schedule.ts";
import type { Claims } from "../../schedule/simplify.ts";
import type { Backend, CanonicalGraph, Executable } from "../backend.ts";
import { type AdapterInfo, describeAdapter, type Gpu } from "./adapter.ts";
import { type Block, BufferPool, padded } from "./buffers.ts";
import { Health } from "./errors.ts";
import { GpuExecutable, outOfMemory } from "./executable.ts";
import { type KernelSource, type Pipeline, PipelineCache } from "./pipelines.ts";
import { type Host, Program } from "./program.ts";
import { TuningExecutable, tune } from "./tuner.ts";

export interface GpuStorage extends Storage {
  readonly block: Block;
  readonly owner: WebGpuBackend;
  freed: boolean;
}

export interface WebGpuOptions {
  /** Most bytes that storages and scratch may take; by default as much as the GPU gives. */
  readonly budget?: number;
  /** The regions that kernels of their own compute (default: those that they can). */
  readonly claims?: Claims;
  /** Forms of matrix products that were measured; `npm run tune:gpu` makes such a table. */
  readonly tiles?: Tiles;
  /** Measures the products that the table lacks, each before the first run of a plan that has it. */
  readonly autotune?: boolean;
}

export class WebGpuBackend implements Backend, Host {
  readonly name = "webgpu";
  readonly asynchronous = true;
  readonly info: AdapterInfo;
  readonly device: GPUDevice;
  readonly target: GpuTarget;
  readonly #choose: Choose;
  /** Measured forms on this adapter, by shapeKey. */
  readonly #forms: Record<string, Form>;
  readonly #autotune: boolean;
  readonly maxBindingBytes: number;
  readonly maxWorkgroups: number;
  readonly pool: BufferPool;
  readonly health: Health;
  readonly #pipelines: PipelineCache;
  readonly #claims: Claims;
  /** Shared by all plans, as they run one after another; the k-th is as large as any plan's k-th. */
  readonly #scratch: Block[] = [];
  #guard: Block | null = null;
  /** Uniforms of plans that were collected. */
  readonly #retired = new FinalizationRegistry<Block>((block) => this.pool.release(block));

  constructor({ device, info, target }: Gpu, options: WebGpuOptions = {}) {
    const { budget, claims, tiles, autotune = false } = options;
    const { limits } = device;
    if (autotune && !device.features.has("timestamp-query"))
      throw new DeviceError(
        describe(
          "init",
          "a GPU with timestamp-query, to tune by",
          describeAdapter(info),
          "leave autotune out",
        ),
      );
    this.device = device;
    this.info = info;
    this.target = target;
    this.#forms = { ...tiles?.[describeAdapter(info)] };
    this.#choose = chooseFrom(this.#forms);
    this.#autotune = autotune;
    this.#claims = claims ?? attentionOnGpu(target);
    this.maxBindingBytes = Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);
    this.maxWorkgroups = limits.maxComputeWorkgroupsPerDimension;
    this.health = new Health(device);
    this.pool = new BufferPool(device, this.health, budget);
    this.#pipelines = new PipelineCache(device, this.health);
  }

  /** Why nothing works any more, or null. */
  get lost(): Error | null {
    return this.health.lost;
  }

  prepare(graph: CanonicalGraph): Executable {
    if (!this.#autotune) return this.plan(graph);
    const unknown = new Map<string, ProductShape>();
    const guessed = this.plan(graph, (shape, target) => {
      const key = shapeKey(shape);
      if (!this.#forms[key]) unknown.set(key, shape);
      return this.#choose(shape, target);
    });
    if (unknown.size === 0) return guessed;
    return new TuningExecutable(guessed, async () => {
      // Another plan's turn may have come first.
      for (const [key, shape] of unknown)
        this.#forms[key] ??= (await tune(this, shape))?.form ?? chooseForm(shape, this.target);
      return this.plan(graph);
    });
  }

  /** The graph made executable, its matrix products in the forms that `choose` says. */
  plan(graph: CanonicalGraph, choose = this.#choose): Executable {
    this.health.check();
    const plan = schedule(graph.inputs, graph.outputs, this.#claims);
    const state = graph.outputs.map((n) => slotOfState(n, graph.inputs));
    const program = new Program(plan, graph.randoms, state, this, choose);
    const executable = new GpuExecutable(program, this);
    if (executable.uniforms) this.#retired.register(executable, executable.uniforms);
    return executable;
  }

  upload(data: TypedArray, dtype: DType): Storage {
    const stored = toStored(dtype, data);
    const { byteLength } = stored;
    const storage = this.storage(byteLength);
    let bytes = new Uint8Array(stored.buffer, stored.byteOffset, byteLength);
    if (byteLength % 4 !== 0) {
      const whole = new Uint8Array(padded(byteLength));
      whole.set(bytes);
      bytes = whole;
    }
    this.device.queue.writeBuffer(storage.block.buffer, 0, bytes as Uint8Array<ArrayBuffer>);
    return storage;
  }

  async download(storage: Storage, dtype: DType, size: number): Promise<TypedArray> {
    this.health.check();
    const block = this.own(storage).block;
    if (block.pending) await block.pending;
    if (block.failed) throw outOfMemory(storage.bytes);
    const bytes = size * dtypes[dtype].bytes;
    const staging = this.pool.staging(bytes);
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(block.buffer, 0, staging, 0, padded(bytes));
    this.device.queue.submit([encoder.finish()]);
    return fromStored(dtype, await this.pool.read(staging, bytes));
  }

  free(storage: Storage): void {
    const s = storage as GpuStorage;
    if (s.freed) return;
    s.freed = true;
    this.pool.release(s.block);
  }

  memory(): { liveBytes: number; reservedBytes: number } {
    return { liveBytes: this.pool.liveBytes, reservedBytes: this.pool.reservedBytes };
  }

  describe(): {
    readonly adapter: AdapterInfo;
    readonly limits: Readonly<Record<string, number>>;
    readonly features: readonly string[];
    readonly tiles: Tiles;
  } {
    const limits: Record<string, number> = {};
    // Accessors of the prototype, not properties of their own.
    for (const key in this.device.limits) {
      const value = this.device.limits[key as keyof GPUSupportedLimits];
      if (typeof value === "number") limits[key] = value;
    }
    const tiles = { [describeAdapter(this.info)]: { ...this.#forms } };
    return { adapter: this.info, limits, features: [...this.device.features], tiles };
  }

  /** Gives the GPU back. Everything that is queued or read later fails with a DeviceLostError. */
  destroy(): void {
    this.health.lose("destroyed", "");
    this.device.destroy();
  }

  // --- for programs ---

  compile(source: KernelSource): Pipeline {
    return this.#pipelines.get(source);
  }

  storage(bytes: number): GpuStorage {
    return { bytes, block: this.pool.allocate(bytes), owner: this, freed: false };
  }

  /** A storage of this device, or an error. */
  own(storage: Storage): GpuStorage {
    const s = storage as GpuStorage;
    if (s.owner !== this)
      throw new DeviceError(describe("webgpu", "storages of this device", "one of another device"));
    return s;
  }

  /** Scratch buffers of at least these sizes, largest first. Larger ones replace those that are too small. */
  scratch(sizes: readonly number[]): readonly Block[] {
    for (const [i, bytes] of sizes.entries()) {
      const old: Block | undefined = this.#scratch[i];
      if (old && old.bytes >= bytes && !old.failed) continue;
      if (old) {
        // An empty place, if there is no memory for a larger one.
        this.#scratch.splice(i, 1);
        this.pool.release(old);
      }
      this.#scratch.splice(i, 0, this.pool.allocate(bytes));
    }
    return this.#scratch;
  }

  get guard(): Block {
    return (this.#guard ??= this.pool.allocate(16));
  }
}

/** The slot whose next version an output is. */
function slotOfState(n: Node, inputs: readonly Node<"placeholder">[]): number | null {
  if (!is(n, "assign")) return null;
  let first: Node = n;
  while (is(first, "assign")) first = first.src[0];
  const slot = inputs.indexOf(first as Node<"placeholder">);
  return slot < 0 ? null : slot;
}
