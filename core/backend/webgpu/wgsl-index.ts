/**
 * @file Index expressions and conditions as i32 arithmetic, in one lane or in all lanes of a vector loop. Divisions are floored:
 * shifts and masks are for every sign, WGSL's / and % only where nothing is negative.
 */
import {
  type Atom,
  affineIn,
  type Cond,
  eachAtom,
  freeVars,
  type Index,
  imul,
  isub,
  num,
  substitute,
} from "../../schedule/symbolic.ts";
import type { Context } from "./wgsl-context.ts";
import {
  both,
  call,
  compare,
  component,
  type Expr,
  expr,
  infix,
  number,
  operand,
  splat,
  typeName,
} from "./wgsl-expr.ts";

const maxIndex = 2 ** 31 - 1;

/** Whether it differs between the lanes of the vector loop we are in. */
export function isLaneIndex(ctx: Context, x: Index): boolean {
  if (!ctx.lanes) return false;
  for (const name of freeVars(x)) {
    if (name === ctx.lanes.name) return true;
    const b = ctx.bindings.get(name);
    if (b?.k === "value" && b.expr.width > 1) return true;
  }
  return false;
}

/** x in one lane. */
export function inLane(ctx: Context, x: Index, lane: number): Index {
  const y = substitute(x, ctx.env);
  if (!ctx.lanes) return y;
  return substitute(y, new Map([[ctx.lanes.name, num(lane)]]));
}

/** x in one lane, as i32. */
export function indexAt(ctx: Context, x: Index, lane = 0): Expr {
  const y = inLane(ctx, x, lane);
  checkRange(ctx, y);
  return printed(ctx, y, lane);
}

/** x in all lanes: a vector, or a scalar if they agree. */
export function indexVector(ctx: Context, x: Index): Expr {
  if (!ctx.lanes || !isLaneIndex(ctx, x)) return indexAt(ctx, x);
  const { width, name } = ctx.lanes;
  const all = Array.from({ length: width }, (_, l) => indexAt(ctx, x, l));
  const type = typeName("i32", width);
  const coef = lanePlain(ctx, x) ? affineIn(x, name) : null;
  if (coef === null) return call(type, width, ...all);
  const steps = all.map((_, l) => number(coef * l));
  const base = indexAt(ctx, x, 0);
  if (base.literal) return { ...call(type, width, ...all), literal: true };
  return infix("+", call(type, width, base), call(type, width, ...steps));
}

/** No position in x differs between lanes: only the lane's own variable does. */
function lanePlain(ctx: Context, x: Index): boolean {
  return [...freeVars(x)].every((name) => {
    const b = ctx.bindings.get(name);
    return b?.k !== "value" || b.expr.width === 1;
  });
}

/** Every part of x must be computable in i32; sums may wrap on the way. */
function checkRange(ctx: Context, x: Index): void {
  const check = (y: Index): void => {
    if (y.max > maxIndex || y.min < -maxIndex)
      ctx.fail(
        `an index runs over ${y.min} … ${y.max}; expected positions below 2³¹ (a buffer of 8 GiB of f32)`,
      );
  };
  check(x);
  eachAtom(x, (a) => {
    if (a.k === "div" || a.k === "mod") check(a.of);
  });
}

function printed(ctx: Context, x: Index, lane: number): Expr {
  // Positive terms first, so that the text rarely starts with a sign.
  const terms = [...x.terms].sort((a, b) => Math.sign(b.coef) - Math.sign(a.coef));
  let sum: Expr | null = null;
  const constantFirst = x.constant > 0 && terms.every((t) => t.coef < 0);
  if (constantFirst || terms.length === 0) sum = number(x.constant);
  for (const { atom: a, coef } of terms) {
    const value = atomOf(ctx, a, lane);
    const size = Math.abs(coef);
    const term = size === 1 ? value : infix("*", value, number(size));
    if (!sum) sum = coef < 0 ? expr(`-${operand(term, 3)}`, 3) : term;
    else sum = infix(coef < 0 ? "-" : "+", sum, term);
  }
  if (!constantFirst && x.constant !== 0 && terms.length > 0)
    sum = infix(x.constant < 0 ? "-" : "+", sum!, number(Math.abs(x.constant)));
  return sum!;
}

function atomOf(ctx: Context, a: Atom, lane: number): Expr {
  switch (a.k) {
    case "var":
    case "value": {
      const b = ctx.binding(a.name);
      if (b.k !== "value") return ctx.fail(`"${a.name}" is no index`);
      return component(b.expr, lane);
    }
    case "min":
      return call("min", 1, printed(ctx, a.a, lane), printed(ctx, a.b, lane));
    default: {
      const of = printed(ctx, a.of, lane);
      const by = a.by;
      if (Number.isInteger(Math.log2(by)))
        return a.k === "div"
          ? expr(`${operand(of, 4)} >> ${Math.log2(by)}u`, 0)
          : expr(`${operand(of, 4)} & ${by - 1}`, 0);
      if (a.of.min >= 0) return ctx.quotient(infix(a.k === "div" ? "/" : "%", of, number(by)));
      const name = ctx.helper(a.k === "div" ? "floorDiv" : "floorMod");
      return ctx.quotient(call(name, 1, of, number(by)));
    }
  }
}

// --- conditions -------------------------------------------------------------------------------------------

/** A condition that differs by lane, in a name that the statement's accesses share. */
export function laneMask(ctx: Context, cond: Cond): Expr | null | false {
  const key = cond.map((x) => x.key).join(" & ");
  const known = ctx.conds.get(key);
  if (known) return known;
  const mask = condition(ctx, cond);
  if (!mask) return mask;
  const kept = ctx.settle(mask);
  ctx.conds.set(key, kept);
  return kept;
}

/** A conjunction as bool or vecN<bool>; null: it always holds; false: never. */
export function condition(ctx: Context, cond: Cond): Expr | null | false {
  let all: Expr | null = null;
  for (const entry of cond) {
    const test = holds(ctx, entry);
    if (test === false) return false;
    if (test !== true) all = all ? both(all, test) : test;
  }
  return all;
}

/** The entries that agree in all lanes, and the others. */
export function splitCond(ctx: Context, cond: Cond): { uniform: Index[]; varying: Index[] } {
  const varying = cond.filter((x) => isLaneIndex(ctx, x));
  return { uniform: cond.filter((x) => !varying.includes(x)), varying };
}

function holds(ctx: Context, entry: Index): Expr | boolean {
  const width = ctx.lanes && isLaneIndex(ctx, entry) ? ctx.lanes.width : 1;
  const each = Array.from({ length: width }, (_, l) => inLane(ctx, entry, l));
  if (each.every((x) => x.min >= 0)) return true;
  if (each.every((x) => x.max < 0)) return false;
  // c - x ≥ 0 reads better as x ≤ c.
  const { terms } = substitute(entry, ctx.env);
  const flip = terms.length > 0 && terms.every((t) => t.coef < 0);
  const side = flip ? imul(entry, -1) : entry;
  const bound = num(side.constant);
  const left = indexVector(ctx, isub(side, bound));
  const right = number(-bound.constant + 0);
  const type = (e: Expr): Expr => splat(e, "i32", width);
  return compare(flip ? "<=" : ">=", type(left), type(right));
}
