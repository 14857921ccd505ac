/** @file torch.func and torch.autograd.functional in terms of our transforms. */

import type { Tensor } from "hinode";
import * as hinode from "hinode";
import { type Kwargs, NotCovered, named, type Value } from "./values.ts";

// biome-ignore lint/suspicious/noExplicitAny: functions of any tensors
type Fn = (...args: any[]) => Value;

const refuse = (name: string, kwargs: Kwargs, keys: string): void => {
  for (const key of keys.split(" ")) if (kwargs[key]) throw new NotCovered(`${name}(${key})`);
};

/** Our transforms of functions of one tensor, with PyTorch's `argnums`: one number, or several for a list of results. */
const byArgument =
  (name: string, transform: (f: Fn) => Fn) =>
  (args: Value[], kwargs: Kwargs): Fn => {
    refuse(name, kwargs, "has_aux");
    const { func, argnums = 0 } = named("func argnums", args, kwargs);
    const at =
      (n: number): Fn =>
      (...values) =>
        transform((z: Tensor) => func(...values.with(n, z)))(values.at(n));
    return (...values) =>
      Array.isArray(argnums) ? argnums.map((n) => at(n)(...values)) : at(argnums)(...values);
  };

const jacrev = byArgument("jacrev", hinode.jacrev as Fn);
const jacfwd = byArgument("jacfwd", hinode.jacfwd as Fn);

/** Inputs are one tensor or a list, and so are results. */
const many = (x: Value): Value[] => (Array.isArray(x) ? x : [x]);
const alike = (inputs: Value, results: Value[]): Value =>
  Array.isArray(inputs) ? results : results[0];

const gradientOf = (f: Fn, n: number): Fn =>
  hinode.grad(f, { argnums: Array.from({ length: n }, (_, i) => i) }) as Fn;

/** The Hessian-vector product: the derivative of the gradient along v. */
const hvp = (args: Value[], kwargs: Kwargs): Value => {
  const { func, inputs, v } = named("func inputs v", args, kwargs);
  const primals = many(inputs);
  const [, product] = hinode.jvp(gradientOf(func, primals.length), primals, many(v));
  return [func(...primals), alike(inputs, many(product))];
};

export const transforms: Readonly<Record<string, (args: Value[], kwargs: Kwargs) => Value>> = {
  "torch.func.jvp": (args, kwargs) => {
    refuse("jvp", kwargs, "has_aux");
    const { func, primals, tangents } = named("func primals tangents", args, kwargs);
    return hinode.jvp(func, primals, tangents);
  },
  "torch.func.vjp": ([f, ...x], kwargs) => {
    refuse("vjp", kwargs, "has_aux");
    return hinode.vjp(f, ...x);
  },
  "torch.func.grad": (args, kwargs) => {
    refuse("grad", kwargs, "has_aux");
    const { func, argnums } = named("func argnums", args, kwargs);
    return hinode.grad(func, { argnums });
  },
  "torch.func.grad_and_value": (args, kwargs) => {
    refuse("grad_and_value", kwargs, "has_aux");
    const { func, argnums } = named("func argnums", args, kwargs);
    return (...values: Value[]) => {
      const [value, gradients] = hinode.valueAndGrad(func, { argnums })(...values);
      return [gradients, value].flat();
    };
  },
  "torch.func.jacrev": jacrev,
  "torch.func.jacfwd": jacfwd,
  "torch.func.hessian": (args, kwargs) => {
    const { func, argnums = 0 } = named("func argnums", args, kwargs);
    if (!Array.isArray(argnums)) return jacfwd([jacrev([func, argnums], {}), argnums], {});
    return (...values: Value[]) =>
      argnums.map((i: number) =>
        argnums.map((j: number) => jacfwd([jacrev([func, i], {}), j], {})(...values)),
      );
  },
  "torch.func.vmap": (args, kwargs) => {
    const { func, in_dims, out_dims, randomness } = named("func in_dims out_dims", args, kwargs);
    return hinode.vmap(func, { inDims: in_dims, outDims: out_dims, randomness });
  },
  "torch.vmap": (args, kwargs) => transforms["torch.func.vmap"](args, kwargs),
  "torch.func.linearize": ([f, ...primals]) => [
    f(...primals),
    (...tangents: Tensor[]) => hinode.jvp(f, primals, tangents)[1],
  ],

  "torch.autograd.functional.jvp": (args, kwargs) => {
    const { func, inputs, v } = named("func inputs v", args, kwargs);
    return hinode.jvp(
      func,
      many(inputs),
      v ? many(v) : many(inputs).map((x) => hinode.onesLike(x)),
    );
  },
  "torch.autograd.functional.vjp": (args, kwargs) => {
    const { func, inputs, v } = named("func inputs v", args, kwargs);
    const [out, pull] = hinode.vjp(func as Fn, ...many(inputs));
    return [out, alike(inputs, pull(v ?? hinode.onesLike(out)))];
  },
  "torch.autograd.functional.jacobian": (args, kwargs) => {
    const { func, inputs } = named("func inputs", args, kwargs);
    const primals = many(inputs);
    return alike(inputs, jacrev([func, primals.map((_, i) => i)], {})(...primals));
  },
  "torch.autograd.functional.hessian": (args, kwargs) => {
    const { func, inputs } = named("func inputs", args, kwargs);
    const primals = many(inputs);
    const all = transforms["torch.func.hessian"]([func, primals.map((_, i) => i)], {})(...primals);
    return Array.isArray(inputs) ? all : all[0][0];
  },
  "torch.autograd.functional.hvp": hvp,
  // The Hessian is symmetric.
  "torch.autograd.functional.vhp": hvp,
};
