/**
 * @file What a captioner is worth on images that it has not seen: exact captions, and tokens predicted right when the
 * true ones before them are given; both with an interval, and next to answers that need no eyes.
 */
import { compile, noGrad, type Tensor, tensor } from "hinode";
import { type BpeTokenizer, Generator, NO_TARGET, type VisionLanguageModel } from "hinode/models";
import { shuffled, uniform } from "../data/batches.ts";
import { captionOf, encodeCaptions, promptOf } from "../data/captions.ts";
import type { Rendering } from "../data/emoji.ts";
import { blankPicture, imagesOf } from "../data/planes.ts";
import { Stop } from "../support/cli.ts";

/** Right answers among all, of one image. */
export interface Hits {
  readonly right: number;
  readonly total: number;
}

/** What a model says to images, next to the truth. */
export interface Answers {
  readonly captions: readonly string[];
  readonly exact: readonly Hits[];
  /** The caption's tokens and <eos>. */
  readonly tokens: readonly Hits[];
}

export interface EvaluatorOptions {
  readonly tokenizer: BpeTokenizer;
  /** The most tokens of a caption, <eos> among them. */
  readonly length: number;
  readonly batch: number;
  readonly signal: AbortSignal;
}

type Evaluate = (
  renderings: readonly Rendering[],
  /** What the model sees instead of the renderings themselves. */
  pictures?: readonly Uint8Array[],
) => Promise<Answers>;

/** Pixels per side of the images that a model takes. */
export const sideOf = ({ config }: VisionLanguageModel): number => Number(config.vision.imageSize);

/** Makes the function that asks a model about labelled images. */
export function evaluator(model: VisionLanguageModel, options: EvaluatorOptions): Evaluate {
  const { tokenizer, length, batch, signal } = options;
  const size = sideOf(model);
  const imageTokens = model.connector.tokensOf(model.vision.grid);
  const prompt = promptOf(tokenizer, imageTokens);
  model.eval();
  const generator = new Generator(model, { length: prompt.length + length });
  const ids = Array.from({ length: batch }, () => prompt);
  const stops = { maxNewTokens: length, stopTokens: [tokenizer.special("<eos>")] };
  const predict = compile((ids: Tensor, images: Tensor) =>
    noGrad(() => model.forward(ids, images).argmax(-1)),
  ); // [B, W]

  return async (renderings, pictures = renderings.map((r) => r.pixels)) => {
    const captions: string[] = [];
    const tokens: Hits[] = [];
    for (let start = 0; start < renderings.length; start += batch) {
      if (signal.aborted)
        throw new Stop(
          "Interrupted: the training is saved, and the same command goes on with its evaluation.",
          130,
        );
      const count = Math.min(batch, renderings.length - start);
      // The last batch is filled up, so that all have the shape that is compiled already.
      const rows = Array.from({ length: batch }, (_, i) => start + (i < count ? i : 0));
      const labels = rows.map((row) => renderings[row].concept.label);
      const truth = encodeCaptions(labels, tokenizer, { length, imageTokens });
      const images = imagesOf(rows.map((row) => pictures[row]), size); // biome-ignore format: one line
      const { tokens: said } = await generator.generate({ ids, images }, stops);
      const { width: W } = truth;
      const best = await predict(tensor(truth.ids, { shape: [batch, W] }), images).data();
      for (let i = 0; i < count; i++) {
        captions.push(captionOf(tokenizer, said[i]));
        const row = Array.from({ length: W }, (_, t) => i * W + t);
        const counted = row.filter((at) => truth.labels[at] !== NO_TARGET);
        tokens.push(hits(counted, (at) => best[at - 1] === truth.labels[at]));
      }
    }
    return { captions, exact: exactHits(captions, renderings), tokens };
  };
}

/** Scores of a set of images, with those of answers that need no eyes. */
export interface Comparison {
  readonly images: number;
  readonly concepts: number;
  readonly exactMatch: number;
  readonly exactMatchInterval: readonly number[];
  readonly tokenAccuracy: number;
  readonly tokenAccuracyInterval: readonly number[];
  readonly baselines: Readonly<
    Record<
      "mostFrequent" | "shuffledImages" | "blankImage",
      { readonly exactMatch: number; readonly tokenAccuracy: number; readonly caption?: string }
    >
  >;
}

