/**
 * @file The rules of the kernel language: what a kernel must obey before a backend sees it. Scopes, dtypes, indices
 * inside their buffers, accumulators, vector loops and stores that parallel iterations could not share; on GPUs, which
 * invocations a value may differ between, and that nobody waits where not everybody comes.
 *
 * Bounds are proved by range analysis under the conditions in force (masks, ifs, loop extents). What cannot be proved
 * is an error if a point outside is found (an affine index over plain loops always has a corner that shows it); the rest (indices through `min` or divisions
 * under conditions) is left to the interpreter, which sees every access. The conditions use Farkas' idea: x ≥ 0
 * follows from c ≥ 0 if x - λc ≥ 0 for some λ > 0.
 */
import { type DType, dtypes, isFloat, isHalf, isInt } from "../dtype.ts";
import { KernelError } from "../errors.ts";
import {
  type Cond,
  eachAtom,
  evaluate,
  freeVars,
  type Index,
  iadd,
  imul,
  isConst,
  isub,
  ivar,
  num,
} from "../schedule/symbolic.ts";
import {
  type BufferInfo,
  type Kernel,
  type MatrixStmt,
  matrixSide,
  type Stmt,
  takesHalves,
  type Value,
  type ValueOp,
} from "./ir.ts";
import { formatHead, formatIndex } from "./print.ts";

export type Target = "wasm" | "reference" | "webgpu";

/** The statements each target runs. */
const everywhere: readonly Stmt["k"][] = [
  "loop",
  "let",
  "acc",
  "update",
  "local",
  "localStore",
  "store",
  "storeAdd",
  "if",
  "position",
];
const statements: { readonly [T in Target]: ReadonlySet<Stmt["k"]> } = {
  wasm: new Set(everywhere),
  reference: new Set(everywhere),
  webgpu: new Set([
    ...everywhere,
    "shared",
    "barrier",
    "allReduce",
    "matrix",
    "matrixLoad",
    "matrixMultiply",
    "matrixStore",
  ]),
};

/** Lanes of a vector loop in a GPU kernel: one vec4. */
const maxLanes = 4;

/** Scratch of one invocation. */
const maxLocalBytes = 64 << 20;

type Symbol =
  | { readonly k: "loop"; readonly extent: number; readonly varies: boolean }
  | { readonly k: "position"; readonly extent: number; readonly varies: boolean }
  | { readonly k: "let"; readonly dtype: DType; readonly varies: boolean }
  | {
      readonly k: "acc";
      readonly dtype: DType;
      readonly combine: string;
      readonly vector: number;
      readonly varies: boolean;
    }
  | {
      readonly k: "local" | "shared";
      readonly dtype: DType;
      readonly size: number;
      readonly varies: boolean;
    }
  | {
      readonly k: "matrix";
      readonly role: string;
      readonly size: number;
      readonly varies: boolean;
    };

interface Scope {
  readonly names: Map<string, Symbol>;
  /** What holds here: enclosing ifs and loop extents. */
  readonly facts: readonly Index[];
  /** Which vector loop we are in, 0 for none, and its variable. */
  readonly vector: number;
  readonly lane: string | null;
  /** Accumulators that the vector loop we are in updates. */
  readonly filling: ReadonlySet<string>;
  /** Names whose value follows from the range variable. */
  readonly owned: Set<string>;
  /** An enclosing condition depends on the range variable. */
  readonly guarded: boolean;
  /** GPU: names that may differ between the invocations of a workgroup, and an enclosing condition that does. */
  readonly apart: Set<string>;
  readonly alone: boolean;
  /** GPU: an enclosing condition or loop extent differs, so that invocations must not wait for one another. */
  readonly divergent: boolean;
}

const updated = (body: readonly Stmt[]): Set<string> =>
  new Set(
    body.flatMap((s) =>
      s.k === "update" ? [s.name] : s.k === "loop" || s.k === "if" ? [...updated(s.body)] : [],
    ),
  );

