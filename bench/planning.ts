/**
 * @file `node bench/planning.ts <graph> <nodes>`: plans one graph of about so many nodes, the first thing that the process does, and
 * prints the milliseconds of each stage as JSON: those that its thread computed, so that neighbours on the machine matter little.
 *
 * trace: the function, its gradient and the optimizer recorded. canonical: leaves numbered, equal nodes found. schedule:
 * simplified, fused, ordered, memory laid out. lower: groups as loops. emit: WebAssembly written and handed to the engine.
 */
import { init, randn, type Tensor } from "hinode";
import { Linear, optim } from "hinode/nn";
import { WasmBackend } from "../core/backend/wasm/backend.ts";
import { topological } from "../core/graph/walk.ts";
import { attentionOnCpu } from "../core/kernel/attention.ts";
import { lowerGroup } from "../core/kernel/templates.ts";
import { canonical, record } from "../core/record.ts";
import { schedule } from "../core/schedule/schedule.ts";
import { forCpu } from "../core/schedule/select.ts";
import { numel } from "../core/shape.ts";
import { flatten } from "../core/tree.ts";
import { tensorsOf, trainingStep } from "./suite/hinode.ts";
import { programOf } from "./suite/programs.ts";

export interface Planning {
  /** Of the canonical graph. */
  readonly nodes: number;
  readonly kernels: number;
  readonly trace: number;
  readonly canonical: number;
  readonly schedule: number;
  readonly lower: number;
  readonly emit: number;
}

/** About `nodes` nodes: layers of two sizes with gradient and AdamW, a chain of one element-wise operation, a sum of many. */
export const graphs: Readonly<Record<string, (nodes: number) => () => unknown>> = {
  transformer: (nodes) => {
    const size = { batch: 1, length: 8, width: 16, heads: 2, vocabulary: 32 };
    const depth = Math.max(1, Math.round(nodes / 490));
    const work = { kind: "gpt", depth, ...size } as const;
    const amounts = { id: "", name: "", family: "", backward: true, flops: 0, bytes: 0 };
    const program = programOf({ work, ...amounts });
    return trainingStep(program, tensorsOf(program));
  },
  perceptron: (nodes) => {
    const count = Math.max(1, Math.round(nodes / 78));
    const layers = Array.from({ length: count }, () => new Linear(8, 8));
    const adamw = new optim.AdamW(layers.flatMap((layer) => layer.parameters()));
    const x = randn([4, 8]);
    return () => {
      const loss = layers
        .reduce((h, layer) => layer.forward(h).gelu(), x)
        .square()
        .mean();
      adamw.zeroGrad();
      loss.backward();
      adamw.step();
      return loss;
    };
  },
  chain: (nodes) => {
    const x = randn([64]);
    return () => Array.from({ length: nodes }).reduce((h: Tensor) => h.mul(0.999), x);
  },
  fan: (nodes) => {
    const x = randn([64]);
    const parts = (): Tensor[] =>
      Array.from({ length: Math.round(nodes / 4) }, (_, i) => x.mul(i + 0.5).exp());
    return () => parts().reduce((a, b) => a.add(b));
  },
};

/** Times each stage of planning what `fn` records. */
export function plan(fn: () => unknown): Planning {
  const clock = (): number => {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1000;
  };
  const times = [clock()];
  const stage = <T>(value: T): T => {
    times.push(clock());
    return value;
  };
  const recorded = stage(record(fn, "planned", [], flatten([]).spec));
  const graph = stage(canonical(recorded).build());
  const planned = stage(schedule(graph.inputs, graph.outputs, attentionOnCpu, forCpu));
  const kernels = stage(
    planned.steps.flatMap((step) => {
      if (step.k === "loop" || numel(step.group.space) === 0) return [];
      const reads = new Set(step.reads);
      return [lowerGroup(step.group, (n) => reads.has(n)).kernel];
    }),
  );
  stage(new WasmBackend({ threads: 1 }).compile(kernels));
  const [trace, canonicalised, scheduled, lowered, emitted] = times
    .slice(1)
    .map((t, i) => t - times[i]);
  return {
    nodes: topological(graph.outputs).length,
    kernels: kernels.length,
    trace,
    canonical: canonicalised,
    schedule: scheduled,
    lower: lowered,
    emit: emitted,
  };
}

if (import.meta.main) {
  const [graph, nodes] = process.argv.slice(2);
  await init({ device: "wasm", threads: 1 });
  console.log(JSON.stringify(plan(graphs[graph](Number(nodes)))));
}
