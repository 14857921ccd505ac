/**
 * @file What regions and loops are made with: closed bodies, and calling them.
 *
 * A body is closed: all that it reads from outside arrives through its parameters, so every walk
 * that follows `src` is right without looking inside, and captured weights get their gradients like
 * any source (closure conversion).
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import { freshUid, type Node, type SubGraph } from "../graph/node.ts";
import { node, placeholder, type Region } from "../graph/primitives.ts";
import { substitute, topological } from "../graph/walk.ts";
import { formatShape, sameShape } from "../shape.ts";
import type { Batched } from "./batching.ts";

/** vjp.ts's `gradients`. */
export type VjpWalker = (
  outputs: readonly Node[],
  cotangents: readonly (Node | null)[],
  wrt: readonly Node[],
) => (Node | null)[];

/** jvp.ts's `tangents`. */
export type JvpWalker = (
  outputs: readonly Node[],
  wrt: readonly Node[],
  tangentsIn: readonly (Node | null)[],
) => (Node | null)[];

export const signature = (n: Node): string => `${n.dtype}${formatShape(n.shape)}`;

/** A parameter that can stand for `n` (or, with a shape, for a part of it). */
export const parameterLike = (n: Node, shape = n.shape): Node<"placeholder"> =>
  placeholder(n.dtype, shape, n.device);

/** A region applied to sources: its projections. The body must be closed. */
export function callRegion(region: Region, args: readonly Node[]): Node[] {
  const { params, results } = region.body;
  if (args.length !== params.length)
    throw new ArgumentError(describe(region.name, `${params.length} sources`, `${args.length}`));
  const sliced = (i: number) => {
    const { scan } = region;
    return scan !== undefined && i >= scan.carries && i < scan.carries + scan.xs;
  };
  for (const [i, p] of params.entries()) {
    const shape = sliced(i) ? [region.scan!.length, ...p.shape] : p.shape;
    if (args[i].dtype !== p.dtype || !sameShape(args[i].shape, shape))
      throw new ShapeError(
        describe(region.name, `${p.dtype}${formatShape(shape)} as source ${i}`, signature(args[i])),
      );
  }
  const call = node("region", args, { uid: freshUid(), region });
  return results.map((_, index) => node("project", [call], { index }));
}

/**
 * Makes a traced function closed. Nodes older than `since` were captured, not made by the trace;
 * they become further parameters, and so do data and random leaves made inside, because only leaves
 * outside bodies get storage and counters. Literals stay.
 */
export function closeOver(
  results: readonly Node[],
  params: readonly Node<"placeholder">[],
  since: number,
): { body: SubGraph; captured: Node[] } {
  const own = new Set<Node>(params);
  const outside = (n: Node): boolean => {
    if (own.has(n) || n.op === "constant") return false;
    if (n.op === "buffer" || n.op === "placeholder" || n.op === "random") return true;
    // A region is no value: its projections are captured, also those that the trace made of an
    // older region.
    return n.op !== "region" && (n.op === "project" ? n.src[0] : n).id < since;
  };
  const captured = topological(results, (n) => own.has(n) || outside(n)).filter(outside);
  const extra = captured.map((n) => parameterLike(n));
  const inner = substitute(results, new Map(captured.map((n, i) => [n, extra[i]])));
  return { body: { params: [...params, ...extra], results: inner }, captured };
}

/** A parameter for one element or for the whole batch. */
export function batchedLike(
  p: Node,
  batched: boolean,
  size: number,
): Batched & { readonly node: Node<"placeholder"> } {
  return { node: parameterLike(p, batched ? [size, ...p.shape] : p.shape), batched };
}
