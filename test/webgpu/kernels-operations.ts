/** @file Hand-written GPU kernels of every operation, cast and reduction. */
import { type DType, isFloat } from "../../core/dtype.ts";
import { type Combine, constValue, op, type ValueOp, variable } from "../../core/kernel/ir.ts";
import { iadd, idiv, imod, imul, ivar, lt, num } from "../../core/schedule/symbolic.ts";
import { load, store, vector } from "../wasm/harness.ts";

import {
  acc,
  allReduce,
  allTypes,
  type Case,
  g,
  l,
  make,
  plain,
  position,
  sample,
  t,
  update,
  zeros,
} from "./kernels.ts";

const arities: Partial<Record<ValueOp, number>> = {
  neg: 1,
  abs: 1,
  floor: 1,
  round: 1,
  not: 1,
  sqrt: 1,
  exp: 1,
  log: 1,
  tanh: 1,
  erf: 1,
  sin: 1,
  cos: 1,
  add: 2,
  sub: 2,
  mul: 2,
  div: 2,
  idiv: 2,
  rem: 2,
  max: 2,
  min: 2,
  lt: 2,
  le: 2,
  eq: 2,
  and: 2,
  or: 2,
  xor: 2,
  shl: 2,
  shr: 2,
};
const forFloats: ValueOp[] = [
  "neg",
  "abs",
  "floor",
  "round",
  "sqrt",
  "exp",
  "log",
  "tanh",
  "erf",
  "sin",
  "cos",
  "add",
  "sub",
  "mul",
  "div",
  "rem",
  "max",
  "min",
  "lt",
  "le",
  "eq",
];
const forHalves: ValueOp[] = ["neg", "abs", "floor", "round", "max", "min", "lt", "le", "eq"];
const forInts: ValueOp[] = [
  "neg",
  "abs",
  "not",
  "add",
  "sub",
  "mul",
  "idiv",
  "rem",
  "max",
  "min",
  "lt",
  "le",
  "eq",
  "and",
  "or",
  "xor",
  "shl",
  "shr",
];
const forBools: ValueOp[] = ["not", "and", "or", "xor", "lt", "le", "eq"];

export function operationsOf(dtype: DType): ValueOp[] {
  if (dtype === "bool") return forBools;
  if (dtype === "f16" || dtype === "bf16") return forHalves;
  return isFloat(dtype) ? forFloats : forInts;
}

/** All operations on a dtype in one kernel, on extreme values: with lanes, alone, and beside constants. */
export function operationCase(dtype: DType, form: "lanes" | "alone" | "constants"): Case {
  const size = 128;
  const operations = operationsOf(dtype);
  const lanes = form !== "alone";
  const i = position(4, 8);
  const body = operations.flatMap((name, o) => {
    const xs = Array.from({ length: arities[name]! }, (_, a) => load(dtype, a, i));
    // On the second place, then on both.
    if (form === "constants") xs.fill(constValue(dtype, dtype === "bool" ? 1 : 3), o % 2 ? 0 : 1);
    const result: DType = name === "lt" || name === "le" || name === "eq" ? "bool" : dtype;
    return [
      store(
        2 + (result === dtype ? 0 : 1),
        iadd(imul(i, 1), num(o * size)),
        op(name, result, ...xs),
      ),
    ];
  });
  const outputs = operations.length * size;
  return make(
    `operations on ${dtype}, ${form}`,
    {
      groups: 4,
      threads: 8,
      buffers: [
        [dtype, size, "read"],
        [dtype, size, "read"],
        [dtype, outputs, "write"],
        ["bool", outputs, "write"],
      ],
      body: [lanes ? vector("l", 4, body) : plain("l", 4, body)],
    },
    [
      sample(dtype, size, 1, true),
      sample(dtype, size, 2, true),
      zeros(dtype, outputs),
      zeros("bool", outputs),
    ],
  );
}

/** From one dtype to all others. */
export function castCase(from: DType, lanes: boolean): Case {
  const size = 64;
  const i = position(2, 8);
  const body = allTypes.map((to, b) => store(1 + b, i, op("cast", to, load(from, 0, i))));
  const data = sample(from, size, 5, true);
  if (from === "f32")
    (data as Float32Array).set([
      0,
      -0,
      0.5,
      -0.5,
      1.5,
      2.5,
      3e9,
      -3e9,
      5e9,
      1e30,
      -1e30,
      Infinity,
      -Infinity,
      Number.NaN,
      255.5,
      256.5,
      -129,
      65504,
      65519.99,
      65520,
      1e-8,
      6e-8,
      2 ** -25,
      3 * 2 ** -25,
      1.00048828125,
      1.00146484375,
      2049,
      2051,
      3.3961775e38,
      -1e-7,
    ]);
  return make(
    `casts from ${from}, ${lanes ? "lanes" : "alone"}`,
    {
      groups: 2,
      threads: 8,
      buffers: [[from, size, "read"], ...allTypes.map((to) => [to, size, "write"] as const)],
      body: [lanes ? vector("l", 4, body) : plain("l", 4, body)],
    },
    [data, ...allTypes.map((to) => zeros(to, size))],
  );
}

/** One row per group of `width` invocations; the accumulator takes the row in vec4s. */
export function reductionCase(
  dtype: DType,
  combine: Combine,
  threads: number,
  width: number,
  lanes = 1,
): Case {
  const perGroup = threads / width;
  const row = iadd(imul(g(2), perGroup), idiv(t(threads), width));
  const columns = 8 * width;
  const column = iadd(imul(ivar("k", 2), 4 * width), imul(imod(t(threads), width), 4), l);
  const i = iadd(imul(row, columns), column);
  const rows = 2 * perGroup;
  const out: DType = combine === "argmax" ? "i32" : dtype;
  const value =
    combine === "prod" && isFloat(dtype)
      ? op(
          "add",
          dtype,
          op("mul", dtype, load(dtype, 0, i), constValue(dtype, 2 ** -7)),
          constValue(dtype, 1),
        )
      : load(dtype, 0, i);
  return make(`${combine} of ${dtype}, ${width} of ${threads}, ${lanes} in a subgroup`, {
    groups: 2,
    threads,
    buffers: [
      [dtype, rows * columns, "read"],
      [out, rows, "write"],
    ],
    body: [
      acc("a", dtype, combine),
      plain("k", 2, [
        vector("l", 4, [update("a", value, combine === "argmax" ? { at: column } : {})]),
      ]),
      allReduce("a", width, lanes),
      store(1, row, variable(out, "a"), [lt(imod(t(threads), width), 1)]),
    ],
  });
}
