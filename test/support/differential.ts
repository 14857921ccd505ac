/** @file Runs one graph on two backends and tells the first difference. */
import type { Backend, CanonicalGraph } from "../../core/backend/backend.ts";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import { isFloat, type TypedArray } from "../../core/dtype.ts";
import { numel } from "../../core/shape.ts";
import { difference, generator, type RandomGraph, randomGraph } from "./graphs.ts";

/** Runs a graph; every input that it assigns to is given up, so that it may be overwritten. */
export function runGraph(backend: Backend, graph: RandomGraph): TypedArray[] {
  const canonical: CanonicalGraph = { ...graph, key: "" };
  const executable = backend.prepare(canonical);
  const inputs = graph.data.map((d, i) => backend.upload(d, graph.inputs[i].dtype));
  const outputs = executable.run(inputs, graph.words, assigned(graph));
  const values = outputs.map((o, i) =>
    backend.download(o, graph.outputs[i].dtype, numel(graph.outputs[i].shape)),
  );
  for (const s of new Set([...inputs, ...outputs])) backend.free(s);
  return values as TypedArray[];
}

const assigned = (graph: RandomGraph): boolean[] => {
  const targets = new Set(graph.outputs.filter((n) => n.op === "assign").map((n) => n.src[0]));
  return graph.inputs.map((n) => targets.has(n));
};

/** The same on a device that runs asynchronously. */
export async function runGraphOn(backend: Backend, graph: RandomGraph): Promise<TypedArray[]> {
  const canonical: CanonicalGraph = { ...graph, key: "" };
  const executable = backend.prepare(canonical);
  const inputs = graph.data.map((d, i) => backend.upload(d, graph.inputs[i].dtype));
  const donate = assigned(graph);
  for (;;) {
    const waiting = executable.prepare?.(inputs, graph.words, donate);
    if (!waiting) break;
    await waiting;
  }
  const outputs = executable.run(inputs, graph.words, donate);
  await executable.ended?.();
  const values = await Promise.all(
    outputs.map((o, i) =>
      backend.download(o, graph.outputs[i].dtype, numel(graph.outputs[i].shape)),
    ),
  );
  for (const s of new Set([...inputs, ...outputs])) backend.free(s);
  return values;
}

/** Compares an asynchronous device with the reference, several graphs at a time: kernels compile in parallel. */
export async function compareOnRandomGraphsOn(
  backend: Backend,
  from: number,
  to: number,
  size?: number,
  make: (seed: number, size?: number) => RandomGraph = randomGraph,
): Promise<void> {
  const reference = new ReferenceBackend();
  const one = async (seed: number): Promise<void> => {
    const graph = make(seed, size);
    const compare = async (g: RandomGraph) =>
      firstDifference(g, await runGraphOn(backend, g), runGraph(reference, g));
    try {
      // As below.
      const found = (await compare(graph)) && (await compare(perturbed(graph, seed)));
      if (found) throw new Error(found);
    } catch (error) {
      throw new Error(`${make.name}(${seed}, ${size})`, { cause: error });
    }
  };
  let next = from;
  const worker = async () => {
    while (next < to) await one(next++);
  };
  await Promise.all([worker(), worker(), worker(), worker()]);
}

function firstDifference(
  graph: RandomGraph,
  got: readonly TypedArray[],
  want: readonly TypedArray[],
): string | null {
  for (const [i, output] of graph.outputs.entries()) {
    const found = difference(got[i], want[i], output.dtype, graph.tolerance);
    if (found) return `output ${i} (${output.op}): ${found}`;
  }
  return null;
}

function perturbed(graph: RandomGraph, seed: number): RandomGraph {
  const next = generator(seed + 7);
  const data = graph.data.map((d, i) =>
    isFloat(graph.inputs[i].dtype) ? d.map((x) => x * (1 + 0.01 * next()) + 1e-3 * next()) : d,
  );
  return { ...graph, data };
}

/** Compares `backend` with the reference on the graphs of seeds `from` … `to`-1; throws with the seed. */
export function compareOnRandomGraphs(
  backend: Backend,
  from: number,
  to: number,
  size?: number,
  make: (seed: number, size?: number) => RandomGraph = randomGraph,
): number {
  const reference = new ReferenceBackend();
  let nodes = 0;
  for (let seed = from; seed < to; seed++) {
    const graph = make(seed, size);
    const want = runGraph(reference, graph);
    let got: TypedArray[];
    try {
      got = runGraph(backend, graph);
    } catch (error) {
      throw new Error(`${make.name}(${seed}, ${size})`, { cause: error });
    }
    const found = firstDifference(graph, got, want);
    // At a tie (two maxima, a value at a bound) gradients jump and rounding decides which way. Such a difference goes
    // away when the inputs move a little; a bug stays.
    if (found) {
      const moved = perturbed(graph, seed);
      const again = firstDifference(moved, runGraph(backend, moved), runGraph(reference, moved));
      if (again) throw new Error(`${make.name}(${seed}, ${size}): ${found}`);
    }
    nodes += want.length;
  }
  return nodes;
}
