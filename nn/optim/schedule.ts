/**
 * @file Learning-rate schedules under PyTorch's names: what they share, and those of one formula. Each is a closed formula, so the
 * rate of a step depends on nothing but the step: a resumed run has the same rates. Cycles are in schedule-cycles.ts,
 * schedules of schedules and the one that looks at a metric in schedule-composed.ts, transformers' in schedule-warmup.ts.
 *
 *   const scheduler = new CosineAnnealingLR(optimizer, { tMax: 1000 });
 *   for (…) { trainStep(x, y); scheduler.step(); }
 */

import { ArgumentError, describe, TransformError } from "../../core/errors.ts";
import { activeTrace } from "../../core/trace.ts";
import type { Optimizer } from "./optimizer.ts";

export interface SchedulerState {
  readonly step: number;
  /** The rates that the schedule starts from, per group. */
  readonly baseRates: readonly number[];
  /** What else it remembers, if it depends on more than the step. */
  readonly memory?: Readonly<Record<string, number | null | readonly number[]>>;
}

/** The rate of a group at a step, whose option `lr` is `base`. */
export type Rate = (step: number, base: number, group: number) => number;

/** The momentum of a group at a step. */
export type Momentum = (step: number, group: number) => number;

/** Sets the learning rates of an optimizer: at once for step 0, and for the next step at each `step()`. */
export class LRScheduler {
  /** The rate of any step; composed schedules ask for it. */
  readonly rateAt: Rate;
  /** Null for schedules that leave the momentum alone. */
  readonly momentumAt: Momentum | null;
  readonly #optimizer: Optimizer;
  #baseRates: readonly number[];
  #step = 0;

  constructor(optimizer: Optimizer, rate: Rate, momentum: Momentum | null = null) {
    this.#optimizer = optimizer;
    this.rateAt = rate;
    this.momentumAt = momentum;
    this.#baseRates = optimizer.groups.map((group) => group.options.lr ?? 0);
    this.#apply(0);
  }

  /** The rates now, per group. */
  getLastLr(): number[] {
    return this.#ratesAt(this.#step);
  }

  /**
   * On to the next step; call it after `optimizer.step()`, outside of compiled functions. `metric` is for schedules that look at
   * one.
   */
  step(metric?: number): void {
    if (activeTrace())
      throw new TransformError(
        describe(
          `${this.constructor.name}.step`,
          "a call outside of compile",
          `one while "${activeTrace()!.name}" is traced, which a replay would not repeat`,
          "call it after the compiled step: the rates are read anew at each call",
        ),
      );
    this.observe(metric);
    this.#apply(this.#step + 1);
    this.#step++;
  }

  /** What a schedule takes from a step besides that it happened. */
  protected observe(_metric?: number): void {}

  stateDict(): SchedulerState {
    return { step: this.#step, baseRates: this.#baseRates };
  }

  /** As in PyTorch the optimizer's rates stay as they are until the next step: they are in its own state. */
  loadStateDict(state: SchedulerState): void {
    const groups = this.#baseRates.length;
    if (!this.accepts(state))
      throw new ArgumentError(
        describe(
          `${this.constructor.name}.loadStateDict`,
          `a step ≥ 0 and ${groups} base rates`,
          JSON.stringify(state),
        ),
      );
    this.#step = state.step;
    this.#baseRates = [...state.baseRates];
  }

  /** Whether a value from a file is a state of this schedule. */
  accepts(value: unknown): value is SchedulerState {
    const { step, baseRates } = (value ?? {}) as Partial<SchedulerState>;
    return Number.isSafeInteger(step) && step! >= 0 && this.isRates(baseRates);
  }

  protected isRates(value: unknown): value is readonly number[] {
    return (
      Array.isArray(value) &&
      value.length === this.#baseRates.length &&
      value.every(Number.isFinite)
    );
  }

  #apply(step: number): void {
    const { momentumAt } = this;
    this.#optimizer.setLearningRate(this.#ratesAt(step));
    if (momentumAt) this.#optimizer.setMomentum(this.#baseRates.map((_, i) => momentumAt(step, i)));
  }

