/**
 * @file Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762) as two products with a
 * softmax between: at most three kernels. B batch, H heads, L queries, S keys, E and V widths.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { dropout } from "../random.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { kept } from "./axes.ts";
import { lowerMask } from "./compose.ts";
import { matmulNodes } from "./matmul.ts";
import { describeNode, floatNode, nodeOf } from "./promotion.ts";
import { softmaxComposite, softmaxNode } from "./reductions.ts";

export interface AttentionOptions {
  /** bool (true takes part) or float (added to the scores), broadcasting to [..., L, S]. */
  attnMask?: Tensor | null;
  /** Query i sees the keys 0 … i only. */
  isCausal?: boolean;
  /** 1/√E unless given. */
  scale?: number;
  /** The probability with which a weight is dropped; for training only. */
  dropoutP?: number;
  /** Keys and values have fewer heads (axis -3), each shared by a group of query heads. */
  enableGqa?: boolean;
}

/**
 * `softmax(query @ keyᵀ · scale + mask) @ value`: query [..., L, E], key [..., S, E], value [...,
 * S, V] → [..., L, V]. A query that sees no key gives zeros.
 */
export function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  { attnMask, isCausal = false, scale, dropoutP = 0, enableGqa = false }: AttentionOptions = {},
): Tensor {
  const op = "scaledDotProductAttention";
  const [q, k, v] = [query, key, value].map((t) => floatNode(op, t));
  const fits =
    Math.min(q.shape.length, k.shape.length, v.shape.length) >= 2 &&
    q.shape.at(-1) === k.shape.at(-1) &&
    k.shape.at(-2) === v.shape.at(-2);
  if (!fits)
    throw new ShapeError(
      describe(
        op,
        "query [..., L, E], key [..., S, E], value [..., S, V]",
        [q, k, v].map(describeNode).join(", "),
      ),
    );
  if (attnMask && isCausal)
    throw new ArgumentError(
      describe(op, "attnMask or isCausal", "both", "combine them in the mask"),
    );
  if (enableGqa) return grouped(query, key, value, { attnMask, isCausal, scale, dropoutP });

  const [rows, columns] = [q.shape.at(-2)!, k.shape.at(-2)!];
  // On the scores, where it is part of the product's epilogue.
  const factor = g.scalarLike(q, Math.fround(scale ?? 1 / Math.sqrt(q.shape.at(-1)!)));
  const keyT = g.permute(
    k,
    [...k.shape.keys()].map((i, _, all) => swapLast(i, all.length)),
  );
  const scores = g.mul(matmulNodes(q, keyT), factor);
  const lowest = g.scalarLike(scores, -Infinity);
  const axis = scores.shape.length - 1;
  let weights: Node;
  if (attnMask) {
    const m = nodeOf(op, attnMask);
    const masked =
      m.dtype === "bool" ? g.where(m, scores, lowest) : g.add(scores, floatNode(op, attnMask));
    weights = maskedSoftmax(masked, masked.shape.length - 1);
  } else if (isCausal) {
    weights = softmaxNode(g.where(lowerMask(rows, columns), scores, lowest), axis);
  } else weights = softmaxNode(scores, axis);
  const dropped = dropoutP > 0 ? dropout(fromNode(weights), dropoutP).node : weights;
  return fromNode(matmulNodes(dropped, v));
}

const swapLast = (i: number, rank: number): number =>
  i === rank - 1 ? rank - 2 : i === rank - 2 ? rank - 1 : i;

/** The softmax in which a row of nothing but -∞ gives zeros, value and gradient, instead of NaN. */
function maskedSoftmax(x: Node, axis: number): Node {
  return softmaxComposite(x, axis, (p) => {
    const m = kept(g.amax(p, [axis]), [axis], p);
    const lowest = g.scalarLike(p, -Infinity);
    const e = g.exp(g.sub(p, g.where(g.eq(m, lowest), g.scalarLike(p, 0), g.detach(m))));
    const total = kept(g.sum(e, [axis]), [axis], p);
    return g.div(e, g.where(g.eq(total, g.scalarLike(p, 0)), g.scalarLike(p, 1), total));
  });
}

/**
 * Grouped queries: each key head meets its group of query heads as one more batch axis, so nothing
 * is repeated.
 */
function grouped(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions): Tensor {
  const [heads, shared] = [query.shape.at(-3), key.shape.at(-3)];
  if (heads === undefined || shared === undefined || heads % shared !== 0)
    throw new ShapeError(
      describe(
        "scaledDotProductAttention",
        "query heads that are a multiple of the key heads",
        `${heads} and ${shared}`,
      ),
    );
  const groups = (t: Tensor, count: number) => t.unflatten(-3, [shared, count]);
  const { attnMask } = options;
  const mask =
    attnMask && attnMask.shape.length >= 3
      ? attnMask.shape.at(-3) === heads
        ? groups(attnMask, heads / shared)
        : attnMask.unsqueeze(-3)
      : attnMask;
  const out = scaledDotProductAttention(
    groups(query, heads / shared),
    groups(key, 1),
    groups(value, 1),
    { ...options, attnMask: mask },
  );
  return out.flatten(-4, -3);
}
