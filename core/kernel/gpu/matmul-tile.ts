/**
 * @file Which form a matrix product takes on a GPU, as data: a plain object per variant, so that a tuner can measure
 * `candidates` and put the winner in the place of `chooseForm`'s guess.
 *
 * The guess weighs tiles by a model of two facts: large tiles do more arithmetic per byte that they fetch, and a GPU is
 * only as fast as the processor with the most workgroups. K is split where too few tiles remain to fill the GPU.
 */
import { type DType, dtypes } from "../../dtype.ts";
import { matrixSide } from "../ir.ts";
import { ceilPow2, floorPow2 } from "./stage.ts";
import type { GpuTarget } from "./target.ts";

/** Results m × n of a workgroup, k deep at a time; an invocation computes rows × columns of them. */
export interface Tile {
  readonly m: number;
  readonly n: number;
  /** A multiple of 4. */
  readonly k: number;
  /** 1, 2 or a multiple of 4. */
  readonly rows: number;
  /** A multiple of 4: results lie in registers as vec4s along n. */
  readonly columns: number;
  /** Copies of the tile in workgroup memory: with two, a step needs one barrier. */
  readonly stages: 1 | 2;
  /** Is the next tile fetched into registers while this one is worked on? */
  readonly prefetch: boolean;
  /** Elements between the rows of a tile in workgroup memory that hold nothing. */
  readonly pad: number;
}

/**
 * Results m × n of a workgroup on tensor cores, k deep at a time; a subgroup computes rows × columns of them. All are
 * multiples of 16. `pad`: elements between rows in workgroup memory.
 */
export interface MatrixTile {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly rows: number;
  readonly columns: number;
  readonly pad: number;
}

/** `swap`: the product's transpose is computed, Cᵀ = Bᵀ·Aᵀ. `splits`: parts of K, each summed by its own workgroups. */
export type Form =
  | { readonly form: "tiled"; readonly tile: Tile; readonly splits: number }
  /** Products of f16 by subgroups of `width` invocations. */
  | {
      readonly form: "matrix";
      readonly tile: MatrixTile;
      readonly width: number;
      readonly splits: number;
    }
  /** Few rows against columns that are contiguous along k: `width` invocations along k share `columns` columns. */
  | {
      readonly form: "dot";
      readonly swap: boolean;
      readonly threads: number;
      readonly width: number;
      readonly columns: number;
      readonly splits: number;
    }
  /** Few rows against rows of B: an invocation has four columns, `along` of them share K. */
  | {
      readonly form: "columns";
      readonly swap: boolean;
      readonly across: number;
      readonly along: number;
      readonly splits: number;
    }
  /** One invocation per `rows` rows of four columns, straight from memory. */
  | {
      readonly form: "direct";
      readonly swap: boolean;
      readonly threads: number;
      readonly rows: number;
    };

export interface ProductShape {
  readonly batch: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** What is summed. */
  readonly dtype: DType;
  /** Are both operands f16? */
  readonly halves?: boolean;
  /** Are neighbours along k neighbours in memory? Else neighbours along m (or n) are, or nothing is. */
  readonly aAlongK: boolean;
  readonly bAlongK: boolean;
}

export const threadsOf = (t: Tile): number => (t.m / t.rows) * (t.n / t.columns);

export const sharedBytesOf = (t: Tile, dtype: DType): number =>
  t.stages * t.k * (t.m + t.n + 2 * t.pad) * registerBytes(dtype);

export const matrixThreads = (t: MatrixTile, width: number): number =>
  (t.m / t.rows) * (t.n / t.columns) * width;

/** Tiles of A and B, and one matrix of f32 per subgroup. */
export function matrixSharedBytes(t: MatrixTile, shape: ProductShape): number {
  const panel = (extent: number, alongK: boolean): number =>
    alongK ? extent * (t.k + t.pad) : t.k * (extent + t.pad);
  const factors = panel(t.m, shape.aAlongK) + panel(t.n, shape.bAlongK);
  return 2 * factors + 4 * matrixSide ** 2 * (t.m / t.rows) * (t.n / t.columns);
}

/** Workgroup memory of any type takes a word per element. */
const registerBytes = (dtype: DType): number => Math.max(4, dtypes[dtype].bytes);

const tile = (m: number, n: number, k: number, rows: number, columns: number): Tile => ({
  m,
  n,
  k,
  rows,
  columns,
  stages: 1,
  prefetch: true,
  pad: 0,
});

/**
 * Tiles with their speed in large products, relative to the best. The first three were measured on an H100 through Dawn
 * (November 2026: 48.6, 44.9 TFLOP/s at 4096³); the others follow from the words that they fetch per multiplication.
 */
