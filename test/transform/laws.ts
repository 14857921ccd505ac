/**
 * The laws that every differentiable, batchable function obeys, checked for a function on nodes and
 * one set of inputs: gradient = finite differences, jvp = vjpᵀ, the same one order higher, vmap(f)
 * = stack of f. All in float64.
 */
import { expect } from "vitest";
import { evaluate } from "../../core/backend/reference.ts";
import { type DType, isFloat } from "../../core/dtype.ts";
import * as b from "../../core/graph/build.ts";
import { type Node, peekId } from "../../core/graph/node.ts";
import { placeholder } from "../../core/graph/primitives.ts";
import { numel, type Shape } from "../../core/shape.ts";
import { tangents } from "../../core/transform/jvp.ts";
import { gradients } from "../../core/transform/vjp.ts";
import { batch } from "../../core/transform/vmap.ts";

export interface Input {
  readonly shape: Shape;
  readonly dtype: DType;
  readonly data: readonly number[];
}

export type Fn = (xs: Node[]) => Node[];

/** mulberry32: small, seeded, good enough for test data. */
export function randomNumbers(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export const param = (x: { shape: Shape; dtype: DType }): Node<"placeholder"> =>
  placeholder(x.dtype, x.shape, null);

export const run = (
  outputs: readonly Node[],
  feeds: readonly (readonly [Node, ArrayLike<number>])[],
): Float64Array[] => evaluate(outputs, new Map(feeds), { round: false });

export const apply = (f: Fn, inputs: readonly Input[]): Float64Array[] => {
  const ps = inputs.map(param);
  return run(
    f(ps),
    ps.map((p, i) => [p, inputs[i].data]),
  );
};

const inner = (a: ArrayLike<number>, c: ArrayLike<number>): number => {
  let s = 0;
  for (let i = 0; i < a.length; i++) s += a[i] * c[i];
  return s;
};

export function close(got: ArrayLike<number>, want: ArrayLike<number>, tolerance = 1e-6): void {
  expect(got.length).toBe(want.length);
  for (let i = 0; i < want.length; i++) {
    const [g, w] = [got[i], want[i]];
    if (Object.is(g, w) || g === w) continue;
    if (!(Math.abs(g - w) <= tolerance * (1 + Math.abs(w))))
      expect.fail(`element ${i}: got ${g}, want ${w}`);
  }
}

const fill = (n: number, next: () => number): number[] =>
  Array.from({ length: n }, () => next() * 2 - 1);

/**
 * f's float inputs → Σ over outputs of ⟨weight, ∂output⟩: the gradient as a function, to
 * differentiate again.
 */
const gradientOf =
  (f: Fn, weights: readonly number[][]): Fn =>
  (xs) => {
    const outs = f(xs);
    const ws = outs.map((o, i) => literal(weights[i], o.shape));
    const g = gradients(outs, ws, xs);
    return xs.flatMap((x, i) => (isFloat(x.dtype) ? [g[i] ?? b.zerosLike(x)] : []));
  };

/** f's derivative along fixed directions. */
const tangentOf =
  (f: Fn, directions: readonly number[][]): Fn =>
  (xs) => {
    const floats = xs.filter((x) => isFloat(x.dtype));
    const outs = f(xs);
    const t = tangents(
      outs,
      floats,
      floats.map((x, i) => literal(directions[i], x.shape)),
    );
    return outs.map((o, i) => t[i] ?? b.zerosLike(o));
  };

/** A constant tensor, from 0-d literals. */
export function literal(data: readonly number[], shape: Shape): Node {
  const scalars = data.map((v) => b.reshape(b.scalarLike(floatLike, v), [1]));
  return scalars.length
    ? b.reshape(b.concat(scalars, 0), shape)
    : b.expand(b.scalarLike(floatLike, 0), shape);
}
const floatLike = placeholder("f32", [], null);

export function checkDerivatives(f: Fn, inputs: readonly Input[], order = 2, seed = 1): void {
  const next = randomNumbers(seed);
  const ps = inputs.map(param);
  const outs = f(ps);
  const floats = ps.filter((p) => isFloat(p.dtype));
  const weights = outs.map((o) => fill(numel(o.shape), next));
  const feeds = ps.map((p, i) => [p, inputs[i].data] as const);

  const ws = outs.map((o) => placeholder("f32", o.shape, null));
  const wFeeds = ws.map((w, i) => [w, weights[i]] as const);
  const g = gradients(outs, ws, floats).map((x, i) => x ?? b.zerosLike(floats[i]));
  for (const [i, x] of g.entries()) expect(x.shape).toEqual(floats[i].shape);
  const gradient = run(g, [...feeds, ...wFeeds]);

  // Central differences of ⟨w, f⟩.
  const h = 1e-5;
  const value = (p: Node, data: readonly number[]) => {
    const found = run(outs, [...feeds, [p, data]]);
    return found.reduce((s, o, i) => s + inner(o, weights[i]), 0);
  };
  for (const [k, p] of floats.entries()) {
    const { data } = inputs[ps.indexOf(p as Node<"placeholder">)];
    const numeric = data.map(
      (x, i) => (value(p, data.with(i, x + h)) - value(p, data.with(i, x - h))) / (2 * h),
    );
    close(gradient[k], numeric, 2e-5);
  }

  // ⟨jvp(v), w⟩ = ⟨v, vjp(w)⟩
  const vs = floats.map((p) => fill(numel(p.shape), next));
  const vNodes = floats.map((p) => placeholder("f32", p.shape, null));
  const t = tangents(outs, floats, vNodes).map((x, i) => x ?? b.zerosLike(outs[i]));
  for (const [i, x] of t.entries()) expect(x.shape).toEqual(outs[i].shape);
  const moved = run(t, [...feeds, ...vNodes.map((v, i) => [v, vs[i]] as const)]);
  const left = moved.reduce((s, m, i) => s + inner(m, weights[i]), 0);
  const right = gradient.reduce((s, x, i) => s + inner(x, vs[i]), 0);
  close([left], [right], 1e-9);

  if (order < 2) return;
  checkDerivatives(gradientOf(f, weights), inputs, order - 1, seed + 1);
  checkDerivatives(tangentOf(f, vs), inputs, order - 1, seed + 2);
}

/** vmap over every non-empty choice of batched inputs, against one call per element. */
export function checkBatching(
  f: Fn,
  /** The inputs of element e. */
  inputsOf: (e: number) => readonly Input[],
  size = 3,
): void {
  const elements = Array.from({ length: size }, (_, e) => inputsOf(e));
  const n = elements[0].length;
  for (let choice = 1; choice < 1 << n; choice++) {
    const isBatched = (i: number) => ((choice >> i) & 1) === 1;
    const since = peekId();
    const ps = elements[0].map(param);
    const outs = f(ps);
    const values = elements[0].map((x, i) =>
      isBatched(i) ? param({ shape: [size, ...x.shape], dtype: x.dtype }) : ps[i],
    );
    const map = new Map(ps.flatMap((p, i) => (isBatched(i) ? [[p, values[i]] as const] : [])));
    const found = batch(outs, map, size, { randomness: "error", since });
    const got = run(
      found.map((r) => r.node),
      values.map((v, i) => [
        v,
        isBatched(i) ? elements.flatMap((e) => e[i].data) : elements[0][i].data,
      ]),
    );
    const single = elements.map((e) =>
      apply(
        f,
        e.map((x, i) => (isBatched(i) ? x : elements[0][i])),
      ),
    );
    for (const [o, r] of found.entries()) {
      expect(r.node.shape).toEqual(r.batched ? [size, ...outs[o].shape] : outs[o].shape);
      for (const [e, s] of single.entries()) {
        const each = numel(outs[o].shape);
        close(r.batched ? got[o].slice(e * each, (e + 1) * each) : got[o], s[o], 1e-12);
      }
    }
  }
}
