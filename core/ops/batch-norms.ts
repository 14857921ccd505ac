/**
 * @file Normalisation over batches, groups, instances and neighbouring channels. Axis 1 holds the channels; weight and bias,
 * both optional, have one element per channel.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { numel, sameShape } from "../shape.ts";
import { fromNode, noGrad, type Tensor } from "../tensor.ts";
import { along, countOf, kept } from "./axes.ts";
import { part, rsqrt, square } from "./compose.ts";
import { lit } from "./custom.ts";
import { describeNode, floatNode, inFloat32, isHalfTensor } from "./promotion.ts";
import { moments } from "./reductions.ts";

export interface BatchNormOptions {
  /** Normalise with the batch's statistics and update the running ones; otherwise use the running ones. */
  training?: boolean;
  /** The share of the new statistics in the running ones, a number or 0-d; 0.1 by default. */
  momentum?: number | Tensor;
  eps?: number;
}

/**
 * Batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167): each channel of x [N, C, *] minus its mean, divided by
 * √(variance + eps), over all other axes. In training the running statistics, if given, are assigned
 * `(1 - momentum)·old + momentum·new`, with the unbiased variance.
 */
export function batchNorm(
  x: Tensor,
  runningMean?: Tensor | null,
  runningVar?: Tensor | null,
  weight?: Tensor | null,
  bias?: Tensor | null,
  { training = false, momentum = 0.1, eps = 1e-5 }: BatchNormOptions = {},
): Tensor {
  // Not inFloat32: the running statistics are cells to assign to, not values.
  if (isHalfTensor(x)) {
    const options = { training, momentum, eps };
    const wide = batchNorm(x.float(), runningMean, runningVar, weight, bias, options);
    return wide.to(x.dtype);
  }
  const n = channels("batchNorm", x, 2);
  const rank = n.shape.length;
  const axes = [...n.shape.keys()].filter((a) => a !== 1);
  if (!training) {
    if (!runningMean || !runningVar)
      throw new ArgumentError(
        describe("batchNorm", "running statistics outside training", "none", "set training: true"),
      );
    const [mean, variance] = [runningMean, runningVar].map((t) => perChannel("batchNorm", n, t));
    const scale = rsqrt(g.add(variance, lit(n, eps)));
    const scaled = g.mul(g.sub(n, along(mean, 1, rank)), along(scale, 1, rank));
    return affine("batchNorm", scaled, weight, bias);
  }
  const count = countOf(n, axes);
  if (count < 2)
    throw new ShapeError(
      describe("batchNorm", "more than one value per channel in training", describeNode(n)),
    );
  const { mean, centred, variance } = moments(n, axes, 0);
  const running = (old: Tensor, fresh: Node): void => {
    const before = perChannel("batchNorm", n, old);
    const [share, rest] = shares(before, momentum);
    const next = g.add(g.mul(before, rest), g.mul(g.detach(fresh), share));
    noGrad(() => old.assign(fromNode(g.detach(next))));
  };
  const scale = rsqrt(g.add(kept(variance, axes, n), lit(n, eps)));
  const result = affine("batchNorm", g.mul(centred, scale), weight, bias);
  if (runningMean) running(runningMean, g.reshape(mean, [n.shape[1]]));
  if (runningVar) running(runningVar, g.mul(variance, lit(n, count / (count - 1))));
  return result;
}

/**
 * Group normalisation (Wu & He 2018, arXiv 1803.08494): as layerNorm, over each of `groups` equal groups of channels of x
 * [N, C, *] and all places.
 */
