/**
 * @file The byte arena: one WebAssembly memory that only grows, and who owns which part of it. Allocations start at
 * multiples of 64 and are followed by at least 64 bytes that may be read, as vector code asks for.
 *
 * Free blocks hang in lists by size, eight per power of two; two bitmaps find the smallest list that surely fits in
 * constant time, and neighbours that are free are joined at once (TLSF: Masmano et al. 2004). Bookkeeping is in
 * JavaScript objects: nothing is stored in the memory itself.
 */
import { ArgumentError, describe, OutOfMemoryError } from "../../errors.ts";

const page = 65536;
const granule = 64;
/** Address 0 is never handed out, and small constant offsets below a buffer stay inside the memory. */
const reservedFront = 1024;
const listsPerPower = 8;

interface Block {
  start: number;
  size: number;
  free: boolean;
  /** Neighbours in memory. */
  before: Block | null;
  after: Block | null;
  /** Neighbours in the free list. */
  previous: Block | null;
  next: Block | null;
}

export interface ArenaOptions {
  /** 64: a memory64, for more than 4 GiB. */
  readonly address: 32 | 64;
  /** The most bytes to take, live and free together; default: `maximum`. */
  readonly budget?: number;
  /** The memory's declared maximum in bytes; default 4 GiB, or 16 GiB with 64-bit addresses (V8's limit). */
  readonly maximum?: number;
  readonly shared?: boolean;
}

const GiB = 2 ** 30;
/** The most bytes of a memory: what addresses reach, and with 64 bits V8's limit. */
export const maxBytes = { 32: 4 * GiB, 64: 16 * GiB } as const;

/** Powers of two above the granule, times listsPerPower: sizes of one list differ by at most an eighth. */
function listOf(size: number): number {
  const units = size / granule;
  if (units < listsPerPower) return units;
  // Math.clz32 covers 2³² granules: 256 GiB.
  const power = 31 - Math.clz32(units);
  return (power - 2) * listsPerPower + (Math.floor(units / 2 ** (power - 3)) - listsPerPower);
}

export class Arena {
  readonly address: 32 | 64;
  readonly memory: WebAssembly.Memory;
  readonly budget: number;
  private readonly maximum: number;
  private readonly live = new Map<number, Block>();
  private readonly lists: (Block | null)[] = [];
  /** Bit i of word w: list 32w + i is not empty. */
  private readonly occupied = new Uint32Array(10);
  private last: Block | null = null;
  private bytes: number;
  private used = 0;

  constructor(options: ArenaOptions) {
    this.address = options.address;
    const limit = maxBytes[options.address];
    const asked = Math.min(limit, options.maximum ?? limit);
    this.maximum = Math.max(page, asked - (asked % page));
    this.budget = Math.min(options.budget ?? this.maximum, this.maximum);
    this.bytes = page;
    const pages = (n: number) => (options.address === 64 ? BigInt(n / page) : n / page);
    const descriptor = {
      initial: pages(page),
      maximum: pages(this.maximum),
      shared: options.shared ?? false,
      ...(options.address === 64 ? { address: "i64" } : {}),
    };
    this.memory = new WebAssembly.Memory(descriptor as unknown as WebAssembly.MemoryDescriptor);
    this.addFree(reservedFront, page - reservedFront);
  }

  /** Bytes of allocations, with their slack. */
  get liveBytes(): number {
    return this.used;
  }

  /** Bytes of the memory. */
  get reservedBytes(): number {
    return this.bytes;
  }

  /** The address of `bytes` bytes, a multiple of 64. */
  allocate(bytes: number): number {
    if (!(bytes >= 0 && Number.isSafeInteger(bytes)))
      throw new ArgumentError(describe("allocate", "a number of bytes", `${bytes}`));
    const size = Math.ceil((bytes + granule) / granule) * granule;
    const block = this.find(size) ?? this.grow(size);
    this.remove(block);
    this.split(block, size);
    block.free = false;
    this.live.set(block.start, block);
    this.used += block.size;
    return block.start;
  }

  /** Bytes that an allocation may use: what was asked for, rounded up. */
  sizeOf(address: number): number {
    return this.blockAt(address).size - granule;
  }

  free(address: number): void {
    const block = this.blockAt(address);
    this.live.delete(address);
    this.used -= block.size;
    let joined = block;
    const { before, after } = block;
    if (before?.free) {
      this.remove(before);
      joined = this.join(before, block);
    }
    if (after?.free) {
      this.remove(after);
      joined = this.join(joined, after);
    }
    joined.free = true;
    this.insert(joined);
  }

  private blockAt(address: number): Block {
    const block = this.live.get(address);
    if (!block)
      throw new ArgumentError(describe("arena", "the address of a live allocation", `${address}`));
    return block;
  }

  private find(size: number): Block | null {
    const list = listOf(size);
    // Steady programs free and take the same sizes: looking at a few of the own list keeps larger blocks whole.
    let b = this.lists[list] ?? null;
    for (let looks = 0; b && looks < 8; b = b.next, looks++) if (b.size >= size) return b;
    // From the next list on every block is large enough.
    const larger = this.nextList(list + 1);
    if (larger >= 0) return this.lists[larger];
    for (; b; b = b.next) if (b.size >= size) return b;
    return null;
  }

