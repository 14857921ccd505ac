/**
 * @file A tensor as a test's data: values and the views taken of them, as plain numbers, so that fast-check can shrink it, any
 * device can have it, and it prints as the code that makes it.
 */
import fc from "fast-check";
import { type DType, dtypes, roundTo } from "../core/dtype.ts";
import type { DeviceName } from "../core/graph/node.ts";
import { type Shape, type Tensor, uploadTensor } from "../core/index.ts";
import { numel } from "../core/shape.ts";

/** A method call that takes a view. */
export interface View {
  readonly method: "permute" | "flip" | "slice" | "expand";
  readonly args: readonly (number | readonly number[])[];
}

type Method = (...args: unknown[]) => Tensor;

/** Calls a method by its name. */
export const call = (x: Tensor, method: string, args: readonly unknown[]): Tensor =>
  ((x as unknown as Record<string, Method>)[method] as Method).apply(x, args as unknown[]);

/** A number as code. */
export const literal = (x: number): string => (Object.is(x, -0) ? "-0" : String(x));

export class TensorCase {
  readonly dtype: DType;
  /** Of the values, before the views. */
  readonly baseShape: Shape;
  /** Row-major, rounded to the dtype; of bool 0 and 1. */
  readonly values: readonly number[];
  readonly views: readonly View[];

  constructor(
    values: readonly number[],
    shape: Shape,
    dtype: DType = "f32",
    views: readonly View[] = [],
  ) {
    this.values = values.map((x) => roundTo(dtype, x));
    this.baseShape = shape;
    this.dtype = dtype;
    this.views = views;
  }

  /** The values as a tensor, before the views. */
  upload(device: DeviceName): Tensor {
    return uploadTensor(
      new dtypes[this.dtype].array(this.values),
      this.dtype,
      this.baseShape,
      device,
    );
  }

  /** The views, taken of the values as a tensor. */
  viewOf(values: Tensor): Tensor {
    return this.views.reduce((x, { method, args }) => call(x, method, args), values);
  }

  /** The same shape and views with other values. */
  with(values: readonly number[]): TensorCase {
    return new TensorCase(values, this.baseShape, this.dtype, this.views);
  }

  /** An expression that makes it. */
  get code(): string {
    const { values, baseShape: shape, dtype } = this;
    let at = 0;
    const nested = (axis: number): string => {
      if (axis === shape.length) {
        const x = values[at++];
        return dtype === "bool" ? String(x !== 0) : literal(x);
      }
      return `[${Array.from({ length: shape[axis] }, () => nested(axis + 1)).join(", ")}]`;
    };
    // Nested arrays do not tell what is behind an empty axis.
    const options =
      numel(shape) === 0
        ? `{ dtype: "${dtype}", shape: [${shape.join(", ")}] }`
        : `{ dtype: "${dtype}" }`;
    const base = `tensor(${numel(shape) === 0 ? "[]" : nested(0)}, ${options})`;
    const views = this.views.map(({ method, args }) => {
      const texts = args.map((a) => (typeof a === "number" ? `${a}` : `[${a.join(", ")}]`));
      return `.${method}(${texts.join(", ")})`;
    });
    return base + views.join("");
  }

  toString(): string {
    return this.code;
  }

  [fc.toStringMethod](): string {
    return this.code;
  }
}
