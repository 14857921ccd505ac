/** scan = the unrolled loop: values, vjp, jvp, vmap, second order, nested. */
import { describe, expect, it } from "vitest";
import { ArgumentError, ShapeError } from "../../core/errors.ts";
import * as b from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { constant, randomBits } from "../../core/graph/primitives.ts";
import { topological } from "../../core/graph/walk.ts";
import { checkpointNodes, lowerRegions } from "../../core/transform/region.ts";
import { scanNodes } from "../../core/transform/scan.ts";
import { gradients } from "../../core/transform/vjp.ts";
import { sample } from "./cases.ts";
import {
  apply,
  checkBatching,
  checkDerivatives,
  close,
  type Fn,
  param,
  randomNumbers,
  run,
} from "./laws.ts";

const f32 = (...shape: number[]) => param({ shape, dtype: "f32" });
const one = constant(1, "f32");

type Step = (carries: Node[], xs: Node[]) => { carries: Node[]; ys: Node[] };

/** The same loop in JavaScript. */
function unrolled(f: Step, init: Node[], xs: Node[], reverse: boolean) {
  const length = xs[0].shape[0];
  const at = (x: Node, t: number) =>
    b.reshape(
      b.slice(x, [t, ...x.shape.slice(1).map(() => 0)], [1, ...x.shape.slice(1)]),
      x.shape.slice(1),
    );
  let carries = init;
  const ys: Node[][] = [];
  for (let step = 0; step < length; step++) {
    const t = reverse ? length - 1 - step : step;
    const out = f(
      carries,
      xs.map((x) => at(x, t)),
    );
    carries = out.carries;
    for (const [i, y] of out.ys.entries()) (ys[i] ??= [])[t] = b.reshape(y, [1, ...y.shape]);
  }
  return { carries, ys: ys.map((y) => b.concat(y, 0)) };
}

/**
 * A small recurrent cell: two carries, one of which the other feeds, an integer counter, captured
 * weights.
 */
const cell =
  (w: Node, u: Node): Step =>
  ([h, c, n], [x]) => {
    const count = b.add(n, constant(1, "i32"));
    const next = b.tanh(b.add(b.add(b.mul(h, w), b.mul(x, u)), b.mul(c, constant(0.5, "f32"))));
    return {
      carries: [next, b.add(b.mul(c, constant(0.9, "f32")), b.mul(next, next)), count],
      ys: [b.mul(next, x), b.div(next, b.cast(count, "f32"))],
    };
  };

const inputs = [
  { shape: [2] }, // h
  { shape: [2] }, // c
  { shape: [], dtype: "i32", lo: 0, hi: 3 }, // n
  { shape: [4, 2] }, // xs
  { shape: [2] }, // w
  { shape: [] }, // u
] as const;

const program =
  (loop: typeof unrolled, reverse: boolean): Fn =>
  ([h, c, n, xs, w, u]) => {
    const out = loop(cell(w, b.exp(u)), [h, c, n], [xs], reverse);
    return [...out.carries, ...out.ys];
  };

const someInputs = (seed: number) => {
  const next = randomNumbers(seed);
  return inputs.map((d) => sample(d, next));
};

for (const reverse of [false, true])
  describe(`scan${reverse ? " in reverse" : ""}`, () => {
    const scan = program(scanNodes, reverse);
    const loop = program(unrolled, reverse);
    it("has the loop's values", () => {
      const data = someInputs(1);
      const want = apply(loop, data);
      for (const [i, v] of apply(scan, data).entries()) close(v, want[i], 1e-12);
    });
    it("has the loop's gradients", () => {
      const data = someInputs(2);
      const of = (f: Fn) => (ps: Node[]) => {
        const outs = f(ps).filter((o) => o.dtype === "f32");
        return gradients(
          outs,
          outs.map(() => one),
          ps,
        ).map((g, i) => g ?? b.zerosLike(ps[i]));
      };
      const want = apply(of(loop), data);
      for (const [i, v] of apply(of(scan), data).entries()) close(v, want[i], 1e-12);
    });
    const floats: Fn = (ps) => scan(ps).filter((o) => o.dtype === "f32");
    it("obeys the laws, the final carry to the third order", () => {
      checkDerivatives(floats, someInputs(3), 2, 3);
      checkDerivatives((ps) => [scan(ps)[0]], someInputs(4), 3, 4);
    });
    it("batches: every choice of batched inputs", () => {
      let e = 10;
      checkBatching(scan, () => someInputs(e++), 2);
    });
  });

