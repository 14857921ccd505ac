/**
 * @file How the elements of a row are shared out among the invocations that work on it: pieces, each of which an invocation
 * walks in some steps. Four elements per step, so that four loads are under way at once: neighbours, read as one vec4,
 * where rows are aligned; else each invocation's are `width` apart, so that the loads of neighbouring invocations touch.
 */
import { type Cond, type Index, iadd, imul, ivar, num } from "../../schedule/symbolic.ts";
import { type Stmt, serial } from "../ir.ts";
import { lane, lanes, overLanes } from "./lanes.ts";
import { below, guarded } from "./stage.ts";

export interface Piece {
  /** The element that step `i` handles, and lane `l` of it. */
  readonly element: Index;
  /** The same counted over one invocation: where it keeps what it knows of the element. */
  readonly slot: Index;
  readonly vector: boolean;
  readonly steps: number;
  /** Which invocations walk the piece. */
  readonly guard: Cond;
}

export interface Shares {
  readonly pieces: readonly Piece[];
  /** Elements of one invocation, rounded up. */
  readonly slots: number;
}

/** Shares out `extent` elements among `width` invocations, of which this one is number `me`. */
export function shareOut(extent: number, width: number, me: Index, quads: boolean): Shares {
  const pieces: Piece[] = [];
  let [slots, done] = [0, 0];
  const add = (vector: boolean, steps: number, owners: number): void => {
    if (steps === 0 || owners === 0) return;
    const i = ivar("i", steps);
    const per = vector ? lanes : 1;
    const within = !vector ? num(0) : quads ? lane : imul(lane, width);
    const step = iadd(imul(i, per * width), imul(me, vector && quads ? lanes : 1));
    pieces.push({
      element: iadd(num(done), step, within),
      slot: iadd(num(slots), imul(i, per), vector ? lane : num(0)),
      vector,
      steps,
      guard: [below(me, owners)],
    });
    done += owners < width ? owners * per : steps * per * width;
    slots += steps * per;
  };
  const rows = Math.floor(extent / (lanes * width));
  add(true, rows, width);
  if (quads) add(true, 1, Math.floor((extent - done) / lanes));
  add(false, Math.floor((extent - done) / width), width);
  add(false, 1, extent - done);
  return { pieces, slots };
}

/** The loops around `body`, which is one element's part of a piece. */
export function walkPiece(piece: Piece, body: readonly Stmt[], unroll: boolean): readonly Stmt[] {
  const { steps, vector } = piece;
  const inner: readonly Stmt[] = vector ? [overLanes(body)] : body;
  const always = piece.guard.every((x) => x.min >= 0);
  // Also a single step gets a loop where nothing else opens a scope for its names.
  const looped: readonly Stmt[] =
    steps > 1 || (!vector && always) ? [serial("i", num(steps), inner, unroll ? steps : 0)] : inner;
  return guarded(piece.guard, looped);
}
