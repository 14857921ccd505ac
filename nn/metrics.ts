/**
 * @file Metrics over many batches: each counts in cells on the device, so `update` neither waits nor reads, also inside
 * `compile`; `result` reads once. Counts are integers, exact up to 2³¹; sums of floats carry what rounding loses.
 *
 *     const accuracy = new metrics.Accuracy({ topK: 5 });
 *     const evaluate = compile((x: Tensor, y: Tensor) => accuracy.update(model.forward(x), y));
 *     for (const { x, y } of batches) evaluate(x, y);
 *     console.log(await accuracy.result());
 *
 * Scores are [..., C], class indices of the targets [...], integers from 0 to C − 1.
 */
import { isFloat } from "../core/dtype.ts";
import { ArgumentError, describe, ShapeError } from "../core/errors.ts";
import {
  arange,
  bincount,
  crossEntropy,
  type DeviceName,
  type DType,
  noGrad,
  stack,
  type Tensor,
  where,
  zeros,
  zerosLike,
} from "../core/index.ts";
import { formatShape, sameShape } from "../core/shape.ts";

export interface MetricOptions {
  /** Where the counts are: that of what is counted. The default device unless given. */
  readonly device?: DeviceName;
}

export abstract class Metric<R> {
  readonly #cells: Tensor[] = [];
  readonly #device?: DeviceName;

  constructor({ device }: MetricOptions = {}) {
    this.#device = device;
  }

  /** Over everything since the beginning or the last `reset`. Outside of compile. */
  abstract result(): Promise<R>;

