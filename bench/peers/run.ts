/**
 * @file `npm run bench:peers [-- --quick --filter gpt,matmul --peers hinode,torch --threads 1,2 --device webgpu --resume]`: the
 * cases of ../suite with every framework, side by side, on the processor or on a GPU. Writes the table into ../README.md, the chart and the figures into ../results.
 *
 * Each framework with each number of threads is a process. All prepare a case, then they measure in turns, a few calls at a
 * time, so that a busy minute of the machine hits all alike. Outputs are compared with Hinode's. Each figure is appended to a
 * file when it is known: after an interruption `--resume` goes on.
 */
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { closeGpu, openGpu } from "../gpu/options.ts";
import { type Case, cases } from "../suite/cases.ts";
import { median, patience, runsFor } from "../suite/clock.ts";
import type { Device } from "../suite/framework.ts";
import { programOf } from "../suite/programs.ts";
import { record } from "../suite/record.ts";
import { chart, placeOf } from "./chart.ts";
import { installPeers } from "./install.ts";
import { hasTorch, onGpu, type Peer, PeerProcess, peers, Refusal } from "./processes.ts";
import { installedBytes } from "./sizes.ts";
import {
  difference,
  type Figure,
  formatMs,
  gpuVerdicts,
  markdown,
  replaceSection,
  special,
  tolerance,
  verdicts,
} from "./table.ts";

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    /** Texts, one of which must be in a case's id or family. */
    filter: { type: "string", default: "" },
    peers: { type: "string", default: "" },
    /** webgpu: those that compute on a GPU, on the same one. */
    device: { type: "string", default: "wasm" },
    threads: { type: "string", default: "1,2" },
    resume: { type: "boolean", default: false },
  },
});
const { quick } = options;
const device: Device = options.device === "webgpu" ? "webgpu" : "wasm";
const all = device === "webgpu" ? onGpu : peers;
const chosen = options.peers ? all.filter((p) => options.peers.split(",").includes(p)) : all;
/** A GPU counts as one. */
const threads = device === "webgpu" ? [1] : options.threads.split(",").map(Number);
const words = options.filter.split(",");
const asked = (c: Pick<Case, "id" | "family">): boolean =>
  words.some((w) => c.id.includes(w) || c.family === w);
const list = cases({ quick }).filter(asked);
const extra = special.filter(asked);
if (
  device !== options.device ||
  chosen.length === 0 ||
  list.length + extra.length === 0 ||
  !threads.every((n) => n >= 1)
) {
  console.error(
    `bench:peers: devices are wasm, webgpu; peers are ${all.join(", ")}; cases are ${[...cases(), ...special].map(({ id }) => id).join(", ")}`,
  );
  process.exit(2);
}

const root = join(import.meta.dirname, "../..");
const results = join(import.meta.dirname, "../results");
mkdirSync(results, { recursive: true });
/** All there is: only that becomes the published table. */
const whole = !quick && !options.filter && chosen.length === all.length;
const name = `peers${device === "webgpu" ? "-gpu" : ""}${quick ? "-quick" : whole ? "" : "-part"}`;
const partial = join(results, `${name}.partial.jsonl`);
const git = (...args: string[]): string =>
  spawnSync("git", args, { encoding: "utf8", cwd: root }).stdout.trim();
const commit = `${git("rev-parse", "--short", "HEAD")}${git("status", "--porcelain", "core", "nn") ? " and changes" : ""}`;
const processor = `${cpus().length} × ${cpus()[0]?.model}, Node ${process.versions.node}`;
/** A simulated GPU measures nothing, and is refused unless --quick. */
const gpu = device === "webgpu" ? await openGpu({ quick }) : null;
// The peers get the whole GPU.
if (gpu) closeGpu();
const machine = gpu ? `${gpu.adapter}, ${processor}` : processor;

const figures: Figure[] = [];
if (options.resume && existsSync(partial)) {
  for (const line of readFileSync(partial, "utf8").split("\n"))
    if (line) figures.push(JSON.parse(line));
} else rmSync(partial, { force: true });
const known = (c: { id: string }, peer: Peer, count: number): boolean =>
  figures.some((f) => f.case === c.id && f.peer === peer && f.threads === count);
const note = (figure: Figure): void => {
  figures.push(figure);
  appendFileSync(partial, `${JSON.stringify(figure)}\n`);
};

