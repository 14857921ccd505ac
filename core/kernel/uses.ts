/** @file What a statement does to accumulators: printers that keep one result per lane ask how long they may stay apart. */
import type { Stmt, Value } from "./ir.ts";

/** What a statement does to accumulators that it does not declare itself. */
export interface Uses {
  /** Updated inside a vector loop. */
  readonly vector: Set<string>;
  /** Updated outside of vector loops. */
  readonly plain: Set<string>;
  readonly reads: Set<string>;
}

const known = new WeakMap<Stmt, Uses>();

/** Memoised: the same body may be printed several times. */
export function usesOf(s: Stmt): Uses {
  let uses = known.get(s);
  if (uses) return uses;
  uses = { vector: new Set(), plain: new Set(), reads: new Set() };
  collect(s, false, uses);
  known.set(s, uses);
  return uses;
}

function collect(s: Stmt, inVector: boolean, uses: Uses): void {
  const seen = new Set<Value>();
  const read = (v: Value): void => {
    if (seen.has(v)) return;
    seen.add(v);
    if (v.k === "var") uses.reads.add(v.name);
    else if (v.k === "op" || v.k === "threefry") v.args.forEach(read);
    else if (v.k === "select") {
      read(v.a);
      read(v.b);
    }
  };
  if ("value" in s) read(s.value);
  if (s.k === "update") {
    if (s.times) read(s.times);
    (inVector ? uses.vector : uses.plain).add(s.name);
  }
  if (s.k === "allReduce") uses.reads.add(s.name);
  if (s.k === "loop" || s.k === "if")
    for (const inner of s.body)
      collect(inner, inVector || (s.k === "loop" && s.mode === "vector"), uses);
}
