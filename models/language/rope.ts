/**
 * @file How fast rotary positions turn (Su et al., https://arxiv.org/abs/2104.09864), and the ways
 * to stretch them over texts that are longer than those of the training. Turning itself is
 * attention's (nn/attention.ts).
 *
 * Pair i of a head of width d turns by θ^(−2i/d) per position. The names and formulas of the
 * scalings are those of Hugging Face's `rope_parameters`.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { arange, type Tensor, tensor, where } from "../../core/index.ts";
import type { RotaryOptions } from "../../nn/index.ts";

export type RopeParameters = {
  readonly theta?: number;
  readonly interleaved?: boolean;
  /** The share of a head's channels that turn, from the first one on: all unless given. */
  readonly partialRotaryFactor?: number;
} & (
  | { readonly type?: "default" }
  /** Every turn is slower by the factor: positions are squeezed together. */
  | { readonly type: "linear"; readonly factor: number }
  /** θ grows with the length beyond `maxPositions`, so that the fastest pairs keep their turns. */
  | { readonly type: "dynamic"; readonly factor: number }
  /** Llama 3.1: slow pairs are squeezed, fast ones kept, those between are mixed. */
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositions: number;
    }
  /** As llama3 by another ramp, and scores get sharper (https://arxiv.org/abs/2309.00071). */
  | {
      readonly type: "yarn";
      readonly factor: number;
      readonly originalMaxPositions: number;
      readonly attentionFactor?: number;
      readonly betaFast?: number;
      readonly betaSlow?: number;
      readonly mscale?: number;
      readonly mscaleAllDim?: number;
      /** Whether the ramp's ends are whole pairs, which is the default. */
      readonly truncate?: boolean;
    }
  /**
   * Every pair has its own divisor, one for texts up to `originalMaxPositions` and one for longer
   * ones (https://arxiv.org/abs/2402.13753).
   */
  | {
      readonly type: "longrope";
      /** Of each pair that turns. */
      readonly shortFactor: readonly number[];
      readonly longFactor: readonly number[];
      readonly originalMaxPositions: number;
      /**
       * The stretch in all, from which the amplitude follows: maxPositions / originalMaxPositions
       * unless given.
       */
      readonly factor?: number;
      /** The amplitude itself. */
      readonly attentionFactor?: number;
    }
);

/**
 * What attention needs for heads of width `headDim`. `maxPositions`: the length of the training's
 * texts; `length`: that of the text at hand, of which "dynamic" and "longrope" alone take notice; a
 * 0-d tensor if it is known only when it runs, as in generation, where, as in the reference, a
 * position keeps the turn that it got at its time. The reference reckons in float64, so do we: they
 * become f32 at the end.
 */
export function rotaryOf(
  rope: RopeParameters,
  headDim: number,
  maxPositions: number,
  length: number | Tensor,
): RotaryOptions {
  const { partialRotaryFactor = 1 } = rope;
  const d = Math.trunc(headDim * partialRotaryFactor);
  if (!(d >= 2 && d <= headDim && d % 2 === 0))
    throw new ArgumentError(
      describe("rope", `an even number of a head's ${headDim} channels`, `${headDim} · ${partialRotaryFactor}`),
    ); // biome-ignore format: one line
  const turns = turnsOf(rope, d, maxPositions, length);
  return d === headDim ? turns : { ...turns, width: d };
}

