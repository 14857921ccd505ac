/**
 * @file What operations on axes do to shapes, for the type checker alone: reductions, orders, joins, reshapes. The axes come as
 * literal numbers; where they are not literal, nothing is known of the result (`Dimensions`).
 */
import type { Agreed, Dimension, Dimensions, Listed, Shown } from "./shape-types.ts";

/** The ways to name the first axis of S, when `Head` stands before it: "2" | "-1". */
type NamesOf<S extends readonly unknown[], Head extends readonly unknown[]> =
  | `${Head["length"]}`
  | `-${S["length"]}`;

/** The axis that I names, from 0; never if there is none. */
type AxisOf<S, I extends number, Head extends readonly 0[] = []> = S extends [unknown, ...infer R]
  ? `${I}` extends NamesOf<S, Head>
    ? Head["length"]
    : AxisOf<R, I, [...Head, 0]>
  : never;

/** Axes that I (a union) names but S lacks. */
type Absent<S, I extends number> = I extends I
  ? [AxisOf<S, I>] extends [never]
    ? I
    : never
  : never;

type NoAxis<Op extends string, S, I extends number> = `${Op}: ${Shown<S>} has no axis ${I}`;

/** S without the axes that I (a union) names, or with 1 in their place. */
type Removed<
  S,
  I extends number,
  Keep,
  Head extends readonly 0[] = [],
  Out extends Dimensions = [],
> = S extends [infer F extends Dimension, ...infer R]
  ? Removed<
      R,
      I,
      Keep,
      [...Head, 0],
      Extract<NamesOf<S, Head>, `${I}`> extends never
        ? [...Out, F]
        : Keep extends true
          ? [...Out, 1]
          : Out
    >
  : Out;

type Ones<S extends Dimensions> = { [K in keyof S]: 1 };

/** I, or `number` where it is one of several: which one is not known then. */
type Lone<I, All = I> = I extends All ? ([All] extends [I] ? I : number) : never;

/** The axes that D (one, a list, or undefined for all) names, as a union; `number` where they are not known. */
type Listing<D, All = D> = D extends readonly number[]
  ? D[number]
  : D extends number
    ? [All] extends [D]
      ? D
      : number
    : never;

/** A reduction. */
export type Reduced<Op extends string, S extends Dimensions, D, Keep> = true extends (
  number extends Listing<D>
    ? true
    : boolean extends Keep
      ? true
      : false
)
  ? Dimensions
  : number extends S["length"]
    ? Dimensions
    : [Listing<D>] extends [never]
      ? Keep extends true
        ? Ones<S>
        : []
      : [Absent<S, Listing<D>>] extends [never]
        ? Removed<S, Listing<D>, Keep>
        : NoAxis<Op, S, Absent<S, Listing<D>>>;

/** S with the dimension of each of the axes P. */
type Picked<S extends Dimensions, P extends readonly number[]> = {
  -readonly [K in keyof P]: S[AxisOf<S, P[K]>];
};

export type Permuted<S extends Dimensions, P extends readonly number[]> = number extends
  | P["length"]
  | P[number]
  ? Dimensions
  : number extends S["length"]
    ? Dimensions
    : [Absent<S, P[number]>] extends [never]
      ? Picked<S, P>["length"] extends S["length"]
        ? Picked<S, P>
        : `permute: all ${S["length"]} axes of ${Shown<S>}, not [${Listed<P>}]`
      : NoAxis<"permute", S, Absent<S, P[number]>>;

export type Transposed<S extends Dimensions, A extends number, B extends number> = number extends
  | Lone<A>
  | Lone<B>
  ? Dimensions
  : number extends S["length"]
    ? Dimensions
    : [Absent<S, A | B>] extends [never]
      ? Exchanged<S, AxisOf<S, A>, AxisOf<S, B>>
      : NoAxis<"transpose", S, Absent<S, A | B>>;

/** The axes in reverse order. */
export type Reversed<S extends Dimensions> = number extends S["length"]
  ? Dimensions
  : S extends [infer F, ...infer R extends Dimensions]
    ? [...Reversed<R>, F]
    : [];

/** The last two axes exchanged. */
export type MatrixTransposed<S extends Dimensions> = S extends [
  ...infer B extends Dimensions,
  infer M extends Dimension,
  infer N extends Dimension,
]
  ? [...B, N, M]
  : Dimensions;

type Exchanged<S extends Dimensions, A extends number, B extends number> = {
  [K in keyof S]: K extends `${A}` ? S[B] : K extends `${B}` ? S[A] : S[K];
};

