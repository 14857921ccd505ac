/**
 * @file One run of a plan as a job of the queue: resolves handles to storages when its turn comes, runs, and fills the
 * handles of the results. Which storage ends up in which handle is decided here, because only then is it known what
 * is shared.
 */
import type { Executable } from "./backend/backend.ts";
import { HinodeError } from "./errors.ts";
import type { Storage } from "./graph/primitives.ts";
import type { Job } from "./queue.ts";
import type { Allocation, Handle, Pending, Pool } from "./storage.ts";

/** What a run reads and writes. */
export interface StepIo {
  readonly inputs: readonly Handle[];
  /** Key and counter of each random leaf. */
  readonly words: Uint32Array;
  /** Inputs that only this run's outputs will hold; it may overwrite them. */
  readonly donate: boolean[];
  readonly outputs: readonly Handle[];
  /** Handles that are filled without being read: freed first, so that old and new never coexist. */
  readonly overwritten?: readonly Handle[];
  /** A result tells of a failure, so state may stay what it was: one bad batch must not cost the parameters. */
  readonly tells?: boolean;
  /** Fresh handle, and the one whose value it keeps when the run is cancelled: state survives an abort. */
  readonly previous?: readonly (readonly [Handle, Handle])[];
}

interface RunCounts {
  runs: number;
  kernelsRun: number;
}

export class Step implements Job {
  readonly step: boolean;
  readonly #pool: Pool;
  readonly #counts: RunCounts;
  readonly #executable: Executable;
  /** Which result of the executable fills outputs[i]. */
  readonly #outputOf: readonly number[];
  readonly #io: StepIo;
  /** The inputs, once the step's turn has come. */
  #storages: Storage[] | undefined;
  /** Inputs whose own run has not ended: if it fails, so does this one. */
  readonly #unsettled: Allocation[] = [];
  /** What this run wrote, once it is submitted. */
  #written: { readonly handle: Handle; readonly allocation: Allocation }[] | undefined;
  /** Called once when the step has run, failed or been cancelled. */
  ended: (() => void) | undefined;

  constructor(
    device: { readonly pool: Pool; readonly counts: RunCounts },
    executable: Executable,
    outputOf: readonly number[],
    io: StepIo,
    counts: boolean,
  ) {
    this.#pool = device.pool;
    this.#counts = device.counts;
    this.#executable = executable;
    this.#outputOf = outputOf;
    this.#io = io;
    this.step = counts;
  }

  prepare(): Promise<void> | undefined {
    const { words, donate, overwritten, previous } = this.#io;
    const storages = (this.#storages ??= this.#resolve());
    // State must not be overwritten with what comes of a failed run; results may, and are failures then.
    const overwrites = previous || overwritten || donate.includes(true);
    const risky = overwrites && this.#unsettled.find(({ pending }) => pending?.mayFail);
    if (risky) return risky.pending!.settled;
    for (const { failure } of this.#unsettled) if (failure !== undefined) throw failure;
    return this.#executable.prepare?.(storages, words, donate);
  }

  #resolve(): Storage[] {
    const { inputs, donate, overwritten } = this.#io;
    const storages = new Array<Storage>(inputs.length);
    for (let i = 0; i < inputs.length; i++) {
      const allocation = inputs[i].read();
      storages[i] = allocation.storage;
      if (allocation.pending) this.#unsettled.push(allocation);
      // Another handle shares it (a plan returned its input), so it must keep its contents.
      if (allocation.refs > 1) donate[i] = false;
    }
    if (overwritten) for (const handle of overwritten) handle.release();
    return storages;
  }

  run(): void | Promise<void> {
    const { words, donate, outputs } = this.#io;
    const results = this.#executable.run(this.#storages!, words, donate);
    const ended = this.#executable.ended?.();
    // Claimed before any handle lets its old value go: a result may lie in another input's storage.
    const written = outputs.map((handle, i) => {
      const storage = results[this.#outputOf[i]];
      const allocation = this.#pool.claim(storage, handle.dtype, handle.shape).retain();
      return { handle, allocation };
    });
    for (const { handle, allocation } of written) handle.fill(allocation);
    this.#counts.runs++;
    this.#counts.kernelsRun += this.#executable.kernels.length;
    for (const { allocation } of written) allocation.release();
    if (!ended) {
      this.ended?.();
      return;
    }
    this.#written = written;
    return this.#follow(ended);
  }

  /** The rest of a run in flight. */
  #follow(ended: Promise<void>): Promise<void> {
    const before = this.#unsettled.map(({ pending }) => pending?.settled);
    const settled = Promise.all([ended, ...before])
      .then(() => {
        for (const { failure } of this.#unsettled) if (failure !== undefined) throw failure;
        this.ended?.();
      })
      .catch((error) => this.fail(error))
      .finally(() => {
        for (const { allocation } of this.#written!)
          if (allocation.pending === pending) allocation.pending = null;
      });
    const mayFail =
      this.#executable.mayFail === true || this.#unsettled.some(({ pending }) => pending?.mayFail);
    const kept = this.#kept();
    const pending: Pending = { settled, mayFail };
    const safe: Pending = mayFail ? { settled, mayFail: false } : pending;
    for (const { handle, allocation } of this.#written!)
      allocation.pending = kept.has(handle) ? safe : pending;
    return settled;
  }

  fail(error: unknown): void {
    const intact = this.#io.tells && error instanceof HinodeError && error.stateIntact;
    if (this.#written) {
      // Already filled: state whose kernels were held back has the old value in the new storage.
      const kept = intact ? this.#kept() : new Set<Handle>();
      for (const { handle, allocation } of this.#written)
        if (!kept.has(handle)) allocation.failure ??= error;
      this.ended?.();
      return;
    }
    // What would have been overwritten without being read was freed before the run.
    if (intact) this.#restore(error, this.#io.inputs);
    else {
      for (const handle of this.#io.outputs) handle.error = error;
      this.ended?.();
    }
  }

  /** Handles of state: what a failed run leaves as it was. */
  #kept(): Set<Handle> {
    const { inputs, previous = [] } = this.#io;
    return new Set([...inputs, ...previous.map(([fresh]) => fresh)]);
  }

  cancel(reason: unknown): void {
    this.#restore(reason, [...this.#io.inputs, ...(this.#io.overwritten ?? [])]);
  }

  /** Leaves state as it was before the run; what the run was to make becomes an error. */
  #restore(reason: unknown, untouched: readonly Handle[]): void {
    const { outputs, previous = [] } = this.#io;
    const kept = new Set<Handle>(untouched);
    for (const [fresh, old] of previous) {
      kept.add(fresh);
      fresh.error = old.error;
      if (old.allocation) fresh.fill(old.allocation);
    }
    for (const handle of outputs) if (!kept.has(handle)) handle.error = reason;
    this.ended?.();
  }
}
