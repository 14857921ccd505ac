/** @file Windows as operands of the matmul template: the digits of K that they are packed in, in blocks that cut them or not. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkKernel } from "../../core/kernel/check.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import type { Kernel, Stmt, Value } from "../../core/kernel/ir.ts";
import { matmulKernel } from "../../core/kernel/matmul.ts";
import { depthOf, digitsOf, overDepth } from "../../core/kernel/packing.ts";
import {
  delinearize,
  type Index,
  iadd,
  imul,
  ivar,
  linearize,
  num,
} from "../../core/schedule/symbolic.ts";

const f32 = "f32" as const;

interface Windows {
  C: number;
  K: [number, number];
  S: [number, number];
  stride: number;
  dilation: number;
}

const sideOf = ({ K, S, stride, dilation }: Windows, i: 0 | 1): number =>
  (S[i] - 1) * stride + (K[i] - 1) * dilation + 1;

/** The address of window element k = (channel, row, column) at place n = (row, column). */
function address(w: Windows, k: Index, n: Index): Index {
  const [c, kh, kw] = delinearize(k, [w.C, ...w.K]);
  const [y, x] = delinearize(n, w.S);
  const at = (place: Index, tap: Index) => iadd(imul(place, w.stride), imul(tap, w.dilation));
  return linearize([c, at(y, kh), at(x, kw)], [w.C, sideOf(w, 0), sideOf(w, 1)]);
}

/** weights [M, K]·windows [K, N], or the windows from the left, [N, K']·[K', M] with K' = places and N = taps. */
function windowProduct(w: Windows, m: number, left: boolean): { kernel: Kernel; size: number } {
  const [k, n] = [w.C * w.K[0] * w.K[1], w.S[0] * w.S[1]];
  const size = w.C * sideOf(w, 0) * sideOf(w, 1);
  const load = (buffer: number, index: Index): Value => ({ k: "load", dtype: f32, buffer, index });
  const [rows, columns, depth] = left ? [k, m, n] : [m, n, k];
  const kernel = matmulKernel({
    name: "windows",
    batch: 1,
    m: rows,
    n: columns,
    k: depth,
    dtype: f32,
    buffers: [
      { dtype: f32, size: m * depth, access: "read" },
      { dtype: f32, size, access: "read" },
      { dtype: f32, size: rows * columns, access: "write" },
    ],
    scalars: 0,
    a: (_, i, kk) =>
      left ? load(1, address(w, i, kk)) : load(0, linearize([i, kk], [rows, depth])),
    b: (_, kk, j) =>
      left ? load(0, linearize([j, kk], [columns, depth])) : load(1, address(w, kk, j)),
    bUnitStride: false,
    epilogue: (_, i, j, value): Stmt[] => [
      { k: "store", buffer: 2, index: linearize([i, j], [rows, columns]), value },
    ],
  });
  return { kernel, size };
}

const fill = (size: number): Float32Array =>
  new Float32Array(size).map((_, i) => ((i * 7919 + 13) % 17) - 8);

/** Small integers: sums are exact in f32. */
function checkProduct(w: Windows, m: number, left: boolean): void {
  const { kernel, size } = windowProduct(w, m, left);
  checkKernel(kernel, "wasm");
  const [k, n] = [w.C * w.K[0] * w.K[1], w.S[0] * w.S[1]];
  const depth = left ? n : k;
  const [A, X] = [fill(m * depth), fill(size)];
  const out = new Float32Array(left ? k * m : m * n).fill(77);
  interpret(kernel, [A, X, out], new Uint32Array(0));
  const [H, W] = [sideOf(w, 0), sideOf(w, 1)];
  const element = (kk: number, j: number): number => {
    const tap = kk % (w.K[0] * w.K[1]);
    const [c, kh, kw] = [
      Math.floor(kk / (w.K[0] * w.K[1])),
      Math.floor(tap / w.K[1]),
      tap % w.K[1],
    ];
    const y = Math.floor(j / w.S[1]) * w.stride + kh * w.dilation;
    return X[(c * H + y) * W + (j % w.S[1]) * w.stride + kw * w.dilation];
  };
  const want: number[] = [];
  const [rows, columns] = left ? [k, m] : [m, n];
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) {
      let sum = 0;
      for (let kk = 0; kk < depth; kk++)
        sum += left ? element(i, kk) * A[j * depth + kk] : A[i * depth + kk] * element(kk, j);
      want.push(sum);
    }
  expect([...out]).toEqual(want);
}

