/**
 * @file Comparisons, logic, bits and selection. Comparisons and logical operators give bool
 * tensors; NaN compares false except with `ne`. Every export is also a Tensor method.
 */
import { isFloat, isInt } from "../dtype.ts";
import { ArgumentError, DTypeError, describe } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { fromNode, Tensor } from "../tensor.ts";
import { truth } from "./compose.ts";
import { boolNode, describeNode, nodeOf, type Operand, operandOf, pair } from "./promotion.ts";

/** `a = b`, element by element. */
export function eq(a: Operand, b: Operand): Tensor {
  return fromNode(g.eq(...pair("eq", a, b)));
}

/** `a ≠ b`. */
export function ne(a: Operand, b: Operand): Tensor {
  return fromNode(g.not(g.eq(...pair("ne", a, b))));
}

/** `a < b`. */
export function lt(a: Operand, b: Operand): Tensor {
  return fromNode(g.lt(...pair("lt", a, b)));
}

/** `a ≤ b`. */
export function le(a: Operand, b: Operand): Tensor {
  return fromNode(g.le(...pair("le", a, b)));
}

/** `a > b`. */
export function gt(a: Operand, b: Operand): Tensor {
  const [x, y] = pair("gt", a, b);
  return fromNode(g.lt(y, x));
}

/** `a ≥ b`. */
export function ge(a: Operand, b: Operand): Tensor {
  const [x, y] = pair("ge", a, b);
  return fromNode(g.le(y, x));
}

/** Both are true (not 0). */
export function logicalAnd(a: Tensor, b: Tensor): Tensor {
  return fromNode(g.and(truth(nodeOf("logicalAnd", a)), truth(nodeOf("logicalAnd", b))));
}

/** At least one is true (not 0). */
export function logicalOr(a: Tensor, b: Tensor): Tensor {
  return fromNode(g.or(truth(nodeOf("logicalOr", a)), truth(nodeOf("logicalOr", b))));
}

/** Exactly one is true (not 0). */
export function logicalXor(a: Tensor, b: Tensor): Tensor {
  return fromNode(g.xor(truth(nodeOf("logicalXor", a)), truth(nodeOf("logicalXor", b))));
}

/** True where x is 0 or false. */
export function logicalNot(x: Tensor): Tensor {
  return fromNode(g.not(truth(nodeOf("logicalNot", x))));
}

/** Bit by bit and, of integers or bools. */
export function bitwiseAnd(a: Operand, b: Operand): Tensor {
  return fromNode(g.and(...bits("bitwiseAnd", a, b)));
}

/** Bit by bit or, of integers or bools. */
export function bitwiseOr(a: Operand, b: Operand): Tensor {
  return fromNode(g.or(...bits("bitwiseOr", a, b)));
}

/** Bit by bit exclusive or, of integers or bools. */
export function bitwiseXor(a: Operand, b: Operand): Tensor {
  return fromNode(g.xor(...bits("bitwiseXor", a, b)));
}

/** All bits inverted; the logical not of a bool tensor. */
export function bitwiseNot(x: Tensor): Tensor {
  const n = nodeOf("bitwiseNot", x);
  if (isFloat(n.dtype))
    throw new DTypeError(describe("bitwiseNot", "integers or bools", describeNode(n)));
  return fromNode(g.not(n));
}

/** `a · 2ᵇ` modulo the width of the type; a count outside 0 … 31 shifts everything out. */
export function bitwiseLeftShift(a: Operand, b: Operand): Tensor {
  const [x, y] = bits("bitwiseLeftShift", a, b, true);
  return fromNode(shifted(b, y, g.shl(x, y), g.scalarLike(x, 0)));
}

/** `⌊a / 2ᵇ⌋`: arithmetic for signed types. A count outside 0 … 31 leaves only the sign. */
export function bitwiseRightShift(a: Operand, b: Operand): Tensor {
  const [x, y] = bits("bitwiseRightShift", a, b, true);
  // The sign alone: -1 or 0 for signed types (shift by 31, narrow values are sign-extended), 0 for
  // unsigned ones.
  const signed = x.dtype === "i32" || x.dtype === "i8";
  const rest = signed ? g.shr(x, g.scalarLike(x, 31)) : g.scalarLike(x, 0);
  return fromNode(shifted(b, y, g.shr(x, y), rest));
}

/** x with `value` where the mask is true; the mask broadcasts. */
export function maskedFill(x: Tensor, mask: Tensor, value: Tensor | number | boolean): Tensor {
  const n = nodeOf("maskedFill", x);
  const fill = operandOf("maskedFill", value, n.dtype);
  if (value instanceof Tensor && value.shape.length > 0)
    throw new ArgumentError(
      describe("maskedFill", "a 0-d value", describeNode(fill), "use where for a whole tensor"),
    );
  return fromNode(g.where(boolNode("maskedFill", mask), fill, n));
}

/**
 * x limited to [min, max]; either bound may be a number, a tensor or left out. Where min > max the
 * result is max. The gradient passes at the bounds; NaN stays NaN.
 */
export function clamp(x: Tensor, min?: Operand | null, max?: Operand | null): Tensor {
  if (min == null && max == null)
    throw new ArgumentError(describe("clamp", "at least one of min and max", "neither"));
  let result = x;
  if (min != null) result = bounded("clamp", result, min, (n, lo) => g.lt(n, lo));
  if (max != null) result = bounded("clamp", result, max, (n, hi) => g.lt(hi, n));
  return result;
}

/** x, but at least `min`. */
export function clampMin(x: Tensor, min: Operand): Tensor {
  return clamp(x, min);
}

/** x, but at most `max`. */
export function clampMax(x: Tensor, max: Operand): Tensor {
  return clamp(x, null, max);
}

// --- helpers -------------------------------------------------------------------------------------

function bits(op: string, a: Operand, b: Operand, integersOnly = false): [Node, Node] {
  const [x, y] = pair(op, a, b);
  if (isFloat(x.dtype) || (integersOnly && !isInt(x.dtype)))
    throw new DTypeError(
      describe(
        op,
        integersOnly ? "integers" : "integers or bools",
        `${describeNode(x)}, ${describeNode(y)}`,
      ),
    );
  return [x, y];
}

/** The primitives take counts modulo 32; this gives counts outside the range their meaning. */
function shifted(count: Operand, y: Node, value: Node, rest: Node): Node {
  if (typeof count !== "object")
    return Number(count) >= 0 && Number(count) < 32 ? value : g.expand(rest, value.shape);
  const fits = g.and(g.le(g.scalarLike(y, 0), y), g.lt(y, g.scalarLike(y, 32)));
  return g.where(fits, value, rest);
}

function bounded(
  op: string,
  x: Tensor,
  bound: Operand,
  outside: (n: Node, bound: Node) => Node,
): Tensor {
  const [n, limit] = pair(op, x, bound);
  return fromNode(g.where(outside(n, limit), limit, n));
}
