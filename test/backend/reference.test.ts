/**
 * The reference's meaning of each primitive, against plain JavaScript and known values; and the
 * backend itself.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { evaluate, ReferenceBackend } from "../../core/backend/reference.ts";
import { type DType, dtypes, roundTo } from "../../core/dtype.ts";
import { ArgumentError, IndexOutOfRangeError } from "../../core/errors.ts";
import * as b from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { bufferLeaf, constant, placeholder, randomBits } from "../../core/graph/primitives.ts";
import { broadcast, numel } from "../../core/shape.ts";

const leaf = (dtype: DType, shape: readonly number[]) => placeholder(dtype, shape, null);

/** f at vectors of the given dtypes. */
function at(f: (...xs: Node[]) => Node, ...args: [DType, number[]][]): number[] {
  const ps = args.map(([dtype, data]) => leaf(dtype, [data.length]));
  return [...evaluate([f(...ps)], new Map(ps.map((p, i) => [p, args[i][1]])))[0]];
}
const f32 = (...x: number[]): [DType, number[]] => ["f32", x];
const i32 = (...x: number[]): [DType, number[]] => ["i32", x];

describe("rounding", () => {
  it("each node to its dtype", () => {
    expect(at(b.add, f32(0.1), f32(0.2))).toEqual([
      Math.fround(Math.fround(0.1) + Math.fround(0.2)),
    ]);
    expect(at((x) => b.sub(b.add(x, constant(1, "f32")), x), f32(2 ** 24))).toEqual([0]);
    expect(evaluate([constant(0.1, "f32")])[0][0]).toBe(Math.fround(0.1));
  });
  it("not when asked", () => {
    const x = leaf("f32", []);
    const [v] = evaluate([b.exp(x)], new Map([[x, [0.1]]]), { round: false });
    expect(v[0]).toBe(Math.exp(0.1));
  });
  it("integers wrap", () => {
    expect(at(b.add, i32(2147483647), i32(1))).toEqual([-2147483648]);
    expect(at(b.mul, i32(123456789), i32(987654321))).toEqual([Math.imul(123456789, 987654321)]);
    expect(at(b.mul, ["u32", [4294967295]], ["u32", [4294967295]])).toEqual([1]);
    expect(at(b.neg, ["u8", [1]])).toEqual([255]);
    expect(at(b.add, ["i8", [127]], ["i8", [1]])).toEqual([-128]);
    expect(at((x) => b.sum(x, [0]), ["u32", [4294967295, 2]])).toEqual([1]);
    expect(at((x) => b.prod(x, [0]), i32(65536, 65536, 3))).toEqual([0]);
    expect(at(b.abs, i32(-2147483648))).toEqual([-2147483648]);
  });
});

