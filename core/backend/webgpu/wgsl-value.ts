/**
 * @file Values of the kernel language as WGSL expressions. A value that differs between the lanes of a vector loop is a
 * vector, all others are scalars. What is used more than once, or is long, gets a name first.
 *
 * WGSL may assume that no operand is infinite or NaN, and its integer division and float-to-integer casts are not ours:
 * wherever that matters a function of wgsl-math.ts stands in place of the operator.
 */
import { type DType, isFloat, isHalf, roundTo } from "../../dtype.ts";
import type { Value, ValueOp } from "../../kernel/ir.ts";
import type { Context } from "./wgsl-context.ts";
import {
  atom,
  bitwise,
  call,
  choose,
  compare,
  type Expr,
  expr,
  infix,
  literal,
  operand,
  register,
  splat,
  typeName,
} from "./wgsl-expr.ts";
import { condition, indexVector } from "./wgsl-index.ts";
import { type Access, load } from "./wgsl-memory.ts";

type ValueOf<K extends Value["k"]> = Extract<Value, { k: K }>;

/** Longer operands get a name, so that a line can be read. */
const longest = 70;

export function constant(ctx: Context, dtype: DType, exact: number): Expr {
  const value = isHalf(dtype) ? roundTo(dtype, exact) : exact;
  // Compilers keep one zero for both signs.
  if (isFloat(dtype) && Object.is(Math.fround(value), -0)) return hiddenLiteral(ctx, -0);
  if (!isFloat(dtype) || Number.isFinite(Math.fround(value)))
    return literal(register(dtype), value);
  if (Number.isNaN(value)) return atom(`${ctx.helper("nan")}()`);
  const inf = `${ctx.helper("inf")}()`;
  return value < 0 ? expr(`-${inf}`, 3) : atom(inf);
}

/** Wraps what 32-bit arithmetic left to an 8-bit type. */
export function wrap(dtype: DType, e: Expr): Expr {
  if (dtype === "u8") return bitwise("&", e, splat(literal("u32", 255), "u32", e.width));
  if (dtype === "i8") return call("extractBits", e.width, e, literal("u32", 0), literal("u32", 8));
  return e;
}

function countUses(ctx: Context, v: Value): void {
  const n = (ctx.uses.get(v) ?? 0) + 1;
  ctx.uses.set(v, n);
  if (n > 1) return;
  if (v.k === "op" || v.k === "threefry") for (const a of v.args) countUses(ctx, a);
  else if (v.k === "select") {
    countUses(ctx, v.a);
    countUses(ctx, v.b);
  }
}

/** The value, for use by one statement; values that the statement shares are computed once. */
export function valueFor(ctx: Context, v: Value): Expr {
  countUses(ctx, v);
  return build(ctx, v);
}

function evaluate(ctx: Context, v: Value): Expr {
  const known = ctx.memo.get(v);
  if (known) return known;
  let e = build(ctx, v);
  const trivial = v.k === "const" || v.k === "var" || v.k === "scalar";
  if (!trivial && (e.text.length > longest || ctx.uses.get(v)! > 1)) e = ctx.settle(e);
  ctx.memo.set(v, e);
  return e;
}

function accessOf(ctx: Context, v: ValueOf<"load"> | ValueOf<"localLoad">): Access {
  if (v.k === "load") return { array: ctx.buffers[v.buffer], index: v.index, mask: v.mask };
  const b = ctx.binding(v.local);
  return b.k === "array"
    ? { array: b.array, index: v.index }
    : ctx.fail(`"${v.local}" is no array`);
}

function build(ctx: Context, v: Value): Expr {
  switch (v.k) {
    case "const":
      return constant(ctx, v.dtype, v.value);
    case "var":
      return variable(ctx, v.name);
    case "load":
    case "localLoad":
      return load(ctx, accessOf(ctx, v));
    case "index":
      return indexVector(ctx, v.index);
    case "select": {
      const [a, b] = [evaluate(ctx, v.a), evaluate(ctx, v.b)];
      const cond = condition(ctx, v.cond);
      if (cond === null) return a;
      if (cond === false) return b;
      return choose(cond, a, b, register(v.dtype));
    }
    case "scalar": {
      ctx.usesScalars = true;
      const word = `words[${v.slot >> 2}].${"xyzw"[v.slot & 3]}`;
      return atom(v.dtype === "u32" ? word : `bitcast<${register(v.dtype)}>(${word})`);
    }
    case "threefry":
      return ctx.helped("threefry", "u32", ...v.args.map((a) => evaluate(ctx, a)));
    case "op":
      return operation(ctx, v);
  }
}

function variable(ctx: Context, name: string): Expr {
  const b = ctx.binding(name);
  if (b.k === "value") return b.expr;
  if (b.k === "array") return ctx.fail(`"${name}" is an array`);
  const { acc } = b;
  if (acc.partial) ctx.fail(`accumulator ${name} is read inside the loop that updates it`);
  return atom(acc.combine === "argmax" ? `${acc.name}_at` : acc.name, acc.width);
}

