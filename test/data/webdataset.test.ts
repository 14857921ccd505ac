/** @file Tar shards as samples: grouping, decoding, order, resuming, and shards that are damaged. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { ArgumentError, DataError, type Tensor } from "hinode";
import { DataLoader, type IterableDataset, webDataset } from "hinode/data";
import { encodeNpy } from "hinode/nn";
import { afterAll, describe, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";
import { shard, tar } from "./tar.ts";

const folder = mkdtempSync(join(tmpdir(), "hinode-tar-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function all<S>(dataset: IterableDataset<S>): Promise<S[]> {
  const found: S[] = [];
  for await (const sample of dataset) found.push(sample);
  return found;
}

test("samples are files of one key, decoded by extension", async () => {
  const array = { dtype: "f32" as const, shape: [2], data: Float32Array.of(1, 2) };
  const long = `${"deep/".repeat(30)}long`;
  const bytes = tar(
    { path: "notes/", bytes: "", type: "5" },
    { path: "notes/a.json", bytes: '{"k":[1]}' },
    { path: "notes/a.Seg.PNG", bytes: Uint8Array.of(1, 2) },
    { path: "notes/a.npy", bytes: await encodeNpy(array) },
    { path: "README", bytes: "no extension" },
    { path: "notes/.hidden", bytes: "no key" },
    { path: "b.cls", bytes: " 12\n", prefix: "dir" },
    { path: "link.txt", bytes: "", type: "2" },
    { path: "././@LongLink", bytes: `${long}.txt\0`, type: "L" },
    { path: "cut", bytes: "GNU" },
    { path: "pax", bytes: `${`13 path=日.txt\n`.replace("13", "16")}`, type: "x" },
    { path: "cut", bytes: "pax" },
  );
  const [a, b, c, d, ...rest] = await all(webDataset(bytes));
  expect(a).toEqual({
    __key__: "notes/a",
    __url__: "shard 0",
    json: { k: [1] },
    "seg.png": Uint8Array.of(1, 2),
    npy: array,
  });
  expect(b).toMatchObject({ __key__: "dir/b", cls: 12n });
  expect(c).toMatchObject({ __key__: long, txt: "GNU" });
  expect(d).toMatchObject({ __key__: "日", txt: "pax" });
  expect(rest).toEqual([]);
  const decode = { png: (bytes: Uint8Array) => bytes.length, json: () => "mine" };
  expect((await all(webDataset(bytes, { decode })))[0]).toMatchObject({
    "seg.png": 2,
    json: "mine",
  });
  expect((await all(webDataset(bytes, { decode: false })))[1].cls).toEqual(
    new TextEncoder().encode(" 12\n"),
  );
});

test("shards come from files, gzip, URLs, streams and memory", async () => {
  const plain = shard(0, 3);
  const keys = async (source: Parameters<typeof webDataset>[0]) =>
    (await all(webDataset(source))).map((s) => s.__key__);
  const expected = ["000", "001", "002"];
  const path = join(folder, "a.tar.gz");
  writeFileSync(path, gzipSync(plain));
  const server = createServer((request, response) => {
    response.statusCode = request.url === "/a.tar" ? 200 : 404;
    response.end(plain);
  }).listen(0);
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    // In pieces of 100 bytes, which end nowhere in particular.
    const stream = () =>
      new ReadableStream<Uint8Array>({
        start(controller) {
          for (let at = 0; at < plain.length; at += 100)
            controller.enqueue(plain.subarray(at, at + 100));
          controller.close();
        },
      });
    for (const source of [
      plain,
      gzipSync(plain),
      path,
      new URL(`file://${path}`),
      new Blob([plain]),
      stream,
      stream(),
      `${url}/a.tar`,
    ])
      expect(await keys(source)).toEqual(expected);
    await expect(keys(`${url}/b.tar`)).rejects.toThrow(
      /b\.tar: expected an answer with bytes, got status 404/,
    );
    const once = webDataset(stream());
    await all(once);
    await expect(all(once)).rejects.toThrow(/\(\) => stream/);
  } finally {
    server.close();
  }
});

describe("order", () => {
  const paths = [0, 1, 2].map((i) => {
    writeFileSync(join(folder, `s-${i}.tar`), shard(10 * i, 5));
    return join(folder, `s-${i}.tar`);
  });
  const pattern = join(folder, "s-{0..2}.tar");
  const epoch = async <S>(loader: DataLoader<S, number[]>) => {
    const found: number[][] = [];
    for await (const batch of loader) found.push(batch);
    return found;
  };
  const collate = (samples: unknown[]) => samples.map((s) => Number((s as { cls: bigint }).cls));
  const make = (options: object, seed = 1) =>
    new DataLoader(webDataset(pattern, options), { batchSize: 2, seed, collate });
  const everything = [0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24];

  test("names count, shards are dealt to processes", async () => {
    expect((await epoch(make({}))).flat()).toEqual(everything);
    expect(webDataset(pattern).shards).toEqual(paths);
    expect(webDataset(pattern, { rank: 1, worldSize: 2 }).shards).toEqual([paths[1]]);
    expect(() => webDataset([])).toThrow(ArgumentError);
    expect(() => webDataset(pattern, { rank: 2, worldSize: 2 })).toThrow(ArgumentError);
    expect(() => webDataset("a-{3..1}.tar")).toThrow(ArgumentError);
  });

  test("shuffled: every sample once, another order each epoch, the same by seed", async () => {
    const loader = make({ shuffle: 4 });
    const [first, second] = [await epoch(loader), await epoch(loader)];
    for (const order of [first, second]) {
      expect(order.flat().sort((a, b) => a - b)).toEqual(everything);
      expect(order.flat()).not.toEqual(everything);
    }
    expect(first).not.toEqual(second);
    expect(await epoch(make({ shuffle: 4 }))).toEqual(first);
    expect(await epoch(make({ shuffle: 4 }, 2))).not.toEqual(first);
    // A buffer of all of them shuffles completely, one of none not at all.
    expect((await epoch(make({ shuffle: 100 }))).flat().sort((a, b) => a - b)).toEqual(everything);
  });

  test("a resumed pass gives exactly the rest, whatever shuffle and map", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(20), fc.nat(8), fc.boolean(), async (shuffle, taken, filter) => {
        const map = filter ? (s: { cls: bigint }) => (s.cls % 3n === 0n ? null : s) : undefined;
        const whole = await epoch(make({ shuffle, map }));
        const resumed = make({ shuffle, map });
        resumed.load({ ...resumed.state(), batch: taken });
        expect(await epoch(resumed)).toEqual(whole.slice(taken));
      }),
      { numRuns: 25 },
    );
  });
});

describe("damaged shards name themselves and the place", () => {
  const good = shard(0, 2);
  const read = (bytes: Uint8Array | string) => all(webDataset(bytes));

  test("cut off anywhere", async () => {
    const path = join(folder, "cut.tar");
    for (const length of [0, 100, 512, 700, 1024, 1500, 4096]) {
      writeFileSync(path, good.subarray(0, length));
      await expect(read(path)).rejects.toThrow(DataError);
      await expect(read(path)).rejects.toThrow(
        /cut\.tar, byte \d+: expected \d+ bytes of .* cut off/s,
      );
    }
    const packed = gzipSync(good);
    writeFileSync(path, packed.subarray(0, packed.length - 20));
    await expect(read(path)).rejects.toThrow(/cut\.tar \(decompressed\)/);
    await expect(read(join(folder, "none.tar"))).rejects.toThrow(
      /none\.tar: expected readable bytes.*ENOENT/s,
    );
  });

  test("corrupt headers, sizes and members", async () => {
    const changed = (at: number, byte: number) => {
      const bytes = Uint8Array.from(good);
      bytes[at] = byte;
      return bytes;
    };
    await expect(read(changed(1024 + 3, 0x58))).rejects.toThrow(
      /shard 0, byte 1024: expected a tar header with its check sum/,
    );
    await expect(read(tar({ path: "a.json", bytes: "{" }))).rejects.toThrow(/a\.json, decoded/);
    await expect(
      read(tar({ path: "a.txt", bytes: "1" }, { path: "a.txt", bytes: "2" })),
    ).rejects.toThrow(/byte 1024: expected each file of a sample once/);
    await expect(read(tar({ path: "x", bytes: "no record", type: "x" }))).rejects.toThrow(
      /a pax record/,
    );
    await expect(read(new Uint8Array(2000).fill(7))).rejects.toThrow(/check sum/);
  });
});

onEachDevice("a loader's batches", () => {
  test("are tensors", async () => {
    const images = tar(
      ...[1, 2].flatMap((i) => [
        { path: `${i}.bin`, bytes: Uint8Array.of(i, i) },
        { path: `${i}.cls`, bytes: `${i}` },
      ]),
    );
    const map = (s: Record<string, unknown>) => ({ x: s.bin as Uint8Array, y: s.cls as bigint });
    const loader = new DataLoader(webDataset(images, { map }), { batchSize: 2 });
    for await (const { x, y } of loader as AsyncIterable<{ x: Tensor; y: Tensor }>) {
      expect([x.dtype, await x.tolist()]).toEqual([
        "u8",
        [
          [1, 1],
          [2, 2],
        ],
      ]);
      expect([y.dtype, await y.tolist()]).toEqual(["i32", [1, 2]]);
    }
  });
});
