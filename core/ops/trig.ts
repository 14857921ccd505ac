/**
 * @file Inverse trigonometric and hyperbolic functions, element by element on floating-point tensors, and angles. The
 * polynomials for f32 are those of Cephes (Moshier 1992, single/atanf.c and asinf.c). Every export is also a Tensor
 * method.
 */
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { log1p, reciprocal, rsqrt, square } from "./compose.ts";
import { lit, negatedWhere, polynomial, signBit, withDerivative, withPartials } from "./custom.ts";
import { floatPair, floatUnary, inWide, type Operand } from "./promotion.ts";

const [pi, halfPi, quarterPi] = [Math.PI, Math.PI / 2, Math.PI / 4];

/** The angle in -π/2 … π/2 with this sine; NaN outside -1 … 1. */
export function asin(x: Tensor): Tensor {
  const slope = (n: Node): Node => rsqrt(oneMinusSquare(n));
  return floatUnary("asin", (n) => withDerivative("asin", n, asinNode, slope), x);
}

/** The angle in 0 … π with this cosine; NaN outside -1 … 1. */
export function acos(x: Tensor): Tensor {
  const slope = (n: Node): Node => g.neg(rsqrt(oneMinusSquare(n)));
  return floatUnary("acos", (n) => withDerivative("acos", n, acosNode, slope), x);
}

/** The angle in -π/2 … π/2 with this tangent. */
export function atan(x: Tensor): Tensor {
  const slope = (n: Node): Node => reciprocal(g.add(square(n), lit(n, 1)));
  return floatUnary("atan", (n) => withDerivative("atan", n, atanNode, slope), x);
}

/**
 * The angle of the point (x, y) in -π … π, broadcasting: the signs of both operands, also of zeros, choose the
 * quadrant. The gradient at (0, 0) is 0.
 */
export function atan2(y: Operand, x: Operand): Tensor {
  const angle = (a: Node, b: Node): Node =>
    withPartials("atan2", a, b, atan2Node, (p, q) => {
      const r = g.add(square(p), square(q));
      const inverse = g.where(g.eq(r, lit(r, 0)), lit(r, 0), reciprocal(r));
      return [g.mul(q, inverse), g.neg(g.mul(p, inverse))];
    });
  return fromNode(inWide(angle, ...floatPair("atan2", y, x)));
}

/** The inverse of sinh, `log(x + √(x² + 1))`. */
export function asinh(x: Tensor): Tensor {
  const slope = (n: Node): Node => rsqrt(g.add(square(n), lit(n, 1)));
  return floatUnary("asinh", (n) => withDerivative("asinh", n, asinhNode, slope), x);
}

/** The inverse of cosh on x ≥ 1, `log(x + √(x² - 1))`; NaN below. */
export function acosh(x: Tensor): Tensor {
  const slope = (n: Node): Node => rsqrt(g.mul(g.sub(n, lit(n, 1)), g.add(n, lit(n, 1))));
  return floatUnary("acosh", (n) => withDerivative("acosh", n, acoshNode, slope), x);
}

/** The inverse of tanh, `log((1 + x)/(1 - x))/2`; NaN outside -1 … 1. */
export function atanh(x: Tensor): Tensor {
  const slope = (n: Node): Node => reciprocal(oneMinusSquare(n));
  return floatUnary("atanh", (n) => withDerivative("atanh", n, atanhNode, slope), x);
}

/** `√(x² + y²)` without overflow, broadcasting; ∞ if either is infinite. The gradient at (0, 0) is 0. */
export function hypot(x: Operand, y: Operand): Tensor {
  const length = (a: Node, b: Node): Node =>
    withPartials("hypot", a, b, hypotNode, (p, q, out) => {
      const safe = g.where(g.eq(out, lit(out, 0)), lit(out, 1), out);
      return [g.div(p, safe), g.div(q, safe)];
    });
  return fromNode(inWide(length, ...floatPair("hypot", x, y)));
}

/** Degrees to radians, `x·π/180`. */
export function deg2rad(x: Tensor): Tensor {
  return floatUnary("deg2rad", (n) => g.mul(n, lit(n, pi / 180)), x);
}

/** Radians to degrees, `x·180/π`. */
export function rad2deg(x: Tensor): Tensor {
  return floatUnary("rad2deg", (n) => g.mul(n, lit(n, 180 / pi)), x);
}

/** `sin(πx)/(πx)`, and 1 at 0. */
export function sinc(x: Tensor): Tensor {
  const formula = (n: Node): Node => {
    const p = g.mul(n, lit(n, pi));
    // The Taylor series has the derivatives of every order at 0 that the quotient lacks.
    const near = g.lt(g.abs(p), lit(p, 0.5));
    const far = g.where(near, lit(p, 1), p);
    const series = polynomial(square(p), [1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1]);
    return g.where(near, series, g.div(g.sin(far), far));
  };
  return floatUnary("sinc", formula, x);
}

// --- helpers, on nodes ---------------------------------------------------------------------------

/** 1 - x², without the cancellation of the difference near ±1. */
const oneMinusSquare = (x: Node): Node => g.mul(g.sub(lit(x, 1), x), g.add(lit(x, 1), x));

const isNegative = (x: Node): Node => g.lt(x, lit(x, 0));

