/**
 * @file Who owns device memory. A `Handle` is what leaves and realised nodes hold: a value that exists once its
 * job has run. It points at an `Allocation`, the backend's storage with a count, because one storage may serve
 * several handles (a plan whose output is its input). Handles are freed by the garbage collector, or by dispose().
 */
import type { Backend } from "./backend/backend.ts";
import { type DType, dtypes } from "./dtype.ts";
import { HinodeError } from "./errors.ts";
import type { DeviceName } from "./graph/node.ts";
import type { Storage } from "./graph/primitives.ts";
import { formatShape, numel, type Shape } from "./shape.ts";

/** A run on an asynchronous device. */
export interface Pending {
  /** Resolves when it has ended and its failure, if any, is written down. */
  readonly settled: Promise<void>;
  /** It may fail in a way that leaves state as it was: who overwrites state with what it made has to wait. */
  readonly mayFail: boolean;
}

export class Allocation {
  readonly storage: Storage;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly pool: Pool;
  /** The run in flight that writes it, while that is not known to have succeeded. */
  pending: Pending | null = null;
  /** Why that run failed after it was submitted; whoever reads the value is told. */
  failure: unknown = undefined;
  /** The tensor's name, for the list that an OutOfMemoryError prints. */
  name: string | undefined;
  refs = 0;

  constructor(storage: Storage, dtype: DType, shape: Shape, pool: Pool, name?: string) {
    this.storage = storage;
    this.dtype = dtype;
    this.shape = shape;
    this.pool = pool;
    this.name = name;
    pool.add(this);
  }

  retain(): this {
    this.refs++;
    return this;
  }

  release(): void {
    if (--this.refs > 0) return;
    this.pool.remove(this);
  }
}

/** The allocations of one device. */
export class Pool {
  readonly backend: Backend;
  readonly live = new Map<Storage, Allocation>();
  /** Bytes of all live allocations. */
  bytes = 0;

  constructor(backend: Backend) {
    this.backend = backend;
  }

  add(allocation: Allocation): void {
    this.live.set(allocation.storage, allocation);
    this.bytes += allocation.storage.bytes;
  }

  remove(allocation: Allocation): void {
    this.live.delete(allocation.storage);
    this.bytes -= allocation.storage.bytes;
    this.backend.free(allocation.storage);
  }

  /** The allocation of a storage that a run returned: an input's own, or a new one. */
  claim(storage: Storage, dtype: DType, shape: Shape): Allocation {
    return this.live.get(storage) ?? new Allocation(storage, dtype, shape, this);
  }

  /** The `count` largest live values, one line each. */
  largest(count: number): string {
    const sorted = [...this.live.values()].sort((a, b) => b.storage.bytes - a.storage.bytes);
    const lines = sorted
      .slice(0, count)
      .map(
        (a) =>
          `  ${a.name ?? "(unnamed)"} ${a.dtype}${formatShape(a.shape)} ${a.storage.bytes} bytes`,
      );
    const rest = sorted.length - lines.length;
    return lines.join("\n") + (rest > 0 ? `\n  … and ${rest} more` : "");
  }
}

/** What the registry keeps of a dead handle: never the handle itself, or it could not die. */
interface Hold {
  allocation: Allocation | null;
}

const registry = new FinalizationRegistry<Hold>((hold) => {
  hold.allocation?.release();
  hold.allocation = null;
});

export class Handle implements Storage {
  readonly device: DeviceName;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly bytes: number;
  /** Why the job that should have filled it failed; every later read throws the same error. */
  error: unknown = undefined;
  disposed = false;
  /** A node with this value must keep its sources: backward may pass through it. */
  history = false;
  /** Scratch of the replay that last used it as an argument (compile.ts). */
  stamp = 0;
  #name: string | undefined;
  readonly #hold: Hold = { allocation: null };

  constructor(device: DeviceName, dtype: DType, shape: Shape) {
    this.device = device;
    this.dtype = dtype;
    this.shape = shape;
    this.bytes = numel(shape) * dtypes[dtype].bytes;
    registry.register(this, this.#hold, this);
  }

  /** The tensor's name, for messages. */
  set name(name: string | undefined) {
    this.#name = name;
    if (this.#hold.allocation) this.#hold.allocation.name = name;
  }

  get allocation(): Allocation | null {
    return this.#hold.allocation;
  }

  /** Gives the handle its value, or its next one: a step that updates in place fills it again and again. */
  fill(allocation: Allocation): void {
    this.error = undefined;
    if (allocation === this.#hold.allocation) return;
    allocation.retain();
    this.#hold.allocation?.release();
    this.#hold.allocation = allocation;
    if (this.#name !== undefined) allocation.name = this.#name;
  }

  /** What went wrong; undefined if nothing did. */
  get failure(): unknown {
    const { allocation } = this.#hold;
    return this.error ?? allocation?.pool.backend.lost ?? allocation?.failure;
  }

  /** The backend's storage; throws what went wrong if there is none. */
  read(): Allocation {
    const { allocation } = this.#hold;
    const { failure } = this;
    if (failure !== undefined) throw failure;
    if (!allocation)
      throw new HinodeError(
        `a ${this.dtype}${formatShape(this.shape)} value was read after dispose()`,
      );
    return allocation;
  }

  /** Frees the storage now; jobs that are queued before must have run (Device.dispose sees to it). */
  release(): void {
    this.#hold.allocation?.release();
    this.#hold.allocation = null;
  }
}
