/**
 * @file All that is known of each primitive, side by side: shape rule, derivative, batching,
 * meaning. Each column is exhaustive where it stands; this table puts them together and checks at
 * load time that no primitive lacks a derivative without a reason.
 */
import { meanings } from "./backend/reference.ts";
import { HinodeError } from "./errors.ts";
import { type Primitive, rules } from "./graph/primitives.ts";
import { batchRules } from "./transform/batching.ts";
import { derivatives, nonDifferentiable } from "./transform/gradient.ts";

export interface PrimitiveInfo {
  /** Arity, shape and dtype. */
  readonly rule: (typeof rules)[Primitive];
  /**
   * vjp and jvp; "region" where transform/region.ts has them; null with a reason in
   * `nonDifferentiable`.
   */
  readonly gradient: object | "region" | null;
  readonly jvp: object | "region" | null;
  /** "leaf": nothing to batch (random leaves: vmap.ts); "region": transform/region.ts. */
  readonly batch: (typeof batchRules)[Primitive];
  readonly reference: (typeof meanings)[Primitive];
}

const names = Object.keys(rules) as Primitive[];

function infoOf(op: Primitive): PrimitiveInfo {
  const row = derivatives[op];
  const derivative = typeof row === "object" && "reason" in row ? null : row;
  if (!derivative && !nonDifferentiable[op])
    throw new HinodeError(`${op}: neither a derivative nor a reason for lacking one`);
  const part = (direction: "vjp" | "jvp") =>
    derivative && (derivative === "region" ? derivative : derivative[direction]);
  return {
    rule: rules[op],
    gradient: part("vjp"),
    jvp: part("jvp"),
    batch: batchRules[op],
    reference: meanings[op],
  };
}

export const primitives = Object.fromEntries(names.map((op) => [op, infoOf(op)])) as {
  readonly [P in Primitive]: PrimitiveInfo;
};

export { nonDifferentiable };
