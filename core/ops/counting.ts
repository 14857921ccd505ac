/** @file Counting: histograms of floats and of integers. Both add at computed positions; neither has a gradient. */
import { isInt } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import { numel } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { lit } from "./custom.ts";
import { describeNode, floatNode, inFloat32, isHalfTensor, nodeOf } from "./promotion.ts";

/**
 * The number of elements in each of `bins` equal intervals between min and max (the last includes its end); others are not
 * counted. With min = max the range is that of the data. The result has x's dtype.
 */
export function histc(x: Tensor, bins = 100, min = 0, max = 0): Tensor {
  if (isHalfTensor(x)) return inFloat32("histc", histc, x, bins, min, max);
  const n = floatNode("histc", x);
  if (!(Number.isInteger(bins) && bins > 0 && max >= min))
    throw new ArgumentError(
      describe("histc", "a positive number of bins and min ≤ max", `${bins}, ${min}, ${max}`),
    );
  const flat = g.detach(g.reshape(n, [numel(n.shape)]));
  const own = min === max && numel(n.shape) > 0;
  const extreme = (f: typeof g.amax, bound: number) => (own ? f(flat, [0]) : lit(n, bound));
  const [low, high] = [extreme(g.amin, min), extreme(g.amax, max)];
  // A range of one point becomes one of width 2 around it.
  const point = g.eq(low, high);
  const from = g.where(point, g.sub(low, lit(n, 1)), low);
  const to = g.where(point, g.add(high, lit(n, 1)), high);
  const inside = g.and(g.le(from, flat), g.le(flat, to));
  const scaled = g.mul(g.div(g.sub(flat, from), g.sub(to, from)), lit(n, bins));
  const bin = g.cast(g.where(inside, g.min(g.floor(scaled), lit(n, bins - 1)), lit(n, 0)), "i32");
  return fromNode(g.scatterAdd(bin, g.cast(inside, n.dtype), 0, bins));
}

/**
 * The number of times that each value 0 … length-1 occurs in a 1-d tensor of integers, or the sum of its weights. The
 * length cannot depend on the data here: it is `minlength`, and a larger value is an error when the result is read.
 */
export function bincount(x: Tensor, weights: Tensor | null | undefined, minlength: number): Tensor {
  const n = nodeOf("bincount", x);
  if (!isInt(n.dtype)) throw new DTypeError(describe("bincount", "integers", describeNode(n)));
  if (!(Number.isInteger(minlength) && minlength >= 0))
    throw new ArgumentError(
      describe(
        "bincount",
        "the length of the result",
        String(minlength),
        "read the maximum first: Number(await x.max().item()) + 1",
      ),
    );
  const w = weights ? g.detach(nodeOf("bincount", weights)) : null;
  if (n.shape.length !== 1 || (w && numel(w.shape) !== n.shape[0]))
    throw new ShapeError(
      describe(
        "bincount",
        "a 1-d tensor and as many weights",
        [n, ...(w ? [w] : [])].map(describeNode).join(", "),
      ),
    );
  const index = g.cast(n, "i32");
  return fromNode(g.scatterAdd(index, w ?? g.fullLike(index, 1), 0, minlength));
}