describe("scan", () => {
  const power: Step = ([c], [x]) => ({ carries: [b.mul(c, x)], ys: [c] });
  it("of length 0 gives the initial carries and empty ys", () => {
    const [c, xs] = [f32(2), f32(0, 2)];
    const out = scanNodes(power, [c], [xs]);
    const g = gradients([out.carries[0]], [one], [c, xs]) as Node[];
    const [v, y, gc, gx] = run(
      [out.carries[0], out.ys[0], ...g],
      [
        [c, [1, 2]],
        [xs, []],
      ],
    );
    expect([[...v], [...y], [...gc], [...gx]]).toEqual([[1, 2], [], [1, 1], []]);
    expect(out.ys[0].shape).toEqual([0, 2]);
  });
  it("takes a length instead of xs", () => {
    const c = f32();
    const { carries } = scanNodes(([x]) => ({ carries: [b.mul(x, x)], ys: [] }), [c], [], false, 3);
    const [g] = gradients(carries, [one], [c]);
    const [v, gv] = run([carries[0], g!], [[c, [1.1]]]);
    close([v[0], gv[0]], [1.1 ** 8, 8 * 1.1 ** 7], 1e-12);
  });
  it("nested loops, differentiated twice and batched", () => {
    const f: Fn = ([init, xs, w]) => {
      const outer = scanNodes(
        ([c], [row]) => {
          const inner = scanNodes(
            ([d], [x]) => ({ carries: [b.sin(b.add(b.mul(d, w), b.mul(x, c)))], ys: [d] }),
            [c],
            [row],
          );
          return { carries: inner.carries, ys: [b.sum(inner.ys[0], [0])] };
        },
        [init],
        [xs],
        true,
      );
      return [...outer.carries, ...outer.ys];
    };
    const next = randomNumbers(7);
    const draw = () =>
      [{ shape: [] }, { shape: [3, 2] }, { shape: [] }].map((d) => sample(d, next));
    checkDerivatives(f, draw(), 2, 7);
    checkBatching(f, draw, 2);
  });
  it("a checkpoint inside, a scan inside a checkpoint", () => {
    const f: Fn = ([init, xs, w]) => {
      const step: Step = ([c], [x]) => {
        const [y] = checkpointNodes(([p]) => [b.tanh(b.mul(p, w))], [b.add(c, x)]);
        return { carries: [y], ys: [b.mul(y, w)] };
      };
      return checkpointNodes(
        ([p, q]) => {
          const out = scanNodes(step, [p], [q]);
          return [...out.carries, ...out.ys];
        },
        [init, xs],
      );
    };
    const next = randomNumbers(8);
    const draw = () =>
      [{ shape: [2] }, { shape: [3, 2] }, { shape: [2] }].map((d) => sample(d, next));
    checkDerivatives(f, draw(), 2, 8);
    checkBatching(f, draw, 2);
  });
  it("draws anew in each step, and the same again in the gradient", () => {
    const [c, xs] = [f32(2), f32(50, 2)];
    const out = scanNodes(
      ([s], [x]) => {
        const bits = b.shr(randomBits([2], [1, 2], 3), constant(31, "u32"));
        const kept = b.mul(x, b.cast(bits, "f32"));
        return { carries: [b.add(s, kept)], ys: [kept] };
      },
      [c],
      [xs],
    );
    const [g] = gradients(out.carries, [one], [xs]);
    const [y, gx] = run(
      [out.ys[0], g!],
      [
        [c, [0, 0]],
        [xs, new Array(100).fill(1)],
      ],
    );
    expect([...gx]).toEqual([...y]);
    const ones = y.reduce((s, v) => s + v, 0);
    expect(ones).toBeGreaterThan(30);
    expect(ones).toBeLessThan(70);
  });
  it("its gradient reads the forward loop's own stacks: two loops in all", () => {
    const [c, xs, w] = [f32(2), f32(4, 2), f32(2)];
    const step: Step = ([h], [x]) => ({ carries: [b.tanh(b.mul(b.add(h, x), w))], ys: [] });
    const { carries } = scanNodes(step, [c], [xs]);
    const g = gradients(carries, [one], [c, xs, w]) as Node[];
    const loops = (roots: Node[]) => topological(roots).filter((n) => n.op === "region");
    expect(loops([...carries, ...g]).length).toBe(2);
    // Without a gradient nobody reads the stacks, and lowering drops them.
    const [alone] = loops(lowerRegions(carries)) as Node<"region">[];
    expect(alone.attrs.region.body.results.length).toBe(1);
  });
  it("checks its arguments", () => {
    const bad: Step = ([c]) => ({ carries: [b.sum(c, [0])], ys: [] });
    expect(() => scanNodes(bad, [f32(2)], [f32(3)])).toThrow(ShapeError);
    expect(() => scanNodes(() => ({ carries: [], ys: [] }), [f32()], [f32(3)])).toThrow(
      ArgumentError,
    );
    expect(() => scanNodes(power, [f32()], [f32(3), f32(4)])).toThrow(ShapeError);
    expect(() => scanNodes(power, [f32()], [])).toThrow(ShapeError);
  });
});