export function checkKernel(kernel: Kernel, target: Target): void {
  new Checker(kernel, target).run();
}

class Checker {
  readonly kernel: Kernel;
  readonly target: Target;
  stmt: Stmt | null = null;
  localBytes = 0;
  vectors = 0;

  constructor(kernel: Kernel, target: Target) {
    this.kernel = kernel;
    this.target = target;
  }

  fail(message: string): never {
    const at = this.stmt ? `\n  in: ${formatHead(this.stmt)}` : "";
    throw new KernelError(`kernel ${this.kernel.name}: ${message}${at}`);
  }

  run(): void {
    const { range, buffers, scalars } = this.kernel;
    const natural = (n: number) => Number.isInteger(n) && n >= 0;
    if (!natural(range.extent)) this.fail(`the range has the extent ${range.extent}`);
    if (!natural(scalars)) this.fail(`${scalars} scalars`);
    buffers.forEach((b, i) => {
      if (!natural(b.size)) this.fail(`buffer buf${i} has ${b.size} elements`);
    });
    const names = new Map<string, Symbol>();
    names.set(range.var, { k: "loop", extent: range.extent, varies: false });
    const { threads } = this.kernel;
    if (threads) {
      if (this.target !== "webgpu") this.fail(`${this.target} has no invocations (threads)`);
      if (!(natural(threads.extent) && threads.extent > 0))
        this.fail(`${threads.extent} invocations per workgroup`);
      names.set(threads.var, { k: "loop", extent: threads.extent, varies: false });
    }
    const { subgroups } = this.kernel;
    if (subgroups) {
      const count = (threads?.extent ?? 0) / subgroups.width;
      if (!(natural(count) && count > 0)) this.fail(`subgroups of ${subgroups.width} invocations`);
      names.set(subgroups.var, { k: "loop", extent: count, varies: false });
    }
    this.block(this.kernel.body, {
      names,
      apart: new Set([threads?.var, subgroups?.var].filter((v) => v !== undefined)),
      alone: false,
      divergent: false,
      facts: [],
      vector: 0,
      filling: new Set(),
      lane: null,
      owned: new Set([range.var]),
      guarded: false,
    });
  }

  block(body: readonly Stmt[], outer: Scope): void {
    const scope = {
      ...outer,
      names: new Map(outer.names),
      owned: new Set(outer.owned),
      apart: new Set(outer.apart),
    };
    for (const s of body) {
      this.stmt = s;
      if (!statements[this.target].has(s.k)) this.fail(`${this.target} does not run "${s.k}"`);
      this.statement(s, scope);
    }
  }

  declare(scope: Scope, name: string, symbol: Symbol): void {
    if (scope.names.has(name)) this.fail(`"${name}" is declared twice`);
    scope.names.set(name, symbol);
  }

