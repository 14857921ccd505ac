/**
 * @file profile(fn): how long each kernel takes that fn makes the devices run, in its own time, its share of the whole and,
 * on request, of what the device can do at most. Backends tell of runs (backend/observe.ts); this file repeats, adds up and
 * takes medians; profile-format.ts prints. As explain(), it names kernels by what they compute.
 */
import type { KernelReport } from "./backend/backend.ts";
import { type Observer, observe, type RunTime, type Timed } from "./backend/observe.ts";
import { type Device, deviceNamed, devices } from "./device.ts";
import { ArgumentError, describe } from "./errors.ts";
import type { DeviceName } from "./graph/node.ts";
import { formatProfile } from "./profile-format.ts";
import { chromeTrace } from "./profile-trace.ts";
import { realize } from "./realize.ts";
import { type Roofline, rooflineOf } from "./roofline.ts";
import { flatten } from "./tree.ts";

export interface ProfileOptions {
  /** Calls that are not measured: they trace, compile kernels, fill caches. Default 2. */
  readonly warmup?: number;
  /** Calls that are. Default 5. */
  readonly runs?: number;
  /** Also measures, once per device, what it can do at most; kernels are then compared with that. */
  readonly roofline?: boolean;
}

/** All calls of one kernel. */
export interface KernelProfile {
  readonly device: DeviceName;
  readonly kind: KernelReport["kind"];
  readonly name: string;
  /** In one call of fn. */
  readonly calls: number;
  /** Of all its calls in one call of fn; null: the device does not tell times of kernels. */
  readonly milliseconds: number | null;
  /** Moved and computed by one call of the kernel. */
  readonly bytes: number;
  readonly flops: number;
  /** Of the time of all kernels, 0 … 1. */
  readonly share: number | null;
  /** The least time in which the device could have done it, as a share of the time it took. */
  readonly roofline: number | null;
}

/** What kernels cost; times, calls, bytes and flops are those of one call of fn. */
export interface Profile {
  /** The name of fn. */
  readonly name: string;
  readonly runs: number;
  /** The most expensive first. */
  readonly kernels: readonly KernelProfile[];
  /** From the call of fn until everything that it began had ended. */
  readonly milliseconds: number;
  /** Of these, the time in kernels; null where a device does not tell. */
  readonly kernelMilliseconds: number | null;
  /** What the host adds: on the CPU all that is in no kernel, elsewhere the time to launch plans. */
  readonly hostMilliseconds: number;
  readonly calls: number;
  readonly bytes: number;
  readonly flops: number;
  /** Milliseconds that the times of kernels are multiples of, if known: where coarse, they are means, not medians. */
  readonly resolution: number;
  /** By device, if asked for. */
  readonly rooflines: ReadonlyMap<DeviceName, Roofline>;
  /** The kernels as a table. */
  toString(): string;
  /** The measured calls as JSON for chrome://tracing or ui.perfetto.dev. */
  chromeTrace(): string;
}

/** One measured call of fn. */
export interface Call {
  readonly start: number;
  readonly end: number;
  readonly runs: readonly RunTime[];
}

/** Nanoseconds. Times much shorter than a step of the clock say nothing one by one, but their mean does. */
export const coarse = 1000;

/** The step of the clock of several runs, in nanoseconds. */
export function resolutionOf(runs: readonly RunTime[]): number {
  let step = 0;
  for (const { resolution } of runs) for (let b = resolution; b !== 0; ) [step, b] = [b, step % b];
  return step;
}

/** What stands for several measurements of the same. */
export const typical = (values: readonly number[], resolution: number): number =>
  resolution > coarse ? total(values) / values.length : median(values);

let busy = false;

/**
 * Calls `fn` several times and measures the kernels that run meanwhile: those of compiled functions, of values that it reads, and
 * of the tensors that it returns, which are computed as if they were read. `fn` may be asynchronous. A tensor is computed
 * once, so what is to be measured must be made in `fn`.
 *
 * Times are the device's: GPU timestamps where there are some, the processor's elsewhere. Kernels of a GPU are kept apart
 * to be timed, so that together they may take a little longer than unobserved.
 */
