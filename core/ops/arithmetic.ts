/**
 * @file Arithmetic with two operands, as methods and functions: `a.add(b)` is `add(a, b)`. Operands
 * broadcast and promote (promotion.ts). Every export is also a Tensor method.
 */
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, describe } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { trunc } from "./compose.ts";
import {
  combine,
  describeNode,
  floatPair,
  inFloat32,
  inWide,
  isHalfTensor,
  literal,
  type Operand,
  operandOf,
  pair,
} from "./promotion.ts";

/** What div rounds towards: minus infinity or zero. */
export type RoundingMode = "floor" | "trunc";

const zero = (x: Node): Node => g.scalarLike(x, 0);

/** `a + alpha·b`, broadcasting. Two bool tensors give their logical or, as in PyTorch. */
export function add(a: Operand, b: Operand, { alpha = 1 }: { alpha?: number } = {}): Tensor {
  const sum = (x: Node, y: Node): Node =>
    x.dtype === "bool"
      ? g.or(x, y)
      : g.add(x, alpha === 1 ? y : g.mul(y, literal("add", alpha, x.dtype)));
  return combine("add", a, b, sum, { several: alpha !== 1 });
}

/** `a - alpha·b`, broadcasting. Bool tensors have no difference: use logicalXor. */
export function sub(a: Operand, b: Operand, { alpha = 1 }: { alpha?: number } = {}): Tensor {
  const difference = (x: Node, y: Node): Node => {
    if (x.dtype === "bool")
      throw new DTypeError(
        describe(
          "sub",
          "numbers",
          "two bool operands",
          "use logicalXor, or cast one with .to('i32')",
        ),
      );
    return g.sub(x, alpha === 1 ? y : g.mul(y, literal("sub", alpha, x.dtype)));
  };
  return combine("sub", a, b, difference, { several: alpha !== 1 });
}

/** `b - a`. */
export function rsub(a: Operand, b: Operand): Tensor {
  return sub(b, a);
}

/** `a · b`, broadcasting. Two bool tensors give their logical and. */
export function mul(a: Operand, b: Operand): Tensor {
  return combine("mul", a, b, (x, y) => (x.dtype === "bool" ? g.and(x, y) : g.mul(x, y)));
}

/**
 * True division, broadcasting; integers give f32. With `roundingMode` the quotient is rounded
 * ("floor": towards minus infinity, "trunc": towards zero), integers stay integers, and the
 * gradient is zero.
 */
export function div(
  a: Operand,
  b: Operand,
  { roundingMode }: { roundingMode?: RoundingMode } = {},
): Tensor {
  if (roundingMode === undefined) return combine("div", a, b, g.div, { float: true });
  const operands = roundingOperands("div", a, b);
  if (roundingMode === "floor") return fromNode(inWide(floorQuotient, ...operands));
  const truncated = (x: Node, y: Node): Node =>
    isFloat(x.dtype) ? trunc(g.div(x, y)) : g.idiv(x, y);
  if (roundingMode === "trunc") return fromNode(inWide(truncated, ...operands));
  throw new ArgumentError(describe("div", "roundingMode 'floor' or 'trunc'", String(roundingMode)));
}

/** `⌊a / b⌋`, Python's `//`. Integers stay integers. */
export function floorDivide(a: Operand, b: Operand): Tensor {
  return fromNode(inWide(floorQuotient, ...roundingOperands("floorDivide", a, b)));
}

/** The remainder with the sign of the divisor, Python's `%`: `a - b·⌊a / b⌋`. */
export function remainder(a: Operand, b: Operand): Tensor {
  const [x, y] = roundingOperands("remainder", a, b);
  const r = g.rem(x, y);
  return fromNode(x.dtype === "u32" || x.dtype === "u8" ? r : g.where(leans(r, y), g.add(r, y), r));
}

/** The remainder with the sign of the dividend, C's `fmod`. */
export function fmod(a: Operand, b: Operand): Tensor {
  return fromNode(g.rem(...roundingOperands("fmod", a, b)));
}

/**
 * `base ** exponent`, broadcasting. The exponents 2, 3, 4, -1, -2, ½ and -½ become multiplications,
 * divisions and roots. Integer tensors take non-negative integral number exponents.
 */
export function pow(base: Operand, exponent: Operand): Tensor {
  const power = (x: Node, y: Node): Node => {
    const product = typeof exponent === "number" ? powerByProducts(x, exponent) : null;
    if (product) return product;
    if (!isFloat(x.dtype))
      throw new DTypeError(
        describe(
          "pow",
          "floats, or an integer tensor with a non-negative integral number as exponent",
          `${describeNode(x)} and ${describeNode(y)}`,
          "convert with .float() first",
        ),
      );
    return g.pow(x, y);
  };
  return combine("pow", base, exponent, power, { several: true });
}

