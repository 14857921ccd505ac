/** @file Checks of arguments that layers share. */
import { ArgumentError, describe, ShapeError } from "../core/errors.ts";
import type { Tensor } from "../core/index.ts";
import { formatShape } from "../core/shape.ts";

/** @throws ArgumentError unless each is a positive integer. */
export const positive = (op: string, sizes: Readonly<Record<string, number>>): void => {
  for (const [name, size] of Object.entries(sizes))
    if (!Number.isInteger(size) || size < 1)
      throw new ArgumentError(describe(op, `a positive integer ${name}`, `${size}`));
};

/** @throws ShapeError unless `t` has this shape. */
export function expectShape(op: string, what: string, t: Tensor, shape: readonly number[]): void {
  if (formatShape(t.shape) === formatShape(shape)) return;
  throw new ShapeError(describe(op, `${what} ${formatShape(shape)}`, formatShape(t.shape)));
}
