/** @file The code of docs/language.md runs as it stands there, and the example on experts shows what it says. */
import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { runDocument } from "../support/documents.ts";

test("docs/language.md", () => runDocument("docs/language.md"));

test("examples/experts.ts: the cost is that of the experts that a token takes", { timeout: 60_000 }, () => {
  const file = resolve(import.meta.dirname, "../../examples/experts.ts");
  const run = spawnSync(process.execPath, ["--conditions=source", file], { encoding: "utf8" });
  expect(run.stderr).toBe("");
  const rows = [...run.stdout.matchAll(/([\d.]+) GFLOP +([\d.]+) MB/g)].map(([, flops, bytes]) => [
    Number(flops),
    Number(bytes),
  ]);
  expect(rows).toHaveLength(7);
  const [[flops, bytes], ...sparse] = rows;
  for (const row of sparse) {
    // At most twice the arithmetic of the two experts, and what one token reads are these two.
    expect(row[0]).toBeLessThan(4.2 * flops);
    expect(row[1]).toBeLessThan(2.1 * bytes);
  }
}); // biome-ignore format: the name is long
