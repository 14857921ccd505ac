/** @file GPU kernels: what the checker refuses, and how the interpreter runs barriers and finds races among invocations. */
import { describe, expect, test } from "vitest";
import { checkKernel, type Target } from "../../core/kernel/check.ts";
import { reductionLevels } from "../../core/kernel/gpu/reduction.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import {
  constValue,
  type Kernel,
  op,
  type Stmt,
  type Value,
  variable,
} from "../../core/kernel/ir.ts";
import {
  ge,
  type Index,
  iadd,
  imod,
  imul,
  isub,
  ivalue,
  ivar,
  lt,
  num,
} from "../../core/schedule/symbolic.ts";
import { load, serial, store, vector } from "../wasm/harness.ts";

const t = ivar("t", 8);
const g = ivar("g", 2);
const l = ivar("l", 4);
const k = ivar("k", 3);
const own = iadd(imul(g, 8), t);

/** Two workgroups of 8: buf0 16 floats, buf1 16 floats to write, buf2 16 integers. */
function kernel(body: Stmt[], more: Partial<Kernel> = {}): Kernel {
  return {
    name: "k",
    kind: "map",
    buffers: [
      { dtype: "f32", size: 16, access: "read" },
      { dtype: "f32", size: 16, access: "write" },
      { dtype: "i32", size: 16, access: "read" },
    ],
    scalars: 0,
    range: { var: "g", extent: 2 },
    threads: { var: "t", extent: 8 },
    body,
    flops: 0,
    ...more,
  };
}

const shared: Stmt = { k: "shared", name: "s", dtype: "f32", size: 8 };
const barrier: Stmt = { k: "barrier" };
const put = (index: Index, value: Value = load("f32", 0, own), local = "s"): Stmt => ({
  k: "localStore",
  local,
  index,
  value,
});
const get = (index: Index, local = "s"): Value => ({ k: "localLoad", dtype: "f32", local, index });
const when = (cond: readonly Index[], ...body: Stmt[]): Stmt => ({ k: "if", cond, body });
const sum: Stmt = { k: "acc", name: "a", dtype: "f32", combine: "sum" };
const update = (value: Value): Stmt => ({ k: "update", name: "a", value });
const allReduce = (width: number, lanes = 1): Stmt => ({
  k: "allReduce",
  name: "a",
  width,
  lanes,
});

const input = Float32Array.from({ length: 16 }, (_, i) => i + 1);
const indices = Int32Array.from({ length: 16 }, (_, i) => i % 8);

function run(body: Stmt[], more: Partial<Kernel> = {}): number[] {
  const out = new Float32Array(16).fill(-1);
  interpret(kernel(body, more), [input, out, indices], new Uint32Array(1));
  return [...out];
}

