/**
 * @file Indexing by several integer tensors at once, on nodes: the axes they name are taken as one, in which the tensors
 * together name positions. What NumPy calls advanced indexing.
 */
import { describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { broadcast, formatShape, numel, type Shape, stridesOf } from "../shape.ts";
import { indexSelectNode, wrapIndex } from "./lookup.ts";

/**
 * The row-major position in an array of `shape` that the indices, one per axis, name together. They broadcast; negative
 * ones count from the end, and -1 is the result where one is outside.
 */
export function linearIndex(op: string, indices: readonly Node[], shape: Shape): Node {
  const common = broadcast(...indices.map((i) => i.shape));
  if (!common)
    throw new ShapeError(
      describe(
        op,
        "index tensors that broadcast",
        indices.map((i) => formatShape(i.shape)).join(", "),
      ),
    );
  const strides = stridesOf(shape);
  let position: Node | null = null;
  let outside: Node | null = null;
  for (const [axis, index] of indices.entries()) {
    const at = wrapIndex(index, shape[axis]);
    const part = strides[axis] === 1 ? at : g.mul(at, constant(strides[axis], "i32"));
    position = position ? g.add(position, part) : part;
    // As an unsigned number a negative index is too large as well.
    const wrong = g.le(constant(shape[axis], "u32"), g.bitcast(at, "u32"));
    outside = outside ? g.or(outside, wrong) : wrong;
  }
  return g.expand(g.where(outside!, constant(-1, "i32"), position!), common);
}

/**
 * n with the axes `axes` replaced by the index tensors' common shape: in the place of the first one if the axes are
 * neighbours, else in front, as in NumPy and PyTorch.
 */
export function indexSeveral(n: Node, axes: readonly number[], indices: readonly Node[]): Node {
  const neighbours = axes.every((a, i) => i === 0 || a === axes[i - 1] + 1);
  const rest = [...n.shape.keys()].filter((a) => !axes.includes(a));
  const before = neighbours ? rest.filter((a) => a < axes[0]) : [];
  const after = rest.filter((a) => !before.includes(a));
  const named = axes.map((a) => n.shape[a]);
  const size = (list: readonly number[]) => list.map((a) => n.shape[a]);
  const flat = g.reshape(g.permute(n, [...before, ...axes, ...after]), [
    ...size(before),
    numel(named),
    ...size(after),
  ]);
  return indexSelectNode(flat, before.length, linearIndex("index", indices, named));
}
