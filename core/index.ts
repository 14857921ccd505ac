/**
 * @file The public core of Hinode: tensors, operators, transforms, devices. `import { tensor, grad,
 * compile } from "hinode"`.
 */
import "./ops/methods.ts";

export { isAnomalyEnabled, setDetectAnomaly } from "./anomaly.ts";
export {
  type AutocastOptions,
  autocast,
  autocastOperators,
  isAutocastEnabled,
} from "./autocast.ts";
export {
  backward,
  detach,
  type GradientsOptions,
  type GradOptions,
  grad,
  gradients,
  jvp,
  valueAndGrad,
  vjp,
  zeroGrad,
} from "./autograd.ts";
export { type CompileOptions, compile } from "./compile.ts";
export { detectAnomaly } from "./detect-anomaly.ts";
export {
  type Device,
  type DeviceOptions,
  defaultDevice,
  deviceInfo,
  deviceNamed,
  init,
  setDefaultDevice,
} from "./device.ts";
export { type DType, dtypes, floatLimits, promote, type TypedArray } from "./dtype.ts";
export * from "./errors.ts";
export { type Explanation, explain } from "./explain.ts";
export { formatValues } from "./format.ts";
export {
  checkpoint,
  customGradient,
  hessian,
  jacfwd,
  jacrev,
  type OwnGradient,
  type ScanOptions,
  scan,
  type VmapOptions,
  vmap,
} from "./functional.ts";
export type { DeviceName } from "./graph/node.ts";
export { type GradientHook, HookHandle } from "./hooks.ts";
export type { Tiles } from "./kernel/gpu/tuned.ts";
export * from "./ops/activation.ts";
export * from "./ops/activation-more.ts";
export * from "./ops/adaptive-pooling.ts";
export * from "./ops/arithmetic.ts";
export {
  type AttentionOptions,
  attentionWeights,
  scaledDotProductAttention,
} from "./ops/attention.ts";
export type { Dim } from "./ops/axes.ts";
export * from "./ops/batch-norms.ts";
export * from "./ops/compare.ts";
export * from "./ops/convert.ts";
export {
  type ConvOptions,
  type ConvTransposeOptions,
  conv1d,
  conv2d,
  conv3d,
  convTranspose1d,
  convTranspose2d,
  convTranspose3d,
} from "./ops/convolution.ts";
export * from "./ops/counting.ts";
export * from "./ops/create.ts";
export * from "./ops/ctc-loss.ts";
export * from "./ops/cumulative.ts";
export {
  type CustomKernelFunction,
  type CustomKernelOptions,
  customKernel,
  type KernelBuilder,
  type KernelShapes,
  type TensorSpec,
  type WgslBody,
} from "./ops/custom-kernel.ts";
export * from "./ops/distances.ts";
export * from "./ops/dropout-more.ts";
export * from "./ops/dynamic.ts";
export { type AxisSizes, type EinopsReduction, einops } from "./ops/einops.ts";
export { einsum } from "./ops/einsum.ts";
export * from "./ops/embedding-bag.ts";
export * from "./ops/extrema.ts";
export * as fft from "./ops/fft.ts";
export * from "./ops/grid-sample.ts";
export * from "./ops/grids.ts";
export * from "./ops/indexing.ts";
export * from "./ops/interpolate.ts";
export * from "./ops/join.ts";
export * from "./ops/layouts.ts";
export * as linalg from "./ops/linalg.ts";
export * from "./ops/linear-algebra.ts";
export * from "./ops/loss.ts";
export * from "./ops/margin-loss.ts";
export * from "./ops/masking.ts";
export * from "./ops/matmul.ts";
export * from "./ops/metric-loss.ts";
export * from "./ops/movement.ts";
export * from "./ops/multi-dot.ts";
export * from "./ops/norms.ts";
export type { PadMode } from "./ops/padding.ts";
export * from "./ops/pairs.ts";
export {
  type AvgPoolOptions,
  avgPool1d,
  avgPool2d,
  avgPool3d,
  type MaxPoolOptions,
  maxPool1d,
  maxPool2d,
  maxPool3d,
} from "./ops/pooling.ts";
export { type LpPoolOptions, lpPool1d, lpPool2d, lpPool3d } from "./ops/power-pooling.ts";
export type { Operand } from "./ops/promotion.ts";
export * from "./ops/reduce.ts";
export * from "./ops/regression-loss.ts";
export * from "./ops/sampling.ts";
export * from "./ops/scatter.ts";
export * from "./ops/searching.ts";
export * from "./ops/slicing.ts";
export * from "./ops/sorting.ts";
export * from "./ops/special.ts";
export * from "./ops/trig.ts";
export * from "./ops/unary.ts";
export * from "./ops/unpooling.ts";
export * from "./ops/windows.ts";
export { type KernelProfile, type Profile, type ProfileOptions, profile } from "./profile.ts";
export * from "./random.ts";
export type { Roofline } from "./roofline.ts";
export type { Shape } from "./shape.ts";
export {
  enableGrad,
  isGradEnabled,
  type Nested,
  noGrad,
  realize,
  Tensor,
  toDevice,
  uploadTensor,
} from "./tensor.ts";
