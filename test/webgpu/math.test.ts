/** @file The stated bounds of the shaders' functions, against float64, over all exponents and for special values. */
import { describe, expect, test } from "vitest";
import type { ValueOp } from "../../core/kernel/ir.ts";
import { op, type Value } from "../../core/kernel/ir.ts";
import { erf, pow } from "../../core/math.ts";
import { iadd, imul, ivar } from "../../core/schedule/symbolic.ts";
import { errorIn, special } from "../support/ulp.ts";
import { buffer, kernel, load, store, vector } from "../wasm/harness.ts";
import { missing, runKernel } from "./harness.ts";

const tiny = 2 ** -126;
/** A GPU may take subnormal numbers for zero. */
const flushed = (x: number): number =>
  Math.abs(x) < tiny ? (x < 0 || Object.is(x, -0) ? -0 : 0) : x;

/** The smallest error under any of the ways to treat subnormal arguments and results. */
function leastError(got: number, f: (...xs: number[]) => number, xs: readonly number[]): number {
  const wants = [f(...xs), f(...xs.map(flushed))];
  if (xs.some((x) => Math.abs(x) < tiny)) wants.push(...wants.map((w) => -w));
  return Math.min(
    ...wants.map((want) =>
      got === 0 && Math.abs(want) < tiny * (1 + 2 ** -20) ? 0 : errorIn(got, want),
    ),
  );
}

/** Also the bounds of integers and ties. */
const points = [...special, 2147483648, -2147483648, 4294967296, -2147483904, 0.49999997, 1.5, 3.5];

const n = 1 << 15;

/** Points of every exponent and both signs. */
function everywhere(seed: number): Float32Array {
  const bits = new Uint32Array(n);
  let state = seed;
  for (let i = 0; i < n; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bits[i] = ((i << 17) >>> 0) + (state >>> 15);
  }
  const xs = new Float32Array(bits.buffer);
  xs.set(points);
  return xs;
}

function between(lo: number, hi: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return lo + (hi - lo) * (state / 2 ** 32);
  });
}

/** out[i] = f(x[i], …), four lanes at once or one by one. */
async function run(
  f: (...xs: Value[]) => Value,
  inputs: readonly Float32Array[],
  lanes: boolean,
  out: "f32" | "i32" | "u32" | "u8" | "i8" = "f32",
) {
  const [g, t, l] = [ivar("g", n / 256), ivar("t", 64), ivar("l", 4)];
  const i = iadd(imul(g, 256), imul(t, 4), l);
  const body = [store(inputs.length, i, f(...inputs.map((_, b) => load("f32", b, i))))];
  const loop = vector("l", 4, body);
  const k = {
    ...kernel(
      [...inputs.map(() => buffer("f32", n)), buffer(out, n, "write")],
      [
        lanes
          ? loop
          : { ...(loop as Extract<typeof loop, { k: "loop" }>), mode: "serial" as const },
      ],
      { range: { var: "g", extent: n / 256 } },
    ),
    threads: { var: "t", extent: 64 },
  };
  const array = {
    f32: Float32Array,
    i32: Int32Array,
    u32: Uint32Array,
    u8: Uint8Array,
    i8: Int8Array,
  }[out];
  return (await runKernel(k, [...inputs, new array(n)])).buffers[inputs.length];
}

async function worst(
  name: ValueOp,
  reference: (...xs: number[]) => number,
  inputs: Float32Array[],
): Promise<{ error: number; text: string }> {
  const ys = await run((...xs) => op(name, "f32", ...xs), inputs, true);
  const one = await run((...xs) => op(name, "f32", ...xs), inputs, false);
  let found = { error: 0, text: "" };
  for (let i = 0; i < n; i++) {
    const xs = inputs.map((x) => x[i]);
    if (!Object.is(ys[i], one[i]) && !(ys[i] === 0 && one[i] === 0))
      return { error: Infinity, text: `${name}(${xs}): ${ys[i]} in a lane, ${one[i]} alone` };
    const error = leastError(ys[i], reference, xs);
    if (error > found.error)
      found = { error, text: `${name}(${xs}) = ${ys[i]}, not ${reference(...xs)}` };
  }
  return found;
}

const unary: [ValueOp, (x: number) => number, number, [number, number]][] = [
  ["exp", Math.exp, 1.2, [-104, 89]],
  ["log", Math.log, 1, [0, 3]],
  ["tanh", Math.tanh, 2, [-10, 10]],
  ["erf", erf, 2, [-4, 4]],
  ["sin", Math.sin, 2, [-1000, 1000]],
  ["cos", Math.cos, 2, [-1000, 1000]],
  ["sqrt", Math.sqrt, 2, [0, 100]],
  ["floor", Math.floor, 0, [-10, 10]],
];

describe.skipIf(missing)(`functions on a GPU${missing ? ` (skipped: ${missing})` : ""}`, () => {
  test.each(unary)("%s", async (name, reference, bound, [lo, hi]) => {
    for (const xs of [everywhere(1), between(lo, hi, 2), between(-1, 1, 3)]) {
      const { error, text } = await worst(name, reference, [xs]);
      expect.soft(error, text).toBeLessThanOrEqual(bound);
    }
  });

  const pairs = (): [Float32Array, Float32Array][] => {
    const [xs, ys] = [everywhere(12), everywhere(13)];
    let k = 0;
    for (const a of points) for (const b of points) [xs[k], ys[k++]] = [a, b];
    return [
      [xs, ys],
      [everywhere(4), everywhere(5).reverse()],
      [between(0, 4, 6), between(-70, 70, 7)],
      [between(0.9, 1.1, 8), between(-900, 900, 9)],
      [between(0.999, 1.001, 8), between(-88000, 88000, 9)],
      [between(-5, 5, 10), between(-9, 9, 11).map(Math.round)],
    ];
  };

  test("pow", async () => {
    for (const inputs of pairs()) {
      const { error, text } = await worst("pow", pow, inputs);
      expect.soft(error, text).toBeLessThanOrEqual(1.5);
    }
  });

  test("rem is exact", async () => {
    for (const inputs of [...pairs(), [between(-1e6, 1e6, 16), between(-3, 3, 17)]]) {
      const { error, text } = await worst("rem", (x, y) => x % y, inputs);
      expect.soft(error, text).toBe(0);
    }
  });
});
