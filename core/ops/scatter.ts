/**
 * @file Writing at computed positions: scatter and its kin. Positions that occur several times keep what was written last,
 * in the order of the index along the axis; PyTorch leaves it open. An index outside its axis raises IndexOutOfRangeError
 * when the result is read. Every export is also a Tensor method.
 */
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { constant } from "../graph/primitives.ts";
import { broadcast, formatShape, numel, type Shape, sameShape } from "../shape.ts";
import { fromNode, Tensor } from "../tensor.ts";
import { linearIndex } from "./advanced.ts";
import { floorDivide } from "./arithmetic.ts";
import { along, axisOf } from "./axes.ts";
import { indexSelectNode, rowsWhere, wrapIndex } from "./lookup.ts";
import {
  describeNode,
  indexNode,
  inFloat32,
  isHalfTensor,
  literal,
  nodeOf,
  operandOf,
  widest,
} from "./promotion.ts";

/** How scatterReduce combines what meets at one position. */
export type ScatterReduction = "sum" | "prod" | "mean" | "amax" | "amin";

/**
 * x with `source` (a tensor, or one number) written at the positions that `index` names along `dim`. The index may be
 * smaller than x and the source on every axis.
 */
export function scatter(x: Tensor, dim: number, index: Tensor, source: Tensor | number): Tensor {
  const { n, i, s, axis } = operands("scatter", x, dim, index, source);
  if (numel(i.shape) === 0) return x;
  const winner = lastWriter(i, axis, n.shape[axis]);
  const written = g.gather(s, g.where(isNone(winner), zero(winner), winner), axis);
  const untouched = isNone(fitted("scatter", winner, n.shape, -1));
  return fromNode(g.where(untouched, n, fitted("scatter", written, n.shape, 0)));
}

/**
 * x combined with `source` at the positions that `index` names along `dim`. Without `includeSelf` the elements of x are
 * replaced where something is written. Equal extrema share the gradient. "sum" and "mean" are additions; the others
 * compare every position with every entry of the index along `dim`.
 */
export function scatterReduce(
  x: Tensor,
  dim: number,
  index: Tensor,
  source: Tensor,
  reduce: ScatterReduction,
  options: { includeSelf?: boolean } = {},
): Tensor {
  if (isHalfTensor(x))
    return inFloat32("scatterReduce", scatterReduce, x, dim, index, source, reduce, options);
  const { includeSelf = true } = options;
  const { n, i, s, axis } = operands("scatterReduce", x, dim, index, source);
  const size = n.shape[axis];
  const hits = fitted("scatterReduce", g.scatterAdd(i, g.fullLike(i, 1), axis, size), n.shape, 0);
  const keeps = includeSelf ? null : g.lt(zero(hits), hits);
  const self = (value: number): Node => (keeps ? g.where(keeps, g.scalarLike(n, value), n) : n);
  if (reduce === "sum" || reduce === "mean") {
    const total = g.add(
      self(0),
      fitted("scatterReduce", g.scatterAdd(i, s, axis, size), n.shape, 0),
    );
    if (reduce === "sum") return fromNode(total);
    const one = constant(1, "i32");
    const count = includeSelf ? g.add(hits, one) : g.where(g.eq(hits, zero(hits)), one, hits);
    const divisor = g.cast(count, n.dtype);
    if (isFloat(n.dtype)) return fromNode(g.div(total, divisor));
    return floorDivide(fromNode(total), fromNode(divisor));
  }
  const identity = { prod: 1, amax: -Infinity, amin: Infinity }[reduce];
  if (identity === undefined)
    throw new ArgumentError(
      describe("scatterReduce", "'sum', 'prod', 'mean', 'amax' or 'amin'", String(reduce)),
    );
  if (!isFloat(n.dtype) && reduce !== "prod")
    throw new DTypeError(describe("scatterReduce", `floats for '${reduce}'`, describeNode(n)));
  // [..., position, entry, ...]: the entries that name a position, and the position's own element in front.
  const apart = (m: Node, at: number) => g.reshape(m, m.shape.toSpliced(at, 0, 1));
  const named = g.eq(apart(i, axis), along(g.iota(size), axis, n.shape.length + 1));
  const wide = n.shape.toSpliced(axis + 1, 0, i.shape[axis]);
  const entries = fitted(
    "scatterReduce",
    g.where(named, apart(s, axis), g.scalarLike(s, identity)),
    wide,
    identity,
  );
  const all = g.concat([apart(self(identity), axis + 1), entries], axis + 1);
  const reduction = { prod: g.prod, amax: g.amax, amin: g.amin }[reduce];
  const combined = reduction(all, [axis + 1]);
  // The comparison ignores an index out of range; the count, which is never negative, reports it.
  return fromNode(g.where(g.lt(hits, zero(hits)), zero(combined), combined));
}

