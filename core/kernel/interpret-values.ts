/**
 * @file The interpreter's arithmetic: every operation on numbers, before it is rounded or wrapped to its dtype, and how
 * accumulators combine.
 */
import { codecs, type DType, dtypes, isFloat, isHalf, roundTo } from "../dtype.ts";
import { erf, pow, roundEven } from "../math.ts";
import type { Combine, ValueOp } from "./ir.ts";

const words = new DataView(new ArrayBuffer(8));

export interface Accumulator {
  readonly dtype: DType;
  readonly combine: Combine;
  value: number;
  at: number;
  empty: boolean;
}

export function bits(from: DType, to: DType, value: number): number {
  if (dtypes[from].bytes === 1) return roundTo(to, value);
  if (isHalf(from)) return codecs[to]!.decode(codecs[from]!.encode(value));
  if (isFloat(from)) words.setFloat32(0, value);
  else words.setInt32(0, value | 0);
  return isFloat(to) ? words.getFloat32(0) : roundTo(to, words.getInt32(0));
}

export const compare = {
  lt: (a: number, b: number) => a < b,
  le: (a: number, b: number) => a <= b,
  eq: (a: number, b: number) => a === b,
};

export const unary: {
  readonly [O in Extract<
    ValueOp,
    "neg" | "abs" | "exp" | "log" | "sin" | "cos" | "sqrt" | "tanh" | "erf" | "floor" | "round"
  >]: (x: number) => number;
} = {
  neg: (x) => -x,
  abs: Math.abs,
  exp: Math.exp,
  log: Math.log,
  sin: Math.sin,
  cos: Math.cos,
  sqrt: Math.sqrt,
  tanh: Math.tanh,
  erf,
  floor: Math.floor,
  round: roundEven,
};

export type Kind = "float" | "int";
export const kindOf = (dtype: DType): Kind => (isFloat(dtype) ? "float" : "int");
type Binary = (a: number, b: number) => number;
const both = (f: Binary) => ({ float: f, int: f });

/** Before rounding to the dtype. Integer division by zero gives 0, as the remainder does (PyTorch raises). */
export const binary: {
  readonly [O in Extract<
    ValueOp,
    | "add"
    | "sub"
    | "mul"
    | "div"
    | "idiv"
    | "rem"
    | "pow"
    | "max"
    | "min"
    | "and"
    | "or"
    | "xor"
    | "shl"
  >]: { readonly [K in Kind]: Binary };
} = {
  add: both((a, b) => a + b),
  sub: both((a, b) => a - b),
  mul: { float: (a, b) => a * b, int: Math.imul },
  div: both((a, b) => a / b),
  idiv: both((a, b) => Math.trunc(a / b)),
  rem: both((a, b) => a % b),
  pow: both(pow),
  max: both(Math.max),
  min: both(Math.min),
  and: both((a, b) => a & b),
  or: both((a, b) => a | b),
  xor: both((a, b) => a ^ b),
  shl: both((a, b) => a << (b & 31)),
};

export function identity(c: Combine, dtype: DType): number {
  if (c === "sum") return 0;
  if (c === "prod") return 1;
  const low = c === "max" || c === "argmax";
  if (isFloat(dtype)) return low ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  const width = 8 * dtypes[dtype].bytes;
  if (dtypes[dtype].signed) return low ? -(2 ** (width - 1)) : 2 ** (width - 1) - 1;
  return low ? 0 : 2 ** width - 1;
}

export function combine(acc: Accumulator, value: number, at: number): void {
  const kind = kindOf(acc.dtype);
  switch (acc.combine) {
    case "sum":
      acc.value = roundTo(acc.dtype, acc.value + value);
      return;
    case "prod":
      acc.value = roundTo(acc.dtype, binary.mul[kind](acc.value, value));
      return;
    case "max":
      acc.value = Math.max(acc.value, value);
      return;
    case "min":
      acc.value = Math.min(acc.value, value);
      return;
    case "argmax": {
      const [new_, old] = [Number.isNaN(value), Number.isNaN(acc.value)];
      const better = new_ !== old ? new_ : value > acc.value;
      const tie = (new_ && old) || value === acc.value;
      if (acc.empty || better || (tie && at < acc.at)) {
        acc.value = value;
        acc.at = at;
        acc.empty = false;
      }
    }
  }
}
