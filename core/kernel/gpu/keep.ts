/**
 * @file What an invocation keeps of its elements from one pass over a row to the next: values that several passes evaluate
 * alike, known by the key that the evaluator has for them. Loads first of all, so that memory is read once.
 */
import type { Scope } from "../evaluate.ts";
import type { Value } from "../ir.ts";

/** Elements of a value that are kept, and of all values together: registers are what limits occupancy. */
const maxKept = 32;
const maxRegisters = 64;

/** The values that a scope's `let`s know by a key. */
export function evaluatedIn(scope: Scope): Map<string, Value> {
  const lets = new Map(
    scope.stmts.flatMap((s) => (s.k === "let" ? [[s.name, s.value] as const] : [])),
  );
  const found = new Map<string, Value>();
  for (const [key, { value }] of scope.memo) {
    const made = value.k === "var" ? lets.get(value.name) : undefined;
    if (made) found.set(key, made);
  }
  return found;
}

const costly = new Set(["exp", "log", "sin", "cos", "tanh", "erf", "pow"]);

/** Of evaluating a value again rather than keeping it, roughly in instructions; 0: not worth a register. */
function costOf(v: Value): number {
  if (v.k === "threefry") return 60;
  if (v.k === "load") return 20;
  return v.k === "op" && costly.has(v.op) ? 12 : 0;
}

/** The keys of what to keep, the costliest first, as far as registers reach for `slots` elements of each. */
export function worthKeeping(
  passes: readonly ReadonlyMap<string, Value>[],
  slots: number,
): Set<string> {
  const saved = new Map<string, number>();
  const seen = new Set<string>();
  for (const pass of passes)
    for (const [key, value] of pass) {
      if (seen.has(key)) saved.set(key, (saved.get(key) ?? 0) + costOf(value));
      seen.add(key);
    }
  const room = slots <= maxKept ? Math.floor(maxRegisters / slots) : 0;
  const worth = [...saved].filter(([, cost]) => cost > 0).sort((a, b) => b[1] - a[1]);
  return new Set(worth.slice(0, room).map(([key]) => key));
}
