/**
 * @file Looks for the operation that made the first NaN or infinity of a run: evaluates the run's graph again, node by
 * node, on the same device and the same inputs, which the checked run has left intact.
 *
 * Only what reaches a result of the run counts: a value that a `where` drops, as many stable formulas have, harms
 * nothing. The culprit is the first node in execution order with a NaN while none of its inputs has one, or with an
 * infinity while its inputs are finite. Infinities that the program writes itself (masks, padding) are no culprits, but a
 * NaN made of them is.
 */
import { type Anomaly, anomalyError, keepingOrigins, unobserved } from "./anomaly.ts";
import type { Backend, CanonicalGraph, Executable } from "./backend/backend.ts";
import { isFloat, type TypedArray } from "./dtype.ts";
import { type AnomalyError, OutOfMemoryError } from "./errors.ts";
import { is, type Node } from "./graph/node.ts";
import { placeholder, rules, type Storage } from "./graph/primitives.ts";
import { substitute, topological } from "./graph/walk.ts";
import { formatShape, numel } from "./shape.ts";

/** Anomalies of runs since the last look: one that nobody awaits must not get lost. */
let found: AnomalyError[] = [];
export function takeAnomalies(): AnomalyError[] {
  const all = found;
  found = [];
  return all;
}

/**
 * A plan whose runs overwrite nothing and fail if a result is not finite and an operation made it so. It runs while it
 * prepares, since looking at values takes time on some devices; `run` gives what was found to be good.
 */
export function checkedPlan(
  backend: Backend,
  build: () => CanonicalGraph,
  makePlan: () => Executable,
): Executable {
  // With the graph's own call sites: an equal plan may have been made elsewhere.
  const graph = keepingOrigins(build);
  const plan = unobserved(makePlan);
  let good: Storage[] | null = null;

  const runChecked = async (inputs: readonly Storage[], words: Uint32Array): Promise<void> => {
    const outputs = await execute(plan, backend, inputs, words);
    const bad: Node[] = [];
    for (const [i, n] of graph.outputs.entries())
      if (flagsOf(await read(backend, n, outputs[i])) !== 0) bad.push(n);
    const anomaly =
      bad.length > 0 && (await diagnose(backend, { ...graph, outputs: bad }, inputs, words));
    if (!anomaly) {
      good = outputs;
      return;
    }
    for (const storage of new Set(outputs)) if (!inputs.includes(storage)) backend.free(storage);
    const error = anomalyError(anomaly);
    error.stateIntact = true;
    found.push(error);
    throw error;
  };
  return {
    get kernels() {
      return plan.kernels;
    },
    get scratchBytes() {
      return plan.scratchBytes;
    },
    footprint: () => plan.footprint?.() ?? { peakBytes: 0, leastBytes: 0 },
    prepare: (inputs, words) => (good ? undefined : runChecked(inputs, words)),
    run: () => {
      const outputs = good!;
      good = null;
      return outputs;
    },
  };
}

/** Runs a plan to its end; nothing is overwritten. */
async function execute(
  plan: Executable,
  backend: Backend,
  inputs: readonly Storage[],
  words: Uint32Array,
): Promise<Storage[]> {
  const keep = inputs.map(() => false);
  while (true) {
    const waiting = plan.prepare?.(inputs, words, keep);
    if (!waiting) break;
    await waiting;
  }
  const outputs = plan.run(inputs, words, keep);
  try {
    await plan.ended?.();
  } catch (error) {
    for (const storage of outputs) if (!inputs.includes(storage)) backend.free(storage);
    throw error;
  }
  return outputs;
}

/** Inputs whose ranges a message gives. */
const maxShown = 4;

const NAN = 1;
const INFINITE = 2;

function flagsOf(data: ArrayLike<number> | null): number {
  let flags = 0;
  for (let i = 0; i < (data?.length ?? 0); i++)
    if (!Number.isFinite(data![i])) flags |= Number.isNaN(data![i]) ? NAN : INFINITE;
  return flags;
}

