/**
 * @file What the CPU kernels of attention, forward and backward, share: register tiles of products between operands that are
 * packed in scratch, packing, and names for values in scratch. The tile is matmul.ts's, 6 × 8 sums.
 */
import {
  type Cond,
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
import { f32, number, put } from "./attention-parts.ts";
import { type Stmt, serial, type Value, variable, vector } from "./ir.ts";
import type { Operand } from "./operand.ts";

export const lanes = 4;
/** Rows of a tile, and columns: two vectors. */
export const tileRows = 6;
export const tileColumns = 2 * lanes;
/** Panels lie a cache line further apart than they are long: see matmul.ts. */
export const panelPad = 16;

export const local = (name: string, size: number): Stmt => ({
  k: "local",
  name,
  dtype: "f32",
  size,
});

/** max(x, 0), and ⌈x / n⌉ for any sign of x. */
export const atLeast0 = (x: Index): Index => isub(num(0), imin(num(0), isub(num(0), x)));
export const ceilDiv = (x: Index, n: number): Index => idiv(iadd(x, num(n - 1)), n);

interface TileProduct {
  readonly rows: number;
  /** Terms of each sum. */
  readonly depth: Index;
  a(row: number, k: Index): Value;
  /** `column`: 0 … 7 within the tile. */
  b(k: Index, column: Index): Value;
  /** Uses the sum of a row and a column. */
  finish(row: number, column: Index, sum: Value): readonly Stmt[];
}

/** Σ a(row, k) · b(k, column) for a tile of rows and columns. */
export function tileProduct({ rows, depth, a, b, finish }: TileProduct): Stmt {
  const lane = ivar("lane", lanes);
  const k = ivar("depth", depth.max);
  const groups = tileColumns / lanes;
  const name = (r: number, g: number) => `sum${r}_${g}`;
  const column = (g: number) => iadd(num(g * lanes), lane);
  const each = <T>(f: (r: number, g: number) => T): T[] =>
    Array.from({ length: rows * groups }, (_, i) => f(Math.floor(i / groups), i % groups));
  const inner: Stmt[] = [];
  for (let g = 0; g < groups; g++) inner.push({ k: "let", name: `b${g}`, value: b(k, column(g)) });
  for (let r = 0; r < rows; r++) {
    inner.push({ k: "let", name: `a${r}`, value: a(r, k) });
    for (let g = 0; g < groups; g++) {
      const times = variable("f32", `b${g}`);
      inner.push({ k: "update", name: name(r, g), value: variable("f32", `a${r}`), times });
    }
  }
  return vector("lane", num(lanes), [
    ...each((r, g): Stmt => ({ k: "acc", name: name(r, g), dtype: "f32", combine: "sum" })),
    serial("depth", depth, inner, 2),
    ...each((r, g) => finish(r, column(g), variable("f32", name(r, g)))).flat(),
  ]);
}

/** Runs `body` for each panel of eight columns. */
export const eachPanel = (
  name: string,
  count: Index,
  body: (panel: Index) => readonly Stmt[],
): Stmt => serial(name, count, body(ivar(name, count.max)));

/** Columns of a panel that are there: a mask where the last panel is not full. */
export const inside = (column: Index, size: number): Cond =>
  size % tileColumns === 0 ? [] : [lt(column, size)];

/** Copies rows × columns into scratch, `at` says where; the lanes run along the columns. */
export function copyRows(
  rows: Index,
  columns: Index,
  element: (row: Index, column: Index) => Operand,
  at: (row: Index, column: Index) => Index,
  to: string,
  factor = 1,
): Stmt {
  const [r, c] = [ivar("row", rows.max), ivar("column", columns.max)];
  const { stmts, value } = element(r, c);
  const scaled = factor === 1 ? value : f32("mul", value, number(factor));
  return serial("row", rows, [vector("column", columns, [...stmts, put(to, at(r, c), scaled)])]);
}

/**
 * Panels of eight columns for tileProduct's b: element (k, column) of panel p at p·stride + 8k + column. Row by row if the
 * columns are neighbours in memory, else panel by panel.
 */
export function packPanels(
  depth: Index,
  panels: Index,
  stride: number,
  element: (k: Index, column: Index) => Operand,
  byRows: boolean,
  to: string,
): Stmt {
  const [k, p] = [ivar("depth", depth.max), ivar("panel", panels.max)];
  const lane = ivar("lane", tileColumns);
  const { stmts, value } = element(k, iadd(imul(p, tileColumns), lane));
  const index = iadd(imul(p, stride), imul(k, tileColumns), lane);
  const copy = vector("lane", num(tileColumns), [...stmts, put(to, index, value)], 2);
  return byRows
    ? serial("depth", depth, [serial("panel", panels, [copy])])
    : serial("panel", panels, [serial("depth", depth, [copy])]);
}
