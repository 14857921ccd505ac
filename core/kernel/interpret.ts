/**
 * @file Runs a kernel on the host, invocation by invocation and lane by lane, and finds what a compiled kernel would
 * only show as a wrong number: accesses outside a buffer, reads of what nobody wrote, and races, between iterations
 * of the parallel range or between lanes of a vector loop.
 *
 * Each statement becomes a closure once; variables live in numbered slots. Arithmetic is float32 (every operation
 * rounded) and wraps integers as the language says, so results agree with a backend up to the order of sums.
 * A race is found by the order-free rule (as Eraser does with locks): two iterations touch one element and at
 * least one writes, whether or not this run's order happens to give the right result.
 */
import { type DType, dtypes, floatToInt, isFloat, roundTo, type TypedArray } from "../dtype.ts";
import { KernelError } from "../errors.ts";
import { erf, pow, roundEven, threefry2x32 } from "../math.ts";
import type { Atom, Cond, Index } from "../schedule/symbolic.ts";
import type { Combine, Kernel, Stmt, Value, ValueOp } from "./ir.ts";
import { formatHead } from "./print.ts";

export interface InterpretOptions {
  /** The part of the parallel range to run; all of it by default. */
  readonly begin?: number;
  readonly end?: number;
  /** Look for races and uninitialised reads (default). Bounds are always checked. */
  readonly detect?: boolean;
}

export interface InterpretResult {
  /** The first `position` outside its size: which `position` statement (in program order), and the value. */
  error?: { position: number; value: number };
}

export function interpret(
  kernel: Kernel,
  buffers: readonly TypedArray[],
  scalars: Uint32Array,
  options: InterpretOptions = {},
): InterpretResult {
  return new Machine(kernel, buffers, scalars, options.detect ?? true).run(
    options.begin ?? 0,
    options.end ?? kernel.range.extent,
  );
}

/** Who touched each element of a memory. Iterations and lanes are numbered from 1; 0 is nobody, -1 several. */
interface Tracks {
  readonly written: Uint8Array;
  readonly writer: Int32Array;
  readonly reader: Int32Array;
  /** The same between lanes, valid where `epoch` is that of the running vector loop. */
  readonly epoch: Int32Array;
  readonly laneWriter: Int32Array;
  readonly laneReader: Int32Array;
}

interface Memory {
  readonly label: string;
  readonly dtype: DType;
  data: TypedArray;
  readonly size: number;
  /** Locals are private to an iteration: no races between iterations. */
  readonly shared: boolean;
  readonly tracks: Tracks | null;
}

type Slot = { readonly slot: number } | { readonly memory: Memory } | { readonly acc: Accumulator };

interface Accumulator {
  readonly dtype: DType;
  readonly combine: Combine;
  value: number;
  at: number;
  empty: boolean;
}

type Eval = () => number;
type Run = () => void;
type Names = Map<string, Slot>;

const words = new DataView(new ArrayBuffer(8));

class Machine {
  readonly kernel: Kernel;
  readonly detect: boolean;
  readonly memories: readonly Memory[];
  readonly scalars: Uint32Array;
  readonly env: number[] = [];
  readonly result: InterpretResult = {};
  positions = 0;
  /** The statement that runs, the iteration (from 1), the lane (from 1; 0 outside vector loops), the vector loop. */
  stmt: Stmt | null = null;
  iteration = 0;
  lane = 0;
  epoch = 0;
  readonly loops: { name: string; slot: number }[] = [];

  constructor(
    kernel: Kernel,
    buffers: readonly TypedArray[],
    scalars: Uint32Array,
    detect: boolean,
  ) {
    this.kernel = kernel;
    this.detect = detect;
    this.scalars = scalars;
    if (buffers.length !== kernel.buffers.length || scalars.length < kernel.scalars)
      throw new KernelError(
        `kernel ${kernel.name}: expected ${kernel.buffers.length} buffers and ${kernel.scalars} scalars, ` +
          `got ${buffers.length} and ${scalars.length}`,
      );
    // One storage bound twice (an update in place) is one memory to the detector.
    const shared = new Map<TypedArray, Tracks>();
    this.memories = kernel.buffers.map((info, i) => {
      const data = buffers[i];
      if (!(data instanceof dtypes[info.dtype].array) || data.length < info.size)
        throw new KernelError(
          `kernel ${kernel.name}: buf${i} expected ${info.dtype}[${info.size}], ` +
            `got ${data.constructor.name}[${data.length}]`,
        );
      let tracks = shared.get(data) ?? null;
      if (detect && !tracks) shared.set(data, (tracks = makeTracks(data.length)));
      if (tracks && info.access !== "write") tracks.written.fill(1);
      return {
        label: `buf${i}`,
        dtype: info.dtype,
        data,
        size: info.size,
        shared: true,
        tracks,
      };
    });
  }

