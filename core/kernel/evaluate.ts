/**
 * @file From nodes to values: writes the computation of a node's element, at a symbolic index, into nested scopes.
 *
 * Evaluation recurses from the node toward what is in memory: movement becomes index arithmetic and masks, element-wise
 * nodes become `let`s, each in the outermost scope whose variables it needs (so what does not change in a loop is
 * computed before it). Equal evaluations in an open scope are shared.
 */
import { exactJson, type Node } from "../graph/node.ts";
import { backward, broadcastIndex, isMovement } from "../schedule/access.ts";
import type { Group } from "../schedule/group.ts";
import { literal } from "../schedule/simplify.ts";
import { weightOf } from "../schedule/stores.ts";
import {
  type Cond,
  freeVars,
  ge,
  type Index,
  iadd,
  isub,
  ivalue,
  linearize,
  lt,
  num,
  simplifyCond,
} from "../schedule/symbolic.ts";
import { numel, type Shape } from "../shape.ts";
import {
  type BufferInfo,
  compute,
  constValue,
  narrow,
  op,
  type Stmt,
  type Value,
  type ValueOp,
  variable,
} from "./ir.ts";

/** A statement list and the variables that it introduces. */
export interface Scope {
  readonly vars: ReadonlySet<string>;
  readonly stmts: Stmt[];
  readonly memo: Map<string, Evaluated>;
  /** Names declared here. */
  readonly names: string[];
}

export interface Evaluated {
  readonly value: Value;
  /** The innermost scope that the value depends on; 0 is the kernel's own. */
  readonly depth: number;
}

export class Evaluator {
  readonly buffers: BufferInfo[] = [];
  /** The node whose storage is bound to each buffer. */
  readonly nodes: Node[] = [];
  /** Random leaves, three scalar words each. */
  readonly randoms: Node<"random">[] = [];
  /** Every address that was read or written: (buffer, index key), for loop planning and in-place checks. */
  readonly accesses: {
    buffer: number;
    index: Index;
    store: boolean;
    masked: boolean;
    depth: number;
  }[] = [];
  readonly masks: Index[] = [];
  readonly scopes: Scope[] = [];
  flopsPerElement = 0;
  /** Build nested expressions instead of `let`s: for templates that take an operand as one expression. */
  inline = false;
  /** Values that are in registers: finished reductions and a template's accumulator. */
  readonly bound = new Map<Node, Evaluated>();
  /** Full rows kept in scratch: node → how to read it back. */
  readonly kept = new Map<Node, () => Evaluated>();
  /** What earlier scopes have put in scratch, by the key that `evaluate` knows it by. */
  readonly cached = new Map<string, Value>();
  private readonly depthOf = new Map<string, number>();
  private counter = 0;

  private readonly inMemory: (n: Node) => boolean;

  /** `inMemory`: is the node read from a buffer here (a placeholder, or stored by another kernel)? */
  constructor(inMemory: (n: Node) => boolean) {
    this.inMemory = inMemory;
  }

  push(vars: Iterable<string>): Scope {
    const scope = { vars: new Set(vars), stmts: [], memo: new Map(), names: [] };
    this.scopes.push(scope);
    for (const v of scope.vars) this.depthOf.set(v, this.scopes.length - 1);
    return scope;
  }

  pop(): Scope {
    const scope = this.scopes.pop()!;
    for (const v of [...scope.vars, ...scope.names]) this.depthOf.delete(v);
    return scope;
  }

  get depth(): number {
    return this.scopes.length - 1;
  }

  fresh(prefix: string): string {
    return `${prefix}${this.counter++}`;
  }

  buffer(n: Node, access: "read" | "write"): number {
    let at = this.nodes.indexOf(n);
    if (at < 0) {
      at = this.nodes.length;
      this.nodes.push(n);
      this.buffers.push({ dtype: n.dtype, size: numel(n.shape), access });
    }
    return at;
  }

  indexDepth(index: Index): number {
    let depth = 0;
    for (const v of freeVars(index)) depth = Math.max(depth, this.depthOf.get(v) ?? 0);
    return depth;
  }

  /** Declares a name in the scope at `depth`, so that index expressions may use it. */
  declare(name: string, depth: number): void {
    this.scopes[depth].names.push(name);
    this.depthOf.set(name, depth);
  }

  private define(key: string, value: Value, depth: number): Evaluated {
    if (this.inline) return { value, depth };
    const name = this.fresh("t");
    this.scopes[depth].stmts.push({ k: "let", name, value });
    const result = { value: variable(value.dtype, name), depth };
    this.scopes[depth].memo.set(key, result);
    return result;
  }

  private known(key: string): Evaluated | undefined {
    for (let i = this.scopes.length - 1; i >= 0; i--) {
      const found = this.scopes[i].memo.get(key);
      if (found) return found;
    }
    return undefined;
  }

  store(n: Node, index: readonly Index[], value: Value, mask: Cond = []): Stmt {
    const buffer = this.buffer(n, "write");
    const at = linearize(index, n.shape);
    this.accesses.push({
      buffer,
      index: at,
      store: true,
      masked: mask.length > 0,
      depth: this.depth,
    });
    return { k: "store", buffer, index: at, value, ...(mask.length > 0 ? { mask } : {}) };
  }