  statement(s: Stmt, scope: Scope): void {
    switch (s.k) {
      case "loop":
        this.loop(s, scope);
        return;
      case "let": {
        const seen = this.value(s.value, scope);
        this.declare(scope, s.name, { k: "let", dtype: s.value.dtype, varies: seen.varies });
        this.note(s.name, seen, scope);
        return;
      }
      case "acc":
        if (s.dtype === "bool" && s.combine !== "max" && s.combine !== "min")
          this.fail(`a ${s.combine} of booleans`);
        if (isHalf(s.dtype)) this.fail(`an accumulator of ${s.dtype}: halves are summed in f32`);
        this.declare(scope, s.name, {
          k: "acc",
          dtype: s.dtype,
          combine: s.combine,
          vector: scope.vector,
          varies: scope.vector > 0,
        });
        // What an accumulator gathers may follow from the range variable; nothing useful indexes by it.
        scope.apart.add(s.name);
        return;
      case "update":
        this.update(s, scope);
        return;
      case "local": {
        if (!(Number.isInteger(s.size) && s.size > 0)) this.fail(`a local of ${s.size} elements`);
        if (scope.vector > 0) this.fail("a local inside a vector loop");
        this.localBytes += s.size * dtypes[s.dtype].bytes;
        if (this.localBytes > maxLocalBytes)
          this.fail(`locals of ${this.localBytes} bytes, at most ${maxLocalBytes} are allowed`);
        this.declare(scope, s.name, { k: "local", dtype: s.dtype, size: s.size, varies: false });
        return;
      }
      case "shared":
        if (!this.kernel.threads) this.fail("workgroup memory in a kernel without invocations");
        if (!(Number.isInteger(s.size) && s.size > 0)) this.fail(`${s.size} shared elements`);
        if (scope.vector > 0) this.fail("workgroup memory inside a vector loop");
        this.declare(scope, s.name, { k: "shared", dtype: s.dtype, size: s.size, varies: false });
        return;
      case "barrier":
        this.together(s, scope);
        return;
      case "allReduce":
        this.allReduce(s, scope);
        return;
      case "matrix":
      case "matrixLoad":
      case "matrixMultiply":
      case "matrixStore":
        this.matrix(s, scope);
        return;
      case "localStore": {
        const local = this.local(s.local, scope);
        this.value(s.value, scope);
        this.sameType(local.dtype, s.value.dtype);
        const at = this.inBounds(s.index, local.size, scope, []);
        if (local.k === "shared") this.invocationsApart(s.local, s.index, at, scope);
        this.lanesApart(s.index, scope);
        return;
      }
      case "store":
      case "storeAdd":
        this.store(s, scope);
        return;
      case "if": {
        const seen = this.cond(s.cond, scope);
        if (seen.varies) this.fail("control flow depends on the lane of a vector loop");
        this.block(s.body, {
          ...scope,
          facts: [...scope.facts, ...s.cond],
          guarded: scope.guarded || seen.owned,
          alone: scope.alone || seen.apart,
          divergent: scope.divergent || seen.apart,
        });
        return;
      }
      case "position": {
        const seen = this.value(s.value, scope);
        this.sameType("i32", s.value.dtype);
        if (!(Number.isInteger(s.size) && s.size >= 0)) this.fail(`a position within ${s.size}`);
        this.declare(scope, s.name, { k: "position", extent: s.size, varies: seen.varies });
        this.note(s.name, seen, scope);
        return;
      }
    }
  }

  loop(s: Extract<Stmt, { k: "loop" }>, scope: Scope): void {
    const seen = this.index(s.extent, scope);
    if (seen.varies) this.fail("control flow depends on the lane of a vector loop");
    const vector = s.mode === "vector";
    if (vector && scope.vector > 0) this.fail("a vector loop inside a vector loop");
    if (vector && this.kernel.threads && !(isConst(s.extent) && s.extent.constant <= maxLanes))
      this.fail(`a vector loop of ${formatIndex(s.extent)} lanes, at most ${maxLanes} are allowed`);
    const extent = Math.max(0, s.extent.max);
    const inner: Scope = {
      ...scope,
      names: new Map(scope.names),
      owned: new Set(scope.owned),
      apart: new Set(scope.apart),
      divergent: scope.divergent || seen.apart,
      facts: [...scope.facts, isub(s.extent, iadd(ivar(s.var, extent), num(1)))],
      vector: vector ? ++this.vectors : scope.vector,
      lane: vector ? s.var : scope.lane,
      filling: vector ? updated(s.body) : scope.filling,
    };
    this.declare(inner, s.var, { k: "loop", extent, varies: vector && extent > 1 });
    this.block(s.body, inner);
  }

  update(s: Extract<Stmt, { k: "update" }>, scope: Scope): void {
    const acc = scope.names.get(s.name);
    if (acc?.k !== "acc") this.fail(`"${s.name}" is not an accumulator in scope`);
    this.value(s.value, scope);
    this.sameType(acc.dtype, s.value.dtype);
    if (s.times) {
      if (acc.combine !== "sum") this.fail("`times` is for sums");
      this.value(s.times, scope);
      this.sameType(acc.dtype, s.times.dtype);
    }
    if ((s.at !== undefined) !== (acc.combine === "argmax")) this.fail("`at` is for argmax");
    if (s.at) this.index(s.at, scope);
  }

