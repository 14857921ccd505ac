/**
 * @file einops patterns, read by the type checker: "b t (h d) -> b h t d" of a shape is a shape or a message. Nothing here
 * exists at run time; ops/einops.ts checks every pattern when it runs.
 *
 * What becomes of an axis that is split is remembered: "D" by "(h d)" gives the dimensions "D(h d).h" and "D(h d).d", and
 * whoever joins both in this order has "D" again.
 */
import type { Size } from "./shape-axes.ts";
import type { Dimension, Dimensions, Shown } from "./shape-types.ts";

type Axes = string[];
/** The axes of a side: one per word, several per parenthesis, none for 1. */
type Side = Axes[];

type Words<T extends string, Out extends Axes = []> = T extends ""
  ? Out
  : T extends ` ${infer R}`
    ? Words<R, Out>
    : T extends `${infer W} ${infer R}`
      ? Words<R, W extends "1" ? Out : [...Out, W]>
      : T extends "1"
        ? Out
        : [...Out, T];

type Read<T extends string, Out extends Side = []> = T extends ""
  ? Out
  : T extends ` ${infer R}`
    ? Read<R, Out>
    : T extends `(${infer G})${infer R}`
      ? Read<R, [...Out, Words<G>]>
      : T extends `(${string}`
        ? [...Out, [T]]
        : T extends `${infer W} ${infer R}`
          ? W extends `${infer V}(${infer Q}`
            ? Read<`(${Q} ${R}`, [...Out, Words<V>]>
            : Read<R, [...Out, Words<W>]>
          : T extends `${infer V}(${infer Q}`
            ? Read<`(${Q}`, [...Out, Words<V>]>
            : [...Out, Words<T>];

/** The dimension that an axis of a pattern has by itself: of a number, or of a size that is given as a literal. */
type Given<N extends string, Z> = N extends `${infer V extends number}`
  ? V
  : N extends keyof Z
    ? Z[N] extends Size<Dimension>
      ? null
      : Z[N] extends number
        ? number extends Z[N]
          ? null
          : Z[N]
        : null
    : null;

type Labels<G, Z> = G extends [infer N extends string]
  ? Label<N, Z>
  : G extends [infer N extends string, ...infer R]
    ? `${Label<N, Z>} ${Labels<R, Z>}`
    : "";
type Label<N extends string, Z> = Given<N, Z> extends infer V extends number ? `${V}` : N;

/** Dimensions of the axes of one group on the left: they split D. */
type Split<G extends Axes, D extends Dimension, Z> = {
  [N in G[number]]: Given<N, Z> extends infer V extends number
    ? V
    : number extends D
      ? number
      : `${D}(${Labels<G, Z>}).${N}`;
};

/** Which dimension each axis of the left side is; "..." stands for a list. Null if the shape does not fit. */
type Bound<L, S, Z, M = unknown> = L extends [infer G extends Axes, ...infer R]
  ? G extends ["..."]
    ? BoundBehind<R, S, Z, M>
    : S extends [infer D extends Dimension, ...infer Rest]
      ? G extends []
        ? D extends 1
          ? Bound<R, Rest, Z, M>
          : number extends D
            ? Bound<R, Rest, Z, M>
            : null
        : Bound<
            R,
            Rest,
            Z,
            M & (G extends [infer N extends string] ? { [K in N]: D } : Split<G, D, Z>)
          >
      : null
  : S extends []
    ? M
    : null;

type BoundBehind<R, S, Z, M> = R extends [...infer First, infer G extends Axes]
  ? S extends [...infer Rest, infer D extends Dimension]
    ? Bound<[G], [D], Z, M> extends infer N
      ? N extends null
        ? null
        : BoundBehind<First, Rest, Z, N>
      : never
    : null
  : M & { "...": S };

