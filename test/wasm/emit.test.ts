/** @file Each feature of the kernel language, emitted in all modes, against the interpreter. */
import { describe, expect, test } from "vitest";
import {
  codecs,
  type DType,
  dtypes,
  isFloat,
  isHalf,
  type StoredArray,
  type TypedArray,
  toStored,
} from "../../core/dtype.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import type { Combine, Kernel, Stmt, Value, ValueOp } from "../../core/kernel/ir.ts";
import { threefry2x32 } from "../../core/math.ts";
import {
  type Cond,
  type Index,
  iadd,
  idiv,
  imin,
  imod,
  imul,
  isub,
  ivalue,
  ivar,
  num,
} from "../../core/schedule/symbolic.ts";
import {
  buffer,
  constValue,
  f32,
  kernel,
  load,
  mapKernel,
  modeName,
  modes,
  op,
  runKernel,
  serial,
  store,
  variable,
  vector,
} from "./harness.ts";

type Options = { words?: Uint32Array; tolerance?: number };

function fresh(dtype: DType, n: number): TypedArray {
  return new dtypes[dtype].array(n);
}

/** Emitted code in every mode must agree with the interpreter; outputs start as zeros in both. */
function agree(k: Kernel, inputs: readonly TypedArray[], options: Options = {}): StoredArray[] {
  const data = k.buffers.map((b, i) => toStored(b.dtype, inputs[i] ?? fresh(b.dtype, b.size)));
  const expected = data.map((d) => d.slice());
  const words = options.words ?? new Uint32Array(0);
  interpret(k, expected, words, { detect: false });
  for (const mode of modes) {
    const { buffers } = runKernel(k, data, mode, { words });
    buffers.forEach((got, b) => {
      // NaN has many patterns.
      const value = codecs[k.buffers[b].dtype]?.decode ?? ((x: number) => x);
      for (let i = 0; i < got.length; i++) {
        const [g, w] = [value(got[i]), value(expected[b][i])];
        const near = Math.abs(g - w) <= (options.tolerance ?? 0) * Math.max(1, Math.abs(w));
        if (Object.is(g, w) || near) continue;
        expect.fail(`${modeName(mode)}: buffer ${b}[${i}] is ${g}, not ${w}`);
      }
    });
  }
  return expected;
}

/** Small integers, exact in any order of summation. */
function numbers(dtype: DType, n: number, seed = 1): TypedArray {
  const out = fresh(dtype, n);
  let state = seed * 7919;
  for (let i = 0; i < n; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const r = (state >>> 20) % 17;
    out[i] = dtype === "bool" ? r & 1 : dtypes[dtype].signed ? r - 8 : r;
  }
  return out;
}

const all: DType[] = ["f32", "f16", "bf16", "i32", "u32", "i8", "u8", "bool"];
const sizes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 35, 64, 67];
const v = (n: number): Index => ivar("v", n);

describe("tails", () => {
  test.each(all)("copies %s of every length", (dtype) => {
    for (const unroll of [undefined, 1, 2, 4])
      for (const n of sizes)
        agree(
          mapKernel(n, [dtype], dtype, (x) => x, unroll),
          [numbers(dtype, n)],
        );
  });

  test.each(all)("dynamic extents, %s", (dtype) => {
    // Rows of length g, one after the other.
    const rows = 13;
    const g = ivar("g", rows);
    const at = iadd(imul(g, rows), v(rows));
    const k = (unroll: number) =>
      kernel(
        [buffer(dtype, rows * rows), buffer(dtype, rows * rows, "write")],
        [vector("v", g, [store(1, at, load(dtype, 0, at))], unroll)],
        { range: { var: "g", extent: rows } },
      );
    for (const unroll of [1, 2, 3]) agree(k(unroll), [numbers(dtype, rows * rows)]);
  });

  test("blocks of a flat range", () => {
    const [n, block] = [1000, 96];
    const g = ivar("g", Math.ceil(n / block));
    const at = iadd(imul(g, block), v(block));
    const extent = imin(num(block), isub(num(n), imul(g, block)));
    const k = kernel(
      [buffer("f32", n), buffer("f32", n, "write")],
      [vector("v", extent, [store(1, at, f32("mul", load("f32", 0, at), load("f32", 0, at)))])],
      { range: { var: "g", extent: Math.ceil(n / block) } },
    );
    agree(k, [numbers("f32", n)]);
  });

  test("part of the range", () => {
    const g = ivar("g", 10);
    const k = kernel([buffer("f32", 10, "write")], [store(0, g, constValue("f32", 1))], {
      range: { var: "g", extent: 10 },
    });
    const { buffers } = runKernel(k, [new Float32Array(10)], modes[0], { begin: 3, end: 5 });
    expect([...buffers[0]]).toEqual([0, 0, 0, 1, 1, 0, 0, 0, 0, 0]);
  });
});

