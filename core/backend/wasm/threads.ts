/**
 * @file Threads that share the work of one kernel at a time. The parallel range is cut into pieces; each thread owns as many
 * neighbouring ones (so that what it wrote is in its cache when the next kernel reads it), and who is done early takes
 * from the others. Whoever computes a piece computes the same, so results do not depend on the threads.
 *
 * A kernel ends with a barrier for those who came. Nobody is waited for who did not: while a worker starts, loads a module
 * or wakes up, and after it died, the others do its pieces. worker.ts has the program of the workers; here is what the
 * main thread does, which takes part itself.
 */
import { DeviceError, describe } from "../../errors.ts";
import { assemble, Code, compileModule, type FunctionSource } from "./assembler.ts";
import { coreCount, maySleep, startWorker, type WorkerHandle } from "./engine.ts";
import { job, lineWords, noPiece, spinMilliseconds, thread, workerSource } from "./worker.ts";

/** Kernels of one module, and the number of the first in the workers' tables once they were sent there. */
export interface Unit {
  readonly module: WebAssembly.Module;
  readonly count: number;
  base?: number;
}

/** A kernel whose range is worth sharing. */
export interface SharedCall {
  readonly name: string;
  readonly unit: Unit;
  /** Its number in the module. */
  readonly index: number;
  readonly run: (begin: number, end: number, args: number | bigint) => void;
  readonly extent: number;
  readonly pieces: number;
  /** Most threads that it is worth. */
  readonly threads: number;
  /** Address of the first thread's argument block, and bytes from one to the next. */
  readonly args: number;
  readonly stride: number;
  /** Whether it checks indices. */
  readonly checks: boolean;
}

/** The number of a position that failed (from 1), and the index. */
export interface FailedPosition {
  readonly code: number;
  readonly index: number;
}

export interface ThreadOptions {
  /** With the main thread. */
  readonly count: number;
  readonly memory: WebAssembly.Memory;
  readonly address: 32 | 64;
  /** Milliseconds after the others have done all the rest, after which a thread that is still at a piece counts as dead. */
  readonly patience?: number;
}

/** The argument block as kernels know it: where the flag and the failing index are. */
const flagOffset = 8;

const lineOf = (number: number): number => lineWords * (1 + 2 * number);

/** A pool that nobody holds any more takes its workers along; the callback must not hold it. */
const abandoned = new FinalizationRegistry<readonly (WorkerHandle | null)[]>((workers) => {
  for (const worker of workers) worker?.terminate();
});

export class Threads {
  readonly count: number;
  /** Kernels so far that more than one thread was called for. */
  shared = 0;
  private readonly options: ThreadOptions;
  private readonly control: Int32Array;
  private readonly maySleep = maySleep();
  /** Whether each has a core: else one that looks for work keeps another from it. */
  private readonly spread: boolean;
  /** Worker t−1 is thread t; null if it could not be made. */
  private readonly workers: (WorkerHandle | null)[] = [];
  private readonly health = { reason: "" };
  /** Which workers the call at hand was announced to. */
  private readonly called: Uint8Array;
  private kernels = 0;
  private started: Promise<void> | null = null;
  private readonly collected = new FinalizationRegistry<{ base: number; count: number }>((unit) =>
    this.post(unit),
  );

  constructor(options: ThreadOptions) {
    this.options = options;
    this.count = options.count;
    this.spread = options.count <= coreCount();
    this.control = new Int32Array(new SharedArrayBuffer(4 * lineOf(options.count)));
    this.called = new Uint8Array(options.count);
  }

  /** Threads that have not failed, with the main one. */
  get alive(): number {
    let alive = 1;
    for (let t = 1; t < this.count; t++) if (!this.hasFailed(t)) alive++;
    return alive;
  }

  /** What went wrong with the last thread that failed; empty if none did. */
  get reason(): string {
    return this.health.reason;
  }

  private hasFailed(t: number): boolean {
    return Atomics.load(this.control, lineOf(t) + thread.failed) !== 0;
  }

