/**
 * @file Functions of two operands beyond arithmetic: log-sums, signs, extrema that skip NaN, closeness. Operands
 * broadcast and promote (promotion.ts). Every export is also a Tensor method.
 */
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { isFiniteNode, log1p } from "./compose.ts";
import { lit, negatedWhere, signBit, xlogyNode } from "./custom.ts";
import { floatPair, inWide, type Operand, pair } from "./promotion.ts";

export interface CloseOptions {
  /** Relative to |b|; 1e-5 by default. */
  rtol?: number;
  /** 1e-8 by default. */
  atol?: number;
  /** Whether NaN is close to NaN. */
  equalNan?: boolean;
}

/** `log(eᵃ + eᵇ)` without overflow, broadcasting. */
export function logaddexp(a: Operand, b: Operand): Tensor {
  return fromNode(inWide((x, y) => logSum(x, y, 1), ...floatPair("logaddexp", a, b)));
}

/** `log₂(2ᵃ + 2ᵇ)` without overflow, broadcasting. */
export function logaddexp2(a: Operand, b: Operand): Tensor {
  return fromNode(inWide((x, y) => logSum(x, y, Math.LN2), ...floatPair("logaddexp2", a, b)));
}

/** |a| with the sign of b, also of a zero b. The gradient for b is zero, and that for a is 0 at a = 0. */
export function copysign(a: Operand, b: Operand): Tensor {
  const [x, y] = floatPair("copysign", a, b);
  return fromNode(negatedWhere(signBit(y), g.abs(x)));
}

/** `a·log b`, and 0 where a = 0 whatever b is (but NaN), broadcasting. */
export function xlogy(a: Operand, b: Operand): Tensor {
  return fromNode(inWide(xlogyNode, ...floatPair("xlogy", a, b)));
}

/** The larger of two elements; a number wins over NaN. The gradient goes to a at a tie. */
export function fmax(a: Operand, b: Operand): Tensor {
  const [x, y] = pair("fmax", a, b);
  return fromNode(g.where(g.or(g.le(y, x), g.not(g.eq(y, y))), x, y));
}

/** The smaller of two elements; a number wins over NaN. The gradient goes to a at a tie. */
export function fmin(a: Operand, b: Operand): Tensor {
  const [x, y] = pair("fmin", a, b);
  return fromNode(g.where(g.or(g.le(x, y), g.not(g.eq(y, y))), x, y));
}

/** True where `|a - b| ≤ atol + rtol·|b|`, or where both are the same infinity, broadcasting. */
export function isclose(
  a: Operand,
  b: Operand,
  { rtol = 1e-5, atol = 1e-8, equalNan = false }: CloseOptions = {},
): Tensor {
  const [x, y] = pair("isclose", a, b);
  const same = g.eq(x, y);
  if (x.dtype === "bool") return fromNode(same);
  const [p, q] = [g.cast(x, "f32"), g.cast(y, "f32")];
  const distance = g.abs(g.sub(p, q));
  const allowed = g.add(g.mul(g.abs(q), lit(q, rtol)), lit(q, atol));
  const near = g.or(same, g.and(isFiniteNode(distance), g.le(distance, allowed)));
  if (!equalNan) return fromNode(near);
  return fromNode(g.or(near, g.and(g.not(g.eq(p, p)), g.not(g.eq(q, q)))));
}

/** Whether all elements are close (see isclose): reads the result. */
export async function allclose(
  a: Operand,
  b: Operand,
  options: CloseOptions = {},
): Promise<boolean> {
  return Boolean(await isclose(a, b, options).all().item());
}

// --- helpers, on nodes ---------------------------------------------------------------------------

/** log(e^(kx) + e^(ky))/k: the larger one plus log(1 + e^-|k(x - y)|)/k, smooth on each side of x = y. */
function logSum(x: Node, y: Node, k: number): Node {
  const less = g.lt(x, y);
  // ∞ - ∞: equal infinities are their own sum.
  const tied = g.and(g.eq(x, y), g.not(isFiniteNode(x)));
  const d = g.where(tied, lit(x, -Infinity), g.where(less, g.sub(x, y), g.sub(y, x)));
  const rest = log1p(g.exp(k === 1 ? d : g.mul(d, lit(d, k))));
  return g.add(g.where(less, y, x), k === 1 ? rest : g.div(rest, lit(rest, k)));
}
