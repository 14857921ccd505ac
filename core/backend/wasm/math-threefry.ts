/**
 * @file Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), four lanes
 * at once: counter-based random bits, the same on every device.
 */
import { apply, type Expr, i32, i32x4 } from "./emit-expr.ts";
import { or, xor } from "./math-ops.ts";

const rotations = [13, 15, 26, 6, 17, 29, 16, 24];
const parity = 0x1bd11bda;

const plus = (a: Expr, b: Expr): Expr => apply("i32x4.add", a, b);
const rotate = (x: Expr, by: number): Expr =>
  or(apply("i32x4.shl", x, i32(by)), apply("i32x4.shr_u", x, i32(32 - by)));

/** First word of threefry(key = [k0, k1], counter = [c0, c1]). */
export function threefry(k0: Expr, k1: Expr, c0: Expr, c1: Expr): Expr {
  const keys = [k0, k1, xor(xor(k0, k1), i32x4(parity))];
  let a = plus(c0, k0);
  let b = plus(c1, k1);
  for (let round = 0; round < 20; round++) {
    a = plus(a, b);
    b = xor(rotate(b, rotations[round % 8]), a);
    if (round % 4 !== 3) continue;
    const s = (round + 1) / 4;
    a = plus(a, keys[s % 3]);
    b = plus(plus(b, keys[(s + 1) % 3]), i32x4(s));
  }
  return a;
}
