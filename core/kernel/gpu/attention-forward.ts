/**
 * @file Attention on a GPU (Dao 2023, "FlashAttention-2", arXiv 2307.08691; the running softmax is Milakov & Gimelshein 2018, arXiv
 * 1805.02867). A workgroup keeps a tile of queries and walks over the keys in tiles; the scores of a tile stay in registers,
 * their exponentials pass once through workgroup memory to become the left operand of the product with the values.
 *
 * Rows are shared by the `across` invocations of a row of the workgroup: each tile they agree on a row's maximum through
 * workgroup memory, one barrier for all rows; totals are added up only at the end. The backward pass is attention-backward.ts's.
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
import { f32, get, headOfKeys, isLowest, isZero, number, put, write } from "../attention-parts.ts";
import { op, type Stmt, serial, type Value, variable } from "../ir.ts";
import { barrier, type Workgroup } from "./attention-product.ts";
import { scoreOf, weightAt } from "./attention-scores.ts";
import { threadsOf } from "./attention-tile.ts";
import { lane, lanes, overLanes } from "./lanes.ts";
import { copies, guard, resultLanes, type Scheduled } from "./matmul-product.ts";
import { groupVar } from "./stage.ts";

/** The larger of two; a NaN may lose, as the exponential of its score is NaN anyway. */
const larger = (a: Value, b: Value): Value => f32("where", op("lt", "bool", a, b), b, a);

export function forwardPass(w: Workgroup): Scheduled {
  const { parts, ev, tile } = w;
  const { attention, sizes, q, k, v, mask, results } = parts;
  const { batch, heads, shared, queries, keys, values } = sizes;
  const { causal } = attention;
  const [out, lse] = results;
  const blocks = Math.ceil(queries / tile.queries);
  const groups = batch * heads * blocks;
  const [b, h, turn] = delinearize(ivar(groupVar, groups), [batch, heads, blocks]);
  // With `causal` the last queries have the most to do: they begin first.
  const q0 = imul(causal ? isub(num(blocks - 1), turn) : turn, tile.queries);
  const kv = headOfKeys(h, heads, shared);
  const [qs, ks, vs] = [w.matrix(q, [b, h]), w.matrix(k, [b, kv]), w.matrix(v, [b, kv], true)];

  const scores = w.sums("scores", tile.queries, tile.keys);
  const output = w.sums("output", tile.queries, values);
  const { rows } = scores;
  w.local("most", lanes);
  for (const name of ["top", "shift", "fade", "total"]) w.local(name, rows);
  const block = ivar("block", Math.ceil(keys / tile.keys));
  const k0 = imul(block, tile.keys);
  /** For the rows of this invocation four by four: r is the first, and `lane` counts. */
  const rowsOf = (body: (at: Index, row: Index) => readonly Stmt[]) =>
    copies("z", rows / lanes, (z) => {
      const r = imul(z, lanes);
      return [overLanes(body(iadd(r, lane), iadd(w.rowAt(r, rows), lane)))];
    });
  const topsAt = (x: Index, row: Index): Index => iadd(imul(x, tile.queries), row);
  const share = (name: string) =>
    rowsOf((at, row) => [put("tileA", topsAt(w.column, row), get(name, at))]);
  const named = (name: string): Value => variable("f32", name);
  const softmax: Stmt[] = [
    ...copies("r", rows, (r) => [
      overLanes([
        put("most", lane, number(-Infinity)),
        ...copies("j", scores.columns / lanes, (j) => {
          const at = w.cell(scores, r, j);
          const { stmts, value } = scoreOf(w, scores, r, j, [b, h], q0, k0);
          const most = larger(get("most", lane), get("scores", at));
          return [...stmts, put("scores", at, value), put("most", lane, most)];
        }),
      ]),
      put(
        "shift",
        r,
        [1, 2, 3].reduce((most, l) => larger(most, get("most", num(l))), get("most", num(0))),
      ),
    ]),
    ...share("shift"),
    barrier,
    ...rowsOf((at, row) => [
      put("most", lane, get("top", at)),
      ...copies("x", tile.across, (x) => [
        put("most", lane, larger(get("most", lane), get("tileA", topsAt(x, row)))),
      ]),
      { k: "let", name: "next", value: get("most", lane) },
      // A row that has seen no key yet subtracts nothing: e^(-∞ - -∞) would be NaN.
      {
        k: "let",
        name: "safe",
        value: f32("where", isLowest(named("next")), number(0), named("next")),
      },
      put("fade", at, f32("exp", f32("sub", get("top", at), named("safe")))),
      put("top", at, named("next")),
      put("shift", at, named("safe")),
    ]),
    ...copies("r", rows, (r) => [
      { k: "acc", name: "part", dtype: "f32", combine: "sum" },
      overLanes(
        copies("j", scores.columns / lanes, (j) => {
          const at = w.cell(scores, r, j);
          return [
            {
              k: "let",
              name: "p",
              value: f32("exp", f32("sub", get("scores", at), get("shift", r))),
            },
            put("weights", weightAt(w, scores, r, j), named("p")),
            { k: "update", name: "part", value: named("p") },
          ];
        }),
      ),
      put("total", r, f32("add", f32("mul", get("total", r), get("fade", r)), named("part"))),
    ]),
    ...w.each(output, (r, j) => {
      const at = w.cell(output, r, j);
      return [put("output", at, f32("mul", get("output", at), get("fade", r)))];
    }),
  ];

  const seen = Math.ceil(keys / tile.keys);
  const last = idiv(iadd(q0, num(tile.queries - 1)), tile.keys);
  const count = causal ? imin(num(seen), iadd(last, num(1))) : num(seen);
  const walk = serial("block", count, [
    ...w.fill(scores, 0),
    ...w.product(scores, qs, q0, ks, k0),
    ...softmax,
    // The product's first barrier comes before anybody reads the weights.
    ...w.weighted(output, vs, k0),
  ]);

  const sum = named("sum");
  // A masked row that sees nothing gives zeros; without a mask 0/0 shows that all scores were -∞.
  const empty = (one: Value, value: Value): Value =>
    mask ? f32("where", isZero(sum), one, value) : value;
  const combine = rowsOf((at, row) => [
    { k: "acc", name: "sum", dtype: "f32", combine: "sum" },
    ...copies("x", tile.across, (x) => [
      { k: "update", name: "sum", value: get("tileA", topsAt(x, row)) },
    ]),
    put("fade", at, empty(number(0), f32("div", number(1), sum))),
    put("total", at, empty(number(0), f32("add", f32("log", sum), get("shift", at)))),
  ]);
  const store = w.eachRow(output, q0, queries, (r, i) => [
    ...copies("j", output.columns / lanes, (j) =>
      resultLanes({ n: values, padded: false }, w.columnAt(j), (cond) => {
        const value = f32("mul", get("output", w.cell(output, r, j)), get("fade", r));
        return write(ev, out, [b, h, i, iadd(w.columnAt(j), lane)], value, cond);
      }),
    ),
    ...(lse ? guard(w.column, 1, write(ev, lse, [b, h, i], get("total", r))) : []),
  ]);
  const body = w.finish([
    ...w.fill(output, 0),
    ...rowsOf((at) => [put("top", at, number(-Infinity)), put("total", at, number(0))]),
    walk,
    ...share("total"),
    barrier,
    ...combine,
    ...store,
  ]);
  return { groups, threads: threadsOf(tile), body };
}
