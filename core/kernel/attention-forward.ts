/**
 * @file Attention forward on a CPU: scores of a few rows at a time, which never leave the cache (Dao et al. 2022, arXiv
 * 2205.14135; the running softmax is Milakov & Gimelshein 2018, arXiv 1805.02867).
 *
 * A task has some rows of one head. Keys and values are packed into panels, a chunk at a time; for each tile of rows come the
 * scores against the whole chunk, their softmax, and its product with the values. Where one chunk holds all keys, that is the
 * result; else maxima, totals and outputs of all rows of the task wait in scratch for the next chunk.
 */
import {
  delinearize,
  ge,
  type Index,
  iadd,
  imin,
  imul,
  isub,
  ivar,
  lt,
  num,
} from "../schedule/symbolic.ts";
import {
  type Body,
  broadcast,
  f32,
  get,
  headOfKeys,
  isLowest,
  isZero,
  number,
  type Parts,
  put,
  read,
  write,
} from "./attention-parts.ts";
import {
  atLeast0,
  ceilDiv,
  copyRows,
  eachPanel,
  inside,
  local,
  packPanels,
  panelPad,
  tileColumns,
  tileProduct,
  tileRows,
} from "./attention-tile.ts";
import type { Evaluator } from "./evaluate.ts";
import { type Stmt, serial, type Value, variable, vector } from "./ir.ts";
import { eachTile, evenTile, roundUp, tiles } from "./matmul.ts";

/** Elements of packed keys and values: 256 KB, half of a small second-level cache. */
const maxPacked = 1 << 16;
/** Rows of a task that waits between chunks, and the least that pays for packing the keys once more. */
const maxRows = 192;
const leastRows = 96;
const wantedTasks = 16;