const signs: Partial<Record<ValueOp, "+" | "-" | "*" | "/" | "%">> = {
  add: "+",
  sub: "-",
  mul: "*",
  div: "/",
};
const comparisons: Partial<Record<ValueOp, string>> = { lt: "<", le: "<=", eq: "==" };
const bits: Partial<Record<ValueOp, string>> = { and: "&", or: "|", xor: "^" };

/** Defined for all constants. */
const folds = new Set<ValueOp>([
  "lt",
  "le",
  "eq",
  "and",
  "or",
  "xor",
  "not",
  "where",
  "max",
  "min",
]);

/** Results that an 8-bit type must wrap; the others stay inside it. */
const overflows = new Set<ValueOp>(["neg", "abs", "add", "sub", "mul", "not", "shl", "idiv"]);

function operation(ctx: Context, v: ValueOf<"op">): Expr {
  const from = v.args[0].dtype;
  let args = v.args.map((a) => evaluate(ctx, a));
  if (v.op === "cast" && v.dtype === "f32" && isFloat(from)) return args[0];
  // WGSL refuses to fold what overflows or is undefined; a `let` is no constant.
  if (!folds.has(v.op) && args.every((a) => a.literal))
    args = [named(ctx, from, args[0], v.op), ...args.slice(1)];
  const width = Math.max(...args.map((a) => a.width));
  const [x, y] = args;
  if (v.op === "where") return choose(x, y, args[2], register(v.dtype));
  if (v.op === "cast") return cast(ctx, from, v.dtype, x);
  if (v.op === "bitcast") return reinterpret(ctx, from, v.dtype, x);
  const result = from === "bool" ? logical(ctx, v.op, args) : arithmetic(ctx, v, args, width);
  return overflows.has(v.op) ? wrap(from, result) : result;
}

function named(ctx: Context, dtype: DType, e: Expr, op: ValueOp): Expr {
  const name = ctx.fresh();
  const type = op === "where" ? "bool" : register(dtype);
  ctx.line(`let ${name}: ${typeName(type, e.width)} = ${e.text};`);
  return atom(name, e.width);
}

function logical(ctx: Context, op: ValueOp, args: readonly Expr[]): Expr {
  const width = Math.max(...args.map((a) => a.width));
  const [x, y] = args.map((a) => splat(a, "bool", width));
  const not = (e: Expr): Expr => expr(`!${operand(e, 3)}`, 3, width);
  switch (op) {
    case "not":
      return not(x);
    case "and":
      return bitwise("&", x, y);
    case "or":
      return bitwise("|", x, y);
    case "xor":
      return expr(`${operand(x, 4)} != ${operand(y, 4)}`, 0, width);
    case "eq":
      return expr(`${operand(x, 4)} == ${operand(y, 4)}`, 0, width);
    case "lt":
      return bitwise("&", not(x), y);
    case "le":
      return bitwise("|", not(x), y);
    default:
      return ctx.fail(`no ${op} for bool`);
  }
}

const word = new Uint32Array(1);
const float32 = new Float32Array(word.buffer);

/**
 * Shader compilers may treat floats as real numbers: they make 0 of x · 0, x of x + 0 (wrong for -0) and of (1 + x) - 1, on
 * which log1p relies. So zeros, and what is subtracted, are literals that only the GPU learns.
 */
function hidden(ctx: Context, v: ValueOf<"op">, i: number, e: Expr): Expr {
  const arg = v.args[i];
  if (arg.k !== "const" || !e.literal) return e;
  const subtracted = (v.op === "sub" && i === 1) || (v.op === "add" && arg.value < 0);
  return arg.value === 0 || subtracted ? hiddenLiteral(ctx, arg.value) : e;
}

function hiddenLiteral(ctx: Context, value: number): Expr {
  ctx.usesZero = true;
  float32[0] = value;
  return call("bitcast<f32>", 1, atom(`0x${word[0].toString(16)}u | unknown_zero`));
}

