/** @file safetensors: round trips, files of other writers, hostile files, and saves that fail half-way. */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import {
  CheckpointError,
  type DType,
  dtypes,
  IndexOutOfRangeError,
  init,
  type Tensor,
  tensor,
  zeros,
} from "hinode";
import {
  decodeSafetensors,
  encodeSafetensors,
  type HostTensor,
  Linear,
  loadModel,
  loadSafetensors,
  Module,
  openSafetensors,
  saveModel,
  saveSafetensors,
} from "hinode/nn";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { devices } from "../support/devices.ts";
import { readSafetensors } from "../support/safetensors.ts";

const golden = join(import.meta.dirname, "../golden/data");
const folder = mkdtempSync(join(tmpdir(), "hinode-checkpoint-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
/** A path in a folder of its own, so that left-over files are seen. */
let made = 0;
const fresh = (): string => {
  const inside = join(folder, `${made++}`);
  mkdirSync(inside);
  return join(inside, "a.safetensors");
};

const bits = (data: ArrayBufferView): Uint8Array =>
  new Uint8Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));

/** A file with any header and any data. */
function file(header: string | Uint8Array, data: number | Uint8Array = 0): Uint8Array {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const rest = typeof data === "number" ? new Uint8Array(data) : data;
  const bytes = new Uint8Array(8 + text.length + rest.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(rest, 8 + text.length);
  return bytes;
}

/** The header of one tensor "a". */
const one = (dtype: string, shape: unknown, offsets: unknown): string =>
  JSON.stringify({ a: { dtype, shape, data_offsets: offsets } });

const samples: Record<string, HostTensor> = {
  special: {
    dtype: "f32",
    shape: [2, 4],
    data: new Float32Array([NaN, Infinity, -Infinity, -0, 0, 1e-45, -3.4028235e38, 0.1]),
  },
  f16: {
    dtype: "f16",
    shape: [7],
    data: new Float16Array([NaN, Infinity, -Infinity, -0, 2 ** -24, 65504, 0.1]),
  },
  bf16: {
    dtype: "bf16",
    shape: [7, 1],
    data: new Float32Array([NaN, Infinity, -Infinity, -0, 2 ** -133, -3.3895313892515355e38, 1.5]),
  },
  i: { dtype: "i32", shape: [3], data: new Int32Array([-(2 ** 31), 2 ** 31 - 1, -1]) },
  u: { dtype: "u32", shape: [1, 2], data: new Uint32Array([0, 2 ** 32 - 1]) },
  i8: { dtype: "i8", shape: [3], data: new Int8Array([-128, 127, -1]) },
  u8: { dtype: "u8", shape: [5], data: new Uint8Array([0, 255, 1, 2, 3]) },
  b: { dtype: "bool", shape: [3], data: new Uint8Array([1, 0, 1]) },
  scalar: { dtype: "f32", shape: [], data: new Float32Array([3.25]) },
  empty: { dtype: "f32", shape: [0, 3], data: new Float32Array(0) },
  "": { dtype: "i8", shape: [0], data: new Int8Array(0) },
  'quote " \\ \n é 日の出': { dtype: "u8", shape: [1], data: new Uint8Array([7]) },
  ["__proto__"]: { dtype: "f32", shape: [1], data: new Float32Array([5]) },
};

describe.each(devices)("round trips on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
  });

  test("every dtype, 0-d, size 0, special floats, odd names, metadata", async () => {
    const metadata = { format: "pt", 'a "b"': "日の出\n" };
    const tensors = Object.fromEntries(
      Object.entries(samples).map(([name, { data, dtype, shape }]) => [
        name,
        tensor(data, { dtype, shape }),
      ]),
    );
    const encoded = await encodeSafetensors(tensors, metadata);
    expect(encoded).toEqual(await encodeSafetensors(samples, metadata));
    const path = fresh();
    await saveSafetensors(path, tensors, metadata);
    expect(bits(readFileSync(path))).toEqual(encoded);
    // At every alignment, as a plain array and as Node's Buffer.
    for (let shift = 0; shift < 9; shift++) {
      const shifted = new Uint8Array(encoded.length + shift);
      shifted.set(encoded, shift);
      const view = shifted.subarray(shift);
      const buffer = Buffer.from(view.buffer, shift, encoded.length);
      for (const bytes of [view, buffer]) {
        const decoded = decodeSafetensors(bytes);
        expect(Object.fromEntries(decoded.metadata)).toEqual(metadata);
        expect(decoded.tensors.size).toBe(Object.keys(samples).length);
        for (const [name, { dtype, shape, data }] of Object.entries(samples)) {
          const got = decoded.tensors.get(name)!;
          expect([got.dtype, got.shape]).toEqual([dtype, shape]);
          expect(got.data()).toBeInstanceOf(dtypes[dtype].array);
          expect(bits(got.data())).toEqual(bits(data));
        }
      }
    }
    const loaded = await loadSafetensors(path);
    expect(Object.keys(loaded).sort()).toEqual(Object.keys(samples).sort());
    for (const [name, { dtype, shape, data }] of Object.entries(samples)) {
      expect([loaded[name].dtype, loaded[name].shape]).toEqual([dtype, shape]);
      expect(bits(await loaded[name].data())).toEqual(bits(data));
    }
  });

  test("an open file is read tensor by tensor", async () => {
    const path = fresh();
    await saveSafetensors(path, samples);
    await using opened = await openSafetensors(path);
    expect(opened.entries.get("i")).toMatchObject({ stored: "I32", dtype: "i32", shape: [3] });
    expect(await (await opened.tensor("i")).tolist()).toEqual([-(2 ** 31), 2 ** 31 - 1, -1]);
    expect([...(await opened.read("u")).data()]).toEqual([0, 2 ** 32 - 1]);
    await expect(opened.read("none")).rejects.toThrow(/one of its 13 tensors, got "none"/);
  });

  test("the file has the values of the call, whatever training does meanwhile", async () => {
    const path = fresh();
    const a = tensor([1, 2, 3]);
    const saved = saveSafetensors(path, { a, b: a });
    a.assign(a.mul(10));
    expect(await a.tolist()).toEqual([10, 20, 30]);
    await saved;
    const { a: first, b: second } = await loadSafetensors(path);
    expect([await first.tolist(), await second.tolist()]).toEqual([
      [1, 2, 3],
      [1, 2, 3],
    ]);
    expect(await a.tolist()).toEqual([10, 20, 30]);
  });

  test("a model: tied weights are stored once, and any of their names is accepted", async () => {
    class Tied extends Module {
      a = new Linear(2, 3, { bias: false });
      b = new Linear(2, 3, { bias: false });
      scale: Tensor = zeros([]);
      constructor() {
        super();
        this.b.weight = this.a.weight;
      }
    }
    const [from, to] = [new Tied(), new Tied()];
    const path = fresh();
    await saveModel(path, from);
    {
      await using opened = await openSafetensors(path);
      expect([...opened.entries.keys()].sort()).toEqual(["a.weight", "scale"]);
      expect(opened.metadata.get("format")).toBe("pt");
    }
    expect(await loadModel(path, to)).toEqual({ missing: [], unexpected: [] });
    expect(await to.b.weight.data()).toEqual(await from.a.weight.data());
    await saveSafetensors(path, {
      "m.b.weight": from.a.weight,
      "m.scale": zeros([]),
      other: zeros([1]),
    });
    await loadModel(path, new Tied(), { prefix: "m." });
  });

  test("halves are stored as such; an f32 model reads them exactly, the other way is refused", async () => {
    for (const dtype of ["f16", "bf16"] as const) {
      const half = new Linear(3, 2).to(dtype);
      const path = fresh();
      await saveModel(path, half);
      await using opened = await openSafetensors(path);
      const { stored, begin, end } = opened.entries.get("weight")!;
      expect([stored, end - begin]).toEqual([dtype.toUpperCase(), 12]);
      const [again, wide] = [new Linear(3, 2).to(dtype), new Linear(3, 2)];
      await loadModel(path, again);
      await loadModel(path, wide);
      expect([again.weight.dtype, wide.weight.dtype]).toEqual([dtype, "f32"]);
      const want = [...(await half.weight.data())];
      expect([...(await again.weight.data())]).toEqual(want);
      expect([...(await wide.weight.data())]).toEqual(want);
      await saveModel(path, wide);
      await expect(loadModel(path, again)).rejects.toThrow(/weight: expected b?f16.*got F32/);
    }
  });

  test("what does not fit a model is listed in one error, and nothing changes", async () => {
    const path = fresh();
    const model = new Linear(2, 3);
    const before = await model.weight.data();
    await saveSafetensors(path, {
      weight: { dtype: "i32", shape: [3, 2], data: new Int32Array(6) },
      extra: zeros([1]),
    });
    const load = loadModel(path, model);
    await expect(load).rejects.toThrow(CheckpointError);
    await expect(load).rejects.toThrow(
      /a\.safetensors: .*\n?.*missing: bias\n {2}unexpected: extra\n {2}weight: expected f32\[3, 2\], got I32\[3, 2\]/,
    );
    await expect(loadModel(path, model, { strict: false })).rejects.toThrow(/weight: expected/);
    expect(await model.weight.data()).toEqual(before);
    await saveSafetensors(path, { weight: zeros([3, 2]), extra: zeros([1]) });
    expect(await loadModel(path, model, { strict: false })).toEqual({
      missing: ["bias"],
      unexpected: ["extra"],
    });
    expect(await model.weight.sum().item()).toBe(0);
  });
});

