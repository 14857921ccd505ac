/** @file The checker: one broken kernel per rule, and kernels whose bounds need their conditions. */
import { describe, expect, test } from "vitest";
import { checkKernel } from "../../core/kernel/check.ts";
import {
  type BufferInfo,
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
  imin,
  imul,
  isub,
  ivalue,
  ivar,
  lt,
  num,
} from "../../core/schedule/symbolic.ts";

const n = 40;
const f32 = (access: BufferInfo["access"], size = n): BufferInfo => ({
  dtype: "f32",
  size,
  access,
});

function kernel(body: Stmt[], extent = 10): Kernel {
  return {
    name: "k",
    kind: "map",
    buffers: [f32("read"), f32("write"), { dtype: "i32", size: n, access: "read" }],
    scalars: 1,
    range: { var: "p", extent },
    body,
    flops: 0,
  };
}
const p = ivar("p", 10);
const j = ivar("j", 4);
const at = iadd(imul(p, 4), j);
const load = (index: Index, mask?: Index[]): Value => ({
  k: "load",
  dtype: "f32",
  buffer: 0,
  index,
  ...(mask ? { mask } : {}),
});
const store = (index: Index, value: Value = constValue("f32", 1), mask?: Index[]): Stmt => ({
  k: "store",
  buffer: 1,
  index,
  value,
  ...(mask ? { mask } : {}),
});
const loop = (
  body: Stmt[],
  mode: "serial" | "vector" = "vector",
  extent: Index = num(4),
): Stmt => ({
  k: "loop",
  mode,
  var: "j",
  extent,
  body,
});
const acc: Stmt = { k: "acc", name: "s", dtype: "f32", combine: "sum" };
const update: Stmt = { k: "update", name: "s", value: load(at) };

const check = (body: Stmt[], extent?: number) => checkKernel(kernel(body, extent), "wasm");

describe("accepts", () => {
  test.each<[string, Stmt[]]>([
    ["a map", [loop([store(at, op("exp", "f32", load(at)))])]],
    ["a row sum", [acc, loop([update]), store(p, variable("f32", "s"))]],
    [
      "a lane-wise sum",
      [
        loop([
          acc,
          { k: "loop", mode: "serial", var: "q", extent: num(3), body: [update] },
          store(at, variable("f32", "s")),
        ]),
      ],
    ],
    [
      "names reused in sibling scopes",
      [loop([store(at)]), { k: "if", cond: [lt(p, 3)], body: [loop([store(at)], "serial")] }],
    ],
    [
      "a ragged last block: 37 elements in blocks of 4",
      [
        loop(
          [store(at, load(isub(at, num(3)), [ge(at, 3)]), [lt(at, 37)])],
          "vector",
          imin(num(4), isub(num(37), imul(p, 4))),
        ),
      ],
    ],
    [
      "padding: two conditions at once",
      [
        loop([
          store(at, load(iadd(at, num(2)), [lt(at, 38)])),
          store(at, load(isub(at, num(5)), [ge(at, 5)])),
        ]),
      ],
    ],
    [
      "a position",
      [
        {
          k: "position",
          name: "v",
          value: { k: "load", dtype: "i32", buffer: 2, index: p },
          size: n,
        },
        store(p, load(ivalue("v", n))),
      ],
    ],
    ["a shared store by one owner", [{ k: "if", cond: [lt(p, 1)], body: [store(num(0))] }]],
  ])("%s", (_, body) => expect(() => check(body)).not.toThrow());

  test("one parallel iteration may store anywhere", () =>
    expect(() => check([store(num(7))], 1)).not.toThrow());
});