/** D = "W(P).n" or a number for each of the dimensions: W, if they are all the parts. */
type Labelled<L, W extends string, P extends string> = L extends [infer D]
  ? LabelIn<D, W, P>
  : L extends [infer D, ...infer R]
    ? `${LabelIn<D, W, P>} ${Labelled<R, W, P>}`
    : "";
type LabelIn<D, W extends string, P extends string> = D extends `${W}(${P}).${infer N}`
  ? N
  : D extends number
    ? `${D}`
    : "?";

/** A dimension that is part of another. */
type Part = `${string}(${string}).${string}`;

/** The dimension of joined axes: what was split, else the product, which has a name if no size is a number. */
type Whole<L extends Dimensions> = [Extract<L[number], Part>] extends [never]
  ? Joined<L>
  : Extract<L[number], Part> extends `${infer W}(${infer P}).${string}`
    ? Labelled<L, W, P> extends P
      ? W extends `${infer V extends number}`
        ? V
        : W
      : Joined<L>
    : Joined<L>;

type Joined<L extends Dimensions> = Extract<L[number], number> extends never ? Times<L> : number;
type Times<L> = L extends [infer D extends Dimension]
  ? `${D}`
  : L extends [infer D extends Dimension, ...infer R]
    ? `${D}*${Times<R>}`
    : "";

/** The dimension of an axis of the right side. */
type Found<N extends string, M, Z> = N extends keyof M
  ? M[N] & Dimension
  : Given<N, Z> extends infer V extends number
    ? V
    : number;

type Group<G extends Axes, M, Z> = { [K in keyof G]: Found<G[K], M, Z> };

type Built<R, M, Z, Out extends Dimensions = []> = R extends [infer G extends Axes, ...infer Rest]
  ? Built<
      Rest,
      M,
      Z,
      G extends []
        ? [...Out, 1]
        : G extends ["..."]
          ? [...Out, ...(M extends { "...": infer D extends Dimensions } ? D : Dimensions)]
          : G extends [infer N extends string]
            ? [...Out, Found<N, M, Z>]
            : [...Out, Whole<Group<G, M, Z>>]
    >
  : Out;

type Lacking<A extends Side, B extends Side> = Exclude<A[number][number], B[number][number]>;

/** A group of several axes with "..." among them: what it joins has no fixed length. */
type Loose<G> = G extends ["..."]
  ? never
  : G extends Axes
    ? "..." extends G[number]
      ? G
      : never
    : never;

/** What the sides must share. */
type Faults<Op, L extends Side, R extends Side> = Op extends "rearrange"
  ? Lacking<L, R> | Lacking<R, L>
  : Op extends "reduce"
    ? Lacking<R, L>
    : Lacking<L, R>;

/** A pattern applied to the shape S, with the sizes Z. */
export type Arranged<
  Op extends string,
  S extends Dimensions,
  P extends string,
  Z,
> = string extends P
  ? Dimensions
  : number extends S["length"]
    ? Dimensions
    : P extends `${infer A}->${infer B}`
      ? Matched<Op, S, A, Read<A>, Read<B>, Z>
      : `${Op}: a pattern has two sides and "->" between them`;

type Matched<
  Op extends string,
  S extends Dimensions,
  A extends string,
  L extends Side,
  R extends Side,
  Z,
> = [Loose<L[number] | R[number]>] extends [never]
  ? [Faults<Op, L, R>] extends [never]
    ? Bound<L, S, Z> extends infer M
      ? M extends null
        ? `${Op}: ${Shown<S>} does not fit "${A}->"`
        : Built<R, M, Z>
      : never
    : `${Op}: '${Faults<Op, L, R>}' is on one side only`
  : Dimensions;

/** The axes that a size may be given for. */
export type AxisNames<P extends string> = string extends P
  ? string
  : P extends `${infer A}->${infer B}`
    ? Exclude<
        (Read<A> & Side)[number][number] | (Read<B> & Side)[number][number],
        "..." | `${number}`
      >
    : never;
