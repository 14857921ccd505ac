/** @file GGUF: blocks against ggml's own reader in Python, files built by hand, hostile files. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { CheckpointError } from "hinode";
import { loadGguf, openGguf } from "hinode/nn";
import { afterAll, describe, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

const folder = mkdtempSync(join(tmpdir(), "hinode-gguf-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const fixture: {
  types: Record<string, { type: number; bytes: string; values: string }>;
} = JSON.parse(readFileSync(join(import.meta.dirname, "data/ggml-blocks.json"), "utf8"));
const bytesOf = (base64: string): Uint8Array => new Uint8Array(Buffer.from(base64, "base64"));

/** Writes numbers and strings as GGUF does. */
class Writer {
  readonly parts: number[] = [];
  #number(bytes: number, set: (view: DataView) => void): this {
    const view = new DataView(new ArrayBuffer(bytes));
    set(view);
    this.parts.push(...new Uint8Array(view.buffer));
    return this;
  }
  u32 = (x: number) => this.#number(4, (v) => v.setUint32(0, x, true));
  u64 = (x: number | bigint) => this.#number(8, (v) => v.setBigUint64(0, BigInt(x), true));
  i64 = (x: bigint) => this.#number(8, (v) => v.setBigInt64(0, x, true));
  f32 = (x: number) => this.#number(4, (v) => v.setFloat32(0, x, true));
  f64 = (x: number) => this.#number(8, (v) => v.setFloat64(0, x, true));
  bytes = (...x: number[]): this => {
    this.parts.push(...x);
    return this;
  };
  string = (text: string): this => {
    const bytes = new TextEncoder().encode(text);
    return this.u64(bytes.length).bytes(...bytes);
  };
}

interface Part {
  readonly name: string;
  readonly type: number;
  /** In the file's order: the innermost axis first. */
  readonly dims: readonly number[];
  readonly data: Uint8Array;
  readonly offset?: number;
}

function gguf(
  tensors: readonly Part[],
  pairs: (w: Writer) => void = () => {},
  count = 0,
  alignment = 32,
) {
  const w = new Writer();
  w.bytes(...new TextEncoder().encode("GGUF"))
    .u32(3)
    .u64(tensors.length)
    .u64(count);
  pairs(w);
  let at = 0;
  for (const { name, type, dims, data, offset } of tensors) {
    w.string(name).u32(dims.length);
    for (const d of dims) w.u64(d);
    w.u32(type).u64(offset ?? at);
    at = Math.ceil((at + data.length) / alignment) * alignment;
  }
  const pad = () => {
    while (w.parts.length % alignment !== 0) w.parts.push(0);
  };
  for (const { data } of tensors) {
    pad();
    w.bytes(...data);
  }
  pad();
  return Uint8Array.from(w.parts);
}

const f32 = (...x: number[]): Uint8Array => new Uint8Array(Float32Array.from(x).buffer);

describe("blocks", () => {
  test.each(Object.entries(fixture.types))("%s, as ggml's reader has them", async (name, t) => {
    const values = new Float32Array(bytesOf(t.values).buffer);
    const file = gguf([
      { name: "w", type: t.type, dims: [values.length / 2, 2], data: bytesOf(t.bytes) },
    ]);
    const opened = await openGguf(file);
    expect(opened.entries.get("w")).toMatchObject({ type: name, shape: [2, values.length / 2] });
    const { dtype, data } = await opened.read("w");
    expect(dtype).toBe("f32");
    expect(new Uint32Array(data.buffer)).toEqual(new Uint32Array(values.buffer));
  });

  test("Q4_0 and Q8_0 by hand", async () => {
    // d = 0.5; nibbles 0 … 15 in the lower halves, 15 … 0 in the upper ones.
    const q4 = [0x00, 0x38, ...Array.from({ length: 16 }, (_, i) => i | ((15 - i) << 4))];
    const q8 = [0x00, 0x40, ...Array.from({ length: 32 }, (_, i) => (i - 16) & 255)];
    const opened = await openGguf(
      gguf([
        { name: "a", type: 2, dims: [32], data: Uint8Array.from(q4) },
        { name: "b", type: 8, dims: [32], data: Uint8Array.from(q8) },
      ]),
    );
    const codes = [...Array(32).keys()].map((i) => (i < 16 ? i : 31 - i));
    expect([...(await opened.read("a")).data]).toEqual(codes.map((c) => 0.5 * (c - 8)));
    expect([...(await opened.read("b")).data]).toEqual(
      [...Array(32).keys()].map((i) => 2 * (i - 16)),
    );
  });
});

