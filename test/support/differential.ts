/** @file Runs one graph on two backends and tells the first difference. */
import type { Backend, CanonicalGraph } from "../../core/backend/backend.ts";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import type { TypedArray } from "../../core/dtype.ts";
import { numel } from "../../core/shape.ts";
import { difference, type RandomGraph, randomGraph } from "./graphs.ts";

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
    want.forEach((values, i) => {
      const found = difference(got[i], values, graph.outputs[i].dtype);
      if (found)
        throw new Error(
          `${make.name}(${seed}, ${size}): output ${i} (${graph.outputs[i].op}): ${found}`,
        );
      nodes++;
    });
  }
  return nodes;
}
