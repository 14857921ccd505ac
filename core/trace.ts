/**
 * @file The trace of a compiled function: what it found while the function ran once. Tensor cells report to the
 * active trace what they were asked for (tensor.ts); compile.ts turns the finished trace into a plan. As in
 * JAX's `jit` the function runs once per signature, but state is found by cell, so it needs no threading through.
 */
import { describe, TransformError } from "./errors.ts";
import type { Node } from "./graph/node.ts";
import type { Tensor } from "./tensor.ts";

/** What a trace knows of a cell that existed before it, or of an argument's stand-in. */
export interface CellState {
  readonly cell: Tensor;
  /** Stands for the value at the start of a replay; null while the value was not asked for. */
  valueLeaf: Node<"placeholder"> | null;
  valueBefore: Node | null;
  valueAfter: Node | null;
  gradSeen: boolean;
  /** The first use was a read: the plan depends on whether there was a gradient. */
  gradRead: boolean;
  gradLeaf: Node<"placeholder"> | null;
  gradBefore: Tensor | null;
  gradAfter: Tensor | null;
}

export const cellState = (cell: Tensor): CellState => ({
  cell,
  valueLeaf: null,
  valueBefore: null,
  valueAfter: null,
  gradSeen: false,
  gradRead: false,
  gradLeaf: null,
  gradBefore: null,
  gradAfter: null,
});

/** What a random leaf reads when a compiled step runs again. */
export interface Draw {
  readonly key: readonly [number, number];
  readonly counter: number;
}

export interface TracedRandom {
  readonly leaf: Node<"random">;
  readonly draw: () => Draw;
  readonly undo: (() => void) | undefined;
}

export class Trace {
  readonly name: string;
  /** Cells in the order in which the function met them. */
  readonly states: CellState[] = [];
  /** Random leaves in the order of creation, used or not. */
  readonly randoms: TracedRandom[] = [];
  readonly guards: (() => boolean)[] = [];

  constructor(name: string) {
    this.name = name;
  }
}

let active: Trace | null = null;

/** The trace that runs now, if any. Traces do not nest: an inner compiled function is inlined. */
export const activeTrace = (): Trace | null => active;

/** Runs `fn` with `trace` active; what must be noted before it ends belongs into `fn`. */
export function runTrace<R>(trace: Trace, fn: () => R): R {
  active = trace;
  try {
    return fn();
  } finally {
    active = null;
  }
}

/**
 * Inside a trace: the plan holds only while `check()` does; it is asked before every replay, so keep it cheap.
 * Modules register `() => module.training === value` where they read it. Outside a trace nothing happens.
 */
export function traceGuard(check: () => boolean): void {
  active?.guards.push(check);
}

/**
 * Inside a trace: tells how `leaf` gets its counter when the step runs again, in order of creation, so that a
 * compiled loop draws what the eager loop draws. `undo` gives back the counter that this leaf has taken: debug
 * mode and explain trace without running.
 */
export function registerRandom(leaf: Node<"random">, draw: () => Draw, undo?: () => void): void {
  active?.randoms.push({ leaf, draw, undo });
}

let transforms = 0;

/**
 * Runs the function that a transform (grad, vmap, jvp, scan, …) works on. Inside, compiled functions are inlined:
 * a plan's results would be constants to the transform.
 */
export function insideTransform<R>(fn: () => R): R {
  transforms++;
  try {
    return fn();
  } finally {
    transforms--;
  }
}

export const isInsideTransform = (): boolean => transforms > 0;

/** Throws when a value is asked for while a function is being traced. */
export function refuseReading(op: string): void {
  if (active)
    throw new TransformError(
      describe(
        op,
        "a call outside of compile",
        `a read while "${active.name}" is being traced, where tensors have no values yet`,
        "return the tensor and await its value after the call; a choice by value is where(…)",
      ),
    );
}
