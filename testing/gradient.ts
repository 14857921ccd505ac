/**
 * @file Gradients against finite differences, in float64 on the host, and on devices against the same gradients in float64.
 *
 * A difference D(h) = (F(x + h) - F(x - h)) / 2h is off by about c·h², so D(h/2) and D(h) tell their own error and give a better
 * value together (Richardson 1911). Where the two sides have different slopes however small the step is, there is no
 * derivative to compare with.
 */
import { isFloat } from "../core/dtype.ts";
import { ArgumentError, describe } from "../core/errors.ts";
import { defaultDevice, type Tensor, vjp } from "../core/index.ts";
import { numel } from "../core/shape.ts";
import { TensorCase } from "./cases.ts";
import type { CompareOptions } from "./checks.ts";
import { casesOf, type Finding, type Inputs, inputNames, search } from "./search.ts";
import {
  compareWith,
  listOf,
  Recorded,
  runOn,
  type TensorFunction,
  type Tolerance,
  wholeValues,
} from "./values.ts";

/** Weights for the elements of results, short numbers without a pattern: one cotangent for each result. */
export async function weightsFor(
  f: TensorFunction,
  inputs: readonly TensorCase[],
): Promise<TensorCase[]> {
  const { outputs } = await Recorded.of(f, inputs);
  return outputs.map(({ dtype, shape }, k) => directionLike(dtype, shape, k));
}

/** Fixed numbers between -1 and 1, in sixteenths; zeros for integers. */
export function directionLike(
  dtype: TensorCase["dtype"],
  shape: readonly number[],
  offset: number,
): TensorCase {
  const element = (i: number) => Math.round(16 * Math.cos(1.7 * i + offset + 0.3)) / 16;
  const values = Array.from({ length: numel(shape) }, (_, i) => (isFloat(dtype) ? element(i) : 0));
  return new TensorCase(values, shape, dtype);
}

/** (inputs…, weights…) ↦ the gradients of the weighted sum of f's results, one per input. */
export const pulled =
  (f: TensorFunction, count: number): TensorFunction =>
  (...all) => {
    const list = (...xs: Tensor[]) => listOf(f(...xs));
    const [, pull] = vjp(list, ...all.slice(0, count));
    return pull(all.slice(count));
  };

/** Elements of an input that are tried: all of a small one, else some all over it. */
const tried = 24;
const positionsOf = (n: number): number[] => {
  const step = Math.max(1, n / tried);
  return Array.from({ length: Math.min(n, tried) }, (_, i) => Math.floor(i * step));
};

/**
 * The gradients of f, of floats to floats, for inputs drawn or given. First, in float64, each rule against differences: by
 * default within 0.1 % of the largest gradient of that input and the differences' own error. Then, on devices, the rules'
 * values. Where f has a kink, nothing is compared; a search that finds nothing but kinks is an error.
 */
export async function checkGradient(
  f: TensorFunction,
  inputs: Inputs,
  options: CompareOptions = {},
): Promise<void> {
  const { devices = [defaultDevice().name], name = f.name || "f" } = options;
  let compared = 0;
  await search(
    `the gradient of ${name} is not its derivative`,
    casesOf(f, inputs, name),
    async (c) => {
      // Gradients are those of the views, not of the values below them.
      const inputs = (await wholeValues(c.inputs)).map(
        ({ data, shape, dtype }) => new TensorCase(Array.from(data), shape, dtype),
      );
      const weights = await weightsFor(f, inputs);
      const all = [...inputs, ...weights];
      const rules = await Recorded.of(pulled(f, inputs.length), all);
      const found = await differences(f, inputs, weights, rules, options.tolerance);
      compared += found.compared;
      const finding = (difference: string, at: string): Finding => {
        const names = inputNames(c.inputs);
        const given = weights.map((w) => w.code);
        const ct = given.length === 1 ? given[0] : `[${given.join(", ")}]`;
        const show = [`vjp(${[name, ...names].join(", ")})[1](${ct})${at}`];
        return { difference, imports: ["vjp"], show };
      };
      if (found.wrong) return finding(found.wrong.text, found.wrong.at);
      for (const device of devices) {
        const run = () => runOn(device, pulled(f, inputs.length), [...c.inputs, ...weights]);
        const wrong = await compareWith(rules, run, all, options.tolerance);
        if (wrong) return { ...finding(`on ${device}: ${wrong.text}`, wrong.at || "[0]"), device };
      }
      return null;
    },
    options,
  );
  if (compared === 0)
    throw new ArgumentError(
      describe("checkGradient", "a point where the function is smooth", "none, or no float inputs"),
    );
}

