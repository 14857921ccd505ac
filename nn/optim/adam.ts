/**
 * @file Adam (https://arxiv.org/abs/1412.6980) and its kin, as in torch.optim: AdamW, NAdam, RAdam, Adamax.
 */
import { maximum, type Tensor, where } from "../../core/index.ts";
import { type Due, type Group, Optimizer, type Params, type Rule } from "./optimizer.ts";
import { average, biasCorrection, elementOf, scalarFor, type Write, zerosFor } from "./rule.ts";

export interface MomentOptions {
  readonly lr?: number;
  readonly betas?: readonly [number, number];
  readonly eps?: number;
  readonly weightDecay?: number;
  readonly maximize?: boolean;
}

export interface AdamOptions extends MomentOptions {
  /** Divides by the largest second moment so far (https://openreview.net/forum?id=ryQu7f-RZ). */
  readonly amsgrad?: boolean;
  /** Weights shrink by lr · weightDecay; without, decay is an L2 penalty that passes through the moments. */
  readonly decoupledWeightDecay?: boolean;
}

export const momentDefaults: Required<MomentOptions> = {
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0,
  maximize: false,
};

/** An optimizer with running means of the gradient and of its square. */
export abstract class MomentOptimizer<O extends Required<MomentOptions>> extends Optimizer<O> {
  /** Per parameter. */
  readonly mean = this.cells("mean");
  readonly square = this.cells("square");

  /** The new means, the first of which keeps `beta1`; `averaged: false` adds the whole gradient to it. */
  protected moments(
    { i, g }: Due,
    beta1: number | Tensor,
    beta2: number,
    write: Write,
    averaged = true,
  ) {
    const m = averaged
      ? average(write, this.mean[i], beta1, g)
      : write(this.mean[i], this.mean[i].float().mul(beta1).add(g));
    const v = average(write, this.square[i], beta2, g.mul(g));
    return { m, v };
  }
}

/** p ← p − lr · m̂ / (√v̂ + eps), m̂ and v̂ without the bias towards the zeros that they start from. */
export class Adam extends MomentOptimizer<Required<AdamOptions>> {
  /** With amsgrad. */
  readonly maxSquare = this.cells("maxSquare", (p, { amsgrad }) => (amsgrad ? zerosFor(p) : null));

  constructor(params: Params<AdamOptions>, options: AdamOptions = {}) {
    super(params, { ...momentDefaults, amsgrad: false, decoupledWeightDecay: false }, options);
  }

  protected rule(group: Group<Required<AdamOptions>>, count: Tensor, write: Write): Rule {
    const { betas, eps, amsgrad } = group.options;
    const beta1 = this.momentumOf(group);
    const rate = group.lr.div(biasCorrection(beta1, count));
    const correction = biasCorrection(betas[1], count);
    return (due) => {
      const { i, w } = due;
      const { m, v } = this.moments(due, beta1, betas[1], write);
      const most = amsgrad ? write(this.maxSquare[i], maximum(this.maxSquare[i].float(), v)) : v;
      const denominator = most.div(elementOf(correction, i)).sqrt().add(eps);
      return w.sub(m.mul(elementOf(rate, i)).div(denominator));
    };
  }
}

export type AdamWOptions = Omit<AdamOptions, "decoupledWeightDecay">;

/** Adam with decoupled weight decay, 0.01 by default (https://arxiv.org/abs/1711.05101). */
export class AdamW extends Adam {
  constructor(params: Params<AdamWOptions>, options: AdamWOptions = {}) {
    const { weightDecay = 0.01 } = options;
    super(params, { ...options, weightDecay, decoupledWeightDecay: true });
  }
}

export interface NAdamOptions extends MomentOptions {
  /** How fast the momentum approaches betas[0]. */
  readonly momentumDecay?: number;
  readonly decoupledWeightDecay?: boolean;
}

/** Adam with Nesterov's momentum (Dozat 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ). */
export class NAdam extends MomentOptimizer<Required<NAdamOptions>> {
  /** The product of the momenta so far, 0-d. */
  readonly product = this.cells("product", (p) => scalarFor(p, 1));

  constructor(params: Params<NAdamOptions>, options: NAdamOptions = {}) {
    const own = { lr: 2e-3, momentumDecay: 4e-3, decoupledWeightDecay: false };
    super(params, { ...momentDefaults, ...own }, options);
  }

