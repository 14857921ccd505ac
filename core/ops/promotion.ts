/**
 * @file Operands: how tensors, numbers and booleans meet in one operation.
 *
 * Tensors promote as in PyTorch: bool < integer < float, and a 0-d tensor does not widen a tensor
 * with axes of the same category. A JS number never changes a float dtype, and an integral number
 * keeps an integer dtype. JavaScript does not tell 1 from 1.0, so two numbers alone are f32.
 * Almost everything here returns nodes; tensors are made by the operators.
 *
 * What consists of several primitives is computed in f32 for halves (f16, bf16) and rounded once, as PyTorch's kernels do:
 * `inFloat32` for operators, `inWide` for their formulas.
 */
import { autocastPolicy, autocastType } from "../autocast.ts";
import { type DType, dtypes, isFloat, isHalf, isInt, promote, roundTo } from "../dtype.ts";
import { ArgumentError, DTypeError, describe } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { formatShape } from "../shape.ts";
import { fromNode, Tensor } from "../tensor.ts";

/** What element-wise operators take. */
export type Operand = Tensor | number | boolean;

export const describeNode = (x: Node): string => `${x.dtype}${formatShape(x.shape)}`;

const describeOperand = (x: unknown): string =>
  x instanceof Tensor ? describeNode(x.node) : x === null ? "null" : `${typeof x} ${String(x)}`;

/** The node of a tensor argument; anything else is refused with the operator's name. */
export function nodeOf(op: string, x: unknown): Node {
  if (x instanceof Tensor) return autocasted(op, x.node);
  throw new ArgumentError(
    describe(op, "a Tensor", describeOperand(x), "make one with tensor(data)"),
  );
}

/** In autocast a float operand has the type that the operator's row in autocast.ts names. */
function autocasted(op: string, n: Node): Node {
  const half = autocastType();
  if (half === null || !isFloat(n.dtype)) return n;
  const policy = autocastPolicy(op);
  if (policy === "half") return g.cast(n, half);
  return policy === "f32" ? g.cast(n, "f32") : n;
}

/** In autocast the floats among the operands of an operator of the row "widest" get one type. */
export function widest(op: string, ...nodes: Node[]): Node[] {
  if (autocastType() === null || autocastPolicy(op) !== "widest") return nodes;
  const floats = nodes.filter((n) => isFloat(n.dtype)).map((n) => n.dtype);
  return nodes.map((n) => (isFloat(n.dtype) ? g.cast(n, floats.reduce(promote)) : n));
}

/** Refuses other names, such as PyTorch's "float32". */
export function checkDType(op: string, dtype: DType): void {
  if (!Object.hasOwn(dtypes, dtype))
    throw new DTypeError(
      describe(op, `a dtype of ${Object.keys(dtypes).join(", ")}`, `'${dtype}'`),
    );
}

/** A number or boolean as a literal of `dtype`; refuses what the dtype cannot hold. */
export function literal(op: string, value: number | boolean, dtype: DType): Node {
  const x = Number(value);
  checkDType(op, dtype);
  if (isInt(dtype)) {
    if (!Number.isInteger(x))
      throw new DTypeError(
        describe(
          op,
          `an integral number with a tensor of ${dtype}`,
          String(value),
          "convert the tensor with .float() first",
        ),
      );
    // Negative numbers wrap for unsigned types, as in PyTorch (x.add(-1)); anything larger would be
    // a silent error.
    const { bytes, signed } = dtypes[dtype];
    const limit = 2 ** (8 * bytes - (signed ? 1 : 0));
    if (x >= limit || x < -limit)
      throw new ArgumentError(describe(op, `a number within the range of ${dtype}`, String(value)));
  }
  return constant(roundTo(dtype, x), dtype);
}

/** The dtype that a literal takes next to `dtype`. */
function literalType(value: number | boolean, dtype: DType): DType {
  if (typeof value === "boolean" || dtype !== "bool") return dtype;
  return Number.isInteger(value) ? "i32" : "f32";
}

function promoteNodes(a: Node, b: Node): DType {
  if (a.dtype === b.dtype) return a.dtype;
  const wide = promote(a.dtype, b.dtype);
  if (a.shape.length > 0 === b.shape.length > 0) return wide;
  const [full, scalar] = a.shape.length > 0 ? [a, b] : [b, a];
  const rank = { bool: 0, int: 1, float: 2 } as const;
  const keeps = rank[dtypes[full.dtype].category] >= rank[dtypes[scalar.dtype].category];
  return keeps ? full.dtype : wide;
}

function operandNode(op: string, x: Operand): Node | number | boolean {
  if (typeof x === "number" || typeof x === "boolean") return x;
  if (x instanceof Tensor) return autocasted(op, x.node);
  throw new ArgumentError(describe(op, "a Tensor, number or boolean", describeOperand(x)));
}

/** The dtype in which `a ∘ b` is computed. */
function commonType(a: Node | number | boolean, b: Node | number | boolean): DType {
  if (typeof a === "object" && typeof b === "object") return promoteNodes(a, b);
  if (typeof a === "object") return literalType(b as number | boolean, a.dtype);
  if (typeof b === "object") return literalType(a, b.dtype);
  return typeof a === "boolean" && typeof b === "boolean" ? "bool" : "f32";
}

