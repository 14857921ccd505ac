/**
 * @file Learns the merges of byte-pair encoding (Sennrich et al., https://arxiv.org/abs/1508.07909): join the most
 * frequent pair of neighbours, again and again.
 *
 * Words are counted once and then changed only where the joined pair occurs, and the most frequent pair comes from a
 * heap, so a merge costs what it changes, not a pass over the text. Among equally frequent pairs the one with the
 * smaller ids wins: the rule of Hugging Face's trainer, so both learn the same merges.
 */
import { Heap } from "../../core/schedule/heap.ts";

export type Merge = readonly [left: number, right: number, joined: number];

export interface MergeOptions {
  /** Ids in all, at most. */
  readonly size: number;
  /** The next free id. */
  readonly firstId: number;
  /** Pairs that occur less often are not joined. */
  readonly minFrequency: number;
  /** The id that left + right has as text, or undefined when that text is new; asked once per merge. */
  readonly known: (left: number, right: number) => number | undefined;
  /** Told of every merge, in order, before `known` is asked again. */
  readonly onMerge: (merge: Merge) => void;
}

interface Pair {
  readonly left: number;
  readonly right: number;
  count: number;
  /** Words that have, or had, this pair. */
  readonly words: Set<number>;
}

interface Entry {
  readonly pair: Pair;
  /** The pair's count when the entry was made: an older, larger count is corrected when it is popped. */
  readonly count: number;
}

const before = (a: Entry, b: Entry): boolean =>
  a.count !== b.count
    ? a.count > b.count
    : a.pair.left !== b.pair.left
      ? a.pair.left < b.pair.left
      : a.pair.right < b.pair.right;

/** `words`: distinct words as ids; they are joined in place. `counts`: how often each occurs. */
export function learnMerges(words: number[][], counts: number[], options: MergeOptions): void {
  const { size, minFrequency, known, onMerge } = options;
  const pairs = new Map<number, Pair>();
  const keyOf = (left: number, right: number) => left * size + right;
  const change = (left: number, right: number, word: number, by: number): Pair => {
    const key = keyOf(left, right);
    let pair = pairs.get(key);
    if (!pair) pairs.set(key, (pair = { left, right, count: 0, words: new Set() }));
    pair.count += by * counts[word];
    if (by > 0) pair.words.add(word);
    return pair;
  };
  /** Joins all occurrences in a word from left to right; adds the pairs that this makes to `grown`. */
  const join = (word: number, { left, right }: Pair, joined: number, grown: Set<Pair>) => {
    const ids = words[word];
    let to = 0; // what is done ends here
    for (let from = 0; from < ids.length; from++) {
      if (ids[from] !== left || from + 1 >= ids.length || ids[from + 1] !== right) {
        ids[to++] = ids[from];
        continue;
      }
      if (to > 0) {
        change(ids[to - 1], left, word, -1);
        grown.add(change(ids[to - 1], joined, word, 1));
      }
      if (from + 2 < ids.length) {
        change(right, ids[from + 2], word, -1);
        grown.add(change(joined, ids[from + 2], word, 1));
      }
      ids[to++] = joined;
      from++;
    }
    ids.length = to;
  };

  for (const [w, ids] of words.entries())
    for (let i = 0; i + 1 < ids.length; i++) change(ids[i], ids[i + 1], w, 1);
  const queue = new Heap<Entry>(before);
  for (const pair of pairs.values()) queue.push({ pair, count: pair.count });

  let next = options.firstId;
  const learned = new Set<number>();
  while (next < size) {
    const entry = queue.pop();
    if (!entry) break;
    const { pair, count } = entry;
    const key = keyOf(pair.left, pair.right);
    if (pairs.get(key) !== pair) continue; // joined before
    if (pair.count !== count) {
      // Grown: a newer entry is in the heap. Shrunk: this is the only one.
      if (pair.count < count) queue.push({ pair, count: pair.count });
      continue;
    }
    if (count < Math.max(1, minFrequency)) break;

    const joined = known(pair.left, pair.right) ?? next++;
    // A pair can come back when a later merge has the text, and so the id, of an earlier one.
    if (!learned.has(key)) onMerge([pair.left, pair.right, joined]);
    learned.add(key);
    const grown = new Set<Pair>();
    for (const word of pair.words) join(word, pair, joined, grown);
    pairs.delete(key);
    for (const other of grown) if (other !== pair) queue.push({ pair: other, count: other.count });
  }
}
