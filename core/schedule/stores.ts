/**
 * @file Which values are written to memory: outputs, and what other kernels need and had better not compute again. The
 * costs are rough counts of vector instructions; a load is 1.
 */
import { bytesOf, dtypes } from "../dtype.ts";
import type { Node } from "../graph/node.ts";
import type { Primitive } from "../graph/primitives.ts";
import { numel } from "../shape.ts";
import { beneath, isMovement } from "./access.ts";
import { type Group, isAligned, isAttention, isLeaf, isLine } from "./group.ts";

/** Rough cost of one evaluation, in vector instructions; a load is 1. */
export function weightOf(n: Pick<Node, "op" | "src">): number {
  switch (n.op) {
    case "exp":
    case "log":
    case "tanh":
    case "erf":
    case "sin":
    case "cos":
      return 12;
    case "pow":
      return 40;
    case "random":
      return 60;
    case "div":
    case "sqrt":
    case "idiv":
    case "rem":
    case "gather":
    case "dynamicSlice":
    case "dynamicUpdateSlice":
      return 4;
    case "concat":
      return 3 * n.src.length;
    default:
      return 1;
  }
}

const cheap = 10;
/** For values that repeat along a broadcast in their reader. */
const cheapRepeated = 3;
/** For quantised weights in a product: unpacking 4 bits weighs 16 (of which a row shares 4), and 18 if they are cast to halves. */
const cheapUnpacking = 18;

/**
 * Cheap functions of inputs alone: every reader evaluates them itself. They would otherwise tie groups together that
 * only share a mask.
 */
export function findFloating(
  order: readonly Node[],
  outputs: ReadonlyMap<Node, string>,
): Set<Node> {
  const found = new Set<Node>();
  const cost = new Map<Node, number>();
  for (const n of order) {
    if (isMovement(n)) continue;
    if (isLeaf(n)) {
      cost.set(n, n.op === "placeholder" ? 1 : 0);
      continue;
    }
    // An output is stored anyway, and whoever needs it had better be with it.
    if (!isAligned(n) || outputs.has(n)) continue;
    let total = weightOf(n);
    for (const s of n.src) total += cost.get(beneath(s)) ?? Number.POSITIVE_INFINITY;
    if (total > cheap) continue;
    cost.set(n, total);
    found.add(n);
  }
  return found;
}

/** What a reader can compute itself although it is not element-wise. */
const inlinableOps: ReadonlySet<Primitive> = new Set([
  "random",
  "gather",
  "concat",
  "dynamicSlice",
  "dynamicUpdateSlice",
]);

