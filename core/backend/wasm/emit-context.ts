/**
 * @file What the emitter knows while it walks a kernel: names in scope, the lanes of the vector loop it is in, and how
 * an index expression moves from lane to lane. Statements of a vector loop are emitted for all its unrolled copies
 * side by side (unroll and jam), so uniform values are computed once for them all.
 */
import { type DType, dtypes } from "../../dtype.ts";
import { KernelError } from "../../errors.ts";
import type { Combine, Kernel, Stmt, Value } from "../../kernel/ir.ts";
import {
  freeVars,
  type Index,
  iadd,
  ivalue,
  num,
  substitute,
  type Term,
} from "../../schedule/symbolic.ts";
import { apply, type Expr, type Fn, i32, lane, load, local } from "./emit-expr.ts";
import type { Base, Indices } from "./emit-scope.ts";
import type { Target } from "./math-ops.ts";

/** The lanes being emitted: copy u is the iterations start + 4u … start + 4u + 3. */
export interface Lanes {
  readonly name: string;
  readonly copies: number;
  /** `start` is a multiple of this, as a value; 4·copies of the main loop. */
  readonly group: number;
  readonly start: Index;
  /** The last copy has only so many active lanes: a number, or an i32 local. */
  readonly tail: { readonly active: number | Expr; readonly mask: Expr } | null;
}

/** One accumulator's locals: its value, and the index for argmax. */
export interface Cell {
  readonly value: Expr;
  readonly at: Expr | null;
}

export interface Accumulator {
  readonly combine: Combine;
  readonly dtype: DType;
  /** One per copy when declared inside the vector loop, else one that all lanes share. */
  readonly cells: readonly Cell[];
  readonly uniform: boolean;
  /** While a vector loop (or what encloses it) runs: partial results, per copy and lane. */
  partial: Cell[] | null;
}

export type Binding =
  | { readonly k: "let"; readonly exprs: readonly Expr[]; readonly uniform: boolean }
  | { readonly k: "acc"; readonly acc: Accumulator };

/** Where the lanes of a copy find their element. */
export type Place =
  | { readonly k: "uniform"; readonly index: Index }
  /** Lane l is at base + coef·l. */
  | { readonly k: "affine"; readonly base: Index; readonly coef: number }
  | { readonly k: "free"; readonly lanes: readonly Index[] };

/** Names of a position in index expressions: one, or one per copy and lane. */
type Position = readonly (readonly Index[])[];

export class Context {
  readonly fn: Fn;
  readonly idx: Indices;
  readonly target: Target;
  readonly kernel: Kernel;
  lanes: Lanes | null = null;
  readonly bindings = new Map<string, Binding>();
  /** What index variables stand for: shifted copies, constants of unrolled loops, checked positions. */
  readonly env = new Map<string, Index>();
  readonly positions = new Map<string, Position>();
  private readonly bases = new Map<string, Base>();
  private readonly scalars = new Map<number, Expr>();
  private scratch = 0;
  private unique = 0;
  // Of the current batch.
  readonly memo = new Map<Value, (Expr | undefined)[]>();
  readonly uniform = new Map<Value, boolean>();
  /** What the argmax accumulators compare; they are declared by the type of their index. */
  readonly argmaxTypes: ReadonlyMap<string, DType>;

  constructor(fn: Fn, idx: Indices, target: Target, kernel: Kernel) {
    this.fn = fn;
    this.idx = idx;
    this.target = target;
    this.kernel = kernel;
    this.argmaxTypes = comparedTypes(kernel.body, new Map());
  }

  fail(what: string): never {
    throw new KernelError(`wasm emitter: kernel ${this.kernel.name}: ${what}`);
  }

  get copies(): number {
    return this.lanes?.copies ?? 1;
  }

  /** The argument block's address. */
  get args(): Expr {
    return local(this.idx.word, 2);
  }

