import { BpeTokenizer, NO_TARGET } from "hinode/models";
import { describe, expect, test } from "vitest";
import { shuffled, shuffledBatches, uniform } from "../../examples/data/batches.ts";
import {
  captionOf,
  captionTask,
  captionText,
  encodeCaptions,
} from "../../examples/data/captions.ts";
import { type Concept, type Rendering, squareOnWhite, vendors } from "../../examples/data/emoji.ts";
import { loadMnist, parseIdx } from "../../examples/data/idx.ts";
import { blankPicture, imagesOf, toPlanes } from "../../examples/data/planes.ts";
import { baseName, families, fingerprint, heldOutConcepts } from "../../examples/data/split.ts";

describe("emoji pixels", () => {
  test("a drawing is cut to its outline, centred, and put on white", () => {
    const drawn = 12;
    const rgba = new Uint8Array(drawn * drawn * 4);
    // A red bar of 8 × 4 pixels somewhere off the centre.
    for (let y = 1; y < 5; y++)
      for (let x = 3; x < 11; x++) rgba.set([200, 0, 0, 255], (y * drawn + x) * 4);
    const out = squareOnWhite(rgba, drawn, 4);
    const rows = Array.from({ length: 4 }, (_, y) => out[y * 4 * 3 + 1]); // green of each row
    expect(rows).toEqual([255, 0, 0, 255]);
    expect([...out.subarray(12, 15)]).toEqual([200, 0, 0]);
  });

  test("half-transparent pixels mix with white, an empty drawing is white", () => {
    const rgba = new Uint8Array(4 * 4 * 4).fill(0);
    expect([...squareOnWhite(rgba, 4, 2)]).toEqual(Array(12).fill(255));
    for (let i = 0; i < 16; i++) rgba.set([0, 0, 0, 51], i * 4);
    expect([...squareOnWhite(rgba, 4, 2)]).toEqual(Array(12).fill(204));
  });

  test("planes: channels first, white is 0; augmentation keeps a white background white", () => {
    const pixels = new Uint8Array(8 * 8 * 3).fill(255);
    pixels.set([0, 127.5, 255], 0);
    const out = new Float32Array(3 * 64);
    toPlanes(pixels, 8, out);
    expect([out[0], out[128], out[1]]).toEqual([2, 0, 0]);
    for (let seed = 0; seed < 20; seed++) {
      toPlanes(blankPicture(8), 8, out, uniform(seed));
      expect(out.every((v) => v === 0)).toBe(true);
    }
  });

  test("augmentation is a function of its random numbers, and keeps ink between 0 and 2", async () => {
    const random = uniform(3);
    const pixels = Uint8Array.from({ length: 8 * 8 * 3 }, () => 256 * random());
    const view = (seed: number) => imagesOf([pixels, pixels], 8, uniform(seed)).data();
    const [a, b, c] = [await view(1), await view(1), await view(2)];
    expect(a).toEqual(b);
    expect(a).not.toEqual(c);
    expect(a.slice(0, 192)).not.toEqual(a.slice(192));
    expect(a.every((v) => v >= 0 && v <= 2)).toBe(true);
  });
});

