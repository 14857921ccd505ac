/**
 * @file Kernels → one WebAssembly module. This file emits statements and puts functions together; values, memory,
 * loops, accumulators and index arithmetic are in emit-*.ts, transcendental functions in math*.ts.
 *
 * Each kernel is `k<i>(begin: i32, end: i32, args: address)`. args points at: +0 u64 scratch address, +8 u32 error flag
 * (1 + number of the failing position; the first failure stays), +12 i32 the index that failed, +16 u64 per buffer, then
 * u32 per scalar.
 * A vector loop is lane-parallel code for uniform control flow, as ispc compiles it (Pharr & Mark 2012).
 */
import type { Kernel, Stmt } from "../../kernel/ir.ts";
import { assemble, type FunctionSource } from "./assembler.ts";
import {
  accumulatorOf,
  declareAccumulator,
  partialsOf,
  update,
  withPartials,
} from "./emit-accumulate.ts";
import { Context } from "./emit-context.ts";
import { apply, type Expr, Fn, i32, i32x4, isTrivial, lane, local } from "./emit-expr.ts";
import { rangeLoop, serialLoop, vectorLoop } from "./emit-loop.ts";
import {
  type Access,
  guarded,
  indexVector,
  maskOf,
  storable,
  storeAddAt,
  storeAt,
} from "./emit-memory.ts";
import { Indices } from "./emit-scope.ts";
import { isUniform, valueAt } from "./emit-value.ts";
import { makeHelper } from "./math-helpers.ts";
import type { HelperName, Target } from "./math-ops.ts";

export interface EmitOptions {
  readonly address: 32 | 64;
  /** Use relaxed multiply-add. */
  readonly relaxed: boolean;
  /** The memory is a SharedArrayBuffer. */
  readonly shared?: boolean;
}

export interface EmittedModule {
  readonly bytes: Uint8Array;
  readonly scratchBytes: readonly number[];
}

type StmtOf<K extends Stmt["k"]> = Extract<Stmt, { k: K }>;

const copiesOf = (ctx: Context): number[] => Array.from({ length: ctx.copies }, (_, u) => u);

class KernelEmitter {
  private readonly ctx: Context;
  /** Numbers of position statements, in the order of their occurrence in the kernel. */
  private readonly positions = new Map<Stmt, number>();

  constructor(ctx: Context) {
    this.ctx = ctx;
    const number = (body: readonly Stmt[]): void => {
      for (const s of body) {
        if (s.k === "position") this.positions.set(s, this.positions.size);
        else if (s.k === "loop" || s.k === "if") number(s.body);
      }
    };
    number(ctx.kernel.body);
  }

  readonly body = (body: readonly Stmt[]): void => {
    const { ctx } = this;
    for (const s of body) {
      withPartials(ctx, partialsOf(ctx, s), () => this.statement(s));
      ctx.done();
    }
  };

  private statement(s: Stmt): void {
    const { ctx } = this;
    switch (s.k) {
      case "loop":
        if (s.mode === "vector") vectorLoop(ctx, s, this.body);
        else serialLoop(ctx, s, this.body);
        break;
      case "let":
        this.let(s);
        break;
      case "acc":
        declareAccumulator(ctx, s);
        break;
      case "update":
        this.update(s);
        break;
      case "local":
        ctx.addLocal(s.name, s.dtype, s.size);
        break;
      case "store":
      case "storeAdd":
      case "localStore":
        this.store(s);
        break;
      case "if":
        this.branch(s);
        break;
      case "position":
        this.position(s);
    }
  }

  private let(s: StmtOf<"let">): void {
    const { ctx } = this;
    const { fn } = ctx;
    const uniform = isUniform(ctx, s.value);
    const values = (uniform ? [0] : copiesOf(ctx)).map((u) => valueAt(ctx, s.value, u));
    fn.expect(...values);
    // An accumulator's local changes later, all other trivial values are final.
    const changes = s.value.k === "var" && ctx.bindings.get(s.value.name)?.k === "acc";
    const exprs = values.map((e) => {
      if (isTrivial(e) && !changes) return e;
      const kept = local("v128", ctx.idx.own("v128"));
      ctx.idx.assign(kept, e);
      return kept;
    });
    ctx.bindings.set(s.name, { k: "let", exprs, uniform });
  }

  private update(s: StmtOf<"update">): void {
    const { ctx } = this;
    const acc = accumulatorOf(ctx, s.name);
    const parts = copiesOf(ctx).map((u) => ({
      value: valueAt(ctx, s.value, u),
      times: s.times ? valueAt(ctx, s.times, u) : null,
      at: s.at ? indexVector(ctx, s.at, u) : null,
    }));
    for (const { value, times, at } of parts)
      ctx.fn.expect(...[value, times, at].filter((e) => e !== null));
    parts.forEach((p, u) => {
      update(ctx, acc, u, p.value, p.times, p.at);
    });
  }

