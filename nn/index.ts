/** @file hinode/nn: modules, initialisers, losses, optimizers and checkpoints. */
export * from "../core/ops/ctc-loss.ts";
export * from "../core/ops/loss.ts";
export * from "../core/ops/margin-loss.ts";
export * from "../core/ops/metric-loss.ts";
export * from "../core/ops/regression-loss.ts";
export * from "./activation.ts";
export {
  type AttendOptions,
  type AttentionOptions,
  MultiheadAttention,
  type RotaryOptions,
  rotate,
} from "./attention.ts";
export * from "./batch-norm.ts";
export * from "./checkpoint/index.ts";
export { type Layer, ModuleDict, ModuleList, ParameterList, Sequential } from "./container.ts";
export * from "./conv.ts";
export * from "./distance.ts";
export * from "./dropout.ts";
export * from "./embedding.ts";
export type {
  BackwardHook,
  BackwardPreHook,
  ForwardHook,
  ForwardPreHook,
  Gradients,
} from "./hooks.ts";
export * as init from "./init.ts";
export { KVCache, type KVCacheOptions } from "./kv-cache.ts";
export { Bilinear, Linear } from "./linear.ts";
export {
  applyLora,
  LoRALinear,
  type LoraOptions,
  loadLoraStateDict,
  loraStateDict,
  mergeLora,
  unmergeLora,
} from "./lora.ts";
export * from "./loss.ts";
export * as metrics from "./metrics.ts";
export { GatedMLP, GEGLU, MLP, type MlpOptions, SwiGLU } from "./mlp.ts";
export { Module, type StateDict } from "./module.ts";
export { LayerNorm, RMSNorm } from "./norm.ts";
export * as optim from "./optim/index.ts";
export * from "./padding.ts";
export { buffer, isParameter, parameter } from "./parameter.ts";
export * from "./pooling.ts";
export {
  QuantizedLinear,
  type QuantizeOptions,
  type QuantizeReport,
  quantize,
} from "./quantized.ts";
export * from "./rearrange.ts";
export {
  GRU,
  LSTM,
  type RecurrentForward,
  type RecurrentOptions,
  RNN,
} from "./recurrent.ts";
export { type CellOptions, GRUCell, LSTMCell, RNNCell } from "./recurrent-cells.ts";
export { type Summary, type SummaryOptions, type SummaryRow, summary } from "./summary.ts";
export { type BlockParts, TransformerBlock } from "./transformer.ts";
export * from "./transformer-layers.ts";
export * as utils from "./utils.ts";
