/** @file Every integer rewrite against exact floor arithmetic, negatives included. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  affineIn,
  delinearize,
  evaluate,
  freeVars,
  ge,
  type Index,
  iadd,
  idiv,
  imin,
  imod,
  imul,
  isConst,
  isub,
  ivalue,
  ivar,
  linearize,
  lt,
  num,
  simplifyCond,
  splitPoints,
  substitute,
} from "../../core/schedule/symbolic.ts";

type Expr =
  | { k: "num"; n: number }
  | { k: "var"; name: string }
  | { k: "add" | "sub" | "min"; a: Expr; b: Expr }
  | { k: "mul" | "div" | "mod"; a: Expr; c: number };

const extents: Record<string, number> = { i: 8, j: 3, k: 12, l: 1, m: 5 };

/** The meaning, without any simplification. */
function naive(e: Expr, env: Record<string, number>): number {
  switch (e.k) {
    case "num":
      return e.n;
    case "var":
      return env[e.name];
    case "add":
      return naive(e.a, env) + naive(e.b, env);
    case "sub":
      return naive(e.a, env) - naive(e.b, env);
    case "min":
      return Math.min(naive(e.a, env), naive(e.b, env));
    case "mul":
      return naive(e.a, env) * e.c + 0; // never -0
    case "div":
      return Math.floor(naive(e.a, env) / e.c);
    case "mod": {
      const a = naive(e.a, env);
      return a - e.c * Math.floor(a / e.c);
    }
  }
}

function build(e: Expr): Index {
  switch (e.k) {
    case "num":
      return num(e.n);
    case "var":
      return ivar(e.name, extents[e.name]);
    case "add":
      return iadd(build(e.a), build(e.b));
    case "sub":
      return isub(build(e.a), build(e.b));
    case "min":
      return imin(build(e.a), build(e.b));
    case "mul":
      return imul(build(e.a), e.c);
    case "div":
      return idiv(build(e.a), e.c);
    case "mod":
      return imod(build(e.a), e.c);
  }
}

// Divisors and factors share primes, so that the rules about common factors fire often.
const divisor = fc.constantFrom(1, 2, 3, 4, 6, 8, 12, 16, 24, 7);
const factor = fc.constantFrom(-12, -8, -4, -3, -1, 0, 1, 2, 3, 4, 6, 8, 12, 24);

const { expr } = fc.letrec<{ expr: Expr }>((tie) => ({
  expr: fc.oneof(
    { maxDepth: 5, depthIdentifier: "expr" },
    fc.record({ k: fc.constant("var" as const), name: fc.constantFrom(...Object.keys(extents)) }),
    fc.record({ k: fc.constant("num" as const), n: fc.integer({ min: -30, max: 30 }) }),
    fc.record({
      k: fc.constantFrom("add" as const, "sub" as const, "add" as const, "min" as const),
      a: tie("expr"),
      b: tie("expr"),
    }),
    fc.record({ k: fc.constant("mul" as const), a: tie("expr"), c: factor }),
    fc.record({ k: fc.constantFrom("div" as const, "mod" as const), a: tie("expr"), c: divisor }),
  ),
}));

const environment = fc.record(
  Object.fromEntries(Object.entries(extents).map(([n, e]) => [n, fc.nat(e - 1)])),
) as fc.Arbitrary<Record<string, number>>;
const environments = fc.array(environment, { minLength: 4, maxLength: 4 });

const i = ivar("i", 8);
const j = ivar("j", 3);
const d = ivar("d", 64);
const h = ivar("h", 12);

