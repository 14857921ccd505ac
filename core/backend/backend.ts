/** @file What a device must do: run canonical graphs on storages, in the order of the calls. */
import type { DType, TypedArray } from "../dtype.ts";
import type { DeviceName, Node } from "../graph/node.ts";
import type { Storage } from "../graph/primitives.ts";
import type { KernelKind } from "../kernel/ir.ts";
import type { Footprint } from "../schedule/footprint.ts";

/**
 * A graph ready for planning: simplified by nothing yet, interned, leaves numbered by first use. `inputs[i]` is the
 * placeholder of slot i, `randoms[i]` the random leaf whose (key0, key1, counter) are run-time words 3i … 3i+2.
 */
export interface CanonicalGraph {
  readonly key: string;
  readonly inputs: readonly Node<"placeholder">[];
  readonly randoms: readonly Node<"random">[];
  readonly outputs: readonly Node[];
}

export interface KernelReport {
  readonly name: string;
  /** "runtime": what a device does between kernels; "primitive": a node of the graph, computed as it is. */
  readonly kind: KernelKind | "runtime" | "primitive";
  readonly bytes: number;
  readonly flops: number;
  /** Why each value that this kernel writes was materialised. */
  readonly writes: readonly {
    readonly shape: readonly number[];
    readonly dtype: DType;
    readonly reason: string;
  }[];
  /** The printed kernel language. */
  readonly source: string;
}

/** A planned graph. */
export interface Executable {
  readonly kernels: readonly KernelReport[];
  readonly scratchBytes: number;
  /** Memory while it runs, all of it, and the least for any order of the kernels; not where nothing is planned. */
  footprint?(): Footprint;
  /** Whether a run may fail after it was submitted, by the values that it meets. */
  readonly mayFail?: boolean;
  /**
   * Devices that run asynchronously: gets what the next run needs (compiled kernels, memory). While it returns a
   * promise, that is to be awaited, and then it is to be asked again.
   */
  prepare?(
    inputs: readonly Storage[],
    words: Uint32Array,
    donate: readonly boolean[],
  ): Promise<void> | undefined;
  /**
   * Runs on the device. `donate[i]`: nobody else can read inputs[i] any more, its storage may be overwritten and
   * returned as an output. Returns one storage per output; an output may be an input's storage itself. On an
   * asynchronous device the run is then only submitted, and later work finds its results.
   */
  run(inputs: readonly Storage[], words: Uint32Array, donate: readonly boolean[]): Storage[];
  /** Asynchronous devices: resolves when the last run has ended; rejects with what went wrong in it. */
  ended?(): Promise<void> | undefined;
}

export interface Backend {
  readonly name: DeviceName;
  /** Values arrive after the call: `download` returns a promise. */
  readonly asynchronous?: boolean;
  /** Why nothing works any more and every storage is gone; null or undefined while it does. */
  readonly lost?: Error | null;
  /** The largest tensor in bytes, if there is a limit. */
  readonly maxBindingBytes?: number;
  prepare(graph: CanonicalGraph): Executable;
  /** Copies host data to a new storage. */
  upload(data: TypedArray, dtype: DType): Storage;
  /** Copies a storage to the host, as it is after everything that was run before. */
  download(storage: Storage, dtype: DType, size: number): TypedArray | Promise<TypedArray>;
  /** Gives a storage back; freeing twice is harmless. */
  free(storage: Storage): void;
  /** Bytes of live storages, and the arena's size. */
  memory(): { readonly liveBytes: number; readonly reservedBytes: number };
  /** Gives the hardware back; the backend is lost then. */
  destroy?(): void;
}
