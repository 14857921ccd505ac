/**
 * @file Special functions of one operand: the error function's relatives, the gamma function's, the logit; and sums
 * that skip NaN. Every export is also a Tensor method.
 */
import { type DType, floatLimits, isFloat } from "../dtype.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { axesOf, type Dim, kept } from "./axes.ts";
import { isFiniteNode, reciprocal, square } from "./compose.ts";
import { lit, polynomial, withDerivative } from "./custom.ts";
import { floatNode, floatUnary, inFloat32, isHalfTensor, nodeOf } from "./promotion.ts";

/** What takes the place of what is not finite. */
export interface NanToNumOptions {
  /** For NaN; 0 by default. */
  nan?: number;
  /** For ∞; the largest finite number by default. */
  posinf?: number | null;
  /** For -∞; the smallest finite number by default. */
  neginf?: number | null;
}

/** `1 - erf(x)`, with its full relative accuracy where erf(x) is nearly 1. */
export function erfc(x: Tensor): Tensor {
  return floatUnary("erfc", erfcNode, x);
}

/** The inverse of erf on -1 … 1 (Giles 2012, "Approximating the erfinv function"); NaN outside. */
export function erfinv(x: Tensor): Tensor {
  const slope = (_: Node, y: Node): Node => g.mul(g.exp(square(y)), lit(y, Math.sqrt(Math.PI) / 2));
  return floatUnary("erfinv", (n) => withDerivative("erfinv", n, erfinvNode, slope), x);
}

/**
 * `log(x/(1 - x))`, the inverse of sigmoid. With `eps` x is first limited to [eps, 1 - eps], and the gradient is 0
 * outside; without, it is NaN outside 0 … 1.
 */
export function logit(x: Tensor, eps?: number | null): Tensor {
  const formula = (n: Node): Node => {
    const z = eps == null ? n : limited(n, eps, 1 - eps);
    return g.log(g.div(z, g.sub(lit(z, 1), z)));
  };
  return floatUnary("logit", formula, x);
}

/** `log |Γ(x)|`; ∞ at 0 and at negative integers. */
export function lgamma(x: Tensor): Tensor {
  return floatUnary("lgamma", (n) => withDerivative("lgamma", n, lgammaNode, digammaNode), x);
}

/** The derivative of lgamma, `Γ'(x)/Γ(x)`; NaN at negative integers and -∞ at 0. */
export function digamma(x: Tensor): Tensor {
  return floatUnary("digamma", digammaNode, x);
}

/** NaN and infinities replaced by numbers; the gradient passes where x is finite. Integers are returned as they are. */
export function nanToNum(x: Tensor, { nan = 0, posinf, neginf }: NanToNumOptions = {}): Tensor {
  const n = nodeOf("nanToNum", x);
  if (!isFloat(n.dtype)) return x;
  const largest = floatLimits[n.dtype as Extract<DType, keyof typeof floatLimits>].max;
  const top = g.where(g.eq(n, lit(n, Infinity)), lit(n, posinf ?? largest), n);
  const both = g.where(g.eq(n, lit(n, -Infinity)), lit(n, neginf ?? -largest), top);
  return fromNode(g.where(g.eq(n, n), both, lit(n, nan)));
}

/** The sum of the elements that are not NaN. */
export function nansum(x: Tensor, dim?: Dim, keepdim = false): Tensor {
  if (isHalfTensor(x)) return inFloat32("nansum", nansum, x, dim, keepdim);
  const n = floatNode("nansum", x);
  const axes = axesOf("nansum", dim, n.shape.length);
  const total = g.sum(g.where(g.eq(n, n), n, lit(n, 0)), axes);
  return fromNode(keepdim ? kept(total, axes, n) : total);
}

/** The mean of the elements that are not NaN; NaN if there are none. */
export function nanmean(x: Tensor, dim?: Dim, keepdim = false): Tensor {
  if (isHalfTensor(x)) return inFloat32("nanmean", nanmean, x, dim, keepdim);
  const n = floatNode("nanmean", x);
  const axes = axesOf("nanmean", dim, n.shape.length);
  const number = g.eq(n, n);
  const total = g.sum(g.where(number, n, lit(n, 0)), axes);
  const mean = g.div(total, g.sum(g.cast(number, n.dtype), axes));
  return fromNode(keepdim ? kept(mean, axes, n) : mean);
}

// --- helpers, on nodes ---------------------------------------------------------------------------

/** Limits that pass the gradient at both ends, as clamp. */
const limited = (x: Node, lo: number, hi: number): Node =>
  g.where(g.lt(x, lit(x, lo)), lit(x, lo), g.where(g.lt(lit(x, hi), x), lit(x, hi), x));

/** 1 - erf, plus a detached correction in the tails: the derivatives are erf's, which are accurate there. */
function erfcNode(x: Node): Node {
  const rough = g.sub(lit(x, 1), g.erf(x));
  const far = g.lt(lit(x, 1), x);
  const a = g.where(far, x, lit(x, 1));
  // Cephes (Moshier 1992, single/ndtrf.c): e^(-a²)/a times a polynomial in 1/a².
  const q = reciprocal(a);
  const y = square(q);
  const middle = polynomial(y, [
    2.326819970068386e-2, -1.387039388740657e-1, 3.687424674597105e-1, -5.824733027278666e-1,
    6.210004621745983e-1, -4.944515323274145e-1, 3.404879937665872e-1, -2.741127028184656e-1,
    5.638259427386472e-1,
  ]); // biome-ignore format: a table
  const outer = polynomial(y, [
    -1.047766399936249e1, 1.297719955372516e1, -7.495518717768503, 2.921019019210786,
    -1.0152652792027, 4.218463358204948e-1, -2.820767439740514e-1, 5.641895067754075e-1,
  ]); // biome-ignore format: a table
  const p = g.where(g.lt(a, lit(a, 2)), middle, outer);
  const tail = g.mul(g.mul(g.exp(g.neg(square(a))), q), p);
  // Infinite arguments have no 1/a² to work with, and need none.
  const corrected = g.and(far, isFiniteNode(x));
  return g.add(rough, g.detach(g.where(corrected, g.sub(tail, rough), lit(x, 0))));
}

