import { spawnSync } from "node:child_process";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { runDocument } from "../support/documents.ts";

const examples = resolve(import.meta.dirname, "../../examples");

/** What an example prints. */
function output(file: string, ...args: string[]): string {
  const command = ["--conditions=source", join(examples, file), ...args];
  const run = spawnSync(process.execPath, command, { encoding: "utf8" });
  expect(run.stderr).toBe("");
  expect(run.status).toBe(0);
  return run.stdout;
}

test("the page about custom kernels", () => runDocument("docs/custom-kernels.md"));

test("examples/custom-gradient.ts learns through a rounding", () => {
  const text = output("custom-gradient.ts");
  const losses = [...text.matchAll(/loss ([\d.]+)/g)].map((m) => Number(m[1]));
  expect(losses[0]).toBeGreaterThan(3);
  // The nearest eighths: 1.3 as 1.25 or 1.375, -0.4 as -0.375.
  expect(losses.at(-1)).toBeLessThan(0.02);
});

test("examples/custom-kernel.ts runs its kernels, which agree with their references", () => {
  const text = output("custom-kernel.ts", "wasm");
  expect(text).toContain("custom rms_norm");
  const errors = [...text.matchAll(/(?:values|gradients|batched): +(\S+)/g)].map((m) =>
    Number(m[1]),
  );
  expect(errors).toHaveLength(3);
  for (const error of errors) expect(error).toBeLessThan(1e-5);
});
