/**
 * @file Rewrites a canonical graph into the form that the scheduler fuses: regions inlined (scan stays), aliases and
 * assignments dissolved, movement merged, literals folded, empty tensors gone, equal nodes interned again.
 *
 * Only rewrites that hold for every value are here. x·0 → 0 is wrong for NaN and inf, x + 0 for -0, x − x for inf:
 * none of them may be added.
 */
import { isFloat, isHalf, roundTo } from "../dtype.ts";
import * as g from "../graph/build.ts";
import { type DeviceName, exactJson, type Node } from "../graph/node.ts";
import { constant, node, type Primitive, type Region } from "../graph/primitives.ts";
import { rebuild, topological } from "../graph/walk.ts";
import { numel, type Shape, sameShape } from "../shape.ts";
import { lowerRegions } from "../transform/region.ts";
import { isMovement } from "./access.ts";
import { asIs, type Rewrite } from "./split.ts";

export interface SimplifiedOutput {
  readonly node: Node;
  /** The input slot (index into the graph's inputs) whose storage an assignment wants to overwrite. */
  readonly target: number | null;
}

/** Whether a backend has kernels of its own for a region, which then is not inlined. */
export type Claims = (region: Region) => boolean;
export const claimsNothing: Claims = () => false;

/** Simplifies the graph below `outputs`; `inputs` are its placeholders (kept as they are). `own`: the backend's rewrites. */
export function simplify(
  outputs: readonly Node[],
  inputs: readonly Node<"placeholder">[],
  claims: Claims = claimsNothing,
  own: Rewrite = asIs,
): SimplifiedOutput[] {
  const slot = new Map<Node, number>(inputs.map((p, i) => [p, i]));
  const done = new Map<Node, Node>();
  const interned = new Map<string, Node>();
  /** The storage that a chain of assignments writes. */
  const storage = new Map<Node, number>();
  const keep = (region: Region, device: DeviceName | null) =>
    region.kernel?.devices.includes(device ?? region.kernel.home) || claims(region);
  const roots = lowerRegions(outputs, keep);
  const order = topological(roots);
  const uses = new Map<Node, number>(roots.map((n) => [n, 1]));
  for (const n of order) for (const s of n.src) uses.set(s, (uses.get(s) ?? 0) + 1);
  const usedOnce = new Set<Node>();

  // In the order in which the program made them, and every node is made anew, so that ids keep that order.
  for (const n of order) {
    if (n.op === "assign") {
      const target = n.src[0];
      const at = slot.get(target) ?? storage.get(target);
      if (at !== undefined) storage.set(n, at);
    }
    const src = n.src.map((s) => done.get(s)!);
    const made = intern(interned, rewrite(n, src, usedOnce, own));
    if ((uses.get(n) ?? 0) <= 1) usedOnce.add(made);
    else usedOnce.delete(made);
    done.set(n, made);
  }
  return roots.map((n) => ({
    node: done.get(n)!,
    target: n.op === "assign" ? (storage.get(n) ?? null) : null,
  }));
}

function intern(table: Map<string, Node>, n: Node): Node {
  if (n.op === "placeholder" || n.op === "random" || n.op === "region") return n;
  const attrs = exactJson(n.attrs);
  const key = `${n.op}|${n.src.map((s) => s.id).join()}|${attrs}|${n.dtype}|${n.shape.join()}|${n.recompute}`;
  const known = table.get(key);
  if (known) return known;
  table.set(key, n);
  return n;
}

/** Costs nothing to evaluate anywhere and lives nowhere. */
export const isFree = (n: Node): boolean => n.op === "constant" || n.op === "iota";

/** The same value as a computed, contiguous tensor: a cast that stays. */
export const copy = (x: Node): Node => node("cast", [x], { dtype: x.dtype });

/** A whole tensor of one literal. */
const full = (value: number, like: Node): Node => g.expand(constant(value, like.dtype), like.shape);

/** The value of a tensor that is one literal everywhere. */
export const literal = (n: Node): number | null =>
  n.op === "constant"
    ? (n as Node<"constant">).attrs.value
    : n.op === "expand" || n.op === "reshape"
      ? literal(n.src[0])
      : null;

const identity: Partial<Record<Primitive, number>> = { sum: 0, prod: 1 };