/** atan on 0 … ∞. */
function atanPositive(a: Node): Node {
  // Above tan 3π/8 through atan(a) = π/2 - atan(1/a), above tan π/8 through π/4 + atan((a - 1)/(a + 1)).
  const high = g.lt(lit(a, 1 + Math.SQRT2), a);
  const middle = g.lt(lit(a, Math.SQRT2 - 1), a);
  const bounded = g.where(high, lit(a, 1), a);
  const ratio = g.div(g.sub(bounded, lit(a, 1)), g.add(bounded, lit(a, 1)));
  const inverse = g.neg(reciprocal(g.where(high, a, lit(a, 1))));
  const r = g.where(high, inverse, g.where(middle, ratio, bounded));
  const base = g.where(high, lit(a, halfPi), g.where(middle, lit(a, quarterPi), lit(a, 0)));
  const z = square(r);
  const p = polynomial(
    z,
    [8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1],
  );
  return g.add(base, g.add(g.mul(g.mul(p, z), r), r));
}

function atanNode(x: Node): Node {
  const negative = isNegative(x);
  return negatedWhere(negative, atanPositive(negatedWhere(negative, x)));
}

function atan2Node(y: Node, x: Node): Node {
  const [below, left] = [signBit(y), signBit(x)];
  const [a, b] = [negatedWhere(below, y), negatedWhere(left, x)];
  const steep = g.lt(b, a);
  const [low, high] = [g.where(steep, b, a), g.where(steep, a, b)];
  // 0/0 is the angle 0, ∞/∞ the angle π/4.
  const same = g.and(g.eq(low, high), g.or(g.eq(low, lit(low, 0)), g.eq(low, lit(low, Infinity))));
  const tied = g.where(g.eq(low, lit(low, 0)), lit(low, 0), lit(low, 1));
  const ratio = g.where(same, tied, g.div(low, g.where(same, lit(high, 1), high)));
  const octant = atanPositive(ratio);
  const quadrant = g.where(steep, g.sub(lit(x, halfPi), octant), octant);
  return negatedWhere(below, g.where(left, g.sub(lit(x, pi), quadrant), quadrant));
}

/** asin on 0 … ½. */
function asinSmall(x: Node, z: Node): Node {
  const p = polynomial(
    z,
    [4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1],
  );
  return g.add(g.mul(g.mul(p, z), x), x);
}

/** Above ½ through asin(a) = π/2 - 2·asin(√((1 - a)/2)): `tail` is the last factor, asin's or half of acos. */
function asinParts(a: Node): { large: Node; value: Node } {
  const large = g.lt(lit(a, 0.5), a);
  const rest = g.mul(g.sub(lit(a, 1), a), lit(a, 0.5));
  const z = g.where(large, rest, square(g.where(large, lit(a, 0), a)));
  return { large, value: asinSmall(g.where(large, g.sqrt(g.where(large, rest, lit(a, 1))), a), z) };
}

function asinNode(x: Node): Node {
  const negative = isNegative(x);
  const { large, value } = asinParts(negatedWhere(negative, x));
  const two = g.add(value, value);
  return negatedWhere(negative, g.where(large, g.sub(lit(x, halfPi), two), value));
}

function acosNode(x: Node): Node {
  const negative = isNegative(x);
  const { large, value } = asinParts(negatedWhere(negative, x));
  const two = g.add(value, value);
  const outer = g.where(negative, g.sub(lit(x, pi), two), two);
  return g.where(large, outer, g.sub(lit(x, halfPi), negatedWhere(negative, value)));
}

/** log(2a) where a² would overflow or swamp the 1, else `near(a)`. */
function logarithmic(a: Node, near: (a: Node) => Node): Node {
  const big = g.lt(lit(a, 1e9), a);
  const far = g.add(g.log(g.where(big, a, lit(a, 1))), lit(a, Math.LN2));
  return g.where(big, far, near(g.where(big, lit(a, 2), a)));
}

function asinhNode(x: Node): Node {
  const negative = isNegative(x);
  // log1p(a + √(a² + 1) - 1) with the difference rationalised.
  const near = (a: Node): Node => {
    const s = square(a);
    return log1p(g.add(a, g.div(s, g.add(lit(a, 1), g.sqrt(g.add(s, lit(a, 1)))))));
  };
  return negatedWhere(negative, logarithmic(negatedWhere(negative, x), near));
}

function acoshNode(x: Node): Node {
  const near = (a: Node): Node => {
    const t = g.sub(a, lit(a, 1));
    return log1p(g.add(t, g.sqrt(g.mul(t, g.add(t, lit(a, 2))))));
  };
  return g.where(g.lt(x, lit(x, 1)), lit(x, NaN), logarithmic(x, near));
}

function atanhNode(x: Node): Node {
  const negative = isNegative(x);
  const a = negatedWhere(negative, x);
  const q = g.div(g.add(a, a), g.sub(lit(a, 1), a));
  return negatedWhere(negative, g.mul(log1p(q), lit(x, 0.5)));
}

function hypotNode(x: Node, y: Node): Node {
  const [a, b] = [negatedWhere(isNegative(x), x), negatedWhere(isNegative(y), y)];
  const swap = g.lt(a, b);
  const [high, low] = [g.where(swap, b, a), g.where(swap, a, b)];
  const zero = g.eq(high, lit(high, 0));
  const ratio = g.div(low, g.where(zero, lit(high, 1), high));
  const length = g.mul(high, g.sqrt(g.add(square(ratio), lit(high, 1))));
  const infinite = (n: Node): Node => g.eq(n, lit(n, Infinity));
  return g.where(g.or(infinite(a), infinite(b)), lit(high, Infinity), length);
}