  store(s: Extract<Stmt, { k: "store" | "storeAdd" }>, scope: Scope): void {
    const buffer = this.buffer(s.buffer);
    if (buffer.access === "read") this.fail(`buffer buf${s.buffer} is only read`);
    this.value(s.value, scope);
    this.sameType(buffer.dtype, s.value.dtype);
    if (s.k === "storeAdd" && (buffer.dtype === "bool" || isHalf(buffer.dtype)))
      this.fail(`an addition to ${buffer.dtype}`);
    const mask = s.k === "store" ? (s.mask ?? []) : [];
    const masked = this.cond(mask, scope);
    const at = this.inBounds(s.index, buffer.size, scope, mask);
    if (this.kernel.range.extent > 1 && !at.owned && !masked.owned && !scope.guarded)
      this.fail(
        `every parallel iteration stores to buf${s.buffer}[${formatIndex(s.index)}]: ` +
          `the index does not depend on ${this.kernel.range.var}`,
      );
    this.invocationsApart(`buf${s.buffer}`, s.index, union([at, masked]), scope);
    this.lanesApart(s.index, scope);
  }

  /** Invocations that all store to one element race, whether or not they store the same. */
  invocationsApart(name: string, index: Index, seen: Seen, scope: Scope): void {
    const { threads } = this.kernel;
    if (!threads || threads.extent === 1 || seen.apart || scope.alone) return;
    this.fail(
      `every invocation stores to ${name}[${formatIndex(index)}]: ` +
        `the index does not depend on ${threads.var}`,
    );
  }

  /** What a name stands for follows from what was seen in its value. */
  note(name: string, seen: Seen, scope: Scope): void {
    if (seen.owned) scope.owned.add(name);
    if (seen.apart) scope.apart.add(name);
  }

  /** Invocations wait for one another: all of them must come here. */
  together(s: Stmt, scope: Scope): void {
    if (!this.kernel.threads) this.fail(`${s.k} in a kernel without invocations`);
    if (scope.divergent)
      this.fail(`${s.k} in control flow that may differ between the invocations of a workgroup`);
  }

  allReduce(s: Extract<Stmt, { k: "allReduce" }>, scope: Scope): void {
    this.together(s, scope);
    const acc = scope.names.get(s.name);
    if (acc?.k !== "acc") this.fail(`"${s.name}" is not an accumulator in scope`);
    if (acc.vector !== scope.vector)
      this.fail(`"${s.name}" is combined before the vector loop that fills it has ended`);
    const { extent } = this.kernel.threads!;
    const powerOfTwo = (n: number, of: number) => Number.isInteger(Math.log2(n)) && of % n === 0;
    if (!powerOfTwo(s.width, extent)) this.fail(`groups of ${s.width} among ${extent} invocations`);
    if (!powerOfTwo(s.lanes ?? 1, s.width)) this.fail(`${s.lanes} lanes in groups of ${s.width}`);
  }

  matrix(s: MatrixStmt, scope: Scope): void {
    this.together(s, scope);
    if (!this.kernel.subgroups) this.fail("matrices in a kernel without subgroups");
    if (scope.vector > 0) this.fail("matrices inside a vector loop");
    if (s.k === "matrix") {
      if (!(Number.isInteger(s.size) && s.size > 0)) this.fail(`${s.size} matrices`);
      this.declare(scope, s.name, { k: "matrix", role: s.role, size: s.size, varies: false });
      return;
    }
    const role = (name: string, at: Index): string => {
      const found = scope.names.get(name);
      if (found?.k !== "matrix") this.fail(`"${name}" is not a matrix in scope`);
      this.inBounds(at, found.size, scope, []);
      return found.role;
    };
    const own = role(s.name, s.at);
    if (s.k === "matrixMultiply") {
      const factors = `${role(s.left, s.leftAt)} · ${role(s.right, s.rightAt)}`;
      if (own !== "result" || factors !== "left · right") this.fail(`${own} += ${factors}`);
      return;
    }
    if ((own === "result") !== (s.k === "matrixStore")) this.fail(`a ${own} matrix`);
    const memory = this.local(s.local, scope);
    if (memory.k !== "shared") this.fail(`"${s.local}" is private`);
    this.sameType(own === "result" ? "f32" : "f16", memory.dtype);
    if (s.stride < matrixSide) this.fail(`rows ${s.stride} apart overlap`);
    const last = iadd(s.index, num((matrixSide - 1) * (s.stride + 1)));
    this.inBounds(s.index, memory.size, scope, []);
    this.inBounds(last, memory.size, scope, []);
  }

