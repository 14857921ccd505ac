/**
 * @file Who watches the runs of executables: nobody, or the profiler. Backends ask once per run, so watching costs nothing
 * while it is off; what is done with the times is profile.ts's concern.
 */
import type { DeviceName } from "../graph/node.ts";
import type { KernelReport } from "./backend.ts";

/** What is told of a kernel that is no plan's: the runtime's own, or a primitive of the reference. */
export type Timed = Pick<KernelReport, "name" | "kind" | "bytes" | "flops">;

/** One call of a kernel. */
export interface KernelTime {
  readonly kernel: Timed;
  /** Milliseconds on the clock of its run. */
  readonly start: number;
  readonly end: number;
}

/** One run of an executable. */
export interface RunTime {
  readonly device: DeviceName;
  /** Milliseconds of performance.now() when the host began it, and when it was computed or submitted. */
  readonly start: number;
  readonly submitted: number;
  /** In the order of execution; null where the device cannot tell. */
  readonly kernels: readonly KernelTime[] | null;
  /** Whose clock the kernels' times are on; a GPU's begins anywhere. */
  readonly clock: "cpu" | "gpu";
  /** Nanoseconds that all times of kernels are multiples of; 0 where nothing is known of it. */
  readonly resolution: number;
  /** How often each kernel ran, also where its time is not known. */
  readonly calls: readonly Timed[];
}

export interface Observer {
  /** Whether kernels are to be timed one by one, which slows a GPU down a little. */
  readonly kernels: boolean;
  /** Called in the order in which runs end; on a GPU before the run's promise is settled. */
  run(run: RunTime): void;
}

/** The one that watches now. */
export let observer: Observer | null = null;

export function observe(by: Observer | null): void {
  observer = by;
}

/** A run on the CPU, which ends now. */
export function cpuRun(device: DeviceName, start: number, kernels: readonly KernelTime[]): RunTime {
  const calls = kernels.map(({ kernel }) => kernel);
  return {
    device,
    start,
    submitted: performance.now(),
    kernels,
    clock: "cpu",
    resolution: 0,
    calls,
  };
}
