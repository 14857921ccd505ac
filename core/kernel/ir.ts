/**
 * @file The kernel language: typed loops over buffers. Level one is a body over an index space (schedule/body.ts);
 * this is level two, scheduled loops, which check.ts checks, interpret.ts runs invocation by invocation, and each
 * backend prints.
 *
 * A kernel is one parallel range (`range`; backends call it in pieces) with a statement list. Control flow is uniform.
 * A `vector` loop is single-program-multiple-data over lanes, as in ispc (Pharr & Mark 2012): its body reads as the
 * program of one iteration, iterations are independent except for accumulators declared outside the loop, which
 * are combined over the lanes when the loop ends. So tails need no code here: a backend masks them.
 *
 * A kernel with `threads` is scheduled for a GPU: each invocation of a workgroup runs the body, control flow may differ
 * between invocations except around barriers, and vector loops have a constant extent of at most 4 (one vec4).
 *
 * Halves (f16, bf16) are loaded, stored, selected and compared, but not computed with: arithmetic is in f32, between a cast
 * to f32, which is exact, and one back, which rounds and which no rewrite may remove. Accumulators are never halves.
 */
import { type DType, isHalf } from "../dtype.ts";
import type { Primitive } from "../graph/primitives.ts";
import type { Cond, Index } from "../schedule/symbolic.ts";

/** Element-wise primitives; on i8, u8 and bool their results are wrapped to the type. */
export type ValueOp = Extract<
  Primitive,
  | "neg"
  | "abs"
  | "exp"
  | "log"
  | "sin"
  | "cos"
  | "sqrt"
  | "tanh"
  | "erf"
  | "floor"
  | "round"
  | "not"
  | "add"
  | "sub"
  | "mul"
  | "div"
  | "idiv"
  | "rem"
  | "pow"
  | "max"
  | "min"
  | "lt"
  | "le"
  | "eq"
  | "and"
  | "or"
  | "xor"
  | "shl"
  | "shr"
  | "where"
  | "cast"
  | "bitcast"
>;

export type Value =
  | { readonly k: "const"; readonly dtype: DType; readonly value: number }
  /** A `let` or an accumulator in scope. */
  | { readonly k: "var"; readonly dtype: DType; readonly name: string }
  /** buffers[buffer][index]; where the mask fails nothing is read and the value is 0. */
  | {
      readonly k: "load";
      readonly dtype: DType;
      readonly buffer: number;
      readonly index: Index;
      readonly mask?: Cond;
    }
  | {
      readonly k: "localLoad";
      readonly dtype: DType;
      readonly local: string;
      readonly index: Index;
    }
  /** An index expression as an i32 value. */
  | { readonly k: "index"; readonly dtype: "i32"; readonly index: Index }
  /** `a` where the condition holds, else `b`; both are evaluated. */
  | {
      readonly k: "select";
      readonly dtype: DType;
      readonly cond: Cond;
      readonly a: Value;
      readonly b: Value;
    }
  /** A run-time scalar: word `slot` of the kernel's scalars, reinterpreted as `dtype` (4-byte types). */
  | { readonly k: "scalar"; readonly dtype: DType; readonly slot: number }
  /** args of one dtype (where: bool, T, T; cast, bitcast: the source's). dtype is the result's. */
  | {
      readonly k: "op";
      readonly dtype: DType;
      readonly op: ValueOp;
      readonly args: readonly Value[];
    }
  /** First word of Threefry-2x32, 20 rounds; args = key 0, key 1, counter 0, counter 1, all u32. */
  | { readonly k: "threefry"; readonly dtype: "u32"; readonly args: readonly Value[] };

export type Combine = "sum" | "prod" | "max" | "min" | "argmax";

export type Stmt =
  /** var runs over 0 … extent-1; the extent may depend on outer variables. `unroll` is a hint. */
  | {
      readonly k: "loop";
      readonly mode: "serial" | "vector";
      readonly var: string;
      readonly extent: Index;
      readonly unroll?: number;
      readonly body: readonly Stmt[];
    }
  | { readonly k: "let"; readonly name: string; readonly value: Value }
  /** Declares an accumulator at the identity of `combine`. An argmax accumulator reads as its i32 index. */
  | { readonly k: "acc"; readonly name: string; readonly dtype: DType; readonly combine: Combine }
  /** name = combine(name, value); `times`: name += value · times (sum only; fused where the target can).
   *  argmax: `at` is the value's index. NaN wins max, min and argmax. */
  | {
      readonly k: "update";
      readonly name: string;
      readonly value: Value;
      readonly times?: Value;
      readonly at?: Index;
    }
  /** Scratch of `size` elements, private to the invocation, not initialised. Declared at the top of a body. */
  | { readonly k: "local"; readonly name: string; readonly dtype: DType; readonly size: number }
  | {
      readonly k: "localStore";
      readonly local: string;
      readonly index: Index;
      readonly value: Value;
    }
  | {
      readonly k: "store";
      readonly buffer: number;
      readonly index: Index;
      readonly value: Value;
      readonly mask?: Cond;
    }
  /** buffers[buffer][index] += value: only by the owner of the element (scatter-add). */
  | {
      readonly k: "storeAdd";
      readonly buffer: number;
      readonly index: Index;
      readonly value: Value;
    }
  | { readonly k: "if"; readonly cond: Cond; readonly body: readonly Stmt[] }
  /** Declares the i32 variable `name` as `value` checked against 0 … size-1: outside, the kernel raises its error flag
   *  (IndexOutOfRangeError at the next read) and goes on with 0. Index expressions use it through `value(name)`. */
  | {
      readonly k: "position";
      readonly name: string;
      readonly value: Value;
      readonly size: number;
      /** It is inside by construction, whatever the data is: GPUs, where a check costs a binding and a read-back, trust it.
       *  The interpreter does not. */
      readonly known?: true;
    }
  /** GPU: scratch of `size` elements that the invocations of a workgroup share, read and written like a local, not
   *  initialised. Declared at the top of a body. */
  | { readonly k: "shared"; readonly name: string; readonly dtype: DType; readonly size: number }
  /** GPU: every invocation of the workgroup waits for the others; they then see what was written to shared scratch.
   *  In uniform control flow only. */
  | { readonly k: "barrier" }
  /** GPU: combines an accumulator over groups of `width` neighbouring invocations (a power of two that divides their
   *  number), in a fixed order; all of a group then hold the result. `lanes` (1 by default; a power of two that divides
   *  `width`) of them are in one subgroup and exchange registers. In uniform control flow only. */
  | {
      readonly k: "allReduce";
      readonly name: string;
      readonly width: number;
      readonly lanes?: number;
    }
  | MatrixStmt;

