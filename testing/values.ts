/**
 * @file What a function's values should be, and how far a device may be from them. A function is recorded as a graph once and
 * evaluated on the host: in float64, which is what it means, and with every operation rounded as its dtype says. Their distance,
 * there and at points close by, shows how well-conditioned the computation is, and so sets the error that a device is allowed.
 */

import { transformed } from "../core/autograd.ts";
import { evaluator } from "../core/backend/reference.ts";
import {
  type DType,
  dtypes,
  floatLimits,
  isFloat,
  roundTo,
  type TypedArray,
} from "../core/dtype.ts";
import { ArgumentError, describe } from "../core/errors.ts";
import { type DeviceName, is, type Node } from "../core/graph/node.ts";
import { placeholder } from "../core/graph/primitives.ts";
import { substitute, topological } from "../core/graph/walk.ts";
import { type Shape, Tensor, uploadTensor } from "../core/index.ts";
import { formatShape, numel, sameShape } from "../core/shape.ts";
import { leafTensor } from "../core/tensor.ts";
import type { TensorCase } from "./cases.ts";

/** A function of tensors, with one result or several. */
export type TensorFunction = (...inputs: Tensor[]) => Tensor | readonly Tensor[];

export interface Values {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: ArrayLike<number>;
}

/** What f returns, as a list. */
export const listOf = (out: Tensor | readonly Tensor[]): readonly Tensor[] => {
  const list = out instanceof Tensor ? [out] : out;
  if (!Array.isArray(list) || !list.every((t) => t instanceof Tensor))
    throw new ArgumentError(
      describe("hinode/testing", "a function that returns a tensor or an array of them", `${out}`),
    );
  return list;
};

/** A function on the shapes of its inputs, recorded: evaluated on the host for any values. */
export class Recorded {
  readonly outputs: readonly Node[];
  readonly #evaluate: ReturnType<typeof evaluator>;
  readonly #inputs: readonly Node<"placeholder">[];
  readonly #captured: ReadonlyMap<Node, ArrayLike<number>>;

  private constructor(
    inputs: readonly Node<"placeholder">[],
    outputs: readonly Node[],
    captured: ReadonlyMap<Node, ArrayLike<number>>,
  ) {
    this.#inputs = inputs;
    this.outputs = outputs;
    this.#evaluate = evaluator(outputs);
    this.#captured = captured;
  }

  static async of(f: TensorFunction, cases: readonly TensorCase[]): Promise<Recorded> {
    const inputs = cases.map((c) => placeholder(c.dtype, c.baseShape, null));
    const views = cases.map((c, i) => c.viewOf(leafTensor(inputs[i])));
    const out = listOf(transformed("hinode/testing", f, views));
    const nodes = out.map((t) => t.node);
    // Tensors that f has from elsewhere become inputs too.
    const leaves = topological(nodes).filter((n) => is(n, "buffer"));
    const stands = leaves.map((n) => placeholder(n.dtype, n.shape, null));
    const captured = new Map<Node, ArrayLike<number>>();
    for (const [i, n] of leaves.entries()) captured.set(stands[i], await leafTensor(n).data());
    return new Recorded(
      inputs,
      substitute(nodes, new Map(leaves.map((n, i) => [n, stands[i]]))),
      captured,
    );
  }

