/**
 * @file The derivative of every primitive: one exhaustive table, read by both directions of
 * differentiation.
 *
 * Element-wise primitives state each partial derivative once, as a map of the incoming (co)tangent:
 * being diagonal, it serves forward and backward. Linear primitives state their transpose; forward
 * they are themselves. A row without a derivative states why. Everything is graph operations, so
 * higher orders need nothing. Un-broadcasting and zero cotangents are the walkers' business
 * (vjp.ts, jvp.ts), regions region.ts's.
 *
 * Values at ties and kinks follow PyTorch's derivatives.yaml. One screen for all of autodiff is
 * tinygrad's idea (gradient.py), the exhaustive table jax-js's.
 */
import { isFloat } from "../dtype.ts";
import * as b from "../graph/build.ts";
import { is, type Node } from "../graph/node.ts";
import { type AttrsOf, node, type Primitive } from "../graph/primitives.ts";
import { broadcast, type Shape } from "../shape.ts";
import { cumulative } from "./cumulative.ts";
import { dynamicSliceTranspose, dynamicUpdateSliceTranspose } from "./dynamic.ts";
import { unwindow } from "./window.ts";

export interface Derivative<P extends Primitive = Primitive> {
  /**
   * Cotangents of the sources for which `need` is true (others: null), in any shape that sums to
   * the source's.
   */
  vjp(g: Node, n: Node<P>, need: (i: number) => boolean): (Node | null)[];
  /**
   * The tangent of n from those of its sources (null = zero; at least one is not), broadcastable to
   * n's shape.
   */
  jvp(t: readonly (Node | null)[], n: Node<P>): Node | null;
}

/** No derivative, and why. */
export interface NoDerivative {
  readonly reason: string;
}
const none = (reason: string): NoDerivative => ({ reason });

/** Several cotangents at once: the walkers hand them to region.ts. */
const regional = "region";

type Row<P extends Primitive> = Derivative<P> | NoDerivative | typeof regional;

type Partial = (g: Node, out: Node, x: Node, y: Node) => Node | null;

function elementwise(partials: readonly Partial[]): Derivative {
  const apply = (i: number, g: Node, n: Node) => partials[i](g, n, n.src[0], n.src[1]);
  return {
    vjp: (g, n, need) => partials.map((_, i) => (need(i) ? apply(i, g, n) : null)),
    jvp: (t, n) =>
      t.reduce((total, ti, i) => plus(total, ti && apply(i, ti, n)), null as Node | null),
  };
}

/** Linear in all float sources together; `transpose` gives source i's cotangent. */
function linear<P extends Primitive>(
  transpose: (g: Node, n: Node<P>, i: number) => Node,
): Derivative<P> {
  return {
    vjp: (g, n, need) => n.src.map((_, i) => (need(i) ? transpose(g, n, i) : null)),
    jvp: (t, n) => {
      const src = n.src.map((s, i) => (isFloat(s.dtype) ? (t[i] ?? b.zerosLike(s)) : s));
      return node(n.op, src, n.attrs);
    },
  };
}

export const plus = (x: Node | null, y: Node | null): Node | null =>
  x && y ? b.add(x, y) : x || y;

const { cast, div, eq, le, lt, mul, neg, pow, sub, where } = b;
const zero = (g: Node): Node => b.scalarLike(g, 0);
const half = (g: Node): Node => mul(g, b.scalarLike(g, 0.5));

/**
 * Nothing where low < high, half of g at a tie, else all of it: also where a NaN makes both
 * comparisons fail.
 */
const unlessBelow = (g: Node, low: Node, high: Node): Node =>
  where(lt(low, high), zero(g), where(eq(low, high), half(g), g));

const power = (x: Node, to: number): Node =>
  to === 1 ? x : to === 2 ? mul(x, x) : pow(x, b.scalarLike(x, to));

/**
 * y·x^(y-1), and 0 where y = 0 even at x = 0. The inner where keeps 0·∞ out of the second
 * derivative too.
 */
const powBase: Partial = (g, _, x, y) => {
  if (is(y, "constant")) {
    const { value } = y.attrs;
    return value === 0 ? null : value === 1 ? g : mul(g, mul(power(x, value - 1), y));
  }
  const flat = eq(y, zero(y));
  const one = b.scalarLike(y, 1);
  return where(flat, zero(g), mul(g, mul(y, pow(x, where(flat, one, sub(y, one))))));
};

/** x^y·log x, and 0 where x = 0 and y ≥ 0: there log 1 takes the place of log 0. */
const powExponent: Partial = (g, out, x, y) => {
  const flat = b.and(eq(x, zero(x)), le(zero(y), y));
  return mul(g, mul(out, b.log(where(flat, b.scalarLike(x, 1), x))));
};

