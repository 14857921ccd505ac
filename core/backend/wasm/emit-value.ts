/**
 * @file Values of the kernel language as vector expressions: every value is four 32-bit lanes (bool: all ones or zeros;
 * 8-bit integers extended; halves as the f32 of the same value), uniform ones are splats. Which instructions an operation takes for each dtype is decided
 * here; transcendental functions and division of integers are in math*.ts.
 */
import { type DType, isFloat, isHalf, roundTo } from "../../dtype.ts";
import type { Value, ValueOp } from "../../kernel/ir.ts";
import { callVector } from "./emit-call.ts";
import type { Context } from "./emit-context.ts";
import { apply, type Expr, f32x4, i32, i32x4, lane } from "./emit-expr.ts";
import { type Access, condMask, indexVector, loadAt, wrap } from "./emit-memory.ts";
import type { Opcode } from "./emit-opcodes.ts";
import { erf, exp, log, tanh } from "./math.ts";
import { fromBits, roundLanes, toBits } from "./math-half.ts";
import { integerDivide, integerRemainder } from "./math-int.ts";
import { and, choose, mul } from "./math-ops.ts";
import { threefry } from "./math-threefry.ts";
import { sine } from "./math-trig.ts";

type ValueOf<K extends Value["k"]> = Extract<Value, { k: K }>;

/** A literal as its dtype's lanes. */
export function literal(dtype: DType, x: number): Expr {
  if (isFloat(dtype)) return f32x4(roundTo(dtype, x));
  return i32x4(dtype === "bool" ? (x ? -1 : 0) : x);
}

export function accessOf(ctx: Context, v: ValueOf<"load"> | ValueOf<"localLoad">): Access {
  if (v.k === "localLoad") return { ...ctx.localArray(v.local), index: v.index };
  const { dtype } = ctx.kernel.buffers[v.buffer];
  return { dtype, base: ctx.buffer(v.buffer), index: v.index, mask: v.mask };
}

/** The same in all lanes of all copies. */
export function isUniform(ctx: Context, v: Value): boolean {
  if (!ctx.lanes || v.k === "const" || v.k === "scalar") return true;
  let known = ctx.uniform.get(v);
  if (known === undefined) ctx.uniform.set(v, (known = computeUniform(ctx, v)));
  return known;
}

function computeUniform(ctx: Context, v: Value): boolean {
  switch (v.k) {
    case "var": {
      const b = ctx.bindings.get(v.name) ?? ctx.fail(`${v.name} is not in scope`);
      return b.k === "let" ? b.uniform : b.acc.uniform;
    }
    case "load":
      return !ctx.isLaneIndex(v.index) && !v.mask?.some((x) => ctx.isLaneIndex(x));
    case "localLoad":
    case "index":
      return !ctx.isLaneIndex(v.index);
    case "select":
      return !v.cond.some((x) => ctx.isLaneIndex(x)) && isUniform(ctx, v.a) && isUniform(ctx, v.b);
    case "op":
    case "threefry":
      return v.args.every((a) => isUniform(ctx, a));
    default:
      return true;
  }
}

/** The value in copy u; built once per batch, and once for all copies if uniform. */
export function valueAt(ctx: Context, v: Value, u: number): Expr {
  if (v.k === "const") return literal(v.dtype, v.value);
  const copy = isUniform(ctx, v) ? 0 : u;
  let exprs = ctx.memo.get(v);
  if (!exprs) ctx.memo.set(v, (exprs = []));
  return (exprs[copy] ??= build(ctx, v, copy));
}

function build(ctx: Context, v: Exclude<Value, { k: "const" }>, u: number): Expr {
  switch (v.k) {
    case "var": {
      const b = ctx.bindings.get(v.name)!;
      if (b.k === "let") return b.exprs[u] ?? b.exprs[0];
      if (b.acc.partial) ctx.fail(`accumulator ${v.name} is read inside the loop that updates it`);
      const cell = b.acc.cells[u] ?? b.acc.cells[0];
      return cell.at ?? cell.value;
    }
    case "load":
    case "localLoad":
      return loadAt(ctx, accessOf(ctx, v), u);
    case "index":
      return indexVector(ctx, v.index, u);
    case "select":
      return choose(condMask(ctx, v.cond, u), valueAt(ctx, v.a, u), valueAt(ctx, v.b, u));
    case "scalar":
      return ctx.scalar(v.slot);
    case "threefry": {
      const [k0, k1, c0, c1] = v.args.map((a) => valueAt(ctx, a, u));
      return threefry(k0, k1, c0, c1);
    }
    case "op":
      return operation(ctx, v, u);
  }
}

const floatOps: Partial<Record<ValueOp, Opcode>> = {
  neg: "f32x4.neg",
  abs: "f32x4.abs",
  sqrt: "f32x4.sqrt",
  floor: "f32x4.floor",
  round: "f32x4.nearest",
  add: "f32x4.add",
  sub: "f32x4.sub",
  mul: "f32x4.mul",
  div: "f32x4.div",
  max: "f32x4.max",
  min: "f32x4.min",
  lt: "f32x4.lt",
  le: "f32x4.le",
  eq: "f32x4.eq",
};

const intOps: Partial<Record<ValueOp, Opcode>> = {
  neg: "i32x4.neg",
  abs: "i32x4.abs",
  add: "i32x4.add",
  sub: "i32x4.sub",
  mul: "i32x4.mul",
  max: "i32x4.max_s",
  min: "i32x4.min_s",
  lt: "i32x4.lt_s",
  le: "i32x4.le_s",
  eq: "i32x4.eq",
  not: "v128.not",
  and: "v128.and",
  or: "v128.or",
  xor: "v128.xor",
};

