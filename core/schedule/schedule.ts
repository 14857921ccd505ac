/**
 * @file From a canonical graph to a plan: simplify, fuse, order the groups, and give every stored value a place.
 *
 * The order is the program's own where dependencies allow it (so a checkpoint's clone runs when the backward pass needs
 * it), except that whoever reads the old version of an assigned storage goes before the group that writes it.
 */
import { bytesOf } from "../dtype.ts";
import type { Node } from "../graph/node.ts";
import { topological } from "../graph/walk.ts";
import { numel } from "../shape.ts";
import { beneath, isMovement } from "./access.ts";
import { fuse } from "./fuse.ts";
import { type Group, readsWhole } from "./group.ts";
import { type Lifetime, planMemory } from "./memory.ts";
import { type Claims, claimsNothing, copy, isFree, simplify } from "./simplify.ts";

export type Place =
  | { readonly k: "slot"; readonly slot: number }
  | { readonly k: "output"; readonly output: number }
  | { readonly k: "scratch"; readonly offset: number };

export type Step =
  | {
      readonly k: "group";
      readonly group: Group;
      readonly reads: readonly Node[];
      /** Of an update in place the version before: where that lies elsewhere, it is copied first. */
      readonly base: Node | null;
    }
  /** A scan: `body` runs once per element of the leading axis. Scratch of the body lies at `offset`. */
  | {
      readonly k: "loop";
      readonly group: Group;
      readonly region: Node<"region">;
      readonly body: Plan;
      readonly offset: number;
    };

export interface Plan {
  readonly inputs: readonly Node<"placeholder">[];
  readonly steps: readonly Step[];
  readonly places: ReadonlyMap<Node, Place>;
  readonly outputs: readonly PlannedOutput[];
  readonly scratchBytes: number;
}

export interface PlannedOutput {
  readonly node: Node;
  /** The slot that an assignment wants overwritten, if every other reader of it runs before. */
  readonly overwrites: number | null;
  /** What is written first in the output's storage: the value itself, or the first of several updates in place. */
  readonly first: Node;
}

/** `claims`: the regions that stay whole, as the backend has kernels for them. */
export function schedule(
  inputs: readonly Node<"placeholder">[],
  roots: readonly Node[],
  claims: Claims = claimsNothing,
): Plan {
  // Outputs are distinct computed tensors: what would only be a view, a leaf or a second name is copied.
  const targets: (number | null)[] = [];
  const results: Node[] = [];
  for (const { node, target } of simplify(roots, inputs, claims)) {
    const computed = !isMovement(node) && !isFree(node) && node.op !== "placeholder";
    results.push(computed && !results.includes(node) ? node : copy(node));
    targets.push(target);
  }
  const live = results.filter((n) => numel(n.shape) > 0);
  const order = topological(live);
  const reasons = new Map(
    results.map((n, i) => [n, targets[i] === null ? "output" : "new state"] as const),
  );
  const updates = findUpdates(results, targets, inputs);
  const { groups, floating } = fuse(order, reasons, updates);

  const producer = new Map<Node, Group>();
  for (const group of groups) for (const n of group.stores.keys()) producer.set(n, group);
  const reads = new Map(
    groups.map((group) => [group, readsOf(group, producer, floating)] as const),
  );

  const before = new Map<Group, Set<Group>>();
  for (const group of groups) {
    const needs = new Set<Group>();
    for (const n of reads.get(group)!) {
      const source = producer.get(n);
      if (source && source !== group) needs.add(source);
    }
    before.set(group, needs);
  }
  const places = new Map<Node, Place>(inputs.map((n, slot) => [n, { k: "slot", slot }]));
  results.forEach((n, output) => {
    places.set(n, { k: "output", output });
  });
  const readBefore = (old: Node, writer: Node): boolean =>
    orderReaders(old, producer.get(writer), groups, reads, before);
  // Several updates of one state share its storage, if whoever reads a version between them can go first.
  const firsts = results.map((result) => {
    let first = result;
    for (let base = first.src[0]; updates.has(first) && updates.has(base); base = first.src[0]) {
      if (places.has(base) || !readBefore(base, first)) break;
      places.set(base, places.get(result)!);
      first = base;
    }
    return first;
  });
  const overwrites = targets.map((target, i) =>
    target !== null && readBefore(inputs[target], firsts[i]) ? target : null,
  );
  const sorted = sortGroups(groups, before);

  // Lives, in steps; outputs have allocations of their own.
  const position = new Map(sorted.map((group, i) => [group, i] as const));
  const lives: Lifetime[] = [];
  const owners: (Node | Group)[] = [];
  const last = new Map<Node, number>();
  for (const [group, nodes] of reads)
    for (const n of nodes) last.set(n, Math.max(last.get(n) ?? 0, position.get(group)!));
  const bodies = new Map<Group, Plan>();
  for (const group of sorted) {
    const first = position.get(group)!;
    for (const n of group.stores.keys()) {
      if (places.has(n)) continue;
      lives.push({ bytes: bytesOf(n), first, last: Math.max(first, last.get(n) ?? first) });
      owners.push(n);
    }
    if (group.kind === "loop") {
      const body = planBody(regionOf(group), claims);
      bodies.set(group, body);
      lives.push({ bytes: loopScratch(regionOf(group), body), first, last: first });
      owners.push(group);
    }
  }
  const { offsets, bytes } = planMemory(lives);
  const loopOffset = new Map<Group, number>();
  owners.forEach((owner, i) => {
    if ("members" in owner) loopOffset.set(owner, offsets[i]);
    else places.set(owner, { k: "scratch", offset: offsets[i] });
  });
  const steps = sorted.map((group): Step => {
    if (group.kind !== "loop") {
      const [member] = group.members.keys();
      const base = group.kind === "update" ? member.src[0] : null;
      return { k: "group", group, reads: reads.get(group)!, base };
    }
    const offset = loopOffset.get(group)!;
    return { k: "loop", group, region: regionOf(group), body: bodies.get(group)!, offset };
  });
  const outputs = results.map((node, i) => ({
    node,
    overwrites: overwrites[i],
    first: firsts[i],
  }));
  return { inputs, steps, places, outputs, scratchBytes: bytes };
}

