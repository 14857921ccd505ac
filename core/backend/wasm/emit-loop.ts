/**
 * @file Loops. A vector loop becomes up to three pieces: the main loop over 4·copies iterations at a time, single
 * vectors, and a masked tail; with a static extent the last two are one straight piece, or absent. Serial loops are
 * unrolled by repetition. A piece that runs once is no loop: its variable becomes a number.
 */
import type { Stmt, Value } from "../../kernel/ir.ts";
import { type Index, iadd, isConst, ivar, num, substitute } from "../../schedule/symbolic.ts";
import type { Context, Lanes } from "./emit-context.ts";
import { apply, type Expr, i32x4, isTrivial, local } from "./emit-expr.ts";

type Loop = Extract<Stmt, { k: "loop" }>;
type EmitBody = (body: readonly Stmt[]) => void;

/**
 * Copies of a vector loop's body when the kernel gives no hint: short bodies gain most, long ones fill registers. Where a
 * function is called there is one: the call is most of the time.
 */
function copiesFor({ body, unroll }: Loop): number {
  let cost = 0;
  let calls = false;
  const seen = new Set<Value>();
  const value = (v: Value): void => {
    if (seen.has(v)) return;
    seen.add(v);
    cost += v.k === "threefry" ? 100 : 1;
    if (v.k === "op") {
      if (/^(exp|log|sin|cos|tanh|erf|idiv)$/.test(v.op)) cost += 20;
      if (v.op === "pow" || v.op === "rem") calls = true;
      v.args.forEach(value);
    } else if (v.k === "select") {
      value(v.a);
      value(v.b);
    }
  };
  for (const s of body) {
    if (s.k === "loop" || s.k === "if" || s.k === "position") return Math.max(1, unroll ?? 1);
    if ("value" in s) value(s.value);
    if (s.k === "update" && s.times) value(s.times);
  }
  if (calls) return 1;
  if (unroll) return unroll;
  return cost <= 60 ? 4 : cost <= 90 ? 2 : 1;
}

/** A word kept in a local until the block ends. */
function hold(ctx: Context, value: Expr): Expr {
  if (isTrivial(value)) return value;
  const kept = local(value.type, ctx.idx.own(value.type));
  ctx.idx.assign(kept, value);
  return kept;
}

function holdVariable(ctx: Context): Expr {
  const v = local(ctx.idx.word, ctx.idx.own(ctx.idx.word));
  ctx.idx.assign(v, ctx.idx.const(0));
  return v;
}

export function serialLoop(ctx: Context, s: Loop, emit: EmitBody): void {
  const { idx } = ctx;
  const extent = substitute(s.extent, ctx.env);
  const copies = Math.max(1, s.unroll ?? 1);
  const variable = ivar(s.var, Math.max(1, s.extent.max));
  const round = (at: Index): void =>
    ctx.block(() => {
      ctx.env.set(s.var, at);
      emit(s.body);
    });
  const run = (v: Expr, end: Expr, step: number, guarded: boolean): void =>
    idx.loop({ name: s.var, variable: v, step, end, guarded }, () => {
      for (let j = 0; j < step; j++) round(iadd(variable, num(j)));
    });
  if (isConst(extent)) {
    const n = extent.constant;
    const main = Math.floor(n / copies);
    const looped = main > 1 ? main * copies : 0;
    if (looped > 0) run(holdVariable(ctx), idx.const(looped), copies, false);
    for (let i = looped; i < n; i++) round(num(i));
    return;
  }
  const n = idx.value(extent);
  const v = holdVariable(ctx);
  if (copies > 1) run(v, hold(ctx, idx.op("sub", n, idx.const(copies - 1))), copies, true);
  run(v, n, 1, true);
}

export function vectorLoop(ctx: Context, s: Loop, emit: EmitBody): void {
  if (ctx.lanes) ctx.fail("a vector loop inside a vector loop");
  const extent = substitute(s.extent, ctx.env);
  const wanted = copiesFor(s);
  const piece = (lanes: Lanes): void => {
    ctx.lanes = lanes;
    ctx.block(() => emit(s.body));
    ctx.lanes = null;
  };
  if (isConst(extent)) staticPieces(ctx, s, extent.constant, wanted, piece);
  else dynamicPieces(ctx, s, extent, wanted, piece);
}

function staticPieces(
  ctx: Context,
  s: Loop,
  n: number,
  wanted: number,
  piece: (lanes: Lanes) => void,
): void {
  const { idx } = ctx;
  const full = Math.floor(n / 4);
  const copies = Math.min(wanted, Math.max(1, full));
  const common = { name: s.var, group: 4 * copies, tail: null };
  const main = Math.floor(full / copies);
  if (main === 1) piece({ ...common, copies, start: num(0) });
  else if (main > 1) {
    const end = idx.const(main * 4 * copies);
    const variable = holdVariable(ctx);
    const start = ivar(s.var, Math.max(1, s.extent.max));
    idx.loop({ name: s.var, variable, step: 4 * copies, end, guarded: false }, () =>
      piece({ ...common, copies, start }),
    );
  }
  const done = main * copies;
  const active = n % 4;
  const left = full - done + (active > 0 ? 1 : 0);
  if (left === 0) return;
  const mask = i32x4(-1, active > 1 ? -1 : 0, active > 2 ? -1 : 0, 0);
  const tail = active > 0 ? { active, mask } : null;
  piece({ ...common, copies: left, start: num(4 * done), tail });
}

function dynamicPieces(
  ctx: Context,
  s: Loop,
  extent: Index,
  copies: number,
  piece: (lanes: Lanes) => void,
): void {
  const { idx } = ctx;
  const n = hold(ctx, idx.value(extent));
  const variable = holdVariable(ctx);
  const start = ivar(s.var, Math.max(1, s.extent.max));
  const run = (count: number): void => {
    if (extent.max < 4 * count) return;
    const end = hold(ctx, idx.op("sub", n, idx.const(4 * count - 1)));
    idx.loop({ name: s.var, variable, step: 4 * count, end, guarded: true }, () =>
      piece({ name: s.var, copies: count, group: 4 * count, start, tail: null }),
    );
  };
  run(copies);
  if (copies > 1) run(1);
  idx.loop({ name: s.var, variable, step: 4, end: n, guarded: true, once: true }, () => {
    const active = hold(ctx, idx.narrow(idx.op("sub", n, variable)));
    const counts = apply("i32x4.splat", active);
    const mask = hold(ctx, apply("i32x4.lt_s", i32x4(0, 1, 2, 3), counts));
    piece({ name: s.var, copies: 1, group: 4, start, tail: { active, mask } });
  });
}

/** The parallel range: begin … end are the function's first two parameters. */
export function rangeLoop(ctx: Context, body: () => void): void {
  const { idx } = ctx;
  const { range } = ctx.kernel;
  const variable = local(idx.word, idx.own(idx.word));
  idx.assign(variable, idx.widen(local("i32", 0)));
  const end = hold(ctx, idx.widen(local("i32", 1)));
  idx.loop({ name: range.var, variable, step: 1, end, guarded: true }, body);
}
