/**
 * @file Sorting and what follows from it. Every sort is stable; NaN is larger than everything, as in PyTorch. Values are
 * looked up at the sorted positions, so gradients go back to where they came from. Every export is also a Tensor method.
 */
import { ArgumentError, describe } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import type { ValuesAndIndices } from "./extrema.ts";
import { cut, filledLines, linesOf, one } from "./lines.ts";
import { flatten, kthPosition, lookUp } from "./ordering.ts";
import { floatNode, inFloat32, isHalfTensor, nodeOf } from "./promotion.ts";

export interface SortOptions {
  /** The axis to sort along; the last one by default. */
  dim?: number;
  descending?: boolean;
  /** Sorting is always stable here; the option is PyTorch's. */
  stable?: boolean;
}

/** The elements along an axis in order, and the positions (i32) they come from. */
export function sort(
  x: Tensor,
  { dim = -1, descending = false }: SortOptions = {},
): ValuesAndIndices {
  const { node, axis, restore } = linesOf("sort", nodeOf("sort", x), dim);
  const order = g.argsort(node, axis, descending);
  return {
    values: fromNode(restore(g.gather(node, order, axis))),
    indices: fromNode(restore(order)),
  };
}

/** The positions (i32) that sort x along an axis. */
export function argsort(x: Tensor, { dim = -1, descending = false }: SortOptions = {}): Tensor {
  const { node, axis, restore } = linesOf("argsort", nodeOf("argsort", x), dim);
  return fromNode(restore(g.argsort(node, axis, descending)));
}

/** x sorted along its first axis. */
export function msort(x: Tensor): Tensor {
  return sort(x, { dim: 0 }).values;
}

/** The k largest (or smallest) elements along `dim` in order, and where they are. `sorted: false` gives the same. */
export function topk(
  x: Tensor,
  k: number,
  dim = -1,
  largest = true,
  _sorted = true,
): ValuesAndIndices {
  const { node, axis, count, restore } = linesOf("topk", nodeOf("topk", x), dim);
  if (!(Number.isInteger(k) && k >= 0 && k <= count))
    throw new ArgumentError(describe("topk", `k within 0 … ${count}`, String(k)));
  const order = cut(g.argsort(node, axis, largest), axis, 0, k);
  // Of a 0-d tensor there is one element or none.
  const shaped = k === count ? restore : (n: Node) => n;
  return {
    values: fromNode(shaped(g.gather(node, order, axis))),
    indices: fromNode(shaped(order)),
  };
}

/** The k-th smallest element (k from 1) along `dim`, and where it is. */
export function kthvalue(x: Tensor, k: number, dim = -1, keepdim = false): ValuesAndIndices {
  const n = nodeOf("kthvalue", x);
  const lines = filledLines("kthvalue", n, dim);
  if (!(Number.isInteger(k) && k >= 1 && k <= lines.count))
    throw new ArgumentError(describe("kthvalue", `k within 1 … ${lines.count}`, String(k)));
  return lookUp(lines, kthPosition(lines, k), n.shape.length, keepdim);
}

/**
 * The value below which the part q of the elements along `dim` lies (of all, if it is left out), interpolated linearly
 * between the two that are nearest. NaN if there is a NaN.
 */
export function quantile(
  x: Tensor,
  q: number,
  dim?: number,
  options: { keepdim?: boolean } = {},
): Tensor {
  if (isHalfTensor(x)) return inFloat32("quantile", quantile, x, q, dim, options);
  const { keepdim = false } = options;
  if (!(q >= 0 && q <= 1)) throw new ArgumentError(describe("quantile", "q in 0 … 1", String(q)));
  const n = floatNode("quantile", x);
  const flat = dim === undefined;
  const lines = filledLines("quantile", flat ? flatten(n) : n, dim ?? 0);
  const { node, axis, count } = lines;
  const values = g.gather(node, g.argsort(node, axis), axis);
  const position = q * (count - 1);
  const below = Math.floor(position);
  const at = (i: number): Node => cut(values, axis, i, i + 1);
  const [low, high, last] = [at(below), at(Math.ceil(position)), at(count - 1)];
  const weight = g.scalarLike(node, position - below);
  const between = below === position ? low : g.add(low, g.mul(g.sub(high, low), weight));
  // A NaN is sorted to the end.
  const result = g.where(g.eq(last, last), between, last);
  if (flat) return fromNode(g.reshape(result, keepdim ? n.shape.map(() => 1) : []));
  return fromNode(one(lines, result, n.shape.length, keepdim));
}
