import { expect, test } from "vitest";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import { OutOfMemoryError } from "../../core/errors.ts";
import * as g from "../../core/graph/build.ts";
import { placeholder } from "../../core/graph/primitives.ts";
import { runGraph } from "../support/differential.ts";
import { difference, type RandomGraph } from "../support/graphs.ts";

/** Two products, so that the first one's result lies in scratch. */
function products(n: number): RandomGraph {
  const x = placeholder("f32", [1, n, n], "wasm");
  const data = [Float32Array.from({ length: n * n }, (_, i) => Math.sin(i))];
  const outputs = [g.dot(g.dot(x, x), x)];
  return { inputs: [x], data, randoms: [], words: new Uint32Array(0), outputs };
}

// One input of the large plan is 2 MB: in the first budget its scratch does not fit, in the second its result.
test.each([3.5, 5])("with %d MB, a plan that finds no memory harms no other", (budget) => {
  const backend = new WasmBackend({ budget: budget * 2 ** 20 });
  const [small, large] = [products(20), products(700)];
  const [want] = runGraph(new ReferenceBackend(), small);
  const executable = backend.prepare({ ...small, key: "" });
  const run = () => {
    const input = backend.upload(small.data[0], "f32");
    const [result] = executable.run([input], small.words, [false]);
    expect(difference(backend.download(result, "f32", 400), want, "f32")).toBeNull();
    for (const s of [input, result]) backend.free(s);
  };
  run();
  const plan = backend.prepare({ ...large, key: "" });
  const live: number[] = [];
  for (let i = 0; i < 3; i++) {
    const input = backend.upload(large.data[0], "f32");
    expect(() => plan.run([input], large.words, [false])).toThrow(OutOfMemoryError);
    backend.free(input);
    run();
    live.push(backend.memory().liveBytes);
  }
  // Nothing is lost from one failure to the next.
  expect(new Set(live).size).toBe(1);
});
