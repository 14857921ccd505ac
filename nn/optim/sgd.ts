/** @file Stochastic gradient descent with momentum, as torch.optim.SGD. */

import { ArgumentError, describe } from "../../core/errors.ts";
import { type Tensor, where, zeros } from "../../core/index.ts";
import { elementOf, type Group, Optimizer, type ParamGroup, type Write } from "./optimizer.ts";

export interface SgdOptions {
  readonly lr: number;
  readonly momentum?: number;
  readonly dampening?: number;
  /** L2 penalty, added to the gradient. */
  readonly weightDecay?: number;
  readonly nesterov?: boolean;
  readonly maximize?: boolean;
}

type Complete = Required<SgdOptions>;

export class SGD extends Optimizer<Complete> {
  /** Of groups that set none of their own. */
  readonly options: Complete;
  /** Per parameter; none if no group has momentum. */
  readonly velocity: readonly Tensor[];

  constructor(params: Iterable<Tensor> | Iterable<ParamGroup<SgdOptions>>, options: SgdOptions) {
    const none = { momentum: 0, dampening: 0, weightDecay: 0, nesterov: false, maximize: false };
    const all = { ...none, ...options };
    super(params, all);
    this.options = all;
    const groups = this.groups.map((group) => group.options);
    for (const { momentum, dampening, nesterov } of groups)
      if (nesterov && (momentum <= 0 || dampening !== 0))
        throw new ArgumentError(
          describe(
            "SGD",
            "momentum > 0 and no dampening with nesterov",
            `${momentum}, ${dampening}`,
          ),
        );
    const like = (p: Tensor) => zeros(p.shape, { dtype: p.dtype, device: p.device });
    this.velocity = groups.some((o) => o.momentum > 0) ? this.params.map(like) : [];
  }

  protected moments() {
    return { velocity: this.velocity };
  }

  protected updater({ options, lr }: Group<Complete>, count: Tensor, write: Write) {
    const { momentum, dampening, weightDecay, nesterov, maximize } = options;
    // The first step takes the whole gradient, whatever the dampening.
    const share = dampening > 0 ? where(count.eq(1), 1, 1 - dampening) : null;
    return (p: Tensor, grad: Tensor, i: number) => {
      // Halves are updated in f32; assigning rounds them, once.
      const w = p.float();
      let g = maximize ? grad.float().neg() : grad.float();
      if (weightDecay > 0) g = g.add(w.mul(weightDecay));
      if (momentum > 0) {
        const before = this.velocity[i].float().mul(momentum);
        const v = write(this.velocity[i], before.add(share ? g.mul(elementOf(share, i)) : g));
        g = nesterov ? g.add(v.mul(momentum)) : v;
      }
      write(p, w.sub(g.mul(lr)));
    };
  }
}
