/**
 * @file The lines of a tensor along one axis, which sorting, running combinations and scatter-add walk: templates see
 * [outer, axis, inner], nodes see their own axes.
 */
import { delinearize, type Index } from "../schedule/symbolic.ts";
import { numel } from "../shape.ts";
import type { BufferInfo } from "./ir.ts";
import type { Operand } from "./operand.ts";

export interface Lines {
  readonly outer: number;
  /** Extent of the axis. */
  readonly count: number;
  readonly inner: number;
  /** The index, in the tensor's own axes, of element (o, j, i). */
  at(o: Index, j: Index, i: Index): Index[];
}

export function linesOf(shape: readonly number[], axis: number): Lines {
  const [before, after] = [shape.slice(0, axis), shape.slice(axis + 1)];
  return {
    outer: numel(before),
    count: shape[axis],
    inner: numel(after),
    at: (o, j, i) => [...delinearize(o, before), j, ...delinearize(i, after)],
  };
}

/** What the templates of such kernels are given. */
export interface LineSpec extends Pick<Lines, "outer" | "count" | "inner"> {
  readonly buffers: readonly BufferInfo[];
  /** Number of run-time scalar words. */
  readonly scalars: number;
  readonly src: (o: Index, j: Index, i: Index) => Operand;
  /** Where element (o, j, i) of the result lies in `outBuffer`. */
  readonly out: (o: Index, j: Index, i: Index) => Index;
  readonly outBuffer: number;
}
