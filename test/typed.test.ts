/**
 * @file Shapes in types: what the type checker claims of a tensor is what it has when the program runs, and what it refuses
 * is refused then too. `npm run check` is half of this test. Nothing is computed, so no device has a part in it.
 */
import { describe, expect, expectTypeOf, test } from "vitest";
import { ones, ShapeError, type Tensor } from "../core/index.ts";
import {
  cat,
  type Dimensions,
  einops,
  linear,
  type ShapedTensor,
  type ShapeMismatch,
  shaped,
} from "../core/typed.ts";

const { rearrange, reduce, repeat } = einops;

type Equal<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** The names that the tests use. */
const named: Readonly<Record<string, number>> = {
  B: 2,
  T: 3,
  "B*T": 6,
  "64(8 d).d": 8,
  "T(t k).t": 1,
  "T(t k).k": 3,
};
/** A size that the type checker does not know. */
const some = (size: number): number => size;

/** Has x the dimensions `is(…)`, for the type checker (exactly) and at run time? */
const dimensionsOf = <S extends Dimensions>(x: ShapedTensor<S>) => ({
  is: <const E extends Dimensions>(expected: Equal<E, S> extends true ? E : S & never) =>
    expect(x.shape).toEqual((expected as Dimensions).map((d) => named[d] ?? d)),
});

const x = shaped(ones([2, 3, 64]), ["B", "T", 64]);
const weight = shaped(ones([5, 64]), [5, 64]);

describe("a shaped tensor", () => {
  test("is the tensor itself", () => {
    const plain = ones([2, 3]);
    expect(shaped(plain, ["B", "T"])).toBe(plain);
    expectTypeOf(shaped(plain, ["B", "T"])).toExtend<Tensor>();
    expectTypeOf(plain).not.toExtend<ShapedTensor<["B", "T"]>>();
    expectTypeOf(x).not.toExtend<ShapedTensor<["B", "T", 65]>>();
    expectTypeOf(x).not.toExtend<ShapedTensor<["B", 64]>>();
  });

  test("has the shape that it is said to have", () => {
    expect(() => shaped(ones([2, 3]), [2, 4])).toThrow(ShapeError);
    expect(() => shaped(ones([2, 3]), ["B", "B"])).toThrow(ShapeError);
    expect(() => shaped(ones([2, 3]), ["B"])).toThrow("shaped");
    dimensionsOf(shaped(ones([2, 2, 1]), ["B", "B", 1])).is(["B", "B", 1]);
  });

  test("tells the sizes that are literal", () => {
    const [b, , d] = x.shape;
    expectTypeOf(d).toEqualTypeOf<64>();
    expectTypeOf(b).toExtend<number>();
    expect(b).toBe(2);
  });
});

describe("operations keep, broadcast and multiply dimensions", () => {
  test("element by element", () => {
    dimensionsOf(x.gelu().mul(2).sub(x)).is(["B", "T", 64]);
    dimensionsOf(x.add(shaped(ones([3, 1]), ["T", 1]))).is(["B", "T", 64]);
    dimensionsOf(
      shaped(ones([64]), [64])
        .div(x)
        .softmax(-1),
    ).is(["B", "T", 64]);
    dimensionsOf(x.sum(-1).unsqueeze(0).maximum(x.amax(2))).is([1, "B", "T"]);
    const wrong = () => x.add(weight);
    expectTypeOf(wrong).returns.toEqualTypeOf<
      ShapeMismatch<"add: [B, T, 64] and [5, 64] do not broadcast">
    >();
    expect(wrong).toThrow(ShapeError);
    // @ts-expect-error: and so what follows has no method to call.
    expect(() => x.add(weight).relu()).toThrow(ShapeError);
  });

  test("products", () => {
    dimensionsOf(x.matmul(weight.T)).is(["B", "T", 5]);
    dimensionsOf(x.matmul(x.mT)).is(["B", "T", "T"]);
    dimensionsOf(x.matmul(shaped(ones([64]), [64]))).is(["B", "T"]);
    dimensionsOf(shaped(ones([3]), ["T"]).matmul(x)).is(["B", 64]);
    dimensionsOf(shaped(ones([3]), [3]).matmul(shaped(ones([3]), [3]))).is([]);
    dimensionsOf(linear(x, weight)).is(["B", "T", 5]);
    const wrong = () => x.matmul(weight);
    expectTypeOf(wrong).returns.toEqualTypeOf<ShapeMismatch<"matmul: [B, T, 64] @ [5, 64]">>();
    expect(wrong).toThrow(ShapeError);
    const other = () => linear(x, weight.T);
    expectTypeOf(other).returns.toEqualTypeOf<
      ShapeMismatch<"linear: an input [B, T, 64] for a weight [out, in] = [64, 5]">
    >();
    expect(other).toThrow(ShapeError);
  });

  test("reductions", () => {
    dimensionsOf(x.sum()).is([]);
    dimensionsOf(x.mean(-1, true)).is(["B", "T", 1]);
    dimensionsOf(x.prod([0, -1])).is(["T"]);
    dimensionsOf(x.amin(undefined, true)).is([1, 1, 1]);
    const wrong = () => x.sum(3);
    expectTypeOf(wrong).returns.toEqualTypeOf<ShapeMismatch<"sum: [B, T, 64] has no axis 3">>();
    expect(wrong).toThrow("sum");
  });

  test("orders of axes", () => {
    dimensionsOf(x.permute([2, 0, -2])).is([64, "B", "T"]);
    dimensionsOf(x.transpose(0, -1)).is([64, "T", "B"]);
    dimensionsOf(x.unsqueeze(-1).T).is([1, 64, "T", "B"]);
    const few = () => x.permute([0, 1]);
    expectTypeOf(few).returns.toEqualTypeOf<
      ShapeMismatch<"permute: all 3 axes of [B, T, 64], not [0, 1]">
    >();
    expect(few).toThrow(Error);
    const absent = () => x.transpose(0, 3);
    expectTypeOf(absent).returns.toEqualTypeOf<
      ShapeMismatch<"transpose: [B, T, 64] has no axis 3">
    >();
    expect(absent).toThrow("transpose");
  });

  test("joining", () => {
    dimensionsOf(cat([x, x], 1)).is(["B", some(6), 64]);
    const wrong = () => cat([x, x.sum(0, true)], -1);
    expectTypeOf(wrong).returns.toEqualTypeOf<
      ShapeMismatch<"cat: [B, T, 64] and [1, T, 64] differ beside axis 2">
    >();
    expect(wrong).toThrow(ShapeError);
  });

  test("reshaping keeps the names of sizes that were read from a shape", () => {
    const [b, t] = x.shape;
    dimensionsOf(x.reshape([b, t, 8, 8])).is(["B", "T", 8, 8]);
    dimensionsOf(x.reshape([b, 1, t, 64])).is(["B", 1, "T", 64]);
    dimensionsOf(x.reshape([-1, 64])).is([some(6), 64]);
    const wrong = () => x.reshape([b, t]);
    expectTypeOf(wrong).returns.toEqualTypeOf<
      ShapeMismatch<"reshape: [B, T] has no place for 64 of [B, T, 64]">
    >();
    expect(wrong).toThrow(ShapeError);
  });
});