/** Marks the members that must be written: outputs, and what other groups need and had better not recompute. */
export function decideStores(
  order: readonly Node[],
  outputs: ReadonlyMap<Node, string>,
  home: ReadonlyMap<Node, Group>,
  floating: ReadonlySet<Node>,
): void {
  const users = new Map<Node, Node[]>();
  for (const n of order) {
    if (isMovement(n) || isLeaf(n)) continue;
    for (const s of n.src) {
      const source = beneath(s);
      const list = users.get(source);
      if (list) list.push(n);
      else users.set(source, [n]);
    }
  }
  // Infinite: cannot be computed again elsewhere (a reduction, a product, or what follows one).
  const cost = new Map<Node, number>();
  /** The cost of computing a node elsewhere, whether or not it is stored. */
  const inlined = new Map<Node, number>();
  // What recomputing a node elsewhere would have to read and nobody stores yet: a row's mean, its sum.
  const statistics = new Map<Node, readonly Node[]>();
  const smallOf = new Map<Node, readonly Node[]>();
  /**
   * What had better be stored than `n`, its simple function: a value that more in the group is made of, so that all of
   * that can be computed again elsewhere (gelu's derivative, of x rather than of x/2).
   */
  const baseOf = (n: Node): { readonly weight: number; stores(): void } | null => {
    const group = home.get(n)!;
    if (!isAligned(n) || weightOf(n) > 1) return null;
    const costly = n.src.map(beneath).filter((s) => cost.get(s) === Number.POSITIVE_INFINITY);
    const [base] = costly;
    const several = (users.get(base) ?? []).filter((user) => home.get(user) === group).length > 1;
    if (costly.length !== 1 || home.get(base) !== group || !several) return null;
    if (!isAligned(base) || bytesOf(base) > bytesOf(n) || !usesInPlace(n, base)) return null;
    const stores = (): void => {
      group.stores.set(base, `lets ${n.op} be computed again elsewhere`);
      cost.set(base, 1);
    };
    const weight = n.src.reduce((sum, s) => {
      const source = beneath(s);
      return sum + (source === base ? 1 : (cost.get(source) ?? 0));
    }, weightOf(n));
    return { weight, stores };
  };
  for (const n of order) {
    if (isMovement(n)) continue;
    const group = home.get(n);
    if (!group) {
      cost.set(n, n.op === "placeholder" ? 1 : 0);
      continue;
    }
    if (n.op === "region") continue;
    const small: Node[] = [];
    let weight = weightOf(n);
    for (const s of n.src) {
      const source = beneath(s);
      const known = cost.get(source) ?? 0;
      if (known === Number.POSITIVE_INFINITY && 4 * numel(source.shape) <= numel(n.shape)) {
        small.push(source);
        weight += 1;
      } else {
        weight += known;
        small.push(...(statistics.get(source) ?? []));
      }
    }
    smallOf.set(n, small);
    const inlinable = isAligned(n) || inlinableOps.has(n.op);
    if (!inlinable || group.kind === "update") weight = Number.POSITIVE_INFINITY;
    const readers = users.get(n) ?? [];
    let reason = outputs.get(n) ?? reasonToStore(n, group, weight, readers, home, floating);
    const base = reason && !outputs.has(n) && weight === Number.POSITIVE_INFINITY && baseOf(n);
    if (base) {
      base.stores();
      weight = base.weight;
      reason = reasonToStore(n, group, weight, readers, home, floating);
    }
    inlined.set(n, weight);
    if (reason) {
      group.stores.set(n, reason);
      weight = 1;
    } else if (small.length > 0 && readers.some((user) => home.get(user) !== group)) {
      for (const s of small) {
        if (cost.get(s) !== Number.POSITIVE_INFINITY) continue;
        home.get(s)!.stores.set(s, `small; lets ${n.op} be computed again elsewhere`);
        cost.set(s, 1);
      }
    } else if (small.length > 0) statistics.set(n, small);
    cost.set(n, weight);
  }
  leaveToReader(order, outputs, users, home, inlined, smallOf);
}

/** Kinds of groups that evaluate each element of an operand of their own size once. */
const readsOnce: ReadonlySet<Group["kind"]> = new Set(["map", "matmul", "scan", "sort", "update"]);

/**
 * Does `user` need each element of `n` once, at its own place? Through a shift (pad, slice, window) it may need several,
 * and a chain of those would be evaluated again and again.
 */
function usesInPlace(user: Node, n: Node): boolean {
  return user.src.every((s) => {
    if (beneath(s) !== n) return true;
    while (s !== n && (s.op === "reshape" || s.op === "permute")) s = s.src[0];
    return s === n;
  });
}

/** More than this is not moved into a reader, even if nobody else needs it. */
const maxMoved = 100;

/**
 * A costly value that only one other kernel needs, once per element, is computed there, not here: gelu's derivative belongs into the
 * backward pass and need not wait in memory. (Reductions along a row would evaluate it once per phase: not those.)
 */
