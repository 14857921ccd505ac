/**
 * @file Integer arithmetic of kernels: index expressions and byte addresses, each part computed at the outermost loop
 * where its variables exist. A sum is split by loop level; the part of a level is cached in a local of the loop one
 * level further in (its preheader, assembled after the body that asks for it), and a multiple of a loop's own variable
 * becomes a pointer that the loop advances. Equal parts are shared by key, constants go into the instruction.
 *
 * Loop-invariant code motion and strength reduction as in any compiler (Aho et al. §9.1), but driven by the normal
 * form of schedule/symbolic.ts instead of a data-flow analysis. Integers are words: i32 or i64, as addresses are.
 */
import { KernelError } from "../../errors.ts";
import type { Atom, Index, Term } from "../../schedule/symbolic.ts";
import { Code, type Type } from "./assembler.ts";
import { apply, type Expr, type Fn, i32, i64, isTrivial, local } from "./emit-expr.ts";
import type { Opcode } from "./emit-opcodes.ts";

/** What sums may start from: the address of a buffer. */
export interface Base {
  readonly key: string;
  readonly value: Expr;
}

interface Owned {
  readonly type: Type;
  readonly index: number;
}

interface Block {
  readonly cache: Map<string, Expr>;
  readonly owned: Owned[];
}

interface Loop {
  readonly name: string;
  readonly variable: Expr;
  readonly step: number;
  /** Runs before the loop, where the loops further out have their current values. */
  readonly preheader: Code;
  readonly hoisted: Map<string, Expr>;
  /** Sums that advance by a constant per step. */
  readonly inductions: Map<string, { value: Expr; step: number }>;
  readonly blocks: Block[];
}

export interface LoopSource {
  readonly name: string;
  /** The local that holds the variable; set to the first value by the caller, afterwards the first one not done. */
  readonly variable: Expr;
  readonly step: number;
  /** Continues while variable < end (signed). */
  readonly end: Expr;
  /** False when at least one round is certain. */
  readonly guarded: boolean;
  /** A body that runs at most once, without advancing the variable. */
  readonly once?: boolean;
}

/** Larger constants (behind masks that fail) wrap around in the pointer instead: the format has 32 bits for them. */
export const maxOffset = 2 ** 31;

export class Indices {
  private readonly fn: Fn;
  readonly word: "i32" | "i64";
  private readonly loops: Loop[];
  private readonly levels = new Map<string, number>();
  private readonly values = new Map<string, Expr>();

  constructor(fn: Fn, word: "i32" | "i64") {
    this.fn = fn;
    this.word = word;
    this.loops = [this.makeLoop("", this.const(0), 0)];
  }

  private makeLoop(name: string, variable: Expr, step: number): Loop {
    const preheader = new Code();
    const block = { cache: new Map(), owned: [] };
    return {
      name,
      variable,
      step,
      preheader,
      hoisted: new Map(),
      inductions: new Map(),
      blocks: [block],
    };
  }

  const(value: number): Expr {
    return this.word === "i64" ? i64(value) : i32(value);
  }

  op(name: string, a: Expr, b: Expr): Expr {
    return apply(`${this.word}.${name}` as Opcode, a, b);
  }

  /** A word as an i32. */
  narrow(x: Expr): Expr {
    return this.word === "i64" ? apply("i32.wrap_i64", x) : x;
  }

  /** An i32 that is not negative as a word. */
  widen(x: Expr): Expr {
    return this.word === "i64" ? apply("i64.extend_i32_s", x) : x;
  }

  private get top(): Loop {
    return this.loops[this.loops.length - 1];
  }

  private get block(): Block {
    return this.top.blocks[this.top.blocks.length - 1];
  }

  /** A local that is free again at the end of the current block. */
  own(type: Type): number {
    const index = this.fn.take(type);
    this.block.owned.push({ type, index });
    return index;
  }

  /** Code that may not run although what follows does: what it caches is forgotten afterwards. */
  inBlock(body: () => void): void {
    this.top.blocks.push({ cache: new Map(), owned: [] });
    body();
    this.drop(this.top.blocks.pop()!);
  }

  private drop(block: Block): void {
    for (const { type, index } of block.owned) this.fn.give(type, index);
  }

  /** Declares a word computed in the current body (a checked position) as an atom. */
  declare(name: string, value: Expr): void {
    this.levels.set(name, this.loops.length - 1);
    this.values.set(name, value);
  }