/**
 * GPU: matrices of 16 × 16 that the invocations of a subgroup hold together (tensor cores): factors of f16, results of f32.
 * Only in control flow that is uniform in the workgroup, and outside of vector loops; which of `size` matrices is meant
 * must be a number once loops are unrolled. Workgroup memory needs a barrier between a matrix and single elements.
 */
export type MatrixStmt =
  /** Declares `size` matrices. Results start at 0. */
  | {
      readonly k: "matrix";
      readonly name: string;
      readonly role: "left" | "right" | "result";
      readonly size: number;
    }
  /** Element (i, j) of name[at] is shared[index + stride·i + j], or shared[index + i + stride·j] if transposed. */
  | {
      readonly k: "matrixLoad";
      readonly name: string;
      readonly at: Index;
      readonly local: string;
      readonly index: Index;
      readonly stride: number;
      readonly transposed: boolean;
    }
  /** name[at] += left[leftAt] · right[rightAt] */
  | {
      readonly k: "matrixMultiply";
      readonly name: string;
      readonly at: Index;
      readonly left: string;
      readonly leftAt: Index;
      readonly right: string;
      readonly rightAt: Index;
    }
  /** shared[index + stride·i + j] = element (i, j) of the result name[at]. */
  | {
      readonly k: "matrixStore";
      readonly name: string;
      readonly at: Index;
      readonly local: string;
      readonly index: Index;
      readonly stride: number;
    };

/** Rows and columns of a matrix that a subgroup holds. */
export const matrixSide = 16;
export const isMatrix = (s: Stmt): s is MatrixStmt => s.k.startsWith("matrix");

export interface BufferInfo {
  readonly dtype: DType;
  /** Elements. */
  readonly size: number;
  readonly access: "read" | "write" | "readwrite";
}

export type KernelKind =
  | "map"
  | "reduce"
  | "row"
  | "matmul"
  | "conv"
  | "attention"
  | "custom"
  | "gather"
  | "scatter"
  | "scan"
  | "sort";

export interface Kernel {
  readonly name: string;
  readonly kind: KernelKind;
  readonly buffers: readonly BufferInfo[];
  /** Number of run-time scalar words. */
  readonly scalars: number;
  /** The parallel range: iterations are independent of one another and may run in any order or at once. On a GPU an
   *  iteration is a workgroup. */
  readonly range: { readonly var: string; readonly extent: number };
  /** GPU: the invocations of a workgroup; the body is the program of each. */
  readonly threads?: { readonly var: string; readonly extent: number };
  /** GPU: for kernels with matrices, the number of the subgroup, and how many invocations each has. */
  readonly subgroups?: { readonly var: string; readonly width: number };
  readonly body: readonly Stmt[];
  readonly flops: number;
}

// --- constructors -------------------------------------------------------------------------------------------

export const constValue = (dtype: DType, value: number): Value => ({ k: "const", dtype, value });
export const variable = (dtype: DType, name: string): Value => ({ k: "var", dtype, name });
export const op = (name: ValueOp, dtype: DType, ...args: Value[]): Value => ({
  k: "op",
  dtype,
  op: name,
  args,
});

const loop =
  (mode: "serial" | "vector") =>
  (name: string, extent: Index, body: readonly Stmt[], unroll = 0): Stmt => ({
    k: "loop",
    mode,
    var: name,
    extent,
    body,
    ...(unroll > 0 ? { unroll } : {}),
  });
export const serial = loop("serial");
export const vector = loop("vector");

/** What values of a type are computed in. */
export const wideType = (dtype: DType): DType => (isHalf(dtype) ? "f32" : dtype);
/** A half as f32. */
export const widen = (v: Value): Value => (isHalf(v.dtype) ? op("cast", "f32", v) : v);
/** An f32 rounded to the half that `dtype` is, if it is one. */
export const narrow = (v: Value, dtype: DType): Value =>
  v.dtype === dtype ? v : op("cast", dtype, v);

/** What a half can be put through as it is: the result is one again, without rounding, or no float at all. */
const exactOnHalves: ReadonlySet<ValueOp> = new Set([
  "neg",
  "abs",
  "floor",
  "round",
  "max",
  "min",
  "lt",
  "le",
  "eq",
  "where",
  "cast",
  "bitcast",
]);
export const takesHalves = (name: ValueOp): boolean => exactOnHalves.has(name);

/** An element-wise operation, through f32 where its type is a half. */
export function compute(name: ValueOp, dtype: DType, ...args: Value[]): Value {
  if (!isHalf(dtype) || takesHalves(name)) return op(name, dtype, ...args);
  return op("cast", dtype, op(name, "f32", ...args.map(widen)));
}
