import fc from "fast-check";
import { BpeTokenizer, specials } from "hinode/models";
import { describe, expect, test } from "vitest";

const text =
  "the cat sat on the mat, the rat sat on the cat; a red apple and a green apple, aaaa aaaa";
const small = BpeTokenizer.train([text], { vocabSize: 276, minFrequency: 1 });

describe("training", () => {
  test("learns the merges of Hugging Face's trainer (tokenizers 0.23.2), ties included", () => {
    const merges = small.merges.map(
      ([left, right]) => `${small.tokens[left]} ${small.tokens[right]}`,
    );
    expect(merges).toEqual([
      ...["Ġ a", "a t", "a a", "h e", "t he", "Ġ the", "c at", "l e", "o n", "p p", "r e"],
      ...["s at", "Ġ cat", "Ġ on", "Ġ sat", "Ġa aa"],
    ]);
    expect(small.vocabularySize).toBe(276);
  });

  test("equals recounting all pairs before every merge", () => {
    const words = fc.array(
      fc.string({ unit: fc.constantFrom(..."abc"), minLength: 1, maxLength: 8 }),
      {
        minLength: 1,
        maxLength: 30,
      },
    );
    fc.assert(
      fc.property(words, fc.integer({ min: 1, max: 25 }), (list, merges) => {
        const corpus = list.join(" ");
        const got = BpeTokenizer.train([corpus], { vocabSize: 260 + merges, minFrequency: 1 });
        const pairs = got.merges.map(([l, r]) => [got.tokens[l], got.tokens[r]]);
        expect(pairs).toEqual(recounted(corpus.match(/ ?[abc]+/g)!, got, pairs.length));
      }),
      { numRuns: 300 },
    );
  });

  test("stops where nothing is frequent enough; the order of the texts does not matter", () => {
    const texts = ["red apple", "green apple", "two-hump camel", "apple"];
    const tokenizer = BpeTokenizer.train(texts, { vocabSize: 1000 });
    expect(tokenizer.vocabularySize).toBeLessThan(290);
    expect(BpeTokenizer.train(texts.toReversed(), { vocabSize: 1000 }).tokens).toEqual(tokenizer.tokens); // biome-ignore format: one line
    expect(tokenizer.encode("red apple")).toHaveLength(3); // r, ed, and the word that occurs twice
    expect(() => BpeTokenizer.train(texts, { vocabSize: 100 })).toThrow(/vocabSize ≥ 260, got 100/);
  });

  test("a megabyte of text takes seconds", { timeout: 30_000 }, () => {
    const random = (i: number) => Math.imul(i, 2654435761) >>> 0;
    const corpus = Array.from(
      { length: 150_000 },
      (_, i) => ` ${(random(i) % 40_000).toString(36)}s`,
    );
    const start = performance.now();
    const tokenizer = BpeTokenizer.train(corpus, { vocabSize: 4000 });
    expect(performance.now() - start).toBeLessThan(10_000);
    expect(tokenizer.vocabularySize).toBe(4000);
  });
});

/** The definition, slowly: count all pairs, join the most frequent, begin again. */
function recounted(words: string[], { tokens }: BpeTokenizer, count: number): string[][] {
  const id = new Map(tokens.map((token, i) => [token, i]));
  let split = words.map((word) => [...word.replaceAll(" ", "Ġ")]);
  return Array.from({ length: count }, () => {
    const counts = new Map<string, { pair: string[]; count: number }>();
    for (const parts of split)
      for (let i = 0; i + 1 < parts.length; i++) {
        const pair = parts.slice(i, i + 2);
        const entry = counts.get(pair.join("\0")) ?? { pair, count: 0 };
        counts.set(pair.join("\0"), { pair, count: entry.count + 1 });
      }
    const rank = (pair: string[]) => pair.map((token) => id.get(token)!);
    const [best] = [...counts.values()].sort((a, b) => {
      const [x, y] = [rank(a.pair), rank(b.pair)];
      return b.count - a.count || x[0] - y[0] || x[1] - y[1];
    });
    split = split.map((parts) => {
      const joined: string[] = [];
      for (let i = 0; i < parts.length; i++) {
        const found = parts[i] === best.pair[0] && parts[i + 1] === best.pair[1];
        joined.push(found ? best.pair.join("") : parts[i]);
        if (found) i++;
      }
      return joined;
    });
    return best.pair;
  });
}

