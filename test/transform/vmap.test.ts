/** vmap beyond single primitives: randomness, assignments, nesting, what stays unbatched. */
import { describe, expect, it } from "vitest";
import { TransformError } from "../../core/errors.ts";
import * as b from "../../core/graph/build.ts";
import { type Node, peekId } from "../../core/graph/node.ts";
import { constant, randomBits } from "../../core/graph/primitives.ts";
import { topological } from "../../core/graph/walk.ts";
import { regionNodes } from "../../core/transform/region.ts";
import { gradients } from "../../core/transform/vjp.ts";
import { batch } from "../../core/transform/vmap.ts";
import { close, param, run } from "./laws.ts";

const f32 = (...shape: number[]) => param({ shape, dtype: "f32" });
const none = { randomness: "error", since: Infinity } as const;

describe("randomness", () => {
  const draw = (randomness: "error" | "same" | "different") => {
    const since = peekId();
    const x = f32(2);
    const bits = randomBits([2], [1, 2], 3);
    const out = b.add(x, b.cast(b.shr(bits, constant(20, "u32")), "f32"));
    const value = f32(3, 2);
    const [r] = batch([out], new Map([[x, value]]), 3, { randomness, since });
    return [...run([r.node], [[value, [0, 0, 0, 0, 0, 0]]])[0]];
  };
  it("error", () => expect(() => draw("error")).toThrow(TransformError));
  it("same", () => {
    const [p, q, ...rest] = draw("same");
    expect(rest).toEqual([p, q, p, q]);
  });
  it("different draws the bits of one larger leaf", () => {
    const got = draw("different");
    expect(new Set(got).size).toBe(6);
    expect(got.slice(0, 2)).toEqual(draw("same").slice(0, 2));
  });
  it("different applies to outputs that depend on nothing else", () => {
    const since = peekId();
    const x = f32();
    const bits = randomBits([2], [1, 2], 3);
    const [r] = batch([bits], new Map([[x, f32(4)]]), 4, { randomness: "different", since });
    expect([r.batched, r.node.shape]).toEqual([true, [4, 2]]);
  });
  it("draws from before the function are shared", () => {
    const bits = b.cast(randomBits([], [1, 2], 3), "f32");
    const since = peekId();
    const x = f32();
    const [r] = batch([b.add(x, bits)], new Map([[x, f32(4)]]), 4, { randomness: "error", since });
    expect(r.batched).toBe(true);
  });
});

describe("assign", () => {
  it("of a batched value to shared state throws", () => {
    const [x, state] = [f32(2), f32(2)];
    const out = b.assign(state, x);
    expect(() => batch([out], new Map([[x, f32(3, 2)]]), 3, none)).toThrow(TransformError);
  });
  it("of a shared value to shared state stays as it is", () => {
    const [x, state] = [f32(2), f32(2)];
    const out = b.assign(state, b.neg(state));
    const [r] = batch([out, x], new Map([[x, f32(3, 2)]]), 3, none);
    expect(r).toEqual({ node: out, batched: false });
  });
  it("to a batched target", () => {
    const x = f32(2);
    const [r] = batch([b.assign(x, b.zerosLike(x))], new Map([[x, f32(3, 2)]]), 3, none);
    expect(r.node.shape).toEqual([3, 2]);
  });
});

describe("structure", () => {
  it("what does not depend on the batch is computed once", () => {
    const [x, w] = [f32(2), f32(2)];
    const shared = b.exp(w);
    const [r] = batch([b.mul(x, shared)], new Map([[x, f32(5, 2)]]), 5, none);
    expect(topological([r.node])).toContain(shared);
    expect(shared.shape).toEqual([2]);
  });
  it("a shared matrix makes the batch more rows, not more matrices", () => {
    const [x, w] = [f32(1, 4, 8), f32(1, 8, 3)];
    const [r] = batch([b.dot(x, w)], new Map([[x, f32(5, 1, 4, 8)]]), 5, none);
    const dots = topological([r.node]).filter((n) => n.op === "dot");
    expect(dots.map((d) => d.shape)).toEqual([[1, 20, 3]]);
    expect(dots[0].src[1]).toBe(w);
  });
  it("nests", () => {
    const [x, y] = [f32(), f32()];
    const [inner, outer] = [f32(3), f32(2)];
    const [a] = batch([b.mul(x, y)], new Map([[y, inner]]), 3, none);
    const [r] = batch([a.node], new Map([[x, outer]]), 2, none);
    const [v] = run(
      [r.node],
      [
        [outer, [10, 100]],
        [inner, [1, 2, 3]],
      ],
    );
    expect([...v]).toEqual([10, 20, 30, 100, 200, 300]);
  });
  it("a region with its own gradient keeps it, batched", () => {
    // The own gradient is wrong on purpose (×7), so that it is seen to be used; z is captured and
    // shared.
    const z = f32(2);
    const f = (x: Node) =>
      regionNodes(
        "custom",
        "seven",
        ([p]) => [b.mul(p, z)],
        [x],
        ([p], [out], [ct]) => [
          b.add(b.mul(ct, constant(7, "f32")), b.mul(b.sub(out, b.mul(p, z)), z)),
        ],
      )[0];
    const x = f32(2);
    const value = f32(3, 2);
    const [r] = batch([f(x)], new Map([[x, value]]), 3, none);
    const [g] = gradients([r.node], [constant(1, "f32")], [value]);
    const feeds = [
      [value, [1, 2, 3, 4, 5, 6]],
      [z, [2, 3]],
    ] as const;
    const [v, gv] = run([r.node, g!], feeds);
    expect([...v]).toEqual([2, 6, 6, 12, 10, 18]);
    expect([...gv]).toEqual([7, 7, 7, 7, 7, 7]);
  });
  it("an own gradient of a shared source is summed over the batch", () => {
    const [x, w] = [f32(2), f32(2)];
    const [out] = regionNodes(
      "custom",
      "mul",
      ([p, q]) => [b.mul(p, q)],
      [x, w],
      ([p, q], _, [ct]) => [b.mul(ct, q), b.mul(ct, p)],
    );
    const value = f32(3, 2);
    const [r] = batch([out], new Map([[x, value]]), 3, none);
    const [gw] = gradients([r.node], [constant(1, "f32")], [w]);
    const [v] = run([gw!], [[value, [1, 2, 3, 4, 5, 6]]]);
    close(v, [9, 12]);
  });
});