/** Of d channels, all of which turn. */
function turnsOf(
  rope: RopeParameters,
  d: number,
  maxPositions: number,
  length: number | Tensor,
): RotaryOptions {
  const { theta = 10_000, interleaved = false } = rope;
  const turns = (base: number) => Array.from({ length: d / 2 }, (_, i) => base ** ((-2 * i) / d));
  const plain = turns(theta);
  switch (rope.type) {
    case undefined:
    case "default":
      return { base: theta, interleaved };
    case "linear":
      return { interleaved, frequencies: plain.map((f) => f / rope.factor) };
    case "dynamic": {
      const { factor } = rope;
      const power = d / (d - 2);
      if (typeof length === "number") {
        const stretch = (factor * Math.max(length, maxPositions)) / maxPositions - (factor - 1);
        return { interleaved, frequencies: turns(theta * stretch ** power) };
      }
      const most = length.float().clamp(maxPositions);
      const stretch = most.mul(factor / maxPositions).sub(factor - 1);
      const logBase = stretch.log().mul(power).add(Math.log(theta));
      const pairs = arange(d / 2, { dtype: "f32" });
      return { interleaved, frequencies: pairs.mul(logBase.mul(-2 / d)).exp() };
    }
    case "llama3":
      return { interleaved, frequencies: plain.map((f) => llama3(f, rope)) };
    case "yarn":
      return { interleaved, ...yarn(plain, theta, d, rope) };
    case "longrope":
      return { interleaved, ...longrope(plain, rope, maxPositions, length) };
    default:
      throw new ArgumentError(
        describe(
          "rope",
          "a type of default, linear, dynamic, llama3, yarn, longrope",
          String((rope as { type: unknown }).type),
        ),
      );
  }
}

type Llama3 = Extract<RopeParameters, { type: "llama3" }>;

function llama3(frequency: number, rope: Llama3): number {
  const { factor, lowFreqFactor: low, highFreqFactor: high, originalMaxPositions } = rope;
  const turnsInAll = (originalMaxPositions * frequency) / (2 * Math.PI);
  if (turnsInAll > high) return frequency;
  if (turnsInAll < low) return frequency / factor;
  const kept = (turnsInAll - low) / (high - low);
  return ((1 - kept) * frequency) / factor + kept * frequency;
}

type Yarn = Extract<RopeParameters, { type: "yarn" }>;

function yarn(plain: readonly number[], theta: number, d: number, rope: Yarn): RotaryOptions {
  const { factor, originalMaxPositions, betaFast = 32, betaSlow = 1, truncate = true } = rope;
  const { mscale, mscaleAllDim } = rope;
  /** The pair, as a fraction, that turns so often in all. */
  const pairOf = (turns: number) =>
    (d * Math.log(originalMaxPositions / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const [fast, slow] = [pairOf(betaFast), pairOf(betaSlow)];
  const from = Math.max(truncate ? Math.floor(fast) : fast, 0);
  const end = Math.min(truncate ? Math.ceil(slow) : slow, d - 1);
  const to = end === from ? end + 0.001 : end; // The reference's, against 0 / 0.
  const frequencies = plain.map((f, i) => {
    const squeezed = Math.min(Math.max((i - from) / (to - from), 0), 1);
    return (f / factor) * squeezed + f * (1 - squeezed);
  });
  const sharpness = (m: number) => (factor <= 1 ? 1 : 0.1 * m * Math.log(factor) + 1);
  const both = mscale && mscaleAllDim ? sharpness(mscale) / sharpness(mscaleAllDim) : sharpness(1);
  return { frequencies, amplitude: rope.attentionFactor ?? both };
}

type LongRope = Extract<RopeParameters, { type: "longrope" }>;

function longrope(
  plain: readonly number[],
  rope: LongRope,
  maxPositions: number,
  length: number | Tensor,
): RotaryOptions {
  const { shortFactor, longFactor, originalMaxPositions: original } = rope;
  for (const factors of [shortFactor, longFactor])
    if (factors.length !== plain.length)
      throw new ArgumentError(
        describe("rope", `${plain.length} factors of longrope, one per pair`, `${factors.length}`),
      );
  const factor = rope.factor ?? maxPositions / original;
  const amplitude =
    rope.attentionFactor ??
    (factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original)));
  const by = (factors: readonly number[]) => plain.map((f, i) => f / factors[i]);
  if (typeof length === "number")
    return { frequencies: by(length > original ? longFactor : shortFactor), amplitude };
  const [short, long] = [shortFactor, longFactor].map((factors) => tensor(by(factors)));
  return { frequencies: where(length.gt(original), long, short), amplitude };
}