describe("special values", () => {
  it("max and min propagate NaN, and so do amax, amin, argmax", () => {
    expect(at(b.max, f32(NaN, 1), f32(1, NaN))).toEqual([NaN, NaN]);
    expect(at((x) => b.amax(x, [0]), f32(1, NaN, 3))).toEqual([NaN]);
    expect(at((x) => b.amin(x, [0]), f32(1, NaN, 3))).toEqual([NaN]);
    expect(at((x) => b.argmax(x, 0), f32(1, NaN, 3, NaN))).toEqual([1]);
    expect(at((x) => b.argmax(x, 0), f32(1, 3, 3))).toEqual([1]);
    expect(at((x) => b.argmax(x, 0), f32(-Infinity, -Infinity))).toEqual([0]);
  });
  it("rounds half to even", () => {
    expect(at(b.round, f32(0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 2.4, 8388609))).toEqual([
      0, 2, 2, -0, -2, -2, 2, 8388609,
    ]);
  });
  it("pow is C's", () => {
    expect(
      at(b.pow, f32(1, -1, -1, NaN, 0, -8), f32(NaN, Infinity, -Infinity, 0, -1, 1 / 3)),
    ).toEqual([1, 1, 1, 1, Infinity, NaN]);
  });
  it("rem has the dividend's sign; integer division truncates and by 0 is 0", () => {
    expect(at(b.rem, f32(7, -7, 7), f32(3, 3, -3))).toEqual([1, -1, 1]);
    expect(at(b.rem, i32(7, -7, 7, 7), i32(3, 3, -3, 0))).toEqual([1, -1, 1, 0]);
    expect(at(b.idiv, i32(7, -7, 7, 7), i32(3, 3, -3, 0))).toEqual([2, -2, -2, 0]);
    expect(at(b.idiv, i32(-2147483648), i32(-1))).toEqual([-2147483648]);
  });
  it("shifts take their count modulo 32; right is arithmetic for signed types", () => {
    expect(at(b.shl, i32(1, 1), i32(33, 31))).toEqual([2, -2147483648]);
    expect(at(b.shr, i32(-8), i32(1))).toEqual([-4]);
    expect(at(b.shr, ["u32", [4294967288]], ["u32", [1]])).toEqual([2147483644]);
    expect(at(b.shl, ["u8", [255]], ["u8", [1]])).toEqual([254]);
  });
  it("not is logical on bool, bitwise on integers", () => {
    expect(at(b.not, ["bool", [0, 1]])).toEqual([1, 0]);
    expect(at(b.not, ["u8", [0]])).toEqual([255]);
    expect(at(b.not, i32(5))).toEqual([-6]);
    expect(at(b.and, ["u32", [4294967295]], ["u32", [4294967295]])).toEqual([4294967295]);
  });
  it("casts truncate, saturate, and NaN is 0", () => {
    const x = f32(1.9, -1.9, 3e9, -3e9, NaN, Infinity, 300);
    expect(at((v) => b.cast(v, "i32"), x)).toEqual([
      1, -1, 2147483647, -2147483648, 0, 2147483647, 300,
    ]);
    expect(at((v) => b.cast(v, "u32"), x)).toEqual([1, 0, 3e9, 0, 0, 4294967295, 300]);
    expect(at((v) => b.cast(v, "u8"), x)).toEqual([1, 255, 255, 0, 0, 255, 44]);
    expect(at((v) => b.cast(v, "bool"), f32(0, -0, NaN, 0.1))).toEqual([0, 0, 1, 1]);
    expect(at((v) => b.cast(v, "f32"), i32(16777217))).toEqual([16777216]);
    expect(at((v) => b.cast(v, "i8"), i32(200))).toEqual([-56]);
  });
  it("bitcast reads the bits", () => {
    expect(at((v) => b.bitcast(v, "u32"), f32(1, -0))).toEqual([0x3f800000, 0x80000000]);
    expect(at((v) => b.bitcast(v, "f32"), ["u32", [0x40490fdb]])).toEqual([Math.fround(Math.PI)]);
    expect(at((v) => b.bitcast(v, "i8"), ["u8", [255]])).toEqual([-1]);
  });
  it("empty reductions", () => {
    expect(at((x) => b.sum(x, [0]), f32())).toEqual([0]);
    expect(at((x) => b.prod(x, [0]), f32())).toEqual([1]);
  });
});

/** Shapes of rank 0 … 4 with sizes 0 … 4. */
const shapes = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 });
const ramp = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

/** Element at `index` of a row-major array; -1 where an index is outside. */
const position = (index: readonly number[], shape: readonly number[]) =>
  index.reduce((p, i, a) => p * shape[a] + i, 0);
function* indices(shape: readonly number[]): Generator<number[]> {
  if (shape.length === 0) yield [];
  else
    for (let i = 0; i < shape[0]; i++)
      for (const rest of indices(shape.slice(1))) yield [i, ...rest];
}

/**
 * `make` on a ramp of `shape`: element at index = the source's element that `from` names (null: 0).
 */
function moves(
  make: (x: Node) => Node,
  shape: number[],
  from: (i: number[]) => number[] | null,
): void {
  const x = leaf("i32", shape);
  const out = make(x);
  const [got] = evaluate([out], new Map([[x, ramp(numel(shape))]]));
  const want = [...indices(out.shape)].map((i) => {
    const at = from(i);
    return at ? position(at, shape) + 1 : 0;
  });
  expect([...got]).toEqual(want);
}

