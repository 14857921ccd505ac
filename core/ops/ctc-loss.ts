/**
 * @file Connectionist temporal classification (Graves et al. 2006): the likelihood of a sequence of
 * labels under all its alignments, summed by one loop over time in logarithms. Not a method.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { numel } from "../shape.ts";
import { Tensor } from "../tensor.ts";
import { scanNodes } from "../transform/scan.ts";
import { part } from "./compose.ts";
import { tensor } from "./create.ts";
import { lit } from "./custom.ts";
import type { Reduction } from "./loss.ts";
import { reducedLoss } from "./loss-parts.ts";
import { describeNode, floatNode, indexNode, inFloat32, isHalfTensor } from "./promotion.ts";

export interface CTCLossOptions {
  /** The class that stands for no label. */
  blank?: number;
  /** "mean" (default): each loss over its number of labels, then over the batch; "sum"; "none". */
  reduction?: Reduction;
  /** Losses that are infinite, because the labels do not fit into the time there is, become 0. */
  zeroInfinity?: boolean;
}

/** Takes the place of log 0: sums of it stay finite, so that no difference of infinities is NaN. */
const never = -1e30;

/**
 * logProbs [T, N, C] or [T, C] (of logSoftmax), targets [N, S], or all of them one after the other
 * [ΣS], inputLengths and targetLengths [N] → the negative log-likelihoods. The gradient with
 * respect to logProbs is that of the loss, -P(label at t); PyTorch adds e^logProbs, which after
 * logSoftmax makes no difference. An infinite loss has a gradient of 0.
 */
export function ctcLoss(
  logProbs: Tensor,
  targets: Tensor,
  inputLengths: Tensor | readonly number[] | number,
  targetLengths: Tensor | readonly number[] | number,
  options: CTCLossOptions = {},
): Tensor {
  if (isHalfTensor(logProbs))
    return inFloat32("ctcLoss", ctcLoss, logProbs, targets, inputLengths, targetLengths, options);
  const { blank = 0, reduction = "mean", zeroInfinity = false } = options;
  const given = floatNode("ctcLoss", logProbs);
  const single = given.shape.length === 2;
  const x = single ? g.reshape(given, [given.shape[0], 1, given.shape[1]]) : given;
  const [time, batch, count] = x.shape;
  const labels = indexNode("ctcLoss", targets);
  const fits =
    labels.shape.length === 1 || (labels.shape.length === 2 && labels.shape[0] === batch);
  if (x.shape.length !== 3 || !fits || time === 0)
    throw new ShapeError(
      describe(
        "ctcLoss",
        "[T, N, C] or [T, C] and targets [N, S] or [ΣS]",
        `${describeNode(given)}, ${describeNode(labels)}`,
      ),
    );
  if (!(Number.isInteger(blank) && blank >= 0 && blank < count))
    throw new ArgumentError(describe("ctcLoss", `a blank among ${count} classes`, String(blank)));
  const times = lengths(inputLengths, batch, x);
  const sizes = lengths(targetLengths, batch, x);
  const list = padded(labels, sizes, batch, targetLengths);
  const extended = withBlanks(list, blank);
  const total = alignments(x, extended, times, sizes);
  const impossible = g.lt(total, lit(total, never / 2));
  const loss = g.where(impossible, lit(total, zeroInfinity ? 0 : Infinity), g.neg(total));
  if (reduction === "mean") {
    const by = g.cast(g.max(sizes, constant(1, "i32")), x.dtype);
    return reducedLoss("ctcLoss", g.div(loss, by), "mean");
  }
  return reducedLoss("ctcLoss", single ? g.reshape(loss, []) : loss, reduction);
}

/** Lengths as i32 [N]. */
function lengths(given: Tensor | readonly number[] | number, batch: number, x: Node): Node {
  const n =
    given instanceof Tensor
      ? indexNode("ctcLoss", given)
      : tensor(Int32Array.from([given].flat()), { device: x.device ?? undefined }).node;
  if (numel(n.shape) !== batch)
    throw new ShapeError(describe("ctcLoss", `${batch} lengths`, describeNode(n)));
  return g.reshape(n, [batch]);
}

