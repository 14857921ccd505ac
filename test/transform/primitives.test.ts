/** The laws of the transforms, for every primitive. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Primitive, rules } from "../../core/graph/primitives.ts";
import { nonDifferentiable, primitives } from "../../core/primitives.ts";
import { cases, sample } from "./cases.ts";
import { checkBatching, checkDerivatives, randomNumbers } from "./laws.ts";

const names = Object.keys(rules) as Primitive[];
const seeds = (n: number) => ({ numRuns: n, seed: 20261101 });

describe("the table", () => {
  it("has every column for every primitive", () => {
    expect(Object.keys(primitives).sort()).toEqual([...names].sort());
    for (const op of names) {
      const row = primitives[op];
      expect(row.rule && row.batch && row.reference, op).toBeTruthy();
      expect(Boolean(row.gradient && row.jvp), op).toBe(nonDifferentiable[op] === undefined);
    }
  });
  it("counts them", () => {
    const without = names.filter((op) => nonDifferentiable[op]);
    expect(names.length).toBe(62);
    expect(without).toEqual(
      (
        "constant buffer placeholder random iota floor round not idiv lt le eq and or xor shl shr " +
        "bitcast argmax argsort detach"
      ).split(" "),
    );
  });
  it("has a case here for everything but leaves", () => {
    expect(names.filter((op) => rules[op].kind !== "leaf" && !cases[op])).toEqual([]);
  });
});

for (const op of names) {
  if (!cases[op]) continue;
  describe(op, () => {
    for (const [i, c] of cases[op]!.entries()) {
      const label = c.name ?? `case ${i}`;
      const differentiable = op !== "assign" && op !== "detach";
      if (differentiable)
        it(`${label}: gradient, jvp, second order`, () => {
          fc.assert(
            fc.property(fc.nat(), (seed) => {
              const next = randomNumbers(seed);
              checkDerivatives(
                c.f,
                c.inputs.map((d) => sample(d, next)),
                2,
                seed,
              );
            }),
            seeds(3),
          );
        });
      it(`${label}: vmap = stack`, () => {
        if (op === "assign") return; // transforms.test.ts: what may be assigned
        fc.assert(
          fc.property(fc.nat(), (seed) => {
            const next = randomNumbers(seed);
            checkBatching(c.f, () => c.inputs.map((d) => sample(d, next)));
          }),
          seeds(3),
        );
      });
    }
  });
}
