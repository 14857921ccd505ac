/**
 * @file The matrix product [B, M, K]·[B, K, N] as a kernel: blocks for the caches, tiles for the registers, packing.
 *
 * The micro-kernel keeps R × 8 sums in registers: 6 × 8 in lanes of 4 are 12 of the 16 registers of baseline x64, two
 * hold a row of B and one a broadcast element of A (4×12, 8×8 spill). Where the engine pairs vectors into registers of
 * 256 bits (target.ts) they are twice as many columns. B goes first into panels of as many columns, k-major, so
 * that the inner loop reads it in order; A is read in place where that is as good (packing.ts). The blocking is that of
 * Goto and van de Geijn (2008, "Anatomy of high-performance matrix multiplication").
 *
 * Three forms: packed (the above), direct (few rows: every element of B is used too rarely to pay for a copy), and dot
 * (few rows against a B that is contiguous along k, or few columns: the lanes run along k). Left to the caller: what the
 * operands are, and the epilogue, which is called with index expressions and writes the result.
 */
import type { DType } from "../dtype.ts";
import {
  affineIn,
  type Cond,
  delinearize,
  ge,
  type Index,
  iadd,
  imin,
  imul,
  isub,
  ivar,
  num,
} from "../schedule/symbolic.ts";
import {
  type BufferInfo,
  constValue,
  type Kernel,
  op,
  type Stmt,
  serial,
  type Value,
  variable,
  vector,
} from "./ir.ts";
import { blockOf, partition } from "./k-blocks.ts";
import { type Operand, operand } from "./operand.ts";
import {
  type Block,
  depthOf,
  digitsOf,
  indicesOf,
  overDepth,
  overK,
  packPanel,
  packRows,
} from "./packing.ts";
import { worthWide } from "./target.ts";

export interface MatmulSpec {
  readonly name: string;
  readonly batch: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly dtype: DType;
  readonly buffers: readonly BufferInfo[];
  /** Number of run-time scalar words. */
  readonly scalars: number;
  /** Elements of A and B with their prologues. Names that the statements declare must differ from call to call. */
  readonly a: (b: Index, m: Index, k: Index) => Value | Operand;
  readonly b: (b: Index, k: Index, n: Index) => Value | Operand;
  /** Neighbouring columns of B are neighbours in memory. */
  readonly bUnitStride: boolean;
  /** The engine pairs vectors (target.ts): tiles of twice the columns. */
  readonly wide?: boolean;
  /** Stores the finished element. */
  readonly epilogue: (b: Index, m: Index, n: Index, acc: Value) => readonly Stmt[];
}

// Sizes for cores with 48 KB of first-level and 1–2 MB of second-level cache (Zen 5, Sapphire Rapids; November 2026).
/** Rows and columns of the register tile. */
const tileRows = 6;
const lanes = 4;
/** K is cut into blocks when it is longer; a block of A's rows and a panel of B then fit the first-level cache. */
const maxDepth = 768;
const depthBlock = 512;
/** Elements of a packed block of B: 256 KB, half of a small second-level cache. */
const maxPacked = 1 << 16;
/** Rows of a task while K is cut: their sums wait in scratch. */
const maxKeptRows = 192;
/**
 * Panels of B lie a cache line further apart than they are long: at a power of two, all would meet in a few sets of
 * the first-level cache while B is packed row by row.
 */
const panelPad = 16;
/**
 * With a short K a tile is done sooner than the memory takes its six lines, and the stores wait in order. If the result
 * does not fit a cache, sums of a whole row tile are staged in scratch and leave row by row (12 × 577 × 577 × 64: 18 → 30 GFLOP/s).
 */
const shortDepth = 96;
const cachedElements = 3 << 17;
/** A task below these is not worth another thread: 20 µs at 50 GFLOP/s, at 20 GB/s. */
const [taskFlops, taskBytes] = [1e6, 4e5];
const wantedTasks = 64;
/** Up to this many rows B is read in place. */
const fewRows = 8;

const isWide = ({ wide, batch, m, n, k }: MatmulSpec): boolean =>
  (wide ?? false) && 2 * batch * m * n * k >= worthWide;