  private start(): Promise<void> {
    if (this.started) return this.started;
    const { control, health, workers } = this;
    const { memory, address } = this.options;
    const running: Promise<void>[] = [];
    for (let t = 1; t < this.count; t++) {
      const flag = lineOf(t) + thread.failed;
      const { promise, resolve } = Promise.withResolvers<void>();
      const failed = (why: string): void => {
        if (Atomics.exchange(control, flag, 1) === 0) health.reason = why;
        resolve();
      };
      let worker: WorkerHandle | null = null;
      try {
        worker = startWorker(workerSource, { ready: resolve, failed });
      } catch (error) {
        failed(`${error}`);
      }
      workers.push(worker);
      running.push(promise);
    }
    const words = compileModule(wordAccess(address));
    this.post((number: number) => ({ control, number, memory, wide: address === 64, words }));
    abandoned.register(this, workers);
    return (this.started = Promise.all(running).then(() => {}));
  }

  /** Starts the workers; resolves when each one has loaded what it was sent, or has failed. */
  async ready(): Promise<void> {
    // Workers keep no process alive, but who waits for them does.
    const waiting = setInterval(() => {}, 1000);
    await this.start();
    clearInterval(waiting);
    const isLate = (_: unknown, i: number) =>
      !this.isReady(i + 1, this.kernels - 1) && !this.hasFailed(i + 1);
    while (this.workers.some(isLate)) await new Promise((later) => void setTimeout(later, 1));
  }

  /** Sends a module's kernels to the workers, once; starts them if they are not. */
  share(unit: Unit): void {
    if (unit.base !== undefined) return;
    void this.start();
    unit.base = this.kernels;
    this.kernels += unit.count;
    const { module, count, base } = unit;
    this.post({ module, count, base });
    this.collected.register(unit, { count, base });
  }

  private post(message: object | ((number: number) => object)): void {
    this.workers.forEach((worker, i) => {
      if (!worker) return;
      // Counted first: a worker that has read as many as were posted looks for jobs instead.
      Atomics.add(this.control, lineOf(i + 1) + thread.mail, 1);
      worker.post(typeof message === "function" ? message(i + 1) : message);
      this.signal(i + 1);
    });
  }

  private signal(t: number): void {
    const { control } = this;
    const at = lineOf(t);
    Atomics.add(control, at + thread.signal, 1);
    if (Atomics.load(control, at + thread.asleep) !== 0)
      Atomics.notify(control, at + thread.signal);
  }

  /** Around a program's kernels: threads that sleep wake up, and look for work until `end`. */
  begin(): void {
    if (!this.spread) return;
    Atomics.store(this.control, job.expected, 1);
    for (let t = 1; t < this.count; t++)
      if (Atomics.load(this.control, lineOf(t) + thread.asleep) !== 0) this.signal(t);
  }

  end(): void {
    Atomics.store(this.control, job.expected, 0);
  }

  private isReady(t: number, kernel: number): boolean {
    const kernels = Atomics.load(this.control, lineOf(t) + thread.kernels);
    return kernels > kernel && !this.hasFailed(t);
  }

  /**
   * How many threads to deal a call out to now: up to the last one that has its module. Their argument blocks must be filled
   * before `run`. What belongs to one in between that failed, the others take.
   */
  available({ unit, index, threads }: SharedCall): number {
    let n = Math.min(threads, this.count);
    while (n > 1 && !this.isReady(n - 1, unit.base! + index)) n--;
    return n;
  }

  /** Runs a call on `n` threads; returns the first index out of range, if one is. `memory` is all of it, in words. */
  run(
    call: SharedCall,
    n: number,
    pointer: number | bigint,
    memory: Uint32Array,
  ): FailedPosition | null {
    const { control } = this;
    this.shared++;
    control[job.kernel] = call.unit.base! + call.index;
    control[job.extent] = call.extent;
    control[job.pieces] = call.pieces;
    control[job.threads] = n;
    control[job.args] = call.args | 0;
    control[job.args + 1] = Math.floor(call.args / 4294967296);
    control[job.stride] = call.stride;
    control[job.checks] = call.checks ? 1 : 0;
    for (let t = 0; t < n; t++) {
      control[lineOf(t) + thread.next] = Math.floor((t * call.pieces) / n);
      control[lineOf(t) + thread.errorPiece] = noPiece;
    }
    const { called } = this;
    for (let t = 1; t < n; t++) called[t] = this.hasFailed(t) ? 0 : 1;
    const start = performance.now();
    Atomics.store(control, job.open, 1);
    for (let t = 1; t < n; t++) if (called[t] !== 0) this.signal(t);
    try {
      this.take(call, n, pointer, memory);
    } finally {
      // What was begun is ended before anything else happens to the memory, also if the kernel trapped here.
      Atomics.store(control, job.open, 0);
      for (let t = 1; t < this.count; t++) this.await(t, start);
    }
    for (let t = 1; t < n; t++)
      if (called[t] !== 0 && this.hasFailed(t)) throw this.failure(t, call.name);
    return call.checks ? this.firstFailure(n) : null;
  }

