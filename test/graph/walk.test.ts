import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { evaluate } from "../../core/backend/reference.ts";
import { DeviceError } from "../../core/errors.ts";
import * as b from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { constant, placeholder } from "../../core/graph/primitives.ts";
import { dependents, rebuild, substitute, topological } from "../../core/graph/walk.ts";

const f32 = (...shape: number[]) => placeholder("f32", shape, null);

/** A random graph: node i adds or multiplies two older ones. */
const graphs = fc
  .array(fc.tuple(fc.nat(), fc.nat(), fc.boolean()), { minLength: 1, maxLength: 40 })
  .map((steps) => {
    const nodes: Node[] = [f32(), f32(), constant(3, "f32")];
    for (const [i, j, sum] of steps)
      nodes.push((sum ? b.add : b.mul)(nodes[i % nodes.length], nodes[j % nodes.length]));
    return nodes;
  });

describe("topological", () => {
  it("has everything below the roots once, sources first", () => {
    fc.assert(
      fc.property(graphs, (nodes) => {
        const order = topological([nodes.at(-1)!, nodes.at(-1)!]);
        expect(new Set(order).size).toBe(order.length);
        const seen = new Set<Node>();
        for (const n of order) {
          for (const s of n.src) expect(seen.has(s)).toBe(true);
          seen.add(n);
        }
        expect(order.at(-1)).toBe(nodes.at(-1));
      }),
    );
  });
  it("does not look below a stop", () => {
    const x = b.exp(f32());
    expect(topological([b.neg(x)], (n) => n === x).map((n) => n.op)).toEqual(["exp", "neg"]);
  });
});

describe("dependents", () => {
  it("agrees with reachability", () => {
    const reaches = (n: Node, leaf: Node): boolean =>
      n === leaf || n.src.some((s) => reaches(s, leaf));
    fc.assert(
      fc.property(
        graphs.filter((g) => g.length < 14),
        (nodes) => {
          const root = nodes.at(-1)!;
          const found = dependents([root], new Set([nodes[0]]));
          for (const n of topological([root])) expect(found.has(n)).toBe(reaches(n, nodes[0]));
        },
      ),
    );
  });
  it("stays above the oldest leaf", () => {
    let old: Node = f32();
    for (let i = 0; i < 50_000; i++) old = b.neg(old);
    const x = b.alias(old);
    const before = performance.now();
    for (let i = 0; i < 1000; i++) dependents([b.neg(x)], new Set([x]));
    expect(performance.now() - before).toBeLessThan(3000);
  });
});

describe("substitute", () => {
  it("rebuilds what depends on a key, and only that", () => {
    const [x, y] = [f32(2), f32(2)];
    const kept = b.exp(y);
    const root = b.add(b.neg(x), kept);
    const [copy] = substitute([root], new Map([[x, y]]));
    expect(copy.src[1]).toBe(kept);
    expect(copy.src[0].src[0]).toBe(y);
    expect(substitute([kept], new Map([[x, y]]))[0]).toBe(kept);
    expect(substitute([x], new Map([[x, y]]))[0]).toBe(y);
  });
  it("evaluates like the substituted values", () => {
    fc.assert(
      fc.property(graphs, (nodes) => {
        const root = nodes.at(-1)!;
        const [x, y] = nodes;
        const [copy] = substitute([root], new Map([[x, b.add(y, constant(1, "f32"))]]));
        const feed = (vx: number, vy: number) =>
          new Map([
            [x, [vx]],
            [y, [vy]],
          ]);
        expect(evaluate([copy], feed(NaN, 0.5))[0]).toEqual(evaluate([root], feed(1.5, 0.5))[0]);
      }),
    );
  });
  it("with a mark copies all but leaves", () => {
    const x = f32(2);
    const alone = b.exp(b.expand(constant(1, "f32"), [2]));
    const root = b.add(x, alone);
    const [copy] = substitute([root], new Map([[x, x]]), 7);
    const inner = topological([copy]).filter((n) => n.src.length > 0);
    expect(inner.every((n) => n.recompute === 7 && n !== alone)).toBe(true);
    // Marked nodes get one mark per old mark, and not the same as unmarked ones.
    const [second] = substitute([b.add(copy, root)], new Map(), 9);
    const marks = topological([second])
      .filter((n) => n.op === "add")
      .map((n) => n.recompute);
    expect(new Set(marks).size).toBe(2);
    expect(marks).toContain(9);
  });
  it("adapts shapes and devices", () => {
    const x = f32();
    const [copy] = substitute([b.neg(x)], new Map([[x, placeholder("f32", [3], "wasm")]]));
    expect([copy.shape, copy.device]).toEqual([[3], "wasm"]);
    const other = placeholder("f32", [], "reference");
    const mixed = b.add(x, placeholder("f32", [], "wasm"));
    expect(() => substitute([mixed], new Map([[x, other]]))).toThrow(DeviceError);
  });
  it("a copy has no owner", () => {
    const n = b.neg(f32());
    n.owner = { requiresGrad: true };
    expect(rebuild(n, n.src).owner).toBeNull();
  });
  it("takes 100,000 nodes in a chain", () => {
    const x = f32();
    let y: Node = x;
    for (let i = 0; i < 100_000; i++) y = b.neg(y);
    const [copy] = substitute([y], new Map([[x, f32()]]));
    expect(topological([copy]).length).toBe(100_001);
  });
});
