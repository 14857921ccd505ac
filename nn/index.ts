/** @file hinode/nn: modules, initialisers, losses, optimizers and checkpoints. */
export * from "../core/ops/loss.ts";
export * from "../core/ops/metric-loss.ts";
export * from "../core/ops/regression-loss.ts";
export {
  type AttendOptions,
  type AttentionOptions,
  MultiheadAttention,
  type RotaryOptions,
  rotate,
} from "./attention.ts";
export * from "./checkpoint/index.ts";
export { type Layer, ModuleDict, ModuleList, ParameterList, Sequential } from "./container.ts";
export { Dropout } from "./dropout.ts";
export type {
  BackwardHook,
  BackwardPreHook,
  ForwardHook,
  ForwardPreHook,
  Gradients,
} from "./hooks.ts";
export * as init from "./init.ts";
export { Embedding, Linear } from "./linear.ts";
export * from "./loss.ts";
export { MLP, SwiGLU } from "./mlp.ts";
export { Module, type StateDict } from "./module.ts";
export { LayerNorm, RMSNorm } from "./norm.ts";
export * as optim from "./optim/index.ts";
export { buffer, isParameter, parameter } from "./parameter.ts";
export { type BlockParts, TransformerBlock } from "./transformer.ts";
