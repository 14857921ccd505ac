/**
 * @file Averages of a model's weights over a run: stochastic weight averaging (https://arxiv.org/abs/1803.05407) and exponential moving
 * averages, as torch.optim.swa_utils.AveragedModel; and swapping them into the model for a while.
 */

import { isFloat } from "../../core/dtype.ts";
import { ArgumentError, describe } from "../../core/errors.ts";
import { noGrad, type Tensor, where, zeros } from "../../core/index.ts";
import type { Module, StateDict } from "../module.ts";
import { loadCells } from "./optimizer.ts";
import { scalarFor } from "./rule.ts";

export interface AveragingOptions {
  /** An exponential moving average keeps this share of itself at each update. Without, all updates weigh the same. */
  readonly decay?: number;
  /** With decay: the n-th update (from 0) keeps at most (1 + n) / (10 + n), so that a young average follows quickly. */
  readonly warmup?: boolean;
  /** Averages the float buffers too (running statistics); otherwise the model's own are used. */
  readonly useBuffers?: boolean;
}

/**
 *     const ema = new optim.AveragedModel(model, { decay: 0.999 });
 *     const step = compile((x: Tensor, y: Tensor) => {
 *       …
 *       adamw.step();
 *       ema.updateParameters();
 *     });
 *     const accuracy = await ema.averaged(() => evaluate(model));
 *
 * The first update copies the weights. Averages of halves are kept in f32: a decay near 1 would change nothing in them. Unlike
 * PyTorch's it is not a copy of the model: it knows the model's tensors, and lends them its values.
 */
export class AveragedModel {
  /** 0-d: updates so far. */
  readonly updates: Tensor;
  /** By the names of the model's tensors. */
  readonly averages: ReadonlyMap<string, Tensor>;
  readonly #sources: ReadonlyMap<string, Tensor>;
  readonly #decay: number | null;
  readonly #warmup: boolean;
  #stored: readonly Tensor[] | null = null;

  constructor(model: Module, options: AveragingOptions = {}) {
    const { decay = null, warmup = false, useBuffers = false } = options;
    if (decay === null ? warmup : !(decay >= 0 && decay <= 1))
      throw new ArgumentError(
        describe("AveragedModel", "0 ≤ decay ≤ 1, and warmup only with it", `${decay}`),
      );
    const floats = [...model.namedBuffers()].filter(([, t]) => isFloat(t.dtype));
    this.#sources = new Map([...model.namedParameters(), ...(useBuffers ? floats : [])]);
    if (this.#sources.size === 0)
      throw new ArgumentError(describe("AveragedModel", "a model with parameters", "none"));
    this.#decay = decay;
    this.#warmup = warmup;
    const [first] = this.#sources.values();
    this.updates = scalarFor(first, 0);
    this.averages = new Map(
      [...this.#sources].map(([name, { shape, device }]) => [name, zeros(shape, { device })]),
    );
    noGrad(() => {
      for (const [name, source] of this.#sources) this.averages.get(name)!.assign(source);
    });
  }

  /** Takes in the model's weights as they are; after each `optimizer.step()`, also within compile. */
  updateParameters(): void {
    noGrad(() => {
      const n = this.updates;
      const share = this.#share(n);
      for (const [name, source] of this.#sources) {
        const average = this.averages.get(name)!;
        const now = source.float();
        const next = average.add(now.sub(average).mul(share));
        average.assign(where(n.eq(0), now, next));
      }
      this.updates.assign(n.add(1));
    });
  }

  /** How much of the weights the n-th average takes in. */
  #share(n: Tensor): Tensor | number {
    if (this.#decay === null) return n.add(1).reciprocal();
    // 1 − (1 + n) / (10 + n) = 9 / (10 + n)
    return this.#warmup
      ? n
          .add(10)
          .reciprocal()
          .mul(9)
          .clamp(1 - this.#decay)
      : 1 - this.#decay;
  }

  /** Remembers the model's weights as they are, for `restore`. */
  store(): void {
    this.#stored = [...this.#sources.values()].map((source) => source.detach());
  }

  /** Writes the averages into the model. */
  copyTo(): void {
    noGrad(() => {
      for (const [name, source] of this.#sources) source.assign(this.averages.get(name)!);
    });
  }

  /** Gives the model back what `store` remembered. */
  restore(): void {
    const stored = this.#stored;
    if (!stored) throw new ArgumentError(describe("restore", "a call of store() before", "none"));
    noGrad(() => {
      for (const [i, source] of [...this.#sources.values()].entries()) source.assign(stored[i]);
    });
    this.#stored = null;
  }

  /** Runs `fn` while the model has the averages for weights; waits for it, and gives the model its own back. */
  async averaged<T>(fn: () => T | Promise<T>): Promise<T> {
    this.store();
    this.copyTo();
    try {
      return await fn();
    } finally {
      this.restore();
    }
  }

  /** The averages and the number of updates, by name. */
  *stateCells(): Generator<[string, Tensor]> {
    yield ["updates", this.updates];
    for (const [name, average] of this.averages) yield [`average.${name}`, average];
  }

  stateDict(): StateDict {
    return Object.fromEntries([...this.stateCells()].map(([name, t]) => [name, t.detach()]));
  }

  /** @throws ArgumentError that lists whatever is missing, unexpected or of another shape; then nothing changes. */
  loadStateDict(state: StateDict): void {
    loadCells("AveragedModel.loadStateDict", new Map(this.stateCells()), state);
  }
}