/** A new axis of size 1; `I` may name the place behind the last. */
export type Unsqueezed<S extends Dimensions, I extends number> =
  number extends Lone<I>
    ? Dimensions
    : number extends S["length"]
      ? Dimensions
      : [AxisOf<[...S, 1], I>] extends [never]
        ? `unsqueeze: ${Shown<S>} has no place ${I}`
        : Inserted<S, AxisOf<[...S, 1], I>>;

type Inserted<S extends Dimensions, At, Head extends Dimensions = []> = Head["length"] extends At
  ? [...Head, 1, ...S]
  : S extends [infer F extends Dimension, ...infer R extends Dimensions]
    ? Inserted<R, At, [...Head, F]>
    : Dimensions;

// --- joining and reshaping -----------------------------------------------------------------------

/** The shapes L joined on axis I, whose size is unknown then; they agree on all others. */
export type Joined<L, I extends number> = L extends readonly [
  infer F extends Dimensions,
  ...infer R,
]
  ? number extends F["length"] | Lone<I>
    ? Dimensions
    : [AxisOf<F, I>] extends [never]
      ? NoAxis<"cat", F, I>
      : JoinedTo<F, R, AxisOf<F, I>>
  : Dimensions;

type JoinedTo<S extends Dimensions, L, At extends number> = L extends [
  infer F extends Dimensions,
  ...infer R,
]
  ? number extends F["length"]
    ? Dimensions
    : F["length"] extends S["length"]
      ? Disagreeing<S, F, At> extends never
        ? JoinedTo<Widened<S, F, At>, R, At>
        : `cat: ${Shown<S>} and ${Shown<F>} differ beside axis ${At}`
      : `cat: ${Shown<S>} and ${Shown<F>} have different numbers of axes`
  : Widened<S, S, At>;

/** The axes other than `At` on which S and F differ. */
type Disagreeing<S extends Dimensions, F extends Dimensions, At extends number> = {
  [K in keyof S]: K extends `${At}`
    ? never
    : K extends keyof F
      ? [Agreed<S[K], F[K]>] extends [never]
        ? K
        : never
      : K;
}[number];

type Widened<S extends Dimensions, F extends Dimensions, At extends number> = {
  [K in keyof S]: K extends `${At}` ? number : K extends keyof F ? Agreed<S[K], F[K]> : S[K];
};

/** The dimension of a size that is given to `reshape`: the name if it was read from a shape, the number if it is literal. */
type Named<N extends number> =
  N extends Size<infer D extends Dimension> ? D : N extends -1 ? number : N;

/** L without its first F. */
type Without<L, F, Head extends readonly unknown[] = []> = L extends [infer G, ...infer R]
  ? [G, F] extends [F, G]
    ? [...Head, ...R]
    : Without<R, F, [...Head, G]>
  : Head;

/** What is left of L when the elements of M are taken away one by one, and 1s. */
type Rest<L, M> = M extends [infer F, ...infer R]
  ? Rest<Without<L, F>, R>
  : L extends [infer F, ...infer R]
    ? F extends 1
      ? Rest<R, []>
      : L
    : [];

type NamedAll<N extends readonly number[]> = { -readonly [K in keyof N]: Named<N[K]> };

/**
 * A reshape. That dimensions are lost or made up is told here; sizes that are multiplied or divided are compared when it runs.
 */
export type Reshaped<S extends Dimensions, N extends readonly number[]> = number extends N["length"]
  ? Dimensions
  : number extends S["length"]
    ? Dimensions
    : number extends S[number] | NamedAll<N>[number]
      ? NamedAll<N>
      : Kept<S, NamedAll<N>, Rest<S, NamedAll<N>>, Rest<NamedAll<N>, S>>;

type Kept<S, M, Lost, New> = Lost extends []
  ? New extends []
    ? M
    : `reshape: ${Shown<S>} has no ${Listed<New>} for ${Shown<M>}`
  : New extends []
    ? `reshape: ${Shown<M>} has no place for ${Listed<Lost>} of ${Shown<S>}`
    : M;

declare const dimension: unique symbol;
/** A size that was read from the shape of a tensor, and is known by name. */
export type Size<D> = number & { readonly [dimension]: D };
/** The `shape` of a tensor of dimensions S. */
export type Sizes<S> = {
  readonly [K in keyof S]: S[K] extends string ? Size<S[K]> : S[K] & number;
};
