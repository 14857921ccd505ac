/**
 * @file Devices: a backend with its queue, its plan cache and its memory. A device takes nodes (or, from compile.ts,
 * a finished plan) and gives handles that are filled when the job has run; a device knows nothing of tensor cells.
 * It also decides when garbage is collected, as only results that the program holds rely on the collector.
 */
import { isAnomalyEnabled } from "./anomaly.ts";
import type { Backend, CanonicalGraph, Executable } from "./backend/backend.ts";
import { ReferenceBackend } from "./backend/reference.ts";
import { WasmBackend } from "./backend/wasm/backend.ts";
import {
  type AdapterInfo,
  type AdapterOptions,
  describeAdapter,
  requestGpu,
} from "./backend/webgpu/adapter.ts";
import { WebGpuBackend } from "./backend/webgpu/backend.ts";
import { type Canonical, canonicalize } from "./canonical.ts";
import { cells, pendingCells } from "./cells.ts";
import { checkedPlan } from "./diagnose.ts";
import type { DType, TypedArray } from "./dtype.ts";
import { DeviceError, describe, LimitError, OutOfMemoryError, TransformError } from "./errors.ts";
import { type DeviceName, is, type Node } from "./graph/node.ts";
import type { Tiles } from "./kernel/gpu/tuned.ts";
import { nextTurn, Queue } from "./queue.ts";
import { formatShape, numel, type Shape } from "./shape.ts";
import { Step, type StepIo } from "./step.ts";
import { type Allocation, Handle, Pool } from "./storage.ts";

const MAX_PLANS = 256;
/** Live bytes may grow by this much, or double, before a collection is tried. */
const COLLECT_AFTER = 64 * 2 ** 20;
/** Finalizers run in their own macrotasks after a collection. */
const TURNS_AFTER_COLLECTION = 4;

/** Realised values of nodes that are no leaves: a side table, so realising replaces no node. */
const realised = new WeakMap<Node, Handle>();

/** The value of a node that has one: a buffer leaf, or a result that was realised and not disposed of. */
export function handleOf(n: Node): Handle | undefined {
  if (is(n, "buffer")) return n.attrs.storage as Handle;
  const handle = realised.get(n);
  return handle?.disposed ? undefined : handle;
}

/** What an assignment, or a chain of them, started from: the version that is stored. */
export function firstVersion(n: Node): Node {
  let first = n;
  while (is(first, "assign")) first = first.src[0];
  return first;
}

export function attach(n: Node, handle: Handle): void {
  if (n.op !== "buffer" && !handleOf(n)) realised.set(n, handle);
}

export interface EvaluateOptions {
  /** May append to the roots: called for each node below them that a cell owns. */
  readonly owned?: (node: Node) => void;
  readonly signal?: AbortSignal;
  /** Whether the run counts as a step that nobody awaits. */
  readonly counts: boolean;
}

export class Device {
  readonly name: DeviceName;
  readonly backend: Backend;
  readonly pool: Pool;
  readonly queue: Queue;
  readonly counts = { plansPrepared: 0, planCacheHits: 0, kernelsRun: 0, runs: 0, collections: 0 };
  readonly #plans = new Map<string, Executable>();
  /** Live bytes after the last collection. */
  #floor = 0;

  constructor(backend: Backend) {
    this.name = backend.name;
    this.backend = backend;
    this.pool = new Pool(backend);
    this.queue = new Queue({
      pressed: () => this.pool.bytes > this.#floor + Math.max(COLLECT_AFTER, this.#floor),
      collect: () => this.collect(),
      explain: (error) => this.#explain(error),
    });
  }

