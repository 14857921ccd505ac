/**
 * @file One run of a plan as a job of the queue: resolves handles to storages when its turn comes, runs, and fills the
 * handles of the results. Which storage ends up in which handle is decided here, because only then is it known what
 * is shared.
 */
import type { Executable } from "./backend/backend.ts";
import { HinodeError } from "./errors.ts";
import type { Storage } from "./graph/primitives.ts";
import type { Job } from "./queue.ts";
import type { Allocation, Handle, Pool } from "./storage.ts";

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

  run(): void {
    const { inputs, words, donate, outputs, overwritten } = this.#io;
    const storages = new Array<Storage>(inputs.length);
    for (let i = 0; i < inputs.length; i++) {
      const allocation = inputs[i].read();
      storages[i] = allocation.storage;
      // Another handle shares it (a plan returned its input), so it must keep its contents.
      if (allocation.refs > 1) donate[i] = false;
    }
    if (overwritten) for (const handle of overwritten) handle.release();
    const results = this.#executable.run(storages, words, donate);
    // Claimed before any handle lets its old value go: a result may lie in another input's storage.
    const claimed: Allocation[] = [];
    const filled: Handle[] = [];
    for (let i = 0; i < outputs.length; i++) {
      const handle = outputs[i];
      const storage = results[this.#outputOf[i]];
      if (handle.allocation?.storage === storage) continue;
      claimed.push(this.#pool.claim(storage, handle.dtype, handle.shape).retain());
      filled.push(handle);
    }
    for (let i = 0; i < filled.length; i++) filled[i].fill(claimed[i]);
    for (const allocation of claimed) allocation.release();
    this.#counts.runs++;
    this.#counts.kernelsRun += this.#executable.kernels.length;
    this.ended?.();
  }

  fail(error: unknown): void {
    if (this.#io.tells && error instanceof HinodeError && error.stateIntact) {
      // What would have been overwritten without being read was freed before the run.
      this.#restore(error, this.#io.inputs);
      return;
    }
    for (const handle of this.#io.outputs) handle.error = error;
    this.ended?.();
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
