/**
 * @file Samples from tar shards, as the webdataset format lays them out: files that follow each other and share their name up
 * to its first dot are one sample, the rest of the name says what each is. It decides order and decoding; reading
 * archives is left to tar.ts.
 *
 * Format: https://github.com/webdataset/webdataset
 */
import { ArgumentError, DataError, describe } from "../core/errors.ts";
import { decodeNpy } from "../nn/checkpoint/npy.ts";
import { IterableDataset, type PassContext } from "./dataset.ts";
import { permutation, uniforms } from "./random.ts";
import { type ByteSource, nameOf, openBytes } from "./stream.ts";
import { tarFiles } from "./tar.ts";

/** A sample: its key, its shard, and one member per extension. */
export type WebSample = { __key__: string; __url__: string } & { [extension: string]: unknown };

export type Decoder = (bytes: Uint8Array, key: string) => unknown;

export interface WebDatasetOptions<S> {
  /**
   * Samples held to draw from at random: a shuffle within about as many. The shards are shuffled too. Without it samples
   * come in the order of the files.
   */
  readonly shuffle?: number;
  /**
   * By extension (the last part of "seg.png" counts if the whole has none): more than the default ones, which read json,
   * txt, cls (a bigint) and npy and leave others as bytes. `false` leaves all as bytes.
   */
  readonly decode?: Readonly<Record<string, Decoder>> | false;
  /** What becomes of a decoded sample; null leaves it out. */
  readonly map?: (sample: WebSample) => S | null | Promise<S | null>;
  /** Every worldSize-th shard from rank on, for several processes. */
  readonly rank?: number;
  readonly worldSize?: number;
}

/**
 * A dataset of tar shards (plain or gzip): paths, URLs, bytes or streams; in names `{000..011}` counts.
 *
 * Samples are decoded as they are asked for. A pass that is resumed reads what it had before again, without decoding
 * it: exact, also with shuffling.
 *
 * @throws DataError, while iterating, for a shard that is cut off or is no tar archive, with its name and the byte.
 */
export function webDataset<S = WebSample>(
  shards: ByteSource | readonly ByteSource[],
  options: WebDatasetOptions<S> = {},
): WebDataset<S> {
  return new WebDataset(shards, options);
}

type Raw = { readonly key: string; readonly url: string; readonly files: Map<string, Uint8Array> };

export class WebDataset<S = WebSample> extends IterableDataset<S> {
  readonly shards: readonly ByteSource[];
  readonly #options: WebDatasetOptions<S>;

  constructor(shards: ByteSource | readonly ByteSource[], options: WebDatasetOptions<S> = {}) {
    super();
    const list: readonly ByteSource[] = isList(shards) ? shards : [shards];
    const { shuffle = 0, rank = 0, worldSize = 1 } = options;
    const count = Number.isInteger(rank) && Number.isInteger(worldSize);
    if (!count || rank < 0 || rank >= worldSize || !(Number.isInteger(shuffle) && shuffle >= 0))
      throw new ArgumentError(
        describe(
          "webDataset",
          "shuffle ≥ 0, 0 ≤ rank < worldSize",
          `${shuffle}, ${rank}, ${worldSize}`,
        ),
      );
    this.shards = list
      .flatMap((s): readonly ByteSource[] => (typeof s === "string" ? expand(s) : [s]))
      .filter((_, i) => i % worldSize === rank);
    if (this.shards.length === 0)
      throw new ArgumentError(describe("webDataset", "at least one shard", "none"));
    this.#options = options;
  }

  async *iterate({ key, skip }: PassContext): AsyncGenerator<S> {
    const { map } = this.#options;
    let passed = 0;
    for await (const raw of this.#ordered(key)) {
      // What `map` leaves out was no sample of the run before either, so it has to be asked again.
      if (!map && passed++ < skip) continue;
      const sample = this.#decoded(raw);
      const mapped = map ? await map(sample) : (sample as S);
      if (mapped === null || (map && passed++ < skip)) continue;
      yield mapped;
    }
  }