describe("normal form", () => {
  test("evaluates to the naive value and stays within its range", () => {
    fc.assert(
      fc.property(expr, environments, (e, envs) => {
        const x = build(e);
        for (const env of envs) {
          const value = naive(e, env);
          expect(evaluate(x, env)).toBe(value);
          expect(value).toBeGreaterThanOrEqual(x.min);
          expect(value).toBeLessThanOrEqual(x.max);
        }
      }),
      { numRuns: 6000 },
    );
  });

  test("terms are sorted, distinct and without zeros; equal keys mean equal functions", () => {
    fc.assert(
      fc.property(expr, (e) => {
        const x = build(e);
        const keys = x.terms.map((t) => t.atom.key);
        expect(keys).toEqual([...new Set(keys)].sort());
        expect(x.terms.every((t) => t.coef !== 0)).toBe(true);
        expect(build(e).key).toBe(x.key);
      }),
    );
  });

  test("single divisions and modulos of affine expressions are exact on all points", () => {
    fc.assert(
      fc.property(factor, factor, fc.integer({ min: -40, max: 40 }), divisor, (a, b, k, c) => {
        const x = iadd(imul(i, a), imul(j, b), num(k));
        const [q, r] = [idiv(x, c), imod(x, c)];
        for (let iv = 0; iv < 8; iv++)
          for (let jv = 0; jv < 3; jv++) {
            const value = a * iv + b * jv + k + 0;
            const env = { i: iv, j: jv };
            expect(evaluate(q, env)).toBe(Math.floor(value / c));
            expect(evaluate(r, env)).toBe(value - c * Math.floor(value / c));
          }
        expect(evaluate(iadd(imul(q, c), r), { i: 5, j: 2 })).toBe(5 * a + 2 * b + k);
      }),
      { numRuns: 1000 },
    );
  });
});

describe("rewrites", () => {
  const key = (x: Index) => x.key;
  test.each([
    ["(h·64 + d) / 64", idiv(iadd(imul(h, 64), d), 64), h],
    ["(h·64 + d) % 64", imod(iadd(imul(h, 64), d), 64), d],
    ["(6x) / 3", idiv(imul(i, 6), 3), imul(i, 2)],
    ["(a / b) / c", idiv(idiv(d, 4), 8), idiv(d, 32)],
    ["(a % 12) % 4", imod(imod(d, 12), 4), imod(d, 4)],
    ["x % 1", imod(d, 1), num(0)],
    ["x / 100 of a smaller x", idiv(d, 100), num(0)],
    ["min with disjoint ranges", imin(i, iadd(j, num(10))), i],
    ["min with an ordered difference", imin(iadd(i, j), iadd(i, num(2))), iadd(i, j)],
    ["(h·64 + d) / 128", idiv(iadd(imul(h, 64), d), 128), idiv(h, 2)],
    ["4(d/4) + d%4", iadd(imul(idiv(d, 4), 4), imod(d, 4)), d],
    ["4((d/4) % 8) + d%4", iadd(imul(imod(idiv(d, 4), 8), 4), imod(d, 4)), imod(d, 32)],
    ["flip: (63 - d) / 4", idiv(isub(num(63), d), 4), isub(num(15), idiv(d, 4))],
    ["flip: (63 - d) % 4", imod(isub(num(63), d), 4), isub(num(3), imod(d, 4))],
    ["extent 1", ivar("one", 1), num(0)],
  ])("%s", (_, got, want) => expect(key(got)).toBe(key(want)));

  test("truncation against floor: (16i + y) / 16 with y < 0", () => {
    const x = idiv(iadd(imul(i, 16), isub(j, num(2))), 16);
    expect(evaluate(x, { i: 0, j: 0 })).toBe(-1);
    expect(evaluate(x, { i: 3, j: 1 })).toBe(2);
  });
});

describe("shapes", () => {
  const shape = fc.array(fc.constantFrom<number[]>(1, 2, 3, 4, 6), { minLength: 1, maxLength: 4 });
  test("delinearize inverts linearize symbolically", () => {
    fc.assert(
      fc.property(shape, (s) => {
        const vars = s.map((n, a) => ivar(`v${a}`, n));
        const back = delinearize(linearize(vars, s), s);
        expect(back.map((x) => x.key)).toEqual(vars.map((x) => x.key));
      }),
    );
  });

  test("a chain of reshapes of a flat index is the flat index", () => {
    fc.assert(
      fc.property(shape, shape, (a, b) => {
        const n = [...a, ...b].reduce((x, y) => x * y, 1);
        const flat = ivar("flat", n);
        const [sa, sb] = [
          [...a, n / a.reduce((x, y) => x * y, 1)],
          [n / b.reduce((x, y) => x * y, 1), ...b],
        ];
        const there = linearize(delinearize(flat, sa), sa);
        expect(there.key).toBe(flat.key);
        expect(linearize(delinearize(there, sb), sb).key).toBe(flat.key);
      }),
    );
  });
});

