import fc from "fast-check";
import { WordTokenizer } from "hinode/models";
import { describe, expect, test } from "vitest";

const tokenizer = WordTokenizer.train(["red apple", "green apple", "two-hump camel", "apple"]);

describe("WordTokenizer", () => {
  test("frequent words come first and a first word is the same token as a later one", () => {
    expect(tokenizer.words[0]).toBe(" apple");
    expect(tokenizer.encode("apple")).toEqual([tokenizer.encode("red apple")[1]]);
    expect(tokenizer.encode("two-hump camel")).toHaveLength(4);
  });

  test("decode inverts encode for every text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      }),
    );
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom("red", "apple", " ", "  ", "-", "\n", "é", "7", "zoo")),
        (parts) => {
          const text = parts.join("");
          expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
        },
      ),
    );
  });

  test("specials vanish in text, wrong ids throw", () => {
    const { bos, eos, pad, image } = tokenizer;
    expect(tokenizer.decode([bos, image, ...tokenizer.encode("red apple"), eos, pad])).toBe(
      "red apple",
    );
    expect(() => tokenizer.decode([tokenizer.vocabularySize])).toThrow(/ids below/);
    expect(() => new WordTokenizer(["a", "a"])).toThrow(/repeated/);
  });
});
