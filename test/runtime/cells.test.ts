/** @file SEMANTICS: identity, cells and versions, plan key. */
import { beforeEach, describe, expect, test } from "vitest";
import { type Canonical, canonicalize } from "../../core/canonical.ts";
import type { Device } from "../../core/device.ts";
import * as g from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { constant, placeholder, randomBits } from "../../core/graph/primitives.ts";
import {
  DTypeError,
  fullLike,
  grad,
  noGrad,
  rand,
  realize,
  ShapeError,
  TransformError,
  tensor,
  zeros,
} from "../../core/index.ts";
import { leafTensor } from "../../core/tensor.ts";
import { devices, inPlace, names, use } from "./support.ts";

const keyOf = (...roots: Node[]): Canonical<Node> =>
  canonicalize<Node>(roots, {
    slotOf: (n) => (n.op === "placeholder" ? n : undefined),
    hasHistory: () => false,
  });
const leaf = (shape: number[] = [4]) => placeholder("f32", shape, null);
const lit = (x: number) => constant(x, "f32");

describe("the plan's key", () => {
  test("numbers leaves by first use: equal computations on other leaves are equal", () => {
    const make = () => {
      const [a, b] = [leaf(), leaf()];
      return keyOf(g.add(g.mul(a, b), a)).key;
    };
    expect(make()).toBe(make());
  });

  test("tells which slots are the same", () => {
    const [a, b] = [leaf(), leaf()];
    expect(keyOf(g.add(a, b)).key).not.toBe(keyOf(g.add(a, a)).key);
  });

  test("merges equal computations, and constants by their bits", () => {
    const a = leaf();
    const twice = keyOf(g.add(g.exp(a), g.exp(a)));
    expect(twice.lines.filter((l) => l.startsWith("exp"))).toHaveLength(1);
    const merged = (x: number, y: number) =>
      keyOf(g.mul(g.add(a, lit(x)), g.add(a, lit(y)))).lines.filter((l) => l.startsWith("add"))
        .length === 1;
    expect(merged(0, -0)).toBe(false);
    expect(merged(Number.NaN, Number.NaN)).toBe(true);
    expect(merged(1, 1)).toBe(true);
    const pads = [0, -0].map((v) => keyOf(g.pad(a, [1], [0], v)).key);
    expect(pads[0]).not.toBe(pads[1]);
  });

  test("contains plain numbers, but no counters and no values of leaves", () => {
    const a = leaf();
    expect(keyOf(g.mul(a, lit(2))).key).not.toBe(keyOf(g.mul(a, lit(3))).key);
    const bits = (counter: number) => keyOf(randomBits([4], [1, 2], counter)).key;
    expect(bits(1)).toBe(bits(2));
  });

  test("keeps random leaves apart, even with equal counters", () => {
    const [r, s] = [randomBits([4], [1, 2], 3), randomBits([4], [1, 2], 3)];
    expect(keyOf(g.xor(r, s)).randoms).toHaveLength(2);
    expect(keyOf(g.xor(r, r)).randoms).toHaveLength(1);
  });

  test("keeps a checkpoint's clone apart, whatever its mark is", () => {
    const make = (mark: number) => {
      const a = leaf();
      const e = g.exp(a);
      const clone = { ...g.exp(a), recompute: mark };
      return keyOf(g.add(e, clone));
    };
    expect(make(7).lines.filter((l) => l.startsWith("exp"))).toHaveLength(2);
    expect(make(7).key).toBe(make(99).key);
  });

  test("dissolves names", () => {
    const a = leaf();
    expect(keyOf(g.exp(g.alias(g.detach(a)))).key).toBe(keyOf(g.exp(a)).key);
  });

  test("the graph that is built has the program's order and none of the caller's leaves", () => {
    const [a, b] = [leaf(), leaf()];
    const first = g.exp(b);
    const second = g.log(a);
    const built = keyOf(g.add(second, first)).build();
    const [sum] = built.outputs;
    expect(sum.src.map((s) => s.op)).toEqual(["log", "exp"]);
    expect(sum.src[1].id).toBeLessThan(sum.src[0].id);
    expect(built.inputs.every((p) => p !== a && p !== b)).toBe(true);
    expect(sum.src[0].src[0]).toBe(built.inputs[0]);
  });

  test("a chain of 100,000 nodes needs no recursion", () => {
    let n: Node = leaf([]);
    for (let i = 0; i < 100_000; i++) n = g.add(n, lit(i));
    expect(keyOf(n).lines.length).toBeGreaterThan(100_000);
  });
});