describe("barriers", () => {
  test("let invocations see what others wrote to workgroup memory", () => {
    const body = [shared, put(t), barrier, store(1, own, get(isub(num(7), t)))];
    expect(run(body)).toEqual([8, 7, 6, 5, 4, 3, 2, 1, 16, 15, 14, 13, 12, 11, 10, 9]);
  });

  test("stand in loops that all invocations run alike", () => {
    const rotate = [
      barrier,
      put(t, variable("f32", "x")),
      barrier,
      store(1, own, get(imod(iadd(t, num(1)), 8))),
    ];
    const body: Stmt[] = [
      shared,
      { k: "let", name: "x", value: load("f32", 0, own) },
      serial("k", 3, rotate),
    ];
    expect(run(body).slice(0, 8)).toEqual([2, 3, 4, 5, 6, 7, 8, 1]);
  });

  test("stand in vector loops, whose lanes wait too", () => {
    const wide: Stmt = { k: "shared", name: "s", dtype: "f32", size: 32 };
    const at = iadd(imul(t, 4), l);
    const body = [
      wide,
      vector("l", 4, [
        put(at, op("cast", "f32", { k: "index", dtype: "i32", index: at })),
        barrier,
        sum,
        update(get(isub(num(31), at))),
        store(1, at, variable("f32", "a")),
      ]),
    ];
    const one = kernel(body, {
      range: { var: "g", extent: 1 },
      buffers: [
        { dtype: "f32", size: 16, access: "read" },
        { dtype: "f32", size: 32, access: "write" },
      ],
    });
    const out = new Float32Array(32);
    checkKernel(one, "webgpu");
    interpret(one, [input, out], new Uint32Array(0));
    expect([...out]).toEqual(Array.from({ length: 32 }, (_, i) => 31 - i));
  });

  test("must be met by everybody", () => {
    const some = when([lt(ivalue("p", 8), 4)], barrier);
    const position: Stmt = { k: "position", name: "p", value: load("i32", 2, own), size: 8 };
    expect(() => run([position, some])).toThrow(
      /a condition around a barrier differs: 1 in invocation 0/,
    );
    const ragged = serial("k", ivalue("p", 8), [barrier]);
    expect(() => run([position, ragged])).toThrow(/a loop's extent around a barrier differs/);
  });
});

describe("reductions over invocations", () => {
  test.each([1, 2, 4])("give every invocation of a group the result, over %i lanes", (lanes) => {
    const body = [
      sum,
      update(load("f32", 0, own)),
      allReduce(4, lanes),
      store(1, own, variable("f32", "a")),
    ];
    checkKernel(kernel(body), "webgpu");
    expect(run(body)).toEqual([10, 10, 10, 10, 26, 26, 26, 26, 42, 42, 42, 42, 58, 58, 58, 58]);
  });

  test("leave accumulators of lanes apart", () => {
    const at = iadd(imul(t, 4), l);
    const body = [
      vector("l", 4, [
        sum,
        update(op("cast", "f32", { k: "index", dtype: "i32", index: l })),
        allReduce(8),
        store(1, at, variable("f32", "a")),
      ]),
    ];
    const one = kernel(body, {
      range: { var: "g", extent: 1 },
      buffers: [
        { dtype: "f32", size: 16, access: "read" },
        { dtype: "f32", size: 32, access: "write" },
      ],
    });
    const out = new Float32Array(32);
    interpret(one, [input, out], new Uint32Array(0));
    expect([...out.slice(0, 4)]).toEqual([0, 8, 16, 24]);
  });

  test("find the first of the largest", () => {
    const best: Stmt = { k: "acc", name: "a", dtype: "f32", combine: "argmax" };
    const body: Stmt[] = [
      best,
      {
        k: "update",
        name: "a",
        value: op("rem", "f32", load("f32", 0, own), constValue("f32", 4)),
        at: t,
      },
      allReduce(8),
      store(1, own, op("cast", "f32", variable("i32", "a"))),
    ];
    expect(run(body)).toEqual(Array(16).fill(2));
  });

  test("take two levels from 32 on", () => {
    expect(reductionLevels(16)).toEqual({ steps: 1, rest: 16 });
    expect(reductionLevels(32)).toEqual({ steps: 8, rest: 4 });
    expect(reductionLevels(256)).toEqual({ steps: 16, rest: 16 });
  });
});

describe("races", () => {
  const one = constValue("f32", 1);
  test.each<[string, Stmt[], RegExp]>([
    [
      "a read before the barrier",
      [shared, put(t), store(1, own, get(isub(num(7), t)))],
      /read before it is written/,
    ],
    [
      "a write that others may still read",
      [shared, put(t), barrier, store(1, own, get(isub(num(7), t))), put(t)],
      /race: invocation 4 of workgroup 0 reads s\[3\], which invocation 3 of workgroup 0 writes/,
    ],
    [
      "two writers of workgroup memory",
      [shared, put(imod(t, 4))],
      /race: invocation 4 of workgroup 0 writes s\[0\], which invocation 0 of workgroup 0 writes/,
    ],
    ["the same value too", [shared, put(imod(t, 4), one)], /race/],
    [
      "a read next to a write",
      [shared, put(t, one), barrier, put(t, get(imod(iadd(t, num(1)), 8)))],
      /race: invocation \d/,
    ],
    [
      "two workgroups on one element",
      [store(1, t, one)],
      /race: invocation 0 of workgroup 1 writes buf1\[0\], which invocation 0 of workgroup 0 writes/,
    ],
    [
      "two invocations on one element",
      [store(1, iadd(imul(g, 8), imod(t, 4)), one)],
      /invocation 4 of workgroup 0 writes buf1\[0\]/,
    ],
    [
      "a barrier, which does not reach buffers",
      [store(1, own, one), barrier, store(1, iadd(imul(g, 8), imod(iadd(t, num(1)), 8)), one)],
      /race/,
    ],
    [
      "an element outside workgroup memory",
      [shared, put(iadd(t, num(1)))],
      /s\[8\] is outside its 8 elements/,
    ],
    [
      "memory of the last workgroup",
      [shared, when([lt(g, 1)], put(t)), barrier, store(1, own, get(t))],
      /s\[0\] is read before it is written/,
    ],
  ])("%s", (_, body, message) => {
    expect(() => run(body)).toThrow(message);
  });

  test("none where a barrier stands between", () => {
    const body = [
      shared,
      put(t),
      barrier,
      { k: "let", name: "x", value: get(isub(num(7), t)) } as Stmt,
      barrier,
      put(t, variable("f32", "x")),
      barrier,
      store(1, own, get(imod(iadd(t, num(3)), 8))),
    ];
    expect(() => run(body)).not.toThrow();
  });
});

describe("the checker", () => {
  const check =
    (body: Stmt[], more: Partial<Kernel> = {}, target: Target = "webgpu") =>
    () =>
      checkKernel(kernel(body, more), target);
  const one = constValue("f32", 1);
  const position: Stmt = { k: "position", name: "p", value: load("i32", 2, own), size: 8 };

  test("lets GPU kernels pass", () => {
    expect(check([shared, put(t), barrier, store(1, own, get(isub(num(7), t)))])).not.toThrow();
    expect(check([shared, when([lt(t, 4)], put(t)), when([lt(g, 1)], barrier)])).not.toThrow();
    expect(check([serial("k", 3, [barrier, sum, update(one), allReduce(8)])])).not.toThrow();
  });

  test.each<[string, Stmt[], RegExp, Partial<Kernel>?, Target?]>([
    ["invocations on the CPU", [store(1, own, one)], /wasm has no invocations/, {}, "wasm"],
    [
      "barriers on the CPU",
      [barrier],
      /wasm does not run "barrier"/,
      { threads: undefined },
      "wasm",
    ],
    [
      "barriers without invocations",
      [barrier],
      /barrier in a kernel without invocations/,
      { threads: undefined },
    ],
    [
      "workgroup memory without invocations",
      [shared],
      /without invocations/,
      { threads: undefined },
    ],
    [
      "a barrier for some invocations",
      [when([lt(t, 4)], barrier)],
      /may differ between the invocations/,
    ],
    [
      "a barrier after a loaded condition",
      [position, when([lt(ivalue("p", 8), 4)], barrier)],
      /may differ/,
    ],
    ["a barrier in a ragged loop", [serial("k", t, [barrier])], /may differ/],
    ["a reduction for some invocations", [sum, when([ge(t, 1)], allReduce(8))], /may differ/],
    [
      "a barrier in a loop inside a condition",
      [when([lt(t, 4)], serial("k", 3, [barrier]))],
      /may differ/,
    ],
    ["groups that do not divide the invocations", [sum, allReduce(16)], /groups of 16 among 8/],
    ["groups of 6", [sum, allReduce(6)], /groups of 6/],
    ["more lanes than a group has", [sum, allReduce(4, 8)], /8 lanes in groups of 4/],
    ["a reduction of what is no accumulator", [allReduce(8)], /not an accumulator/],
    [
      "a reduction inside the loop that fills it",
      [sum, vector("l", 4, [update(one), allReduce(8)])],
      /before the vector loop/,
    ],
    [
      "workgroup memory out of bounds",
      [shared, put(iadd(t, num(1)))],
      /runs over 1 … 8, outside 0 … 7/,
    ],
    [
      "one element of workgroup memory for all",
      [shared, put(num(0))],
      /every invocation stores to s\[0\]/,
    ],
    ["one element of a buffer for all", [store(1, g, one)], /every invocation stores to buf1\[g\]/],
    ["vector loops of eight", [vector("l", 8, [])], /at most 4/],
    ["vector loops of any length", [vector("l", iadd(t, num(1)), [])], /at most 4/],
    ["workgroup memory in a vector loop", [vector("l", 4, [shared])], /inside a vector loop/],
  ])("refuses %s", (_, body, message, more = {}, target = "webgpu") => {
    expect(check(body, more, target)).toThrow(message);
  });

  test("takes stores by one invocation", () => {
    expect(check([store(1, g, one, [lt(t, 1)])])).not.toThrow();
    expect(check([when([lt(t, 1)], store(1, g, one))])).not.toThrow();
    expect(
      check([store(1, k, one)], {
        range: { var: "g", extent: 1 },
        threads: { var: "t", extent: 1 },
      }),
    ).toThrow(/"k"/);
  });
});
