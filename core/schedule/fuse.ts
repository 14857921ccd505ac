/**
 * @file Which nodes are computed together. The result is a list of *groups*: level one of the kernel language, bodies
 * over an index space without any schedule, each of which becomes one kernel.
 *
 * A group has one space: axes, some of them reduced. Every member node has a map: its index in terms of the space's
 * variables. A `map` has no reduced axes; a `row` evaluates several reductions over the same axes with maps between
 * (softmax, norms, cross-entropy); a `matmul` or `scatter` has one template node and, for matmul, an epilogue.
 *
 * Nodes join in topological order. An element-wise node joins the latest group that holds one of its sources at the
 * very element it needs; a reduction joins the group of its source when the axes agree. Two maps over one space that
 * meet in a node become one group (AdamW's moments and parameter). Joining never makes the groups cyclic.
 * Then each value that another group needs is either stored or computed again there, whichever is cheaper.
 *
 * The idea of absorbing consumers as far as indices allow is XLA's multi-output fusion; expressing legality as
 * equality of index expressions, through any chain of reshapes, is ours.
 */
import type { Node } from "../graph/node.ts";
import { rules } from "../graph/primitives.ts";
import { numel, type Shape, sameShape } from "../shape.ts";
import { backward, beneath, broadcastIndex, forward, isMovement } from "./access.ts";
import { isFree } from "./simplify.ts";
import { delinearize, type Index, ivar, linearize, num, substitute } from "./symbolic.ts";

export type GroupKind = "map" | "row" | "matmul" | "scatter" | "loop";

export interface Group {
  readonly id: number;
  kind: GroupKind;
  /** Extents of the space; variable i is `s{i}`. */
  space: Shape;
  /** Axes of the space that are reduced. */
  reduced: readonly number[];
  /** Member → its index in the space's variables, in topological order. */
  readonly members: Map<Node, readonly Index[]>;
  /** Groups that hold a direct source of a member. */
  readonly needs: Set<Group>;
  /** Members whose values are written to memory, with the reason. */
  readonly stores: Map<Node, string>;
}

/** Beyond this many members a group stops growing: the kernel would spill, and walks over it are recursive. */
const maxMembers = 120;
/** A row longer than this is not kept together with maps over it: it would leave the cache between two phases. */
const maxRow = 1 << 15;

export const spaceVars = (shape: Shape): Index[] => shape.map((d, i) => ivar(`s${i}`, d));

const isReduce = (n: Node): boolean => rules[n.op].kind === "reduce";
/** What is not computed by any group. */
const isLeaf = (n: Node): boolean => n.op === "placeholder" || isFree(n);
/** Nodes whose value at an element needs their sources at the same element only. */
const isAligned = (n: Node): boolean => rules[n.op].kind === "elementwise";

export interface Fused {
  readonly groups: Group[];
  /** Cheap functions of inputs alone: every reader evaluates them itself, so they tie no groups together. */
  readonly floating: ReadonlySet<Node>;
}

/** Operands that a template, a scan or a gather reads as whole tensors, at elements of its own choice. */
export const readsWhole = (n: Node, source: number): boolean =>
  n.op === "dot" ||
  n.op === "scatterAdd" ||
  n.op === "region" ||
  (n.op === "gather" && source === 0);

export function fuse(order: readonly Node[], outputs: ReadonlyMap<Node, string>): Fused {
  const floating = findFloating(order, outputs);
  const home = new Map<Node, Group>();
  const groups: Group[] = [];

  const open = (kind: GroupKind, space: Shape, reduced: readonly number[]): Group => {
    const members = new Map<Node, readonly Index[]>();
    const group = {
      id: groups.length,
      kind,
      space,
      reduced,
      members,
      needs: new Set<Group>(),
      stores: new Map(),
    };
    groups.push(group);
    return group;
  };
  const join = (n: Node, group: Group, map: readonly Index[]): void => {
    group.members.set(n, map);
    home.set(n, group);
    for (const [i, s] of n.src.entries()) {
      const source = home.get(beneath(s));
      const tied = readsWhole(n, i) || !floating.has(beneath(s));
      if (source && source !== group && tied) group.needs.add(source);
    }
  };

  for (const n of order) {
    if (isLeaf(n) || isMovement(n) || n.op === "region") continue;
    if (isAligned(n)) {
      const found = joinable(n, home, floating);
      if (found) {
        join(n, found.group, found.map);
        mergeMeeting(n, found.group, home, floating, groups);
      } else join(n, open("map", n.shape, []), spaceVars(n.shape));
    } else if (isReduce(n)) {
      const axes =
        n.op === "argmax" ? [(n as Node<"argmax">).attrs.axis] : (n as Node<"sum">).attrs.axes;
      const found = reducible(n, axes, home);
      const group = found ?? open("row", n.src[0].shape, axes);
      const index = found ? mapOf(n.src[0], found)! : spaceVars(n.src[0].shape);
      join(
        n,
        group,
        index.filter((_, i) => !axes.includes(i)),
      );
    } else if (n.op === "project") {
      // A scan runs as one loop of its own; its results are whole tensors.
      const region = n.src[0];
      let group = home.get(region);
      if (!group) {
        group = open("loop", [], []);
        join(region, group, []);
      }
      join(n, group, []);
    } else {
      const kind = n.op === "dot" ? "matmul" : n.op === "scatterAdd" ? "scatter" : "map";
      join(n, open(kind, n.shape, []), spaceVars(n.shape));
    }
  }
  decideStores(order, outputs, home, floating);
  return { groups: groups.filter((group) => group.stores.size > 0), floating };
}

