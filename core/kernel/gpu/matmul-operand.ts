/**
 * @file The operands of a matrix product as functions of positions. They are evaluated where they are fetched, so that
 * transposes, windows, broadcasts and element-wise work before the product cost no copy; outside the product they are 0.
 */
import type { Node } from "../../graph/node.ts";
import {
  type Cond,
  evaluate,
  freeVars,
  type Index,
  ivar,
  simplifyCond,
} from "../../schedule/symbolic.ts";
import type { Evaluator } from "../evaluate.ts";
import { constValue, type Stmt, type Value, widen } from "../ir.ts";
import type { Operand } from "../operand.ts";
import type { Side } from "./matmul-product.ts";

/** Both operands of a dot, halves as f32 if they are to be `widened`. Also registers their buffers with the evaluator. */
export function sidesOf(dot: Node, ev: Evaluator, widened = true): { a: Side; b: Side } {
  const [a, b] = dot.src;
  const [batch, m, k] = a.shape;
  const n = b.shape[2];
  return {
    a: sideOf(ev, a, [batch, m, k], (i, x, kk) => [i, x, kk], widened),
    b: sideOf(ev, b, [batch, n, k], (i, x, kk) => [i, kk, x], widened),
  };
}

export function sideOf(
  ev: Evaluator,
  n: Node,
  [batch, size, depth]: readonly [number, number, number],
  index: (b: Index, x: Index, k: Index) => readonly Index[],
  widened = true,
): Side {
  const before = ev.accesses.length;
  operand(ev, n, index(ivar("b", batch), ivar("x", size), ivar("k", depth)), []);
  const reads = ev.accesses.slice(before).map((a) => a.index);
  return {
    alongK: isAlongK(reads, size, depth),
    at: (b, x, k, bounds) => operand(ev, n, index(b, x, k), bounds, widened),
  };
}

/** The value of `n` at `index`, halves as f32, 0 out of bounds, with the statements that it needs. */
export function operand(
  ev: Evaluator,
  n: Node,
  index: readonly Index[],
  bounds: Cond,
  widened = true,
): Operand {
  const mask = simplifyCond(bounds);
  const own = (v: Value): Value => (widened ? widen(v) : v);
  if (mask === false) return { stmts: [], value: own(constValue(n.dtype, 0)) };
  ev.push([]);
  const value = own(ev.evaluate(n, index, mask).value);
  const { stmts } = ev.pop();
  if (mask.length === 0 || isZeroOutside(value, stmts, mask)) return { stmts, value };
  const zero = constValue(value.dtype, 0);
  return { stmts, value: { k: "select", dtype: value.dtype, cond: mask, a: value, b: zero } };
}

/** Masked loads are 0 already where the mask fails; what was computed from one need not be. */
function isZeroOutside(v: Value, stmts: readonly Stmt[], mask: Cond): boolean {
  const zero = (x: Value): boolean => isZeroOutside(x, stmts, mask);
  switch (v.k) {
    case "const":
      return v.value === 0;
    case "var": {
      const found = stmts.find((s) => s.k === "let" && s.name === v.name);
      return found?.k === "let" && zero(found.value);
    }
    case "load":
      return mask.every((entry) => v.mask?.some((x) => x.key === entry.key));
    case "select":
      return zero(v.a) && zero(v.b);
    case "op":
      return v.op === "cast" && zero(v.args[0]);
    default:
      return false;
  }
}

/** Places at which steps are measured, as parts of an axis: irregular, so as to meet windows in all their phases. */
const samples = [0.03, 0.19, 0.41, 0.53, 0.71, 0.89];

/** Do neighbours along k lie closer together in memory than neighbours along x? Windows only do at most places. */
function isAlongK(reads: readonly Index[], size: number, depth: number): boolean {
  const at = (read: Index, x: number, k: number): number => {
    const env = Object.fromEntries([...freeVars(read)].map((name) => [name, 0]));
    return evaluate(read, { ...env, x, k });
  };
  let points = 0;
  // One apart is best, the same element says nothing, and far apart is all the same.
  const closeness = (step: number): number => (step === 0 ? 0 : 1 / Math.abs(step));
  for (const read of reads)
    for (const s of samples)
      for (const q of samples) {
        const [x, k] = [Math.floor(s * size), Math.floor(q * depth)];
        const here = at(read, x, k);
        if (k + 1 < depth) points += closeness(at(read, x, k + 1) - here);
        if (x + 1 < size) points -= closeness(at(read, x + 1, k) - here);
      }
  return points > 0;
}
