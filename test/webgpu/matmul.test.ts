/**
 * @file Matrix products on a GPU: every form compiles without a message, also with half floats, and gives on SwiftShader what
 * the interpreter gives.
 */
import { describe, expect, test } from "vitest";
import { printWgsl } from "../../core/backend/webgpu/wgsl.ts";
import { fromStored, type StoredArray } from "../../core/dtype.ts";
import {
  type Choose,
  candidates,
  evenSplits,
  type Form,
  type Tile,
} from "../../core/kernel/gpu/matmul-tile.ts";
import type { GpuTarget } from "../../core/kernel/gpu/target.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import type { Kernel } from "../../core/kernel/ir.ts";
import { runGraph } from "../support/differential.ts";
import { difference } from "../support/graphs.ts";
import { InterpretedBackend, type Lower } from "../support/interpreted.ts";
import { type ProductCase, productGraph, withForms } from "../support/products.ts";
import { compile, missing, missingCompiler, runKernel, softwareTarget } from "./harness.ts";

interface Recorded {
  readonly kernel: Kernel;
  readonly before: StoredArray[];
  readonly after: StoredArray[];
}

/** The kernels that a product runs, with their buffers before and after. */
function record(c: ProductCase, choose?: Choose, target: Partial<GpuTarget> = {}): Recorded[] {
  const found: Recorded[] = [];
  const lower = withForms(choose, { ...softwareTarget, ...target });
  const observed: Lower = (group, inMemory) => ({
    ...lower(group, inMemory),
    observe: (kernel, buffers, scalars) => {
      const before = buffers.map((b) => b.slice());
      const copies = new Map([...new Set(buffers)].map((b) => [b, b.slice()]));
      const after = buffers.map((b) => copies.get(b)!);
      interpret(kernel, after, scalars, { detect: false });
      found.push({ kernel, before, after });
    },
  });
  runGraph(new InterpretedBackend(observed), productGraph(c));
  return found;
}

async function agrees(c: ProductCase, choose?: Choose): Promise<void> {
  await Promise.all(
    record(c, choose).map(async ({ kernel, before, after }) => {
      const { buffers } = await runKernel(kernel, before);
      kernel.buffers.forEach(({ dtype, size, access }, i) => {
        if (access === "read") return;
        const values = (b: StoredArray) => fromStored(dtype, b.slice(0, size).buffer);
        const found = difference(values(buffers[i]), values(after[i]), dtype, 1e-6);
        expect(found, `${JSON.stringify(c)} ${kernel.name} buf${i}`).toBeNull();
      });
    }),
  );
}

const tile = (t: Partial<Tile>, splits = 1): Choose => {
  const base: Tile = {
    m: 32,
    n: 32,
    k: 8,
    rows: 4,
    columns: 4,
    stages: 1,
    prefetch: true,
    pad: 0,
  };
  const whole = { ...base, ...t };
  return (shape) => ({ form: "tiled", tile: whole, splits: evenSplits(shape.k, whole.k, splits) });
};
const always =
  (form: Form): Choose =>
  () =>
    form;