/** amax, amin: the gradient is shared evenly by the elements that attain the extremum. */
function extremum<P extends "amax" | "amin">(): Derivative<P> {
  const weights = (n: Node<P>) => {
    const [x] = n.src;
    const { axes } = n.attrs;
    const hit = eq(x, b.keepdim(n, axes, x.shape));
    return { x, axes, hit, count: b.sum(cast(hit, x.dtype), axes) };
  };
  return {
    vjp: (g, n) => {
      const { x, axes, hit, count } = weights(n);
      return [where(hit, b.keepdim(div(g, count), axes, x.shape), zero(g))];
    },
    jvp: ([t], n) => {
      const { axes, hit, count } = weights(n);
      return div(b.sum(where(hit, t!, zero(t!)), axes), count);
    },
  };
}

/** Π of the elements before each one on the last axis, in log₂ n steps (Hillis & Steele 1986). */
function productBefore(x: Node): Node {
  const [kept, n] = [x.shape.slice(0, -1), x.shape.at(-1)!];
  const none = kept.map(() => 0);
  const shift = (y: Node, k: number) =>
    b.pad(b.slice(y, [...none, 0], [...kept, n - k]), [...none, k], [...none, 0], 1);
  if (n === 0) return x;
  let y = shift(x, 1);
  for (let k = 1; k < n; k *= 2) y = mul(y, shift(y, k));
  return y;
}

/**
 * Per element the product of all the others along `axes`: without a division, so any number of
 * zeros is fine.
 */
function productOfOthers(x: Node, axes: readonly number[]): Node {
  const kept = x.shape.flatMap((_, i) => (axes.includes(i) ? [] : [i]));
  const order = [...kept, ...axes];
  const moved = b.permute(x, order);
  const count = axes.reduce((c, a) => c * x.shape[a], 1);
  const flat = b.reshape(moved, [...kept.map((i) => x.shape[i]), count]);
  const last = [kept.length];
  const after = b.flip(productBefore(b.flip(flat, last)), last);
  return b.permute(b.reshape(mul(productBefore(flat), after), moved.shape), invert(order));
}

const invert = (axes: readonly number[]): number[] => axes.map((_, i) => axes.indexOf(i));

const transposed = (x: Node): Node => b.permute(x, [0, 2, 1]);

/**
 * Puts a slice's cotangent back in its place: steps are filled by padding each element to a row of
 * `step`.
 */
function unslice(g: Node, { start, size, step }: AttrsOf["slice"], shape: Shape): Node {
  const zeros = shape.map(() => 0);
  let y = g;
  for (const [axis, s] of step.entries()) {
    if (s === 1) continue;
    const apart = y.shape.toSpliced(axis + 1, 0, 1);
    const gap = apart.map((_, i) => (i === axis + 1 ? s - 1 : 0));
    y = b.pad(b.reshape(y, apart), [...zeros, 0], gap);
    y = b.reshape(y, y.shape.toSpliced(axis, 2, size[axis] * s));
  }
  const lo = start.map((s, i) => Math.min(s, shape[i]));
  const fits = y.shape.map((d, i) => Math.min(d, shape[i] - lo[i]));
  const hi = shape.map((d, i) => d - lo[i] - fits[i]);
  return b.pad(b.slice(y, zeros, fits), lo, hi);
}

const twoOverSqrtPi = 2 / Math.sqrt(Math.PI);

const comparison = none("its result is a bool");
const integer = none("it takes and gives integers");
const source = none("it has no sources");
const step = none("its derivative is zero wherever it exists");

