/**
 * @file Tensors whose shapes the type checker knows, for those who want them: `shaped(x, ["B", "T", 64])`. A ShapedTensor is a
 * Tensor at run time and for the type checker; only its methods' types say more. The rules are in shape-types.ts, shape-axes.ts
 * and shape-patterns.ts; this file says which operation has which. A method without a rule gives a plain Tensor, and so does
 * one that has a rule when its arguments say too little.
 *
 * It is an intersection, so that it is a Tensor without a comparison of some 280 members per shape, which an interface that
 * extends Tensor costs (30 layers of different widths: 10 million instantiations instead of 0.4). The price is that a call with
 * wrong shapes is not an error in itself, because Tensor's own method fits too; its result is one that nothing takes.
 */
import "./ops/methods.ts";
import { describe, ShapeError } from "./errors.ts";
import { type EinopsReduction, einops as einopsOf } from "./ops/einops.ts";
import { cat as catTensors } from "./ops/join.ts";
import { linear as linearOf } from "./ops/matmul.ts";
import type { Operand } from "./ops/promotion.ts";
import { formatShape } from "./shape.ts";
import type {
  Joined,
  MatrixTransposed,
  Permuted,
  Reduced,
  Reshaped,
  Reversed,
  Sizes,
  Transposed,
  Unsqueezed,
} from "./shape-axes.ts";
import type { Arranged, AxisNames } from "./shape-patterns.ts";
import type { Dimension, Dimensions, Elementwise, Linear, MatMul } from "./shape-types.ts";
import type { Tensor } from "./tensor.ts";

export type { Size } from "./shape-axes.ts";
export type { Dimension, Dimensions } from "./shape-types.ts";

declare const dimensions: unique symbol;
declare const mismatch: unique symbol;

/** What an operation gives whose operands do not fit: nothing has it as an argument, and it has no methods. */
export interface ShapeMismatch<Message extends string> {
  readonly [mismatch]: Message;
}

/** What a rule gave, as a tensor; a plain one if nothing is known. */
type Result<O> = O extends string
  ? ShapeMismatch<O>
  : O extends Dimensions
    ? number extends O["length"]
      ? Tensor
      : ShapedTensor<O>
    : never;

/** The shape of an argument: of a plain tensor unknown, of a number that of a 0-d tensor. */
type ShapeOf<T> = [T] extends [{ readonly [dimensions]: infer S extends Dimensions }]
  ? S
  : [T] extends [number | boolean]
    ? []
    : Dimensions;

/** A tensor with the dimensions S: a Tensor in all respects, of which some methods tell more. */
export type ShapedTensor<S extends Dimensions> = Shaped<S> & Tensor;

/** Methods that keep the shape. */
type Same<K extends keyof Tensor, S extends Dimensions> = Tensor[K] extends (
  ...args: infer A
) => Tensor
  ? (...args: A) => ShapedTensor<S>
  : never;

/** Methods of two operands that broadcast. */
type Binary<K extends string, S extends Dimensions> = <T extends Operand>(
  other: T,
) => Result<Elementwise<K, S, ShapeOf<T>>>;

type Reduction<K extends string, S extends Dimensions> = <
  const D extends number | readonly number[] | undefined = undefined,
  Keep extends boolean = false,
>(
  dim?: D,
  keepdim?: Keep,
) => Result<Reduced<K, S, D, Keep>>;

/** What a tensor of dimensions S says of them. */
interface Shaped<S extends Dimensions> {
  readonly [dimensions]: S;
  readonly shape: Sizes<S>;
  readonly T: ShapedTensor<Reversed<S>>;
  readonly mT: ShapedTensor<MatrixTransposed<S>>;

  matmul<T extends Tensor>(other: T): Result<MatMul<S, ShapeOf<T>>>;
  reshape<const N extends readonly number[]>(shape: N): Result<Reshaped<S, N>>;
  permute<const P extends readonly number[]>(dims: P): Result<Permuted<S, P>>;
  transpose<A extends number, B extends number>(dim0: A, dim1: B): Result<Transposed<S, A, B>>;
  unsqueeze<I extends number>(dim: I): Result<Unsqueezed<S, I>>;