  /** The results for these values of the inputs; `round: false`: in float64. */
  at(values: readonly ArrayLike<number>[], round: boolean): Values[] {
    const feeds = new Map(this.#captured);
    for (const [i, p] of this.#inputs.entries()) feeds.set(p, values[i]);
    const found = this.#evaluate(feeds, { round });
    return this.outputs.map(({ dtype, shape }, i) => ({ dtype, shape, data: found[i] }));
  }
}

/** What the views of the inputs are: whole tensors. */
export async function wholeValues(cases: readonly TensorCase[]): Promise<Values[]> {
  const seen = await Recorded.of((...xs) => xs, cases);
  return seen.at(
    cases.map((c) => c.values),
    true,
  );
}

/** NaN, or numbers that nobody expects: what memory holds before a kernel writes it. */
export const poison = (dtype: DType, size: number): TypedArray =>
  new dtypes[dtype].array(size).fill(isFloat(dtype) ? NaN : dtype === "bool" ? 1 : 85);

const poisoned = (dtype: DType, shape: Shape, device: DeviceName): Tensor =>
  uploadTensor(poison(dtype, numel(shape)), dtype, shape, device);

/** The values of f on a device. `like`: what its results are like, of which memory full of NaN is made ready. */
export async function runOn(
  device: DeviceName,
  f: TensorFunction,
  cases: readonly TensorCase[],
  like: readonly Values[] = [],
): Promise<Values[]> {
  const inputs = cases.map((c) => c.upload(device));
  const views = cases.map((c, i) => c.viewOf(inputs[i]));
  // What a kernel forgets to write must not be right by what was there before.
  for (const { dtype, shape } of like) {
    if (numel(shape) === 0) continue;
    const filled = poisoned(dtype, shape, device);
    await filled.data();
    filled.dispose();
  }
  const out = listOf(f(...views));
  const values: Values[] = [];
  for (const t of out) values.push({ dtype: t.dtype, shape: t.shape, data: await t.data() });
  for (const t of [...out, ...inputs]) t.dispose();
  return values;
}

/** |got - want| ≤ atol + rtol·|want|, in place of the bound that is computed. */
export interface Tolerance {
  readonly rtol?: number;
  readonly atol?: number;
}

const finite = (x: number): number => (Number.isFinite(x) ? Math.abs(x) : 0);
const largest = (n: number, of: (i: number) => number): number => {
  let most = 0;
  for (let i = 0; i < n; i++) most = Math.max(most, finite(of(i)));
  return most;
};

/** What a result should be. */
interface Expected {
  /** In float64. */
  readonly exact: Values;
  /** With every operation rounded. */
  readonly rounded: ArrayLike<number>;
  /** How far those two are apart here and for inputs close by. */
  readonly spread: number;
}

/**
 * What is wrong with `got`, or null. By default an element of a float result may be off by 8 times the spread, by 32 (halves: 4)
 * units in the last place of the largest element, and by the least normal number, as GPUs may take what is below for 0.
 * Where float64 and rounding disagree on which number, infinity or NaN an element is, either will do.
 */
export function difference(
  got: Values,
  { exact, rounded, spread }: Expected,
  tolerance?: Tolerance,
): string | null {
  const { dtype, shape, data: want } = exact;
  if (got.dtype !== dtype || !sameShape(got.shape, shape))
    return `got ${got.dtype}${formatShape(got.shape)}, want ${dtype}${formatShape(shape)}`;
  const n = want.length;
  const float = isFloat(dtype);
  const eps = float ? floatLimits[dtype as "f32"].eps : 0;
  const units = (dtype === "f32" ? 32 : 4) * eps * largest(n, (i) => want[i]);
  const bound = 8 * spread + units + (dtype === "f16" ? 2 ** -14 : 2 ** -126);
  const { rtol = 0, atol = 0 } = tolerance ?? {};
  let wrong = 0;
  let first = "";
  for (let i = 0; i < n; i++) {
    const [g, w] = [got.data[i], want[i]];
    const allowed = tolerance ? atol + rtol * Math.abs(w) : float ? bound : 0;
    // `===` takes 0 for -0, Object.is NaN for NaN.
    if (g === w || g === rounded[i] || Object.is(g, w) || Object.is(g, rounded[i])) continue;
    if (Math.abs(g - w) <= allowed) continue;
    if (wrong++ > 0) continue;
    const off = float ? ` (allowed: ${allowed.toPrecision(2)})` : "";
    first = `element ${i}: got ${g}, want ${w}${off}`;
  }
  return wrong === 0 ? null : `${first}${n > 1 ? `; ${wrong} of ${n} elements differ` : ""}`;
}

/** Inputs close to those given: rounding errors of one point may cancel by chance, those of several do not. */
const nearby = (c: TensorCase, k: number): readonly number[] =>
  isFloat(c.dtype)
    ? c.values.map((x, i) => {
        const by = (1 + ((k * 7 + i * 5) % 11)) / 8192;
        return roundTo(c.dtype, x === 0 ? by : x * (1 + by));
      })
    : c.values;

/** What the results for these inputs should be. */
function expected(meaning: Recorded, cases: readonly TensorCase[]): Expected[] {
  const points = [
    cases.map((c) => c.values),
    ...[1, 2, 3].map((k) => cases.map((c) => nearby(c, k))),
  ];
  const seen = points.map((values) => ({
    exact: meaning.at(values, false),
    rounded: meaning.at(values, true),
  }));
  return seen[0].exact.map((exact, i) => ({
    exact,
    rounded: seen[0].rounded[i].data,
    spread: Math.max(
      ...seen.map((s) => {
        const [a, b] = [s.exact[i].data, s.rounded[i].data];
        return largest(a.length, (j) => a[j] - b[j]);
      }),
    ),
  }));
}

/** What is wrong with a result, and with which of several. */
export interface Difference {
  readonly text: string;
  /** As an index into a list of results: "", or "[1]". */
  readonly at: string;
}

/** Compares the values of f on a device with those of `want`, which says what it means. */
export async function compare(
  device: DeviceName,
  f: TensorFunction,
  want: TensorFunction,
  cases: readonly TensorCase[],
  tolerance?: Tolerance,
): Promise<Difference | null> {
  const meaning = await Recorded.of(want, cases);
  const got = (exact: readonly Values[]) => runOn(device, f, cases, exact);
  return compareWith(meaning, got, cases, tolerance);
}

/** The same for values from elsewhere; `results` is told what they should be. */
export async function compareWith(
  meaning: Recorded,
  results: (exact: readonly Values[]) => Promise<readonly Values[]>,
  cases: readonly TensorCase[],
  tolerance?: Tolerance,
): Promise<Difference | null> {
  const want = expected(meaning, cases);
  const got = await results(want.map((w) => w.exact));
  if (got.length !== want.length)
    return { text: `got ${got.length} results, want ${want.length}`, at: "" };
  for (const [i, w] of want.entries()) {
    const text = difference(got[i], w, tolerance);
    if (text) return { text, at: want.length > 1 ? `[${i}]` : "" };
  }
  return null;
}
