/**
 * @file The operands of a matrix product in scratch: B in panels of a few columns, k-major, and the rows of a tile of A; and
 * the loops over K in which windows are read without divisions. How large the blocks are is matmul.ts's.
 *
 * An element of a window, at k = (channel, row, column) of a kernel or k = (picture, row, column) of a map, has an address
 * in the digits of k. So K is walked digit by digit, with a loop for each; a block of K must then not cut through a digit.
 */
import {
  type Index,
  iadd,
  idiv,
  imul,
  isConst,
  ivar,
  num,
  splitPoints,
  substitute,
} from "../schedule/symbolic.ts";
import { type Stmt, serial, type Value, vector } from "./ir.ts";
import { mapIndices } from "./loops.ts";
import { eachValue, indicesIn, type Operand, operand } from "./operand.ts";

/**
 * An element of an operand at `k`, a place in a block, which its own form need not show to be below `extent`: divisions that a
 * plain k is too small for are gone before it is put in.
 */
export function overK(extent: number, k: Index, at: (k: Index) => Value | Operand): Operand {
  if (k.max < extent) return operand(at(k));
  const { stmts, value } = operand(at(ivar("mmW", extent)));
  const all = mapIndices([...stmts, { k: "let", name: "", value }], new Map([["mmW", k]]));
  return { stmts: all.slice(0, -1), value: (all[all.length - 1] as { value: Value }).value };
}

/** Every index expression of an operand: addresses and conditions. */
export function indicesOf(x: Value | Operand): Index[] {
  const found: Index[] = [];
  const { stmts, value } = operand(x);
  const values = [...stmts.flatMap((s) => (s.k === "let" ? [s.value] : [])), value];
  for (const v of values) eachValue(v, (part) => found.push(...indicesIn(part)));
  return found;
}

// --- digits -------------------------------------------------------------------------------------------------

/** The sizes of the digits of 0 … extent-1 in which no index divides the variable `name`, the last one fastest. */
export function digitsOf(indices: readonly Index[], name: string, extent: number): number[] {
  const digits: number[] = [];
  let left = extent;
  let variable = name;
  let current = indices;
  for (;;) {
    const by = splitPoints(current).get(variable);
    if (!by || by === 1 || by >= left) return [left, ...digits];
    const high = `${variable}o`;
    const whole = iadd(imul(ivar(high, left / by), by), ivar(`${variable}i`, by));
    current = current.map((x) => substitute(x, new Map([[variable, whole]])));
    digits.unshift(by);
    left /= by;
    variable = high;
  }
}

const product = (list: readonly number[]): number => list.reduce((p, d) => p * d, 1);

/** What a digit repeats after: the sizes of all faster ones and its own. */
const periods = (digits: readonly number[]): number[] =>
  digits.map((_, i) => product(digits.slice(i)));

/** Longest block of K; shorter ones than a third are not worth a cleaner cut. */
export interface Depth {
  readonly most: number;
  readonly wanted: number;
}

/**
 * The length of a block of K. Blocks hold whole digits or lie within one, where that can be had for all of them, or for
 * the fastest.
 */
export function depthOf(k: number, digits: readonly number[][], { most, wanted }: Depth): number {
  if (k <= most) return k;
  const even = Math.ceil(k / Math.ceil(k / wanted));
  const all = digits.flatMap((list) => periods(list).slice(1));
  let best = even;
  let least = Number.POSITIVE_INFINITY;
  for (let depth = Math.floor(most / 3); depth <= most; depth++) {
    // A cut through a fast digit happens more often; then the rest of the last block, then the distance.
    const cuts = all.reduce((sum, p) => sum + (p % depth === 0 || depth % p === 0 ? 0 : k / p), 0);
    const cost = 1e3 * cuts + (Math.ceil(k / depth) * depth) / k + Math.abs(depth - even) / most;
    if (cost < least) [best, least] = [depth, cost];
  }
  return best;
}

/** The digits that fit into blocks of `depth`, the slowest one left open. */
function within(digits: readonly number[], depth: number): number[] {
  const faster = digits.slice(1);
  while (faster.length > 0 && depth % product(faster) !== 0) faster.shift();
  return faster;
}

/** Bodies repeated instead of looped over: a window's row or all of a small window. */
const maxRepeated = 16;

/** Loops over a block of K, digit by digit, the fastest as vectors if `mode` says so. */
export function overDepth(
  digits: readonly number[],
  { depth, extent: whole }: Pick<Block, "depth" | "extent">,
  mode: "serial" | "vector",
  body: (kk: Index) => readonly Stmt[],
  repeated = maxRepeated,
): Stmt[] {
  const faster = within(digits, depth);
  const extents = [idiv(whole, product(faster)), ...faster.map(num)];
  const last = extents.length - 1;
  const name = (i: number) => (i === last ? "mmK" : `mmK${i}`);
  const strides = [...periods(faster), 1];
  const kk = extents.map((extent, i) => imul(ivar(name(i), extent.max), strides[i]));
  let stmts = [...body(iadd(...kk))];
  let times = 1;
  for (let i = last; i >= 0; i--) {
    const extent = extents[i];
    times *= extent.max;
    const all = isConst(extent) && times <= repeated ? extent.max : 0;
    if (i === last && mode === "vector") stmts = [vector(name(i), extent, stmts, 2)];
    else if (!isConst(extent) || extent.constant !== 1)
      stmts = [serial(name(i), extent, stmts, all || (last === 0 ? 2 : 0))];
  }
  return stmts;
}

// --- copies -------------------------------------------------------------------------------------------------

/** A block of K of one task. */
export interface Block {
  readonly k0: Index;
  readonly extent: Index;
  readonly depth: number;
}

/** An element of a row (A) or column (B) at k. */
type Element = (at: Index, k: Index) => Operand;

/**
 * Copies columns `n0` … of B into a panel: element (k, n) at to + k·width + n. The lanes run over the
 * columns: where K is the order in memory, lanes along it that are stored one by one were no faster.
 */
export function packPanel(
  at: Element,
  block: Block,
  digits: readonly number[],
  n0: Index,
  extent: number,
  width: number,
  to: Index,
): Stmt[] {
  const { k0 } = block;
  const lane = ivar("mmL", extent);
  const copy = (kk: Index): Stmt[] => {
    const { stmts, value } = at(iadd(n0, lane), iadd(k0, kk));
    const index = iadd(to, imul(kk, width), lane);
    return [...stmts, { k: "localStore", local: "packedB", index, value }];
  };
  return overDepth(digits, block, "serial", (kk) => [
    vector("mmL", num(extent), copy(kk), Math.floor(extent / 4)),
  ]);
}

/** Copies the rows of one tile of A: element (m, k) at m·depth + k, or k-major with `rowTile` rows. */
export function packRows(
  at: Element,
  block: Block,
  digits: readonly number[],
  alongK: boolean,
  m0: Index,
  extent: number,
  rowTile: number,
): Stmt[] {
  const { k0, depth } = block;
  const r = ivar("mmR", extent);
  const copy = (kk: Index): Stmt[] => {
    const { stmts, value } = at(iadd(m0, r), iadd(k0, kk));
    const index = alongK ? iadd(imul(r, depth), kk) : iadd(imul(kk, rowTile), r);
    return [...stmts, { k: "localStore", local: "packedA", index, value }];
  };
  if (alongK) return [serial("mmR", num(extent), overDepth(digits, block, "vector", copy))];
  return overDepth(digits, block, "serial", (kk) => [vector("mmR", num(extent), copy(kk))], 1);
}
