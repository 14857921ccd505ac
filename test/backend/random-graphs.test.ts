/**
 * Random graphs agree between backends. The seeds of a run start at test/support/seed.ts's.
 */
import { describe, expect, test } from "vitest";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import * as g from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { placeholder } from "../../core/graph/primitives.ts";
import { compareOnRandomGraphs, runGraph } from "../support/differential.ts";
import {
  difference,
  randomGradientGraph,
  randomHalfGradientGraph,
  randomHalfGraph,
  randomStateGraph,
} from "../support/graphs.ts";
import { InterpretedBackend } from "../support/interpreted.ts";
import { seed as first } from "../support/seed.ts";

describe("random graphs", () => {
  test("wasm agrees with the reference on 600 graphs", () => {
    expect(compareOnRandomGraphs(new WasmBackend(), first, first + 500)).toBeGreaterThan(500);
    compareOnRandomGraphs(new WasmBackend(), first + 500, first + 600, 40);
  });

  test("and with gradients", () => {
    const wasm = new WasmBackend();
    compareOnRandomGraphs(wasm, first, first + 300, 12, randomGradientGraph);
    compareOnRandomGraphs(wasm, first + 300, first + 350, 40, randomGradientGraph);
    compareOnRandomGraphs(
      new InterpretedBackend(),
      first + 350,
      first + 450,
      12,
      randomGradientGraph,
    );
  });

  test("and with state that is overwritten in place", () => {
    compareOnRandomGraphs(new WasmBackend(), first, first + 300, 14, randomStateGraph);
    compareOnRandomGraphs(new WasmBackend(), first + 300, first + 350, 40, randomStateGraph);
  });

  test("and with halves, with gradients and without", () => {
    const wasm = new WasmBackend();
    compareOnRandomGraphs(wasm, first, first + 240, 14, randomHalfGraph);
    compareOnRandomGraphs(wasm, first + 240, first + 270, 40, randomHalfGraph);
    compareOnRandomGraphs(wasm, first, first + 150, 12, randomHalfGradientGraph);
    compareOnRandomGraphs(new InterpretedBackend(), first, first + 60, 12, randomHalfGraph);
  });

  test("without fused multiply-add", () => {
    compareOnRandomGraphs(new WasmBackend({ relaxed: false }), first + 600, first + 700);
  });

  test("with 64-bit addresses", () => {
    compareOnRandomGraphs(new WasmBackend({ address: 64 }), first + 700, first + 800);
  });

  test("every kernel passes the checker, and the interpreter finds no race and no stray access", () => {
    compareOnRandomGraphs(new InterpretedBackend(), first + 800, first + 1000);
  });

  test("rows over different axes that meet through a permutation stay apart", () => {
    // Found by a random graph: one row's reduced axes were permuted along with its members.
    const x = placeholder("f32", [4, 4, 4], "wasm");
    const centred = (n: Node) => g.sub(n, g.reshape(g.sum(g.tanh(n), [1, 2]), [4, 1, 1]));
    const turned = centred(g.permute(x, [1, 0, 2]));
    const outputs = [g.add(centred(x), g.permute(turned, [1, 0, 2]))];
    const data = [Float32Array.from({ length: 64 }, (_, i) => Math.sin(i))];
    const graph = { inputs: [x], data, randoms: [], words: new Uint32Array(0), outputs };
    const [want] = runGraph(new ReferenceBackend(), graph);
    for (const backend of [new WasmBackend(), new InterpretedBackend()])
      expect(difference(runGraph(backend, graph)[0], want, "f32")).toBeNull();
  });
});
