import fc from "fast-check";
import * as h from "hinode";
import { einops, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import {
  at,
  build,
  expectGradients,
  expectTensor,
  filled,
  make,
  type Plain,
  runs,
  values,
} from "./support.ts";

const letters = [..."abcd"];
/** An array, its axes' names, and the names in another order cut into groups. */
const cases = fc
  .record({
    sizes: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 4, maxLength: 4 }),
    order: fc.shuffledSubarray(letters, { minLength: 4 }),
    cuts: fc.array(fc.boolean(), { minLength: 6, maxLength: 6 }),
  })
  .chain(({ sizes, order, cuts }) =>
    fc.record({
      array: filled(sizes, values.f32),
      order: fc.constant(order),
      left: fc.constant(grouped(letters, cuts.slice(0, 3))),
      right: fc.constant(grouped(order, cuts.slice(3))),
    }),
  );
/** Neighbours are joined where `joins` says so. */
function grouped(names: readonly string[], joins: readonly boolean[]): string[][] {
  const groups = [[names[0]]];
  for (const [i, name] of names.slice(1).entries())
    if (joins[i]) groups.at(-1)!.push(name);
    else groups.push([name]);
  return groups;
}
const side = (groups: readonly string[][]): string =>
  groups.map((g) => (g.length > 1 ? `(${g.join(" ")})` : g[0])).join(" ");
const joined = (groups: readonly string[][], size: (l: string) => number): number[] =>
  groups.map((g) => g.reduce((n, l) => n * size(l), 1));

onEachDevice("einops", () => {
  test("rearrange is a permutation of elementary axes", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ array, order, left, right }) => {
        const size = (l: string) => array.shape[letters.indexOf(l)];
        const moved = build(order.map(size), (i) =>
          at(
            array,
            letters.map((l) => i[order.indexOf(l)]),
          ),
        );
        const x = make({ shape: joined(left, size), data: array.data });
        const sizes = Object.fromEntries(letters.map((l) => [l, size(l)]));
        const pattern = `${side(left)} -> ${side(right)}`;
        const want: Plain = { shape: joined(right, size), data: moved.data };
        await expectTensor(einops.rearrange(x, pattern, sizes), want);
        // And back.
        const back = `${side(right)} -> ${side(left)}`;
        await expectTensor(einops.rearrange(make(want), back, sizes), {
          shape: x.shape,
          data: array.data,
        });
      }),
      numRuns(40),
    );
  });

  test("reduce combines the axes that the right side lacks", async () => {
    const x = h.randn([2, 3, 4, 6]);
    const pairs: [h.Tensor, h.Tensor][] = [
      [einops.reduce(x, "a b c d -> c a", "sum"), x.sum([1, 3]).permute([1, 0])],
      [
        einops.reduce(x, "a b (c 2) (d 3) -> a b c d", "max"),
        x.reshape([2, 3, 2, 2, 2, 3]).amax([3, 5]),
      ],
      [einops.reduce(x, "a b ... -> a b", "mean"), x.mean([2, 3])],
      [einops.reduce(x, "a ... d -> ... 1", "min"), x.amin([0, 3]).unsqueeze(-1)],
      [einops.reduce(x, "... ->", "prod"), x.prod()],
      [einops.reduce(x, "a b c d -> (b a) c d", "sum"), x.transpose(0, 1).reshape([6, 4, 6])],
    ];
    for (const [got, want] of pairs)
      await expectTensor(
        got,
        { shape: want.shape, data: [...(await want.data())] },
        { rtol: 1e-5, atol: 1e-6 },
      );
  });

  test("repeat adds axes", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 0, max: 3 }),
        async (n, k) => {
          const x = h.randn([2, n]);
          const got = einops.repeat(x, "h w -> (h 2) (k w)", { k });
          const data = await x.data();
          await expectTensor(
            got,
            build([4, k * n], ([i, j]) => data[Math.floor(i / 2) * n + (j % n)]),
          );
        },
      ),
      runs,
    );
    expect(einops.repeat(h.ones([2]), "a -> 3 a 1 2").shape).toEqual([3, 2, 1, 2]);
    expect(einops.repeat(h.ones([]), "-> a b", { a: 2, b: 3 }).shape).toEqual([2, 3]);
  });

  test("arrays of tensors, dots in parentheses, axes of size 1", async () => {
    const x = [tensor([1, 2]), tensor([3, 4])];
    expect(await einops.rearrange(x, "n d -> (d n)").tolist()).toEqual([1, 3, 2, 4]);
    expect(einops.rearrange(h.ones([2, 3, 4]), "b ... -> (...) b").shape).toEqual([12, 2]);
    expect(einops.rearrange(h.ones([2, 1, 3]), "a 1 b -> b () a").shape).toEqual([3, 1, 2]);
    expect(einops.rearrange(h.ones([6, 2]), "(a b) c -> a (b c)", { b: 3 }).shape).toEqual([2, 6]);
    expect(einops.rearrange(h.ones([0, 6]), "n (a b) -> (n a) b", { a: 2 }).shape).toEqual([0, 3]);
  });

  test("gradients", async () => {
    const x = build([2, 6], ([i, j]) => Math.cos(3 * i + j));
    await expectGradients((t) => einops.rearrange(t, "a (b c) -> c a b", { b: 2 }), [x]);
    await expectGradients((t) => einops.reduce(t, "a (b 3) -> b", "mean").square(), [x]);
    await expectGradients((t) => einops.repeat(t, "a b -> b 2 a"), [x]);
  });
});

