/** @file Hand-written GPU kernels that reach memory in every way. */
import type { DType } from "../../core/dtype.ts";
import { op, type Value } from "../../core/kernel/ir.ts";
import { ge, iadd, idiv, imod, imul, isub, ivar, lt, num } from "../../core/schedule/symbolic.ts";
import { load, store, vector } from "../wasm/harness.ts";

import {
  barrier,
  type Case,
  g,
  l,
  local,
  localLoad,
  localStore,
  make,
  plain,
  position,
  sample,
  shared,
  t,
} from "./kernels.ts";

const n = 4 * 8 * 3 - 5;
const twice = (dtype: DType, v: Value): Value => {
  if (dtype === "bool") return op("not", "bool", v);
  if (dtype === "f16" || dtype === "bf16") return op("neg", dtype, v);
  return op("add", dtype, v, v);
};

/** Every way to reach memory, for one dtype. */
export function memoryCases(dtype: DType): Case[] {
  const i = position(3, 8);
  const inside = [lt(i, n)];
  const io = [
    [dtype, n, "read"],
    [dtype, n, "write"],
  ] as const;
  const shape = { groups: 3, threads: 8 };
  const at = iadd(imul(g(3), 8), t(8));
  return [
    make(`tail ${dtype}`, {
      ...shape,
      buffers: io,
      body: [vector("l", 4, [store(1, i, twice(dtype, load(dtype, 0, i, inside)), inside)])],
    }),
    make(`whole ${dtype}`, {
      ...shape,
      buffers: [
        [dtype, 96, "read"],
        [dtype, 96, "write"],
      ],
      body: [vector("l", 4, [store(1, i, twice(dtype, load(dtype, 0, i)))])],
    }),
    make(
      `in place ${dtype}`,
      {
        ...shape,
        buffers: [[dtype, n, "readwrite"]],
        body: [vector("l", 4, [store(0, i, twice(dtype, load(dtype, 0, i, inside)), inside)])],
      },
      [sample(dtype, n, 3)],
    ),
    make(`scalars ${dtype}`, {
      ...shape,
      buffers: [
        [dtype, 24, "read"],
        [dtype, 24, "write"],
      ],
      body: [store(1, at, twice(dtype, load(dtype, 0, isub(num(23), at))))],
    }),
    make(`shifted and strided ${dtype}`, {
      ...shape,
      buffers: [
        [dtype, 300, "read"],
        [dtype, 97, "write"],
      ],
      body: [vector("l", 4, [store(1, iadd(i, num(1)), load(dtype, 0, iadd(imul(i, 3), num(2))))])],
    }),
    make(`holes in the padding ${dtype}`, {
      ...shape,
      buffers: [
        [dtype, 90, "read"],
        [dtype, 96, "write"],
      ],
      body: [vector("l", 4, [store(1, i, load(dtype, 0, isub(i, num(3)), [ge(i, 3), lt(i, 93)]))])],
    }),
    make(`one value for all lanes ${dtype}`, {
      ...shape,
      buffers: [
        [dtype, 24, "read"],
        [dtype, 96, "write"],
      ],
      body: [vector("l", 4, [store(1, i, load(dtype, 0, at, [lt(at, 20)]))])],
    }),
    make(
      `masked stores ${dtype}`,
      {
        ...shape,
        buffers: [
          [dtype, 96, "read"],
          [dtype, 96, "readwrite"],
        ],
        body: [
          vector("l", 4, [
            store(1, i, load(dtype, 0, i), [ge(i, 2), lt(imod(iadd(i, num(1)), 7), 5)]),
          ]),
        ],
      },
      [sample(dtype, 96, 1), sample(dtype, 96, 2)],
    ),
    make(`three lanes ${dtype}`, {
      ...shape,
      buffers: [
        [dtype, 72, "read"],
        [dtype, 72, "write"],
      ],
      body: [
        vector("l", 3, [
          store(
            1,
            iadd(imul(at, 3), ivar("l", 3)),
            load(dtype, 0, iadd(imul(at, 3), ivar("l", 3))),
          ),
        ]),
      ],
    }),
    make(`transposed through workgroup memory ${dtype}`, {
      groups: 2,
      threads: 16,
      buffers: [
        [dtype, 128, "read"],
        [dtype, 128, "write"],
      ],
      body: [
        shared("tile", dtype, 64),
        vector("l", 4, [
          localStore(
            "tile",
            iadd(imul(t(16), 4), l),
            load(dtype, 0, iadd(imul(g(2), 64), imul(t(16), 4), l)),
          ),
        ]),
        barrier,
        // The tile is 8 · 8.
        vector("l", 4, [
          store(
            1,
            iadd(imul(g(2), 64), imul(t(16), 4), l),
            localLoad(
              dtype,
              "tile",
              iadd(imul(imod(iadd(imul(t(16), 4), l), 8), 8), idiv(t(16), 2)),
            ),
          ),
        ]),
      ],
    }),
    make(`rounds through workgroup memory ${dtype}`, {
      groups: 2,
      threads: 8,
      buffers: [
        [dtype, 64, "read"],
        [dtype, 64, "write"],
      ],
      body: [
        shared("s", dtype, 8),
        plain("k", 4, [
          barrier,
          localStore("s", t(8), load(dtype, 0, iadd(imul(g(2), 32), imul(ivar("k", 4), 8), t(8)))),
          barrier,
          store(
            1,
            iadd(imul(g(2), 32), imul(ivar("k", 4), 8), t(8)),
            localLoad(dtype, "s", isub(num(7), t(8))),
          ),
        ]),
      ],
    }),
    make(`private array ${dtype}`, {
      groups: 2,
      threads: 8,
      buffers: [
        [dtype, 128, "read"],
        [dtype, 128, "write"],
      ],
      body: [
        local("row", dtype, 8),
        plain("k", 2, [
          vector("l", 4, [
            localStore(
              "row",
              iadd(imul(ivar("k", 2), 4), l),
              load(dtype, 0, iadd(imul(g(2), 64), imul(t(8), 8), imul(ivar("k", 2), 4), l)),
            ),
          ]),
        ]),
        plain(
          "k",
          8,
          [
            store(
              1,
              iadd(imul(g(2), 64), imul(t(8), 8), ivar("k", 8)),
              localLoad(dtype, "row", isub(num(7), ivar("k", 8))),
            ),
          ],
          8,
        ),
      ],
    }),
  ];
}