describe("walks", () => {
  test("substitute agrees with evaluation of the substituted values", () => {
    fc.assert(
      fc.property(expr, expr, environment, (e, by, env) => {
        const x = substitute(build(e), new Map([["k", build(by)]]));
        // The substituted value may leave k's range: the ranges of the outer rewrites then no longer hold.
        const value = naive(by, env);
        fc.pre(value >= 0 && value < extents.k);
        expect(evaluate(x, env)).toBe(naive(e, { ...env, k: value }));
      }),
      { numRuns: 3000 },
    );
  });

  test("freeVars, affineIn, isConst", () => {
    const x = iadd(imul(i, 4), idiv(d, 3), ivalue("p", 9));
    expect([...freeVars(x)].sort()).toEqual(["d", "i", "p"]);
    expect(affineIn(x, "i")).toBe(4);
    expect(affineIn(x, "q")).toBe(0);
    expect(affineIn(x, "d")).toBe(null);
    expect(isConst(isub(x, x))).toBe(true);
  });

  test("a map works as an environment; a missing variable is an error", () => {
    expect(evaluate(i, new Map([["i", 3]]))).toBe(3);
    expect(() => evaluate(i, {})).toThrow(/variable i has no value/);
  });
});

describe("conditions", () => {
  test("ge and lt are ≥ 0 exactly when they hold; simplifyCond keeps the meaning", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(expr, fc.boolean(), fc.integer({ min: -20, max: 20 })), { maxLength: 4 }),
        environments,
        (entries, envs) => {
          const cond = entries.map(([e, isGe, c]) => (isGe ? ge(build(e), c) : lt(build(e), c)));
          const simple = simplifyCond(cond);
          for (const env of envs) {
            const holds = entries.every(([e, isGe, c]) =>
              isGe ? naive(e, env) >= c : naive(e, env) < c,
            );
            const now = simple !== false && simple.every((x) => evaluate(x, env) >= 0);
            expect(now).toBe(holds);
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("drops what always holds, sees what never does", () => {
    expect(simplifyCond([ge(i, 0), lt(i, 8)])).toEqual([]);
    expect(simplifyCond([lt(i, 0)])).toBe(false);
    expect(simplifyCond([ge(i, 2), ge(i, 5), ge(imul(i, 2), 9)])).toEqual([ge(i, 5)]);
  });
});

describe("splitPoints", () => {
  test("after the split the division is gone", () => {
    const v = ivar("v", 24);
    const points = splitPoints([idiv(v, 6), imod(imul(v, 2), 12)]);
    expect(points).toEqual(new Map([["v", 6]]));
    const split = iadd(imul(ivar("vo", 4), 6), ivar("vi", 6));
    expect(substitute(idiv(v, 6), new Map([["v", split]])).key).toBe(ivar("vo", 4).key);
    expect(splitPoints([idiv(v, 7)]).size).toBe(0);
  });

  test("repeated splitting is sound and ends", () => {
    fc.assert(
      fc.property(expr, environment, (e, env) => {
        let x = build(e);
        const at: Record<string, number> = { ...env };
        for (let round = 0; round < 12; round++) {
          const points = splitPoints([x]);
          if (points.size === 0) break;
          const by = new Map<string, Index>();
          for (const [name, k] of points) {
            const extent = extentOf(x, name);
            expect(extent % k).toBe(0);
            const [o, n] = [`${name}o`, `${name}i`];
            by.set(name, iadd(imul(ivar(o, extent / k), k), ivar(n, k)));
            at[o] = Math.floor(at[name] / k);
            at[n] = at[name] % k;
          }
          x = substitute(x, by);
          expect(evaluate(x, at)).toBe(naive(e, env));
        }
        expect(splitPoints([x]).size).toBe(0);
      }),
      { numRuns: 2000 },
    );
  });
});

function extentOf(x: Index, name: string): number {
  for (const { atom } of x.terms) {
    if (atom.k === "var" && atom.name === name) return atom.extent;
    const inside =
      atom.k === "div" || atom.k === "mod" ? [atom.of] : atom.k === "min" ? [atom.a, atom.b] : [];
    for (const y of inside) {
      const found = extentOf(y, name);
      if (found > 0) return found;
    }
  }
  return 0;
}
