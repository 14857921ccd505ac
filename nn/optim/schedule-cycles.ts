/** @file Learning-rate schedules that rise and fall, as in torch.optim.lr_scheduler. */

import { ArgumentError, describe } from "../../core/errors.ts";
import type { Optimizer } from "./optimizer.ts";
import { LRScheduler, type Momentum, type PerGroup, perGroup, type Rate } from "./schedule.ts";

/**
 * Half a cosine from base to `etaMin` in t0 steps, then again from base in tMult times as many, and so on.
 * https://arxiv.org/abs/1608.03983
 */
export class CosineAnnealingWarmRestarts extends LRScheduler {
  constructor(optimizer: Optimizer, options: { t0: number; tMult?: number; etaMin?: number }) {
    const { t0, tMult = 1, etaMin = 0 } = options;
    if (![t0, tMult].every((n) => Number.isSafeInteger(n) && n >= 1))
      throw new ArgumentError(
        describe("CosineAnnealingWarmRestarts", "integers t0 and tMult ≥ 1", `${t0}, ${tMult}`),
      );
    super(optimizer, (step, base) => {
      let [done, length] = tMult === 1 ? [step % t0, t0] : [step, t0];
      while (done >= length) [done, length] = [done - length, length * tMult];
      return etaMin + ((base - etaMin) * (1 + Math.cos((Math.PI * done) / length))) / 2;
    });
  }
}

interface MomentumCycle {
  /** Turns the momentum (or the first of betas) too, low where the rate is high: true unless given, as in PyTorch. */
  readonly cycleMomentum?: boolean;
  /** Of each group, or of all. */
  readonly baseMomentum?: PerGroup;
  readonly maxMomentum?: PerGroup;
}

/** The momentum that is as far from `max` to `base` as `heightAt` says; null if it is not to turn. */
function cycledMomentum(
  op: string,
  optimizer: Optimizer,
  { cycleMomentum = true, baseMomentum, maxMomentum }: MomentumCycle,
  defaults: readonly [base: number, max: number],
  heightAt: (step: number) => number,
): Momentum | null {
  if (!cycleMomentum) return null;
  const base = perGroup(op, optimizer, baseMomentum ?? defaults[0]);
  const max = perGroup(op, optimizer, maxMomentum ?? defaults[1]);
  return (step, group) => max[group] + (base[group] - max[group]) * heightAt(step);
}

export interface OneCycleOptions extends MomentumCycle {
  /** The largest rate; of each group, or of all. */
  readonly maxLr: PerGroup;
  /** Or `epochs` and `stepsPerEpoch`. */
  readonly totalSteps?: number;
  readonly epochs?: number;
  readonly stepsPerEpoch?: number;
  /** The share of the steps in which the rate rises. */
  readonly pctStart?: number;
  readonly annealStrategy?: "cos" | "linear";
  /** The first rate is maxLr / divFactor. */
  readonly divFactor?: number;
  /** The last rate is the first / finalDivFactor. */
  readonly finalDivFactor?: number;
  /** Falls as it rose, and then to the last rate, rather than at once. */
  readonly threePhase?: boolean;
}

/**
 * Up to `maxLr` and down to nearly 0, once (https://arxiv.org/abs/1708.07120). The momentum goes from 0.95 to 0.85 and back unless
 * `maxMomentum` and `baseMomentum` are others.
 */
