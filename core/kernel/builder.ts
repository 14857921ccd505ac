/**
 * @file The kernel language for programs: what a custom kernel's body is written with. Every call appends a statement or makes an
 * expression of ir.ts, and nothing more: what a kernel must obey is check.ts's, and where it runs is custom.ts's.
 *
 * A body runs once per device, with `each` laid out for it: on a CPU blocks of elements whose innermost loop is a vector's
 * lanes, on a GPU one invocation per element. Halves are read as f32 and rounded where they are stored.
 */
import { type DType, isFloat, isHalf } from "../dtype.ts";
import { DTypeError, describe, KernelError, ShapeError } from "../errors.ts";
import { weightOf } from "../schedule/stores.ts";
import {
  type Cond,
  delinearize,
  ge,
  type Index,
  iadd,
  idiv,
  imin,
  imod,
  imul,
  isub,
  ivalue,
  ivar,
  linearize,
  lt,
  num,
} from "../schedule/symbolic.ts";
import { formatShape, numel, type Shape } from "../shape.ts";
import {
  type BufferInfo,
  type Combine,
  constValue,
  type Kernel,
  narrow,
  op,
  type Stmt,
  serial,
  type Value,
  type ValueOp,
  variable,
  vector,
  widen,
  wideType,
} from "./ir.ts";

/** A shape and a dtype: what is known of a tensor before it is computed. */
export interface TensorSpec {
  readonly shape: Shape;
  readonly dtype: DType;
}

/** An integer that addresses elements: a loop's variable, and sums, multiples and quotients of such. */
export class KernelIndex {
  readonly index: Index;
  constructor(index: Index) {
    this.index = index;
  }
  add(other: IndexLike): KernelIndex {
    return new KernelIndex(iadd(this.index, indexOf(other)));
  }
  sub(other: IndexLike): KernelIndex {
    return new KernelIndex(isub(this.index, indexOf(other)));
  }
  /** By a number. */
  mul(by: number): KernelIndex {
    return new KernelIndex(imul(this.index, by));
  }
  /** Rounded down, by a positive number. */
  div(by: number): KernelIndex {
    return new KernelIndex(idiv(this.index, by));
  }
  /** 0 … by - 1. */
  mod(by: number): KernelIndex {
    return new KernelIndex(imod(this.index, by));
  }
  min(other: IndexLike): KernelIndex {
    return new KernelIndex(imin(this.index, indexOf(other)));
  }
  /** this < other */
  lt(other: IndexLike): KernelCondition {
    return [lt(isub(this.index, indexOf(other)), 0)];
  }
  /** this ≥ other */
  ge(other: IndexLike): KernelCondition {
    return [ge(isub(this.index, indexOf(other)), 0)];
  }
  /** As a number of type i32 to compute with. */
  value(): KernelValue {
    return new KernelValue({ k: "index", dtype: "i32", index: this.index });
  }
}
export type IndexLike = KernelIndex | number;
/** What holds of indices; several in one array hold together: `[...i.ge(0), ...i.lt(n)]`. */
export type KernelCondition = Cond;

const indexOf = (x: IndexLike): Index => (typeof x === "number" ? num(x) : x.index);