  run(begin: number, end: number): InterpretResult {
    const names: Names = new Map();
    const slot = this.declareSlot(names, this.kernel.range.var);
    this.loops.push({ name: this.kernel.range.var, slot });
    const body = this.block(this.kernel.body, names);
    for (let i = begin; i < end; i++) {
      this.env[slot] = i;
      this.iteration = i + 1;
      body();
    }
    return this.result;
  }

  fail(message: string): never {
    const at = this.loops
      .filter((l) => this.env[l.slot] !== undefined)
      .map((l) => `${l.name} = ${this.env[l.slot]}`);
    throw new KernelError(
      `kernel ${this.kernel.name}: ${message}\n  in: ${this.stmt ? formatHead(this.stmt) : "(start)"}` +
        `\n  at: ${at.join(", ")}`,
    );
  }

  declareSlot(names: Names, name: string): number {
    const slot = this.env.length;
    this.env.push(undefined as unknown as number);
    names.set(name, { slot });
    return slot;
  }

  // --- memory -----------------------------------------------------------------------------------------------

  checkIndex(m: Memory, i: number): void {
    if (!(i >= 0 && i < m.size)) this.fail(`${m.label}[${i}] is outside its ${m.size} elements`);
  }

  read(m: Memory, i: number): number {
    this.checkIndex(m, i);
    const t = m.tracks;
    if (t) {
      if (!t.written[i]) this.fail(`${m.label}[${i}] is read before it is written`);
      if (m.shared) {
        if (t.writer[i] !== 0 && t.writer[i] !== this.iteration)
          this.fail(
            `race: iteration ${this.iteration - 1} reads ${m.label}[${i}], which iteration ${t.writer[i] - 1} writes`,
          );
        t.reader[i] = t.reader[i] === 0 || t.reader[i] === this.iteration ? this.iteration : -1;
      }
      if (this.lane !== 0) {
        this.enter(t, i);
        if (t.laneWriter[i] !== 0 && t.laneWriter[i] !== this.lane)
          this.fail(
            `race: lane ${this.lane - 1} reads ${m.label}[${i}], which lane ${t.laneWriter[i] - 1} writes`,
          );
        t.laneReader[i] = t.laneReader[i] === 0 || t.laneReader[i] === this.lane ? this.lane : -1;
      }
    }
    return m.data[i];
  }

  write(m: Memory, i: number, value: number): void {
    this.checkIndex(m, i);
    const t = m.tracks;
    if (t) {
      if (m.shared) {
        this.conflict(m, i, "iteration", t.writer[i], this.iteration, "write");
        this.conflict(m, i, "iteration", t.reader[i], this.iteration, "read");
        t.writer[i] = this.iteration;
      }
      if (this.lane !== 0) {
        this.enter(t, i);
        this.conflict(m, i, "lane", t.laneWriter[i], this.lane, "write");
        this.conflict(m, i, "lane", t.laneReader[i], this.lane, "read");
        t.laneWriter[i] = this.lane;
      }
      t.written[i] = 1;
    }
    m.data[i] = value;
  }

  conflict(m: Memory, i: number, who: string, other: number, self: number, did: string): void {
    if (other === 0 || other === self) return;
    const name = other < 0 ? `several ${who}s` : `${who} ${other - 1}`;
    this.fail(
      `race: ${who} ${self - 1} writes ${m.label}[${i}], which ${name} ${did}${other < 0 ? "" : "s"}`,
    );
  }

  /** Lane records of another vector loop are void. */
  enter(t: Tracks, i: number): void {
    if (t.epoch[i] === this.epoch) return;
    t.epoch[i] = this.epoch;
    t.laneWriter[i] = 0;
    t.laneReader[i] = 0;
  }

  // --- statements -------------------------------------------------------------------------------------------

