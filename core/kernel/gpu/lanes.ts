/**
 * @file Vector loops of four lanes, one vec4: how their accesses meet memory, and which axes an element number stands for.
 */
import { dtypes } from "../../dtype.ts";
import {
  affineIn,
  delinearize,
  type Index,
  iadd,
  imul,
  ivar,
  num,
  substitute,
} from "../../schedule/symbolic.ts";
import type { Evaluator } from "../evaluate.ts";
import { type Stmt, vector } from "../ir.ts";
import { type Loop, loopEnv } from "../loops.ts";

/** Lanes of a vector loop. */
export const lanes = 4;
/** The variable of every vector loop. */
export const lane: Index = ivar("l", lanes);
/** `body` for four neighbours at once (or fewer, where there are no more); it uses `lane`. */
export const overLanes = (body: readonly Stmt[], width = lanes): Stmt =>
  vector("l", num(width), body);

/** The nest's variables where the nest's loops, run as one, are at element `at`. */
export function elementEnv(loops: readonly Loop[], at: Index): Map<string, Index> {
  const digits = delinearize(
    at,
    loops.map((loop) => loop.extent),
  );
  return new Map(loops.flatMap((loop, i) => [...loopEnv(loop, digits[i])]));
}

/** `same`: all lanes read one element; `vector`: one aligned vec4; `apart`: each lane for itself. */
export function laneAccess(index: Index): "same" | "vector" | "apart" {
  const step = affineIn(index, "l");
  if (step === 0) return "same";
  const aligned = (n: number): boolean => n % lanes === 0;
  const rest = index.terms.filter((t) => t.atom.k !== "var" || t.atom.name !== "l");
  const whole = step === 1 && aligned(index.constant) && rest.every((t) => aligned(t.coef));
  return whole ? "vector" : "apart";
}

export interface Access {
  readonly index: Index;
  readonly store: boolean;
  /** Of an element. */
  readonly bytes: number;
}

/** What an evaluation has read and written. */
export const accessesOf = ({ accesses, buffers }: Evaluator): Access[] =>
  accesses.map((a) => ({ ...a, bytes: dtypes[buffers[a.buffer].dtype].bytes }));

/**
 * Would groups of four neighbouring elements of the nest's `loops` mostly be vec4s? Every access counts alike: all run
 * once per element. Stores of narrow types must be: a byte of its own is an atomic operation on the word around it.
 */
export function worthVectors(loops: readonly Loop[], accesses: readonly Access[]): boolean {
  const extent = loops.reduce((n, loop) => n * loop.extent, 1);
  if (extent < lanes) return false;
  const quads = ivar("q", Math.ceil(extent / lanes));
  const env = elementEnv(loops, iadd(imul(quads, lanes), lane));
  let points = 0;
  for (const { index, store, bytes } of accesses) {
    const kind = laneAccess(substitute(index, env));
    if (kind === "vector" && store && bytes < 4) return true;
    if (kind === "vector") points++;
    else if (kind === "apart") points--;
  }
  return points > 0;
}
