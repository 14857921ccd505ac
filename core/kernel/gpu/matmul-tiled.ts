/**
 * @file The matrix product in tiles: a workgroup computes a tile of results, a step of K at a time. Invocations fetch the
 * step's tiles of A and B into registers, put them into workgroup memory k by k, and from there each takes the rows and
 * columns that it multiplies; while it multiplies, the next step's are on their way.
 *
 * This is Goto's blocking with workgroup memory for the cache, as in CUTLASS' SIMT kernels (Kerr et al. 2017, "CUTLASS: Fast
 * Linear Algebra in CUDA C++"). What an operand is read along decides how it is fetched: along x, rows of vec4s go over as
 * they are; along k, each invocation fetches 4 × 4 elements, so that it can transpose them in registers. Operands may be
 * computed; edges are masks on loads (elements beyond are 0) and on the results.
 */
import {
  type Cond,
  delinearize,
  type Index,
  iadd,
  idiv,
  imod,
  imul,
  isub,
  ivar,
  lt,
  num,
} from "../../schedule/symbolic.ts";
import { constValue, op, type Stmt, serial, type Value } from "../ir.ts";
import type { Operand } from "../operand.ts";
import { lane, lanes, overLanes } from "./lanes.ts";
import {
  copies,
  guard,
  inlined,
  laneBelow,
  type Place,
  type Product,
  partOf,
  resultLanes,
  type Scheduled,
  type Side,
} from "./matmul-product.ts";
import { type Tile, threadsOf } from "./matmul-tile.ts";
import { groupVar, threadVar } from "./stage.ts";

/** Statements of all copies of the results' last part: above this, they run as a loop, for the compiler's sake. */
export const maxCopied = 400;

/** Tiles in the order of workgroups: see `tileOrder`. */
interface Order {
  readonly split: Index;
  readonly b: Index;
  readonly row: Index;
  readonly column: Index;
}

/**
 * Workgroups that run at the same time should share operands in the second-level cache: they are numbered in bands some
 * tiles wide (Triton's grouped order). Bands of a number that divides the axis need no case of their own.
 */
export function tileOrder(batch: number, splits: number, rows: number, columns: number): Order {
  const g = ivar(groupVar, batch * splits * rows * columns);
  const [height, width] = [bandOf(rows), bandOf(columns)];
  if (height > 1 || width === 1) {
    const shape = [splits, batch, rows / height, columns, height];
    const [split, b, band, column, row] = delinearize(g, shape);
    return { split, b, row: iadd(imul(band, height), row), column };
  }
  const shape = [splits, batch, columns / width, rows, width];
  const [split, b, band, row, column] = delinearize(g, shape);
  return { split, b, row, column: iadd(imul(band, width), column) };
}

const bandOf = (tiles: number): number =>
  tiles <= 8 ? tiles : ([8, 7, 9, 6, 10, 5, 11, 12, 4, 16].find((d) => tiles % d === 0) ?? 1);

/** One operand's tile. */
export interface Panel {
  readonly side: Side;
  /** Names: in workgroup memory, and of the registers in which a part of it waits. */
  readonly tile: string;
  readonly held: string;
  /** Extents of the tile and of the operand along x, the tile's first x, and elements from one k to the next. */
  readonly extent: number;
  readonly size: number;
  readonly start: Index;
  readonly stride: number;
}

