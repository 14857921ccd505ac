/**
 * Values at ties, kinks and special points follow PyTorch; the graphs that the rules make are
 * small.
 */
import { describe, expect, it } from "vitest";
import * as b from "../../core/graph/build.ts";
import { is, type Node } from "../../core/graph/node.ts";
import { constant, type Primitive } from "../../core/graph/primitives.ts";
import { topological } from "../../core/graph/walk.ts";
import { numel } from "../../core/shape.ts";
import { tangents } from "../../core/transform/jvp.ts";
import { gradients } from "../../core/transform/vjp.ts";
import { close, literal, param, run } from "./laws.ts";

const f32 = (...shape: number[]) => param({ shape, dtype: "f32" });

/** Gradients of Σ f at the given vectors. */
function at(f: (...xs: Node[]) => Node, ...data: number[][]): number[][] {
  const ps = data.map((d) => f32(d.length));
  const out = f(...ps);
  const g = gradients([out], [constant(1, "f32")], ps);
  return run(
    g.map((x, i) => x ?? b.zerosLike(ps[i])),
    ps.map((p, i) => [p, data[i]]),
  ).map((x) => [...x]);
}

const opsOf = (nodes: readonly Node[], since: Node): string[] =>
  topological(nodes)
    .filter((n) => n.id > since.id && n.op !== "constant")
    .map((n) => n.op);

describe("ties and kinks", () => {
  it("maximum and minimum split a tie; NaN passes to both", () => {
    const x = [1, 2, 3, NaN, 1];
    const y = [2, 2, 2, 1, NaN];
    expect(at(b.max, x, y)).toEqual([
      [0, 0.5, 1, 1, 1],
      [1, 0.5, 0, 1, 1],
    ]);
    expect(at(b.min, x, y)).toEqual([
      [1, 0.5, 0, 1, 1],
      [0, 0.5, 1, 1, 1],
    ]);
  });
  it("amax and amin share evenly", () => {
    expect(at((x) => b.amax(x, [0]), [1, 3, 3, 2, 3])).toEqual([[0, 1 / 3, 1 / 3, 0, 1 / 3]]);
    expect(at((x) => b.amin(x, [0]), [1, 3, 1, 2])).toEqual([[0.5, 0, 0.5, 0]]);
  });
  it("abs at 0 is 0", () => {
    expect(at(b.abs, [-2, -0, 0, 3])).toEqual([[-1, 0, 0, 1]]);
  });
  it("sqrt at 0 is ∞", () => {
    expect(at(b.sqrt, [0, 4])).toEqual([[Infinity, 0.25]]);
  });
  it("pow", () => {
    // torch: x = [0, 0, 0, 2, 0], y = [0, 1, 2, 0, 0.5]
    const [dx, dy] = at(b.pow, [0, 0, 0, 2, 0], [0, 1, 2, 0, 0.5]);
    expect(dx).toEqual([0, 1, 0, 0, Infinity]);
    close(dy, [0, 0, 0, Math.log(2), 0], 1e-12);
  });
  it("pow: second derivatives at base 0 have no NaN", () => {
    const [x, y] = [f32(3), f32(3)];
    const g = gradients([b.pow(x, y)], [constant(1, "f32")], [x, y]);
    const second = gradients([g[0]!, g[1]!], [constant(1, "f32"), constant(1, "f32")], [x, y]);
    const values = run(second as Node[], [
      [x, [0, 0, 0]],
      [y, [0, 2, 3]],
    ]);
    for (const v of values) for (const e of v) expect(e).not.toBeNaN();
    expect(values[0][1]).toBe(2);
  });
  it("pow by a literal", () => {
    for (const [p, want] of [
      [0, [0, 0]],
      [1, [1, 1]],
      [2, [0, 6]],
      [3, [0, 27]],
    ] as const)
      expect(at((x) => b.add(x, b.pow(x, constant(p, "f32"))), [0, 3])[0]).toEqual(
        want.map((v) => v + 1),
      );
  });
  it("prod with no, one, two zeros", () => {
    const d = (x: number[]) => at((v) => b.prod(v, [0]), x)[0];
    expect(d([2, 3, 4])).toEqual([12, 8, 6]);
    expect(d([2, 0, 4])).toEqual([0, 8, 0]);
    expect(d([0, 3, 0])).toEqual([0, 0, 0]);
    expect(d([5])).toEqual([1]);
    expect(d([0])).toEqual([1]);
  });
  it("floor and round have no gradient", () => {
    const x = f32(2);
    expect(gradients([b.floor(x), b.round(x)], [x, x], [x])).toEqual([null]);
  });
  it("rem", () => {
    expect(at(b.rem, [7, -7, 7.5], [2, 2, -2])).toEqual([
      [1, 1, 1],
      [-3, 3, 3],
    ]);
  });
  it("where keeps NaN and ∞ of the other branch out", () => {
    const c = (x: Node) => b.lt(constant(0, "f32"), x);
    const f = (x: Node) => b.where(c(x), b.mul(x, x), constant(0, "f32"));
    close(at(f, [3, -1, Infinity, 0])[0], [6, 0, Infinity, 0]);
    const x = f32(2);
    const [t] = tangents([b.where(c(x), x, constant(0, "f32"))], [x], [literal([1, NaN], [2])]);
    expect([...run([t!], [[x, [1, -1]]])[0]]).toEqual([1, 0]);
  });
});

