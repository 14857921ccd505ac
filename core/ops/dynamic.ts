/**
 * @file Slices at run-time starts: reading one, and writing one. A compiled function that takes the start as a 0-d tensor is
 * one plan for every start, where a JS number would be one each. This is how a KV cache is filled and read:
 *
 *   cache.assign(dynamicUpdateSlice(cache, k, [0, pos, 0]))
 *
 * inside compile() writes the slice only, in place. The idea and the rule for starts are JAX's (lax.dynamic_slice). Every
 * export is also a Tensor method.
 */
import { isInt } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { formatShape, type Shape } from "../shape.ts";
import { fromNode, Tensor } from "../tensor.ts";
import { checkShape } from "./axes.ts";
import { wrapIndex } from "./lookup.ts";
import { describeNode, nodeOf } from "./promotion.ts";

/** Where a slice begins on an axis: a number, known when the graph is made, or an integer scalar, known when it runs. */
export type Start = number | Tensor;

/**
 * `sizes` elements of each axis from `starts`, one per axis. A negative start counts from the end; a start from which the
 * slice would not fit is moved until it does, so nothing is ever out of range: `[5].dynamicSlice([4], [3])` is elements
 * 2, 3, 4.
 */
export function dynamicSlice(x: Tensor, starts: readonly Start[], sizes: Shape): Tensor {
  const n = nodeOf("dynamicSlice", x);
  const size = checkShape("dynamicSlice", sizes);
  checkPart("dynamicSlice", n, size, describeNode(n));
  const from = startNodes("dynamicSlice", starts, n.shape, size);
  const known = from.map((s) => (typeof s === "number" ? s : null));
  if (known.every((s) => s !== null)) return fromNode(g.slice(n, known, size));
  return fromNode(g.dynamicSlice(n, nodesOf(from), size));
}

/**
 * x with `update`, of x's rank and dtype and no larger, written at `starts`, which are taken as by dynamicSlice. Assigned
 * to x itself in a compiled function, it writes into x's storage and nothing but the slice.
 */
export function dynamicUpdateSlice(x: Tensor, update: Tensor, starts: readonly Start[]): Tensor {
  const [n, u] = [nodeOf("dynamicUpdateSlice", x), nodeOf("dynamicUpdateSlice", update)];
  const text = `${describeNode(n)}, ${describeNode(u)}`;
  if (n.dtype !== u.dtype)
    throw new DTypeError(
      describe("dynamicUpdateSlice", "one dtype", text, "convert the update with .to(dtype)"),
    );
  checkPart("dynamicUpdateSlice", n, u.shape, text);
  const from = startNodes("dynamicUpdateSlice", starts, n.shape, u.shape);
  return fromNode(g.dynamicUpdateSlice(n, u, nodesOf(from)));
}

// --- helpers, on nodes ---------------------------------------------------------------------------

const nodesOf = (starts: readonly (number | Node)[]): Node[] =>
  starts.map((s) => (typeof s === "number" ? constant(s, "i32") : s));

function checkPart(op: string, n: Node, size: Shape, got: string): void {
  if (size.length !== n.shape.length || size.some((d, i) => d > n.shape[i]))
    throw new ShapeError(
      describe(
        op,
        `a slice within ${formatShape(n.shape)}, with as many axes`,
        `${formatShape(size)} of ${got}`,
      ),
    );
}

/** Starts that are checked and wrapped; the numbers among them also moved so that the slice fits. */
function startNodes(
  op: string,
  starts: readonly Start[],
  shape: Shape,
  size: Shape,
): (number | Node)[] {
  if (!Array.isArray(starts) || starts.length !== shape.length)
    throw new ArgumentError(
      describe(op, `an array of ${shape.length} starts, one per axis`, String(starts)),
    );
  return starts.map((start, i) => {
    if (start instanceof Tensor) {
      const s = start.node;
      if (s.shape.length > 0 || !isInt(s.dtype))
        throw new ArgumentError(
          describe(op, "a number or a 0-d integer tensor for each start", describeNode(s)),
        );
      // A slice that takes the whole axis begins at 0 whatever it is told.
      return shape[i] === size[i] ? 0 : wrapIndex(g.cast(s, "i32"), shape[i]);
    }
    if (!Number.isInteger(start))
      throw new ArgumentError(describe(op, "integral starts", String(start)));
    const from = start < 0 ? start + shape[i] : start;
    return Math.max(0, Math.min(from, shape[i] - size[i]));
  });
}
