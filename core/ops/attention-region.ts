/**
 * @file Attention as one node, which a backend computes with kernels of its own where it has them (flash attention: Dao et al.
 * 2022, arXiv 2205.14135), so that the scores need not be stored. Its body, two products with a softmax between, is what it
 * means, and what runs everywhere else.
 *
 * Its gradient is one more such node: from the queries, keys and values, and from the logarithm of each row's sum, it computes
 * the scores anew. Its body is the derivative of the first one's, so that higher orders need nothing, and so that where both
 * bodies run they share the weights. Shapes are those of `Attention` in graph/primitives.ts.
 */
import { isHalf } from "../dtype.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import type { Attention, Region } from "../graph/primitives.ts";
import { callRegion, parameterLike } from "../transform/closure.ts";
import { gradients } from "../transform/vjp.ts";
import { kept } from "./axes.ts";
import { lowerMask } from "./compose.ts";
import { matmulNodes } from "./matmul.ts";
import { logsumexpNode, softmaxComposite, softmaxNode } from "./reductions.ts";

export interface AttentionSettings {
  readonly scale: number;
  readonly causal: boolean;
}

type Batch = NonNullable<Region["batch"]>;

/** q [B, H, L, E], k [B, K, S, E], v [B, K, S, V], mask? [B or 1, H or 1, L or 1, S or 1] → [B, H, L, V]. */
export function attentionNode(args: readonly Node[], settings: AttentionSettings): Node {
  return attentionRegion(args, settings)[0];
}

/** The output, and the log-sum-exp [B, H, L] of the scores. */
export function attentionRegion(args: readonly Node[], settings: AttentionSettings): Node[] {
  const params = args.map((a) => parameterLike(a));
  const vjp: Region["vjp"] = (src, [out, lse], [ct], need) => {
    // A learned mask has a gradient as large as the scores: nothing is gained by not storing them.
    if (src.length > 3 && need(3)) {
      const own = src.map((s) => g.alias(s));
      return gradients([composed(own, settings)], [ct], own);
    }
    const delta = g.sum(g.mul(wide(ct), wide(out)), [3]);
    const found = backwardRegion([...src.slice(0, 3), ct, lse, delta, ...src.slice(3)], settings);
    return [...found, ...src.slice(3).map(() => null)];
  };
  const results = [composed(params, settings), logTotals(params, settings)];
  const batch: Batch = (src, size) => folded(src, size, 3, (all) => attentionRegion(all, settings));
  return call("forward", args, { params, results }, settings, { vjp, batch });
}

/** q, k, v, dO, lse, delta, mask? → dq, dk, dv. */
function backwardRegion(args: readonly Node[], settings: AttentionSettings): Node[] {
  const params = args.map((a) => parameterLike(a));
  const [q, k, v, ct, , , ...mask] = params;
  const output = composed([q, k, v, ...mask], settings);
  const results = gradients([output], [ct], [q, k, v]).map(
    (found, i) => found ?? g.zerosLike(params[i]),
  );
  const batch: Batch = (src, size) => folded(src, size, 6, (all) => backwardRegion(all, settings));
  return call("backward", args, { params, results }, settings, { batch });
}

const call = (
  pass: Attention["pass"],
  args: readonly Node[],
  body: Region["body"],
  settings: AttentionSettings,
  own: Pick<Region, "vjp" | "batch">,
): Node[] =>
  callRegion(
    { kind: "custom", name: "attention", body, attention: { pass, ...settings }, ...own },
    args,
  );

/** The batch becomes part of B; source `maskAt` may have a B of 1 of its own. */
function folded(
  src: Parameters<Batch>[0],
  size: number,
  maskAt: number,
  f: (all: readonly Node[]) => readonly Node[],
): readonly Node[] {
  const of = ({ node, batched }: (typeof src)[number]) =>
    batched ? node.shape.slice(1) : node.shape;
  const count = of(src[0])[0];
  const all = src.map((s, i) => {
    const [own, ...rest] = of(s);
    if (i === maskAt && !s.batched && own === 1) return s.node;
    return g.reshape(g.expand(s.node, [size, count, ...rest]), [size * count, ...rest]);
  });
  return f(all).map((n) => g.reshape(n, [size, count, ...n.shape.slice(1)]));
}

