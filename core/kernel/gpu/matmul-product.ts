/**
 * @file What the forms of a matrix product share: the product that they compute, as functions of positions; loops; masks;
 * and how K is divided.
 */
import type { DType } from "../../dtype.ts";
import {
  type Cond,
  type Index,
  iadd,
  imin,
  imul,
  isub,
  ivar,
  lt,
  num,
  simplifyCond,
} from "../../schedule/symbolic.ts";
import { type Kernel, type Stmt, serial, type Value } from "../ir.ts";
import type { Operand } from "../operand.ts";
import { lane, lanes, overLanes } from "./lanes.ts";

/** An operand, seen as [batch, x, k] with x = m or n. */
export interface Side {
  /** The element; where an entry of `bounds` is negative nothing is read and it is 0. */
  at(b: Index, x: Index, k: Index, bounds: Cond): Operand;
  /** Are neighbours along k neighbours in memory? */
  readonly alongK: boolean;
}

export interface Place {
  readonly b: Index;
  readonly m: Index;
  readonly n: Index;
  /** Which part of K was summed. */
  readonly split: Index;
}

export interface Product {
  readonly batch: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** What is summed. */
  readonly dtype: DType;
  readonly a: Side;
  readonly b: Side;
  /** Uses a finished sum, where the mask holds. */
  finish(at: Place, sum: Value, mask: Cond): readonly Stmt[];
  /** Statements of `finish`. */
  readonly finishSize: number;
  /** Results may be written up to the next multiple of 4 columns. */
  readonly padded: boolean;
}

/** A kernel without its buffers. */
export interface Scheduled {
  readonly groups: number;
  readonly threads: number;
  readonly subgroups?: Kernel["subgroups"];
  readonly body: readonly Stmt[];
}

/** Cᵀ = Bᵀ·Aᵀ */
export const transposed = (p: Product): Product => ({
  ...p,
  m: p.n,
  n: p.m,
  a: p.b,
  b: p.a,
  finish: (at, sum, mask) => p.finish({ ...at, m: at.n, n: at.m }, sum, mask),
  padded: false,
});

/** A plain load as the value itself, for values that are used once. */
export function inlined({ stmts, value }: Operand): Operand {
  const [only] = stmts;
  const plain =
    stmts.length === 1 &&
    only.k === "let" &&
    only.value.k === "load" &&
    value.k === "var" &&
    value.name === only.name;
  return plain ? { stmts: [], value: only.value } : { stmts, value };
}

// --- loops ----------------------------------------------------------------------------------------------------------

/** Copies of `body` at 0 … count-1: indices into private arrays must be numbers for them to be registers. */
export const copies = (
  name: string,
  count: number,
  body: (i: Index) => readonly Stmt[],
): readonly Stmt[] =>
  count === 1 ? body(num(0)) : [serial(name, num(count), body(ivar(name, count)), count)];

// --- masks ----------------------------------------------------------------------------------------------------------

/** start + lane < size. In groups of four that the size is made of, all lanes agree: the entry then leaves them out. */
export const laneBelow = (start: Index, size: number): Index =>
  size % lanes === 0 ? lt(start, size) : lt(iadd(start, lane), size);

/** Runs `body` for four results from column n0, inside the lanes' loop; it gets the mask that the lanes need. */
export function resultLanes(
  p: Pick<Product, "n" | "padded">,
  n0: Index,
  body: (mask: Cond) => readonly Stmt[],
): readonly Stmt[] {
  const whole = p.padded || p.n % lanes === 0;
  const inside = whole ? [] : simplifyCond([lt(iadd(n0, lane), p.n)]);
  if (inside === false) return [];
  const run = overLanes(body(inside), whole ? lanes : Math.min(lanes, p.n));
  return guard(n0, p.n, [run]);
}

/** `body` where x < size. */
export function guard(x: Index, size: number, body: readonly Stmt[]): readonly Stmt[] {
  const cond = simplifyCond([lt(x, size)]);
  if (cond === false) return [];
  return cond.length > 0 ? [{ k: "if", cond, body }] : body;
}

// --- K --------------------------------------------------------------------------------------------------------------

/** The steps of one part of K. */
export interface Depth {
  /** Number of steps. */
  readonly extent: Index;
  /** Where step i starts; steps beyond the last are the last, so that bounds see where K ends. */
  at(i: Index): Index;
}

export function partOf(k: number, step: number, splits: number, split: Index): Depth {
  const steps = Math.ceil(k / step);
  const per = Math.ceil(steps / splits);
  const first = imul(split, per);
  return {
    extent: imin(num(per), isub(num(steps), first)),
    at: (i) => imul(imin(iadd(first, i), num(Math.max(0, steps - 1))), step),
  };
}