const missing = chosen.some((p) => !p.startsWith("hinode") && p !== "torch")
  ? installPeers()
  : null;
const noTorch =
  chosen.includes("torch") && !hasTorch() ? new Refusal("python3 has no torch") : null;
const absent = (peer: Peer): Refusal | null =>
  peer === "torch" ? noTorch : peer.startsWith("hinode") ? null : missing;
const processes = threads.flatMap((count) =>
  chosen.map((peer) => new PeerProcess(peer, count, device)),
);
const settings = patience(quick);
/** Preparing a case may take this long, warm-up and all; more is said in the table. */
const limit = 20_000;

const failure = (c: { id: string }, p: PeerProcess, error: unknown): Figure => {
  const refusal = error instanceof Refusal ? error : new Refusal(String(error));
  return {
    case: c.id,
    peer: p.peer,
    threads: p.threads,
    ms: null,
    why: refusal.message,
    unsupported: refusal.unsupported,
  };
};

/** Whether each process is sure to refuse: asked once, not per case. */
const refused = new Map<PeerProcess, Refusal>();

async function side(c: Case): Promise<void> {
  const program = programOf(c);
  const request = {
    op: "prepare",
    case: c,
    warm: settings.warm,
    program: { kind: program.kind, wrt: program.wrt, recording: record(program) },
  };
  const ready: { p: PeerProcess; runs: number; times: number[]; outputs: number[][] }[] = [];
  // Hinode with one thread stands first: the others' outputs are compared with its.
  for (const p of processes) {
    if (known(c, p.peer, p.threads)) continue;
    const none = absent(p.peer) ?? refused.get(p);
    try {
      if (none) throw none;
      const { outputs, ms } = await p.ask(request, limit);
      ready.push({
        p,
        runs: runsFor(Number(ms), settings),
        times: [],
        outputs: outputs as number[][],
      });
    } catch (error) {
      if (error instanceof Refusal && error.unsupported && !p.version) refused.set(p, error);
      note(failure(c, p, error));
    }
  }
  const turns = Math.max(0, ...ready.map(({ runs }) => Math.min(5, runs)));
  const failed = new Set<PeerProcess>();
  for (let turn = 0; turn < turns; turn++) {
    for (const { p, runs, times } of ready) {
      const share = Math.ceil(runs / turns);
      const count = Math.min(share, runs - times.length);
      if (count <= 0 || failed.has(p)) continue;
      try {
        const answer = await p.ask({ op: "measure", runs: count }, 60_000);
        times.push(...(answer.times as number[]));
      } catch (error) {
        failed.add(p);
        note(failure(c, p, error));
      }
    }
  }
  const reference = ready.find(({ p }) => p.peer === "hinode")?.outputs ?? ready[0]?.outputs;
  for (const { p, times, outputs } of ready) {
    if (failed.has(p)) continue;
    await p.ask({ op: "release" }, 20_000).catch(() => p.end());
    const error = difference(reference, outputs);
    note({
      case: c.id,
      peer: p.peer,
      threads: p.threads,
      ms: median(times),
      runs: times.length,
      error,
    });
    if (error > tolerance)
      console.error(`  ${p.key}: outputs differ by ${error.toPrecision(2)} of the largest value`);
  }
}

/** From starting the process to the result of its first product, five times in turns. Hinode's as it is published. */
async function starts(c: { id: string }): Promise<void> {
  const product = cases({ quick: true }).find(({ id }) => id.startsWith("matmul"))!;
  const small: Case = { ...product, work: { kind: "matmul", m: 256, k: 256, n: 256 } };
  const program = programOf(small);
  const request = {
    op: "prepare",
    case: small,
    warm: 0,
    program: { kind: program.kind, wrt: [], recording: record(program) },
  };
  const starting = processes.filter((p) => !known(c, p.peer, p.threads));
  const { status } = spawnSync("npm", ["run", "build"], { stdio: "ignore", cwd: root });
  const times = new Map(starting.map((p) => [p, [] as number[]]));
  const failed = new Set<PeerProcess>();
  for (let turn = 0; turn < (quick ? 1 : 5); turn++) {
    for (const p of starting) {
      if (failed.has(p)) continue;
      const fresh = new PeerProcess(p.peer, p.threads, device, status === 0);
      try {
        const none = absent(p.peer);
        if (none) throw none;
        const begin = performance.now();
        await fresh.ask(request, limit);
        times.get(p)!.push(performance.now() - begin);
      } catch (error) {
        failed.add(p);
        note(failure(c, p, error));
      }
      fresh.end();
    }
  }
  for (const [p, found] of times)
    if (!failed.has(p))
      note({ case: c.id, peer: p.peer, threads: p.threads, ms: median(found), runs: found.length });
}