const floats = [
  0,
  -0,
  1,
  -1,
  0.5,
  1.5,
  2.5,
  -2.5,
  3e9,
  -3e9,
  5e9,
  300,
  -200,
  1e-45,
  3e38,
  Infinity,
  -Infinity,
  NaN,
];
const specials: Record<DType, number[]> = {
  f32: floats,
  f16: [...floats, 65504, -65520, 2 ** -24, -(2 ** -25), 1e-5],
  bf16: floats,
  i32: [0, 1, -1, 2, -2, 7, -7, 100, 2147483647, -2147483648, 65536, 12345],
  u32: [0, 1, 2, 3, 7, 100, 2147483647, 2147483648, 4294967295, 65536],
  i8: [0, 1, -1, 2, -2, 7, 127, -128, 100],
  u8: [0, 1, 2, 7, 127, 128, 255, 100],
  bool: [0, 1],
};

/** All pairs of special values. */
function pairs(dtype: DType): [TypedArray, TypedArray] {
  const s = specials[dtype];
  const [a, b] = [fresh(dtype, s.length ** 2), fresh(dtype, s.length ** 2)];
  s.forEach((x, i) => {
    s.forEach((y, j) => {
      a[i * s.length + j] = x;
      b[i * s.length + j] = y;
    });
  });
  return [a, b];
}

describe("operations", () => {
  const number: ValueOp[] = ["add", "sub", "mul", "rem", "max", "min"];
  const compare: ValueOp[] = ["lt", "le", "eq"];
  const ofType: Record<DType, ValueOp[]> = {
    f32: [...number, "div", ...compare],
    f16: ["max", "min", ...compare],
    bf16: ["max", "min", ...compare],
    i32: [...number, "idiv", "and", "or", "xor", "shl", "shr", ...compare],
    u32: [...number, "idiv", "and", "or", "xor", "shl", "shr", ...compare],
    i8: [...number, "idiv", "and", "or", "xor", "shl", "shr", ...compare],
    u8: [...number, "idiv", "and", "or", "xor", "shl", "shr", ...compare],
    bool: ["and", "or", "xor", ...compare],
  };
  test.each(all)("two operands, %s", (dtype) => {
    const inputs = pairs(dtype);
    const n = inputs[0].length;
    for (const name of ofType[dtype]) {
      const out = compare.includes(name) ? "bool" : dtype;
      agree(
        mapKernel(n, [dtype, dtype], out, (a, b) => op(name, out, a, b)),
        inputs,
      );
      for (const c of specials[dtype].filter((x) => !Number.isNaN(x))) {
        const right = (a: Value) => op(name, out, a, constValue(dtype, c));
        const left = (a: Value) => op(name, out, constValue(dtype, c), a);
        agree(mapKernel(n, [dtype], out, right), [inputs[0]]);
        agree(mapKernel(n, [dtype], out, left), [inputs[0]]);
      }
    }
  });

  test.each(all)("one operand, %s", (dtype) => {
    const s = specials[dtype];
    const x = fresh(dtype, s.length);
    x.set(s);
    const ops: ValueOp[] = isFloat(dtype)
      ? ["neg", "abs", "floor", "round", ...(isHalf(dtype) ? [] : (["sqrt"] as const))]
      : dtype === "bool"
        ? ["not"]
        : ["neg", "abs", "not"];
    for (const name of ops)
      agree(
        mapKernel(s.length, [dtype], dtype, (a) => op(name, dtype, a)),
        [x],
      );
    for (const to of all)
      agree(
        mapKernel(s.length, [dtype], to, (a) => op("cast", to, a)),
        [x],
      );
    const same = all.filter(
      (d) => d !== "bool" && dtype !== "bool" && dtypes[d].bytes === dtypes[dtype].bytes,
    );
    for (const to of same)
      agree(
        mapKernel(s.length, [dtype], to, (a) => op("bitcast", to, a)),
        [x],
      );
  });

  test("where, scalars and index values", () => {
    const n = 11;
    const i = v(n);
    const c = op("lt", "bool", load("f32", 0, i), { k: "scalar", dtype: "f32", slot: 1 });
    const at: Value = { k: "index", dtype: "i32", index: iadd(imul(i, 3), num(-5)) };
    const odd: Value = { k: "index", dtype: "i32", index: imod(i, 3) };
    const sum = op("add", "i32", op("mul", "i32", at, odd), { k: "scalar", dtype: "i32", slot: 0 });
    const k = kernel(
      [buffer("f32", n), buffer("i32", n, "write")],
      [vector("v", n, [store(1, i, op("where", "i32", c, sum, at))], 2)],
      { scalars: 2 },
    );
    const words = new Uint32Array(2);
    new Float32Array(words.buffer)[1] = 0.5;
    words[0] = 1000;
    agree(k, [numbers("f32", n)], { words });
  });

  test("threefry", () => {
    const n = 9;
    const u = (index: Index): Value => op("cast", "u32", { k: "index", dtype: "i32", index });
    const key = (x: number) => constValue("u32", x);
    const bits: Value = {
      k: "threefry",
      dtype: "u32",
      args: [key(7), key(0xdeadbeef), u(v(n)), key(3)],
    };
    const k = kernel([buffer("u32", n, "write")], [vector("v", n, [store(0, v(n), bits)])]);
    const [out] = agree(k, []);
    expect(out[5]).toBe([threefry2x32(7, 0xdeadbeef, 5, 3)].flat()[0] >>> 0);
  });
});

