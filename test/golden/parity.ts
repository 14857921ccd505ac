/**
 * @file `npm run parity -- --golden <folder>`: runs PyTorch's values in any folder of the golden format (its README.md) on
 * one device, and says which cases fail and how far off the others are.
 */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { init } from "hinode";
import { swiftshaderEnvironment } from "../support/swiftshader.ts";
import type { GoldenCase } from "./group.ts";
import { casesOf, groups as known, present } from "./groups.ts";
import { writeReport } from "./report.ts";
import { runGroups, type Score } from "./run.ts";

const help = `Usage: npm run parity -- [options]

  --golden <folder>  fixtures in the golden format (default: test/golden/data, whose README.md describes it)
  --device <name>    reference, wasm (default) or webgpu; several with commas are run one after the other
  --group <names>    only these groups: ${Object.keys(known).join(",")} (default: all of these that the folder has)
  --case <pattern>   only cases of this id; * stands for any text, commas separate several
  --every <n>        only every n-th case of each group (a software GPU is slow)
  --json <file>      writes {device, groups, failures} (a list of these for several devices)
  --report <file>    writes a table of the groups in Markdown
  --help             this text

The last line is "N passed, N failed"; the exit code is 1 if a case failed, 2 if the arguments are wrong. A case whose
operator the library lacks, or whose group nothing here runs, has failed.
`;

/** A mistake in the command line. */
class Usage extends Error {}

const options = {
  golden: { type: "string", default: join(import.meta.dirname, "data") },
  device: { type: "string", default: "wasm" },
  group: { type: "string" },
  case: { type: "string" },
  every: { type: "string", default: "1" },
  json: { type: "string" },
  report: { type: "string" },
  help: { type: "boolean", default: false },
} as const;

function commandLine() {
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    throw new Usage((error as Error).message);
  }
}

const list = (text: string): string[] => text.split(",").map((s) => s.trim());
const devices = ["reference", "wasm", "webgpu"] as const;

function chosenDevices(text: string): (typeof devices)[number][] {
  return list(text).map((name) => {
    const device = devices.find((d) => d === name);
    if (!device) throw new Usage(`--device ${name}: one of ${devices.join(", ")} expected`);
    return device;
  });
}

/** Group to cases, by what was asked for. */
function chosenCases(given: ReturnType<typeof commandLine>): Map<string, GoldenCase[]> {
  const folder = given.golden;
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    throw new Usage(`--golden ${folder}: ${(error as Error).message}`);
  }
  const there = present(names);
  const absent = [...there.keys()].filter((name) => !(name in known));
  const asked = given.group ? list(given.group) : [...there.keys()].filter((n) => n in known);
  if (!given.group && absent.length)
    console.log(`not run, as nothing here runs these groups yet: ${absent.join(", ")}`);
  if (asked.length === 0)
    throw new Usage(`--golden ${folder}: there are no fixtures in this folder`);
  const missing = asked.filter((group) => !there.has(group));
  if (missing.length)
    throw new Usage(
      `--golden ${folder}: there is no ${missing.map((n) => `${n}.json`).join(", ")}`,
    );

  const files = (name: string) => {
    try {
      return readFileSync(join(folder, name));
    } catch (error) {
      throw new Usage(`--golden ${folder}: ${(error as Error).message}`);
    }
  };
  const every = Number(given.every);
  if (!(Number.isInteger(every) && every > 0)) throw new Usage(`--every ${given.every}`);
  const patterns =
    given.case &&
    list(given.case).map((text) => RegExp(`^${text.split("*").map(RegExp.escape).join(".*")}$`));
  const chosen = asked.map((group): [string, GoldenCase[]] => {
    const cases = casesOf(files, group, there.get(group)!);
    const matching = patterns ? cases.filter((c) => patterns.some((p) => p.test(c.id))) : cases;
    return [group, matching.filter((_, i) => i % every === 0)];
  });
  const some = chosen.filter(([, cases]) => cases.length > 0);
  if (some.length === 0) throw new Usage(`--case ${given.case}: no case has such an id`);
  return new Map(some);
}

const share = (worst: Score["groups"][string]["worst"]): string =>
  worst
    ? `${(worst.share * 100).toPrecision(2)} % of the tolerance (${worst.id}, ${worst.what})`
    : "none";

/** A line on stderr every five seconds, so that a long run is seen to live. */
function progressLine(): { report(line: string): void; stop(): void } {
  let current = "";
  const start = performance.now();
  const timer = setInterval(() => {
    console.error(`  … ${((performance.now() - start) / 1000).toFixed(0)} s: ${current}`);
  }, 5000);
  return {
    report(line) {
      current = line;
    },
    stop: () => clearInterval(timer),
  };
}

/** Without a GPU the whole run is done again by a process that finds the tests' software one from its start. */
async function withSoftwareGpu(): Promise<number | null> {
  try {
    await init({ device: "webgpu" });
    return null;
  } catch (error) {
    const environment = swiftshaderEnvironment();
    if (process.env.VK_ICD_FILENAMES || !environment.VK_ICD_FILENAMES) throw error;
    const [node, ...args] = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
    const env = { ...process.env, ...environment };
    return spawnSync(node, args, { stdio: "inherit", env }).status ?? 1;
  }
}

async function run(): Promise<number> {
  const given = commandLine();
  if (given.help) {
    console.log(help);
    return 0;
  }
  const chosen = chosenDevices(given.device);
  const elsewhere = chosen.includes("webgpu") ? await withSoftwareGpu() : null;
  if (elsewhere !== null) return elsewhere;
  const cases = chosenCases(given);
  const scores: Score[] = [];
  for (const device of chosen) {
    const progress = progressLine();
    const score = await runGroups(device, cases, {
      failure: ({ group, id, call, reason }) =>
        console.log(
          `FAILED ${group}/${id}: ${call}\n       ${reason.replaceAll("\n", "\n       ")}`,
        ),
      progress: (group, id, done, of) => progress.report(`${group}/${id}, ${done} of ${of} done`),
    }).finally(progress.stop);
    scores.push(score);
    for (const [group, { passed, failed, worst }] of Object.entries(score.groups))
      console.log(
        `${device} ${group}: ${passed + failed} cases, ${failed} failed, worst error ${share(worst)}`,
      );
  }
  const total = (key: "passed" | "failed") =>
    scores.flatMap((s) => Object.values(s.groups)).reduce((n, g) => n + g[key], 0);
  if (given.json)
    writeFileSync(given.json, JSON.stringify(scores.length === 1 ? scores[0] : scores, null, 1));
  if (given.report) await writeReport(given.report, scores, Number(given.every));
  console.log(`${total("passed")} passed, ${total("failed")} failed`);
  return total("failed") ? 1 : 0;
}

// What a failing case left behind is that case's failure, not the program's.
process.on("unhandledRejection", (error) =>
  console.error(`  (left behind: ${(error as Error).message})`),
);
try {
  process.exitCode = await run();
} catch (error) {
  if (!(error instanceof Usage)) throw error;
  console.error(`${error.message}\n\n${help}`);
  process.exitCode = 2;
}