function arithmetic(ctx: Context, v: ValueOf<"op">, args: Expr[], width: number): Expr {
  const from = v.args[0].dtype;
  const scalar = register(from);
  const float = scalar === "f32";
  const all = args.map((a) => splat(a, scalar, width));
  const sign = signs[v.op];
  // Vectors and scalars mix in arithmetic, but not elsewhere.
  if (sign) {
    const [a, b] = float ? args.map((e, i) => hidden(ctx, v, i, e)) : args;
    return infix(sign, a, b);
  }
  const comparison = comparisons[v.op];
  if (comparison) return compare(comparison, all[0], all[1]);
  const bit = bits[v.op];
  if (bit) return bitwise(bit, all[0], all[1]);
  switch (v.op) {
    case "neg":
      if (scalar === "u32") return infix("-", literal("u32", 0), all[0]);
      return expr(`-${operand(all[0], 4)}`, 3, width);
    case "not":
      return expr(`~${operand(all[0], 4)}`, 3, width);
    case "abs":
      return scalar === "u32" ? all[0] : call("abs", width, all[0]);
    case "sqrt":
    case "floor":
    case "round":
      return call(v.op, width, all[0]);
    case "max":
    case "min":
      return extremum(ctx, v.op, from, args[0], args[1]);
    case "shl":
    case "shr":
      return shift(v.op, scalar, all[0], v.args[1], args[1]);
    case "idiv":
    case "rem": {
      if (float) return ctx.helped("rem", "f32", ...all);
      const [, by] = v.args;
      const zero = splat(literal(scalar, 0), scalar, width);
      if (by.k === "const" && by.value === 0) return zero;
      if (v.op === "rem") return infix("%", args[0], args[1]);
      if (by.k === "const") return infix("/", args[0], args[1]);
      return ctx.helped(scalar === "u32" ? "divideUnsigned" : "divide", scalar, ...all);
    }
    case "pow": {
      const [, power] = v.args;
      if (power.k === "const" && power.value === 2) {
        const x = ctx.settle(all[0]);
        return infix("*", x, x);
      }
      return ctx.helped("pow", "f32", ...all);
    }
    case "exp":
    case "log":
    case "tanh":
    case "erf":
    case "sin":
    case "cos":
      return ctx.helped(v.op, "f32", all[0]);
    default:
      return ctx.fail(`no ${v.op} for ${from}`);
  }
}

/** NaN wins. */
export function extremum(ctx: Context, op: "max" | "min", dtype: DType, a: Expr, b: Expr): Expr {
  const scalar = register(dtype);
  if (isFloat(dtype)) return ctx.helped(op, "f32", a, b);
  const width = Math.max(a.width, b.width);
  return call(op, width, splat(a, scalar, width), splat(b, scalar, width));
}

function shift(
  op: "shl" | "shr",
  scalar: "i32" | "u32" | "f32" | "bool",
  x: Expr,
  by: Value,
  count: Expr,
): Expr {
  const sign = op === "shl" ? "<<" : ">>";
  if (by.k === "const")
    return bitwise(sign, x, splat(literal("u32", by.value & 31), "u32", x.width));
  const word = scalar === "u32" ? count : call(typeName("u32", count.width), count.width, count);
  const low = bitwise("&", word, splat(literal("u32", 31), "u32", word.width));
  return bitwise(sign, x, splat(low, "u32", x.width));
}

function cast(ctx: Context, from: DType, to: DType, x: Expr): Expr {
  if (from === to) return x;
  const { width } = x;
  const [a, b] = [register(from), register(to)];
  const convert = (e: Expr): Expr => (a === b ? e : call(typeName(b, width), width, e));
  if (to === "bool") {
    if (isFloat(from)) return ctx.helped("isTrue", "f32", x);
    return compare("!=", x, splat(literal(a, 0), a, width));
  }
  if (isFloat(to)) {
    const e = convert(x);
    if (to === "f16") return ctx.helped("roundHalf", "f32", e);
    return to === "bf16" ? ctx.helped("roundBrain", "f32", e) : e;
  }
  // Floats go through 32 signed bits, whatever the sign of the byte.
  if (isFloat(from)) {
    const e = ctx.helped(to === "u32" ? "toUnsigned" : "toInt", "f32", x);
    return wrap(to, to === "u8" ? call(typeName("u32", width), width, e) : e);
  }
  return from === "bool" ? convert(x) : wrap(to, convert(x));
}

function reinterpret(ctx: Context, from: DType, to: DType, x: Expr): Expr {
  const [a, b] = [register(from), register(to)];
  if (from === to) return x;
  if (isFloat(from) && isFloat(to)) return halfBits(ctx, from, to, x);
  const e = a === b ? x : call(`bitcast<${typeName(b, x.width)}>`, x.width, x);
  return wrap(to, e);
}

/** The bits of one half read as the other kind. */
function halfBits(ctx: Context, from: DType, to: DType, x: Expr): Expr {
  const { width } = x;
  const words = typeName("u32", width);
  const sixteen = splat(literal("u32", 16), "u32", width);
  if (from === "bf16" && to === "f16") {
    const half = bitwise(">>", call(`bitcast<${words}>`, width, x), sixteen);
    return ctx.helped("loadHalf", "u32", half);
  }
  if (from === "f16" && to === "bf16") {
    const up = bitwise("<<", ctx.helped("storeHalf", "f32", x), sixteen);
    return call(`bitcast<${typeName("f32", width)}>`, width, up);
  }
  return ctx.fail(`no bitcast from ${from} to ${to}`);
}