describe("what has no gradient", () => {
  it("integers, comparisons and detach give null", () => {
    const x = f32(3);
    const i = b.cast(x, "i32");
    const outs = [
      b.cast(i, "f32"),
      b.cast(b.lt(x, x), "f32"),
      b.detach(x),
      b.cast(b.argmax(x, 0), "f32"),
    ];
    expect(gradients(outs, outs.map(b.zerosLike), [x])).toEqual([null]);
    expect(tangents(outs, [x], [x])).toEqual([null, null, null, null]);
  });
  it("an integer input gets null, and so does an unrelated one", () => {
    const [x, n, y] = [f32(2), param({ shape: [2], dtype: "i32" }), f32()];
    const g = gradients([b.mul(x, b.cast(n, "f32"))], [constant(1, "f32")], [x, n, y]);
    expect(g.map(Boolean)).toEqual([true, false, false]);
  });
  it("assign passes its cotangent to the value", () => {
    const [x, y] = [f32(2), f32(2)];
    const g = gradients([b.assign(x, b.mul(y, y))], [constant(1, "f32")], [x, y]);
    expect(g[0]).toBeNull();
    expect([...run([g[1]!], [[y, [2, 3]]])[0]]).toEqual([4, 6]);
  });
});

describe("identity", () => {
  it("captured values are constant to a transform of an alias", () => {
    const x = f32(3);
    const y = b.mul(x, constant(2, "f32"));
    const a = b.alias(x);
    const [g] = gradients([b.mul(a, y)], [constant(1, "f32")], [a]);
    expect([...run([g!], [[x, [1, 2, 3]]])[0]]).toEqual([2, 4, 6]);
  });
  it("nested: the inner derivative is constant to nothing it depends on", () => {
    // d/dx (x · d/dy (x·y²)) = d/dx (x · 2xy) = 4xy
    const x = f32();
    const x1 = b.alias(x);
    const y1 = b.alias(x1);
    const [inner] = gradients([b.mul(x1, b.mul(y1, y1))], [constant(1, "f32")], [y1]);
    const [g] = gradients([b.mul(x1, inner!)], [constant(1, "f32")], [x1]);
    // at y = x: x·2x·x = 2x³ → 6x²
    expect(run([g!], [[x, [3]]])[0][0]).toBe(54);
  });
  it("stops at wrt nodes that lie between", () => {
    const x = f32();
    const y = b.mul(x, x);
    const g = gradients([b.mul(y, y)], [constant(1, "f32")], [y, x]);
    expect(run([g[0]!], [[x, [3]]])[0][0]).toBe(18);
    expect(g[1]).toBeNull();
  });
  it("an output that is an input", () => {
    const x = f32(2);
    const [g] = gradients([x, x], [constant(1, "f32"), constant(2, "f32")], [x]);
    expect([...run([g!], [])[0]]).toEqual([3, 3]);
  });
});

describe("graphs", () => {
  it("a 100,000 node chain: gradient, tangent, value", () => {
    const x = f32();
    let y: Node = x;
    for (let i = 0; i < 100_000; i++) y = i % 2 ? b.add(y, x) : b.neg(y);
    const [g] = gradients([y], [constant(1, "f32")], [x]);
    const [t] = tangents([y], [x], [constant(1, "f32")]);
    const [vg, vt] = run([g!, t!], [[x, [1]]]);
    expect(vg[0]).toBe(vt[0]);
  });
  it("the gradient of dot is two dots", () => {
    const [x, w] = [f32(1, 64, 32), f32(1, 32, 16)];
    const y = b.dot(x, w);
    const g = gradients([y], [constant(1, "f32")], [x, w]) as Node[];
    const made = topological(g);
    expect(made.filter((n) => n.op === "dot").length).toBe(2);
    for (const n of made) expect(numel(n.shape)).toBeLessThanOrEqual(64 * 32);
    expect(opsOf([gradients([y], [constant(1, "f32")], [w])[0]!], y)).toEqual(
      ["reshape", "expand", "permute", "dot"].filter((op) => op !== "reshape"),
    );
  });
  it("no ones, no zeros, no needless work", () => {
    const x = f32(4);
    const y = b.add(b.exp(x), constant(1, "f32"));
    const [g] = gradients([y], [b.zerosLike(x)], [x]);
    expect(opsOf([g!], y)).toEqual(["expand", "mul"]);
    const sin = b.mul(b.sin(x), constant(3, "f32"));
    const [h] = gradients([b.sum(sin, [0])], [constant(1, "f32")], [x]);
    expect(opsOf([h!], sin)).toEqual(["reshape", "expand", "mul", "cos", "mul"]);
  });
  it("several cotangents add up in order", () => {
    const x = f32();
    const [g] = gradients([b.mul(x, x)], [constant(1, "f32")], [x]);
    expect(g!.op).toBe("add");
    expect(g!.src.every((s) => is(s, "mul" as Primitive))).toBe(true);
  });
});