  /** Evaluates a member of a group and writes it: of an update only the slice that changes. */
  write(group: Group, n: Node, index: readonly Index[]): Stmt {
    if (group.kind !== "update") return this.store(n, index, this.evaluate(n, index).value);
    const [, update, ...starts] = n.src;
    const from = this.starts(starts, update.shape, n.shape);
    const { value } = this.evaluate(update, index);
    return this.store(n, index.map((v, i) => iadd(v, from[i])), value); // biome-ignore format: one line
  }

  /** From here on `value`, in the type that n's is computed in, is the value of `n`; it is rounded once. */
  bind(n: Node, value: Value, depth: number): void {
    const exact = narrow(value, n.dtype);
    this.bound.set(
      n,
      exact === value ? { value, depth } : this.define(`bound@${n.id}`, exact, depth),
    );
  }

  /** The value of `n` at `index`; where `mask` fails it may be anything, and nothing is read. */
  evaluate(n: Node, index: readonly Index[], mask: Cond = []): Evaluated {
    const bound = this.bound.get(n);
    if (bound) return bound;
    if (n.op === "constant") {
      const { value } = (n as Node<"constant">).attrs;
      return { value: constValue(n.dtype, value), depth: 0 };
    }
    if (isMovement(n)) return this.movement(n, index, mask);
    const key = `${n.id}@${index.map((x) => x.key).join()}@${mask.map((x) => x.key).join()}`;
    const known = this.known(key);
    if (known) return known;
    // In the phase that keeps a row its elements are still in registers, and known.
    const kept = this.kept.get(n);
    if (kept) return kept();
    const cached = this.cached.get(key);
    if (cached) return this.define(key, cached, this.depth);
    if (this.inMemory(n)) return this.load(key, n, index, mask);
    switch (n.op) {
      case "iota":
        // No address, but loop planning must see it.
        this.masks.push(index[0]);
        return {
          value: { k: "index", dtype: "i32", index: index[0] },
          depth: this.indexDepth(index[0]),
        };
      case "random":
        return this.random(key, n as Node<"random">, index);
      case "gather":
        return this.gather(n as Node<"gather">, index, mask);
      case "dynamicSlice":
        return this.dynamicSlice(n as Node<"dynamicSlice">, index, mask);
      case "dynamicUpdateSlice":
        return this.dynamicUpdateSlice(n as Node<"dynamicUpdateSlice">, index, mask);
      case "concat":
        return this.concat(key, n as Node<"concat">, index, mask);
    }
    const args = n.src.map((s) => this.evaluate(s, broadcastIndex(index, s.shape), mask));
    const depth = Math.max(0, ...args.map((a) => a.depth));
    if (n.op === "cast" && n.dtype === n.src[0].dtype) return args[0];
    this.flopsPerElement += weightOf(n);
    return this.define(key, compute(n.op as ValueOp, n.dtype, ...args.map((a) => a.value)), depth);
  }

  private movement(n: Node, index: readonly Index[], mask: Cond): Evaluated {
    const access = backward(n, index);
    if (n.op !== "pad") return this.evaluate(n.src[0], access.index, mask);
    const other = constValue(n.dtype, (n as Node<"pad">).attrs.value);
    if (access.mask === false) return { value: other, depth: 0 };
    if (access.mask.length === 0) return this.evaluate(n.src[0], access.index, mask);
    const inner = simplifyCond([...mask, ...access.mask]);
    if (inner === false) return { value: other, depth: 0 };
    const a = this.evaluate(n.src[0], access.index, inner);
    return this.select(n, index, access.mask, a, { value: other, depth: 0 });
  }

  private select(
    n: Node,
    index: readonly Index[],
    cond: Cond,
    a: Evaluated,
    b: Evaluated,
  ): Evaluated {
    this.masks.push(...cond);
    const depth = Math.max(a.depth, b.depth, ...cond.map((c) => this.indexDepth(c)));
    const value: Value = { k: "select", dtype: n.dtype, cond, a: a.value, b: b.value };
    const text = (v: Value) => (v.k === "var" ? v.name : exactJson(v));
    const conds = cond.map((c) => c.key).join();
    const key = `${n.id}?${index.map((x) => x.key).join()}?${conds}?${text(a.value)}?${text(b.value)}`;
    return this.known(key) ?? this.define(key, value, depth);
  }

  private load(key: string, n: Node, index: readonly Index[], mask: Cond): Evaluated {
    const at = linearize(index, n.shape);
    const buffer = this.buffer(n, "read");
    const depth = Math.max(this.indexDepth(at), ...mask.map((m) => this.indexDepth(m)));
    this.accesses.push({ buffer, index: at, store: false, masked: mask.length > 0, depth });
    this.masks.push(...mask);
    const masked = mask.length > 0 ? { mask } : {};
    return this.define(key, { k: "load", dtype: n.dtype, buffer, index: at, ...masked }, depth);
  }