function leaveToReader(
  order: readonly Node[],
  outputs: ReadonlyMap<Node, string>,
  users: ReadonlyMap<Node, readonly Node[]>,
  home: ReadonlyMap<Node, Group>,
  inlined: ReadonlyMap<Node, number>,
  smallOf: ReadonlyMap<Node, readonly Node[]>,
): void {
  // Is a member evaluated in its own group, for another member or for a store?
  const needed = new Set<Node>();
  for (let i = order.length - 1; i >= 0; i--) {
    const n = order[i];
    const group = home.get(n);
    if (!group || isMovement(n)) continue;
    const readers = users.get(n) ?? [];
    const here = readers.some((user) => home.get(user) === group && needed.has(user));
    const elsewhere = new Set(
      readers.map((user) => home.get(user)!).filter((reader) => reader !== group),
    );
    const [reader] = elsewhere;
    const movable =
      group.stores.has(n) &&
      !outputs.has(n) &&
      !here &&
      elsewhere.size === 1 &&
      inlined.get(n)! <= maxMoved &&
      readsOnce.has(reader.kind) &&
      numel(reader.space) === numel(n.shape) &&
      readers.every(
        (user) =>
          (isAligned(user) || isLine(user) || reader.kind === "update") &&
          needed.has(user) &&
          usesInPlace(user, n),
      );
    if (movable) {
      group.stores.delete(n);
      for (const s of smallOf.get(n)!)
        if (!home.get(s)!.stores.has(s))
          home.get(s)!.stores.set(s, `small; lets ${n.op} be computed elsewhere`);
    } else if (here || group.stores.has(n)) needed.add(n);
  }
}

function nameOf(n: Node): string {
  const { scan, attention, name } = (n as Node<"region">).attrs.region;
  return scan ? "a scan" : attention ? "attention" : `the kernel ${name}`;
}

/** Is a node computed of bytes in memory, with at least two elements of it to a byte or one, and of little else? */
function unpacks(n: Node): boolean {
  let [packed, bytes] = [false, 0];
  const seen = new Set<Node>();
  const stack = [n];
  for (let m = stack.pop(); m; m = stack.pop()) {
    if (seen.has(m)) continue;
    seen.add(m);
    if (m.op === "placeholder") {
      bytes += numel(m.shape) * dtypes[m.dtype].bytes;
      if (dtypes[m.dtype].bytes === 1 && 2 * numel(m.shape) >= numel(n.shape)) packed = true;
    } else if (!isLeaf(m)) {
      if (!isAligned(m)) return false;
      stack.push(...m.src.map(beneath));
    }
  }
  return packed && 4 * bytes <= 3 * numel(n.shape) * dtypes[n.dtype].bytes;
}

function reasonToStore(
  n: Node,
  group: Group,
  weight: number,
  users: readonly Node[],
  home: ReadonlyMap<Node, Group>,
  floating: ReadonlySet<Node>,
): string | null {
  if (n.op === "project") return `result of ${nameOf(n.src[0])}`;
  if (n.op === "cast" && n.dtype === n.src[0].dtype) return "copy";
  for (const user of users) {
    const reader = home.get(user)!;
    const name = isAttention(user) ? "attention" : user.op;
    if (user.op === "region" && !isAttention(user)) return `operand of ${nameOf(user)}`;
    if (user.op === "gather" && beneath(user.src[0]) === n) return "source of a gather";
    if (reader === group) continue;
    if (weight === Number.POSITIVE_INFINITY) return `${n.op} that ${name} reads in another kernel`;
    const template = user.op === "dot" || user.op === "scatterAdd" || isAttention(user);
    if (floating.has(n) && !template) continue;
    const rows = numel(reader.space.filter((_, i) => !reader.reduced.includes(i)));
    // Quantised weights: what is read instead of the value is much smaller, so a product unpacks it where it fetches it.
    if (user.op === "dot" && weight <= cheapUnpacking && unpacks(n)) continue;
    // What only varies from row to row is evaluated once per row, wherever in the row it is used.
    const perRow = reader.reduced.length > 0 && numel(n.shape) === rows;
    const shape = reader.kind === "update" ? reader.space : user.shape;
    const repeats = template || (!perRow && numel(shape) > numel(n.shape));
    if (weight > (repeats ? cheapRepeated : cheap))
      return repeats
        ? `would be computed again inside the broadcast of ${name}`
        : `needed by ${name} and too costly to compute twice`;
  }
  return null;
}
