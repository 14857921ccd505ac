/**
 * @file Random graphs for differential tests: every primitive, random shapes with axes of size 0 and 1, broadcasting and
 * movement in any order. Reproducible from a seed. Discontinuous operations (floor, comparisons, casts to integers,
 * argmax) only see values that are the same to the bit on every backend, and functions only see bounded arguments, so
 * that a difference is a bug and not amplified rounding.
 */
import type { DType, TypedArray } from "../../core/dtype.ts";
import { dtypes, isFloat } from "../../core/dtype.ts";
import * as g from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { constant, node, placeholder, randomBits } from "../../core/graph/primitives.ts";
import { topological } from "../../core/graph/walk.ts";
import { broadcast, numel, sameShape } from "../../core/shape.ts";
import { gradients } from "../../core/transform/vjp.ts";

export interface RandomGraph {
  readonly inputs: Node<"placeholder">[];
  readonly data: TypedArray[];
  readonly randoms: Node<"random">[];
  readonly words: Uint32Array;
  readonly outputs: Node[];
  /** How far floats may differ, relative to a tensor's largest one. */
  readonly tolerance?: number;
}

/** mulberry32: a small generator with a full 32-bit state. */
export function generator(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `types`: those of the floats. */
export function randomGraph(
  seed: number,
  size = 14,
  types: readonly DType[] = ["f32"],
): RandomGraph {
  const next = generator(seed);
  const int = (n: number): number => Math.floor(next() * n);
  const pick = <T>(list: readonly T[]): T => list[int(list.length)];
  const inputs: Node<"placeholder">[] = [];
  const data: TypedArray[] = [];
  const randoms: Node<"random">[] = [];
  const words: number[] = [];
  /** Nodes whose value is the same to the bit everywhere. */
  const exact = new Set<Node>();
  const pool: Node[] = [];
  const add = (n: Node, isExact: boolean): Node => {
    pool.push(n);
    if (isExact || !isFloat(n.dtype)) exact.add(n);
    return n;
  };
  const dims = [2, 3, 4, 5, 6, 8, 9, 1, 7, 12];
  const shape = (rank = int(4)): number[] =>
    Array.from({ length: rank }, () => (next() < 0.02 ? 0 : pick(dims)));

  const input = (dtype: DType, of: readonly number[]): Node => {
    const p = placeholder(dtype, of, "wasm");
    inputs.push(p);
    const values = new dtypes[dtype].array(numel(of));
    for (let i = 0; i < values.length; i++) {
      const x = next();
      values[i] = isFloat(dtype)
        ? Math.round((x * 8 - 4) * 16) / 16
        : dtype === "bool"
          ? int(2)
          : int(9) - (dtypes[dtype].signed ? 4 : 0);
    }
    data.push(values);
    return add(p, true);
  };
  const floats = (): Node[] => pool.filter((n) => isFloat(n.dtype));
  // At bounds that nothing else hits: at a tie the gradient jumps, and rounding decides which way.
  const bounded = (x: Node): Node => {
    const limit = Math.fround(3 + next());
    return g.max(g.min(x, g.scalarLike(x, limit)), g.scalarLike(x, -limit));
  };
  const ofType = (dtype: DType): Node => {
    const found = pool.filter((n) => n.dtype === dtype);
    return found.length > 0 ? pick(found) : input(dtype, shape());
  };
  /** A node that broadcasts with x, of x's dtype. */
  const mate = (x: Node): Node => {
    const found = pool.filter(
      (n) =>
        n.dtype === x.dtype &&
        broadcast(n.shape, x.shape) &&
        numel(broadcast(n.shape, x.shape)!) < 4000,
    );
    const roll = next();
    if (roll < 0.15)
      return constant(isFloat(x.dtype) ? pick([0.5, 2, -1, 0.25, 1, 0]) : pick([1, 2, 3]), x.dtype);
    if (found.length > 0 && roll < 0.75) return pick(found);
    const keep = int(x.shape.length + 1);
    return input(
      x.dtype,
      x.shape.slice(keep).map((d) => (next() < 0.25 ? 1 : d)),
    );
  };
  const sameFor = (...xs: Node[]): boolean => xs.every((x) => exact.has(x) || x.op === "constant");

  const moves: ((x: Node) => Node)[] = [
    (x) => {
      const n = numel(x.shape);
      const factor = [2, 3, 4, 5, 6].filter((f) => n % f === 0 && n > 0);
      const f = factor.length > 0 ? pick(factor) : 1;
      return g.reshape(x, pick([[n], [n / f, f], [f, n / f], [1, n], [n / f, 1, f]]));
    },
    (x) =>
      g.permute(
        x,
        x.shape.map((_, i) => i).sort(() => next() - 0.5),
      ),
    (x) => g.expand(x, [1 + int(3), ...x.shape]),
    (x) =>
      node("pad", [x], {
        lo: x.shape.map(() => int(3)),
        hi: x.shape.map(() => int(3)),
        value: isFloat(x.dtype) ? pick([0, -1.5, 2]) : 0,
      }),
    (x) => {
      const start = x.shape.map((d) => int(Math.max(1, d)));
      const step = x.shape.map(() => 1 + int(2));
      const len = x.shape.map((d, i) =>
        d === 0 ? 0 : 1 + int(Math.floor((d - 1 - start[i]) / step[i]) + 1),
      );
      return node("slice", [x], {
        start: x.shape.map((d, i) => (d === 0 ? 0 : start[i])),
        size: len,
        step,
      });
    },
    (x) => {
      const axis = int(x.shape.length);
      if (!(x.shape[axis] >= 3)) return x;
      return g.window(x, axis, 1 + int(2), 1 + int(2), 1 + int(2));
    },
    (x) => node("flip", [x], { axes: x.shape.map((_, i) => i).filter(() => next() < 0.5) }),
  ];

  const steps: [number, () => void][] = [
    [
      4,
      () => {
        const x = pick(floats());
        const y = mate(x);
        const op = pick(["add", "sub", "mul", "max", "min"] as const);
        add(node(op, next() < 0.5 ? [x, y] : [y, x]), sameFor(x, y));
      },
    ],
    [
      2,
      () => {
        const x = pick(floats());
        add(g.div(x, g.add(g.abs(mate(x)), g.scalarLike(x, 1))), false);
      },
    ],
    [
      3,
      () => {
        const x = pick(floats());
        const op = pick(["exp", "sin", "cos", "tanh", "erf"] as const);
        add(node(op, [bounded(x)]), false);
      },
    ],
    [
      1,
      () => {
        const y = pick(floats());
        const x = g.add(g.abs(y), g.scalarLike(y, 0.5));
        add(
          pick([
            () => g.log(x),
            () => g.sqrt(x),
            () => g.pow(g.min(x, g.scalarLike(x, 4)), g.scalarLike(x, pick([1.5, -0.5, 3]))),
          ])(),
          false,
        );
      },
    ],
    [
      1,
      () => {
        const x = pick(floats());
        add(node(pick(["neg", "abs"] as const), [x]), sameFor(x));
      },
    ],
    [
      2,
      () => {
        const found = floats().filter((n) => exact.has(n));
        if (found.length === 0) return;
        const x = pick(found);
        const y = mate(x);
        if (!sameFor(y)) return;
        const mask = node(pick(["lt", "le", "eq"] as const), [x, y]);
        add(mask, true);
        const z = pick(floats().filter((n) => broadcast(n.shape, mask.shape)));
        if (z)
          add(
            g.where(
              mask,
              z,
              isFloat(mate(z).dtype) && broadcast(mask.shape, z.shape) ? g.scalarLike(z, 0.75) : z,
            ),
            sameFor(z),
          );
      },
    ],
    [
      1,
      () => {
        const found = floats().filter((n) => exact.has(n));
        if (found.length === 0) return;
        const x = pick(found);
        add(
          pick([
            () => node("floor", [x]),
            () => node("round", [x]),
            () => g.cast(x, pick(["i32", "i8", "u8", "bool"] as const)),
          ])(),
          true,
        );
      },
    ],
    [
      1,
      () => {
        const x = ofType(pick(["i32", "u32", "i8", "u8"] as const));
        const y = mate(x);
        const op = pick([
          "add",
          "sub",
          "mul",
          "idiv",
          "rem",
          "max",
          "min",
          "and",
          "or",
          "xor",
          "shl",
          "shr",
        ] as const);
        add(node(op, [x, y]), true);
      },
    ],
    [
      1,
      () => {
        const x = ofType(pick(["i32", "u8", "bool", "i8"] as const));
        add(g.cast(x, pick([...types, "i32"])), true);
      },
    ],
    [
      5,
      () => {
        const x = pick(pool);
        const y = pick(moves)(x);
        if (numel(y.shape) < 3000) add(y, sameFor(x));
      },
    ],
    [
      4,
      () => {
        const found = floats().filter((n) => n.shape.length > 0);
        if (found.length === 0) return;
        const x = pick(found);
        const axes = x.shape.map((_, i) => i).filter(() => next() < 0.5);
        if (axes.length === 0) axes.push(x.shape.length - 1);
        const op = pick(["sum", "amax", "amin", "sum", "prod"] as const);
        if ((op === "amax" || op === "amin") && axes.some((a) => x.shape[a] === 0)) return;
        const source =
          op === "prod" ? g.add(g.mul(bounded(x), g.scalarLike(x, 0.1)), g.scalarLike(x, 1)) : x;
        const r = add(node(op, [source], { axes }), sameFor(x) && op.startsWith("am"));
        if (next() < 0.6) {
          const back = g.reshape(
            r,
            x.shape.map((d, i) => (axes.includes(i) ? 1 : d)),
          );
          const y = g.mul(g.sub(bounded(x), bounded(back)), g.scalarLike(x, 0.5));
          if (numel(y.shape) < 3000) add(y, false);
        }
      },
    ],
    [
      1,
      () => {
        const found = pool.filter((n) => n.shape.length > 0 && exact.has(n) && n.dtype !== "bool");
        if (found.length === 0) return;
        const x = pick(found);
        const axis = int(x.shape.length);
        if (x.shape[axis] > 0) add(node("argmax", [x], { axis }), true);
      },
    ],
    [
      2,
      () => {
        const x = bounded(pick(floats()));
        const n = numel(x.shape);
        const k = pick([1, 2, 3, 4, 5, 6].filter((d) => n % d === 0));
        const a = g.reshape(x, [1, n / k, k]);
        const columns = pick([1, 3, 5, 8, 11]);
        const b = pick(pool.filter((m) => m.dtype === x.dtype && numel(m.shape) === k * columns));
        const right = b ? g.reshape(bounded(b), [1, k, columns]) : input(x.dtype, [1, k, columns]);
        if ((n / k) * columns < 3000)
          add(g.dot(a, next() < 0.3 && k === columns ? g.permute(right, [0, 2, 1]) : right), false);
      },
    ],
    [
      1,
      () => {
        const found = pool.filter((n) => n.shape.length > 0 && n.dtype !== "bool");
        if (found.length === 0) return;
        const x = pick(found);
        const axis = int(x.shape.length);
        if (x.shape[axis] === 0) return;
        const of = x.shape.map((d, i) => (i === axis ? 1 + int(6) : d));
        const limit = x.shape[axis];
        const index = input("i32", of);
        const values = data[data.length - 1];
        for (let i = 0; i < values.length; i++) values[i] = int(limit);
        if (next() < 0.5) add(g.gather(x, index, axis), sameFor(x));
        else if (x.dtype !== "bool") {
          for (let i = 0; i < values.length; i++) values[i] = int(5);
          const y = g.gather(x, g.min(index, constant(limit - 1, "i32")), axis);
          add(g.scatterAdd(index, y, axis, 5), false);
        }
      },
    ],
    [
      1,
      () => {
        // Starts are inputs, literals or computed, and may lie outside.
        const x = pick(pool);
        const starts = x.shape.map(() => {
          const literal = constant(int(9) - 2, "i32");
          return pick([() => literal, () => input("i32", []), () => g.neg(input("i32", []))])();
        });
        const size = x.shape.map((d) => int(d + 1));
        const parts = pool.filter(
          (n) =>
            n.dtype === x.dtype &&
            n.shape.length === x.shape.length &&
            n.shape.every((d, i) => d <= x.shape[i]),
        );
        const update = pick(parts);
        if (next() < 0.5) add(g.dynamicSlice(x, starts, size), sameFor(x));
        else add(g.dynamicUpdateSlice(x, update, starts), sameFor(x, update));
      },
    ],
    [
      1,
      () => {
        const found = pool.filter((n) => n.shape.length > 0);
        if (found.length === 0) return;
        const x = pick(found);
        const axis = int(x.shape.length);
        const others = pool.filter(
          (n) =>
            n.dtype === x.dtype &&
            n.shape.length === x.shape.length &&
            n.shape.every((d, i) => i === axis || d === x.shape[i]),
        );
        const parts = Array.from({ length: 1 + int(3) }, () => pick(others));
        add(g.concat([x, ...parts], axis), sameFor(x, ...parts));
      },
    ],
    [
      1,
      () => {
        const found = pool.filter((n) => n.shape.length > 0 && n.dtype !== "bool");
        if (found.length === 0) return;
        const x = pick(found);
        const axis = int(x.shape.length);
        const combine = pick(["sum", "prod", "max", "min"] as const);
        const exactly = sameFor(x);
        // Products stay near 1, running extrema of inexact values are as inexact as these.
        const factor = isFloat(x.dtype)
          ? g.add(g.mul(bounded(x), g.scalarLike(x, 0.1)), g.scalarLike(x, 1))
          : x;
        const source = combine === "prod" ? factor : x;
        const running = combine === "sum" || combine === "prod";
        add(g.cumulative(source, axis, combine, next() < 0.5), exactly && !running);
        if (exactly) add(g.argsort(x, axis, next() < 0.5), true);
      },
    ],
    [
      2,
      () => {
        // A position along an axis, as masks use it.
        const x = pick(floats());
        if (x.shape.length === 0) return;
        const axis = int(x.shape.length);
        const of = x.shape.map((d, i) => (i === axis ? d : 1));
        const position = g.reshape(node("iota", [], { length: x.shape[axis] }), of);
        const mask = add(
          node(pick(["lt", "eq", "le"] as const), [position, constant(int(5), "i32")]),
          true,
        );
        add(g.where(mask, x, mate(x).shape.length > x.shape.length ? x : g.neg(x)), sameFor(x));
        const at = next() < 0.5 ? g.cast(position, x.dtype) : g.scalarLike(x, 1);
        add(g.mul(bounded(x), at), false);
      },
    ],
    [
      1,
      () => {
        const leaf = randomBits(shape(), [int(2 ** 32), int(2 ** 32)], int(1000));
        randoms.push(leaf);
        words.push(leaf.attrs.key[0], leaf.attrs.key[1], leaf.attrs.counter);
        const u = g.mul(g.cast(g.shr(leaf, constant(8, "u32")), "f32"), constant(2 ** -24, "f32"));
        add(g.cast(u, pick(types)), true);
      },
    ],
  ];
  const total = steps.reduce((n, [w]) => n + w, 0);
  input(types[0], shape(2));
  input(pick(types), shape(3));
  while (pool.length < size) {
    let roll = next() * total;
    for (const [weight, step] of steps) {
      roll -= weight;
      if (roll > 0) continue;
      step();
      break;
    }
  }
  // Rounded to halves a last digit shows, and what follows may double it a few times.
  const tolerance = Math.max(
    ...types.map((t) => ({ f16: 2 ** -8, bf16: 2 ** -5 })[t as string] ?? 2e-4),
  );
  const last = pool[pool.length - 1];
  const outputs = [last, ...pool.filter((n) => n !== last && next() < 0.25)];
  return { inputs, data, randoms, words: Uint32Array.from(words), outputs, tolerance };
}

const halves: readonly (readonly DType[])[] = [["f16"], ["bf16"], ["f32", "f16", "bf16"]];

/** A random graph with halves, alone or mixed with f32. */
export const randomHalfGraph = (seed: number, size?: number): RandomGraph =>
  randomGraph(seed, size, halves[seed % halves.length]);

/** The same with gradients. */
export const randomHalfGradientGraph = (seed: number, size?: number): RandomGraph =>
  randomGradientGraph(seed, size, halves[seed % halves.length]);

/** A random graph with the gradients of a sum of its float outputs, as training plans them. */
export function randomGradientGraph(
  seed: number,
  size = 12,
  types?: readonly DType[],
): RandomGraph {
  const graph = randomGraph(seed, size, types);
  const wanted = graph.inputs.filter((n) => isFloat(n.dtype));
  const losses = graph.outputs.filter((n) => isFloat(n.dtype) && numel(n.shape) > 0);
  if (losses.length === 0) return graph;
  const total = losses
    .map((n) => g.sum(g.tanh(g.cast(n, "f32")), [...n.shape.keys()]))
    .reduce((a, b) => g.add(a, b));
  const found = gradients([total], [constant(1, "f32")], wanted).filter((n) => n !== null);
  // The total itself may be a small difference of large sums: no two orders of adding agree on it.
  return { ...graph, outputs: [...found, ...graph.outputs] };
}

/** A random graph that also assigns new values to some of its inputs, as an optimizer does. */
export function randomStateGraph(seed: number, size = 14): RandomGraph {
  const graph = randomGraph(seed, size);
  const next = generator(seed + 1);
  const nodes = topological(graph.outputs).filter((n) => n.dtype === "f32");
  const assigned = graph.inputs.flatMap((p) => {
    const fits = nodes.filter((n) => {
      const shape = broadcast(n.shape, p.shape);
      return shape !== null && sameShape(shape, p.shape);
    });
    if (p.dtype !== "f32" || fits.length === 0 || next() < 0.3) return [];
    if (next() < 0.4) return updated(p, nodes, next);
    const other = fits[Math.floor(next() * fits.length)];
    const old = next() < 0.3 ? node("flip", [p], { axes: p.shape.map((_, i) => i) }) : p;
    return [g.assign(p, g.add(g.mul(old, constant(0.5, "f32")), other))];
  });
  return { ...graph, outputs: [...assigned, ...graph.outputs] };
}

/** Slices of p written one after the other, some of the versions in between read as well. */
function updated(p: Node, nodes: readonly Node[], next: () => number): Node[] {
  const parts = [p, ...nodes].filter(
    (n) => n.shape.length === p.shape.length && n.shape.every((d, i) => d <= p.shape[i]),
  );
  const outputs: Node[] = [];
  let value = p;
  for (let count = 1 + Math.floor(next() * 3); count > 0; count--) {
    const part = parts[Math.floor(next() * parts.length)];
    const starts: Node[] = p.shape.map((d) => constant(Math.floor(next() * d), "i32"));
    // A run-time start that is not a leaf: the first axis of p, which is its length.
    const late = g.cast(g.sum(g.expand(constant(1, "f32"), [2]), [0]), "i32");
    if (starts.length > 0 && next() < 0.5) starts[0] = late;
    const sum = next() < 0.5 ? part : g.add(part, g.dynamicSlice(value, starts, part.shape));
    if (next() < 0.3) outputs.push(g.mul(g.tanh(value), constant(2, "f32")));
    value = g.dynamicUpdateSlice(value, sum, starts);
    if (next() < 0.3) outputs.push(g.sum(value, [...p.shape.keys()]));
    if (next() < 0.2) outputs.push(value);
  }
  return [g.assign(p, value), ...outputs];
}

/** The first difference beyond tolerance, or null. */
export function difference(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  dtype: DType,
  relative = 2e-4,
): string | null {
  let scale = 1;
  for (let i = 0; i < want.length; i++)
    if (Number.isFinite(want[i])) scale = Math.max(scale, Math.abs(want[i]));
  const tolerance = isFloat(dtype) ? relative * scale : 0;
  for (let i = 0; i < want.length; i++) {
    if (Number.isNaN(want[i]) ? Number.isNaN(got[i]) : got[i] === want[i]) continue;
    if (!(Math.abs(got[i] - want[i]) <= tolerance))
      return `element ${i}: got ${got[i]}, want ${want[i]}`;
  }
  return got.length === want.length ? null : `${got.length} elements instead of ${want.length}`;
}
