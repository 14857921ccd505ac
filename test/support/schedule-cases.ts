/**
 * @file Small graphs of maps and rows in all shapes that GPU schedules tell apart: sizes around every boundary, operands
 * that repeat, are turned, shifted or looked up, all dtypes, several results and several phases.
 */
import { type DType, dtypes, isFloat } from "../../core/dtype.ts";
import * as g from "../../core/graph/build.ts";
import { is, type Node } from "../../core/graph/node.ts";
import { constant, node, type Primitive, placeholder } from "../../core/graph/primitives.ts";
import { topological } from "../../core/graph/walk.ts";
import { numel } from "../../core/shape.ts";
import { generator, type RandomGraph } from "./graphs.ts";

export const leaf = (shape: readonly number[], dtype: DType = "f32"): Node<"placeholder"> =>
  placeholder(dtype, shape, "wasm");

/** `limits`: below what the values of integer inputs must be. */
export interface Case {
  readonly outputs: readonly Node[];
  readonly limits?: ReadonlyMap<Node, number>;
}

export const inputsOf = (outputs: readonly Node[]): Node<"placeholder">[] =>
  topological([...outputs]).filter((n) => is(n, "placeholder"));

export function graphOf({ outputs, limits }: Case, seed: number): RandomGraph {
  const inputs = inputsOf(outputs);
  const next = generator(seed);
  const data = inputs.map(({ dtype, shape }, at) => {
    const values = new dtypes[dtype].array(numel(shape));
    const limit = limits?.get(inputs[at]) ?? (dtype === "bool" ? 2 : 9);
    const low = dtypes[dtype].signed && !limits?.has(inputs[at]) ? 4 : 0;
    for (let i = 0; i < values.length; i++)
      values[i] = isFloat(dtype)
        ? Math.round((next() * 8 - 4) * 16) / 16
        : Math.floor(next() * limit) - low;
    return values;
  });
  return { inputs, data, randoms: [], words: new Uint32Array(0), outputs: [...outputs] };
}

export const kept = (x: Node, axis: number): number[] =>
  x.shape.map((d, i) => (i === axis ? 1 : d));

export function softmax(x: Node, axis: number): Node {
  const e = g.exp(g.sub(x, g.reshape(g.amax(x, [axis]), kept(x, axis))));
  return g.div(e, g.reshape(g.sum(e, [axis]), kept(x, axis)));
}

export function layerNorm(x: Node, gamma: Node, beta: Node): Node {
  const axis = x.shape.length - 1;
  const size = constant(x.shape[axis], "f32");
  const mean = g.reshape(g.div(g.sum(x, [axis]), size), kept(x, axis));
  const d = g.sub(x, mean);
  const variance = g.reshape(g.div(g.sum(g.mul(d, d), [axis]), size), kept(x, axis));
  const scale = g.sqrt(g.add(variance, constant(1e-5, "f32")));
  return g.add(g.mul(g.div(d, scale), gamma), beta);
}

const of = (...outputs: Node[]): Case => ({ outputs });
const numbers = ["f32", "f16", "bf16", "i32", "u32", "i8", "u8"] as const;

export function* elementwise(sizes: readonly number[]): Generator<Case> {
  for (const n of sizes) {
    yield of(g.exp(leaf([n])));
    for (const dtype of numbers) {
      const [x, y] = [leaf([n], dtype), leaf([n], dtype)];
      yield of(g.add(x, y), node("lt", [x, y]));
    }
    yield of(node("xor", [leaf([n], "bool"), leaf([n], "bool")]));
  }
}

export function* broadcasts(shapes: readonly (readonly [number, number])[]): Generator<Case> {
  for (const [n, m] of shapes) {
    yield of(g.add(g.mul(leaf([n, m]), leaf([m])), leaf([n, 1])));
    yield of(g.add(leaf([n, 1]), leaf([1, m])), node("lt", [leaf([n, 1]), leaf([m])]));
  }
}

export function* transposes(shapes: readonly (readonly [number, number])[]): Generator<Case> {
  for (const [n, m] of shapes) {
    for (const dtype of ["f32", "f16", "u8", "bool"] as const) {
      const turned = g.permute(leaf([n, m], dtype), [1, 0]);
      const direct = leaf([m, n], dtype);
      yield of(dtype === "bool" ? node("xor", [turned, direct]) : g.add(turned, direct));
    }
    const turn = (v: Node) => g.permute(v, [0, 2, 1]);
    const [x, y] = [leaf([2, n, m]), leaf([2, n, m])];
    yield of(g.mul(g.exp(turn(x)), turn(y)), node("lt", [turn(x), turn(y)]));
    // Two results, one of them along the other axis.
    yield of(g.mul(turn(x), constant(2, "f32")), g.exp(y));
  }
}

