/** @file Datasets made of others, and samplers: which positions, how often, in which order. */
import fc from "fast-check";
import { ArgumentError, arange, Generator, ShapeError, zeros } from "hinode";
import {
  BatchSampler,
  ConcatDataset,
  DataLoader,
  Dataset,
  RandomSampler,
  randomSplit,
  SequentialSampler,
  ShardedSampler,
  Subset,
  TensorDataset,
  WeightedRandomSampler,
} from "hinode/data";
import { describe, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

class Range extends Dataset<number> {
  readonly length: number;
  readonly #from: number;
  constructor(length: number, from = 0) {
    super();
    this.length = length;
    this.#from = from;
  }
  get(index: number): number {
    return this.#from + index;
  }
}

const count = (n: number): number[] => [...Array(n).keys()];
const sorted = (x: Iterable<number>): number[] => [...x].sort((a, b) => a - b);
const samples = (d: Dataset<number>) => count(d.length).map((i) => d.get(i) as number);

describe("datasets", () => {
  test("of parts and of several", () => {
    expect(samples(new Subset(new Range(5), [4, 0, 4]))).toEqual([4, 0, 4]);
    const both = new ConcatDataset([new Range(2), new Range(0), new Range(3, 10)]);
    expect(both.length).toBe(5);
    expect(samples(both)).toEqual([0, 1, 10, 11, 12]);
    expect(() => new Subset(new Range(5), [5])).toThrow(ArgumentError);
    expect(() => both.get(5)).toThrow(ArgumentError);
    expect(() => new ConcatDataset([])).toThrow(ArgumentError);
    expect(() => new TensorDataset(zeros([2]), zeros([3]))).toThrow(ShapeError);
    expect(() => new TensorDataset()).toThrow(ShapeError);
  });

  test("random splits are disjoint, complete and repeatable", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(9), { minLength: 1, maxLength: 4 }),
        fc.nat(),
        (lengths, seed) => {
          const total = lengths.reduce((a, b) => a + b, 0);
          const parts = randomSplit(new Range(total), lengths, { seed });
          expect(parts.map((p) => p.length)).toEqual(lengths);
          expect(sorted(parts.flatMap(samples))).toEqual(count(total));
          const again = randomSplit(new Range(total), lengths, { seed });
          expect(again.map(samples)).toEqual(parts.map(samples));
        },
      ),
    );
    const sizes = (n: number, fractions: number[]) =>
      randomSplit(new Range(n), fractions, { generator: new Generator(0) }).map((p) => p.length);
    // torch.utils.data.random_split(range(10), [0.3, 0.3, 0.4]) and so on.
    expect(sizes(10, [0.3, 0.3, 0.4])).toEqual([3, 3, 4]);
    expect(sizes(10, [1 / 3, 1 / 3, 1 / 3])).toEqual([4, 3, 3]);
    expect(sizes(11, [0.5, 0.25, 0.25])).toEqual([6, 3, 2]);
    expect(() => sizes(10, [0.5, 0.4])).toThrow(/sum to 0\.9/);
    expect(() => sizes(10, [3, 3])).toThrow(ArgumentError);
  });
});

onEachDevice("subsets of tensors", () => {
  test("are gathered at once", async () => {
    const data = new TensorDataset(arange(12).reshape([6, 2]));
    const [, part] = randomSplit(data, [4, 2], { seed: 3 });
    const rows: number[][] = [];
    for await (const [x] of new DataLoader(part, { batchSize: 2 }))
      rows.push(...((await x.tolist()) as number[][]));
    expect(rows).toEqual([...Array.from(part.indices)].map((i) => [2 * i, 2 * i + 1]));
    const [row] = part.get(0) as Awaited<ReturnType<typeof data.get>>;
    expect(await row.tolist()).toEqual(rows[0]);
  });
});

