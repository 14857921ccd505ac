/**
 * @file The order in which a training script sees its data. What happens at a step is a function of the seed and the
 * step's number, not of what was drawn before: a run that is resumed there goes on as if it had never stopped.
 */

/** Numbers in [0, 1) from integers, such as a seed, a purpose and a step (mulberry32 over a hash of them). */
export function uniform(...key: readonly number[]): () => number {
  let state = 0;
  // Seeds may have 53 bits; each half is mixed in.
  for (const part of key)
    for (const half of [part >>> 0, Math.floor(part / 2 ** 32)])
      state = mix((Math.imul(state, 0x85ebca6b) + half + 1) >>> 0);
  return () => mix((state = (state + 0x6d2b79f5) >>> 0)) / 2 ** 32;
}

function mix(x: number): number {
  let t = Math.imul(x ^ (x >>> 15), x | 1);
  t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
  return (t ^ (t >>> 14)) >>> 0;
}

/** 0 … count − 1 in a random order. */
export function shuffled(count: number, random: () => number): number[] {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** The indices below `count` of each step's batch: epochs one after the other, each in a new order. */
export function shuffledBatches(
  count: number,
  batch: number,
  seed: number,
): (step: number) => number[] {
  let [epoch, order] = [-1, [] as number[]];
  return (step) =>
    Array.from({ length: batch }, (_, i) => {
      const position = step * batch + i;
      const wanted = Math.floor(position / count);
      if (wanted !== epoch) [epoch, order] = [wanted, shuffled(count, uniform(seed, wanted))];
      return order[position % count];
    });
}
