/**
 * @file Accumulators. One that is declared outside a vector loop gets a partial result per unrolled copy and lane while
 * the loop runs; they are combined when it ends, in a fixed order, so results do not depend on who runs the kernel.
 * If nothing in between reads it, the partials stay open across the loops around the vector loop too.
 */
import { type DType, isFloat } from "../../dtype.ts";
import type { Combine, Stmt } from "../../kernel/ir.ts";
import { usesOf } from "../../kernel/uses.ts";
import { Code } from "./assembler.ts";
import type { Accumulator, Cell, Context } from "./emit-context.ts";
import { apply, type Expr, i32x4, lanes32, local, shuffle } from "./emit-expr.ts";
import { wrap } from "./emit-memory.ts";
import { literal, opcodeOf } from "./emit-value.ts";
import { and, choose, madd, or } from "./math-ops.ts";

const lowest: Record<DType, number> = {
  f32: -Infinity,
  f16: -Infinity,
  bf16: -Infinity,
  i32: -2147483648,
  u32: 0,
  i8: -128,
  u8: 0,
  bool: 0,
};
const highest: Record<DType, number> = {
  f32: Infinity,
  f16: Infinity,
  bf16: Infinity,
  i32: 2147483647,
  u32: 4294967295,
  i8: 127,
  u8: 255,
  bool: 1,
};

function identity(combine: Combine, dtype: DType): Expr {
  switch (combine) {
    case "sum":
      return literal(dtype, 0);
    case "prod":
      return literal(dtype, 1);
    case "min":
      return literal(dtype, highest[dtype]);
    default:
      return literal(dtype, lowest[dtype]);
  }
}

/** A pair (value, index) or a plain value. */
interface Item {
  readonly value: Expr;
  readonly at: Expr | null;
}

function combined(acc: Accumulator, a: Item, b: Item): Item {
  const { combine, dtype } = acc;
  if (combine === "argmax") return better(dtype, a, b);
  if (dtype === "bool" && combine !== "prod")
    return { value: combine === "min" ? and(a.value, b.value) : or(a.value, b.value), at: null };
  const op = { sum: "add", prod: "mul", max: "max", min: "min" } as const;
  const opcode = opcodeOf(op[combine], dtype)!;
  return { value: wrap(dtype, apply(opcode, a.value, b.value)), at: null };
}

/**
 * f32x4.max takes nine x86 instructions, most of them for NaN: here they are collected in a mask of their own. pmax takes
 * one, and of zeros of two signs its first argument: so both orders, and the bits that they share.
 */
function extremeApart({ combine }: Accumulator, cell: Cell, x: Expr): Item {
  const pick = combine === "max" ? "f32x4.pmax" : "f32x4.pmin";
  const orders = [apply(pick, cell.value, x), apply(pick, x, cell.value)] as const;
  const value = combine === "max" ? and(...orders) : or(...orders);
  return { value, at: or(cell.at!, apply("f32x4.ne", x, x)) };
}

/** Are lanes that have seen NaN marked in the second half of partial cells? */
const marksNaN = ({ combine, dtype }: Pick<Accumulator, "combine" | "dtype">): boolean =>
  isFloat(dtype) && (combine === "max" || combine === "min");

/** The larger value; of equal ones, and of two NaN, the lower index. */
function better(dtype: DType, best: Item, next: Item): Item {
  const float = dtype === "f32";
  const greater = apply(opcodeOf("lt", dtype)!, best.value, next.value);
  let equal = apply(float ? "f32x4.eq" : "i32x4.eq", best.value, next.value);
  let wins = greater;
  if (float) {
    const bestNaN = apply("f32x4.ne", best.value, best.value);
    const nextNaN = apply("f32x4.ne", next.value, next.value);
    wins = or(greater, apply("v128.andnot", nextNaN, bestNaN));
    equal = or(equal, and(bestNaN, nextNaN));
  }
  // Unsigned: an accumulator starts at index -1, above all.
  const earlier = apply("i32x4.lt_u", next.at!, best.at!);
  const mask = or(wins, and(equal, earlier));
  return { value: choose(mask, next.value, best.value), at: choose(mask, next.at!, best.at!) };
}

function makeCell(paired: boolean, make: () => number): Cell {
  const at = paired ? local("v128", make()) : null;
  return { value: local("v128", make()), at };
}

function reset(ctx: Context, acc: Accumulator, cell: Cell): void {
  ctx.idx.assign(cell.value, identity(acc.combine, acc.dtype));
  if (cell.at) ctx.idx.assign(cell.at, i32x4(acc.combine === "argmax" ? -1 : 0));
}

function write(ctx: Context, cell: Cell, item: Item): void {
  const { fn } = ctx;
  const roots = cell.at ? [item.value, item.at!] : [item.value];
  fn.expect(...roots);
  // Both are evaluated before either is replaced.
  for (const r of roots) fn.push(r);
  if (cell.at) fn.code.set(cell.at.imm);
  fn.code.set(cell.value.imm);
}