describe("reductions", () => {
  const reduce = (
    dtype: DType,
    combine: Combine,
    n: number,
    rows: number,
    unroll?: number,
  ): Kernel => {
    const g = ivar("g", rows);
    const at = iadd(imul(g, n), v(n));
    const out = combine === "argmax" ? "i32" : dtype;
    return kernel(
      [buffer(dtype, n * rows), buffer(out, rows, "write")],
      [
        { k: "acc", name: "s", dtype: out, combine },
        vector(
          "v",
          n,
          [
            {
              k: "update",
              name: "s",
              value: load(dtype, 0, at),
              at: combine === "argmax" ? v(n) : undefined,
            },
          ],
          unroll,
        ),
        store(1, g, variable(out, "s")),
      ],
      { range: { var: "g", extent: rows } },
    );
  };
  test.each(["f32", "i32", "u32", "i8", "u8"] as DType[])("of rows, %s", (dtype) => {
    for (const combine of ["sum", "prod", "max", "min", "argmax"] as const)
      for (const n of sizes)
        for (const unroll of [undefined, 1, 2]) {
          const x = numbers(dtype, 3 * n, n);
          // Products of many numbers are not exact.
          if (combine === "prod" && dtype === "f32")
            for (let i = 0; i < x.length; i++) x[i] = 1 << (i & 1);
          agree(reduce(dtype, combine, n, 3, unroll), [x]);
        }
  });

  test("argmax: ties, infinities and NaN", () => {
    const rows = [
      [1, 5, 5, 5, 2, 5, 0, 5, 5],
      [
        -Infinity,
        -Infinity,
        -Infinity,
        -Infinity,
        -Infinity,
        -Infinity,
        -Infinity,
        -Infinity,
        -Infinity,
      ],
      [1, 2, NaN, 9, NaN, 3, NaN, 2, 1],
      [1, 2, 3, 4, 5, 6, 7, 8, NaN],
      [NaN, NaN, NaN, NaN, NaN, NaN, NaN, NaN, NaN],
      [0, -0, 0, -0, 0, -0, 0, 0, 0],
    ];
    const [, out] = agree(reduce("f32", "argmax", 9, rows.length), [
      Float32Array.from(rows.flat()),
    ]);
    expect([...out]).toEqual([1, 0, 2, 8, 0, 0]);
  });

  test("max and min propagate NaN", () => {
    for (const at of [0, 3, 4, 8]) {
      const x = Float32Array.from({ length: 9 }, (_, i) => (i === at ? NaN : i));
      for (const combine of ["max", "min"] as const)
        expect(agree(reduce("f32", combine, 9, 1), [x])[1][0]).toBeNaN();
    }
  });

  test("partial sums stay open over an outer loop, unless it reads them", () => {
    const [rows, n] = [5, 7];
    const at = iadd(imul(ivar("r", rows), n), v(n));
    const inner = vector("v", n, [{ k: "update", name: "s", value: load("f32", 0, at) }]);
    const plain = { k: "update", name: "s", value: constValue("f32", 2) } as const;
    const read = store(1, ivar("r", rows), variable("f32", "s"));
    const bodies = [[inner], [inner, read], [inner, plain], [plain, inner, read]];
    for (const body of bodies)
      for (const unroll of [1, 2])
        agree(
          kernel(
            [buffer("f32", rows * n), buffer("f32", rows + 1, "write")],
            [
              { k: "acc", name: "s", dtype: "f32", combine: "sum" },
              serial("r", rows, body, unroll),
              store(1, num(rows), variable("f32", "s")),
            ],
          ),
          [numbers("f32", rows * n)],
        );
  });

  test("softmax of rows", () => {
    for (const n of [1, 3, 4, 10, 37]) {
      const g = ivar("g", 3);
      const at = (name: string) => iadd(imul(g, n), ivar(name, n));
      const shifted = (name: string) =>
        f32("exp", f32("sub", load("f32", 0, at(name)), variable("f32", "m")));
      const k = kernel(
        [buffer("f32", 3 * n), buffer("f32", 3 * n, "write")],
        [
          { k: "acc", name: "m", dtype: "f32", combine: "max" },
          vector("a", n, [{ k: "update", name: "m", value: load("f32", 0, at("a")) }]),
          { k: "local", name: "e", dtype: "f32", size: n },
          { k: "acc", name: "s", dtype: "f32", combine: "sum" },
          vector("b", n, [
            { k: "let", name: "x", value: shifted("b") },
            { k: "localStore", local: "e", index: ivar("b", n), value: variable("f32", "x") },
            { k: "update", name: "s", value: variable("f32", "x") },
          ]),
          { k: "let", name: "r", value: f32("div", constValue("f32", 1), variable("f32", "s")) },
          vector("c", n, [
            store(
              1,
              at("c"),
              f32(
                "mul",
                { k: "localLoad", dtype: "f32", local: "e", index: ivar("c", n) },
                variable("f32", "r"),
              ),
            ),
          ]),
        ],
        { range: { var: "g", extent: 3 } },
      );
      agree(k, [numbers("f32", 3 * n)], { tolerance: 1e-6 });
    }
  });
});