export async function profile(
  fn: () => unknown,
  { warmup = 2, runs = 5, roofline = false }: ProfileOptions = {},
): Promise<Profile> {
  if (busy)
    throw new ArgumentError(
      describe("profile", "one profile at a time", "a call within or beside another"),
    );
  if (!Number.isInteger(runs) || runs < 1 || !Number.isInteger(warmup) || warmup < 0)
    throw new ArgumentError(
      describe("profile", "runs of at least 1, warmup of at least 0", `${runs}, ${warmup}`),
    );
  busy = true;
  try {
    for (let i = 0; i < warmup; i++) await once(fn);
    const calls: Call[] = [];
    for (let i = 0; i < runs; i++) calls.push(await observed(() => once(fn)));
    const used = new Set(calls.flatMap((call) => call.runs.map((run) => run.device)));
    const rooflines = new Map<DeviceName, Roofline>();
    if (roofline)
      for (const name of used) {
        const found = await rooflineOf(deviceNamed(name), observed);
        if (found) rooflines.set(name, found);
      }
    return summary(fn.name || "function", calls, rooflines);
  } finally {
    busy = false;
  }
}

const settled = () => Promise.all(devices().map((device: Device) => device.ready()));

/** One call of fn, to the end of what it began. */
async function once(fn: () => unknown): Promise<{ start: number; end: number }> {
  const start = performance.now();
  await realize(...flatten(await fn()).tensors);
  await settled();
  return { start, end: performance.now() };
}

/** What the devices run during `work`. */
async function observed(work: () => Promise<{ start: number; end: number }>): Promise<Call> {
  const runs: RunTime[] = [];
  const observer: Observer = { kernels: true, run: (run) => void runs.push(run) };
  // What was begun before is none of fn's.
  await settled();
  observe(observer);
  try {
    return { ...(await work()), runs };
  } finally {
    observe(null);
  }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const total = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

function hostTime({ start, end, runs }: Call): number {
  if (runs.some((run) => run.clock !== "cpu"))
    return total(runs.map((run) => run.submitted - run.start));
  const kernels = runs.flatMap((run) => run.kernels ?? []);
  return end - start - total(kernels.map((k) => k.end - k.start));
}

interface Row {
  readonly device: DeviceName;
  readonly kernel: Timed;
  calls: number;
  /** For each call of fn. */
  readonly times: number[];
  timed: boolean;
}

function summary(
  name: string,
  calls: readonly Call[],
  rooflines: ReadonlyMap<DeviceName, Roofline>,
): Profile {
  const rows = new Map<string, Row>();
  const rowOf = (device: DeviceName, kernel: Timed): Row => {
    const key = [device, kernel.kind, kernel.name, kernel.bytes, kernel.flops].join();
    let row = rows.get(key);
    if (!row) {
      row = { device, kernel, calls: 0, times: calls.map(() => 0), timed: true };
      rows.set(key, row);
    }
    return row;
  };
  for (const [i, call] of calls.entries())
    for (const { device, kernels, calls: called } of call.runs) {
      for (const kernel of called) {
        const row = rowOf(device, kernel);
        row.calls++;
        if (!kernels) row.timed = false;
      }
      for (const { kernel, start, end } of kernels ?? [])
        rowOf(device, kernel).times[i] += end - start;
    }
  const resolution = resolutionOf(calls.flatMap((c) => c.runs));
  const times = new Map(
    [...rows.values()].map((r) => [r, r.timed ? typical(r.times, resolution) : null]),
  );
  const whole = [...times.values()].includes(null)
    ? null
    : total([...times.values()].map((t) => t!));
  const kernels = [...times].map(([row, milliseconds]): KernelProfile => {
    const { bytes, flops } = row.kernel;
    const perRun = row.calls / calls.length;
    const limit = rooflines.get(row.device);
    const least = limit
      ? Math.max(bytes / limit.bytesPerSecond, flops / limit.flopsPerSecond) * perRun * 1000
      : null;
    return {
      device: row.device,
      kind: row.kernel.kind,
      name: row.kernel.name,
      calls: perRun,
      milliseconds,
      bytes,
      flops,
      share: milliseconds !== null && whole ? milliseconds / whole : null,
      roofline: least !== null && milliseconds ? least / milliseconds : null,
    };
  });
  kernels.sort(
    (a, b) =>
      (b.milliseconds ?? 0) - (a.milliseconds ?? 0) || b.bytes * b.calls - a.bytes * a.calls,
  );
  const result = {
    name,
    runs: calls.length,
    kernels,
    milliseconds: median(calls.map(({ start, end }) => end - start)),
    kernelMilliseconds: whole,
    hostMilliseconds: median(calls.map(hostTime)),
    calls: total(kernels.map((k) => k.calls)),
    bytes: total(kernels.map((k) => k.bytes * k.calls)),
    flops: total(kernels.map((k) => k.flops * k.calls)),
    resolution: resolution / 1e6,
    rooflines,
  };
  return {
    ...result,
    toString: () => formatProfile(result),
    chromeTrace: () => chromeTrace(name, calls),
  };
}
