/**
 * @file Compositions of reductions on nodes, shared by the operators: moments, norms, positions,
 * and softmax and its kin. They are written so that each row is read along one axis only, which
 * lets the scheduler make one kernel of each.
 */
import { isFloat } from "../dtype.ts";
import { describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { regionNodes } from "../transform/region.ts";
import { axisOf, countOf, kept } from "./axes.ts";
import { isFiniteNode, sqrtSafe, square, truth } from "./compose.ts";
import { describeNode } from "./promotion.ts";

export const meanNode = (n: Node, axes: readonly number[]): Node =>
  g.div(g.sum(n, axes), g.scalarLike(n, countOf(n, axes)));

/**
 * Mean (kept), the centred values and the variance (not kept), each computed once: what norms and
 * their gradients share, and what the scheduler fuses into one kernel.
 */
export function moments(
  n: Node,
  axes: readonly number[],
  correction: number,
): { mean: Node; centred: Node; variance: Node } {
  const mean = kept(meanNode(n, axes), axes, n);
  const centred = g.sub(n, mean);
  const divisor = Math.max(countOf(n, axes) - correction, 0);
  const variance = g.div(g.sum(square(centred), axes), g.scalarLike(n, divisor));
  return { mean, centred, variance };
}

export function normNode(n: Node, axes: readonly number[], p: number): Node {
  if (p === 2) return sqrtSafe(g.sum(square(n), axes));
  const size = g.abs(n);
  if (p === 1) return g.sum(size, axes);
  if (p === Infinity) return g.amax(size, axes);
  if (p === -Infinity) return g.amin(size, axes);
  if (p === 0) return g.sum(g.cast(truth(n), n.dtype), axes);
  // Zeros are left out of the power, whose gradient there would be 0·∞ for p < 1.
  const zero = g.eq(size, g.scalarLike(n, 0));
  const safe = g.where(zero, g.scalarLike(n, 1), size);
  const powers = g.pow(safe, g.scalarLike(n, p));
  const total = g.sum(g.where(zero, g.scalarLike(n, p > 0 ? 0 : Infinity), powers), axes);
  const empty = g.eq(total, g.scalarLike(n, 0));
  const root = g.pow(g.where(empty, g.scalarLike(n, 1), total), g.scalarLike(n, 1 / p));
  return g.where(empty, g.scalarLike(n, 0), root);
}

export function nonEmpty(op: string, n: Node, axes: readonly number[]): void {
  if (countOf(n, axes) === 0)
    throw new ShapeError(
      describe(op, "at least one element per reduction", describeNode(n), "it has no identity"),
    );
}

/** The position of the first extremum along `dim`, or in the flattened tensor. */
export function position(
  op: string,
  n: Node,
  dim: number | undefined,
  keepdim: boolean,
  smallest: boolean,
): Node {
  const flat = dim === undefined || n.shape.length === 0;
  if (dim !== undefined) axisOf(op, dim, n.shape.length);
  const axis = flat ? 0 : axisOf(op, dim, n.shape.length);
  const source = flat ? g.reshape(n, [countOf(n, [...n.shape.keys()])]) : n;
  nonEmpty(op, source, [axis]);
  const numbers = source.dtype === "bool" ? g.cast(source, "i32") : source;
  // The smallest of integers is the largest complement: -x would overflow at the smallest value.
  const reversed = isFloat(numbers.dtype) ? g.neg : g.not;
  const index = g.argmax(smallest ? reversed(numbers) : numbers, axis);
  if (!keepdim) return index;
  return flat
    ? g.reshape(
        index,
        n.shape.map(() => 1),
      )
    : kept(index, [axis], n);
}

/** The maximum along `axes`, kept, without a gradient: what softmax and its like subtract. */
const shift = (x: Node, axes: readonly number[]): Node => g.detach(kept(g.amax(x, axes), axes, x));

/** An empty axis has no maximum; there is nothing to compute either. */
const isEmpty = (x: Node): boolean => x.shape.includes(0);

/** log Σ eˣ over `axes`, kept; ∞ and rows of nothing but -∞ included. */
export function logsumexpNode(x: Node, axes: readonly number[]): Node {
  if (countOf(x, axes) === 0) return kept(g.log(g.sum(g.exp(x), axes)), axes, x);
  // Subtracting an infinite maximum would give ∞ - ∞.
  const raw = shift(x, axes);
  const m = g.where(isFiniteNode(raw), raw, g.scalarLike(x, 0));
  return g.add(g.log(kept(g.sum(g.exp(g.sub(x, m)), axes), axes, x)), m);
}

export function softmaxNode(x: Node, axis: number): Node {
  return softmaxComposite(x, axis, (p) => {
    const e = g.exp(g.sub(p, shift(p, [axis])));
    return g.div(e, kept(g.sum(e, [axis]), [axis], p));
  });
}

/**
 * A softmax as one node with a gradient of its own, y·(ct - Σ ct·y): that reads only the result, where the
 * gradient of the expansion would keep the exponentials and their sums as well.
 */
export function softmaxComposite(x: Node, axis: number, expansion: (x: Node) => Node): Node {
  if (isEmpty(x)) return x;
  const [result] = regionNodes(
    "custom",
    "softmax",
    ([p]) => [expansion(p)],
    [x],
    (_, [y], [ct]) => [g.mul(y, g.sub(ct, kept(g.sum(g.mul(ct, y), [axis]), [axis], y)))],
  );
  return result;
}

export function logSoftmaxNode(x: Node, axis: number): Node {
  if (isEmpty(x)) return x;
  const { shifted, logTotal } = logSoftmaxParts(x, axis);
  return g.sub(shifted, logTotal);
}

/** x - max and log Σ e^(x - max), both kept: their difference is the log-softmax. */
export function logSoftmaxParts(x: Node, axis: number): { shifted: Node; logTotal: Node } {
  const shifted = g.sub(x, shift(x, [axis]));
  return { shifted, logTotal: g.log(kept(g.sum(g.exp(shifted), [axis]), [axis], x)) };
}
