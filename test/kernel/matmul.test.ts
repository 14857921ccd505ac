/** @file The matmul template against a plain triple loop, through the interpreter, in all its ragged shapes. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type DType, dtypes, roundTo, type TypedArray } from "../../core/dtype.ts";
import { checkKernel } from "../../core/kernel/check.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import { type Kernel, op, type Stmt, type Value, variable } from "../../core/kernel/ir.ts";
import { type MatmulSpec, matmulKernel } from "../../core/kernel/matmul.ts";
import { formatKernel } from "../../core/kernel/print.ts";
import { type Index, linearize } from "../../core/schedule/symbolic.ts";

interface Case {
  batch: number;
  m: number;
  n: number;
  k: number;
  dtype: DType;
  transposeA: boolean;
  transposeB: boolean;
  /** abs before, bias and doubling after. */
  fused: boolean;
}

function specOf(c: Case): MatmulSpec {
  const { batch, m, n, k, dtype } = c;
  let names = 0;
  const load = (buffer: number, index: Index): Value => ({ k: "load", dtype, buffer, index });
  const prologue = (v: Value) => {
    if (!c.fused) return v;
    const name = `t${names++}`;
    const stmts: Stmt[] = [{ k: "let", name, value: v }];
    return { stmts, value: op("abs", dtype, variable(dtype, name)) };
  };
  return {
    name: "matmul",
    batch,
    m,
    n,
    k,
    dtype,
    buffers: [
      { dtype, size: batch * m * k, access: "read" },
      { dtype, size: batch * k * n, access: "read" },
      { dtype, size: n, access: "read" },
      { dtype, size: batch * m * n, access: "write" },
    ],
    scalars: 0,
    a: (b, i, kk) =>
      prologue(
        load(
          0,
          c.transposeA
            ? linearize([b, kk, i], [batch, k, m])
            : linearize([b, i, kk], [batch, m, k]),
        ),
      ),
    b: (b, kk, j) =>
      prologue(
        load(
          1,
          c.transposeB
            ? linearize([b, j, kk], [batch, n, k])
            : linearize([b, kk, j], [batch, k, n]),
        ),
      ),
    bUnitStride: !c.transposeB,
    epilogue: (b, i, j, acc) => [
      {
        k: "store",
        buffer: 3,
        index: linearize([b, i, j], [batch, m, n]),
        value: c.fused ? op("add", dtype, acc, load(2, j)) : acc,
      },
    ],
  };
}

const fill = (dtype: DType, size: number): TypedArray =>
  new dtypes[dtype].array(size).map((_, i) => ((i * 7919 + 13) % 17) - 8) as TypedArray;

function run(c: Case): { kernel: Kernel; got: TypedArray; want: number[] } {
  const { batch, m, n, k, dtype } = c;
  const kernel = matmulKernel(specOf(c));
  checkKernel(kernel, "wasm");
  const [A, B, bias] = [fill(dtype, batch * m * k), fill(dtype, batch * k * n), fill(dtype, n)];
  const out = new dtypes[dtype].array(batch * m * n).fill(77) as TypedArray;
  interpret(kernel, [A, B, bias, out], new Uint32Array(0));
  const want: number[] = [];
  const pre = (x: number) => (c.fused ? Math.abs(x) : x);
  for (let b = 0; b < batch; b++)
    for (let i = 0; i < m; i++)
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let kk = 0; kk < k; kk++) {
          const a = A[b * m * k + (c.transposeA ? kk * m + i : i * k + kk)];
          const right = B[b * k * n + (c.transposeB ? j * k + kk : kk * n + j)];
          sum += dtype === "f32" ? pre(a) * pre(right) : Math.imul(pre(a), pre(right));
        }
        want.push(roundTo(dtype, sum + (c.fused ? bias[j] : 0)) + 0);
      }
  return { kernel, got: out, want };
}