  block(body: readonly Stmt[], outer: Names): Run {
    const names = new Map(outer);
    const steps = body.map((s) => ({ s, run: this.statement(s, names) }));
    return () => {
      for (const { s, run } of steps) {
        this.stmt = s;
        run();
      }
    };
  }

  statement(s: Stmt, names: Names): Run {
    switch (s.k) {
      case "loop":
        return this.loop(s, names);
      case "let": {
        const value = this.value(s.value, names);
        const slot = this.declareSlot(names, s.name);
        return () => {
          this.env[slot] = value();
        };
      }
      case "acc": {
        const acc: Accumulator = { ...s, value: 0, at: 0, empty: true };
        names.set(s.name, { acc });
        const start = identity(s.combine, s.dtype);
        return () => {
          acc.value = start;
          acc.at = 0;
          acc.empty = true;
        };
      }
      case "update": {
        const acc = this.acc(s.name, names);
        const value = this.value(s.value, names);
        const times = s.times ? this.value(s.times, names) : null;
        const at = s.at ? this.index(s.at, names) : () => 0;
        const product = binary.mul[kindOf(acc.dtype)];
        const round = (x: number) => roundTo(acc.dtype, x);
        if (times) return () => combine(acc, round(product(value(), times())), 0);
        return () => combine(acc, value(), at());
      }
      case "local": {
        const { array } = dtypes[s.dtype];
        const memory: Memory = {
          label: s.name,
          dtype: s.dtype,
          data: new array(s.size),
          size: s.size,
          shared: false,
          tracks: this.detect ? makeTracks(s.size) : null,
        };
        names.set(s.name, { memory });
        return () => {
          memory.tracks?.written.fill(0);
        };
      }
      case "localStore": {
        const memory = this.memory(s.local, names);
        const index = this.index(s.index, names);
        const value = this.value(s.value, names);
        return () => this.write(memory, index(), value());
      }
      case "store": {
        const memory = this.memories[s.buffer];
        const index = this.index(s.index, names);
        const value = this.value(s.value, names);
        const mask = s.mask ? this.cond(s.mask, names) : null;
        return () => {
          const v = value();
          if (!mask || mask()) this.write(memory, index(), v);
        };
      }
      case "storeAdd": {
        const memory = this.memories[s.buffer];
        const index = this.index(s.index, names);
        const value = this.value(s.value, names);
        const add = binary.add[kindOf(memory.dtype)];
        return () => {
          const i = index();
          this.write(memory, i, roundTo(memory.dtype, add(this.read(memory, i), value())));
        };
      }
      case "if": {
        const cond = this.cond(s.cond, names);
        const body = this.block(s.body, names);
        return () => {
          if (cond()) body();
        };
      }
      case "position": {
        const number = this.positions++;
        const value = this.value(s.value, names);
        const slot = this.declareSlot(names, s.name);
        return () => {
          const v = value();
          const inside = v >= 0 && v < s.size;
          if (!inside) this.result.error ??= { position: number, value: v };
          this.env[slot] = inside ? v : 0;
        };
      }
      case "shared":
      case "barrier":
      case "allReduce":
        throw new KernelError(`${s.k}: no kernel for a CPU`);
    }
  }

  loop(s: Extract<Stmt, { k: "loop" }>, outer: Names): Run {
    const names = new Map(outer);
    const extent = this.index(s.extent, names);
    const slot = this.declareSlot(names, s.var);
    this.loops.push({ name: s.var, slot });
    const body = this.block(s.body, names);
    const vector = s.mode === "vector";
    return () => {
      const n = extent();
      if (vector) this.epoch++;
      for (let i = 0; i < n; i++) {
        this.env[slot] = i;
        if (vector) this.lane = i + 1;
        body();
      }
      if (vector) this.lane = 0;
      this.env[slot] = undefined as unknown as number;
    };
  }

  slot(name: string, names: Names): number {
    const found = names.get(name);
    return found && "slot" in found
      ? found.slot
      : this.fail(`"${name}" is not a variable in scope`);
  }

  acc(name: string, names: Names): Accumulator {
    const found = names.get(name);
    return found && "acc" in found ? found.acc : this.fail(`"${name}" is not an accumulator`);
  }

  memory(name: string, names: Names): Memory {
    const found = names.get(name);
    return found && "memory" in found ? found.memory : this.fail(`"${name}" is not a local`);
  }

