/**
 * @file The byte arena: one WebAssembly memory that grows, and in it every storage, plan and scratch of a device.
 *
 * Free blocks are kept by size class (powers of two) and by address, so that allocating takes the first block of a
 * class that fits and freeing merges with both neighbours. Blocks are multiples of 64 bytes and carry 64 bytes of
 * slack: vectors may read past the end of what they hold.
 */
import { OutOfMemoryError } from "../../errors.ts";

export interface ArenaOptions {
  /** Width of addresses: 32 bits reach 4 GiB. */
  readonly address: 32 | 64;
  /** Most bytes to allocate; the reach of the addresses by default. */
  readonly budget?: number;
}

const unit = 64;
const page = 65536;
/** Address 0 stays unused, so that no storage is at "nothing". */
const first = 64;

interface Block {
  address: number;
  bytes: number;
  free: boolean;
  before: Block | null;
  after: Block | null;
}

const classOf = (bytes: number): number => Math.floor(Math.log2(bytes / unit));

export class Arena {
  readonly memory: WebAssembly.Memory;
  liveBytes = 0;
  private readonly address: 32 | 64;
  private readonly limit: number;
  /** Free blocks by size class. */
  private readonly classes: Set<Block>[] = Array.from({ length: 48 }, () => new Set());
  private readonly used = new Map<number, Block>();
  private last: Block | null = null;
  private view: Uint8Array;
  private wordView: Uint32Array;

  constructor(options: ArenaOptions) {
    this.address = options.address;
    const reach = options.address === 64 ? 2 ** 34 : 2 ** 32;
    this.limit = Math.min(options.budget ?? reach, reach);
    const pages = (n: number) => (options.address === 64 ? (BigInt(n) as unknown as number) : n);
    const descriptor = { initial: pages(1), maximum: pages(Math.ceil(reach / page)) };
    this.memory = new WebAssembly.Memory(
      (options.address === 64
        ? { ...descriptor, address: "i64" }
        : descriptor) as WebAssembly.MemoryDescriptor,
    );
    this.view = new Uint8Array(this.memory.buffer);
    this.wordView = new Uint32Array(this.memory.buffer);
    this.extend(page - first, first);
  }

  /** The whole memory; after an allocation earlier views may be detached. */
  get bytes(): Uint8Array {
    if (this.view.buffer !== this.memory.buffer) this.refresh();
    return this.view;
  }

  get words(): Uint32Array {
    if (this.wordView.buffer !== this.memory.buffer) this.refresh();
    return this.wordView;
  }

  get reservedBytes(): number {
    return this.memory.buffer.byteLength;
  }

  /** The address of `bytes` writable bytes, a multiple of 64, followed by at least 64 readable ones. */
  allocate(bytes: number): number {
    const need = Math.ceil(bytes / unit) * unit + unit;
    if (this.liveBytes + need > this.limit)
      throw new OutOfMemoryError(
        `allocate: expected at most ${this.limit} bytes in use, got ${this.liveBytes} + ${need}`,
      );
    let block = this.find(need);
    if (!block) {
      this.grow(need);
      block = this.find(need)!;
    }
    this.classes[classOf(block.bytes)].delete(block);
    block.free = false;
    if (block.bytes > need) {
      const rest: Block = {
        address: block.address + need,
        bytes: block.bytes - need,
        free: true,
        before: block,
        after: block.after,
      };
      if (block.after) block.after.before = rest;
      else this.last = rest;
      block.after = rest;
      block.bytes = need;
      this.classes[classOf(rest.bytes)].add(rest);
    }
    this.used.set(block.address, block);
    this.liveBytes += need;
    return block.address;
  }

  free(address: number): void {
    const block = this.used.get(address);
    if (!block) return;
    this.used.delete(address);
    this.liveBytes -= block.bytes;
    block.free = true;
    this.classes[classOf(block.bytes)].add(block);
    if (block.after?.free) this.merge(block, block.after);
    if (block.before?.free) this.merge(block.before, block);
  }

  private find(need: number): Block | null {
    // In need's own class a block may be too small; in every higher one the first fits.
    let best: Block | null = null;
    let looked = 0;
    for (const block of this.classes[classOf(need)]) {
      if (block.bytes >= need && (!best || block.bytes < best.bytes)) best = block;
      if (++looked >= 32) break;
    }
    if (best) return best;
    for (let c = classOf(need) + 1; c < this.classes.length; c++)
      for (const block of this.classes[c]) return block;
    return null;
  }

  private merge(left: Block, right: Block): void {
    this.classes[classOf(left.bytes)].delete(left);
    this.classes[classOf(right.bytes)].delete(right);
    left.bytes += right.bytes;
    left.after = right.after;
    if (right.after) right.after.before = left;
    else this.last = left;
    this.classes[classOf(left.bytes)].add(left);
  }

  /** Grows by what is missing, and by a quarter of the memory so that growing stays rare. */
  private grow(need: number): void {
    const size = this.reservedBytes;
    const tail = this.last?.free ? this.last.bytes : 0;
    const wanted = Math.max(need - tail, Math.min(size / 4, this.limit - size));
    for (const bytes of [wanted, need - tail]) {
      const pages = Math.ceil(bytes / page);
      try {
        this.memory.grow(this.address === 64 ? (BigInt(pages) as unknown as number) : pages);
      } catch {
        continue;
      }
      this.extend(pages * page, size);
      return;
    }
    throw new OutOfMemoryError(
      `allocate: expected the memory to grow by ${need} bytes, got a refusal at ${size}`,
    );
  }

  private extend(bytes: number, address: number): void {
    const block: Block = { address, bytes, free: true, before: this.last, after: null };
    if (this.last) this.last.after = block;
    this.last = block;
    this.classes[classOf(bytes)].add(block);
    if (block.before?.free) this.merge(block.before, block);
  }

  private refresh(): void {
    this.view = new Uint8Array(this.memory.buffer);
    this.wordView = new Uint32Array(this.memory.buffer);
  }
}