/** Differences of a function of one number around 0, for the step h and its half. */
function slopes(at: (step: number) => number, h: number) {
  const [low, high, lower, higher] = [-h / 2, h / 2, -h, h].map(at);
  const middle = at(0);
  const [wide, narrow] = [(higher - lower) / (2 * h), (high - low) / h];
  // How different the slopes of the two sides are: of a smooth function in proportion to the step.
  const bend = Math.abs(higher - 2 * middle + lower) / h;
  const sharp = Math.abs(high - 2 * middle + low) / (h / 2);
  return {
    slope: (4 * narrow - wide) / 3,
    error: 2 * Math.abs(wide - narrow),
    /** Whether there is a kink that is larger than so much noise. */
    kink: (noise: number) => sharp > 0.75 * bend && sharp > noise,
  };
}

const firstStep = 2 ** -7;

/** Compares the rules' gradients, in float64, with differences. */
async function differences(
  f: TensorFunction,
  inputs: readonly TensorCase[],
  weights: readonly TensorCase[],
  rules: Recorded,
  tolerance?: Tolerance,
) {
  // The weighted sum of the results, and of their sizes.
  const total: TensorFunction = (...all) => {
    const products = listOf(f(...all.slice(0, inputs.length))).flatMap((y, k) => {
      if (!isFloat(y.dtype)) return [];
      const product = y.float().mul(all[inputs.length + k]);
      return [[product.sum(), product.abs().sum()]];
    });
    return products.reduce((a, b) => a.map((x, i) => x.add(b[i])));
  };
  const nothing = { compared: 0, wrong: null };
  if (!weights.some((w) => isFloat(w.dtype))) return nothing;
  const all = [...inputs, ...weights];
  const given = all.map((x) => x.values);
  const sum = await Recorded.of(total, all);
  const gradients = rules.at(given, false).map(({ data }) => Array.from(data));
  // Values of functions that are polynomials inside are good to about 1e-7.
  const noise = (1e-6 * sum.at(given, false)[1].data[0]) / firstStep;
  const along = (directions: readonly (readonly number[] | null)[]) => (step: number) => {
    const moved = given.map((values, k) => {
      const direction = directions[k];
      return direction ? values.map((v, i) => v + step * direction[i]) : values;
    });
    return sum.at(moved, false)[0].data[0];
  };
  // At a tie of several elements no single one need show the kink.
  for (const offset of [20, 40]) {
    const directions = inputs.map(({ dtype, values }, k) =>
      isFloat(dtype) ? directionLike(dtype, [values.length], offset + k).values : null,
    );
    if (slopes(along(directions), firstStep).kink(noise)) return nothing;
  }
  let compared = 0;
  for (const [k, input] of inputs.entries()) {
    if (!isFloat(input.dtype)) continue;
    const found = gradients[k];
    const largest = found.reduce(
      (most, x) => (Number.isFinite(x) ? Math.max(most, Math.abs(x)) : most),
      0,
    );
    for (const i of positionsOf(found.length)) {
      const unit = found.map((_, j) => (j === i ? 1 : 0));
      const step = firstStep * Math.max(1, Math.abs(input.values[i]));
      const { slope, error, kink } = slopes(
        along(given.map((_, j) => (j === k ? unit : null))),
        step,
      );
      if (!Number.isFinite(slope) || kink(noise)) continue;
      compared++;
      const { rtol = 0, atol = 0 } = tolerance ?? {};
      const scale = Math.max(largest, Math.abs(slope));
      const allowed = error + (tolerance ? atol + rtol * Math.abs(slope) : 1e-3 * scale + noise);
      if (Math.abs(found[i] - slope) <= allowed) continue;
      const of = inputs.length > 1 ? ` of input ${k}` : "";
      const text = `element ${i}${of}: the gradient is ${found[i]}, differences give ${slope} (allowed: ${allowed.toPrecision(2)})`;
      return { compared, wrong: { text, at: `[${k}]` } };
    }
  }
  return { compared, wrong: null };
}