function erfinvNode(x: Node): Node {
  const one = lit(x, 1);
  const w = g.neg(g.log(g.mul(g.sub(one, x), g.add(one, x))));
  const central = g.lt(w, lit(w, 5));
  const near = polynomial(g.sub(w, lit(w, 2.5)), [
    2.81022636e-8, 3.43273939e-7, -3.5233877e-6, -4.39150654e-6, 2.1858087e-4, -1.25372503e-3,
    -4.17768164e-3, 2.46640727e-1, 1.50140941,
  ]); // biome-ignore format: a table
  const root = g.sqrt(g.where(central, lit(w, 5), w));
  const far = polynomial(g.sub(root, lit(w, 3)), [
    -2.00214257e-4, 1.00950558e-4, 1.34934322e-3, -3.67342844e-3, 5.73950773e-3, -7.6224613e-3,
    9.43887047e-3, 1.00167406, 2.83297682,
  ]); // biome-ignore format: a table
  const end = g.eq(g.abs(x), one);
  return g.mul(g.where(end, lit(x, Infinity), g.where(central, near, far)), x);
}

/** x minus the nearest integer, exact: what sin πx and tan πx depend on. */
const offInteger = (x: Node): Node => g.sub(x, g.round(x));

/** ψ by ψ(x) = ψ(x + 6) - Σ 1/(x + k) and Stirling's series; below 0 by ψ(x) = ψ(1 - x) - π/tan πx. */
function digammaNode(x: Node): Node {
  const negative = g.lt(x, lit(x, 0));
  const z = g.where(negative, g.sub(lit(x, 1), x), x);
  let sum = reciprocal(z);
  for (let k = 1; k < 6; k++) sum = g.add(sum, reciprocal(g.add(z, lit(z, k))));
  const w = g.add(z, lit(z, 6));
  const r = reciprocal(w);
  const s = square(r);
  const series = g.mul(s, polynomial(s, [1 / 252, -1 / 120, 1 / 12]));
  const positive = g.sub(g.sub(g.sub(g.log(w), g.mul(r, lit(r, 0.5))), series), sum);
  const angle = g.mul(g.where(negative, offInteger(x), lit(x, 0.25)), lit(x, Math.PI));
  const pole = g.eq(angle, lit(x, 0));
  const safe = g.where(pole, lit(x, 1), angle);
  const cotangent = g.div(g.mul(g.cos(safe), lit(x, Math.PI)), g.sin(safe));
  const reflected = g.where(pole, lit(x, NaN), g.sub(positive, cotangent));
  return g.where(negative, reflected, positive);
}

/**
 * By Stirling's series from 3 on; on [1, 3) as (x - 1)(x - 2)·P(x - 2), which keeps the relative accuracy at the zeros (P
 * interpolates at 12 Chebyshev points); on [0, 1) as lgamma(x + 1) - log x; below 0 by Γ(x)Γ(1 - x) = π/sin πx.
 */
function lgammaNode(x: Node): Node {
  const negative = g.lt(x, lit(x, 0));
  const z = g.where(negative, g.sub(lit(x, 1), x), x);
  const large = g.le(lit(z, 3), z);
  const far = g.where(large, z, lit(z, 3));
  const r = reciprocal(far);
  const tail = g.mul(r, polynomial(square(r), [-1 / 1680, 1 / 1260, -1 / 360, 1 / 12]));
  // (z - ½)(log z - 1) and not (z - ½)·log z - z, which is ∞ - ∞ at ∞.
  const main = g.mul(g.sub(far, lit(z, 0.5)), g.sub(g.log(far), lit(z, 1)));
  const stirling = g.add(g.add(main, lit(z, 0.5 * Math.log(2 * Math.PI) - 0.5)), tail);
  const small = g.lt(z, lit(z, 1));
  const t = g.where(large, lit(z, 0), g.sub(z, g.where(small, lit(z, 1), lit(z, 2))));
  const p = polynomial(t, [
    -0.00003631557162, 0.00007787132385, -0.00005903225502, 0.0001313883352, -0.0004190059954, 0.0009436406138, -0.002104907696, 0.004991792677, -0.01238447299, 0.03296559716, -0.1003172978, 0.4227843268,
  ]); // biome-ignore format: a table
  const near = g.mul(g.mul(t, g.add(t, lit(t, 1))), p);
  const shift = g.log(g.where(small, z, lit(z, 1)));
  const positive = g.where(large, stirling, g.sub(near, shift));
  const sine = g.abs(g.sin(g.mul(g.where(negative, offInteger(x), lit(x, 0.5)), lit(x, Math.PI))));
  const reflected = g.sub(g.log(g.div(lit(x, Math.PI), sine)), positive);
  const infinite = g.eq(x, lit(x, -Infinity));
  return g.where(infinite, lit(x, Infinity), g.where(negative, reflected, positive));
}