describe("batches", () => {
  test("every epoch holds each index once, in an order that the seed gives", () => {
    const take = (seed: number, n: number) => {
      const batches = shuffledBatches(10, 4, seed);
      return Array.from({ length: n }, (_, step) => batches(step)).flat();
    };
    const drawn = take(1, 5);
    const all = [...Array(10).keys()];
    expect(drawn.slice(0, 10).toSorted((a, b) => a - b)).toEqual(all);
    expect(drawn.slice(10).toSorted((a, b) => a - b)).toEqual(all);
    expect(drawn.slice(10)).not.toEqual(drawn.slice(0, 10));
    expect(take(1, 5)).toEqual(drawn);
    expect(take(2, 5)).not.toEqual(drawn);
  });

  test("a batch does not depend on which were asked for before", () => {
    const forwards = shuffledBatches(7, 3, 5);
    const inOrder = Array.from({ length: 20 }, (_, step) => forwards(step));
    for (const step of shuffled(20, uniform(1)))
      expect(shuffledBatches(7, 3, 5)(step)).toEqual(inOrder[step]);
    expect(forwards(0)).toEqual(inOrder[0]);
  });

  test("random numbers differ with every part of their key, large seeds included", () => {
    const keys = [[0], [1], [0, 0], [0, 1], [1, 0], [2 ** 40], [2 ** 41], [0, 2 ** 40]];
    const firsts = keys.map((key) => uniform(...key)());
    expect(new Set(firsts).size).toBe(keys.length);
    const many = Array.from({ length: 10_000 }, (_, i) => uniform(7, i)());
    expect(many.reduce((a, b) => a + b) / many.length).toBeCloseTo(0.5, 1);
    expect(many.every((x) => x >= 0 && x < 1)).toBe(true);
  });
});

describe("captions", () => {
  const tokenizer = BpeTokenizer.train([" red apple", " red apple", " pear", " pear"], {
    vocabSize: 300,
  });

  test("image and <bos> in front, <eos> behind; they and the padding are nothing to predict", () => {
    const layout = { length: 3, imageTokens: 2 };
    const { ids, labels, width } = encodeCaptions(["red apple", "pear"], tokenizer, layout);
    const [red, apple] = tokenizer.encode(" red apple");
    const [pear] = tokenizer.encode(" pear");
    const [pad, bos, eos, image] = ["<pad>", "<bos>", "<eos>", "<image>"].map((name) => tokenizer.special(name)); // biome-ignore format: one line
    const none = NO_TARGET;
    expect(width).toBe(6);
    expect([...ids]).toEqual([image, image, bos, red, apple, eos, image, image, bos, pear, eos, pad]); // biome-ignore format: rows
    expect([...labels]).toEqual([none, none, none, red, apple, eos, none, none, none, pear, eos, none]); // biome-ignore format: rows
    expect(() => encodeCaptions(["red apple"], tokenizer, { ...layout, length: 2 })).toThrow(/2 tokens/); // biome-ignore format: one line
  });

  test("the space in front of the text is no part of the caption", () => {
    for (const caption of ["red apple", " spaced", ""])
      expect(captionOf(tokenizer, tokenizer.encode(captionText(caption)))).toBe(caption);
  });
});