  private random(key: string, n: Node<"random">, index: readonly Index[]): Evaluated {
    let at = this.randoms.indexOf(n);
    if (at < 0) at = this.randoms.push(n) - 1;
    const position = linearize(index, n.shape);
    const word = (i: number): Value => ({ k: "scalar", dtype: "u32", slot: 3 * at + i });
    const element = op("bitcast", "u32", { k: "index", dtype: "i32", index: position });
    this.flopsPerElement += weightOf(n);
    // The position decides the depth even though no buffer is addressed; loop planning must see it too.
    this.masks.push(position);
    const value: Value = {
      k: "threefry",
      dtype: "u32",
      args: [word(0), word(1), element, word(2)],
    };
    return this.define(key, value, this.indexDepth(position));
  }

  private gather(n: Node<"gather">, index: readonly Index[], mask: Cond): Evaluated {
    const { axis } = n.attrs;
    const [x, where] = n.src;
    const size = x.shape[axis];
    const found = this.evaluate(where, index, mask);
    const key = `position@${n.id}@${index.map((i) => i.key).join()}@${mask.map((m) => m.key).join()}`;
    let position = this.known(key);
    if (!position) {
      // Where the mask fails the index is meaningless and must not raise the error flag.
      const safe: Value =
        mask.length > 0
          ? { k: "select", dtype: "i32", cond: mask, a: found.value, b: constValue("i32", 0) }
          : found.value;
      const depth = Math.max(found.depth, ...mask.map((m) => this.indexDepth(m)));
      position = this.position(key, safe, size, depth);
    }
    const { name } = position.value as { name: string };
    const at = index.map((v, i) => (i === axis ? ivalue(name, size) : v));
    return this.evaluate(x, at, mask);
  }

  private dynamicSlice(n: Node<"dynamicSlice">, index: readonly Index[], mask: Cond): Evaluated {
    const [x, ...starts] = n.src;
    const from = this.starts(starts, n.shape, x.shape);
    return this.evaluate(x, index.map((v, i) => iadd(v, from[i])), mask); // biome-ignore format: one line
  }

  private dynamicUpdateSlice(
    n: Node<"dynamicUpdateSlice">,
    index: readonly Index[],
    mask: Cond,
  ): Evaluated {
    const [x, update, ...starts] = n.src;
    const from = this.starts(starts, update.shape, n.shape);
    const at = index.map((v, i) => isub(v, from[i]));
    const cond = simplifyCond(at.flatMap((v, i) => [ge(v, 0), lt(v, update.shape[i])]));
    const inside = cond === false ? false : simplifyCond([...mask, ...cond]);
    if (cond === false || inside === false) return this.evaluate(x, index, mask);
    const written = this.evaluate(update, at, inside);
    if (cond.length === 0) return written;
    return this.select(n, index, cond, written, this.evaluate(x, index, mask));
  }

  /** Where a slice of `size` begins on each axis, moved so that it fits; what is known only at run time is a position. */
  private starts(starts: readonly Node[], size: Shape, shape: Shape): Index[] {
    return starts.map((start, i) => {
      const room = shape[i] - size[i];
      const known = literal(start);
      if (room === 0) return num(0);
      if (known !== null) return num(Math.max(0, Math.min(known, room)));
      const key = `start@${start.id}@${room}`;
      let position = this.known(key);
      if (!position) {
        const { value, depth } = this.evaluate(start, []);
        const low = op("max", "i32", value, constValue("i32", 0));
        const fitting = op("min", "i32", low, constValue("i32", room));
        position = this.position(key, fitting, room + 1, depth);
      }
      return ivalue((position.value as { name: string }).name, room + 1);
    });
  }

  /** Declares a position, for index expressions to use. */
  position(key: string, value: Value, size: number, depth: number): Evaluated {
    const name = this.fresh("p");
    this.scopes[depth].stmts.push({ k: "position", name, value, size });
    this.declare(name, depth);
    const position = { value: variable("i32", name), depth };
    this.scopes[depth].memo.set(key, position);
    return position;
  }

  /** Parts from the last to the first: where the position is below a part's end, that part. */
  private concat(key: string, n: Node<"concat">, index: readonly Index[], mask: Cond): Evaluated {
    const { axis } = n.attrs;
    let end = n.shape[axis];
    let result: Evaluated | null = null;
    for (let j = n.src.length - 1; j >= 0; j--) {
      const part = n.src[j];
      const begin = end - part.shape[axis];
      const inside = simplifyCond([ge(index[axis], begin), lt(index[axis], end)]);
      const all = inside === false ? false : simplifyCond([...mask, ...inside]);
      if (inside !== false && all !== false) {
        const at = index.map((v, i) => (i === axis ? isub(v, num(begin)) : v));
        const value = this.evaluate(part, at, all);
        const below = simplifyCond([lt(index[axis], end)]) as Cond;
        result =
          result === null || below.length === 0
            ? value
            : this.select(n, index, below, value, result);
      }
      end = begin;
    }
    this.flopsPerElement += n.src.length;
    const found = result ?? { value: constValue(n.dtype, 0), depth: 0 };
    this.scopes[found.depth].memo.set(key, found);
    return found;
  }
}
