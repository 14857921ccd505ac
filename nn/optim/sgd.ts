/** @file Stochastic gradient descent: with momentum, averaged, and by signs alone, as in torch.optim. */

import { type Tensor, where } from "../../core/index.ts";
import { type Group, Optimizer, type Params, type Rule } from "./optimizer.ts";
import { elementOf, scalarFor, type Write, zerosFor } from "./rule.ts";

export interface SgdOptions {
  readonly lr?: number;
  readonly momentum?: number;
  readonly dampening?: number;
  /** L2 penalty, added to the gradient. */
  readonly weightDecay?: number;
  readonly nesterov?: boolean;
  readonly maximize?: boolean;
}

type Sgd = Required<SgdOptions>;
const sgdDefaults: Sgd = {
  lr: 1e-3,
  momentum: 0,
  dampening: 0,
  weightDecay: 0,
  nesterov: false,
  maximize: false,
};

/** p ← p − lr · v with v ← momentum · v + (1 − dampening) · g. */
export class SGD extends Optimizer<Sgd> {
  /** Per parameter; none without momentum. */
  readonly velocity = this.cells("velocity", (p, { momentum }) =>
    momentum > 0 ? zerosFor(p) : null,
  );

  constructor(params: Params<SgdOptions>, options: SgdOptions = {}) {
    super(params, sgdDefaults, options);
    this.require(
      "momentum > 0 and no dampening with nesterov",
      ({ nesterov, momentum, dampening }) => !nesterov || (momentum > 0 && dampening === 0),
    );
  }

  protected rule(group: Group<Sgd>, count: Tensor, write: Write): Rule {
    const { dampening, nesterov } = group.options;
    const { lr } = group;
    const momentum = this.momentumOf(group);
    // The first step takes the whole gradient, whatever the dampening.
    const share = dampening === 0 ? null : where(count.eq(1), 1, 1 - dampening);
    return ({ i, w, g }) => {
      if (momentum === 0) return w.sub(g.mul(lr));
      const before = this.velocity[i].float().mul(momentum);
      const v = write(this.velocity[i], before.add(share ? g.mul(elementOf(share, i)) : g));
      return w.sub((nesterov ? g.add(v.mul(momentum)) : v).mul(lr));
    };
  }
}

export interface AsgdOptions {
  readonly lr?: number;
  /** How fast weights and the step size decay. */
  readonly lambd?: number;
  /** The power of the step size's decay. */
  readonly alpha?: number;
  /** The step from which on weights are averaged. */
  readonly t0?: number;
  readonly weightDecay?: number;
  readonly maximize?: boolean;
}

type Asgd = Required<AsgdOptions>;
const asgdDefaults: Asgd = {
  lr: 1e-2,
  lambd: 1e-4,
  alpha: 0.75,
  t0: 1e6,
  weightDecay: 0,
  maximize: false,
};

/**
 * Averaged SGD (Polyak and Juditsky 1992): the step size of step t + 1 is lr / (1 + lambd · lr · t)^alpha, and `average` the mean of
 * the weights since step t0.
 */
export class ASGD extends Optimizer<Asgd> {
  /** The averaged weights, per parameter. */
  readonly average = this.cells("average");
  /** The next step's size, 0-d. */
  readonly eta = this.cells("eta", (p) => scalarFor(p, 0));

  constructor(params: Params<AsgdOptions>, options: AsgdOptions = {}) {
    super(params, asgdDefaults, options);
  }

  protected rule({ options, lr }: Group<Asgd>, count: Tensor, write: Write): Rule {
    const { lambd, alpha, t0 } = options;
    const weight = count
      .sub(1 + t0)
      .clamp(1)
      .reciprocal();
    const next = lr.div(count.mul(lr).mul(lambd).add(1).pow(alpha));
    return ({ i, w, g }) => {
      const eta = where(elementOf(count, i).eq(1), lr, this.eta[i]);
      write(this.eta[i], elementOf(next, i));
      const p = w.mul(eta.mul(-lambd).add(1)).sub(g.mul(eta));
      const mu = elementOf(weight, i);
      write(this.average[i], this.average[i].float().mul(mu.neg().add(1)).add(p.mul(mu)));
      return p;
    };
  }
}

export interface RpropOptions {
  /** The first step size; later rates change nothing. */
  readonly lr?: number;
  /** What a step size is multiplied by after a change of sign, and without one. */
  readonly etas?: readonly [number, number];
  /** The smallest and the largest step size. */
  readonly stepSizes?: readonly [number, number];
  readonly maximize?: boolean;
}

type RpropComplete = Required<RpropOptions>;
const rpropDefaults: RpropComplete = {
  lr: 1e-2,
  etas: [0.5, 1.2],
  stepSizes: [1e-6, 50],
  maximize: false,
};

/** Resilient backpropagation (Riedmiller and Braun 1993): steps of a size per weight, for whole batches. */
export class Rprop extends Optimizer<RpropComplete> {
  /** The gradient before, 0 where the sign changed. */
  readonly previous = this.cells("previous");
  readonly stepSize = this.cells("stepSize");

  constructor(params: Params<RpropOptions>, options: RpropOptions = {}) {
    super(params, rpropDefaults, options);
    this.require("0 < etas[0] < 1 < etas[1]", ({ etas: [less, more] }) =>
      [0 < less, less < 1, 1 < more].every(Boolean),
    );
  }

  protected rule({ options, lr }: Group<RpropComplete>, count: Tensor, write: Write): Rule {
    const { etas, stepSizes } = options;
    return ({ i, w, g }) => {
      const agreement = g.mul(this.previous[i].float());
      const turned = agreement.lt(0);
      const factor = where(agreement.gt(0), etas[1], where(turned, etas[0], 1));
      const before = where(elementOf(count, i).eq(1), lr, this.stepSize[i].float());
      const size = write(this.stepSize[i], before.mul(factor).clamp(...stepSizes));
      const kept = write(this.previous[i], where(turned, 0, g));
      return w.sub(kept.sign().mul(size));
    };
  }
}