/** x plus `alpha·source`, whose slices along `dim` are added at the positions of a 1-d index; repeats add up. */
export function indexAdd(
  x: Tensor,
  dim: number,
  index: Tensor,
  source: Tensor,
  options: { alpha?: number } = {},
): Tensor {
  if (isHalfTensor(x)) return inFloat32("indexAdd", indexAdd, x, dim, index, source, options);
  const { alpha = 1 } = options;
  const { n, i, s, axis } = slices("indexAdd", x, dim, index, source);
  const scaled = alpha === 1 ? s : g.mul(s, literal("indexAdd", alpha, s.dtype));
  const everywhere = g.expand(along(i, axis, n.shape.length), s.shape);
  return fromNode(g.add(n, g.scatterAdd(everywhere, scaled, axis, n.shape[axis])));
}

/** x with the slices of `source` along `dim` written at the positions of a 1-d index. */
export function indexCopy(x: Tensor, dim: number, index: Tensor, source: Tensor): Tensor {
  const { n, i, s, axis } = slices("indexCopy", x, dim, index, source);
  return fromNode(overwritten(n, i, s, axis));
}

/** x with one value in the slices at the positions of a 1-d index along `dim`. */
export function indexFill(x: Tensor, dim: number, index: Tensor, value: number | Tensor): Tensor {
  const n = nodeOf("indexFill", x);
  const axis = axisOf("indexFill", dim, n.shape.length);
  const fill = operandOf("indexFill", value, n.dtype);
  const i = indexNode("indexFill", index);
  if (i.shape.length > 1 || numel(fill.shape) !== 1)
    throw new ShapeError(
      describe(
        "indexFill",
        "a 1-d index and one value",
        `${describeNode(i)}, ${describeNode(fill)}`,
      ),
    );
  const positions = wrapIndex(g.reshape(i, [numel(i.shape)]), n.shape[axis]);
  const hits = g.scatterAdd(positions, g.fullLike(positions, 1), 0, n.shape[axis]);
  const hit = along(g.lt(zero(hits), hits), axis, n.shape.length);
  return fromNode(g.where(hit, g.reshape(fill, []), n));
}

/**
 * x with `values` written (or, with `accumulate`, added) at the positions that index tensors name together: as
 * `x[i, j, …] = values` in Python. The tensors broadcast and belong to the first axes of x; values broadcast to the shape
 * of `x.index(i, j, …)`. A boolean mask alone names its true positions, in order; values that are not the same for all of
 * them must be as many, which is found out when the result is read.
 */
