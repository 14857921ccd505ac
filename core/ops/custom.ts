/**
 * @file Functions with a known derivative, on nodes. A minimax polynomial gives the value; its own derivative would be
 * less accurate than the formula that calculus gives, and branches of it may overflow. So the function becomes one
 * region whose gradient is that formula. Forward mode differentiates the value's expression.
 */
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { broadcast } from "../shape.ts";
import { regionNodes } from "../transform/region.ts";

/** `value(x)` whose derivative is `derivative(x, value(x))`. */
export function withDerivative(
  name: string,
  x: Node,
  value: (x: Node) => Node,
  derivative: (x: Node, out: Node) => Node,
): Node {
  const [result] = regionNodes(
    "custom",
    name,
    ([p]) => [value(p)],
    [x],
    ([p], [y], [ct]) => [g.mul(ct, derivative(p, y))],
  );
  return result;
}

/** `value(x, y)` of two operands that broadcast; `partials` are its two derivatives. */
export function withPartials(
  name: string,
  x: Node,
  y: Node,
  value: (x: Node, y: Node) => Node,
  partials: (x: Node, y: Node, out: Node) => [Node, Node],
): Node {
  // A region's cotangents have its sources' shapes, so what broadcasts is expanded outside of it.
  const shape = broadcast(x.shape, y.shape);
  if (!shape) return value(x, y);
  const [result] = regionNodes(
    "custom",
    name,
    ([p, q]) => [value(p, q)],
    [g.expand(x, shape), g.expand(y, shape)],
    ([p, q], [out], [ct]) => partials(p, q, out).map((d) => g.mul(ct, d)),
  );
  return result;
}

/** A literal of x's dtype, rounded to it. */
export const lit = (x: Node, value: number): Node => g.scalarLike(x, Math.fround(value));

/** c₀·zⁿ + … + cₙ by Horner's rule. */
export const polynomial = (z: Node, coefficients: readonly number[]): Node =>
  coefficients
    .slice(1)
    .reduce((sum, k) => g.add(g.mul(sum, z), lit(z, k)), lit(z, coefficients[0]));

/** True where the sign bit is set: also for -0. */
export const signBit = (x: Node): Node => {
  const bits = g.bitcast(g.cast(x, "f32"), "i32");
  return g.lt(bits, g.scalarLike(bits, 0));
};

/** x where `negative` is false and -x where it is true: |x| with a derivative at 0, and back. */
export const negatedWhere = (negative: Node, x: Node): Node => g.where(negative, g.neg(x), x);

/** a·log b with 0·log b = 0: where a is 0, b is taken for 1 unless its logarithm is finite. */
export function xlogyNode(x: Node, y: Node): Node {
  const outside = g.or(g.le(y, lit(y, 0)), g.eq(y, lit(y, Infinity)));
  return g.mul(x, g.log(g.where(g.and(g.eq(x, lit(x, 0)), outside), lit(y, 1), y)));
}
