/** @file Stochastic gradient descent with momentum, as torch.optim.SGD. */

import { ArgumentError, describe } from "../../core/errors.ts";
import { type Tensor, where, zeros } from "../../core/index.ts";
import { elementOf, Optimizer } from "./optimizer.ts";

export interface SgdOptions {
  readonly lr: number;
  readonly momentum?: number;
  readonly dampening?: number;
  /** L2 penalty, added to the gradient. */
  readonly weightDecay?: number;
  readonly nesterov?: boolean;
  readonly maximize?: boolean;
}

export class SGD extends Optimizer {
  readonly options: Required<SgdOptions>;
  /** Per parameter; none without momentum. */
  readonly velocity: readonly Tensor[];

  constructor(params: Iterable<Tensor>, options: SgdOptions) {
    super(params, options.lr);
    this.options = {
      momentum: 0,
      dampening: 0,
      weightDecay: 0,
      nesterov: false,
      maximize: false,
      ...options,
    };
    const { momentum, dampening, nesterov } = this.options;
    if (nesterov && (momentum <= 0 || dampening !== 0))
      throw new ArgumentError(
        describe("SGD", "momentum > 0 and no dampening with nesterov", `${momentum}, ${dampening}`),
      );
    const like = (p: Tensor) => zeros(p.shape, { device: p.device });
    this.velocity = momentum > 0 ? this.params.map(like) : [];
  }

  protected updater(count: Tensor) {
    const { momentum, dampening, weightDecay, nesterov, maximize } = this.options;
    // The first step takes the whole gradient, whatever the dampening.
    const share = dampening > 0 ? where(count.eq(1), 1, 1 - dampening) : null;
    return (p: Tensor, grad: Tensor, i: number) => {
      let g = maximize ? grad.neg() : grad;
      if (weightDecay > 0) g = g.add(p.mul(weightDecay));
      if (momentum > 0) {
        const v = this.velocity[i].mul(momentum).add(share ? g.mul(elementOf(share, i)) : g);
        this.velocity[i].assign(v);
        g = nesterov ? g.add(v.mul(momentum)) : v;
      }
      p.assign(p.sub(g.mul(this.lr)));
    };
  }
}
