/**
 * @file Statements of the kernel language as WGSL. Serial loops are `for`, or copies where the kernel asks for that; a
 * vector loop is a block in which names are vectors (see wgsl-context.ts).
 */
import type { Stmt } from "../../kernel/ir.ts";
import { num } from "../../schedule/symbolic.ts";
import {
  accumulatorOf,
  allReduce,
  declareAccumulator,
  update,
  withPartials,
} from "./wgsl-accumulate.ts";
import { type ArrayInfo, elementBytes, elementType, vectorWidth } from "./wgsl-arrays.ts";
import type { Context } from "./wgsl-context.ts";
import {
  atom,
  call,
  choose,
  compare,
  type Expr,
  literal,
  operand,
  splat,
  typeName,
} from "./wgsl-expr.ts";
import { condition, indexAt, indexVector } from "./wgsl-index.ts";
import { matrixStatement, viewedArray } from "./wgsl-matrix.ts";
import { store, storeAdd } from "./wgsl-memory.ts";
import { valueFor, wrap } from "./wgsl-value.ts";

type StmtOf<K extends Stmt["k"]> = Extract<Stmt, { k: K }>;

/** Copies of a loop's body at most, whatever the hint says: code must stay small enough for drivers. */
const maxCopies = 64;

const declares = new Set<Stmt["k"]>(["let", "acc", "local", "shared", "position"]);

export class StmtPrinter {
  private readonly ctx: Context;
  private readonly plan: (s: Stmt) => ArrayInfo;
  /** Sizes of the position statements that are checked, in the order of their occurrence. */
  readonly positions: number[] = [];
  private readonly numbers = new Map<Stmt, number>();
  private sharedNames = 0;

  constructor(ctx: Context, plan: (s: Stmt) => ArrayInfo) {
    this.ctx = ctx;
    this.plan = plan;
    const count = (body: readonly Stmt[]): void => {
      for (const s of body) {
        if (s.k === "position" && !s.known) {
          this.numbers.set(s, this.positions.length);
          this.positions.push(s.size);
        } else if (s.k === "loop" || s.k === "if") count(s.body);
      }
    };
    count(ctx.kernel.body);
  }

  body(body: readonly Stmt[]): void {
    for (const s of body) {
      withPartials(this.ctx, s, () => this.statement(s));
      this.ctx.done();
    }
  }

  private statement(s: Stmt): void {
    const { ctx } = this;
    switch (s.k) {
      case "loop":
        this.loop(s);
        return;
      case "let":
        ctx.hint = s.value.k === "load" ? ctx.name(s.name) : null;
        ctx.declare(s.name, s.value.dtype, valueFor(ctx, s.value));
        ctx.hint = null;
        return;
      case "acc":
        declareAccumulator(ctx, s);
        return;
      case "update": {
        const value = valueFor(ctx, s.value);
        const times = s.times ? valueFor(ctx, s.times) : null;
        const at = s.at ? indexVector(ctx, s.at) : null;
        update(ctx, accumulatorOf(ctx, s.name), value, times, at);
        return;
      }
      case "local":
      case "shared":
        this.array(s);
        return;
      case "store":
      case "storeAdd":
      case "localStore":
        this.store(s);
        return;
      case "if": {
        const cond = condition(ctx, s.cond);
        if (cond === false) return;
        if (cond && cond.width > 1) ctx.fail("a condition that differs between lanes: use a mask");
        ctx.block(cond ? `if (${cond.text})` : "", () => this.body(s.body));
        return;
      }
      case "position":
        this.position(s);
        return;
      case "barrier":
        ctx.line("workgroupBarrier();");
        return;
      case "allReduce":
        allReduce(ctx, accumulatorOf(ctx, s.name), s.width, s.lanes);
        return;
      default:
        matrixStatement(ctx, s);
    }
  }