describe("what is held out", () => {
  let drawn = 0;
  const concept = (key: string, label: string): Concept => ({ key, label, group: 3 });
  /** A picture that resembles no other one. */
  const noise = () => {
    const random = uniform(drawn++);
    return Uint8Array.from({ length: 32 * 32 * 3 }, () => 256 * random());
  };
  const byAll = (c: Concept): Rendering[] =>
    vendors.map((vendor) => ({ vendor, concept: c, pixels: noise() }));
  const labels = (groups: readonly Concept[][]) => groups.map((g) => g.map((c) => c.label)).sort();

  test("variants are one family: joined characters, variant words, near-duplicate pictures", () => {
    const list = [
      concept("1f408", "cat"),
      concept("1f408-200d-2b1b", "black cat"),
      concept("1f431", "cat face"),
      concept("1f9d1-200d-1f33e", "farmer"),
      concept("1f469-200d-1f33e", "woman farmer"),
      concept("1f550", "one o’clock"),
      concept("1f567", "twelve-thirty"),
      concept("1f34e", "red apple"),
      concept("1f34f", "green apple"),
      concept("1f350", "pear"),
      concept("1f351", "peach"),
    ];
    const renderings = list.flatMap(byAll);
    // One vendor's peach is its pear with one pixel changed.
    const of = (label: string) => renderings.find((r) => r.concept.label === label)!;
    of("peach").pixels.set(of("pear").pixels);
    of("peach").pixels[40] ^= 8;
    expect(labels(families(renderings))).toEqual([
      ["cat", "black cat", "cat face"],
      ["farmer", "woman farmer"],
      ["green apple"],
      ["one o’clock", "twelve-thirty"],
      ["pear", "peach"],
      ["red apple"],
    ]);
    expect(baseName("Oncoming police car")).toBe("police car");
    expect(baseName("waxing gibbous moon")).toBe(baseName("full moon face"));
  });

  test("the fingerprint sees shape and colour, not size", () => {
    const picture = (size: number, right: number[]) =>
      Uint8Array.from({ length: size * size * 3 }, (_, i) =>
        Math.floor(i / 3) % size < size / 2 ? 255 : right[i % 3],
      );
    const small = fingerprint(picture(16, [200, 0, 0]));
    expect(fingerprint(picture(64, [200, 0, 0])).bits).toEqual(small.bits);
    expect(small.colour.map(Math.round)).toEqual([228, 128, 128]);
    expect(fingerprint(blankPicture(32)).bits.every((word) => word === 0)).toBe(true);
  });

  test("a hash decides: the order is nothing, families stay together, a new concept moves no other", () => {
    const list = Array.from({ length: 60 }, (_, i) => concept(`1f${i}`, `thing ${i}`));
    const renderings = list.flatMap(byAll);
    const rule = { salt: "test", share: 0.3 };
    const keys = (of: readonly Rendering[]) =>
      [...heldOutConcepts(of, rule)].map((c) => c.key).sort();
    const held = keys(renderings);
    expect(held.length).toBeGreaterThan(8);
    expect(held.length).toBeLessThan(30);
    expect(keys(renderings.toReversed())).toEqual(held);
    const more = keys([...renderings, ...byAll(concept("2f00", "something else"))]);
    expect(more.filter((key) => key !== "2f00")).toEqual(held);
    const other = [...heldOutConcepts(renderings, { ...rule, salt: "other" })];
    expect(other.map((c) => c.key).sort()).not.toEqual(held);
  });

  test("no concept and no vendor is on two sides", () => {
    const list = Array.from({ length: 60 }, (_, i) => concept(`1f${i}`, `thing ${i}`));
    const { train, unseenVendor, unseenConcept } = captionTask(list.flatMap(byAll));
    const concepts = (of: readonly Rendering[]) => new Set(of.map((r) => r.concept));
    const drawnBy = (of: readonly Rendering[]) => new Set(of.map((r) => r.vendor));
    expect(train.length).toBeGreaterThan(100);
    expect(concepts(unseenVendor)).toEqual(concepts(train));
    expect(concepts(unseenConcept).isDisjointFrom(concepts(train))).toBe(true);
    expect(drawnBy(unseenVendor).isDisjointFrom(drawnBy(train))).toBe(true);
    expect(drawnBy(unseenConcept)).toEqual(drawnBy(train));
  });
});

describe("MNIST", () => {
  test("has its well-known sizes and label counts", () => {
    const test = loadMnist("test");
    expect([test.count, test.images.length]).toEqual([10_000, 10_000 * 784]);
    expect(test.labels.filter((l) => l === 0).length).toBe(980);
    expect(loadMnist("train").labels.filter((l) => l === 1).length).toBe(6742);
  });

  test("files that are not what their header says are refused", () => {
    const file = Uint8Array.from([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]);
    expect([...parseIdx(file).data]).toEqual([7, 9]);
    expect(() => parseIdx(file.subarray(0, 9))).toThrow(/expected 10 bytes/);
    expect(() => parseIdx(file.subarray(0, 6))).toThrow(/cut off/);
    expect(() => parseIdx(Uint8Array.from([0, 0, 13, 1, 0, 0, 0, 2, 7, 9]))).toThrow(/0xd/);
    expect(() => parseIdx(Uint8Array.from([1, 2, 3, 4]))).toThrow(/not an IDX/);
  });
});
