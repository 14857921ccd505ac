/**
 * @file How each primitive acts on a batch: one exhaustive table. The batch axis is always in
 * front.
 *
 * A rule gets at least one batched source and returns the batched result. Most only shift their
 * axes; the work is in the contraction, which folds the new axis into one it has. vmap.ts walks,
 * region.ts has the regions.
 */
import { describe, TransformError } from "../errors.ts";
import * as b from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { node, type Primitive } from "../graph/primitives.ts";
import { batchSlice, batchUpdate } from "./dynamic.ts";

export interface Batched {
  readonly node: Node;
  /** Whether the node's first axis is the batch. */
  readonly batched: boolean;
}

export interface VmapOptions {
  /** What random leaves inside do: refuse, draw once for all elements, or draw for each. */
  readonly randomness: "error" | "same" | "different";
  /** Random leaves with an id from here on belong to the function. */
  readonly since: number;
}

/** vmap.ts's walk, with any values for the nodes in `env`. */
export type BatchWalker = (
  outputs: readonly Node[],
  env: ReadonlyMap<Node, Batched>,
  size: number,
  options: VmapOptions,
) => Batched[];

export type BatchRule<P extends Primitive = Primitive> = (
  n: Node<P>,
  src: readonly Batched[],
  size: number,
) => Node;

/** A primitive that the walker itself handles. */
type Elsewhere = "leaf" | "region";

/** The value with the batch axis in front; repeats (as a view) what is the same for all. */
export const inFront = (x: Batched, size: number): Node =>
  x.batched ? x.node : b.expand(x.node, [size, ...x.node.shape]);

/** Broadcasting aligns right, so a batched source of lower rank needs the axes that it lacks. */
const withRank = (x: Batched, rank: number): Node => {
  if (!x.batched) return x.node;
  const [size, ...shape] = x.node.shape;
  return b.reshape(x.node, [size, ...new Array(rank - shape.length).fill(1), ...shape]);
};

const elementwise: BatchRule = (n, src) =>
  node(
    n.op,
    src.map((x) => withRank(x, n.shape.length)),
    n.attrs,
  );

const shifted = (axes: readonly number[]): number[] => axes.map((a) => a + 1);

/** The same operation, its attributes moved past the batch axis. */
const shift =
  <P extends Primitive>(attrs: (n: Node<P>, size: number) => Node<P>["attrs"]): BatchRule<P> =>
  (n, src, size) =>
    node(
      n.op,
      src.map((x) => inFront(x, size)),
      attrs(n, size),
    );

const shiftAxes = shift<"sum" | "prod" | "amax" | "amin" | "flip">(({ attrs }) => ({
  axes: shifted(attrs.axes),
}));

const dot: BatchRule<"dot"> = (n, [x, y], size) => {
  const [rows, ...rest] = n.shape;
  // One matrix for all: the batch is only more rows, and the matrix stays one.
  if (!y.batched && rows === 1) {
    const [, , m, k] = x.node.shape;
    const tall = b.dot(b.reshape(x.node, [1, size * m, k]), y.node);
    return b.reshape(tall, [size, ...n.shape]);
  }
  const merged = (s: Batched) => {
    const all = inFront(s, size);
    return b.reshape(all, [size * rows, ...all.shape.slice(2)]);
  };
  return b.reshape(b.dot(merged(x), merged(y)), [size, rows, ...rest]);
};

export const batchRules = {
  constant: "leaf",
  buffer: "leaf",
  placeholder: "leaf",
  iota: "leaf",
  random: "leaf",

  neg: elementwise,
  abs: elementwise,
  exp: elementwise,
  log: elementwise,
  sin: elementwise,
  cos: elementwise,
  sqrt: elementwise,
  tanh: elementwise,
  erf: elementwise,
  floor: elementwise,
  round: elementwise,
  not: elementwise,
  add: elementwise,
  sub: elementwise,
  mul: elementwise,
  div: elementwise,
  idiv: elementwise,
  rem: elementwise,
  pow: elementwise,
  max: elementwise,
  min: elementwise,
  lt: elementwise,
  le: elementwise,
  eq: elementwise,
  and: elementwise,
  or: elementwise,
  xor: elementwise,
  shl: elementwise,
  shr: elementwise,
  where: elementwise,
  cast: elementwise,
  bitcast: elementwise,

  reshape: shift(({ attrs }, size) => ({ shape: [size, ...attrs.shape] })),
  permute: shift(({ attrs }) => ({ axes: [0, ...shifted(attrs.axes)] })),
  expand: (n, [x], size) => b.expand(withRank(x, n.shape.length), [size, ...n.shape]),
  pad: shift(({ attrs: { lo, hi, value } }) => ({ lo: [0, ...lo], hi: [0, ...hi], value })),
  slice: shift(({ attrs: { start, size, step } }, count) => ({
    start: [0, ...start],
    size: [count, ...size],
    step: [1, ...step],
  })),
  window: shift(({ attrs }) => ({ ...attrs, axis: attrs.axis + 1 })),
  flip: shiftAxes,
  concat: shift(({ attrs: { axis } }) => ({ axis: axis + 1 })),

  sum: shiftAxes,
  prod: shiftAxes,
  amax: shiftAxes,
  amin: shiftAxes,
  argmax: shift(({ attrs: { axis } }) => ({ axis: axis + 1 })),
  dot,
  gather: shift(({ attrs: { axis } }) => ({ axis: axis + 1 })),
  scatterAdd: shift(({ attrs: { axis, size } }) => ({ axis: axis + 1, size })),
  dynamicSlice: (n, [x, ...starts], size) => batchSlice(n, inFront(x, size), starts),
  dynamicUpdateSlice: (n, [x, update, ...starts], size) =>
    batchUpdate(n, inFront(x, size), inFront(update, size), starts),

  cumulative: shift(({ attrs }) => ({ ...attrs, axis: attrs.axis + 1 })),
  argsort: shift(({ attrs }) => ({ ...attrs, axis: attrs.axis + 1 })),

  alias: (_, [x]) => b.alias(x.node),
  detach: shift(({ attrs }) => attrs),
  assign: (n, [target, value], size) => {
    if (!target.batched)
      throw new TransformError(
        describe(
          "vmap",
          "assignments of values that are the same for every element",
          `a value that differs per element, for unbatched state ${n.dtype}[${n.shape.join(", ")}]`,
          "return the value from the function and reduce it outside",
        ),
      );
    return b.assign(target.node, inFront(value, size));
  },
  region: "region",
  project: "region",
} satisfies { readonly [P in Primitive]: BatchRule<P> | Elsewhere };