  loop(source: LoopSource, body: () => void): void {
    const { fn } = this;
    const outer = fn.code;
    const loop = this.makeLoop(source.name, source.variable, source.step);
    this.loops.push(loop);
    this.declare(source.name, source.variable);
    fn.code = new Code();
    body();
    if (!source.once) {
      for (const { value, step } of loop.inductions.values())
        this.assign(value, this.op("add", value, this.const(step)));
      this.assign(source.variable, this.op("add", source.variable, this.const(source.step)));
    }
    const inner = fn.code;
    this.loops.pop();
    fn.code = outer;
    const more = () => fn.push(this.op("lt_s", source.variable, source.end));
    if (source.guarded) {
      more();
      outer.open("if");
    }
    outer.append(loop.preheader);
    if (!source.once) outer.open("loop");
    outer.append(inner);
    if (!source.once) {
      more();
      outer.opU("br_if", 0);
      outer.end();
    }
    if (source.guarded) outer.end();
    this.drop(loop.blocks[0]);
    // A variable's induction may be the variable itself: that local is the caller's.
    for (const e of loop.hoisted.values()) if (e.kind === "local") fn.give(e.type, e.imm);
    for (const { value } of loop.inductions.values()) fn.give(value.type, value.imm);
  }

  assign(target: Expr, value: Expr): void {
    this.fn.push(value);
    this.fn.code.set(target.imm);
  }

  /** The value of an index expression: a local or a constant. */
  value(x: Index): Expr {
    if (x.terms.length === 0) return this.const(x.constant);
    const sum = this.sum(this.loops.length - 1, null, 1, x.terms);
    return x.constant === 0 ? sum : this.plus(sum, x.constant, x.terms, x.key);
  }

  /** The address of element x of a buffer: a local, and a byte offset for the instruction. */
  address(base: Base, bytes: number, x: Index, extra = 0): { pointer: Expr; offset: number } {
    const pointer =
      x.terms.length === 0 ? base.value : this.sum(this.loops.length - 1, base, bytes, x.terms);
    const offset = x.constant * bytes + extra;
    // Offsets add without wrapping around: the pointer alone must be an address already, not below the buffer.
    if (x.min - x.constant >= 0 && offset >= 0 && offset < maxOffset) return { pointer, offset };
    const key = `${base.key}+${bytes}*(${x.key})`;
    return { pointer: this.plus(pointer, offset, x.terms, key), offset: 0 };
  }

  /** A local with x + constant, where x is the sum of `terms`. */
  private plus(x: Expr, constant: number, terms: readonly Term[], key: string): Expr {
    const make = () => this.op("add", x, this.const(constant));
    return this.cached(`+${key}`, this.levelOfTerms(terms), make);
  }

  /**
   * Computes once where the loops up to `level` are entered and none further in is. `make` runs with the code pointer
   * at that place.
   */
  private cached(key: string, level: number, make: () => Expr): Expr {
    const { fn } = this;
    if (level === this.loops.length - 1) {
      for (const block of this.top.blocks) {
        const known = block.cache.get(key);
        if (known) return known;
      }
      const made = make();
      if (isTrivial(made)) return made;
      const target = local(made.type, this.own(made.type));
      this.assign(target, made);
      this.block.cache.set(key, target);
      return target;
    }
    const inner = this.loops[level + 1];
    const known = inner.hoisted.get(key);
    if (known) return known;
    const here = fn.code;
    fn.code = inner.preheader;
    const made = make();
    // Always a local of its own: the preheader stands before code that was made earlier and may use any old one.
    const target = local(made.type, fn.fresh(made.type));
    this.assign(target, made);
    fn.code = here;
    inner.hoisted.set(key, target);
    return target;
  }

  private levelOf(atom: Atom): number {
    switch (atom.k) {
      case "var":
      case "value": {
        const level = this.levels.get(atom.name);
        if (level === undefined)
          throw new KernelError(`wasm emitter: index variable ${atom.name} is not in scope`);
        return level;
      }
      case "min":
        return Math.max(this.levelOfTerms(atom.a.terms), this.levelOfTerms(atom.b.terms));
      default:
        return this.levelOfTerms(atom.of.terms);
    }
  }

  private levelOfTerms(terms: readonly Term[]): number {
    let level = 0;
    for (const t of terms) level = Math.max(level, this.levelOf(t.atom));
    return level;
  }

