import fc from "fast-check";
import { tensor } from "hinode";
import * as t from "hinode/testing";
import { describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";

const numel = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

/** The smallest case that the property fails for. */
function smallest<T>(arbitrary: fc.Arbitrary<T>, holds: (x: T) => boolean): T {
  const found = fc.check(
    fc.property(arbitrary, (x) => holds(x)),
    { numRuns: 1000 },
  );
  expect(found.failed).toBe(true);
  return found.counterexample![0];
}

describe("arbitraries", () => {
  test("shapes keep to their options", () => {
    const options = { minRank: 1, maxRank: 3, maxDim: 5, empty: false };
    fc.assert(
      fc.property(t.shapes(options), (shape) => {
        expect(shape.length).toBeGreaterThanOrEqual(1);
        expect(shape.length).toBeLessThanOrEqual(3);
        for (const d of shape) expect(d >= 1 && d <= 5).toBe(true);
      }),
    );
    expect(smallest(t.shapes(), (shape) => !shape.includes(0))).toEqual([0]);
    expect(smallest(t.shapes(), (shape) => numel(shape) < 6 || shape.length < 2)).toHaveLength(2);
  });

  test("broadcastable pairs broadcast", () => {
    fc.assert(
      fc.property(t.broadcastablePairs(), ([a, b]) => {
        const rank = Math.max(a.length, b.length);
        for (let i = 1; i <= Math.min(a.length, b.length); i++) {
          const [d, e] = [a[a.length - i], b[b.length - i]];
          expect(d === e || d === 1 || e === 1).toBe(true);
        }
        expect(rank).toBeLessThanOrEqual(4);
      }),
    );
  });

  test("special values occur, shrink to plain ones, and are numbers of the dtype", () => {
    for (const special of t.specialValues("f16")) {
      const found = smallest(
        t.tensors({ shape: [4], dtype: "f16", special: true }),
        ({ values }) => !values.some((x) => Object.is(x, special)),
      );
      expect(found.values.some((x) => Object.is(x, special))).toBe(true);
      expect(found.values.filter((x) => x === 0).length).toBeGreaterThanOrEqual(3);
    }
    expect(t.specialValues("i32")).toEqual([-(2 ** 31), 2 ** 31 - 1]);
    expect(t.specialValues("bool")).toEqual([0, 1]);
  });

  test("every dtype is drawn", () => {
    const seen = new Set(fc.sample(t.tensors({ dtype: t.dtypes() }), 200).map((x) => x.dtype));
    expect(seen.size).toBe(8);
    expect(fc.sample(t.dtypes(["u8"]), 3)).toEqual(["u8", "u8", "u8"]);
  });

  test("a failing tensor shrinks to few axes and simple numbers", () => {
    const few = smallest(t.tensors(), ({ values }) => values.length < 3);
    expect(few.values).toEqual([0, 0, 0]);
    expect(String(few)).toMatch(/^tensor\(\[+0, 0, 0\]+, \{ dtype: "f32" \}\)$/);
  });

  test("views print as the code that makes them", async () => {
    const drawn = t.stridedViews({ dtype: t.dtypes(), special: true });
    const property = fc.asyncProperty(drawn, async (x) => {
      const again = new Function("tensor", `return ${x.code};`)(tensor);
      const own = x.viewOf(x.upload("reference"));
      expect([again.dtype, again.shape]).toEqual([own.dtype, own.shape]);
      const exact = { rtol: 0, atol: 0 };
      expect(difference(await again.data(), await own.data(), exact)).toBeNull();
    });
    await fc.assert(property, { numRuns: 60 });
    for (const method of ["permute", "flip", "slice", "expand"])
      expect(String(smallest(drawn, ({ code }) => !code.includes(`.${method}(`)))).toContain(
        method,
      );
  });
});