export function matmulKernel(spec: MatmulSpec): Kernel {
  const { m, n, k, bUnitStride } = spec;
  const few = m <= fewRows;
  if (k > 0 && (n < lanes || (few && !bUnitStride))) return dotForm(spec);
  const rows = evenTile(m, tileRows);
  const once = m <= rows || isPlain(spec.b(num(0), ivar("mmK", k), ivar("mmN", n)));
  return tiled(spec, rows, k > 0 && !(few && once));
}

/** At most `tile`, so that the last tile is not much smaller than the others: 8 rows are 4 + 4, not 6 + 2. */
export const evenTile = (size: number, tile: number): number =>
  Math.ceil(size / Math.ceil(size / tile));
export const roundUp = (x: number, to: number): number => Math.ceil(x / to) * to;

// --- axes in tiles and blocks -------------------------------------------------------------------------------

/** An axis cut into tiles, `per` of them to a task. The last tile may be smaller and belongs to the last task. */
export interface Tiles {
  readonly size: number;
  readonly tile: number;
  readonly per: number;
  readonly blocks: number;
}

export function tiles(size: number, tile: number, perTask: number): Tiles {
  const per = Math.max(1, Math.min(perTask, Math.ceil(size / tile)));
  return { size, tile, per, blocks: Math.ceil(size / (tile * per)) };
}

/** The number of elements of block `block`. */
function blockExtent(t: Tiles, block: Index): Index {
  const width = t.tile * t.per;
  return imin(num(width), isub(num(t.size), imul(block, width)));
}

/** Runs `body` for each tile of a block: first element, extent, and number of the tile within the block. */
export function eachTile(
  t: Tiles,
  block: Index,
  name: string,
  body: (start: Index, extent: number, tile: Index) => readonly Stmt[],
): Stmt[] {
  const full = Math.floor(t.size / t.tile);
  const rest = t.size % t.tile;
  const out: Stmt[] = [];
  if (full > 0) {
    const extent = imin(num(t.per), isub(num(full), imul(block, t.per)));
    const v = ivar(name, extent.max);
    const start = imul(iadd(imul(block, t.per), v), t.tile);
    const inner = body(start, t.tile, v);
    if (extent.min === 1 && extent.max === 1) out.push(...inner);
    else out.push(serial(name, extent, inner));
  }
  if (rest > 0) {
    const last = t.blocks - 1;
    const inner = body(num(full * t.tile), rest, num(full - last * t.per));
    const cond: Cond = t.blocks > 1 ? [ge(block, last)] : [];
    if (cond.length > 0) out.push({ k: "if", cond, body: inner });
    else out.push(...inner);
  }
  return out;
}

// --- operands -----------------------------------------------------------------------------------------------

/** The load that an operand is, if it is nothing more. */
function plainLoad(x: Value | Operand): Extract<Value, { k: "load" }> | null {
  const { stmts, value } = operand(x);
  if (value.k === "load") return stmts.length === 0 && !value.mask ? value : null;
  const only = stmts.length === 1 && stmts[0].k === "let" ? stmts[0] : null;
  const named = only && value.k === "var" && value.name === only.name ? only.value : null;
  return named?.k === "load" && !named.mask ? named : null;
}

const isPlain = (x: Value | Operand): boolean => plainLoad(x) !== null;

/** Binds an operand to a name, so that the tile uses it several times. */
function bind(name: string, x: Value | Operand): { stmts: Stmt[]; value: Value } {
  const { stmts, value } = operand(x);
  const named: Stmt = { k: "let", name, value };
  return { stmts: [...stmts, named], value: variable(value.dtype, name) };
}

/** Along which axis A is contiguous, counted over its loads. */
function stridesAlongK(spec: MatmulSpec): boolean {
  const probe = operand(spec.a(num(0), ivar("mmM", spec.m), ivar("mmK", spec.k)));
  let [alongM, alongK] = [0, 0];
  const visit = (v: Value): void => {
    if (v.k === "load") {
      if (affineIn(v.index, "mmM") === 1) alongM++;
      if (affineIn(v.index, "mmK") === 1) alongK++;
    } else if (v.k === "op") v.args.forEach(visit);
    else if (v.k === "select") [v.a, v.b].forEach(visit);
  };
  for (const s of probe.stmts) if (s.k === "let") visit(s.value);
  visit(probe.value);
  return alongK >= alongM;
}

