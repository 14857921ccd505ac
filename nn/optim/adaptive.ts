/** @file Step sizes from the squares of all gradients so far, as in torch.optim: Adagrad, RMSprop, Adadelta. */

import { full, type Tensor } from "../../core/index.ts";
import { type Group, Optimizer, type Params, type Rule } from "./optimizer.ts";
import { average, elementOf, type Write, zerosFor } from "./rule.ts";

export interface AdagradOptions {
  readonly lr?: number;
  /** The rate of step t is lr / (1 + (t − 1) · lrDecay). */
  readonly lrDecay?: number;
  readonly weightDecay?: number;
  readonly initialAccumulatorValue?: number;
  readonly eps?: number;
  readonly maximize?: boolean;
}

type AdagradComplete = Required<AdagradOptions>;
const adagradDefaults: AdagradComplete = {
  lr: 1e-2,
  lrDecay: 0,
  weightDecay: 0,
  initialAccumulatorValue: 0,
  eps: 1e-10,
  maximize: false,
};

/** Divides by the root of the sum of squares (Duchi et al. 2011). */
export class Adagrad extends Optimizer<AdagradComplete> {
  readonly sum = this.cells("sum", ({ shape, dtype, device }, { initialAccumulatorValue }) =>
    full(shape, initialAccumulatorValue, { dtype, device }),
  );

  constructor(params: Params<AdagradOptions>, options: AdagradOptions = {}) {
    super(params, adagradDefaults, options);
  }

  protected rule({ options, lr }: Group<AdagradComplete>, count: Tensor, write: Write): Rule {
    const { lrDecay, eps } = options;
    const rate = lr.div(count.sub(1).mul(lrDecay).add(1));
    return ({ i, w, g }) => {
      const sum = write(this.sum[i], this.sum[i].float().add(g.mul(g)));
      return w.sub(g.mul(elementOf(rate, i)).div(sum.sqrt().add(eps)));
    };
  }
}

export interface RmspropOptions {
  readonly lr?: number;
  /** What the running mean of squares keeps. */
  readonly alpha?: number;
  readonly eps?: number;
  readonly weightDecay?: number;
  readonly momentum?: number;
  /** Divides by the standard deviation of the gradient. */
  readonly centered?: boolean;
  readonly maximize?: boolean;
}

type RmspropComplete = Required<RmspropOptions>;
const rmspropDefaults: RmspropComplete = {
  lr: 1e-2,
  alpha: 0.99,
  eps: 1e-8,
  weightDecay: 0,
  momentum: 0,
  centered: false,
  maximize: false,
};

/** Divides by the root of a running mean of squares (Tieleman and Hinton 2012; centred: Graves, arXiv 1308.0850). */
export class RMSprop extends Optimizer<RmspropComplete> {
  readonly square = this.cells("square");
  /** The running mean of the gradient, if centred. */
  readonly mean = this.cells("mean", (p, { centered }) => (centered ? zerosFor(p) : null));
  readonly velocity = this.cells("velocity", (p, { momentum }) =>
    momentum > 0 ? zerosFor(p) : null,
  );

  constructor(params: Params<RmspropOptions>, options: RmspropOptions = {}) {
    super(params, rmspropDefaults, options);
  }

  protected rule(group: Group<RmspropComplete>, _: Tensor, write: Write): Rule {
    const { alpha, eps, centered } = group.options;
    const { lr } = group;
    const momentum = this.momentumOf(group);
    return ({ i, w, g }) => {
      const square = average(write, this.square[i], alpha, g.mul(g));
      const mean = centered ? average(write, this.mean[i], alpha, g) : null;
      // Rounding may leave the variance of equal gradients below 0; its root would be NaN.
      const variance = mean ? square.sub(mean.mul(mean)).clamp(0) : square;
      const step = g.div(variance.sqrt().add(eps));
      if (momentum === 0) return w.sub(step.mul(lr));
      const v = write(this.velocity[i], this.velocity[i].float().mul(momentum).add(step));
      return w.sub(v.mul(lr));
    };
  }
}

export interface AdadeltaOptions {
  readonly lr?: number;
  /** What the running means keep. */
  readonly rho?: number;
  readonly eps?: number;
  readonly weightDecay?: number;
  readonly maximize?: boolean;
}

type AdadeltaComplete = Required<AdadeltaOptions>;
const adadeltaDefaults: AdadeltaComplete = {
  lr: 1,
  rho: 0.9,
  eps: 1e-6,
  weightDecay: 0,
  maximize: false,
};

/** Steps of the size of the steps so far (https://arxiv.org/abs/1212.5701). */
export class Adadelta extends Optimizer<AdadeltaComplete> {
  /** Running means of the squares of gradients and of steps, per parameter. */
  readonly square = this.cells("square");
  readonly stepSquare = this.cells("stepSquare");

  constructor(params: Params<AdadeltaOptions>, options: AdadeltaOptions = {}) {
    super(params, adadeltaDefaults, options);
  }

  protected rule({ options, lr }: Group<AdadeltaComplete>, _: Tensor, write: Write): Rule {
    const { rho, eps } = options;
    return ({ i, w, g }) => {
      const square = average(write, this.square[i], rho, g.mul(g));
      const size = this.stepSquare[i].float().add(eps).sqrt();
      const step = g.mul(size.div(square.add(eps).sqrt()));
      average(write, this.stepSquare[i], rho, step.mul(step));
      return w.sub(step.mul(lr));
    };
  }
}
