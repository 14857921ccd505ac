/**
 * @file Learning-rate schedules. Each is a closed formula, so the rate of a step depends on nothing but the step: a resumed
 * run has the same rates. `warmupCosine` is the plain function; the classes set an optimizer's rates, under PyTorch's names.
 *
 *   const scheduler = new CosineAnnealingLR(optimizer, { tMax: 1000 });
 *   for (…) { trainStep(x, y); scheduler.step(); }
 */

import { ArgumentError, describe, TransformError } from "../../core/errors.ts";
import { activeTrace } from "../../core/trace.ts";
import type { Optimizer } from "./optimizer.ts";

export interface WarmupCosineOptions {
  /** The rate at the end of the warm-up. */
  readonly peak: number;
  readonly steps: number;
  readonly warmup?: number;
  readonly floor?: number;
}

/**
 * Rises linearly from 0 over `warmup` steps, then falls along half a cosine to `floor`, which it would reach one step
 * after the last (https://arxiv.org/abs/1608.03983). With floor 0 the same numbers as transformers'
 * `get_cosine_schedule_with_warmup`.
 */
export function warmupCosine(options: WarmupCosineOptions): (step: number) => number {
  const { peak, steps, warmup = 0, floor = 0 } = options;
  return (step) => {
    if (step < warmup) return (peak * step) / warmup;
    const progress = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
    return floor + ((peak - floor) * (1 + Math.cos(Math.PI * progress))) / 2;
  };
}

export interface SchedulerState {
  readonly step: number;
  /** The rates that the schedule starts from, per group. */
  readonly baseRates: readonly number[];
}

/** Sets the learning rates of an optimizer: at once for step 0, and for the next step at each `step()`. */
export class LRScheduler {
  readonly #optimizer: Optimizer;
  readonly #rate: (step: number, base: number, group: number) => number;
  #baseRates: readonly number[];
  #step = 0;

  /** `rate(step, base, group)`: the rate of a group whose option `lr` is `base`. */
  constructor(optimizer: Optimizer, rate: (step: number, base: number, group: number) => number) {
    this.#optimizer = optimizer;
    this.#rate = rate;
    this.#baseRates = optimizer.groups.map((group) => group.options.lr);
    this.#apply();
  }

  /** The rates now, per group. */
  getLastLr(): number[] {
    return this.#baseRates.map((base, i) => this.#rate(this.#step, base, i));
  }

  /** On to the next step; call it after `optimizer.step()`, outside of compiled functions. */
  step(): void {
    if (activeTrace())
      throw new TransformError(
        describe(
          `${this.constructor.name}.step`,
          "a call outside of compile",
          `one while "${activeTrace()!.name}" is traced, which a replay would not repeat`,
          "call it after the compiled step: the rates are read anew at each call",
        ),
      );
    this.#step++;
    this.#apply();
  }

  stateDict(): SchedulerState {
    return { step: this.#step, baseRates: this.#baseRates };
  }

  /** As in PyTorch the optimizer's rates stay as they are until the next step: they are in its own state. */
  loadStateDict(state: SchedulerState): void {
    const groups = this.#baseRates.length;
    if (!isSchedulerState(state, groups))
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

  #apply(): void {
    this.#optimizer.setLearningRate(this.getLastLr());
  }
}

/** Whether a value from a file is a state for an optimizer of so many groups. */
export function isSchedulerState(value: unknown, groups: number): value is SchedulerState {
  const { step, baseRates } = (value ?? {}) as Partial<SchedulerState>;
  return (
    Number.isSafeInteger(step) &&
    step! >= 0 &&
    Array.isArray(baseRates) &&
    baseRates.length === groups &&
    baseRates.every(Number.isFinite)
  );
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

/** `warmupCosine` with base as its peak. */
export class WarmupCosineLR extends LRScheduler {
  constructor(optimizer: Optimizer, options: Omit<WarmupCosineOptions, "peak">) {
    super(optimizer, (step, base) => warmupCosine({ ...options, peak: base })(step));
  }
}
