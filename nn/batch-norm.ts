/**
 * @file Normalisation of channels as layers: over the batch (BatchNorm), each example (InstanceNorm), groups of channels
 * (GroupNorm) and neighbouring channels (LocalResponseNorm). The formulas are core/ops/batch-norms.ts's. Decides: what
 * the running statistics are, when they count and when they are updated.
 */
import { ArgumentError, describe, ShapeError } from "../core/errors.ts";
import {
  batchNorm,
  groupNorm,
  instanceNorm,
  localResponseNorm,
  noGrad,
  ones as onesTensor,
  type Tensor,
  zeros as zerosTensor,
} from "../core/index.ts";
import { formatShape, numel } from "../core/shape.ts";
import { moduleOf } from "./functional-module.ts";
import { ones, zeros } from "./init.ts";
import { Module } from "./module.ts";

export interface ChannelNormOptions {
  /** Added to variances (default 1e-5). */
  readonly eps?: number;
  /** The share of new statistics in the running ones (default 0.1); null makes them the mean of all so far. */
  readonly momentum?: number | null;
  /** Whether a learned weight and bias per channel follow (BatchNorm: true; InstanceNorm: false). */
  readonly affine?: boolean;
  /** Whether running statistics are kept, and used in evaluation (BatchNorm: true; InstanceNorm: false). */
  readonly trackRunningStats?: boolean;
}

/** Normalisation per channel, with running statistics as buffers; a compiled step updates them too. */
abstract class ChannelNorm extends Module {
  /** [C], or null without the affine map. */
  weight: Tensor | null;
  bias: Tensor | null;
  /** [C], or null if not tracked. */
  runningMean: Tensor | null;
  runningVar: Tensor | null;
  /** Updates so far, 0-d i32. */
  numBatchesTracked: Tensor | null;
  readonly numFeatures: number;
  readonly eps: number;
  readonly momentum: number | null;
  readonly ranks: readonly number[];

  /** `ranks`: how many axes x may have. */
  constructor(
    ranks: readonly number[],
    numFeatures: number,
    { eps = 1e-5, momentum = 0.1, affine = true, trackRunningStats = true }: ChannelNormOptions,
  ) {
    super();
    if (!(Number.isInteger(numFeatures) && numFeatures > 0))
      throw new ArgumentError(
        describe(this.constructor.name, "a positive number of features", `${numFeatures}`),
      );
    this.weight = affine ? ones([numFeatures]) : null;
    this.bias = affine ? zeros([numFeatures]) : null;
    this.runningMean = trackRunningStats ? zerosTensor([numFeatures]) : null;
    this.runningVar = trackRunningStats ? onesTensor([numFeatures]) : null;
    this.numBatchesTracked = trackRunningStats ? zerosTensor([], { dtype: "i32" }) : null;
    this.numFeatures = numFeatures;
    this.eps = eps;
    this.momentum = momentum;
    this.ranks = ranks;
  }

  /** Forgets the running statistics. */
  resetRunningStats(): void {
    noGrad(() => {
      this.runningMean?.assign(zerosTensor([]));
      this.runningVar?.assign(onesTensor([]));
      this.numBatchesTracked?.assign(zerosTensor([]));
    });
  }

  /** Counts an update; gives the share of the new statistics. */
  protected counted(): number | Tensor {
    const count = this.numBatchesTracked;
    if (!count) return this.momentum ?? 0; // Nothing is updated.
    noGrad(() => count.assign(count.add(1)));
    return this.momentum ?? count.float().reciprocal();
  }

  protected check(x: Tensor, channelAxis: number): void {
    const shape = formatShape(x.shape);
    if (!this.ranks.includes(x.ndim))
      throw new ShapeError(
        describe(this.constructor.name, `${this.ranks.join(" or ")} axes`, shape),
      );
    if (x.shape[channelAxis] !== this.numFeatures)
      throw new ShapeError(
        describe(
          this.constructor.name,
          `${this.numFeatures} channels at axis ${channelAxis}`,
          shape,
        ),
      );
  }

  override extraRepr(): string {
    const { numFeatures, eps, momentum, weight, runningMean } = this;
    const facts = { eps, momentum, affine: weight !== null, trackRunningStats: !!runningMean };
    return [numFeatures, ...Object.entries(facts).map((fact) => fact.join("="))].join(", ");
  }
}

/** Statistics over the batch and all places; the running variance is that of the unbiased ones. */
export abstract class BatchNorm extends ChannelNorm {
  forward(x: Tensor): Tensor {
    this.check(x, 1);
    const { runningMean, runningVar, weight, bias, eps } = this;
    const training = this.training || runningMean === null;
    const momentum = training ? this.counted() : 0;
    return batchNorm(x, runningMean, runningVar, weight, bias, { training, momentum, eps });
  }
}

