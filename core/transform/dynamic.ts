/**
 * @file Slices at run-time starts: their transposes, and how they act on a batch. Starts that all elements share move past
 * the batch axis. Where each element has its own, positions are looked up along one axis after the other, as JAX does with
 * its gather: an update then becomes a choice, for each element of x, between x and the element of the update that
 * would land there.
 */
import * as b from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import type { Shape } from "../shape.ts";
import type { Batched } from "./batching.ts";

export const dynamicSliceTranspose = (g: Node, { src: [x, ...starts] }: Node): Node =>
  b.dynamicUpdateSlice(b.zerosLike(x), g, starts);

export const dynamicUpdateSliceTranspose = (
  g: Node,
  { src: [, update, ...starts] }: Node,
  source: number,
): Node =>
  source === 0
    ? b.dynamicUpdateSlice(g, b.zerosLike(update), starts)
    : b.dynamicSlice(g, starts, update.shape);

const i32 = (value: number): Node => constant(value, "i32");

/** x[batch, …] with `axis` read at `positions`, [batch, count]. */
function lookUp(x: Node, positions: Node, axis: number): Node {
  const [size, count] = positions.shape;
  const column = x.shape.map((_, i) => (i === 0 ? size : i === axis ? count : 1));
  const wanted = x.shape.map((d, i) => (i === axis ? count : d));
  return b.gather(x, b.expand(b.reshape(positions, column), wanted), axis);
}

/** Starts of each element of the batch, [batch, 1], moved so that `size` fits into `whole`. */
function fitting(start: Batched, size: number, whole: number): Node {
  const moved = b.min(b.max(start.node, i32(0)), i32(whole - size));
  return b.reshape(moved, [...start.node.shape, 1]);
}

export function batchSlice(n: Node<"dynamicSlice">, x: Node, starts: readonly Batched[]): Node {
  const [batch] = x.shape;
  const whole = n.src[0].shape;
  const own = starts.map((s, i) => s.batched && n.shape[i] < whole[i]);
  // First what all share: it makes the rest smaller.
  const shared = starts.map((s, i) => (own[i] || s.batched ? i32(0) : s.node));
  const size = n.shape.map((d, i) => (own[i] ? whole[i] : d));
  let y = b.dynamicSlice(x, [i32(0), ...shared], [batch, ...size]);
  for (const [i, start] of starts.entries())
    if (own[i])
      y = lookUp(y, b.add(fitting(start, n.shape[i], whole[i]), b.iota(n.shape[i])), i + 1);
  return y;
}

export function batchUpdate(
  n: Node<"dynamicUpdateSlice">,
  x: Node,
  update: Node,
  starts: readonly Batched[],
): Node {
  const [batch] = x.shape;
  const size: Shape = n.src[1].shape;
  const own = starts.map((s, i) => s.batched && size[i] < n.shape[i]);
  let written = update;
  if (!own.includes(true)) {
    const shared = starts.map((s) => (s.batched ? i32(0) : s.node));
    return b.dynamicUpdateSlice(x, update, [i32(0), ...shared]);
  }
  if (size.includes(0)) return x;
  let inside: Node | null = null;
  for (const [i, start] of starts.entries()) {
    if (size[i] === n.shape[i]) continue;
    const first = start.batched
      ? fitting(start, size[i], n.shape[i])
      : b.min(b.max(start.node, i32(0)), i32(n.shape[i] - size[i]));
    // Of each position of x on this axis its place in the update, [batch, count].
    const place = b.expand(b.sub(b.iota(n.shape[i]), first), [batch, n.shape[i]]);
    const hit = b.and(b.le(i32(0), place), b.lt(place, i32(size[i])));
    const column = x.shape.map((d, a) => (a === 0 || a === i + 1 ? d : 1));
    const here = b.reshape(hit, column);
    inside = inside ? b.and(inside, here) : here;
    written = lookUp(written, b.min(b.max(place, i32(0)), i32(size[i] - 1)), i + 1);
  }
  return b.where(inside!, written, x);
}
