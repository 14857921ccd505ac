/**
 * @file Element-wise functions of one operand. They take floating-point tensors (abs, neg, sign,
 * square and the roundings also integers) and keep shape and dtype. Every export is also a Tensor
 * method.
 */
import { type DType, dtypes, isFloat } from "../dtype.ts";
import { DTypeError, describe } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import * as c from "./compose.ts";
import { floatUnary, inWide, nodeOf } from "./promotion.ts";

function numeric(op: string, x: Tensor): Node {
  const n = nodeOf(op, x);
  if (n.dtype === "bool")
    throw new DTypeError(describe(op, "numbers", "a bool tensor", "use logicalNot, or cast it"));
  return n;
}

/** Roundings leave integers as they are. */
const rounding = (op: string, f: (x: Node) => Node, x: Tensor): Tensor => {
  const n = numeric(op, x);
  return fromNode(isFloat(n.dtype) ? inWide(f, n) : n);
};

/** `-x`. */
export function neg(x: Tensor): Tensor {
  return fromNode(g.neg(numeric("neg", x)));
}

/** `|x|`; the gradient at 0 is 0. */
export function abs(x: Tensor): Tensor {
  const n = numeric("abs", x);
  return fromNode(dtypes[n.dtype].signed ? g.abs(n) : n);
}

/** -1, 0 or 1. The gradient is zero. */
export function sign(x: Tensor): Tensor {
  return fromNode(g.sign(numeric("sign", x)));
}

/** `x²`. */
export function square(x: Tensor): Tensor {
  return fromNode(c.square(numeric("square", x)));
}

/** `eˣ`. */
export function exp(x: Tensor): Tensor {
  return floatUnary("exp", g.exp, x);
}

/** `2ˣ`. */
export function exp2(x: Tensor): Tensor {
  return floatUnary("exp2", (n) => g.pow(g.scalarLike(n, 2), n), x);
}

/** `eˣ - 1`, accurate near 0. */
export function expm1(x: Tensor): Tensor {
  return floatUnary("expm1", c.expm1, x);
}

/** The natural logarithm; NaN below 0. */
export function log(x: Tensor): Tensor {
  return floatUnary("log", g.log, x);
}

/** The logarithm to base 2. */
export function log2(x: Tensor): Tensor {
  return floatUnary("log2", (n) => g.mul(g.log(n), literalOf(n, Math.LOG2E)), x);
}

/** The logarithm to base 10. */
export function log10(x: Tensor): Tensor {
  return floatUnary("log10", (n) => g.mul(g.log(n), literalOf(n, Math.LOG10E)), x);
}

/** `log(1 + x)`, accurate near 0. */
export function log1p(x: Tensor): Tensor {
  return floatUnary("log1p", c.log1p, x);
}

/** The square root; NaN below 0. */
export function sqrt(x: Tensor): Tensor {
  return floatUnary("sqrt", g.sqrt, x);
}

/** `1/√x`. */
export function rsqrt(x: Tensor): Tensor {
  return floatUnary("rsqrt", c.rsqrt, x);
}

/** `1/x`. */
export function reciprocal(x: Tensor): Tensor {
  return floatUnary("reciprocal", c.reciprocal, x);
}

/** The sine of x radians. */
export function sin(x: Tensor): Tensor {
  return floatUnary("sin", g.sin, x);
}

/** The cosine of x radians. */
export function cos(x: Tensor): Tensor {
  return floatUnary("cos", g.cos, x);
}

/** The tangent of x radians. */
export function tan(x: Tensor): Tensor {
  return floatUnary("tan", (n) => g.div(g.sin(n), g.cos(n)), x);
}

/** `(eˣ - e⁻ˣ)/2`, accurate near 0. */
export function sinh(x: Tensor): Tensor {
  const formula = (n: Node): Node => g.mul(g.sub(c.expm1(n), c.expm1(g.neg(n))), literalOf(n, 0.5));
  return floatUnary("sinh", formula, x);
}

/** `(eˣ + e⁻ˣ)/2`. */
export function cosh(x: Tensor): Tensor {
  const formula = (n: Node): Node => g.mul(g.add(g.exp(n), g.exp(g.neg(n))), literalOf(n, 0.5));
  return floatUnary("cosh", formula, x);
}

/** The hyperbolic tangent. */
export function tanh(x: Tensor): Tensor {
  return floatUnary("tanh", g.tanh, x);
}

/** The error function `2/√π ∫₀ˣ e^(-t²) dt`. */
export function erf(x: Tensor): Tensor {
  return floatUnary("erf", g.erf, x);
}

/** The largest integer ≤ x. The gradient is zero. */
export function floor(x: Tensor): Tensor {
  return rounding("floor", g.floor, x);
}

/** The smallest integer ≥ x. The gradient is zero. */
export function ceil(x: Tensor): Tensor {
  return rounding("ceil", c.ceil, x);
}

/** The integer next to x towards zero. The gradient is zero. */
export function trunc(x: Tensor): Tensor {
  return rounding("trunc", c.trunc, x);
}

/**
 * The nearest integer, halves to even; with `decimals` to that many decimal places. The gradient is
 * zero.
 */
export function round(x: Tensor, { decimals = 0 }: { decimals?: number } = {}): Tensor {
  const scale = 10 ** Math.abs(decimals);
  const places = (n: Node): Node => {
    const s = literalOf(n, scale);
    return decimals > 0 ? g.div(g.round(g.mul(n, s)), s) : g.mul(g.round(g.div(n, s)), s);
  };
  return rounding("round", decimals === 0 ? g.round : places, x);
}

/** The fractional part `x - trunc(x)`. */
export function frac(x: Tensor): Tensor {
  return floatUnary("frac", (n) => g.sub(n, c.trunc(n)), x);
}

/** True where x is NaN. */
export function isnan(x: Tensor): Tensor {
  return classify("isnan", x, (n) => g.not(g.eq(n, n)), false);
}

/** True where x is ∞ or -∞. */
export function isinf(x: Tensor): Tensor {
  return classify("isinf", x, (n) => g.eq(g.abs(n), g.scalarLike(n, Infinity)), false);
}

/** True where x is neither infinite nor NaN. */
export function isfinite(x: Tensor): Tensor {
  return classify("isfinite", x, c.isFiniteNode, true);
}

/** As f32. */
export function float(x: Tensor): Tensor {
  return cast(x, "f32");
}

/** As f16. */
export function half(x: Tensor): Tensor {
  return cast(x, "f16");
}

/** As bf16. */
export function bfloat16(x: Tensor): Tensor {
  return cast(x, "bf16");
}

/** As i32. */
export function int(x: Tensor): Tensor {
  return cast(x, "i32");
}

/** As bool: x ≠ 0. */
export function bool(x: Tensor): Tensor {
  return cast(x, "bool");
}

// --- helpers -------------------------------------------------------------------------------------

const cast = (x: Tensor, dtype: DType): Tensor => fromNode(g.cast(nodeOf(dtype, x), dtype));

const literalOf = (x: Node, value: number): Node => g.scalarLike(x, Math.fround(value));

/** A predicate on floats that is the same everywhere for integers. */
function classify(op: string, x: Tensor, test: (n: Node) => Node, integers: boolean): Tensor {
  const n = nodeOf(op, x);
  if (isFloat(n.dtype)) return fromNode(test(n));
  return fromNode(g.expand(constant(integers ? 1 : 0, "bool"), n.shape));
}
