/** @file The examples' command lines: they run to the end with small settings, and explain themselves. */
import { spawn } from "node:child_process";
import { resolve } from "node:path";
import { describe, expect, test } from "vitest";

const root = resolve(import.meta.dirname, "../..");

interface Outcome {
  readonly code: number | null;
  readonly output: string;
}

/** Runs an example as `npm run` does; `interruptAt` sends Ctrl-C when the output contains it. */
function example(name: string, args: string[], interruptAt?: string): Promise<Outcome> {
  const child = spawn(process.execPath, ["--conditions=source", `examples/${name}.ts`, ...args], {
    cwd: root,
  });
  let output = "";
  let interrupted = false;
  const collect = (text: Buffer) => {
    output += text;
    if (!interruptAt || interrupted || !output.includes(interruptAt)) return;
    interrupted = true;
    child.kill("SIGINT");
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);
  return new Promise((done) => {
    child.on("close", (code) => done({ code, output }));
  });
}

describe("npm run mm1", () => {
  // Renders the emoji when the cache is empty: about 20 s on two cores.
  test("trains, captions the unseen vendor, and compares with the constant answer", {
    timeout: 240_000,
  }, async () => {
    const { code, output } = await example("mm1", ["--steps", "3", "--batch", "8"]);
    expect(output).toMatch(
      /873 training images of 291 concepts, 285 images by a vendor not among them/,
    );
    expect(output).toMatch(/3\/3 {2}loss \d\.\d+ {2}\d+ images\/s/);
    expect(output).toMatch(/exact match on 285 unseen renderings: \d+\.\d %/);
    expect(output).toMatch(/always the most frequent caption \(".+"\): 0\.4 %/);
    expect(code).toBe(0);
  });

  test("Ctrl-C ends it with one line", { timeout: 240_000 }, async () => {
    const { code, output } = await example("mm1", ["--steps", "100000"], "M parameters");
    expect(output).toMatch(/Interrupted/);
    expect(output).not.toMatch(/at .*\.ts:\d+/);
    expect(code).toBe(130);
  });

  test("--help and mistakes print the options", async () => {
    const help = await example("mm1", ["--help"]);
    expect(help.code).toBe(0);
    expect(help.output).toMatch(/--steps.*--batch.*--lr.*--seed.*--device/s);
    const wrong = await example("mm1", ["--steps", "many"]);
    expect(wrong.code).toBe(2);
    expect(wrong.output).toMatch(/--steps: expected a number ≥ 1, got "many"/);
    expect((await example("mm1", ["--colour"])).code).toBe(2);
  });
});

test("npm run mnist learns digits", { timeout: 120_000 }, async () => {
  const { code, output } = await example("mnist", ["--steps", "100", "--batch", "64"]);
  const accuracy = Number(/test accuracy: ([\d.]+) %/.exec(output)?.[1]);
  expect(accuracy).toBeGreaterThan(85);
  expect(code).toBe(0);
});