/** A row's values first, then its stores, each result's side by side: neighbours may become one of 256 bits. */
function storesLast(row: number, stmts: readonly Stmt[]): readonly Stmt[] {
  const [values, stores]: [Stmt[], Stmt[]] = [[], []];
  for (const s of stmts) {
    if (s.k === "let") values.push(s);
    else if ((s.k === "store" || s.k === "localStore") && s.value.k === "var") stores.push(s);
    else if (s.k === "store" || s.k === "localStore") {
      const name = `s${row}_${stores.length}`;
      values.push({ k: "let", name, value: s.value });
      stores.push({ ...s, value: variable(s.value.dtype, name) });
    } else return stmts;
  }
  const target = (s: Stmt) => (s.k === "store" ? s.buffer : -1);
  return [...values, ...stores.sort((p, q) => target(p) - target(q))];
}

// --- packed and direct --------------------------------------------------------------------------------------

/** Tasks that a product is worth, whatever the number of threads: results must not depend on it. */
function tasksFor({ batch, m, n, k }: MatmulSpec): number {
  const flops = 2 * batch * m * n * k;
  const bytes = 4 * batch * (m * k + k * n + m * n);
  const worth = Math.floor(Math.max(flops / taskFlops, bytes / taskBytes));
  return Math.max(1, Math.min(wantedTasks, worth));
}

interface Plan {
  readonly rows: Tiles;
  readonly columns: Tiles;
  /** Length of a block of K, and how many there are. */
  readonly depth: number;
  readonly depths: number;
}

function plan(
  spec: MatmulSpec,
  rowTile: number,
  width: number,
  packed: boolean,
  digits: readonly number[][],
): Plan {
  const { batch, m, n, k } = spec;
  const depth = packed ? depthOf(k, digits, { most: maxDepth, wanted: depthBlock }) : k;
  const depths = Math.ceil(k / Math.max(1, depth));
  const wanted = Math.ceil(tasksFor(spec) / batch);
  const fits = packed ? Math.max(1, Math.floor(maxPacked / (Math.max(1, depth) * width))) : n;
  let columnBlocks = Math.ceil(n / (width * fits));
  // Rows are split first, since each row block packs B again only while it has 96 rows to use it on.
  let rowBlocks = depths > 1 ? Math.ceil(m / maxKeptRows) : 1;
  rowBlocks = Math.max(rowBlocks, Math.min(Math.ceil(wanted / columnBlocks), Math.floor(m / 96)));
  if (rowBlocks * columnBlocks < wanted)
    columnBlocks = Math.min(
      Math.ceil(wanted / rowBlocks),
      Math.max(columnBlocks, Math.ceil(n / (packed ? 64 : 32))),
    );
  const per = (size: number, tile: number, blocks: number) =>
    Math.ceil(roundUp(Math.ceil(size / blocks), tile) / tile);
  return {
    rows: tiles(m, rowTile, per(m, rowTile, rowBlocks)),
    columns: tiles(n, width, per(n, width, columnBlocks)),
    depth,
    depths,
  };
}

