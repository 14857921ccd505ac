/** @file Models in several safetensors files. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ArgumentError, CheckpointError, tensor } from "hinode";
import {
  Linear,
  loadModel,
  loadShardedSafetensors,
  Module,
  openShardedSafetensors,
  saveSafetensors,
  saveShardedSafetensors,
} from "hinode/nn";
import { afterAll, beforeEach, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

const root = mkdtempSync(join(tmpdir(), "hinode-sharded-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folder = "";
let made = 0;
beforeEach(() => {
  folder = join(root, `${made++}`);
  mkdirSync(folder);
});
const index = () => join(folder, "model.safetensors.index.json");

class Model extends Module {
  first = new Linear(3, 4);
  second = new Linear(4, 2);
}

onEachDevice("shards", () => {
  test("are saved by size, opened lazily and loaded into a model", async () => {
    const model = new Model();
    const state = model.stateDict();
    await saveShardedSafetensors(index(), state, { maxShardSize: 64 });
    // 48 bytes and 16; 32 and 8.
    expect(readdirSync(folder).sort()).toEqual([
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
    ]);
    expect(JSON.parse(readFileSync(index(), "utf8"))).toEqual({
      metadata: { total_size: 104 },
      weight_map: {
        "first.weight": "model-00001-of-00002.safetensors",
        "first.bias": "model-00001-of-00002.safetensors",
        "second.weight": "model-00002-of-00002.safetensors",
        "second.bias": "model-00002-of-00002.safetensors",
      },
    });
    await using file = await openShardedSafetensors(index());
    expect(file.entries.get("second.weight")).toMatchObject({ dtype: "f32", shape: [2, 4] });
    const weight = await file.tensor("second.weight");
    expect(await weight.tolist()).toEqual(await model.second.weight.tolist());
    const other = new Model();
    await loadModel(index(), other);
    expect(await other.first.weight.tolist()).toEqual(await model.first.weight.tolist());
    const all = await loadShardedSafetensors(index());
    expect(Object.keys(all)).toEqual(Object.keys(state));
  });
});

test("a tensor larger than a shard has its own; names and sizes are checked", async () => {
  const row = (n: number) => tensor(new Float32Array(n));
  await saveShardedSafetensors(
    index(),
    { a: row(1), b: row(100), c: row(2), d: row(1) },
    { maxShardSize: 12 },
  );
  const { weight_map } = JSON.parse(readFileSync(index(), "utf8"));
  expect(Object.values(weight_map).map((f) => `${f}`.slice(6, 11))).toEqual([
    "00001",
    "00002",
    "00003",
    "00003",
  ]);
  await expect(saveShardedSafetensors(join(folder, "a.json"), {})).rejects.toThrow(ArgumentError);
  await expect(saveShardedSafetensors(index(), {}, { maxShardSize: 0 })).rejects.toThrow(/> 0/);
});

test("an index that is none, or leads elsewhere, is refused", async () => {
  await saveSafetensors(join(folder, "a.safetensors"), { x: tensor([1]) });
  const open = (text: string) => {
    writeFileSync(index(), text);
    return openShardedSafetensors(index());
  };
  const map = (weight_map: unknown) => open(JSON.stringify({ weight_map }));
  const refused: [() => Promise<unknown>, RegExp][] = [
    [() => open("{"), /an index in JSON/],
    [() => open("null"), /a weight_map/],
    [() => map([]), /a weight_map/],
    [() => map({ x: 3 }), /a file's name for "x"/],
    [() => map({ x: "../a.safetensors" }), /a file's name/],
    [() => map({ x: "/etc/passwd" }), /a file's name/],
    [() => map({ x: "b.safetensors" }), /b\.safetensors/],
    [() => map({ x: "a.safetensors", y: "a.safetensors" }), /tensor "y" in a\.safetensors/],
  ];
  for (const [opened, message] of refused) {
    await expect(opened()).rejects.toThrow(message);
    await expect(opened()).rejects.toThrow(CheckpointError);
  }
  const opened = await map({ x: "a.safetensors" });
  await expect(opened.read("y")).rejects.toThrow(/one of its 1 tensors/);
  await opened.close();
});
