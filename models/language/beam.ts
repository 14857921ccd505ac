/**
 * @file Beam search as Hugging Face's: per sequence the n likeliest continuations are kept at every
 * step, and those that end compete by their log-probability over length ^ lengthPenalty.
 */

import type { Tensor } from "../../core/index.ts";
import type { Session } from "./generate.ts";
import { bestIds, penalised, type SamplingSettings } from "./sampling.ts";

export interface BeamSettings extends Pick<SamplingSettings, "repetitionPenalty"> {
  /** n */
  readonly beams: number;
  readonly maxNewTokens: number;
  /** Ids that end a hypothesis; they are no part of the result, but of its score. */
  readonly stopTokens?: readonly number[];
  /** 1 unless given; the larger, the longer. 0: the sum of the log-probabilities. */
  readonly lengthPenalty?: number;
  /** Stops as soon as n hypotheses have ended, though a longer one might still be better. */
  readonly earlyStopping?: boolean;
}

export interface Hypothesis {
  readonly tokens: number[];
  readonly score: number;
}

/** What is known of one sequence. */
interface Search {
  beams: { tokens: number[]; sum: number }[];
  /** The best n that have ended, the best first. */
  ended: Hypothesis[];
  done: boolean;
}

/** The best hypothesis per prompt; `logits` [P·n, V] are those after the prompts. */
export async function searchBeams(
  session: Session,
  logits: Tensor,
  prompts: readonly (readonly number[])[],
  settings: BeamSettings,
): Promise<Hypothesis[]> {
  const { beams: n, maxNewTokens, stopTokens = [], lengthPenalty = 1 } = settings;
  const { earlyStopping = false, repetitionPenalty = 1 } = settings;
  // All beams begin with the same prompt; but for the first they are out of the running, or all
  // would stay equal.
  const searches = prompts.map((): Search => {
    const beams = Array.from({ length: n }, (_, i) => ({ tokens: [], sum: i === 0 ? 0 : -1e9 }));
    return { beams, ended: [], done: false };
  });
  // Enough for n that go on, whichever end; those beyond the reference does not look at.
  const most = Math.max(2, 1 + stopTokens.length) * n;
  const rate = (sum: number, length: number) => sum / length ** lengthPenalty;
  const end = (search: Search, hypothesis: Hypothesis) => {
    search.ended = [...search.ended, hypothesis].sort((a, b) => b.score - a.score).slice(0, n);
  };
  let current = logits;
  for (let step = 1; step <= maxNewTokens; step++) {
    const scores = (await current.data()) as Float32Array;
    const V = scores.length / session.B;
    const rows: number[] = [];
    for (const [p, search] of searches.entries()) {
      const next: { from: number; token: number; sum: number }[] = [];
      for (const [i, beam] of search.beams.entries()) {
        const row = logSoftmax(scores.subarray((p * n + i) * V, (p * n + i + 1) * V));
        const seen = [...prompts[p], ...beam.tokens];
        const own = penalised(row, seen, repetitionPenalty);
        for (const token of bestIds(own, most))
          next.push({ from: i, token, sum: beam.sum + own[token] });
      }
      next.sort((a, b) => b.sum - a.sum || a.from - b.from || a.token - b.token);
      const going: typeof next = [];
      for (const [rank, candidate] of next.slice(0, most).entries()) {
        if (going.length === n) break;
        const { from, token, sum } = candidate;
        if (!stopTokens.includes(token)) going.push(candidate);
        else if (rank < n && !search.done)
          end(search, { tokens: search.beams[from].tokens, score: rate(sum, step) });
      }
      const hope = rate(going[0].sum, step);
      search.done ||=
        search.ended.length >= n && (earlyStopping || search.ended.at(-1)!.score >= hope);
      search.beams = going.map(({ from, token, sum }) => ({
        tokens: [...search.beams[from].tokens, token],
        sum,
      }));
      rows.push(...going.map(({ from }) => p * n + from));
    }
    if (step === maxNewTokens || searches.every((s) => s.done)) break;
    session.permute(rows);
    current = session.next(searches.flatMap((s) => s.beams.map((b) => b.tokens.at(-1)!)));
  }
  return searches.map((search) => {
    if (!search.done)
      for (const { tokens, sum } of search.beams)
        end(search, { tokens, score: rate(sum, tokens.length) });
    return search.ended[0];
  });
}

function logSoftmax(scores: Float32Array): Float64Array {
  let max = -Infinity;
  for (const s of scores) if (s > max) max = s;
  let sum = 0;
  for (const s of scores) sum += Math.exp(s - max);
  const total = max + Math.log(sum);
  return Float64Array.from(scores, (s) => s - total);
}
