/**
 * @file What sums and products do to shapes, for the type checker alone: shapes as tuple types in, a shape or a message out.
 * Nothing here exists at run time; typed.ts gives these rules to tensors. Rules that name axes are in shape-axes.ts.
 *
 * A dimension is a size (`64`), a name (`"T"`: some size, the same wherever the name stands), or `number`, of which nothing is
 * known and which fits everything. Rules read from the last axis, as broadcasting does, and recurse once per axis.
 */

export type Dimension = number | string;
/** `["B", "T", 64]`, or `Dimensions` itself where nothing is known. */
export type Dimensions = Dimension[];

/** "B, T, 64". */
export type Listed<S> = S extends readonly [infer F extends Dimension]
  ? `${F}`
  : S extends readonly [infer F extends Dimension, ...infer R]
    ? `${F}, ${Listed<R>}`
    : "";
/** A shape as messages show it: "[B, T, 64]". */
export type Shown<S> = `[${Listed<S>}]`;

/** The dimension that both are, never if they differ. */
export type Agreed<A, B> = number extends A
  ? B
  : number extends B
    ? A
    : [A, B] extends [B, A]
      ? A
      : never;

/** As `Agreed`, where a 1 gives way. */
type Joint<A, B> = A extends 1 ? B : B extends 1 ? A : Agreed<A, B>;

// --- broadcasting --------------------------------------------------------------------------------

/** Two shapes broadcast; null if they do not fit. */
type Broadcast<
  A extends Dimensions,
  B extends Dimensions,
  Out extends Dimensions = [],
> = A extends [...infer AR extends Dimensions, infer X extends Dimension]
  ? B extends [...infer BR extends Dimensions, infer Y extends Dimension]
    ? Joint<X, Y> extends infer D extends Dimension
      ? [D] extends [never]
        ? null
        : Broadcast<AR, BR, [D, ...Out]>
      : null
    : [...A, ...Out]
  : [...B, ...Out];

/** Element-wise operations of two operands. */
export type Elementwise<
  Op extends string,
  A extends Dimensions,
  B extends Dimensions,
> = number extends B["length"]
  ? Dimensions
  : number extends A["length"]
    ? Dimensions
    : Broadcast<A, B> extends infer S extends Dimensions
      ? S
      : `${Op}: ${Shown<A>} and ${Shown<B>} do not broadcast`;

// --- products ------------------------------------------------------------------------------------

/** Leading axes broadcast, with the two axes of the product behind them. */
type Batched<A extends Dimensions, B extends Dimensions, M extends Dimension, N extends Dimension> =
  Broadcast<A, B> extends infer S extends Dimensions ? [...S, M, N] : null;

/** A matrix product of shapes whose inner dimensions are K and L. */
type Inner<K, L, S> = [Agreed<K, L>] extends [never] ? null : S;

type Product<A extends Dimensions, B extends Dimensions> = A extends [
  ...infer P extends Dimensions,
  infer M extends Dimension,
  infer K,
]
  ? B extends [...infer Q extends Dimensions, infer L, infer N extends Dimension]
    ? Inner<K, L, Batched<P, Q, M, N>>
    : B extends [infer L]
      ? Inner<K, L, [...P, M]>
      : null
  : A extends [infer K]
    ? B extends [...infer Q extends Dimensions, infer L, infer N extends Dimension]
      ? Inner<K, L, [...Q, N]>
      : B extends [infer L]
        ? Inner<K, L, []>
        : null
    : null;

/** [..., M, K] @ [..., K, N]. */
export type MatMul<A extends Dimensions, B extends Dimensions> = number extends B["length"]
  ? Dimensions
  : number extends A["length"]
    ? Dimensions
    : Product<A, B> extends infer S extends Dimensions
      ? S
      : `matmul: ${Shown<A>} @ ${Shown<B>}`;

/** [..., in] with a weight [out, in]. */
export type Linear<X extends Dimensions, W extends Dimensions> = number extends
  | X["length"]
  | W["length"]
  ? Dimensions
  : X extends [...infer Rest extends Dimensions, infer K]
    ? W extends [infer N extends Dimension, infer L]
      ? [Agreed<K, L>] extends [never]
        ? `linear: an input ${Shown<X>} for a weight [out, in] = ${Shown<W>}`
        : [...Rest, N]
      : `linear: a weight [out, in], not ${Shown<W>}`
    : "linear: an input with at least one axis";
