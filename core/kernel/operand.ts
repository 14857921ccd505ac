/**
 * @file Operands of the loops that templates write (products, sorts, scatters): a value with the statements that it needs, and
 * walks over values. What an operand is, its caller has evaluated.
 */
import type { Index } from "../schedule/symbolic.ts";
import type { Stmt, Value } from "./ir.ts";

/** A value, and the statements that it needs before it. */
export interface Operand {
  readonly stmts: readonly Stmt[];
  readonly value: Value;
}

/** An operand without statements may be given as its value. */
export const operand = (x: Value | Operand): Operand =>
  "value" in x && "stmts" in x ? x : { stmts: [], value: x };

/** Calls `visit` for a value and all that it is made of. */
export function eachValue(v: Value, visit: (v: Value) => void): void {
  visit(v);
  if (v.k === "op" || v.k === "threefry") for (const arg of v.args) eachValue(arg, visit);
  else if (v.k === "select") for (const x of [v.a, v.b]) eachValue(x, visit);
}

/** Calls `visit` for all values in statements and in those within them. */
export function eachValueIn(stmts: readonly Stmt[], visit: (v: Value) => void): void {
  for (const s of stmts) {
    if ("value" in s) eachValue(s.value, visit);
    if (s.k === "update" && s.times) eachValue(s.times, visit);
    if (s.k === "loop" || s.k === "if") eachValueIn(s.body, visit);
  }
}

/** The index expressions in a value itself: addresses, masks, conditions. */
export function indicesIn(v: Value): readonly Index[] {
  switch (v.k) {
    case "load":
      return [v.index, ...(v.mask ?? [])];
    case "localLoad":
    case "index":
      return [v.index];
    case "select":
      return v.cond;
    default:
      return [];
  }
}