describe("encode and decode", () => {
  test("gives the ids of Hugging Face's tokenizers for the same file", () => {
    expect(small.encode("the apple on a mat")).toEqual([264, 260, 269, 267, 273, 260, 224, 80, 261]); // biome-ignore format: one line
    expect(small.encode("aaaaa don't\n\n  é 🍎")).toEqual([
      ...[
        262, 262, 68, 224, 71, 268, 10, 87, 202, 202, 224, 224, 131, 106, 224, 176, 257, 239, 240,
      ],
    ]);
  });

  test("decode inverts encode for every text", () => {
    const round = (s: string): void => {
      expect(small.decode(small.encode(s))).toBe(s);
    };
    for (const s of ["", " ", "  \n\t x  ", "\ufeffbom", "\u0085nel", "a\0b", "<eos>", "e\u0301"])
      round(s);
    const point = fc.integer({ min: 0, max: 0x10ffff });
    const anything = fc.array(point).map((points) => String.fromCodePoint(...points));
    fc.assert(fc.property(anything.map((s) => s.toWellFormed()), round)); // biome-ignore format: one line
    fc.assert(fc.property(fc.string({ unit: "grapheme" }), round));
    const parts = fc.array(fc.constantFrom("the", " cat", "aaaa", " ", "  ", "'s", "7", "é", "🍎"));
    fc.assert(
      fc.property(
        parts.map((list) => list.join("")),
        round,
      ),
    );
  });

  test("merges apply in the order in which they were learned, leftmost first", () => {
    const ranks = new Map(small.merges.map(([l, r, joined], i) => [`${l} ${r}`, { i, joined }]));
    const slow = (piece: string): number[] => {
      const ids = [...piece].map((c) => small.tokens.indexOf(c === " " ? "Ġ" : c));
      for (;;) {
        const at = ids.map((id, i) => ranks.get(`${id} ${ids[i + 1]}`)?.i ?? Infinity);
        const best = Math.min(...at);
        if (!Number.isFinite(best)) return ids;
        ids.splice(at.indexOf(best), 2, small.merges[best][2]);
      }
    };
    const words = fc.string({ unit: fc.constantFrom(..."acehlnoprst"), minLength: 1 });
    fc.assert(
      fc.property(words, (word) => {
        expect(small.encode(` ${word}`)).toEqual(slow(` ${word}`));
      }),
    );
  });

  test("a piece without end takes no quadratic time", () => {
    expect(small.encode("a".repeat(100_000))).toHaveLength(50_000);
  });

  test("half a surrogate pair is no text", () => {
    expect(() => small.encode("ab\ud83cx")).toThrow(/half a surrogate pair as character 2.*toWellFormed/s); // biome-ignore format: one line
    expect(() => BpeTokenizer.train(["\udf4e"], { vocabSize: 300 })).toThrow(/surrogate/);
  });

  test("bytes that are no UTF-8 become U+FFFD, specials vanish, wrong ids throw", () => {
    const [start] = small.encode("é");
    expect(small.decode([start])).toBe("\ufffd");
    const ids = [small.special("<bos>"), ...small.encode("a cat"), small.special("<eos>")];
    expect(small.decode(ids)).toBe("a cat");
    expect(specials.map((name) => small.special(name))).toEqual([0, 1, 2, 3]);
    expect(() => small.special("<mask>")).toThrow(/one of <pad>, <bos>, <eos>, <image>/);
    for (const id of [-1, 1.5, small.vocabularySize]) expect(() => small.decode([id])).toThrow(/ids below 276/); // biome-ignore format: one line
  });
});

interface File {
  model: { type: string; vocab: Record<string, number>; merges: unknown[] };
  pre_tokenizer: Record<string, unknown>;
  normalizer: unknown;
  added_tokens: { id: number }[];
}

describe("tokenizer.json", () => {
  const json = (change: (file: File) => void = () => {}) => {
    const file: File = JSON.parse(JSON.stringify(small));
    change(file);
    return file;
  };

  test("a file gives the same tokenizer again", () => {
    const again = BpeTokenizer.fromJSON(json());
    expect(JSON.stringify(again)).toBe(JSON.stringify(small));
    expect(again.encode(text)).toEqual(small.encode(text));
    const ownNames = BpeTokenizer.train([text], {
      vocabSize: 300,
      specials: ["__proto__", "[END]"],
    });
    expect(BpeTokenizer.fromJSON(JSON.parse(JSON.stringify(ownNames))).special("__proto__")).toBe(
      0,
    );
  });

  test("GPT-2's form is read: merges as text, special tokens outside of the vocabulary", () => {
    const again = BpeTokenizer.fromJSON(
      json((file) => {
        file.model.merges = file.model.merges.map((pair) => (pair as string[]).join(" "));
        for (const name of specials) delete file.model.vocab[name];
      }),
    );
    expect(again.tokens).toEqual(small.tokens);
    expect(again.encode(text)).toEqual(small.encode(text));
  });

  test.each<[string, (file: File) => void, RegExp]>([
    ["another model", (f) => (f.model.type = "WordPiece"), /model.type "BPE", got "WordPiece"/],
    ["no model", (f) => Reflect.deleteProperty(f, "model"), /a model, got nothing/],
    ["other pieces", (f) => (f.pre_tokenizer.type = "Metaspace"), /ByteLevel/],
    ["a prefix", (f) => (f.pre_tokenizer.add_prefix_space = true), /add_prefix_space false/],
    ["a normalizer", (f) => (f.normalizer = { type: "NFC" }), /normalizer null/],
    ["a hole in the ids", (f) => (f.model.vocab.at = 9999), /ids of "at" in 0 … 275, got 9999/],
    ["an id twice", (f) => (f.model.vocab.at = 10), /276 distinct ids/],
    ["a missing byte", (f) => { delete f.model.vocab["!"]; f.model.vocab["Ġ!"] = 4; }, /a token per byte/], // biome-ignore format: one line
    ["unknown merges", (f) => f.model.merges.push(["x", "yz"]), /"yz"/],
    ["odd merges", (f) => f.model.merges.push(["x"]), /merges of two tokens/],
    ["a contradiction", (f) => (f.added_tokens[0].id = 7), /one id of "<pad>"/],
  ])("%s is refused", (_, change, message) => {
    expect(() => BpeTokenizer.fromJSON(json(change))).toThrow(message);
  });

  test("what is no object at all is refused", () => {
    for (const value of [null, [], "x", 3]) expect(() => BpeTokenizer.fromJSON(value)).toThrow(/an object/); // biome-ignore format: one line
  });
});