  /** Waits until everything that is queued has run. Aborting cancels what was not submitted, and rejects. */
  ready({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    return this.queue.ready(signal);
  }

  memory(): { liveBytes: number; reservedBytes: number; liveTensors: number } {
    return { ...this.backend.memory(), liveTensors: this.pool.live.size };
  }

  /** Counters since the device was made. */
  statistics(): Readonly<Device["counts"]> {
    return { ...this.counts };
  }

  /** Collects garbage where the host allows it, and lets finalizers give storages back. */
  async collect(): Promise<void> {
    this.counts.collections++;
    garbageCollector()?.();
    for (let i = 0; i < TURNS_AFTER_COLLECTION; i++) await nextTurn();
    this.#floor = this.pool.bytes;
  }

  /** The plan of a canonical graph, from the cache if it was prepared before. */
  plan<Slot extends object>(graph: Canonical<Slot>): Executable {
    if (!isAnomalyEnabled()) return this.#planOf(graph);
    return checkedPlan(this.backend, graph.build, () => this.#planOf(graph));
  }

  #planOf<Slot extends object>(graph: Canonical<Slot>): Executable {
    const known = this.#plans.get(graph.key);
    if (known) {
      // Least recently used first: a Map iterates in the order of insertion.
      this.#plans.delete(graph.key);
      this.#plans.set(graph.key, known);
      this.counts.planCacheHits++;
      return known;
    }
    const executable = this.#prepare(graph.build());
    this.counts.plansPrepared++;
    this.#plans.set(graph.key, executable);
    if (this.#plans.size > MAX_PLANS) this.#plans.delete(this.#plans.keys().next().value!);
    return executable;
  }

  #prepare(graph: CanonicalGraph): Executable {
    try {
      return this.backend.prepare(graph);
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
    }
    // Plans need memory too. The queue collects garbage before a run and tries again, so preparing waits for it.
    let made: Executable | undefined;
    return {
      get kernels() {
        return made?.kernels ?? [];
      },
      get scratchBytes() {
        return made?.scratchBytes ?? 0;
      },
      footprint: () => made?.footprint?.() ?? { peakBytes: 0, leastBytes: 0 },
      prepare: (...args) => (made ??= this.backend.prepare(graph)).prepare?.(...args),
      run: (...args) => (made ??= this.backend.prepare(graph)).run(...args),
      ended: () => made!.ended?.(),
    };
  }

  /** Canonicalises what `roots` need, given what is realised. */
  canonical(roots: readonly Node[], owned?: (node: Node) => void): Canonical<Handle> {
    return canonicalize(roots, {
      slotOf: (n) => {
        if (n.op === "placeholder") refusePlaceholder(n);
        return handleOf(n);
      },
      // A leaf cuts history, except that it may itself want a gradient.
      hasHistory: (handle, n) =>
        (n.op !== "buffer" && handle.history) || (n.owner?.requiresGrad ?? false),
      owned,
      // A fresh value also heals a cell whose version before failed.
      pure: true,
    });
  }

  /** Enqueues what computes `roots`; returns a handle of its own for each. */
  evaluate(roots: readonly Node[], { owned, signal, counts }: EvaluateOptions): Handle[] {
    signal?.throwIfAborted();
    const graph = this.canonical(roots, owned);
    const executable = this.plan(graph);
    const words = new Uint32Array(3 * graph.randoms.length);
    for (const [i, { attrs }] of graph.randoms.entries())
      words.set([attrs.key[0], attrs.key[1], attrs.counter], 3 * i);
    const outputs = roots.map((n, i) => {
      const handle = new Handle(this.name, n.dtype, n.shape);
      handle.history = graph.history[i];
      return handle;
    });
    const donate = graph.slots.map(() => false);
    const previous = roots.flatMap((n, i) => {
      const old = is(n, "assign") && handleOf(firstVersion(n));
      return old ? [[outputs[i], old] as const] : [];
    });
    const io = { inputs: graph.slots, words, donate, outputs, previous };
    this.submit(executable, graph.outputOf, io, counts, signal);
    return outputs;
  }

  /** Gives the device back. Whatever is queued, and every later use of its tensors, fails; init() makes a new one. */
  destroy(): void {
    this.backend.destroy?.();
  }

  /** Enqueues a run; `outputOf[i]` is the result that fills `io.outputs[i]`. */
  submit(
    executable: Executable,
    outputOf: readonly number[],
    io: StepIo,
    counts: boolean,
    signal?: AbortSignal,
  ): void {
    const step = new Step(this, executable, outputOf, io, counts);
    this.queue.enqueue(step);
    if (!signal) return;
    const abort = () => this.queue.cancel((job) => job === step, signal.reason);
    signal.addEventListener("abort", abort);
    step.ended = () => signal.removeEventListener("abort", abort);
  }

  /** A copy of the data on the device, at the call; waits for memory only if there is none. */
  upload(data: TypedArray, dtype: DType, shape: Shape): Handle {
    const handle = new Handle(this.name, dtype, shape);
    const { maxBindingBytes = Infinity } = this.backend;
    if (handle.bytes > maxBindingBytes)
      throw new LimitError(
        describe(
          "tensor",
          `at most ${maxBindingBytes} bytes on ${this.name}`,
          `${dtype}${formatShape(shape)}, ${handle.bytes} bytes`,
          "split it, or use a narrower dtype",
        ),
      );
    const send = (source: TypedArray) =>
      handle.fill(this.pool.claim(this.backend.upload(source, dtype), dtype, shape));
    try {
      send(data);
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      const copy = data.slice();
      const fail = (e: unknown) => {
        handle.error = e;
      };
      this.queue.enqueue({ step: false, run: () => send(copy), fail, cancel: fail });
    }
    return handle;
  }

  /** Reads a value as it is after everything that is queued. */
  read(handle: Handle): Promise<TypedArray> {
    return new Promise((resolve, reject) => {
      const deliver = async (data: Promise<TypedArray>, allocation: Allocation) => {
        const { pending } = allocation;
        const value = await data;
        await pending?.settled;
        if (allocation.failure !== undefined) throw allocation.failure;
        return value;
      };
      const run = () => {
        const allocation = handle.read();
        const data = this.backend.download(allocation.storage, handle.dtype, numel(handle.shape));
        resolve("then" in data ? deliver(data, allocation) : data);
      };
      if (this.queue.idle) run();
      else this.queue.enqueue({ step: false, run, fail: reject, cancel: reject });
    });
  }

  /** Resolves when the handles are filled; rejects with what went wrong. */
  finished(handles: readonly Handle[]): Promise<void> {
    return new Promise((resolve, reject) => {
      const check = () => {
        const failed = handles.find((h) => h.failure !== undefined);
        if (failed) reject(failed.failure);
        else resolve();
      };
      const run = () => void (this.queue.settled()?.then(check) ?? check());
      this.queue.enqueue({ step: false, run, fail: reject, cancel: reject });
    });
  }

  /** Frees a value as soon as the jobs that read it were submitted. */
  dispose(handle: Handle): void {
    if (handle.disposed) return;
    handle.disposed = true;
    const run = () => handle.release();
    if (this.queue.idle) run();
    else this.queue.enqueue({ step: false, run, fail: run, cancel: run });
  }

  #explain(error: OutOfMemoryError): OutOfMemoryError {
    const message = `${error.message}\nthe largest live values on ${this.name}:\n${this.pool.largest(10)}`;
    return new OutOfMemoryError(message, { cause: error });
  }
}

