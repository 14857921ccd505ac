/**
 * @file The laws of the transforms, for a program's function: `compile` and `vmap` change no value (on devices), forward and
 * reverse mode are each other's transpose, also of a gradient (in float64, where rounding cannot hide a missing term).
 */
import type fc from "fast-check";
import { isFloat } from "../core/dtype.ts";
import { compile, defaultDevice, jvp, stack, type Tensor, vjp, vmap } from "../core/index.ts";
import type { TensorCase } from "./cases.ts";
import { type CompareOptions, casesFrom } from "./checks.ts";
import { directionLike, pulled, weightsFor } from "./gradient.ts";
import { type Case, type Finding, type Inputs, inputNames, search } from "./search.ts";
import { compare, listOf, Recorded, type TensorFunction, wholeValues } from "./values.ts";

export type Law = "compile" | "vmap" | "transpose" | "second order";

export interface TransformOptions extends CompareOptions {
  /** Default: all. A gradient that is not the derivative on purpose (a straight-through estimator) has no "transpose". */
  readonly laws?: readonly Law[];
}

interface Context {
  readonly c: Case;
  readonly options: TransformOptions;
}

/** A value that should not change, on each device. */
async function same(
  { options }: Context,
  got: TensorFunction,
  want: TensorFunction,
  inputs: readonly TensorCase[],
  finding: (at: string) => Omit<Finding, "difference">,
): Promise<Finding | null> {
  const { devices = [defaultDevice().name], tolerance } = options;
  for (const device of devices) {
    const found = await compare(device, got, want, inputs, tolerance);
    if (found) return { difference: `on ${device}: ${found.text}`, device, ...finding(found.at) };
  }
  return null;
}

function compiled(context: Context): Promise<Finding | null> {
  const { f, inputs, name } = context.c;
  const args = inputNames(inputs).join(", ");
  return same(
    context,
    compile((...xs: Tensor[]) => f(...xs)),
    f,
    inputs,
    (at) => ({
      imports: ["compile"],
      show: [`compile(${name})(${args})${at}`, `${name}(${args})${at}`],
    }),
  );
}

/** Of two elements: the inputs, and the same backwards. */
function batched(context: Context): Promise<Finding | null> {
  const { f, inputs, name } = context.c;
  const n = inputs.length;
  const both = [...inputs, ...inputs.map((x) => x.with(x.values.toReversed()))];
  const pairs = (all: readonly Tensor[]) => all.slice(0, n).map((x, i) => stack([x, all[n + i]]));
  const loop: TensorFunction = (...all) => {
    const [first, second] = [all.slice(0, n), all.slice(n)].map((xs) => listOf(f(...xs)));
    return first.map((y, i) => stack([y, second[i]]));
  };
  const mapped: TensorFunction = (...all) =>
    listOf(vmap((...xs: Tensor[]) => f(...xs))(...pairs(all)));
  return same(context, mapped, loop, both, () => {
    const [x, y] = [inputs, both.slice(n)].map((list) => list.map(({ code }) => code));
    const stacked = x.map((code, i) => `stack([${code}, ${y[i]}])`).join(", ");
    return { imports: ["stack", "vmap"], show: [`vmap(${name})(${stacked})`] };
  });
}

/** A tangent for each input. */
const directions = async (inputs: readonly TensorCase[]): Promise<TensorCase[]> =>
  (await wholeValues(inputs)).map(({ dtype, shape }, k) => directionLike(dtype, shape, k + 10));

const dot = (a: readonly Tensor[], b: readonly Tensor[]): Tensor[] =>
  a.flatMap((x, i) => (isFloat(x.dtype) ? [x.float().mul(b[i])] : []));

