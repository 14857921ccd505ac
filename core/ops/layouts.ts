/**
 * @file The same in another order of axes: shuffled channels, convolution with time in front. None
 * is a method.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import type { Tensor } from "../tensor.ts";
import { conv1d } from "./convolution.ts";
import { describeNode, nodeOf } from "./promotion.ts";

/**
 * The channels of [N, C, *] dealt out: of `groups` equal groups first every first one, then every
 * second one (Zhang et al. 2017, arXiv 1707.01083).
 */
export function channelShuffle(x: Tensor, groups: number): Tensor {
  const { shape } = nodeOf("channelShuffle", x);
  const [n, channels, ...rest] = shape;
  if (shape.length < 3 || !(Number.isInteger(groups) && groups > 0 && channels % groups === 0))
    throw new ArgumentError(
      describe(
        "channelShuffle",
        "[N, C, *] and a number of groups that divides C",
        `${groups} of ${describeNode(x.node)}`,
      ),
    );
  const apart = x.reshape([n, groups, channels / groups, ...rest]);
  return apart.transpose(1, 2).reshape(shape);
}

/**
 * conv1d of [T, N, in] with a weight [width, in, out] and `pad` zeros at both ends → [T', N, out].
 */
export function convTbc(input: Tensor, weight: Tensor, bias: Tensor, pad = 0): Tensor {
  const [x, w] = [nodeOf("convTbc", input), nodeOf("convTbc", weight)];
  if (x.shape.length !== 3 || w.shape.length !== 3)
    throw new ShapeError(
      describe(
        "convTbc",
        "[T, N, in] and a weight [width, in, out]",
        `${describeNode(x)}, ${describeNode(w)}`,
      ),
    );
  const options = { padding: pad };
  const y = conv1d(input.permute([1, 2, 0]), weight.permute([2, 1, 0]), bias, options);
  return y.permute([2, 0, 1]);
}
