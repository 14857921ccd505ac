/**
 * @file Adafactor (https://arxiv.org/abs/1804.04235): the second moment of a matrix as a product of a column and a row. PyTorch's, and
 * the older one of fairseq and transformers; they differ in what eps guards and where the step size comes from.
 */
import { floatLimits, type Tensor, zeros } from "../../core/index.ts";
import {
  type BaseOptions,
  type Decay,
  type Group,
  Optimizer,
  type Params,
  type Rule,
} from "./optimizer.ts";
import { average, elementOf, rms, type Write, zerosFor } from "./rule.ts";

/** An optimizer that keeps [..., n, 1] and [..., 1, m] for each parameter [..., n, m]; of a vector, a whole second moment. */
abstract class FactoredOptimizer<O extends BaseOptions> extends Optimizer<O> {
  readonly row = this.cells("row", (p) => meansFor(p, -1));
  readonly column = this.cells("column", (p) => meansFor(p, -2));
  readonly square = this.cells("square", (p) => (p.shape.length > 1 ? null : zerosFor(p)));

  /** The running means after a step that they keep the share `keep` in. */
  protected secondMoment(i: number, squared: Tensor, keep: Tensor, write: Write) {
    if (!this.row[i]) return { square: average(write, this.square[i], keep, squared) };
    return {
      row: average(write, this.row[i], keep, squared.mean(-1, true)),
      column: average(write, this.column[i], keep, squared.mean(-2, true)),
    };
  }
}

function meansFor({ shape, dtype, device }: Tensor, dim: -1 | -2): Tensor | null {
  const axis = shape.length + dim;
  return shape.length < 2 ? null : zeros(shape.with(axis, 1), { dtype, device });
}

export interface AdafactorOptions {
  /** The largest relative step size, and the rate of weight decay. */
  readonly lr?: number;
  /** The running means of step t keep 1 − t^beta2Decay. */
  readonly beta2Decay?: number;
  /** What root-mean-squares of gradients (null: the dtype's epsilon) and of parameters are at least. */
  readonly eps?: readonly [number | null, number];
  /** Updates of a larger root-mean-square are scaled down to it. */
  readonly d?: number;
  readonly weightDecay?: number;
  readonly maximize?: boolean;
}

type Complete = Required<AdafactorOptions>;
const defaults: Complete = {
  lr: 1e-2,
  beta2Decay: -0.8,
  eps: [null, 1e-3],
  d: 1,
  weightDecay: 0,
  maximize: false,
};

/** As torch.optim.Adafactor: steps of max(eps[1], rms(p)) · min(lr, 1/√t); weights shrink by lr · weightDecay. */
export class Adafactor extends FactoredOptimizer<Complete> {
  constructor(params: Params<AdafactorOptions>, options: AdafactorOptions = {}) {
    super(params, defaults, options);
  }

  protected override decay(): Decay {
    return "decoupled";
  }

  protected rule({ options, lr }: Group<Complete>, count: Tensor, write: Write): Rule {
    const { beta2Decay, d } = options;
    const keep = count.pow(beta2Decay).neg().add(1);
    const relative = count.rsqrt().minimum(lr);
    return ({ i, p, w, g }) => {
      const eps = options.eps[0] ?? epsilon(this.params[i]);
      const { square, row, column } = this.secondMoment(i, g.square(), elementOf(keep, i), write);
      const estimate = row ? row.mul(column).div(row.mean(-2, true).clamp(eps)) : square;
      const update = g.mul(estimate.clamp(eps * eps).rsqrt());
      const size = rms(p).clamp(options.eps[1]).mul(elementOf(relative, i));
      return w.sub(update.mul(size.div(rms(update).div(d).clamp(1))));
    };
  }
}

const epsilon = ({ dtype }: Tensor): number => floatLimits[dtype as keyof typeof floatLimits].eps;

export interface FairseqAdafactorOptions {
  /** Null, the default, with `relativeStep`. */
  readonly lr?: number | null;
  /** Added to squared gradients; the least root-mean-square of parameters. */
  readonly eps?: readonly [number, number];
  /** Updates of a larger root-mean-square are scaled down to it. */
  readonly clipThreshold?: number;
  /** The running means of step t keep 1 − t^decayRate. */
  readonly decayRate?: number;
  /** What a running mean of updates keeps; none if null. */
  readonly beta1?: number | null;
  /** Weights shrink by weightDecay times the step size. */
  readonly weightDecay?: number;
  /** Steps are relative to the root-mean-square of the parameter. */
  readonly scaleParameter?: boolean;
  /** The step size is min(0.01, 1/√t), whatever lr. */
  readonly relativeStep?: boolean;
  /** With relativeStep: 10⁻⁶ · t in place of 0.01. */
  readonly warmupInit?: boolean;
}

type FairseqComplete = Required<FairseqAdafactorOptions>;
const fairseqDefaults: FairseqComplete = {
  lr: null,
  eps: [1e-30, 1e-3],
  clipThreshold: 1,
  decayRate: -0.8,
  beta1: null,
  weightDecay: 0,
  scaleParameter: true,
  relativeStep: true,
  warmupInit: false,
};

/** As transformers.optimization.Adafactor and fairseq's, with which T5 was trained. */
export class FairseqAdafactor extends FactoredOptimizer<FairseqComplete> {
  /** The running mean of updates, with beta1. */
  readonly mean = this.cells("mean", (p, { beta1 }) => (beta1 === null ? null : zerosFor(p)));

  constructor(params: Params<FairseqAdafactorOptions>, options: FairseqAdafactorOptions = {}) {
    super(params, fairseqDefaults, options);
    this.require(
      "either lr or relativeStep, and warmupInit only with relativeStep",
      ({ lr, relativeStep, warmupInit }) =>
        (lr === null) === relativeStep && (relativeStep || !warmupInit),
    );
  }

  protected override decay(): Decay {
    return "own";
  }

  protected rule(group: Group<FairseqComplete>, count: Tensor, write: Write): Rule {
    const { eps, clipThreshold, decayRate, beta1, weightDecay } = group.options;
    const { scaleParameter, relativeStep, warmupInit } = group.options;
    const keep = count.pow(decayRate).neg().add(1);
    const least = warmupInit ? count.mul(1e-6) : 1e-2;
    const sizes = relativeStep ? count.rsqrt().minimum(least) : null;
    return ({ i, p, g }) => {
      const squared = g.square().add(eps[0]);
      const { square, row, column } = this.secondMoment(i, squared, elementOf(keep, i), write);
      const scale = row ? row.div(row.mean(-2, true)).rsqrt().mul(column.rsqrt()) : square.rsqrt();
      const update = g.mul(scale);
      const step = sizes ? elementOf(sizes, i) : group.lr;
      const size = scaleParameter ? rms(p).clamp(eps[1]).mul(step) : step;
      const clipped = update.mul(size.div(rms(update).div(clipThreshold).clamp(1)));
      const change = beta1 === null ? clipped : average(write, this.mean[i], beta1, clipped);
      return p.mul(size.mul(-weightDecay).add(1)).sub(change);
    };
  }
}
