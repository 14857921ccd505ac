/** @file Looking up rows by index, on nodes: what indexing, indexSelect and embedding share. */
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
