/**
 * @file Times of single dispatches: each gets a pass of its own, with timestamps at its ends. Timestamps are nanoseconds that
 * browsers round (Chrome to 65.536 µs), so the step that they come in is reported with them. Without the feature
 * `timestamp-query` dispatches are only counted.
 */
import type { KernelTime, Timed } from "../observe.ts";
import type { BufferPool } from "./buffers.ts";
import type { Watch } from "./commands.ts";

/** The most that one query set may have: two per dispatch. */
const setSize = 4096;
/** Constants of the specification: Node has no such globals. */
const [copySrc, queryResolve] = [4, 512];

export class DispatchTimer implements Watch {
  /** What was dispatched, in order. */
  readonly calls: Timed[] = [];
  readonly #device: GPUDevice;
  readonly #pool: BufferPool;
  readonly #timed: boolean;
  readonly #sets: GPUQuerySet[] = [];
  #resolved: GPUBuffer | null = null;
  #staging: GPUBuffer | null = null;

  constructor(device: GPUDevice, pool: BufferPool, kernels: boolean) {
    this.#device = device;
    this.#pool = pool;
    this.#timed = kernels && device.features.has("timestamp-query");
  }

  pass(kernel: Timed): GPUComputePassDescriptor | null {
    const query = (2 * this.calls.length) % setSize;
    this.calls.push(kernel);
    if (!this.#timed) return null;
    if (query === 0)
      this.#sets.push(this.#device.createQuerySet({ type: "timestamp", count: setSize }));
    const querySet = this.#sets.at(-1)!;
    return {
      label: kernel.name,
      timestampWrites: {
        querySet,
        beginningOfPassWriteIndex: query,
        endOfPassWriteIndex: query + 1,
      },
    };
  }

  /** The end of the commands: what was measured goes where it can be read. */
  resolve(encoder: GPUCommandEncoder): void {
    if (this.#sets.length === 0) return;
    const size = 16 * this.calls.length;
    this.#resolved = this.#device.createBuffer({ size, usage: copySrc | queryResolve });
    this.#staging = this.#pool.staging(size);
    for (const [i, set] of this.#sets.entries()) {
      const first = (i * setSize) / 2;
      const count = 2 * Math.min(setSize / 2, this.calls.length - first);
      encoder.resolveQuerySet(set, 0, count, this.#resolved, 16 * first);
    }
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging, 0, size);
  }

  /** The times once the GPU is done; null where it cannot tell. */
  async read(): Promise<{ kernels: KernelTime[] | null; resolution: number }> {
    if (!this.#timed) return { kernels: null, resolution: 0 };
    if (!this.#staging) return { kernels: [], resolution: 0 };
    try {
      const bytes = await this.#pool.read(this.#staging, 16 * this.calls.length);
      const ticks = new BigUint64Array(bytes);
      let step = 0n;
      for (const t of ticks) step = greatestDivisor(step, t);
      const ms = (i: number) => Number(ticks[i]) / 1e6;
      const kernels = this.calls.map((kernel, i) => {
        const start = ms(2 * i);
        // A GPU that was reset in between may count anew.
        return { kernel, start, end: Math.max(start, ms(2 * i + 1)) };
      });
      return { kernels, resolution: Number(step) };
    } finally {
      this.#resolved?.destroy();
      for (const set of this.#sets) set.destroy();
    }
  }
}

function greatestDivisor(a: bigint, b: bigint): bigint {
  while (b !== 0n) [a, b] = [b, a % b];
  return a;
}
