/**
 * @file Reading and adding at computed positions. An index outside its axis raises
 * IndexOutOfRangeError when the result is read. Every export is also a Tensor method.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { broadcast, formatShape, type Shape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { axisOf } from "./axes.ts";
import { indexSelectNode, wrapIndex } from "./lookup.ts";
import { describeNode, indexNode, nodeOf, widest } from "./promotion.ts";

/**
 * `out[i][j][k] = x[index[i][j][k]][j][k]` for dim 0, likewise for other dims. The index has as
 * many axes as x and may be smaller than x on the others; the result has its shape.
 */
export function gather(x: Tensor, dim: number, index: Tensor): Tensor {
  const [n, i] = [nodeOf("gather", x), indexNode("gather", index)];
  const axis = axisOf("gather", dim, n.shape.length);
  if (n.shape.length === 0 && i.shape.length === 0)
    return fromNode(g.reshape(g.gather(g.reshape(n, [1]), g.reshape(i, [1]), 0), []));
  return fromNode(g.gather(cropped("gather", n, i.shape, axis), i, axis));
}

/**
 * As `gather`, but x and the index broadcast against each other on the other axes, and negative
 * indices wrap.
 */
export function takeAlongDim(x: Tensor, index: Tensor, dim: number): Tensor {
  const [n, i] = [nodeOf("takeAlongDim", x), indexNode("takeAlongDim", index)];
  const axis = axisOf("takeAlongDim", dim, n.shape.length);
  const without = (s: Shape) => s.map((d, a) => (a === axis ? 1 : d));
  const common = broadcast(without(n.shape), without(i.shape));
  if (!common || n.shape.length !== i.shape.length)
    throw new ShapeError(
      describe(
        "takeAlongDim",
        `shapes that broadcast except on axis ${axis}`,
        `${describeNode(n)}, ${describeNode(i)}`,
      ),
    );
  const spread = (m: Node) =>
    g.expand(
      m,
      common.map((d, a) => (a === axis ? m.shape[a] : d)),
    );
  return fromNode(g.gather(spread(n), wrapIndex(spread(i), n.shape[axis]), axis));
}

/** The slices of x at the positions of a 1-d index along `dim`, in that order, repeats allowed. */
export function indexSelect(x: Tensor, dim: number, index: Tensor): Tensor {
  const [n, i] = [nodeOf("indexSelect", x), indexNode("indexSelect", index)];
  if (i.shape.length > 1)
    throw new ShapeError(
      describe("indexSelect", "a 1-d index", describeNode(i), "x.index(tensor) takes any shape"),
    );
  const axis = axisOf("indexSelect", dim, n.shape.length);
  return fromNode(indexSelectNode(n, axis, g.reshape(i, [i.shape[0] ?? 1])));
}

/**
 * x plus `source` added at the positions that `index` names along `dim`; positions that occur
 * several times add up. index and source have x's rank; the index may be smaller than both on every
 * axis.
 */
export function scatterAdd(x: Tensor, dim: number, index: Tensor, source: Tensor): Tensor {
  const [n, s] = widest("scatterAdd", nodeOf("scatterAdd", x), nodeOf("scatterAdd", source));
  const i = indexNode("scatterAdd", index);
  const axis = axisOf("scatterAdd", dim, n.shape.length);
  if (s.dtype !== n.dtype)
    throw new ArgumentError(
      describe("scatterAdd", "one dtype", `${describeNode(n)}, ${describeNode(s)}`),
    );
  const added = g.scatterAdd(i, cropped("scatterAdd", s, i.shape, -1), axis, n.shape[axis]);
  const missing = n.shape.map((d, a) => d - added.shape[a]);
  if (missing.some((d) => d < 0))
    throw new ShapeError(
      describe(
        "scatterAdd",
        `an index within ${formatShape(n.shape)} except on axis ${axis}`,
        describeNode(i),
      ),
    );
  return fromNode(
    g.add(
      n,
      g.pad(
        added,
        missing.map(() => 0),
        missing,
      ),
    ),
  );
}

/**
 * 1 at the class that each element names and 0 elsewhere, i32: [*] → [*, numClasses]. A class out
 * of range is an error when the result is read.
 */
export function oneHot(x: Tensor, numClasses: number): Tensor {
  const n = indexNode("oneHot", x);
  if (!(Number.isInteger(numClasses) && numClasses > 0))
    throw new ArgumentError(describe("oneHot", "a positive number of classes", String(numClasses)));
  // Adding 1 at each class, not comparing with every class: comparing would turn a bad class into a
  // row of zeros.
  const column = g.reshape(n, [...n.shape, 1]);
  const ones = g.expand(constant(1, "i32"), column.shape);
  return fromNode(g.scatterAdd(column, ones, n.shape.length, numClasses));
}

// --- helpers, on nodes ---------------------------------------------------------------------------

/**
 * n cut to `shape` on all axes but one: PyTorch lets an index cover only the front of its source.
 */
function cropped(op: string, n: Node, shape: Shape, axis: number): Node {
  const fits =
    n.shape.length === shape.length && shape.every((d, i) => i === axis || d <= n.shape[i]);
  if (!fits)
    throw new ShapeError(
      describe(
        op,
        `an index of the source's rank, and no larger${axis < 0 ? "" : ` except on axis ${axis}`}`,
        `index ${formatShape(shape)}, source ${describeNode(n)}`,
      ),
    );
  return g.slice(
    n,
    n.shape.map(() => 0),
    n.shape.map((d, i) => (i === axis ? d : shape[i])),
  );
}