  add: Binary<"add", S>;
  sub: Binary<"sub", S>;
  mul: Binary<"mul", S>;
  div: Binary<"div", S>;
  maximum: Binary<"maximum", S>;
  minimum: Binary<"minimum", S>;
  pow: Binary<"pow", S>;

  sum: Reduction<"sum", S>;
  mean: Reduction<"mean", S>;
  prod: Reduction<"prod", S>;
  amax: Reduction<"amax", S>;
  amin: Reduction<"amin", S>;

  relu: Same<"relu", S>;
  gelu: Same<"gelu", S>;
  silu: Same<"silu", S>;
  sigmoid: Same<"sigmoid", S>;
  tanh: Same<"tanh", S>;
  exp: Same<"exp", S>;
  log: Same<"log", S>;
  sqrt: Same<"sqrt", S>;
  rsqrt: Same<"rsqrt", S>;
  abs: Same<"abs", S>;
  neg: Same<"neg", S>;
  square: Same<"square", S>;
  softmax: Same<"softmax", S>;
  logSoftmax: Same<"logSoftmax", S>;
  layerNorm: Same<"layerNorm", S>;
  rmsNorm: Same<"rmsNorm", S>;
  dropout: Same<"dropout", S>;
  detach: Same<"detach", S>;
  float: Same<"float", S>;
  half: Same<"half", S>;
}

/**
 * x, with its dimensions known to the type checker: sizes, names for sizes, or both: `shaped(x, ["B", "T", 64])`. Errors: a
 * ShapeError if x has another number of axes, another size, or two sizes for one name; the same name in two calls is the
 * program's promise.
 */
export function shaped<const S extends Dimensions>(x: Tensor, dimensions: S): ShapedTensor<S> {
  const sizes = new Map<Dimension, number>();
  const sizeOf = (d: Dimension, size: number): number => {
    if (typeof d === "number") return d;
    if (!sizes.has(d)) sizes.set(d, size);
    return sizes.get(d)!;
  };
  if (
    dimensions.length !== x.shape.length ||
    dimensions.some((d, i) => sizeOf(d, x.shape[i]) !== x.shape[i])
  )
    throw new ShapeError(
      describe("shaped", `a tensor of shape [${dimensions.join(", ")}]`, formatShape(x.shape)),
    );
  return x as ShapedTensor<S>;
}

type ShapesOf<L> = { [K in keyof L]: ShapeOf<L[K]> };

/** `cat` of "hinode", for the type checker: the joined axis has an unknown size, the others must agree. */
export const cat = catTensors as <const L extends readonly Tensor[], I extends number = 0>(
  tensors: L,
  dim?: I,
) => Result<Joined<ShapesOf<L>, I>>;

/** `linear` of "hinode", for the type checker: [..., in] with a weight [out, in] → [..., out]. */
export const linear = linearOf as <X extends Tensor, W extends Tensor>(
  x: X,
  weight: W,
  bias?: Tensor | null,
) => Result<Linear<ShapeOf<X>, ShapeOf<W>>>;

type SizesFor<P extends string> = { readonly [N in AxisNames<P>]?: number };
type None = Record<never, number>;

/** `einops` of "hinode", for the type checker: it reads the patterns. */
export const einops = einopsOf as {
  readonly rearrange: <
    X extends Tensor,
    const P extends string,
    const Z extends SizesFor<P> = None,
  >(
    x: X,
    pattern: P,
    sizes?: Z,
  ) => Result<Arranged<"rearrange", ShapeOf<X>, P, Z>>;
  readonly reduce: <X extends Tensor, const P extends string, const Z extends SizesFor<P> = None>(
    x: X,
    pattern: P,
    reduction: EinopsReduction,
    sizes?: Z,
  ) => Result<Arranged<"reduce", ShapeOf<X>, P, Z>>;
  readonly repeat: <X extends Tensor, const P extends string, const Z extends SizesFor<P> = None>(
    x: X,
    pattern: P,
    sizes?: Z,
  ) => Result<Arranged<"repeat", ShapeOf<X>, P, Z>>;
};
