/**
 * @file Expressions: pure WebAssembly values as a DAG, and `Fn`, the function under construction that turns them into
 * stack code. A node used more than once is computed once and kept in a local, so the formulas in math*.ts read like
 * mathematics. What is worth caching across statements is decided elsewhere (emit-scope.ts): a DAG lives for one batch.
 */
import { Code, type Scalar, type Type } from "./assembler.ts";
import type { Opcode } from "./emit-opcodes.ts";

type Emit = (fn: Fn, args: readonly Expr[]) => void;

export interface Expr {
  readonly type: Type;
  readonly kind: "local" | "const" | "op" | "memory" | "shuffle" | "call" | "opaque";
  readonly op: Opcode;
  readonly args: readonly Expr[];
  /** Local index, constant, lane, function index or byte offset. */
  readonly imm: number;
  readonly lane?: number;
  readonly bytes?: Uint8Array | readonly number[];
  readonly big?: bigint;
  readonly emit?: Emit;
  // Bookkeeping of the batch that computes this node.
  uses: number;
  local: number;
}

const make = (
  type: Type,
  kind: Expr["kind"],
  op: Opcode,
  args: readonly Expr[],
  imm = 0,
  rest: Pick<Expr, "lane" | "bytes" | "big" | "emit"> = {},
): Expr => ({ type, kind, op, args, imm, uses: 0, local: -1, ...rest });

const resultTypes = new Map<Opcode, Type>();

function resultType(op: Opcode): Type {
  const known = resultTypes.get(op);
  if (known) return known;
  const [shape, name] = op.split(".");
  let type: Type = "v128";
  if (/any_true|all_true|bitmask/.test(name)) type = "i32";
  else if (name === "extract_lane") type = shape.slice(0, 3) as Type;
  else if (/^[if](32|64)$/.test(shape))
    type = /^(eqz|eq|ne|lt|gt|le|ge)(_|$)/.test(name) ? "i32" : (shape as Type);
  resultTypes.set(op, type);
  return type;
}

/** An instruction on the values of `args`. */
export const apply = (op: Opcode, ...args: Expr[]): Expr =>
  make(op === "select" ? args[0].type : resultType(op), "op", op, args);
/** extract_lane / replace_lane. */
export const lane = (op: Opcode, index: number, ...args: Expr[]): Expr =>
  make(resultType(op), "op", op, args, 0, { lane: index });
/** A load at pointer + offset; `laneIndex` for load_lane, whose second argument is the vector. */
export const load = (op: Opcode, offset: number, args: Expr[], laneIndex?: number): Expr =>
  make(op.startsWith("v128") ? "v128" : (op.slice(0, 3) as Type), "memory", op, args, offset, {
    lane: laneIndex,
  });
export const local = (type: Type, index: number): Expr => make(type, "local", "nop", [], index);
export const i32 = (value: number): Expr => make("i32", "const", "i32.const", [], value);
export const i64 = (value: number | bigint): Expr =>
  make("i64", "const", "i64.const", [], Number(value), { big: BigInt(value) });
export const f64 = (value: number): Expr => make("f64", "const", "f64.const", [], value);
export const shuffle = (lanes: readonly number[], a: Expr, b: Expr): Expr =>
  make("v128", "shuffle", "i8x16.shuffle", [a, b], 0, { bytes: lanes });
export const call = (type: Type, index: number, ...args: Expr[]): Expr =>
  make(type, "call", "call", args, index);
/** Code with control flow; its arguments are locals or constants when `emit` runs. */
export const opaque = (type: Type, args: readonly Expr[], emit: Emit): Expr =>
  make(type, "opaque", "nop", args, 0, { emit });

// Interned, as kernels repeat few of them very often, and `Fn` finds a constant's local by identity.
const interned = new Map<string | number, Expr>();

function vector(key: string | number, bytes: () => ArrayBuffer): Expr {
  let e = interned.get(key);
  if (e) return e;
  if (interned.size > 4096) interned.clear();
  e = make("v128", "const", "v128.const", [], 0, { bytes: new Uint8Array(bytes()) });
  interned.set(key, e);
  return e;
}

/** Four 32-bit integers, or one in all lanes. */
export const i32x4 = (a: number, b = a, c = a, d = a): Expr =>
  vector(`${a},${b},${c},${d}`, () => Int32Array.of(a, b, c, d).buffer);
// A Map does not tell -0 from 0.
export const f32x4 = (x: number): Expr =>
  vector(Object.is(x, -0) ? "-0" : x, () => Float32Array.of(x, x, x, x).buffer);
export const f64x2 = (x: number): Expr =>
  vector(Object.is(x, -0) ? "d-0" : `d${x}`, () => Float64Array.of(x, x).buffer);

