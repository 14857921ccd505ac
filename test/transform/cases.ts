/**
 * One or more small programs per primitive, with inputs away from kinks: what the laws are checked
 * on.
 */
import type { DType } from "../../core/dtype.ts";
import * as b from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { constant, type Primitive } from "../../core/graph/primitives.ts";
import { numel, type Shape } from "../../core/shape.ts";
import { regionNodes } from "../../core/transform/region.ts";
import type { Fn, Input } from "./laws.ts";

/** A domain for random values: floats in [lo, hi), integers lo … hi-1. */
export interface Domain {
  readonly shape: Shape;
  readonly dtype?: DType;
  readonly lo?: number;
  readonly hi?: number;
}

export interface Case {
  readonly name?: string;
  readonly inputs: readonly Domain[];
  readonly f: Fn;
}

export function sample(
  { shape, dtype = "f32", lo = -2, hi = 2 }: Domain,
  next: () => number,
): Input {
  const one = () => {
    const v = lo + next() * (hi - lo);
    if (dtype === "bool") return next() < 0.5 ? 0 : 1;
    return dtype === "f32" ? v : Math.floor(v);
  };
  return { shape, dtype, data: Array.from({ length: numel(shape) }, one) };
}

const pairs: readonly (readonly [Shape, Shape])[] = [
  [
    [2, 3],
    [2, 3],
  ],
  [[2, 3], [3]],
  [
    [2, 1],
    [1, 3],
  ],
  [[], [2, 2]],
  [[2], []],
  [[0, 3], [1]],
  [[3], [2, 1, 3]],
];

const unary = (f: (x: Node) => Node, domain: Partial<Domain> = {}): Case[] =>
  ([[2, 3], [], [0, 2], [1]] as Shape[]).map((shape) => ({
    name: `[${shape}]`,
    inputs: [{ ...domain, shape }],
    f: ([x]) => [f(x)],
  }));

const binary = (
  f: (x: Node, y: Node) => Node,
  first: Partial<Domain> = {},
  second: Partial<Domain> = first,
): Case[] =>
  pairs.map(([x, y]) => ({
    name: `[${x}] [${y}]`,
    inputs: [
      { ...first, shape: x },
      { ...second, shape: y },
    ],
    f: ([p, q]) => [f(p, q)],
  }));

const ints = { dtype: "i32", lo: -9, hi: 9 } as const;
/** A start. */
const at = (lo: number, hi: number): Domain => ({ shape: [], dtype: "i32", lo, hi });
const positive = { lo: 0.5, hi: 2 } as const;
const one = (shape: Shape, f: (x: Node) => Node, domain: Partial<Domain> = {}): Case => ({
  inputs: [{ ...domain, shape }],
  f: ([x]) => [f(x)],
});

const reductions = (f: (x: Node, axes: number[]) => Node): Case[] => [
  one([2, 3], (x) => f(x, [1])),
  one([2, 3, 2], (x) => f(x, [0, 2])),
  one([2, 3], (x) => f(x, [0, 1])),
  one([2, 1], (x) => f(x, [1])),
];

/** Two exponentials of a sum: a custom region with two results and a shared source. */
const twoResults = ([x, y]: Node[]): Node[] => [b.exp(b.mul(x, y)), b.add(x, b.sin(y))];