describe("movement", () => {
  it("permute", () => {
    fc.assert(
      fc.property(
        shapes.chain((s) =>
          fc.tuple(fc.constant(s), fc.shuffledSubarray([...s.keys()], { minLength: s.length })),
        ),
        ([s, axes]) =>
          moves(
            (x) => b.permute(x, axes),
            s,
            (i) => s.map((_, a) => i[axes.indexOf(a)]),
          ),
      ),
    );
  });
  it("pad", () => {
    fc.assert(
      fc.property(
        shapes.chain((s) => {
          const widths = fc.array(fc.nat(2), { minLength: s.length, maxLength: s.length });
          return fc.tuple(fc.constant(s), widths, widths);
        }),
        ([s, lo, hi]) =>
          moves(
            (x) => b.pad(x, lo, hi),
            s,
            (i) => {
              const at = i.map((v, a) => v - lo[a]);
              return at.every((v, a) => v >= 0 && v < s[a]) ? at : null;
            },
          ),
      ),
    );
  });
  it("slice with steps, flip", () => {
    const range = (d: number) =>
      fc.tuple(fc.nat(d), fc.integer({ min: 1, max: 3 })).map(([start, step]) => ({
        start,
        step,
        size: Math.max(0, Math.ceil((d - start) / step)),
      }));
    fc.assert(
      fc.property(
        shapes.chain((s) =>
          fc.tuple(fc.constant(s), fc.tuple(...s.map(range)), fc.subarray([...s.keys()])),
        ),
        ([s, r, axes]) => {
          const [start, size, step] = [
            r.map((q) => q.start),
            r.map((q) => q.size),
            r.map((q) => q.step),
          ];
          moves(
            (x) => b.slice(x, start, size, step),
            s,
            (i) => i.map((v, a) => start[a] + v * step[a]),
          );
          moves(
            (x) => b.flip(x, axes),
            s,
            (i) => i.map((v, a) => (axes.includes(a) ? s[a] - 1 - v : v)),
          );
        },
      ),
    );
  });
  it("expand aligns right", () => {
    fc.assert(
      fc.property(shapes, fc.array(fc.nat(3), { maxLength: 2 }), fc.nat(), (s, lead, seed) => {
        const from = s.map((d, i) => ((seed >> i) & 1 ? 1 : d));
        const to = [...lead, ...s];
        moves(
          (x) => b.expand(x, to),
          from,
          (i) => from.map((d, a) => (d === 1 ? 0 : i[lead.length + a])),
        );
      }),
    );
  });
  it("concat", () => {
    const [x, y] = [leaf("f32", [2, 1]), leaf("f32", [2, 2])];
    const [v] = evaluate(
      [b.concat([x, y, x], 1)],
      new Map([
        [x, [1, 2]],
        [y, [3, 4, 5, 6]],
      ]),
    );
    expect([...v]).toEqual([1, 3, 4, 1, 2, 5, 6, 2]);
  });
});

describe("element-wise", () => {
  it("broadcasts like NumPy", () => {
    fc.assert(
      fc.property(shapes, fc.nat(), fc.nat(), fc.nat(4), (s, p, q, drop) => {
        const ones = (bits: number) => s.map((d, i) => ((bits >> i) & 1 ? 1 : d));
        const [sx, sy] = [ones(p), ones(q).slice(Math.min(drop, s.length))];
        const [x, y] = [leaf("i32", sx), leaf("i32", sy)];
        const out = b.sub(x, y);
        expect(out.shape).toEqual(broadcast(sx, sy));
        const [got] = evaluate(
          [out],
          new Map([
            [x, ramp(numel(sx))],
            [y, ramp(numel(sy))],
          ]),
        );
        const read = (shape: number[], i: number[]) =>
          position(
            shape.map((d, a) => (d === 1 ? 0 : i[i.length - shape.length + a])),
            shape,
          );
        expect([...got]).toEqual([...indices(out.shape)].map((i) => read(sx, i) - read(sy, i)));
      }),
    );
  });
  it("comparisons and selection", () => {
    expect(at(b.lt, f32(1, 2, NaN), f32(2, 2, 1))).toEqual([1, 0, 0]);
    expect(at(b.le, f32(1, 2, NaN), f32(2, 2, 1))).toEqual([1, 1, 0]);
    expect(at(b.eq, f32(0, 2, NaN), f32(-0, 2, NaN))).toEqual([1, 1, 0]);
    expect(at(b.where, ["bool", [1, 0]], f32(1, 2), f32(3, 4))).toEqual([1, 4]);
  });
});

