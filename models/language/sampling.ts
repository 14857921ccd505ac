/**
 * @file Which token comes next: greedy, or drawn from a softmax that has been cut down. The order
 * of the steps, and what each keeps, are Hugging Face's: repetition penalty, temperature, top-k,
 * top-p, min-p.
 *
 * It is done on the host, in float64, on one row of scores: the same choices on every device.
 */
import { ArgumentError, describe } from "../../core/errors.ts";

export interface SamplingSettings {
  /**
   * Scores are divided by it; 0, the default, is greedy: the best score, of equal ones the smallest
   * id.
   */
  readonly temperature?: number;
  /** Only the k best scores. */
  readonly topK?: number;
  /**
   * Only the likeliest tokens that together have this probability
   * (https://arxiv.org/abs/1904.09751).
   */
  readonly topP?: number;
  /**
   * Only tokens with at least this share of the likeliest one's probability
   * (https://arxiv.org/abs/2407.01082).
   */
  readonly minP?: number;
  /**
   * Scores of tokens in the prompt or the text so far are divided by it if positive, else
   * multiplied (https://arxiv.org/abs/1909.05858).
   */
  readonly repetitionPenalty?: number;
}

export function checkSampling(settings: SamplingSettings): void {
  const { temperature = 0, topK = 1, topP = 1, minP = 0, repetitionPenalty = 1 } = settings;
  const refuse = (expected: string, got: number): never => {
    throw new ArgumentError(describe("generate", expected, `${got}`));
  };
  if (!(temperature >= 0 && temperature < Infinity)) refuse("a temperature ≥ 0", temperature);
  if (!(Number.isInteger(topK) && topK >= 1)) refuse("an integer topK ≥ 1", topK);
  if (!(topP > 0 && topP <= 1)) refuse("topP in (0, 1]", topP);
  if (!(minP >= 0 && minP <= 1)) refuse("minP in [0, 1]", minP);
  if (!(repetitionPenalty > 0)) refuse("a repetitionPenalty > 0", repetitionPenalty);
}

/** The scores [V] after the repetition penalty; `seen`: the ids of prompt and text. */
export function penalised(
  scores: ArrayLike<number>,
  seen: Iterable<number>,
  penalty: number,
): Float64Array {
  const out = Float64Array.from(scores);
  if (penalty === 1) return out;
  for (const id of new Set(seen)) out[id] *= out[id] > 0 ? 1 / penalty : penalty;
  return out;
}

/**
 * The ids of the k best scores, falling, equal ones by id. One pass: a vocabulary is long, k is
 * short.
 */
export function bestIds(scores: Float64Array, k: number): number[] {
  const best: number[] = [];
  for (let id = 0; id < scores.length; id++) {
    let place = best.length;
    while (place > 0 && scores[best[place - 1]] < scores[id]) place--;
    if (place === k) continue;
    best.splice(place, 0, id);
    if (best.length > k) best.pop();
  }
  return best;
}

/**
 * The scores that may be drawn, falling, and their probabilities. Sorting numbers alone is ten
 * times as fast as sorting ids.
 */
function cut(
  scores: Float64Array,
  { temperature = 1, topK, topP = 1, minP = 0 }: SamplingSettings,
) {
  const falling = scores.toSorted().reverse();
  const [best] = falling;
  let count = falling.findLastIndex((s) => s !== -Infinity) + 1;
  // Scores equal to the k-th stay.
  if (topK !== undefined && topK < count) {
    const least = falling[topK - 1];
    count = falling.findLastIndex((s) => s >= least) + 1;
  }
  let weights = falling.subarray(0, count).map((s) => Math.exp((s - best) / temperature));
  const totalOf = (list: Float64Array) => list.reduce((a, b) => a + b, 0);
  if (topP < 1) {
    const total = totalOf(weights);
    let [sum, kept] = [0, 0];
    while (kept < weights.length && sum < topP * total) sum += weights[kept++];
    weights = weights.subarray(0, kept);
  }
  // The likeliest has weight 1.
  const enough = weights.findIndex((w) => w < minP);
  if (enough >= 0) weights = weights.subarray(0, enough);
  const total = totalOf(weights);
  return { falling, probabilities: weights.map((w) => w / total) };
}

/**
 * Scores [V] → the tokens that may be drawn, the likeliest first (of equal ones the smallest id),
 * and their probabilities, which sum to 1. `temperature` must not be 0.
 */
export function candidates(
  scores: Float64Array,
  settings: SamplingSettings,
): { ids: number[]; probabilities: number[] } {
  const { falling, probabilities } = cut(scores, settings);
  const least = falling[probabilities.length - 1];
  const ids = Array.from(scores.keys()).filter((id) => scores[id] >= least);
  ids.sort((a, b) => scores[b] - scores[a] || a - b);
  return { ids: ids.slice(0, probabilities.length), probabilities: [...probabilities] };
}

/**
 * The next token of a row of scores [V]. `u` in [0, 1) decides where there is a choice.
 * @throws ArgumentError where a score is NaN.
 */
export function chooseToken(
  scores: ArrayLike<number>,
  seen: Iterable<number>,
  settings: SamplingSettings,
  u: number,
): number {
  const row = penalised(scores, seen, settings.repetitionPenalty ?? 1);
  if (row.some(Number.isNaN))
    throw new ArgumentError(describe("chooseToken", "scores that are numbers", "NaN"));
  if (!settings.temperature) {
    let best = 0;
    for (let id = 1; id < row.length; id++) if (row[id] > row[best]) best = id;
    return best;
  }
  const { falling, probabilities } = cut(row, settings);
  let [sum, rank] = [0, 0];
  // The last one also where the sum falls short of 1 by rounding.
  while (rank < probabilities.length - 1 && u >= (sum += probabilities[rank])) rank++;
  // The id in that place of the ranking: of equal scores by id.
  const score = falling[rank];
  let before = rank - falling.indexOf(score);
  return row.findIndex((s) => s === score && before-- === 0);
}
