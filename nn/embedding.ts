/**
 * @file Tables of rows: Embedding and EmbeddingBag. Decides what both share: first values, the padding row, and rows that
 * are kept short.
 */
import { ArgumentError, describe } from "../core/errors.ts";
import {
  arange,
  type EmbeddingBagOptions,
  embedding,
  embeddingBag,
  noGrad,
  randn,
  type Tensor,
  where,
} from "../core/index.ts";
import { Module } from "./module.ts";
import { parameter } from "./parameter.ts";

export interface EmbeddingOptions {
  /** Of the first values (default 1). */
  readonly std?: number;
  /** A row, counted from the end if negative, that starts at 0 and gets no gradient. */
  readonly paddingIdx?: number;
  /** Rows that are looked up and are longer than this are first scaled down to it, in place. */
  readonly maxNorm?: number;
  /** Which norm `maxNorm` is of (default 2). */
  readonly normType?: number;
}

abstract class Table extends Module {
  /** [count, width] */
  weight: Tensor;
  readonly paddingIdx: number | undefined;
  readonly maxNorm: number | undefined;
  readonly normType: number;

  constructor(count: number, width: number, options: EmbeddingOptions) {
    super();
    const { std = 1, paddingIdx, maxNorm, normType = 2 } = options;
    if (paddingIdx !== undefined && !(paddingIdx >= -count && paddingIdx < count))
      throw new ArgumentError(
        describe(this.constructor.name, `a paddingIdx of ${count} rows`, `${paddingIdx}`),
      );
    const padding = paddingIdx === undefined || paddingIdx >= 0 ? paddingIdx : paddingIdx + count;
    const values = randn([count, width]).mul(std);
    // The first value itself, not an assignment after it: that would wait, and be computed for a model never used.
    this.weight = parameter(
      padding === undefined ? values : where(arange(count).eq(padding).unsqueeze(1), 0, values),
    );
    this.paddingIdx = padding;
    this.maxNorm = maxNorm;
    this.normType = normType;
  }

  /** Scales the rows that `index` names down to `maxNorm`, in place, before they are looked up. */
  protected shorten(index: Tensor): void {
    const { weight, maxNorm, normType } = this;
    if (maxNorm === undefined) return;
    noGrad(() => {
      const [count] = weight.shape;
      const named = index.flatten().unsqueeze(1).eq(arange(count)).any(0); // [count]
      const norms = weight.norm(normType, 1);
      const factor = norms.add(1e-7).reciprocal().mul(maxNorm); // PyTorch's small constant
      const scale = where(named.logicalAnd(norms.gt(maxNorm)), factor, 1);
      weight.assign(weight.mul(scale.unsqueeze(1)));
    });
  }

  override extraRepr(): string {
    const { paddingIdx, maxNorm } = this;
    const said = Object.entries({ paddingIdx, maxNorm }).filter(([, value]) => value !== undefined);
    return [...this.weight.shape, ...said.map((fact) => fact.join("="))].join(", ");
  }
}

/** Rows of a table: indices [...] → [..., width]. */
export class Embedding extends Table {
  constructor(count: number, width: number, options: EmbeddingOptions = {}) {
    super(count, width, options);
  }

  /** @throws IndexOutOfRangeError, when the result is read, for an index outside 0 … count − 1. */
  forward(index: Tensor): Tensor {
    this.shorten(index);
    return embedding(index, this.weight, { paddingIdx: this.paddingIdx });
  }
}

export interface EmbeddingBagLayerOptions
  extends EmbeddingOptions,
    Pick<EmbeddingBagOptions, "mode" | "includeLastOffset"> {}

/** Bags of rows of a table, combined: indices [B, L], or [L] with `offsets`, → [B, width]. */
export class EmbeddingBag extends Table {
  readonly mode: "sum" | "mean" | "max";
  readonly includeLastOffset: boolean;

  constructor(count: number, width: number, options: EmbeddingBagLayerOptions = {}) {
    super(count, width, options);
    this.mode = options.mode ?? "mean";
    this.includeLastOffset = options.includeLastOffset ?? false;
  }

  /** `offsets` [B]: where in 1-d `index` each bag begins; `perSampleWeights`: factors, with mode "sum". */
  forward(
    index: Tensor,
    options: Pick<EmbeddingBagOptions, "offsets" | "perSampleWeights"> = {},
  ): Tensor {
    this.shorten(index);
    const { mode, includeLastOffset, paddingIdx } = this;
    return embeddingBag(index, this.weight, { ...options, mode, includeLastOffset, paddingIdx });
  }

  override extraRepr(): string {
    return `${super.extraRepr()}, mode=${this.mode}`;
  }
}
