/**
 * @file Which nodes are computed together. The result is a list of *groups*: level one of the kernel language, bodies
 * over an index space without any schedule, each of which becomes one kernel.
 *
 * A group has one space: axes, some of them reduced. Every member node has a map: its index in terms of the space's
 * variables. A `map` has no reduced axes; a `row` evaluates several reductions over the same axes with maps between
 * (softmax, norms, cross-entropy); a `matmul`, `attention`, `scatter`, `scan` or `sort` has one template node and, for
 * matmul, an epilogue; an `update` writes a slice of state where it is.
 *
 * Nodes join in topological order. An element-wise node joins a group that holds one of its sources at the very element
 * it needs: a row or a product rather than a map, the largest space first. A reduction joins the group of its source when
 * the axes agree. Groups over one space that meet in a node become one (AdamW's moments and parameter; a loss and the
 * count it is divided by). Joining never makes the groups cyclic. What is then stored is decided in stores.ts.
 *
 * The idea of absorbing consumers as far as indices allow is XLA's multi-output fusion; expressing legality as
 * equality of index expressions, through any chain of reshapes, is ours.
 */
import type { Node } from "../graph/node.ts";
import type { Primitive } from "../graph/primitives.ts";
import { numel, type Shape, sameShape } from "../shape.ts";
import { beneath, isMovement } from "./access.ts";
import {
  agrees,
  type Group,
  type GroupKind,
  isAligned,
  isAttention,
  isClosed,
  isLeaf,
  isReduce,
  mapOf,
  readsWhole,
  sameIndex,
  spaceVars,
} from "./group.ts";
import { decideStores, findFloating } from "./stores.ts";
import { delinearize, type Index, linearize, num, substitute } from "./symbolic.ts";

/** Beyond this many members a group stops growing: the kernel would spill, and walks over it are recursive. */
const maxMembers = 120;
/** A row longer than this is not kept together with maps over it: it would leave the cache between two phases. */
const maxRow = 1 << 15;

/** Nodes with a kernel of their own. */
const templates: { readonly [P in Primitive]?: GroupKind } = {
  dot: "matmul",
  scatterAdd: "scatter",
  cumulative: "scan",
  argsort: "sort",
};

export interface Fused {
  readonly groups: Group[];
  /** Cheap functions of inputs alone: every reader evaluates them itself, so they tie no groups together. */
  readonly floating: ReadonlySet<Node>;
}

export interface FuseOptions {
  /** false: every primitive is a kernel of its own, as a measure of what fusing saves. */
  readonly fused?: boolean;
}

/** `updates`: the slice updates that write into the storage of what they update. */
export function fuse(
  order: readonly Node[],
  outputs: ReadonlyMap<Node, string>,
  updates: ReadonlySet<Node>,
  { fused = true }: FuseOptions = {},
): Fused {
  const floating = fused ? findFloating(order, outputs) : new Set<Node>();
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
      neededBy: new Set<Group>(),
      reach: -1,
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
      if (source && source !== group && tied) addNeed(group, source);
    }
  };

  for (const n of order) {
    if (isLeaf(n) || isMovement(n) || n.op === "region") continue;
    if (isAligned(n)) {
      const found = fused ? joinable(n, home, floating) : null;
      if (found) {
        join(n, found.group, found.map);
        mergeMeeting(n, found.group, home, floating);
      } else join(n, open("map", n.shape, []), spaceVars(n.shape));
    } else if (isReduce(n)) {
      const axes =
        n.op === "argmax" ? [(n as Node<"argmax">).attrs.axis] : (n as Node<"sum">).attrs.axes;
      const found = fused ? reducible(n, axes, home) : null;
      const group = found ?? open("row", n.src[0].shape, axes);
      const index = found ? mapOf(n.src[0], found)! : spaceVars(n.src[0].shape);
      join(
        n,
        group,
        index.filter((_, i) => !axes.includes(i)),
      );
    } else if (n.op === "project") {
      // A scan runs as one loop of its own, attention and custom kernels as they are; their results are whole tensors.
      const region = n.src[0];
      let group = home.get(region);
      if (!group) {
        const { kernel } = (region as Node<"region">).attrs.region;
        group = isAttention(region)
          ? open("attention", region.src[0].shape, [])
          : open(kernel ? "custom" : "loop", [], []);
        join(region, group, []);
      }
      join(n, group, []);
    } else if (updates.has(n)) {
      const part = n.src[1].shape;
      join(n, open("update", part, []), spaceVars(part));
    } else {
      join(n, open(templates[n.op] ?? "map", n.shape, []), spaceVars(n.shape));
    }
  }
  if (fused) decideStores(order, outputs, home, floating);
  else
    for (const [n, group] of home)
      if (n.op !== "region") group.stores.set(n, "every primitive is a kernel");
  return { groups: groups.filter((group) => group.stores.size > 0), floating };
}

function addNeed(group: Group, need: Group): void {
  group.needs.add(need);
  need.neededBy.add(group);
  // A larger reach spreads to whoever needs the group, and on; it rarely grows after the group was made.
  const stack: [Group, number][] = [[group, Math.max(need.id, need.reach)]];
  for (let top = stack.pop(); top; top = stack.pop()) {
    const [at, reach] = top;
    if (at.reach >= reach) continue;
    at.reach = reach;
    for (const user of at.neededBy) stack.push([user, reach]);
  }
}

/** Is there a path of needs from `to` back to `from`? */
function dependsOn(to: Group, from: Group): boolean {
  if (to.reach < from.id) return false;
  const seen = new Set<Group>([to]);
  const stack = [to];
  for (let g = stack.pop(); g; g = stack.pop()) {
    for (const need of g.needs) {
      if (need === from) return true;
      if (need.reach >= from.id && !seen.has(need)) {
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
    if (isClosed(group) || group.members.size >= maxMembers) continue;
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
): void {
  if (isClosed(into)) return;
  for (const other of sourceGroups(n, home, floating)) {
    if (other === into || !mergeable(into, other)) continue;
    if (other.members.size + into.members.size > maxMembers) continue;
    if (dependsOn(into, other) && !onlyThrough(into, other)) continue;
    if (dependsOn(other, into)) continue;
    // Read the other space in this one's variables: a map's where n is, if it has n's shape, else in row-major order (a
    // row's always, since its axes must stay what they are). What this group uses must then sit at the same element.
    const at =
      other.kind === "map" && sameShape(other.space, n.shape)
        ? into.members.get(n)!
        : delinearize(linearize(spaceVars(into.space), into.space), other.space);
    const same = at.every((x, i) => x.key === `s${i}`);
    const env = new Map(other.space.map((_, i) => [`s${i}`, at[i]]));
    const moved = new Map<Node, readonly Index[]>();
    for (const [m, map] of other.members)
      moved.set(m, same ? map : map.map((x) => substitute(x, env)));
    const trial = { ...into, members: moved };
    // Only members that read what moves are affected.
    const still = ([m, map]: [Node, readonly Index[]]): boolean => {
      if (!m.src.some((s) => moved.has(beneath(s)))) return true;
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
    for (const need of other.needs) {
      need.neededBy.delete(other);
      if (need !== into) addNeed(into, need);
    }
    other.members.clear();
    for (const user of other.neededBy) {
      user.needs.delete(other);
      if (user !== into) addNeed(user, into);
    }
    other.neededBy.clear();
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
