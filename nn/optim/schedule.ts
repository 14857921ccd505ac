/** @file Learning-rate schedules: plain functions of the step; `optimizer.setLearningRate(schedule(i))` applies one. */

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