  /** Lanes of a vector loop must not share what they write, whether or not they write the same. */
  lanesApart(index: Index, scope: Scope): void {
    if (scope.vector === 0) return;
    const lane = scope.names.get(scope.lane!);
    if (lane?.varies && !this.index(index, scope).varies)
      this.fail(`all lanes of ${scope.lane} store to [${formatIndex(index)}]`);
  }

  local(name: string, scope: Scope): Extract<Symbol, { k: "local" | "shared" }> {
    const local = scope.names.get(name);
    return local?.k === "local" || local?.k === "shared"
      ? local
      : this.fail(`"${name}" is not a local in scope`);
  }

  buffer(i: number): BufferInfo {
    return this.kernel.buffers[i] ?? this.fail(`there is no buffer buf${i}`);
  }

  sameType(expected: DType, got: DType): void {
    if (expected !== got) this.fail(`expected ${expected}, got ${got}`);
  }

  // --- expressions: what they depend on ---------------------------------------------------------------------

  /** Checks the variables of an index expression. */
  index(x: Index, scope: Scope): Seen {
    const seen = { varies: false, owned: false, apart: false };
    eachAtom(x, (atom) => {
      if (atom.k !== "var" && atom.k !== "value") return;
      const symbol = scope.names.get(atom.name);
      const fits = symbol?.k === (atom.k === "var" ? "loop" : "position");
      if (!symbol || !fits)
        this.fail(`"${atom.name}" in [${formatIndex(x)}] is not a variable in scope`);
      const { extent } = symbol as { extent: number };
      if (extent > atom.extent)
        this.fail(`"${atom.name}" runs to ${extent}, [${formatIndex(x)}] assumes ${atom.extent}`);
      seen.varies ||= symbol.varies;
      seen.owned ||= scope.owned.has(atom.name);
      seen.apart ||= scope.apart.has(atom.name);
    });
    return seen;
  }

  cond(cond: Cond, scope: Scope): Seen {
    return union(cond.map((x) => this.index(x, scope)));
  }

  value(v: Value, scope: Scope): Seen {
    switch (v.k) {
      case "const":
        return nothing;
      case "scalar":
        if (!(v.slot >= 0 && v.slot < this.kernel.scalars)) this.fail(`no scalar word${v.slot}`);
        if (dtypes[v.dtype].bytes !== 4) this.fail(`a scalar word as ${v.dtype}`);
        return nothing;
      case "var": {
        const symbol = scope.names.get(v.name);
        if (symbol?.k !== "let" && symbol?.k !== "acc" && symbol?.k !== "position")
          this.fail(`"${v.name}" is not a value in scope`);
        if (scope.filling.has(v.name) && symbol.k === "acc" && symbol.vector !== scope.vector)
          this.fail(`"${v.name}" is read before the vector loop that fills it has ended`);
        const index =
          symbol.k === "position" || (symbol.k === "acc" && symbol.combine === "argmax");
        this.sameType(index ? "i32" : (symbol as { dtype: DType }).dtype, v.dtype);
        return {
          varies: symbol.varies,
          owned: scope.owned.has(v.name),
          apart: scope.apart.has(v.name),
        };
      }
      case "load": {
        const buffer = this.buffer(v.buffer);
        this.sameType(buffer.dtype, v.dtype);
        const masked = this.cond(v.mask ?? [], scope);
        const at = this.inBounds(v.index, buffer.size, scope, v.mask ?? []);
        // What is in memory is no control flow that a GPU's compiler would take for uniform.
        return { ...union([masked, at]), apart: true };
      }
      case "localLoad": {
        const local = this.local(v.local, scope);
        this.sameType(local.dtype, v.dtype);
        return { ...this.inBounds(v.index, local.size, scope, []), apart: true };
      }
      case "index":
        return this.index(v.index, scope);
      case "select":
        this.sameType(v.dtype, v.a.dtype);
        this.sameType(v.dtype, v.b.dtype);
        return union([this.cond(v.cond, scope), this.value(v.a, scope), this.value(v.b, scope)]);
      case "threefry":
        if (v.args.length !== 4 || v.args.some((a) => a.dtype !== "u32"))
          this.fail("threefry takes four u32");
        return union(v.args.map((a) => this.value(a, scope)));
      case "op": {
        const problem = opProblem(v.op, v.dtype, v.args);
        if (problem)
          this.fail(`${v.op}(${v.args.map((a) => a.dtype).join(", ")}) → ${v.dtype}: ${problem}`);
        return union(v.args.map((a) => this.value(a, scope)));
      }
    }
  }

