/**
 * @file A cache of keys and values for generation: each pass through a model computes new positions only, and its attention
 * sees the earlier ones from memory that never moves or grows.
 *
 * Decides: how long the cache is (static), where the next positions go (a tensor, so that a compiled step is one plan for
 * all positions), and that a module of the model finds it by itself: models need no argument for it. Attention asks for it in
 * attention.ts.
 */
import { isFloat } from "../core/dtype.ts";
import { ArgumentError, describe } from "../core/errors.ts";
import {
  arange,
  type DType,
  dynamicUpdateSlice,
  noGrad,
  type Tensor,
  zeros,
} from "../core/index.ts";
import { type AttentionMemory, MultiheadAttention, withMemory } from "./attention.ts";
import { expectShape, positive } from "./checks.ts";
import { Module } from "./module.ts";

export interface KVCacheOptions {
  /** B, the number of sequences. */
  readonly batchSize: number;
  /** S, the most positions of a sequence. */
  readonly length: number;
  /** In which type keys and values are kept; that of the weights unless given. */
  readonly dtype?: DType;
}

/**
 * Keys and values [B, K, S, d] of every causal MultiheadAttention in a model (or of the ones given, whether causal or
 * not), 2·B·K·S·d elements each.
 *
 *     const cache = new KVCache(model, { batchSize: 1, length: 256 });
 *     const next = compile((ids: Tensor) => cache.use(() => model.forward(ids)));
 *     next(prompt); // prefill: any number of positions, [B, L]
 *     next(token); // decode: [B, 1], as often as there is room; one plan, which writes one position in place
 *     cache.reset(); // another sequence
 *
 * Results are those of a full pass over all positions, the rows of the new ones. With `keyPaddingMask` in the call its
 * width is S. More than S positions are an IndexOutOfRangeError when the result is read.
 */
export class KVCache extends Module implements AttentionMemory {
  /** Of the next position, 0-d i32: how many are filled. For positions that are learned, or to go back: assign to it. */
  readonly position: Tensor;
  /** Per attention, in the order of the model's modules. */
  readonly keys: readonly Tensor[];
  readonly values: readonly Tensor[];
  readonly length: number;
  readonly #slots: ReadonlyMap<MultiheadAttention, number>;
  /** How many positions this pass adds; null before the first attention. */
  #added: number | null = null;

  constructor(model: Module | readonly MultiheadAttention[], options: KVCacheOptions) {
    super();
    const { batchSize, length } = options;
    positive("KVCache", { batchSize, length });
    const attentions =
      model instanceof Module
        ? model
            .modules()
            .filter((m): m is MultiheadAttention => m instanceof MultiheadAttention && m.causal)
        : [...model];
    if (attentions.length === 0)
      throw new ArgumentError(
        describe(
          "KVCache",
          "a model with causal MultiheadAttention",
          "none in it",
          "give those to cache in an array",
        ),
      );
    this.length = length;
    this.#slots = new Map(attentions.map((m, i) => [m, i]));
    const make = () =>
      attentions.map((m) => {
        const [[, weight]] = m.namedTensors();
        const { device } = weight;
        // Quantised weights are integers; what is made of them is f32.
        const dtype = options.dtype ?? (isFloat(weight.dtype) ? weight.dtype : "f32");
        return zeros([batchSize, m.kvHeads, length, m.out.inFeatures / m.heads], { dtype, device });
      });
    this.keys = make();
    this.values = make();
    this.position = zeros([], { dtype: "i32", device: this.keys[0].device });
  }

  /** Runs fn, without gradients: what its attention computes goes on from the cached positions, which become more. */
  use<R>(fn: () => R): R {
    return noGrad(() => {
      this.#added = null;
      const result = withMemory(this, fn);
      if (this.#added) this.position.assign(this.position.add(this.#added));
      return result;
    });
  }

  /** Forgets all positions. */
  reset(): void {
    this.position.assign(zeros([], { dtype: "i32", device: this.position.device }));
  }

  holds(module: MultiheadAttention): boolean {
    return this.#slots.has(module);
  }

  start(L: number): Tensor {
    if (L > this.length || (this.#added ?? L) !== L)
      throw new ArgumentError(
        describe("KVCache", `${this.#added ?? `at most ${this.length}`} new positions`, `${L}`),
      );
    this.#added = L;
    if (L === 0) return this.position;
    // Looked up only because looking up is checked: a slice that does not fit would be moved.
    const last = this.position.add(L - 1).unsqueeze(0);
    return arange(this.length)
      .gather(0, last)
      .squeeze(0)
      .sub(L - 1);
  }

  extend(module: MultiheadAttention, k: Tensor, v: Tensor): [k: Tensor, v: Tensor] {
    const slot = this.#slots.get(module)!;
    const [batch, heads, , d] = this.keys[slot].shape;
    const [L] = k.shape.slice(-2);
    const all = [this.keys[slot], this.values[slot]].map((cell, i) => {
      const added = i === 0 ? k : v;
      expectShape("KVCache", "keys and values", added, [batch, heads, L, d]);
      cell.assign(dynamicUpdateSlice(cell, added.to(cell.dtype), [0, 0, this.start(L), 0]));
      return cell.to(added.dtype);
    });
    return [all[0], all[1]];
  }

  override extraRepr(): string {
    const { shape, dtype } = this.keys[0];
    return `${this.keys.length} layers, batchSize=${shape[0]}, length=${this.length}, ${dtype}`;
  }
}