/** Where the sign matters. Lane masks of bool order as unsigned numbers. */
const unsignedOps: Partial<Record<ValueOp, Opcode>> = {
  max: "i32x4.max_u",
  min: "i32x4.min_u",
  lt: "i32x4.lt_u",
  le: "i32x4.le_u",
};

/** Results that an 8-bit type must wrap; the others stay inside it. */
const overflows = new Set<ValueOp>(["neg", "abs", "add", "sub", "mul", "not", "shl", "idiv"]);

export function opcodeOf(op: ValueOp, dtype: DType): Opcode | undefined {
  if (isFloat(dtype)) return floatOps[op];
  const unsigned = dtype === "u32" || dtype === "u8" || dtype === "bool";
  return (unsigned ? unsignedOps[op] : undefined) ?? intOps[op];
}

function operation(ctx: Context, v: ValueOf<"op">, u: number): Expr {
  const { target } = ctx;
  const from = v.args[0].dtype;
  const args = v.args.map((a) => valueAt(ctx, a, u));
  const [x, y] = args;
  switch (v.op) {
    case "where":
      return choose(x, y, args[2]);
    case "cast":
      return cast(from, v.dtype, x);
    case "bitcast":
      return isHalf(from) ? fromBits(v.dtype, toBits(from, x)) : wrap(v.dtype, x);
    case "shl":
    case "shr": {
      const signed = from === "i32" || from === "i8";
      const name = v.op === "shl" ? "shl" : signed ? "shr_s" : "shr_u";
      return wrap(from, shift(ctx, name, v, x, y));
    }
    case "abs":
      if (from === "u32" || from === "u8") return x;
      break;
    case "idiv":
      return wrap(from, integerDivide(x, y, from === "u32"));
    case "rem":
      if (from !== "f32") return integerRemainder(x, y, from === "u32");
      return callVector(target.helper("fmod"), x, y);
  }
  if (isFloat(from)) {
    switch (v.op) {
      case "exp":
        return exp(target, x);
      case "log":
        return log(target, x);
      case "tanh":
        return tanh(target, x);
      case "erf":
        return erf(target, x);
      case "sin":
        return sine(target, x, 0);
      case "cos":
        return sine(target, x, 1);
      case "pow":
        return power(ctx, v.args[1], x, y);
      case "max":
      case "min":
        return extremum(v.op, v.args, x, y);
    }
  }
  const opcode = opcodeOf(v.op, from) ?? ctx.fail(`no ${v.op} for ${from}`);
  const result = apply(opcode, ...args);
  return overflows.has(v.op) ? wrap(from, result) : result;
}

/** x² is common enough, and exact, to be spared the general function. */
function power(ctx: Context, exponent: Value, x: Expr, y: Expr): Expr {
  if (exponent.k === "const" && exponent.value === 2) return mul(x, x);
  return callVector(ctx.target.helper("pow"), x, y);
}

/**
 * f32x4.max takes nine x86 instructions, for NaN and the signs of zeros. Beside a constant one suffices: pmax(x, c) is
 * c where x < c and else x, so NaN stays; against +0, adding +0 turns a -0 that was let through into +0.
 */
function extremum(op: "max" | "min", args: readonly Value[], x: Expr, y: Expr): Expr {
  const [a, b] = args[0].k === "const" ? [y, x] : [x, y];
  const c = args[0].k === "const" ? args[0] : args[1];
  const bound = c.k === "const" ? roundTo(c.dtype, c.value) : Number.NaN;
  if (Number.isNaN(bound) || (op === "min" && Object.is(bound, -0)))
    return apply(`f32x4.${op}`, a, b);
  const picked = apply(op === "max" ? "f32x4.pmax" : "f32x4.pmin", a, b);
  return op === "max" && Object.is(bound, 0) ? apply("f32x4.add", picked, f32x4(0)) : picked;
}

function shift(
  ctx: Context,
  name: "shl" | "shr_s" | "shr_u",
  v: ValueOf<"op">,
  x: Expr,
  count: Expr,
): Expr {
  const by = v.args[1];
  if (by.k === "const") return apply(`i32x4.${name}`, x, i32(by.value));
  if (isUniform(ctx, by)) return apply(`i32x4.${name}`, x, lane("i32x4.extract_lane", 0, count));
  let result = x;
  for (let l = 0; l < 4; l++) {
    const at = (e: Expr) => lane("i32x4.extract_lane", l, e);
    result = lane("i32x4.replace_lane", l, result, apply(`i32.${name}`, at(x), at(count)));
  }
  return result;
}

function cast(from: DType, to: DType, x: Expr): Expr {
  // A half as f32 is itself.
  if (from === to || (isHalf(from) && to === "f32")) return x;
  if (to === "bool")
    return isFloat(from) ? apply("f32x4.ne", x, f32x4(0)) : apply("i32x4.ne", x, i32x4(0));
  if (from === "bool") return and(x, isFloat(to) ? f32x4(1) : i32x4(1));
  if (isHalf(to)) return roundLanes(to, cast(from, "f32", x));
  if (to === "f32")
    return apply(from === "u32" ? "f32x4.convert_i32x4_u" : "f32x4.convert_i32x4_s", x);
  if (!isFloat(from)) return wrap(to, x);
  if (to === "u32") return apply("i32x4.trunc_sat_f32x4_u", x);
  return wrap(to, apply("i32x4.trunc_sat_f32x4_s", x));
}
