import fc from "fast-check";
import * as h from "hinode";
import { tensor } from "hinode";
import { expect, test } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import {
  arrays,
  at,
  build,
  expectGradients,
  expectTensor,
  filled,
  fullShapes,
  make,
  type Plain,
  positions,
  runs,
  values,
} from "./support.ts";

/** The definition: for each element of the output, the sum over all values of all other letters. */
function definition(terms: readonly string[], output: string, operands: readonly Plain[]): Plain {
  const size = new Map<string, number>();
  for (const [i, term] of terms.entries())
    for (const [axis, letter] of [...term].entries())
      size.set(letter, Math.max(size.get(letter) ?? 1, operands[i].shape[axis]));
  const inner = [...size.keys()].filter((l) => !output.includes(l));
  return build(
    [...output].map((l) => size.get(l)!),
    (outer) => {
      let sum = 0;
      for (const rest of positions(inner.map((l) => size.get(l)!))) {
        const value = (l: string) =>
          output.includes(l) ? outer[output.indexOf(l)] : rest[inner.indexOf(l)];
        // Axes of size 1 broadcast, which `at` does.
        sum += operands.reduce((p, x, i) => p * at(x, [...terms[i]].map(value)), 1);
      }
      return sum;
    },
  );
}

/** One to three operands over five letters, some repeated, some axes of size 1, and an output of some of the letters. */
const cases = fc
  .record({
    sizes: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 5, maxLength: 5 }),
    terms: fc.array(
      fc.array(fc.constantFrom(..."abcde"), { maxLength: 4 }).map((t) => t.join("")),
      { minLength: 1, maxLength: 3 },
    ),
    order: fc.shuffledSubarray([..."abcde"]),
    narrow: fc.array(fc.boolean(), { minLength: 12, maxLength: 12 }),
  })
  .chain(({ sizes, terms, order, narrow }) => {
    const output = order.filter((l) => terms.some((t) => t.includes(l))).join("");
    // A repeated letter keeps its size: the diagonal of [1, 3] does not exist.
    const sizeOf = (term: string, i: number, l: string, axis: number) =>
      narrow[i * 4 + axis] && term.indexOf(l) === term.lastIndexOf(l)
        ? 1
        : sizes["abcde".indexOf(l)];
    const shapes = terms.map((t, i) => [...t].map((l, axis) => sizeOf(t, i, l, axis)));
    return fc.tuple(
      fc.constant(terms),
      fc.constant(output),
      fc.tuple(...shapes.map((s) => filled(s, values.f32))),
    );
  });

onEachDevice("einsum", () => {
  test("is the sum of products", async () => {
    await fc.assert(
      fc.asyncProperty(cases, ([terms, output, operands]) =>
        expectTensor(
          h.einsum(`${terms.join(", ")} -> ${output}`, ...operands.map((p) => make(p))),
          definition(terms, output, operands),
          { rtol: 1e-4, atol: 1e-3 },
        ),
      ),
      numRuns(60),
    );
  });

  test("the dots broadcast, from the right, also without a right-hand side", async () => {
    await fc.assert(
      fc.asyncProperty(arrays(values.f32, fullShapes), (a) => {
        const x = make({ shape: [...a.shape, 1], data: a.data });
        return expectTensor(h.einsum("...i,ij", x, h.ones([1, 2])), {
          shape: [...a.shape, 2],
          data: a.data.flatMap((v) => [v, v]),
        });
      }),
      runs,
    );
    expect(h.einsum("i...,...i->...", h.ones([2, 3, 1]), h.ones([4, 2])).shape).toEqual([3, 4]);
    expect(h.einsum("...ii->...", h.ones([5, 2, 2])).shape).toEqual([5]);
    expect(await h.einsum("...->", h.ones([5, 2])).item()).toBe(10);
    expect(h.einsum("ba,cb", h.ones([2, 3]), h.ones([4, 2])).shape).toEqual([3, 4]);
    expect(h.einsum("bA,b", h.ones([2, 3]), h.ones([2])).shape).toEqual([3]);
  });

  test("a contraction is a matrix product: nothing larger than the operands and the result exists", () => {
    const [x, y] = [h.ones([8, 16, 32]), h.ones([32, 8, 4])];
    const largest = (t: h.Tensor): number => {
      const seen = new Set<h.Tensor["node"]>();
      const visit = (n: h.Tensor["node"]): number => {
        if (seen.has(n)) return 0;
        seen.add(n);
        return Math.max(
          n.shape.reduce((a, d) => a * d, 1),
          ...n.src.map(visit),
        );
      };
      return visit(t.node);
    };
    expect(largest(h.einsum("bik,kbj->bij", x, y))).toBe(8 * 16 * 32);
    const three = h.einsum("bi,aij,bj->ba", h.ones([4, 8]), h.ones([3, 8, 8]), h.ones([4, 8]));
    expect(largest(three)).toBe(3 * 8 * 8);
  });

  test("gradients", async () => {
    const p = (shape: number[], k: number): Plain =>
      build(shape, (i) => Math.sin(k + i.reduce((s, v) => 3 * s + v, 1)));
    await expectGradients(
      (a, b) => h.einsum("bij,bjk->ik", a, b),
      [p([2, 3, 2], 0), p([2, 2, 2], 1)],
    );
    await expectGradients(
      (a, b) => h.einsum("ii,ij->j", a, b).square(),
      [p([2, 2], 0), p([2, 3], 1)],
    );
    await expectGradients((a, b) => h.einsum("ij,kj->ik", a, b), [p([2, 1], 0), p([2, 3], 1)]);
  });

  test("errors name the equation", () => {
    const x = h.ones([2, 3]);
    expect(() => h.einsum("ijk", x)).toThrow(
      /einsum: expected as many letters as axes.*"ijk" meets 2/s,
    );
    expect(() => h.einsum("ij,jk", x)).toThrow(/2 operands/);
    expect(() => h.einsum("ij->k", x)).toThrow(/"k" does not/);
    expect(() => h.einsum("ij->ii", x)).toThrow(/"i" is repeated/);
    expect(() => h.einsum("ij,ij", x, h.ones([2, 4]))).toThrow(/one size for "j".*3 and 4/s);
    expect(() => h.einsum("i.j", x)).toThrow(/letters and at most one/);
    expect(() => h.einsum("ii", x)).toThrow(h.ShapeError);
    expect(() => h.einsum("ij,ij", x, x.to("i32"))).toThrow(h.DTypeError);
  });

  test("tensordot, inner, kron", async () => {
    const [a, b] = [h.randn([2, 3, 4]), h.randn([4, 3, 5])];
    const want = await h.einsum("aij,jib->ab", a, b).data();
    const got = h.tensordot(a, b, [[1, -1], [1, 0]]); // biome-ignore format: pairs
    expect([...(await got.data())]).toEqual([...want]);
    expect(h.tensordot(a, b, 1).shape).toEqual([2, 3, 3, 5]);
    expect(h.tensordot(a, b, 0).shape).toEqual([2, 3, 4, 4, 3, 5]);
    expect(() => h.tensordot(a, b, 2)).toThrow(/equal sizes/);
    expect(h.inner(a, h.ones([7, 4])).shape).toEqual([2, 3, 7]);
    expect(await h.kron(tensor([1, 2]), tensor([[1], [10]])).tolist()).toEqual([
      [1, 2],
      [10, 20],
    ]);
  });
});