export const cases: Partial<Record<Primitive, readonly Case[]>> = {
  neg: unary(b.neg),
  abs: [...unary(b.abs, positive), ...unary(b.abs, { lo: -2, hi: -0.5 })],
  exp: unary(b.exp),
  log: unary(b.log, positive),
  sin: unary(b.sin),
  cos: unary(b.cos),
  sqrt: unary(b.sqrt, positive),
  tanh: unary(b.tanh),
  erf: unary(b.erf),
  floor: unary((x) => b.floor(x), { lo: 0.1, hi: 0.9 }),
  round: unary((x) => b.round(x), { lo: 0.6, hi: 1.4 }),
  not: [...unary(b.not, ints), ...unary(b.not, { dtype: "bool" })],
  add: binary(b.add),
  sub: binary(b.sub),
  mul: binary(b.mul),
  div: binary(b.div, {}, positive),
  idiv: binary(b.idiv, ints, { dtype: "i32", lo: 1, hi: 5 }),
  rem: binary(b.rem, { lo: -7.9, hi: -7.1 }, { lo: 2.7, hi: 3.5 }),
  pow: [
    ...binary(b.pow, positive, {}),
    one([3], (x) => b.pow(x, b.scalarLike(x, 3))),
    one([3], (x) => b.pow(x, b.scalarLike(x, 2))),
    one([3], (x) => b.pow(x, b.scalarLike(x, 1))),
    one([3], (x) => b.pow(x, b.scalarLike(x, 0))),
    one([3], (x) => b.pow(x, b.scalarLike(x, -0.5)), positive),
  ],
  max: [...binary(b.max), ...binary(b.max, ints)],
  min: binary(b.min),
  lt: binary(b.lt),
  le: binary(b.le, ints),
  eq: binary(b.eq, ints),
  and: binary(b.and, ints),
  or: binary(b.or, { dtype: "bool" }),
  xor: binary(b.xor, ints),
  shl: binary(b.shl, ints, { dtype: "i32", lo: 0, hi: 8 }),
  shr: binary(b.shr, ints, { dtype: "i32", lo: 0, hi: 8 }),
  where: pairs.map(([x, y]) => ({
    inputs: [{ shape: y, dtype: "bool" }, { shape: x }, { shape: y }],
    f: ([c, p, q]) => [b.where(c, p, q)],
  })),
  cast: [
    ...unary((x) => b.cast(x, "i32"), { lo: 1.1, hi: 1.9 }),
    ...unary((x) => b.cast(x, "f32"), ints),
  ],
  bitcast: unary((x) => b.bitcast(x, "u32"), ints),
  reshape: [one([2, 3], (x) => b.reshape(x, [3, 1, 2])), one([1], (x) => b.reshape(x, []))],
  permute: [one([2, 3, 1], (x) => b.permute(x, [2, 0, 1]))],
  expand: [
    one([3], (x) => b.expand(x, [2, 3])),
    one([2, 1], (x) => b.expand(x, [4, 2, 3])),
    one([], (x) => b.expand(x, [2])),
    one([1], (x) => b.expand(x, [0])),
  ],
  pad: [one([2, 3], (x) => b.pad(x, [1, 0], [0, 2], 7)), one([0], (x) => b.pad(x, [1], [1], 3))],
  window: [
    one([7], (x) => b.window(x, 0, 3)),
    one([9, 2], (x) => b.window(x, 0, 3, 2)),
    one([2, 8], (x) => b.window(x, 1, 2, 3, 3)),
    one([2, 11], (x) => b.window(x, 1, 3, 2, 2)),
    one([2, 5, 6], (x) => b.window(b.window(x, 1, 2), 2, 3, 2)),
    one([6], (x) => b.window(x, 0, 2, 5)),
  ],
  slice: [
    one([4, 5], (x) => b.slice(x, [1, 0], [2, 3])),
    one([5, 7], (x) => b.slice(x, [1, 0], [2, 3], [2, 3])),
    one([5, 7], (x) => b.slice(x, [0, 2], [3, 2], [2, 4])),
    one([3, 8], (x) => b.slice(x, [3, 1], [0, 3], [2, 3])),
  ],
  flip: [one([2, 3], (x) => b.flip(x, [1])), one([2, 3, 2], (x) => b.flip(x, [0, 2]))],
  concat: [
    {
      inputs: [{ shape: [2, 1] }, { shape: [2, 3] }, { shape: [2, 0] }],
      f: ([x, y, z]) => [b.concat([x, y, z, x], 1)],
    },
  ],
  sum: [...reductions(b.sum), one([2, 0], (x) => b.sum(x, [1]))],
  prod: [
    ...reductions(b.prod),
    one([2, 0], (x) => b.prod(x, [1])),
    one([5], (x) => b.prod(x, [0])),
  ],
  amax: reductions(b.amax),
  amin: reductions(b.amin),
  argmax: [one([2, 3], (x) => b.argmax(x, 1)), one([2, 3], (x) => b.argmax(x, 0), ints)],
  dot: [
    { inputs: [{ shape: [2, 2, 3] }, { shape: [2, 3, 2] }], f: ([x, y]) => [b.dot(x, y)] },
    { inputs: [{ shape: [1, 2, 3] }, { shape: [1, 3, 4] }], f: ([x, y]) => [b.dot(x, y)] },
    { inputs: [{ shape: [2, 1, 0] }, { shape: [2, 0, 2] }], f: ([x, y]) => [b.dot(x, y)] },
    { inputs: [{ shape: [1, 2, 2] }], f: ([x]) => [b.dot(x, x)] },
  ],
  gather: [
    {
      inputs: [{ shape: [4, 2] }, { shape: [3, 2], dtype: "i32", lo: 0, hi: 4 }],
      f: ([x, i]) => [b.gather(x, i, 0)],
    },
    {
      inputs: [{ shape: [2, 3] }, { shape: [2, 5], dtype: "i32", lo: 0, hi: 3 }],
      f: ([x, i]) => [b.gather(x, i, 1)],
    },
  ],
  scatterAdd: [
    {
      inputs: [{ shape: [3, 2], dtype: "i32", lo: 0, hi: 4 }, { shape: [3, 2] }],
      f: ([i, x]) => [b.scatterAdd(i, x, 0, 4)],
    },
    {
      inputs: [{ shape: [2, 5], dtype: "i32", lo: 0, hi: 3 }, { shape: [2, 5] }],
      f: ([i, x]) => [b.scatterAdd(i, x, 1, 3)],
    },
  ],
  dynamicSlice: [
    {
      inputs: [{ shape: [5, 4] }, at(-2, 7), at(0, 3)],
      f: ([x, i, j]) => [b.dynamicSlice(x, [i, j], [2, 3])],
    },
    {
      inputs: [{ shape: [3, 4] }, at(0, 4)],
      f: ([x, i]) => [b.dynamicSlice(b.sin(x), [constant(1, "i32"), i], [2, 4])],
    },
    { inputs: [{ shape: [4] }, at(0, 9)], f: ([x, i]) => [b.dynamicSlice(x, [i], [0])] },
    { inputs: [{ shape: [4], ...ints }, at(0, 9)], f: ([x, i]) => [b.dynamicSlice(x, [i], [1])] },
  ],
  dynamicUpdateSlice: [
    {
      inputs: [{ shape: [5, 4] }, { shape: [2, 3] }, at(-2, 7), at(0, 3)],
      f: ([x, u, i, j]) => [b.dynamicUpdateSlice(x, u, [i, j])],
    },
    {
      inputs: [{ shape: [3, 4] }, at(0, 4)],
      f: ([x, i]) => [b.dynamicUpdateSlice(x, b.slice(x, [0, 0], [1, 4]), [i, i])],
    },
    {
      inputs: [{ shape: [4] }, { shape: [0] }, at(0, 9)],
      f: ([x, u, i]) => [b.dynamicUpdateSlice(x, u, [i])],
    },
    {
      inputs: [{ shape: [4], ...ints }, { shape: [2], ...ints }, at(0, 9)],
      f: ([x, u, i]) => [b.dynamicUpdateSlice(x, u, [i])],
    },
  ],
  cumulative: (["sum", "prod", "max", "min"] as const).flatMap((combine) =>
    [false, true].flatMap((reverse) => [
      one([2, 5], (x) => b.cumulative(x, 1, combine, reverse)),
      one([4, 3], (x) => b.cumulative(x, 0, combine, reverse)),
      one([2, 3, 2], (x) => b.cumulative(x, 1, combine, reverse)),
      one([1], (x) => b.cumulative(x, 0, combine, reverse)),
      one([2, 0], (x) => b.cumulative(x, 1, combine, reverse)),
      one([7], (x) => b.cumulative(x, 0, combine, reverse), ints),
    ]),
  ),
  argsort: [false, true].flatMap((descending) => [
    one([2, 5], (x) => b.argsort(x, 1, descending)),
    one([4, 3], (x) => b.argsort(x, 0, descending), ints),
    one([2, 0], (x) => b.argsort(x, 1, descending)),
    one([9], (x) => b.gather(x, b.argsort(x, 0, descending), 0)),
  ]),
  alias: unary(b.alias),
  detach: [one([2], (x) => b.detach(b.detach(x)))],
  assign: [{ inputs: [{ shape: [2] }], f: ([x]) => [b.assign(x, b.mul(x, x))] }],
  region: [
    {
      name: "custom",
      inputs: [{ shape: [2] }, { shape: [2, 2] }],
      f: (xs) => regionNodes("custom", "two", twoResults, xs),
    },
    {
      name: "one source twice",
      inputs: [{ shape: [2] }],
      f: ([x]) => regionNodes("custom", "two", twoResults, [x, x]),
    },
    {
      name: "checkpoint",
      inputs: [{ shape: [2] }, { shape: [] }],
      f: (xs) => regionNodes("checkpoint", "checkpoint", twoResults, xs),
    },
    {
      name: "captures",
      inputs: [{ shape: [2] }, { shape: [2] }],
      f: ([x, y]) => {
        const z = b.mul(x, y);
        return regionNodes("checkpoint", "checkpoint", ([p]) => [b.sin(b.mul(p, z))], [x]);
      },
    },
  ],
  project: [
    {
      inputs: [{ shape: [2] }, { shape: [2] }],
      f: (xs) => [regionNodes("custom", "two", twoResults, xs)[1]],
    },
  ],
};