describe("files of the reference implementation", () => {
  beforeAll(async () => {
    await init({ device: "reference" });
  });

  test("one tensor per dtype", async () => {
    const { metadata, values } = JSON.parse(readFileSync(join(golden, "dtypes.json"), "utf8"));
    const path = join(golden, "dtypes.safetensors");
    const decoded = decodeSafetensors(readFileSync(path));
    expect(Object.fromEntries(decoded.metadata)).toEqual(metadata);
    expect([...decoded.tensors.keys()].sort()).toEqual(Object.keys(values).sort());
    const loaded = await loadSafetensors(path);
    const as: Record<string, DType> = {
      float16: "f16",
      bfloat16: "bf16",
      bool: "bool",
      uint8: "u8",
      int8: "i8",
    };
    for (const [name, want] of Object.entries<{ dtype: string; shape: number[]; values: number[] }>(
      values,
    )) {
      const got = decoded.tensors.get(name)!;
      const dtype = as[want.dtype] ?? (/float/.test(want.dtype) ? "f32" : "i32");
      expect([got.dtype, got.shape], name).toEqual([dtype, want.shape]);
      const rounded = dtype === "f32" ? want.values.map(Math.fround) : want.values;
      expect([...got.data()], name).toEqual(rounded);
      expect([...(await loaded[name].data())], name).toEqual(rounded);
    }
  });

  test.each(["nn", "ops", "optim", "transforms"])("%s.safetensors, and back", async (name) => {
    const path = join(golden, `${name}.safetensors`);
    const bytes = readFileSync(path);
    const { tensors, metadata } = decodeSafetensors(bytes);
    const want = readSafetensors(bytes);
    expect(tensors.size).toBe(want.size);
    const host: [string, HostTensor][] = [];
    for (const [key, { shape, data }] of want) {
      const got = tensors.get(key)!;
      expect(got.shape).toEqual(shape);
      expect(bits(got.data())).toEqual(bits(data));
      host.push([key, { dtype: got.dtype, shape, data: got.data() }]);
    }
    // The same order, offsets and padding: the same file, byte for byte.
    const again = await encodeSafetensors(Object.fromEntries(host), Object.fromEntries(metadata));
    expect(Buffer.compare(Buffer.from(again), bytes)).toBe(0);
  });

  test("all halves and their NaNs, doubles and long integers at the edge of the range", () => {
    const words = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const read = (dtype: string, data: ArrayBufferView, length: number) =>
      decodeSafetensors(file(one(dtype, [length], [0, data.byteLength]), bits(data)))
        .tensors.get("a")!
        .data();
    const half = read("F16", words, 65536);
    const truth = new Float16Array(words.buffer);
    expect(half.findIndex((x, i) => !Object.is(x, truth[i]))).toBe(-1);
    const brain = new Uint32Array(read("BF16", words, 65536).buffer);
    expect(brain.findIndex((x, i) => x !== i * 65536)).toBe(-1);
    const max = 3.4028234663852886e38;
    expect([...read("F64", new Float64Array([max, -Infinity, NaN, 1e-60]), 4)]).toEqual([
      max,
      -Infinity,
      NaN,
      0,
    ]);
    expect(() => read("F64", new Float64Array([0, 3.5e38]), 2)).toThrow(
      /tensor "a": expected doubles within the range of f32, got 3.5e\+38 at position 1/,
    );
    const edge = [2n ** 31n - 1n, -(2n ** 31n)];
    expect([...read("I64", new BigInt64Array(edge), 2)]).toEqual(edge.map(Number));
    for (const beyond of [2n ** 31n, -(2n ** 31n) - 1n, 2n ** 32n, -(2n ** 63n)])
      expect(() => read("I64", new BigInt64Array([beyond]), 1)).toThrow(`got ${beyond} at`);
    expect(() => read("BOOL", new Uint8Array([1, 2]), 2)).toThrow(/0 or 1 for each bool, got 2/);
  });
});

