/** @file What the rules of optimizers are written with. */

import { type Tensor, tensor, zeros } from "../../core/index.ts";

/**
 * Gives a cell of the step its next value; every change that an update makes goes through it. What it returns is that
 * value: an update that goes on with it remains one kernel, also where steps may be skipped.
 */
export type Write = (cell: Tensor, value: Tensor) => Tensor;

/** Element i of a vector, 0-d. */
export const elementOf = (vector: Tensor, i: number): Tensor => vector.narrow(0, i, 1).reshape([]);

/**
 * 1 − βᵗ for t ≥ 1, without the cancellation that loses four digits for β = 0.999 and t = 1:
 * 1 − eʸ = −2h / (1 − h) with h = tanh(y / 2), y = t · ln β.
 */
export function biasCorrection(beta: number | Tensor, t: Tensor): Tensor {
  if (beta === 0) return t.mul(0).add(1);
  const half = typeof beta === "number" ? Math.log(beta) / 2 : beta.log().div(2);
  const h = t.mul(half).tanh();
  return h.mul(-2).div(h.neg().add(1));
}

/** Zeros of a parameter's shape and dtype. */
export const zerosFor = (p: Tensor): Tensor => zeros(p.shape, { dtype: p.dtype, device: p.device });

/** A 0-d f32 cell on a parameter's device. */
export const scalarFor = (p: Tensor, value: number): Tensor => tensor(value, { device: p.device });

/** A running mean's next value, keep · cell + (1 − keep) · value, written to its cell. */
export function average(write: Write, cell: Tensor, keep: number | Tensor, value: Tensor): Tensor {
  return write(
    cell,
    cell
      .float()
      .mul(keep)
      .add(value.mul(complement(keep))),
  );
}

/** 1 − x. */
export const complement = (x: number | Tensor): number | Tensor =>
  typeof x === "number" ? 1 - x : x.neg().add(1);

/** √(mean of the squares), 0-d. */
export const rms = (x: Tensor): Tensor => x.square().mean().sqrt();