export function* movements(sizes: readonly number[]): Generator<Case> {
  for (const n of sizes) {
    const x = leaf([n, 12]);
    yield of(node("pad", [x], { lo: [1, 2], hi: [0, 3], value: -1.5 }));
    yield of(g.add(node("flip", [x], { axes: [1] }), x));
    const slice = node("slice", [x], { start: [0, 1], size: [n, 5], step: [1, 2] });
    yield of(g.window(x, 1, 3, 2, 1), slice);
    yield of(g.concat([x, leaf([n, 5]), x], 1), g.concat([leaf([3, 12]), x], 0));
    const index = leaf([n, 12], "i32");
    yield { outputs: [g.gather(x, index, 0)], limits: new Map([[index, n]]) };
    yield of(g.mul(node("iota", [], { length: n }), leaf([n], "i32")));
  }
}

const reductions: Primitive[] = ["sum", "amax", "amin"];

export function* reduces(shapes: readonly (readonly [number, number])[]): Generator<Case> {
  for (const shape of shapes) {
    const x = leaf(shape);
    for (const axes of [[0], [1], [0, 1]])
      yield of(...reductions.map((op) => node(op as "sum", [g.mul(x, x)], { axes })));
    for (const axis of [0, 1]) yield of(node("argmax", [x], { axis }));
  }
}

export function* reducesOfAxes(shapes: readonly (readonly number[])[]): Generator<Case> {
  for (const shape of shapes) {
    const x = leaf(shape);
    for (const axes of [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]])
      yield of(g.sum(x, axes), g.sum(g.permute(x, [2, 0, 1]), axes));
  }
}

export function* reducesOfTypes(
  n: number,
  m: number,
  types: readonly DType[] = numbers,
): Generator<Case> {
  for (const dtype of types)
    for (const axis of [0, 1]) {
      const x = leaf([n, m], dtype);
      yield of(g.amax(x, [axis]), node("argmax", [x], { axis }));
      if (dtype !== "i8" && dtype !== "u8") yield of(g.sum(x, [axis]));
    }
  // NaN wins.
  for (const axis of [0, 1]) {
    const x = leaf([n, m]);
    const holes = node("where", [node("lt", [x, constant(3.9, "f32")]), x, constant(NaN, "f32")]);
    yield of(g.amax(holes, [axis]), g.amin(holes, [axis]), node("argmax", [holes], { axis }));
  }
}

/** Rows that several workgroups share, one phase and two. */
export function* longRows(shapes: readonly (readonly number[])[]): Generator<Case> {
  for (const shape of shapes) {
    const x = leaf(shape);
    const axis = shape.indexOf(Math.max(...shape));
    yield of(g.sum(x, [axis]));
    yield of(node("argmax", [x], { axis }));
    const mean = g.div(g.sum(x, [axis]), constant(shape[axis], "f32"));
    const d = g.sub(x, g.reshape(mean, kept(x, axis)));
    yield of(g.sum(g.mul(d, d), [axis]), mean);
  }
}

export function* rows(sizes: readonly number[]): Generator<Case> {
  for (const n of sizes) {
    for (const m of n < 300 ? [1, 5, 64] : [3]) {
      yield of(softmax(leaf([m, n]), 1));
      yield of(softmax(leaf([n, m]), 0));
    }
    yield of(layerNorm(leaf([7, n]), leaf([n]), leaf([n])));
    const label = leaf([7, 1], "i32");
    const loss = g.neg(g.log(g.gather(softmax(leaf([7, n]), 1), label, 1)));
    yield { outputs: [g.sum(loss, [0, 1])], limits: new Map([[label, n]]) };
    for (const axis of [0, 1]) {
      const x = leaf(axis === 0 ? [n, 9] : [9, n]);
      const top = g.reshape(g.amax(x, [axis]), kept(x, axis));
      const d = g.sub(x, top);
      yield of(node("lt", [x, top]), d, g.sum(g.exp(d), [axis]), node("argmax", [x], { axis }));
    }
  }
}
