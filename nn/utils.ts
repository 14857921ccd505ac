/** @file torch.nn.utils: parameters as one vector, and layers folded into one. Clipping of gradients is in optim. */
import { ArgumentError, describe, ShapeError } from "../core/errors.ts";
import { cat, noGrad, type Tensor, zerosLike } from "../core/index.ts";
import { formatShape, numel } from "../core/shape.ts";
import type { BatchNorm } from "./batch-norm.ts";
import type { Conv } from "./conv.ts";
import { parameter } from "./parameter.ts";

/** All elements of the parameters in a row, [count]. */
export function parametersToVector(parameters: Iterable<Tensor>): Tensor {
  const parts = Array.from(parameters, (p) => p.flatten());
  if (parts.length > 0) return cat(parts, 0);
  throw new ArgumentError(describe("parametersToVector", "parameters", "none"));
}

/** Assigns the elements of `vector`, [count], to the parameters: the inverse of parametersToVector. */
export function vectorToParameters(vector: Tensor, parameters: Iterable<Tensor>): void {
  const all = [...parameters];
  const count = all.reduce((n, p) => n + numel(p.shape), 0);
  if (formatShape(vector.shape) !== formatShape([count]))
    throw new ShapeError(
      describe("vectorToParameters", formatShape([count]), formatShape(vector.shape)),
    );
  noGrad(() => {
    let start = 0;
    for (const p of all) {
      const size = numel(p.shape);
      p.assign(vector.narrow(0, start, size).reshape(p.shape));
      start += size;
    }
  });
}

/**
 * One convolution that does what `conv` and the batch normalisation behind it do in evaluation. It has tensors of its
 * own; both modules must be in evaluation mode, and the running statistics tracked.
 */
export function fuseConvBnEval<C extends Conv>(conv: C, bn: BatchNorm): C {
  const { runningMean, runningVar } = bn;
  if (conv.training || bn.training || !runningMean || !runningVar)
    throw new ArgumentError(
      describe("fuseConvBnEval", "evaluation mode and running statistics", "others", "call eval()"),
    );
  const { inChannels, outChannels, kernelSize, stride, padding, dilation, groups, paddingMode } =
    conv;
  const options = { stride, padding, dilation, groups, paddingMode };
  const make = conv.constructor as new (...args: unknown[]) => C;
  const fused = new make(inChannels, outChannels, kernelSize, options);
  noGrad(() => {
    const scale = runningVar
      .add(bn.eps)
      .rsqrt()
      .mul(bn.weight ?? 1); // [O]
    const bias = (conv.bias ?? zerosLike(runningMean)).sub(runningMean).mul(scale);
    const perRow = scale.reshape([-1, ...conv.weight.shape.slice(1).map(() => 1)]);
    fused.weight = parameter(conv.weight.mul(perRow));
    fused.bias = parameter(bias.add(bn.bias ?? 0));
  });
  return fused.eval();
}