const tiles: readonly { readonly tile: Tile; readonly speed: number }[] = [
  { tile: tile(128, 128, 16, 8, 16), speed: 1 },
  { tile: tile(128, 64, 16, 8, 8), speed: 0.92 },
  { tile: tile(64, 128, 16, 8, 8), speed: 0.92 },
  { tile: tile(64, 64, 16, 8, 8), speed: 0.8 },
  { tile: tile(64, 64, 16, 4, 8), speed: 0.75 },
  { tile: tile(64, 32, 32, 4, 4), speed: 0.55 },
  { tile: tile(32, 64, 32, 4, 4), speed: 0.55 },
  { tile: tile(32, 32, 32, 4, 4), speed: 0.45 },
  { tile: tile(64, 16, 32, 4, 4), speed: 0.35 },
  { tile: tile(16, 64, 32, 4, 4), speed: 0.35 },
  { tile: tile(16, 16, 32, 2, 4), speed: 0.2 },
];

const matrixTile = (m: number, n: number, rows: number, columns: number): MatrixTile => ({
  m,
  n,
  k: 32,
  rows,
  columns,
  pad: 8,
});

/** The same for tensor cores: the first was measured (240–253 TFLOP/s), larger parts per subgroup spill. */
const matrixTiles: readonly { readonly tile: MatrixTile; readonly speed: number }[] = [
  { tile: matrixTile(128, 128, 64, 64), speed: 5 },
  { tile: matrixTile(128, 64, 64, 32), speed: 3.5 },
  { tile: matrixTile(64, 128, 32, 64), speed: 3.5 },
  { tile: matrixTile(64, 64, 32, 32), speed: 2.5 },
  { tile: matrixTile(32, 32, 16, 16), speed: 1.2 },
];

/** Processors of a large GPU (an H100 has 132). WebGPU does not tell; fewer only make larger tiles as good. */
const processors = 128;
/** What a tile costs besides its multiplications, in steps of k: first loads, last stores. */
const tileOverhead = 48;
/** Multiplications of one processor in the time that a further kernel takes (5 µs), and that moving a partial sum takes. */
const launchCost = 1e6;
const partialCost = 64;
/** The least K that is worth a part of its own. */
const leastPart = 128;

/** Few rows (or columns): below this many, tiles would be mostly empty. */
const few = 8;
/** Done straight from memory: products that only write much, and those that are over before a tile has been fetched. */
const shallow = 4;
const short = 64;
const tiny = 1 << 18;

/** The tile for a shape: cut to the depth that is there, and to the workgroup memory. null: it does not fit the GPU. */
export function fitTile(t: Tile, shape: ProductShape, target: GpuTarget): Tile | null {
  if (threadsOf(t) > target.invocations) return null;
  // Steps of even depth: 20 is 12 + 8, not 16 + 4.
  const steps = Math.max(1, Math.ceil(shape.k / t.k));
  let fitted: Tile = { ...t, k: Math.max(4, 4 * Math.ceil(shape.k / steps / 4)) };
  while (sharedBytesOf(fitted, shape.dtype) > target.sharedBytes) {
    if (fitted.k === 4) return null;
    fitted = { ...fitted, k: Math.max(4, 4 * Math.floor(fitted.k / 8)) };
  }
  return fitted;
}

/** How many parts of whole steps K falls into when about `splits` are wanted, none of them empty. */
export function evenSplits(k: number, step: number, splits: number): number {
  const steps = Math.ceil(k / step);
  return Math.max(1, Math.ceil(steps / Math.ceil(steps / splits)));
}

/** The time of a tiled product, in multiplications of one processor. */
function cost(
  t: { readonly m: number; readonly n: number; readonly k: number },
  speed: number,
  splits: number,
  { batch, m, n, k }: ProductShape,
): number {
  const groups = batch * Math.ceil(m / t.m) * Math.ceil(n / t.n) * splits;
  const depth = t.k * Math.ceil(Math.ceil(k / t.k) / splits);
  const rounds = Math.ceil(groups / processors);
  const work = (rounds * t.m * t.n * (depth + tileOverhead)) / speed;
  const partials =
    splits > 1 ? launchCost + (splits * batch * m * n * partialCost) / processors : 0;
  return work + partials;
}

/** The matrix tile for a shape, as above. */
export function fitMatrixTile(
  t: MatrixTile,
  width: number,
  shape: ProductShape,
  target: GpuTarget,
): MatrixTile | null {
  if (matrixThreads(t, width) > target.invocations) return null;
  const fitted = { ...t, k: Math.min(t.k, matrixSide * Math.ceil(shape.k / matrixSide)) };
  const fits = (x: MatrixTile) => matrixSharedBytes(x, shape) <= target.sharedBytes;
  if (fits(fitted)) return fitted;
  const shallower = { ...fitted, k: matrixSide };
  return fits(shallower) ? shallower : null;
}

/** Invocations of a subgroup at most, so that each has a vec4 of a matrix to finish. */
const widestSubgroup = matrixSide ** 2 / 4;

