/**
 * @file How good captions are, against several that people wrote: CIDEr-D (https://arxiv.org/abs/1411.5726), BLEU
 * (https://aclanthology.org/P02-1040) and ROUGE-L (https://aclanthology.org/W04-1013), with the numbers of COCO's evaluation
 * server (pycocoevalcap), whose peculiarities are marked.
 *
 * Decides: the formulas, and how a text becomes tokens unless the caller has tokens of his own. The server uses Stanford's
 * PTBTokenizer, a Java program; `captionTokens` is an approximation of it that knows English contractions and punctuation.
 */
import { ArgumentError, describe } from "../../core/errors.ts";

export interface CaptionOptions {
  /** Text → tokens: `captionTokens` unless given. */
  readonly tokenize?: (text: string) => readonly string[];
}

/** Of all images, and of each. */
export interface CaptionScore {
  readonly score: number;
  readonly perImage: readonly number[];
}

const BRACKETS: Readonly<Record<string, string>> = {
  ...{ "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-" },
};
/** What the server drops. Its brackets are upper-case names, so that those of lower-cased texts stay. */
const DROPPED = new Set(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"]);

/**
 * Lower-case words without punctuation: contractions are split ("don't" is "do", "n't"), as is "cannot"; hyphenated words
 * stay whole.
 */
export function captionTokens(text: string): string[] {
  const apart = text
    .toLowerCase()
    .replace(/[“”"]/g, " ")
    .replace(/[‘’]/g, "'")
    .replace(/\bcannot\b/g, "can not")
    .replace(/(\p{L})(n't)(?!\p{L})/gu, "$1 $2")
    .replace(/('(?:s|re|ve|ll|d|m))(?!\p{L})/gu, " $1");
  const words = /\d+(?:[.,:]\d+)+|'(?:s|re|ve|ll|d|m)(?!\p{L})|[\p{L}\p{N}]+(?:[-'][\p{L}\p{N}]+)*|\.{3}|-{2}|\S/gu; // biome-ignore format: one pattern
  const tokens = apart.match(words) ?? [];
  return tokens.filter((token) => !DROPPED.has(token)).map((token) => BRACKETS[token] ?? token);
}

interface Example {
  readonly candidate: readonly string[];
  readonly references: readonly (readonly string[])[];
}

function examplesOf(
  op: string,
  candidates: readonly string[],
  references: readonly (readonly string[])[],
  { tokenize = captionTokens }: CaptionOptions,
): Example[] {
  const bare = references.findIndex((list) => list.length === 0);
  if (candidates.length === 0 || candidates.length !== references.length || bare >= 0)
    throw new ArgumentError(
      describe(
        op,
        "a candidate and at least one reference per image",
        bare >= 0
          ? `none for image ${bare}`
          : `${candidates.length} candidates, references of ${references.length} images`,
      ),
    );
  return candidates.map((candidate, i) => ({
    candidate: tokenize(candidate),
    references: references[i].map(tokenize),
  }));
}

const meanOf = (values: readonly number[]): number =>
  values.reduce((a, b) => a + b, 0) / values.length;

const ORDERS = [1, 2, 3, 4] as const;

/** How often each run of n tokens is there. */
function gramsOf(tokens: readonly string[], n: number): Map<string, number> {
  const counts = new Map<string, number>();
  for (let i = 0; i + n <= tokens.length; i++) {
    const gram = tokens.slice(i, i + n).join(" ");
    counts.set(gram, (counts.get(gram) ?? 0) + 1);
  }
  return counts;
}

/** Weights of a text's n-grams for one n, and their length as a vector. */
interface Weighted {
  readonly weights: ReadonlyMap<string, number>;
  readonly norm: number;
}

/**
 * CIDEr-D: cosines of n-grams (1 … 4) weighted by how rare they are among the images' references, with counts clipped to the
 * reference's and a penalty (σ = 6) for another length; ten times their mean. Rarity is counted over these very images: one
 * image alone scores 0. The length is that in bigrams, as the server has it.
 */
export function ciderD(
  candidates: readonly string[],
  references: readonly (readonly string[])[],
  options: CaptionOptions = {},
): CaptionScore {
  const examples = examplesOf("ciderD", candidates, references, options);
  const images = new Map<string, number>();
  for (const { references } of examples) {
    const seen = new Set(
      references.flatMap((r) => ORDERS.flatMap((n) => [...gramsOf(r, n).keys()])),
    );
    for (const gram of seen) images.set(gram, (images.get(gram) ?? 0) + 1);
  }
  const rarity = (gram: string) =>
    Math.log(examples.length) - Math.log(Math.max(1, images.get(gram) ?? 0));
  const weighted = (tokens: readonly string[], n: number): Weighted => {
    const weights = new Map([...gramsOf(tokens, n)].map(([gram, count]) => [gram, count * rarity(gram)])); // biome-ignore format: one line
    return { weights, norm: Math.hypot(...weights.values()) };
  };
  const similarity = (a: Weighted, b: Weighted): number => {
    let sum = 0;
    for (const [gram, weight] of a.weights) {
      const other = b.weights.get(gram) ?? 0;
      sum += Math.min(weight, other) * other;
    }
    return a.norm > 0 && b.norm > 0 ? sum / (a.norm * b.norm) : sum;
  };
  const bigrams = (tokens: readonly string[]) => Math.max(0, tokens.length - 1);
  const perImage = examples.map(({ candidate, references }) => {
    const own = ORDERS.map((n) => weighted(candidate, n));
    const scores = references.map((reference) => {
      const penalty = Math.exp(-((bigrams(candidate) - bigrams(reference)) ** 2) / (2 * 6 ** 2));
      return meanOf(ORDERS.map((n, i) => similarity(own[i], weighted(reference, n)))) * penalty;
    });
    return 10 * meanOf(scores);
  });
  return { score: meanOf(perImage), perImage };
}

/**
 * BLEU-1 … BLEU-4 of all images together: the geometric mean of the shares of n-grams that some reference has, times a penalty
 * for candidates that are shorter than the closest references. The tiny numbers against 0 are the server's.
 */
export function bleu(
  candidates: readonly string[],
  references: readonly (readonly string[])[],
  options: CaptionOptions = {},
): readonly [number, number, number, number] {
  const examples = examplesOf("bleu", candidates, references, options);
  const [small, tiny] = [1e-9, 1e-15];
  let product = 1;
  const means = ORDERS.map((n) => {
    let [right, all] = [0, 0];
    for (const { candidate, references } of examples) {
      const others = references.map((r) => gramsOf(r, n));
      for (const [gram, count] of gramsOf(candidate, n)) {
        right += Math.min(count, Math.max(...others.map((o) => o.get(gram) ?? 0)));
        all += count;
      }
    }
    product *= (right + tiny) / (all + small);
    return product ** (1 / n);
  });
  const length = examples.reduce((sum, { candidate }) => sum + candidate.length, 0);
  const closest = examples.reduce((sum, { candidate, references }) => {
    const away = (n: number) => Math.abs(n - candidate.length);
    const lengths = references.map((r) => r.length);
    // Of two that are as close, the shorter one.
    return sum + lengths.reduce((a, b) => (away(b) < away(a) || (away(b) === away(a) && b < a) ? b : a)); // biome-ignore format: one line
  }, 0);
  const ratio = (length + tiny) / (closest + small);
  const penalty = ratio < 1 ? Math.exp(1 - 1 / ratio) : 1;
  const [a, b, c, d] = means.map((mean) => mean * penalty);
  return [a, b, c, d];
}

/**
 * ROUGE-L: the F-measure (β = 1.2) of the longest common subsequence, precision and recall each the best over the references.
 */
export function rougeL(
  candidates: readonly string[],
  references: readonly (readonly string[])[],
  options: CaptionOptions = {},
): CaptionScore {
  const perImage = examplesOf("rougeL", candidates, references, options).map((example) => {
    const { candidate, references } = example;
    const common = references.map((r) => longestCommon(candidate, r));
    const best = (shares: number[]) => Math.max(...shares.map((x) => x || 0)); // 0 / 0: nothing was said
    const precision = best(common.map((n) => n / candidate.length));
    const recall = best(common.map((n, i) => n / references[i].length));
    const weight = 1.2 ** 2;
    return precision > 0 && recall > 0
      ? ((1 + weight) * precision * recall) / (recall + weight * precision)
      : 0;
  });
  return { score: meanOf(perImage), perImage };
}

/** How long the longest subsequence of both is. */
function longestCommon(a: readonly string[], b: readonly string[]): number {
  let row = new Array<number>(b.length + 1).fill(0);
  for (const token of a) {
    const next = [0];
    for (const [j, other] of b.entries())
      next.push(token === other ? row[j] + 1 : Math.max(row[j + 1], next[j]));
    row = next;
  }
  return row[b.length];
}
