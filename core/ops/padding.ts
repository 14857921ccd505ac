/**
 * @file Padding that continues the tensor, on nodes: parts of each axis, mirrored, repeated or as they are, joined before
 * and after it.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { part } from "./compose.ts";
import { describeNode } from "./promotion.ts";

/** How a padded tensor goes on beyond its edges. */
export type PadMode = "reflect" | "replicate" | "circular";

/** n with lo[i] and hi[i] more elements on each axis; negative amounts crop. */
export function padByMode(
  n: Node,
  lo: readonly number[],
  hi: readonly number[],
  mode: PadMode,
): Node {
  if (mode !== "reflect" && mode !== "replicate" && mode !== "circular")
    throw new ArgumentError(
      describe("pad", "a number, 'reflect', 'replicate' or 'circular'", String(mode)),
    );
  return lo.reduce((m, before, axis) => padAxis(m, axis, before, hi[axis], mode), n);
}

function padAxis(n: Node, axis: number, before: number, after: number, mode: PadMode): Node {
  if (before === 0 && after === 0) return n;
  const size = n.shape[axis];
  const length = size + before + after;
  // A mirror has no second image of its edge, and a wrapped axis none of itself beyond one turn.
  const limit = { reflect: size - 1, replicate: size === 0 ? 0 : Infinity, circular: size }[mode];
  if (before > limit || after > limit || length < 0)
    throw new ShapeError(
      describe(
        "pad",
        `at most ${limit} elements on each side of axis ${axis} with '${mode}'`,
        `${before}, ${after} for ${describeNode(n)}`,
      ),
    );
  const repeated = (at: number, count: number): Node =>
    g.expand(
      part(n, axis, at, at + 1),
      n.shape.map((d, i) => (i === axis ? count : d)),
    );
  const mirrored = (from: number, to: number): Node => g.flip(part(n, axis, from, to), [axis]);
  // What comes before and after, made only where it is asked for: parts of an empty axis do not exist.
  const sides: Record<PadMode, [before: () => Node, after: () => Node]> = {
    reflect: [() => mirrored(1, before + 1), () => mirrored(size - 1 - after, size - 1)],
    replicate: [() => repeated(0, before), () => repeated(size - 1, after)],
    circular: [() => part(n, axis, size - before, size), () => part(n, axis, 0, after)],
  };
  const [head, tail] = sides[mode];
  const middle = part(n, axis, Math.max(-before, 0), size - Math.max(-after, 0));
  const parts = [before > 0 ? head() : null, middle, after > 0 ? tail() : null];
  return g.concat(
    parts.filter((m) => m !== null),
    axis,
  );
}
