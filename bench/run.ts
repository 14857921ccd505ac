/**
 * @file `npm run bench [-- --quick --json file --filter gpt,rows --threads n --device wasm]`: Hinode alone, each figure next to what the
 * machine can do, on the devices present. `--filter` takes families (matmul, attention, elementwise, rows, conv, indexing,
 * optimizer, model, replay, planner, memory, start) and parts of names. Exits with 1 if a bar was missed.
 *
 * The cases are those of `npm run bench:peers` (suite/cases.ts), and operators.ts. The loop that measures is suite/clock.ts, which
 * bench:peers uses for every framework.
 */
import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { defaultDevice, deviceInfo, init, profile } from "hinode";
import { wideTarget } from "../core/backend/wasm/module.ts";
import { gpuLimits, type Limits, processorLimits } from "./limits.ts";
import { type Figure, passes } from "./measure.ts";
import { memory } from "./memory.ts";
import { operators } from "./operators.ts";
import { installedBytes } from "./peers/sizes.ts";
import { planner } from "./planner.ts";
import { replay } from "./replay.ts";
import { cases } from "./suite/cases.ts";
import { median, patience, runsFor, times, warmUp } from "./suite/clock.ts";
import type { Prepared } from "./suite/framework.ts";
import { prepare } from "./suite/hinode.ts";
import { programOf } from "./suite/programs.ts";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: "boolean", default: false },
    json: { type: "string" },
    filter: { type: "string", default: "" },
    threads: { type: "string", default: "1" },
    /** All that are present unless given. */
    device: { type: "string" },
  },
});
const { quick } = options;
const words = [...options.filter.split(","), ...positionals].filter((w) => w !== "");
const asked = (name: string, family: string): boolean =>
  words.length === 0 || words.some((w) => family === w || name.includes(w));
const settings = patience(quick);
const root = join(import.meta.dirname, "..");
const figures: Figure[] = [];

function show(figure: Figure): void {
  const { name, ms, gflops, gbs, roofline, other, bar } = figure;
  const rate = gflops ? `${gflops.toFixed(1)} GFLOP/s` : gbs ? `${gbs.toFixed(1)} GB/s` : "";
  const share = roofline === null ? "" : `${(100 * roofline).toFixed(0)} % of the limit`;
  const parts = other
    ? [other.text]
    : [`${ms!.toPrecision(3)} ms`.padStart(9), rate.padStart(14), share.padStart(18)];
  const limit = bar && ("atLeast" in bar ? `≥ ${bar.atLeast}` : `≤ ${bar.atMost}`);
  const verdict = bar ? `  [bar ${limit}: ${passes(figure) ? "met" : "MISSED"}]` : "";
  console.log(`${name.padEnd(62)} ${parts.join(" ")}${verdict}`);
  figures.push(figure);
}

type Subject = Pick<Figure, "name" | "family" | "bar"> & {
  readonly flops: number;
  readonly bytes: number;
};

async function figure(
  subject: Subject,
  prepared: Prepared,
  where: Pick<Figure, "device" | "threads">,
  limits: Limits | null,
): Promise<Figure> {
  const { name, family, flops, bytes, bar } = subject;
  const found = await times(prepared, runsFor(await warmUp(prepared, settings.warm), settings));
  const ms = median(found);
  const rate = (amount: number) => (amount > 0 ? amount / ms / 1e6 : null);
  let roofline: number | null = null;
  if (limits && (flops > 0 || bytes > 0)) {
    // Measured beside each figure: neighbours on the machine slow both.
    const least = Math.max(
      flops > 0 ? flops / (await limits.flops()) : 0,
      bytes > 0 ? bytes / (await limits.bytes(bytes)) : 0,
    );
    // A neighbour that left between limit and figure can make it more.
    roofline = Math.min(1, least / 1e6 / Math.min(...found));
  }
  return {
    ...where,
    name,
    family,
    ms,
    gflops: rate(flops),
    gbs: rate(bytes),
    roofline,
    ...(bar && { bar }),
  };
}

/** What a replayed step costs beside its kernels, as a share of it. */
async function hostShare(
  name: string,
  { run }: Prepared,
  where: Pick<Figure, "device" | "threads">,
): Promise<Figure> {
  const { hostMilliseconds, milliseconds, calls } = await profile(run, {
    warmup: quick ? 0 : 1,
    runs: quick ? 1 : 5,
  });
  const share = (100 * hostMilliseconds) / milliseconds;
  const text = `${hostMilliseconds.toPrecision(3)} ms around ${calls} kernels: ${share.toPrecision(2)} %`;
  return {
    ...where,
    ...{ name: `host, ${name}`, family: "model", ms: null, gflops: null, gbs: null },
    roofline: null,
    other: { text, value: share },
    ...(!quick && { bar: { atMost: where.device === "wasm" ? 1 : 10 } }),
  };
}