function findFloating(order: readonly Node[], outputs: ReadonlyMap<Node, string>): Set<Node> {
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

/** A node's index in the group's variables, pushed forward from the member below its movements. */
export function mapOf(x: Node, group: Group): readonly Index[] | null {
  const chain: Node[] = [];
  let base = x;
  while (isMovement(base)) {
    chain.push(base);
    base = base.src[0];
  }
  let map: readonly Index[] | null = group.members.get(base) ?? null;
  for (let i = chain.length - 1; i >= 0 && map; i--) map = forward(chain[i], map);
  return map;
}

const sameIndex = (a: readonly Index[], b: readonly Index[]): boolean =>
  a.length === b.length && a.every((x, i) => x.key === b[i].key);

/** Does evaluating `n` at `map` need each source that is a member of `group` exactly where the group has it? */
function agrees(n: Node, map: readonly Index[], group: Group): boolean {
  return n.src.every((source, i) => {
    if (!group.members.has(beneath(source))) return true;
    // These read their sources elsewhere than at their own element.
    if ((n.op === "gather" && i === 0) || n.op === "concat") return false;
    let index: readonly Index[] = broadcastIndex(map, source.shape);
    let s = source;
    while (isMovement(s)) {
      const access = backward(s, index);
      if (access.mask === false || access.mask.length > 0) return false;
      index = access.index;
      s = s.src[0];
    }
    return sameIndex(index, group.members.get(s)!);
  });
}

/** Is there a path of needs from `to` back to `from`? */
function dependsOn(to: Group, from: Group): boolean {
  const seen = new Set<Group>([to]);
  const stack = [to];
  for (let g = stack.pop(); g; g = stack.pop()) {
    for (const need of g.needs) {
      if (need === from) return true;
      if (!seen.has(need)) {
        seen.add(need);
        stack.push(need);
      }
    }
  }
  return false;
}

/**
 * The groups of a node's computed sources: maps last, since they can still move into others; then the largest space
 * (statistics of rows belong to the rows), then the latest. Floating sources count only if there are no others.
 */
function sourceGroups(
  n: Node,
  home: ReadonlyMap<Node, Group>,
  floating: ReadonlySet<Node>,
): Group[] {
  const sources = n.src.map(beneath).filter((s) => home.has(s));
  const tied = sources.filter((s) => !floating.has(s));
  const found = new Set((tied.length > 0 ? tied : sources).map((s) => home.get(s)!));
  return [...found].sort(
    (a, b) =>
      Number(a.kind === "map") - Number(b.kind === "map") ||
      numel(b.space) - numel(a.space) ||
      b.id - a.id,
  );
}

function joinable(
  n: Node,
  home: ReadonlyMap<Node, Group>,
  floating: ReadonlySet<Node>,
): { group: Group; map: readonly Index[] } | null {
  const sources = sourceGroups(n, home, floating);
  for (const group of sources) {
    if (group.kind === "scatter" || group.kind === "loop" || group.members.size >= maxMembers)
      continue;
    if (sources.some((other) => other !== group && dependsOn(other, group))) continue;
    for (const map of candidates(n, group)) if (agrees(n, map, group)) return { group, map };
  }
  return null;
}

/** Possible maps of `n` in `group`: that of a source of the same shape, or the whole space read in n's shape. */
function candidates(n: Node, group: Group): (readonly Index[])[] {
  const whole = numel(group.space);
  const kept = numel(group.space.filter((_, i) => !group.reduced.includes(i)));
  const size = numel(n.shape);
  const row = group.reduced.length > 0;
  // A map over a long row belongs to a kernel of its own, and an epilogue must be one-to-one.
  if (size !== kept && !(row && size === whole && whole / Math.max(kept, 1) <= maxRow)) return [];
  const found: (readonly Index[])[] = [];
  for (const s of n.src) {
    const map = numel(s.shape) === size ? mapOf(s, group) : null;
    if (map) found.push(alignRank(map, n.shape));
  }
  if (size === whole)
    found.push(delinearize(linearize(spaceVars(group.space), group.space), n.shape));
  return found;
}

/** A source of equal size differs from the broadcast result at most by leading axes of size 1. */
const alignRank = (map: readonly Index[], shape: Shape): readonly Index[] =>
  map.length === shape.length ? map : [...shape.slice(map.length).map(() => num(0)), ...map];

/** Moves other groups that meet in `n` into its group: maps over the same space, rows over the same axes. */
function mergeMeeting(
  n: Node,
  into: Group,
  home: Map<Node, Group>,
  floating: ReadonlySet<Node>,
  groups: Group[],
): void {
  if (into.kind === "scatter" || into.kind === "loop") return;
  for (const other of sourceGroups(n, home, floating)) {
    if (other === into || !mergeable(into, other)) continue;
    if (other.members.size + into.members.size > maxMembers) continue;
    if (dependsOn(into, other) && !onlyThrough(into, other)) continue;
    if (dependsOn(other, into)) continue;
    // Read the other space in this one's variables: where n is, if it has n's shape, else in row-major order. Members
    // that this group uses must then sit at the same element.
    const at = sameShape(other.space, n.shape)
      ? into.members.get(n)!
      : delinearize(linearize(spaceVars(into.space), into.space), other.space);
    const env = new Map(other.space.map((_, i) => [`s${i}`, at[i]]));
    const moved = new Map<Node, readonly Index[]>();
    for (const [m, map] of other.members)
      moved.set(
        m,
        map.map((x) => substitute(x, env)),
      );
    const trial = { ...into, members: new Map([...moved, ...into.members]) };
    const still = ([m, map]: [Node, readonly Index[]]): boolean => {
      if (!isReduce(m)) return agrees(m, map, trial);
      const after = mapOf(m.src[0], trial);
      return !after || sameIndex(after, mapOf(m.src[0], into) ?? spaceVars(into.space));
    };
    if (![...into.members].every(still)) continue;
    const own = [...into.members];
    into.members.clear();
    // Ids order members topologically even when the two lists interleave.
    for (const [m, map] of [...moved, ...own].sort((a, b) => a[0].id - b[0].id)) {
      into.members.set(m, map);
      home.set(m, into);
    }
    for (const need of other.needs) into.needs.add(need);
    other.members.clear();
    for (const group of groups)
      if (group.needs.delete(other) && group !== into) group.needs.add(into);
    other.needs.clear();
  }
}

function mergeable(into: Group, other: Group): boolean {
  if (other.kind === "map") return numel(other.space) === numel(into.space);
  const same = (a: readonly number[], b: readonly number[]) =>
    a.length === b.length && a.every((x, i) => x === b[i]);
  return other.kind === "row" && same(other.space, into.space) && same(other.reduced, into.reduced);
}

/** `to` reaches `from` by a direct need and by no other path. */
function onlyThrough(to: Group, from: Group): boolean {
  return [...to.needs].every((need) => need === from || !dependsOn(need, from));
}

/** The group whose members can be followed by the reduction `n`, turned into a row over its axes if it was a map. */
function reducible(n: Node, axes: readonly number[], home: ReadonlyMap<Node, Group>): Group | null {
  const x = n.src[0];
  const group = home.get(beneath(x));
  if (!group || group.members.size >= maxMembers) return null;
  if (group.kind !== "map" && group.kind !== "row") return null;
  let map = mapOf(x, group);
  if (!map) return null;
  if (group.kind === "map") {
    const plain = variables(map, x.shape);
    if (!plain) {
      map = rebase(group, x);
      if (!map) return null;
    }
  }
  const vars = variables(map, x.shape);
  if (!vars) return null;
  const reduced = axes.flatMap((a) => vars[a] ?? []).sort((a, b) => a - b);
  const all = vars.flatMap((v) => v ?? []);
  // Every axis of the space that is not of size 1 must be an axis of x.
  if (group.space.some((d, i) => d !== 1 && !all.includes(i))) return null;
  if (group.kind === "map") {
    if ([...group.members.keys()].some((m) => m.op === "concat")) return null;
    group.kind = "row";
    group.reduced = reduced;
    return group;
  }
  const own = group.reduced.filter((i) => group.space[i] > 1);
  return own.length === reduced.length && own.every((a, i) => a === reduced[i]) ? group : null;
}

/** For each axis the space variable that it is, null for axes of size 1; null if an axis is anything else. */
function variables(map: readonly Index[], shape: Shape): (number | null)[] | null {
  const found: (number | null)[] = [];
  for (let i = 0; i < map.length; i++) {
    if (shape[i] === 1) {
      found.push(null);
      continue;
    }
    const [term] = map[i].terms;
    const plain =
      map[i].terms.length === 1 &&
      map[i].constant === 0 &&
      term.coef === 1 &&
      term.atom.k === "var" &&
      term.atom.extent === shape[i];
    if (!plain) return null;
    found.push(Number((term.atom as { name: string }).name.slice(1)));
  }
  const real = found.filter((v) => v !== null);
  return new Set(real).size === real.length ? found : null;
}

/** Re-reads a map group in the shape of `x`, if x is a reshape of the group's own order. */
function rebase(group: Group, x: Node): readonly Index[] | null {
  if (numel(x.shape) !== numel(group.space)) return null;
  const vars = spaceVars(x.shape);
  const at = delinearize(linearize(vars, x.shape), group.space);
  const env = new Map(group.space.map((_, i) => [`s${i}`, at[i]]));
  const moved = [...group.members].map(
    ([m, map]) => [m, map.map((v) => substitute(v, env))] as const,
  );
  const trial: Group = { ...group, space: x.shape, members: new Map(moved) };
  const map = mapOf(x, trial);
  if (!map || !sameIndex(map, vars)) return null;
  if (!moved.every(([m, index]) => agrees(m, index, trial))) return null;
  for (const [m, index] of moved) group.members.set(m, index);
  group.space = x.shape;
  return map;
}

// --- what is stored -----------------------------------------------------------------------------------------

/** Rough cost of one evaluation, in vector instructions; a load is 1. */
export function weightOf(n: Node): number {
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

/** Marks the members that must be written: outputs, and what other groups need and had better not recompute. */
function decideStores(
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
    const inlinable = isAligned(n) || n.op === "random" || n.op === "gather" || n.op === "concat";
    if (!inlinable) weight = Number.POSITIVE_INFINITY;
    inlined.set(n, weight);
    const readers = users.get(n) ?? [];
    const reason = outputs.get(n) ?? reasonToStore(n, group, weight, readers, home, floating);
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

/** More than this is not moved into a reader, even if nobody else needs it. */
const maxMoved = 100;

/**
 * A costly value that only one other kernel needs is computed there, not here: gelu's derivative belongs into the
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
      (reader.kind === "map" || reader.kind === "matmul") &&
      numel(reader.space) === numel(n.shape) &&
      readers.every((user) => isAligned(user) && (home.get(user) === reader || !needed.has(user)));
    if (movable) {
      group.stores.delete(n);
      for (const s of smallOf.get(n)!)
        if (!home.get(s)!.stores.has(s))
          home.get(s)!.stores.set(s, `small; lets ${n.op} be computed elsewhere`);
    } else if (here || group.stores.has(n)) needed.add(n);
  }
}

function reasonToStore(
  n: Node,
  group: Group,
  weight: number,
  users: readonly Node[],
  home: ReadonlyMap<Node, Group>,
  floating: ReadonlySet<Node>,
): string | null {
  if (n.op === "project") return "result of a scan";
  for (const user of users) {
    const reader = home.get(user)!;
    if (user.op === "region") return "operand of a scan";
    if (user.op === "gather" && beneath(user.src[0]) === n) return "source of a gather";
    if (reader === group) continue;
    if (weight === Number.POSITIVE_INFINITY)
      return `${n.op} that ${user.op} reads in another kernel`;
    const template = user.op === "dot" || user.op === "scatterAdd";
    if (floating.has(n) && !template) continue;
    const rows = numel(reader.space.filter((_, i) => !reader.reduced.includes(i)));
    // What only varies from row to row is evaluated once per row, wherever in the row it is used.
    const perRow = reader.reduced.length > 0 && numel(n.shape) === rows;
    const repeats = template || (!perRow && numel(user.shape) > numel(n.shape));
    if (weight > (repeats ? cheapRepeated : cheap))
      return repeats
        ? `would be computed again inside the broadcast of ${user.op}`
        : `needed by ${user.op} and too costly to compute twice`;
  }
  return null;
}
