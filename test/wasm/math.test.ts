/** @file The stated bounds of the vector functions, against float64, over all exponents, with and without fused FMA. */
import { describe, expect, test } from "vitest";
import type { ValueOp } from "../../core/kernel/ir.ts";
import { pow } from "../../core/math.ts";
import { errorIn, special } from "../support/ulp.ts";
import { f32, mapKernel, modes, runKernel } from "./harness.ts";

/** Σ (2x²)ⁿ/(1·3·5…(2n+1)) · 2x/√π · e^(-x²): all terms positive, so accurate to float64. */
function erf(x: number): number {
  const a = Math.abs(x);
  if (!(a < 6)) return Math.sign(x);
  let term = 1;
  let sum = 1;
  for (let n = 1; term > sum * 1e-17; n++) sum += term *= (2 * a * a) / (2 * n + 1);
  return ((2 * x) / Math.sqrt(Math.PI)) * Math.exp(-a * a) * sum;
}

const n = 1 << 18;

/** Points of every exponent and both signs. */
function everywhere(seed: number): Float32Array {
  const bits = new Uint32Array(n);
  let state = seed;
  for (let i = 0; i < n; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bits[i] = ((i << 14) >>> 0) + (state >>> 18);
  }
  const xs = new Float32Array(bits.buffer);
  xs.set(special);
  return xs;
}

function between(lo: number, hi: number, seed: number): Float32Array {
  const xs = everywhere(seed);
  const bits = new Uint32Array(xs.buffer.slice(0));
  for (let i = 0; i < n; i++)
    xs[i] = lo + (hi - lo) * ((Math.imul(bits[i], 2654435761) >>> 0) / 2 ** 32);
  return xs;
}

function worst(
  name: ValueOp,
  reference: (...xs: number[]) => number,
  inputs: Float32Array[],
  relaxed: boolean,
) {
  const kernel = mapKernel(
    n,
    inputs.map(() => "f32"),
    "f32",
    (...xs) => f32(name, ...xs),
  );
  const ys = runKernel(kernel, [...inputs, n], { address: 32, relaxed }).buffers[inputs.length];
  let found = { error: 0, text: "" };
  for (let i = 0; i < n; i++) {
    const xs = inputs.map((x) => x[i]);
    const error = errorIn(ys[i], reference(...xs));
    if (error > found.error)
      found = { error, text: `${name}(${xs}) = ${ys[i]}, not ${reference(...xs)}` };
  }
  return found;
}

const unary: [ValueOp, (x: number) => number, number, [number, number]][] = [
  ["exp", Math.exp, 1.6, [-104, 89]],
  ["log", Math.log, 1, [0, 3]],
  ["tanh", Math.tanh, 2, [-10, 10]],
  ["erf", erf, 2, [-4, 4]],
  ["sin", Math.sin, 2, [-1000, 1000]],
  ["cos", Math.cos, 2, [-1000, 1000]],
];

describe.each([false, true])("relaxed %s", (relaxed) => {
  test.each(unary)("%s", (name, reference, bound, [lo, hi]) => {
    for (const seed of [1, 2, 3]) {
      for (const xs of [everywhere(seed), between(lo, hi, seed), between(-1, 1, seed)]) {
        const { error, text } = worst(name, reference, [xs], relaxed);
        expect(error, text).toBeLessThanOrEqual(bound);
      }
    }
  });

  test("pow", () => {
    const pairs: [Float32Array, Float32Array][] = [
      [everywhere(4), everywhere(5).reverse()],
      [between(0, 4, 6), between(-70, 70, 7)],
      [between(0.9, 1.1, 8), between(-900, 900, 9)],
      [between(-5, 5, 10), between(-9, 9, 11).map(Math.round)],
    ];
    const [xs, ys] = [everywhere(12), everywhere(13)];
    let k = 0;
    for (const a of special) for (const b of special) [xs[k], ys[k++]] = [a, b];
    for (const inputs of [...pairs, [xs, ys]]) {
      const { error, text } = worst("pow", pow, inputs, relaxed);
      expect(error, text).toBeLessThanOrEqual(1);
    }
  });

  test("rem is exact", () => {
    const [xs, ys] = [everywhere(14), everywhere(15).reverse()];
    let k = 0;
    for (const a of special) for (const b of special) [xs[k], ys[k++]] = [a, b];
    for (const inputs of [
      [xs, ys],
      [between(-1e6, 1e6, 16), between(-3, 3, 17)],
    ]) {
      const { error, text } = worst("rem", (x, y) => x % y, inputs, relaxed);
      expect(error, text).toBe(0);
    }
  });
});

test("all addresses give the same bits", () => {
  const xs = everywhere(20);
  const run = (mode: (typeof modes)[number]) =>
    runKernel(
      mapKernel(n, ["f32"], "f32", (x) => f32("tanh", f32("sin", x))),
      [xs, n],
      mode,
    );
  expect(run(modes[0]).buffers[1]).toEqual(run(modes[2]).buffers[1]);
  expect(run(modes[1]).buffers[1]).toEqual(run(modes[3]).buffers[1]);
});