/** `blank`: a model that was trained on blank images. */
export async function compare(
  renderings: readonly Rendering[],
  models: { readonly seeing: Evaluate; readonly blank: Evaluate },
  constant: Answers,
): Promise<{ captions: readonly string[]; comparison: Comparison }> {
  const pictures = renderings.map((r) => r.pixels);
  const seeing = await models.seeing(renderings);
  const others = await models.seeing(renderings, derangement(pictures));
  const size = Math.sqrt(pictures[0].length / 3);
  const blank = await models.blank(renderings, pictures.fill(blankPicture(size)));
  const scores = ({ exact, tokens }: Answers) => ({ exactMatch: share(exact), tokenAccuracy: share(tokens) }); // biome-ignore format: one line
  const comparison = {
    images: renderings.length,
    concepts: new Set(renderings.map((r) => r.concept)).size,
    exactMatch: share(seeing.exact),
    exactMatchInterval: interval95(seeing.exact, renderings),
    tokenAccuracy: share(seeing.tokens),
    tokenAccuracyInterval: interval95(seeing.tokens, renderings),
    baselines: {
      mostFrequent: { ...scores(constant), caption: constant.captions[0] },
      shuffledImages: {
        exactMatch: shuffledExactMatch(seeing.captions, renderings),
        tokenAccuracy: share(others.tokens),
      },
      blankImage: { ...scores(blank), caption: blank.captions[0] },
    },
  };
  return { captions: seeing.captions, comparison };
}

/** A random order in which everything stands elsewhere than before: one cycle through all. */
export function derangement<T>(list: readonly T[]): T[] {
  const order = shuffled(list.length, uniform(96));
  const result: T[] = new Array(list.length);
  for (const [i, at] of order.entries()) result[at] = list[order[(i + 1) % order.length]];
  return result;
}

/** The same answer to every image: the training set's most frequent caption, and its most frequent token per position. */
export function mostFrequent(
  train: readonly Rendering[],
  renderings: readonly Rendering[],
  { tokenizer, length }: EvaluatorOptions,
): Answers {
  const encode = (list: readonly Rendering[]) => {
    const captions = list.map((r) => r.concept.label);
    const { labels, width } = encodeCaptions(captions, tokenizer, { length, imageTokens: 0 });
    return captions.map((_, i) => labels.subarray(i * width + 1, (i + 1) * width)); // without <bos>
  };
  const seen = encode(train);
  const perPosition = Array.from({ length }, (_, t) =>
    mode(seen.map((row) => row[t]).filter((id) => id !== NO_TARGET)),
  );
  const caption = mode(train.map((r) => r.concept.label))!;
  const captions = renderings.map(() => caption);
  const tokens = encode(renderings).map((row) => {
    const positions = [...row.keys()].filter((t) => row[t] !== NO_TARGET);
    return hits(positions, (t) => row[t] === perPosition[t]);
  });
  return { captions, exact: exactHits(captions, renderings), tokens };
}

/** The share of right captions when each image gets the caption of another one: the mean over all such permutations. */
export function shuffledExactMatch(
  captions: readonly string[],
  renderings: readonly Rendering[],
): number {
  const written = countOf(captions);
  let right = 0;
  for (const [i, { concept }] of renderings.entries())
    right += (written.get(concept.label) ?? 0) - (captions[i] === concept.label ? 1 : 0);
  return right / (captions.length * (captions.length - 1));
}

/** Right answers among all. */
export function share(list: readonly Hits[]): number {
  const total = list.reduce((n, h) => n + h.total, 0);
  return total === 0 ? 0 : list.reduce((n, h) => n + h.right, 0) / total;
}

const RESAMPLES = 10_000;

/**
 * The bootstrap's 95 % interval of a share (Efron 1979): 2.5th and 97.5th percentile over samples drawn with replacement.
 * Concepts are drawn, not images: drawings of one concept are no independent evidence.
 */
export function interval95(list: readonly Hits[], renderings: readonly Rendering[]): number[] {
  const byConcept = Map.groupBy(list.keys(), (i) => renderings[i].concept);
  const groups = [...byConcept.values()].map((images) => ({
    right: images.reduce((n, i) => n + list[i].right, 0),
    total: images.reduce((n, i) => n + list[i].total, 0),
  }));
  const random = uniform(95);
  const samples = Float64Array.from({ length: RESAMPLES }, () => {
    let [right, total] = [0, 0];
    for (let i = 0; i < groups.length; i++) {
      const group = groups[Math.floor(random() * groups.length)];
      right += group.right;
      total += group.total;
    }
    return right / total;
  }).sort();
  return [0.025, 0.975].map((q) => samples[Math.round(q * (RESAMPLES - 1))]);
}

function exactHits(captions: readonly string[], renderings: readonly Rendering[]): Hits[] {
  return renderings.map(({ concept }, i) => hits([i], () => captions[i] === concept.label));
}

function hits(positions: readonly number[], isRight: (position: number) => boolean): Hits {
  return { right: positions.filter(isRight).length, total: positions.length };
}

function countOf<T>(values: Iterable<T>): Map<T, number> {
  const counts = new Map<T, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

/** The most frequent value; the first of several. */
function mode<T>(values: readonly T[]): T | undefined {
  let best: [T | undefined, number] = [undefined, 0];
  for (const entry of countOf(values)) if (entry[1] > best[1]) best = entry;
  return best[0];
}