export function declareAccumulator(ctx: Context, s: Extract<Stmt, { k: "acc" }>): void {
  const dtype = s.combine === "argmax" ? (ctx.argmaxTypes.get(s.name) ?? s.dtype) : s.dtype;
  const cells = Array.from({ length: ctx.copies }, () =>
    makeCell(s.combine === "argmax", () => ctx.idx.own("v128")),
  );
  const acc: Accumulator = { combine: s.combine, dtype, cells, uniform: !ctx.lanes, partial: null };
  for (const cell of cells) reset(ctx, acc, cell);
  ctx.bindings.set(s.name, { k: "acc", acc });
}

export function accumulatorOf(ctx: Context, name: string): Accumulator {
  const b = ctx.bindings.get(name);
  return b?.k === "acc" ? b.acc : ctx.fail(`accumulator ${name} is not in scope`);
}

/** name = combine(name, value [· times]) in copy u. */
export function update(
  ctx: Context,
  acc: Accumulator,
  u: number,
  value: Expr,
  times: Expr | null,
  at: Expr | null,
): void {
  const partial = acc.partial !== null;
  if (ctx.lanes && !partial && acc.uniform)
    ctx.fail("an accumulator is read and updated in one vector loop");
  const cell = partial ? partialCell(ctx, acc, u) : acc.cells[u];
  let item: Item;
  if (partial && marksNaN(acc)) item = extremeApart(acc, cell, value);
  else if (times) {
    const float = acc.dtype === "f32";
    const sum = float
      ? madd(ctx.target, value, times, cell.value)
      : wrap(acc.dtype, apply("i32x4.add", apply("i32x4.mul", value, times), cell.value));
    item = { value: sum, at: null };
  } else item = combined(acc, cell, { value, at });
  const tail = ctx.tail(u);
  if (partial && tail) {
    const keep = (e: Expr, old: Expr) => choose(tail.mask, e, old);
    item = { value: keep(item.value, cell.value), at: item.at && keep(item.at, cell.at!) };
  }
  write(ctx, cell, item);
}

function partialCell(ctx: Context, acc: Accumulator, u: number): Cell {
  const cells = acc.partial!;
  // Set before code that was made earlier: never a reused local.
  const paired = acc.combine === "argmax" || marksNaN(acc);
  while (cells.length <= u) cells.push(makeCell(paired, () => ctx.fn.fresh("v128")));
  return cells[u];
}

function reduceLanes(acc: Accumulator, item: Item): Item {
  let x = item;
  for (const order of [lanes32(2, 3, 0, 1), lanes32(1, 0, 3, 2)]) {
    const moved = (e: Expr) => shuffle(order, e, e);
    x = combined(acc, x, { value: moved(x.value), at: x.at && moved(x.at) });
  }
  return x;
}

/** Emits a statement during which the accumulators `names` are partial. */
export function withPartials(ctx: Context, names: readonly string[], emit: () => void): void {
  if (names.length === 0) {
    emit();
    return;
  }
  const { fn } = ctx;
  const accs = names.map((n) => accumulatorOf(ctx, n));
  for (const acc of accs) acc.partial = [];
  const outer = fn.code;
  fn.code = new Code();
  emit();
  const inner = fn.code;
  fn.code = outer;
  for (const acc of accs) for (const cell of acc.partial!) reset(ctx, acc, cell);
  outer.append(inner);
  for (const acc of accs) {
    const cells = acc.partial!;
    acc.partial = null;
    if (cells.length === 0) continue;
    // All ones is a NaN.
    const whole = (c: Cell): Item => ({ value: or(c.value, c.at!), at: null });
    let items: Item[] = marksNaN(acc) ? cells.map(whole) : [...cells];
    while (items.length > 1) {
      const half = Math.ceil(items.length / 2);
      const joined = items.slice(half).map((b, i) => combined(acc, items[i], b));
      items = [...joined, ...items.slice(joined.length, half)];
    }
    const [home] = acc.cells;
    write(ctx, home, combined(acc, home, reduceLanes(acc, items[0])));
    ctx.done();
    for (const cell of cells) {
      fn.give("v128", cell.value.imm);
      if (cell.at) fn.give("v128", cell.at.imm);
    }
  }
}

/** Accumulators in scope that are to be partial during s: see the file's header. */
export function partialsOf(ctx: Context, s: Stmt): string[] {
  if (ctx.lanes || (s.k !== "loop" && s.k !== "if")) return [];
  const { vector, plain, reads } = usesOf(s);
  const isVector = s.k === "loop" && s.mode === "vector";
  return [...vector].filter((name) => {
    const b = ctx.bindings.get(name);
    if (b?.k !== "acc" || b.acc.partial) return false;
    return isVector || (!plain.has(name) && !reads.has(name));
  });
}
