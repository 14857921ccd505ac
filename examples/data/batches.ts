/** @file The order in which a training script sees its data: reproducible from a seed. */

/** Numbers in [0, 1) from a seed (mulberry32): order and augmentation repeat with the same seed. */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Endless batches of indices below `count`, each epoch in a new order. */
export function* shuffledBatches(count: number, batch: number, random: () => number) {
  let order: number[] = [];
  const draw = (): number => {
    if (order.length === 0) {
      order = Array.from({ length: count }, (_, i) => i);
      for (let i = count - 1; i > 0; i--) {
        const j = Math.floor(random() * (i + 1));
        [order[i], order[j]] = [order[j], order[i]];
      }
    }
    return order.pop()!;
  };
  while (true) yield Array.from({ length: batch }, draw);
}