describe("what is no safetensors file", () => {
  const entry = (offsets: string, more = "") =>
    `{"dtype":"U8","shape":[2],"data_offsets":${offsets}${more}}`;
  const cases: [string, Uint8Array, RegExp][] = [
    ["nothing", new Uint8Array(0), /8 bytes or more/],
    ["7 bytes", new Uint8Array(7), /8 bytes or more/],
    ["a header of 2⁶⁴ − 1", new Uint8Array(100).fill(255), /header length of 1844674407370955/],
    ["a header one byte too long", file("{}").subarray(0, 9), /header length of 2/],
    ["no header", file(""), /"{" at character 0 of the header, got its end/],
    ["a list", file("[]"), /expected "{"/],
    ["a number", file("12"), /expected "{"/],
    ["leading space", file(" {}"), /expected "{"/],
    ["not JSON", file("{a}"), /a string/],
    ["an open object", file('{"a":'), /expected "{" .* got its end/],
    ["an open string", file('{"a'), /end of a string/],
    ["a wrong escape", file('{"\\x":1}'), /strings as JSON/],
    ["half a surrogate pair", file('{"\\ud800":1}'), /strings as JSON/],
    ["a raw line break", file('{"\n":1}'), /strings as JSON/],
    ["not UTF-8", file(new Uint8Array([0x7b, 0x22, 0xff, 0x22])), /UTF-8/],
    ["a byte order mark", file("\ufeff{}"), /expected "{"/],
    ["something behind", file("{} {"), /the end of the header/],
    ["a comma too many", file(`{"a":${entry("[0,2]")},}`, 2), /a string/],
    ["a name twice", file(`{"a":${entry("[0,2]")},"\\u0061":${entry("[2,4]")}}`, 4), /"a" twice/],
    ["metadata twice", file('{"__metadata__":{},"__metadata__":{}}'), /one "__metadata__"/],
    ["metadata's key twice", file('{"__metadata__":{"k":"","k":""}}'), /"k" twice/],
    ["metadata of numbers", file('{"__metadata__":{"k":1}}'), /a string/],
    ["a key twice", file(`{"a":${entry("[0,2]", ',"dtype":"U8"')}}`, 2), /each once, got "dtype"/],
    ["an unknown key", file(`{"a":${entry("[0,2]", ',"x":"U8"')}}`, 2), /got "x"/],
    ["no dtype", file('{"a":{"shape":[2],"data_offsets":[0,2]}}', 2), /dtype missing/],
    ["no shape", file('{"a":{"dtype":"U8","data_offsets":[0,2]}}', 2), /shape missing/],
    ["no offsets", file('{"a":{"dtype":"U8","shape":[2]}}', 2), /offsets \[\]/],
    ["one offset", file(`{"a":${entry("[2]")}}`, 2), /offsets \[2\]/],
    ["three offsets", file(`{"a":${entry("[0,2,2]")}}`, 2), /at most 2/],
    ["an unknown dtype", file(one("F8_E4M3", [2], [0, 2]), 2), /got "F8_E4M3"/],
    ["a dtype of the prototype", file(one("toString", [2], [0, 2]), 2), /got "toString"/],
    ["a negative shape", file(one("U8", [-2], [0, 2]), 2), /tensor "a": .* got -2/],
    ["a fractional shape", file(one("U8", [1.5], [0, 2]), 2), /got 1.5/],
    ["a shape with an exponent", file(one("U8", [2], [0, 2]).replace("[2]", "[2e0]"), 2), /2e0/],
    ["a shape of text", file(one("U8", ["2"], [0, 2]), 2), /a number/],
    [
      "a shape beyond 2⁵³",
      file(one("U8", [2], [0, 2]).replace("[2]", "[9007199254740993]"), 2),
      /90071/,
    ],
    [
      "a shape whose product wraps",
      file(one("F32", [2 ** 30, 2 ** 30, 2 ** 30], [0, 0])),
      /memory/,
    ],
    ["an overflow hidden by a 0", file(one("F32", [0, 2 ** 31], [0, 0])), /memory/],
    ["1000 dimensions", file(one("U8", new Array(1000).fill(1), [0, 1]), 1), /at most 64/],
    ["a lying size", file(one("F32", [2 ** 20, 2 ** 10], [0, 4]), 4), /4294967296 bytes for F32/],
    ["offsets backwards", file(one("U8", [2], [2, 0]), 2), /got -2, from 2 to 0/],
    [
      "offsets beyond the file",
      file(one("U8", [2 ** 30], [0, 2 ** 30]), 2),
      /within the file's 2 bytes/,
    ],
    ["a hole in front", file(one("U8", [2], [2, 4]), 4), /begins at 0, .* a hole/],
    ["a hole", file(`{"a":${entry("[0,2]")},"b":${entry("[3,5]")}}`, 5), /"b": .* a hole/],
    ["an overlap", file(`{"a":${entry("[0,2]")},"b":${entry("[1,3]")}}`, 3), /"b": .* an overlap/],
    ["the same data twice", file(`{"a":${entry("[0,2]")},"b":${entry("[0,2]")}}`, 2), /an overlap/],
    ["trailing bytes", file(one("U8", [2], [0, 2]), 3), /2 bytes of data, .* got 3/],
    ["deep nesting", file('{"a":'.repeat(100_000)), /dtype, shape and data_offsets/],
  ];

  test.each(cases)("%s", (_, bytes, message) => {
    const decode = () => decodeSafetensors(bytes, "x.safetensors");
    expect(decode).toThrow(CheckpointError);
    expect(decode).toThrow(message);
    expect(decode).toThrow(/^x\.safetensors: /);
  });

  test.each(cases)("%s, on disk", async (_, bytes, message) => {
    const path = fresh();
    writeFileSync(path, bytes);
    const opened = openSafetensors(path);
    await expect(opened).rejects.toThrow(CheckpointError);
    await expect(opened).rejects.toThrow(message);
    await expect(opened).rejects.toThrow(path);
  });

  test("white space where JSON allows it is fine, and an empty file is one of no tensors", () => {
    const text =
      ` {"a" :\n{ "shape": [ 2 ,1 ],\t"data_offsets":[0, 2 ],"dtype":"U8"} }\r\n  `.trimStart();
    expect(decodeSafetensors(file(text, 2)).tensors.get("a")!.shape).toEqual([2, 1]);
    expect(decodeSafetensors(file("{}")).tensors.size).toBe(0);
  });

  test("what cannot be written is refused before a file is made", async () => {
    const path = fresh();
    const data = new Float32Array(2);
    const bad: [Record<string, HostTensor>, Record<string, string>?][] = [
      [{ a: { dtype: "f32", shape: [3], data } }],
      [{ a: { dtype: "i32", shape: [2], data } }],
      [{ __metadata__: { dtype: "f32", shape: [2], data } }],
      [{ "\ud800": { dtype: "f32", shape: [2], data } }],
      [{}, { key: 1 as unknown as string }],
    ];
    for (const args of bad)
      await expect(saveSafetensors(path, ...args)).rejects.toThrow(/safetensors/);
    expect(readdirSync(join(path, ".."))).toEqual([]);
  });
});