/** Costs nothing to repeat and has no batch state: may be shared between batches. */
export const isTrivial = (e: Expr): boolean => e.kind === "local" || e.kind === "const";

/** Byte order of i8x16.shuffle that selects 32-bit lanes 0-3 of a and 4-7 of b. */
export const lanes32 = (...lanes: number[]): number[] =>
  lanes.flatMap((l) => [4 * l, 4 * l + 1, 4 * l + 2, 4 * l + 3]);

/** A function under construction: where code goes, and its locals. */
export class Fn {
  readonly params: readonly Scalar[];
  readonly locals: Type[] = [];
  /** Where code goes now; loops redirect it. */
  code = new Code();
  private readonly pool: Record<Type, number[]> = { i32: [], i64: [], f32: [], f64: [], v128: [] };
  private batch: { type: Type; index: number }[] = [];
  // v128 constants live in locals that the prologue sets: V8 builds a v128.const with four instructions at each use, and
  // reloads a spilled local with one.
  private readonly constants = new Map<Expr, number>();
  private readonly prologue = new Code();
  private readonly keepsConstants: boolean;

  /** `keepsConstants`: false for helpers, which have no loop to keep them for. */
  constructor(params: readonly Scalar[], keepsConstants = true) {
    this.params = params;
    this.keepsConstants = keepsConstants;
  }

  /** A local that no code has used so far: for values that are set in a preheader, before code already emitted. */
  fresh(type: Type): number {
    this.locals.push(type);
    return this.params.length + this.locals.length - 1;
  }

  take(type: Type): number {
    return this.pool[type].pop() ?? this.fresh(type);
  }

  give(type: Type, index: number): void {
    this.pool[type].push(index);
  }

  /** The function's body, constants first. */
  finish(): Code {
    const whole = new Code();
    whole.append(this.prologue);
    whole.append(this.code);
    return whole;
  }

  /** Code that runs once, at the start of the function. */
  first(emit: (code: Code) => void): void {
    emit(this.prologue);
  }

  private constant(e: Expr): number {
    let index = this.constants.get(e);
    if (index === undefined) {
      index = this.fresh("v128");
      this.constants.set(e, index);
      this.prologue.v128(e.bytes as Uint8Array);
      this.prologue.set(index);
    }
    return index;
  }

  /** Announces what one batch will push, in order, so that shared nodes are known before code is made. */
  expect(...roots: Expr[]): void {
    for (const root of roots) this.count(root);
  }

  private count(e: Expr): void {
    if (isTrivial(e)) return;
    if (e.uses++ === 0) for (const a of e.args) this.count(a);
  }

  /** Leaves the value on the stack. */
  push(e: Expr): void {
    const { code } = this;
    if (e.kind === "const") this.pushConstant(e);
    else if (e.kind === "local") code.get(e.imm);
    else if (e.local >= 0) code.get(e.local);
    else this.compute(e);
  }

  private pushConstant(e: Expr): void {
    const { code } = this;
    if (e.type === "i32") code.i32(e.imm);
    else if (e.type === "i64") code.i64(e.big!);
    else if (e.type === "f64") code.f64(e.imm);
    else if (this.keepsConstants) code.get(this.constant(e));
    else code.v128(e.bytes as Uint8Array);
  }

  private compute(e: Expr): void {
    const { code } = this;
    if (e.kind === "opaque") {
      e.emit!(
        this,
        e.args.map((a) => this.settle(a)),
      );
    } else {
      for (const a of e.args) this.push(a);
      if (e.kind === "memory") code.memory(e.op, e.imm, e.lane);
      else if (e.kind === "shuffle") code.shuffle(e.bytes as readonly number[]);
      else if (e.kind === "call") code.opU("call", e.imm);
      else {
        code.op(e.op);
        if (e.lane !== undefined) code.byte(e.lane);
      }
    }
    if (e.uses > 1) {
      this.keep(e);
      code.tee(e.local);
    }
  }

  private keep(e: Expr): void {
    const index = this.take(e.type);
    this.batch.push({ type: e.type, index });
    (e as { local: number }).local = index;
  }

  /** The value as a local or a constant: computed now, if it was not yet. */
  settle(e: Expr): Expr {
    if (isTrivial(e)) return e;
    if (e.local < 0) {
      this.push(e);
      // push keeps shared nodes itself; what remains is on the stack.
      if (e.local < 0) {
        this.keep(e);
        this.code.set(e.local);
      } else this.code.op("drop");
    }
    return local(e.type, e.local);
  }

  /** Ends a batch: its temporaries may be reused. Its non-trivial nodes must not be pushed again. */
  release(): void {
    for (const { type, index } of this.batch) this.give(type, index);
    this.batch = [];
  }
}
