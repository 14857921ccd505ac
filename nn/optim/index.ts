/** @file Optimizers, gradient clipping and scaling, averages of weights, learning-rate schedules. */
export {
  Adafactor,
  type AdafactorOptions,
  FairseqAdafactor,
  type FairseqAdafactorOptions,
} from "./adafactor.ts";
export {
  Adam,
  Adamax,
  type AdamOptions,
  AdamW,
  type AdamWOptions,
  type MomentOptions,
  NAdam,
  type NAdamOptions,
  RAdam,
  type RAdamOptions,
} from "./adam.ts";
export {
  Adadelta,
  type AdadeltaOptions,
  Adagrad,
  type AdagradOptions,
  RMSprop,
  type RmspropOptions,
} from "./adaptive.ts";
export { AveragedModel, type AveragingOptions } from "./average.ts";
export {
  type ClipNormOptions,
  clipGradNorm,
  clipGradValue,
  getTotalNorm,
  type NormOptions,
} from "./clip.ts";
export { Lamb, type LambOptions, Lion, type LionOptions } from "./lion.ts";
export { Muon, type MuonOptions } from "./muon.ts";
export {
  type BaseOptions,
  type Decay,
  type Due,
  type Group,
  Optimizer,
  type ParamGroup,
  type Params,
  type Rule,
  type StepOptions,
} from "./optimizer.ts";
export type { Write } from "./rule.ts";
export { GradScaler, type GradScalerOptions } from "./scaler.ts";
export {
  ConstantLR,
  CosineAnnealingLR,
  ExponentialLR,
  LambdaLR,
  LinearLR,
  LRScheduler,
  type Momentum,
  MultiStepLR,
  type PerGroup,
  PolynomialLR,
  type Rate,
  type SchedulerState,
  StepLR,
} from "./schedule.ts";
export {
  ChainedScheduler,
  type PlateauOptions,
  ReduceLROnPlateau,
  SequentialLR,
} from "./schedule-composed.ts";
export {
  CosineAnnealingWarmRestarts,
  CyclicLR,
  type CyclicOptions,
  OneCycleLR,
  type OneCycleOptions,
} from "./schedule-cycles.ts";
export * from "./schedule-warmup.ts";
export { ASGD, type AsgdOptions, Rprop, type RpropOptions, SGD, type SgdOptions } from "./sgd.ts";
