/** @file The figures of `npm run mm1`, against their definitions. */
import fc from "fast-check";
import { BpeTokenizer } from "hinode/models";
import { describe, expect, test } from "vitest";
import type { Rendering } from "../../examples/data/emoji.ts";
import {
  derangement,
  interval95,
  mostFrequent,
  share,
  shuffledExactMatch,
} from "../../examples/mm1/evaluate.ts";

const rendering = (label: string): Rendering => ({
  vendor: "noto",
  concept: { key: label, label, group: 3 },
  pixels: new Uint8Array(3),
});
const hits = (right: number, total = 1) => ({ right, total });

test("a share counts answers, not images", () => {
  expect(share([hits(1, 2), hits(3, 6)])).toBe(0.5);
  expect(share([])).toBe(0);
});

describe("the interval", () => {
  const renderings = Array.from({ length: 200 }, (_, i) => rendering(`${i}`));

  test("is the binomial's for independent images, within a percentage point", () => {
    const list = renderings.map((_, i) => hits(i < 60 ? 1 : 0));
    const [low, high] = interval95(list, renderings);
    const spread = 1.96 * Math.sqrt((0.3 * 0.7) / 200);
    expect(low).toBeCloseTo(0.3 - spread, 1.7);
    expect(high).toBeCloseTo(0.3 + spread, 1.7);
    expect(interval95(list, renderings)).toEqual([low, high]);
  });

  test("is wider when the images are of few concepts", () => {
    const [ten] = [Array.from({ length: 10 }, (_, i) => rendering(`${i}`))];
    const grouped = Array.from({ length: 200 }, (_, i) => ten[i % 10]);
    const list = grouped.map((_, i) => hits(i % 10 < 3 ? 1 : 0));
    const width = ([low, high]: readonly number[]) => high - low;
    const independent = width(interval95(list, renderings));
    expect(width(interval95(list, grouped))).toBeGreaterThan(3 * independent);
  });
});

test("shuffled images: the mean over every way to give an image another one's caption", () => {
  const words = fc.array(fc.constantFrom("a", "b", "c", "d"), { minLength: 2, maxLength: 12 });
  fc.assert(
    fc.property(words, words, (truth, said) => {
      const n = Math.min(truth.length, said.length);
      const renderings = truth.slice(0, n).map(rendering);
      let right = 0;
      for (let i = 0; i < n; i++)
        for (let j = 0; j < n; j++) if (i !== j && truth[i] === said[j]) right++;
      const got = shuffledExactMatch(said.slice(0, n), renderings);
      expect(got).toBeCloseTo(right / (n * (n - 1)), 12);
    }),
  );
});

test("a derangement leaves nothing in its place and loses nothing", () => {
  for (const n of [2, 3, 10, 87]) {
    const list = Array.from({ length: n }, (_, i) => i);
    const moved = derangement(list);
    expect(moved.every((x, i) => x !== i)).toBe(true);
    expect(moved.toSorted((a, b) => a - b)).toEqual(list);
  }
});

test("the most frequent answer: a caption, and a token per position", () => {
  const train = ["red apple", "red apple", "red pear", "green apple"].map(rendering);
  const texts = train.map((r) => ` ${r.concept.label}`);
  const tokenizer = BpeTokenizer.train([...texts, ...texts], { vocabSize: 400 });
  const signal = new AbortController().signal;
  const options = { tokenizer, length: 4, batch: 2, signal };
  const asked = ["red apple", "red pear", "green pear", "apple"].map(rendering);
  const { captions, exact, tokens } = mostFrequent(train, asked, options);
  expect(new Set(captions)).toEqual(new Set(["red apple"]));
  expect(exact.map((h) => h.right)).toEqual([1, 0, 0, 0]);
  // Positions: red, apple, <eos>.
  expect(tokens).toEqual([hits(3, 3), hits(2, 3), hits(1, 3), hits(0, 2)]);
});