describe("einops patterns", () => {
  test("are read: what is split and joined again is what it was", () => {
    const heads = rearrange(x, "b t (h d) -> b h t d", { h: 8 });
    dimensionsOf(heads).is(["B", 8, "T", "64(8 d).d"]);
    dimensionsOf(heads.matmul(heads.mT)).is(["B", 8, "T", "T"]);
    dimensionsOf(rearrange(heads, "b h t d -> b t (h d)")).is(["B", "T", 64]);
    dimensionsOf(rearrange(x, "b t d -> (b t) d")).is(["B*T", 64]);
    dimensionsOf(rearrange(x, "... d->d ... 1")).is([64, "B", "T", 1]);
    dimensionsOf(reduce(x, "b (t k) d -> b t k", "mean", { k: some(3) })).is([
      "B",
      "T(t k).t",
      "T(t k).k",
    ]);
    dimensionsOf(repeat(x, "b t d -> b t (d 2) k", { k: 3 })).is(["B", "T", some(128), 3]);
  });

  test("that do not fit are told", () => {
    const rank = () => rearrange(x, "b t -> t b");
    expectTypeOf(rank).returns.toEqualTypeOf<
      ShapeMismatch<'rearrange: [B, T, 64] does not fit "b t ->"'>
    >();
    expect(rank).toThrow(ShapeError);
    const sides = () => rearrange(x, "b t d -> b t");
    expectTypeOf(sides).returns.toEqualTypeOf<
      ShapeMismatch<"rearrange: 'd' is on one side only">
    >();
    expect(sides).toThrow("rearrange");
    // @ts-expect-error: the pattern has no axis k.
    expect(() => rearrange(x, "b t (h d) -> b h t d", { k: 8 })).toThrow("rearrange");
  });
});

test("what the type checker does not know is a plain tensor", () => {
  const axis: number = some(1);
  expectTypeOf(x.sum(axis)).toEqualTypeOf<Tensor>();
  expectTypeOf(x.add(ones([64]))).toEqualTypeOf<Tensor>();
  expectTypeOf(x.matmul(ones([64, 2]))).toEqualTypeOf<Tensor>();
  expectTypeOf(x.cumsum(1)).toEqualTypeOf<Tensor>();
  expectTypeOf(rearrange(ones([2, 3]), "a b -> b a")).toEqualTypeOf<Tensor>();
  expectTypeOf(x.sum(axis as 0 | 1)).toEqualTypeOf<Tensor>();
  expectTypeOf(x.unsqueeze(axis as 0 | 1)).toEqualTypeOf<Tensor>();
  expectTypeOf(x.transpose(0, axis as 1 | 2)).toEqualTypeOf<Tensor>();
  expectTypeOf(x.sum(1, axis === 1)).toEqualTypeOf<Tensor>();
  const text: string = "b t d -> d t b";
  expectTypeOf(rearrange(x, text)).toEqualTypeOf<Tensor>();
  dimensionsOf(shaped(x.cumsum(1), ["B", "T", 64])).is(["B", "T", 64]);
});
