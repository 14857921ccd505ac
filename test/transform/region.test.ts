/** Regions: closure, checkpoint's clone, own gradients, lowering. */
import { describe, expect, it } from "vitest";
import { ShapeError, TransformError } from "../../core/errors.ts";
import * as b from "../../core/graph/build.ts";
import { freshUid, is, type Node, peekId } from "../../core/graph/node.ts";
import { bufferLeaf, constant, randomBits } from "../../core/graph/primitives.ts";
import { topological } from "../../core/graph/walk.ts";
import { tangents } from "../../core/transform/jvp.ts";
import {
  callRegion,
  checkpointNodes,
  closeOver,
  expandRegion,
  lowerRegions,
  regionNodes,
} from "../../core/transform/region.ts";
import { scanNodes } from "../../core/transform/scan.ts";
import { gradients } from "../../core/transform/vjp.ts";
import { close, param, run } from "./laws.ts";

const f32 = (...shape: number[]) => param({ shape, dtype: "f32" });
const one = constant(1, "f32");

describe("closing", () => {
  it("captures what was made before, data and random leaves; keeps literals", () => {
    const before = b.exp(f32(2));
    const since = peekId();
    const p = f32(2);
    const data = bufferLeaf({ bytes: 8 }, "f32", [2], "reference");
    const bits = randomBits([2], [0, 0], 0);
    const out = b.add(b.mul(p, before), b.mul(data, b.cast(bits, "f32")));
    const { body, captured } = closeOver([b.add(out, one)], [p], since);
    expect(captured).toEqual([before, data, bits]);
    expect(body.params.map((q) => q.dtype)).toEqual(["f32", "f32", "f32", "u32"]);
    const leaves = topological(body.results).filter((n) => n.src.length === 0);
    for (const l of leaves)
      expect(l.op === "constant" || body.params.includes(l as Node<"placeholder">)).toBe(true);
  });
  it("a result that is a parameter, or captured", () => {
    const x = f32(2);
    const outer = b.neg(x);
    const [same, kept] = regionNodes("custom", "id", ([p]) => [p, outer], [x]);
    const g = gradients([same, kept], [one, one], [x]);
    const [s, k, gv] = run([same, kept, g[0]!], [[x, [1, 2]]]);
    expect([[...s], [...k], [...gv]]).toEqual([
      [1, 2],
      [-1, -2],
      [0, 0],
    ]);
  });
  it("a new projection of an old region is captured, not the region", () => {
    const x = f32(3);
    const { carries } = scanNodes(
      ([c], [v]) => ({ carries: [b.sin(b.mul(c, v))], ys: [] }),
      [f32()],
      [x],
    );
    // The gradient reads the old loop's stacked carries through projections made in the trace.
    const f = ([p]: Node[]) => [b.mul(p, gradients(carries, [one], [x])[0]!)];
    const [y] = regionNodes("custom", "f", f, [f32(3)]);
    const { src } = y.src[0] as Node<"region">;
    expect(src.every((s) => s.op !== "region")).toBe(true);
    expect(topological([y]).includes(x)).toBe(true);
  });
  it("checks its sources", () => {
    const p = f32(2);
    const body = { params: [p], results: [b.neg(p)] };
    expect(() => callRegion({ kind: "custom", name: "f", body }, [f32(3)])).toThrow(ShapeError);
    expect(() => callRegion({ kind: "custom", name: "f", body }, [])).toThrow(/1 sources/);
  });
});

