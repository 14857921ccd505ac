/** @file What a tensor in a module's field is: a parameter, or a buffer that a checkpoint keeps or leaves out. */
import type { Tensor } from "../core/index.ts";

const parameters = new WeakSet<Tensor>();
const transient = new WeakSet<Tensor>();

/** Makes a tensor a trainable parameter: it requires a gradient and optimizers find it. */
export function parameter(value: Tensor): Tensor {
  value.requiresGrad = true;
  parameters.add(value);
  return value;
}

export const isParameter = (t: Tensor): boolean => parameters.has(t);

/**
 * PyTorch's `register_buffer`. Every tensor in a field that is no parameter is a buffer (a running mean, a mask) and part of
 * the state dict; this function is for those that are not to be: `{ persistent: false }`.
 */
export function buffer(value: Tensor, options: { persistent?: boolean } = {}): Tensor {
  if (!(options.persistent ?? true)) transient.add(value);
  return value;
}

/** Whether the state dict has this tensor. */
export const isPersistent = (t: Tensor): boolean => !transient.has(t);