describe("addresses", () => {
  const n = 64;
  const i = v(n);
  const views: [string, Index][] = [
    ["reversed", isub(num(n - 1), i)],
    ["strided", imul(i, 2)],
    ["repeated", imod(i, 8)],
    ["repeated, unaligned", imod(iadd(i, num(3)), 16)],
    ["repeated by 6", imod(i, 6)],
    ["held", idiv(i, 4)],
    ["held by 32", idiv(i, 32)],
    ["held by 5", idiv(i, 5)],
    ["transposed", iadd(imul(imod(i, 8), 8), idiv(i, 8))],
    ["pairs swapped", iadd(imul(idiv(i, 2), 2), isub(num(1), imod(i, 2)))],
    ["even of groups", imod(imul(i, 2), 32)],
    ["clamped", imin(i, num(9))],
    ["reversed, strided", isub(num(2 * n), imul(i, 2))],
  ];
  test.each(views)("%s", (_, index) => {
    for (const dtype of ["f32", "i8", "bool"] as const)
      for (const extent of [64, 61, 3])
        for (const unroll of [1, 2, 4]) {
          const body = [store(1, i, load(dtype, 0, index))];
          agree(
            kernel(
              [buffer(dtype, 2 * n + 1), buffer(dtype, n, "write")],
              [vector("v", extent, body, unroll)],
            ),
            [numbers(dtype, 2 * n + 1)],
          );
        }
  });

  test("stores anywhere", () => {
    for (const index of [isub(num(n - 1), i), imul(i, 2), iadd(imul(imod(i, 8), 8), idiv(i, 8))])
      for (const dtype of ["f32", "u8", "bool"] as const)
        for (const extent of [64, 62, 5])
          agree(
            kernel(
              [buffer(dtype, n), buffer(dtype, 2 * n, "write")],
              [vector("v", extent, [store(1, index, load(dtype, 0, i))], 2)],
            ),
            [numbers(dtype, n)],
          );
  });

  test("floor division of negative numbers", () => {
    const at = (k: Index): Value => ({ k: "index", dtype: "i32", index: k });
    const x = isub(i, num(20));
    for (const by of [2, 3, 7, 8])
      for (const e of [idiv(x, by), imod(x, by), idiv(isub(num(3), imul(i, 5)), by)])
        agree(kernel([buffer("i32", n, "write")], [vector("v", n, [store(0, i, at(e))])]), []);
  });
});

