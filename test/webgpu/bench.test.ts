/** @file The scripts of bench/gpu in their smallest sizes, as processes of their own, and how their results are judged. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { cases } from "../../bench/gpu/cases.ts";
import { formatTable, judge, type Result } from "../../bench/gpu/report.ts";
import { devices } from "../support/devices.ts";

const root = resolve(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "bench-gpu-test-"));
afterAll(() => rmSync(folder, { recursive: true }));

function run(script: string, ...args: string[]): Promise<{ code: number | null; output: string }> {
  const child = spawn(process.execPath, ["--conditions=source", `bench/gpu/${script}`, ...args], {
    cwd: root,
    timeout: 110_000,
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (text) => {
      output += text;
    });
  return new Promise((done) => {
    child.on("close", (code) => done({ code, output }));
  });
}

describe.skipIf(!devices.includes("webgpu"))("scripts", () => {
  test("bench:gpu measures every kind of case", async () => {
    const file = join(folder, "results.json");
    const only = "matmul-f32,softmax,attention-f32,gpt-small";
    const { code, output } = await run(
      ...["run.ts", "--quick", "--no-pytorch", "--json", file, "--only", only],
    );
    expect(output).toMatch(/adapter .*\ntoggles .*robustness on/);
    expect(code, output).toBe(0);
    const { about, results } = JSON.parse(readFileSync(file, "utf8"));
    expect(about).toMatchObject({ quick: true, robust: true });
    expect(results.map((r: Result) => r.case.kind)).toEqual([
      ...["matmul", "matmul", "matmul", "rows", "attention", "gpt"],
    ]);
    for (const { hinode } of results as Result[]) {
      expect(hinode!.milliseconds).toBeGreaterThan(0);
      expect(hinode!.dispatches).toBeGreaterThan(0);
    }
    expect(results.at(-1).hinode).toMatchObject({ clock: "wall" });
    expect(results.at(-1).hinode.launchMilliseconds).toBeGreaterThan(0);
  });

  test("tune:gpu stores what init({ tiles }) reads", async () => {
    const file = join(folder, "tiles.json");
    const tuned = await run("tune.ts", "--quick", "--json", file, "65x72x66:bt", "b2:4x128x40");
    expect(tuned.code, tuned.output).toBe(0);
    const table = JSON.parse(readFileSync(file, "utf8"));
    const [forms] = Object.values(table) as Record<string, { form: string }>[];
    expect(Object.keys(forms)).toEqual([
      "aAlongK bAlongK batch=1 dtype=f32 k=72 m=65 n=66",
      "aAlongK batch=2 dtype=f32 k=128 m=4 n=40",
    ]);
    const { code, output } = await run(
      ...["run.ts", "--quick", "--no-pytorch", "--tiles", file, "--only", "matmul-f32-17"],
    );
    expect(code, output).toBe(0);
    expect(output).toContain(`tiles     ${file}`);
  });

  test("arguments that nobody understands", async () => {
    expect((await run("run.ts", "--only", "nothing")).output).toMatch(/no such case; there are/);
    expect((await run("tune.ts", "--fast")).code).toBe(2);
  });
});

describe("bars", () => {
  const of = (id: string) => cases().find((c) => c.id === id)!;
  const wall = { clock: "wall", dispatches: 100, launchMilliseconds: 0.5 } as const;

  test("are those of the competitor's variant, and of robustness", () => {
    const square = of("matmul-f32-4096x4096x4096");
    const measured = { ...wall, milliseconds: 2.8 };
    expect(judge(square, measured, { f32: 2.7, tf32: 0.3 }, true)).toMatchObject([{ met: true }]);
    expect(judge(square, measured, { f32: 2, tf32: 0.3 }, true)).toMatchObject([{ met: false }]);
    expect(judge(square, measured, null, true)).toEqual([]);
    // 4096³ in 0.7 ms: 196 TFLOP/s.
    const half = of("matmul-f16-4096x4096x4096");
    const fast = { ...wall, milliseconds: 0.7 };
    expect(judge(half, fast, null, true)).toMatchObject([{ bar: { atLeast: 160e12 }, met: true }]);
    expect(judge(half, fast, null, false)).toMatchObject([
      { bar: { atLeast: 240e12 }, met: false },
    ]);
  });

  test("of steps also count dispatches and the processor's time", () => {
    const small = judge(of("gpt-small-f32"), { ...wall, milliseconds: 3.5 }, { eager: 5.4 }, true);
    expect(small.map(({ bar, met }) => [bar.of, met])).toEqual([
      ["ratio", true],
      ["milliseconds", true],
      ["dispatches", true],
    ]);
    const large = judge(of("gpt-large-f32"), { ...wall, milliseconds: 4 }, null, true);
    expect(large).toMatchObject([{ bar: { of: "launchShare" }, value: 0.125, met: false }]);
  });

  test("and the table says so", () => {
    const square = of("matmul-f32-4096x4096x4096");
    const hinode = {
      ...wall,
      clock: "kernels",
      milliseconds: 2.8,
      launchMilliseconds: null,
    } as const;
    const pytorch = { f32: 2.7 };
    const verdicts = judge(square, hinode, pytorch, true);
    const failed = { case: of("softmax"), hinode: null, error: "no\nmore", pytorch: null };
    const table = formatTable([
      { case: square, hinode, pytorch, verdicts },
      { ...failed, verdicts: [] },
    ]).split("\n");
    expect(table).toHaveLength(4);
    expect(table[2]).toMatch(
      /2\.800 ms, 49\.09 TFLOP\/s.*f32 2\.700 ms \(0\.96×\).*0\.96 × f32, bar ≥ 0\.95: met/,
    );
    expect(table[3]).toMatch(/failed: no +\|/);
  });
});
