/**
 * @file Running combinations along an axis. Element j of the result combines the elements up to and including j. Every
 * export is also a Tensor method.
 */
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { linearRecurrence, runningPosition, shifted } from "../transform/cumulative.ts";
import { isFiniteNode } from "./compose.ts";
import type { ValuesAndIndices } from "./extrema.ts";
import { linesOf } from "./lines.ts";
import { floatNode, inFloat32, isHalfTensor, nodeOf, widened } from "./promotion.ts";

/** The running sum along `dim`. Sums of bool, i8 and u8 are i32. */
export function cumsum(x: Tensor, dim: number): Tensor {
  const { node, axis, restore } = linesOf("cumsum", widened(nodeOf("cumsum", x)), dim);
  return fromNode(restore(g.cumulative(node, axis, "sum")));
}

/** The running product along `dim`; its gradient is exact also where elements are 0. */
export function cumprod(x: Tensor, dim: number): Tensor {
  const { node, axis, restore } = linesOf("cumprod", widened(nodeOf("cumprod", x)), dim);
  return fromNode(restore(g.cumulative(node, axis, "prod")));
}

/** The running maximum along `dim` and where it is, of equal ones the last; the gradient goes there. NaN wins. */
export function cummax(x: Tensor, dim: number): ValuesAndIndices {
  return runningExtremum("cummax", x, dim, "max");
}

/** The running minimum along `dim` and where it is, of equal ones the last; the gradient goes there. NaN wins. */
export function cummin(x: Tensor, dim: number): ValuesAndIndices {
  return runningExtremum("cummin", x, dim, "min");
}

/**
 * log Σ eˣ over the elements so far, along `dim`. Sums are taken relative to the running maximum, so nothing overflows and
 * small first elements keep their digits beside large later ones.
 */
export function logcumsumexp(x: Tensor, dim: number): Tensor {
  if (isHalfTensor(x)) return inFloat32("logcumsumexp", logcumsumexp, x, dim);
  const { node, axis, count, restore } = linesOf("logcumsumexp", floatNode("logcumsumexp", x), dim);
  if (count === 0) return fromNode(restore(node));
  const zero = g.scalarLike(node, 0);
  const raw = g.detach(g.cumulative(node, axis, "max"));
  // Subtracting an infinite maximum would give ∞ - ∞.
  const max = g.where(isFiniteNode(raw), raw, zero);
  // sum[j] = Σ e^(x[i] - max[j]): what came before shrinks when the maximum grows. (It stands still, not grows, where the
  // replaced infinities would say otherwise: the sum is 0 or ∞ there.)
  const shrink = g.exp(g.min(g.sub(shifted(max, axis, 1, 0), max), zero));
  const sum = linearRecurrence(shrink, g.exp(g.sub(node, max)), axis);
  return fromNode(restore(g.add(max, g.log(sum))));
}

function runningExtremum(
  op: string,
  x: Tensor,
  dim: number,
  combine: "max" | "min",
): ValuesAndIndices {
  const n = nodeOf(op, x);
  const isBool = n.dtype === "bool";
  const { node, axis, restore } = linesOf(op, isBool ? g.cast(n, "u8") : n, dim);
  const values: Node = g.cumulative(node, axis, combine);
  return {
    values: fromNode(restore(g.cast(values, n.dtype))),
    indices: fromNode(restore(runningPosition(node, values, axis, false))),
  };
}
