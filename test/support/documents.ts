/**
 * @file Documents' code runs: all TypeScript blocks of a page, one after the other, as one program. It prints what the
 * comments behind its lines promise after an arrow.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { expect } from "vitest";

const root = resolve(import.meta.dirname, "../..");

/** Runs a page's code; `page` is its path in the repository. */
export function runDocument(page: string): void {
  const text = readFileSync(join(root, page), "utf8");
  const blocks = [...text.matchAll(/```ts\n([\s\S]*?)```/g)].map((m) => m[1]);
  expect(blocks.length).toBeGreaterThan(0);
  // Inside the package, so that "hinode" is the package itself.
  const file = join(root, ".cache", `${basename(page, ".md")}-${process.pid}.ts`);
  mkdirSync(join(root, ".cache"), { recursive: true });
  writeFileSync(file, blocks.join("\n"));
  try {
    const run = spawnSync(process.execPath, ["--conditions=source", file], { encoding: "utf8" });
    expect(run.stderr).toBe("");
    expect(run.status).toBe(0);
    const promised = [...blocks.join("\n").matchAll(/\/\/.*→ (.*)$/gm)].map((m) => m[1]);
    expect(promised.length).toBeGreaterThan(0);
    for (const text of promised) expect(run.stdout).toContain(text);
  } finally {
    rmSync(file);
  }
}
