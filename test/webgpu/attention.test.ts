/**
 * Kernels of attention as shaders: a GPU computes what the reference does, for two cases, since each shader takes SwiftShader
 * seconds to compile; the interpreter runs many more (test/kernel/attention.test.ts). Every tile is compiled for a GPU with
 * all features.
 */
import { afterAll, describe, expect, test } from "vitest";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import { requestGpu } from "../../core/backend/webgpu/adapter.ts";
import { WebGpuBackend } from "../../core/backend/webgpu/backend.ts";
import { printWgsl } from "../../core/backend/webgpu/wgsl.ts";
import { lowerAttention } from "../../core/kernel/gpu/attention.ts";
import { attentionTiles } from "../../core/kernel/gpu/attention-tile.ts";
import type { GpuTarget } from "../../core/kernel/gpu/target.ts";
import { schedule } from "../../core/schedule/schedule.ts";
import {
  type AttentionCase,
  attentionGraph,
  claimsAttention,
  nameOf,
} from "../support/attention.ts";
import { runGraph, runGraphOn } from "../support/differential.ts";
import { difference } from "../support/graphs.ts";
import { gpuTarget } from "../support/interpreted.ts";
import { compile, missingCompiler } from "./harness.ts";

const backend = new WebGpuBackend(await requestGpu(), { claims: claimsAttention });
const reference = new ReferenceBackend();
afterAll(() => backend.destroy());

test("a GPU computes the output, and the gradients of shared heads", async () => {
  const cases: [AttentionCase, backward: boolean][] = [
    [{ heads: 2, shared: 1, queries: 19, keys: 37, width: 8, causal: true }, true],
    [
      {
        queries: 33,
        keys: 20,
        width: 12,
        values: 6,
        dtype: "f16",
        mask: { dtype: "bool", shape: [1, 1, 33, 20] },
      },
      false,
    ],
  ];
  const one = async ([c, backward]: (typeof cases)[number]): Promise<void> => {
    const graph = attentionGraph(c, 7, backward);
    const [got, want] = [await runGraphOn(backend, graph), runGraph(reference, graph)];
    graph.outputs.forEach((n, i) => {
      const found = difference(got[i], want[i], n.dtype, n.dtype === "f16" ? 2e-3 : 2e-4);
      expect(found, `result ${i} of ${nameOf(c)}`).toBeNull();
    });
  };
  await Promise.all(cases.map(one));
});

describe.skipIf(missingCompiler)("shaders are valid", () => {
  const target: GpuTarget = { ...gpuTarget, f16: true, subgroups: true, sharedBytes: 16384 };
  const cases: AttentionCase[] = [
    { heads: 2, queries: 64, keys: 64, width: 64, dtype: "f16", causal: true },
    { queries: 70, keys: 33, width: 20, mask: { dtype: "f32", shape: [1, 1, 70, 33] } },
    { queries: 20, keys: 33, width: 256, values: 130 },
  ];
  test.each(cases.map((c) => [nameOf(c), c] as const))("%s", async (_, c) => {
    const graph = attentionGraph(c, 1);
    const texts = new Set<string>();
    for (const { group, reads } of schedule(
      graph.inputs,
      graph.outputs,
      claimsAttention,
    ).steps.flatMap((s) => (s.k === "group" && s.group.kind === "attention" ? [s] : [])))
      for (let nth = 0; nth < 7; nth++) {
        const choose: Parameters<typeof lowerAttention>[3] = (...args) => {
          const tiles = attentionTiles(...args);
          return tiles[nth % tiles.length];
        };
        const { stages } = lowerAttention(group, (n) => reads.includes(n), target, choose);
        for (const { kernel } of stages) texts.add(printWgsl(kernel, target).code);
      }
    expect(texts.size).toBeGreaterThan(3);
    for (const code of texts) expect(await compile(code)).toBe("");
  });
});