export function refusePlaceholder(n: Node): never {
  const { name } = (n as Node<"placeholder">).attrs;
  throw new TransformError(
    describe(
      "realize",
      "values that are known",
      `one that depends on a traced parameter ${name && `"${name}" `}${n.dtype}${formatShape(n.shape)}`,
      "a traced value inside compile, vmap, jvp or scan cannot be read, nor kept after the call: return it",
    ),
  );
}

let collector: (() => void) | null | undefined;

/** The engine's collector where one can be had: in Node also without --expose-gc. */
function garbageCollector(): (() => void) | null {
  if (collector !== undefined) return collector;
  const global = globalThis as { gc?: () => void };
  if (typeof global.gc === "function") return (collector = global.gc);
  try {
    const v8 = globalThis.process?.getBuiltinModule?.("node:v8");
    const vm = globalThis.process?.getBuiltinModule?.("node:vm");
    v8?.setFlagsFromString("--expose-gc");
    collector = (vm?.runInNewContext("gc") as (() => void) | undefined) ?? null;
  } catch {
    collector = null;
  }
  return collector;
}

export interface DeviceOptions extends AdapterOptions {
  /** "auto" takes a GPU if there is one, else WebAssembly; it never takes a GPU that is computed on the CPU. */
  device?: DeviceName | "auto";
  /** Bytes that tensors may take on the device. wasm: 4 GiB unless given, at most 16 GiB. */
  budget?: number;
  /** Address width of the generated WebAssembly: 32 unless given, 64 for budgets above 4 GiB. Products then take 2 to 3 times as long. */
  address?: 32 | 64;
  /**
   * wasm: threads to compute on, with the caller's own; results are the same for any number. Default: HINODE_THREADS, else
   * all that the machine runs at once. Pages have one unless they are cross-origin isolated.
   */
  threads?: number;
  /** webgpu: forms of matrix products that were measured on its adapter (`npm run tune:gpu`, deviceInfo().tiles). */
  tiles?: Tiles;
  /**
   * webgpu: measures the matrix products that `tiles` lacks, each before the first run of a plan that has it. That run
   * takes some seconds longer; keep deviceInfo().tiles for the next start.
   */
  autotune?: boolean;
}

