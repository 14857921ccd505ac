/** @file What the evaluator's files share: values of Python expressions, and the library's functions by name. */
import * as hinode from "hinode";

/** Something that the library does not have: the case is counted under this name. */
export class NotCovered extends Error {
  override name = "NotCovered";
}

// biome-ignore lint/suspicious/noExplicitAny: what a Python expression may be: tensors, numbers, lists, functions
export type Value = any;
export type Kwargs = Readonly<Record<string, Value>>;

/** An export of the library, `sum` or `linalg.solve`. */
export const lookUp = (name: string): Value =>
  name.split(".").reduce<Value>((inside, part) => inside?.[part], hinode);

/** A function of the library. */
export function exported(name: string): (...args: Value[]) => Value {
  const f = lookUp(name);
  if (typeof f !== "function") throw new NotCovered(name);
  return f as (...args: Value[]) => Value;
}

/** The arguments by the names of PyTorch's parameters: positions first. */
export const named = (names: string, args: readonly Value[], kwargs: Kwargs): Kwargs => ({
  ...kwargs,
  ...Object.fromEntries(
    names.split(" ").flatMap((n, i) => (i < args.length ? [[n, args[i]]] : [])),
  ),
});

/** f of the values; a promise if one of them is (what depends on the data for its shape). */
export const settled = (values: readonly Value[], f: (values: Value[]) => Value): Value =>
  values.some((v) => v instanceof Promise) ? Promise.all(values).then(f) : f([...values]);
