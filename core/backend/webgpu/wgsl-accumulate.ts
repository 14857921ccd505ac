/**
 * @file Accumulators. One that is declared outside a vector loop gets a partial result per lane while the loop runs; the
 * partials are combined when it ends, in a fixed order. If nothing in between reads it, they stay open across the loops
 * around the vector loop too.
 *
 * A reduction over invocations exchanges registers in subgroups, where the kernel says so, and goes through workgroup memory
 * for the rest. Two levels of about √width serial steps need two barriers, where a tree of halves needs log₂ width of them.
 */
import { type DType, dtypes, isFloat } from "../../dtype.ts";
import { reductionLevels } from "../../kernel/gpu/reduction.ts";
import type { Combine, Stmt } from "../../kernel/ir.ts";
import { usesOf } from "../../kernel/uses.ts";
import { vectorWidth } from "./wgsl-arrays.ts";
import type { Accumulator, Context } from "./wgsl-context.ts";
import {
  atom,
  bitwise,
  call,
  choose,
  component,
  type Expr,
  infix,
  literal,
  type Register,
  register,
  splat,
  typeName,
} from "./wgsl-expr.ts";
import { constant, extremum, wrap } from "./wgsl-value.ts";

/** Above every index: an empty argmax loses against everything. */
const nowhere = 2147483647;

function identity(ctx: Context, combine: Combine, dtype: DType): Expr {
  if (combine === "sum") return literal(register(dtype), 0);
  if (combine === "prod") return literal(register(dtype), 1);
  const low = combine !== "min";
  if (isFloat(dtype)) return constant(ctx, dtype, low ? -Infinity : Infinity);
  if (dtype === "bool") return literal("bool", low ? 0 : 1);
  const bits = 8 * dtypes[dtype].bytes;
  if (!dtypes[dtype].signed) return literal("u32", low ? 0 : 2 ** bits - 1);
  return literal("i32", low ? -(2 ** (bits - 1)) : 2 ** (bits - 1) - 1);
}

/** A value, and the index of an argmax. */
interface Item {
  readonly value: Expr;
  readonly at: Expr | null;
}

function combined(ctx: Context, acc: Accumulator, a: Item, b: Item): Item {
  const { combine, dtype } = acc;
  const scalar = register(dtype);
  if (combine === "argmax") {
    const width = Math.max(a.value.width, b.value.width);
    const wide = (i: Item): Item => ({
      value: splat(i.value, scalar, width),
      at: splat(i.at!, "i32", width),
    });
    const [old, next] = [wide(a), wide(b)];
    const name = scalar === "f32" ? "wins" : scalar === "u32" ? "winsUnsigned" : "winsInt";
    const wins = call(ctx.helper(name, width), width, next.value, next.at!, old.value, old.at!);
    const mask = ctx.settle(wins);
    return {
      value: ctx.settle(choose(mask, next.value, old.value, scalar)),
      at: ctx.settle(choose(mask, next.at!, old.at!, "i32")),
    };
  }
  return { value: merged(ctx, acc, a.value, b.value), at: null };
}

function merged(ctx: Context, { combine, dtype }: Accumulator, a: Expr, b: Expr): Expr {
  if (combine === "sum") return wrap(dtype, infix("+", a, b));
  if (combine === "prod") return wrap(dtype, infix("*", a, b));
  if (dtype === "bool") {
    const width = Math.max(a.width, b.width);
    const [x, y] = [splat(a, "bool", width), splat(b, "bool", width)];
    return bitwise(combine === "min" ? "&" : "|", x, y);
  }
  return extremum(ctx, combine === "min" ? "min" : "max", dtype, a, b);
}

const itemOf = (acc: Accumulator, name: string, width: number): Item => ({
  value: atom(name, width),
  at: acc.combine === "argmax" ? atom(`${name}_at`, width) : null,
});

function declareCells(ctx: Context, acc: Accumulator, name: string, width: number): void {
  const scalar = register(acc.dtype);
  const start = splat(identity(ctx, acc.combine, acc.dtype), scalar, width);
  ctx.line(`var ${name}: ${typeName(scalar, width)} = ${start.text};`);
  if (acc.combine === "argmax")
    ctx.line(`var ${name}_at = ${splat(literal("i32", nowhere), "i32", width).text};`);
}