export class OneCycleLR extends LRScheduler {
  constructor(optimizer: Optimizer, options: OneCycleOptions) {
    const { epochs = Number.NaN, stepsPerEpoch = Number.NaN } = options;
    const { totalSteps = epochs * stepsPerEpoch, pctStart = 0.3, threePhase = false } = options;
    const { annealStrategy = "cos", divFactor = 25, finalDivFactor = 1e4 } = options;
    if (!(Number.isSafeInteger(totalSteps) && totalSteps > 0 && pctStart >= 0 && pctStart <= 1))
      throw new ArgumentError(
        describe(
          "OneCycleLR",
          "an integral totalSteps > 0 (or epochs and stepsPerEpoch), 0 ≤ pctStart ≤ 1",
          `${totalSteps}, ${pctStart}`,
        ),
      );
    if (annealStrategy !== "cos" && annealStrategy !== "linear")
      throw new ArgumentError(
        describe("OneCycleLR", 'annealStrategy "cos" or "linear"', `${annealStrategy}`),
      );
    const max = perGroup("OneCycleLR", optimizer, options.maxLr);
    const top = pctStart * totalSteps - 1;
    // The last step of each phase but the first, which begins at 0.
    const ends = [top, ...(threePhase ? [2 * top] : []), totalSteps - 1];
    /** The phase of a step, and how much of the way from its first value to its last is left. */
    const phaseAt = (step: number): { phase: number; left: number } => {
      if (step > totalSteps)
        throw new ArgumentError(describe("OneCycleLR", `${totalSteps} steps`, `step ${step}`));
      const found = ends.findIndex((end) => step <= end);
      const phase = found < 0 ? ends.length - 1 : found;
      const [begin, end] = [ends[phase - 1] ?? 0, ends[phase]];
      const progress = end === begin ? 1 : (step - begin) / (end - begin);
      const cosine = (1 + Math.cos(Math.PI * progress)) / 2;
      return { phase, left: annealStrategy === "linear" ? 1 - progress : cosine };
    };
    const rate: Rate = (step, _, group) => {
      const { phase, left } = phaseAt(step);
      const first = max[group] / divFactor;
      const last = first / finalDivFactor;
      const rates = [first, max[group], ...(threePhase ? [first] : []), last];
      return rates[phase + 1] + (rates[phase] - rates[phase + 1]) * left;
    };
    const height = (step: number): number => {
      const { phase, left } = phaseAt(step);
      return [1 - left, left, 0][phase];
    };
    const defaults = [0.85, 0.95] as const;
    super(optimizer, rate, cycledMomentum("OneCycleLR", optimizer, options, defaults, height));
  }
}

export type CyclicMode = "triangular" | "triangular2" | "exp_range";

export interface CyclicOptions extends MomentumCycle {
  /** The smallest rate, in place of the optimizer's; of each group, or of all. */
  readonly baseLr: PerGroup;
  readonly maxLr: PerGroup;
  readonly stepSizeUp?: number;
  /** As many as up, unless given. */
  readonly stepSizeDown?: number;
  /** Cycles of the same height, each half as high as the one before, or shrinking by gamma at each step. */
  readonly mode?: CyclicMode;
  readonly gamma?: number;
  /** In place of `mode`: the height by the cycle, from 1 on, or by the step. */
  readonly scaleFn?: (x: number) => number;
  readonly scaleMode?: "cycle" | "iterations";
}

/**
 * Between two rates, up and down in straight lines (https://arxiv.org/abs/1506.01186). The momentum goes from 0.9 to 0.8 and back
 * unless `maxMomentum` and `baseMomentum` are others.
 */
export class CyclicLR extends LRScheduler {
  constructor(optimizer: Optimizer, options: CyclicOptions) {
    const { stepSizeUp = 2000, stepSizeDown = stepSizeUp, mode = "triangular" } = options;
    const { gamma = 1, scaleFn, scaleMode = "cycle" } = options;
    const heights: Record<CyclicMode, (cycle: number, step: number) => number> = {
      triangular: () => 1,
      triangular2: (cycle) => 1 / 2 ** (cycle - 1),
      exp_range: (_, step) => gamma ** step,
    };
    const height = scaleFn
      ? (cycle: number, step: number) => scaleFn(scaleMode === "cycle" ? cycle : step)
      : heights[mode];
    if (!height || !(stepSizeUp > 0 && stepSizeDown > 0))
      throw new ArgumentError(
        describe(
          "CyclicLR",
          `a mode of ${Object.keys(heights).join(", ")}, step sizes > 0`,
          `${mode}, ${stepSizeUp}, ${stepSizeDown}`,
        ),
      );
    const low = perGroup("CyclicLR", optimizer, options.baseLr);
    const high = perGroup("CyclicLR", optimizer, options.maxLr);
    const total = stepSizeUp + stepSizeDown;
    const heightAt = (step: number): number => {
      const done = step % total;
      const rise = done <= stepSizeUp ? done / stepSizeUp : (total - done) / stepSizeDown;
      return rise * height(Math.floor(step / total) + 1, step);
    };
    super(
      optimizer,
      (step, _, group) => low[group] + (high[group] - low[group]) * heightAt(step),
      cycledMomentum("CyclicLR", optimizer, options, [0.8, 0.9], heightAt),
    );
  }
}