export function indexPut(
  x: Tensor,
  indices: readonly Tensor[],
  values: Tensor | number,
  { accumulate = false }: { accumulate?: boolean } = {},
): Tensor {
  const sources = values instanceof Tensor ? [nodeOf("indexPut", values)] : [];
  const [n] = widest("indexPut", nodeOf("indexPut", x), ...sources);
  if (indices.length === 1 && indices[0].dtype === "bool")
    return fromNode(
      putWhere(n, indices[0].node, operandOf("indexPut", values, n.dtype), accumulate),
    );
  const given = indices.map((t) => indexNode("indexPut", t));
  if (given.length === 0 || given.length > n.shape.length)
    throw new ArgumentError(
      describe("indexPut", `1 to ${n.shape.length} index tensors`, String(given.length)),
    );
  const named = n.shape.slice(0, given.length);
  const position = linearIndex("indexPut", given, named);
  const rest = n.shape.slice(given.length);
  const v = operandOf("indexPut", values, n.dtype);
  const target = [...position.shape, ...rest];
  const fit = broadcast(v.shape, target);
  if (!fit || !sameShape(fit, target))
    throw new ShapeError(
      describe("indexPut", `values that broadcast to ${formatShape(target)}`, describeNode(v)),
    );
  const [count, width] = [numel(position.shape), numel(rest)];
  const rows = g.reshape(n, [numel(named), width]);
  const flat = g.reshape(position, [count]);
  const source = g.reshape(g.expand(v, target), [count, width]);
  const column = g.expand(g.reshape(flat, [count, 1]), [count, width]);
  const result = accumulate
    ? g.add(rows, g.scatterAdd(column, source, 0, numel(named)))
    : overwritten(rows, flat, source, 0);
  return fromNode(g.reshape(result, n.shape));
}

/** The elements of x, taken as flat, at the positions of an index of any shape. */
export function take(x: Tensor, index: Tensor): Tensor {
  const n = nodeOf("take", x);
  const size = numel(n.shape);
  return fromNode(
    indexSelectNode(g.reshape(n, [size]), 0, wrapIndex(indexNode("take", index), size)),
  );
}

/** True where an element of x occurs among `elements`; each is compared with each. */
export function isin(
  x: Tensor,
  elements: Tensor,
  { invert = false }: { invert?: boolean } = {},
): Tensor {
  const [n, e] = [nodeOf("isin", x), nodeOf("isin", elements)];
  const list = operandOf("isin", fromNode(g.reshape(e, [numel(e.shape)])), n.dtype);
  const equal = g.eq(g.reshape(n, [...n.shape, 1]), list);
  const count = g.sum(g.cast(equal, "i32"), [n.shape.length]);
  return fromNode(invert ? g.eq(count, zero(count)) : g.lt(zero(count), count));
}

// --- helpers, on nodes ---------------------------------------------------------------------------

const zero = (x: Node): Node => g.scalarLike(x, 0);
const isNone = (winner: Node): Node => g.lt(winner, zero(winner));

/** n cut and filled up to `shape`. */
function fitted(op: string, n: Node, shape: Shape, value: number): Node {
  const missing = shape.map((d, i) => d - n.shape[i]);
  if (missing.some((d) => d < 0))
    throw new ShapeError(
      describe(
        op,
        `an index within ${formatShape(shape)} except on its axis`,
        formatShape(n.shape),
      ),
    );
  return g.pad(n, missing.map(() => 0), missing, value); // biome-ignore format: one line
}

/**
 * The position along `axis` of the last entry of the index that names each place, -1 where none does. Found bit by bit
 * from the highest on: a place has the bit if an entry that is still in the running has it, and then only those stay in.
 */
function lastWriter(index: Node, axis: number, size: number): Node {
  const entry = along(g.iota(index.shape[axis]), axis, index.shape.length);
  const one = constant(1, "i32");
  const counted = (mask: Node): Node =>
    g.scatterAdd(index, g.cast(g.expand(mask, index.shape), "i32"), axis, size);
  const some = (count: Node): Node => g.lt(zero(count), count);
  const occupied = some(counted(constant(1, "bool")));
  let running: Node | null = null;
  let last = g.where(occupied, zero(entry), constant(-1, "i32"));
  for (let bit = Math.ceil(Math.log2(Math.max(index.shape[axis], 1))) - 1; bit >= 0; bit--) {
    const set = g.eq(g.and(g.shr(entry, constant(bit, "i32")), one), one);
    const found = some(counted(running ? g.and(running, set) : set));
    last = g.where(found, g.add(last, constant(2 ** bit, "i32")), last);
    const survives = g.eq(g.gather(g.cast(found, "i32"), index, axis), g.cast(set, "i32"));
    running = running ? g.and(running, survives) : survives;
  }
  return last;
}

