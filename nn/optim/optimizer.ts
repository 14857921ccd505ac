/**
 * @file What optimizers share: the list of parameters, the learning rate and the step count as cells on the device
 * (so that a compiled step reads them anew at each replay), and clearing gradients.
 *
 * Everything that an optimizer remembers is created in its constructor: a compiled step may change state, but it may
 * not make any. Each update is written as one element-wise expression per parameter, gradient in, parameter and
 * moments out, so that it becomes one kernel.
 */

import { ArgumentError, describe } from "../../core/errors.ts";
import { noGrad, Tensor, tensor, zeros } from "../../core/index.ts";

export abstract class Optimizer {
  readonly params: readonly Tensor[];
  /** 0-d; `setLearningRate` or `assign` changes it between steps. */
  readonly lr: Tensor;
  /** [P]: updates made so far, per parameter: one that is unfrozen late starts its own count. */
  readonly steps: Tensor;

  constructor(params: Iterable<Tensor>, lr: number) {
    this.params = [...params];
    if (this.params.length === 0)
      throw new ArgumentError(describe(new.target.name, "at least one parameter", "none"));
    const frozen = this.params.find((p) => !(p instanceof Tensor) || !p.requiresGrad);
    if (frozen)
      throw new ArgumentError(
        describe(
          new.target.name,
          "tensors that require a gradient",
          String(frozen),
          "leave frozen parameters out: model.parameters().filter((p) => p.requiresGrad)",
        ),
      );
    if (!(lr >= 0)) throw new ArgumentError(describe(new.target.name, "lr ≥ 0", `${lr}`));
    const { device } = this.params[0];
    this.lr = tensor(lr, { device });
    this.steps = zeros([this.params.length], { device });
  }

  setLearningRate(lr: number): void {
    this.lr.assign(tensor(lr, { device: this.lr.device }));
  }

  zeroGrad(): void {
    for (const p of this.params) p.grad = null;
  }

  /** One update of every parameter that has a gradient. */
  step(): void {
    const due = this.params.map((p) => p.grad !== null);
    if (!due.includes(true)) return;
    noGrad(() => {
      const all = due.every(Boolean);
      const more = all ? 1 : tensor(due.map(Number), { device: this.steps.device });
      const count = this.steps.add(more);
      this.steps.assign(count);
      const update = this.updater(count);
      this.params.forEach((p, i) => {
        if (p.grad) update(p, p.grad, i);
      });
    });
  }

  /**
   * Prepares what all parameters share in this step, `count` [P] being the number of updates with this one; the result
   * updates parameter i from its gradient.
   */
  protected abstract updater(count: Tensor): (p: Tensor, grad: Tensor, i: number) => void;
}

/** Element i of a vector, 0-d. */
export const elementOf = (vector: Tensor, i: number): Tensor => vector.narrow(0, i, 1).reshape([]);

/**
 * 1 − βᵗ for t ≥ 1, without the cancellation that loses four digits for β = 0.999 and t = 1:
 * 1 − eʸ = −2h / (1 − h) with h = tanh(y / 2), y = t · ln β.
 */
export function biasCorrection(beta: number, t: Tensor): Tensor {
  if (beta === 0) return t.mul(0).add(1);
  const h = t.mul(Math.log(beta) / 2).tanh();
  return h.mul(-2).div(h.neg().add(1));
}

export function checkFraction(op: string, name: string, value: number): void {
  if (!(value >= 0 && value < 1))
    throw new ArgumentError(describe(op, `0 ≤ ${name} < 1`, `${value}`));
}