/** The node again over simplified sources, or something simpler that means the same. */
function rewrite(n: Node, src: readonly Node[], usedOnce: ReadonlySet<Node>, own: Rewrite): Node {
  if (n.src.length === 0) return n;
  switch (n.op) {
    case "alias":
    case "detach":
      return src[0];
    case "assign":
      return src[1];
  }
  if (n.op !== "region" && n.op !== "project") {
    // Nothing is computed for an empty tensor, and nothing reads one: what is reduced over an empty axis is a literal.
    if (numel(n.shape) === 0) return full(0, n);
    if (n.op in identity && numel(src[0].shape) === 0) return full(identity[n.op]!, n);
    if (n.op === "dot" && src[0].shape[2] === 0) return full(0, n);
    if (n.op === "scatterAdd" && numel(src[1].shape) === 0) return full(0, n);
    if (n.op === "pad" && numel(src[0].shape) === 0) return full((n as Node<"pad">).attrs.value, n);
  }
  switch (n.op) {
    case "region": {
      const { attrs } = n as Node<"region">;
      // Operands of scans and of the program's own kernels are whole row-major tensors.
      const whole = (s: Node) => (isMovement(s) || isFree(s) ? copy(s) : s);
      const takesWhole = attrs.region.scan || attrs.region.kernel;
      return node("region", takesWhole ? src.map(whole) : src, attrs, n.recompute);
    }
    case "reshape":
      return reshape(src[0], n.shape);
    case "permute":
      return permute(src[0], (n as Node<"permute">).attrs.axes, usedOnce);
    case "expand":
      return expand(src[0], n.shape);
    case "flip": {
      const axes = (n as Node<"flip">).attrs.axes.filter((a) => n.shape[a] > 1);
      return axes.length === 0 ? src[0] : node("flip", src, { axes });
    }
    case "pad": {
      const { lo, hi } = (n as Node<"pad">).attrs;
      if ([...lo, ...hi].every((v) => v === 0)) return src[0];
      break;
    }
    case "slice": {
      if (sameShape(n.shape, src[0].shape)) return src[0];
      const found = usedOnce.has(src[0]) ? own(n, src[0]) : null;
      if (found) return found;
      break;
    }
    case "concat": {
      const { axis } = (n as Node<"concat">).attrs;
      // What is joined step by step is joined at once: each step would copy all that came before.
      const parts = src
        .filter((s) => numel(s.shape) > 0)
        .flatMap((s) => (usedOnce.has(s) && joinsAlong(s, axis) ? s.src : [s]));
      return concat(parts, axis);
    }
    case "sum":
    case "prod":
    case "amax":
    case "amin": {
      const { axes } = (n as Node<"sum">).attrs;
      const real = axes.filter((a) => src[0].shape[a] > 1);
      if (real.length === 0) return reshape(src[0], n.shape);
      const least = real.length < axes.length ? node(n.op, src, { axes: real }) : n;
      const found = own(least, src[0]) ?? (least === n ? null : least);
      if (found) return reshape(found, n.shape);
      break;
    }
    case "argmax": {
      if (src[0].shape[(n as Node<"argmax">).attrs.axis] === 1) return full(0, n);
      const found = own(n, src[0]);
      if (found) return found;
      break;
    }
    case "cumulative":
      if (n.shape[(n as Node<"cumulative">).attrs.axis] === 1) return src[0];
      break;
    case "dot": {
      const found = own(rebuild(n, src), src[0]);
      if (found) return found;
      break;
    }
    case "argsort":
      if (src[0].shape[(n as Node<"argsort">).attrs.axis] === 1) return full(0, n);
      break;
    case "dynamicSlice": {
      const [x, ...starts] = src;
      if (sameShape(n.shape, x.shape)) return x;
      const known = starts.map(literal);
      if (!known.every((s) => s !== null)) break;
      const start = known.map((s, i) => Math.max(0, Math.min(s, x.shape[i] - n.shape[i])));
      return g.slice(x, start, n.shape);
    }
    case "dynamicUpdateSlice":
      if (numel(src[1].shape) === 0) return src[0];
      if (sameShape(n.shape, src[1].shape)) return src[1];
      break;
    case "scatterAdd": {
      // What meets at one place is added in memory: in f32, as every sum of halves.
      const [index, x] = src;
      if (!isHalf(n.dtype)) break;
      const attrs = (n as Node<"scatterAdd">).attrs;
      return g.cast(node("scatterAdd", [index, g.cast(x, "f32")], attrs, n.recompute), n.dtype);
    }
    case "cast": {
      if (src[0].dtype === n.dtype) return src[0];
      // To f32 and back is exact for a half; from f32 to a half and back is not, and stays.
      const [x] = src[0].op === "cast" ? src[0].src : [];
      if (x?.dtype === n.dtype && isHalf(n.dtype) && src[0].dtype === "f32") return x;
      break;
    }
    case "bitcast":
      if (src[0].dtype === n.dtype) return src[0];
      break;
    case "neg":
      if (src[0].op === "neg" && isFloat(n.dtype)) return src[0].src[0];
      break;
    case "mul":
      // x·1 = x for every x; a broadcast literal may still stretch the shape.
      if (literal(src[1]) === 1) return expand(src[0], n.shape);
      if (literal(src[0]) === 1) return expand(src[1], n.shape);
      break;
    case "div":
      if (literal(src[1]) === 1) return expand(src[0], n.shape);
      break;
    case "sub":
      if (Object.is(literal(src[1]), 0)) return expand(src[0], n.shape);
      break;
  }
  const folded = fold(n, src);
  if (folded !== null) return expand(constant(folded, n.dtype), n.shape);
  return node(n.op, src, n.attrs as never, n.recompute);
}