/** Can this GPU multiply these operands on tensor cores? Subgroups must have one size, for the numbers of subgroups. */
const hasMatrices = ({ halves }: ProductShape, target: GpuTarget): boolean =>
  halves === true &&
  target.f16 &&
  target.subgroupMatrix &&
  target.subgroupMin === target.subgroupMax &&
  target.subgroupMax <= widestSubgroup;

/** Tiled forms that fit, the one that should be fastest first. */
function tiledForms(shape: ProductShape, target: GpuTarget): Form[] {
  const forms: { form: Form; cost: number }[] = [];
  const add = (
    tile: { readonly m: number; readonly n: number; readonly k: number },
    speed: number,
    formOf: (splits: number) => Form,
  ): void => {
    const seen = new Set<number>();
    for (let wanted = 1; wanted === 1 || shape.k / wanted >= leastPart; wanted *= 2) {
      const splits = evenSplits(shape.k, tile.k, wanted);
      if (seen.has(splits)) continue;
      seen.add(splits);
      forms.push({ form: formOf(splits), cost: cost(tile, speed, splits, shape) });
    }
  };
  for (const { tile, speed } of tiles) {
    const fitted = fitTile(tile, shape, target);
    if (fitted) add(fitted, speed, (splits) => ({ form: "tiled", tile: fitted, splits }));
  }
  if (hasMatrices(shape, target)) {
    const width = target.subgroupMax;
    for (const { tile, speed } of matrixTiles) {
      const fitted = fitMatrixTile(tile, width, shape, target);
      if (fitted) add(fitted, speed, (splits) => ({ form: "matrix", tile: fitted, width, splits }));
    }
  }
  return forms.sort((a, b) => a.cost - b.cost).map(({ form }) => form);
}

/** Invocations that keep a GPU's memory busy, and workgroups that fill it. */
const busy = 1 << 15;
const wantedGroups = 128;

/** `rows` few rows of the product or of its transpose. */
function fewForm(shape: ProductShape, target: GpuTarget): Form {
  const { batch, k } = shape;
  const swap = shape.m > shape.n;
  const [rows, long] = swap ? [shape.n, shape.m] : [shape.m, shape.n];
  const most = floorPow2(Math.min(256, target.invocations));
  const partsFor = (groups: number, step: number): number => {
    const wanted = Math.min(Math.ceil(wantedGroups / groups), Math.floor(k / (8 * step)));
    return groups >= wantedGroups / 2 ? 1 : evenSplits(k, step, Math.max(1, wanted));
  };
  if (swap ? shape.aAlongK : shape.bAlongK) {
    // A row of A that is in registers serves several columns; but first come enough invocations.
    const most4 = Math.max(1, floorPow2(Math.min(4, few / rows)));
    const columns = Math.min(most4, floorPow2(Math.max(1, (batch * long) / 2048)));
    const sets = batch * Math.ceil(long / columns);
    let width = Math.min(32, most, ceilPow2(k / 4));
    while (sets * width < busy && width < most && 8 * width <= k) width *= 2;
    const threads = Math.max(width, Math.min(most, 128));
    const groups = batch * Math.ceil(long / (columns * (threads / width)));
    const splits = partsFor(groups, 4 * width);
    return { form: "dot", swap, threads, width, columns, splits };
  }
  const fitting = floorPow2(target.sharedBytes / (rows * 4 * registerBytes(shape.dtype)));
  const threads = Math.min(most, fitting);
  // 128 bytes of a row of B at least, and as many parts of K as keep the GPU busy.
  const quads = Math.ceil(long / 4);
  const across = Math.min(threads, batch * quads >= busy ? 32 : 8, ceilPow2(quads));
  const along = Math.min(threads / across, ceilPow2(k / 2));
  const splits = partsFor(batch * Math.ceil(quads / across), along);
  return { form: "columns", swap, across, along, splits };
}

function directForm(shape: ProductShape, target: GpuTarget): Form {
  const swap = shape.n < 4 && shape.m > shape.n;
  const threads = floorPow2(Math.min(64, target.invocations));
  const [m, n] = swap ? [shape.n, shape.m] : [shape.m, shape.n];
  const quads = shape.batch * m * Math.ceil(n / 4);
  return { form: "direct", swap, threads, rows: quads >= 4 * busy ? 4 : 1 };
}

/** Forms worth measuring for a shape, the guess first. */
export function candidates(shape: ProductShape, target: GpuTarget): Form[] {
  const { batch, m, n, k } = shape;
  const multiplications = batch * m * n * k;
  if (k <= shallow || (k <= short && multiplications <= tiny)) return [directForm(shape, target)];
  const tiled = tiledForms(shape, target);
  if (Math.min(m, n) <= few) return [fewForm(shape, target), ...tiled];
  return tiled.length > 0 ? tiled : [directForm(shape, target)];
}

export type Choose = (shape: ProductShape, target: GpuTarget) => Form;

export const chooseForm: Choose = (shape, target) => candidates(shape, target)[0];
