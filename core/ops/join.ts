/**
 * @file Functions of several equal tensors: joining them, choosing between them, looking up
 * embeddings. None is a method.
 */
import { promote } from "../dtype.ts";
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { sameShape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { axisOf } from "./axes.ts";
import { indexSelectNode } from "./lookup.ts";
import {
  boolNode,
  describeNode,
  floatNode,
  indexNode,
  nodeOf,
  type Operand,
  pair,
} from "./promotion.ts";

function nodesOf(op: string, tensors: readonly Tensor[]) {
  if (!Array.isArray(tensors) || tensors.length === 0)
    throw new ArgumentError(describe(op, "a non-empty array of tensors", String(tensors)));
  const nodes = tensors.map((t) => nodeOf(op, t));
  const dtype = nodes.map((n) => n.dtype).reduce(promote);
  return nodes.map((n) => g.cast(n, dtype));
}

/**
 * Tensors joined along an existing axis; their shapes agree on all others, their dtypes promote.
 */
export function cat(tensors: readonly Tensor[], dim = 0): Tensor {
  const nodes = nodesOf("cat", tensors);
  const axis = axisOf("cat", dim, nodes[0].shape.length);
  if (nodes[0].shape.length === 0)
    throw new ShapeError(describe("cat", "at least one axis", describeNode(nodes[0]), "use stack"));
  const other = (n: Node) => n.shape.filter((_, i) => i !== axis);
  if (!nodes.every((n) => sameShape(other(n), other(nodes[0]))))
    throw new ShapeError(
      describe("cat", `equal shapes except on axis ${axis}`, nodes.map(describeNode).join(", ")),
    );
  return fromNode(g.concat(nodes, axis));
}

/** Tensors of one shape joined along a new axis at `dim`. */
export function stack(tensors: readonly Tensor[], dim = 0): Tensor {
  const nodes = nodesOf("stack", tensors);
  const { shape } = nodes[0];
  if (!nodes.every((n) => sameShape(n.shape, shape)))
    throw new ShapeError(describe("stack", "equal shapes", nodes.map(describeNode).join(", ")));
  const axis = axisOf("stack", dim, shape.length + 1);
  const widened = [...shape.slice(0, axis), 1, ...shape.slice(axis)];
  return fromNode(
    g.concat(
      nodes.map((n) => g.reshape(n, widened)),
      axis,
    ),
  );
}

/**
 * Rows of `weight` [V, D] at integer indices of any shape [*] → [*, D]. An index out of range is an
 * error when the result is read. The row `paddingIdx` gets no gradient.
 */
export function embedding(
  indices: Tensor,
  weight: Tensor,
  { paddingIdx }: { paddingIdx?: number } = {},
): Tensor {
  const [i, w] = [indexNode("embedding", indices), floatNode("embedding", weight)];
  if (w.shape.length !== 2)
    throw new ShapeError(describe("embedding", "a weight [V, D]", describeNode(w)));
  const rows = indexSelectNode(w, 0, i);
  if (paddingIdx === undefined) return fromNode(rows);
  const row = constant(axisOf("embedding", paddingIdx, w.shape[0]), "i32");
  const isPadding = g.reshape(g.eq(i, row), [...i.shape, 1]);
  return fromNode(g.where(isPadding, g.detach(rows), rows));
}

/**
 * `condition ? a : b`, broadcasting all three. NaN in the branch not taken harms neither value nor
 * gradient.
 */
export function where(condition: Tensor, a: Operand, b: Operand): Tensor {
  return fromNode(g.where(boolNode("where", condition), ...pair("where", a, b)));
}