function sizes(c: { id: string }): void {
  for (const p of processes) {
    if (known(c, p.peer, p.threads)) continue;
    const bytes = installedBytes(p.peer);
    note({
      case: c.id,
      peer: p.peer,
      threads: p.threads,
      ms: bytes,
      ...(bytes === null && { why: "not installed" }),
    });
  }
}

const begin = performance.now();
const minutes = (ms: number): string => `${(ms / 60_000).toFixed(1)} min`;
for (const [i, c] of [...list, ...extra].entries()) {
  if (c.id === "start") await starts(c);
  else if (c.id === "size") sizes(c);
  else await side(c as Case);
  const spent = performance.now() - begin;
  const left = (spent / (i + 1)) * (list.length + extra.length - i - 1);
  const line = chosen.map((peer) => {
    const mine = threads.map(
      (n) => figures.find((f) => f.case === c.id && f.peer === peer && f.threads === n)?.ms,
    );
    const show = (ms: number) =>
      c.id === "size" ? `${(ms / 2 ** 20).toPrecision(3)}M` : formatMs(ms);
    return `${peer} ${mine.map((ms) => (ms ? show(ms) : "–")).join("/")}`;
  });
  console.error(
    `${c.id.padEnd(20)} ${line.join("  ")}   [${minutes(spent)}, about ${minutes(left)} left]`,
  );
}
const versions = Object.fromEntries(
  processes.filter((p) => p.version).map((p) => [p.peer, p.version]),
);
for (const p of processes) p.end();

const rows = [...list, ...extra];
const judged = quick ? [] : (gpu ? gpuVerdicts : verdicts)(list, figures);
const reasons = [...new Set(figures.filter((f) => f.why).map((f) => `${f.peer}: ${f.why}`))];
const versionText = Object.entries(versions)
  .filter(([, v]) => v)
  .map(([p, v]) => `${p} ${v}`)
  .join(", ");
const pictures = threads.map((n) => [n, gpu ? `${name}.svg` : `${name}-${n}.svg`] as const);
const section = [
  quick
    ? "Tiny sizes, only to see that everything runs: these figures measure nothing."
    : `Commit ${commit}, ${machine}; ${versionText}. Medians; "(2×)": takes twice Hinode's time. ¹ fewer than ten runs. ≠ outputs differ. ✗ failed. – cannot.`,
  markdown(
    quick ? rows.map(({ id, name }) => ({ id, name })) : rows,
    chosen,
    figures,
    threads,
    device,
  ),
  ...(reasons.length > 0 ? [`Without a figure: ${reasons.join("; ")}.`] : []),
  ...pictures.map(
    ([n, file]) => `![Times as multiples of Hinode's, ${placeOf(n, device)}](results/${file})`,
  ),
].join("\n\n");
const timed = rows.filter(({ id }) => id !== "size");
for (const [n, file] of pictures)
  writeFileSync(join(results, file), chart(timed, chosen, figures, n, device));
const about = { commit, machine, date: new Date().toISOString(), quick, versions };
writeFileSync(
  join(results, `${name}.json`),
  `${JSON.stringify({ ...about, bars: judged, figures }, null, 2)}\n`,
);
console.log(section);
if (whole) {
  const readme = join(import.meta.dirname, "../README.md");
  writeFileSync(
    readme,
    replaceSection(readFileSync(readme, "utf8"), section, gpu ? "bench:peers:gpu" : undefined),
  );
}
rmSync(partial, { force: true });
const missed = judged.filter(({ met }) => !met);
for (const { case: id, peer, threads: n, bar, ms } of missed)
  console.error(
    `bar missed: ${id}, ${gpu ? `by ${peer}` : `${peer}, ${n} thread(s)`}: ${formatMs(ms)} ms, at most ${formatMs(bar)}`,
  );
process.exitCode =
  missed.length > 0 || figures.some(({ error }) => (error ?? 0) > tolerance) ? 1 : 0;
// Processes that were killed leave their pipes.
process.exit();