describe("checkpoint", () => {
  const block = (x: Node, w: Node) => b.tanh(b.mul(b.tanh(b.mul(x, w)), w));
  it("has the plain gradient, also of captured values", () => {
    const [x, w] = [f32(3), f32(3)];
    const [c] = checkpointNodes(([p]) => [block(p, w)], [x]);
    const plain = gradients([block(x, w)], [one], [x, w]) as Node[];
    const saved = gradients([c], [one], [x, w]) as Node[];
    const feeds = [
      [x, [0.1, -0.5, 2]],
      [w, [1, 2, -1]],
    ] as const;
    const values = run([...plain, ...saved], feeds);
    close(values[2], values[0], 1e-12);
    close(values[3], values[1], 1e-12);
  });
  it("its gradient shares no inner node with the forward pass", () => {
    const x = f32(3);
    const [c] = checkpointNodes(([p]) => [b.exp(b.sin(p))], [x]);
    const [g] = gradients([c], [one], [x]);
    const forward = lowerRegions([c]);
    const marks = topological([g!])
      .filter((n) => n.op === "sin" || n.op === "exp")
      .map((n) => n.recompute);
    expect(new Set(marks).size).toBe(1);
    expect(marks[0]).toBeGreaterThan(0);
    const inside = new Set(topological(forward).filter((n) => n.src.length));
    for (const n of topological(lowerRegions([g!]))) expect(inside.has(n)).toBe(false);
  });
  it("two clones carry two marks, also inside a third", () => {
    const inner = (p: Node) => checkpointNodes(([q]) => [b.sin(b.exp(q))], [p])[0];
    const f = ([p]: Node[]) => {
      const out = inner(inner(p));
      return [gradients([out], [one], [p])[0]!];
    };
    const x = f32();
    const [c] = checkpointNodes(f, [x]);
    const [g] = gradients([c], [one], [x]);
    const marks = new Set(
      topological(lowerRegions([g!]))
        .filter((n) => n.op === "exp")
        .map((n) => n.recompute),
    );
    expect(marks.size).toBeGreaterThanOrEqual(3);
    const want = gradients(
      [gradients([b.sin(b.exp(b.sin(b.exp(x))))], [one], [x])[0]!],
      [one],
      [x],
    );
    const [v, w] = run([g!, want[0]!], [[x, [0.3]]]);
    close(v, w, 1e-12);
  });
  it("draws the same random bits again", () => {
    const x = f32(4);
    const drop = (p: Node) => {
      const bits = b.shr(randomBits([4], [5, 6], 7), constant(31, "u32"));
      return b.where(b.eq(bits, constant(0, "u32")), b.mul(p, p), constant(0, "f32"));
    };
    const [c] = checkpointNodes(([p]) => [drop(p)], [x]);
    const [g] = gradients([c], [one], [x]);
    const [v, gv] = run([c, g!], [[x, [1, 2, 3, 4]]]);
    for (const [i, e] of v.entries()) expect(gv[i]).toBe(e === 0 ? 0 : 2 * (i + 1));
    // The mask is computed again, not kept.
    const masks = topological(lowerRegions([c, g!])).filter((n) => n.op === "eq");
    expect(masks.length).toBe(2);
  });
  it("deep inside: 20,000 nodes", () => {
    const x = f32();
    const f = ([p]: Node[]) => {
      let y = p;
      for (let i = 0; i < 20_000; i++) y = b.neg(y);
      return [y];
    };
    const [c] = checkpointNodes(f, [x]);
    const [g] = gradients([c], [one], [x]);
    expect(run([g!], [[x, [1]]])[0][0]).toBe(1);
  });
});

describe("own gradients", () => {
  it("are used, may use what f made or captured, and can be differentiated again", () => {
    const [x, w] = [f32(2), f32(2)];
    let inside: Node | undefined;
    const [y] = regionNodes(
      "custom",
      "expw",
      ([p]) => {
        inside = b.exp(p);
        return [b.mul(inside, w)];
      },
      [x],
      (_src, _out, [ct]) => [b.mul(b.mul(ct, inside!), w)],
    );
    const [g] = gradients([y], [one], [x]);
    const [h] = gradients([g!], [one], [x]);
    const values = run(
      [y, g!, h!],
      [
        [x, [0, 1]],
        [w, [2, 3]],
      ],
    );
    for (const v of values) close(v, [2, 3 * Math.E], 1e-12);
  });
  it("null is no gradient; captured values get none", () => {
    const [x, y, w] = [f32(), f32(), f32()];
    const [out] = regionNodes(
      "custom",
      "half",
      ([p, q]) => [b.mul(b.mul(p, q), w)],
      [x, y],
      (_s, _o, [ct]) => [ct, null],
    );
    expect(gradients([out], [one], [x, y, w]).map(Boolean)).toEqual([true, false, false]);
  });
  it("outputs without a cotangent get zeros", () => {
    const x = f32(2);
    const outs = regionNodes(
      "custom",
      "two",
      ([p]) => [b.neg(p), b.exp(p)],
      [x],
      (_s, _o, [c0, c1]) => [b.sub(c0, c1)],
    );
    const [g] = gradients([outs[0]], [one], [x]);
    expect([...run([g!], [[x, [1, 1]]])[0]]).toEqual([1, 1]);
  });
  it("of a wrong shape throw", () => {
    const x = f32(2);
    const [y] = regionNodes(
      "custom",
      "bad",
      ([p]) => [p],
      [x],
      (_s, _o, [ct]) => [b.sum(ct, [0])],
    );
    expect(() => gradients([y], [one], [x])).toThrow(TransformError);
  });
  it("forward mode takes the body", () => {
    const x = f32();
    const [y] = regionNodes(
      "custom",
      "sq",
      ([p]) => [b.mul(p, p)],
      [x],
      (_s, _o, [ct]) => [ct],
    );
    const [t] = tangents([y], [x], [one]);
    expect(run([t!], [[x, [3]]])[0][0]).toBe(6);
  });
});

describe("lowering", () => {
  it("inlines everything but what is claimed, at any depth", () => {
    const x = f32(2);
    const inner = (p: Node) => regionNodes("custom", "inner", ([q]) => [b.exp(q)], [p])[0];
    const [y] = regionNodes("custom", "outer", ([p]) => [b.neg(inner(p))], [x]);
    const ops = (roots: Node[]) => topological(roots).map((n) => n.op);
    expect(ops(lowerRegions([y]))).toEqual(["placeholder", "exp", "neg"]);
    const kept = lowerRegions([y], (r) => r.name === "inner");
    expect(ops(kept)).toEqual(["placeholder", "region", "project", "neg"]);
    expect(expandRegion(y.src[0] as Node<"region">).length).toBe(1);
  });
  it("leaves a graph without regions alone", () => {
    const y = b.neg(b.exp(f32(2)));
    expect(lowerRegions([y])[0]).toBe(y);
    expect(is(y, "neg") && freshUid() > 0).toBe(true);
  });
});
