/**
 * @file Which token comes next: greedy, or drawn from a softmax that has been cut down. The order of the steps,
 * and what each keeps, are Hugging Face's: repetition penalty, temperature, top-k, top-p, min-p.
 *
 * It is done on the host, in float64, on one row of scores: the same choices on every device.
 */
import { ArgumentError, describe } from "../../core/errors.ts";

export interface SamplingSettings {
  /** Scores are divided by it; 0, the default, is greedy: the best score, of equal ones the smallest id. */
  readonly temperature?: number;
  /** Only the k best scores. */
  readonly topK?: number;
  /** Only the likeliest tokens that together have this probability (https://arxiv.org/abs/1904.09751). */
  readonly topP?: number;
  /** Only tokens with at least this share of the likeliest one's probability (https://arxiv.org/abs/2407.01082). */
  readonly minP?: number;
  /**
   * Scores of tokens in the prompt or the text so far are divided by it if positive, else multiplied
   * (https://arxiv.org/abs/1909.05858).
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

/** Ids by falling score; equal scores by id. */
function ranking(scores: Float64Array): number[] {
  return Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
}

/**
 * Scores [V] → the tokens that may be drawn, the likeliest first, and their probabilities, which sum to 1.
 * `temperature` must not be 0.
 */
export function candidates(
  scores: Float64Array,
  { temperature = 1, topK, topP = 1, minP = 0 }: SamplingSettings,
): { ids: number[]; probabilities: number[] } {
  let ids = ranking(scores);
  // Scores equal to the k-th stay.
  if (topK !== undefined && topK < ids.length) {
    const least = scores[ids[topK - 1]];
    ids = ids.filter((id) => scores[id] >= least);
  }
  const best = scores[ids[0]];
  let weights = ids.map((id) => Math.exp((scores[id] - best) / temperature));
  const keep = (count: number) => {
    ids = ids.slice(0, count);
    weights = weights.slice(0, count);
  };
  if (topP < 1) {
    const total = weights.reduce((a, b) => a + b, 0);
    let [sum, count] = [0, 0];
    while (count < weights.length && sum < topP * total) sum += weights[count++];
    keep(count);
  }
  // The likeliest has weight 1.
  const enough = weights.findIndex((w) => w < minP);
  if (enough >= 0) keep(enough);
  const total = weights.reduce((a, b) => a + b, 0);
  return { ids, probabilities: weights.map((w) => w / total) };
}

/** The next token of a row of scores [V]. `u` in [0, 1) decides where there is a choice. */
export function chooseToken(
  scores: ArrayLike<number>,
  seen: Iterable<number>,
  settings: SamplingSettings,
  u: number,
): number {
  const row = penalised(scores, seen, settings.repetitionPenalty ?? 1);
  if (!settings.temperature) {
    let best = 0;
    for (let id = 1; id < row.length; id++) if (row[id] > row[best]) best = id;
    return best;
  }
  const { ids, probabilities } = candidates(row, settings);
  let sum = 0;
  for (const [i, p] of probabilities.entries()) {
    sum += p;
    if (u < sum) return ids[i];
  }
  return ids.at(-1)!; // The sum fell short of 1 by rounding.
}
