/**
 * Random graphs agree between backends. The seeds of a run start at a number that is printed; set HINODE_SEED to
 * repeat a run exactly.
 */
import { describe, expect, test } from "vitest";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import { compareOnRandomGraphs } from "../support/differential.ts";
import { randomGradientGraph, randomStateGraph } from "../support/graphs.ts";
import { InterpretedBackend } from "../support/interpreted.ts";

const first = Number(process.env.HINODE_SEED ?? Date.now() % 1_000_000_000);
console.log(`random graphs from seed ${first} (HINODE_SEED=${first} repeats them)`);

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

  test("without fused multiply-add", () => {
    compareOnRandomGraphs(new WasmBackend({ relaxed: false }), first + 600, first + 700);
  });

  test("with 64-bit addresses", () => {
    compareOnRandomGraphs(new WasmBackend({ address: 64 }), first + 700, first + 800);
  });

  test("every kernel passes the checker, and the interpreter finds no race and no stray access", () => {
    compareOnRandomGraphs(new InterpretedBackend(), first + 800, first + 1000);
  });

  test("seeds that once found a bug", () => {
    const wasm = new WasmBackend();
    compareOnRandomGraphs(wasm, 8654, 8655, 12, randomGradientGraph);
    for (const [seed, size] of regressions) compareOnRandomGraphs(wasm, seed, seed + 1, size);
  });
});

/** [seed, size] of graphs that failed, so that they never do again. */
const regressions: [number, number | undefined][] = [
  [12, undefined],
  [122, undefined],
];