function assign(ctx: Context, to: Item, from: Item): void {
  if (to.at && from.at) {
    // Both are in names already, or neither depends on what is written.
    ctx.line(`${to.value.text} = ${from.value.text};`);
    ctx.line(`${to.at.text} = ${from.at.text};`);
  } else ctx.line(`${to.value.text} = ${from.value.text};`);
}

export function declareAccumulator(ctx: Context, s: Extract<Stmt, { k: "acc" }>): void {
  const width = ctx.lanes?.width ?? 1;
  const acc: Accumulator = {
    name: ctx.name(s.name),
    dtype: s.dtype,
    combine: s.combine,
    width,
    partial: null,
    openings: 0,
  };
  declareCells(ctx, acc, acc.name, width);
  ctx.bindings.set(s.name, { k: "acc", acc });
}

export function accumulatorOf(ctx: Context, name: string): Accumulator {
  const b = ctx.binding(name);
  return b.k === "acc" ? b.acc : ctx.fail(`"${name}" is no accumulator`);
}

/** name = combine(name, value [· times]) */
export function update(
  ctx: Context,
  acc: Accumulator,
  value: Expr,
  times: Expr | null,
  at: Expr | null,
): void {
  const { name, width } = acc.partial ?? acc;
  const scalar = register(acc.dtype);
  if (ctx.lanes && width !== ctx.lanes.width)
    ctx.fail(`accumulator ${acc.name} is read and updated in one vector loop`);
  const cell = itemOf(acc, name, width);
  const wide = (e: Expr, type = scalar): Expr => splat(e, type, width);
  if (times) {
    const sum =
      scalar === "f32"
        ? call("fma", width, wide(value), wide(times), cell.value)
        : wrap(acc.dtype, infix("+", cell.value, infix("*", value, times)));
    ctx.line(`${name} = ${sum.text};`);
    return;
  }
  if (acc.combine === "sum" && acc.dtype !== "u8" && acc.dtype !== "i8") {
    ctx.line(`${name} += ${value.text};`);
    return;
  }
  const next: Item = { value: ctx.settle(wide(value)), at: at && wide(at, "i32") };
  assign(ctx, cell, combined(ctx, acc, cell, next));
}

// --- lanes --------------------------------------------------------------------------------------------------

/** Widths of the vector loops in s that update an accumulator. */
function widthsOf(ctx: Context, s: Stmt, name: string, inside = 0): Set<number> {
  const widths = new Set<number>();
  if (s.k === "update" && s.name === name) widths.add(inside);
  if (s.k === "loop" || s.k === "if") {
    const width = (s.k === "loop" && vectorWidth(ctx.kernel, s)) || inside;
    for (const inner of s.body) for (const w of widthsOf(ctx, inner, name, width)) widths.add(w);
  }
  return widths;
}

/** Accumulators in scope that are to be partial during s: see the file's header. */
function partialsOf(ctx: Context, s: Stmt): Map<string, number> {
  const found = new Map<string, number>();
  if (ctx.lanes || !ctx.kernel.threads || (s.k !== "loop" && s.k !== "if")) return found;
  const { vector, plain, reads } = usesOf(s);
  const isVector = s.k === "loop" && vectorWidth(ctx.kernel, s) > 0;
  for (const name of vector) {
    const b = ctx.bindings.get(name);
    if (b?.k !== "acc" || b.acc.partial) continue;
    const [width, ...others] = widthsOf(ctx, s, name);
    // 0: a vector loop of one lane, or of many, that runs as a serial one.
    if (others.length > 0 || width === 0) continue;
    if (isVector || (!plain.has(name) && !reads.has(name))) found.set(name, width);
  }
  return found;
}

/** Writes a statement during which some accumulators are partial. */
export function withPartials(ctx: Context, s: Stmt, write: () => void): void {
  const open = [...partialsOf(ctx, s)].map(([name, width]) => {
    const acc = accumulatorOf(ctx, name);
    // Several loops of one block may fill it.
    const again = acc.openings++;
    acc.partial = { name: `${acc.name}_lanes${again > 0 ? again + 1 : ""}`, width };
    declareCells(ctx, acc, acc.partial.name, width);
    return acc;
  });
  write();
  for (const acc of open) {
    const { name, width } = acc.partial!;
    acc.partial = null;
    const lanes = itemOf(acc, name, width);
    let items: Item[] = Array.from({ length: width }, (_, l) => ({
      value: component(lanes.value, l),
      at: lanes.at && component(lanes.at, l),
    }));
    while (items.length > 1) {
      const half = Math.ceil(items.length / 2);
      items = items.slice(0, half).map((a, i) => {
        const b = items[i + half];
        return b ? combined(ctx, acc, a, b) : a;
      });
    }
    const home = itemOf(acc, acc.name, 1);
    assign(ctx, home, combined(ctx, acc, home, items[0]));
  }
}