describe("masks", () => {
  const n = 23;
  const i = v(n);
  // Far outside of the memory where the mask fails.
  const far = 1 << 26;
  const inside = (x: Index, size: number): Cond => [x, isub(num(size - 1), x)];
  const cases: [string, Index, Cond][] = [
    ["shifted", isub(i, num(3)), inside(isub(i, num(3)), n)],
    ["shifted up", iadd(i, num(5)), inside(iadd(i, num(5)), n)],
    ["reversed", isub(num(18), i), inside(isub(num(18), i), n)],
    ["strided", isub(imul(i, 2), num(6)), inside(isub(imul(i, 2), num(6)), n)],
    ["gathered", isub(imod(i, 7), num(2)), inside(isub(imod(i, 7), num(2)), n)],
    ["far below", isub(imul(i, far), num(2 * far)), inside(isub(imul(i, far), num(2 * far)), 1)],
    ["never", isub(i, num(far)), [isub(i, num(far))]],
    ["two", i, [isub(i, num(2)), isub(num(4), i), isub(imod(i, 3), num(1))]],
  ];
  test.each(cases)("loads, %s", (_, index, mask) => {
    for (const dtype of ["f32", "u8"] as const)
      for (const unroll of [1, 2, 4])
        agree(
          kernel(
            [buffer(dtype, n), buffer(dtype, n, "write")],
            [vector("v", n, [store(1, i, load(dtype, 0, index, mask))], unroll)],
          ),
          [numbers(dtype, n)],
        );
  });

  test.each(cases)("stores and select, %s", (name, index, mask) => {
    if (name === "gathered") return; // lanes would meet
    for (const unroll of [1, 2])
      agree(
        kernel(
          [buffer("f32", n), buffer("f32", n, "write"), buffer("f32", n, "write")],
          [
            vector(
              "v",
              n,
              [
                store(1, index, load("f32", 0, i), mask),
                store(2, i, {
                  k: "select",
                  dtype: "f32",
                  cond: mask,
                  a: load("f32", 0, i),
                  b: constValue("f32", -99),
                }),
              ],
              unroll,
            ),
          ],
        ),
        [numbers("f32", n)],
      );
  });

  test("that do not vary by lane, and if", () => {
    const g = ivar("g", 6);
    const row = isub(g, num(2));
    const at = iadd(imul(row, n), i);
    const out = iadd(imul(g, n), i);
    const body: Stmt[] = [
      vector("v", n, [store(1, out, load("f32", 0, at, [row]))]),
      {
        k: "if",
        cond: [isub(g, num(3))],
        body: [vector("v", n, [store(1, out, constValue("f32", 7))])],
      },
    ];
    const range = { var: "g", extent: 6 };
    agree(kernel([buffer("f32", 4 * n), buffer("f32", 6 * n, "write")], body, { range }), [
      numbers("f32", 4 * n),
    ]);
  });
});

