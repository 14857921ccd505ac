/**
 * @file Parts of tensors: ranges, positions, indexing, diagonals and triangles. Negative positions
 * count from the end, ranges are cut off at the ends as in Python. Every export is also a Tensor
 * method.
 */
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { formatShape } from "../shape.ts";
import { fromNode, Tensor } from "../tensor.ts";
import { indexSeveral } from "./advanced.ts";
import { axisOf } from "./axes.ts";
import { lowerMask, part } from "./compose.ts";
import { indexSelectNode, wrapIndex } from "./lookup.ts";
import { describeNode, indexNode, nodeOf } from "./promotion.ts";

/** A range of an axis, as Python's `start:stop:step`; the step may be negative. */
export type Range = { start?: number | null; stop?: number | null; step?: number | null };
/**
 * What `index` takes per axis: a position, a range, null (a new axis), "..." (the axes in between),
 * or positions.
 */
export type Index = number | Range | null | "..." | Tensor;

/** The range start:end:step along `dim`; a negative step runs backwards. */
export function slice(
  x: Tensor,
  dim: number,
  start?: number | null,
  end?: number | null,
  step?: number | null,
): Tensor {
  const n = nodeOf("slice", x);
  return fromNode(
    ranged("slice", n, axisOf("slice", dim, n.shape.length), { start, stop: end, step }),
  );
}

/**
 * Indexing as Python's `x[…]`: `x.index(0, "...", { start: 1, step: 2 }, null)`. An integer drops
 * its axis, a range keeps it, null adds one, "..." stands for all axes in between, and an integer tensor
 * of any shape picks positions of its axis (its shape takes the axis's place). Several tensors broadcast
 * and pick positions together; their shape comes first if other axes lie between theirs.
 */
export function index(x: Tensor, ...indices: Index[]): Tensor {
  const n = nodeOf("index", x);
  const consumed = indices.filter((i) => i !== null && i !== "...").length;
  const dots = indices.indexOf("...");
  if (consumed > n.shape.length || dots !== indices.lastIndexOf("..."))
    throw new ArgumentError(
      describe(
        "index",
        `at most ${n.shape.length} indices and one "..."`,
        `${consumed} indices for ${describeNode(n)}`,
      ),
    );
  const rest = n.shape.length - consumed;
  const full: Index[] =
    dots < 0
      ? [...indices, ...Array<Index>(rest).fill({})]
      : [...indices.slice(0, dots), ...Array<Index>(rest).fill({}), ...indices.slice(dots + 1)];
  // `axis` walks over the axes of the result as it grows.
  let result = n;
  let axis = 0;
  for (const i of indices)
    if (i instanceof Tensor && i.dtype === "bool")
      throw new DTypeError(
        describe(
          "index",
          "integer indices: the shape must be known at once",
          describeNode(i.node),
          "await x.maskedIndex(mask), or use where, maskedFill or maskedScatter",
        ),
      );
  const several = indices.filter((i) => i instanceof Tensor).length > 1;
  const named: { axis: number; at: Node }[] = [];
  for (const i of full) {
    const { shape } = result;
    if (i === null) {
      result = g.reshape(result, [...shape.slice(0, axis), 1, ...shape.slice(axis)]);
      axis++;
    } else if (typeof i === "number") {
      result = picked("index", result, axis, i);
    } else if (i instanceof Tensor && several) {
      named.push({ axis, at: indexNode("index", i) });
      axis++;
    } else if (i instanceof Tensor) {
      const positions = wrapIndex(indexNode("index", i), shape[axis]);
      result = indexSelectNode(result, axis, positions);
      axis += positions.shape.length;
    } else {
      result = ranged("index", result, axis, i as Range);
      axis++;
    }
  }
  if (!several) return fromNode(result);
  return fromNode(indexSeveral(result, named.map((i) => i.axis), named.map((i) => i.at))); // biome-ignore format: one line
}

/** `length` elements from `start` along `dim`. */
export function narrow(x: Tensor, dim: number, start: number, length: number): Tensor {
  const n = nodeOf("narrow", x);
  const a = axisOf("narrow", dim, n.shape.length);
  const from = start < 0 ? start + n.shape[a] : start;
  if (!(from >= 0 && length >= 0 && from + length <= n.shape[a]))
    throw new ArgumentError(
      describe("narrow", `a range within axis ${a} of size ${n.shape[a]}`, `${start} + ${length}`),
    );
  return fromNode(part(n, a, from, from + length));
}

/** One position along `dim`, which disappears. */
export function select(x: Tensor, dim: number, index: number): Tensor {
  const n = nodeOf("select", x);
  return fromNode(picked("select", n, axisOf("select", dim, n.shape.length), index));
}

/** Parts of at most `size` elements along `dim`, or parts of the given sizes. */
export function split(x: Tensor, size: number | readonly number[], dim = 0): Tensor[] {
  const n = nodeOf("split", x);
  const a = axisOf("split", dim, n.shape.length);
  const total = n.shape[a];
  if (typeof size === "number" && !(Number.isInteger(size) && size > 0))
    throw new ArgumentError(describe("split", "a positive size", String(size)));
  const count = typeof size === "number" ? Math.max(Math.ceil(total / size), 1) : 0;
  const sizes =
    typeof size === "number"
      ? Array.from({ length: count }, (_, i) => Math.min(size, total - i * size))
      : size;
  if (sizes.reduce((s, d) => s + d, 0) !== total || sizes.some((d) => d < 0))
    throw new ShapeError(describe("split", `sizes that add up to ${total}`, formatShape(sizes)));
  let start = 0;
  return sizes.map((d) => fromNode(part(n, a, start, (start += d))));
}