/** A number that a kernel computes. A JavaScript number beside one takes its dtype. */
export class KernelValue {
  readonly value: Value;
  constructor(value: Value) {
    this.value = value;
  }
  get dtype(): DType {
    return this.value.dtype;
  }
  #op(name: ValueOp, others: readonly ValueLike[] = [], dtype = this.dtype): KernelValue {
    const args = others.map((x) => operandOf(x, this.dtype));
    for (const { dtype: got } of args)
      if (got !== this.dtype)
        throw new DTypeError(describe(`kernel: ${name}`, this.dtype, got, "cast one of them"));
    return new KernelValue(op(name, dtype, this.value, ...args));
  }
  add = (y: ValueLike) => this.#op("add", [y]);
  sub = (y: ValueLike) => this.#op("sub", [y]);
  mul = (y: ValueLike) => this.#op("mul", [y]);
  /** Of integers: rounded towards zero. */
  div = (y: ValueLike) => this.#op(isFloat(this.dtype) ? "div" : "idiv", [y]);
  rem = (y: ValueLike) => this.#op("rem", [y]);
  pow = (y: ValueLike) => this.#op("pow", [y]);
  max = (y: ValueLike) => this.#op("max", [y]);
  min = (y: ValueLike) => this.#op("min", [y]);
  neg = () => this.#op("neg");
  abs = () => this.#op("abs");
  exp = () => this.#op("exp");
  log = () => this.#op("log");
  sin = () => this.#op("sin");
  cos = () => this.#op("cos");
  sqrt = () => this.#op("sqrt");
  tanh = () => this.#op("tanh");
  erf = () => this.#op("erf");
  floor = () => this.#op("floor");
  /** Halves to even. */
  round = () => this.#op("round");
  not = () => this.#op("not");
  and = (y: ValueLike) => this.#op("and", [y]);
  or = (y: ValueLike) => this.#op("or", [y]);
  xor = (y: ValueLike) => this.#op("xor", [y]);
  shl = (y: ValueLike) => this.#op("shl", [y]);
  shr = (y: ValueLike) => this.#op("shr", [y]);
  lt = (y: ValueLike) => this.#op("lt", [y], "bool");
  le = (y: ValueLike) => this.#op("le", [y], "bool");
  eq = (y: ValueLike) => this.#op("eq", [y], "bool");
  /** Of a bool: `yes` where it is true, else `no`. Both are computed. */
  where(yes: KernelValue, no: ValueLike): KernelValue {
    const other = operandOf(no, yes.dtype);
    return new KernelValue(op("where", yes.dtype, this.value, yes.value, other));
  }
  /** Floats to integers: truncated, NaN to 0. Halves are stored, not computed with. */
  cast(dtype: DType): KernelValue {
    if (dtype === this.dtype) return this;
    return new KernelValue(op("cast", dtype, this.value));
  }
}
export type ValueLike = KernelValue | number;

const operandOf = (x: ValueLike, dtype: DType): Value =>
  typeof x === "number" ? constValue(dtype, x) : x.value;

/** An input: `x.at(i, j)` is an element of it. */
export interface KernelInput extends TensorSpec {
  at(...index: IndexLike[]): KernelValue;
  /** The same, but where the condition fails nothing is read and the value is 0. */
  atWhere(condition: KernelCondition, ...index: IndexLike[]): KernelValue;
}

/** An output: `y.set([i, j], value)`. Each element belongs to one parallel iteration. */
export interface KernelOutput extends TensorSpec {
  set(index: readonly IndexLike[], value: ValueLike): void;
  /** The same, but where the condition fails nothing is written. */
  setWhere(condition: KernelCondition, index: readonly IndexLike[], value: ValueLike): void;
}

/** Scratch that belongs to one parallel iteration; what it holds before the first `set` is undefined. */
export interface KernelScratch {
  at(index: IndexLike): KernelValue;
  set(index: IndexLike, value: ValueLike): void;
}

/** Gathers values; it is read after the loop that fills it. */
export interface KernelAccumulator {
  update(value: ValueLike): void;
  readonly value: KernelValue;
}

/** Operations of an iteration, roughly: by it a device decides what is worth its threads. */
function workOf(body: readonly Stmt[]): number {
  const value = (v: Value): number => {
    if (v.k === "select") return 1 + value(v.a) + value(v.b);
    if (v.k !== "op") return 0;
    return weightOf({ op: v.op, src: [] }) + v.args.reduce((sum, x) => sum + value(x), 0);
  };
  return body.reduce((sum, s) => {
    if (s.k === "loop") return sum + Math.max(0, s.extent.max) * workOf(s.body);
    if (s.k === "if") return sum + workOf(s.body);
    return "value" in s ? sum + 1 + value(s.value) : sum;
  }, 0);
}

