/**
 * @file `npm run bench:large` at its smallest: every pass runs in a memory of 64-bit addresses, a
 * forward pass also on a GPU; and what a published size needs.
 */
import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { devices } from "../support/devices.ts";

const file = resolve(import.meta.dirname, "../../bench/large.ts");
const run = (...options: string[]) =>
  spawnSync(process.execPath, ["--conditions=source", file, ...options], { encoding: "utf8" });

test("forward, backward and a step of a tiny model", { timeout: 120_000 }, () => {
  const { stdout, stderr, status } = run("--quick");
  expect([stderr, status]).toEqual(["", 0]);
  expect(stdout).toMatch(/forward \d+ ms, with backward \d+ ms, AdamW \d+ ms/);
  const [, first, second] = /loss ([\d.]+) → ([\d.]+)/.exec(stdout)!;
  expect(Number(second)).toBeLessThan(Number(first));
});

test("MM1-3B in each type, without its weights", { timeout: 60_000 }, () => {
  const { stdout, status } = run("--count", "3B");
  expect(status).toBe(0);
  const gib = (type: string) => Number(new RegExp(`${type} +([\\d.]+) GiB`).exec(stdout)![1]);
  // 3.8 billion weights, the encoder's among them.
  expect(gib("f16, bf16")).toBeCloseTo(gib("f32") / 2, 1);
  expect(gib("int8, rest f16")).toBeGreaterThan(gib("f32") / 4);
  expect(gib("int8, rest f16")).toBeLessThan(4);
  expect(gib("int4, rest f16")).toBeLessThan(2.1);
});

// A simulated GPU takes seconds to compile the kernels: once, where there is most to compile.
test.each([
  ["f16", "wasm"],
  ["int8", devices.includes("webgpu") ? "webgpu" : "wasm"],
])("a forward pass with weights in %s on %s", { timeout: 240_000 }, (dtype, device) => {
  const { stdout, status } = run("--quick", "--forward", "3B", "--dtype", dtype, "--device", device); // biome-ignore format: one line
  expect(status).toBe(0);
  expect(stdout).toMatch(
    new RegExp(`parameters in ${dtype}, batch 2 × 16 tokens: forward \\d+ ms`),
  );
});

test.skipIf(!devices.includes("webgpu") || process.env.HINODE_GPU === "hardware")(
  "a simulated GPU is refused",
  { timeout: 60_000 },
  () => {
    const { stderr, status } = run("--device", "webgpu", "--forward", "3B");
    expect(status).toBe(2);
    expect(stderr).toMatch(/computes on the processor: nothing to measure/);
  },
);

test("what does not exist is named, without a stack", { timeout: 60_000 }, () => {
  for (const [options, said] of [
    [["--count", "4B"], /mm1Config: expected one of 1\.2B, .*, got "4B"\n$/],
    [["--device", "tpu"], /--device wasm or webgpu, not tpu\n$/],
    [["--quick", "--forward", "3B", "--dtype", "f64"], /int8 or int4, got "f64"\n$/],
  ] as const) {
    const { stderr, status } = run(...options);
    expect(status).toBe(2);
    expect(stderr).toMatch(said);
    expect(stderr).not.toMatch(/ {4}at /);
  }
});