  protected rule(group: Group<Required<NAdamOptions>>, count: Tensor, write: Write): Rule {
    const { betas, eps, momentumDecay } = group.options;
    const beta1 = this.momentumOf(group);
    const correction = biasCorrection(betas[1], count);
    // β₁ (1 − ½ · 0.96^(t · momentumDecay))
    const decayed = (t: Tensor) => t.mul(momentumDecay * Math.log(0.96)).exp();
    const momentum = (t: Tensor) => decayed(t).mul(-0.5).add(1).mul(beta1);
    const [now, next] = [momentum(count), momentum(count.add(1))];
    return (due) => {
      const { i, w, g } = due;
      const { m, v } = this.moments(due, beta1, betas[1], write);
      const [mu, muNext] = [elementOf(now, i), elementOf(next, i)];
      const product = write(this.product[i], this.product[i].mul(mu));
      const gradientShare = mu.neg().add(1).div(product.neg().add(1));
      const momentShare = muNext.div(product.mul(muNext).neg().add(1));
      const direction = g.mul(gradientShare).add(m.mul(momentShare));
      const denominator = v.div(elementOf(correction, i)).sqrt().add(eps);
      return w.sub(direction.mul(group.lr).div(denominator));
    };
  }
}

export type RAdamOptions = Omit<AdamOptions, "amsgrad">;

/**
 * Adam whose first steps, while the second moment is not to be trusted, are those of momentum alone
 * (https://arxiv.org/abs/1908.03265).
 */
export class RAdam extends MomentOptimizer<Required<RAdamOptions>> {
  constructor(params: Params<RAdamOptions>, options: RAdamOptions = {}) {
    super(params, { ...momentDefaults, decoupledWeightDecay: false }, options);
  }

  protected rule(group: Group<Required<RAdamOptions>>, count: Tensor, write: Write): Rule {
    const { betas, eps } = group.options;
    const beta1 = this.momentumOf(group);
    const rate = group.lr.div(biasCorrection(beta1, count));
    const rectified = rectification(betas[1], count);
    return (due) => {
      const { m, v } = this.moments(due, beta1, betas[1], write);
      const step = m.mul(elementOf(rate, due.i));
      if (!rectified) return due.w.sub(step);
      const factor = elementOf(rectified.factor, due.i).div(v.sqrt().add(eps));
      return due.w.sub(step.mul(where(elementOf(rectified.holds, due.i), factor, 1)));
    };
  }
}

/**
 * Whether step t is to be rectified, ρₜ > 5, and then √(1 − βᵗ) · rₜ; null if none ever is.
 *
 * ρₜ = ρ∞ − 2tβᵗ / (1 − βᵗ) is a small difference of numbers near 2000, all of whose digits f32 would lose. With L = −ln β
 * and f(y) = y · coth y − 1 it is t + (2/L) · (f(L/2) − f(tL/2)), which loses none.
 */
function rectification(beta: number, t: Tensor): { holds: Tensor; factor: Tensor } | null {
  const limit = (1 + beta) / (1 - beta);
  if (limit <= 5) return null;
  const half = -Math.log(beta) / 2;
  const start = half / Math.tanh(half) - 1;
  const y = t.mul(half);
  const s = y.mul(y);
  // The series of f, for y < ½.
  const series = [2 / 93555, -1 / 4725, 2 / 945, -1 / 45, 1 / 3]
    .map((c) => s.mul(0).add(c))
    .reduce((sum, c) => sum.mul(s).add(c))
    .mul(s);
  const rho = t.add(where(y.lt(0.5), series, y.div(y.tanh()).sub(1)).neg().add(start).div(half));
  const holds = rho.gt(5);
  const safe = where(holds, rho, 6);
  const constant = limit / ((limit - 4) * (limit - 2));
  const squared = safe.sub(4).mul(safe.sub(2)).div(safe).mul(constant);
  return { holds, factor: squared.mul(biasCorrection(beta, t)).sqrt() };
}

/** Adam with the largest gradient so far, discounted, for the second moment. */
export class Adamax extends Optimizer<Required<MomentOptions>> {
  /** Per parameter. */
  readonly mean = this.cells("mean");
  readonly largest = this.cells("largest");

  constructor(params: Params<MomentOptions>, options: MomentOptions = {}) {
    super(params, { ...momentDefaults, lr: 2e-3 }, options);
  }

  protected rule(group: Group<Required<MomentOptions>>, count: Tensor, write: Write): Rule {
    const { betas, eps } = group.options;
    const beta1 = this.momentumOf(group);
    const rate = group.lr.div(biasCorrection(beta1, count));
    return ({ i, w, g }) => {
      const m = average(write, this.mean[i], beta1, g);
      const discounted = this.largest[i].float().mul(betas[1]);
      const largest = write(this.largest[i], maximum(discounted, g.abs().add(eps)));
      return w.sub(m.mul(elementOf(rate, i)).div(largest));
    };
  }
}