  /** Own pieces, then the other threads' in turn; as in worker.ts. */
  private take(call: SharedCall, n: number, pointer: number | bigint, memory: Uint32Array): void {
    const { control } = this;
    const { extent, pieces, run } = call;
    for (let part = 0; part < n; part++) {
      const end = Math.floor(((part + 1) * pieces) / n);
      const claim = lineOf(part) + thread.next;
      for (;;) {
        const i = Atomics.add(control, claim, 1);
        if (i >= end) break;
        run(Math.floor((i * extent) / pieces), Math.floor(((i + 1) * extent) / pieces), pointer);
        if (call.checks) this.check(i, (call.args + flagOffset) / 4, memory);
      }
    }
  }

  private check(piece: number, flag: number, memory: Uint32Array): void {
    const { control } = this;
    if (memory[flag] === 0) return;
    const at = lineOf(0);
    if (piece < control[at + thread.errorPiece]) {
      control[at + thread.errorPiece] = piece;
      control[at + thread.errorCode] = memory[flag];
      control[at + thread.errorIndex] = memory[flag + 1];
    }
    memory[flag] = 0;
  }

  private firstFailure(n: number): FailedPosition | null {
    const { control } = this;
    let first: number | null = null;
    let lowest: number = noPiece;
    for (let t = 0; t < n; t++) {
      const at = lineOf(t);
      if (control[at + thread.errorPiece] >= lowest) continue;
      lowest = control[at + thread.errorPiece];
      first = at;
    }
    if (first === null) return null;
    return { code: control[first + thread.errorCode], index: control[first + thread.errorIndex] };
  }

  /** Waits until a thread has ended the piece that it took last of a call that began at `begin`. */
  private await(t: number, begin: number): void {
    const { control } = this;
    const at = lineOf(t);
    const busy = at + thread.inside;
    if (Atomics.load(control, busy) === 0) return;
    let last = performance.now();
    // A piece takes others about as long as it took here, but a busy machine may not let them run.
    const patience = (this.options.patience ?? 60_000) + 20 * (last - begin);
    for (let waited = 0; waited < patience; ) {
      for (let i = 0; i < 64; i++) {
        if (Atomics.load(control, busy) === 0) return;
        pause();
      }
      const now = performance.now();
      // Some clocks go on while the machine sleeps.
      waited += Math.min(now - last, 200);
      last = now;
      if (waited < spinMilliseconds || !this.maySleep) continue;
      Atomics.store(control, at + thread.awaited, 1);
      Atomics.wait(control, busy, 1, 100);
      Atomics.store(control, at + thread.awaited, 0);
    }
    // It may be stopped in the middle of a piece. Nothing that it does later may be waited for.
    Atomics.store(control, at + thread.failed, 1);
    Atomics.store(control, busy, 0);
    this.workers[t - 1]?.terminate();
    this.health.reason = "it did not answer";
  }

  private failure(t: number, name: string): DeviceError {
    return new DeviceError(
      describe(
        "wasm",
        `thread ${t} to compute its part of ${name}`,
        this.health.reason || "an error in it",
        "its results are lost; the threads that are left go on. One thread: init({ threads: 1 }), or HINODE_THREADS=1",
      ),
    );
  }

  /** Ends the workers. */
  destroy(): void {
    this.started ??= Promise.resolve();
    for (let t = 1; t < this.count; t++) Atomics.store(this.control, lineOf(t) + thread.failed, 1);
    for (const worker of this.workers) worker?.terminate();
  }
}

const pause: () => void = (Atomics as { pause?: () => void }).pause ?? (() => {});

/**
 * `get(address)` and `set(address, word)`. Workers reach the memory through them only: a view of it would have to be
 * made anew after each growth, of which they are not told.
 */
function wordAccess(address: 32 | 64): Uint8Array {
  const pointer = address === 64 ? "i64" : "i32";
  const get = new Code();
  get.get(0);
  get.memory("i32.load", 0);
  const set = new Code();
  set.get(0);
  set.get(1);
  set.memory("i32.store", 0);
  const functions: FunctionSource[] = [
    { params: [pointer], results: ["i32"], locals: [], body: get, exported: "get" },
    { params: [pointer, "i32"], results: [], locals: [], body: set, exported: "set" },
  ];
  return assemble(functions, { address, shared: true });
}
