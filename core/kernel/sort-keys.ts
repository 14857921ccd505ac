/**
 * @file What the ways of sorting share: the task, and the integer keys that order as the values do.
 */
import type { DType } from "../dtype.ts";
import type { Index } from "../schedule/symbolic.ts";
import { constValue, op, type Stmt, type Value, type ValueOp, variable } from "./ir.ts";
import type { LineSpec } from "./lines.ts";
import type { Operand } from "./operand.ts";

export interface SortSpec extends LineSpec {
  readonly descending: boolean;
  /** How many positions are asked for. */
  readonly first: number;
  /** Of the source. */
  readonly dtype: DType;
}

/** A kernel's parallel range and body. */
export interface Sorted {
  readonly extent: number;
  readonly body: readonly Stmt[];
}

export const int = (x: number): Value => constValue("i32", x);
export const i32 = (name: ValueOp, ...args: Value[]): Value => op(name, "i32", ...args);

/** Bits of a type's keys: signed i32, or 0 … 255. */
export const keyBits = (dtype: DType): number =>
  dtype === "i8" || dtype === "u8" || dtype === "bool" ? 8 : 32;

/** The largest key. */
export const lastKey = int(0x7fffffff);

/** The value's key, with the statements before it: NaN has the largest one, the keys of -0 and 0 are equal. */
export function keyOf(
  { dtype, descending }: Pick<SortSpec, "dtype" | "descending">,
  { stmts, value }: Operand,
): Operand {
  const all = [...stmts];
  const named = (name: string, v: Value): Value => {
    all.push({ k: "let", name, value: v });
    return variable(v.dtype, name);
  };
  let key: Value;
  if (dtype === "f32") {
    // -0 + 0 = 0. Of negative numbers the larger magnitude comes first: all bits but the sign turn around.
    const x = named("sortee", op("add", "f32", value, constValue("f32", 0)));
    const bits = named("bits", i32("bitcast", x));
    const ordered = i32("xor", bits, i32("and", i32("shr", bits, int(31)), lastKey));
    key = i32("where", op("eq", "bool", x, x), ordered, lastKey);
  } else if (dtype === "i32") key = value;
  else if (dtype === "u32") key = i32("xor", i32("bitcast", value), int(-(2 ** 31)));
  else {
    const wide = i32("cast", value);
    key = dtype === "i8" ? i32("add", wide, int(128)) : wide;
  }
  if (descending) key = keyBits(dtype) === 8 ? i32("sub", int(255), key) : i32("not", key);
  return { stmts: all, value: named("key", key) };
}

// --- statements on i32 scratch ------------------------------------------------------------------------------

export const local = (name: string, size: number): Stmt => ({
  k: "local",
  name,
  dtype: "i32",
  size,
});
export const read = (name: string, index: Index): Value => ({
  k: "localLoad",
  dtype: "i32",
  local: name,
  index,
});
export const write = (name: string, index: Index, value: Value): Stmt => ({
  k: "localStore",
  local: name,
  index,
  value,
});
export const bind = (name: string, value: Value): Stmt => ({ k: "let", name, value });
export const named = (name: string): Value => variable("i32", name);
