/**
 * @file Which tiles the kernels of attention work in on a GPU, as data: a tuner can measure `attentionTiles` and put the winner in
 * the place of `chooseAttentionTile`'s guess. A workgroup takes a tile of scores, queries × keys, at a time; its invocations
 * stand in `down` rows of `across`, each with some rows and some columns of every product.
 */
import type { Sizes } from "../attention-parts.ts";
import type { GpuTarget } from "./target.ts";

/** forward: rows of queries; queries: dq, likewise; keys: dk and dv, whose workgroups own rows of keys. */
export type AttentionPass = "forward" | "queries" | "keys";

export interface AttentionTile {
  readonly queries: number;
  readonly keys: number;
  readonly down: number;
  readonly across: number;
  /** How deep the products of operands in memory go at a time. */
  readonly depth: number;
}

const tiles: readonly { readonly tile: AttentionTile; readonly speed: number }[] = [
  // The speeds are guesses from the words that each multiplication fetches; nothing was measured yet (November 2026).
  { tile: { queries: 128, keys: 64, down: 16, across: 8, depth: 16 }, speed: 1 },
  { tile: { queries: 64, keys: 64, down: 8, across: 16, depth: 16 }, speed: 0.9 },
  { tile: { queries: 64, keys: 32, down: 16, across: 8, depth: 16 }, speed: 0.75 },
  { tile: { queries: 32, keys: 64, down: 8, across: 16, depth: 16 }, speed: 0.7 },
  { tile: { queries: 32, keys: 32, down: 8, across: 8, depth: 16 }, speed: 0.6 },
  { tile: { queries: 16, keys: 64, down: 4, across: 16, depth: 16 }, speed: 0.4 },
  { tile: { queries: 16, keys: 32, down: 4, across: 8, depth: 16 }, speed: 0.35 },
];

/** Processors of a large GPU: see matmul-tile.ts. */
const processors = 128;
/** Sums, of all products together, that an invocation can hold without spilling, and of one. */
const maxSums = 168;
const maxOfOne = 64;

export const threadsOf = ({ down, across }: AttentionTile): number => down * across;

/** Columns of one invocation in a product that is `width` wide: groups of four. */
export const columnsOf = (tile: AttentionTile, width: number): number =>
  4 * Math.ceil(width / (4 * tile.across));
export const extentOf = (tile: AttentionTile, width: number): number =>
  tile.across * columnsOf(tile, width);
/** Elements from one row of weights to the next: the next starts four banks further on. */
export const weightStride = (tile: AttentionTile): number => tile.keys + 4;

/** Elements of the two tiles of operands, and of all workgroup memory. */
export function sharedSizes(tile: AttentionTile, pass: AttentionPass, { width, values }: Sizes) {
  const { queries, keys, depth, across } = tile;
  const wide = pass === "forward" ? [values] : pass === "queries" ? [width] : [width, values];
  // Between two products the first tile is where rows agree on their maxima.
  const a = queries * (pass === "forward" ? Math.max(depth, across) : depth);
  const b = Math.max(depth * keys, ...wide.map((n) => depth * extentOf(tile, n)));
  const weights = queries * weightStride(tile);
  return { a, b, weights, all: a + b + weights };
}

/** The tile with as much depth as fits; null where it does not fit the GPU or its registers. */
function fitTile(
  tile: AttentionTile,
  pass: AttentionPass,
  sizes: Sizes,
  target: GpuTarget,
): AttentionTile | null {
  const { queries, keys, down, across } = tile;
  if (threadsOf(tile) > target.invocations) return null;
  const [own, scores] = [queries / down, keys / across];
  const [wide, tall] = [sizes.width, sizes.values].map((n) => columnsOf(tile, n));
  const sums =
    pass === "forward"
      ? [own * scores, own * tall]
      : pass === "queries"
        ? [own * scores, own * scores, own * wide]
        : [own * scores, own * scores, (keys / down) * wide, (keys / down) * tall];
  if (Math.max(...sums) > maxOfOne || sums.reduce((a, b) => a + b) > maxSums) return null;
  for (let { depth } = tile; depth >= 4; depth /= 2) {
    const fitted = { ...tile, depth };
    if (4 * sharedSizes(fitted, pass, sizes).all <= target.sharedBytes) return fitted;
  }
  return null;
}

/** Tiles that fit, the one that should be fastest first. */
export function attentionTiles(
  pass: AttentionPass,
  sizes: Sizes,
  target: GpuTarget,
): AttentionTile[] {
  const { batch, heads, shared, queries, keys } = sizes;
  const found: { tile: AttentionTile; cost: number }[] = [];
  for (const { tile, speed } of tiles) {
    const fitted = fitTile(tile, pass, sizes, target);
    if (!fitted) continue;
    const [rows, lines, size] =
      pass === "keys" ? [keys, batch * shared, tile.keys] : [queries, batch * heads, tile.queries];
    const rounds = Math.ceil((lines * Math.ceil(rows / size)) / processors);
    found.push({ tile: fitted, cost: (rounds * size) / speed });
  }
  return found.sort((a, b) => a.cost - b.cost).map(({ tile }) => tile);
}

export type ChooseAttentionTile = (
  pass: AttentionPass,
  sizes: Sizes,
  target: GpuTarget,
) => AttentionTile | undefined;

export const chooseAttentionTile: ChooseAttentionTile = (...args) => attentionTiles(...args)[0];
