/** @file NumPy's files: what NumPy wrote, round trips, what is refused. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { ArgumentError, CheckpointError, type DType, dtypes, type Tensor, tensor } from "hinode";
import {
  decodeNpy,
  decodeNpz,
  encodeNpy,
  encodeNpz,
  type HostTensor,
  loadNpy,
  loadNpz,
  saveNpy,
  saveNpz,
} from "hinode/nn";
import { afterAll, describe, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

const folder = mkdtempSync(join(tmpdir(), "hinode-npy-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const fixture: {
  arrays: {
    file: string;
    numpy: string;
    fortran: boolean;
    dtype: DType;
    shape: number[];
    values: number[];
  }[];
  npz: string;
  compressed: string;
  refused: Record<string, string>;
} = JSON.parse(readFileSync(join(import.meta.dirname, "data/numpy.json"), "utf8"));
const bytesOf = (base64: string): Uint8Array => new Uint8Array(Buffer.from(base64, "base64"));

describe("what NumPy wrote", () => {
  test.each(
    fixture.arrays.map(
      (a) => [`${a.numpy}${JSON.stringify(a.shape)}${a.fortran ? ", fortran" : ""}`, a] as const,
    ),
  )("%s", (_, a) => {
    const { dtype, shape, data } = decodeNpy(bytesOf(a.file));
    expect([dtype, shape, [...data]]).toEqual([a.dtype, a.shape, a.values]);
    expect(data).toBeInstanceOf(dtypes[dtype].array);
  });

  test.each(["npz", "compressed"] as const)("%s", async (kind) => {
    const arrays = await decodeNpz(bytesOf(fixture[kind]));
    expect([...arrays.keys()]).toEqual(["w", "b", "zeros"]);
    expect(arrays.get("w")).toEqual({
      dtype: "f32",
      shape: [2, 3],
      data: Float32Array.of(0, 1, 2, 3, 4, 5),
    });
    expect(arrays.get("b")).toEqual({ dtype: "i32", shape: [2], data: Int32Array.of(7, 8) });
    expect(arrays.get("zeros")!.data).toEqual(new Float32Array(500));
  });

  test.each(Object.entries(fixture.refused))("%s is refused", (_, file) => {
    expect(() => decodeNpy(bytesOf(file), "a.npy")).toThrow(CheckpointError);
    expect(() => decodeNpy(bytesOf(file), "a.npy")).toThrow(/a\.npy: expected/);
  });
});

test("the bytes are NumPy's own", async () => {
  for (const { file, numpy, fortran, dtype, shape } of fixture.arrays) {
    // Of another byte order, memory order, width or version we write the plain one.
    const same =
      numpy.replace(/^[<|]/, "") ===
      { f32: "f4", f16: "f2", i32: "i4", u32: "u4", i8: "i1", u8: "u1", bool: "b1", bf16: "" }[
        dtype
      ];
    const bytes = bytesOf(file);
    if (!same || fortran || bytes[6] !== 1) continue;
    // NumPy 2.4 leaves more room in the header.
    const written = await encodeNpy(decodeNpy(bytes));
    const header = (b: Uint8Array) =>
      new TextDecoder().decode(b.subarray(10, b.indexOf(0x7d))).trim();
    expect(header(written)).toBe(header(bytes));
    expect(decodeNpy(written)).toEqual({ dtype, shape, data: decodeNpy(bytes).data });
  }
});

const samples: Record<string, HostTensor> = {
  f32: { dtype: "f32", shape: [2, 2], data: Float32Array.of(NaN, -0, Infinity, 0.1) },
  f16: { dtype: "f16", shape: [3], data: Float16Array.of(65504, 2 ** -24, -1) },
  i32: { dtype: "i32", shape: [1, 2], data: Int32Array.of(-(2 ** 31), 2 ** 31 - 1) },
  u32: { dtype: "u32", shape: [], data: Uint32Array.of(2 ** 32 - 1) },
  i8: { dtype: "i8", shape: [2], data: Int8Array.of(-128, 127) },
  u8: { dtype: "u8", shape: [0, 2], data: new Uint8Array(0) },
  bool: { dtype: "bool", shape: [2], data: Uint8Array.of(1, 0) },
};

onEachDevice("round trips", (device) => {
  test("of every dtype, as single files and as archives", async () => {
    const tensors = Object.fromEntries(
      Object.entries(samples).map(([name, { data, dtype, shape }]) => [
        name,
        tensor(data, { dtype, shape }),
      ]),
    );
    const check = async (got: Tensor, name: string) => {
      const { dtype, shape, data } = samples[name];
      expect([got.dtype, got.shape, await got.data()]).toEqual([dtype, shape, data]);
    };
    for (const compress of [false, true]) {
      const path = join(folder, `${device}-${compress}.npz`);
      await saveNpz(path, tensors, { compress });
      const loaded = await loadNpz(path);
      expect(Object.keys(loaded)).toEqual(Object.keys(samples));
      for (const name of Object.keys(samples)) await check(loaded[name], name);
    }
    const path = join(folder, `${device}.npy`);
    await saveNpy(path, tensors.f32);
    await check(await loadNpy(path), "f32");
    await saveNpy(path, tensor([0.1, -3], { dtype: "bf16" }));
    expect(await (await loadNpy(path)).tolist()).toEqual([0.10009765625, -3]);
  });
});

describe("damaged files", () => {
  const file = async () => encodeNpy(samples.f32);
  test("of one array", async () => {
    const good = await file();
    for (let length = 0; length < good.length; length++)
      expect(() => decodeNpy(good.subarray(0, length))).toThrow(CheckpointError);
    expect(() => decodeNpy(Uint8Array.of(...good, 0))).toThrow(/16 bytes of data.*got 17/);
    const text = (from: string, to: string) => {
      const bytes = Uint8Array.from(good);
      const at = new TextDecoder("latin1").decode(good).indexOf(from);
      bytes.set(new TextEncoder().encode(to.padEnd(from.length)), at);
      return bytes;
    };
    expect(() => decodeNpy(text("(2, 2)", "(9**9)"))).toThrow(/descr, fortran_order and shape/);
    expect(() => decodeNpy(text("(2, 2), }             ", "(99999999, 99999999), }"))).toThrow(
      /fits into memory|bytes of data/,
    );
    expect(() => decodeNpy(text("False", "Fal"))).toThrow(CheckpointError);
    await expect(
      encodeNpy({ dtype: "f32", shape: [3], data: new Float32Array(2) }),
    ).rejects.toThrow(ArgumentError);
  });

  test("archives: cut off, or with any byte changed", async () => {
    const { f32, i8 } = samples;
    for (const compress of [false, true]) {
      const good = await encodeNpz({ f32, i8 }, { compress });
      for (let length = 0; length < good.length; length += 7)
        await expect(decodeNpz(good.subarray(0, length))).rejects.toThrow(CheckpointError);
      await fc.assert(
        fc.asyncProperty(
          fc.nat(good.length - 1),
          fc.integer({ min: 1, max: 255 }),
          async (at, flip) => {
            const bytes = Uint8Array.from(good);
            bytes[at] ^= flip;
            await decodeNpz(bytes).catch((error) => expect(error).toBeInstanceOf(CheckpointError));
          },
        ),
        { numRuns: 150 },
      );
    }
  });

  test("a member that claims to be more than it can be, or is not what it claims", async () => {
    const good = await encodeNpz(
      { f32: { ...samples.f32, shape: [1000], data: new Float32Array(1000) } },
      { compress: true },
    );
    const directory = new TextDecoder("latin1").decode(good).indexOf("PK\x01\x02");
    const claim = (size: number) => {
      const bytes = Uint8Array.from(good);
      new DataView(bytes.buffer).setUint32(directory + 24, size, true);
      return bytes;
    };
    await expect(decodeNpz(claim(2 ** 31))).rejects.toThrow(
      /a size that \d+ bytes can have, got 2147483648/,
    );
    await expect(decodeNpz(claim(100))).rejects.toThrow(/100 bytes, as the directory says/);
    await expect(decodeNpz(claim(5000))).rejects.toThrow(/5000 bytes, as the directory says/);
    const damaged = Uint8Array.from(good);
    new DataView(damaged.buffer).setUint32(directory + 16, 7, true);
    await expect(decodeNpz(damaged)).rejects.toThrow(/its CRC/);
  });
});
