/** @file Devices for the tests of the runtime: the real ones, and one that overwrites whatever it may. */
import type { CanonicalGraph, Executable } from "../../core/backend/backend.ts";
import { ReferenceBackend, type ReferenceStorage } from "../../core/backend/reference.ts";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import { requestGpu } from "../../core/backend/webgpu/adapter.ts";
import { WebGpuBackend } from "../../core/backend/webgpu/backend.ts";
import { Device, registerDevice, setDefaultDevice } from "../../core/device.ts";
import { type DType, dtypes } from "../../core/dtype.ts";
import { OutOfMemoryError } from "../../core/errors.ts";
import type { Node } from "../../core/graph/node.ts";
import { topological } from "../../core/graph/walk.ts";
import { numel } from "../../core/shape.ts";

const bytesOf = (n: Node): number => numel(n.shape) * dtypes[n.dtype].bytes;

/** The reference, but assignments overwrite donated storages, there is a budget, and runs are recorded. */
export class InPlaceBackend extends ReferenceBackend {
  readonly #budget: number;
  #running = false;
  /** The bytes that each run wrote in place. */
  readonly inPlace: number[] = [];
  /** The graph of each run. */
  readonly runs: CanonicalGraph[] = [];

  constructor(budget = Infinity) {
    super();
    this.#budget = budget;
  }

  override prepare(graph: CanonicalGraph): Executable {
    const inner = super.prepare(graph);
    const targets = graph.outputs.map((n) =>
      n.op === "assign" ? graph.inputs.indexOf(n.src[0] as Node<"placeholder">) : -1,
    );
    return {
      ...inner,
      run: (inputs, words, donate) => {
        this.runs.push(graph);
        const needed = graph.outputs.map((n, i) => (donate[targets[i]] ? 0 : bytesOf(n)));
        this.#reserve(needed.reduce((a, b) => a + b, 0));
        let bytes = 0;
        this.#running = true;
        const results = inner.run(inputs, words, donate);
        this.#running = false;
        const out = results.map((storage, i) => {
          const target = targets[i];
          if (target < 0 || !donate[target]) return storage;
          const old = inputs[target] as ReferenceStorage;
          (old.data as Float32Array).set((storage as ReferenceStorage).data);
          this.free(storage);
          bytes += old.bytes;
          return old;
        });
        this.inPlace.push(bytes);
        return out;
      },
    };
  }

  override upload(data: ArrayLike<number>, dtype: DType): ReferenceStorage {
    if (!this.#running) this.#reserve(data.length * dtypes[dtype].bytes);
    return super.upload(data, dtype);
  }

  #reserve(bytes: number): void {
    if (this.memory().liveBytes + bytes > this.#budget)
      throw new OutOfMemoryError(`reference: no room for ${bytes} bytes`);
  }
}

const gpu = await requestGpu();

/** A fresh device of each kind. */
export const devices = {
  reference: () => new Device(new ReferenceBackend()),
  "reference in place": () => new Device(new InPlaceBackend()),
  wasm: () => new Device(new WasmBackend()),
  webgpu: () => new Device(new WebGpuBackend(gpu)),
} as const;

/** Makes `device` the default one. */
export function use<D extends Device>(device: D): D {
  registerDevice(device);
  setDefaultDevice(device.name);
  return device;
}

/** All of them, or those that HINODE_TEST_DEVICES names, separated by commas. */
export const names = (process.env.HINODE_TEST_DEVICES?.split(",") ??
  Object.keys(devices)) as (keyof typeof devices)[];

/** How often an operation ran, over all runs. */
export const countOps = (runs: readonly CanonicalGraph[], op: string): number =>
  runs.reduce((n, g) => n + topological(g.outputs).filter((m) => m.op === op).length, 0);

/** A device that overwrites whatever it may, with its backend for looking. */
export function inPlace(budget?: number): { device: Device; backend: InPlaceBackend } {
  const backend = new InPlaceBackend(budget);
  return { device: use(new Device(backend)), backend };
}
