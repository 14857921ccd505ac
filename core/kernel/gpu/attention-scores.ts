/**
 * @file Tiles of scores in the registers of a workgroup: as the softmax sees them, and in the backward pass, where the weights p =
 * e^(s - lse) and the scores' gradient ds = p·(dO vᵀ - δ) come from two tiles.
 */
import {
  type Cond,
  type Index,
  iadd,
  imul,
  isub,
  lt,
  simplifyCond,
} from "../../schedule/symbolic.ts";
import { broadcast, f32, get, headOfKeys, number, put } from "../attention-parts.ts";
import type { Stmt, Value } from "../ir.ts";
import type { Sums, Workgroup } from "./attention-product.ts";
import { weightStride } from "./attention-tile.ts";
import { lane } from "./lanes.ts";
import { operand } from "./matmul-operand.ts";
import { copies } from "./matmul-product.ts";

export type Head = readonly [b: Index, h: Index];

/** The place of a weight that every invocation can see. */
export const weightAt = (w: Workgroup, scores: Sums, r: Index, j: Index): Index =>
  iadd(imul(w.rowAt(r, scores.rows), weightStride(w.tile)), w.columnAt(j), lane);

/** A score of the tile at (q0, k0) as the softmax sees it: scaled, masked, -∞ for keys that a query does not see. */
export function scoreOf(
  w: Workgroup,
  scores: Sums,
  r: Index,
  j: Index,
  [b, h]: Head,
  q0: Index,
  k0: Index,
): { stmts: readonly Stmt[]; value: Value } {
  const { attention, sizes, mask } = w.parts;
  const i = iadd(q0, w.rowAt(r, scores.rows));
  const column = iadd(k0, w.columnAt(j), lane);
  const scaled = f32(
    "mul",
    get(scores.name, w.cell(scores, r, j)),
    number(Math.fround(attention.scale)),
  );
  const present = lt(column, sizes.keys);
  const seen: Cond = attention.causal ? [present, isub(i, column)] : [present];
  const cond = simplifyCond(seen) || seen;
  const hide = (a: Value): Value =>
    cond.length > 0 ? { k: "select", dtype: "f32", cond, a, b: number(-Infinity) } : a;
  if (!mask) return { stmts: [], value: hide(scaled) };
  const at = broadcast(mask, [b, h, i, column]);
  const { stmts, value } = operand(w.ev, mask, at, [lt(i, sizes.queries), present]);
  const masked =
    mask.dtype === "bool"
      ? f32("where", value, scaled, number(-Infinity))
      : f32("add", scaled, value);
  return { stmts, value: hide(masked) };
}

/** The two tiles of registers from which p and ds come. */
export class ScoreTile {
  readonly w: Workgroup;
  /** q kᵀ, then p; dO vᵀ, then ds. */
  readonly scores: Sums;
  readonly gradients: Sums;

  constructor(w: Workgroup) {
    const { queries, keys } = w.tile;
    this.w = w;
    this.scores = w.sums("scores", queries, keys);
    this.gradients = w.sums("gradients", queries, keys);
    w.local("totals", this.scores.rows);
    w.local("deltas", this.scores.rows);
  }

  /** What the rows' sums were: lse and δ. Rows that are not there have 0, and then no gradient. */
  rows(head: Head, q0: Index): readonly Stmt[] {
    const { w, scores } = this;
    const { parts, ev } = w;
    return copies("r", scores.rows, (r) => {
      const i = iadd(q0, w.rowAt(r, scores.rows));
      return [
        { local: "totals", n: parts.lse },
        { local: "deltas", n: parts.delta },
      ].flatMap(({ local, n }) => {
        const { stmts, value } = operand(ev, n, [...head, i], [lt(i, parts.sizes.queries)]);
        return [...stmts, put(local, r, value)];
      });
    });
  }

  /** p and ds of the tile at (q0, k0). */
  compute(head: Head, q0: Index, k0: Index): readonly Stmt[] {
    const { w, scores, gradients } = this;
    const { parts } = w;
    const keyHead: Head = [head[0], headOfKeys(head[1], parts.sizes.heads, parts.sizes.shared)];
    return [
      ...w.fill(scores, 0),
      ...w.fill(gradients, 0),
      ...w.product(scores, w.matrix(parts.q, head), q0, w.matrix(parts.k, keyHead), k0),
      ...w.product(gradients, w.matrix(parts.ct, head), q0, w.matrix(parts.v, keyHead), k0),
      ...w.each(scores, (r, j) => {
        const at = w.cell(scores, r, j);
        const { stmts, value } = scoreOf(w, scores, r, j, head, q0, k0);
        const p = f32("exp", f32("sub", value, get("totals", r)));
        const lifted = f32("sub", get("gradients", at), get("deltas", r));
        return [
          ...stmts,
          put("scores", at, p),
          put("gradients", at, f32("mul", get("scores", at), lifted)),
        ];
      }),
    ];
  }

  /** Puts p or ds where all invocations see it, after the next barrier. */
  share(which: Sums): readonly Stmt[] {
    const { w } = this;
    return w.each(which, (r, j) => [
      put("weights", weightAt(w, which, r, j), get(which.name, w.cell(which, r, j))),
    ]);
  }
}
