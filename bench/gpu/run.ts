/**
 * @file `npm run bench:gpu [-- --quick --json file --only matmul,gpt --no-robustness --toggles a,b --tiles file --no-pytorch]`: the
 * cases of cases.ts with Hinode, then with PyTorch where python3 has it, as one table with ratios and bars. Exits with 1 if a
 * case failed or a bar was missed.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defaultDevice, manualSeed } from "hinode";
import { type Case, cases } from "./cases.ts";
import { type Measured, measure, type Settings } from "./hinode.ts";
import { closeGpu, formatCircumstances, openGpu, readArguments } from "./options.ts";
import { formatTable, judge, type PyTorch, type Result } from "./report.ts";

const { values } = readArguments({
  /** Beginnings of the ids of cases, separated by commas. */
  only: { type: "string" },
  "no-pytorch": { type: "boolean" },
});
const quick = values.quick ?? false;
const settings: Settings = quick
  ? { warmup: 1, runs: 2, block: 2 }
  : { warmup: 20, runs: 21, block: 10 };
const wanted = values.only?.split(",") ?? [""];
const chosen = cases({ quick }).filter(({ id }) => wanted.some((w) => id.startsWith(w)));
if (chosen.length === 0) {
  console.error(
    `no such case; there are ${cases()
      .map(({ id }) => id)
      .join(", ")}`,
  );
  process.exit(2);
}

/** PyTorch's results, or why there are none. */
function pytorch(list: readonly Case[]): PyTorch | string {
  const folder = mkdtempSync(join(tmpdir(), "bench-gpu-"));
  try {
    const request = join(folder, "cases.json");
    writeFileSync(request, JSON.stringify({ ...settings, cases: list }));
    const script = join(import.meta.dirname, "pytorch.py");
    // Its own warnings go to the terminal.
    const { status, stdout, error } = spawnSync("python3", [script, request], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
    });
    if (error) return error.message;
    return status === 0 ? (JSON.parse(stdout) as PyTorch) : `python3 ended with ${status}`;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const hasTorch = (): boolean =>
  spawnSync("python3", ["-c", "import torch"], { stdio: "ignore" }).status === 0;

const circumstances = await openGpu(values);
console.log(formatCircumstances(circumstances));
const measured = new Map<Case, Measured | string>();
for (const c of chosen) {
  manualSeed(0);
  const start = performance.now();
  try {
    measured.set(c, await measure(c, settings));
  } catch (error) {
    measured.set(c, (error as Error).stack ?? String(error));
  }
  await defaultDevice().collect();
  console.error(`${c.id}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
}
// PyTorch gets the whole GPU.
closeGpu();
const other = values["no-pytorch"] ? "not asked for" : hasTorch() ? pytorch(chosen) : "no torch";
console.log(
  `PyTorch   ${typeof other === "string" ? `not measured: ${other}` : `${other.version} on ${other.device}`}\n`,
);
const results = chosen.map((c): Result => {
  const found = measured.get(c)!;
  const theirs = typeof other === "string" ? null : (other.milliseconds[c.id] ?? null);
  if (typeof found === "string")
    return { case: c, hinode: null, error: found, pytorch: theirs, verdicts: [] };
  // Bars are for the real sizes.
  const verdicts = quick ? [] : judge(c, found, theirs, circumstances.robust);
  return { case: c, hinode: found, pytorch: theirs, verdicts };
});
console.log(formatTable(results));
for (const { case: c, error } of results) if (error) console.error(`${c.id}: ${error}`);
if (quick) console.log("\n--quick: tiny sizes, only to see that everything runs");
if (values.json) {
  const about = { ...circumstances, quick, settings };
  writeFileSync(values.json, `${JSON.stringify({ about, pytorch: other, results }, null, 2)}\n`);
}
const failed = results.some((r) => !r.hinode || r.verdicts.some(({ met }) => !met));
process.exitCode = failed ? 1 : 0;