describe("errors point at the token", () => {
  const x = h.ones([2, 6]);
  const message = (f: () => unknown): string => {
    try {
      f();
    } catch (error) {
      expect(error).toBeInstanceOf(h.HinodeError);
      return (error as Error).message;
    }
    throw new Error("nothing was thrown");
  };
  const wrong: [what: string, f: () => unknown, text: string, at?: string][] = [
    ["an axis twice", () => einops.rearrange(x, "a a -> a"), "each axis once per side, got 'a' twice", "a a -> a\n    ^"],
    ["an axis on one side", () => einops.rearrange(x, "a b -> a c"), "'c' on both sides", "a b -> a c\n           ^"],
    ["nested parentheses", () => einops.rearrange(x, "a ((b))-> a b"), "nested parentheses", "a ((b))-> a b\n     ^"],
    ["an open parenthesis", () => einops.rearrange(x, "a (b -> a b"), "')' for every '('", "a (b -> a b\n    ^"],
    ["a strange character", () => einops.rearrange(x, "a b -> a, b"), "got ','", "a b -> a, b\n          ^"],
    ["an unknown size", () => einops.rearrange(x, "a (b c) -> a b c"), "a size for 'c' or 'b'", "\n       ^"],
    ["a size that does not divide", () => einops.rearrange(x, "a (b c) -> a b c", { b: 4 }), "a multiple of 4, got size 6", "\n     ^"],
    ["a number in rearrange", () => einops.rearrange(x, "a (b 2) -> a b"), "got the size 2", "\n       ^"],
    ["no arrow", () => einops.rearrange(x, "a b"), "one '->'"],
    ["a new axis without a size", () => einops.repeat(x, "a b -> a b k"), "a size for 'k', got none", "k\n             ^"],
    ["dots on the right only", () => einops.rearrange(x, "a b -> a b ..."), "'...' on the left side", "\n             ^"],
    ["too few axes", () => einops.rearrange(x, "a -> a"), 'axes for "a -> a", got f32[2, 6]'],
    ["a size of nothing", () => einops.rearrange(x, "a b -> b a", { c: 2 }), "got 'c'"],
    ["an unknown reduction", () => einops.reduce(x, "a b -> a", "median" as never), "mean, sum, max, min, prod"],
  ]; // biome-ignore format: a table
  test.for(wrong)("%s", ([, f, text, at = ""]) => {
    expect(message(f)).toContain(text);
    expect(message(f)).toContain(at);
  });
});