  // --- bounds -----------------------------------------------------------------------------------------------

  inBounds(x: Index, size: number, scope: Scope, mask: Cond): Seen {
    const seen = this.index(x, scope);
    if (x.min >= 0 && x.max < size) return seen;
    const facts = [...scope.facts, ...mask].flatMap(conjuncts).filter((f) => f.min < 0);
    if (facts.some((f) => f.max < 0)) return seen; // never runs
    const below = isub(num(size - 1), x);
    const unproved = [x, below].filter((goal) => !follows(goal, facts, 4));
    if (unproved.length === 0) return seen;
    const point = counterexample(x, size, facts, scope);
    if (point) {
      const at = Object.entries(point).map(([name, v]) => `${name} = ${v}`);
      this.fail(
        `[${formatIndex(x)}] runs over ${x.min} … ${x.max}, outside 0 … ${size - 1}` +
          (at.length > 0 ? ` (at ${at.join(", ")})` : ""),
      );
    }
    return seen;
  }
}

/** Whether an expression differs between lanes, follows from the range variable, may differ between invocations. */
interface Seen {
  readonly varies: boolean;
  readonly owned: boolean;
  readonly apart: boolean;
}

const nothing: Seen = { varies: false, owned: false, apart: false };

const union = (seen: readonly Seen[]): Seen => ({
  varies: seen.some((s) => s.varies),
  owned: seen.some((s) => s.owned),
  apart: seen.some((s) => s.apart),
});

/** min(a, b)·c + … ≥ 0 with c > 0 says that both alternatives are. */
function conjuncts(fact: Index): Index[] {
  const term = fact.terms.find((t) => t.atom.k === "min" && t.coef > 0);
  if (term?.atom.k !== "min") return [fact];
  const { a, b } = term.atom;
  const rest = isub(fact, imul(imin1(term.atom), term.coef));
  return [a, b].flatMap((x) => conjuncts(iadd(rest, imul(x, term.coef))));
}

const imin1 = (atom: Index["terms"][number]["atom"]): Index => ({
  constant: 0,
  terms: [{ atom, coef: 1 }],
  min: 0,
  max: 0,
  key: "",
});

/** goal ≥ 0 follows from the ranges after subtracting non-negative multiples of at most `depth` facts. */
function follows(goal: Index, facts: readonly Index[], depth: number): boolean {
  if (goal.min >= 0) return true;
  if (depth === 0) return false;
  for (const fact of facts) {
    for (const t of fact.terms) {
      const mine = goal.terms.find((g) => g.atom.key === t.atom.key);
      if (!mine || Math.sign(mine.coef) !== Math.sign(t.coef)) continue;
      // Eliminate this variable: |t|·goal - |mine|·fact.
      const next = isub(imul(goal, Math.abs(t.coef)), imul(fact, Math.abs(mine.coef)));
      const rest = facts.filter((f) => f !== fact);
      if (follows(next, rest, depth - 1)) return true;
    }
  }
  return false;
}