describe.each(names)("cells on %s", (name) => {
  let device: Device;
  beforeEach(() => {
    device = use(devices[name]());
  });

  test("each tensor made from data is its own", async () => {
    const [a, b] = [tensor([1, 2]), tensor([1, 2])];
    a.assign(tensor([5, 6]));
    expect(await b.tolist()).toEqual([1, 2]);
    expect(await a.tolist()).toEqual([5, 6]);
  });

  test("the data is copied at the call, and data() returns a copy", async () => {
    const source = Float32Array.of(1, 2);
    const t = tensor(source);
    source[0] = 9;
    const read = await t.data();
    expect([...read]).toEqual([1, 2]);
    read[0] = 7;
    expect(await t.tolist()).toEqual([1, 2]);
  });

  test("a reader keeps the version it has read", async () => {
    const w = tensor([1, 2]);
    const before = w.mul(10);
    w.assign(w.add(1));
    const between = w.mul(10);
    w.assign(w.add(1));
    expect(await before.tolist()).toEqual([10, 20]);
    expect(await between.tolist()).toEqual([20, 30]);
    expect(await w.tolist()).toEqual([3, 4]);
    expect(await before.tolist()).toEqual([10, 20]);
  });

  test("views are values: assigning to one changes no other", async () => {
    const w = tensor([
      [1, 2],
      [3, 4],
    ]);
    const same = w.reshape([2, 2]);
    const row = w.select(0, 0);
    w.assign(zeros([2, 2]));
    expect(await same.tolist()).toEqual([
      [1, 2],
      [3, 4],
    ]);
    expect(await row.tolist()).toEqual([1, 2]);
    same.assign(fullLike(same, 7));
    expect(await w.tolist()).toEqual([
      [0, 0],
      [0, 0],
    ]);
  });

  test("assign broadcasts and casts to the target; it refuses what does not fit", async () => {
    const w = zeros([2, 2]);
    w.assign(tensor([1, 2], { dtype: "i32" }));
    expect(await w.tolist()).toEqual([
      [1, 2],
      [1, 2],
    ]);
    expect(w.dtype).toBe("f32");
    expect(() => w.assign(zeros([3]))).toThrow(ShapeError);
    expect(() => tensor([1]).assign(zeros([2]))).toThrow(ShapeError);
  });

  test("swapping two cells", async () => {
    const [a, b] = [tensor([1]), tensor([2])];
    const old = a.add(0);
    a.assign(b);
    b.assign(old);
    await realize();
    expect(await a.tolist()).toEqual([2]);
    expect(await b.tolist()).toEqual([1]);
  });

  test("assignments run with the next realisation, whatever it is of", async () => {
    const w = tensor([1, 2]);
    w.assign(w.add(1));
    const runs = device.statistics().runs;
    await tensor([5]).add(1).item();
    expect(device.statistics().runs).toBe(runs + 1);
    await w.data();
    expect(device.statistics().runs).toBe(runs + 1);
    expect(await w.tolist()).toEqual([2, 3]);
  });

  test("a leaf that requires grad is assigned only in noGrad", async () => {
    const w = tensor([1, 2], { requiresGrad: true });
    expect(() => w.assign(zeros([2]))).toThrow(TransformError);
    noGrad(() => w.assign(zeros([2])));
    expect(await w.tolist()).toEqual([0, 0]);
    expect(w.requiresGrad).toBe(true);
    w.mul(3).sum().backward();
    expect(await w.grad!.tolist()).toEqual([3, 3]);
  });

  test("requiresGrad is for floats", () => {
    expect(() => {
      tensor([1], { dtype: "i32" }).requiresGrad = true;
    }).toThrow(DTypeError);
  });

  test("what a function captures is constant to its transform", async () => {
    const x = tensor([3]);
    const y = x.mul(2);
    const d = grad((t: typeof x) => t.mul(y).sum())(x);
    expect(await d.tolist()).toEqual([6]);
  });

  test("a random initial value is drawn once", async () => {
    const w = rand([8]);
    w.requiresGrad = true;
    const first = await w.mul(1).tolist();
    expect(await w.mul(1).tolist()).toEqual(first);
    expect(await w.tolist()).toEqual(first);
  });
});

test("a value that a cell owns is kept when it is first computed", async () => {
  const { backend } = inPlace();
  const w = rand([8]);
  w.requiresGrad = true;
  await w.mul(2).data();
  await w.mul(3).data();
  expect(backend.runs.map((r) => r.randoms.length)).toEqual([1, 0]);
});

test("two cells with one leaf", async () => {
  inPlace();
  const a = tensor([1, 2]);
  const b = leafTensor(a.node);
  b.assign(b.add(1));
  expect(await a.tolist()).toEqual([1, 2]);
  expect(await b.tolist()).toEqual([2, 3]);
});
