/**
 * @file Pooling by p-norms, `(Σ xᵖ)^(1/p)` over windows: between the mean (p = 1) and the maximum
 * (p → ∞). None is a method.
 */
import { describe, ShapeError } from "../errors.ts";
import { numel } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { type PerAxis, perAxis } from "./convolution.ts";
import { where } from "./join.ts";
import { avgPool1d, avgPool2d, avgPool3d } from "./pooling.ts";
import { floatNode } from "./promotion.ts";

export interface LpPoolOptions {
  /** Step between windows (default: the kernel's size). */
  stride?: PerAxis;
  /**
   * A last window that starts inside the input but ends outside of it counts too (default false).
   */
  ceilMode?: boolean;
}

/**
 * p-norms over windows of [*, L]. The sum is of powers, not of their sizes: an odd p cancels signs,
 * and a sum below 0 counts with its size, as in PyTorch.
 */
export function lpPool1d(
  input: Tensor,
  normType: number,
  kernelSize: PerAxis,
  options?: LpPoolOptions,
): Tensor {
  return lpPool("lpPool1d", 1, avgPool1d, input, normType, kernelSize, options);
}

/** p-norms over windows of [*, H, W]; see lpPool1d. */
export function lpPool2d(
  input: Tensor,
  normType: number,
  kernelSize: PerAxis,
  options?: LpPoolOptions,
): Tensor {
  return lpPool("lpPool2d", 2, avgPool2d, input, normType, kernelSize, options);
}

/** p-norms over windows of [*, D, H, W]; see lpPool1d. */
export function lpPool3d(
  input: Tensor,
  normType: number,
  kernelSize: PerAxis,
  options?: LpPoolOptions,
): Tensor {
  return lpPool("lpPool3d", 3, avgPool3d, input, normType, kernelSize, options);
}

function lpPool(
  op: string,
  rank: number,
  avgPool: typeof avgPool2d,
  input: Tensor,
  p: number,
  kernelSize: PerAxis,
  { stride, ceilMode }: LpPoolOptions = {},
): Tensor {
  floatNode(op, input);
  if (!(p > 0 && Number.isFinite(p)))
    throw new ShapeError(describe(op, "a positive, finite normType", String(p)));
  const size = numel(perAxis(op, "kernelSize", kernelSize, rank, 1));
  // As PyTorch, also a window that is cut off at the end stands for a whole one with its mean.
  const mean = avgPool(input.pow(p), kernelSize, { stride: stride ?? kernelSize, ceilMode });
  const total = mean.sign().mul(mean.abs().relu()).mul(size);
  // A root of 0 has no derivative; its gradient is 0, as in PyTorch.
  const zero = total.eq(0);
  return where(zero, 0, where(zero, 1, total).pow(1 / p));
}