describe("rejects", () => {
  const local: Stmt = { k: "local", name: "t", dtype: "f32", size: 4 };
  test.each<[string, Stmt[], RegExp]>([
    ["an unknown variable", [store(p, variable("f32", "x"))], /"x" is not a value in scope/],
    [
      "a loop variable out of scope",
      [loop([store(at)]), store(at)],
      /"j" in \[.*\] is not a variable/,
    ],
    ["a name twice", [acc, acc], /declared twice/],
    ["shadowing a loop", [loop([loop([store(at)], "serial")], "serial")], /"j" is declared twice/],
    ["a wider index than its loop", [loop([store(iadd(imul(p, 4), ivar("j", 2)))])], /runs to 4/],
    ["an index past the end", [loop([store(iadd(at, num(1)))])], /outside 0 … 39 \(at .*p = 9/],
    ["a negative index", [loop([store(at, load(isub(at, num(1))))])], /runs over -1 … 38/],
    [
      "a mask that is too weak",
      [loop([store(at, load(isub(at, num(3)), [ge(at, 2)]))])],
      /runs over/,
    ],
    [
      "mixed dtypes",
      [store(p, op("add", "f32", load(p), constValue("i32", 1)))],
      /add\(f32, i32\)/,
    ],
    ["float bits", [store(p, op("and", "f32", load(p), load(p)))], /bits operands/],
    [
      "a wrong result dtype",
      [store(p, op("lt", "f32", load(p), load(p)))],
      /expected the result bool/,
    ],
    ["a store of another dtype", [store(p, constValue("i32", 1))], /expected f32, got i32/],
    ["a store to an input", [{ ...(store(p) as object), buffer: 0 } as Stmt], /only read/],
    ["an unknown buffer", [{ ...(store(p) as object), buffer: 9 } as Stmt], /no buffer buf9/],
    ["an unknown scalar", [store(p, { k: "scalar", dtype: "f32", slot: 1 })], /no scalar/],
    [
      "arithmetic on halves",
      [
        {
          k: "let",
          name: "h",
          value: op("add", "f16", constValue("f16", 1), constValue("f16", 2)),
        },
      ],
      /add\(f16, f16\) → f16: halves are computed with in f32/,
    ],
    [
      "a sum of halves",
      [{ k: "acc", name: "h", dtype: "bf16", combine: "sum" }],
      /an accumulator of bf16: halves are summed in f32/,
    ],
    ["an update of a let", [{ k: "let", name: "s", value: load(p) }, update], /not an accumulator/],
    [
      "times on a maximum",
      [
        { k: "acc", name: "s", dtype: "f32", combine: "max" },
        { k: "update", name: "s", value: load(p), times: load(p) },
      ],
      /`times` is for sums/,
    ],
    ["at on a sum", [acc, { k: "update", name: "s", value: load(p), at: p }], /`at` is for argmax/],
    [
      "an accumulator read inside its vector loop",
      [acc, loop([update, store(at, variable("f32", "s"))])],
      /before the vector loop/,
    ],
    [
      "nested vector loops",
      [loop([{ k: "loop", mode: "vector", var: "q", extent: num(2), body: [] }])],
      /vector loop inside/,
    ],
    [
      "lane-dependent control flow",
      [loop([{ k: "if", cond: [lt(j, 2)], body: [] }])],
      /control flow/,
    ],
    ["a local of no elements", [{ ...local, size: 0 } as Stmt], /a local of 0/],
    ["a huge local", [{ ...local, size: 1 << 25 } as Stmt], /at most/],
    ["a local in a vector loop", [loop([local])], /local inside a vector loop/],
    [
      "a local index outside",
      [local, { k: "localStore", local: "t", index: p, value: constValue("f32", 0) }],
      /outside 0 … 3/,
    ],
    ["a store that all iterations share", [store(num(0))], /every parallel iteration stores/],
    ["a store that all lanes share", [loop([store(p)])], /all lanes of j store/],
  ])("%s", (_, body, message) => expect(() => check(body)).toThrow(message));

  test("the message quotes the kernel and the statement", () => {
    expect(() => check([store(iadd(p, num(31)))])).toThrow(
      "kernel k: [p + 31] runs over 31 … 40, outside 0 … 39 (at p = 9)\n  in: buf1[p + 31] = 1.0",
    );
  });
});