  /** base + scale·Σ terms, wanted at loop level `at` or further in. */
  private sum(at: number, base: Base | null, scale: number, terms: readonly Term[]): Expr {
    if (terms.length === 0) return base ? base.value : this.const(0);
    const level = this.levelOfTerms(terms);
    const loop = this.loops[level];
    const top = terms.filter((t) => this.levelOf(t.atom) === level);
    const rest = terms.filter((t) => this.levelOf(t.atom) < level);
    const own = top.find((t) => t.atom.k === "var" && t.atom.name === loop.name);
    const key = sumKey(base, scale, terms);
    if (own && top.length === 1) return this.induction(loop, level, base, scale, own, rest, key);
    const others = top.filter((t) => t !== own);
    const where = Math.min(level, at);
    return this.cached(key, where, () => {
      let value: Expr | null = null;
      if (own || rest.length > 0 || base)
        value = this.sum(level, base, scale, own ? [...rest, own] : rest);
      for (const t of others) {
        const term = this.times(this.atom(t.atom, level), t.coef * scale);
        value = value ? this.op("add", value, term) : term;
      }
      return value!;
    });
  }

  /** base + scale·(rest + coef·v) in the loop over v. */
  private induction(
    loop: Loop,
    level: number,
    base: Base | null,
    scale: number,
    own: Term,
    rest: readonly Term[],
    key: string,
  ): Expr {
    const factor = own.coef * scale;
    if (factor === 1 && !base && rest.length === 0) return loop.variable;
    const known = loop.inductions.get(key);
    if (known) return known.value;
    const { fn } = this;
    const start = this.sum(level - 1, base, scale, rest);
    const value = local(this.word, fn.fresh(this.word));
    const here = fn.code;
    fn.code = loop.preheader;
    const product = this.times(loop.variable, factor);
    this.assign(value, rest.length > 0 || base ? this.op("add", start, product) : product);
    fn.code = here;
    loop.inductions.set(key, { value, step: factor * loop.step });
    return value;
  }

  private times(x: Expr, factor: number): Expr {
    if (factor === 1) return x;
    const shift = Math.log2(factor);
    if (Number.isInteger(shift)) return this.op("shl", x, this.const(shift));
    return this.op("mul", x, this.const(factor));
  }

  /** Called with the code pointer where `level`'s values are current. */
  private atom(atom: Atom, level: number): Expr {
    if (atom.k === "var" || atom.k === "value") return this.values.get(atom.name)!;
    const of = (x: Index): Expr => {
      const sum = this.sum(level, null, 1, x.terms);
      if (x.terms.length === 0) return this.const(x.constant);
      return x.constant === 0 ? sum : this.op("add", sum, this.const(x.constant));
    };
    return this.cached(`@${atom.key}`, level, () => {
      if (atom.k === "min") {
        // Twice on the stack, so both sides become locals.
        const a = this.cached(`=${atom.a.key}`, level, () => of(atom.a));
        const b = this.cached(`=${atom.b.key}`, level, () => of(atom.b));
        return apply("select", a, b, this.op("lt_s", a, b));
      }
      const x = of(atom.of);
      return atom.k === "div"
        ? this.floorDiv(x, atom.by, atom.of.min >= 0)
        : this.floorMod(x, atom.by, atom.of.min >= 0);
    });
  }

  private get signShift(): Expr {
    return this.const(this.word === "i64" ? 63 : 31);
  }

  private floorDiv(x: Expr, by: number, unsigned: boolean): Expr {
    const shift = Math.log2(by);
    if (Number.isInteger(shift)) return this.op("shr_s", x, this.const(shift));
    if (unsigned) return this.op("div_u", x, this.const(by));
    // Truncation of x - (by - 1) is the floor of x for negative x.
    const kept = this.keep(x);
    const bias = this.op("and", this.op("shr_s", kept, this.signShift), this.const(by - 1));
    return this.op("div_s", this.op("sub", kept, bias), this.const(by));
  }

  private floorMod(x: Expr, by: number, unsigned: boolean): Expr {
    if (Number.isInteger(Math.log2(by))) return this.op("and", x, this.const(by - 1));
    if (unsigned) return this.op("rem_u", x, this.const(by));
    const r = this.keep(this.op("rem_s", x, this.const(by)));
    const wrap = this.op("and", this.op("shr_s", r, this.signShift), this.const(by));
    return this.op("add", r, wrap);
  }

  /** A value used twice, in a local for good: these are rare. */
  private keep(x: Expr): Expr {
    if (isTrivial(x)) return x;
    const target = local(x.type, this.fn.fresh(x.type));
    this.assign(target, x);
    return target;
  }
}

function sumKey(base: Base | null, scale: number, terms: readonly Term[]): string {
  let key = `${base?.key ?? ""}+${scale}*`;
  for (const t of terms) key += `${t.coef}*${t.atom.key}+`;
  return key;
}
