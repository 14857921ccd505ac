/** @file The text form of every statement and value. */
import { expect, test } from "vitest";
import { constValue, type Kernel, op, variable } from "../../core/kernel/ir.ts";
import { formatIndex, formatKernel } from "../../core/kernel/print.ts";
import {
  ge,
  iadd,
  idiv,
  imin,
  imod,
  imul,
  isub,
  ivalue,
  ivar,
  lt,
  num,
} from "../../core/schedule/symbolic.ts";

const p = ivar("p", 8);
const j = ivar("j", 100);

test("a kernel of everything", () => {
  const x = op("mul", "f32", variable("f32", "x"), constValue("f32", 2));
  const kernel: Kernel = {
    name: "everything",
    kind: "row",
    buffers: [
      { dtype: "f32", size: 800, access: "read" },
      { dtype: "f32", size: 800, access: "readwrite" },
    ],
    scalars: 2,
    range: { var: "p", extent: 8 },
    flops: 0,
    body: [
      { k: "local", name: "t", dtype: "f32", size: 4 },
      { k: "position", name: "v", value: { k: "index", dtype: "i32", index: p }, size: 8 },
      { k: "acc", name: "s", dtype: "f32", combine: "sum" },
      { k: "acc", name: "a", dtype: "f32", combine: "argmax" },
      {
        k: "loop",
        mode: "vector",
        var: "j",
        extent: imin(num(100), isub(num(50), imul(p, 8))),
        unroll: 4,
        body: [
          {
            k: "let",
            name: "x",
            value: {
              k: "load",
              dtype: "f32",
              buffer: 0,
              index: iadd(imul(ivalue("v", 8), 100), j, num(-3)),
              mask: [ge(j, 3), lt(j, 90)],
            },
          },
          { k: "update", name: "s", value: variable("f32", "x"), times: x },
          { k: "update", name: "a", value: x, at: j },
        ],
      },
      { k: "localStore", local: "t", index: imod(p, 4), value: variable("f32", "s") },
      {
        k: "if",
        cond: [lt(p, 7)],
        body: [
          {
            k: "store",
            buffer: 1,
            index: idiv(p, 2),
            value: {
              k: "select",
              dtype: "f32",
              cond: [ge(p, 1)],
              a: op("cast", "f32", { k: "scalar", dtype: "u32", slot: 1 }),
              b: op("max", "f32", { k: "scalar", dtype: "f32", slot: 0 }, constValue("f32", 0.5)),
            },
          },
        ],
      },
      {
        k: "storeAdd",
        buffer: 1,
        index: p,
        value: { k: "localLoad", dtype: "f32", local: "t", index: num(0) },
      },
    ],
  };
  expect(formatKernel(kernel)).toMatchInlineSnapshot(`
    "row everything(buf0: read f32[800], buf1: readwrite f32[800], 2 scalars)
    parallel p < 8 {
      local t: f32[4]
      position v = int(p) in 0..7
      acc s: f32 sum
      acc a: f32 argmax
      vector j < 50 - 8*p unroll 4 {
        let x = buf0[100*v + j - 3 if j >= 3 && j <= 89]
        s <- x * (x * 2.0)
        a <- (x * 2.0) at j
      }
      t[(p%4)] = s
      if p <= 6 {
        buf1[(p/2)] = (p >= 1 ? f32(word1:u32) : max(word0, 0.5))
      }
      buf1[p] += t[0]
    }
    "
  `);
});

test("index expressions", () => {
  expect(formatIndex(num(-3))).toBe("-3");
  expect(formatIndex(isub(num(1), imul(p, 2)))).toBe("1 - 2*p");
  expect(formatIndex(iadd(idiv(iadd(p, num(1)), 3), imod(j, 7)))).toBe("(j%7) + ((p + 1)/3)");
});
