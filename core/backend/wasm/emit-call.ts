/**
 * @file Vectors through calls: each travels as two f64 that hold its bits (moves of f64 change none), so that no function has
 * a v128 in its signature. V8's revectorizer (engine.ts) wants that: it ends the process where two parameters, or the
 * results of two calls, are a pair of operands for it (14.6; no other source of vectors does that). The type `Scalar` of
 * assembler.ts sees to it.
 */
import type { FunctionSource, Scalar } from "./assembler.ts";
import { apply, type Expr, type Fn, lane, local, opaque } from "./emit-expr.ts";

const halves = (v: Expr): Expr[] => [0, 1].map((l) => lane("f64x2.extract_lane", l, v));
const joined = (low: Expr, high: Expr): Expr =>
  lane("f64x2.replace_lane", 1, apply("f64x2.splat", low), high);

/** The types of a function's parameters, of which the first `vectors` are vectors. */
export const vectorParams = (vectors: number, ...rest: Scalar[]): Scalar[] => [
  ...Array.from({ length: 2 * vectors }, () => "f64" as const),
  ...rest,
];

/** Calls a function of vectors, and scalars after them, that ends with `returnVector`. */
export const callVector = (index: number, ...args: Expr[]): Expr =>
  opaque("v128", args, (fn, settled) => {
    for (const a of settled) for (const part of a.type === "v128" ? halves(a) : [a]) fn.push(part);
    fn.code.opU("call", index);
    const [low, high] = [local("f64", fn.take("f64")), local("f64", fn.take("f64"))];
    fn.code.set(high.imm);
    fn.code.set(low.imm);
    fn.push(joined(low, high));
    for (const e of [low, high]) fn.give("f64", e.imm);
  });

/** The i-th vector that the function was called with, as a local. Once each, before other code. */
export function vectorParam(fn: Fn, i: number): Expr {
  const kept = local("v128", fn.fresh("v128"));
  fn.push(joined(local("f64", 2 * i), local("f64", 2 * i + 1)));
  fn.code.set(kept.imm);
  return kept;
}

/** The function with `value` for its result. */
export function returnVector(fn: Fn, value: Expr): FunctionSource {
  fn.expect(value);
  for (const part of halves(fn.settle(value))) fn.push(part);
  return { params: fn.params, results: ["f64", "f64"], locals: fn.locals, body: fn.finish() };
}