/** ⟨w, J t⟩ = ⟨Jᵀ w, t⟩, term by term in float64; the terms' sizes say what the sums can be good to. */
async function transposed({ c }: Context, f: TensorFunction): Promise<Finding | null> {
  const { inputs, name } = c;
  const n = inputs.length;
  const weights = await weightsFor(f, inputs);
  const tangents = await directions(inputs);
  const all = [...inputs, ...tangents, ...weights];
  const values = all.map((x) => x.values);
  const split = (list: readonly Tensor[]) =>
    [list.slice(0, n), list.slice(n, 2 * n), list.slice(2 * n)] as const;
  const outputs = (...xs: Tensor[]) => listOf(f(...xs));
  const forward = await Recorded.of((...list) => {
    const [xs, ts, ws] = split(list);
    return dot(jvp(outputs, xs, ts)[1], ws);
  }, all);
  const reverse = await Recorded.of((...list) => {
    const [xs, ts, ws] = split(list);
    return dot(vjp(outputs, ...xs)[1](ws), ts);
  }, all);
  const sums = [forward, reverse].map((r) => {
    const terms = r.at(values, false).flatMap(({ data }) => Array.from(data));
    const total = terms.reduce((a, b) => a + b, 0);
    return { total, size: terms.reduce((a, b) => a + Math.abs(b), 0) };
  });
  const [a, b] = sums;
  // What cancels inside of a derivative leaves rounding of the directions' size.
  const size = (list: readonly TensorCase[]) =>
    list.flatMap((x) => x.values).reduce((sum, x) => sum + Math.abs(x), 0);
  const allowed = 1e-3 * Math.max(a.size, b.size) + 1e-9 * size(tangents) * size(weights);
  // Where a derivative is infinite or no number, only its presence can be compared.
  if (!Number.isFinite(a.total) || !Number.isFinite(b.total)) return null;
  if (Math.abs(a.total - b.total) <= allowed) return null;
  const call = [name, ...inputNames(inputs)].join(", ");
  const codes = (list: readonly TensorCase[]) => `[${list.map((x) => x.code).join(", ")}]`;
  const args = `[${inputNames(inputs).join(", ")}]`;
  return {
    difference: `forward mode gives ${a.total}, reverse mode ${b.total} (allowed: ${allowed.toPrecision(2)})`,
    imports: ["jvp", "vjp"],
    show: [
      `jvp(${name}, ${args}, ${codes(tangents)})[1]`,
      `vjp(${call})[1](${weights.length === 1 ? weights[0].code : codes(weights)})[0]`,
    ],
  };
}

/** The same law of the gradient: the matrix of second derivatives is its own transpose. */
async function second(context: Context): Promise<Finding | null> {
  const { f, inputs } = context.c;
  const weights = await weightsFor(f, inputs);
  const count = inputs.length;
  if (!inputs.some((x) => isFloat(x.dtype)) || weights.length === 0) return null;
  const gradient: TensorFunction = (...all) =>
    listOf(pulled(f, count)(...all)).filter((_, k) => isFloat(inputs[k].dtype));
  const name = `((...all) => vjp(${context.c.name}, ...all.slice(0, ${count}))[1](all[${count}]))`;
  const c = { ...context.c, f: gradient, inputs: [...inputs, ...weights], name };
  const found = await transposed({ ...context, c }, gradient);
  return found && { ...found, difference: `second order: ${found.difference}` };
}

const laws: { readonly [L in Law]: (context: Context) => Promise<Finding | null> } = {
  compile: compiled,
  vmap: batched,
  transpose: (context) => transposed(context, context.c.f),
  "second order": second,
};

/** The laws of the transforms for a function of such inputs, or for random graphs (then `inputs` is null). */
export async function checkTransforms(
  f: TensorFunction | fc.Arbitrary<Case>,
  inputs: Inputs | null,
  options: TransformOptions = {},
): Promise<void> {
  const { laws: wanted = Object.keys(laws) as Law[] } = options;
  await search(
    "a transform breaks its law",
    casesFrom(f, inputs, options),
    async (c) => {
      for (const law of wanted) {
        const found = await laws[law]({ c, options });
        if (found) return { ...found, difference: `${law}: ${found.difference}` };
      }
      return null;
    },
    options,
  );
}