  #ratesAt(step: number): number[] {
    return this.#baseRates.map((base, group) => this.rateAt(step, base, group));
  }
}

/** One number for all groups, or a list with one for each. */
export type PerGroup = number | readonly number[];

/** The number of a group. @throws ArgumentError for a list of another length than the groups. */
export function perGroup(op: string, optimizer: Optimizer, value: PerGroup): number[] {
  const { length } = optimizer.groups;
  const list = typeof value === "number" ? Array<number>(length).fill(value) : [...value];
  if (list.length === length) return list;
  throw new ArgumentError(describe(op, `${length} numbers`, `${list.length}`));
}

/** base · factor(step), with one function for all groups or one for each. */
export class LambdaLR extends LRScheduler {
  constructor(
    optimizer: Optimizer,
    lrLambda: ((step: number) => number) | readonly ((step: number) => number)[],
  ) {
    const factor = (group: number) => (typeof lrLambda === "function" ? lrLambda : lrLambda[group]);
    if (typeof lrLambda !== "function" && lrLambda.length !== optimizer.groups.length)
      throw new ArgumentError(
        describe("LambdaLR", `${optimizer.groups.length} functions`, `${lrLambda.length}`),
      );
    super(optimizer, (step, base, group) => base * factor(group)(step));
  }
}

/** base · factor for the first `totalIters` steps, then base; with factor 1 the rate is constant. */
export class ConstantLR extends LRScheduler {
  constructor(optimizer: Optimizer, options: { factor?: number; totalIters?: number } = {}) {
    const { factor = 1 / 3, totalIters = 5 } = options;
    super(optimizer, (step, base) => (step < totalIters ? base * factor : base));
  }
}

/** From base · startFactor to base · endFactor in `totalIters` equal steps. */
export class LinearLR extends LRScheduler {
  constructor(
    optimizer: Optimizer,
    options: { startFactor?: number; endFactor?: number; totalIters?: number } = {},
  ) {
    const { startFactor = 1 / 3, endFactor = 1, totalIters = 5 } = options;
    super(optimizer, (step, base) => {
      const progress = Math.min(step / totalIters, 1);
      return base * (startFactor + (endFactor - startFactor) * progress);
    });
  }
}

/** base · gamma^⌊step / stepSize⌋. */
export class StepLR extends LRScheduler {
  constructor(optimizer: Optimizer, options: { stepSize: number; gamma?: number }) {
    const { stepSize, gamma = 0.1 } = options;
    super(optimizer, (step, base) => base * gamma ** Math.floor(step / stepSize));
  }
}

/** base · gamma^step. */
export class ExponentialLR extends LRScheduler {
  constructor(optimizer: Optimizer, options: { gamma: number }) {
    super(optimizer, (step, base) => base * options.gamma ** step);
  }
}

/** Half a cosine from base to `etaMin` in `tMax` steps, and back in the next. https://arxiv.org/abs/1608.03983 */
export class CosineAnnealingLR extends LRScheduler {
  constructor(optimizer: Optimizer, options: { tMax: number; etaMin?: number }) {
    const { tMax, etaMin = 0 } = options;
    super(
      optimizer,
      (step, base) => etaMin + ((base - etaMin) * (1 + Math.cos((Math.PI * step) / tMax))) / 2,
    );
  }
}

/** base · gamma^(the number of milestones reached). */
export class MultiStepLR extends LRScheduler {
  constructor(optimizer: Optimizer, options: { milestones: readonly number[]; gamma?: number }) {
    const { milestones, gamma = 0.1 } = options;
    super(optimizer, (step, base) => base * gamma ** milestones.filter((m) => m <= step).length);
  }
}

/** base · (1 − step / totalIters)^power, and 0 after `totalIters` steps. */
export class PolynomialLR extends LRScheduler {
  constructor(optimizer: Optimizer, options: { totalIters?: number; power?: number } = {}) {
    const { totalIters = 5, power = 1 } = options;
    super(optimizer, (step, base) => base * Math.max(0, 1 - step / totalIters) ** power);
  }
}
