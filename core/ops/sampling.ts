/**
 * @file Drawing positions at random: permutations and categories. Without replacement, and from logits, by a race of
 * exponential clocks: category i rings at E/pᵢ, the first to ring wins (the Gumbel trick, without its logarithm). With
 * replacement by the inverse of the running sum.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { defaultGenerator, type Generator, rand } from "../random.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { cut } from "./lines.ts";
import { insertionPoints } from "./ordering.ts";
import { describeNode, floatNode } from "./promotion.ts";

export interface SamplingOptions {
  generator?: Generator;
}

/** The integers 0 … n-1 (i32) in random order. */
export function randperm(
  n: number,
  { generator = defaultGenerator }: SamplingOptions = {},
): Tensor {
  if (!(Number.isInteger(n) && n >= 0))
    throw new ArgumentError(describe("randperm", "a non-negative integer", String(n)));
  return fromNode(g.argsort(generator.bits([n]), 0));
}

/**
 * `numSamples` positions (i32) per row of non-negative weights, drawn with probabilities proportional to them; they need
 * not sum to 1. Without replacement (the default) the positions of a row differ, and a row needs that many weights that
 * are not 0. x is 1-d or 2-d.
 */
export function multinomial(
  x: Tensor,
  numSamples: number,
  replacement = false,
  options: SamplingOptions = {},
): Tensor {
  const p = g.cast(g.detach(floatNode("multinomial", x)), "f32");
  const rank = p.shape.length;
  const n = p.shape[rank - 1];
  if (rank < 1 || rank > 2 || n === 0)
    throw new ShapeError(
      describe("multinomial", "weights of one axis or two, not empty", describeNode(p)),
    );
  if (!(Number.isInteger(numSamples) && numSamples >= 1 && (replacement || numSamples <= n)))
    throw new ArgumentError(
      describe(
        "multinomial",
        replacement ? "a positive number of samples" : `1 … ${n} samples without replacement`,
        String(numSamples),
      ),
    );
  if (!replacement) {
    const first = g.argsort(g.div(p, clocks(p, options)), rank - 1, true);
    return fromNode(cut(first, rank - 1, 0, numSamples));
  }
  const running = g.cumulative(p, rank - 1, "sum");
  const total = cut(running, rank - 1, n - 1, n);
  const drawn = rand([...p.shape.slice(0, -1), numSamples], options).node;
  const index = insertionPoints(running, g.mul(drawn, total), true);
  // A product rounded up to the total must not name a category of weight 0 at the end.
  return fromNode(g.min(index, insertionPoints(running, total, false)));
}

/** One position (i32) along `dim` per line of logits: i with the probability softmax(logits)[i]. */
export function categorical(logits: Tensor, dim = -1, options: SamplingOptions = {}): Tensor {
  const n = g.cast(g.detach(floatNode("categorical", logits)), "f32");
  const rank = n.shape.length;
  if (!(Number.isInteger(dim) && dim >= -rank && dim < rank))
    throw new ArgumentError(describe("categorical", `a dim of ${describeNode(n)}`, String(dim)));
  return fromNode(g.argmax(g.sub(n, g.log(clocks(n, options))), dim < 0 ? dim + rank : dim));
}

/** Exponentially distributed, never 0: u = 0 counts as half a step. */
function clocks(like: Node, options: SamplingOptions): Node {
  const u = rand(like.shape, options).node;
  return g.neg(g.log(g.max(u, g.scalarLike(u, 2 ** -25))));
}
