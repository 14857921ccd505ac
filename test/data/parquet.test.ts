/** @file Parquet tables: columns as typed arrays, rows as samples, order, resuming, errors. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ArgumentError, DataError, type Tensor } from "hinode";
import { DataLoader, openParquet, parquetDataset } from "hinode/data";
import { parquetWriteBuffer } from "hyparquet-writer";
import { afterAll, describe, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

const folder = mkdtempSync(join(tmpdir(), "hinode-parquet-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Ten rows from `from` on, in groups of four. */
function table(from = 0): Uint8Array {
  const rows = Array.from({ length: 10 }, (_, i) => from + i);
  return new Uint8Array(
    parquetWriteBuffer({
      columnData: [
        { name: "f", data: rows.map((i) => i + 0.5), type: "FLOAT" },
        { name: "d", data: rows.map((i) => i / 10), type: "DOUBLE" },
        { name: "i", data: rows, type: "INT32" },
        { name: "l", data: rows.map(BigInt), type: "INT64" },
        { name: "s", data: rows.map((i) => `row ${i}`), type: "STRING" },
        { name: "b", data: rows.map((i) => i % 2 === 0), type: "BOOLEAN" },
        {
          name: "n",
          data: rows.map((i) => (i % 2 === 0 ? null : i)),
          type: "INT32",
          nullable: true,
        },
      ],
      rowGroupSize: 4,
    }),
  );
}
const path = join(folder, "a.parquet");
writeFileSync(path, table());

test("a row group's columns are typed arrays", async () => {
  for (const source of [path, new URL(`file://${path}`), table()]) {
    await using file = await openParquet(source);
    expect([file.rows, file.groups, file.columns]).toEqual([
      10,
      [4, 4, 2],
      ["f", "d", "i", "l", "s", "b", "n"],
    ]);
    expect(await file.group(1)).toEqual({
      f: Float32Array.of(4.5, 5.5, 6.5, 7.5),
      d: Float64Array.of(0.4, 0.5, 0.6, 0.7),
      i: Int32Array.of(4, 5, 6, 7),
      l: BigInt64Array.of(4n, 5n, 6n, 7n),
      s: ["row 4", "row 5", "row 6", "row 7"],
      b: [true, false, true, false],
      n: [null, 5, null, 7],
    });
    expect(await file.group(2, { columns: ["l", "f"] })).toEqual({
      l: BigInt64Array.of(8n, 9n),
      f: Float32Array.of(8.5, 9.5),
    });
    await expect(file.group(0, { columns: ["x"] })).rejects.toThrow(ArgumentError);
    await expect(file.group(3)).rejects.toThrow(/one of 3 row groups/);
  }
});

describe("rows", () => {
  const second = table(10);
  const epoch = async (shuffle: boolean, from = 0, number = 0) => {
    const dataset = parquetDataset([path, second], { columns: ["i"], shuffle });
    const collate = (rows: Record<string, unknown>[]) => rows.map((r) => Number(r.i));
    const loader = new DataLoader(dataset, { batchSize: 3, seed: 4, collate });
    loader.load({ ...loader.state(), epoch: number, batch: from });
    const found: number[][] = [];
    for await (const batch of loader) found.push(batch);
    return found;
  };

  test("in the files' order, or shuffled; a resumed pass gives the rest", async () => {
    expect((await epoch(false)).flat()).toEqual([...Array(20).keys()]);
    const [first, other] = [await epoch(true), await epoch(true, 0, 1)];
    for (const order of [first, other])
      expect(order.flat().sort((a, b) => a - b)).toEqual([...Array(20).keys()]);
    expect(first).not.toEqual(other);
    for (const shuffle of [false, true])
      for (const from of [1, 4, 6, 7])
        expect(await epoch(shuffle, from)).toEqual((await epoch(shuffle)).slice(from));
  });

  test("lists of numbers are typed arrays", async () => {
    const lists = new Uint8Array(
      parquetWriteBuffer({
        columnData: [
          {
            name: "v",
            data: [
              [1.5, 2],
              [3, 4],
            ],
            type: "JSON",
          },
        ],
      }),
    );
    for await (const row of parquetDataset(lists)) expect(row.v).toBeInstanceOf(Float64Array);
  });
});

onEachDevice("a loader's batches", () => {
  test("are tensors: floats f32, integers i32, booleans bool", async () => {
    const dataset = parquetDataset(path, { columns: ["f", "i", "l", "b", "s"] });
    const batches: Record<string, unknown>[] = [];
    for await (const batch of new DataLoader(dataset, { batchSize: 4 })) batches.push(batch);
    expect(batches.length).toBe(3);
    const { f, i, l, b, s } = batches[2] as unknown as Record<"f" | "i" | "l" | "b", Tensor> & {
      s: string[];
    };
    const shown = async (t: Tensor) => [t.dtype, await t.tolist()];
    expect(await shown(f)).toEqual(["f32", [8.5, 9.5]]);
    expect(await shown(i)).toEqual(["i32", [8, 9]]);
    expect(await shown(l)).toEqual(["i32", [8, 9]]);
    expect(await shown(b)).toEqual(["bool", [true, false]]);
    expect(s).toEqual(["row 8", "row 9"]);
  });
});

describe("errors", () => {
  test("of damaged files name the file", async () => {
    const good = table();
    const cut = join(folder, "cut.parquet");
    writeFileSync(cut, good.subarray(0, good.length - 10));
    await expect(openParquet(cut)).rejects.toThrow(DataError);
    await expect(openParquet(cut)).rejects.toThrow(/cut\.parquet: expected a parquet file/);
    await expect(openParquet(new Uint8Array(3))).rejects.toThrow(/bytes: expected a parquet file/);
    await expect(openParquet(join(folder, "none.parquet"))).rejects.toThrow(/none\.parquet/);
    const damaged = Uint8Array.from(good).fill(255, 4, 60);
    await using file = await openParquet(damaged);
    await expect(file.group(0)).rejects.toThrow(/bytes, row group 0/);
  });

  test("without the package say what to install", () => {
    const code = `
      import { registerHooks } from "node:module";
      registerHooks({ resolve(name, context, next) {
        if (name.startsWith("hyparquet")) throw Object.assign(new Error("none"), { code: "ERR_MODULE_NOT_FOUND" });
        return next(name, context);
      } });
      const { openParquet } = await import("hinode/data");
      await openParquet(new Uint8Array(3)).catch((error) => console.log(error.name, error.message));`;
    const run = spawnSync(
      process.execPath,
      ["--conditions=source", "--input-type=module", "-e", code],
      {
        encoding: "utf8",
        cwd: join(import.meta.dirname, "../.."),
      },
    );
    expect(run.stderr).toBe("");
    expect(run.stdout).toMatch(
      /^DataError parquet: expected the package hyparquet.*\n.*npm install hyparquet/,
    );
  });
});