export interface DeviceInfo {
  readonly name: DeviceName;
  /** Why it is this one, in a line. */
  readonly reason: string;
  /** wasm: threads that it computes on, the caller's own among them. */
  readonly threads?: number;
  /** webgpu: the adapter, and the limits and optional features that its device has. */
  readonly adapter?: AdapterInfo;
  readonly limits?: Readonly<Record<string, number>>;
  readonly features?: readonly string[];
  /** webgpu: the measured forms of matrix products that it uses, for init({ tiles }). */
  readonly tiles?: Tiles;
}

const made = new Map<DeviceName, Device>();
let chosen: { readonly device: Device; readonly reason: string } | undefined;
/** Why "auto" has no GPU, once init() has looked for one. */
let noGpu = "init() was not awaited, and only it finds GPUs";

/** Makes `device` the one of its name: for backends with other settings than init() offers, before any tensor. */
export function registerDevice(device: Device): void {
  // What is pending on the one before can be had only there.
  for (const cell of pendingCells)
    if (cells.peek(cell).device === device.name) pendingCells.delete(cell);
  made.set(device.name, device);
  if (chosen?.device.name === device.name) chosen = { device, reason: chosen.reason };
}

/** The device of a name; made when it is first asked for, except that GPUs are found by init(). */
export function deviceNamed(name: DeviceName, options: DeviceOptions = {}): Device {
  const { budget, address, threads } = options;
  const known = made.get(name);
  if (known) return known;
  if (name === "webgpu")
    throw new DeviceError(
      describe(
        "webgpu",
        'await init({ device: "webgpu" }) at the start of the program',
        "a use of the device before",
        "finding a GPU takes an asynchronous call",
      ),
    );
  if (name !== "wasm" && name !== "reference")
    throw new DeviceError(
      describe("init", "device 'auto', 'webgpu', 'wasm' or 'reference'", `'${name}'`),
    );
  const backend =
    name === "reference"
      ? new ReferenceBackend()
      : new WasmBackend({
          ...(budget && { budget }),
          ...(address && { address }),
          ...(threads !== undefined && { threads }),
        });
  const device = new Device(backend);
  made.set(name, device);
  return device;
}

/** All that were made. */
export const devices = (): Device[] => [...made.values()];

/** Where tensors are made when nothing else says so: the device that init() chose, else "auto". */
export function defaultDevice(): Device {
  return (chosen ?? choose({})).device;
}

export function setDefaultDevice(name: DeviceName | "auto"): void {
  choose({ device: name });
}

