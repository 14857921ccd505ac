/**
 * @file A model as a table: layers, shapes of their outputs, parameters, arithmetic and memory, in the manner of torchinfo.
 *
 * `forward` is recorded once, as by compile, and nothing runs: shapes are those of the graph, and since the values that
 * parameters begin with are lazy too, a model that fits no memory can be looked at. What a module costs are the nodes that
 * were made between the beginning and the end of its `forward`, so a row includes the rows below it.
 */
import { bytesOf } from "../core/dtype.ts";
import { ArgumentError, describe, TransformError } from "../core/errors.ts";
import { count } from "../core/explain.ts";
import { is, type Node, peekId } from "../core/graph/node.ts";
import { rules } from "../core/graph/primitives.ts";
import { topological } from "../core/graph/walk.ts";
import { type HookHandle, noGrad, Tensor, zeros } from "../core/index.ts";
import { record, undoDraws } from "../core/record.ts";
import { formatShape, numel, type Shape } from "../core/shape.ts";
import { activeTrace } from "../core/trace.ts";
import { flatten } from "../core/tree.ts";
import type { Module } from "./module.ts";
import { isParameter } from "./parameter.ts";

export interface SummaryOptions {
  /** How many levels below the model are shown; all unless given. */
  readonly depth?: number;
  /** In which mode `forward` is recorded: "eval" (the default), "train", or as each module "is". Afterwards it is as before. */
  readonly mode?: "eval" | "train" | "is";
}

/** One module, with all below it. */
export interface SummaryRow {
  /** "" for the model itself. */
  readonly path: string;
  readonly className: string;
  /** Levels below the model. */
  readonly depth: number;
  /** Of its last call; none if `forward` was not called. */
  readonly outputs: readonly Shape[];
  readonly calls: number;
  /** Elements of its parameters, each counted once, and how many of them are trained. */
  readonly parameters: number;
  readonly trainable: number;
  /** Pairs of a multiplication and an addition in matrix products and convolutions, over all calls. */
  readonly multAdds: number;
  /** 2·multAdds, and one for each element of each other arithmetic operation, as recorded (a fused plan may do less). */
  readonly flops: number;
}

export interface Summary {
  readonly rows: readonly SummaryRow[];
  readonly parameters: number;
  readonly trainable: number;
  readonly multAdds: number;
  readonly flops: number;
  readonly parameterBytes: number;
  readonly bufferBytes: number;
  readonly inputBytes: number;
  /** Of the outputs of the innermost modules, over all calls: about what training keeps for the backward pass. */
  readonly activationBytes: number;
  /** The table, aligned. */
  toString(): string;
}

/** What is known of a module's calls. */
interface Calls {
  readonly spans: [from: number, to: number][];
  outputs: readonly Tensor[];
  outputBytes: number;
  /** A module inside was called too. */
  outer: boolean;
}

/**
 * The table of a model for an input: a shape (of f32), a tensor, or an array of all arguments of `forward`.
 *
 *     console.log(`${summary(model, [1, 3, 224, 224])}`);
 *     console.log(`${summary(language, zeros([1, 128], { dtype: "i32" }))}`);
 */
export function summary(
  model: Module,
  input: Shape | Tensor | readonly unknown[],
  { depth = Number.POSITIVE_INFINITY, mode = "eval" }: SummaryOptions = {},
): Summary {
  const { forward } = model as { forward?: (...args: unknown[]) => unknown };
  if (typeof forward !== "function")
    throw new ArgumentError(
      describe("summary", "a module with forward", model.constructor.name, "summarise its parts"),
    );
  if (activeTrace())
    throw new TransformError(describe("summary", "a call outside of compile", "one inside"));
  const args = argumentsOf(input);
  const { tensors, spec } = flatten(args);
  const calls = new Map<Module, Calls>();
  const handles = watch(model, calls);
  const modes = model.modules().map((m) => [m, m.training] as const);
  let roots: readonly Node[];
  try {
    if (mode !== "is") model.train(mode === "train");
    const run = (...given: unknown[]) => noGrad(() => forward.apply(model, given));
    const recorded = record(run, "summary", tensors, spec);
    undoDraws(recorded.trace);
    roots = recorded.roots;
  } finally {
    for (const handle of handles) handle.remove();
    // Outer ones come first, so that each has its own in the end.
    for (const [m, training] of modes) m.train(training);
  }
  const work = new Work(roots);
  const rows = [...rowsOf(model, calls, work)];
  const [whole] = rows;
  const leaves = [
    ...new Set([...model.namedParameters(), ...model.namedBuffers()].map(([, t]) => t)),
  ];
  const bytes = (list: readonly Tensor[]) => list.reduce((n, t) => n + bytesOf(t), 0);
  const inner = [...calls.values()].filter((c) => !c.outer);
  const facts = {
    parameters: whole.parameters,
    trainable: whole.trainable,
    multAdds: work.total.multAdds,
    flops: work.total.flops,
    parameterBytes: bytes(leaves.filter(isParameter)),
    bufferBytes: bytes(leaves.filter((t) => !isParameter(t))),
    inputBytes: bytes(tensors),
    activationBytes: inner.reduce((n, c) => n + c.outputBytes, 0),
  };
  const shown = rows.filter((row) => row.depth <= depth);
  return { rows: shown, ...facts, toString: () => table(shown, facts) };
}

/** A shape stands for one tensor; anything else than an array for itself. */
function argumentsOf(input: Shape | Tensor | readonly unknown[]): readonly unknown[] {
  if (input instanceof Tensor) return [input];
  if (!Array.isArray(input) || input.length === 0)
    throw new ArgumentError(
      describe("summary", "a shape, a tensor, or an array of arguments", String(input)),
    );
  return input.every((d) => typeof d === "number") ? [zeros(input)] : input;
}

