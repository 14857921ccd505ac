/** @file Products with quantised weights and few rows: right for every length of a group, and no division where it is hot. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { checkKernel } from "../../core/kernel/check.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import { type Kernel, op, type Stmt, type Value, variable } from "../../core/kernel/ir.ts";
import { partition } from "../../core/kernel/k-blocks.ts";
import { matmulKernel } from "../../core/kernel/matmul.ts";
import { formatKernel } from "../../core/kernel/print.ts";
import { iadd, idiv, imul, ivar } from "../../core/schedule/symbolic.ts";

/** A [m, k] times integers [n, k] with a scale for each `group` of k. */
function quantized(m: number, n: number, k: number, group: number): Kernel {
  const groups = Math.ceil(k / group);
  let names = 0;
  return matmulKernel({
    ...{ name: "matmul", batch: 1, m, n, k, dtype: "f32", scalars: 0, bUnitStride: false },
    buffers: [
      { dtype: "f32", size: m * k, access: "read" },
      { dtype: "i8", size: n * k, access: "read" },
      { dtype: "f32", size: n * groups, access: "read" },
      { dtype: "f32", size: m * n, access: "write" },
    ],
    a: (_, i, kk) => ({ k: "load", dtype: "f32", buffer: 0, index: iadd(imul(i, k), kk) }),
    b: (_, kk, j) => {
      const integer: Value = { k: "load", dtype: "i8", buffer: 1, index: iadd(imul(j, k), kk) };
      const at = iadd(imul(j, groups), idiv(kk, group));
      const scale = `s${names++}`;
      const stmts: Stmt[] = [
        { k: "let", name: scale, value: { k: "load", dtype: "f32", buffer: 2, index: at } },
      ];
      const value = op("mul", "f32", op("cast", "f32", integer), variable("f32", scale));
      return { stmts, value };
    },
    epilogue: (_, i, j, value) => [{ k: "store", buffer: 3, index: iadd(imul(i, n), j), value }],
  });
}

test("every ragged shape: the values of three loops", () => {
  const size = (max: number) => fc.integer({ min: 1, max });
  fc.assert(
    fc.property(size(9), size(20), size(150), size(70), (m, n, k, group) => {
      const kernel = quantized(m, n, k, group);
      checkKernel(kernel, "wasm");
      const groups = Math.ceil(k / group);
      // Small integers and powers of two: sums are exact.
      const a = Float32Array.from({ length: m * k }, (_, i) => ((i * 7919 + 13) % 17) - 8);
      const q = Int8Array.from({ length: n * k }, (_, i) => ((i * 31 + 5) % 15) - 7);
      const scales = Float32Array.from({ length: n * groups }, (_, i) => 2 ** -(i % 4));
      const got = new Float32Array(m * n).fill(77);
      interpret(kernel, [a, q, scales, got], new Uint32Array(0));
      const want = Array.from({ length: m * n }, (_, at) => {
        const [i, j] = [Math.floor(at / n), at % n];
        let sum = 0;
        for (let kk = 0; kk < k; kk++)
          sum += a[i * k + kk] * q[j * k + kk] * scales[j * groups + Math.floor(kk / group)];
        return sum + 0;
      });
      expect([...got]).toEqual(want);
    }),
    { numRuns: 60 },
  );
});

test("a scale is read once per group, outside of the loop over it", () => {
  // 4096 · 3 columns: more than one task, whose last one is shorter.
  const text = formatKernel(quantized(1, 12_288, 256, 64));
  const hot = text.split("\n").filter((line) => line.includes("mmK"));
  expect(text).toContain("for mmD < 4");
  expect(text).toContain("vector mmK < 64");
  expect(hot.some((line) => line.includes("buf2") || /mmK\)?[/%]/.test(line))).toBe(false);
  // Groups too short to be worth a loop are divided by, as before; so is what K itself is shorter than.
  expect(formatKernel(quantized(1, 8, 64, 8))).not.toContain("mmD");
  expect(formatKernel(quantized(1, 8, 64, 64))).not.toContain("mmD");
});

test("statements that move with a variable, directly or through another", () => {
  const load = (index = ivar("j", 4)): Value => ({ k: "load", dtype: "f32", buffer: 0, index });
  const stmts: Stmt[] = [
    { k: "let", name: "a", value: load() },
    { k: "let", name: "b", value: load(ivar("k", 4)) },
    { k: "let", name: "c", value: op("add", "f32", variable("f32", "a"), variable("f32", "b")) },
    { k: "let", name: "d", value: op("neg", "f32", variable("f32", "a")) },
  ];
  const names = (list: Stmt[]) => list.map((s) => (s.k === "let" ? s.name : ""));
  const { fixed, moving } = partition(stmts, "k");
  expect([names(fixed), names(moving)]).toEqual([["a", "d"], ["b", "c"]]); // biome-ignore format: one line
});