describe("samplers", () => {
  test("sequential, random and batches of them", () => {
    expect([...new SequentialSampler(3).iterate()]).toEqual([0, 1, 2]);
    const batches = new BatchSampler(new SequentialSampler(5), 2);
    expect([batches.length, [...batches.iterate(0)]]).toEqual([3, [[0, 1], [2, 3], [4]]]);
    const whole = new BatchSampler(new SequentialSampler(5), 2, { dropLast: true });
    expect([whole.length, [...whole.iterate(0)]]).toEqual([
      2,
      [
        [0, 1],
        [2, 3],
      ],
    ]);
    const random = new RandomSampler(6, { seed: 1 });
    expect(sorted(random.iterate(0))).toEqual(count(6));
    expect([...random.iterate(1)]).not.toEqual([...random.iterate(0)]);
    // More than there are: whole shuffles, then a part of one.
    const more = [...new RandomSampler(3, { seed: 1, numSamples: 8 }).iterate(0)];
    expect([sorted(more.slice(0, 3)), sorted(more.slice(3, 6)), more.length]).toEqual([
      count(3),
      count(3),
      8,
    ]);
    expect(() => new RandomSampler(0, { numSamples: 1 })).toThrow(ArgumentError);
    expect(() => new BatchSampler(random, 0)).toThrow(ArgumentError);
  });

  /** Whether `seen` of n draws is within five standard deviations of a binomial with probability p. */
  const plausible = (seen: number, n: number, p: number) =>
    expect(Math.abs(seen - n * p)).toBeLessThan(5 * Math.sqrt(n * p * (1 - p)) + 1e-9);

  test("with replacement and by weights: as often as they should", () => {
    const n = 20_000;
    const tally = (drawn: Iterable<number>, size: number) => {
      const found = new Array<number>(size).fill(0);
      for (const i of drawn) found[i]++;
      return found;
    };
    const even = tally(
      new RandomSampler(5, { seed: 2, replacement: true, numSamples: n }).iterate(0),
      5,
    );
    for (const seen of even) plausible(seen, n, 1 / 5);
    const weights = [0, 1, 3, 0, 4];
    const drawn = tally(new WeightedRandomSampler(weights, n, { seed: 2 }).iterate(0), 5);
    for (const [i, seen] of drawn.entries()) plausible(seen, n, weights[i] / 8);
    // Without replacement the first draw has the same probabilities, and none comes twice.
    const sampler = new WeightedRandomSampler(weights, 3, { replacement: false, seed: 2 });
    const firsts = new Array<number>(5).fill(0);
    for (let epoch = 0; epoch < 4000; epoch++) {
      const [a, b, c] = sampler.iterate(epoch);
      expect(sorted([a, b, c])).toEqual([1, 2, 4]);
      firsts[a]++;
    }
    for (const [i, seen] of firsts.entries()) plausible(seen, 4000, weights[i] / 8);
    expect(() => new WeightedRandomSampler(weights, 4, { replacement: false })).toThrow(
      /4 weights above 0/,
    );
    expect(() => new WeightedRandomSampler([-1, 1], 1)).toThrow(ArgumentError);
    expect(() => new WeightedRandomSampler([0], 1)).toThrow(ArgumentError);
  });

  test("permutations are even: each position holds each sample equally often", () => {
    const n = 3000;
    const sampler = new RandomSampler(4, { seed: 9 });
    const seen = count(4).map(() => new Array<number>(4).fill(0));
    for (let epoch = 0; epoch < n; epoch++)
      for (const [at, i] of [...sampler.iterate(epoch)].entries()) seen[at][i]++;
    for (const row of seen) for (const times of row) plausible(times, n, 1 / 4);
  });

  test("shards of processes are disjoint, of one size, and shuffled alike", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 5 }),
        fc.boolean(),
        (n, worldSize, dropLast) => {
          const parts = count(worldSize).map((rank) => {
            const sampler = new ShardedSampler(n, { rank, worldSize, dropLast });
            const found = [...sampler.iterate(2)];
            expect(found.length).toBe(sampler.length);
            return found;
          });
          expect(new Set(parts.map((p) => p.length)).size).toBe(1);
          const all = parts.flat();
          if (!dropLast) expect(new Set(all)).toEqual(new Set(count(n)));
          else expect(new Set(all).size).toBe(n - (n % worldSize));
        },
      ),
    );
    // torch.utils.data.DistributedSampler(range(5), num_replicas=2, rank=1, shuffle=False)
    expect([
      ...new ShardedSampler(5, { rank: 1, worldSize: 2, shuffle: false }).iterate(0),
    ]).toEqual([1, 3, 0]);
    expect(() => new ShardedSampler(5, { rank: 2, worldSize: 2 })).toThrow(ArgumentError);
  });
});