/** The larger of two elements; NaN wins, and equal elements share the gradient equally. */
export function maximum(a: Operand, b: Operand): Tensor {
  const [x, y] = pair("maximum", a, b);
  return fromNode(x.dtype === "bool" ? g.or(x, y) : g.max(x, y));
}

/** The smaller of two elements; NaN wins, and equal elements share the gradient equally. */
export function minimum(a: Operand, b: Operand): Tensor {
  const [x, y] = pair("minimum", a, b);
  return fromNode(x.dtype === "bool" ? g.and(x, y) : g.min(x, y));
}

/** `start + weight·(end - start)`; exact at both ends, as PyTorch's lerp. */
export function lerp(start: Tensor, end: Tensor, weight: Tensor | number): Tensor {
  if (isHalfTensor(start)) return inFloat32("lerp", lerp, start, end, weight);
  const [x, y] = floatPair("lerp", start, end);
  const w = operandOf("lerp", weight, x.dtype);
  const d = g.sub(y, x);
  const fromStart = g.add(x, g.mul(w, d));
  if (typeof weight === "number" && weight < 0.5) return fromNode(fromStart);
  const fromEnd = g.sub(y, g.mul(d, g.sub(g.scalarLike(w, 1), w)));
  if (typeof weight === "number") return fromNode(fromEnd);
  return fromNode(g.where(g.lt(w, g.scalarLike(w, 0.5)), fromStart, fromEnd));
}

/** `x + value·a·b`, broadcasting. */
export function addcmul(
  x: Tensor,
  a: Operand,
  b: Operand,
  options: { value?: number } = {},
): Tensor {
  if (isHalfTensor(x)) return inFloat32("addcmul", addcmul, x, a, b, options);
  return add(x, mul(a, b), { alpha: options.value });
}

/** `x + value·a/b`, broadcasting. */
export function addcdiv(
  x: Tensor,
  a: Operand,
  b: Operand,
  options: { value?: number } = {},
): Tensor {
  if (isHalfTensor(x)) return inFloat32("addcdiv", addcdiv, x, a, b, options);
  return add(x, div(a, b), { alpha: options.value });
}

// --- helpers -------------------------------------------------------------------------------------

/**
 * Operands of rounded division: numbers only, and no literal zero under integers, which no backend
 * can report.
 */
function roundingOperands(op: string, a: Operand, b: Operand): [Node, Node] {
  const [x, y] = pair(op, a, b);
  if (x.dtype === "bool") throw new DTypeError(describe(op, "numbers", "two bool operands"));
  if (!isFloat(x.dtype) && typeof b !== "object" && Number(b) === 0)
    throw new ArgumentError(describe(op, "a divisor other than 0", `${describeNode(x)} by 0`));
  return [x, y];
}

/**
 * Where a truncated remainder has the other sign than the divisor: floor and truncation differ by
 * one there.
 */
const leans = (r: Node, y: Node): Node =>
  g.and(g.not(g.eq(r, zero(r))), g.xor(g.lt(r, zero(r)), g.lt(y, zero(y))));

function floorQuotient(x: Node, y: Node): Node {
  if (!isFloat(x.dtype)) {
    const q = g.idiv(x, y);
    if (x.dtype === "u32" || x.dtype === "u8") return q;
    return g.sub(q, g.cast(leans(g.rem(x, y), y), x.dtype));
  }
  // As CPython: the exact remainder first, because ⌊x/y⌋ of the rounded quotient can be one too
  // large.
  const r = g.rem(x, y);
  const q = g.sub(g.div(g.sub(x, r), y), g.cast(leans(r, y), x.dtype));
  const byZero = g.eq(y, zero(y));
  return g.where(byZero, g.detach(g.div(x, y)), g.round(q));
}

/** x ** n by products, or null where the power primitive serves better. */
function powerByProducts(x: Node, n: number): Node | null {
  const one = g.scalarLike(x, 1);
  if (n === 1) return x;
  if (isFloat(x.dtype)) {
    if (n === 0.5) return g.sqrt(x);
    if (n === -0.5) return g.div(one, g.sqrt(x));
    if (n === -1) return g.div(one, x);
    if (n === -2) return g.div(one, g.mul(x, x));
  }
  const whole = Number.isInteger(n) && n >= 0;
  if (!whole || x.dtype === "bool" || (isFloat(x.dtype) && n > 4)) return null;
  // Ones of x's shape, NaN ** 0 included, with a gradient of 0.
  if (n === 0) return g.where(constant(1, "bool"), one, x);
  let result: Node | null = null;
  for (let bits = n, power = x; ; power = g.mul(power, power)) {
    if (bits % 2 === 1) result = result ? g.mul(result, power) : power;
    bits = Math.floor(bits / 2);
    if (bits === 0) return result;
  }
}