const toType = (op: string, x: Node | number | boolean, dtype: DType): Node =>
  typeof x === "object" ? g.cast(x, dtype) : literal(op, x, dtype);

/** Two operands as nodes of one dtype. */
export function pair(op: string, a: Operand, b: Operand): [Node, Node] {
  const x = operandNode(op, a);
  const y = operandNode(op, b);
  const dtype = commonType(x, y);
  return [toType(op, x, dtype), toType(op, y, dtype)];
}

/** Two operands of true division and its like: integers and booleans become f32. */
export function floatPair(op: string, a: Operand, b: Operand): [Node, Node] {
  const x = operandNode(op, a);
  const y = operandNode(op, b);
  const dtype = floatType(x, y);
  return [toType(op, x, dtype), toType(op, y, dtype)];
}

const floatType: typeof commonType = (a, b) => {
  const common = commonType(a, b);
  return isFloat(common) ? common : "f32";
};

/**
 * `f` of two operands. Beside a half a number or an f32 scalar keeps all its digits, as in PyTorch: 0.1 is not rounded
 * to a half before it is multiplied by one. `several`: f has more than one step.
 */
export function combine(
  op: string,
  a: Operand,
  b: Operand,
  f: (x: Node, y: Node) => Node,
  { several = false, float = false } = {},
): Tensor {
  const operands = [operandNode(op, a), operandNode(op, b)] as const;
  const dtype = (float ? floatType : commonType)(...operands);
  const given = operands.every((x) => typeof x === "object" && x.dtype === dtype);
  const wide = isHalf(dtype) && (several || !given) ? "f32" : dtype;
  const [x, y] = operands.map((n) => toType(op, n, wide));
  return fromNode(g.cast(f(x, y), dtype));
}

/** `f` of nodes, which of halves is computed in f32 and rounded to the first one's type. */
export function inWide(f: (...nodes: Node[]) => Node, ...nodes: Node[]): Node {
  const { dtype } = nodes[0];
  if (!isHalf(dtype)) return f(...nodes);
  return g.cast(f(...nodes.map((n) => (isHalf(n.dtype) ? g.cast(n, "f32") : n))), dtype);
}

export const isHalfTensor = (x: unknown): boolean => x instanceof Tensor && isHalf(x.dtype);

/**
 * `f(...args)` with every half among the arguments, also in an object of options, as f32. Results in f32 are rounded to the
 * type of the first half, unless in autocast `op` has f32 results.
 */
export function inFloat32<A extends readonly unknown[], R>(
  op: string,
  f: (...args: A) => R,
  ...args: A
): R {
  const { dtype } = args.find(isHalfTensor) as Tensor;
  const wide = (x: unknown): unknown => (isHalfTensor(x) ? as(x as Tensor, "f32") : x);
  const plain = (x: unknown): x is object =>
    x !== null && typeof x === "object" && Object.getPrototypeOf(x) === Object.prototype;
  const all = args.map((x) =>
    plain(x) ? Object.fromEntries(Object.entries(x).map(([k, v]) => [k, wide(v)])) : wide(x),
  );
  const result = f(...(all as unknown as A));
  const policy = autocastType() && autocastPolicy(op);
  if (policy === "f32" || (policy === "widest" && args.some(isFloat32Tensor))) return result;
  const narrow = (x: unknown): unknown => (isFloat32Tensor(x) ? as(x as Tensor, dtype) : x);
  return (Array.isArray(result) ? result.map(narrow) : narrow(result)) as R;
}

const isFloat32Tensor = (x: unknown): boolean => x instanceof Tensor && x.dtype === "f32";

const as = (x: Tensor, dtype: DType): Tensor => fromNode(g.cast(x.node, dtype));

/** The operand as a node of exactly `dtype`: a bound, a fill value, a weight. */
export const operandOf = (op: string, x: Operand, dtype: DType): Node =>
  toType(op, operandNode(op, x), dtype);

/**
 * The node of a floating-point argument. Integers are refused: they never become floats silently.
 */
export function floatNode(op: string, x: unknown): Node {
  const n = nodeOf(op, x);
  if (!isFloat(n.dtype))
    throw new DTypeError(
      describe(op, "a floating-point tensor", describeNode(n), "convert it with .float() first"),
    );
  return n;
}

/** The node of an integer argument such as an index, as i32. */
export function indexNode(op: string, x: unknown): Node {
  const n = nodeOf(op, x);
  if (!isInt(n.dtype))
    throw new DTypeError(
      describe(op, "an integer index", describeNode(n), "convert it with .to('i32') first"),
    );
  return g.cast(n, "i32");
}

/** The node of a mask. */
export function boolNode(op: string, x: unknown): Node {
  const n = nodeOf(op, x);
  if (n.dtype !== "bool")
    throw new DTypeError(
      describe(op, "a bool tensor", describeNode(n), "make it with a comparison or .bool()"),
    );
  return n;
}

/** Small integers and booleans are summed and multiplied in i32. */
export const widened = (x: Node): Node =>
  x.dtype === "bool" || x.dtype === "i8" || x.dtype === "u8" ? g.cast(x, "i32") : x;

/** Wraps `f` on the node of a floating-point tensor. */
export const floatUnary = (op: string, f: (x: Node) => Node, x: Tensor): Tensor =>
  fromNode(inWide(f, floatNode(op, x)));