export const derivatives = {
  constant: source,
  buffer: source,
  placeholder: source,
  iota: source,
  random: source,

  neg: elementwise([(g) => neg(g)]),
  abs: elementwise([(g, _, x) => mul(g, b.sign(x))]),
  exp: elementwise([(g, out) => mul(g, out)]),
  log: elementwise([(g, _, x) => div(g, x)]),
  sin: elementwise([(g, _, x) => mul(g, b.cos(x))]),
  cos: elementwise([(g, _, x) => neg(mul(g, b.sin(x)))]),
  sqrt: elementwise([(g, out) => div(half(g), out)]),
  tanh: elementwise([(g, out) => mul(g, sub(b.scalarLike(g, 1), mul(out, out)))]),
  erf: elementwise([
    (g, _, x) => mul(g, mul(b.scalarLike(g, twoOverSqrtPi), b.exp(neg(mul(x, x))))),
  ]),
  floor: step,
  round: step,
  not: integer,

  add: elementwise([(g) => g, (g) => g]),
  sub: elementwise([(g) => g, (g) => neg(g)]),
  mul: elementwise([(g, _, _x, y) => mul(g, y), (g, _, x) => mul(g, x)]),
  div: elementwise([(g, _, _x, y) => div(g, y), (g, out, _x, y) => neg(mul(g, div(out, y)))]),
  idiv: integer,
  // The quotient x - rem is a multiple of y, so rounding makes trunc(x / y) exact even where the
  // division is not.
  rem: elementwise([(g) => g, (g, out, x, y) => neg(mul(g, b.round(div(sub(x, out), y))))]),
  pow: elementwise([powBase, powExponent]),
  max: elementwise([(g, _, x, y) => unlessBelow(g, x, y), (g, _, x, y) => unlessBelow(g, y, x)]),
  min: elementwise([(g, _, x, y) => unlessBelow(g, y, x), (g, _, x, y) => unlessBelow(g, x, y)]),
  lt: comparison,
  le: comparison,
  eq: comparison,
  and: integer,
  or: integer,
  xor: integer,
  shl: integer,
  shr: integer,
  // A selection, never a product with the mask: NaN and ∞ of the branch not taken must not leak.
  where: linear((g, { src: [c] }, i) => (i === 1 ? where(c, g, zero(g)) : where(c, zero(g), g))),
  cast: linear((g, { src: [x] }) => cast(g, x.dtype)),
  bitcast: none("it reinterprets bits"),

  reshape: linear((g, { src: [x] }) => b.reshape(g, x.shape)),
  permute: linear((g, { attrs: { axes } }) => b.permute(g, invert(axes))),
  expand: linear((g, { src: [x] }) => b.sumTo(g, x.shape)),
  pad: {
    vjp: (g, { src: [x], attrs: { lo } }) => [b.slice(g, lo, x.shape)],
    jvp: ([t], { attrs: { lo, hi } }) => b.pad(t!, lo, hi), // the padding value is a constant
  },
  slice: linear((g, { src: [x], attrs }) => unslice(g, attrs, x.shape)),
  window: linear((g, { src: [x], attrs }) => unwindow(g, attrs, x.shape)),
  flip: linear((g, { attrs: { axes } }) => b.flip(g, axes)),
  concat: linear((g, { src, attrs: { axis } }, i) => {
    const start = g.shape.map(() => 0);
    for (const s of src.slice(0, i)) start[axis] += s.shape[axis];
    return b.slice(g, start, src[i].shape);
  }),

  sum: linear((g, { src: [x], attrs: { axes } }) => b.expand(b.keepdim(g, axes, x.shape), x.shape)),
  prod: {
    vjp: (g, { src: [x], attrs: { axes } }) => [
      mul(b.keepdim(g, axes, x.shape), productOfOthers(x, axes)),
    ],
    jvp: ([t], { src: [x], attrs: { axes } }) => b.sum(mul(t!, productOfOthers(x, axes)), axes),
  },
  amax: extremum(),
  amin: extremum(),
  argmax: none("its result is an index"),

  // Two more dots: the [B, M, K, N] product exists nowhere.
  dot: {
    vjp: (g, { src: [x, y] }, need) => [
      need(0) ? b.dot(g, transposed(y)) : null,
      need(1) ? b.dot(transposed(x), g) : null,
    ],
    jvp: ([tx, ty], { src: [x, y] }) => plus(tx && b.dot(tx, y), ty && b.dot(x, ty)),
  },
  gather: linear((g, { src: [x, index], attrs: { axis } }) =>
    b.scatterAdd(index, g, axis, x.shape[axis]),
  ),
  scatterAdd: linear((g, { src: [index], attrs: { axis } }) => b.gather(g, index, axis)),
  dynamicSlice: linear(dynamicSliceTranspose),
  dynamicUpdateSlice: linear(dynamicUpdateSliceTranspose),
  cumulative,
  argsort: none("its result is a permutation"),

  alias: { vjp: (g) => [g], jvp: ([t]) => t },
  detach: none("it is there to stop gradients"),
  assign: { vjp: (g) => [null, g], jvp: ([, t]) => t },
  region: regional,
  project: regional,
} satisfies { readonly [P in Primitive]: Row<P> };

/** The primitives without a derivative, and why. */
export const nonDifferentiable: Readonly<{ [P in Primitive]?: string }> = Object.fromEntries(
  Object.entries(derivatives).flatMap(([op, row]) =>
    typeof row === "object" && "reason" in row ? [[op, row.reason]] : [],
  ),
);

/** Whether a derivative can pass through n: what the walkers follow. */
export const differentiable = (n: Node): boolean =>
  isFloat(n.dtype) && nonDifferentiable[n.op] === undefined;

/** The rule of a node that is neither a region nor one of its projections. */
export const derivativeOf = (n: Node): Derivative => derivatives[n.op] as Derivative;

/** A derivative in exactly `shape`: broadcast axes are summed, constants spread. */
export const fitTo = (x: Node, shape: Shape): Node =>
  b.sumTo(b.expand(x, broadcast(x.shape, shape) ?? shape), shape);
