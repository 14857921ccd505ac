/**
 * @file Attention backward on a CPU. From the log-sum-exp of each row the weights p = e^(s - lse) come back without a softmax;
 * with δ = Σ dO·output the scores' gradient is ds = p·(dO vᵀ - δ) (Dao et al. 2022). Then dv = pᵀ dO, dk = dsᵀ q, dq = ds k.
 *
 * A task has all rows of one head of keys, so that it owns every gradient that it adds to. Keys go in chunks, whose dk and dv
 * are summed in scratch; against each chunk go blocks of query rows, whose p and ds never leave the cache.
 */
import {
  type Cond,
  delinearize,
  ge,
  type Index,
  iadd,
  idiv,
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
import { type Stmt, serial, type Value, vector } from "./ir.ts";
import { eachTile, evenTile, roundUp, tiles } from "./matmul.ts";

/** Keys of a chunk at most, and tiles of query rows in a block. */
const maxChunk = 192;
const blockTiles = 8;
/** Keys come in panels of eight as columns and in tiles of six as rows. */
const keyUnit = 24;

export function backwardBody(parts: Parts, ev: Evaluator): Body {
  const { attention, sizes, q, k, v, ct, lse, delta, mask, results } = parts;
  const { batch, heads, shared, queries, keys, width, values } = sizes;
  const { causal } = attention;
  const scale = Math.fround(attention.scale);
  const [dq, dk, dv] = results;
  const group = heads / shared;

  const chunks = Math.ceil(keys / maxChunk);
  const chunk = roundUp(Math.ceil(keys / chunks), keyUnit);
  const whole = chunks === 1;
  const tile = evenTile(queries, tileRows);
  const rows = tiles(queries, tile, blockTiles);
  const blockRows = rows.per * tile;
  const [widthPanels, valuePanels] = [width, values].map((n) => Math.ceil(n / tileColumns));
  const [wide, tall] = [widthPanels * tileColumns, valuePanels * tileColumns];
  const stride = chunk + panelPad;
  const panelOf = (depth: number) => depth * tileColumns + panelPad;

  const [b, kv] = delinearize(ivar("task", batch * shared), [batch, shared]);
  const c0 = imul(ivar("chunk", chunks), chunk);
  const here = imin(num(chunk), isub(num(keys), c0));
  const member = ivar("member", group);
  const h = iadd(imul(kv, group), member);
  const present = (j: Index): Cond => [lt(iadd(c0, j), keys)];

  const packed: Stmt[] = [
    packPanels(
      num(width),
      ceilDiv(here, tileColumns),
      panelOf(width),
      (e, j) => read(ev, k, [b, kv, iadd(c0, j), e], present(j)),
      false,
      "keys",
    ),
    packPanels(
      num(values),
      ceilDiv(here, tileColumns),
      panelOf(values),
      (c, j) => read(ev, v, [b, kv, iadd(c0, j), c], present(j)),
      false,
      "values",
    ),
    ...(dq
      ? [
          packPanels(
            here,
            num(widthPanels),
            panelOf(chunk),
            (j, e) => read(ev, k, [b, kv, iadd(c0, j), e], [lt(e, width), ...present(j)]),
            true,
            "keyRows",
          ),
        ]
      : []),
  ];

  /** Rows of q or dO that a block needs: as rows of one product, and as columns of another. */
  const rowsOf = (
    name: string,
    n: typeof q,
    size: number,
    across: number,
    q0: Index,
    count: Index,
    factor = 1,
  ) =>
    copyRows(
      count,
      num(across),
      (r, c) => read(ev, n, [b, h, iadd(q0, r), c], [lt(c, size), lt(iadd(q0, r), queries)]),
      (r, c) => iadd(imul(r, across), c),
      name,
      factor,
    );

  const scoresOf = (i0: Index, extent: number, at: Index, seen: Index, filled: Index): Stmt[] => {
    const cell = (r: number, j: Index) => iadd(imul(iadd(at, num(r)), stride), j);
    const panels = (
      depth: number,
      left: string,
      across: number,
      right: string,
      finish: (r: number, j: Index, sum: Value) => Stmt[],
    ) =>
      eachPanel("panel", ceilDiv(seen, tileColumns), (panel) => [
        tileProduct({
          rows: extent,
          depth: num(depth),
          a: (r, x) => get(left, iadd(imul(iadd(at, num(r)), across), x)),
          b: (x, column) =>
            get(right, iadd(imul(panel, panelOf(depth)), imul(x, tileColumns), column)),
          finish: (r, column, sum) => finish(r, iadd(imul(panel, tileColumns), column), sum),
        }),
      ]);
    const weights = panels(width, "queries", wide, "keys", (r, j, sum) => {
      const i = iadd(i0, num(r));
      const stmts: Stmt[] = [];
      let score = sum;
      let seenBy: Value | null = null;
      if (mask) {
        const m = read(ev, mask, broadcast(mask, [b, h, i, iadd(c0, j)]), present(j));
        stmts.push(...m.stmts);
        if (mask.dtype === "bool") seenBy = m.value;
        else score = f32("add", sum, m.value);
      }
      let p = f32("exp", f32("sub", score, get("totals", iadd(at, num(r)))));
      if (seenBy) p = f32("where", seenBy, p, number(0));
      if (causal)
        p = { k: "select", dtype: "f32", cond: [isub(i, iadd(c0, j))], a: p, b: number(0) };
      return [...stmts, put("weights", cell(r, j), p)];
    });
    const gradients = panels(values, "cotangents", tall, "values", (r, j, sum) => {
      const lifted = f32("sub", sum, get("deltas", iadd(at, num(r))));
      return [put("scores", cell(r, j), f32("mul", get("weights", cell(r, j)), lifted))];
    });
    // What the tiles of keys below read beyond the last panel.
    const done = imul(ceilDiv(atLeast0(seen), tileColumns), tileColumns);
    const [r, z] = [ivar("r", extent), ivar("z", chunk)];
    const index = iadd(imul(iadd(at, r), stride), done, z);
    const clear = serial("r", num(extent), [
      vector("z", isub(filled, done), [
        put("weights", index, number(0)),
        put("scores", index, number(0)),
      ]),
    ]);
    const queryGradients = dq
      ? [
          eachPanel("panel", num(widthPanels), (panel) => [
            tileProduct({
              rows: extent,
              depth: seen,
              a: (r, j) => get("scores", cell(r, j)),
              b: (j, column) =>
                get("keyRows", iadd(imul(panel, panelOf(chunk)), imul(j, tileColumns), column)),
              finish: (r, offset, sum) => {
                const e = iadd(imul(panel, tileColumns), offset);
                const i = iadd(i0, num(r));
                if (whole)
                  return write(
                    ev,
                    dq,
                    [b, h, i, e],
                    f32("mul", sum, number(scale)),
                    inside(e, width),
                  );
                const index = iadd(imul(iadd(imul(member, queries), i), wide), e);
                return [put("dq", index, f32("add", get("dq", index), sum))];
              },
            }),
          ]),
        ]
      : [];
    const work = [weights, gradients, ...queryGradients];
    return [
      ...(seen.min >= 1 ? work : [{ k: "if", cond: [ge(seen, 1)], body: work } as Stmt]),
      clear,
    ];
  };

  /** to[key][column] += Σ over the block's rows of from[row][key] · right[row][column]. */
  const addKeys = (
    from: string,
    right: string,
    across: number,
    to: string,
    filled: Index,
    depth: Index,
  ): Stmt =>
    eachPanel("keyTile", ceilDiv(filled, tileRows), (keyTile) => [
      eachPanel("panel", num(across / tileColumns), (panel) => [
        tileProduct({
          rows: tileRows,
          depth,
          a: (r, i) => get(from, iadd(imul(i, stride), imul(keyTile, tileRows), num(r))),
          b: (i, column) => get(right, iadd(imul(i, across), imul(panel, tileColumns), column)),
          finish: (r, column, sum) => {
            const row = iadd(imul(keyTile, tileRows), num(r));
            const index = iadd(imul(row, across), imul(panel, tileColumns), column);
            return [put(to, index, f32("add", get(to, index), sum))];
          },
        }),
      ]),
    ]);

  // With `causal` the blocks before the first that sees a key of the chunk are left out.
  const first = causal ? idiv(c0, blockRows) : num(0);
  const blockCount = isub(num(rows.blocks), first);
  const block = iadd(first, ivar("block", rows.blocks));
  const q0 = imul(block, blockRows);
  const count = imin(num(blockRows), isub(num(queries), q0));
  const reach = causal ? imin(here, isub(iadd(q0, count), c0)) : here;
  const filled = imul(ceilDiv(reach, keyUnit), keyUnit);
  const r = ivar("r", blockRows);
  const perRow = (name: string, n: typeof lse): Stmt => {
    const { stmts, value } = read(ev, n, [b, h, iadd(q0, r)], [lt(iadd(q0, r), queries)]);
    return vector("r", count, [...stmts, put(name, r, value)]);
  };
  const blockBody: Stmt[] = [
    rowsOf("queries", q, width, wide, q0, count, scale),
    rowsOf("cotangents", ct, values, tall, q0, count),
    perRow("totals", lse),
    perRow("deltas", delta),
    ...eachTile(rows, block, "tile", (i0, extent, at) =>
      scoresOf(
        i0,
        extent,
        imul(at, tile),
        causal ? imin(here, isub(iadd(i0, num(extent)), c0)) : here,
        filled,
      ),
    ),
    ...(dv ? [addKeys("weights", "cotangents", tall, "dv", reach, count)] : []),
    // The queries carry the scale already.
    ...(dk ? [addKeys("scores", "queries", wide, "dk", reach, count)] : []),
  ];
  const cleared = (name: string, size: number): Stmt => {
    const z = ivar("z", size);
    return vector("z", num(size), [put(name, z, number(0))]);
  };
  const storeKeys = (n: typeof dk, name: string, size: number, across: number): Stmt[] => {
    const [j, c] = [ivar("j", chunk), ivar("c", size)];
    const value = get(name, iadd(imul(j, across), c));
    return n
      ? [serial("j", here, [vector("c", num(size), write(ev, n, [b, kv, iadd(c0, j), c], value))])]
      : [];
  };
  const chunkBody: Stmt[] = [
    ...packed,
    ...(dk ? [cleared("dk", chunk * wide)] : []),
    ...(dv ? [cleared("dv", chunk * tall)] : []),
    serial("member", num(group), [serial("block", blockCount, blockBody)]),
    ...storeKeys(dk, "dk", width, wide),
    ...storeKeys(dv, "dv", values, tall),
  ];
  const [m, i, e] = [ivar("m", group), ivar("i", queries), ivar("e", width)];
  const storeQueries = serial("m", num(group), [
    serial("i", num(queries), [
      vector(
        "e",
        num(width),
        write(
          ev,
          dq,
          [b, iadd(imul(kv, group), m), i, e],
          f32("mul", get("dq", iadd(imul(iadd(imul(m, queries), i), wide), e)), number(scale)),
        ),
      ),
    ]),
  ]);
  const gathered = dq && !whole;
  const body: Stmt[] = [
    local("keys", (chunk / tileColumns) * panelOf(width)),
    local("values", (chunk / tileColumns) * panelOf(values)),
    ...(dq ? [local("keyRows", widthPanels * panelOf(chunk))] : []),
    local("queries", blockRows * wide),
    local("cotangents", blockRows * tall),
    local("totals", blockRows),
    local("deltas", blockRows),
    local("weights", blockRows * stride),
    local("scores", blockRows * stride),
    ...(dk ? [local("dk", chunk * wide)] : []),
    ...(dv ? [local("dv", chunk * tall)] : []),
    ...(gathered
      ? [local("dq", group * queries * wide), cleared("dq", group * queries * wide)]
      : []),
    serial("chunk", num(chunks), chunkBody),
    ...(gathered ? [storeQueries] : []),
  ];
  return { range: { var: "task", extent: batch * shared }, body };
}