  /** A fresh local that the function's prologue sets from the argument block. */
  private argument(offset: number, op: "word" | "v128.load32_splat"): Expr {
    const { fn, idx } = this;
    const opcode = op === "word" ? (`${idx.word}.load` as const) : op;
    const e = load(opcode, offset, [this.args]);
    const target = local(e.type, fn.fresh(e.type));
    fn.first((code) => {
      code.get(2);
      code.memory(opcode, offset);
      code.set(target.imm);
    });
    return target;
  }

  buffer(b: number): Base {
    const key = `b${b}`;
    let base = this.bases.get(key);
    if (!base) this.bases.set(key, (base = { key, value: this.argument(16 + 8 * b, "word") }));
    return base;
  }

  scalar(slot: number): Expr {
    let e = this.scalars.get(slot);
    const offset = 16 + 8 * this.kernel.buffers.length + 4 * slot;
    if (!e) this.scalars.set(slot, (e = this.argument(offset, "v128.load32_splat")));
    return e;
  }

  private readonly locals = new Map<string, { dtype: DType; offset: number }>();

  addLocal(name: string, dtype: DType, size: number): void {
    if (this.lanes) this.fail(`local ${name} is declared inside a vector loop`);
    // A loop body that is emitted twice declares its locals twice.
    if (this.locals.has(name)) return;
    this.locals.set(name, { dtype, offset: this.scratch });
    this.scratch += Math.ceil((size * dtypes[dtype].bytes) / 64) * 64;
  }

  get scratchBytes(): number {
    return this.scratch;
  }

  /** A scratch array: its own key on the one scratch address, and its byte offset there. */
  localArray(name: string): { base: Base; dtype: DType; extra: number } {
    const info = this.locals.get(name) ?? this.fail(`local ${name} is not declared`);
    let scratch = this.bases.get("s");
    if (!scratch) this.bases.set("s", (scratch = { key: "s", value: this.argument(0, "word") }));
    const base = { key: `s${info.offset}`, value: scratch.value };
    return { base, dtype: info.dtype, extra: info.offset };
  }

  /** Emits a body whose names end with it. */
  block(body: () => void): void {
    const names = new Map(this.bindings);
    const positions = new Map(this.positions);
    const env = new Map(this.env);
    this.idx.inBlock(body);
    restore(this.bindings, names);
    restore(this.positions, positions);
    restore(this.env, env);
  }

  /** Ends a batch of expressions. */
  done(): void {
    this.fn.release();
    this.memo.clear();
    this.uniform.clear();
  }

  // --- index expressions over lanes -----------------------------------------------------------------------

  /** Makes a checked position usable in index expressions; `lanes[u][l]`, or one value for all. */
  addPosition(
    name: string,
    size: number,
    words: readonly (readonly Expr[])[],
    uniform: boolean,
  ): void {
    const made = words.map((lanesOfCopy) =>
      lanesOfCopy.map((value) => {
        // A new name each time: caches are keyed by name, and an unrolled loop declares it several times.
        const unique = `${name}#${this.unique++}`;
        this.idx.declare(unique, value);
        return ivalue(unique, size);
      }),
    );
    this.env.delete(name);
    this.positions.delete(name);
    if (uniform) this.env.set(name, made[0][0]);
    else this.positions.set(name, made);
  }

  isLaneIndex(x: Index): boolean {
    if (!this.lanes) return false;
    return this.place(x, 0).k !== "uniform";
  }

