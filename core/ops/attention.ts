/**
 * @file Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762). Here arguments are checked and brought into the
 * four axes of attention-region.ts, which has the formula. B batch, H heads, L queries, S keys, E and V widths.
 */
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { dropout } from "../random.ts";
import { broadcast, numel, type Shape, sameShape } from "../shape.ts";
import { fromNode, Tensor } from "../tensor.ts";
import { attentionNode, composed, scoresNode, weightsOf } from "./attention-region.ts";
import { describeNode, floatNode, inFloat32, isHalfTensor, nodeOf } from "./promotion.ts";

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
  options: AttentionOptions = {},
): Tensor {
  const op = "scaledDotProductAttention";
  const { isCausal = false, dropoutP = 0, scale } = options;
  const alike = [key, value].every((t) => t instanceof Tensor && t.dtype === query.dtype);
  // Kernels of attention take halves as they are; all else is computed in f32.
  if (isHalfTensor(query) && !(alike && dropoutP === 0))
    return inFloat32(
      "scaledDotProductAttention",
      scaledDotProductAttention,
      query,
      key,
      value,
      options,
    );
  const [q, k, v] = [query, key, value].map((t) => floatNode(op, t));
  const mask = maskNode(op, options);
  const { lead, args } = inFourAxes(op, [q, k, v], mask, options.enableGqa ?? false);
  const settings = { scale: scale ?? 1 / Math.sqrt(q.shape.at(-1)!), causal: isCausal };
  const drop = (weights: Node) => dropout(fromNode(weights), dropoutP).node;
  // Weights that are dropped are drawn for all scores, and nothing has no kernel.
  const out =
    dropoutP > 0
      ? composed(args, settings, drop)
      : args.some((a) => numel(a.shape) === 0)
        ? composed(args, settings)
        : attentionNode(args, settings);
  return fromNode(g.reshape(out, [...lead, q.shape.at(-2)!, v.shape.at(-1)!]));
}

/**
 * The weights that scaledDotProductAttention gives the values, after dropout: query [..., L, E], key [..., S, E] → [..., L,
 * S], rows that sum to 1 (to 0 for a query that sees no key).
 */
export function attentionWeights(
  query: Tensor,
  key: Tensor,
  options: Omit<AttentionOptions, "enableGqa"> = {},
): Tensor {
  if (isHalfTensor(query))
    return inFloat32("attentionWeights", attentionWeights, query, key, options);
  const op = "attentionWeights";
  const [q, k] = [floatNode(op, query), floatNode(op, key)];
  const { isCausal = false, dropoutP = 0, scale } = options;
  const scores = scoresNode(q, k, scale ?? 1 / Math.sqrt(q.shape.at(-1)!));
  const weights = weightsOf(scores, maskNode(op, options), isCausal);
  return fromNode(dropoutP > 0 ? dropout(fromNode(weights), dropoutP).node : weights);
}

function maskNode(op: string, { attnMask, isCausal }: AttentionOptions): Node | undefined {
  if (!attnMask) return undefined;
  if (isCausal)
    throw new ArgumentError(
      describe(op, "attnMask or isCausal", "both", "combine them in the mask"),
    );
  const mask = nodeOf(op, attnMask);
  if (mask.dtype !== "bool") floatNode(op, attnMask);
  // As it is, also in autocast: -1e9 would be infinite in f16, and scores are f32 anyway.
  return attnMask.node;
}

/** q [B, H, L, E], k [B, K, S, E], v [B, K, S, V] and the mask; `lead` = [..., H] are the axes that B and H stand for. */
function inFourAxes(
  op: string,
  nodes: readonly Node[],
  mask: Node | undefined,
  grouped: boolean,
): { lead: Shape; args: Node[] } {
  const [q, k, v] = nodes;
  const got = () => [...nodes, ...(mask ? [mask] : [])].map(describeNode).join(", ");
  const refuse = (expected: string): never => {
    throw new ShapeError(describe(op, expected, got()));
  };
  if (nodes.some((n) => n.dtype !== q.dtype))
    throw new DTypeError(describe(op, "query, key and value of one dtype", got()));
  if (
    nodes.some((n) => n.shape.length < 2) ||
    q.shape.at(-1) !== k.shape.at(-1) ||
    k.shape.at(-2) !== v.shape.at(-2)
  )
    refuse("query [..., L, E], key [..., S, E], value [..., S, V]");
  const heads = (n: Node) => n.shape.at(-3) ?? 1;
  if (grouped && (q.shape.length < 3 || heads(v) !== heads(k) || heads(q) % heads(k) !== 0))
    refuse("query heads that are a multiple of the key heads (axis -3)");

  const leads = [q, k, v, ...(mask ? [mask] : [])].map((n, i) => {
    const own = n.shape.slice(0, -2);
    return grouped && (i === 1 || i === 2) ? [...own.slice(0, -1), 1] : own;
  });
  const lead = broadcast(...leads) ?? refuse("leading axes that broadcast");
  const [outer, h] = [lead.slice(0, -1), lead.at(-1) ?? 1];
  const batch = numel(outer);
  const shared = grouped || (heads(k) === 1 && heads(v) === 1) ? heads(k) : h;
  const fold = (n: Node, count: number): Node => {
    const [rows, width] = n.shape.slice(-2);
    return g.reshape(g.expand(n, [...outer, ...(lead.length > 0 ? [count] : []), rows, width]), [
      batch,
      count,
      rows,
      width,
    ]);
  };
  const args = [fold(q, h), fold(k, shared), fold(v, shared)];
  if (mask) {
    const scores = [...lead, q.shape.at(-2)!, k.shape.at(-2)!];
    const all = broadcast(mask.shape, scores);
    if (!all || !sameShape(all, scores))
      refuse(`a mask that broadcasts to [..., ${scores.slice(-2).join(", ")}]`);
    const rank = Math.max(scores.length, 3);
    const whole = [...new Array<number>(rank).fill(1), ...mask.shape].slice(-rank);
    const own = whole.slice(0, -3);
    const same = numel(own) === 1 || outer.length === 0;
    const spread = same ? mask : g.expand(g.reshape(mask, whole), [...outer, ...whole.slice(-3)]);
    args.push(g.reshape(spread, [same ? 1 : batch, ...whole.slice(-3)]));
  }
  return { lead, args };
}
