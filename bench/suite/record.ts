/** @file A program as a list of operations: what an interpreter in another language, or a writer of a model file, needs. */
import type { Input } from "./inputs.ts";
import type { Ops } from "./ops.ts";
import type { Program } from "./programs.ts";

export interface Recorded {
  readonly op: keyof Ops<unknown>;
  /** The names of its operands: inputs, or "%i" for the result of the i-th operation. */
  readonly of: readonly string[];
  readonly with: readonly unknown[];
}

export interface Recording {
  readonly inputs: Readonly<Record<string, Input>>;
  readonly nodes: readonly Recorded[];
  readonly outputs: readonly string[];
  /** Of inputs and results. */
  readonly shapes: Readonly<Record<string, readonly number[]>>;
}

type Shape = readonly number[];

function broadcast(a: Shape, b: Shape): Shape {
  const [long, short] = a.length >= b.length ? [a, b] : [b, a];
  return long.map((size, i) => Math.max(size, short[i - (long.length - short.length)] ?? 1));
}

const same = (x: Shape): Shape => x;
const put = (x: Shape, axis: number, size: number): Shape => x.with(axis, size);

/** Each operation's result, from the shapes of its operands (one parameter each) and its other arguments. */
// biome-ignore lint/suspicious/noExplicitAny: the arguments of `Ops`, with shapes in place of tensors
const shapeOf: Record<keyof Ops<unknown>, { operands: number; shape: (...args: any[]) => Shape }> =
  {
    matmul: {
      operands: 2,
      shape: (a: Shape, b: Shape, transposed?: boolean) => [
        ...broadcast(a.slice(0, -2), b.slice(0, -2)),
        a.at(-2)!,
        b.at(transposed ? -2 : -1)!,
      ],
    },
    add: { operands: 2, shape: broadcast },
    mul: { operands: 2, shape: broadcast },
    affine: { operands: 1, shape: same },
    gelu: { operands: 1, shape: same },
    silu: { operands: 1, shape: same },
    softmax: { operands: 1, shape: same },
    layerNorm: { operands: 3, shape: same },
    rmsNorm: { operands: 2, shape: same },
    reshape: { operands: 1, shape: (_: Shape, shape: Shape) => shape },
    transpose: { operands: 1, shape: (x: Shape, axes: Shape) => axes.map((i) => x[i]) },
    slice: {
      operands: 1,
      shape: (x: Shape, axis: number, _: number, length: number) => put(x, axis, length),
    },
    concat: {
      operands: 2,
      shape: (a: Shape, b: Shape, axis: number) => put(a, axis, a[axis] + b[axis]),
    },
    mean: { operands: 1, shape: (x: Shape, axis: number) => x.toSpliced(axis, 1) },
    embedding: { operands: 2, shape: (table: Shape, ids: Shape) => [...ids, ...table.slice(1)] },
    attention: { operands: 3, shape: (q: Shape, _: Shape, v: Shape) => put(q, -1, v.at(-1)!) },
    conv2d: {
      operands: 2,
      shape: (x: Shape, w: Shape, stride: number, padding: number) => {
        const side = (i: number): number => Math.floor((x[i] + 2 * padding - w[i]) / stride) + 1;
        return [x[0], w[0], side(2), side(3)];
      },
    },
    crossEntropy: { operands: 2, shape: () => [] },
    sort: { operands: 1, shape: same },
    topk: { operands: 1, shape: (x: Shape, k: number) => put(x, -1, k) },
  };

export function record(program: Program): Recording {
  const nodes: Recorded[] = [];
  const shapes: Record<string, Shape> = {};
  for (const [name, { shape }] of Object.entries(program.inputs)) shapes[name] = shape;
  const ops = Object.fromEntries(
    Object.entries(shapeOf).map(([op, { operands, shape }]) => [
      op,
      (...args: unknown[]) => {
        const of = args.slice(0, operands) as string[];
        const rest = args.slice(operands);
        const name = `%${nodes.length}`;
        nodes.push({ op: op as keyof Ops<unknown>, of, with: rest });
        shapes[name] = shape(...of.map((x) => shapes[x]), ...rest);
        return name;
      },
    ]),
  ) as unknown as Ops<string>;
  const names = Object.fromEntries(Object.keys(program.inputs).map((name) => [name, name]));
  return { inputs: program.inputs, nodes, outputs: program.forward(ops, names), shapes };
}
