/**
 * @file The matrix product of halves on tensor cores: as matmul-tiled.ts, but the results of a subgroup are matrices of 16 × 16 in f32,
 * and their factors, f16, come straight from workgroup memory. That is laid out as the operands lie in memory, since a matrix can
 * be loaded either way; rows are padded, so that those of one matrix meet different banks.
 *
 * Finished matrices go through a patch of workgroup memory to single invocations, which apply the epilogue. The blocking is
 * that of CUTLASS' warp-level kernels (Kerr et al. 2017).
 */
import {
  delinearize,
  type Index,
  iadd,
  imul,
  isub,
  ivar,
  lt,
  num,
} from "../../schedule/symbolic.ts";
import { type Stmt, serial, matrixSide as side, type Value } from "../ir.ts";
import { lane, lanes, overLanes } from "./lanes.ts";
import {
  copies,
  guard,
  inlined,
  laneBelow,
  type Product,
  partOf,
  resultLanes,
  type Scheduled,
  type Side,
} from "./matmul-product.ts";
import { type MatrixTile, matrixThreads } from "./matmul-tile.ts";
import { tileOrder, where } from "./matmul-tiled.ts";
import { threadVar } from "./stage.ts";

/** The number of the subgroup in its workgroup. */
export const subgroupVar = "sg";

/** Statements of all copies of the epilogue: above this, a second kernel has it. */
export const maxMatrixCopied = 800;

/** How often the epilogue is written: for each matrix of a subgroup, and each vec4 that an invocation has of it. */
export const matrixCopies = ({ tile, width }: { tile: MatrixTile; width: number }): number =>
  (tile.rows / side) * (tile.columns / side) * (side ** 2 / lanes / width);

/** One operand's tile: rows of x if the operand lies along k, else rows of k. */
interface Panel {
  readonly side: Side;
  readonly tile: string;
  readonly held: string;
  readonly start: Index;
  readonly size: number;
  /** Rows of the tile, elements of each, and from one to the next. */
  readonly rows: number;
  readonly length: number;
  readonly stride: number;
}

export function matrixProduct(
  p: Product,
  tile: MatrixTile,
  width: number,
  splits: number,
): Scheduled {
  const { batch, m, n, k } = p;
  const threads = matrixThreads(tile, width);
  const [rowTiles, columnTiles] = [Math.ceil(m / tile.m), Math.ceil(n / tile.n)];
  const { split, b, row, column } = tileOrder(batch, splits, rowTiles, columnTiles);
  const [m0, n0] = [imul(row, tile.m), imul(column, tile.n)];
  const t = ivar(threadVar, threads);
  const grid = [tile.m / tile.rows, tile.n / tile.columns];
  const subgroups = grid[0] * grid[1];
  const steps = partOf(k, tile.k, splits, split);
  const panel = (name: string, of: Side, extent: number, start: Index, size: number): Panel => {
    const [rows, length] = of.alongK ? [extent, tile.k] : [tile.k, extent];
    const names = { tile: `tile${name}`, held: `held${name}` };
    return { side: of, ...names, start, size, rows, length, stride: length + tile.pad };
  };
  const panelA = panel("A", p.a, tile.m, m0, m);
  const panelB = panel("B", p.b, tile.n, n0, n);
  const panels = [panelA, panelB];

  // Matrices of a subgroup: rows of A's, columns of B's.
  const [high, wide] = [tile.rows / side, tile.columns / side];
  const [sy, sx] = delinearize(ivar(subgroupVar, subgroups), grid);
  const kk = ivar("k", tile.k / side);
  const loadMatrix = (name: string, of: Panel, at: Index, x: Index): Stmt => {
    const depth = imul(kk, side);
    const [r, c] = of.side.alongK ? [x, depth] : [depth, x];
    return {
      k: "matrixLoad",
      name,
      at,
      local: of.tile,
      index: iadd(imul(r, of.stride), c),
      stride: of.stride,
      // The left factor has rows of k, the right one columns.
      transposed: (name === "left") !== of.side.alongK,
    };
  };
  const cell = (i: Index, j: Index): Index => iadd(imul(i, wide), j);
  const compute = serial("k", num(tile.k / side), [
    ...copies("i", high, (i) => [
      loadMatrix("left", panelA, i, iadd(imul(sy, tile.rows), imul(i, side))),
    ]),
    ...copies("j", wide, (j) => [
      loadMatrix("right", panelB, j, iadd(imul(sx, tile.columns), imul(j, side))),
    ]),
    ...copies("i", high, (i) =>
      copies("j", wide, (j) => [
        {
          k: "matrixMultiply",
          name: "sum",
          at: cell(i, j),
          left: "left",
          leftAt: i,
          right: "right",
          rightAt: j,
        },
      ]),
    ),
  ]);

  const barrier: Stmt = { k: "barrier" };
  const step = ivar("step", steps.extent.max);
  const fetchAll = (i: Index): Stmt[] =>
    panels.flatMap((of) => fetch(of, threads, b, k, steps.at(i)));
  const after = isub(steps.extent, iadd(step, num(2)));
  const round: Stmt[] = [
    ...panels.flatMap((of) => keep(of, threads)),
    barrier,
    ...(after.max < 0 ? [] : where([after], fetchAll(iadd(step, num(1))))),
    compute,
    barrier,
  ];

  // A patch holds one matrix of each subgroup, row by row.
  const patch = side * side;
  const [i, j] = [ivar("i", high), ivar("j", wide)];
  const units = (subgroups * patch) / lanes;
  const finish = copies("u", units / threads, (u) => {
    const at = iadd(imul(u, threads), t);
    const [gy, gx, r, q] = delinearize(at, [grid[0], grid[1], side, side / lanes]);
    const mi = iadd(m0, imul(gy, tile.rows), imul(i, side), r);
    const nj = iadd(n0, imul(gx, tile.columns), imul(j, side), imul(q, lanes));
    const sum: Value = {
      k: "localLoad",
      dtype: "f32",
      local: "finished",
      index: iadd(imul(at, lanes), lane),
    };
    const place = { b, m: mi, n: iadd(nj, lane), split };
    return guard(
      mi,
      m,
      resultLanes(p, nj, (mask) => p.finish(place, sum, mask)),
    );
  });
  const store: Stmt = {
    k: "matrixStore",
    name: "sum",
    at: cell(i, j),
    local: "finished",
    index: imul(ivar(subgroupVar, subgroups), patch),
    stride: side,
  };
  const finishAll = copies("i", high, () =>
    copies("j", wide, () => [store, barrier, ...finish, barrier]),
  );
  const body: Stmt[] = [
    ...panels.map(
      (of): Stmt => ({ k: "shared", name: of.tile, dtype: "f16", size: of.rows * of.stride }),
    ),
    { k: "shared", name: "finished", dtype: "f32", size: subgroups * patch },
    ...panels.map(
      (of): Stmt => ({ k: "local", name: of.held, dtype: "f16", size: heldSize(of, threads) }),
    ),
    { k: "matrix", name: "left", role: "left", size: high },
    { k: "matrix", name: "right", role: "right", size: wide },
    { k: "matrix", name: "sum", role: "result", size: high * wide },
    ...fetchAll(num(0)),
    serial("step", steps.extent, round),
    ...finishAll,
  ];
  const groups = splits * batch * rowTiles * columnTiles;
  return { groups, threads, subgroups: { var: subgroupVar, width }, body };
}

