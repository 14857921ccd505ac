/** @file Runs one graph on two backends and tells the first difference. */
import type { Backend, CanonicalGraph } from "../../core/backend/backend.ts";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import type { TypedArray } from "../../core/dtype.ts";
import { numel } from "../../core/shape.ts";
import { difference, generator, type RandomGraph, randomGraph } from "./graphs.ts";

/** Runs a graph; every input that it assigns to is given up, so that it may be overwritten. */
export function runGraph(backend: Backend, graph: RandomGraph): TypedArray[] {
  const canonical: CanonicalGraph = { ...graph, key: "" };
  const executable = backend.prepare(canonical);
  const inputs = graph.data.map((d, i) => backend.upload(d, graph.inputs[i].dtype));
  const targets = new Set(graph.outputs.filter((n) => n.op === "assign").map((n) => n.src[0]));
  const outputs = executable.run(
    inputs,
    graph.words,
    graph.inputs.map((n) => targets.has(n)),
  );
  const values = outputs.map((o, i) =>
    backend.download(o, graph.outputs[i].dtype, numel(graph.outputs[i].shape)),
  );
  for (const s of new Set([...inputs, ...outputs])) backend.free(s);
  return values;
}

function firstDifference(
  graph: RandomGraph,
  got: readonly TypedArray[],
  want: readonly TypedArray[],
): string | null {
  for (const [i, output] of graph.outputs.entries()) {
    const found = difference(got[i], want[i], output.dtype);
    if (found) return `output ${i} (${output.op}): ${found}`;
  }
  return null;
}

function perturbed(graph: RandomGraph, seed: number): RandomGraph {
  const next = generator(seed + 7);
  const data = graph.data.map((d) =>
    d instanceof Float32Array ? d.map((x) => x * (1 + 0.01 * next()) + 1e-3 * next()) : d,
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
