/**
 * @file Attention backward on a GPU: one pass for dq, whose workgroups own queries and walk over keys, and one for dk and dv, whose
 * workgroups own keys and walk over queries. Both compute the weights p = e^(s - lse) and the scores' gradient ds = p·(dO vᵀ - δ)
 * anew; so nothing is added by several workgroups, and results do not depend on timing.
 */
import {
  delinearize,
  type Index,
  iadd,
  idiv,
  imin,
  imul,
  isub,
  ivar,
  num,
} from "../../schedule/symbolic.ts";
import { f32, get, headOfKeys, number, write } from "../attention-parts.ts";
import { type Stmt, serial, type Value } from "../ir.ts";
import type { Sums, Workgroup } from "./attention-product.ts";
import { type Head, ScoreTile } from "./attention-scores.ts";
import { threadsOf } from "./attention-tile.ts";
import { lane, lanes } from "./lanes.ts";
import { copies, resultLanes, type Scheduled } from "./matmul-product.ts";
import { groupVar } from "./stage.ts";

/** Writes sums times a factor to [b, h, first + row, column]. */
function storeSums(
  w: Workgroup,
  sums: Sums,
  n: Parameters<typeof write>[1],
  head: Head,
  first: Index,
  [rows, columns]: readonly [number, number],
  factor = 1,
): readonly Stmt[] {
  const scaled = (v: Value) => (factor === 1 ? v : f32("mul", v, number(factor)));
  return w.eachRow(sums, first, rows, (r, row) =>
    copies("j", sums.columns / lanes, (j) =>
      resultLanes({ n: columns, padded: false }, w.columnAt(j), (cond) =>
        write(
          w.ev,
          n,
          [...head, row, iadd(w.columnAt(j), lane)],
          scaled(get(sums.name, w.cell(sums, r, j))),
          cond,
        ),
      ),
    ),
  );
}

export function queriesPass(w: Workgroup): Scheduled {
  const { parts, tile } = w;
  const { attention, sizes, results } = parts;
  const { batch, heads, shared, queries, keys, width } = sizes;
  const blocks = Math.ceil(queries / tile.queries);
  const groups = batch * heads * blocks;
  const [b, h, turn] = delinearize(ivar(groupVar, groups), [batch, heads, blocks]);
  const q0 = imul(attention.causal ? isub(num(blocks - 1), turn) : turn, tile.queries);
  const keyHead: Head = [b, headOfKeys(h, heads, shared)];
  const scoreTile = new ScoreTile(w);
  const sums = w.sums("output", tile.queries, width);
  const seen = num(Math.ceil(keys / tile.keys));
  const last = idiv(iadd(q0, num(tile.queries - 1)), tile.keys);
  const count = attention.causal ? imin(seen, iadd(last, num(1))) : seen;
  const k0 = imul(ivar("block", seen.max), tile.keys);
  const walk = serial("block", count, [
    ...scoreTile.compute([b, h], q0, k0),
    ...scoreTile.share(scoreTile.gradients),
    ...w.weighted(sums, w.matrix(parts.k, keyHead, true), k0),
  ]);
  const scale = Math.fround(attention.scale);
  const body = w.finish([
    ...w.fill(sums, 0),
    ...scoreTile.rows([b, h], q0),
    walk,
    ...storeSums(w, sums, results[0], [b, h], q0, [queries, width], scale),
  ]);
  return { groups, threads: threadsOf(tile), body };
}

export function keysPass(w: Workgroup): Scheduled {
  const { parts, tile } = w;
  const { attention, sizes, results } = parts;
  const { batch, heads, shared, queries, keys, width, values } = sizes;
  const [, dk, dv] = results;
  const blocks = Math.ceil(keys / tile.keys);
  const groups = batch * shared * blocks;
  const [b, kv, turn] = delinearize(ivar(groupVar, groups), [batch, shared, blocks]);
  const k0 = imul(turn, tile.keys);
  const group = heads / shared;
  const h = iadd(imul(kv, group), ivar("member", group));
  const scoreTile = new ScoreTile(w);
  const keySums = w.sums("keySums", tile.keys, width);
  const valueSums = w.sums("valueSums", tile.keys, values);
  const queryBlocks = Math.ceil(queries / tile.queries);
  // With `causal` the queries before the first key see none of these.
  const first = attention.causal ? idiv(k0, tile.queries) : num(0);
  const q0 = imul(iadd(first, ivar("block", queryBlocks)), tile.queries);
  const walk = serial("block", isub(num(queryBlocks), first), [
    ...scoreTile.rows([b, h], q0),
    ...scoreTile.compute([b, h], q0, k0),
    ...(dv
      ? [
          ...scoreTile.share(scoreTile.scores),
          ...w.weighted(valueSums, w.matrix(parts.ct, [b, h], true), q0, true),
        ]
      : []),
    ...(dk
      ? [
          ...scoreTile.share(scoreTile.gradients),
          ...w.weighted(keySums, w.matrix(parts.q, [b, h], true), q0, true),
        ]
      : []),
  ]);
  const scale = Math.fround(attention.scale);
  const body = w.finish([
    ...w.fill(keySums, 0),
    ...w.fill(valueSums, 0),
    serial("member", num(group), [walk]),
    ...storeSums(w, keySums, dk, [b, kv], k0, [keys, width], scale),
    ...storeSums(w, valueSums, dv, [b, kv], k0, [keys, values]),
  ]);
  return { groups, threads: threadsOf(tile), body };
}