/** "NaN in 2 of 6 elements" */
function count(data: TypedArray): string {
  const found = new Map<string, number>();
  for (const v of data)
    if (!Number.isFinite(v)) found.set(String(v), (found.get(String(v)) ?? 0) + 1);
  return [...found].map(([name, n]) => `${name} in ${n} of ${data.length} elements`).join(", ");
}

async function read(backend: Backend, n: Node, storage: Storage): Promise<TypedArray | null> {
  return isFloat(n.dtype) ? backend.download(storage, n.dtype, numel(n.shape)) : null;
}

/** Nodes that only address, or name, what is below. */
const isView = (n: Node): boolean =>
  n.op === "assign" || (rules[n.op].kind === "movement" && n.op !== "concat");
/** Has a storage here, unlike views, literals and regions, whose results have one each. */
const hasValue = (n: Node): boolean =>
  !isView(n) && !["constant", "iota", "random", "region"].includes(n.op);

async function diagnose(
  backend: Backend,
  graph: CanonicalGraph,
  inputs: readonly Storage[],
  words: Uint32Array,
  regions: readonly Node<"region">[] = [],
): Promise<Anomaly | null> {
  const order = topological(graph.outputs);
  const values = new Map<Node, Storage>(graph.inputs.map((p, i) => [p, inputs[i]]));
  const flags = new Map<Node, number>();
  const candidates = new Map<Node, Anomaly>();
  const unknown: Anomaly = {
    node: graph.outputs[0],
    got: "a value that is not finite, but only where it is computed in a fused kernel",
    inputs: "",
    regions,
  };
  const release = lastUses(order);
  const storagesOf = (nodes: readonly Node[]): Promise<Storage[]> =>
    stage(backend, graph, values, words, nodes);
  try {
    for (const [at, n] of order.entries()) {
      flags.set(n, await evaluate(n));
      for (const dead of release[at]) free(dead);
    }
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    // Node by node it takes more memory than fused; the result is bad all the same.
    return { ...unknown, got: "a value that is not finite, which there is no memory to trace" };
  } finally {
    for (const n of values.keys()) free(n);
  }
  if (!graph.outputs.some((n) => flags.get(n))) return unknown;
  return firstThatReaches(graph.outputs, flags, candidates);

  /** The flags of a node, whose value is kept while somebody needs it. */
  async function evaluate(n: Node): Promise<number> {
    const given = n.src.reduce((all, s) => all | flags.get(s)!, 0);
    if (is(n, "constant")) return flagsOf([n.attrs.value]);
    if (is(n, "pad")) return given | flagsOf([n.attrs.value]);
    if (n.op === "assign") return flags.get(n.src[1])!;
    if (is(n, "region")) {
      // Its results are evaluated together.
      const results = order.filter((p) => p.op === "project" && p.src[0] === n);
      const storages = await storagesOf(results);
      for (const [i, p] of results.entries()) values.set(p, storages[i]);
    }
    if (!hasValue(n)) return given;
    if (!values.has(n)) values.set(n, (await storagesOf([n]))[0]);
    const data = await read(backend, n, values.get(n)!);
    const own = flagsOf(data);
    const makesNaN = (own & NAN) !== 0 && (given & NAN) === 0;
    const makesInfinite = (own & INFINITE) !== 0 && given === 0;
    if (n.op !== "placeholder" && (makesNaN || makesInfinite))
      candidates.set(
        n,
        (await inside(n, data!)) ?? {
          node: n,
          got: count(data!),
          inputs: await ranges(n),
          regions,
        },
      );
    return own;
  }

  function free(n: Node): void {
    const storage = values.get(n);
    if (storage && !inputs.includes(storage)) backend.free(storage);
    if (n.op !== "placeholder") values.delete(n);
  }

  /** A region that is no loop is searched in turn, with what it is given. */
  async function inside(n: Node, data: TypedArray): Promise<Anomaly | null> {
    const region = n.src[0];
    if (n.op !== "project" || !is(region, "region") || region.attrs.region.scan) return null;
    const { params, results } = region.attrs.region.body;
    const given = await storagesOf(region.src);
    const { index } = (n as Node<"project">).attrs;
    const body = { key: "", inputs: params, randoms: [], outputs: [results[index]] };
    const path = [...regions, region];
    const anomaly = await diagnose(backend, body, given, words, path);
    for (const storage of given) backend.free(storage);
    return anomaly ?? { node: n, got: count(data), inputs: await ranges(n), regions: path };
  }

  /** "f32[2] in 0 … 3, f32[] in 2 … 2" */
  async function ranges(n: Node): Promise<string> {
    const sources = n.op === "project" ? n.src[0].src : n.src;
    const shown = sources.filter((s) => isFloat(s.dtype) && numel(s.shape) > 0).slice(0, maxShown);
    const texts: string[] = [];
    for (const [i, storage] of (await storagesOf(shown)).entries()) {
      const { dtype, shape } = shown[i];
      let [low, high] = [Infinity, -Infinity];
      for (const v of (await read(backend, shown[i], storage))!) {
        low = Math.min(low, v);
        high = Math.max(high, v);
      }
      backend.free(storage);
      texts.push(`${dtype}${formatShape(shape)} in ${low} … ${high}`);
    }
    return texts.join(", ");
  }
}

