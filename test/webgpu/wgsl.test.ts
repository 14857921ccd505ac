/**
 * @file Printed kernels compile without a message and give what the interpreter gives: the CPU's kernels of random graphs
 * (the fallback form) and hand-written GPU kernels of every statement and dtype.
 */
import { describe, expect, test } from "vitest";
import { printWgsl } from "../../core/backend/webgpu/wgsl.ts";
import { type DType, fromStored, type StoredArray } from "../../core/dtype.ts";
import { checkKernel } from "../../core/kernel/check.ts";
import { lowerForGpu } from "../../core/kernel/gpu/lower.ts";
import type { GpuTarget } from "../../core/kernel/gpu/target.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import { constValue, type Kernel, op, type Stmt, variable } from "../../core/kernel/ir.ts";
import { iadd, imul, ivar } from "../../core/schedule/symbolic.ts";
import { runGraph } from "../support/differential.ts";
import {
  difference,
  type RandomGraph,
  randomGradientGraph,
  randomGraph,
  randomHalfGraph,
} from "../support/graphs.ts";
import { forCpu, InterpretedBackend, type Lower } from "../support/interpreted.ts";
import { load, store, vector } from "../wasm/harness.ts";
import { compile, missing, missingCompiler, runKernel, softwareTarget } from "./harness.ts";
import { allTypes, type Case, gpuKernel } from "./kernels.ts";
import { memoryCases } from "./kernels-memory.ts";
import { castCase, operationCase, reductionCase } from "./kernels-operations.ts";
import { statementCases } from "./kernels-statements.ts";

interface Recorded {
  readonly kernel: Kernel;
  readonly before: StoredArray[];
  readonly after: StoredArray[];
  readonly scalars: Uint32Array;
}

/** The kernels that a graph runs, with their buffers before and after. */
function record(graph: RandomGraph, lower: Lower): Recorded[] {
  const found: Recorded[] = [];
  const observed: Lower = (group, inMemory) => ({
    ...lower(group, inMemory),
    observe: (kernel, buffers, scalars) => {
      const before = buffers.map((b) => b.slice());
      const shared = new Map([...new Set(buffers)].map((b) => [b, b.slice()]));
      const after = buffers.map((b) => shared.get(b)!);
      interpret(kernel, after, scalars, { detect: false });
      found.push({ kernel, before, after, scalars: scalars.slice() });
    },
  });
  runGraph(new InterpretedBackend(observed), graph);
  return found;
}

const values = (dtype: DType, stored: StoredArray, size: number): ArrayLike<number> =>
  fromStored(dtype, stored.slice(0, size).buffer);

async function agrees(
  { kernel, before, after, scalars }: Recorded,
  tolerance?: number,
  target?: GpuTarget,
): Promise<void> {
  const { buffers, wgsl } = await runKernel(kernel, before, scalars, target);
  kernel.buffers.forEach(({ access, dtype, size }, i) => {
    if (access === "read") return;
    const [got, want] = [buffers[i], after[i]].map((b) => values(dtype, b, size));
    const found = difference(got, want, dtype, tolerance);
    if (found) throw new Error(`buf${i}: ${found}\n${wgsl.code}`);
  });
}

const forGpu: Lower = (group, inMemory) => {
  const lowered = lowerForGpu(group, inMemory, softwareTarget);
  for (const { kernel } of lowered.stages) checkKernel(kernel, "webgpu");
  return lowered;
};

const seeds = (from: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => from + i);

describe.skipIf(missing)(`kernels on a GPU${missing ? ` (skipped: ${missing})` : ""}`, () => {
  test.each([
    ["the CPU's kernels", "random graphs", forCpu, randomGraph, 24],
    ["the CPU's kernels", "gradients", forCpu, randomGradientGraph, 10],
    ["the CPU's kernels", "halves", forCpu, randomHalfGraph, 10],
    ["the GPU's kernels", "random graphs", forGpu, randomGraph, 24],
    ["the GPU's kernels", "gradients", forGpu, randomGradientGraph, 10],
    ["the GPU's kernels", "halves", forGpu, randomHalfGraph, 10],
  ] as const)("%s of %s", async (_, __, lower, make, count) => {
    let kernels = 0;
    for (const seed of seeds(1, count)) {
      const graph = make(seed);
      for (const one of record(graph, lower)) {
        try {
          await agrees(one, graph.tolerance);
        } catch (error) {
          throw new Error(`seed ${seed}, kernel ${one.kernel.name}: ${(error as Error).message}`);
        }
        kernels++;
      }
    }
    expect(kernels).toBeGreaterThan(count);
  });
});

/** A case as the interpreter runs it. */
function interpreted({
  kernel,
  data,
  words = new Uint32Array(0),
}: Case): Recorded & { failed: number } {
  checkKernel(kernel, "webgpu");
  const after = data.map((d) => d.slice());
  const { error } = interpret(kernel, after, words);
  return { kernel, before: data, after, scalars: words, failed: error ? error.position + 1 : 0 };
}

