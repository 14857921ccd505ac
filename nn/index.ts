/** @file hinode/nn: modules, initialisers, losses and optimizers. */
export { type AttentionOptions, MultiheadAttention, rotate } from "./attention.ts";
export * from "./checkpoint/index.ts";
export { Dropout } from "./dropout.ts";
export * as init from "./init.ts";
export { Embedding, Linear } from "./linear.ts";
export { type Layer, MLP, Sequential, SwiGLU } from "./mlp.ts";
export { isParameter, Module, parameter, type StateDict } from "./module.ts";
export { LayerNorm, RMSNorm } from "./norm.ts";
export * as optim from "./optim/index.ts";
export { type BlockParts, TransformerBlock } from "./transformer.ts";
