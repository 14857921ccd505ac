/** @file Axes as users give them (negative, several, none) → sorted, checked axes of a node. */
import { ArgumentError, describe } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { formatShape } from "../shape.ts";

/** One axis, several, or all of them. */
export type Dim = number | readonly number[] | undefined;

/** `dim` in 0 … rank-1. A 0-d tensor has the axes 0 and -1, as in PyTorch. */
export function axisOf(op: string, dim: number, rank: number): number {
  const limit = Math.max(rank, 1);
  if (!Number.isInteger(dim) || dim < -limit || dim >= limit)
    throw new ArgumentError(
      describe(op, `a dim within ${-limit} … ${limit - 1}`, String(dim), `the tensor is ${rank}-d`),
    );
  return dim < 0 ? dim + limit : dim;
}

/** The axes that `dim` names, ascending; all of them when it is undefined or empty. */
export function axesOf(op: string, dim: Dim, rank: number): number[] {
  const all = dim === undefined || (typeof dim !== "number" && dim.length === 0);
  const given = all ? [...Array(rank).keys()] : typeof dim === "number" ? [dim] : dim;
  const axes = rank === 0 ? [] : given.map((d) => axisOf(op, d, rank)).sort((a, b) => a - b);
  if (rank === 0) for (const d of given) axisOf(op, d, 0);
  if (axes.some((a, i) => a === axes[i - 1]))
    throw new ArgumentError(describe(op, "distinct dims", `[${given.join(", ")}]`));
  return axes;
}

/** The number of elements per reduction over `axes`. */
export const countOf = (x: Node, axes: readonly number[]): number =>
  axes.reduce((n, a) => n * x.shape[a], 1);

/** Puts the reduced axes back with size 1. */
export const kept = (reduced: Node, axes: readonly number[], source: Node): Node =>
  g.keepdim(reduced, axes, source.shape);

/** A 1-d node laid along `axis` of a tensor with `rank` axes: it broadcasts against it. */
export const along = (vector: Node, axis: number, rank: number): Node =>
  g.reshape(
    vector,
    Array.from({ length: rank }, (_, i) => (i === axis ? vector.shape[0] : 1)),
  );

/** Refuses numbers that are given one by one, as PyTorch takes them too. */
export function checkArray(op: string, list: readonly number[]): void {
  if (!Array.isArray(list))
    throw new ArgumentError(
      describe(op, "an array of integers", String(list), `write ${op}([2, 3]), not ${op}(2, 3)`),
    );
}

/** Checks sizes given by the user: non-negative integers. */
export function checkShape(op: string, shape: readonly number[]): readonly number[] {
  const list = Array.isArray(shape);
  if (!list || shape.some((d) => !Number.isInteger(d) || d < 0))
    throw new ArgumentError(
      describe(
        op,
        "a shape of non-negative integers",
        list ? formatShape(shape) : String(shape),
        list ? undefined : "a shape is an array",
      ),
    );
  return [...shape];
}