  private nextList(from: number): number {
    let word = from >> 5;
    let bits = this.occupied[word] & (-1 << (from & 31));
    while (bits === 0 && ++word < this.occupied.length) bits = this.occupied[word];
    return bits === 0 ? -1 : 32 * word + (31 - Math.clz32(bits & -bits));
  }

  /** A free block of at least `size` at the end of a larger memory. */
  private grow(size: number): Block {
    const tail = this.last?.free ? this.last.size : 0;
    const needed = size - tail;
    const room = Math.floor(this.budget / page) * page - this.bytes;
    if (needed > room) this.fail(size);
    // Grow by an eighth at least: each growth may cost new views of the buffer, and pages untouched cost nothing.
    const wanted = Math.max(needed, Math.min(room, this.bytes / 8));
    const extra = Math.ceil(wanted / page) * page;
    try {
      const pages = extra / page;
      this.memory.grow((this.address === 64 ? BigInt(pages) : pages) as number);
    } catch (cause) {
      this.fail(size, cause);
    }
    const start = this.bytes;
    this.bytes += extra;
    return this.addFree(start, extra);
  }

  private fail(size: number, cause?: unknown): never {
    const mebi = (n: number) => `${(n / 2 ** 20).toFixed(1)} MiB`;
    const limits = `at most ${mebi(this.budget)}`;
    const got = `${mebi(this.used)} live and ${mebi(size)} more (${mebi(this.bytes)} reserved)`;
    const hint = cause
      ? "the system gives no more"
      : this.budget === maxBytes[32] && this.address === 32
        ? "init({ address: 64 }) takes up to 16 GiB"
        : undefined;
    throw new OutOfMemoryError(describe("allocate", limits, got, hint), { cause });
  }

  /** New memory at the end. */
  private addFree(start: number, size: number): Block {
    const block: Block = {
      start,
      size,
      free: true,
      before: this.last,
      after: null,
      previous: null,
      next: null,
    };
    if (this.last) this.last.after = block;
    const before = this.last;
    this.last = block;
    if (!before?.free) {
      this.insert(block);
      return block;
    }
    this.remove(before);
    const joined = this.join(before, block);
    this.insert(joined);
    return joined;
  }

  private join(first: Block, second: Block): Block {
    first.size += second.size;
    first.after = second.after;
    if (second.after) second.after.before = first;
    else this.last = first;
    return first;
  }

  private split(block: Block, size: number): void {
    const rest = block.size - size;
    // Less is not worth a block of its own: it stays with this one.
    if (rest < 2 * granule) return;
    const after: Block = {
      start: block.start + size,
      size: rest,
      free: true,
      before: block,
      after: block.after,
      previous: null,
      next: null,
    };
    if (block.after) block.after.before = after;
    else this.last = after;
    block.after = after;
    block.size = size;
    this.insert(after);
  }

  private insert(block: Block): void {
    const list = listOf(block.size);
    const head = this.lists[list] ?? null;
    block.previous = null;
    block.next = head;
    if (head) head.previous = block;
    this.lists[list] = block;
    this.occupied[list >> 5] |= 1 << (list & 31);
  }

  private remove(block: Block): void {
    const { previous, next } = block;
    if (next) next.previous = previous;
    if (previous) previous.next = next;
    else {
      const list = listOf(block.size);
      this.lists[list] = next;
      if (!next) this.occupied[list >> 5] &= ~(1 << (list & 31));
    }
    block.previous = block.next = null;
  }

  /** Throws if the bookkeeping contradicts itself; for tests. */
  check(): void {
    const fail = (what: string): never => {
      throw new Error(`arena: ${what}`);
    };
    let block = this.last;
    let end = this.bytes;
    let live = 0;
    let free = 0;
    for (; block; block = block.before) {
      if (block.start + block.size !== end) fail(`gap or overlap at ${end}`);
      if (block.start % granule !== 0) fail(`misaligned block at ${block.start}`);
      if (block.free && block.after?.free) fail(`two free neighbours at ${end}`);
      if (!block.free && this.live.get(block.start) !== block) fail(`lost block at ${block.start}`);
      if (block.free) free++;
      else live += block.size;
      end = block.start;
    }
    if (end !== reservedFront) fail(`first block at ${end}`);
    if (live !== this.used) fail(`${live} bytes live, counted ${this.used}`);
    let listed = 0;
    this.lists.forEach((head, list) => {
      const marked = (this.occupied[list >> 5] >>> (list & 31)) & 1;
      if (marked !== (head ? 1 : 0)) fail(`list ${list} is marked wrongly`);
      for (let b = head; b; b = b.next) {
        if (!b.free || listOf(b.size) !== list) fail(`wrong block in list ${list}`);
        listed++;
      }
    });
    if (listed !== free) fail(`${free} free blocks, ${listed} listed`);
  }
}