  /** Forgets everything; also inside compile. */
  reset(): void {
    noGrad(() => {
      for (const cell of this.#cells) cell.assign(zerosLike(cell));
    });
  }

  protected cell(length: number, dtype: DType): Tensor {
    const cell = zeros([length], { dtype, device: this.#device });
    this.#cells.push(cell);
    return cell;
  }

  protected check(holds: boolean, expected: string, got: string): void {
    if (!holds) throw new ArgumentError(describe(this.constructor.name, expected, got));
  }
}

/** Sums Σ weight · value and Σ weight, with what rounding has left out of them (Kahan 1965). */
abstract class WeightedMean extends Metric<number> {
  readonly #sums = this.cell(2, "f32");
  readonly #lost = this.cell(2, "f32");

  protected addSums(weighted: Tensor, weight: Tensor): void {
    noGrad(() => {
      const next = stack([weighted.float(), weight.float()]).sub(this.#lost);
      const sums = this.#sums.add(next);
      this.#lost.assign(sums.sub(this.#sums).sub(next));
      this.#sums.assign(sums);
    });
  }

  async result(): Promise<number> {
    const [sum, weight] = await this.#sums.data();
    return Number(sum) / Number(weight);
  }
}

/** The mean of all values so far; NaN before the first. */
export class Mean extends WeightedMean {
  /** `weight` counts each element of `value`: a batch's size for a batch's mean. */
  update(value: Tensor, weight: number | Tensor = 1): void {
    const weights = zerosLike(value, { dtype: "f32" }).add(weight);
    this.addSums(value.float().mul(weight).sum(), weights.sum());
  }
}

export interface ClassMetricOptions extends MetricOptions {
  /** Targets of this class are not counted. */
  readonly ignoreIndex?: number;
}

/** e to the mean cross-entropy of the classes (of the next tokens). A class out of range makes it NaN. */
export class Perplexity extends WeightedMean {
  readonly #ignoreIndex: number;

  constructor({ ignoreIndex = -100, device }: ClassMetricOptions = {}) {
    super({ device });
    this.#ignoreIndex = ignoreIndex;
  }

  /** logits [..., C], target [...]. */
  update(logits: Tensor, target: Tensor): void {
    const classes = classesOf(this, logits, target);
    const ignoreIndex = this.#ignoreIndex;
    const rows = logits.reshape([-1, classes]);
    const loss = crossEntropy(rows, target.reshape([-1]), { ignoreIndex, reduction: "sum" });
    this.addSums(loss, target.ne(ignoreIndex).sum());
  }

  override async result(): Promise<number> {
    return Math.exp(await super.result());
  }
}

export interface MovingAverageOptions extends MetricOptions {
  /** What the average keeps at each value. */
  readonly decay?: number;
}

/** An average in which older values count less and less, without a bias towards its start: to watch a loss. */
export class MovingAverage extends Metric<number> {
  readonly #sums = this.cell(2, "f32");
  readonly #decay: number;

  constructor({ decay = 0.98, device }: MovingAverageOptions = {}) {
    super({ device });
    this.check(decay >= 0 && decay < 1, "0 ≤ decay < 1", `${decay}`);
    this.#decay = decay;
  }

  /** Takes the mean of the tensor for the next value. */
  update(value: Tensor): void {
    noGrad(() => {
      const mean = value.float().mean();
      const next = stack([mean, zerosLike(mean).add(1)]);
      this.#sums.assign(this.#sums.mul(this.#decay).add(next.mul(1 - this.#decay)));
    });
  }

  async result(): Promise<number> {
    const [sum, weight] = await this.#sums.data();
    return Number(sum) / Number(weight);
  }
}

export interface AccuracyOptions extends ClassMetricOptions {
  /** A target counts as found if it is among so many best scores; 1 by default. */
  readonly topK?: number;
}

/** The share of targets that are the class of the best score, or among the `topK` best. Of equal scores the first is better. */
export class Accuracy extends Metric<number> {
  /** Found, counted, out of range. */
  readonly #counts = this.cell(3, "i32");
  readonly #topK: number;
  readonly #ignoreIndex?: number;

  constructor({ topK = 1, ignoreIndex, device }: AccuracyOptions = {}) {
    super({ device });
    this.check(Number.isSafeInteger(topK) && topK >= 1, "an integral topK ≥ 1", `${topK}`);
    this.#topK = topK;
    this.#ignoreIndex = ignoreIndex;
  }

  /** scores [..., C], target [...]. */
  update(scores: Tensor, target: Tensor): void {
    const classes = classesOf(this, scores, target);
    noGrad(() => {
      const column = target.unsqueeze(-1);
      const index = arange(classes);
      const own = where(index.eq(column), scores, 0).sum(-1, true);
      // A NaN is neither found nor passed.
      const better = scores.le(own).logicalNot();
      const before = scores.eq(own).logicalAnd(index.lt(column));
      const found = better.logicalOr(before).sum(-1).lt(this.#topK);
      const ignored = ignoredAmong(target, this.#ignoreIndex);
      const valid = within(target, classes).logicalAnd(ignored.logicalNot());
      const invalid = valid.logicalOr(ignored).logicalNot();
      const counts = [found.logicalAnd(valid), valid, invalid].map((t) => t.sum());
      this.#counts.assign(this.#counts.add(stack(counts)));
    });
  }

  async result(): Promise<number> {
    const [found, counted, invalid] = await this.#counts.data();
    this.check(invalid === 0, "targets from 0 to C − 1", `${invalid} others`);
    return Number(found) / Number(counted);
  }
}

export interface LabelOptions extends ClassMetricOptions {
  readonly classes: number;
}

/** Counts pairs of a target and a predicted class. */
abstract class LabelPairs<R> extends Metric<R> {
  readonly #classes: number;
  readonly #ignoreIndex?: number;
  /** [C · C + 2]: the matrix by rows, pairs out of range, ignored ones. */
  readonly #pairs: Tensor;

  constructor({ classes, ignoreIndex, device }: LabelOptions) {
    super({ device });
    this.check(Number.isSafeInteger(classes) && classes > 0, "classes > 0", `${classes}`);
    this.#classes = classes;
    this.#ignoreIndex = ignoreIndex;
    this.#pairs = this.cell(classes ** 2 + 2, "i32");
  }

  /** Scores [..., C], whose best counts, or class indices [...]; target [...]. */
  update(predictions: Tensor, target: Tensor): void {
    const size = this.#classes;
    const scored = isFloat(predictions.dtype);
    if (scored) {
      const classes = classesOf(this, predictions, target);
      this.check(classes === size, `scores of ${size} classes`, `${classes}`);
    } else if (!sameShape(predictions.shape, target.shape))
      throw shapeError(this, `predictions of the targets' shape`, predictions, target);
    noGrad(() => {
      const labels = scored ? predictions.argmax(-1) : predictions;
      const valid = within(target, size).logicalAnd(within(labels, size));
      const pair = where(valid, target.to("i32").mul(size).add(labels.to("i32")), size ** 2);
      const ignored = ignoredAmong(target, this.#ignoreIndex);
      const slot = where(ignored, size ** 2 + 1, pair).reshape([-1]);
      this.#pairs.assign(this.#pairs.add(bincount(slot, null, size ** 2 + 2)));
    });
  }

  /** Rows are targets, columns predictions. */
  protected async matrix(): Promise<number[][]> {
    const counts = [...(await this.#pairs.data())].map(Number);
    const size = this.#classes;
    const invalid = counts[size ** 2];
    this.check(invalid === 0, `classes from 0 to ${size - 1}`, `${invalid} pairs with others`);
    return Array.from({ length: size }, (_, row) => counts.slice(row * size, (row + 1) * size));
  }
}

/** How often class `row` was taken for class `column`: [C][C]. */
export class ConfusionMatrix extends LabelPairs<number[][]> {
  result(): Promise<number[][]> {
    return this.matrix();
  }
}

export interface ClassReport {
  readonly precision: number;
  readonly recall: number;
  readonly f1: number;
}

export interface ReportOptions extends LabelOptions {
  /**
   * The mean over the classes, over the classes weighted by how often each is a target, or of all pairs together. "macro" by
   * default.
   */
  readonly average?: "macro" | "weighted" | "micro";
}

/** Precision, recall and their harmonic mean; 0 where they are 0/0. */
export class PrecisionRecallF1 extends LabelPairs<
  ClassReport & { readonly classes: readonly (ClassReport & { readonly support: number })[] }
> {
  readonly #average: "macro" | "weighted" | "micro";

  constructor({ average = "macro", ...options }: ReportOptions) {
    super(options);
    this.#average = average;
  }

  /** The average, and each class with the number of its targets. */
  async result() {
    const matrix = await this.matrix();
    const total = (list: number[]) => list.reduce((a, b) => a + b, 0);
    const supports = matrix.map(total);
    const predicted = matrix.map((_, k) => total(matrix.map((row) => row[k])));
    const hits = matrix.map((row, k) => row[k]);
    const classes = hits.map((hit, k) => ({
      ...report(hit, predicted[k], supports[k]),
      support: supports[k],
    }));
    if (this.#average === "micro")
      return { ...report(total(hits), total(predicted), total(supports)), classes };
    const weights = this.#average === "macro" ? supports.map(() => 1) : supports;
    const mean = (name: keyof ClassReport) =>
      ratio(total(classes.map((c, k) => c[name] * weights[k])), total(weights));
    return { precision: mean("precision"), recall: mean("recall"), f1: mean("f1"), classes };
  }
}

const ratio = (a: number, b: number): number => (b === 0 ? 0 : a / b);

const report = (hits: number, predicted: number, support: number): ClassReport => ({
  precision: ratio(hits, predicted),
  recall: ratio(hits, support),
  f1: ratio(2 * hits, predicted + support),
});

const within = (labels: Tensor, classes: number): Tensor =>
  labels.ge(0).logicalAnd(labels.lt(classes));

const ignoredAmong = (target: Tensor, ignoreIndex?: number): Tensor =>
  ignoreIndex === undefined ? zerosLike(target, { dtype: "bool" }) : target.eq(ignoreIndex);

/** C of scores [..., C] that fit targets [...]. */
function classesOf(metric: Metric<unknown>, scores: Tensor, target: Tensor): number {
  if (isFloat(target.dtype) || !sameShape(scores.shape.slice(0, -1), target.shape))
    throw shapeError(metric, "scores [..., C] and integers [...]", scores, target);
  return scores.shape.at(-1)!;
}

const shapeError = (metric: Metric<unknown>, expected: string, ...got: Tensor[]): ShapeError =>
  new ShapeError(
    describe(
      `${metric.constructor.name}.update`,
      expected,
      got.map((t) => `${t.dtype}${formatShape(t.shape)}`).join(", "),
    ),
  );
