/** @file Schedules made of schedules, and the one that follows a metric, as in torch.optim.lr_scheduler. */

import { ArgumentError, describe } from "../../core/errors.ts";
import type { Optimizer } from "./optimizer.ts";
import { LRScheduler, type PerGroup, perGroup, type SchedulerState } from "./schedule.ts";

/**
 * One schedule after the other, each from its own step 0: number k from step milestones[k − 1] on. The schedules are made for the
 * same optimizer; call `step()` of the composed one only.
 */
export class SequentialLR extends LRScheduler {
  constructor(
    optimizer: Optimizer,
    options: { schedulers: readonly LRScheduler[]; milestones: readonly number[] },
  ) {
    const { schedulers, milestones } = options;
    const rising = milestones.every((m, k) => m > (milestones[k - 1] ?? 0));
    if (schedulers.length !== milestones.length + 1 || !rising)
      throw new ArgumentError(
        describe(
          "SequentialLR",
          "schedulers, and one rising milestone > 0 fewer",
          `${schedulers.length} schedulers, milestones ${milestones.join(", ")}`,
        ),
      );
    refuseOthers("SequentialLR", schedulers);
    super(optimizer, (step, base, group) => {
      const k = milestones.filter((m) => m <= step).length;
      return schedulers[k].rateAt(step - (milestones[k - 1] ?? 0), base, group);
    });
  }
}

/**
 * All schedules at once: each starts from the rate of the one before, so factors multiply. The schedules are made for the same
 * optimizer; call `step()` of the composed one only. (In PyTorch a LambdaLR replaces the rates of those before it.)
 */
export class ChainedScheduler extends LRScheduler {
  constructor(optimizer: Optimizer, options: { schedulers: readonly LRScheduler[] }) {
    const { schedulers } = options;
    if (schedulers.length === 0)
      throw new ArgumentError(describe("ChainedScheduler", "at least one scheduler", "none"));
    refuseOthers("ChainedScheduler", schedulers);
    super(optimizer, (step, base, group) =>
      schedulers.reduce((rate, scheduler) => scheduler.rateAt(step, rate, group), base),
    );
  }
}

function refuseOthers(op: string, schedulers: readonly LRScheduler[]): void {
  const other = schedulers.find((s) => s instanceof ReduceLROnPlateau || s.momentumAt);
  if (other)
    throw new ArgumentError(
      describe(
        op,
        "schedules of rates that depend on the step alone",
        other.constructor.name,
        other.momentumAt ? "cycleMomentum: false" : undefined,
      ),
    );
}

export interface PlateauOptions {
  /** Whether the metric is to fall or to rise. */
  readonly mode?: "min" | "max";
  /** What rates are multiplied by. */
  readonly factor?: number;
  /** How many steps without improvement are let pass. */
  readonly patience?: number;
  /** What counts as an improvement: this share of the best metric, or this much. */
  readonly threshold?: number;
  readonly thresholdMode?: "rel" | "abs";
  /** Steps after a reduction in which nothing is counted. */
  readonly cooldown?: number;
  readonly minLr?: PerGroup;
  /** A smaller reduction is left out. */
  readonly eps?: number;
}

interface Memory {
  rates: readonly number[];
  best: number | null;
  badSteps: number;
  cooldown: number;
}

/** Reduces the rates when a metric has stopped improving: `scheduler.step(validationLoss)`, usually once per epoch. */
export class ReduceLROnPlateau extends LRScheduler {
  readonly #options: Required<PlateauOptions>;
  readonly #minLr: readonly number[];
  readonly #memory: Memory;

  constructor(optimizer: Optimizer, options: PlateauOptions = {}) {
    const { factor = 0.1, minLr = 0, mode = "min", thresholdMode = "rel" } = options;
    const known = ["min", "max"].includes(mode) && ["rel", "abs"].includes(thresholdMode);
    if (!(factor >= 0 && factor < 1 && known))
      throw new ArgumentError(
        describe(
          "ReduceLROnPlateau",
          'mode "min" or "max", thresholdMode "rel" or "abs", 0 ≤ factor < 1',
          `${mode}, ${thresholdMode}, ${factor}`,
        ),
      );
    const rates = optimizer.groups.map((group) => group.options.lr ?? 0);
    const memory: Memory = { rates, best: null, badSteps: 0, cooldown: 0 };
    super(optimizer, (_step, _base, group) => memory.rates[group]);
    this.#memory = memory;
    this.#minLr = perGroup("ReduceLROnPlateau", optimizer, minLr);
    this.#options = {
      mode: "min",
      patience: 10,
      threshold: 1e-4,
      thresholdMode: "rel",
      cooldown: 0,
      eps: 1e-8,
      ...options,
      factor,
      minLr,
    };
  }

  protected override observe(metric?: number): void {
    if (typeof metric !== "number")
      throw new ArgumentError(
        describe("ReduceLROnPlateau.step", "the metric, a number", String(metric)),
      );
    const { factor, patience, cooldown, eps } = this.#options;
    const memory = this.#memory;
    const improved = this.#improves(metric);
    if (improved) memory.best = metric;
    memory.badSteps = improved || memory.cooldown > 0 ? 0 : memory.badSteps + 1;
    memory.cooldown = Math.max(0, memory.cooldown - 1);
    if (memory.badSteps <= patience) return;
    memory.badSteps = 0;
    memory.cooldown = cooldown;
    memory.rates = memory.rates.map((rate, group) => {
      const next = Math.max(rate * factor, this.#minLr[group]);
      return rate - next > eps ? next : rate;
    });
  }

  #improves(metric: number): boolean {
    const { mode, threshold, thresholdMode } = this.#options;
    const { best } = this.#memory;
    if (best === null) return Number.isFinite(metric);
    const margin = thresholdMode === "rel" ? best * threshold : threshold;
    return mode === "min" ? metric < best - margin : metric > best + margin;
  }

  override stateDict(): SchedulerState {
    return { ...super.stateDict(), memory: { ...this.#memory } };
  }

  override loadStateDict(state: SchedulerState): void {
    super.loadStateDict(state);
    Object.assign(this.#memory, state.memory);
  }

  override accepts(value: unknown): value is SchedulerState {
    if (!super.accepts(value)) return false;
    const { rates, best, badSteps, cooldown } = value.memory ?? {};
    const counts = [badSteps, cooldown].every((n) => Number.isSafeInteger(n));
    return this.isRates(rates) && counts && (best === null || Number.isFinite(best));
  }
}