  private store(s: StmtOf<"store"> | StmtOf<"storeAdd"> | StmtOf<"localStore">): void {
    const { ctx } = this;
    let access: Access;
    if (s.k === "localStore") access = { ...ctx.localArray(s.local), index: s.index };
    else {
      const { dtype } = ctx.kernel.buffers[s.buffer];
      const mask = s.k === "store" ? s.mask : undefined;
      access = { dtype, base: ctx.buffer(s.buffer), index: s.index, mask };
    }
    const stored = (value: Expr) => (s.k === "storeAdd" ? value : storable(access.dtype, value));
    const values = copiesOf(ctx).map((u) => stored(valueAt(ctx, s.value, u)));
    ctx.fn.expect(...values);
    // No load may stand between two stores that are to become one of 256 bits (engine.ts): values first.
    const all = ctx.copies > 1 && s.k !== "storeAdd" ? values.map((v) => ctx.fn.settle(v)) : values;
    all.forEach((value, u) => {
      if (s.k === "storeAdd") storeAddAt(ctx, access, value, u);
      else storeAt(ctx, access, value, u);
    });
  }

  private branch(s: StmtOf<"if">): void {
    const { ctx } = this;
    if (s.cond.some((x) => ctx.isLaneIndex(x)))
      ctx.fail("a condition that differs between lanes: use a mask or select");
    const mask = maskOf(ctx, s.cond, 0);
    if (mask === false) return;
    guarded(ctx.fn, mask?.uniform ?? [], () => ctx.block(() => this.body(s.body)));
  }

  /** Lanes outside 0 … size-1 raise the flag and go on with 0; lanes of a tail that do not run are silent. */
  private position(s: StmtOf<"position">): void {
    const { ctx } = this;
    const { fn, idx } = ctx;
    const uniform = isUniform(ctx, s.value);
    const code = 1 + this.positions.get(s)!;
    const values = (uniform ? [0] : copiesOf(ctx)).map((u) => valueAt(ctx, s.value, u));
    fn.expect(...values);
    const checked = values.map((e, u) => {
      const raw = fn.settle(e);
      const outside = fn.settle(apply("i32x4.ge_u", raw, i32x4(s.size)));
      const tail = uniform ? null : ctx.tail(u);
      const failing = tail ? apply("v128.and", outside, tail.mask) : outside;
      fn.push(apply("v128.any_true", failing));
      fn.code.open("if");
      for (let l = 0; l < (uniform ? 1 : 4); l++) {
        const active = uniform ? true : ctx.active(u, l);
        if (active !== false) this.raise(raw, outside, l, active, code);
      }
      fn.code.end();
      const kept = local("v128", idx.own("v128"));
      idx.assign(kept, apply("v128.andnot", raw, outside));
      return kept;
    });
    ctx.bindings.set(s.name, { k: "let", exprs: checked, uniform });
    const words = checked.map((v) =>
      (uniform ? [0] : [0, 1, 2, 3]).map((l) => {
        const word = local(idx.word, idx.own(idx.word));
        idx.assign(word, ctx.laneWord(v, l));
        return word;
      }),
    );
    ctx.addPosition(s.name, s.size, words, uniform);
  }

  private raise(raw: Expr, outside: Expr, l: number, active: true | Expr, code: number): void {
    const { fn, args } = this.ctx;
    const bad = lane("i32x4.extract_lane", l, outside);
    fn.push(active === true ? bad : apply("i32.and", bad, active));
    fn.push(args);
    fn.code.memory("i32.load", 8);
    fn.code.op("i32.eqz");
    fn.code.op("i32.and");
    fn.code.open("if");
    fn.push(args);
    fn.push(i32(code));
    fn.code.memory("i32.store", 8);
    fn.push(args);
    fn.push(lane("i32x4.extract_lane", l, raw));
    fn.code.memory("i32.store", 12);
    fn.code.end();
  }
}

function emitKernel(kernel: Kernel, target: Target, name: string): [FunctionSource, number] {
  const word = target.address === 64 ? "i64" : "i32";
  const params = ["i32", "i32", word] as const;
  const fn = new Fn(params);
  const ctx = new Context(fn, new Indices(fn, word), target, kernel);
  const emitter = new KernelEmitter(ctx);
  rangeLoop(ctx, () => ctx.block(() => emitter.body(kernel.body)));
  const source = { params, results: [], locals: fn.locals, body: fn.finish(), exported: name };
  return [source, Math.ceil(ctx.scratchBytes / 64) * 64];
}

/** All kernels of a plan as one module: compiling one of many functions costs much less than many of one. */
export function emitKernels(kernels: readonly Kernel[], options: EmitOptions): EmittedModule {
  const helpers = new Map<HelperName, number>();
  const sources: FunctionSource[] = [];
  const target: Target = {
    address: options.address,
    relaxed: options.relaxed,
    helper: (name) => {
      let i = helpers.get(name);
      // Helpers stand after the kernels, so their numbers are known before their code is.
      if (i === undefined) helpers.set(name, (i = kernels.length + helpers.size));
      return i;
    },
  };
  const scratchBytes: number[] = [];
  kernels.forEach((kernel, i) => {
    const [source, bytes] = emitKernel(kernel, target, `k${i}`);
    sources.push(source);
    scratchBytes.push(bytes);
  });
  // A Map also visits what is added meanwhile: helpers may call helpers.
  for (const name of helpers.keys()) sources.push(makeHelper(name, target));
  const memory = { address: options.address, shared: options.shared ?? false };
  return { bytes: assemble(sources, memory), scratchBytes };
}
