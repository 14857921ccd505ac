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

  /** Does `from` need `to`, directly or not? Only groups that rank between the two can be on the way. */
  #comesAfter(from: Group, to: Group): boolean {
    const least = this.#rank.get(to)!;
    const seen = new Set<Group>([from]);
    const stack = [from];
    for (let group = stack.pop(); group; group = stack.pop()) {
      if (group === to) return true;
      for (const need of this.#before.get(group)!)
        if (this.#rank.get(need)! >= least && !seen.has(need)) {
          seen.add(need);
          stack.push(need);
        }
    }
    return false;
  }

  #ranks(): Map<Group, number> {
    return new Map(this.sorted().map((group, i) => [group, i]));
  }

  /** Kahn's order (1962), by age among those that are ready. */
  sorted(): Group[] {
    const missing = new Map<Group, number>();
    const after = new Map<Group, Group[]>();
    const ready = new Heap<Group>((group) => this.#age.get(group)!);
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

/** A binary heap (Williams 1964): the least first. */
class Heap<T> {
  readonly #items: T[] = [];
  readonly #key: (item: T) => number;

  constructor(key: (item: T) => number) {
    this.#key = key;
  }

  push(item: T): void {
    const items = this.#items;
    const key = this.#key(item);
    let i = items.push(item) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (this.#key(items[parent]) <= key) break;
      items[i] = items[parent];
      i = parent;
    }
    items[i] = item;
  }

  pop(): T | undefined {
    const items = this.#items;
    const top = items[0];
    const last = items.pop();
    if (last === undefined || items.length === 0) return top;
    const key = this.#key(last);
    let i = 0;
    for (let child = 1; child < items.length; child = 2 * i + 1) {
      const right = child + 1;
      if (right < items.length && this.#key(items[right]) < this.#key(items[child])) child = right;
      if (this.#key(items[child]) >= key) break;
      items[i] = items[child];
      i = child;
    }
    items[i] = last;
    return top;
  }
}