/** A point of the variables where all facts hold and x is outside 0 … size-1: corners first, then a fixed sample. */
function counterexample(
  x: Index,
  size: number,
  facts: readonly Index[],
  scope: Scope,
): Record<string, number> | null {
  const names = [...new Set([x, ...facts].flatMap((e) => [...freeVars(e)]))];
  const last = names.map((n) => (scope.names.get(n) as { extent: number }).extent - 1);
  if (last.some((n) => n < 0)) return null; // a loop that never runs
  let state = 12345;
  const random = (n: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 4294967296) * n);
  };
  const corners = 2 ** Math.min(names.length, 8);
  for (let i = 0; i < corners + 512; i++) {
    const point: Record<string, number> = {};
    names.forEach((name, b) => {
      const corner = i < corners ? (i >> b) & 1 : random(3);
      point[name] = corner === 0 ? 0 : corner === 1 ? last[b] : random(last[b] + 1);
    });
    const value = evaluate(x, point);
    if ((value < 0 || value >= size) && facts.every((f) => evaluate(f, point) >= 0)) {
      const used = freeVars(x);
      return Object.fromEntries(Object.entries(point).filter(([name]) => used.has(name)));
    }
  }
  return null;
}

// --- dtypes of the element-wise primitives ------------------------------------------------------------------

const accepts = {
  float: isFloat,
  int: isInt,
  number: (d: DType) => d !== "bool",
  bits: (d: DType) => !isFloat(d),
  any: () => true,
};

type Signature = readonly [arity: number, accepts: keyof typeof accepts, result?: DType];

/** As the primitives' rules, for values; where, cast and bitcast stand in `opProblem`. */
const signatures: { readonly [O in Exclude<ValueOp, "where" | "cast" | "bitcast">]: Signature } = {
  neg: [1, "number"],
  abs: [1, "number"],
  exp: [1, "float"],
  log: [1, "float"],
  sin: [1, "float"],
  cos: [1, "float"],
  sqrt: [1, "float"],
  tanh: [1, "float"],
  erf: [1, "float"],
  floor: [1, "float"],
  round: [1, "float"],
  not: [1, "bits"],
  add: [2, "number"],
  sub: [2, "number"],
  mul: [2, "number"],
  div: [2, "float"],
  idiv: [2, "int"],
  rem: [2, "number"],
  pow: [2, "float"],
  max: [2, "number"],
  min: [2, "number"],
  lt: [2, "any", "bool"],
  le: [2, "any", "bool"],
  eq: [2, "any", "bool"],
  and: [2, "bits"],
  or: [2, "bits"],
  xor: [2, "bits"],
  shl: [2, "int"],
  shr: [2, "int"],
};

function opProblem(op: ValueOp, dtype: DType, args: readonly Value[]): string | null {
  const types = args.map((a) => a.dtype);
  if (op === "where") {
    const fits = types.length === 3 && types[0] === "bool" && types[1] === dtype;
    return fits && types[2] === dtype ? null : "expected (bool, T, T) → T";
  }
  if (op === "cast") return types.length === 1 ? null : "expected one operand";
  if (op === "bitcast") {
    const width = types.length === 1 && dtypes[types[0]].bytes === dtypes[dtype].bytes;
    return width && types[0] !== "bool" && dtype !== "bool" ? null : "expected the same width";
  }
  const [arity, kind, result] = signatures[op];
  if (types.length !== arity) return `expected ${arity} operands`;
  if (!types.every((t) => t === types[0] && accepts[kind](t)))
    return `expected ${kind} operands of one dtype`;
  if (isHalf(types[0]) && !takesHalves(op)) return "halves are computed with in f32";
  return (result ?? types[0]) === dtype ? null : `expected the result ${result ?? types[0]}`;
}