  // --- expressions ------------------------------------------------------------------------------------------

  index(x: Index, names: Names): Eval {
    const { env } = this;
    const { constant } = x;
    if (x.terms.length === 0) return () => constant;
    const terms = x.terms.map((t) => ({ atom: this.atom(t.atom, names), coef: t.coef }));
    if (terms.length === 1 && constant === 0 && terms[0].coef === 1) return terms[0].atom;
    const plain = x.terms.every((t) => t.atom.k === "var" || t.atom.k === "value");
    if (plain) {
      const slots = x.terms.map((t) => this.slot((t.atom as { name: string }).name, names));
      const coefs = x.terms.map((t) => t.coef);
      return () => {
        let sum = constant;
        for (let i = 0; i < slots.length; i++) sum += coefs[i] * env[slots[i]];
        return sum;
      };
    }
    return () => {
      let sum = constant;
      for (const t of terms) sum += t.coef * t.atom();
      return sum;
    };
  }

  atom(a: Atom, names: Names): Eval {
    switch (a.k) {
      case "var":
      case "value": {
        const { env } = this;
        const slot = this.slot(a.name, names);
        return () => env[slot];
      }
      case "div": {
        const of = this.index(a.of, names);
        return () => Math.floor(of() / a.by);
      }
      case "mod": {
        const of = this.index(a.of, names);
        return () => {
          const x = of();
          return x - a.by * Math.floor(x / a.by);
        };
      }
      case "min": {
        const [x, y] = [this.index(a.a, names), this.index(a.b, names)];
        return () => Math.min(x(), y());
      }
    }
  }

  cond(cond: Cond, names: Names): () => boolean {
    const entries = cond.map((x) => this.index(x, names));
    return () => entries.every((e) => e() >= 0);
  }

  value(v: Value, names: Names): Eval {
    switch (v.k) {
      case "const": {
        const c = roundTo(v.dtype, v.value);
        return () => c;
      }
      case "var": {
        const found = names.get(v.name);
        if (found && "acc" in found) {
          const { acc } = found;
          return acc.combine === "argmax" ? () => acc.at : () => acc.value;
        }
        const slot = this.slot(v.name, names);
        const { env } = this;
        return () => env[slot];
      }
      case "load": {
        const memory = this.memories[v.buffer];
        const index = this.index(v.index, names);
        const mask = v.mask && v.mask.length > 0 ? this.cond(v.mask, names) : null;
        if (!mask) return () => this.read(memory, index());
        return () => (mask() ? this.read(memory, index()) : 0);
      }
      case "localLoad": {
        const memory = this.memory(v.local, names);
        const index = this.index(v.index, names);
        return () => this.read(memory, index());
      }
      case "index": {
        const index = this.index(v.index, names);
        return () => index() | 0;
      }
      case "select": {
        const cond = this.cond(v.cond, names);
        const [a, b] = [this.value(v.a, names), this.value(v.b, names)];
        return () => {
          const [x, y] = [a(), b()];
          return cond() ? x : y;
        };
      }
      case "scalar":
        return () => bits("u32", v.dtype, this.scalars[v.slot]);
      case "threefry": {
        const [k0, k1, c0, c1] = v.args.map((a) => this.value(a, names));
        return () => threefry2x32(k0(), k1(), c0(), c1());
      }
      case "op":
        return this.op(v, names);
    }
  }

  op(v: Extract<Value, { k: "op" }>, names: Names): Eval {
    const [a, b, c] = v.args.map((x) => this.value(x, names));
    const { dtype } = v;
    const from = v.args[0].dtype;
    switch (v.op) {
      case "where":
        return () => {
          const [p, x, y] = [a(), b(), c()];
          return p ? x : y;
        };
      case "cast":
        if (isFloat(from) && dtype !== "bool" && !isFloat(dtype))
          return () => floatToInt(dtype, a());
        return () => roundTo(dtype, a());
      case "bitcast":
        return () => bits(from, dtype, a());
      case "not":
        return from === "bool" ? () => 1 - a() : () => roundTo(dtype, ~a());
      case "shr":
        // A logical shift of u8 is one of its zero-extended word.
        if (!dtypes[dtype].signed) return () => a() >>> (b() & 31);
        return () => a() >> (b() & 31);
      case "lt":
      case "le":
      case "eq": {
        const f = compare[v.op];
        return () => (f(a(), b()) ? 1 : 0);
      }
    }
    if (v.op in binary) {
      const f = binary[v.op as keyof typeof binary][kindOf(dtype)];
      return () => roundTo(dtype, f(a(), b()));
    }
    const f = unary[v.op as keyof typeof unary];
    return () => roundTo(dtype, f(a()));
  }
}