describe("contraction and indexing", () => {
  it("dot", () => {
    const [x, y] = [leaf("f32", [2, 1, 2]), leaf("f32", [2, 2, 2])];
    const [v] = evaluate(
      [b.dot(x, y)],
      new Map([
        [x, [1, 2, 3, 4]],
        [y, ramp(8)],
      ]),
    );
    expect([...v]).toEqual([7, 10, 43, 50]);
    const big = at((p) => b.dot(b.reshape(p, [1, 1, 1]), b.reshape(p, [1, 1, 1])), i32(123456789));
    expect(big).toEqual([Math.imul(123456789, 123456789)]);
  });
  it("gather and scatterAdd", () => {
    const [x, i] = [leaf("f32", [2, 3]), leaf("i32", [2, 2])];
    const feeds = new Map([
      [x, ramp(6)],
      [i, [2, 0, 1, 1]],
    ]);
    expect([...evaluate([b.gather(x, i, 1)], feeds)[0]]).toEqual([3, 1, 5, 5]);
    const src = leaf("f32", [2, 2]);
    feeds.set(src, [1, 2, 3, 4]);
    expect([...evaluate([b.scatterAdd(i, src, 1, 3)], feeds)[0]]).toEqual([2, 0, 1, 0, 7, 0]);
  });
  it("an index outside throws with op, index, size and axis", () => {
    const i = leaf("i32", [1, 3]);
    for (const index of [-1, 3]) {
      const run = (n: Node) => evaluate([n], new Map([[i, [0, index, 1]]]));
      expect(() => run(b.gather(b.zerosLike(i), i, 1))).toThrow(IndexOutOfRangeError);
      expect(() => run(b.scatterAdd(i, b.zerosLike(i), 1, 3))).toThrow(
        `scatterAdd: expected indices within 0 … 2 on axis 1, got ${index}`,
      );
    }
  });
});

describe("leaves", () => {
  it("random bits are threefry's known answers", () => {
    // Random123's kat_vectors, threefry2x32, 20 rounds: key 0, counter 0 → 6b200159 99ba4efe.
    const [v] = evaluate([randomBits([2], [0, 0], 0)]);
    expect(v[0]).toBe(0x6b200159);
    expect(v[1]).not.toBe(v[0]);
  });
  it("iota and buffers", () => {
    const data = new Float32Array([5, 6]);
    const buffer = bufferLeaf({ bytes: 8, data } as never, "f32", [2], "reference");
    expect([...evaluate([b.add(buffer, b.cast(b.iota(2), "f32"))])[0]]).toEqual([5, 7]);
  });
  it("a placeholder without a value is an error", () => {
    expect(() => evaluate([leaf("f32", [])])).toThrow(ArgumentError);
  });
});

describe("ReferenceBackend", () => {
  it("runs a canonical graph, with run-time random words", () => {
    const backend = new ReferenceBackend();
    const x = leaf("f32", [3]);
    const random = randomBits([3], [0, 0], 0);
    const outputs = [b.mul(x, x), random, b.assign(x, b.neg(x)), b.lt(x, b.neg(x))];
    const plan = backend.prepare({ key: "", inputs: [x], randoms: [random], outputs });
    const input = backend.upload(new Float32Array([1, -2, 3]), "f32");
    const words = Uint32Array.of(1, 2, 3);
    const out = plan.run([input], words, [false]);
    const read = out.map((s, i) => [...backend.download(s, outputs[i].dtype, 3)]);
    expect(read[0]).toEqual([1, 4, 9]);
    expect(read[1]).toEqual([...evaluate([randomBits([3], [1, 2], 3)])[0]]);
    expect(read[2]).toEqual([-1, 2, -3]);
    expect(read[3]).toEqual([0, 1, 0]);
    expect(out[3].bytes).toBe(3);
    expect([...backend.download(input, "f32", 3)]).toEqual([1, -2, 3]);
  });
  it("counts its bytes; freeing twice is harmless", () => {
    const backend = new ReferenceBackend();
    const s = backend.upload(new Float32Array(4), "f32");
    expect(backend.memory().liveBytes).toBe(16);
    backend.free(s);
    backend.free(s);
    expect(backend.memory().liveBytes).toBe(0);
  });
  it("copies what it is given", () => {
    const backend = new ReferenceBackend();
    const data = new Int32Array([1, 2]);
    const s = backend.upload(data, "i32");
    data[0] = 9;
    expect([...backend.download(s, "i32", 2)]).toEqual([1, 2]);
  });
});

describe("dtypes", () => {
  it("store what roundTo gives", () => {
    fc.assert(
      fc.property(fc.integer({ min: -(2 ** 33), max: 2 ** 33 }), (v) => {
        for (const dtype of ["i32", "u32", "i8", "u8"] as const)
          expect(new dtypes[dtype].array([v])[0]).toBe(roundTo(dtype, v));
      }),
    );
  });
});
