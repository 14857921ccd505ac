/** @file The product of a chain of matrices in the cheapest order. Not a method. */
import { ArgumentError, describe } from "../errors.ts";
import type { Tensor } from "../tensor.ts";
import { matmul } from "./matmul.ts";
import { nodeOf } from "./promotion.ts";

/** The product of several matrices; a vector may come first or last. Multiplied in the order that costs least. */
export function multiDot(tensors: readonly Tensor[]): Tensor {
  const shapes = tensors.map((t) => nodeOf("multiDot", t).shape);
  if (tensors.length < 2)
    throw new ArgumentError(describe("multiDot", "two or more tensors", String(tensors.length)));
  const sizes = [
    shapes[0].length === 1 ? 1 : shapes[0][0],
    ...shapes.map((s, i) => (i > 0 && s.length === 1 ? 1 : s.at(-1)!)),
  ];
  // The textbook's dynamic programme over the chain i … j (Cormen et al., matrix-chain order).
  const best = new Map<string, { cost: number; product: () => Tensor }>();
  for (let length = 1; length <= tensors.length; length++)
    for (let i = 0; i + length <= tensors.length; i++) {
      let found = { cost: length === 1 ? 0 : Infinity, product: () => tensors[i] };
      for (let k = 1; k < length; k++) {
        const [left, right] = [best.get(`${i},${k}`)!, best.get(`${i + k},${length - k}`)!];
        const cost = left.cost + right.cost + sizes[i] * sizes[i + k] * sizes[i + length];
        if (cost < found.cost)
          found = { cost, product: () => matmul(left.product(), right.product()) };
      }
      best.set(`${i},${length}`, found);
    }
  return best.get(`0,${tensors.length}`)!.product();
}