export function tiledProduct(p: Product, tile: Tile, splits: number): Scheduled {
  const { batch, m, n, k, dtype } = p;
  const threads = threadsOf(tile);
  const [rowTiles, columnTiles] = [Math.ceil(m / tile.m), Math.ceil(n / tile.n)];
  const { split, b, row, column } = tileOrder(batch, splits, rowTiles, columnTiles);
  const [m0, n0] = [imul(row, tile.m), imul(column, tile.n)];
  const t = ivar(threadVar, threads);
  const [ty, tx] = delinearize(t, [tile.m / tile.rows, tile.n / tile.columns]);
  const steps = partOf(k, tile.k, splits, split);

  // An invocation's rows and columns lie in groups of four, the groups apart: neighbours then read neighbouring vec4s.
  const rowGroup = Math.min(lanes, tile.rows);
  const rowAt = (r: Index): Index =>
    iadd(
      imul(idiv(r, rowGroup), tile.m / (tile.rows / rowGroup)),
      imul(ty, rowGroup),
      imod(r, rowGroup),
    );
  const quads = tile.columns / lanes;
  const columnAt = (j: Index): Index => iadd(imul(j, tile.n / quads), imul(tx, lanes));

  const panelA: Panel = {
    side: p.a,
    tile: "tileA",
    held: "heldA",
    extent: tile.m,
    size: m,
    start: m0,
    stride: tile.m + tile.pad,
  };
  const panelB: Panel = {
    side: p.b,
    tile: "tileB",
    held: "heldB",
    extent: tile.n,
    size: n,
    start: n0,
    stride: tile.n + tile.pad,
  };
  const panels = [panelA, panelB];
  const load = (local: string, index: Index): Value => ({ k: "localLoad", dtype, local, index });
  const put = (local: string, index: Index, value: Value): Stmt => ({
    k: "localStore",
    local,
    index,
    value,
  });
  const stageOf = (panel: Panel, i: Index): Index =>
    tile.stages === 1 ? num(0) : imul(imod(i, 2), tile.k * panel.stride);

  const step = ivar("step", steps.extent.max);
  const fetchAll = (i: Index): Stmt[] =>
    panels.flatMap((panel) => fetch(panel, tile.k, threads, b, k, steps.at(i)));
  const keepAll = (i: Index): Stmt[] =>
    panels.flatMap((panel) => keep(panel, tile.k, threads, stageOf(panel, i), load, put));

  const kk = ivar("k", tile.k);
  const cell = (r: Index, j: Index): Index => iadd(imul(r, tile.columns), imul(j, lanes), lane);
  const atA = (x: Index): Value =>
    load("tileA", iadd(stageOf(panelA, step), imul(kk, panelA.stride), x));
  const atB = (x: Index): Value =>
    load("tileB", iadd(stageOf(panelB, step), imul(kk, panelB.stride), x));
  const left =
    rowGroup === lanes
      ? copies("r", tile.rows / lanes, (r) => [
          overLanes([
            put("left", iadd(imul(r, lanes), lane), atA(iadd(rowAt(imul(r, lanes)), lane))),
          ]),
        ])
      : copies("r", tile.rows, (r) => [put("left", r, atA(rowAt(r)))]);
  const right = copies("j", quads, (j) => [
    overLanes([put("right", iadd(imul(j, lanes), lane), atB(iadd(columnAt(j), lane)))]),
  ]);
  const product = (r: Index, j: Index): Value =>
    op("mul", dtype, load("left", r), load("right", iadd(imul(j, lanes), lane)));
  const multiply = copies("r", tile.rows, (r) =>
    copies("j", quads, (j) => [
      overLanes([put("sum", cell(r, j), op("add", dtype, load("sum", cell(r, j)), product(r, j)))]),
    ]),
  );
  const compute = serial("k", num(tile.k), [...left, ...right, ...multiply]);

  const barrier: Stmt = { k: "barrier" };
  const after = isub(steps.extent, iadd(step, num(2)));
  const next: Stmt[] =
    after.max < 0 ? [] : [{ k: "if", cond: [after], body: fetchAll(iadd(step, num(1))) }];
  const round: Stmt[] = [
    ...(tile.prefetch ? [] : fetchAll(step)),
    ...keepAll(step),
    barrier,
    ...(tile.prefetch ? next : []),
    compute,
    // With two copies the next step fills the other one, and its barrier is enough for the step after it.
    ...(tile.stages === 1 ? [barrier] : []),
  ];
  const cells = tile.rows * tile.columns;
  const local = (name: string, size: number): Stmt => ({ k: "local", name, dtype, size });
  const body: Stmt[] = [
    ...panels.map(
      (panel): Stmt => ({
        k: "shared",
        name: panel.tile,
        dtype,
        size: tile.stages * tile.k * panel.stride,
      }),
    ),
    ...panels.map((panel) => local(panel.held, heldSize(panel, tile.k, threads))),
    local("left", tile.rows),
    local("right", tile.columns),
    local("sum", cells),
    ...copies("z", cells / lanes, (z) => [
      overLanes([put("sum", iadd(imul(z, lanes), lane), constValue(dtype, 0))]),
    ]),
    ...(tile.prefetch ? fetchAll(num(0)) : []),
    // A single step needs a loop too: its names have a scope of their own.
    serial("step", steps.extent, round),
  ];

  const place = (r: Index, j: Index): Place => ({
    b,
    m: iadd(m0, rowAt(r)),
    n: iadd(n0, columnAt(j), lane),
    split,
  });
  const rowBase = (r: Index): Index => iadd(m0, rowAt(r));
  const columnBase = (j: Index): Index => iadd(n0, columnAt(j));
  if (p.finishSize * (cells / lanes) <= maxCopied) {
    const finished = copies("r", tile.rows, (r) =>
      guard(
        rowBase(r),
        m,
        copies("j", quads, (j) =>
          resultLanes(p, columnBase(j), (mask) =>
            p.finish(place(r, j), load("sum", cell(r, j)), mask),
          ),
        ),
      ),
    );
    return { groups: groupsOf(p, tile, splits), threads, body: [...body, ...finished] };
  }
  // One copy for all. Registers have no numbers at run time, so the sums are put into an array that has.
  const [r, j] = [ivar("r", tile.rows), ivar("j", quads)];
  const results = copies("z", cells / lanes, (z) => {
    const at = iadd(imul(z, lanes), lane);
    return [overLanes([put("results", at, load("sum", at))])];
  });
  const finished = serial("r", num(tile.rows), [
    ...guard(rowBase(r), m, [
      serial(
        "j",
        num(quads),
        resultLanes(p, columnBase(j), (mask) =>
          p.finish(place(r, j), load("results", cell(r, j)), mask),
        ),
      ),
    ]),
  ]);
  return {
    groups: groupsOf(p, tile, splits),
    threads,
    body: [local("results", cells), ...body, ...results, finished],
  };
}

