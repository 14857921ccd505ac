/**
 * @file Schedules that begin with a warm-up from 0: those of transformers, under their names; and the usual one, a cosine, as a
 * plain function and as a class.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import type { Optimizer } from "./optimizer.ts";
import { LambdaLR, LRScheduler } from "./schedule.ts";

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

/** `warmupCosine` with base as its peak. */
export class WarmupCosineLR extends LRScheduler {
  constructor(optimizer: Optimizer, options: Omit<WarmupCosineOptions, "peak">) {
    super(optimizer, (step, base) => warmupCosine({ ...options, peak: base })(step));
  }
}

interface Warmup {
  readonly numWarmupSteps: number;
}
interface WarmupAndAll extends Warmup {
  readonly numTrainingSteps: number;
}

/** base · step / numWarmupSteps, and then base · factor(step). */
const warmed = (optimizer: Optimizer, warmup: number, factor: (step: number) => number) =>
  new LambdaLR(optimizer, (step) => (step < warmup ? step / warmup : factor(step)));

/** The share of the steps after the warm-up that step is at. */
const progressAt = (step: number, { numWarmupSteps, numTrainingSteps }: WarmupAndAll): number =>
  (step - numWarmupSteps) / Math.max(1, numTrainingSteps - numWarmupSteps);

const halfCosine = (turns: number): number => (1 + Math.cos(2 * Math.PI * turns)) / 2;

/** The rate stays. */
export const getConstantSchedule = (optimizer: Optimizer): LRScheduler =>
  warmed(optimizer, 0, () => 1);

export const getConstantScheduleWithWarmup = (
  optimizer: Optimizer,
  { numWarmupSteps }: Warmup,
): LRScheduler => warmed(optimizer, numWarmupSteps, () => 1);

/** Down to 0 in a straight line. */
export const getLinearScheduleWithWarmup = (
  optimizer: Optimizer,
  options: WarmupAndAll,
): LRScheduler =>
  warmed(optimizer, options.numWarmupSteps, (step) => Math.max(0, 1 - progressAt(step, options)));

/** `numCycles` waves of a cosine; half a wave, down to 0, unless given. */
export const getCosineScheduleWithWarmup = (
  optimizer: Optimizer,
  options: WarmupAndAll & { readonly numCycles?: number },
): LRScheduler => getCosineWithMinLrScheduleWithWarmup(optimizer, { ...options, minLrRate: 0 });

/** As getCosineScheduleWithWarmup, but down to `minLr`, or to `minLrRate` · base. */
export function getCosineWithMinLrScheduleWithWarmup(
  optimizer: Optimizer,
  options: WarmupAndAll & {
    readonly numCycles?: number;
    readonly minLr?: number;
    readonly minLrRate?: number;
  },
): LRScheduler {
  const { numWarmupSteps, numCycles = 0.5, minLr, minLrRate } = options;
  if ((minLr === undefined) === (minLrRate === undefined))
    throw new ArgumentError(
      describe(
        "getCosineWithMinLrScheduleWithWarmup",
        "either minLr or minLrRate",
        `${minLr}, ${minLrRate}`,
      ),
    );
  const floor = minLrRate ?? minLr! / optimizer.options.lr!;
  return warmed(optimizer, numWarmupSteps, (step) => {
    const wave = halfCosine(numCycles * progressAt(step, options));
    return Math.max(0, wave * (1 - floor) + floor);
  });
}

/** `numCycles` times down to 0 along half a cosine. */
export const getCosineWithHardRestartsScheduleWithWarmup = (
  optimizer: Optimizer,
  options: WarmupAndAll & { readonly numCycles?: number },
): LRScheduler =>
  warmed(optimizer, options.numWarmupSteps, (step) => {
    const progress = progressAt(step, options);
    return progress >= 1 ? 0 : halfCosine((((options.numCycles ?? 1) * progress) % 1) / 2);
  });

/** Down to `lrEnd` along (1 − progress)^power. */
export function getPolynomialDecayScheduleWithWarmup(
  optimizer: Optimizer,
  options: WarmupAndAll & { readonly lrEnd?: number; readonly power?: number },
): LRScheduler {
  const { numWarmupSteps, lrEnd = 1e-7, power = 1 } = options;
  const start = optimizer.options.lr ?? 0;
  if (!(start > lrEnd))
    throw new ArgumentError(
      describe("getPolynomialDecayScheduleWithWarmup", `lrEnd below ${start}`, `${lrEnd}`),
    );
  const end = lrEnd / start;
  return warmed(optimizer, numWarmupSteps, (step) => {
    const left = Math.max(0, 1 - progressAt(step, options));
    return (1 - end) * left ** power + end;
  });
}

/** base / √(steps after the warm-up / timescale + 1). */
export const getInverseSqrtSchedule = (
  optimizer: Optimizer,
  {
    numWarmupSteps,
    timescale = numWarmupSteps || 10_000,
  }: Warmup & { readonly timescale?: number },
): LRScheduler =>
  warmed(optimizer, numWarmupSteps, (step) =>
    Math.sqrt(timescale / (step - numWarmupSteps + timescale)),
  );

export type WsdShape = "linear" | "cosine" | "1-sqrt";

export interface WsdOptions extends Warmup {
  readonly numDecaySteps: number;
  /** Or `numStableSteps`. */
  readonly numTrainingSteps?: number;
  readonly numStableSteps?: number;
  readonly warmupType?: WsdShape;
  readonly decayType?: WsdShape;
  /** The rate at both ends, as a share of base. */
  readonly minLrRatio?: number;
  /** Of decayType "cosine"; ½, down to the end, by default. */
  readonly numCycles?: number;
}

/** Warm-up, stable, decay (https://arxiv.org/abs/2404.06395). */
export function getWsdSchedule(optimizer: Optimizer, options: WsdOptions): LRScheduler {
  const { numWarmupSteps: warmup, numDecaySteps: decay, numTrainingSteps } = options;
  const { numStableSteps: stable = numTrainingSteps! - warmup - decay } = options;
  const { warmupType = "linear", decayType = "cosine", minLrRatio = 0, numCycles = 0.5 } = options;
  const falls: Readonly<Record<WsdShape, (x: number, cycles: number) => number>> = {
    linear: (x) => 1 - x,
    cosine: (x, cycles) => halfCosine(cycles * x),
    "1-sqrt": (x) => 1 - Math.sqrt(x),
  };
  const [rise, fall] = [falls[warmupType], falls[decayType]];
  if (!rise || !fall || !(stable >= 0))
    throw new ArgumentError(
      describe(
        "getWsdSchedule",
        `numTrainingSteps or numStableSteps, types among ${Object.keys(falls).join(", ")}`,
        `${stable} stable steps, ${warmupType}, ${decayType}`,
      ),
    );
  const raised = (x: number) => Math.max(0, x * (1 - minLrRatio) + minLrRatio);
  return new LambdaLR(optimizer, (step) => {
    const over = step - warmup - stable;
    // A rise is the fall backwards, which for a cosine and a line is 1 − fall too.
    if (step < warmup) return raised(rise(1 - step / warmup, 0.5));
    if (over < 0) return 1;
    return over < decay ? raised(fall(over / decay, numCycles)) : minLrRatio;
  });
}