/** Elements per parallel iteration of a one-dimensional `each` on a CPU. */
const block = 4096;

/** What a body is given to write a kernel with. */
export class KernelBuilder {
  readonly inputs: readonly KernelInput[];
  readonly outputs: readonly KernelOutput[];
  readonly device: "wasm" | "webgpu";
  readonly #name: string;
  #stmts: Stmt[] = [];
  #range: Kernel["range"] | null = null;
  #names = 0;

  constructor(
    name: string,
    device: "wasm" | "webgpu",
    inputs: readonly TensorSpec[],
    outputs: readonly TensorSpec[],
  ) {
    this.#name = name;
    this.device = device;
    this.inputs = inputs.map((spec, i) => this.#input(spec, i));
    this.outputs = outputs.map((spec, i) => this.#output(spec, inputs.length + i));
  }

  /** Calls `body` once for every index of a shape (or 0 … n-1); the elements are independent of one another. */
  each(shape: Shape | number, body: (...index: KernelIndex[]) => void): void {
    const sizes = typeof shape === "number" ? [shape] : shape;
    const last = sizes.at(-1);
    if (this.device === "webgpu" || last === undefined) {
      this.parallel(sizes, body);
    } else if (sizes.length > 1) {
      this.parallel(sizes.slice(0, -1), (...rows) =>
        this.vector(last, (lane) => body(...rows, lane)),
      );
    } else {
      this.parallel(Math.ceil(last / block), (p) => {
        const begin = p.mul(block);
        const rest = new KernelIndex(num(last)).sub(begin);
        this.vector(rest.min(block), (lane) => body(begin.add(lane)));
      });
    }
  }

  /** The iterations of the kernel, in any order and at once: once, and around everything else. */
  parallel(shape: Shape | number, body: (...index: KernelIndex[]) => void): void {
    const sizes = typeof shape === "number" ? [shape] : shape;
    if (this.#range) this.#fail("one `parallel` or `each`", "a second one");
    if (this.#stmts.length > 0) this.#fail("`parallel` or `each` around everything", "it later");
    this.#range = { var: "p", extent: numel(sizes) };
    const p = ivar("p", this.#range.extent);
    body(...delinearize(p, sizes).map((x) => new KernelIndex(x)));
  }

  /** A loop over 0 … extent-1, one after the other. */
  serial(extent: IndexLike, body: (index: KernelIndex) => void): void {
    this.#loop(serial, extent, body);
  }

  /** A loop whose iterations are the lanes of vectors: they share nothing but accumulators declared before it. */
  vector(extent: IndexLike, body: (index: KernelIndex) => void): void {
    this.#loop(vector, extent, body);
  }

  #loop(kind: typeof serial, extent: IndexLike, body: (index: KernelIndex) => void): void {
    const count = indexOf(extent);
    const name = this.#fresh("i");
    const inner = this.#within(() => body(new KernelIndex(ivar(name, Math.max(0, count.max)))));
    this.#push(kind(name, count, inner));
  }

  /** Runs `body` where the condition holds. In a vector loop it may not depend on the lane: `atWhere` and `setWhere` may. */
  if(condition: KernelCondition, body: () => void): void {
    this.#push({ k: "if", cond: condition, body: this.#within(body) });
  }

  /** `yes` where the condition holds, else `no`. Both are computed. */
  select(condition: KernelCondition, yes: KernelValue, no: ValueLike): KernelValue {
    const b = operandOf(no, yes.dtype);
    return new KernelValue({ k: "select", dtype: yes.dtype, cond: condition, a: yes.value, b });
  }

  constant(dtype: DType, value: number): KernelValue {
    return new KernelValue(constValue(dtype, value));
  }

  /** Computed here, once. */
  let(value: KernelValue): KernelValue {
    const name = this.#fresh("t");
    this.#push({ k: "let", name, value: value.value });
    return new KernelValue(variable(value.dtype, name));
  }

  /** A sum, product, maximum or minimum of values to come; NaN wins. Halves are gathered in f32. */
  accumulate(combine: Exclude<Combine, "argmax">, dtype: DType = "f32"): KernelAccumulator {
    const name = this.#fresh("a");
    const wide = wideType(dtype);
    this.#push({ k: "acc", name, dtype: wide, combine });
    return {
      update: (value) => this.#push({ k: "update", name, value: operandOf(value, wide) }),
      value: new KernelValue(variable(wide, name)),
    };
  }

  /** Scratch of `size` elements. */
  scratch(dtype: DType, size: number): KernelScratch {
    const local = this.#fresh("s");
    const wide = wideType(dtype);
    this.#push({ k: "local", name: local, dtype: wide, size });
    return {
      at: (index) => new KernelValue({ k: "localLoad", dtype: wide, local, index: indexOf(index) }),
      set: (index, value) =>
        this.#push({
          k: "localStore",
          local,
          index: indexOf(index),
          value: operandOf(value, wide),
        }),
    };
  }

  /** An index that is computed (i32). Outside 0 … size-1 the run fails with an IndexOutOfRangeError. */
  position(value: KernelValue, size: number): KernelIndex {
    const name = this.#fresh("q");
    this.#push({ k: "position", name, value: value.value, size });
    return new KernelIndex(ivalue(name, size));
  }

  /** The kernel that was written. */
  finish(buffers: readonly BufferInfo[]): Kernel {
    if (!this.#range) this.#fail("one `parallel` or `each`", "none");
    return {
      name: this.#name,
      kind: "custom",
      buffers,
      scalars: 0,
      range: this.#range,
      body: this.#stmts,
      flops: this.#range.extent * workOf(this.#stmts),
    };
  }

  #input(spec: TensorSpec, buffer: number): KernelInput {
    const load = (index: readonly IndexLike[], mask: Cond): KernelValue => {
      const at = this.#address(spec, index);
      const { dtype } = spec;
      const masked = mask.length > 0 ? { mask } : {};
      return new KernelValue(widen({ k: "load", dtype, buffer, index: at, ...masked }));
    };
    return {
      ...spec,
      at: (...index) => load(index, []),
      atWhere: (condition, ...index) => load(index, condition),
    };
  }

  #output(spec: TensorSpec, buffer: number): KernelOutput {
    const store = (index: readonly IndexLike[], given: ValueLike, mask: Cond): void => {
      const value = operandOf(given, wideType(spec.dtype));
      if (wideType(value.dtype) !== wideType(spec.dtype))
        throw new DTypeError(describe(`kernel ${this.#name}`, spec.dtype, value.dtype, "cast it"));
      const at = this.#address(spec, index);
      const exact = isHalf(spec.dtype) ? narrow(value, spec.dtype) : value;
      const masked = mask.length > 0 ? { mask } : {};
      this.#push({ k: "store", buffer, index: at, value: exact, ...masked });
    };
    return {
      ...spec,
      set: (index, value) => store(index, value, []),
      setWhere: (condition, index, value) => store(index, value, condition),
    };
  }

  #address({ shape }: TensorSpec, index: readonly IndexLike[]): Index {
    if (index.length !== shape.length)
      throw new ShapeError(
        describe(
          `kernel ${this.#name}`,
          `${shape.length} indices into ${formatShape(shape)}`,
          `${index.length}`,
        ),
      );
    return linearize(index.map(indexOf), shape);
  }

  #within(body: () => void): Stmt[] {
    const outer = this.#stmts;
    this.#stmts = [];
    try {
      body();
      return this.#stmts;
    } finally {
      this.#stmts = outer;
    }
  }

  #push(s: Stmt): void {
    if (!this.#range) this.#fail("`parallel` or `each` around everything", `"${s.k}" before it`);
    this.#stmts.push(s);
  }

  #fresh = (prefix: string): string => `${prefix}${this.#names++}`;

  #fail(expected: string, got: string): never {
    throw new KernelError(describe(`kernel ${this.#name}`, expected, got));
  }
}
