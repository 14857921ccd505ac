import { describe, expect, it } from "vitest";
import { evaluate } from "../../core/backend/reference.ts";
import { DTypeError, HinodeError, ShapeError } from "../../core/errors.ts";
import * as b from "../../core/graph/build.ts";
import { constant, placeholder } from "../../core/graph/primitives.ts";

const x = placeholder("f32", [2, 3], null);

describe("builders", () => {
  it("return their argument when nothing would change", () => {
    for (const same of [
      b.cast(x, "f32"),
      b.bitcast(x, "f32"),
      b.reshape(x, [2, 3]),
      b.permute(x, [0, 1]),
      b.expand(x, [2, 3]),
      b.pad(x, [0, 0], [0, 0]),
      b.slice(x, [0, 0], [2, 3]),
      b.flip(x, []),
      b.concat([x], 0),
      b.sum(x, []),
      b.prod(x, []),
      b.amax(x, []),
      b.sumTo(x, [2, 3]),
      b.keepdim(x, [], [2, 3]),
    ])
      expect(same).toBe(x);
    expect(b.alias(x)).not.toBe(x);
    expect(b.detach(x)).not.toBe(x);
  });
  it("sumTo is the transpose of expand", () => {
    const data = [1, 2, 3, 4, 5, 6];
    const at = (shape: number[]) => [...evaluate([b.sumTo(x, shape)], new Map([[x, data]]))[0]];
    expect(at([3])).toEqual([5, 7, 9]);
    expect(at([1, 3])).toEqual([5, 7, 9]);
    expect(at([2, 1])).toEqual([6, 15]);
    expect(at([])).toEqual([21]);
    expect(at([1])).toEqual([21]);
    expect(b.sumTo(x, [1, 1]).shape).toEqual([1, 1]);
  });
  it("literals take dtype and shape", () => {
    const n = placeholder("i8", [2], null);
    expect([b.scalarLike(n, 3).dtype, b.zerosLike(n).shape]).toEqual(["i8", [2]]);
    expect(b.fullLike(x, 2).shape).toEqual([2, 3]);
  });
  it("refuse what does not fit, with op, expectation and shapes in the message", () => {
    const y = placeholder("f32", [4], null);
    expect(() => b.add(x, y)).toThrow(ShapeError);
    expect(() => b.add(x, y)).toThrow(/add: expected .* got f32\[2, 3\], f32\[4\]/);
    expect(() => b.add(x, constant(1, "i32"))).toThrow(DTypeError);
    expect(() => b.exp(constant(1, "i32"))).toThrow(DTypeError);
    for (const bad of [
      () => b.reshape(x, [7]),
      () => b.permute(x, [0, 0]),
      () => b.expand(x, [3, 3]),
      () => b.pad(x, [-1, 0], [0, 0]),
      () => b.slice(x, [0, 2], [2, 2]),
      () => b.flip(x, [2]),
      () => b.concat([x, y], 0),
      () => b.sum(x, [2]),
      () => b.amax(placeholder("f32", [0], null), [0]),
      () => b.dot(x, x),
      () => b.gather(x, x, 0),
      () => b.where(x, x, x),
      () => b.assign(x, y),
    ])
      expect(bad).toThrow(HinodeError);
  });
});