const side = (max: number) => fc.integer({ min: 1, max });
const windows = fc.record({
  C: side(5),
  K: fc.tuple(side(4), side(4)),
  S: fc.tuple(side(5), side(9)),
  stride: side(3),
  dilation: side(2),
});

describe("windows in a product", () => {
  test("random ones, from either side", () => {
    fc.assert(
      fc.property(windows, side(15), fc.boolean(), (w, m, left) => checkProduct(w, m, left)),
      { numRuns: 150 },
    );
  });

  test.each([
    ["K in blocks of whole windows", { C: 100, K: [3, 3], S: [2, 5] }, 9, false],
    ["K in blocks, the last shorter", { C: 107, K: [3, 3], S: [2, 5] }, 9, false],
    ["a window longer than a block", { C: 2, K: [29, 30], S: [1, 3] }, 8, false],
    ["places in blocks of whole rows", { C: 2, K: [3, 2], S: [40, 25] }, 9, true],
    ["a prime number of places in a row", { C: 1, K: [3, 3], S: [9, 131] }, 9, true],
  ] as const)("%s", (_, { C, K, S }, m, left) => {
    checkProduct({ C, K: [...K], S: [...S], stride: 1, dilation: 1 }, m, left);
  });
});

describe("digits", () => {
  test("of a kernel of 3×5 in 7 channels, and of a plain matrix", () => {
    const k = ivar("k", 105);
    const w: Windows = { C: 7, K: [3, 5], S: [4, 4], stride: 2, dilation: 1 };
    expect(digitsOf([address(w, k, num(0))], "k", 105)).toEqual([7, 3, 5]);
    expect(digitsOf([linearize([num(0), k], [3, 105])], "k", 105)).toEqual([105]);
  });

  test("a block holds whole digits where it can, and is never longer than allowed", () => {
    fc.assert(
      fc.property(side(40), side(12), side(900), (a, b, c) => {
        const k = a * b * c;
        const depth = depthOf(k, [[c, b, a]], { most: 768, wanted: 512 });
        expect(depth).toBeLessThanOrEqual(Math.max(1, Math.min(k, 768)));
        if (k > 768 && a * b <= 256) expect(depth % a === 0 || a % depth === 0).toBe(true);
      }),
    );
    expect(depthOf(2048, [[2048]], { most: 768, wanted: 512 })).toBe(512);
    expect(depthOf(8 * 56 * 56, [[8, 56, 56]], { most: 768, wanted: 512 }) % 56).toBe(0);
  });

  test("loops over a block visit it once and in order", () => {
    fc.assert(
      fc.property(fc.array(side(5), { minLength: 1, maxLength: 4 }), fc.boolean(), (digits, v) => {
        const size = digits.reduce((p, d) => p * d, 1);
        const body = (index: Index): Stmt[] => [
          { k: "store", buffer: 0, index, value: { k: "index", dtype: "i32", index } },
        ];
        const block = { depth: size, extent: num(size) };
        const kernel: Kernel = {
          name: "loops",
          kind: "map",
          buffers: [{ dtype: "i32", size, access: "write" }],
          scalars: 0,
          range: { var: "p", extent: 1 },
          body: overDepth(digits, block, v ? "vector" : "serial", body),
          flops: 0,
        };
        checkKernel(kernel, "wasm");
        const out = new Int32Array(size).fill(-1);
        interpret(kernel, [out], new Uint32Array(0));
        expect([...out]).toEqual(Array.from({ length: size }, (_, i) => i));
      }),
    );
  });
});
