/**
 * @file Hooks of modules, as PyTorch's: functions called before and after a module's `forward`, and on the gradients of
 * its results and arguments.
 *
 * Results and arguments pass through a gate each (core/transform/hooks.ts): on the way back the gradient meets the gate of
 * the results first, where `gradOutput` is complete, and that of the arguments last, where `gradInput` is.
 */
import { isFloat } from "../core/dtype.ts";
import { ArgumentError, describe } from "../core/errors.ts";
import { checkedGradient } from "../core/hooks.ts";
import type { Tensor } from "../core/index.ts";
import { leafTensor } from "../core/tensor.ts";
import { insideTransform } from "../core/trace.ts";
import { gate } from "../core/transform/hooks.ts";
import { flatten, unflatten } from "../core/tree.ts";
import type { Module } from "./module.ts";

/** The arguments and the result of a module's `forward`. */
export type ForwardArgs<M> = M extends { forward(...args: infer A): unknown } ? A : unknown[];
export type ForwardResult<M> = M extends { forward(...args: never[]): infer R } ? R : unknown;

/** Gradients of a module's arguments or results, in their order; null for what has none. */
export type Gradients = readonly (Tensor | null)[];

// A hook that only looks returns nothing.
// biome-ignore-start lint/suspicious/noConfusingVoidType: as said
/** What it returns, all arguments in an array or a single one, replaces the arguments. */
export type ForwardPreHook<M> = (
  module: M,
  args: ForwardArgs<M>,
) => ForwardArgs<M> | ForwardArgs<M>[0] | void;
/** What it returns replaces the result. */
export type ForwardHook<M> = (
  module: M,
  args: ForwardArgs<M>,
  output: ForwardResult<M>,
) => ForwardResult<M> | void;
/** What it returns replaces the gradients of the results. */
export type BackwardPreHook<M> = (module: M, gradOutput: Gradients) => Gradients | void;
/** What it returns replaces the gradients of the arguments. */
export type BackwardHook<M> = (
  module: M,
  gradInput: Gradients,
  gradOutput: Gradients,
) => Gradients | void;
// biome-ignore-end lint/suspicious/noConfusingVoidType: as said

type Hook = (...args: unknown[]) => unknown;

/** A module's hooks in the order of registration; a change makes a new object. */
export interface ModuleHooks {
  readonly forwardPre: readonly Hook[];
  readonly forward: readonly Hook[];
  readonly backwardPre: readonly Hook[];
  readonly backward: readonly Hook[];
}
export type HookKind = keyof ModuleHooks;

export const noHooks: ModuleHooks = { forwardPre: [], forward: [], backwardPre: [], backward: [] };

/** `forward(...args)` with the hooks around it. */
export function callHooked(
  module: Module,
  hooks: ModuleHooks,
  forward: (...args: unknown[]) => unknown,
  args: unknown[],
): unknown {
  for (const hook of hooks.forwardPre) {
    const given = hook(module, args);
    if (given !== undefined) args = Array.isArray(given) ? given : [given];
  }
  const watched = hooks.backwardPre.length + hooks.backward.length > 0;
  const gates = watched ? new Gates(module, hooks) : null;
  if (gates) args = gates.arguments(args);
  let output = forward.apply(module, args);
  for (const hook of hooks.forward) {
    const given = hook(module, args, output);
    if (given !== undefined) output = given;
  }
  return gates ? gates.results(output) : output;
}

/** The two gates of one call. */
class Gates {
  readonly #module: Module;
  readonly #hooks: ModuleHooks;
  /** The arguments behind their gate. */
  #inputs: readonly Tensor[] = [];
  #gradOutput: Gradients = [];

  constructor(module: Module, hooks: ModuleHooks) {
    this.#module = module;
    this.#hooks = hooks;
  }

  arguments(args: unknown[]): unknown[] {
    const { tree, passed } = through(args, [], (gradients, need) =>
      this.#backward(gradients.map((g, i) => (need(i) ? g : null))),
    );
    this.#inputs = passed;
    return tree as unknown[];
  }

  results(output: unknown): unknown {
    const { tree } = through(output, this.#inputs, (gradients, need) => {
      const { backwardPre } = this.#hooks;
      this.#gradOutput = this.#run(backwardPre, gradients, (hook, g) => hook(this.#module, g));
      // Nobody asks for the arguments' gradients (they are data): their gate will not be met.
      if (!this.#inputs.some((_, i) => need(gradients.length + i)))
        this.#backward(this.#inputs.map(() => null));
      return this.#gradOutput;
    });
    return tree;
  }

  #backward(gradInput: Gradients): Gradients {
    const { backward } = this.#hooks;
    return this.#run(backward, gradInput, (hook, g) => hook(this.#module, g, this.#gradOutput));
  }

  #run(
    hooks: readonly Hook[],
    gradients: Gradients,
    call: (hook: Hook, gradients: Gradients) => unknown,
  ): Gradients {
    for (const hook of hooks) {
      const given = call(hook, gradients);
      if (given === undefined) continue;
      const op = `${this.#module.constructor.name}'s gradient hook`;
      if (!Array.isArray(given) || given.length !== gradients.length)
        throw new ArgumentError(
          describe(op, `nothing, or an array of ${gradients.length} gradients`, String(given)),
        );
      gradients = gradients.map((g, i) =>
        g && given[i] ? leafTensor(checkedGradient(op, given[i], g.node)) : null,
      );
    }
    return gradients;
  }
}

/** A tree whose float tensors have passed a gate; they are the ones that have gradients. */
function through(
  tree: unknown,
  witnesses: readonly Tensor[],
  pull: (gradients: Gradients, need: (i: number) => boolean) => Gradients,
): { tree: unknown; passed: readonly Tensor[] } {
  const { tensors, spec } = flatten(tree);
  const floats = tensors.filter((t) => isFloat(t.dtype));
  const nodes = gate(
    floats.map((t) => t.node),
    witnesses.map((t) => t.node),
    (gradients, need) => {
      // Compiled functions in a hook are inlined: a plan's result would be a constant to a second derivative.
      const found = insideTransform(() => pull(gradients.map(leafTensor), need));
      return found.map((g) => g?.node ?? null);
    },
  );
  const passed = nodes.map(leafTensor);
  let next = 0;
  const leaves = tensors.map((t) => (isFloat(t.dtype) ? passed[next++] : t));
  return { tree: unflatten(spec, leaves), passed };
}
