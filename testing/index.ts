/**
 * @file hinode/testing: property-based testing of kernels, gradients and transforms, with fast-check (an optional peer
 * dependency). It is what Hinode's own tests use; docs/testing.md shows how.
 */
export {
  broadcastablePairs,
  dtypes,
  numbers,
  type ShapeOptions,
  shapes,
  specialValues,
  stridedViews,
  type TensorsOptions,
  tensors,
} from "./arbitraries.ts";
export { TensorCase, type View } from "./cases.ts";
export { type CompareOptions, checkKernel, compareDevices } from "./checks.ts";
export { checkGradient } from "./gradient.ts";
export { type GraphsOptions, graphs } from "./graphs.ts";
export { type Case, type CheckOptions, CounterexampleError, type Inputs } from "./search.ts";
export { checkTransforms, type Law, type TransformOptions } from "./transforms.ts";
export type { TensorFunction, Tolerance } from "./values.ts";