/** The default device, and why it is that one. */
export function deviceInfo(): DeviceInfo {
  const { device, reason } = chosen ?? choose({});
  const { name, backend } = device;
  if (backend instanceof WasmBackend) return { name, reason, threads: backend.threadCount };
  if (!(backend instanceof WebGpuBackend)) return { name, reason };
  return { name, reason, ...backend.describe() };
}

/** A GPU that "auto" may take. */
function hardware(): Device | null {
  const device = made.get("webgpu");
  const { backend } = device ?? {};
  return backend instanceof WebGpuBackend && !backend.lost && !backend.info.software
    ? device!
    : null;
}

function choose(options: DeviceOptions): { readonly device: Device; readonly reason: string } {
  const { device: wanted = "auto", budget, address, threads } = options;
  const name = wanted !== "auto" ? wanted : hardware() ? "webgpu" : "wasm";
  const settings = [budget, address, threads];
  if (name !== "webgpu" && made.has(name) && settings.some((x) => x !== undefined))
    throw new DeviceError(
      describe(
        "init",
        `budget, address and threads before the first tensor on ${name}`,
        "a device that exists",
        "call init() at the start of the program",
      ),
    );
  const device = deviceNamed(name, options);
  const reason =
    wanted !== "auto"
      ? "chosen by the program"
      : name === "webgpu"
        ? `auto: ${describeAdapter((device.backend as WebGpuBackend).info)}`
        : `auto: WebAssembly runs on every processor; no GPU: ${noGpu}`;
  return (chosen = { device, reason });
}

/** The device of the GPU that is being looked for, if one is. */
let opening: Promise<Device> | null = null;

async function openGpu(options: DeviceOptions): Promise<Device> {
  const { budget, powerPreference, adapter, features, toggles, dawnBackend } = options;
  const { tiles, autotune } = options;
  const known = made.get("webgpu");
  const found = { powerPreference, adapter, features, toggles, dawnBackend };
  const settings = { ...found, budget, tiles, autotune };
  if (known && !known.backend.lost) {
    const set = Object.entries(settings).filter(([, value]) => value !== undefined);
    // What was asked for then is asked for again: the same device.
    if (set.every(([key, value]) => isDeepEqual(gpuSettings[key], value))) return known;
    throw new DeviceError(
      describe(
        "init",
        `the settings that the GPU was opened with, or none`,
        set.map(([key]) => key).join(", "),
        "destroy() the device first: its tensors are gone then",
      ),
    );
  }
  const gpu = await requestGpu(options);
  const device = new Device(
    new WebGpuBackend(gpu, {
      ...(budget && { budget }),
      ...(tiles && { tiles }),
      ...(autotune && { autotune }),
    }),
  );
  gpuSettings = settings;
  registerDevice(device);
  return device;
}

let gpuSettings: Readonly<Record<string, unknown>> = {};
const isDeepEqual = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/**
 * Chooses and prepares the default device. To be awaited before the first tensor by programs that want a GPU; others need
 * it only for other settings than the defaults. After a GPU was lost, it opens a new one.
 */
export async function init(options: DeviceOptions = {}): Promise<Device> {
  const { device = "auto" } = options;
  if (device === "auto" || device === "webgpu") {
    try {
      const adapter = options.adapter ?? (device === "auto" ? "hardware" : undefined);
      while (opening) await opening.catch(() => {});
      opening = openGpu({ ...options, ...(adapter && { adapter }) });
      const opened = await opening.finally(() => {
        opening = null;
      });
      if (options.adapter === "software")
        return (chosen = { device: opened, reason: "chosen by the program" }).device;
    } catch (error) {
      if (device === "webgpu" || !(error instanceof DeviceError)) throw error;
      noGpu = error.message.split("\n")[0];
    }
  }
  const opened = choose(options).device;
  // Who asks for threads is told by deviceInfo() how many there are.
  if (options.threads !== undefined && opened.backend instanceof WasmBackend)
    await opened.backend.ready();
  return opened;
}