test("metadata of every kind; alignment; integers", async () => {
  const pairs = (w: Writer) => {
    w.string("general.architecture").u32(8).string("llama 日");
    w.string("u8").u32(0).bytes(255);
    w.string("i8").u32(1).bytes(255);
    w.string("u16").u32(2).bytes(255, 255);
    w.string("i16").u32(3).bytes(255, 255);
    w.string("i32").u32(5).u32(0xffffffff);
    w.string("f32").u32(6).f32(0.5);
    w.string("bool").u32(7).bytes(1);
    w.string("u64")
      .u32(10)
      .u64(2n ** 63n);
    w.string("i64").u32(11).i64(-5n);
    w.string("f64").u32(12).f64(0.1);
    w.string("list").u32(9).u32(8).u64(2).string("a").string("");
    w.string("lists").u32(9).u32(9).u64(1).u32(4).u64(2).u32(7).u32(8);
    w.string("general.alignment").u32(4).u32(64);
  };
  const int64 = new Uint8Array(BigInt64Array.of(3n, -4n).buffer);
  const parts = [
    { name: "x", type: 0, dims: [3], data: f32(1, 2, 3) },
    { name: "n", type: 27, dims: [2], data: int64 },
  ];
  await using opened = await openGguf(gguf(parts, pairs, 14, 64));
  expect(Object.fromEntries(opened.metadata)).toEqual({
    "general.architecture": "llama 日",
    u8: 255,
    i8: -1,
    u16: 65535,
    i16: -1,
    i32: -1,
    f32: 0.5,
    bool: true,
    u64: 2n ** 63n,
    i64: -5,
    f64: 0.1,
    list: ["a", ""],
    lists: [[7, 8]],
    "general.alignment": 64,
  });
  expect(opened.entries.get("n")!.begin % 64).toBe(0);
  expect(await opened.read("n")).toEqual({ dtype: "i32", shape: [2], data: Int32Array.of(3, -4) });
  await expect(opened.read("none")).rejects.toThrow(/one of its 2 tensors/);
});

test("a header longer than the first piece that is read", async () => {
  const path = join(folder, "long.gguf");
  const text = "x".repeat(3 * 2 ** 20);
  const bytes = new Uint8Array(2 ** 22);
  const head = gguf([], (w) => w.string("text").u32(8).u64(text.length), 1).subarray(
    0,
    24 + 8 + 4 + 4 + 8,
  );
  bytes.set(head);
  bytes.set(new TextEncoder().encode(text), head.length);
  writeFileSync(path, bytes);
  await using opened = await openGguf(path);
  expect(opened.metadata.get("text")).toBe(text);
});

onEachDevice("tensors", (device) => {
  test("of a file, dequantised", async () => {
    const path = join(folder, `${device}.gguf`);
    const q8 = Uint8Array.from([0x00, 0x3c, ...Array.from({ length: 32 }, (_, i) => i)]);
    writeFileSync(
      path,
      gguf([
        { name: "matrix", type: 0, dims: [3, 2], data: f32(1, 2, 3, 4, 5, 6) },
        { name: "row", type: 8, dims: [32, 1], data: q8 },
      ]),
    );
    const { matrix, row } = await loadGguf(path);
    expect(await matrix.tolist()).toEqual([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect(await row.add(1).tolist()).toEqual([Array.from({ length: 32 }, (_, i) => i + 1)]);
  });
});

describe("hostile files", () => {
  const good = gguf(
    [{ name: "x", type: 0, dims: [2], data: f32(1, 2) }],
    (w) => w.string("list").u32(9).u32(8).u64(1).string("abc"),
    1,
  );
  const part = (changes: Partial<Part>) =>
    gguf([{ name: "x", type: 0, dims: [2], data: f32(1, 2), ...changes }]);
  const twice = { name: "x", type: 0, dims: [1], data: f32(1) };

  test.each<[string, Uint8Array, RegExp]>([
    ["another format", f32(1, 2, 3), /begins with "GGUF"/],
    ["big-endian", Uint8Array.from(good).fill(3, 7, 8).fill(0, 4, 7), /version 2 or 3/],
    ["nothing", new Uint8Array(0), /cut off/],
    ["an unknown type", part({ type: 16 }), /ggml's type 16/],
    ["a row of half a block", part({ type: 2, dims: [16] }), /multiple of 32 for Q4_0/],
    ["data beyond the end", part({ dims: [2 ** 40] }), /its end at/],
    ["too many axes", part({ dims: [1, 1, 1, 1, 2] }), /at most 4 axes/],
    ["an odd offset", part({ offset: 4 }), /a multiple of 32/],
    ["a name twice", gguf([twice, twice]), /each name once/],
    ["more tensors than bytes", Uint8Array.from(good).fill(255, 8, 14), /a count within/],
    [
      "a list beyond the end",
      gguf(
        [],
        (w) =>
          w
            .string("a")
            .u32(9)
            .u32(0)
            .u64(2 ** 40),
        1,
      ),
      /a count within/,
    ],
    [
      "lists without end",
      gguf(
        [],
        (w) => {
          w.string("a").u32(9);
          for (let i = 0; i < 9; i++) w.u32(9).u64(1);
        },
        1,
      ),
      /four levels/,
    ],
    ["an unknown kind", gguf([], (w) => w.string("a").u32(77).u32(0), 1), /0 … 12/],
    ["no alignment", gguf([], (w) => w.string("general.alignment").u32(4).u32(0), 1), /≥ 1/],
  ])("%s", async (_, bytes, message) => {
    await expect(openGguf(bytes)).rejects.toThrow(message);
    await expect(openGguf(bytes)).rejects.toThrow(CheckpointError);
  });

  test("cut off anywhere, or with any byte changed: a CheckpointError or a file", async () => {
    const read = async (bytes: Uint8Array) => {
      const opened = await openGguf(bytes);
      for (const name of opened.entries.keys()) await opened.read(name);
    };
    const ofOurs = (error: unknown) => expect(error).toBeInstanceOf(CheckpointError);
    const data = good.length - 24;
    for (let length = 0; length < data; length++)
      await expect(read(good.subarray(0, length))).rejects.toThrow(CheckpointError);
    await fc.assert(
      fc.asyncProperty(fc.nat(good.length - 1), fc.nat(255), async (at, byte) => {
        const bytes = Uint8Array.from(good);
        bytes[at] = byte;
        await read(bytes).catch(ofOurs);
      }),
      { numRuns: 300 },
    );
  });
});