  private loop(s: StmtOf<"loop">): void {
    const { ctx } = this;
    const width = vectorWidth(ctx.kernel, s);
    if (width > 0) {
      if (ctx.lanes) ctx.fail("a vector loop inside a vector loop");
      ctx.vectors.add(`${s.var} = 0 … ${width - 1}`);
      this.block(s.body, () => {
        ctx.lanes = { name: s.var, width };
        this.body(s.body);
        ctx.lanes = null;
      });
      return;
    }
    const extent = indexAt(ctx, s.extent);
    const count = extent.literal ? Number.parseInt(extent.text, 10) : null;
    if (count !== null && count <= 0) return;
    if (count !== null && count <= Math.min(maxCopies, Math.max(1, s.unroll ?? 1))) {
      for (let i = 0; i < count; i++)
        this.block(s.body, () => {
          ctx.env.set(s.var, num(i));
          this.body(s.body);
        });
      return;
    }
    const end = count === null ? ctx.settle(extent) : extent;
    const name = ctx.name(s.var);
    ctx.block(`for (var ${name} = 0; ${name} < ${end.text}; ${name}++)`, () => {
      ctx.bindings.set(s.var, { k: "value", expr: atom(name) });
      ctx.env.delete(s.var);
      this.body(s.body);
    });
  }

  /** Braces only where something is declared. */
  private block(body: readonly Stmt[], write: () => void): void {
    if (body.some((s) => declares.has(s.k))) this.ctx.block("", write);
    else this.ctx.scope(write);
  }

  private array(s: StmtOf<"local"> | StmtOf<"shared">): void {
    const { ctx } = this;
    const info = this.plan(s);
    let name = ctx.name(s.name);
    const count = info.wide ? Math.ceil(info.size / 4) : info.size;
    const type = `array<${elementType(info)}, ${count}>`;
    if (s.k === "local") ctx.line(`var ${name}: ${type};`);
    else {
      // Two blocks may use one name; the module has one scope.
      if (ctx.shared.has(name)) name = `${name}_${++this.sharedNames}`;
      if (ctx.kernel.subgroups && info.wide) {
        ctx.bindings.set(s.name, { k: "array", array: viewedArray(ctx, { ...info, name }) });
        return;
      }
      ctx.sharedArray(name, elementType(info), elementBytes(info), count);
    }
    ctx.bindings.set(s.name, { k: "array", array: { ...info, name } });
  }

  private store(s: StmtOf<"store"> | StmtOf<"storeAdd"> | StmtOf<"localStore">): void {
    const { ctx } = this;
    const value = valueFor(ctx, s.value);
    if (s.k === "localStore") {
      const b = ctx.binding(s.local);
      if (b.k !== "array") throw ctx.fail(`"${s.local}" is no array`);
      store(ctx, { array: b.array, index: s.index }, value);
      return;
    }
    const array = ctx.buffers[s.buffer];
    if (s.k === "store") store(ctx, { array, index: s.index, mask: s.mask }, value);
    else storeAdd(ctx, { array, index: s.index }, value, (e) => wrap(array.dtype, e));
  }

  /** Outside 0 … size-1 the flag is raised and 0 goes on; the largest number wins, whoever comes first. */
  private position(s: StmtOf<"position">): void {
    const { ctx } = this;
    const raw = ctx.settle(valueFor(ctx, s.value));
    if (s.known) {
      ctx.declare(s.name, "i32", raw);
      return;
    }
    ctx.usesErrors = true;
    const { width } = raw;
    const unsigned: Expr = call(`bitcast<${typeName("u32", width)}>`, width, raw);
    const bound = splat(literal("u32", s.size), "u32", width);
    const outside = ctx.settle(compare(">=", unsigned, bound));
    const number = this.numbers.get(s)! + 1;
    ctx.block(`if (${width > 1 ? `any(${outside.text})` : outside.text})`, () => {
      ctx.line(`atomicMax(&errors[0], ${number}u);`);
      const failed = choose(outside, unsigned, literal("u32", 0), "u32");
      if (width === 1) ctx.line(`atomicMax(&errors[1], ${unsigned.text});`);
      else {
        const e = ctx.settle(failed);
        for (const c of "xyzw".slice(0, width))
          ctx.line(`atomicMax(&errors[1], ${operand(e, 4)}.${c});`);
      }
    });
    const zero = splat(literal("i32", 0), "i32", width);
    ctx.declare(s.name, "i32", choose(outside, zero, raw, "i32"));
  }
}