const wide = (n: Node): Node => (isHalf(n.dtype) ? g.cast(n, "f32") : n);

// --- the composition --------------------------------------------------------------------------------------------------

/** softmax(q kᵀ · scale + mask) v. `between` may change the weights: dropout. */
export function composed(
  [q, k, v, mask]: readonly Node[],
  settings: AttentionSettings,
  between: (weights: Node) => Node = (weights) => weights,
): Node {
  const scores = scoresNode(grouped(q, k), grouped(k, k), settings.scale);
  const weights = weightsOf(scores, mask && groupedMask(mask, q, k), settings.causal);
  const out = matmulNodes(between(weights), wide(grouped(v, k)));
  return g.cast(g.reshape(out, [...q.shape.slice(0, 3), v.shape[3]]), q.dtype);
}

/** The logarithm of each row's sum of exponentials; 0 of a row that sees no key, whose weights are then e^-∞ = 0 as well. */
function logTotals([q, k, , mask]: readonly Node[], { scale, causal }: AttentionSettings): Node {
  const scores = scoresNode(grouped(q, k), grouped(k, k), scale);
  const seen = masked(scores, mask && groupedMask(mask, q, k), causal);
  const total = logsumexpNode(seen, [seen.shape.length - 1]);
  const lowest = g.scalarLike(total, -Infinity);
  const safe = mask ? g.where(g.eq(total, lowest), g.scalarLike(total, 0), total) : total;
  return g.reshape(safe, q.shape.slice(0, 3));
}

/** Keys that are shared by groups of query heads meet each group as one more batch axis, so nothing is repeated. */
function grouped(x: Node, k: Node): Node {
  const [b, heads, rows, width] = x.shape;
  const shared = k.shape[1];
  const own = x === k || heads === shared;
  return g.reshape(x, [b, shared, own ? 1 : heads / shared, rows, width]);
}

function groupedMask(mask: Node, q: Node, k: Node): Node {
  const [b, heads, rows, columns] = mask.shape;
  const shared = k.shape[1];
  const group = q.shape[1] / shared;
  return g.reshape(
    mask,
    heads === 1 ? [b, 1, 1, rows, columns] : [b, shared, group, rows, columns],
  );
}

/** q kᵀ · scale; of halves in f32. */
export function scoresNode(q: Node, k: Node, scale: number): Node {
  const rank = k.shape.length;
  const axes = [...k.shape.keys()];
  const keyT = g.permute(wide(k), [...axes.slice(0, -2), rank - 1, rank - 2]);
  const product = matmulNodes(wide(q), keyT);
  // On the scores, where it is part of the product's epilogue.
  return g.mul(product, g.scalarLike(product, Math.fround(scale)));
}

/** The scores as the softmax sees them: -∞ where a query does not see a key. */
function masked(scores: Node, mask: Node | undefined, causal: boolean): Node {
  const lowest = g.scalarLike(scores, -Infinity);
  if (mask)
    return mask.dtype === "bool"
      ? g.where(mask, scores, lowest)
      : g.add(scores, g.cast(mask, scores.dtype));
  if (!causal) return scores;
  const [rows, columns] = scores.shape.slice(-2);
  return g.where(lowerMask(rows, columns), scores, lowest);
}

/** The softmax of the scores that a query sees. */
export function weightsOf(scores: Node, mask: Node | undefined, causal: boolean): Node {
  const x = masked(scores, mask, causal);
  const axis = x.shape.length - 1;
  return mask ? maskedSoftmax(x, axis) : softmaxNode(x, axis);
}

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
