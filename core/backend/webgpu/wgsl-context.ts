/**
 * @file What a kernel's code is written into: lines, names and scopes, the functions and workgroup variables that it turns
 * out to need, and index expressions as i32 arithmetic.
 *
 * Names stay those of the kernel. Inside a vector loop of n lanes a value that differs by lane is a vecN; loop variables
 * stand for themselves, or for a number where a loop was unrolled.
 */
import type { DType } from "../../dtype.ts";
import { KernelError } from "../../errors.ts";
import type { GpuTarget } from "../../kernel/gpu/target.ts";
import type { Combine, Kernel, Value } from "../../kernel/ir.ts";
import type { Index } from "../../schedule/symbolic.ts";
import type { ArrayInfo } from "./wgsl-arrays.ts";
import { atom, call, type Expr, type Register, register, splat, typeName } from "./wgsl-expr.ts";
import type { HelperName } from "./wgsl-helper.ts";
import { helperText, isHelperName } from "./wgsl-math.ts";
import { broken } from "./wgsl-text.ts";
import { reserved } from "./wgsl-words.ts";

export interface Accumulator {
  readonly name: string;
  readonly dtype: DType;
  readonly combine: Combine;
  readonly width: number;
  /** Per-lane results while vector loops run: a name of this many lanes. */
  partial: { readonly name: string; readonly width: number } | null;
  /** How often it has had some. */
  openings: number;
}

export type Binding =
  | { readonly k: "value"; readonly expr: Expr }
  | { readonly k: "acc"; readonly acc: Accumulator }
  | { readonly k: "array"; readonly array: ArrayInfo };

export interface Lanes {
  readonly name: string;
  readonly width: number;
}

/** Names that the printer gives itself. */
const ownNames = /^(buf\d+|words|errors|v\d+|reduce.*|_.*|.*_(lanes\d*|at)|lane|start|group|unit)$/;

export class Context {
  readonly kernel: Kernel;
  readonly target: GpuTarget;
  readonly buffers: readonly ArrayInfo[];
  bindings = new Map<string, Binding>();
  /** What loop variables stand for, where not for themselves. */
  env = new Map<string, Index>();
  lanes: Lanes | null = null;
  /** Values of the running statement that are in a name. */
  memo = new Map<Value, Expr>();
  /** Conditions that differ by lane, likewise. */
  conds = new Map<string, Expr>();
  /** Quotients and remainders of indices that are in a name: they never change while the name is in scope. */
  private quotients = new Map<string, Expr>();
  /** How often the running statement uses each value. */
  uses = new Map<Value, number>();
  /** What vector loops there are, for the reader. */
  readonly vectors = new Set<string>();
  usesScalars = false;
  usesSubgroups = false;
  /** Whether some literal is hidden from the compiler (wgsl-value.ts). */
  usesZero = false;
  usesErrors = false;
  /** Workgroup variables, by name. */
  readonly shared = new Map<string, { type: string; elementBytes: number; size: number }>();
  private readonly lines: string[] = [];
  private readonly helpers = new Map<string, string>();
  private indent = 1;
  private temps = 0;
  private readonly counts = new Map<string, number>();

  constructor(kernel: Kernel, target: GpuTarget, buffers: readonly ArrayInfo[]) {
    this.kernel = kernel;
    this.target = target;
    this.buffers = buffers;
  }

  fail(message: string): never {
    throw new KernelError(`kernel ${this.kernel.name}: ${message}`);
  }

  // --- text -------------------------------------------------------------------------------------------------

  line(text: string): void {
    for (const l of broken(text, 2 * this.indent)) this.lines.push(l);
  }

  /** A braced block; names declared in it end with it. */
  block(head: string, body: () => void): void {
    this.line(head ? `${head} {` : "{");
    this.indent++;
    this.scope(body);
    this.indent--;
    this.line("}");
  }

  /** What is bound in it ends with it. */
  scope(body: () => void): void {
    const { bindings, env, quotients } = this;
    this.bindings = new Map(bindings);
    this.env = new Map(env);
    this.quotients = new Map(quotients);
    body();
    this.bindings = bindings;
    this.env = env;
    this.quotients = quotients;
  }

  text(): string {
    return this.lines.join("\n");
  }

  functions(): string {
    return [...this.helpers.values()].join("\n");
  }

  /** An identifier of WGSL for a name of the kernel. */
  name(name: string): string {
    const clean = name.replace(/\W/g, "_");
    const taken = reserved.has(clean) || isHelperName(clean) || ownNames.test(clean);
    return taken ? `${clean}_` : clean;
  }

  /** A name for the value of a `let`, which its load may take instead of one of its own. */
  hint: string | null = null;

  takeName(): string {
    const name = this.hint ?? this.fresh();
    this.hint = null;
    return name;
  }

  /** A name that nothing in the function has, not even in another block. */
  once(name: string): string {
    const count = (this.counts.get(name) ?? 0) + 1;
    this.counts.set(name, count);
    return count === 1 ? name : `${name}${count}`;
  }

  fresh(): string {
    return `v${++this.temps}`;
  }

  /** The value in a name, so that its text may be repeated. */
  settle(e: Expr): Expr {
    if (/^\w+$/.test(e.text) && !e.literal) return e;
    const name = this.fresh();
    this.line(`let ${name} = ${e.text};`);
    return atom(name, e.width);
  }

  /** A part of an index that is dear to compute, once per scope: drivers find repetitions too, but take their time. */
  quotient(e: Expr): Expr {
    const known = this.quotients.get(e.text);
    if (known) return known;
    const named = this.settle(e);
    this.quotients.set(e.text, named);
    return named;
  }

  /** The name of a function of wgsl-math.ts, which is printed with all it calls. */
  helper(name: HelperName, width = 1): string {
    const { id, text } = helperText(name, width, (other, w) => this.helper(other, w), this.target);
    // Callees come first, since making the text asks for them.
    if (!this.helpers.has(id)) this.helpers.set(id, text());
    return id;
  }

  helped(name: HelperName, scalar: Register, ...args: Expr[]): Expr {
    const width = Math.max(...args.map((a) => a.width));
    return call(this.helper(name, width), width, ...args.map((a) => splat(a, scalar, width)));
  }

  /** A workgroup variable, large enough for every use of its name. */
  sharedArray(name: string, type: string, elementBytes: number, size: number): string {
    const old = this.shared.get(name)?.size ?? 0;
    this.shared.set(name, { type, elementBytes, size: Math.max(old, size) });
    return name;
  }

  sharedBytes(): number {
    const bytes = [...this.shared.values()].map((s) => s.elementBytes * s.size);
    // Each variable starts at a multiple of 16.
    return bytes.reduce((sum, b) => sum + Math.ceil(b / 16) * 16, 0);
  }

  /** Ends a statement: nothing is shared with the next one, before which memory may change. */
  done(): void {
    this.memo = new Map();
    this.conds = new Map();
    this.uses = new Map();
  }

  binding(name: string): Binding {
    return this.bindings.get(name) ?? this.fail(`"${name}" is not in scope`);
  }

  declare(name: string, dtype: DType, value: Expr): void {
    const id = this.name(name);
    const type = value.literal ? `: ${typeName(register(dtype), value.width)}` : "";
    // A masked load has declared it already.
    if (value.text !== id) this.line(`let ${id}${type} = ${value.text};`);
    this.bindings.set(name, { k: "value", expr: atom(id, value.width) });
  }
}
