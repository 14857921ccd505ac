/** @file Files of torch.save: state dicts and checkpoints, and what must not be run. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { CheckpointError, type Tensor } from "hinode";
import { loadTorch } from "hinode/nn";
import { afterAll, describe, expect, test } from "vitest";
import { unpickle } from "../../nn/checkpoint/pickle.ts";
import { onEachDevice } from "../support/devices.ts";

const folder = mkdtempSync(join(tmpdir(), "hinode-torch-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const fixture: { state: string; checkpoint: string; refused: Record<string, string> } = JSON.parse(
  readFileSync(join(import.meta.dirname, "data/torch.json"), "utf8"),
);
const bytesOf = (base64: string): Uint8Array => new Uint8Array(Buffer.from(base64, "base64"));

const expected: Record<string, [dtype: string, values: unknown]> = {
  w: [
    "f32",
    [
      [1, 2, 3],
      [4, 5, 6],
    ],
  ],
  "w.t": [
    "f32",
    [
      [1, 4],
      [2, 5],
      [3, 6],
    ],
  ],
  row: ["f32", [4, 5, 6]],
  n: ["i32", -7],
  h: ["f16", [0.5, 2]],
  b: ["bf16", [1]],
  m: ["bool", [true, false]],
  e: ["f32", []],
};

onEachDevice("torch.save", () => {
  test("a state dict: views of storages, parameters, every dtype", async () => {
    const path = join(folder, "state.pt");
    writeFileSync(path, bytesOf(fixture.state));
    const state = (await loadTorch(path)) as Record<string, Tensor>;
    expect(Object.keys(state)).toEqual(Object.keys(expected));
    for (const [name, [dtype, values]] of Object.entries(expected))
      expect([name, state[name].dtype, await state[name].tolist()]).toEqual([name, dtype, values]);
    expect(state.e.shape).toEqual([0, 2]);
  });
});

test("a checkpoint: numbers, strings and containers around it", async () => {
  const { model, ...rest } = (await loadTorch(bytesOf(fixture.checkpoint))) as Record<
    string,
    unknown
  >;
  expect(Object.keys(model as object)).toEqual(Object.keys(expected));
  expect(rest).toEqual({
    epoch: 3,
    lr: 0.5,
    big: 2 ** 40,
    names: ["a", ["b", null, true]],
    groups: [{ params: [0, 1] }],
  });
});

describe("what is refused", () => {
  const messages: Record<string, RegExp> = {
    "a call of another function": /tensors, numbers, strings and containers, got "\w+\.system"/,
    "an object": /got "(__main__\.Weird|copyreg\._reconstructor|copy_reg\._reconstructor)"/,
    "elements beyond the storage": /within its storage, got a storage of 6/,
    "an expanded view": /within its storage.*contiguous/s,
    "a list in itself": /100 levels/,
    "a negative stride": /storage, offset, shape and strides/,
    "a storage that is shorter than it says": /396 bytes of F32, got 24/,
  };

  test.each(Object.entries(fixture.refused))("%s", async (name, file) => {
    await expect(loadTorch(bytesOf(file))).rejects.toThrow(messages[name]);
    await expect(loadTorch(bytesOf(file))).rejects.toThrow(CheckpointError);
  });

  test("old files and other archives", async () => {
    await expect(loadTorch(Uint8Array.of(0x80, 2, 0x8a, 10))).rejects.toThrow(/a zip archive/);
  });

  test("a file that is cut off anywhere", async () => {
    const good = bytesOf(fixture.state);
    for (let length = 0; length < good.length; length += 41)
      await expect(loadTorch(good.subarray(0, length))).rejects.toThrow(CheckpointError);
  });

  test("a pickle with any bytes changed: a CheckpointError or a value", () => {
    const file = Buffer.from(bytesOf(fixture.checkpoint));
    // The first member, stored as it is.
    const begin = file.indexOf("data.pkl") + 8;
    const good = new Uint8Array(file.subarray(begin, begin + file.readUInt32LE(18)));
    const names = {
      global: (name: string) => (name.startsWith("torch") ? () => [] : () => new Map()),
      persistent: () => null,
    };
    expect(unpickle(good, names, "good")).toBeInstanceOf(Map);
    const change = fc.tuple(fc.nat(good.length - 1), fc.nat(255));
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const bytes = Uint8Array.from(good);
        for (const [at, byte] of changes) bytes[at] = byte;
        try {
          unpickle(bytes, names, "changed");
        } catch (error) {
          expect(error).toBeInstanceOf(CheckpointError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
