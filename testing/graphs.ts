/**
 * @file Random graphs: programs of a few method calls, each on results of those before it. A call is drawn as numbers that pick an
 * operation and operands whatever there is to pick from, so shrinking can leave calls out and the rest stays a program.
 * Functions see bounded arguments, so that a difference between devices is a bug and not amplified rounding.
 */
import fc from "fast-check";
import { placeholder } from "../core/graph/primitives.ts";
import type { Tensor } from "../core/index.ts";
import { broadcast, numel } from "../core/shape.ts";
import { leafTensor } from "../core/tensor.ts";
import { shapes, type TensorsOptions, tensors } from "./arbitraries.ts";
import { call, type TensorCase } from "./cases.ts";
import { type Case, inputNames } from "./search.ts";

/** A method call: on a value, with arguments of which those that are `{ value }` are values too. */
interface Call {
  readonly on: number;
  readonly method: string;
  readonly args: readonly unknown[];
}
interface ValueRef {
  readonly value: number;
}
const isRef = (x: unknown): x is ValueRef => typeof x === "object" && x !== null && "value" in x;

interface Pick {
  readonly op: number;
  readonly on: number;
  readonly with: number;
  readonly by: number;
}

/** The calls of an operation on x; null where it does not fit. `y`: another value whose shape broadcasts with x's. */
type Make = (
  x: Tensor,
  at: { readonly y: ValueRef; readonly axis: number; readonly by: number },
) => readonly (readonly [method: string, ...args: unknown[]])[] | null;

const plain =
  (method: string): Make =>
  () => [[method]];
/** Of an argument between -1 and 1. */
const bounded =
  (method: string): Make =>
  () => [["tanh"], [method]];
const pair =
  (method: string): Make =>
  (_, { y }) => [[method, y]];
const along =
  (method: string): Make =>
  (x, { axis, by }) =>
    x.shape.length === 0 || x.shape[axis] === 0
      ? null
      : [[method, axis, ...(method === "softmax" || method === "cumsum" ? [] : [by % 2 === 0])]];

const operations: readonly Make[] = [
  pair("add"),
  pair("sub"),
  (_, { y }) => [["tanh"], ["mul", y]],
  pair("maximum"),
  plain("neg"),
  plain("abs"),
  plain("tanh"),
  plain("sigmoid"),
  plain("relu"),
  bounded("exp"),
  bounded("sin"),
  (_, { by }) => [["tanh"], ["add", 2 + (by % 3)], ["log"]],
  (_, { by }) => [["tanh"], ["add", 2 + (by % 3)], ["sqrt"]],
  along("sum"),
  along("mean"),
  along("amax"),
  along("softmax"),
  along("cumsum"),
  (x, { axis }) => (x.shape.length > 0 ? [["flip", [axis]]] : null),
  (x, { axis }) =>
    x.shape.length > 1
      ? [["permute", x.shape.map((_, i) => (i + 1 + axis) % x.shape.length)]]
      : null,
  (x) => [["reshape", [numel(x.shape)]]],
  (x, { axis, by }) =>
    x.shape.length > 0 && x.shape[axis] > 1
      ? [["slice", axis, by % 2, x.shape[axis], 1 + (by % 2)]]
      : null,
  (x, { axis }) => (x.shape.length < 4 ? [["unsqueeze", axis]] : null),
  (x) =>
    x.shape.length > 1 && numel(x.shape) > 0
      ? [
          ["tanh"],
          [
            "matmul",
            {
              self: x.shape
                .map((_, i) => i)
                .toSpliced(-2, 2, x.shape.length - 1, x.shape.length - 2),
            },
          ],
        ]
      : null,
];

/** A call with its `{ value }` arguments looked up; `{ self }` is the value itself with axes in another order. */
function applied(values: readonly Tensor[], { on, method, args }: Call): Tensor {
  const x = values[on];
  return call(
    x,
    method,
    args.map((a) => (isRef(a) ? values[a.value] : hasSelf(a) ? x.permute(a.self) : a)),
  );
}
const hasSelf = (a: unknown): a is { readonly self: readonly number[] } =>
  typeof a === "object" && a !== null && "self" in a;

/** No graph has larger values. */
const largest = 2000;

/** The program that picks make of inputs. */
function program(inputs: readonly TensorCase[], picks: readonly Pick[]): Call[] {
  // On stand-ins: only shapes matter here.
  const values = inputs.map((c) => c.viewOf(leafTensor(placeholder(c.dtype, c.baseShape, null))));
  const calls: Call[] = [];
  for (const { op, on, with: other, by } of picks) {
    const at = on % values.length;
    const x = values[at];
    const fits = values.flatMap((v, i) => {
      const shape = broadcast(v.shape, x.shape);
      return shape && numel(shape) <= largest ? [i] : [];
    });
    const made = operations[op % operations.length](x, {
      y: { value: fits[other % fits.length] },
      axis: by % Math.max(1, x.shape.length),
      by,
    });
    let source = at;
    for (const [method, ...args] of made ?? []) {
      const next = { on: source, method, args };
      const value = applied(values, next);
      if (numel(value.shape) > largest) break;
      calls.push(next);
      source = values.push(value) - 1;
    }
  }
  return calls;
}

/** The calls as statements of a function. */
function linesOf(inputs: readonly TensorCase[], calls: readonly Call[]): string[] {
  const names = inputNames(inputs);
  const nameOf = (i: number): string => names[i] ?? `y${i - names.length}`;
  const lines = calls.map(({ on, method, args }, i) => {
    const texts = args.map((a) => {
      if (isRef(a)) return nameOf(a.value);
      if (hasSelf(a)) return `${nameOf(on)}.permute([${a.self.join(", ")}])`;
      return typeof a === "object"
        ? JSON.stringify(a)
            .replace(/"(\w+)":/g, " $1: ")
            .replace("}", " }")
        : String(a);
    });
    return `  const ${nameOf(names.length + i)} = ${nameOf(on)}.${method}(${texts.join(", ")});`;
  });
  const last = nameOf(names.length + calls.length - 1);
  return [`const graph = (${names.join(", ")}) => {`, ...lines, `  return ${last};`, "};"];
}

export interface GraphsOptions {
  /** Most operations (default 12). */
  readonly maxSize?: number;
  /** What the inputs are like; floats (default f32, of at most 3 axes of at most 5). */
  readonly inputs?: TensorsOptions;
}

/** Programs of one to three inputs; the result is the last value. For checkTransforms and compareDevices. */
export function graphs({ maxSize = 12, inputs = {} }: GraphsOptions = {}): fc.Arbitrary<Case> {
  const some = tensors({ shape: shapes({ maxRank: 3, maxDim: 5 }), ...inputs });
  const pick = fc.record<Pick>({
    op: fc.nat(operations.length - 1),
    on: fc.nat(15),
    with: fc.nat(15),
    by: fc.nat(7),
  });
  return fc
    .tuple(
      fc.array(some, { minLength: 1, maxLength: 3 }),
      fc.array(pick, { minLength: 1, maxLength: maxSize }),
    )
    .map(([cases, picks]) => {
      const calls = program(cases, picks);
      const f = (...xs: Tensor[]): Tensor => {
        const values = [...xs];
        for (const c of calls) values.push(applied(values, c));
        return values[values.length - 1];
      };
      return { f, inputs: cases, lines: linesOf(cases, calls), name: "graph" };
    });
}
