/**
 * @file The GPU device: plans become lists of commands (program.ts) that are encoded and submitted as a whole. A run
 * returns at once with the storages that it will fill; that it has ended, or failed, is learned later (`ended`).
 */
import { type DType, dtypes, fromStored, type TypedArray, toStored } from "../../dtype.ts";
import {
  DeviceError,
  describe,
  type HinodeError,
  IndexOutOfRangeError,
  OutOfMemoryError,
} from "../../errors.ts";
import { is, type Node } from "../../graph/node.ts";
import type { Storage } from "../../graph/primitives.ts";
import { attentionOnGpu } from "../../kernel/gpu/attention.ts";
import type { Choose } from "../../kernel/gpu/matmul-tile.ts";
import type { GpuTarget } from "../../kernel/gpu/target.ts";
import { chooseFrom, type Tiles } from "../../kernel/gpu/tuned.ts";
import { bytesOf, schedule } from "../../schedule/schedule.ts";
import type { Claims } from "../../schedule/simplify.ts";
import type { Backend, CanonicalGraph, Executable } from "../backend.ts";
import { type Observer, observer } from "../observe.ts";
import { type AdapterInfo, describeAdapter, type Gpu } from "./adapter.ts";
import { type Block, BufferPool, padded } from "./buffers.ts";
import { encode } from "./commands.ts";
import { fromGpuError, Health } from "./errors.ts";
import { type KernelSource, type Pipeline, PipelineCache } from "./pipelines.ts";
import { type Host, Program } from "./program.ts";
import { DispatchTimer } from "./timing.ts";
import { flagStride } from "./utility.ts";

interface GpuStorage extends Storage {
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
}

export class WebGpuBackend implements Backend, Host {
  readonly name = "webgpu";
  readonly asynchronous = true;
  readonly info: AdapterInfo;
  readonly device: GPUDevice;
  readonly target: GpuTarget;
  /** A tuner changes it from plan to plan. */
  choose: Choose;
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

