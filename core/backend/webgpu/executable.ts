/**
 * @file A program that runs: gets what a run needs before it (compiled kernels, outputs, scratch), encodes and submits
 * its commands, and finds out afterwards whether it went well.
 */
import { bytesOf } from "../../dtype.ts";
import { type HinodeError, IndexOutOfRangeError, OutOfMemoryError } from "../../errors.ts";
import type { Storage } from "../../graph/primitives.ts";
import { type Footprint, footprint } from "../../schedule/footprint.ts";
import type { Executable } from "../backend.ts";
import { type Observer, observer } from "../observe.ts";
import type { GpuStorage, WebGpuBackend } from "./backend.ts";
import type { Block } from "./buffers.ts";
import { encode } from "./commands.ts";
import { fromGpuError } from "./errors.ts";
import type { Pipeline } from "./pipelines.ts";
import type { Program } from "./program.ts";
import { DispatchTimer } from "./timing.ts";
import { flagStride } from "./utility.ts";

export const outOfMemory = (bytes: number): OutOfMemoryError =>
  new OutOfMemoryError(`webgpu: the GPU has no memory for ${bytes} bytes`);

/** What a run needs besides its inputs, had before it is submitted. */
interface Reserved {
  readonly outputs: readonly GpuStorage[];
  /** Outputs that are not inputs. */
  readonly fresh: readonly GpuStorage[];
  readonly scratch: readonly Block[];
  readonly flags: Block | null;
}

export class GpuExecutable implements Executable {
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
    let scope: Promise<GPUError | null> | undefined;
    let staging: GPUBuffer | null = null;
    try {
      const encoder = device.createCommandEncoder();
      if (flags) encoder.clearBuffer(flags.buffer);
      encode(device, encoder, program.commands, this.#table, timer);
      timer?.resolve(encoder);
      if (flags) {
        const bytes = flagStride * program.checked.length;
        staging = pool.staging(bytes);
        encoder.copyBufferToBuffer(flags.buffer, 0, staging, 0, bytes);
      }
      device.queue.submit([encoder.finish()]);
    } finally {
      // Scopes are a stack: one that stayed would catch what belongs to others.
      scope = device.popErrorScope();
      if (flags) pool.release(flags);
    }
    this.#ended = this.#end(scope, staging);
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

  footprint(): Footprint {
    const { plan, overwrites } = this.#program;
    return footprint(plan, this.scratchBytes, overwrites);
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