/** Arithmetic on literals that rounds the same on every target. */
function fold(n: Node, src: readonly Node[]): number | null {
  if (!isFloat(n.dtype) || !isFloat(src[0].dtype) || src.length > 2) return null;
  const exact = src.map((s) => {
    const value = literal(s);
    return value === null ? null : roundTo(s.dtype, value);
  });
  const [a, b] = exact;
  if (a === null || b === null) return null;
  const value = foldExact(n.op, a, b);
  return value === null ? null : roundTo(n.dtype, value);
}

function foldExact(op: Primitive, a: number, b: number): number | null {
  switch (op) {
    case "cast":
      return a;
    case "neg":
      return -a;
    case "sqrt":
      return Math.sqrt(a);
    case "add":
      return a + b;
    case "sub":
      return a - b;
    case "mul":
      return a * b;
    case "div":
      return a / b;
  }
  return null;
}

const joinsAlong = (n: Node, axis: number): boolean =>
  n.op === "concat" && (n as Node<"concat">).attrs.axis === axis;

/** A kernel selects among the parts element by element, so many parts are joined in a tree. */
const maxParts = 16;

function concat(parts: readonly Node[], axis: number): Node {
  if (parts.length === 1) return parts[0];
  if (parts.length <= maxParts) return node("concat", parts, { axis });
  const size = Math.ceil(parts.length / Math.ceil(parts.length / maxParts));
  const joined: Node[] = [];
  for (let i = 0; i < parts.length; i += size) joined.push(concat(parts.slice(i, i + size), axis));
  return concat(joined, axis);
}

export function reshape(x: Node, shape: Shape): Node {
  const base = x.op === "reshape" ? x.src[0] : x;
  if (sameShape(base.shape, shape)) return base;
  if (base.op === "expand" && base.src[0].op === "constant") return expand(base.src[0], shape);
  return node("reshape", [base], { shape });
}

/**
 * The transpose of a product is the product of the transposes, which only addresses differently: so a weight's gradient
 * comes out in the weight's own layout.
 */
function transposedProduct(
  x: Node,
  axes: readonly number[],
  usedOnce: ReadonlySet<Node>,
): Node | null {
  const dot = x.op === "reshape" ? x.src[0] : x;
  if (dot.op !== "dot" || !usedOnce.has(dot)) return null;
  const rank = x.shape.length;
  const same = rank === 3 ? x === dot : rank === 2 && sameShape([1, ...x.shape], dot.shape);
  if (!same || !axes.every((a, i) => a === [0, 2, 1][i + 3 - rank] - (3 - rank))) return null;
  const [a, b] = dot.src.map((s) => permute(s, [0, 2, 1], usedOnce));
  return reshape(
    node("dot", [b, a]),
    axes.map((i) => x.shape[i]),
  );
}

function permute(x: Node, axes: readonly number[], usedOnce: ReadonlySet<Node>): Node {
  if (x.op === "permute") {
    const inner = (x as Node<"permute">).attrs.axes;
    return permute(
      x.src[0],
      axes.map((a) => inner[a]),
      usedOnce,
    );
  }
  if (axes.every((a, i) => a === i)) return x;
  const product = transposedProduct(x, axes, usedOnce);
  if (product) return product;
  // Moving axes of size 1 only is a reshape, which addresses for free.
  const real = axes.filter((a) => x.shape[a] > 1);
  if (real.every((a, i) => i === 0 || a > real[i - 1]))
    return reshape(
      x,
      axes.map((a) => x.shape[a]),
    );
  return node("permute", [x], { axes });
}

function expand(x: Node, shape: Shape): Node {
  if (sameShape(x.shape, shape)) return x;
  const base = x.op === "expand" ? x.src[0] : x;
  return node("expand", [base], { shape });
}
