/** @file Optimizers, gradient clipping and scaling, learning-rate schedules. */
export { Adam, type AdamOptions, AdamW } from "./adam.ts";
export { clipGradNorm } from "./clip.ts";
export { Optimizer, type ParamGroup, type StepOptions } from "./optimizer.ts";
export { GradScaler, type GradScalerOptions } from "./scaler.ts";
export {
  ConstantLR,
  CosineAnnealingLR,
  ExponentialLR,
  LambdaLR,
  LinearLR,
  LRScheduler,
  type SchedulerState,
  StepLR,
  WarmupCosineLR,
  type WarmupCosineOptions,
  warmupCosine,
} from "./schedule.ts";
export { SGD, type SgdOptions } from "./sgd.ts";