/** At most `chunks` parts of equal size along `dim`; the last may be smaller. */
export function chunk(x: Tensor, chunks: number, dim = 0): Tensor[] {
  const n = nodeOf("chunk", x);
  const total = n.shape[axisOf("chunk", dim, n.shape.length)];
  if (!(Number.isInteger(chunks) && chunks > 0))
    throw new ArgumentError(describe("chunk", "a positive number of chunks", String(chunks)));
  if (total === 0) return split(x, Array(chunks).fill(0), dim);
  return split(x, Math.ceil(total / chunks), dim);
}

/** The slices along `dim`, one tensor each. */
export function unbind(x: Tensor, dim = 0): Tensor[] {
  const n = nodeOf("unbind", x);
  const a = axisOf("unbind", dim, n.shape.length);
  return Array.from({ length: n.shape[a] }, (_, i) => select(x, a, i));
}

/**
 * The elements on a diagonal of the axes dim0 and dim1, as a new last axis; `offset` > 0 lies above
 * the main one.
 */
export function diagonal(x: Tensor, offset = 0, dim0 = 0, dim1 = 1): Tensor {
  const n = nodeOf("diagonal", x);
  const rank = n.shape.length;
  const [a, b] = [axisOf("diagonal", dim0, rank), axisOf("diagonal", dim1, rank)];
  if (a === b || rank < 2)
    throw new ArgumentError(describe("diagonal", "two different dims", `${dim0}, ${dim1}`));
  const batch = [...n.shape.keys()].filter((i) => i !== a && i !== b);
  const [rows, columns] = [n.shape[a], n.shape[b]];
  const length = Math.max(Math.min(rows + Math.min(offset, 0), columns - Math.max(offset, 0)), 0);
  // Flattened row-major, neighbours on a diagonal are columns + 1 apart.
  const lead = batch.map((i) => n.shape[i]);
  const flat = g.reshape(g.permute(n, [...batch, a, b]), [...lead, rows * columns]);
  const start = length === 0 ? 0 : offset >= 0 ? offset : -offset * columns;
  const zeros = lead.map(() => 0);
  const ones = lead.map(() => 1);
  return fromNode(g.slice(flat, [...zeros, start], [...lead, length], [...ones, columns + 1]));
}

/** The lower triangle of the last two axes, up to `diagonal`; zeros above. */
export function tril(x: Tensor, diagonal = 0): Tensor {
  const n = matrix("tril", x);
  const [rows, columns] = n.shape.slice(-2);
  return fromNode(g.where(lowerMask(rows, columns, diagonal), n, g.scalarLike(n, 0)));
}

/** The upper triangle of the last two axes, from `diagonal`; zeros below. */
export function triu(x: Tensor, diagonal = 0): Tensor {
  const n = matrix("triu", x);
  const [rows, columns] = n.shape.slice(-2);
  return fromNode(g.where(lowerMask(rows, columns, diagonal - 1), g.scalarLike(n, 0), n));
}

// --- helpers, on nodes ---------------------------------------------------------------------------

function matrix(op: string, x: Tensor): Node {
  const n = nodeOf(op, x);
  if (n.shape.length < 2) throw new ShapeError(describe(op, "at least two axes", describeNode(n)));
  return n;
}

function picked(op: string, n: Node, axis: number, index: number): Node {
  const at = index < 0 ? index + n.shape[axis] : index;
  if (!(Number.isInteger(at) && at >= 0 && at < n.shape[axis]))
    throw new ArgumentError(
      describe(op, `an index within axis ${axis} of size ${n.shape[axis]}`, String(index)),
    );
  return g.reshape(
    part(n, axis, at, at + 1),
    n.shape.filter((_, i) => i !== axis),
  );
}

/** Python's slice semantics: bounds are wrapped once, then cut off. */
function ranged(op: string, n: Node, axis: number, { start, stop, step }: Range): Node {
  const total = n.shape[axis];
  const by = step ?? 1;
  if (!Number.isInteger(by) || by === 0)
    throw new ArgumentError(describe(op, "a step other than 0", String(step)));
  for (const bound of [start, stop])
    if (bound != null && !Number.isInteger(bound) && Math.abs(bound) !== Infinity)
      throw new ArgumentError(describe(op, "integral bounds", String(bound)));
  const [low, high] = by > 0 ? [0, total] : [-1, total - 1];
  const cut = (bound: number | null | undefined, open: number): number =>
    bound == null ? open : Math.min(Math.max(bound < 0 ? bound + total : bound, low), high);
  const from = cut(start, by > 0 ? low : high);
  const to = cut(stop, by > 0 ? high : low);
  const length = Math.max(Math.ceil((to - from) / by), 0);
  // A backward range is the same range of the flipped axis.
  const first = length === 0 ? 0 : by > 0 ? from : total - 1 - from;
  const source = by > 0 || length === 0 ? n : g.flip(n, [axis]);
  return g.slice(
    source,
    n.shape.map((_, i) => (i === axis ? first : 0)),
    n.shape.map((d, i) => (i === axis ? length : d)),
    n.shape.map((_, i) => (i === axis ? Math.abs(by) : 1)),
  );
}
