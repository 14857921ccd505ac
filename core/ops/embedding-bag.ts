/**
 * @file Sums, means or maxima of bags of embeddings, without the embeddings' being stored. Not a
 * method.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { sameShape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { embedding } from "./join.ts";
import { insertionPoints } from "./ordering.ts";
import { describeNode, floatNode, indexNode, inFloat32, isHalfTensor } from "./promotion.ts";
import { scatterReduce } from "./scatter.ts";

export interface EmbeddingBagOptions {
  /** Where in 1-d `input` each bag begins, ascending from 0, [B]. */
  offsets?: Tensor;
  mode?: "sum" | "mean" | "max";
  /** A factor for each embedding, of the input's shape; with "sum" only. */
  perSampleWeights?: Tensor;
  /** The last of `offsets` is the end of the last bag instead of a beginning. */
  includeLastOffset?: boolean;
  /**
   * Embeddings with this index count as absent, and their row gets no gradient. Negative counts
   * from the end.
   */
  paddingIdx?: number;
}

/**
 * Bags of rows of weight [V, D], combined: input [B, L] has a bag in each row, input [L] with
 * `offsets` one after the other → [B, D]. A bag of nothing gives zeros. An index out of range is an
 * error at the next read. Of equal maxima in bags by `offsets` each gets a share of the gradient,
 * otherwise the first gets all of it.
 */
export function embeddingBag(
  input: Tensor,
  weight: Tensor,
  options: EmbeddingBagOptions = {},
): Tensor {
  if (isHalfTensor(weight)) return inFloat32("embeddingBag", embeddingBag, input, weight, options);
  const op = "embeddingBag";
  const { offsets, mode = "mean", perSampleWeights, includeLastOffset = false } = options;
  const [i, w] = [indexNode(op, input), floatNode(op, weight)];
  if (!["sum", "mean", "max"].includes(mode))
    throw new ArgumentError(describe(op, "mode 'sum', 'mean' or 'max'", String(mode)));
  if ((i.shape.length !== 1 || !offsets) && (i.shape.length !== 2 || offsets))
    throw new ShapeError(
      describe(
        op,
        "an input [B, L], or [L] with offsets",
        `${describeNode(i)} ${offsets ? "with" : "without"} offsets`,
      ),
    );
  if (perSampleWeights && (mode !== "sum" || !sameShape(perSampleWeights.shape, i.shape)))
    throw new ArgumentError(
      describe(
        op,
        "weights of the input's shape, with mode 'sum'",
        `${describeNode(perSampleWeights.node)} with '${mode}'`,
      ),
    );
  const paddingIdx =
    options.paddingIdx === undefined
      ? undefined
      : options.paddingIdx + (options.paddingIdx < 0 ? w.shape[0] : 0);
  let rows = embedding(input, weight, { paddingIdx }).node;
  if (perSampleWeights) {
    const factor = floatNode(op, perSampleWeights);
    rows = g.mul(rows, g.reshape(factor, [...factor.shape, 1]));
  }
  const there =
    paddingIdx === undefined
      ? g.expand(constant(1, "bool"), i.shape)
      : g.not(g.eq(i, constant(paddingIdx, "i32")));
  const last = i.shape.length;
  const present = g.reshape(there, [...i.shape, 1]);
  const zero = g.scalarLike(rows, 0);
  if (!offsets) {
    const count = g.sum(g.cast(present, rows.dtype), [last - 1]);
    if (mode === "max") return fromNode(firstMaximum(rows, present, count));
    return fromNode(combined(g.sum(g.where(present, rows, zero), [last - 1]), count, mode));
  }
  const from = indexNode(op, offsets);
  const bags = from.shape[0] - (includeLastOffset ? 1 : 0);
  const [length, width] = rows.shape;
  // Element k is in the last bag that begins at or before it.
  const bag = g.sub(insertionPoints(from, g.iota(length), true), constant(1, "i32"));
  const valid = g.and(present, g.reshape(g.lt(bag, constant(bags, "i32")), [length, 1]));
  const inside = g.min(bag, constant(bags - 1, "i32"));
  const to = g.expand(g.reshape(inside, [length, 1]), [length, width]);
  const ones = g.expand(g.cast(valid, rows.dtype), rows.shape);
  const count = g.scatterAdd(to, ones, 0, bags);
  if (mode !== "max")
    return fromNode(combined(g.scatterAdd(to, g.where(valid, rows, zero), 0, bags), count, mode));
  const low = g.where(valid, rows, g.scalarLike(rows, -Infinity));
  const start = fromNode(g.expand(g.scalarLike(rows, -Infinity), [bags, width]));
  const most = scatterReduce(start, 0, fromNode(to), fromNode(low), "amax").node;
  return fromNode(g.where(g.eq(count, zero), zero, most));
}

/** Means of what is there; sums as they are. */
function combined(total: Node, count: Node, mode: "sum" | "mean" | "max"): Node {
  if (mode === "sum") return total;
  return g.div(total, g.max(count, g.scalarLike(count, 1)));
}

/** Along the bag, [B, L, D] → [B, D]; the first of equal ones gets the gradient, as in PyTorch. */
function firstMaximum(rows: Node, present: Node, count: Node): Node {
  const low = g.where(present, rows, g.scalarLike(rows, -Infinity));
  const [batch, length, width] = rows.shape;
  const zero = g.scalarLike(rows, 0);
  if (length === 0) return g.expand(zero, [batch, width]);
  const at = g.reshape(g.argmax(low, 1), [batch, 1, width]);
  const found = g.reshape(g.gather(low, at, 1), [batch, width]);
  return g.where(g.eq(count, zero), zero, found);
}