const groupsOf = ({ batch, m, n }: Product, tile: Tile, splits: number): number =>
  splits * batch * Math.ceil(m / tile.m) * Math.ceil(n / tile.n);

// --- operands into workgroup memory ---------------------------------------------------------------------------------

/** What one invocation fetches at a time: four elements along x, or four rows of four along k. */
const unitSize = ({ side }: Panel): number => (side.alongK ? lanes * lanes : lanes);
const unitsOf = (panel: Panel, depth: number): number => (panel.extent * depth) / unitSize(panel);
const roundsOf = (panel: Panel, depth: number, threads: number): number =>
  Math.ceil(unitsOf(panel, depth) / threads);
export const heldSize = (panel: Panel, depth: number, threads: number): number =>
  roundsOf(panel, depth, threads) * unitSize(panel);

/**
 * Where this invocation's unit i begins in the tile. Along x neighbours take neighbouring vec4s. Along k eight of them
 * take neighbouring x, so that what they put into workgroup memory falls into different banks, and the next eight the
 * next k, so that all bytes of a memory transaction are used by one warp.
 */
function unitAt(
  panel: Panel,
  depth: number,
  threads: number,
  i: Index,
): { x: Index; k: Index; inside: Cond } {
  const units = unitsOf(panel, depth);
  const rounds = roundsOf(panel, depth, threads);
  const u = iadd(ivar(threadVar, threads), imul(i, threads));
  const inside = rounds * threads > units ? [lt(u, units)] : [];
  const across = panel.extent / lanes;
  if (!panel.side.alongK) {
    const [k, x] = delinearize(u, [depth, across]);
    return { x: imul(x, lanes), k, inside };
  }
  const near = across % 8 === 0 ? 8 : across;
  const [far, k, x] = delinearize(u, [across / near, depth / lanes, near]);
  return { x: imul(iadd(imul(far, near), x), lanes), k: imul(k, lanes), inside };
}

/** `body` where the condition holds. */
export const where = (cond: Cond, body: readonly Stmt[]): readonly Stmt[] =>
  cond.length > 0 ? [{ k: "if", cond, body }] : body;

/** From memory into registers. */
export function fetch(
  panel: Panel,
  depth: number,
  threads: number,
  b: Index,
  size: number,
  k0: Index,
): readonly Stmt[] {
  const { side } = panel;
  return copies("i", roundsOf(panel, depth, threads), (i) => {
    const unit = unitAt(panel, depth, threads, i);
    const x = iadd(panel.start, unit.x);
    const k = iadd(k0, unit.k);
    const fill = (at: Index, operand: Operand): Stmt => {
      const { stmts, value } = inlined(operand);
      const index = iadd(at, lane);
      return overLanes([...stmts, { k: "localStore", local: panel.held, index, value }]);
    };
    if (!side.alongK) {
      const bounds = [laneBelow(x, panel.size), lt(k, size)];
      return where(unit.inside, [fill(imul(i, lanes), side.at(b, iadd(x, lane), k, bounds))]);
    }
    const rows = copies("r", lanes, (r) => {
      const bounds = [lt(iadd(x, r), panel.size), laneBelow(k, size)];
      const at = iadd(imul(i, lanes * lanes), imul(r, lanes));
      return [fill(at, side.at(b, iadd(x, r), iadd(k, lane), bounds))];
    });
    return where(unit.inside, rows);
  });
}

/** From registers into workgroup memory, which is contiguous along x. */
export function keep(
  panel: Panel,
  depth: number,
  threads: number,
  offset: Index,
  load: (local: string, index: Index) => Value,
  put: (local: string, index: Index, value: Value) => Stmt,
): readonly Stmt[] {
  return copies("i", roundsOf(panel, depth, threads), (i) => {
    const unit = unitAt(panel, depth, threads, i);
    const to = (k: Index): Index => iadd(offset, imul(k, panel.stride), unit.x, lane);
    if (!panel.side.alongK) {
      const from = iadd(imul(i, lanes), lane);
      return where(unit.inside, [overLanes([put(panel.tile, to(unit.k), load(panel.held, from))])]);
    }
    const columns = copies("r", lanes, (r) => {
      const from = iadd(imul(i, lanes * lanes), imul(lane, lanes), r);
      return [overLanes([put(panel.tile, to(iadd(unit.k, r)), load(panel.held, from))])];
    });
    return where(unit.inside, columns);
  });
}