/** The storages of nodes, computed from those that are there. */
async function stage(
  backend: Backend,
  graph: CanonicalGraph,
  values: ReadonlyMap<Node, Storage>,
  words: Uint32Array,
  nodes: readonly Node[],
): Promise<Storage[]> {
  const leaves = new Map<Node, Node<"placeholder">>();
  for (const n of topological(nodes, (m) => values.has(m)))
    if (values.has(n)) leaves.set(n, placeholder(n.dtype, n.shape, n.device));
  const randoms: Node<"random">[] = [];
  const plan = unobserved(() => {
    const outputs = substitute(nodes, leaves);
    for (const n of topological(outputs)) if (is(n, "random")) randoms.push(n);
    return backend.prepare({ key: "", inputs: [...leaves.values()], randoms, outputs });
  });
  const own = randoms.flatMap((r) => {
    const at = 3 * graph.randoms.indexOf(r);
    return [...words.subarray(at, at + 3)];
  });
  const given = [...leaves.keys()].map((n) => values.get(n)!);
  return execute(plan, backend, given, Uint32Array.from(own));
}

/** Per node of the order the values that nobody reads after it. */
function lastUses(order: readonly Node[]): Node[][] {
  const last = new Map<Node, number>();
  for (const [i, n] of order.entries()) {
    const stack = [...n.src];
    if (hasValue(n)) last.set(n, i);
    for (let s = stack.pop(); s; s = stack.pop())
      if (isView(s) || s.op === "region") stack.push(...s.src);
      else last.set(s, i);
  }
  const dead: Node[][] = order.map(() => []);
  for (const [n, i] of last) if (n.op !== "placeholder") dead[i].push(n);
  return dead;
}

/** The first candidate from which a chain of values that are not finite leads to a result. */
function firstThatReaches(
  outputs: readonly Node[],
  flags: ReadonlyMap<Node, number>,
  candidates: ReadonlyMap<Node, Anomaly>,
): Anomaly | null {
  const seen = new Set<Node>(outputs);
  const reached: Node[] = [];
  const stack = [...outputs];
  for (let n = stack.pop(); n; n = stack.pop()) {
    if (candidates.has(n)) reached.push(n);
    for (const s of n.src)
      if (!seen.has(s) && flags.get(s)) {
        seen.add(s);
        stack.push(s);
      }
  }
  const first = reached.sort((a, b) => a.id - b.id)[0];
  return first ? candidates.get(first)! : null;
}
