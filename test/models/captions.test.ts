/** @file Scores of captions: the numbers of COCO's evaluation code for four images, and what the formulas say at their ends. */
import { bleu, captionTokens, ciderD, rougeL } from "hinode/models";
import { describe, expect, test } from "vitest";

const candidates = [
  "a man riding a horse on a beach",
  "two dogs playing in the snow",
  "a red bus parked on the street",
  "a bowl of fruit",
];
const references = [
  [
    "a man rides a horse on the beach",
    "a person riding a horse along the shore",
    "man on horseback at the beach",
  ],
  [
    "two dogs play in the snow",
    "a pair of dogs running through snow",
    "dogs playing outside in winter",
  ],
  [
    "a red double decker bus on a street",
    "a bus parked near a building",
    "the red bus is driving down the street",
  ],
  ["a bowl filled with apples and oranges", "fruit in a bowl on a table", "a bowl of fresh fruit"],
];

describe("four images", () => {
  // pycocoevalcap's, of these very texts.
  test("CIDEr-D", () => {
    const { score, perImage } = ciderD(candidates, references);
    expect(score).toBeCloseTo(2.3001962572555703, 12);
    const want = [2.2969688436929983, 2.310448728840647, 2.000407881756462, 2.5929595747321725];
    for (const [i, value] of want.entries()) expect(perImage[i]).toBeCloseTo(value, 12);
  });

  test("BLEU and ROUGE-L", () => {
    const [one, two, three, four] = bleu(candidates, references);
    expect(one).toBeCloseTo(0.96, 8);
    expect(two).toBeCloseTo(0.8, 8);
    expect(three).toBeCloseTo(0.532023, 6);
    expect(four).toBeCloseTo(5.83394e-5, 9);
    expect(rougeL(candidates, references).score).toBeCloseTo(0.7783773012444719, 12);
  });
});

test("the best there is, and nothing at all", () => {
  const own = candidates.slice(0, 3);
  const same = own.map((text) => [text]);
  const best = ciderD(own, same);
  for (const score of best.perImage) expect(score).toBeCloseTo(10, 12);
  for (const score of bleu(own, same)) expect(score).toBeCloseTo(1, 8);
  expect(rougeL(own, same).perImage).toEqual([1, 1, 1]);
  const silent = own.map(() => "…!");
  expect(ciderD(own.map(() => ""), same).score).toBe(0); // biome-ignore format: one line
  expect(rougeL(silent, same).score).toBe(0);
  expect(rougeL([""], [[""]]).score).toBe(0);
  // A word that every image has says nothing: with one image none says anything.
  expect(ciderD([candidates[0]], [references[0]]).score).toBe(0);
});

test("another length costs by the Gaussian of its difference", () => {
  const tokenize = (text: string) => text.split(" ");
  const of = (text: string) => ciderD([text, "z"], [["p q"], ["z"]], { tokenize }).perImage[0];
  // Both have the reference's two words; eight more that nobody has make the vector longer.
  const [alone, longer] = [of("p q"), of("p q a b c d e f g h")];
  const share = Math.exp(-64 / 72);
  // Unigrams 2 of √2·√10, bigrams 1 of √1·√9; no others in the reference.
  expect(alone).toBeCloseTo((10 * (1 + 1)) / 4, 12);
  expect(longer).toBeCloseTo((10 * share * (2 / Math.sqrt(20) + 1 / 3)) / 4, 12);
});

test("shorter than the closest reference is too short", () => {
  const [one] = bleu(["a b"], [["a b c", "a b c d e f"]]);
  expect(one).toBeCloseTo(Math.exp(1 - 3 / 2), 6);
  // 4 and 6 are as far from 5: the shorter counts.
  expect(bleu(["a b c d e"], [["a b c d e f", "a b c d"]])[0]).toBeCloseTo(1, 6);
});

test.each<[string, string[]]>([
  ["The Dog's ball; a dog-sized toy!", ["the", "dog", "'s", "ball", "a", "dog-sized", "toy"]],
  ["It cannot, won't and they're", ["it", "can", "not", "wo", "n't", "and", "they", "'re"]],
  ['He said: "10,000 men... at 3:30 (pm)"', ["he", "said", "10,000", "men", "at", "3:30", "-lrb-", "pm", "-rrb-"]],
  ["o'clock — 50% café", ["o'clock", "—", "50", "%", "café"]],
])("%j as tokens", (text, tokens) => {
  expect(captionTokens(text)).toEqual(tokens);
}); // biome-ignore format: a table

test("mistakes are named", () => {
  expect(() => ciderD(["a"], [])).toThrow(/1 candidates, references of 0 images/);
  expect(() => bleu([], [])).toThrow(/a candidate and at least one reference/);
  expect(() => rougeL(["a", "b"], [["a"], []])).toThrow(/none for image 1/);
});
