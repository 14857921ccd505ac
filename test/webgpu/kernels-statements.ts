import { constValue, op, type Value, variable } from "../../core/kernel/ir.ts";
import {
  ge,
  iadd,
  idiv,
  imod,
  imul,
  isub,
  ivalue,
  ivar,
  lt,
  num,
} from "../../core/schedule/symbolic.ts";
import { load, store, vector } from "../wasm/harness.ts";

import {
  acc,
  allReduce,
  barrier,
  type Case,
  g,
  l,
  localLoad,
  localStore,
  make,
  plain,
  sample,
  shared,
  t,
  update,
  when,
  zeros,
} from "./kernels.ts";

export const statementCases: Case[] = [
  make("accumulators of four lanes, combined over invocations", {
    groups: 2,
    threads: 16,
    buffers: [
      ["f32", 128, "read"],
      ["f32", 16, "write"],
      ["f32", 64, "read"],
    ],
    body: [
      vector("l", 4, [
        acc("s", "f32", "sum"),
        acc("m", "f32", "argmax"),
        update("s", load("f32", 0, iadd(imul(g(2), 64), imul(t(16), 4), l)), {
          times: load("f32", 2, iadd(imul(t(16), 4), l)),
        }),
        update("m", load("f32", 0, iadd(imul(g(2), 64), imul(t(16), 4), l)), { at: t(16) }),
        allReduce("s", 8),
        allReduce("m", 8),
        store(
          1,
          iadd(imul(g(2), 8), imul(idiv(t(16), 8), 4), l),
          op("add", "f32", variable("f32", "s"), op("cast", "f32", variable("i32", "m"))),
          [lt(imod(t(16), 8), 1)],
        ),
      ]),
    ],
  }),
  make("barriers between lanes", {
    groups: 1,
    threads: 8,
    buffers: [
      ["f32", 32, "read"],
      ["f32", 32, "write"],
    ],
    body: [
      shared("s", "f32", 32),
      vector("l", 4, [
        acc("sum", "f32", "sum"),
        plain("k", 3, [
          barrier,
          localStore(
            "s",
            iadd(imul(t(8), 4), l),
            load("f32", 0, imod(iadd(imul(t(8), 4), l, ivar("k", 3)), 32)),
          ),
          barrier,
          update("sum", localLoad("f32", "s", isub(num(31), iadd(imul(t(8), 4), l)))),
        ]),
        store(1, iadd(imul(t(8), 4), l), variable("f32", "sum")),
      ]),
    ],
  }),
  make("partial sums that are read between loops", {
    groups: 1,
    threads: 4,
    buffers: [
      ["i32", 64, "read"],
      ["i32", 16, "write"],
    ],
    body: [
      acc("s", "i32", "sum"),
      plain(
        "k",
        4,
        [
          vector("l", 4, [
            update("s", load("i32", 0, iadd(imul(t(4), 16), imul(ivar("k", 4), 4), l))),
          ]),
          store(1, iadd(imul(t(4), 4), ivar("k", 4)), variable("i32", "s")),
        ],
        4,
      ),
    ],
  }),
  make("two vector loops into one sum, and copies without a declaration", {
    groups: 1,
    threads: 4,
    buffers: [
      ["f32", 64, "read"],
      ["f32", 4, "write"],
      ["f32", 64, "write"],
    ],
    body: [
      acc("s", "f32", "sum"),
      vector("l", 4, [update("s", load("f32", 0, iadd(imul(t(4), 16), l)))]),
      vector("l", 2, [update("s", load("f32", 0, iadd(imul(t(4), 16), ivar("l", 2), num(4))))]),
      plain(
        "k",
        4,
        [
          vector("l", 4, [
            store(
              2,
              iadd(imul(t(4), 16), imul(ivar("k", 4), 4), l),
              load("f32", 0, iadd(imul(t(4), 16), imul(ivar("k", 4), 4), l)),
            ),
          ]),
        ],
        4,
      ),
      store(1, t(4), variable("f32", "s")),
    ],
  }),
  make(
    "scatter-add by owners",
    {
      groups: 2,
      threads: 8,
      buffers: [
        ["f32", 64, "read"],
        ["f32", 16, "readwrite"],
        ["u8", 64, "readwrite"],
        ["i32", 64, "readwrite"],
      ],
      body: [
        plain("k", 4, [
          {
            k: "storeAdd",
            buffer: 1,
            index: iadd(imul(g(2), 8), t(8)),
            value: load("f32", 0, iadd(imul(g(2), 32), imul(t(8), 4), ivar("k", 4))),
          },
        ]),
        vector("l", 4, [
          {
            k: "storeAdd",
            buffer: 2,
            index: iadd(imul(g(2), 32), imul(t(8), 4), l),
            value: constValue("u8", 250),
          },
          {
            k: "storeAdd",
            buffer: 3,
            index: iadd(imul(g(2), 32), imul(t(8), 4), l),
            value: op("cast", "i32", load("f32", 0, iadd(imul(g(2), 32), imul(t(8), 4), l))),
          },
        ]),
      ],
    },
    [sample("f32", 64, 1), sample("f32", 16, 2), sample("u8", 64, 3), sample("i32", 64, 4)],
  ),
  make(
    "positions by lane, with two outside",
    {
      groups: 2,
      threads: 8,
      buffers: [
        ["i32", 64, "read"],
        ["f32", 10, "read"],
        ["f32", 64, "write"],
      ],
      body: [
        vector("l", 4, [
          {
            k: "position",
            name: "p",
            value: load("i32", 0, iadd(imul(g(2), 32), imul(t(8), 4), l)),
            size: 10,
          },
          store(
            2,
            iadd(imul(g(2), 32), imul(t(8), 4), l),
            op(
              "add",
              "f32",
              load("f32", 1, ivalue("p", 10)),
              op("cast", "f32", variable("i32", "p")),
            ),
          ),
        ]),
      ],
    },
    [
      Int32Array.from({ length: 64 }, (_, i) => (i === 13 ? 10 : i === 40 ? -2 : i % 10)),
      sample("f32", 10, 2),
      zeros("f32", 64),
    ],
  ),
  make(
    "two positions, the second outside",
    {
      groups: 1,
      threads: 8,
      buffers: [
        ["i32", 8, "read"],
        ["f32", 5, "read"],
        ["f32", 8, "write"],
      ],
      body: [
        {
          k: "position",
          name: "p",
          value: op("rem", "i32", load("i32", 0, t(8)), constValue("i32", 5)),
          size: 5,
        },
        { k: "position", name: "q", value: load("i32", 0, t(8)), size: 5 },
        store(
          2,
          t(8),
          op("sub", "f32", load("f32", 1, ivalue("p", 5)), load("f32", 1, ivalue("q", 5))),
        ),
      ],
    },
    [Int32Array.from([0, 1, 2, 3, 4, 4, 7, 0]), sample("f32", 5, 2), zeros("f32", 8)],
  ),
  make(
    "random bits and run-time words",
    {
      groups: 2,
      threads: 8,
      scalars: 5,
      buffers: [
        ["u32", 64, "write"],
        ["f32", 64, "write"],
        ["u32", 16, "write"],
      ],
      body: [
        vector("l", 4, [
          store(0, iadd(imul(g(2), 32), imul(t(8), 4), l), {
            k: "threefry",
            dtype: "u32",
            args: [0, 1]
              .map((slot): Value => ({ k: "scalar", dtype: "u32", slot }))
              .concat([
                op("cast", "u32", {
                  k: "index",
                  dtype: "i32",
                  index: iadd(imul(g(2), 32), imul(t(8), 4), l),
                }),
                { k: "scalar", dtype: "u32", slot: 2 },
              ]),
          }),
          store(
            1,
            iadd(imul(g(2), 32), imul(t(8), 4), l),
            op(
              "mul",
              "f32",
              { k: "scalar", dtype: "f32", slot: 4 },
              op("cast", "f32", {
                k: "index",
                dtype: "i32",
                index: isub(num(40), iadd(imul(t(8), 8), imul(l, 3))),
              }),
            ),
          ),
        ]),
        store(2, iadd(imul(g(2), 8), t(8)), {
          k: "threefry",
          dtype: "u32",
          args: [
            constValue("u32", 7),
            constValue("u32", 9),
            op("cast", "u32", { k: "index", dtype: "i32", index: t(8) }),
            op("bitcast", "u32", { k: "scalar", dtype: "i32", slot: 3 }),
          ],
        }),
      ],
    },
    undefined,
    Uint32Array.from([4000000000, 123, 77, 0xffffffff, 0x40490fdb]),
  ),
  make("conditions, divisions of negative numbers and selections", {
    groups: 2,
    threads: 16,
    buffers: [
      ["i32", 32, "write"],
      ["i32", 128, "write"],
    ],
    body: [
      when(
        [ge(t(16), 3), lt(t(16), 14)],
        store(0, iadd(imul(g(2), 16), t(16)), {
          k: "index",
          dtype: "i32",
          index: iadd(
            idiv(isub(t(16), num(7)), 3),
            imul(imod(isub(t(16), num(9)), 5), 10),
            imul(idiv(isub(t(16), num(9)), 4), 100),
          ),
        }),
      ),
      vector("l", 4, [
        store(1, iadd(imul(g(2), 64), imul(t(16), 4), l), {
          k: "select",
          dtype: "i32",
          cond: [ge(iadd(t(16), l), 5), lt(t(16), 12)],
          a: { k: "index", dtype: "i32", index: idiv(iadd(imul(t(16), 4), l), 3) },
          b: op("neg", "i32", { k: "index", dtype: "i32", index: l }),
        }),
      ]),
    ],
  }),
  make(
    "infinities and NaN",
    {
      groups: 1,
      threads: 8,
      buffers: [
        ["f32", 8, "read"],
        ["f32", 8, "write"],
        ["f32", 8, "write"],
        ["bool", 8, "write"],
      ],
      body: [
        store(1, t(8), op("max", "f32", load("f32", 0, t(8)), constValue("f32", -Infinity))),
        store(
          2,
          t(8),
          op(
            "min",
            "f32",
            op("add", "f32", load("f32", 0, t(8)), constValue("f32", Number.NaN)),
            constValue("f32", Infinity),
          ),
        ),
        store(3, t(8), op("eq", "bool", load("f32", 0, t(8)), load("f32", 0, t(8)))),
      ],
    },
    [
      Float32Array.from([1, Number.NaN, -Infinity, Infinity, 0, -0, 3, Number.NaN]),
      zeros("f32", 8),
      zeros("f32", 8),
      zeros("bool", 8),
    ],
  ),
  make("names that WGSL wants for itself", {
    groups: 1,
    threads: 4,
    buffers: [
      ["f32", 4, "read"],
      ["f32", 4, "write"],
    ],
    body: [
      { k: "let", name: "from", value: op("exp", "f32", load("f32", 0, t(4))) },
      {
        k: "let",
        name: "exp_f32",
        value: op("add", "f32", variable("f32", "from"), variable("f32", "from")),
      },
      {
        k: "let",
        name: "max",
        value: op("max", "f32", op("exp", "f32", variable("f32", "exp_f32")), constValue("f32", 1)),
      },
      store(1, t(4), variable("f32", "max")),
    ],
  }),
];
