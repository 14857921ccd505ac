/**
 * @file Initial values of parameters. Each function returns a fresh parameter; all draw from the global generator
 * (`manualSeed` makes a model reproducible).
 */
import {
  ones as onesTensor,
  rand,
  randn,
  type Tensor,
  zeros as zerosTensor,
} from "../core/index.ts";
import { parameter } from "./parameter.ts";

/** Uniform in [−bound, bound). */
export const uniform = (shape: number[], bound: number): Tensor =>
  parameter(
    rand(shape)
      .mul(2 * bound)
      .sub(bound),
  );

/** Gaussian with mean 0. */
export const normal = (shape: number[], std = 1): Tensor => parameter(randn(shape).mul(std));

/**
 * PyTorch's default for the weight and the bias of Linear: uniform with bound 1/√fanIn, which is He's initialisation
 * (https://arxiv.org/abs/1502.01852) with a = √5 in `kaiming_uniform_`.
 */
export const kaimingUniform = (shape: number[], fanIn: number): Tensor =>
  uniform(shape, fanIn > 0 ? 1 / Math.sqrt(fanIn) : 0);

export const zeros = (shape: number[]): Tensor => parameter(zerosTensor(shape));
export const ones = (shape: number[]): Tensor => parameter(onesTensor(shape));