// SwiftShader takes a second or more to compile a tile: few cases, each with several things in it.
const cases: readonly [name: string, c: ProductCase, choose?: Choose][] = [
  [
    "128 × 128, 8 × 16",
    { m: 130, n: 132, k: 20, epilogue: "bias" },
    tile({ m: 128, n: 128, k: 8, rows: 8, columns: 16 }),
  ],
  [
    "64 × 32, padded, operands along k",
    { batch: 2, m: 66, n: 33, k: 16, b: "transposed", epilogue: "activation" },
    tile({ m: 64, rows: 8, pad: 4 }),
  ],
  [
    "rows of 2, two stages, operands along m and n, f16",
    { m: 20, n: 24, k: 29, a: "transposed", dtype: "f16", epilogue: "update" },
    tile({ rows: 2, stages: 2 }),
  ],
  [
    "without prefetch, three parts, bf16",
    { batch: 2, m: 33, n: 23, k: 45, dtype: "bf16", epilogue: "two" },
    tile({ prefetch: false }, 3),
  ],
  [
    "a long epilogue, i32",
    { m: 19, n: 23, k: 24, dtype: "i32", epilogue: "long", b: "mixed", a: "computed" },
    tile({ rows: 8, columns: 16 }),
  ],
  [
    "dot",
    { m: 3, n: 35, k: 150, b: "transposed", epilogue: "bias" },
    always({ form: "dot", swap: false, threads: 64, width: 32, columns: 2, splits: 1 }),
  ],
  [
    "dot, swapped, i8",
    { m: 35, n: 2, k: 69, dtype: "i8", b: "padded" },
    always({ form: "dot", swap: true, threads: 64, width: 8, columns: 1, splits: 1 }),
  ],
  [
    "columns",
    { batch: 2, m: 3, n: 37, k: 50, epilogue: "two", a: "computed" },
    always({ form: "columns", swap: false, across: 8, along: 8, splits: 1 }),
  ],
  [
    "direct",
    { batch: 2, m: 7, n: 13, k: 9, epilogue: "bias", a: "strided" },
    always({ form: "direct", swap: true, threads: 64, rows: 4 }),
  ],
  ["what is chosen for few rows", { m: 4, n: 70, k: 300, epilogue: "activation" }],
  ["what is chosen for a long sum", { m: 12, n: 11, k: 2000, b: "transposed" }],
];

describe.skipIf(missing !== null)("on a software adapter", () => {
  test.each(cases)("%s", (_, c, choose) => agrees(c, choose));
});

describe.skipIf(missingCompiler !== null)("compiles for a device with every feature", () => {
  const target: GpuTarget = {
    ...softwareTarget,
    f16: true,
    subgroupMatrix: true,
    subgroupMin: 32,
    subgroupMax: 32,
  };

  async function compiles(c: ProductCase, choose: Choose, seen: Set<string>): Promise<void> {
    const lower = withForms(choose, target);
    const kernels: Kernel[] = [];
    const backend = new InterpretedBackend((group, inMemory) => {
      const lowered = lower(group, inMemory);
      kernels.push(...lowered.stages.map((s) => s.kernel));
      return { ...lowered, stages: [] };
    });
    runGraph(backend, productGraph(c));
    for (const kernel of kernels) {
      const { code } = printWgsl(kernel, target);
      if (seen.has(code)) continue;
      seen.add(code);
      expect(await compile(code), code).toBe("");
    }
  }

  test("all candidates", async () => {
    const shape = { batch: 1, m: 70, n: 66, k: 260, aAlongK: true, bAlongK: false } as const;
    const seen = new Set<string>();
    for (const dtype of ["f32", "f16"] as const)
      for (const form of candidates({ ...shape, dtype: "f32", halves: dtype === "f16" }, target))
        await compiles({ ...shape, dtype, epilogue: "long" }, always(form), seen);
    expect(seen.size).toBeGreaterThan(20);
  });

  test("tensor cores in every layout", async () => {
    const seen = new Set<string>();
    const shape = { batch: 2, m: 128, n: 128, k: 64, dtype: "f16" } as const;
    const tile = { m: 128, n: 128, k: 32, rows: 64, columns: 64, pad: 8 };
    const choose: Choose = always({ form: "matrix", tile, width: 32, splits: 1 });
    for (const a of ["plain", "transposed", "cast"] as const)
      for (const b of ["plain", "transposed", "padded"] as const)
        await compiles({ ...shape, a, b, epilogue: "bias" }, choose, seen);
    await compiles({ ...shape, m: 130, n: 129, k: 66 }, choose, seen);
    const found = [...seen].filter((code) => code.includes("subgroupMatrixMultiplyAccumulate"));
    expect(found.length).toBeGreaterThan(6);
  });
});