export function forwardBody(parts: Parts, ev: Evaluator): Body {
  const { attention, sizes, q, k, v, mask, results } = parts;
  const { batch, heads, shared, queries, keys, width, values } = sizes;
  const { causal, scale } = attention;
  const [out, lse] = results;

  const chunk = Math.min(
    roundUp(keys, tileColumns),
    Math.max(64, tileColumns * Math.floor(maxPacked / (width + values) / tileColumns)),
  );
  const chunks = Math.ceil(keys / chunk);
  const whole = chunks === 1;
  const tile = evenTile(queries, tileRows);
  const wanted = Math.ceil(wantedTasks / (batch * heads));
  const blocks = Math.max(
    whole ? 1 : Math.ceil(queries / maxRows),
    Math.min(wanted, Math.floor(queries / leastRows)),
  );
  const rows = tiles(queries, tile, Math.ceil(queries / Math.max(1, blocks) / tile));
  const kept = rows.per * tile;

  const extent = batch * heads * rows.blocks;
  const [b, h, block] = delinearize(ivar("task", extent), [batch, heads, rows.blocks]);
  const kv = headOfKeys(h, heads, shared);
  const valuePanels = Math.ceil(values / tileColumns);
  const [keyStride, valueStride] = [width * tileColumns + panelPad, chunk * tileColumns + panelPad];
  const scoreStride = chunk + panelPad;
  const outStride = valuePanels * tileColumns;

  const part = ivar("chunk", chunks);
  const c0 = imul(part, chunk);
  const firstRow = imul(block, kept);
  const rowsHere = imin(num(kept), isub(num(queries), firstRow));
  const lastRow = iadd(firstRow, rowsHere, num(-1));
  // With `causal` no row of the task sees more keys than its last one.
  const left = imin(num(chunk), isub(num(keys), c0));
  const here = causal ? imin(left, isub(iadd(lastRow, num(1)), c0)) : left;

  const pack: Stmt[] = [
    packPanels(
      num(width),
      ceilDiv(here, tileColumns),
      keyStride,
      (e, j) => read(ev, k, [b, kv, iadd(c0, j), e], [lt(iadd(c0, j), keys)]),
      false,
      "keys",
    ),
    packPanels(
      here,
      num(valuePanels),
      valueStride,
      (j, c) => read(ev, v, [b, kv, iadd(c0, j), c], [lt(c, values), lt(iadd(c0, j), keys)]),
      true,
      "values",
    ),
  ];

  const forTile = (i0: Index, extent: number, at: Index): Stmt[] => {
    const seen = causal ? imin(here, isub(iadd(i0, num(extent)), c0)) : here;
    const queriesIn = copyRows(
      num(extent),
      num(width),
      (r, e) => read(ev, q, [b, h, iadd(i0, r), e]),
      (r, e) => iadd(imul(r, width), e),
      "queries",
      Math.fround(scale),
    );
    const scores = eachPanel("panel", ceilDiv(seen, tileColumns), (panel) => [
      tileProduct({
        rows: extent,
        depth: num(width),
        a: (r, e) => get("queries", iadd(num(r * width), e)),
        b: (e, column) => get("keys", iadd(imul(panel, keyStride), imul(e, tileColumns), column)),
        finish: (r, column, sum) => [
          put("scores", iadd(num(r * scoreStride), imul(panel, tileColumns), column), sum),
        ],
      }),
    ]);
    const weights = serial("r", num(extent), rowOf(ivar("r", extent), i0, seen, at));
    const products = eachPanel("panel", num(valuePanels), (panel) => [
      tileProduct({
        rows: extent,
        depth: seen,
        a: (r, j) => get("scores", iadd(num(r * scoreStride), j)),
        b: (j, column) =>
          get("values", iadd(imul(panel, valueStride), imul(j, tileColumns), column)),
        finish: (r, offset, sum) => {
          const column = iadd(imul(panel, tileColumns), offset);
          if (whole) {
            const value = f32("mul", sum, get("factors", num(r)));
            return write(ev, out, [b, h, iadd(i0, num(r)), column], value, inside(column, values));
          }
          const index = iadd(imul(iadd(at, num(r)), outStride), column);
          const before = f32("mul", get("outputs", index), get("factors", num(r)));
          return [put("outputs", index, f32("add", before, sum))];
        },
      }),
    ]);
    const work = [queriesIn, scores, weights, products];
    return seen.min >= 1 ? work : [{ k: "if", cond: [ge(seen, 1)], body: work }];
  };

  /** Scores of one row → exponentials, and what their sum makes of the row's state. */
  const rowOf = (r: Index, i0: Index, seen: Index, at: Index): Stmt[] => {
    const i = iadd(i0, r);
    const own = causal ? atLeast0(imin(seen, isub(iadd(i, num(1)), c0))) : seen;
    const j = ivar("j", chunk);
    const index = iadd(imul(r, scoreStride), j);
    const score = get("scores", index);
    const named: Stmt[] = [];
    let masked = score;
    if (mask) {
      const m = read(ev, mask, broadcast(mask, [b, h, i, iadd(c0, j)]), [lt(iadd(c0, j), keys)]);
      named.push(...m.stmts);
      masked =
        mask.dtype === "bool"
          ? f32("where", m.value, score, number(-Infinity))
          : f32("add", score, m.value);
      named.push(
        { k: "let", name: "s", value: masked },
        put("scores", index, variable("f32", "s")),
      );
      masked = variable("f32", "s");
    }
    const top = variable("f32", "top");
    const slot = iadd(at, r);
    const stmts: Stmt[] = [
      { k: "acc", name: "most", dtype: "f32", combine: "max" },
      vector("j", own, [...named, { k: "update", name: "most", value: masked }]),
      {
        k: "let",
        name: "top",
        value: whole
          ? variable("f32", "most")
          : f32("max", get("tops", slot), variable("f32", "most")),
      },
      // A row that has seen no key yet subtracts nothing: e^(-∞ - -∞) would be NaN.
      { k: "let", name: "shift", value: f32("where", isLowest(top), number(0), top) },
      { k: "acc", name: "part", dtype: "f32", combine: "sum" },
      vector("j", own, [
        { k: "let", name: "p", value: f32("exp", f32("sub", score, variable("f32", "shift"))) },
        put("scores", index, variable("f32", "p")),
        { k: "update", name: "part", value: variable("f32", "p") },
      ]),
    ];
    if (causal) {
      const rest = ivar("rest", chunk);
      const from = iadd(imul(r, scoreStride), own, rest);
      stmts.push(vector("rest", isub(seen, own), [put("scores", from, number(0))]));
    }
    const shift = variable("f32", "shift");
    if (whole) {
      const total = variable("f32", "part");
      stmts.push(put("factors", r, inverse(total)), ...lseOf(i, shift, total));
    } else
      stmts.push(
        { k: "let", name: "fade", value: f32("exp", f32("sub", get("tops", slot), shift)) },
        put("tops", slot, top),
        put("factors", r, variable("f32", "fade")),
        put(
          "totals",
          slot,
          f32(
            "add",
            f32("mul", get("totals", slot), variable("f32", "fade")),
            variable("f32", "part"),
          ),
        ),
      );
    return stmts;
  };
  // A masked row that sees nothing gives zeros; without a mask 0/0 shows that all scores were -∞.
  const inverse = (total: Value): Value => {
    const safe = mask ? f32("where", isZero(total), number(1), total) : total;
    return f32("div", number(1), safe);
  };
  const lseOf = (i: Index, shift: Value, total: Value): Stmt[] => {
    const sum = f32("add", f32("log", total), shift);
    return write(ev, lse, [b, h, i], mask ? f32("where", isZero(total), number(0), sum) : sum);
  };

  const locals: Stmt[] = [
    local("keys", (chunk / tileColumns) * keyStride),
    local("values", valuePanels * valueStride),
    local("queries", tile * width),
    local("scores", tile * scoreStride),
    local("factors", tile),
  ];
  const work = [
    ...pack,
    ...eachTile(rows, block, "tile", (i0, extent, tileAt) =>
      forTile(i0, extent, imul(tileAt, tile)),
    ),
  ];
  const range = { var: "task", extent };
  if (whole) return { range, body: [...locals, ...work] };

  const z = ivar("z", kept);
  const clear = vector("z", num(kept), [
    put("tops", z, number(-Infinity)),
    put("totals", z, number(0)),
  ]);
  const o = ivar("z", kept * outStride);
  const clearOut = vector("z", num(kept * outStride), [put("outputs", o, number(0))]);
  const [r, c] = [ivar("r", kept), ivar("c", values)];
  const total = get("totals", r);
  const top = get("tops", r);
  const finish = serial("r", rowsHere, [
    { k: "let", name: "factor", value: inverse(total) },
    vector("c", num(values), [
      ...write(
        ev,
        out,
        [b, h, iadd(firstRow, r), c],
        f32("mul", get("outputs", iadd(imul(r, outStride), c)), variable("f32", "factor")),
      ),
    ]),
    ...lseOf(iadd(firstRow, r), f32("where", isLowest(top), number(0), top), total),
  ]);
  const seenChunks = causal
    ? imin(num(chunks), ceilDiv(iadd(lastRow, num(1)), chunk))
    : num(chunks);
  return {
    range,
    body: [
      ...locals,
      local("tops", kept),
      local("totals", kept),
      local("outputs", kept * outStride),
      clear,
      clearOut,
      serial("chunk", seenChunks, work),
      finish,
    ],
  };
}