/** mulberry32: a few lines, the same numbers everywhere. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** Truncated, flipped, or with a header that lies. */
function mutate(original: Uint8Array, below: (n: number) => number): Uint8Array {
  const length = 8 + Number(new DataView(original.buffer).getBigUint64(0, true));
  const text = new TextDecoder().decode(original.subarray(8, length));
  const data = original.subarray(length);
  const numbers = [
    "0",
    "1",
    "-1",
    "7",
    "1e9",
    "0.5",
    "2147483648",
    "4294967297",
    "9007199254740992",
  ];
  const pick = <T>(from: readonly T[]): T => from[below(from.length)];
  /** Replaces one of the pattern's matches. */
  const replaced = (pattern: RegExp, by: () => string): Uint8Array => {
    const found = [...text.matchAll(pattern)];
    const { index, 0: old } = pick(found);
    return file(text.slice(0, index) + by() + text.slice(index + old.length), data);
  };
  const kinds: (() => Uint8Array)[] = [
    () => original.slice(0, below(original.length)),
    () => {
      const bytes = original.slice();
      for (let n = 1 + below(4); n > 0; n--) bytes[below(bytes.length)] ^= 1 << below(8);
      return bytes;
    },
    () => {
      const bytes = original.slice();
      bytes[8 + below(length - 8)] = below(256);
      return bytes;
    },
    () => {
      const bytes = original.slice();
      const lie = BigInt(below(2 ** 32)) << BigInt(below(33));
      new DataView(bytes.buffer).setBigUint64(0, pick([lie, BigInt(below(length + 20))]), true);
      return bytes;
    },
    () => replaced(/\d+/g, () => pick(numbers)),
    () =>
      replaced(/"(F32|I32|U8|I64|F64|F16|BF16|BOOL|I8|I16|U16)"/g, () =>
        pick(['"F64"', '"U8"', '"BOOL"', '"I64"', '"C64"', "{}"]),
      ),
    () => replaced(/[{}[\],:"]/g, () => pick(["{", "}", "[", "]", ",", ":", '"', "", "[[[["])),
    () =>
      replaced(/"(dtype|shape|data_offsets|__metadata__)"/g, () =>
        pick(['"dtype"', '"shape"', '"a"', '"__proto__"']),
      ),
    () => file(text, original.subarray(length, original.length - below(data.length))),
    () => file(text + text, data),
  ];
  return pick(kinds)();
}

describe("10,000 mutated files", () => {
  const originals = ["dtypes", "optim", "transforms"].map((name) =>
    bits(readFileSync(join(golden, `${name}.safetensors`))),
  );

  // The first call of a function allocates its machine code.
  beforeAll(() => {
    for (const bytes of originals)
      for (const t of decodeSafetensors(bytes).tensors.values()) t.data();
  });

  test.each([1, 2, 3, 4])(
    "seed %i: a CheckpointError or a valid file, and no large allocation",
    (seed) => {
      const below = generator(seed);
      let [failed, valid, most, buffers, elements] = [0, 0, 0, 0, 0];
      /** Notes what a call allocates in all, garbage included, beyond the file's size. */
      const watch = <T>(run: () => T, file: Uint8Array): T => {
        const before = process.memoryUsage();
        try {
          return run();
        } finally {
          // A collection in between makes it smaller; it does not come often.
          const { arrayBuffers, heapUsed } = process.memoryUsage();
          const grown = arrayBuffers + heapUsed - before.arrayBuffers - before.heapUsed;
          most = Math.max(most, grown - file.length);
          buffers = Math.max(buffers, arrayBuffers - before.arrayBuffers - file.length);
        }
      };
      for (let i = 0; i < 2500; i++) {
        // Half of them small, where a flip is likely to hit the header.
        const bytes = mutate(originals[Math.min(below(4), 3) % 3 === 0 ? 0 : 1 + below(2)], below);
        try {
          const { tensors } = watch(
            () => decodeSafetensors(bytes, `seed ${seed}, file ${i}`),
            bytes,
          );
          for (const t of tensors.values()) elements += watch(() => t.data().length, bytes);
          valid++;
        } catch (error) {
          if (!(error instanceof CheckpointError) || error.message.length > 1000) throw error;
          failed++;
        }
      }
      console.log(`seed ${seed}: ${failed} refused, ${valid} valid; at most file + ${most} bytes`);
      expect(failed).toBeGreaterThan(1000);
      expect(valid).toBeGreaterThan(100);
      expect(elements).toBeGreaterThan(10_000);
      expect(buffers).toBeLessThan(2 ** 20);
      // The heap's figure also counts whatever the engine does meanwhile (code, profiles): seen below 1 MB, but not ours.
      expect(most).toBeLessThan(2 ** 23);
    },
  );

  test("200 of them on disk", async () => {
    const below = generator(5);
    const path = fresh();
    for (let i = 0; i < 200; i++) {
      const bytes = mutate(originals[0], below);
      writeFileSync(path, bytes);
      const outcome = (run: () => unknown) =>
        Promise.resolve()
          .then(run)
          .then(
            () => "valid",
            (error) => (error instanceof CheckpointError ? "refused" : Promise.reject(error)),
          );
      const memory = await outcome(() => {
        for (const t of decodeSafetensors(bytes).tensors.values()) t.data();
      });
      expect(await outcome(() => loadSafetensors(path)), `seed 5, file ${i}`).toBe(memory);
    }
  });
});

describe("atomic saves", () => {
  beforeAll(async () => {
    await init({ device: "wasm" });
  });

  test("a tensor that fails half-way leaves the old file and no other", async () => {
    const path = fresh();
    await saveSafetensors(path, { a: zeros([2]) });
    const old = readFileSync(path);
    // Reading "b", after "a" was written, raises an index error.
    const b = tensor([1, 2]).gather(0, tensor([5], { dtype: "i32" }));
    await expect(saveSafetensors(path, { a: zeros([1000]), b })).rejects.toThrow(
      IndexOutOfRangeError,
    );
    expect(readFileSync(path)).toEqual(old);
    expect(readdirSync(join(path, ".."))).toEqual(["a.safetensors"]);
  });

  test("a path that cannot be written or read is a CheckpointError with the system's reason", async () => {
    const path = fresh();
    await saveSafetensors(path, { a: zeros([2]) });
    const inside = join(path, "b.safetensors"); // a folder that is a file
    await expect(saveSafetensors(inside, { a: zeros([2]) })).rejects.toThrow(/ENOTDIR/);
    const missing = loadSafetensors(`${path}.none`);
    await expect(missing).rejects.toThrow(CheckpointError);
    await expect(missing).rejects.toMatchObject({ cause: { code: "ENOENT" } });
    await expect(loadSafetensors(join(path, ".."))).rejects.toThrow(CheckpointError);
    // Written whole, then refused by the rename: the temporary file goes.
    mkdirSync(join(path, "../folder/full"), { recursive: true });
    const onFolder = saveSafetensors(join(path, "../folder"), { a: zeros([2]) });
    await expect(onFolder).rejects.toThrow(CheckpointError);
    expect(readdirSync(join(path, "..")).sort()).toEqual(["a.safetensors", "folder"]);
  });

  test("saves at the same time do not mix", async () => {
    const path = fresh();
    const save = (x: number) =>
      saveSafetensors(path, { a: tensor(new Float32Array(10_000).fill(x)) });
    await Promise.all([1, 2, 3, 4].map(save));
    const data = await (await loadSafetensors(path)).a.data();
    expect(data.every((x) => x === data[0])).toBe(true);
    expect(readdirSync(join(path, ".."))).toEqual(["a.safetensors"]);
  });

  test("a process killed at any moment leaves a whole file", { timeout: 60_000 }, async () => {
    const path = fresh();
    // Each file holds one number everywhere; the child says when the first is written.
    const program = `
      import { saveSafetensors } from "hinode/nn";
      for (let i = 1; ; i++) {
        const data = new Float32Array(500_000).fill(i);
        await saveSafetensors(${JSON.stringify(path)}, { a: { dtype: "f32", shape: [500_000], data } });
        if (i === 1) console.log("saved");
      }`;
    for (let round = 0; round < 3; round++) {
      const args = ["--conditions=source", "--input-type=module", "-e", program];
      const child = spawn(process.execPath, args, { cwd: resolve(import.meta.dirname, "../..") });
      const ended = new Promise((done) => child.on("close", done));
      await new Promise((done) => child.stdout.once("data", done));
      await new Promise((done) => setTimeout(done, 3 + 11 * round));
      child.kill("SIGKILL");
      await ended;
      const data = decodeSafetensors(readFileSync(path)).tensors.get("a")!.data();
      expect(data.length).toBe(500_000);
      expect(data.every((x) => x === data[0] && x > 0)).toBe(true);
    }
  });
});
