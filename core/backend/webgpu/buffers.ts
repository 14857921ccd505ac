/**
 * @file GPU memory: whole buffers in size classes, kept and given out again, because making one is slow and the same sizes
 * come back at every step. What is freed may be reused at once: the queue orders whatever is still running before it.
 * Reading back goes through mappable buffers that are reused as well.
 */
import { OutOfMemoryError } from "../../errors.ts";
import type { Health } from "./errors.ts";

/** Constants of the specification: Node has no such globals. */
export const usage = { mapRead: 1, copySrc: 4, copyDst: 8, uniform: 64, storage: 128 } as const;
export const mapRead = 1;

export interface Block {
  readonly id: number;
  readonly buffer: GPUBuffer;
  /** Of the buffer, which may be more than was asked for. */
  readonly bytes: number;
  /** Until the GPU has confirmed that there is memory for it. */
  pending: Promise<void> | null;
  failed: boolean;
}

/** Bindings, copies and vector accesses at the end want whole multiples of this. */
export const padded = (bytes: number): number => Math.max(16, Math.ceil(bytes / 16) * 16);

/** Eight classes per octave: at most an eighth is wasted. */
export function sizeClass(bytes: number): number {
  if (bytes <= 256) return 256;
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(bytes)) - 3));
  return Math.ceil(bytes / step) * step;
}

/** Free buffers may take as much as the live ones, and this much in any case. */
const freeBytesKept = 256 * 2 ** 20;
/** Free buffers for read-back may take this much. */
const stagingBytesKept = 64 * 2 ** 20;

let ids = 0;

export class BufferPool {
  readonly #device: GPUDevice;
  readonly #health: Health;
  readonly #budget: number;
  readonly #largest: number;
  /** By size class; the one freed last is given out first. */
  readonly #free = new Map<number, Block[]>();
  readonly #staging = new Map<number, GPUBuffer[]>();
  #freeBytes = 0;
  #stagingBytes = 0;
  #liveBytes = 0;

  constructor(device: GPUDevice, health: Health, budget = Number.POSITIVE_INFINITY) {
    this.#device = device;
    this.#health = health;
    this.#budget = budget;
    this.#largest = Math.floor(device.limits.maxBufferSize / 16) * 16;
  }

  get liveBytes(): number {
    return this.#liveBytes;
  }

  get reservedBytes(): number {
    return this.#liveBytes + this.#freeBytes;
  }

  allocate(bytes: number): Block {
    this.#health.check();
    const size = Math.min(sizeClass(bytes), this.#largest);
    const found = this.#free.get(size)?.pop();
    if (found) {
      this.#freeBytes -= size;
      this.#liveBytes += size;
      return found;
    }
    if (this.reservedBytes + size > this.#budget) this.#trim(this.#budget - this.#liveBytes - size);
    if (this.#liveBytes + size > this.#budget)
      throw new OutOfMemoryError(
        `webgpu: no room for ${bytes} bytes within the budget of ${this.#budget}, ${this.#liveBytes} are in use`,
      );
    return this.#create(size);
  }

  #create(size: number): Block {
    const device = this.#device;
    device.pushErrorScope("out-of-memory");
    const { copySrc, copyDst, uniform, storage } = usage;
    const buffer = device.createBuffer({ size, usage: copySrc | copyDst | uniform | storage });
    const block: Block = { id: ids++, buffer, bytes: size, pending: null, failed: false };
    const confirmed = (error: GPUError | null) => {
      block.pending = null;
      if (!error) return;
      block.failed = true;
      // Others may hold what is missing here.
      this.#trim(0);
    };
    block.pending = device.popErrorScope().then(confirmed, () => confirmed(null));
    this.#liveBytes += size;
    return block;
  }

  release(block: Block): void {
    const size = block.bytes;
    this.#liveBytes -= size;
    if (block.failed || this.#health.lost) {
      block.buffer.destroy();
      return;
    }
    const list = this.#free.get(size);
    if (list) list.push(block);
    else this.#free.set(size, [block]);
    this.#freeBytes += size;
    const kept = Math.max(freeBytesKept, this.#liveBytes);
    if (this.#freeBytes > kept) this.#trim(kept);
  }

  /** Destroys free buffers, the largest first, until at most `bytes` are left. */
  #trim(bytes: number): void {
    const sizes = [...this.#free.keys()].sort((a, b) => b - a);
    for (const size of sizes)
      for (const list = this.#free.get(size)!; list.length > 0; ) {
        if (this.#freeBytes <= bytes) return;
        this.#freeBytes -= size;
        // The oldest: the newest may be in a cached bind group.
        list.shift()!.buffer.destroy();
      }
  }

  /** A mappable buffer to copy `bytes` to; give it to `read` after the copy was submitted. */
  staging(bytes: number): GPUBuffer {
    const size = Math.max(256, 2 ** Math.ceil(Math.log2(padded(bytes))));
    const found = this.#staging.get(size)?.pop();
    if (found) {
      this.#stagingBytes -= size;
      return found;
    }
    return this.#device.createBuffer({ size, usage: usage.mapRead | usage.copyDst });
  }

  /** The first bytes of a staging buffer, once everything submitted before has run. */
  async read(staging: GPUBuffer, bytes: number): Promise<ArrayBuffer> {
    const mapped = staging.mapAsync(mapRead, 0, padded(bytes));
    // Firefox resolves this at its next poll, 100 ms away, unless something is submitted.
    this.#device.queue.submit([]);
    try {
      await this.#health.guard(mapped, "reading back");
    } catch (error) {
      staging.destroy();
      throw error;
    }
    const data = staging.getMappedRange(0, padded(bytes)).slice(0, bytes);
    staging.unmap();
    if (this.#stagingBytes + staging.size > stagingBytesKept) staging.destroy();
    else {
      this.#stagingBytes += staging.size;
      const list = this.#staging.get(staging.size);
      if (list) list.push(staging);
      else this.#staging.set(staging.size, [staging]);
    }
    return data;
  }
}
