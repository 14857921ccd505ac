/**
 * @file In which order groups run: the program's own where dependencies allow it, except that whoever reads the old
 * version of an assigned storage goes before the group that writes it.
 *
 * The program's own order means: of the groups that are ready, the one whose first member was made first. A weight's gradient
 * whose epilogue is the optimizer then runs as soon as the gradient can be had, and frees what the forward pass had saved
 * for it; a checkpoint's clone, which is made late, runs when the backward pass needs it.
 */
import type { Node } from "../graph/node.ts";
import type { Group } from "./group.ts";
import { Heap } from "./heap.ts";

/** Does `from` need `to`, directly or not? `needs`: what a group needs directly. */
export function reaches(
  from: Group,
  to: Group,
  needs: (group: Group) => Iterable<Group | undefined>,
): boolean {
  const seen = new Set<Group>([from]);
  const stack = [from];
  for (let group = stack.pop(); group; group = stack.pop()) {
    if (group === to) return true;
    for (const need of needs(group)) {
      if (!need || seen.has(need)) continue;
      seen.add(need);
      stack.push(need);
    }
  }
  return false;
}

export class Order {
  readonly #groups: readonly Group[];
  readonly #before = new Map<Group, Set<Group>>();
  readonly #readers = new Map<Node, Group[]>();
  readonly #age: ReadonlyMap<Group, number>;
  /** Positions in an order that keeps to all that is known. */
  #rank: ReadonlyMap<Group, number>;

  /** `reads`: what each group loads; `producer`: who stores it. */
  constructor(reads: ReadonlyMap<Group, readonly Node[]>, producer: ReadonlyMap<Node, Group>) {
    this.#groups = [...reads.keys()];
    const age = (group: Group): number => {
      let first = Number.POSITIVE_INFINITY;
      for (const n of group.members.keys()) first = Math.min(first, n.id);
      return first;
    };
    this.#age = new Map(this.#groups.map((group) => [group, age(group)]));
    for (const [group, nodes] of reads) {
      const needs = new Set<Group>();
      for (const n of nodes) {
        const list = this.#readers.get(n);
        if (list) list.push(group);
        else this.#readers.set(n, [group]);
        const source = producer.get(n);
        if (source && source !== group) needs.add(source);
      }
      this.#before.set(group, needs);
    }
    this.#rank = this.#ranks();
  }

  /**
   * May `writer` overwrite the storage of `old`? Then every other reader of it is ordered before the group; if one of
   * them needs the group's results, it may not.
   */
  readsGoBefore(old: Node, writer: Group | undefined): boolean {
    if (!writer) return false;
    const readers = (this.#readers.get(old) ?? []).filter((group) => group !== writer);
    if (readers.some((reader) => this.#comesAfter(reader, writer))) return false;
    const needs = this.#before.get(writer)!;
    for (const reader of readers) needs.add(reader);
    const at = this.#rank.get(writer)!;
    if (readers.some((reader) => this.#rank.get(reader)! > at)) this.#rank = this.#ranks();
    return true;
  }

  /** Does `from` need `to`? Only groups that rank between the two can be on the way. */
  #comesAfter(from: Group, to: Group): boolean {
    const least = this.#rank.get(to)!;
    return reaches(from, to, (group) =>
      [...this.#before.get(group)!].filter((need) => this.#rank.get(need)! >= least),
    );
  }

  #ranks(): Map<Group, number> {
    return new Map(this.sorted().map((group, i) => [group, i]));
  }

  /** Kahn's order (1962), by age among those that are ready. */
  sorted(): Group[] {
    const missing = new Map<Group, number>();
    const after = new Map<Group, Group[]>();
    const ready = new Heap<Group>((a, b) => this.#age.get(a)! < this.#age.get(b)!);
    for (const group of this.#groups) {
      const needs = this.#before.get(group)!;
      missing.set(group, needs.size);
      if (needs.size === 0) ready.push(group);
      for (const need of needs) {
        const list = after.get(need);
        if (list) list.push(group);
        else after.set(need, [group]);
      }
    }
    const sorted: Group[] = [];
    for (let group = ready.pop(); group; group = ready.pop()) {
      sorted.push(group);
      for (const next of after.get(group) ?? []) {
        const left = missing.get(next)! - 1;
        missing.set(next, left);
        if (left === 0) ready.push(next);
      }
    }
    if (sorted.length !== this.#groups.length) throw new Error("schedule: the groups form a cycle");
    return sorted;
  }
}