describe("positions", () => {
  const [rows, n] = [6, 10];
  const gather = (lanes: boolean): Kernel => {
    const g = ivar("g", n);
    const row: Stmt = {
      k: "position",
      name: "p",
      value: load("i32", 0, lanes ? v(n) : g),
      size: rows,
    };
    const copy = vector("v", n, [
      store(2, iadd(imul(g, n), v(n)), load("f32", 1, iadd(imul(ivalue("p", rows), n), v(n)))),
    ]);
    const picked = vector("v", n, [
      row,
      store(2, v(n), load("f32", 1, iadd(imul(ivalue("p", rows), n), v(n)))),
    ]);
    return kernel(
      [buffer("i32", n), buffer("f32", rows * n), buffer("f32", n * n, "write")],
      lanes ? [picked] : [row, copy],
      { range: { var: "g", extent: lanes ? 1 : n } },
    );
  };
  const table = numbers("f32", rows * n);

  test.each([false, true])("gather, varying by lane: %s", (lanes) => {
    agree(gather(lanes), [Int32Array.from({ length: n }, (_, k) => (k * 5) % rows), table]);
  });

  test.each([false, true])("out of range raises the flag, by lane: %s", (lanes) => {
    for (const [bad, at] of [
      [6, 4],
      [-1, 0],
      [100000000, 9],
      [-2147483648, 8],
    ]) {
      const index = new Int32Array(n);
      index[at] = bad;
      for (const mode of modes) {
        const { error, buffers } = runKernel(gather(lanes), [index, table, n * n], mode);
        expect(error).toEqual([1, bad]);
        const row = lanes ? [...buffers[2].slice(0, n)] : [...buffers[2].slice(at * n, at * n + n)];
        expect(row).toEqual([...table.slice(0, n)]);
      }
    }
    const fine = runKernel(gather(lanes), [new Int32Array(n), table, n * n], modes[0]);
    expect(fine.error).toEqual([0, 0]);
  });

  test("scatter-add in lane order", () => {
    const k = kernel(
      [buffer("i32", n), buffer("f32", n), buffer("f32", rows, "readwrite")],
      [
        vector("v", n, [
          { k: "position", name: "p", value: load("i32", 0, v(n)), size: rows },
          { k: "storeAdd", buffer: 2, index: ivalue("p", rows), value: load("f32", 1, v(n)) },
        ]),
      ],
    );
    const index = Int32Array.from([0, 0, 0, 0, 1, 1, 5, 5, 0, 3]);
    for (const mode of modes) {
      const { buffers } = runKernel(
        k,
        [index, new Float32Array(n).fill(1), new Float32Array(rows)],
        mode,
      );
      expect([...buffers[2]]).toEqual([5, 2, 0, 1, 0, 2]);
    }
  });

  test("storeAdd of neighbours", () => {
    for (const dtype of ["f32", "i32", "u8"] as const)
      for (const size of [3, 8, 13]) {
        const add: Stmt = {
          k: "storeAdd",
          buffer: 1,
          index: v(size),
          value: load(dtype, 0, v(size)),
        };
        const k = kernel(
          [buffer(dtype, size), buffer(dtype, size, "readwrite")],
          [vector("v", size, [add])],
        );
        agree(k, [numbers(dtype, size), numbers(dtype, size, 2)]);
      }
  });
});

describe("matmul", () => {
  const micro = (m: number, n: number, depth: number, unroll: number, columns: number): Kernel => {
    const rows = Array.from({ length: m }, (_, r) => r);
    const k = ivar("k", depth);
    const times = (r: number): Stmt => ({
      k: "update",
      name: `s${r}`,
      value: load("f32", 0, iadd(num(r * depth), k)),
      times: variable("f32", "b"),
    });
    const body: Stmt[] = [
      ...rows.map((r): Stmt => ({ k: "acc", name: `s${r}`, dtype: "f32", combine: "sum" })),
      serial(
        "k",
        depth,
        [
          { k: "let", name: "b", value: load("f32", 1, iadd(imul(k, n), v(n))) },
          ...rows.map(times),
        ],
        unroll,
      ),
      ...rows.map((r) => store(2, iadd(num(r * n), v(n)), variable("f32", `s${r}`))),
    ];
    return kernel(
      [buffer("f32", m * depth), buffer("f32", depth * n), buffer("f32", m * n, "write")],
      [vector("v", n, body, columns)],
    );
  };
  test("register blocks with edges", () => {
    for (const [m, n, depth, unroll, columns] of [
      [6, 8, 16, 2, 2],
      [4, 8, 7, 2, 2],
      [3, 13, 5, 4, 2],
      [1, 3, 1, 1, 1],
      [2, 9, 9, 3, 1],
    ]) {
      agree(micro(m, n, depth, unroll, columns), [
        numbers("f32", m * depth),
        numbers("f32", depth * n, 2),
      ]);
    }
  });
});
