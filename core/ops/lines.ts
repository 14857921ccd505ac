/** @file What the operators along the lines of one axis share: a checked axis, and 0-d tensors as lines of one element. */
import { describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import type { Shape } from "../shape.ts";
import { axisOf } from "./axes.ts";
import { describeNode } from "./promotion.ts";

export interface Lines {
  /** At least 1-d. */
  readonly node: Node;
  readonly axis: number;
  /** Elements of a line. */
  readonly count: number;
  /** A result of x's shape in that shape: for 0-d tensors the added axis goes away. */
  readonly restore: (n: Node) => Node;
}

export function linesOf(op: string, n: Node, dim: number): Lines {
  const axis = axisOf(op, dim, n.shape.length);
  const node = n.shape.length === 0 ? g.reshape(n, [1]) : n;
  const restore = (result: Node) => (n.shape.length === 0 ? g.reshape(result, []) : result);
  return { node, axis, count: node.shape[axis], restore };
}

/** As linesOf, for what has no result for an empty line. */
export function filledLines(op: string, n: Node, dim: number): Lines {
  const lines = linesOf(op, n, dim);
  if (lines.count === 0)
    throw new ShapeError(describe(op, "at least one element per line", describeNode(n)));
  return lines;
}

/** Elements start … end-1 of every line. */
export const cut = (n: Node, axis: number, start: number, end: number): Node =>
  g.slice(
    n,
    n.shape.map((_, i) => (i === axis ? start : 0)),
    n.shape.map((d, i) => (i === axis ? end - start : d)),
  );

/** One element per line, without the axis unless `keepdim`; of a 0-d tensor itself. */
export const one = ({ axis }: Lines, n: Node, rank: number, keepdim: boolean): Node => {
  const shape: Shape = keepdim || rank === 0 ? n.shape : n.shape.filter((_, i) => i !== axis);
  return g.reshape(n, rank === 0 ? [] : shape);
};