// --- invocations --------------------------------------------------------------------------------------------

/** The value of the invocation of the subgroup whose number differs in the bit `mask`. */
function exchanged(value: Expr, scalar: Register, mask: number): Expr {
  const through = (text: string) => `subgroupShuffleXor(${text}, ${mask}u)`;
  if (scalar !== "bool") return atom(through(value.text), value.width);
  const bits = through(`${typeName("u32", value.width)}(${value.text})`);
  return atom(`${typeName("bool", value.width)}(${bits})`, value.width);
}

/** Combines an accumulator over groups of `group` neighbouring invocations; see kernel/gpu/reduction.ts for the order. */
export function allReduce(ctx: Context, acc: Accumulator, group: number, lanes = 1): void {
  if (acc.partial) ctx.fail(`accumulator ${acc.name} is combined inside the loop that updates it`);
  if (group === 1) return;
  const threads = ctx.kernel.threads!;
  const { width } = acc;
  const scalar = register(acc.dtype);
  const t = ctx.name(threads.var);
  const arrays = (level: number, size: number): ((at: string) => Item) => {
    const array = (kind: string, of: Register): string => {
      const type = typeName(of, width);
      const name = `reduce${level}${kind}_${type.replace(/\W/g, "")}`;
      return ctx.sharedArray(name, type, 4 * (width === 3 ? 4 : width), size);
    };
    const value = array("", scalar);
    const at = acc.combine === "argmax" ? array("_at", "i32") : null;
    return (i) => ({
      value: atom(`${value}[${i}]`, width),
      at: at === null ? null : atom(`${at}[${i}]`, width),
    });
  };
  const home = itemOf(acc, acc.name, width);
  /** acc = the combination of `count` items of an array. */
  const gather = (
    items: (at: string) => Item,
    start: string,
    count: number,
    step: number,
  ): void => {
    assign(ctx, home, items(start));
    const stride = step === 1 ? "i" : `i * ${step}`;
    ctx.block(`for (var i = 1; i < ${count}; i++)`, () => {
      const next = items(`${start} + ${stride}`);
      assign(ctx, home, combined(ctx, acc, home, next));
    });
  };
  if (lanes > 1) ctx.usesSubgroups = true;
  for (let mask = 1; mask < lanes; mask *= 2)
    ctx.block("", () => {
      const other: Item = {
        value: ctx.settle(exchanged(home.value, scalar, mask)),
        at: home.at && ctx.settle(exchanged(home.at, "i32", mask)),
      };
      assign(ctx, home, combined(ctx, acc, home, other));
    });
  const left = group / lanes;
  if (left === 1) return;
  const first = arrays(1, threads.extent / lanes);
  ctx.block("", () => {
    let unit = t;
    const own = () => assign(ctx, first(unit), home);
    if (lanes > 1) {
      unit = "unit";
      ctx.line(`let unit = ${t} >> ${Math.log2(lanes)}u;`);
      ctx.block(`if ((${t} & ${lanes - 1}) == 0)`, own);
    } else own();
    ctx.line("workgroupBarrier();");
    const { steps, rest } = reductionLevels(left);
    if (steps === 1) {
      ctx.line(`let start = ${unit} & ${-left};`);
      gather(first, "start", left, 1);
      // The next reduction writes here again.
      ctx.line("workgroupBarrier();");
      return;
    }
    const second = arrays(2, (threads.extent / group) * rest);
    ctx.line(`let lane = ${unit} & ${left - 1};`);
    ctx.line(`let group = ${unit} >> ${Math.log2(left)}u;`);
    ctx.block(`if (lane < ${rest}${lanes > 1 ? ` && (${t} & ${lanes - 1}) == 0` : ""})`, () => {
      ctx.line(`let start = group * ${left} + lane;`);
      gather(first, "start", steps, rest);
      assign(ctx, second(`group * ${rest} + lane`), home);
    });
    ctx.line("workgroupBarrier();");
    ctx.line(`let start = group * ${rest};`);
    gather(second, "start", rest, 1);
  });
}
