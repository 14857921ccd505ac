/** Attention as a node obeys the laws of the transforms, to the second order, with every kind of mask; float64. */
import { describe, test } from "vitest";
import * as b from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { attentionNode } from "../../core/ops/attention-region.ts";
import { numel, type Shape } from "../../core/shape.ts";
import { gradients } from "../../core/transform/vjp.ts";
import { checkBatching, checkDerivatives, type Fn, type Input, randomNumbers } from "./laws.ts";

const floats = (shape: Shape, seed: number): Input => {
  const next = randomNumbers(seed);
  return { shape, dtype: "f32", data: Array.from({ length: numel(shape) }, () => next() * 2 - 1) };
};
const bools = (shape: Shape, seed: number): Input => {
  const next = randomNumbers(seed);
  const columns = shape.at(-1)!;
  // The second row sees nothing.
  const seen = (i: number) => Number(Math.floor(i / columns) !== 1 && next() < 0.7);
  return { shape, dtype: "bool", data: Array.from({ length: numel(shape) }, (_, i) => seen(i)) };
};

interface Case {
  readonly heads: number;
  readonly shared: number;
  readonly causal?: boolean;
  readonly mask?: (seed: number) => Input;
}

const cases: Record<string, Case> = {
  plain: { heads: 1, shared: 1 },
  causal: { heads: 2, shared: 2, causal: true },
  "shared heads": { heads: 2, shared: 1 },
  "bool mask": { heads: 1, shared: 1, mask: (seed) => bools([1, 1, 3, 4], seed) },
  "learned mask": { heads: 2, shared: 1, mask: (seed) => floats([1, 2, 1, 4], seed) },
};

const inputsOf = ({ heads, shared, mask }: Case, seed: number): Input[] => [
  floats([1, heads, 3, 2], seed),
  floats([1, shared, 4, 2], seed + 10),
  floats([1, shared, 4, 3], seed + 20),
  ...(mask ? [mask(seed + 30)] : []),
];

describe.each(Object.entries(cases))("%s", (_, c) => {
  const f: Fn = (xs) => [attentionNode(xs, { scale: 0.7, causal: c.causal ?? false })];
  const gradient: Fn = (xs) => {
    const [y] = f(xs);
    const found = gradients([y], [b.mul(y, y)], xs.slice(0, 3));
    return found.map((g) => g as Node);
  };
  test("derivatives", () => checkDerivatives(f, inputsOf(c, 1)));
  test("vmap", () => checkBatching(f, (e) => inputsOf(c, 100 * e), 2));
  test("vmap of the gradient", () => checkBatching(gradient, (e) => inputsOf(c, 100 * e), 2));
});
