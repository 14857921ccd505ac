/**
 * @file Parquet tables, row group by row group. The format is read by hyparquet, an optional package that is imported when
 * a table is opened; hyparquet-compressors, if it is there, adds codecs beyond snappy. What is decided here: columns as
 * typed arrays, rows as samples, and the order.
 */
import { ArgumentError, DataError, describe, HinodeError } from "../core/errors.ts";
import { type ByteFile, fileOf, openFile } from "../nn/checkpoint/disk.ts";
import { IterableDataset, type PassContext } from "./dataset.ts";
import { permutation, uniforms } from "./random.ts";
import type { NumberArray } from "./stack.ts";

/** Numbers as a typed array (float, double, int32, int64), anything else, or with nulls, as a list. */
export type ParquetColumn = NumberArray | readonly unknown[];

/** The part of hyparquet that is used. */
interface Library {
  parquetMetadataAsync(file: AsyncBuffer): Promise<Metadata>;
  parquetRead(options: object): Promise<void>;
  asyncBufferFromUrl(options: { url: string }): Promise<AsyncBuffer>;
}
interface AsyncBuffer {
  readonly byteLength: number;
  slice(start: number, end?: number): Promise<ArrayBuffer>;
}
interface Metadata {
  readonly num_rows: bigint;
  readonly row_groups: readonly { readonly num_rows: bigint }[];
  readonly schema: readonly {
    readonly name: string;
    readonly type?: string;
    readonly num_children?: number;
  }[];
}

/**
 * Opens a table: a path (Node), a URL or bytes. Only its footer is read.
 * @throws DataError without the package hyparquet, and for a file that is no parquet.
 */
export async function openParquet(source: string | URL | Uint8Array): Promise<ParquetFile> {
  const { library, compressors } = await packages();
  const name = source instanceof Uint8Array ? "bytes" : `${source}`;
  let file: ByteFile | undefined;
  try {
    if (!(source instanceof Uint8Array) && !/^https?:/.test(name)) {
      const path = source instanceof URL ? decodeURIComponent(source.pathname) : source;
      file = await openFile(path, (opened) => Promise.resolve(opened));
    } else if (source instanceof Uint8Array) file = fileOf(source);
    const buffer = file ? bufferOf(file) : await library.asyncBufferFromUrl({ url: name });
    const metadata = await library.parquetMetadataAsync(buffer);
    return new ParquetFile(name, { library, compressors, buffer, metadata, file });
  } catch (error) {
    await file?.close();
    throw wrapped(error, name, "a parquet file");
  }
}

/** An open table. */
export class ParquetFile {
  readonly name: string;
  /** Rows of each group. */
  readonly groups: readonly number[];
  readonly columns: readonly string[];
  readonly #from: Opened;

  /** Use `openParquet`. */
  constructor(name: string, from: Opened) {
    const { schema, row_groups } = from.metadata;
    this.name = name;
    this.groups = row_groups.map((group) => Number(group.num_rows));
    this.columns = topLevel(schema);
    this.#from = from;
  }

  get rows(): number {
    return this.groups.reduce((a, b) => a + b, 0);
  }

  /** The columns of one row group, all or some; others are not read. */
  async group(
    index: number,
    { columns = this.columns }: { columns?: readonly string[] } = {},
  ): Promise<Record<string, ParquetColumn>> {
    const { library, compressors, buffer, metadata } = this.#from;
    const unknown = columns.find((c) => !this.columns.includes(c));
    if (unknown !== undefined)
      throw new ArgumentError(
        describe(this.name, `columns of ${this.columns.join(", ")}`, unknown),
      );
    if (!(index in this.groups))
      throw new ArgumentError(
        describe(this.name, `one of ${this.groups.length} row groups`, `${index}`),
      );
    const rowStart = this.groups.slice(0, index).reduce((a, b) => a + b, 0);
    const rowEnd = rowStart + this.groups[index];
    const parts = new Map<string, { readonly at: number; readonly values: ArrayLike<unknown> }[]>();
    const onChunk = (chunk: {
      columnName: string;
      columnData: ArrayLike<unknown>;
      rowStart: number;
    }) => {
      const found = parts.get(chunk.columnName) ?? [];
      found.push({ at: chunk.rowStart, values: chunk.columnData });
      parts.set(chunk.columnName, found);
    };
    try {
      const options = {
        file: buffer,
        metadata,
        compressors,
        columns: [...columns],
        rowStart,
        rowEnd,
      };
      await library.parquetRead({ ...options, onChunk });
    } catch (error) {
      throw wrapped(error, `${this.name}, row group ${index}`, "columns that can be read");
    }
    const column = (name: string): [string, ParquetColumn] => {
      const chunks = (parts.get(name) ?? []).sort((a, b) => a.at - b.at);
      const values = chunks.flatMap(({ values }) => Array.from(values));
      if (values.length !== this.groups[index])
        throw new DataError(
          describe(`${this.name}, ${name}`, `${this.groups[index]} rows`, `${values.length}`),
        );
      return [name, typed(values, metadata.schema.find((s) => s.name === name)?.type)];
    };
    return Object.fromEntries(columns.map(column));
  }

