/** @file DataLoader: batches, collation, order, places to resume at, prefetching, worker threads. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import fc from "fast-check";
import {
  ArgumentError,
  arange,
  DataError,
  Generator,
  ones,
  type Tensor,
  tensor,
  zeros,
} from "hinode";
import {
  DataLoader,
  Dataset,
  defaultCollate,
  IterableDataset,
  type PassContext,
  TensorDataset,
} from "hinode/data";
import { describe, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";
import { numbers } from "./counter.ts";
import { squares } from "./squares.ts";

class Range extends Dataset<number> {
  readonly length: number;
  constructor(length: number) {
    super();
    this.length = length;
  }
  get(index: number): number {
    return index;
  }
}

const same = <T>(x: T[]): T[] => x;

async function all<B>(loader: AsyncIterable<B>): Promise<B[]> {
  const found: B[] = [];
  for await (const batch of loader) found.push(batch);
  return found;
}

onEachDevice("batches", () => {
  test("of tensors: one gather each, in the loader's order", async () => {
    const data = new TensorDataset(arange(10).reshape([5, 2]).float(), arange(5));
    const loader = new DataLoader(data, { batchSize: 2 });
    expect(loader.length).toBe(3);
    const seen: unknown[] = [];
    for await (const [x, y] of loader) seen.push([await x.tolist(), await y.tolist()]);
    expect(seen).toEqual([
      [
        [
          [0, 1],
          [2, 3],
        ],
        [0, 1],
      ],
      [
        [
          [4, 5],
          [6, 7],
        ],
        [2, 3],
      ],
      [[[8, 9]], [4]],
    ]);
  });

  test("stack tensors, typed arrays, numbers, strings and containers", async () => {
    const sample = (i: number) => ({
      t: ones([2]).mul(i),
      image: { data: Uint8Array.of(i, i, i, i), shape: [2, 2] },
      mask: { data: Uint8Array.of(i % 2), shape: [], dtype: "bool" as const },
      half: { data: Float32Array.of(i / 4), shape: [1], dtype: "bf16" as const },
      row: Float64Array.of(i, 0.5),
      short: Int16Array.of(-i),
      pair: [i, `${i}`] as [number, string],
      label: BigInt(i),
      flag: i > 1,
    });
    const batch = defaultCollate([1, 2, 3].map(sample));
    const shown = async (t: Tensor) => [t.dtype, await t.tolist()];
    expect(await shown(batch.t)).toEqual([
      "f32",
      [
        [1, 1],
        [2, 2],
        [3, 3],
      ],
    ]);
    expect(batch.image.shape).toEqual([3, 2, 2]);
    expect(await shown(batch.image.select(0, 2))).toEqual([
      "u8",
      [
        [3, 3],
        [3, 3],
      ],
    ]);
    expect(await shown(batch.mask)).toEqual(["bool", [true, false, true]]);
    expect(await shown(batch.half)).toEqual(["bf16", [[0.25], [0.5], [0.75]]]);
    expect(await shown(batch.row)).toEqual([
      "f32",
      [
        [1, 0.5],
        [2, 0.5],
        [3, 0.5],
      ],
    ]);
    expect(await shown(batch.short)).toEqual(["i32", [[-1], [-2], [-3]]]);
    expect(await shown(batch.pair[0])).toEqual(["f32", [1, 2, 3]]);
    expect(batch.pair[1]).toEqual(["1", "2", "3"]);
    expect(await shown(batch.label)).toEqual(["i32", [1, 2, 3]]);
    expect(await shown(batch.flag)).toEqual(["bool", [false, true, true]]);
  });
});

test("what cannot be collated says where and why", () => {
  const refused: [unknown[], RegExp][] = [
    [[], /at least one sample/],
    [[1, "a"], /sample: a number in each sample, got string in sample 1/],
    [[{ a: [1] }, { a: [1, 2] }], /sample\.a: a list of 1 in each sample, got a list of 2/],
    [[{ a: 1 }, { b: 1 }], /sample: an object of a in each sample, got an object of b/],
    [
      [Float32Array.of(1), Float32Array.of(1, 2)],
      /Float32Array\[1\], got Float32Array\[2\] in sample 1/,
    ],
    [[Float32Array.of(1), Int32Array.of(1)], /Float32Array\[1\], got Int32Array\[1\]/],
    [[{ data: Float32Array.of(1), shape: [2] }], /2 numbers for Float32Array\[2\], got 1/],
    [[2n ** 31n], /within the range of i32, got 2147483648/],
    [[null], /got null/],
    [[zeros([1]), 3], /got Number/],
    [[() => 1], /got Function/],
  ];
  for (const [samples, message] of refused) {
    expect(() => defaultCollate(samples)).toThrow(message);
    expect(() => defaultCollate(samples)).toThrow(DataError);
  }
});

describe("order", () => {
  const order = async (options: object, epochs = 1) => {
    const loader = new DataLoader(new Range(10), { batchSize: 4, collate: same, ...options });
    const found: number[][][] = [];
    for (let e = 0; e < epochs; e++) found.push(await all(loader));
    return found;
  };

  test("by seed: every sample once, another order each epoch, the same on every machine", async () => {
    const [first, second] = await order({ shuffle: true, seed: 7 }, 2);
    for (const epoch of [first, second])
      expect(epoch.flat().sort((a, b) => a - b)).toEqual([...Array(10).keys()]);
    expect(first).not.toEqual(second);
    expect(await order({ shuffle: true, seed: 7 }, 2)).toEqual([first, second]);
    expect(await order({ shuffle: true, seed: 8 }, 1)).not.toEqual([first]);
    // The numbers themselves: a change would break every saved place.
    expect(first.flat()).toMatchInlineSnapshot(`
      [
        1,
        6,
        4,
        9,
        7,
        0,
        5,
        3,
        2,
        8,
      ]
    `);
    const generator = new Generator(3);
    const [drawn] = await order({ shuffle: true, generator });
    expect(generator.state.counter).toBe(1);
    expect(await order({ shuffle: true, generator })).not.toEqual([drawn]);
    expect(await order({ shuffle: true, generator: new Generator(3) })).toEqual([drawn]);
  });

  test("dropLast, samplers and batch samplers", async () => {
    expect(await order({ dropLast: true })).toEqual([
      [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
      ],
    ]);
    const evens = { length: 5, iterate: (epoch: number) => [0, 2, 4, 6, 8].map((i) => i + epoch) };
    expect(await order({ sampler: evens }, 2)).toEqual([
      [[0, 2, 4, 6], [8]],
      [[1, 3, 5, 7], [9]],
    ]);
    const batchSampler = { length: 2, iterate: () => [[9], [1, 2]] };
    expect(await order({ batchSampler, batchSize: undefined })).toEqual([[[9], [1, 2]]]);
  });

  test("options that contradict each other are refused", () => {
    const sampler = { length: 1, iterate: () => [0] };
    const make = (options: object) => () => new DataLoader(new Range(3), options);
    expect(make({ batchSize: 0 })).toThrow(ArgumentError);
    expect(make({ shuffle: true, sampler })).toThrow(/a sampler, or shuffle/);
    expect(make({ batchSampler: sampler, batchSize: 2 })).toThrow(/without batchSize/);
    expect(make({ numWorkers: 2 })).toThrow(/the URL of the dataset's module/);
    expect(make({ seed: -1 })).toThrow(/2⁵³/);
    expect(() => new DataLoader(numbers, { shuffle: true })).toThrow(/its own order/);
  });
});

describe("places", () => {
  test("a resumed loader gives exactly the rest, and the same epochs after it", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          n: fc.nat(30),
          batchSize: fc.integer({ min: 1, max: 7 }),
          seed: fc.nat(),
          taken: fc.nat(40),
        }),
        async ({ n, batchSize, seed, taken }) => {
          const make = (s: number) =>
            new DataLoader(new Range(n), { batchSize, shuffle: true, seed: s, collate: same });
          const loader = make(seed);
          let state = loader.state();
          const rest: number[][][] = [[]];
          let count = 0;
          for (let epoch = 0; epoch < 3; epoch++) {
            if (count >= taken && rest.at(-1)!.length > 0) rest.push([]);
            for await (const batch of loader) {
              if (count++ < taken) state = loader.state();
              else rest.at(-1)!.push(batch);
            }
          }
          const resumed = make(seed + 1);
          resumed.load(JSON.parse(JSON.stringify(state)));
          expect(resumed.state()).toEqual(state);
          const again: number[][] = [];
          while (resumed.state().epoch < 3) again.push(...(await all(resumed)));
          expect(again).toEqual(rest.flat());
        },
      ),
      { numRuns: 40 },
    );
  });

  test("leaving an epoch early keeps the place; going on is the next epoch", async () => {
    const make = () => new DataLoader(new Range(6), { batchSize: 2, collate: same });
    const loader = make();
    for await (const _ of loader) break;
    const state = loader.state();
    expect(state).toMatchObject({ epoch: 0, batch: 1 });
    expect(await all(loader)).toEqual([
      [0, 1],
      [2, 3],
      [4, 5],
    ]);
    expect(loader.state()).toMatchObject({ epoch: 2, batch: 0 });
    const resumed = make();
    resumed.load(state);
    expect(await all(resumed)).toEqual([
      [2, 3],
      [4, 5],
    ]);
    expect(() => new DataLoader(new Range(7), { batchSize: 2 }).load(state)).toThrow(ArgumentError);
    expect(() => make().load({ ...state, batch: -1 })).toThrow(ArgumentError);
  });

  test("what samples draw depends on seed, epoch and index alone", async () => {
    class Noise extends Dataset<number> {
      readonly length = 6;
      get(_: number, context?: { random: () => number }): number {
        return context!.random();
      }
    }
    const draws = async (batchSize: number, seed: number) => {
      const loader = new DataLoader(new Noise(), { batchSize, seed, collate: same });
      return [(await all(loader)).flat(), (await all(loader)).flat()];
    };
    const [first, second] = await draws(2, 1);
    expect(new Set([...first, ...second]).size).toBe(12);
    expect(await draws(3, 1)).toEqual([first, second]);
    expect(await draws(2, 2)).not.toEqual([first, second]);
  });

  test("an iterable dataset is told what to pass over", async () => {
    class Stream extends IterableDataset<number> {
      async *iterate({ epoch, skip }: PassContext) {
        for (let i = skip; i < 5; i++) yield 10 * epoch + i;
      }
    }
    const make = () => new DataLoader(new Stream(), { batchSize: 2, collate: same });
    const loader = make();
    expect(loader.length).toBeUndefined();
    expect(await all(loader)).toEqual([[0, 1], [2, 3], [4]]);
    for await (const _ of loader) break;
    const resumed = make();
    resumed.load(loader.state());
    expect(await all(resumed)).toEqual([[12, 13], [14]]);
    expect(
      await all(new DataLoader(new Stream(), { batchSize: 2, dropLast: true, collate: same })),
    ).toEqual([
      [0, 1],
      [2, 3],
    ]);
    expect(await all(new Stream())).toEqual([0, 1, 2, 3, 4]);
  });
});

describe("prefetching", () => {
  test("is bounded, keeps the order, and an error comes in its turn", async () => {
    let [begun, running, most] = [0, 0, 0];
    class Slow extends Dataset<number> {
      readonly length = 8;
      async get(index: number): Promise<number> {
        begun++;
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 3 * ((index * 5) % 4)));
        running--;
        if (index === 5) throw new RangeError("sample 5");
        return index;
      }
    }
    const loader = new DataLoader(new Slow(), { prefetch: 2, collate: same });
    const seen: number[] = [];
    const run = async () => {
      for await (const [i] of loader) {
        expect(begun).toBeLessThanOrEqual(i + 3);
        seen.push(i);
      }
    };
    await expect(run()).rejects.toThrow(new RangeError("sample 5"));
    expect(seen).toEqual([0, 1, 2, 3, 4]);
    expect(most).toBe(3);
    expect(loader.state()).toMatchObject({ epoch: 0, batch: 5 });
    begun = 0;
    for await (const _ of new DataLoader(new Slow(), { collate: same })) break;
    expect(begun).toBe(1);
  });
});

describe("worker threads", () => {
  const worker = new URL("./squares.ts", import.meta.url);
  const options = { batchSize: 3, shuffle: true, seed: 5, worker };
  const plain = (length: number) =>
    new DataLoader(squares(length), { batchSize: 3, shuffle: true, seed: 5 });
  const shown = async (batches: { x: Tensor; square: Tensor; noise: Tensor; name: string[] }[]) =>
    Promise.all(
      batches.map(async (b) => [
        await b.x.tolist(),
        await b.square.tolist(),
        await b.noise.tolist(),
        b.name,
      ]),
    );

  test("give the batches of one thread, whatever their number, also when resumed", async () => {
    const expected = await shown(await all(plain(11)));
    for (const numWorkers of [1, 3]) {
      const loader = new DataLoader(squares(11), {
        ...options,
        numWorkers,
        workerData: { length: 11 },
      });
      expect(await shown(await all(loader))).toEqual(expected);
      loader.load({ ...loader.state(), epoch: 0, batch: 2 });
      expect(await shown(await all(loader))).toEqual(expected.slice(2));
    }
  });

  test("a sample's error comes with its batch, and another dataset is found out", async () => {
    const run = async (workerData: object, seen: unknown[]) => {
      const loader = new DataLoader(squares(11), {
        batchSize: 3,
        worker,
        numWorkers: 2,
        workerData,
      });
      for await (const batch of loader) seen.push(batch.name);
    };
    const seen: unknown[] = [];
    await expect(run({ length: 11, failAt: 7 }, seen)).rejects.toThrow(
      /worker 0: expected a batch, got RangeError: no sample 7/,
    );
    expect(seen.length).toBe(2);
    await expect(run({ length: 12 }, [])).rejects.toThrow(/a dataset of 11 samples.*got 12/);
    const missing = new DataLoader(squares(1), {
      numWorkers: 1,
      worker: new URL("./none.ts", import.meta.url),
    });
    await expect(all(missing)).rejects.toThrow(DataError);
  });

  test("samples reach a collate function of the main thread, the dataset keeps its arrays", async () => {
    const collate = (samples: { x: Float32Array }[]) => samples.map((s) => [...s.x]);
    const loader = new DataLoader(squares(4), {
      batchSize: 2,
      collate,
      worker,
      numWorkers: 1,
      workerData: { length: 4 },
    });
    const expected = [
      [
        [0, 1],
        [1, 2],
      ],
      [
        [2, 3],
        [3, 4],
      ],
    ];
    expect(await all(loader)).toEqual(expected);
    expect(await all(loader)).toEqual(expected);
  });

  test("an iterable dataset in a thread of its own, with the module's collation", async () => {
    const module = new URL("./counter.ts", import.meta.url);
    const loader = new DataLoader<unknown, Tensor>(numbers, {
      batchSize: 3,
      numWorkers: 1,
      worker: module,
    });
    const values = async () => Promise.all((await all(loader)).map((t) => t.tolist()));
    expect(await values()).toEqual([[[0], [1], [2]], [[3], [4], [5]], [[6]]]);
    loader.load({ ...loader.state(), batch: 1 });
    expect(await values()).toEqual([[[13], [14], [15]], [[16]]]);
    expect(() => new DataLoader(numbers, { numWorkers: 2, worker: module })).toThrow(/0 or 1/);
    const other = new DataLoader(numbers, { numWorkers: 1, worker, workerData: { length: 4 } });
    await expect(all(other)).rejects.toThrow(/an iterable dataset/);
  });

  test("never keep the process alive, also when an iteration is left lying", () => {
    const code = `
      import { DataLoader } from "hinode/data";
      import { squares } from "${join(import.meta.dirname, "squares.ts")}";
      const loader = new DataLoader(squares(40), { numWorkers: 2, prefetch: 8, workerData: { length: 40 },
        worker: "${worker}", collate: (s) => s });
      const iterator = loader[Symbol.asyncIterator]();
      console.log((await iterator.next()).value[0].name);
      for await (const batch of loader) { console.log(batch[0].name); break; }`;
    const run = spawnSync(
      process.execPath,
      ["--conditions=source", "--input-type=module", "-e", code],
      {
        encoding: "utf8",
        cwd: join(import.meta.dirname, "../.."),
        timeout: 30_000,
      },
    );
    expect([run.stdout, run.stderr, run.status]).toEqual(["sample 0\nsample 0\n", "", 0]);
  });
});

test("a tensor may be a sample's member", async () => {
  class Mixed extends Dataset<[Tensor, number]> {
    readonly length = 2;
    get(i: number): [Tensor, number] {
      return [tensor([i, i]), i];
    }
  }
  for await (const [x, y] of new DataLoader(new Mixed(), { batchSize: 2 }))
    expect([await x.tolist(), await y.tolist()]).toEqual([
      [
        [0, 0],
        [1, 1],
      ],
      [0, 1],
    ]);
});