export function groupNorm(
  x: Tensor,
  groups: number,
  weight?: Tensor | null,
  bias?: Tensor | null,
  eps = 1e-5,
): Tensor {
  if (isHalfTensor(x)) return inFloat32("groupNorm", groupNorm, x, groups, weight, bias, eps);
  const n = channels("groupNorm", x, 2);
  if (!(Number.isInteger(groups) && groups > 0) || n.shape[1] % groups !== 0)
    throw new ArgumentError(
      describe(
        "groupNorm",
        `a number of groups that divides ${n.shape[1]} channels`,
        String(groups),
      ),
    );
  const size = (n.shape[1] / groups) * numel(n.shape.slice(2));
  const rows = g.reshape(n, [n.shape[0], groups, size]);
  return affine("groupNorm", g.reshape(standardised(rows, [2], eps), n.shape), weight, bias);
}

/** Instance normalisation (Ulyanov et al. 2016, arXiv 1607.08022): over the places of each channel of each x [N, C, *]. */
export function instanceNorm(
  x: Tensor,
  weight?: Tensor | null,
  bias?: Tensor | null,
  eps = 1e-5,
): Tensor {
  if (isHalfTensor(x)) return inFloat32("instanceNorm", instanceNorm, x, weight, bias, eps);
  const n = channels("instanceNorm", x, 3);
  const places = [...n.shape.keys()].slice(2);
  return affine("instanceNorm", standardised(n, places, eps), weight, bias);
}

/**
 * Each element divided by a power of what its `size` neighbouring channels hold (Krizhevsky et al. 2012):
 * `x/(k + alpha·Σx²/size)^beta`.
 */
export function localResponseNorm(
  x: Tensor,
  size: number,
  alpha = 1e-4,
  beta = 0.75,
  k = 1,
): Tensor {
  if (isHalfTensor(x))
    return inFloat32("localResponseNorm", localResponseNorm, x, size, alpha, beta, k);
  const n = channels("localResponseNorm", x, 3);
  if (!(Number.isInteger(size) && size > 0))
    throw new ArgumentError(describe("localResponseNorm", "a positive size", String(size)));
  const before = Math.floor(size / 2);
  const edge = (count: number) => n.shape.map((_, i) => (i === 1 ? count : 0));
  const padded = g.pad(square(n), edge(before), edge(size - 1 - before));
  const shifted = Array.from({ length: size }, (_, i) => part(padded, 1, i, i + n.shape[1]));
  const mean = g.div(shifted.reduce(g.add), lit(n, size));
  const scale = g.pow(g.add(g.mul(mean, lit(n, alpha)), lit(n, k)), lit(n, beta));
  return fromNode(g.div(n, scale));
}

// --- helpers, on nodes ---------------------------------------------------------------------------

function channels(op: string, x: Tensor, rank: number): Node {
  const n = floatNode(op, x);
  if (n.shape.length < rank)
    throw new ShapeError(describe(op, `[N, C${rank > 2 ? ", L" : ""}, *]`, describeNode(n)));
  return n;
}

/** The share of the new and that of the old. */
function shares(like: Node, momentum: number | Tensor): [share: Node, rest: Node] {
  if (typeof momentum === "number") return [lit(like, momentum), lit(like, 1 - momentum)];
  const share = g.cast(floatNode("batchNorm", momentum), like.dtype);
  return [share, g.sub(lit(like, 1), share)];
}

function perChannel(op: string, n: Node, t: Tensor): Node {
  const p = g.cast(floatNode(op, t), n.dtype);
  if (!sameShape(p.shape, [n.shape[1]]))
    throw new ShapeError(
      describe(op, `one element for each of ${n.shape[1]} channels`, describeNode(p)),
    );
  return p;
}

function standardised(n: Node, axes: readonly number[], eps: number): Node {
  const { centred, variance } = moments(n, axes, 0);
  return g.mul(centred, rsqrt(g.add(kept(variance, axes, n), lit(n, eps))));
}

function affine(op: string, n: Node, weight?: Tensor | null, bias?: Tensor | null): Tensor {
  const rank = n.shape.length;
  const scaled = weight ? g.mul(n, along(perChannel(op, n, weight), 1, rank)) : n;
  return fromNode(bias ? g.add(scaled, along(perChannel(op, n, bias), 1, rank)) : scaled);
}