  async close(): Promise<void> {
    await this.#from.file?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

interface Opened {
  readonly library: Library;
  readonly compressors: unknown;
  readonly buffer: AsyncBuffer;
  readonly metadata: Metadata;
  readonly file: ByteFile | undefined;
}

export interface ParquetOptions {
  /** All unless given; others are not read. */
  readonly columns?: readonly string[];
  /** Files, row groups and the rows of each group in another order each epoch. One group is in memory at a time. */
  readonly shuffle?: boolean;
}

/** Rows of parquet files as samples, as they stream by. */
export function parquetDataset(
  files: string | URL | Uint8Array | readonly (string | URL | Uint8Array)[],
  options: ParquetOptions = {},
): ParquetDataset {
  return new ParquetDataset(files, options);
}

/**
 * A sample is an object of the columns: floats are numbers, integers bigints (a batch of them is i32), lists of numbers
 * typed arrays. A pass that is resumed reads no row group that it had before.
 */
export class ParquetDataset extends IterableDataset<Record<string, unknown>> {
  readonly files: readonly (string | URL | Uint8Array)[];
  readonly #options: ParquetOptions;

  constructor(
    files: string | URL | Uint8Array | readonly (string | URL | Uint8Array)[],
    options: ParquetOptions = {},
  ) {
    super();
    const list = typeof files === "string" || files instanceof URL || files instanceof Uint8Array;
    this.files = list ? [files] : files;
    this.#options = options;
  }

  async *iterate({ key, skip }: PassContext): AsyncGenerator<Record<string, unknown>> {
    const { columns, shuffle = false } = this.#options;
    const random = uniforms(...key, 0);
    const order = (count: number): Iterable<number> =>
      shuffle ? permutation(count, random) : Array(count).keys();
    let passed = 0;
    for (const f of order(this.files.length)) {
      await using file = await openParquet(this.files[f]);
      for (const g of order(file.groups.length)) {
        // Drawn also for a group that is passed over: what comes after it is the same.
        const rows = order(file.groups[g]);
        if (passed + file.groups[g] <= skip) {
          passed += file.groups[g];
          continue;
        }
        const group = Object.entries(await file.group(g, { columns }));
        for (const row of rows) {
          if (passed++ < skip) continue;
          yield Object.fromEntries(group.map(([name, column]) => [name, cell(column, row)]));
        }
      }
    }
  }
}

function cell(column: ParquetColumn, row: number): unknown {
  const value = column[row];
  if (column instanceof Int32Array) return BigInt(value as number);
  return Array.isArray(value) ? typed(value, undefined) : value;
}

/** Typed arrays of what is all numbers. */
function typed(values: unknown[], type: string | undefined): ParquetColumn {
  if (values.length === 0) return values;
  if (values.every((x) => typeof x === "bigint")) return BigInt64Array.from(values);
  if (!values.every((x) => typeof x === "number")) return values;
  if (type === "FLOAT") return Float32Array.from(values);
  // Decimals and unsigned integers are stored as int32, too.
  const whole = type === "INT32" && values.every((x) => (x | 0) === x);
  return whole ? Int32Array.from(values) : Float64Array.from(values);
}

/** The names right below the root of a schema, which lists a tree depth first. */
function topLevel(schema: Metadata["schema"]): string[] {
  const names: string[] = [];
  let inside = 0;
  for (const { name, num_children = 0 } of schema.slice(1)) {
    if (inside === 0) names.push(name);
    else inside--;
    inside += num_children;
  }
  return names;
}

function bufferOf(file: ByteFile): AsyncBuffer {
  return {
    byteLength: file.size,
    async slice(start, end = file.size) {
      const from = start < 0 ? file.size + start : start;
      const bytes = await file.read(from, Math.min(end, file.size) - from);
      return bytes.slice().buffer as ArrayBuffer;
    },
  };
}

let loaded: Promise<{ library: Library; compressors: unknown }> | undefined;

function packages(): Promise<{ library: Library; compressors: unknown }> {
  loaded ??= (async () => {
    try {
      const library = (await import("hyparquet")) as unknown as Library;
      const codecs = await import("hyparquet-compressors").catch(() => undefined);
      return { library, compressors: codecs?.compressors };
    } catch (error) {
      throw new DataError(
        describe(
          "parquet",
          "the package hyparquet",
          "none",
          "npm install hyparquet hyparquet-compressors",
        ),
        { cause: error },
      );
    }
  })();
  return loaded;
}

function wrapped(error: unknown, name: string, expected: string): unknown {
  if (error instanceof HinodeError) return error;
  return new DataError(describe(name, expected, (error as Error).message), { cause: error });
}