  /** Each new sample takes the place of one that is drawn (webdataset's shuffle). */
  async *#ordered(key: readonly number[]): AsyncGenerator<Raw> {
    const { shuffle = 0 } = this.#options;
    const names = this.shards.map((shard, i) => ({ shard, name: nameOf(shard, i) }));
    if (shuffle === 0) {
      for (const { shard, name } of names) yield* samplesOf(shard, name);
      return;
    }
    const random = uniforms(...key, 0);
    const held: Raw[] = [];
    const drawn = (last: Raw | undefined): Raw => {
      const at = Math.floor(random() * held.length);
      const found = held[at];
      held[at] = last ?? held[held.length - 1];
      if (!last) held.pop();
      return found;
    };
    for (const i of permutation(names.length, random))
      for await (const raw of samplesOf(names[i].shard, names[i].name))
        if (held.length < shuffle) held.push(raw);
        else yield drawn(raw);
    while (held.length > 0) yield drawn(undefined);
  }

  #decoded({ key, url, files }: Raw): WebSample {
    const { decode } = this.#options;
    const decoders = decode === false ? {} : { ...defaultDecoders, ...decode };
    const sample: WebSample = { __key__: key, __url__: url };
    for (const [extension, bytes] of files) {
      const last = extension.slice(extension.lastIndexOf(".") + 1);
      const by = [extension, last].find((e) => Object.hasOwn(decoders, e));
      try {
        sample[extension] = by === undefined ? bytes : decoders[by](bytes, key);
      } catch (error) {
        const got = (error as Error).message;
        const expected = `${key}.${extension}, decoded`;
        throw new DataError(describe(url, expected, got), { cause: error });
      }
    }
    return sample;
  }
}

const isList = (shards: ByteSource | readonly ByteSource[]): shards is readonly ByteSource[] =>
  Array.isArray(shards);

const text = (bytes: Uint8Array): string => new TextDecoder("utf-8", { fatal: true }).decode(bytes);

const defaultDecoders: Readonly<Record<string, Decoder>> = {
  json: (bytes) => JSON.parse(text(bytes)),
  txt: text,
  cls: (bytes) => BigInt(text(bytes).trim()),
  npy: (bytes, key) => {
    const { data, shape, dtype } = decodeNpy(bytes, key);
    return { data, shape, dtype };
  },
};

/** Groups a shard's files by key. */
async function* samplesOf(shard: ByteSource, name: string): AsyncGenerator<Raw> {
  const reader = await openBytes(shard, name);
  try {
    let raw: Raw | undefined;
    for await (const { path, offset, bytes } of tarFiles(reader)) {
      const [, key, suffix] = /^((?:.*\/)?[^./][^./]*)\.([^/]+)$/.exec(path) ?? [];
      // No extension, or a name that begins with a dot: not a part of a sample.
      if (key === undefined) continue;
      const extension = suffix.toLowerCase();
      if (raw && raw.key !== key) {
        yield raw;
        raw = undefined;
      }
      raw ??= { key, url: name, files: new Map() };
      if (raw.files.has(extension) || extension.startsWith("__"))
        throw new DataError(
          describe(`${name}, byte ${offset}`, "each file of a sample once", JSON.stringify(path)),
        );
      // The reader's chunk may hold much more.
      raw.files.set(extension, bytes.slice());
    }
    if (raw) yield raw;
  } finally {
    await reader.close();
  }
}

/** `a-{00..02}.tar` → a-00.tar, a-01.tar, a-02.tar; the first range varies slowest. */
function expand(name: string): string[] {
  const [all, low, high] = /\{(\d+)\.\.(\d+)\}/.exec(name) ?? [];
  if (all === undefined) return [name];
  const count = Number(high) - Number(low) + 1;
  if (!(count >= 1 && count <= 1e6))
    throw new ArgumentError(
      describe("webDataset", "a range from low to high", JSON.stringify(name)),
    );
  return Array.from({ length: count }, (_, i) =>
    `${Number(low) + i}`.padStart(low.length, "0"),
  ).flatMap((n) => expand(name.replace(all, n)));
}