describe("matmul", () => {
  // Small integers are exact in f32, and wrapping commutes with sums: every comparison is exact.
  test("every ragged shape up to 20, all layouts, fused and not", () => {
    fc.assert(
      fc.property(
        fc.record({
          batch: fc.integer({ min: 1, max: 2 }),
          m: fc.integer({ min: 1, max: 20 }),
          n: fc.integer({ min: 1, max: 20 }),
          k: fc.integer({ min: 0, max: 20 }),
          dtype: fc.constantFrom<DType[]>("f32", "i32", "u32", "i8"),
          transposeA: fc.boolean(),
          transposeB: fc.boolean(),
          fused: fc.boolean(),
        }),
        (c) => {
          const { got, want } = run(c);
          expect([...got]).toEqual(want);
        },
      ),
      { numRuns: 400 },
    );
  });

  test.each([
    ["several column blocks", { m: 12, n: 133, k: 600 }],
    ["K in blocks, ragged", { m: 14, n: 21, k: 1300 }],
    ["K in blocks, rows and columns in blocks", { m: 203, n: 45, k: 800 }],
    ["many tasks", { m: 200, n: 100, k: 65 }],
    ["a large result of a short K, staged", { m: 700, n: 603, k: 2 }],
    ["one row, transposed B", { m: 1, n: 130, k: 33, transposeB: true }],
    ["one column", { m: 130, n: 1, k: 33 }],
  ])("%s", (_, shape) => {
    const base = {
      batch: 1,
      dtype: "f32" as const,
      transposeA: false,
      transposeB: false,
      fused: false,
    };
    const { got, want } = run({ ...base, ...shape });
    expect([...got]).toEqual(want);
  });

  test("big products split into at least 16 tasks, small ones do not", () => {
    const base = {
      batch: 1,
      dtype: "f32" as const,
      transposeA: false,
      transposeB: false,
      fused: false,
    };
    const tasks = (m: number, n: number, k: number, batch = 1) =>
      matmulKernel(specOf({ ...base, batch, m, n, k })).range.extent;
    expect(tasks(512, 512, 512)).toBeGreaterThanOrEqual(16);
    expect(tasks(1024, 10, 784)).toBeGreaterThanOrEqual(4);
    expect(tasks(2048, 2048, 2048)).toBeGreaterThanOrEqual(16);
    expect(tasks(32, 32, 32)).toBe(1);
    expect(tasks(64, 64, 64, 48)).toBe(48);
  });

  test("a packed kernel in print", () => {
    const c = {
      batch: 1,
      m: 10,
      n: 8,
      k: 5,
      dtype: "f32" as const,
      transposeA: false,
      fused: false,
    };
    expect(formatKernel(matmulKernel(specOf({ ...c, transposeB: true })))).toMatchInlineSnapshot(`
      "matmul matmul(buf0: read f32[50], buf1: read f32[40], buf2: read f32[8], buf3: write f32[80])
      parallel task < 1 {
        local packedB: f32[56]
        for mmK < 5 unroll 5 {
          vector mmL < 8 unroll 2 {
            packedB[8*mmK + mmL] = buf1[mmK + 5*mmL]
          }
        }
        for mmI < 2 {
          vector mmL < 4 {
            acc c0_0: f32 sum
            acc c0_1: f32 sum
            acc c1_0: f32 sum
            acc c1_1: f32 sum
            acc c2_0: f32 sum
            acc c2_1: f32 sum
            acc c3_0: f32 sum
            acc c3_1: f32 sum
            acc c4_0: f32 sum
            acc c4_1: f32 sum
            for mmK < 5 unroll 2 {
              let b0 = packedB[8*mmK + mmL]
              let b1 = packedB[8*mmK + mmL + 4]
              let a0 = buf0[25*mmI + mmK]
              c0_0 <- a0 * b0
              c0_1 <- a0 * b1
              let a1 = buf0[25*mmI + mmK + 5]
              c1_0 <- a1 * b0
              c1_1 <- a1 * b1
              let a2 = buf0[25*mmI + mmK + 10]
              c2_0 <- a2 * b0
              c2_1 <- a2 * b1
              let a3 = buf0[25*mmI + mmK + 15]
              c3_0 <- a3 * b0
              c3_1 <- a3 * b1
              let a4 = buf0[25*mmI + mmK + 20]
              c4_0 <- a4 * b0
              c4_1 <- a4 * b1
            }
            buf3[40*mmI + mmL] = c0_0
            buf3[40*mmI + mmL + 4] = c0_1
            buf3[40*mmI + mmL + 8] = c1_0
            buf3[40*mmI + mmL + 12] = c1_1
            buf3[40*mmI + mmL + 16] = c2_0
            buf3[40*mmI + mmL + 20] = c2_1
            buf3[40*mmI + mmL + 24] = c3_0
            buf3[40*mmI + mmL + 28] = c3_1
            buf3[40*mmI + mmL + 32] = c4_0
            buf3[40*mmI + mmL + 36] = c4_1
          }
        }
      }
      "
    `);
  });
});
