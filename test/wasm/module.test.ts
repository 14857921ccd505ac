/** @file Modules: several kernels in one, shared and 64-bit memories, scratch sizes; random kernels. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Arena } from "../../core/backend/wasm/arena.ts";
import { detectRelaxed, instantiate } from "../../core/backend/wasm/module.ts";
import { KernelError } from "../../core/errors.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import type { Kernel, Stmt, Value } from "../../core/kernel/ir.ts";
import { formatKernel } from "../../core/kernel/print.ts";
import {
  type Index,
  iadd,
  idiv,
  imin,
  imod,
  imul,
  isub,
  ivar,
  num,
  simplifyCond,
} from "../../core/schedule/symbolic.ts";
import {
  buffer,
  constValue,
  f32,
  kernel,
  load,
  modes,
  runKernel,
  serial,
  store,
  variable,
  vector,
} from "./harness.ts";

describe("modules", () => {
  const fill = (x: number, n: number): Kernel =>
    kernel(
      [buffer("f32", n, "write")],
      [vector("v", n, [store(0, ivar("v", n), constValue("f32", x))])],
    );

  test.each([
    [32, false],
    [64, false],
    [32, true],
    [64, true],
  ] as const)("several kernels on one memory, %s bit, shared %s", (address, shared) => {
    const arena = new Arena({ address, shared, maximum: 2 ** 24 });
    const kernels = [fill(1, 5), fill(2, 9), fill(3, 3)];
    const bound = instantiate(kernels, arena.memory, { address, relaxed: false });
    const [args, out] = [arena.allocate(64), arena.allocate(64)];
    // Growth after instantiation: the module sees it, the host needs a new view.
    arena.allocate(2 ** 20);
    new DataView(arena.memory.buffer).setBigUint64(args + 16, BigInt(out), true);
    const view = new Float32Array(arena.memory.buffer, out, 10);
    for (const b of [bound[1], bound[0], bound[2]])
      b.run(0, 1, address === 64 ? BigInt(args) : args);
    expect([...view]).toEqual([3, 3, 3, 1, 1, 2, 2, 2, 2, 0]);
  });

  test("relaxed SIMD is found in this engine", () => expect(detectRelaxed()).toBe(true));

  test("scratch bytes are rounded up per array", () => {
    const body: Stmt[] = [
      { k: "local", name: "a", dtype: "f32", size: 17 },
      { k: "local", name: "b", dtype: "u8", size: 3 },
    ];
    const memory = new WebAssembly.Memory({ initial: 1 });
    const [k] = instantiate([kernel([], body)], memory, modes[0]);
    expect(k.scratchBytes).toBe(192);
  });

  test("what cannot be vectorised is an error", () => {
    const memory = new WebAssembly.Memory({ initial: 1 });
    const nested = vector("a", 8, [vector("b", 8, [])]);
    const varying: Stmt = { k: "if", cond: [isub(ivar("a", 8), num(3))], body: [] };
    for (const body of [[nested], [vector("a", 8, [varying])]])
      expect(() => instantiate([kernel([], body)], memory, modes[0])).toThrow(KernelError);
  });
});

// --- random kernels -----------------------------------------------------------------------------------------

interface Plan {
  readonly range: number;
  readonly outer: number;
  readonly outerUnroll: number;
  readonly lanes: number;
  readonly unroll: number;
  readonly dynamic: boolean;
  readonly picks: readonly number[];
}

const plans: fc.Arbitrary<Plan> = fc.record({
  range: fc.integer({ min: 1, max: 3 }),
  outer: fc.integer({ min: 1, max: 4 }),
  outerUnroll: fc.integer({ min: 1, max: 3 }),
  lanes: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 10, max: 40 })),
  unroll: fc.integer({ min: 1, max: 3 }),
  dynamic: fc.boolean(),
  picks: fc.array(fc.nat(1000), { minLength: 60, maxLength: 60 }),
});

const elements = 64;

/** Loads at arbitrary index expressions under masks, a select, and a sum over all of it. */
function build(plan: Plan): Kernel {
  let next = 0;
  const pick = (n: number): number => plan.picks[next++ % plan.picks.length] % n;
  const [g, s, v] = [ivar("g", plan.range), ivar("s", plan.outer), ivar("v", plan.lanes)];
  const atom = (): Index => [g, s, v, v][pick(4)];
  const index = (depth: number): Index => {
    const a = (): Index => (depth > 0 ? index(depth - 1) : atom());
    switch (pick(6)) {
      case 0:
        return idiv(a(), 1 + pick(9));
      case 1:
        return imod(a(), 1 + pick(9));
      case 2:
        return imin(a(), iadd(atom(), num(pick(5))));
      default:
        return iadd(imul(atom(), pick(7) - 3), imul(a(), pick(3)), num(pick(9) - 4));
    }
  };
  const value = (depth: number): Value => {
    const x = index(2);
    switch (depth > 0 ? pick(5) : pick(2)) {
      case 0: {
        const mask = simplifyCond([x, isub(num(elements - 1), x)]);
        return mask ? load(pick(2) ? "f32" : "i8", 0, x, mask) : constValue("f32", 0);
      }
      case 1:
        return { k: "index", dtype: "i32", index: x };
      case 2:
        return { k: "select", dtype: "f32", cond: [x], a: value(0), b: value(0) };
      default:
        return f32(pick(2) ? "add" : "max", value(depth - 1), value(depth - 1));
    }
  };
  // Everything is f32 in the end: other types are cast where they appear.
  const asFloat = (x: Value): Value => {
    if (x.k === "load") return load("f32", 0, x.index, x.mask);
    if (x.k === "index") return { k: "op", op: "cast", dtype: "f32", args: [x] };
    if (x.k === "select") return { ...x, a: asFloat(x.a), b: asFloat(x.b) };
    return x.k === "op" ? { ...x, args: x.args.map(asFloat) } : x;
  };
  const at = iadd(imul(g, plan.outer * plan.lanes), imul(s, plan.lanes), v);
  const extent = plan.dynamic
    ? imin(num(plan.lanes), iadd(imul(s, 3), g, num(1)))
    : num(plan.lanes);
  const inner: Stmt[] = [
    { k: "let", name: "x", value: asFloat(value(3)) },
    store(1, at, variable("f32", "x")),
    { k: "update", name: "t", value: asFloat(value(1)), times: variable("f32", "x") },
    { k: "update", name: "m", value: variable("f32", "x") },
  ];
  const total = plan.range * plan.outer * plan.lanes;
  return kernel(
    [
      buffer("f32", elements),
      buffer("f32", total, "write"),
      buffer("f32", plan.range, "write"),
      buffer("f32", plan.range, "write"),
    ],
    [
      { k: "acc", name: "t", dtype: "f32", combine: "sum" },
      { k: "acc", name: "m", dtype: "f32", combine: "max" },
      serial("s", plan.outer, [vector("v", extent, inner, plan.unroll)], plan.outerUnroll),
      store(2, g, variable("f32", "t")),
      store(3, g, variable("f32", "m")),
    ],
    { range: { var: "g", extent: plan.range } },
  );
}

test("random kernels do what the interpreter does", () => {
  const data = Float32Array.from({ length: elements }, (_, i) => ((i * 37) % 23) - 11);
  let seen = 0;
  fc.assert(
    fc.property(plans, (plan) => {
      const k = build(plan);
      const expected = k.buffers.map(({ size }, i) =>
        i === 0 ? data.slice() : new Float32Array(size),
      );
      interpret(k, expected, new Uint32Array(0), { detect: false });
      // Two modes per kernel, all four in turn.
      for (const mode of [modes[seen % 4], modes[(seen + 1) % 4]]) {
        const inputs = k.buffers.map(({ size }, i) => (i === 0 ? data : new Float32Array(size)));
        const { buffers } = runKernel(k, inputs, mode);
        buffers.forEach((got, b) => {
          got.forEach((x, i) => {
            if (!Object.is(x, expected[b][i]) && x !== expected[b][i])
              expect.fail(`buffer ${b}[${i}] is ${x}, not ${expected[b][i]}\n${formatKernel(k)}`);
          });
        });
      }
      seen++;
    }),
    { numRuns: 400 },
  );
});