/**
 * The labels as [N, S]; of a list of all, S is the longest, or if that is not known now, all of
 * them.
 */
function padded(
  labels: Node,
  sizes: Node,
  batch: number,
  given: Tensor | readonly number[] | number,
): Node {
  if (labels.shape.length === 2) return labels;
  const [all] = labels.shape;
  const longest = given instanceof Tensor ? all : Math.max(0, ...[given].flat());
  if (all === 0 || longest === 0) return g.expand(constant(0, "i32"), [batch, 0]);
  const start = g.sub(g.cumulative(sizes, 0, "sum"), sizes);
  const at = g.add(g.reshape(start, [batch, 1]), g.iota(longest));
  const inside = g.min(at, constant(all - 1, "i32"));
  const rows = g.expand(g.reshape(labels, [1, all]), [batch, all]);
  return g.gather(rows, inside, 1);
}

/** A blank before, between and behind: [N, S] → [N, 2S + 1]. */
function withBlanks(list: Node, blank: number): Node {
  const [batch, size] = list.shape;
  const pairs = g.pad(g.reshape(list, [batch, size, 1]), [0, 0, 1], [0, 0, 0], blank);
  return g.pad(g.reshape(pairs, [batch, 2 * size]), [0, 0], [0, 1], blank);
}

/** log Σ over the alignments of the product of their probabilities, [N]. */
function alignments(x: Node, extended: Node, times: Node, sizes: Node): Node {
  const [time, batch, count] = x.shape;
  const states = extended.shape[1];
  const place = g.iota(states);
  const low = lit(x, never);
  // Labels beyond the end are never read, but they must be classes.
  const known = g.and(g.le(constant(0, "i32"), extended), g.lt(extended, constant(count, "i32")));
  const end = g.add(sizes, sizes);
  const used = g.le(place, g.reshape(end, [batch, 1]));
  const index = g.where(g.or(known, used), extended, constant(0, "i32"));
  const emitted = g.gather(x, g.expand(index, [time, batch, states]), 2);
  const emissions = g.where(g.lt(emitted, low), low, emitted);
  // From two places before one comes only to a label, and only if it is not the same label.
  const before = shiftedBy(extended, 2, -1);
  const odd = g.eq(g.rem(place, constant(2, "i32")), constant(1, "i32"));
  const skips = g.and(odd, g.not(g.eq(extended, before)));

  const first = g.where(
    g.le(place, constant(1, "i32")),
    g.reshape(part(emissions, 0, 0, 1), [batch, states]),
    low,
  );
  const { carries } = scanNodes(
    ([alpha], [t, emission]) => {
      const stay = [
        alpha,
        shiftedBy(alpha, 1, never),
        g.where(skips, shiftedBy(alpha, 2, never), low),
      ];
      const next = g.add(logSum(stay), emission);
      return { carries: [g.where(g.reshape(g.lt(t, times), [batch, 1]), next, alpha)], ys: [] };
    },
    [first],
    [g.add(g.iota(time - 1), constant(1, "i32")), part(emissions, 0, 1, time)],
  );
  const alpha = time > 1 ? carries[0] : first;
  const at = (position: Node): Node => {
    const inside = g.max(position, constant(0, "i32"));
    const value = g.gather(alpha, g.reshape(inside, [batch, 1]), 1);
    return g.where(g.lt(position, constant(0, "i32")), low, g.reshape(value, [batch]));
  };
  return logSum([at(end), at(g.sub(end, constant(1, "i32")))]);
}

/** What stands `by` places before, and `fill` where there is nothing. */
function shiftedBy(x: Node, by: number, fill: number): Node {
  const size = x.shape[1];
  return part(g.pad(x, [0, by], [0, 0], fill), 1, 0, size);
}

function logSum(all: readonly Node[]): Node {
  const most = g.detach(all.reduce((a, b) => g.max(a, b)));
  const sum = all.map((a) => g.exp(g.sub(a, most))).reduce((a, b) => g.add(a, b));
  return g.add(g.log(sum), most);
}
