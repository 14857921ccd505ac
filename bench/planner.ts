/**
 * @file What the planner makes of two training steps: kernels, bytes that they read and write, and the most memory in use next to a
 * lower bound of it; and the same steps with every primitive as a kernel of its own. Nothing runs. Then how long it takes to plan
 * graphs of about 10,000 nodes, cold, each in a process of its own (planning.ts).
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { type Explanation, explain } from "hinode";
import { WasmBackend } from "../core/backend/wasm/backend.ts";
import { Device, deviceNamed, registerDevice } from "../core/device.ts";
import { count } from "../core/explain.ts";
import type { Figure } from "./measure.ts";
import type { Planning } from "./planning.ts";
import { type Case, cases } from "./suite/cases.ts";
import { tensorsOf, trainingStep } from "./suite/hinode.ts";
import { programOf } from "./suite/programs.ts";

type Where = Pick<Figure, "device" | "threads">;

const figure = (where: Where, name: string, other: Figure["other"], atMost?: number): Figure => ({
  ...where,
  name,
  family: "planner",
  ms: null,
  gflops: null,
  gbs: null,
  roofline: null,
  other,
  ...(atMost !== undefined && { bar: { atMost } }),
});

function explained(c: Case): Explanation {
  const program = programOf(c);
  const x = tensorsOf(program);
  const report = explain(trainingStep(program, x));
  for (const t of Object.values(x)) t.dispose();
  return report;
}

const amounts = ({ kernels, bytes, peakBytes }: Explanation): string =>
  `${kernels.length} kernels, ${count(bytes)}B moved, peak ${count(peakBytes)}B`;

function steps(where: Where, quick: boolean): Figure[] {
  const figures: Figure[] = [];
  for (const c of cases({ quick })) {
    if (c.id !== "gpt" && c.id !== "mm1") continue;
    const report = explained(c);
    const ratio = report.peakBytes / report.leastBytes;
    const bound = `${ratio.toFixed(3)} × the bound of ${count(report.leastBytes)}B`;
    const text = `${amounts(report)}, ${bound}`;
    figures.push(figure(where, `plan of the ${c.name}`, { text, value: ratio }));
    if (where.device !== "wasm") continue;
    const fused = deviceNamed("wasm");
    registerDevice(new Device(new WasmBackend({ fused: false, threads: 1 })));
    const plain = explained(c);
    registerDevice(fused);
    const saved = plain.bytes / report.bytes;
    figures.push(
      figure(where, "  unfused", {
        text: `${amounts(plain)}: ${saved.toFixed(1)} × the bytes`,
        value: saved,
      }),
    );
  }
  return figures;
}

/** Planning, on the processor: what a GPU's driver adds is its own. */
function times(where: Where, quick: boolean): Figure[] {
  return (["transformer", "perceptron", "chain", "fan"] as const).map((graph) => {
    const script = join(import.meta.dirname, "planning.ts");
    const args = ["--conditions=source", script, graph, quick ? "500" : "10000"];
    const { status, stdout } = spawnSync(process.execPath, args, {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
    });
    if (status !== 0) throw new Error(`planning a ${graph} failed`);
    const { nodes, kernels, trace, canonical, schedule, lower, emit }: Planning =
      JSON.parse(stdout);
    const total = trace + canonical + schedule + lower + emit;
    const parts = Object.entries({ trace, canonical, schedule, lower, emit });
    const ms = parts.map(([name, t]) => `${name} ${t.toFixed(0)}`).join(", ");
    const text = `${total.toFixed(0)} ms for ${nodes} nodes, ${kernels} kernels (${ms})`;
    // Ten thousand nodes may take two seconds.
    const bar = quick ? undefined : 2;
    return figure(
      where,
      `planning a ${graph}`,
      { text, value: (total / 1000) * (10000 / nodes) },
      bar,
    );
  });
}

export const planner = (where: Where, quick: boolean): Figure[] => [
  ...steps(where, quick),
  ...(where.device === "wasm" ? times(where, quick) : []),
];