function tiled(spec: MatmulSpec, rowTile: number, packed: boolean): Kernel {
  const { batch, k, dtype } = spec;
  // Few rows leave registers for more columns; sums must also outnumber the adder's latency.
  const registers = rowTile >= 4 ? 2 : rowTile === 3 ? 3 : rowTile === 2 ? 4 : 8;
  const width = registers * lanes * (isWide(spec) ? 2 : 1);
  const aIn = (i: Index, kk: Index) => overK(k, kk, (x) => spec.a(b, i, x));
  const bIn = (j: Index, kk: Index) => overK(k, kk, (x) => spec.b(b, x, j));
  const probeA = k > 0 ? spec.a(num(0), ivar("mmM", spec.m), ivar("mmK", k)) : null;
  const probeB = k > 0 ? spec.b(num(0), ivar("mmK", k), ivar("mmN", spec.n)) : null;
  const digitsA = probeA ? digitsOf(indicesOf(probeA), "mmK", k) : [k];
  const digitsB = probeB ? digitsOf(indicesOf(probeB), "mmK", k) : [k];
  const { rows, columns, depth, depths } = plan(spec, rowTile, width, packed, [digitsA, digitsB]);
  const shape = [batch, columns.blocks, rows.blocks];
  const task = ivar("task", batch * columns.blocks * rows.blocks);
  const [b, column, row] = delinearize(task, shape);

  const block = ivar("mmB", depths);
  const k0 = imul(block, depth);
  const kExtent = depths > 1 ? imin(num(depth), isub(num(k), k0)) : num(k);
  const kept = depths > 1;
  const staged = packed && !kept && k <= shortDepth && batch * spec.m * spec.n > cachedElements;
  const blockWidth = columns.per * width;
  const panel = depth * width + panelPad;

  const alongK = k > 0 && stridesAlongK(spec);
  const plainA = probeA !== null && isPlain(probeA);
  // Read in place it must not need a division for each element.
  const inBlock = probeA && aIn(ivar("mmM", spec.m), iadd(k0, ivar("mmK", depth)));
  const straight = !inBlock || indicesOf(inBlock).every((x) => affineIn(x, "mmK") !== null);
  // A copy of A's rows pays when several panels read it; a strided one only when many do.
  const packA = k > 0 && (plainA && straight ? !alongK && columns.per >= 4 : columns.per > 1);
  const part: Block = { k0, extent: kExtent, depth };

  const locals: Stmt[] = [];
  const local = (name: string, size: number) =>
    locals.push({ k: "local", name, dtype, size: Math.max(1, size) });
  if (packed) local("packedB", columns.per * panel);
  if (packA) local("packedA", depth * rowTile);
  if (kept || staged) local("sums", (kept ? rows.per : 1) * rowTile * blockWidth);

  const aAt = (m0: Index, r: number, kk: Index): Value | Operand => {
    if (!packA) return aIn(iadd(m0, num(r)), iadd(k0, kk));
    const index = alongK ? iadd(num(r * depth), kk) : iadd(imul(kk, rowTile), num(r));
    return { k: "localLoad", dtype, local: "packedA", index };
  };

  /** One register tile: `extent` rows from m0, `groups` groups of `width` lanes from column n0. */
  const micro = (
    m0: Index,
    extent: number,
    rowAt: Index,
    n0: Index,
    groups: number,
    count: number,
    bAt: (kk: Index, offset: Index) => Value | Operand,
    columnAt: Index,
  ): Stmt => {
    const lane = ivar("mmL", count);
    const body: Stmt[] = [];
    const each = <T>(f: (r: number, g: number) => T): T[] =>
      Array.from({ length: extent * groups }, (_, i) => f(Math.floor(i / groups), i % groups));
    const name = (r: number, g: number) => `c${r}_${g}`;
    body.push(...each((r, g): Stmt => ({ k: "acc", name: name(r, g), dtype, combine: "sum" })));
    const step = (kk: Index): Stmt[] => {
      const inner: Stmt[] = [];
      const columnsOf: Value[] = [];
      for (let g = 0; g < groups; g++) {
        const bound = bind(`b${g}`, bAt(kk, iadd(num(g * lanes), lane)));
        inner.push(...bound.stmts);
        columnsOf.push(bound.value);
      }
      for (let r = 0; r < extent; r++) {
        const bound = bind(`a${r}`, aAt(m0, r, kk));
        inner.push(...bound.stmts);
        for (let g = 0; g < groups; g++)
          inner.push({ k: "update", name: name(r, g), value: bound.value, times: columnsOf[g] });
      }
      return inner;
    };
    // Windows that are read in place are walked digit by digit.
    if (k > 0) body.push(...overDepth(packed ? [k] : digitsB, part, "serial", step, 4));
    const done = (r: number, g: number): readonly Stmt[] => {
      const acc = variable(dtype, name(r, g));
      const offset = iadd(num(g * lanes), lane);
      if (!kept && !staged) return spec.epilogue(b, iadd(m0, num(r)), iadd(n0, offset), acc);
      const index = iadd(imul(iadd(rowAt, num(r)), blockWidth), columnAt, offset);
      const before: Value = { k: "localLoad", dtype, local: "sums", index };
      const value = kept ? op("add", dtype, before, acc) : acc;
      return [{ k: "localStore", local: "sums", index, value }];
    };
    for (let r = 0; r < extent; r++)
      body.push(...storesLast(r, Array.from({ length: groups }, (_, g) => done(r, g)).flat()));
    return vector("mmL", num(count), body);
  };

  /** All tiles of one row tile. Columns that do not fill a tile go in groups of four and a last, narrower group. */
  const acrossColumns = (m0: Index, extent: number, rowAt: Index): Stmt[] =>
    eachTile(columns, column, "mmJ", (n0, columnCount, tile) => {
      const part = (from: Index, groups: number, count: number): Stmt => {
        const columnAt = iadd(imul(tile, width), from);
        const bAt = (kk: Index, offset: Index): Value | Operand =>
          packed
            ? {
                k: "localLoad",
                dtype,
                local: "packedB",
                index: iadd(imul(tile, panel), imul(kk, width), from, offset),
              }
            : bIn(iadd(n0, from, offset), iadd(k0, kk));
        return micro(m0, extent, rowAt, iadd(n0, from), groups, count, bAt, columnAt);
      };
      if (columnCount === width) return [part(num(0), width / lanes, lanes)];
      // Half a tile of 256 bits, then fours, then what is left.
      const out: Stmt[] = [];
      const halves = isWide(spec) && 2 * columnCount >= width ? width / lanes / 2 : 0;
      const from = halves * lanes;
      if (halves > 0) out.push(part(num(0), halves, lanes));
      const fours = Math.floor((columnCount - from) / lanes);
      const at = imul(ivar("mmG", Math.max(1, fours)), lanes);
      if (fours === 1) out.push(part(num(from), 1, lanes));
      else if (fours > 1)
        out.push(serial("mmG", num(fours), [part(iadd(num(from), at), 1, lanes)]));
      const rest = columnCount % lanes;
      if (rest > 0) out.push(part(num(from + fours * lanes), 1, rest));
      return out;
    });

  /** The epilogue over `height` rows from m0, whose sums stand in scratch. */
  const finish = (m0: Index, height: Index): Stmt => {
    const columnCount = blockExtent(columns, column);
    const [i, j] = [ivar("mmR", height.max), ivar("mmC", columnCount.max)];
    const index = iadd(imul(i, blockWidth), j);
    const sum: Value = { k: "localLoad", dtype, local: "sums", index };
    const n0 = iadd(imul(column, blockWidth), j);
    const along = vector("mmC", columnCount, [...spec.epilogue(b, iadd(m0, i), n0, sum)]);
    return serial("mmR", height, [along]);
  };

  const work: Stmt[] = [];
  if (packed)
    work.push(...packB(spec.bUnitStride, bIn, columns, column, width, panel, part, digitsB));
  work.push(
    ...eachTile(rows, row, "mmI", (m0, extent, tile) => [
      ...(packA ? packRows(aIn, part, digitsA, alongK, m0, extent, rowTile) : []),
      ...acrossColumns(m0, extent, staged ? num(0) : imul(tile, rowTile)),
      ...(staged ? [finish(m0, num(extent))] : []),
    ]),
  );
  const body: Stmt[] = [...locals];
  if (!kept) body.push(...work);
  else {
    const size = rows.per * rowTile * blockWidth;
    const index = ivar("mmZ", size);
    const zero: Stmt = { k: "localStore", local: "sums", index, value: constValue(dtype, 0) };
    const m0 = imul(row, rows.per * rowTile);
    body.push(
      vector("mmZ", num(size), [zero], 4),
      serial("mmB", num(depths), work),
      finish(m0, blockExtent(rows, row)),
    );
  }
  return kernelOf(spec, task.max + 1, body);
}

