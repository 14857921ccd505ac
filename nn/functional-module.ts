/**
 * @file Modules that are a function of one tensor with its further arguments given once. A family of them needs a line per
 * member, and what a member prints are its arguments by name.
 */
import type { Tensor } from "../core/index.ts";
import { Module } from "./module.ts";

/** A module without parameters, from one tensor to R. */
export interface FunctionModule<A extends unknown[], R> extends Module {
  readonly args: A;
  forward(x: Tensor): R;
}

/**
 * The class whose `new C(...args).forward(x)` is `f(x, ...args)`. `names` are those of the arguments; one more argument
 * may be an object of options.
 */
export function moduleOf<A extends unknown[], R>(
  f: (x: Tensor, ...args: A) => R,
  ...names: string[]
): new (
  ...args: A
) => FunctionModule<A, R> {
  return class extends Module {
    readonly args: A;

    constructor(...args: A) {
      super();
      this.args = args;
    }

    forward(x: Tensor): R {
      return f(x, ...this.args);
    }

    override extraRepr(): string {
      return this.args.flatMap((value, i) => factsOf(value, names[i])).join(", ");
    }
  };
}

function factsOf(value: unknown, name: string | undefined): string[] {
  if (value === undefined) return [];
  if (name !== undefined) return [`${name}=${JSON.stringify(value)}`];
  return Object.entries(value as object).flatMap(([key, v]) => factsOf(v, key));
}