  /** How x depends on the lane within copy u. */
  place(x: Index, u: number): Place {
    const { lanes, env, positions } = this;
    if (x.terms.length === 0) return { k: "uniform", index: x };
    const y = env.size > 0 ? substitute(x, env) : x;
    if (!lanes) return { k: "uniform", index: y };
    const names = freeVars(y);
    let varying = false;
    if (positions.size > 0) for (const name of names) varying ||= positions.has(name);
    if (!varying && !names.has(lanes.name)) return { k: "uniform", index: y };
    const at = (offset: number, l: number): Index => {
      const by = new Map([[lanes.name, iadd(lanes.start, num(offset))]]);
      if (varying) for (const [name, p] of positions) by.set(name, p[u][l]);
      return substitute(y, by);
    };
    if (!varying) {
      const shared = laneCoefficient(y, lanes.name, lanes.group);
      if (shared === 0) return { k: "uniform", index: at(0, 0) };
      if (shared !== null)
        return { k: "affine", base: iadd(at(0, 0), num(4 * u * shared)), coef: shared };
      const coef = laneCoefficient(y, lanes.name, 4);
      if (coef !== null) return { k: "affine", base: at(4 * u, 0), coef };
    }
    return { k: "free", lanes: [0, 1, 2, 3].map((l) => at(4 * u + l, l)) };
  }

  /** The tail that copy u ends in, if it does. */
  tail(u: number): Lanes["tail"] {
    return this.lanes && u === this.lanes.copies - 1 ? this.lanes.tail : null;
  }

  /** Lane l of copy u is an iteration: true, false, or an i32 to test. */
  active(u: number, l: number): boolean | Expr {
    const tail = this.tail(u);
    if (!tail) return true;
    if (typeof tail.active === "number") return l < tail.active;
    return l === 0 ? true : apply("i32.gt_s", tail.active, i32(l));
  }

  /** Lane l of a vector of i32 as a word. */
  laneWord(vector: Expr, l: number): Expr {
    return this.idx.widen(lane("i32x4.extract_lane", l, vector));
  }
}

function comparedTypes(body: readonly Stmt[], types: Map<string, DType>): Map<string, DType> {
  for (const s of body) {
    if (s.k === "update" && s.at) types.set(s.name, s.value.dtype);
    else if (s.k === "loop" || s.k === "if") comparedTypes(s.body, types);
  }
  return types;
}

function restore<T>(map: Map<string, T>, old: ReadonlyMap<string, T>): void {
  map.clear();
  for (const [k, v] of old) map.set(k, v);
}

/**
 * c when x moves by c per lane inside each group of `group` lanes that starts at a multiple of it; null when it does
 * not. Divisions are what makes this more than affineIn: with v in groups of 4, v/8 does not change inside a group
 * and v%8 does not wrap around, so reading b[v % 768] beside x[v] is still a vector load.
 */
export function laneCoefficient(x: Index, name: string, group: number): number | null {
  let sum = 0;
  for (const { atom, coef } of x.terms) {
    let c: number | null = 0;
    if (atom.k === "var") c = atom.name === name ? 1 : 0;
    else if (atom.k === "min") {
      const both = [laneCoefficient(atom.a, name, group), laneCoefficient(atom.b, name, group)];
      c = both[0] === 0 && both[1] === 0 ? 0 : null;
    } else if (atom.k === "div" || atom.k === "mod") {
      c = insideDivision(atom.of, atom.by, name, group);
      if (atom.k === "div" && c !== null) c = 0;
    }
    if (c === null) return null;
    sum += coef * c;
  }
  return sum;
}

/** The lane coefficient of x when all lanes of a group have the same ⌊x / by⌋, else null. */
function insideDivision(x: Index, by: number, name: string, group: number): number | null {
  const direct = x.terms.find((t) => t.atom.k === "var" && t.atom.name === name);
  const others: Term[] = x.terms.filter((t) => t !== direct);
  const fixed = (t: Term) =>
    laneCoefficient({ ...x, terms: [{ atom: t.atom, coef: 1 }] }, name, group) === 0;
  if (!others.every(fixed)) return null;
  if (!direct) return 0;
  // x = span·(an integer) + offset + c·lane, and span divides `by`.
  const c = direct.coef;
  const span = c * group;
  if (c < 0 || by % span !== 0 || others.some((t) => t.coef % span !== 0)) return null;
  const offset = x.constant - span * Math.floor(x.constant / span);
  return offset < c ? c : null;
}
