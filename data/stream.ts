/**
 * @file Bytes from wherever a shard is: a file (Node's module is asked for at run time), a URL, a stream, memory. Gzip is
 * recognised by its first bytes and taken off. A reader hands out exact pieces and never holds more than was read.
 */
import { DataError, describe, HinodeError } from "../core/errors.ts";

/** A path or URL, bytes, a blob, or a stream (which can be read once; a function gives a new one each time). */
export type ByteSource =
  | string
  | URL
  | Uint8Array
  | Blob
  | ReadableStream<Uint8Array>
  | (() => ReadableStream<Uint8Array> | Promise<ReadableStream<Uint8Array>>);

/** The source in messages. */
export function nameOf(source: ByteSource, index: number): string {
  return typeof source === "string" || source instanceof URL ? `${source}` : `shard ${index}`;
}

/** Opens a source; close the reader to let go of it. */
export async function openBytes(source: ByteSource, name: string): Promise<ByteReader> {
  const reader = new ByteReader(await chunksOf(source, name), name);
  const start = await reader.peek(2);
  if (start[0] !== 0x1f || start[1] !== 0x8b) return reader;
  const inside = streamOf(reader.rest()).pipeThrough(new DecompressionStream("gzip"));
  return new ByteReader(iterate(inside), `${name} (decompressed)`, () => reader.close());
}

/** Exact pieces of a stream, from the front. */
export class ByteReader {
  readonly name: string;
  /** Bytes handed out so far. */
  position = 0;
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #closed: () => Promise<void>;
  /** Read, but not handed out. */
  #held: Uint8Array[] = [];
  #bytes = 0;

  constructor(chunks: AsyncIterator<Uint8Array>, name: string, closed = async () => {}) {
    this.#chunks = chunks;
    this.name = name;
    this.#closed = closed;
  }

  /** The next `length` bytes, or what there is before the end. */
  async read(length: number): Promise<Uint8Array> {
    const bytes = await this.peek(length);
    this.#drop(bytes.length);
    return bytes;
  }

  /** The same bytes without taking them. */
  async peek(length: number): Promise<Uint8Array> {
    while (this.#bytes < length && (await this.#more()));
    const [first] = this.#held;
    if (first && first.length >= length) return first.subarray(0, length);
    // No more than is there, whatever length a header claims.
    const bytes = new Uint8Array(Math.min(length, this.#bytes));
    let at = 0;
    for (const chunk of this.#held) {
      if (at === bytes.length) break;
      const piece = chunk.subarray(0, bytes.length - at);
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  }

  /** Passes over bytes without keeping them; whether there were as many. */
  async skip(length: number): Promise<boolean> {
    for (let left = length; left > 0; ) {
      if (this.#bytes === 0 && !(await this.#more())) return false;
      const piece = Math.min(left, this.#bytes);
      this.#drop(piece);
      left -= piece;
    }
    return true;
  }

  /** All that follows. */
  async *rest(): AsyncGenerator<Uint8Array> {
    while (this.#bytes > 0 || (await this.#more()))
      for (const chunk of this.#held.splice(0)) {
        this.#bytes -= chunk.length;
        yield chunk;
      }
  }

  async close(): Promise<void> {
    // A stream that failed, or one that was closed, has nothing more to say.
    await this.#chunks.return?.().catch(() => {});
    await this.#closed();
  }

  async #more(): Promise<boolean> {
    try {
      const { done, value } = await this.#chunks.next();
      if (done) return false;
      if (value.length > 0) this.#held.push(value);
      this.#bytes += value.length;
      return true;
    } catch (error) {
      if (error instanceof HinodeError) throw error;
      throw new DataError(
        describe(
          this.name,
          "readable bytes",
          `${(error as Error).message} after byte ${this.position + this.#bytes}`,
        ),
        { cause: error },
      );
    }
  }

  #drop(length: number): void {
    this.position += length;
    this.#bytes -= length;
    for (let left = length; left > 0; ) {
      const [first] = this.#held;
      if (first.length > left) {
        this.#held[0] = first.subarray(left);
        return;
      }
      this.#held.shift();
      left -= first.length;
    }
  }
}

async function chunksOf(source: ByteSource, name: string): Promise<AsyncIterator<Uint8Array>> {
  if (typeof source === "function") return iterate(await source());
  if (source instanceof ReadableStream) {
    if (source.locked)
      throw new DataError(
        describe(name, "a stream that was not read yet", "one that was", "pass () => stream"),
      );
    return iterate(source);
  }
  if (source instanceof Uint8Array) return once(source);
  if (source instanceof Blob) return iterate(source.stream());
  const text = `${source}`;
  if (/^(https?|blob|data):/.test(text)) {
    const response = await fetch(text).catch((error: Error) => {
      throw new DataError(describe(name, "an answer", error.message), { cause: error });
    });
    if (!response.ok || !response.body)
      throw new DataError(describe(name, "an answer with bytes", `status ${response.status}`));
    return iterate(response.body);
  }
  const fs = globalThis.process?.getBuiltinModule?.("node:fs");
  if (!fs)
    throw new DataError(describe(name, "a URL, bytes or a stream", "a path outside of Node"));
  const path = text.startsWith("file:") ? new URL(text) : text;
  return fs.createReadStream(path)[Symbol.asyncIterator]();
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** Not every browser can iterate over a stream. */
async function* iterate(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function streamOf(chunks: AsyncGenerator<Uint8Array>): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await chunks.next();
      if (done) controller.close();
      else controller.enqueue(value as Uint8Array<ArrayBuffer>);
    },
    async cancel() {
      await chunks.return(undefined);
    },
  });
}