  constructor({ device, info, target }: Gpu, { budget, claims, tiles }: WebGpuOptions = {}) {
    const { limits } = device;
    this.device = device;
    this.info = info;
    this.target = target;
    this.choose = chooseFrom(tiles?.[describeAdapter(info)]);
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
    this.health.check();
    const plan = schedule(graph.inputs, graph.outputs, this.#claims);
    const state = graph.outputs.map((n) => slotOfState(n, graph.inputs));
    const program = new Program(plan, graph.randoms, state, this);
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
  } {
    const limits: Record<string, number> = {};
    // Accessors of the prototype, not properties of their own.
    for (const key in this.device.limits) {
      const value = this.device.limits[key as keyof GPUSupportedLimits];
      if (typeof value === "number") limits[key] = value;
    }
    return { adapter: this.info, limits, features: [...this.device.features] };
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

const outOfMemory = (bytes: number): OutOfMemoryError =>
  new OutOfMemoryError(`webgpu: the GPU has no memory for ${bytes} bytes`);

/** What a run needs besides its inputs, had before it is submitted. */
interface Reserved {
  readonly outputs: readonly GpuStorage[];
  /** Outputs that are not inputs. */
  readonly fresh: readonly GpuStorage[];
  readonly scratch: readonly Block[];
  readonly flags: Block | null;
}

class GpuExecutable implements Executable {
  readonly kernels: Program["reports"];
  readonly scratchBytes: number;
  readonly mayFail: boolean;
  readonly uniforms: Block | null;
  readonly #program: Program;
  readonly #backend: WebGpuBackend;
  readonly #sizes: readonly number[];
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #table: Block[];
  #compiling: readonly Pipeline[] | null;
  #reserved: Reserved | null = null;
  #ended: Promise<void> = Promise.resolve();

  constructor(program: Program, backend: WebGpuBackend) {
    this.#program = program;
    this.#backend = backend;
    this.kernels = program.reports;
    this.scratchBytes = program.scratch.sizes.reduce((a, b) => a + b, 0);
    this.mayFail = program.checked.length > 0;
    this.#sizes = program.plan.outputs.map(({ node }) => bytesOf(node));
    this.#compiling = [...program.pipelines];
    this.#words = new Uint32Array(program.constantsAt / 4);
    this.#table = new Array<Block>(program.table.values + program.scratch.buffer.length);
    this.uniforms = program.uniformBytes > 0 ? backend.pool.allocate(program.uniformBytes) : null;
    if (this.uniforms && program.constants.length > 0)
      backend.device.queue.writeBuffer(
        this.uniforms.buffer,
        program.constantsAt,
        program.constants as Uint32Array<ArrayBuffer>,
      );
  }

  prepare(
    inputs: readonly Storage[],
    _words: Uint32Array,
    donate: readonly boolean[],
  ): Promise<void> | undefined {
    const backend = this.#backend;
    backend.health.check();
    const waits: Promise<void>[] = [];
    if (this.#compiling) {
      const missing = this.#compiling.filter((p) => p.ready);
      if (missing.length === 0) this.#compiling = null;
      for (const { ready } of missing) waits.push(ready!);
    }
    const reserved = (this.#reserved ??= this.#reserve(inputs, donate));
    const blocks = [
      ...inputs.map((s) => backend.own(s).block),
      ...reserved.fresh.map((s) => s.block),
      ...reserved.scratch,
    ];
    try {
      for (const block of blocks) {
        if (block.failed) throw outOfMemory(block.bytes);
        if (block.pending) waits.push(block.pending);
      }
    } catch (error) {
      this.#giveBack();
      throw error;
    }
    if (waits.length === 0) return undefined;
    return Promise.all(waits).then(
      () => {},
      (error) => {
        this.#giveBack();
        throw error;
      },
    );
  }

  #reserve(inputs: readonly Storage[], donate: readonly boolean[]): Reserved {
    const { overwrites, scratch, checked } = this.#program;
    const backend = this.#backend;
    const outputs: GpuStorage[] = [];
    const fresh: GpuStorage[] = [];
    try {
      for (const [i, bytes] of this.#sizes.entries()) {
        const slot = overwrites[i];
        if (slot !== null && donate[slot]) outputs.push(backend.own(inputs[slot]));
        else {
          outputs.push(backend.storage(bytes));
          fresh.push(outputs[i]);
        }
      }
      const flags = checked.length > 0 ? backend.pool.allocate(flagStride * checked.length) : null;
      return {
        outputs,
        fresh,
        flags,
        scratch: backend.scratch(scratch.sizes).slice(0, scratch.sizes.length),
      };
    } catch (error) {
      for (const s of fresh) backend.free(s);
      throw error;
    }
  }

  #giveBack(): void {
    const reserved = this.#reserved;
    this.#reserved = null;
    for (const s of reserved?.fresh ?? []) this.#backend.free(s);
    if (reserved?.flags) this.#backend.pool.release(reserved.flags);
  }

  run(inputs: readonly Storage[], words: Uint32Array, donate: readonly boolean[]): Storage[] {
    const backend = this.#backend;
    backend.health.check();
    const { device, pool } = backend;
    const program = this.#program;
    const { outputs, flags } = this.#reserved ?? this.#reserve(inputs, donate);
    // Again: another plan that was prepared meanwhile may have replaced some by larger ones.
    const scratch = backend.scratch(program.scratch.sizes);
    this.#reserved = null;
    const start = observer ? performance.now() : 0;
    const timer = observer && new DispatchTimer(device, pool, observer.kernels);
    this.#fillTable(inputs, outputs, flags, scratch);
    this.#writeWords(words);
    device.pushErrorScope("validation");
    const encoder = device.createCommandEncoder();
    let staging: GPUBuffer | null = null;
    if (flags) encoder.clearBuffer(flags.buffer);
    encode(device, encoder, program.commands, this.#table, timer);
    timer?.resolve(encoder);
    if (flags) {
      staging = pool.staging(flagStride * program.checked.length);
      encoder.copyBufferToBuffer(flags.buffer, 0, staging, 0, flagStride * program.checked.length);
    }
    device.queue.submit([encoder.finish()]);
    if (flags) pool.release(flags);
    this.#ended = this.#end(device.popErrorScope(), staging);
    if (timer) this.#ended = this.#tell(observer!, timer, this.#ended, start, performance.now());
    // Whoever asks for ended() is told.
    this.#ended.catch(() => {});
    return [...outputs];
  }

  /** Tells the profiler of a run that has ended. */
  async #tell(
    by: Observer,
    timer: DispatchTimer,
    ended: Promise<void>,
    start: number,
    submitted: number,
  ): Promise<void> {
    const times = timer.read();
    times.catch(() => {});
    await ended;
    const { calls } = timer;
    by.run({ device: "webgpu", start, submitted, clock: "gpu", calls, ...(await times) });
  }

  /** Resolves when the last run has ended; rejects with what went wrong in it. */
  ended(): Promise<void> {
    return this.#ended;
  }

  #fillTable(
    inputs: readonly Storage[],
    outputs: readonly GpuStorage[],
    flags: Block | null,
    scratch: readonly Block[],
  ): void {
    const table = this.#table;
    const backend = this.#backend;
    const { table: at, scratch: plan } = this.#program;
    for (let i = 0; i < inputs.length; i++) table[i] = backend.own(inputs[i]).block;
    for (let i = 0; i < outputs.length; i++) table[at.outputs + i] = outputs[i].block;
    if (flags) {
      table[at.flags] = flags;
      table[at.guard] = backend.guard;
    }
    if (this.uniforms) table[at.uniforms] = this.uniforms;
    for (let i = 0; i < plan.buffer.length; i++) table[at.values + i] = scratch[plan.buffer[i]];
  }

  /** Keys and counters of random leaves, into the uniforms of the kernels that draw. */
  #writeWords(words: Uint32Array): void {
    const { scalars } = this.#program;
    if (scalars.length === 0) return;
    for (const { word, randoms } of scalars)
      for (let i = 0; i < randoms.length; i++)
        for (let j = 0; j < 3; j++) this.#words[word + 3 * i + j] = words[3 * randoms[i] + j];
    this.#backend.device.queue.writeBuffer(this.uniforms!.buffer, 0, this.#words);
  }

  async #end(scope: Promise<GPUError | null>, staging: GPUBuffer | null): Promise<void> {
    const { health, pool, device } = this.#backend;
    const { checked } = this.#program;
    const done = staging
      ? pool.read(staging, flagStride * checked.length)
      : health.guard(device.queue.onSubmittedWorkDone(), "a run");
    done.catch(() => {});
    const error = await health.guard(scope, "a run");
    if (error) throw fromGpuError(error, `a run of ${this.kernels.map((k) => k.name).join(", ")}`);
    const flags = await done;
    if (!flags) return;
    const raised = new Uint32Array(flags);
    for (const [i, { name, sizes, stateIntact }] of checked.entries()) {
      const at = (i * flagStride) / 4;
      if (raised[at] === 0) continue;
      const size = sizes[raised[at] - 1];
      const index = raised[at + 1] | 0;
      const failure: HinodeError = new IndexOutOfRangeError(
        `gather: expected indices within 0 … ${size - 1}, got ${index} (kernel ${name})`,
      );
      failure.stateIntact = stateIntact;
      throw failure;
    }
  }
}
