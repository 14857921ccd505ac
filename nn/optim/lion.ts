/** @file Lion and LAMB, as in timm.optim. */

import { ones, type Tensor, where } from "../../core/index.ts";
import { MomentOptimizer, type MomentOptions, momentDefaults } from "./adam.ts";
import { getTotalNorm } from "./clip.ts";
import { type Decay, type Group, Optimizer, type Params, type Rule } from "./optimizer.ts";
import { average, biasCorrection, complement, elementOf, type Write } from "./rule.ts";

export interface LionOptions {
  readonly lr?: number;
  readonly betas?: readonly [number, number];
  /** Weights shrink by lr · weightDecay. */
  readonly weightDecay?: number;
  /** Only steps in the gradient's direction (https://arxiv.org/abs/2411.16085). */
  readonly caution?: boolean;
  readonly maximize?: boolean;
}

type LionComplete = Required<LionOptions>;
const lionDefaults: LionComplete = {
  lr: 1e-4,
  betas: [0.9, 0.99],
  weightDecay: 0,
  caution: false,
  maximize: false,
};

/** Steps of ±lr, the sign that of an interpolated momentum (https://arxiv.org/abs/2302.06675). */
export class Lion extends Optimizer<LionComplete> {
  readonly mean = this.cells("mean");

  constructor(params: Params<LionOptions>, options: LionOptions = {}) {
    super(params, lionDefaults, options);
  }

  protected override decay(): Decay {
    return "decoupled";
  }

  protected rule(group: Group<LionComplete>, _: Tensor, write: Write): Rule {
    const { betas, caution } = group.options;
    const { lr } = group;
    const beta1 = this.momentumOf(group);
    return ({ i, w, g }) => {
      const before = this.mean[i].float();
      const sign = before
        .mul(beta1)
        .add(g.mul(complement(beta1)))
        .sign();
      average(write, this.mean[i], betas[1], g);
      return w.sub((caution ? cautious(sign, g) : sign).mul(lr));
    };
  }
}

export interface LambOptions extends MomentOptions {
  readonly biasCorrection?: boolean;
  /** The running mean takes 1 − betas[0] of the gradient; otherwise all of it. */
  readonly gradAveraging?: boolean;
  /** Of all groups' gradients together; null: not clipped. */
  readonly maxGradNorm?: number | null;
  /** The trust ratio is at most 1. */
  readonly trustClip?: boolean;
  /** The trust ratio also where there is no weight decay. */
  readonly alwaysAdapt?: boolean;
  /** Only steps in the gradient's direction (https://arxiv.org/abs/2411.16085). */
  readonly caution?: boolean;
  /** Weights shrink by lr · weightDecay; without, decay is part of the step that the trust ratio scales. */
  readonly decoupledDecay?: boolean;
  /** With decoupledDecay: by lr² · weightDecay over the constructor's lr (https://arxiv.org/abs/2506.02285). */
  readonly correctedWeightDecay?: boolean;
}

type LambComplete = Required<LambOptions>;
const lambDefaults: LambComplete = {
  ...momentDefaults,
  eps: 1e-6,
  weightDecay: 0.01,
  biasCorrection: true,
  gradAveraging: true,
  maxGradNorm: 1,
  trustClip: false,
  alwaysAdapt: false,
  caution: false,
  decoupledDecay: false,
  correctedWeightDecay: false,
};

/** LAMB (https://arxiv.org/abs/1904.00962): Adam's step, scaled to the size of the parameter, for large batches. */
export class Lamb extends MomentOptimizer<LambComplete> {
  constructor(params: Params<LambOptions>, options: LambOptions = {}) {
    super(params, lambDefaults, options);
    const { lr, maxGradNorm } = this.options;
    this.require(`maxGradNorm ${maxGradNorm} for all groups`, (o) => o.maxGradNorm === maxGradNorm);
    this.require("lr > 0 with correctedWeightDecay", (o) => !o.correctedWeightDecay || lr > 0);
  }

  protected override decay(): Decay {
    return "own";
  }

  protected rule(group: Group<LambComplete>, count: Tensor, write: Write): Rule {
    const { options, lr } = group;
    const beta1 = this.momentumOf(group);
    const { betas, eps, weightDecay, caution, trustClip, decoupledDecay } = options;
    const { maxGradNorm } = this.options;
    const grads = this.params.flatMap((p) => p.grad ?? []);
    const clip = maxGradNorm === null ? null : getTotalNorm(grads).div(maxGradNorm).clamp(1);
    const correction = (beta: number | Tensor) =>
      options.biasCorrection ? biasCorrection(beta, count) : ones(count.shape, count);
    const [correction1, correction2] = [beta1, betas[1]].map(correction);
    const shrink = options.correctedWeightDecay ? lr.square().div(this.options.lr) : lr;
    return (due) => {
      const { i, p } = due;
      const g = clip ? due.g.div(clip) : due.g;
      const { m, v } = this.moments({ ...due, g }, beta1, betas[1], write, options.gradAveraging);
      const denominator = v.div(elementOf(correction2, i)).sqrt().add(eps);
      const adam = m.div(elementOf(correction1, i)).div(denominator);
      const careful = caution ? cautious(adam, g) : adam;
      const apart = weightDecay > 0 && decoupledDecay;
      const w = apart ? p.mul(shrink.mul(-weightDecay).add(1)) : p;
      const update = apart || weightDecay === 0 ? careful : careful.add(p.mul(weightDecay));
      if (weightDecay === 0 && !options.alwaysAdapt) return w.sub(update.mul(lr));
      return w.sub(update.mul(trustRatio(w, update, trustClip).mul(lr)));
    };
  }
}

/** ‖w‖ / ‖update‖; 1 where one of them is 0. */
function trustRatio(w: Tensor, update: Tensor, clip: boolean): Tensor {
  const [a, b] = [getTotalNorm([w]), getTotalNorm([update])];
  const defined = a.gt(0).logicalAnd(b.gt(0));
  const ratio = where(defined, a.div(where(defined, b, 1)), 1);
  return clip ? ratio.clamp(null, 1) : ratio;
}

/** What of an update points along the gradient, scaled to make up for the rest. */
function cautious(update: Tensor, g: Tensor): Tensor {
  const mask = update.mul(g).gt(0).float();
  return update.mul(mask.div(mask.mean().clamp(1e-3)));
}