// --- operands into workgroup memory ---------------------------------------------------------------------------------

const roundsOf = (of: Panel, threads: number): number =>
  Math.ceil((of.rows * of.length) / lanes / threads);
const heldSize = (of: Panel, threads: number): number => roundsOf(of, threads) * lanes;

/** Neighbouring invocations take neighbouring groups of four, in the operand's own direction. */
function unitAt(of: Panel, threads: number, i: Index) {
  const quads = of.length / lanes;
  const u = iadd(imul(i, threads), ivar(threadVar, threads));
  const [row, quad] = delinearize(u, [of.rows, quads]);
  const inside = [lt(u, of.rows * quads)].filter((x) => x.min < 0);
  return { row, column: imul(quad, lanes), inside };
}

function fetch(of: Panel, threads: number, b: Index, depth: number, k0: Index): readonly Stmt[] {
  const { side, start, size } = of;
  return copies("i", roundsOf(of, threads), (i) => {
    const { row, column, inside } = unitAt(of, threads, i);
    const [x, k] = side.alongK
      ? [iadd(start, row), iadd(k0, column)]
      : [iadd(start, column), iadd(k0, row)];
    const { stmts, value } = inlined(
      side.alongK
        ? side.at(b, x, iadd(k, lane), [lt(x, size), laneBelow(k, depth)])
        : side.at(b, iadd(x, lane), k, [laneBelow(x, size), lt(k, depth)]),
    );
    const index = iadd(imul(i, lanes), lane);
    return where(inside, [
      overLanes([...stmts, { k: "localStore", local: of.held, index, value }]),
    ]);
  });
}

function keep(of: Panel, threads: number): readonly Stmt[] {
  return copies("i", roundsOf(of, threads), (i) => {
    const { row, column, inside } = unitAt(of, threads, i);
    const value: Value = {
      k: "localLoad",
      dtype: "f16",
      local: of.held,
      index: iadd(imul(i, lanes), lane),
    };
    const index = iadd(imul(row, of.stride), column, lane);
    return where(inside, [overLanes([{ k: "localStore", local: of.tile, index, value }])]);
  });
}