/** Fills the panels of a column block of B. */
function packB(
  inOrder: boolean,
  at: (n: Index, k: Index) => Operand,
  columns: Tiles,
  column: Index,
  width: number,
  panel: number,
  block: Block,
  digits: readonly number[],
): Stmt[] {
  const panels = (part: Block, list: readonly number[], base: Index) =>
    eachTile(columns, column, "mmJ", (n0, extent, tile) => {
      const to = iadd(imul(tile, panel), base);
      return packPanel(at, part, list, n0, extent, width, to);
    });
  // Rows of B go to all panels at once. Where they are read along K, one panel at a time keeps `width` streams.
  if (!inOrder) return panels(block, digits, num(0));
  const kk = ivar("mmK", block.extent.max);
  const row = { ...block, k0: iadd(block.k0, kk), extent: num(1), depth: 1 };
  return [serial("mmK", block.extent, panels(row, [1], imul(kk, width)))];
}

// --- dot ----------------------------------------------------------------------------------------------------

/** Lanes along k: a tile of sums that are added over the lanes at the end. */
function dotForm(spec: MatmulSpec): Kernel {
  const { batch, m, n, k, dtype } = spec;
  const narrow = n < lanes;
  const rowTile = narrow ? Math.min(m, n === 1 ? 8 : 4) : evenTile(m, 4);
  const columnTile = narrow ? n : Math.min(n, rowTile === 1 ? 8 : rowTile === 4 ? 3 : 4);
  const wanted = Math.ceil(tasksFor(spec) / batch);
  const [long, tile] = narrow ? [m, rowTile] : [n, columnTile];
  const per = Math.ceil(Math.ceil(long / tile) / wanted);
  const rows = tiles(m, rowTile, narrow ? per : m);
  const columns = tiles(n, columnTile, narrow ? n : per);
  const task = ivar("task", batch * columns.blocks * rows.blocks);
  const [b, column, row] = delinearize(task, [batch, columns.blocks, rows.blocks]);
  const probes = [spec.a(num(0), ivar("mmM", m), ivar("mmK", k)), spec.b(num(0), ivar("mmK", k), ivar("mmN", n))]; // biome-ignore format: one line
  const depths = tiles(k, blockOf(probes.map(operand), "mmK", k), k);
  let forms = 0;
  const body = eachTile(columns, column, "mmJ", (n0, columnCount) =>
    eachTile(rows, row, "mmI", (m0, rowCount) => {
      const out: Stmt[] = [];
      // Several tiles may stand side by side in one scope.
      const form = forms++;
      const name = (r: number, c: number) => `c${form}_${r}_${c}`;
      for (let r = 0; r < rowCount; r++)
        for (let c = 0; c < columnCount; c++)
          out.push({ k: "acc", name: name(r, c), dtype, combine: "sum" });
      // What the loops cannot exceed, in a form that shows it: else divisions of it by N stay in the addresses.
      const [rowAt, columnAt] = [imin(m0, num(m - rowCount)), imin(n0, num(n - columnCount))];
      out.push(
        ...eachTile(depths, num(0), "mmD", (k0, count) => {
          const kk = iadd(k0, ivar("mmK", count));
          const [before, inner]: [Stmt[], Stmt[]] = [[], []];
          const bound = (as: string, x: Value | Operand): Value => {
            const { stmts, value } = operand(x);
            const { fixed, moving } = partition(stmts, "mmK");
            before.push(...fixed);
            inner.push(...moving, { k: "let", name: as, value });
            return variable(value.dtype, as);
          };
          const right = Array.from({ length: columnCount }, (_, c) =>
            bound(`b${c}`, spec.b(b, kk, iadd(columnAt, num(c)))),
          );
          for (let r = 0; r < rowCount; r++) {
            const value = bound(`a${r}`, spec.a(b, iadd(rowAt, num(r)), kk));
            for (const [c, times] of right.entries())
              inner.push({ k: "update", name: name(r, c), value, times });
          }
          return [...before, vector("mmK", num(count), inner)];
        }),
      );
      for (let r = 0; r < rowCount; r++)
        for (let c = 0; c < columnCount; c++)
          out.push(
            ...spec.epilogue(b, iadd(m0, num(r)), iadd(n0, num(c)), variable(dtype, name(r, c))),
          );
      return out;
    }),
  );
  return kernelOf(spec, task.max + 1, body);
}

function kernelOf(spec: MatmulSpec, extent: number, body: readonly Stmt[]): Kernel {
  return {
    name: spec.name,
    kind: "matmul",
    buffers: spec.buffers,
    scalars: spec.scalars,
    range: { var: "task", extent },
    body,
    flops: 2 * spec.batch * spec.m * spec.n * spec.k,
  };
}
