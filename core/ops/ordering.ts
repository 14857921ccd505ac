/** @file Order statistics on nodes: positions in sorted lines, and medians. What several operators share. */
import { isFloat } from "../dtype.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { fromNode } from "../tensor.ts";
import type { ValuesAndIndices } from "./extrema.ts";
import { cut, filledLines, type Lines, one } from "./lines.ts";

/** Sequences up to this long are compared as a whole, longer ones bisected. */
const compared = 128;

export const flatten = (n: Node): Node => g.reshape(n, [n.shape.reduce((a, d) => a * d, 1)]);

/** Where the k-th smallest element of each line is; the axis is kept with size 1. */
export function kthPosition({ node, axis }: Lines, k: number): Node {
  return cut(g.argsort(node, axis), axis, k - 1, k);
}

export function lookUp(
  lines: Lines,
  index: Node,
  rank: number,
  keepdim: boolean,
): ValuesAndIndices {
  const values = g.gather(lines.node, index, lines.axis);
  return {
    values: fromNode(one(lines, values, rank, keepdim)),
    indices: fromNode(one(lines, index, rank, keepdim)),
  };
}

/** The lower median of each line, and where it is; of lines with a NaN the first of these. */
export function medianAlong(n: Node, dim: number, keepdim: boolean): ValuesAndIndices {
  const lines = filledLines("median", n, dim);
  const { node, axis, count } = lines;
  const middle = kthPosition(lines, (count + 1) >> 1);
  if (!isFloat(node.dtype)) return lookUp(lines, middle, n.shape.length, keepdim);
  const largest = g.keepdim(g.argmax(node, axis), [axis], node.shape);
  const top = g.gather(node, largest, axis);
  const index = g.where(g.eq(top, top), middle, largest);
  return lookUp(lines, index, n.shape.length, keepdim);
}

/** The lower median of all elements; equal ones share the gradient. NaN if there is a NaN. */
export function medianOfAll(n: Node): Node {
  const flat = flatten(n);
  const lines = filledLines("median", flat, 0);
  const middle = g.gather(flat, kthPosition(lines, (lines.count + 1) >> 1), 0);
  if (!isFloat(n.dtype)) return g.reshape(middle, []);
  // The largest of what is not larger: that shares the gradient, and a NaN, never larger, wins.
  const larger = g.lt(g.detach(middle), flat);
  return g.amax(g.where(larger, g.scalarLike(flat, -Infinity), flat), [0]);
}

/** Along the last axis: how many elements of each sorted line lie before each value. */
export function insertionPoints(sorted: Node, v: Node, right: boolean): Node {
  const last = sorted.shape.length - 1;
  const n = sorted.shape[last];
  const before = (element: Node, value: Node): Node =>
    g.not(right ? g.lt(value, element) : g.le(value, element));
  if (n <= compared) {
    const lines = g.reshape(sorted, [...sorted.shape.slice(0, last), 1, n]);
    const hits = before(lines, g.reshape(v, [...v.shape, 1]));
    return g.sum(g.cast(hits, "i32"), [last + 1]);
  }
  const int = (x: number): Node => constant(x, "i32");
  let found = g.expand(int(0), v.shape);
  for (let step = 2 ** Math.floor(Math.log2(n)); step >= 1; step /= 2) {
    const next = g.add(found, int(step));
    const element = g.gather(sorted, g.min(g.sub(next, int(1)), int(n - 1)), last);
    const fits = g.le(next, int(n));
    found = g.where(g.and(fits, before(element, v)), next, found);
  }
  return found;
}
