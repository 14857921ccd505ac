/**
 * @file The partial inverse of max pooling: values go back to where the maxima were, zeros everywhere else. Spatial axes come
 * last; leading axes (batch, channels) are kept: [N, C, S…] or [C, S…].
 */
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { formatShape, numel, sameShape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { regionNodes } from "../transform/region.ts";
import { type PerAxis, perAxis } from "./convolution.ts";
import { describeNode, indexNode, nodeOf } from "./promotion.ts";
import { scatter } from "./scatter.ts";

export interface MaxUnpoolOptions {
  /** Of the pooling (default: the kernel's size). */
  stride?: PerAxis;
  /** Of the pooling (default 0). */
  padding?: PerAxis;
  /** Spatial sizes of the result: several may have been pooled to the same one (default: the smallest of them). */
  outputSize?: readonly number[];
}

/** [*, L] and the indices of maxPool1d → [*, L before pooling]. */
export function maxUnpool1d(
  input: Tensor,
  indices: Tensor,
  kernelSize: PerAxis,
  options?: MaxUnpoolOptions,
): Tensor {
  return maxUnpool("maxUnpool1d", 1, input, indices, kernelSize, options);
}

/** [*, H, W] and the indices of maxPool2d → [*, H, W before pooling]. */
export function maxUnpool2d(
  input: Tensor,
  indices: Tensor,
  kernelSize: PerAxis,
  options?: MaxUnpoolOptions,
): Tensor {
  return maxUnpool("maxUnpool2d", 2, input, indices, kernelSize, options);
}

/** [*, D, H, W] and the indices of maxPool3d → [*, D, H, W before pooling]. */
export function maxUnpool3d(
  input: Tensor,
  indices: Tensor,
  kernelSize: PerAxis,
  options?: MaxUnpoolOptions,
): Tensor {
  return maxUnpool("maxUnpool3d", 3, input, indices, kernelSize, options);
}

function maxUnpool(
  op: string,
  rank: number,
  input: Tensor,
  indices: Tensor,
  kernelSize: PerAxis,
  { stride = kernelSize, padding = 0, outputSize }: MaxUnpoolOptions = {},
): Tensor {
  const [n, i] = [nodeOf(op, input), indexNode(op, indices)];
  if (!isFloat(n.dtype)) throw new DTypeError(describe(op, "a float input", describeNode(n)));
  if (n.shape.length < rank + 1 || n.shape.length > rank + 2 || !sameShape(n.shape, i.shape))
    throw new ShapeError(
      describe(
        op,
        `[N, C, …] or [C, …] with ${rank} spatial axes, and indices of that shape`,
        `${describeNode(n)}, ${describeNode(i)}`,
      ),
    );
  const kernel = perAxis(op, "kernelSize", kernelSize, rank, 1);
  const steps = perAxis(op, "stride", stride, rank, 1);
  const pads = perAxis(op, "padding", padding, rank, 0);
  const least = n.shape.slice(-rank).map((d, a) => (d - 1) * steps[a] - 2 * pads[a] + kernel[a]);
  const size = outputSize ? [...outputSize] : least;
  // PyTorch's bounds: one stride around what the geometry gives.
  if (
    size.length !== rank ||
    size.some((d, a) => Math.abs(d - least[a]) >= steps[a] && d !== least[a])
  )
    // biome-ignore format: one condition
    throw new ArgumentError(
      describe(op, `an outputSize less than the stride from ${formatShape(least)}`, String(size)),
    );
  const leading = n.shape.slice(0, -rank);
  const lines = [numel(leading), numel(n.shape.slice(-rank))];
  const [y] = regionNodes(
    "custom",
    op,
    ([x, at]) => [placed(x, at, numel(size))],
    [g.reshape(n, lines), g.reshape(i, lines)],
    // Each value's gradient is that of the place it went to, also where windows overlap.
    ([, at], _, [ct]) => [g.gather(ct, at, 1), null],
  );
  return fromNode(g.reshape(y, [...leading, ...size]));
}

/** Zeros, [M, size], with x, [M, count], at the given places; where several meet, the last. */
function placed(x: Node, at: Node, size: number): Node {
  const zeros = g.expand(constant(0, x.dtype), [x.shape[0], size]);
  return scatter(fromNode(zeros), 1, fromNode(at), fromNode(x)).node;
}
