/**
 * @file Columns whose rows are shared out among invocations `rows` apart: their accumulators are combined through workgroup
 * memory. Neighbouring invocations are at neighbouring columns, so nobody waits for a bank that another one uses; one
 * invocation per column adds up its few values, which costs two barriers where a tree would take one per halving.
 */
import { type Index, iadd, imod, imul, ivar, num } from "../../schedule/symbolic.ts";
import type { Evaluator } from "../evaluate.ts";
import { type Stmt, serial, type Value, variable } from "../ir.ts";
import type { Reduction } from "../phases.ts";
import type { Layout } from "./layout.ts";
import { below, guarded, threadVar } from "./stage.ts";

/** Appends the combining to `into`. Returns where each invocation then finds the results of its column. */
export function totalColumns(
  ev: Evaluator,
  into: Stmt[],
  { threads, rows, width }: Layout,
  reductions: readonly Reduction[],
): Map<Reduction, Value> {
  const t = ivar(threadVar, threads);
  const columns = reductions.map((r) => ({ r, shared: ev.fresh("w"), total: ev.fresh("a") }));
  type Column = (typeof columns)[number];
  const load = ({ r, shared }: Column, index: Index): Value => ({
    k: "localLoad",
    dtype: r.dtype,
    local: shared,
    index,
  });
  const store = ({ shared }: Column, value: Value): Stmt => ({
    k: "localStore",
    local: shared,
    index: t,
    value,
  });
  for (const { r, shared } of columns)
    ev.scopes[0].stmts.unshift({ k: "shared", name: shared, dtype: r.dtype, size: threads });
  const share = imul(ivar("y", width), rows);
  const add = columns.flatMap((c): Stmt[] => [
    { k: "acc", name: c.total, dtype: c.r.dtype, combine: c.r.combine },
    serial("y", num(width), [{ k: "update", name: c.total, value: load(c, iadd(share, t)) }]),
    store(c, variable(c.r.dtype, c.total)),
  ]);
  into.push(
    ...columns.map((c) => store(c, variable(c.r.dtype, c.r.name))),
    { k: "barrier" },
    ...guarded([below(t, rows)], add),
    { k: "barrier" },
  );
  return new Map(
    columns.map((c) => {
      const name = ev.fresh("a");
      into.push({ k: "let", name, value: load(c, imod(t, rows)) });
      return [c.r, variable(c.r.dtype, name)];
    }),
  );
}
