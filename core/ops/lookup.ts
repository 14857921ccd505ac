/** @file Looking up rows by index or by mask, on nodes: what indexing, indexSelect, embedding and masks share. */
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { numel } from "../shape.ts";

/**
 * Negative positions count from the end. What is still outside is reported when the result is read.
 */
export const wrapIndex = (index: Node, size: number): Node =>
  g.where(g.lt(index, constant(0, "i32")), g.add(index, constant(size, "i32")), index);

/** n with `axis` replaced by index's axes: the slices at those positions. */
export function indexSelectNode(n: Node, axis: number, index: Node): Node {
  const count = numel(index.shape);
  const [head, tail] = [n.shape.slice(0, axis), n.shape.slice(axis + 1)];
  // The primitive wants an index per element; this one is constant along all axes but one.
  const column = g.reshape(index, [...head.map(() => 1), count, ...tail.map(() => 1)]);
  const rows = g.gather(n, g.expand(column, [...head, count, ...tail]), axis);
  return g.reshape(rows, [...head, ...index.shape, ...tail]);
}

/**
 * Rows of `source`, [count, width], dealt out in order to where `mask`, [n], is true: [n, width], elsewhere any row. With
 * fewer rows than that (`exact`: or more) reading the result is an IndexOutOfRangeError.
 */
export function rowsWhere(mask: Node, source: Node, exact: boolean): Node {
  const [count] = source.shape;
  const zero = constant(0, "i32");
  const ordinal = g.cumulative(g.cast(mask, "i32"), 0, "sum");
  // A look-up needs a row even where nothing is dealt out; then each that is comes from behind the end.
  const rows = count > 0 ? source : g.pad(source, [0, 0], [1, 0]);
  let at = g.where(mask, g.sub(ordinal, constant(count > 0 ? 1 : 0, "i32")), zero);
  if (exact) {
    const total = g.sum(g.cast(mask, "i32"), [0]);
    at = g.where(g.eq(total, constant(count, "i32")), at, constant(-1, "i32"));
  }
  return indexSelectNode(rows, 0, at);
}
