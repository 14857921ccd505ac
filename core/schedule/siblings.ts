/**
 * @file Reductions that nothing ties together but what they read: over one space, along the same axes, of one large tensor
 * (the gradients of layerNorm's weight and bias; a maximum and where it is), or of what one kernel wrote. As one kernel
 * they read it once. That no such reduction waits for the other is only known when groups and stores are.
 */
import type { Node } from "../graph/node.ts";
import { numel } from "../shape.ts";
import { agrees, type Group, isReduce, mapOf, sameIndex, spaceVars } from "./group.ts";
import { reaches } from "./order.ts";

/** More members, or buffers, than this are not put together: see fuse.ts, and what a GPU binds at once. */
const maxMembers = 120;
const maxBuffers = 8;

/** What each group loads and who stores it; merging keeps both up to date. */
export interface Linked {
  readonly reads: Map<Group, readonly Node[]>;
  readonly producer: Map<Node, Group>;
}

export function mergeSiblings(linked: Linked): void {
  const { reads, producer } = linked;
  const needs = (group: Group) => reads.get(group)!.map((n) => producer.get(n));
  const seen = new Map<string, Group[]>();
  for (const group of [...reads.keys()]) {
    if (!onlyReduces(group)) continue;
    const key = `${group.space.join()}|${group.reduced.join()}`;
    const others = seen.get(key) ?? [];
    seen.set(key, others);
    const into = others.find(
      (other) =>
        meet(other, group, linked) &&
        together(other, group) &&
        !reaches(group, other, needs) &&
        !reaches(other, group, needs),
    );
    if (!into) {
      others.push(group);
      continue;
    }
    const members = [...into.members, ...group.members].sort((a, b) => a[0].id - b[0].id);
    into.members.clear();
    for (const [n, map] of members) into.members.set(n, map);
    for (const [n, why] of group.stores) {
      into.stores.set(n, why);
      producer.set(n, into);
    }
    const all = new Set([...reads.get(into)!, ...reads.get(group)!]);
    const sorted = [...all].sort((a, b) => a.id - b.id);
    reads.set(into, sorted);
    reads.delete(group);
  }
}

/** Does the group keep nothing of its elements but what it reduces them to? */
const onlyReduces = ({ kind, space, stores }: Group): boolean =>
  kind === "row" && [...stores.keys()].every((n) => numel(n.shape) < numel(space));

/** Do both read one tensor as large as their space, or what one kernel wrote? */
function meet(a: Group, b: Group, { producer, reads }: Linked): boolean {
  const [own, other] = [reads.get(a)!, reads.get(b)!];
  if (new Set([...own, ...other]).size + a.stores.size + b.stores.size > maxBuffers) return false;
  return own.some((n) => {
    if (other.includes(n)) return numel(n.shape) >= numel(a.space);
    const from = producer.get(n);
    return from !== undefined && other.some((m) => producer.get(m) === from);
  });
}

/** In one group, is each member evaluated at the same elements as before? */
function together(a: Group, b: Group): boolean {
  if (a.members.size + b.members.size > maxMembers) return false;
  const trial = { ...a, members: new Map([...a.members, ...b.members]) };
  const source = (n: Node, group: Group) => mapOf(n.src[0], group) ?? spaceVars(group.space);
  return [a, b].every((group) =>
    [...group.members].every(([n, map]) =>
      isReduce(n) ? sameIndex(source(n, group), source(n, trial)) : agrees(n, map, trial),
    ),
  );
}