function makeTracks(size: number): Tracks {
  const ints = () => new Int32Array(size);
  return {
    written: new Uint8Array(size),
    writer: ints(),
    reader: ints(),
    epoch: ints(),
    laneWriter: ints(),
    laneReader: ints(),
  };
}

// --- arithmetic ---------------------------------------------------------------------------------------------

function bits(from: DType, to: DType, value: number): number {
  if (dtypes[from].bytes === 1) return roundTo(to, value);
  if (isFloat(from)) words.setFloat32(0, value);
  else words.setInt32(0, value | 0);
  return isFloat(to) ? words.getFloat32(0) : roundTo(to, words.getInt32(0));
}

const compare = {
  lt: (a: number, b: number) => a < b,
  le: (a: number, b: number) => a <= b,
  eq: (a: number, b: number) => a === b,
};

const unary: {
  readonly [O in Extract<
    ValueOp,
    "neg" | "abs" | "exp" | "log" | "sin" | "cos" | "sqrt" | "tanh" | "erf" | "floor" | "round"
  >]: (x: number) => number;
} = {
  neg: (x) => -x,
  abs: Math.abs,
  exp: Math.exp,
  log: Math.log,
  sin: Math.sin,
  cos: Math.cos,
  sqrt: Math.sqrt,
  tanh: Math.tanh,
  erf,
  floor: Math.floor,
  round: roundEven,
};

type Kind = "float" | "int";
const kindOf = (dtype: DType): Kind => (isFloat(dtype) ? "float" : "int");
type Binary = (a: number, b: number) => number;
const both = (f: Binary) => ({ float: f, int: f });

/** Before rounding to the dtype. Integer division by zero gives 0, as the remainder does (PyTorch raises). */
const binary: {
  readonly [O in Extract<
    ValueOp,
    | "add"
    | "sub"
    | "mul"
    | "div"
    | "idiv"
    | "rem"
    | "pow"
    | "max"
    | "min"
    | "and"
    | "or"
    | "xor"
    | "shl"
  >]: { readonly [K in Kind]: Binary };
} = {
  add: both((a, b) => a + b),
  sub: both((a, b) => a - b),
  mul: { float: (a, b) => a * b, int: Math.imul },
  div: both((a, b) => a / b),
  idiv: both((a, b) => Math.trunc(a / b)),
  rem: both((a, b) => a % b),
  pow: both(pow),
  max: both(Math.max),
  min: both(Math.min),
  and: both((a, b) => a & b),
  or: both((a, b) => a | b),
  xor: both((a, b) => a ^ b),
  shl: both((a, b) => a << (b & 31)),
};

function identity(c: Combine, dtype: DType): number {
  if (c === "sum") return 0;
  if (c === "prod") return 1;
  const low = c === "max" || c === "argmax";
  if (isFloat(dtype)) return low ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  const width = 8 * dtypes[dtype].bytes;
  if (dtypes[dtype].signed) return low ? -(2 ** (width - 1)) : 2 ** (width - 1) - 1;
  return low ? 0 : 2 ** width - 1;
}

function combine(acc: Accumulator, value: number, at: number): void {
  const kind = kindOf(acc.dtype);
  switch (acc.combine) {
    case "sum":
      acc.value = roundTo(acc.dtype, acc.value + value);
      return;
    case "prod":
      acc.value = roundTo(acc.dtype, binary.mul[kind](acc.value, value));
      return;
    case "max":
      acc.value = Math.max(acc.value, value);
      return;
    case "min":
      acc.value = Math.min(acc.value, value);
      return;
    case "argmax": {
      const [new_, old] = [Number.isNaN(value), Number.isNaN(acc.value)];
      const better = new_ !== old ? new_ : value > acc.value;
      const tie = (new_ && old) || value === acc.value;
      if (acc.empty || better || (tie && at < acc.at)) {
        acc.value = value;
        acc.at = at;
        acc.empty = false;
      }
    }
  }
}