async function measureDevice(where: Pick<Figure, "device" | "threads">): Promise<void> {
  const limits = where.device === "wasm" ? processorLimits(where.threads) : await gpuLimits();
  // Bars are for real sizes on one thread.
  const judged = !quick && where.device === "wasm" && where.threads === 1;
  for (const { name, family, flops, bytes, atLeast, make } of operators({ quick })) {
    if (!asked(name, family)) continue;
    const { run, inputs } = await make();
    const device = defaultDevice();
    const prepared: Prepared = {
      run: async () => {
        const result = run();
        await device.ready();
        result.dispose();
      },
      outputs: async () => [],
      dispose: () => {
        for (const x of inputs) x.dispose();
      },
    };
    const bar = judged && atLeast !== undefined ? { atLeast } : undefined;
    show(await figure({ name, family, flops, bytes, bar }, prepared, where, limits));
    prepared.dispose();
  }
  for (const c of cases({ quick })) {
    if (!asked(c.name, c.family) && !asked(c.id, c.family)) continue;
    const prepared = await prepare(programOf(c));
    show(await figure(c, prepared, where, limits));
    if (programOf(c).kind === "training") show(await hostShare(c.name, prepared, where));
    prepared.dispose();
    await defaultDevice().collect();
  }
  if (asked("replayed step", "replay")) for (const f of await replay(where)) show(f);
  if (asked("plan", "planner")) for (const f of planner(where, quick)) show(f);
  if (!quick && asked("memory growth", "memory")) for (const f of await memory(where)) show(f);
}

/** A process that loads the built package and computes one product; and the package's size. */
function start(): void {
  if (!asked("start to first product", "start")) return;
  const none = {
    family: "start",
    device: "wasm",
    threads: 1,
    gflops: null,
    gbs: null,
    roofline: null,
  };
  const built = join(root, "dist/index.js");
  if (existsSync(built)) {
    const script = `import(${JSON.stringify(built)}).then(async (h) => { await h.init({ device: "wasm", threads: 1 }); await h.rand([256, 256]).matmul(h.rand([256, 256])).data(); })`;
    const found = Array.from({ length: quick ? 1 : 7 }, () => {
      const begin = performance.now();
      const { status } = spawnSync(process.execPath, ["-e", script], {
        stdio: ["ignore", "ignore", "inherit"],
      });
      if (status !== 0) throw new Error("the built package does not start: npm run build");
      return performance.now() - begin;
    });
    show({ ...none, name: "start to first product (256³)", ms: median(found) });
  } else console.log("start to first product: npm run build first");
  const bytes = installedBytes("hinode")!;
  const text = `${(bytes / 2 ** 20).toFixed(2)} MiB${existsSync(built) ? " built" : " of sources"}`;
  show({ ...none, name: "size of the package", ms: null, other: { text, value: bytes } });
}

const threads = Number(options.threads);
const wanted = options.device?.split(",") ?? ["wasm", "webgpu"];
if (
  !Number.isInteger(threads) ||
  threads < 1 ||
  wanted.some((d) => d !== "wasm" && d !== "webgpu")
) {
  console.error(
    `bench: expected --threads 1 or more and --device wasm or webgpu, got ${options.threads}, ${wanted}`,
  );
  process.exit(2);
}
if (wanted.includes("wasm")) {
  await init({ device: "wasm", threads });
  await measureDevice({ device: "wasm", threads });
}
if (wanted.includes("webgpu")) {
  // "auto" never takes a GPU that is computed on the processor.
  await init({ device: "auto" });
  if (deviceInfo().name === "webgpu") await measureDevice({ device: "webgpu", threads: 1 });
  else if (options.device) throw new Error(`no GPU to measure: ${deviceInfo().reason}`);
}
start();
if (figures.length === 0) {
  console.error(`bench: nothing is called ${words.join(", ")}`);
  process.exit(2);
}
if (options.json) {
  const commit = spawnSync("git", ["rev-parse", "--short", "HEAD"], {
    encoding: "utf8",
    cwd: root,
  }).stdout.trim();
  const machine = `${cpus().length} × ${cpus()[0]?.model}, Node ${process.versions.node}`;
  const wide = wideTarget();
  writeFileSync(
    options.json,
    `${JSON.stringify({ commit, machine, wide, quick, results: figures }, null, 2)}\n`,
  );
}
process.exit(figures.every(passes) ? 0 : 1);
