/**
 * @file Boolean masks as indices. How many elements a mask selects is known only when it is computed, so what has that many
 * is a promise: it reads the mask and cannot stand inside a compiled function or a transform (there `where`,
 * `maskedFill` and `maskedScatter`, whose shapes are known, do the work). Gradients flow through all of them. Every export is
 * also a Tensor method.
 */
import { DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { broadcast, formatShape, numel, sameShape } from "../shape.ts";
import { fromNode, Tensor } from "../tensor.ts";
import { rowsWhere } from "./lookup.ts";
import { boolNode, describeNode, nodeOf } from "./promotion.ts";
import { nonzero } from "./searching.ts";
import { type Index, index } from "./slicing.ts";

/** The elements where the mask is true, in row-major order, [count]; x and mask broadcast. */
export async function maskedSelect(x: Tensor, mask: Tensor): Promise<Tensor> {
  const [n, m] = together("maskedSelect", x, mask);
  const flat = fromNode(g.reshape(n, [numel(n.shape)]));
  const positions = await nonzero(fromNode(g.reshape(m, [numel(n.shape)])));
  return index(flat, positions.select(1, 0));
}

/**
 * As `index`, but also takes boolean tensors: one of k axes stands for k axes of x, which it must have the sizes of, and
 * selects where it is true. `await x.maskedIndex(mask)` is Python's `x[mask]`.
 */
export async function maskedIndex(x: Tensor, ...indices: Index[]): Promise<Tensor> {
  const { shape } = nodeOf("maskedIndex", x);
  const axesOf = (i: Index): number =>
    i === null || i === "..." ? 0 : i instanceof Tensor && i.dtype === "bool" ? i.shape.length : 1;
  const taken = indices.reduce<number>((n, i) => n + axesOf(i), 0);
  const expanded: Index[] = [];
  let axis = 0;
  for (const i of indices) {
    if (i instanceof Tensor && i.dtype === "bool") {
      const own = shape.slice(axis, axis + i.shape.length);
      if (i.shape.length === 0 || !sameShape(own, i.shape))
        throw new ShapeError(
          describe("maskedIndex", `a mask ${formatShape(own)} from axis ${axis}`, formatShape(i.shape)),
        ); // biome-ignore format: one condition
      const positions = await nonzero(i);
      expanded.push(...positions.unbind(1));
    } else expanded.push(i);
    axis += i === "..." ? shape.length - taken : axesOf(i);
  }
  return index(x, ...expanded);
}

/**
 * x with the elements of `source`, in order, written where the mask is true; x and mask broadcast, and the source may have
 * more elements than are needed. With fewer, reading the result is an IndexOutOfRangeError.
 */
export function maskedScatter(x: Tensor, mask: Tensor, source: Tensor): Tensor {
  const [n, m] = together("maskedScatter", x, mask);
  const s = nodeOf("maskedScatter", source);
  if (s.dtype !== n.dtype)
    throw new DTypeError(
      describe("maskedScatter", "one dtype", `${describeNode(n)}, ${describeNode(s)}`),
    );
  const count = numel(n.shape);
  const where = g.reshape(m, [count]);
  const rows = rowsWhere(where, g.reshape(s, [numel(s.shape), 1]), false);
  return fromNode(g.where(m, g.reshape(rows, n.shape), n));
}

// --- helpers, on nodes ---------------------------------------------------------------------------

/** x and a mask, broadcast against each other. */
function together(op: string, x: Tensor, mask: Tensor): [Node, Node] {
  const [n, m] = [nodeOf(op, x), boolNode(op, mask)];
  const shape = broadcast(n.shape, m.shape);
  if (!shape)
    throw new ShapeError(
      describe(op, "a mask that broadcasts with x", `${describeNode(n)}, ${describeNode(m)}`),
    );
  return [g.expand(n, shape), g.expand(m, shape)];
}
