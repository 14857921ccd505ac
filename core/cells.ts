/**
 * @file What the runtime (realize.ts, compile.ts) may do to tensor cells that operations may not. The Tensor class
 * installs the functions, as they reach its private fields; the files below it import no class and no cycle.
 */
import type { Node } from "./graph/node.ts";
import type { Tensor } from "./tensor.ts";
import type { CellState } from "./trace.ts";

export interface CellAccess {
  /** The value, without the promise to the reader that it will not be overwritten. */
  peek(t: Tensor): Node;
  peekGrad(t: Tensor): Tensor | null;
  /** Points the cell at a realised value; `exclusive`: nobody else can reach its storage. */
  bind(t: Tensor, leaf: Node, exclusive: boolean): void;
  bindGrad(t: Tensor, grad: Tensor | null): void;
  isExclusive(t: Tensor): boolean;
  /** Whether the program was given this gradient's cell and may look at it again. */
  isHeld(grad: Tensor): boolean;
  /** Whether the active trace did not make this tensor: it is state, or stands for an argument. */
  isOutside(t: Tensor): boolean;
  /** A stand-in for an argument during a trace, and what the trace knows of it. */
  standIn(t: Tensor): CellState;
  /** Ends a trace for a cell: notes what it holds now and gives back what it held before. */
  leave(state: CellState): void;
}

export let cells: CellAccess;

export function installCells(access: CellAccess): void {
  cells = access;
}

/**
 * Cells with something to do at the next realisation on their device: an assigned value, or an accumulated
 * gradient. Strong, because the assignment must happen even if nobody looks.
 */
export const pendingCells = new Set<Tensor>();