/**
 * Slices written into state (a KV cache) change nothing else there, so they are written in place: updates, one after the
 * other, that start from an input and end in an assignment to its storage.
 */
function findUpdates(
  results: readonly Node[],
  targets: readonly (number | null)[],
  inputs: readonly Node[],
): Set<Node> {
  const found = new Set<Node>();
  for (const [i, result] of results.entries()) {
    const chain: Node[] = [];
    let n = result;
    for (; n.op === "dynamicUpdateSlice"; n = n.src[0]) chain.push(n);
    const target = targets[i];
    if (target !== null && n === inputs[target]) for (const update of chain) found.add(update);
  }
  return found;
}

const regionOf = (group: Group): Node<"region"> => {
  const [first] = group.members.keys();
  return first as Node<"region">;
};

function planBody(region: Node<"region">, claims: Claims): Plan {
  const { params, results } = region.attrs.region.body;
  return schedule(params, results, claims);
}

/**
 * The body's own scratch, then for each carry its current and its next value, and for each y one element: a place to
 * write to where nobody needs the whole.
 */
export function loopScratch(region: Node<"region">, body: Plan): number {
  const { scan, body: graph } = region.attrs.region;
  const bytes = (c: Node, i: number) => carryBytes(c) * (i < scan!.carries ? 2 : 1);
  return graph.results.reduce((n, c, i) => n + bytes(c, i), body.scratchBytes);
}
export const carryBytes = (n: Node): number => Math.ceil(bytesOf(n) / 64) * 64 + 64;

/**
 * What a group loads: the placeholders and the values stored by other groups that its stored members reach, through
 * members and through values that it computes again.
 */
function readsOf(
  group: Group,
  producer: ReadonlyMap<Node, Group>,
  floating: ReadonlySet<Node>,
): Node[] {
  const found = new Set<Node>();
  const seen = new Set<Node>();
  const stack: Node[] = [...group.stores.keys()];
  if (group.kind === "loop") stack.push(regionOf(group));
  for (let n = stack.pop(); n; n = stack.pop()) {
    if (seen.has(n)) continue;
    seen.add(n);
    for (const [i, s] of n.src.entries()) {
      const source = beneath(s);
      const elsewhere = producer.has(source) && producer.get(source) !== group;
      const stored = elsewhere && (readsWhole(n, i) || !floating.has(source));
      if (source.op === "placeholder" || stored) found.add(source);
      else stack.push(source);
    }
  }
  return [...found].sort((a, b) => a.id - b.id);
}

/**
 * May the group `writer` overwrite the storage of `old`? Then every other reader of it is ordered before the group; if one
 * of them needs the group's results, it may not.
 */
function orderReaders(
  old: Node,
  writer: Group | undefined,
  groups: readonly Group[],
  reads: ReadonlyMap<Group, readonly Node[]>,
  before: Map<Group, Set<Group>>,
): boolean {
  if (!writer) return false;
  const readers = groups.filter((group) => group !== writer && reads.get(group)!.includes(old));
  if (readers.some((reader) => reaches(reader, writer, before))) return false;
  for (const reader of readers) before.get(writer)!.add(reader);
  return true;
}

/** Does `from` come after `to`? */
function reaches(from: Group, to: Group, before: ReadonlyMap<Group, ReadonlySet<Group>>): boolean {
  const seen = new Set<Group>([from]);
  const stack = [from];
  for (let group = stack.pop(); group; group = stack.pop()) {
    if (group === to) return true;
    for (const need of before.get(group)!)
      if (!seen.has(need)) {
        seen.add(need);
        stack.push(need);
      }
  }
  return false;
}

/** Kahn's order; among the groups that are ready the one whose first member was made first. */
function sortGroups(
  groups: readonly Group[],
  before: ReadonlyMap<Group, ReadonlySet<Group>>,
): Group[] {
  const missing = new Map<Group, number>();
  const after = new Map<Group, Group[]>();
  for (const group of groups) {
    missing.set(group, before.get(group)!.size);
    for (const need of before.get(group)!) {
      const list = after.get(need);
      if (list) list.push(group);
      else after.set(need, [group]);
    }
  }
  const age = new Map(
    groups.map((group) => [group, Math.min(...[...group.stores.keys()].map((n) => n.id))]),
  );
  const ready = groups.filter((group) => missing.get(group) === 0);
  const sorted: Group[] = [];
  while (ready.length > 0) {
    let best = 0;
    for (let i = 1; i < ready.length; i++) if (age.get(ready[i])! < age.get(ready[best])!) best = i;
    const [group] = ready.splice(best, 1);
    sorted.push(group);
    for (const next of after.get(group) ?? []) {
      const left = missing.get(next)! - 1;
      missing.set(next, left);
      if (left === 0) ready.push(next);
    }
  }
  if (sorted.length !== groups.length) throw new Error("schedule: the groups form a cycle");
  return sorted;
}
