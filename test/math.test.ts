/** @file The shared scalar functions against published values. */
import { expect, test } from "vitest";
import { erf, pow, roundEven, threefry2x32 } from "../core/math.ts";

test("erf within 1e-15 of published values", () => {
  const table = [
    [1e-10, 1.1283791670955126e-10],
    [0.1, 0.1124629160182849],
    [0.5, 0.5204998778130465],
    [1, 0.8427007929497149],
    [1.5, 0.9661051464753108],
    [1.99, 0.995111413199617],
    [2, 0.9953222650189527],
    [3, 0.9999779095030014],
    [5.5, 0.9999999999999927],
  ];
  for (const [x, want] of table) {
    expect(Math.abs(erf(x) / want - 1)).toBeLessThan(1e-15);
    expect(erf(-x)).toBe(-erf(x));
  }
  expect([erf(0), erf(-0), erf(Infinity), erf(-Infinity), erf(NaN)]).toEqual([0, -0, 1, -1, NaN]);
});

test("threefry2x32: known answers of Random123", () => {
  const ones = 0xffffffff;
  expect(threefry2x32(0, 0, 0, 0)).toBe(0x6b200159);
  expect(threefry2x32(ones, ones, ones, ones)).toBe(0x1cb996fc);
  expect(threefry2x32(0x13198a2e, 0x03707344, 0x243f6a88, 0x85a308d3)).toBe(0xc4923a9c);
});

test("pow as in C, round half to even", () => {
  expect([pow(1, NaN), pow(-1, Infinity), pow(2, 3), pow(-8, 0.5), pow(NaN, 0)]).toEqual([
    1,
    1,
    8,
    NaN,
    1,
  ]);
  const xs = [0.5, 1.5, 2.5, -0.5, -1.5, -0.2, 1e300, Infinity, NaN];
  expect(xs.map(roundEven)).toEqual([0, 2, 2, -0, -2, -0, 1e300, Infinity, NaN]);
});