/** Statistics over the places of each example; the running ones are means over the batch. */
abstract class InstanceNorm extends ChannelNorm {
  forward(x: Tensor): Tensor {
    const batched = x.ndim === this.ranks[1];
    this.check(x, batched ? 1 : 0);
    const y = this.#normalised(batched ? x : x.unsqueeze(0)); // [N, C, S…]
    return batched ? y : y.squeeze(0);
  }

  #normalised(x: Tensor): Tensor {
    const { runningMean, runningVar, weight, bias, eps } = this;
    if (runningMean && runningVar && !this.training)
      return batchNorm(x, runningMean, runningVar, weight, bias, { eps });
    if (numel(x.shape.slice(2)) === 1)
      throw new ShapeError(
        describe(this.constructor.name, "more than one place per channel", formatShape(x.shape)),
      );
    if (!runningMean || !runningVar) return instanceNorm(x, weight, bias, eps);
    const share = this.counted();
    noGrad(() => {
      const places = x.float().flatten(2); // [N, C, S]
      const fresh = [places.mean(-1).mean(0), places.var(-1).mean(0)];
      for (const [i, old] of [runningMean, runningVar].entries())
        old.assign(old.add(fresh[i].sub(old).mul(share)));
    });
    return instanceNorm(x, weight, bias, eps);
  }
}

type BatchArgs = [numFeatures: number, options?: ChannelNormOptions];

/** x [N, C] or [N, C, L]. https://arxiv.org/abs/1502.03167 */
export class BatchNorm1d extends BatchNorm {
  constructor(...[numFeatures, options = {}]: BatchArgs) {
    super([2, 3], numFeatures, options);
  }
}

/** x [N, C, H, W]. */
export class BatchNorm2d extends BatchNorm {
  constructor(...[numFeatures, options = {}]: BatchArgs) {
    super([4], numFeatures, options);
  }
}

/** x [N, C, D, H, W]. */
export class BatchNorm3d extends BatchNorm {
  constructor(...[numFeatures, options = {}]: BatchArgs) {
    super([5], numFeatures, options);
  }
}

const instance = { affine: false, trackRunningStats: false };

/** x [C, L] or [N, C, L]. https://arxiv.org/abs/1607.08022 */
export class InstanceNorm1d extends InstanceNorm {
  constructor(...[numFeatures, options = {}]: BatchArgs) {
    super([2, 3], numFeatures, { ...instance, ...options });
  }
}

/** x [C, H, W] or [N, C, H, W]. */
export class InstanceNorm2d extends InstanceNorm {
  constructor(...[numFeatures, options = {}]: BatchArgs) {
    super([3, 4], numFeatures, { ...instance, ...options });
  }
}

/** x [C, D, H, W] or [N, C, D, H, W]. */
export class InstanceNorm3d extends InstanceNorm {
  constructor(...[numFeatures, options = {}]: BatchArgs) {
    super([4, 5], numFeatures, { ...instance, ...options });
  }
}

/** Statistics over groups of channels and all places of x [N, C, *]. https://arxiv.org/abs/1803.08494 */
export class GroupNorm extends Module {
  /** [C], or null without the affine map. */
  weight: Tensor | null;
  bias: Tensor | null;
  readonly numGroups: number;
  readonly numChannels: number;
  readonly eps: number;

  constructor(
    numGroups: number,
    numChannels: number,
    options: { readonly eps?: number; readonly affine?: boolean } = {},
  ) {
    super();
    const { eps = 1e-5, affine = true } = options;
    if (!(numGroups > 0 && numChannels > 0) || numChannels % numGroups !== 0)
      throw new ArgumentError(
        describe("GroupNorm", "channels that are a multiple of groups", `${numChannels}, ${numGroups}`),
      ); // biome-ignore format: one condition
    this.weight = affine ? ones([numChannels]) : null;
    this.bias = affine ? zeros([numChannels]) : null;
    this.numGroups = numGroups;
    this.numChannels = numChannels;
    this.eps = eps;
  }

  forward(x: Tensor): Tensor {
    return groupNorm(x, this.numGroups, this.weight, this.bias, this.eps);
  }

  override extraRepr(): string {
    return `${this.numGroups}, ${this.numChannels}, eps=${this.eps}, affine=${!!this.weight}`;
  }
}

/** `new LocalResponseNorm(5, 1e-4, 0.75, 1).forward(x)`: Krizhevsky et al. 2012. x [N, C, S…]. */
export class LocalResponseNorm extends moduleOf(localResponseNorm, "size", "alpha", "beta", "k") {}
