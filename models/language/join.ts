/** @file Applies the merges of byte-pair encoding to a word: the core that all its tokenizers share. */
import { Heap } from "../../core/schedule/heap.ts";

/** What two neighbours become, and how early the pair is joined: of all pairs in a word the lowest rank first. */
export interface RankedMerge {
  readonly rank: number;
  readonly joined: number;
}

/**
 * Ids of a word → ids after all merges: always the lowest rank first, leftmost first. In n log n, for words
 * without end.
 */
export function joinPairs(
  ids: number[],
  mergeOf: (left: number, right: number) => RankedMerge | undefined,
): number[] {
  // A list linked by positions; an id of −1 has been joined to the one on its left.
  const next = ids.map((_, i) => i + 1);
  const previous = ids.map((_, i) => i - 1);
  const queue = new Heap<RankedMerge & { at: number; left: number; right: number }>((a, b) =>
    a.rank !== b.rank ? a.rank < b.rank : a.at < b.at,
  );
  const offer = (at: number) => {
    if (at < 0 || next[at] >= ids.length) return;
    const [left, right] = [ids[at], ids[next[at]]];
    const merge = mergeOf(left, right);
    if (merge) queue.push({ rank: merge.rank, joined: merge.joined, at, left, right });
  };
  for (let at = 0; at + 1 < ids.length; at++) offer(at);
  for (let best = queue.pop(); best; best = queue.pop()) {
    const { at, left, right } = best;
    const second = next[at];
    if (ids[at] !== left || second >= ids.length || ids[second] !== right) continue; // joined meanwhile
    ids[at] = best.joined;
    ids[second] = -1;
    next[at] = next[second];
    if (next[at] < ids.length) previous[next[at]] = at;
    offer(previous[at]);
    offer(at);
  }
  return ids.filter((id) => id >= 0);
}
