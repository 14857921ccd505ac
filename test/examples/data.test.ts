import { NO_TARGET, WordTokenizer } from "hinode/models";
import { describe, expect, test } from "vitest";
import { shuffledBatches, uniform } from "../../examples/data/batches.ts";
import { encodeCaptions, toPlanes } from "../../examples/data/captions.ts";
import { squareOnWhite } from "../../examples/data/emoji.ts";
import { loadMnist, parseIdx } from "../../examples/data/idx.ts";

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
    const white = new Uint8Array(8 * 8 * 3).fill(255);
    toPlanes(white, 8, out, uniform(1));
    expect(out.every((v) => v === 0)).toBe(true);
  });
});

describe("batches", () => {
  test("every epoch holds each index once, in an order that the seed gives", () => {
    const take = (seed: number, n: number) => {
      const batches = shuffledBatches(10, 5, uniform(seed));
      return Array.from({ length: n }, () => batches.next().value!).flat();
    };
    const drawn = take(1, 4);
    expect(drawn.slice(0, 10).toSorted((a, b) => a - b)).toEqual([...Array(10).keys()]);
    expect(drawn.slice(10).toSorted((a, b) => a - b)).toEqual([...Array(10).keys()]);
    expect(take(1, 4)).toEqual(drawn);
    expect(take(2, 4)).not.toEqual(drawn);
  });

  test("captions: <bos> in front of the inputs, <eos> behind the targets, nothing to predict in the padding", () => {
    const tokenizer = WordTokenizer.train(["red apple", "pear"]);
    const { inputs, targets } = encodeCaptions(["red apple", "pear"], tokenizer, 4);
    const [red, apple] = tokenizer.encode("red apple");
    const [pear] = tokenizer.encode("pear");
    expect([...inputs]).toEqual([1, red, apple, 0, 1, pear, 0, 0]);
    expect([...targets]).toEqual([red, apple, 2, NO_TARGET, pear, 2, NO_TARGET, NO_TARGET]);
    expect(() => encodeCaptions(["red apple"], tokenizer, 2)).toThrow(/2 tokens/);
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
