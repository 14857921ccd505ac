/** @file Writes tar archives for tests. */
export interface Entry {
  readonly path: string;
  readonly bytes: Uint8Array | string;
  readonly type?: string;
  readonly prefix?: string;
}

export function tarEntry({ path, bytes, type = "0", prefix = "" }: Entry): Uint8Array {
  const data = typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes;
  const block = new Uint8Array(512 + Math.ceil(data.length / 512) * 512);
  const put = (at: number, text: string) => block.set(new TextEncoder().encode(text), at);
  put(0, path);
  put(100, "0000644\0");
  put(124, `${data.length.toString(8).padStart(11, "0")}\0`);
  put(156, type);
  put(257, "ustar\0" + "00");
  put(345, prefix);
  put(148, "        ");
  const sum = block.subarray(0, 512).reduce((a, b) => a + b, 0);
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `);
  block.set(data, 512);
  return block;
}

export function tar(...entries: Entry[]): Uint8Array<ArrayBuffer> {
  const blocks = [...entries.map(tarEntry), new Uint8Array(1024)];
  return Uint8Array.from(blocks.flatMap((b) => [...b]));
}

/** A shard of samples "000" …, each with a text and a class. */
export const shard = (from: number, count: number): Uint8Array<ArrayBuffer> =>
  tar(
    ...Array.from({ length: count }, (_, i) => `${from + i}`.padStart(3, "0")).flatMap((key) => [
      { path: `${key}.txt`, bytes: `text ${key}` },
      { path: `${key}.cls`, bytes: `${Number(key)}` },
    ]),
  );