/** n with values written, or added, where a mask of its first axes is true. */
function putWhere(n: Node, mask: Node, values: Node, accumulate: boolean): Node {
  const rank = mask.shape.length;
  const rest = n.shape.slice(rank);
  const extra = values.shape.length - rest.length;
  const fit = broadcast(extra > 0 ? values.shape.slice(extra) : values.shape, rest);
  if (!sameShape(mask.shape, n.shape.slice(0, rank)) || !fit || !sameShape(fit, rest) || extra > 1)
    throw new ShapeError(
      describe(
        "indexPut",
        "a mask of x's first axes, and values that broadcast to [count, the others]",
        `${describeNode(n)}, mask ${formatShape(mask.shape)}, values ${formatShape(values.shape)}`,
      ),
    );
  let all = values;
  if (extra === 1 && values.shape[0] !== 1) {
    const [count, width] = [values.shape[0], numel(rest)];
    const rows = g.reshape(g.expand(values, [count, ...rest]), [count, width]);
    all = g.reshape(rowsWhere(g.reshape(mask, [numel(mask.shape)]), rows, true), n.shape);
  } else if (extra === 1) all = g.reshape(values, values.shape.slice(1));
  const here = g.reshape(mask, [...mask.shape, ...rest.map(() => 1)]);
  return g.where(here, accumulate ? g.add(n, all) : g.expand(all, n.shape), n);
}

/** n with the slices of s along `axis` at the positions of a 1-d index. */
function overwritten(n: Node, index: Node, s: Node, axis: number): Node {
  if (s.shape[axis] === 0) return n;
  const winner = lastWriter(index, 0, n.shape[axis]);
  const written = indexSelectNode(s, axis, g.where(isNone(winner), zero(winner), winner));
  return g.where(along(isNone(winner), axis, n.shape.length), n, written);
}

/** x, index and source of a scatter, checked; the source is cut to the index's shape. */
function operands(op: string, x: Tensor, dim: number, index: Tensor, source: Tensor | number) {
  const sources = source instanceof Tensor ? [nodeOf(op, source)] : [];
  const [n, whole = null] = widest(op, nodeOf(op, x), ...sources) as [Node, Node?];
  const i = indexNode(op, index);
  const axis = axisOf(op, dim, n.shape.length);
  const fits = (shape: Shape, free: number) =>
    shape.length === i.shape.length && i.shape.every((d, a) => a === free || d <= shape[a]);
  if (n.shape.length === 0 || !fits(n.shape, axis) || (whole && !fits(whole.shape, -1)))
    throw new ShapeError(
      describe(
        op,
        `an index of x's rank, no larger than the source nor, except on axis ${axis}, than x`,
        `index ${formatShape(i.shape)}, ${[n, ...(whole ? [whole] : [])].map(describeNode).join(", ")}`,
      ),
    );
  if (whole && whole.dtype !== n.dtype)
    throw new DTypeError(describe(op, "one dtype", `${describeNode(n)}, ${describeNode(whole)}`));
  const s = whole
    ? g.slice(whole, i.shape.map(() => 0), i.shape)
    : g.expand(literal(op, source as number, n.dtype), i.shape); // biome-ignore format: two cases
  return { n, i, s, axis };
}

/** x, a 1-d index and as many slices of a source along `dim`, checked. */
function slices(op: string, x: Tensor, dim: number, index: Tensor, source: Tensor) {
  const [n, s] = widest(op, nodeOf(op, x), nodeOf(op, source));
  const i = indexNode(op, index);
  const axis = axisOf(op, dim, n.shape.length);
  const count = numel(i.shape);
  const wanted = n.shape.map((d, a) => (a === axis ? count : d));
  if (i.shape.length > 1 || n.shape.length === 0 || !sameShape(s.shape, wanted))
    throw new ShapeError(
      describe(
        op,
        `a 1-d index and a source ${formatShape(wanted)}`,
        `${describeNode(i)}, ${describeNode(s)}`,
      ),
    );
  if (s.dtype !== n.dtype)
    throw new DTypeError(describe(op, "one dtype", `${describeNode(n)}, ${describeNode(s)}`));
  return { n, i: wrapIndex(g.reshape(i, [count]), n.shape[axis]), s, axis };
}
