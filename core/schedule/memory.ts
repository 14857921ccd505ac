/**
 * @file Where intermediates live: offsets in one block of scratch memory, shared by values whose lives do not meet.
 *
 * Greedy by size (Pisarchyk & Lee 2020): the largest value first, each at the lowest offset where it fits between the
 * values already placed whose lives overlap its own.
 */

/** A value written in step `first` and last read in step `last` (both inclusive). */
export interface Lifetime {
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

/** Offsets are multiples of this, and at least this many readable bytes follow each value: vectors may over-read. */
export const alignment = 64;

const roundUp = (n: number): number => Math.ceil(n / alignment) * alignment + alignment;

export function planMemory(values: readonly Lifetime[]): { offsets: number[]; bytes: number } {
  const offsets = new Array<number>(values.length).fill(0);
  const order = values.map((_, i) => i).sort((a, b) => values[b].bytes - values[a].bytes || a - b);
  // Placed values by offset, so that gaps are found in one pass.
  const placed: number[] = [];
  let total = 0;
  for (const i of order) {
    const { first, last } = values[i];
    const bytes = roundUp(values[i].bytes);
    let at = 0;
    for (const j of placed) {
      if (values[j].last < first || values[j].first > last) continue;
      if (offsets[j] >= at + bytes) break;
      at = Math.max(at, offsets[j] + roundUp(values[j].bytes));
    }
    offsets[i] = at;
    total = Math.max(total, at + bytes);
    let k = placed.length;
    while (k > 0 && offsets[placed[k - 1]] > at) k--;
    placed.splice(k, 0, i);
  }
  return { offsets, bytes: total };
}

/**
 * Which memory that is there anyway each value may use, if any: host h is free until it is written in step `hosts[h].first`.
 * Large values choose first, and each takes the smallest host where it fits.
 */
export function hostValues(
  values: readonly Lifetime[],
  hosts: readonly Pick<Lifetime, "bytes" | "first">[],
): (number | undefined)[] {
  const found = new Array<number | undefined>(values.length);
  const bySize = hosts.map((_, i) => i).sort((a, b) => hosts[a].bytes - hosts[b].bytes);
  const users: Lifetime[][] = hosts.map(() => []);
  const long = ({ first, last }: Lifetime) => last - first;
  const order = values
    .map((_, i) => i)
    .sort((a, b) => values[b].bytes - values[a].bytes || long(values[b]) - long(values[a]));
  for (const i of order) {
    const { bytes, first, last } = values[i];
    found[i] = bySize.find(
      (h) =>
        hosts[h].bytes >= bytes &&
        hosts[h].first > last &&
        users[h].every((v) => v.last < first || v.first > last),
    );
    if (found[i] !== undefined) users[found[i]].push(values[i]);
  }
  return found;
}

/**
 * The same for devices that bind whole buffers: which buffer each value has, and the sizes of the buffers, largest first. A
 * buffer is as large as the first value that it was made for, so a large value never follows a small one.
 */
export function planBuffers(values: readonly Lifetime[]): { buffer: number[]; sizes: number[] } {
  const order = values.map((_, i) => i).sort((a, b) => values[b].bytes - values[a].bytes || a - b);
  const buffer = new Array<number>(values.length);
  const sizes: number[] = [];
  const users: number[][] = [];
  for (const i of order) {
    const { bytes, first, last } = values[i];
    // The tightest of those that are free: larger ones stay for values that need them.
    let at = sizes.length - 1;
    const isFree = (j: number) => values[j].last < first || values[j].first > last;
    while (at >= 0 && !users[at].every(isFree)) at--;
    if (at < 0) {
      at = sizes.length;
      sizes.push(bytes);
      users.push([]);
    }
    users[at].push(i);
    buffer[i] = at;
  }
  return { buffer, sizes };
}
