/**
 * Kernels of attention: every kind of mask, tails of every tile, shared heads, against the expansion on the reference. The CPU's
 * run on WebAssembly and in the interpreter, the GPU's in the interpreter, which looks for races, in every tile; what no
 * device can show, that scores are never stored, is asked of the plans.
 */
import { describe, expect, test } from "vitest";
import type { Backend } from "../../core/backend/backend.ts";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import { attentionOnCpu } from "../../core/kernel/attention.ts";
import { checkKernel } from "../../core/kernel/check.ts";
import { attentionOnGpu, lowerAttention } from "../../core/kernel/gpu/attention.ts";
import { attentionTiles } from "../../core/kernel/gpu/attention-tile.ts";
import { lowerForGpu } from "../../core/kernel/gpu/lower.ts";
import type { GpuTarget } from "../../core/kernel/gpu/target.ts";
import { schedule } from "../../core/schedule/schedule.ts";
import type { Claims } from "../../core/schedule/simplify.ts";
import { numel } from "../../core/shape.ts";
import {
  type AttentionCase,
  attentionCases,
  attentionGraph,
  claimsAttention,
  nameOf,
} from "../support/attention.ts";
import { runGraph } from "../support/differential.ts";
import { difference } from "../support/graphs.ts";
import { forCpu, gpuTarget, InterpretedBackend } from "../support/interpreted.ts";

const reference = new ReferenceBackend();
const results = ["output", "lse", "dq", "dk", "dv"];
/** A few roundings to the type of the operands; of f32 the order of sums. */
const tolerances: Record<string, number> = { f16: 2e-3, bf16: 1.6e-2, f32: 2e-4 };

function agree(backend: Backend, c: AttentionCase, backward = true): void {
  const graph = attentionGraph(c, 1, backward);
  const want = runGraph(reference, graph);
  const got = runGraph(backend, graph);
  graph.outputs.forEach((n, i) => {
    const found = difference(got[i], want[i], n.dtype, tolerances[c.dtype ?? "f32"]);
    expect(found, `${results[i]} of ${nameOf(c)}`).toBeNull();
  });
}

/** GPU schedules in the interpreter; `nth` picks a tile instead of the best. */
function interpretedGpu(target: GpuTarget, nth = 0): InterpretedBackend {
  return new InterpretedBackend((group, inMemory) => {
    const lowered =
      group.kind === "attention"
        ? lowerAttention(group, inMemory, target, (...args) => {
            const tiles = attentionTiles(...args);
            return tiles[Math.min(nth, tiles.length - 1)];
          })
        : lowerForGpu(group, inMemory, target);
    for (const { kernel } of lowered.stages) checkKernel(kernel, "webgpu");
    return lowered;
  }, claimsAttention);
}

describe.each(attentionCases.map((c) => [nameOf(c), c] as const))("%s", (_, c) => {
  const wasm = new WasmBackend({ claims: claimsAttention });
  test("on WebAssembly", () => {
    agree(wasm, c);
    agree(wasm, c, false);
  });
  test("as a CPU's, interpreted", () => agree(new InterpretedBackend(forCpu, claimsAttention), c));
  test("as a GPU's, interpreted", () =>
    agree(interpretedGpu({ ...gpuTarget, sharedBytes: 16384 }), c));
});

describe("on WebAssembly", () => {
  const wasm = new WasmBackend({ claims: claimsAttention });
  // Beyond a chunk of keys, a block and a task of rows.
  const long: AttentionCase[] = [
    { queries: 410, keys: 300, width: 12, causal: true, heads: 2, shared: 1 },
    { queries: 230, keys: 700, width: 64, values: 72 },
    { queries: 250, keys: 1000, width: 64, causal: true },
    { queries: 200, keys: 260, width: 130, mask: { dtype: "bool", shape: [1, 1, 200, 260] } },
  ];
  test.each(long.map((c) => [nameOf(c), c] as const))("long rows: %s", (_, c) => agree(wasm, c));
});

describe("on a GPU, interpreted", () => {
  const large = { ...gpuTarget, invocations: 1024, sharedBytes: 49152 };
  test.each([0, 1, 2, 3, 4, 5, 6])("in tile %i", (nth) => {
    agree(interpretedGpu(large, nth), { queries: 70, keys: 66, width: 4, values: 6, causal: true });
  });
  test("whole tiles, and heads as wide as they may be", () => {
    agree(interpretedGpu(gpuTarget), { queries: 48, keys: 80, width: 16, causal: true });
    agree(interpretedGpu(gpuTarget), { queries: 9, keys: 33, width: 256, values: 200 });
  });
});

/** Elements of the largest value that a plan stores, and its scratch. */
function planOf(c: AttentionCase, claims: Claims): { largest: number; scratch: number } {
  const graph = attentionGraph(c, 1);
  // Without the log-sum-exp, which nobody but the backward pass asks for.
  const outputs = graph.outputs.filter((_, i) => i !== 1);
  const plan = schedule(graph.inputs, outputs, claims);
  const stored = plan.steps.flatMap((s) => [...s.group.stores.keys()]);
  return { largest: Math.max(...stored.map((n) => numel(n.shape))), scratch: plan.scratchBytes };
}

describe("memory", () => {
  const at = (length: number): AttentionCase => ({
    heads: 2,
    queries: length,
    keys: length,
    width: 8,
    causal: true,
  });
  test.each([
    ["CPU", attentionOnCpu],
    ["GPU", attentionOnGpu(gpuTarget)],
  ] as const)("no scores are stored on a %s", (_, claims) => {
    const [one, two] = [planOf(at(256), claims), planOf(at(512), claims)];
    expect(one.largest).toBe(2 * 256 * 8);
    expect(two.scratch).toBeLessThan(2.1 * one.scratch);
    // Two numbers per row: its log-sum-exp and its delta.
    expect(one.scratch).toBeLessThan(3 * 4 * 2 * 256);
    expect(planOf(at(256), () => false).largest).toBe(2 * 256 * 256);
  });
  test("the log-sum-exp is written for the backward pass alone", () => {
    const graph = attentionGraph(at(64), 1, false);
    const plan = schedule(graph.inputs, graph.outputs.slice(0, 1), claimsAttention);
    expect(plan.steps.map((s) => s.group.kind)).toEqual(["attention"]);
    expect([...plan.steps[0].group.stores.keys()]).toHaveLength(1);
  });
  test("small attention, few rows and single elements stay products", () => {
    const gpu = attentionOnGpu(gpuTarget);
    const kinds = (c: AttentionCase, claims: Claims) => {
      const graph = attentionGraph(c, 1, false);
      const { steps } = schedule(graph.inputs, graph.outputs.slice(0, 1), claims);
      return steps.map((s) => s.group.kind).join();
    };
    const products = "matmul,row,matmul";
    expect(kinds({ queries: 16, keys: 16, width: 4 }, gpu)).toBe(products);
    expect(kinds({ heads: 256, queries: 1, keys: 512, width: 4 }, gpu)).toBe(products);
    expect(kinds({ queries: 512, keys: 512, width: 260 }, gpu)).toBe(products);
    expect(kinds({ queries: 512, keys: 512, width: 256 }, gpu)).toBe("attention");
    expect(kinds({ queries: 512, keys: 512, width: 8 }, attentionOnCpu)).toBe(products);
    expect(kinds({ heads: 16, queries: 512, keys: 512, width: 8 }, attentionOnCpu)).toBe(
      "attention",
    );
  });
});
