/**
 * @file Trees: the arguments and results of transformed functions, tensors nested in arrays and plain objects. As
 * JAX's pytrees, but everything else (numbers, strings, functions, class instances) is a static leaf that is
 * compared by `Object.is`. `matches` compares a value with a known structure without building anything, because
 * a compiled function does it at every call.
 */
import { ArgumentError, describe } from "./errors.ts";
import { Tensor } from "./tensor.ts";

/** Tensors, and whatever else, nested in arrays and plain objects. */
// biome-ignore lint/suspicious/noExplicitAny: the type parameters of callers say what is inside
export type Tree = any;

/** What a value looks like with its tensors taken out. */
export type TreeSpec =
  | { readonly k: "tensor" }
  | { readonly k: "static"; readonly value: unknown }
  | { readonly k: "array"; readonly items: readonly TreeSpec[] }
  | { readonly k: "object"; readonly keys: readonly string[]; readonly items: readonly TreeSpec[] };

const TENSOR: TreeSpec = { k: "tensor" };

function isPlain(value: object): value is Record<string, Tree> {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** The tensors of a tree in order, and the structure around them. */
export function flatten(tree: Tree): { tensors: Tensor[]; spec: TreeSpec } {
  const tensors: Tensor[] = [];
  const walk = (value: unknown): TreeSpec => {
    if (value instanceof Tensor) {
      tensors.push(value);
      return TENSOR;
    }
    if (Array.isArray(value)) return { k: "array", items: value.map(walk) };
    if (typeof value === "object" && value !== null && isPlain(value)) {
      const keys = Object.keys(value);
      return { k: "object", keys, items: keys.map((key) => walk(value[key])) };
    }
    return { k: "static", value };
  };
  return { spec: walk(tree), tensors };
}

/** The inverse of `flatten`: takes the tensors, or whatever stands for them, in order. */
export function unflatten(spec: TreeSpec, leaves: readonly unknown[]): Tree {
  let at = 0;
  const build = (s: TreeSpec): Tree => {
    switch (s.k) {
      case "tensor":
        return leaves[at++];
      case "static":
        return s.value;
      case "array":
        return s.items.map(build);
      case "object":
        return Object.fromEntries(s.keys.map((key, i) => [key, build(s.items[i])]));
    }
  };
  return build(spec);
}

/** Whether `value` has the structure `spec` and the same static leaves; appends its tensors to `into`. */
export function matches(spec: TreeSpec, value: unknown, into: Tensor[]): boolean {
  switch (spec.k) {
    case "tensor":
      if (!(value instanceof Tensor)) return false;
      into.push(value);
      return true;
    case "static":
      return Object.is(spec.value, value);
    case "array":
      if (!Array.isArray(value) || value.length !== spec.items.length) return false;
      for (let i = 0; i < value.length; i++)
        if (!matches(spec.items[i], value[i], into)) return false;
      return true;
    case "object": {
      if (typeof value !== "object" || value === null || value instanceof Tensor) return false;
      if (!isPlain(value)) return false;
      const { keys, items } = spec;
      let count = 0;
      for (const key in value) if (keys[count++] !== key) return false;
      if (count !== keys.length) return false;
      for (let i = 0; i < keys.length; i++)
        if (!matches(items[i], value[keys[i]], into)) return false;
      return true;
    }
  }
}

/** Whether two trees differ at most in their tensors. */
export const sameStructure = (a: TreeSpec, b: TreeSpec): boolean =>
  a.k === b.k &&
  (a.k === "tensor" ||
    (a.k === "static" && b.k === "static" && Object.is(a.value, b.value)) ||
    (a.k === "array" &&
      b.k === "array" &&
      a.items.length === b.items.length &&
      a.items.every((s, i) => sameStructure(s, b.items[i]))) ||
    (a.k === "object" &&
      b.k === "object" &&
      a.keys.length === b.keys.length &&
      a.keys.every((key, i) => key === b.keys[i] && sameStructure(a.items[i], b.items[i]))));

/** Refuses static leaves whose content may change behind the same identity. */
export function refuseArrays(op: string, spec: TreeSpec): void {
  if (spec.k === "array" || spec.k === "object") for (const s of spec.items) refuseArrays(op, s);
  else if (
    spec.k === "static" &&
    (ArrayBuffer.isView(spec.value) || spec.value instanceof ArrayBuffer)
  )
    throw new ArgumentError(
      describe(op, "tensors and constants", "a typed array", "pass tensor(array)"),
    );
}