const memory = allTypes.flatMap(memoryCases);
const operations = allTypes.flatMap((dtype) =>
  (["lanes", "alone", "constants"] as const).map((form) => operationCase(dtype, form)),
);
const casts = allTypes.flatMap((dtype) => [castCase(dtype, true), castCase(dtype, false)]);
const reductions = [
  ...(["sum", "prod", "max", "min", "argmax"] as const).flatMap((combine) =>
    (["f32", "i32", "u32", "i8", "u8"] as const).map((dtype) =>
      reductionCase(dtype, combine, 64, 32),
    ),
  ),
  ...(["max", "min"] as const).map((combine) => reductionCase("bool", combine, 64, 32)),
  ...[1, 2, 4, 8, 16, 64, 128].map((width) => reductionCase("f32", "sum", 128, width)),
  reductionCase("f32", "argmax", 32, 4),
  ...[2, 4, 8, 64, 128].map((width) => reductionCase("f32", "sum", 128, width, Math.min(width, 4))),
  ...(["prod", "max", "min", "argmax"] as const).map((combine) =>
    reductionCase("f32", combine, 64, 32, 4),
  ),
  ...(["i32", "u32", "i8", "u8", "bool"] as const).map((dtype) =>
    reductionCase(dtype, "max", 64, 16, 2),
  ),
];
const all = [...memory, ...operations, ...casts, ...reductions, ...statementCases];

describe.skipIf(missing)(`hand-written kernels${missing ? ` (skipped: ${missing})` : ""}`, () => {
  test.each(all.map((c) => [c.name, c] as const))("%s", async (_, c) => {
    const want = interpreted(c);
    const { buffers, error, wgsl } = await runKernel(want.kernel, want.before, want.scalars);
    want.kernel.buffers.forEach(({ access, dtype, size }, i) => {
      if (access === "read") return;
      const [got, wanted] = [buffers[i], want.after[i]].map((b) => values(dtype, b, size));
      const found = difference(got, wanted, dtype, 1e-5);
      if (found) throw new Error(`buf${i}: ${found}\n${wgsl.code}`);
    });
    expect(error[0]).toBe(want.failed);
  });
});

describe("what a kernel may not be", () => {
  const small = gpuKernel("large", {
    groups: 1,
    threads: 64,
    buffers: [["f32", 64, "write"]],
    body: [store(0, ivar("t", 64), constValue("f32", 1))],
  });

  test("more invocations than a workgroup has", () => {
    const target = { ...softwareTarget, invocations: 32 };
    expect(() => printWgsl(small, target)).toThrow(
      "kernel large: expected at most 32 invocations per workgroup, got 64",
    );
  });

  test("more workgroup memory", () => {
    const shared: Stmt = { k: "shared", name: "s", dtype: "u8", size: 9000 };
    expect(() => printWgsl({ ...small, body: [shared] }, softwareTarget)).toThrow(
      "kernel large: expected at most 32768 bytes of workgroup memory, got 36000",
    );
  });

  test("positions beyond 31 bits", () => {
    const body = [store(0, imul(ivar("t", 64), 2 ** 27), constValue("f32", 1))];
    expect(() => printWgsl({ ...small, body }, softwareTarget)).toThrow(/below 2³¹/);
  });
});

test("a shader reads like the kernel", () => {
  const [g, t, l] = [ivar("g", 16), ivar("t", 64), ivar("l", 4)];
  const i = iadd(imul(g, 256), imul(t, 4), l);
  const row = gpuKernel("row", {
    groups: 16,
    threads: 64,
    buffers: [
      ["f32", 4096, "read"],
      ["f32", 4096, "write"],
    ],
    body: [
      { k: "acc", name: "sum", dtype: "f32", combine: "sum" },
      vector("l", 4, [{ k: "update", name: "sum", value: load("f32", 0, i) }]),
      { k: "allReduce", name: "sum", width: 64 },
      vector("l", 4, [store(1, i, op("div", "f32", load("f32", 0, i), variable("f32", "sum")))]),
    ],
  });
  expect(printWgsl(row, softwareTarget).code).toMatchInlineSnapshot(`
    "// map row
    // as vectors: l = 0 … 3

    @group(0) @binding(0) var<storage, read> buf0: array<vec4f>; // f32[4096]
    @group(0) @binding(1) var<storage, read_write> buf1: array<vec4f>; // f32[4096]

    var<workgroup> reduce1_f32: array<f32, 64>;
    var<workgroup> reduce2_f32: array<f32, 8>;

    @compute @workgroup_size(64)
    fn main(
      @builtin(workgroup_id) workgroup_id: vec3u,
      @builtin(num_workgroups) workgroups: vec3u,
      @builtin(local_invocation_index) local_index: u32,
    ) {
      let workgroup = workgroup_id.x + workgroup_id.y * workgroups.x;
      if (workgroup >= 16u) { return; }
      let g = i32(workgroup);
      let t = i32(local_index);
      var sum: f32 = 0.0;
      var sum_lanes: vec4f = vec4f(0.0);
      sum_lanes += buf0[g * 64 + t];
      sum = sum + (sum_lanes.x + sum_lanes.z + (sum_lanes.y + sum_lanes.w));
      {
        reduce1_f32[t] = sum;
        workgroupBarrier();
        let lane = t & 63;
        let group = t >> 6u;
        if (lane < 8) {
          let start = group * 64 + lane;
          sum = reduce1_f32[start];
          for (var i = 1; i < 8; i++) {
            sum = sum + reduce1_f32[start + i * 8];
          }
          reduce2_f32[group * 8 + lane] = sum;
        }
        workgroupBarrier();
        let start = group * 8;
        sum = reduce2_f32[start];
        for (var i = 1; i < 8; i++) {
          sum = sum + reduce2_f32[start + i];
        }
      }
      buf1[g * 64 + t] = buf0[g * 64 + t] / sum;
    }
    "
  `);
});

const fullTarget: GpuTarget = { ...softwareTarget, f16: true, subgroupMax: 128 };

describe.skipIf(missingCompiler)("shaders for a GPU with 16-bit floats", () => {
  test.each(all.map((c) => [c.name, c] as const))("%s", async (_, { kernel }) => {
    const { code } = printWgsl(kernel, fullTarget);
    expect(await compile(code), code).toBe("");
  });
});