/** Notes every call of every module. */
function watch(model: Module, calls: Map<Module, Calls>): HookHandle[] {
  const open: { from: number; outer: boolean }[] = [];
  return model.modules().flatMap((m) => {
    // A forward that is a field runs no hooks; its work counts where it is called.
    if (typeof (m as { forward?: unknown }).forward !== "function") return [];
    if (Object.hasOwn(m, "forward")) return [];
    const before = m.registerForwardPreHook(() => {
      for (const call of open) call.outer = true;
      open.push({ from: peekId(), outer: false });
    });
    const after = m.registerForwardHook((_module, _args, output) => {
      const { from, outer } = open.pop()!;
      const known = calls.get(m) ?? { spans: [], outputs: [], outputBytes: 0, outer };
      calls.set(m, known);
      known.spans.push([from, peekId()]);
      known.outputs = flatten(output).tensors;
      known.outputBytes += known.outputs.reduce((n, t) => n + bytesOf(t), 0);
    });
    return [before, after];
  });
}

interface Cost {
  readonly multAdds: number;
  readonly flops: number;
}

/** The arithmetic of a graph, by when its nodes were made. */
class Work {
  readonly #nodes: readonly { readonly id: number; readonly cost: Cost }[];
  readonly total: Cost;

  constructor(roots: readonly Node[]) {
    this.#nodes = topological(roots).map((n) => ({ id: n.id, cost: costOf(n) }));
    this.total = this.within([[0, Number.POSITIVE_INFINITY]]);
  }

  /** What was made within any of some spans of ids; calls that are nested in one another count once. */
  within(spans: readonly (readonly [from: number, to: number])[]): Cost {
    let [multAdds, flops] = [0, 0];
    for (const { id, cost } of this.#nodes) {
      if (!spans.some(([from, to]) => id >= from && id < to)) continue;
      multAdds += cost.multAdds;
      flops += cost.flops;
    }
    return { multAdds, flops };
  }
}

function costOf(n: Node): Cost {
  if (is(n, "dot")) {
    const multAdds = numel(n.shape) * n.src[0].shape[2];
    return { multAdds, flops: 2 * multAdds };
  }
  if (is(n, "region")) {
    const { body, scan } = n.attrs.region;
    const { multAdds, flops } = new Work(body.results).total;
    const times = scan?.length ?? 1;
    return { multAdds: times * multAdds, flops: times * flops };
  }
  const flops = (): number => {
    switch (rules[n.op].kind) {
      case "elementwise":
        return n.op === "cast" || n.op === "bitcast" ? 0 : numel(n.shape);
      case "reduce":
      case "line":
        return numel(n.src[0].shape);
      default:
        return n.op === "scatterAdd" ? numel(n.src[1].shape) : 0;
    }
  };
  return { multAdds: 0, flops: flops() };
}

function* rowsOf(
  module: Module,
  calls: ReadonlyMap<Module, Calls>,
  work: Work,
  path = "",
  depth = 0,
  seen = new Set<Module>(),
): Generator<SummaryRow> {
  if (seen.has(module)) return;
  seen.add(module);
  const { spans = [], outputs = [] } = calls.get(module) ?? {};
  const { multAdds, flops } = work.within(spans);
  yield {
    path,
    className: module.constructor.name,
    depth,
    outputs: outputs.map((t) => t.shape),
    calls: spans.length,
    parameters: module.numParameters(),
    trainable: module.numParameters({ trainable: true }),
    multAdds,
    flops,
  };
  for (const [name, child] of module.namedChildren())
    yield* rowsOf(child, calls, work, path ? `${path}.${name}` : name, depth + 1, seen);
}

type Facts = Omit<Summary, "rows" | "toString">;

function table(rows: readonly SummaryRow[], facts: Facts): string {
  const number = (n: number) => n.toLocaleString("en-US");
  const head = ["layer", "class", "output", "parameters", "mult-adds", "flops"];
  const cells = rows.map((row) => [
    `${"  ".repeat(row.depth)}${row.path.split(".").slice(-1)[0] || "model"}`,
    row.className,
    row.outputs.map(formatShape).join(", ") + (row.calls > 1 ? ` × ${row.calls}` : "") || "–",
    row.parameters > 0 ? number(row.parameters) : "–",
    row.calls > 0 ? count(row.multAdds).trim() : "–",
    row.calls > 0 ? count(row.flops).trim() : "–",
  ]);
  const widths = head.map((_, i) => Math.max(...[head, ...cells].map((line) => line[i].length)));
  const line = (texts: readonly string[]): string =>
    texts
      .map((text, i) => (i < 3 ? text.padEnd(widths[i]) : text.padStart(widths[i])))
      .join("  ")
      .trimEnd();
  const rule = "─".repeat(widths.reduce((n, w) => n + w + 2, -2));
  const { parameters, trainable } = facts;
  return [
    line(head),
    rule,
    ...cells.map(line),
    rule,
    `parameters: ${number(parameters)}, of them ${number(trainable)} trained and ${number(parameters - trainable)} frozen`,
    `arithmetic: ${count(facts.multAdds).trim()} mult-adds, ${count(facts.flops)}FLOP`,
    `memory: parameters ${count(facts.parameterBytes)}B, buffers ${count(facts.bufferBytes)}B, input ${count(facts.inputBytes)}B, activations ${count(facts.activationBytes)}B`,
  ].join("\n");
}
