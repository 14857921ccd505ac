/**
 * @file What weights become on their way from a file into a model: a half, or integers with scales.
 * One cell of the model after the other: a checkpoint of 7 billion weights fills a model of int8
 * without ever having more than one cell, and what of the file it is put together from, as floats.
 *
 * Decides: which layers take integers (Linear ones), and who receives a tensor's value then.
 * Reading is the callers'.
 */
import { handleOf } from "../../core/device.ts";
import { ArgumentError, describe } from "../../core/errors.ts";
import { noGrad, realize, type Tensor } from "../../core/index.ts";
import type { Module } from "../module.ts";
import { emptyQuantized, type QuantizedLinear } from "../quantized.ts";
import type { Targets } from "../replace.ts";

/**
 * f16, bf16: all float weights, as `model.to` makes them. int8, int4: the matrices of Linear
 * layers; the others (of experts too) stay, or become what `rest` says.
 */
export type WeightType = "f16" | "bf16" | "int8" | "int4";

export interface ConvertOptions {
  /** What weights are converted to on their way; they become what the model has unless given. */
  readonly dtype?: WeightType;
  /** int8, int4: how many neighbouring inputs share a scale (128 unless given). */
  readonly groupSize?: number;
  /** int8, int4: which Linear layers; all but routers of experts unless given. */
  readonly targets?: Targets;
  /** int8, int4: what the other weights become (scales are f32); they stay unless given. */
  readonly rest?: "f16" | "bf16";
}

/** Gives a model's cells their values. */
export class Receiver {
  /** Layers that are to take the value of the cell that a Linear layer had. */
  readonly #layers: Map<Tensor, QuantizedLinear[]>;
  /** Cells that the model has, also beside such a layer: a tied embedding. */
  readonly #cells: ReadonlySet<Tensor>;

  /** Converts the model: names of its tensors are to be collected before. */
  constructor(model: Module, { dtype, groupSize, targets, rest }: ConvertOptions) {
    const quantized = dtype === "int8" || dtype === "int4";
    const half = quantized ? rest : dtype;
    if (dtype !== undefined && !quantized && !isHalfType(dtype))
      throw new ArgumentError(describe("load", "dtype f16, bf16, int8 or int4", `"${dtype}"`));
    if (!quantized && (groupSize !== undefined || targets || rest !== undefined))
      throw new ArgumentError(
        describe("load", "groupSize, targets and rest with dtype int8 or int4", `${dtype ?? "none"}`), // biome-ignore format: one line
      );
    if (half !== undefined && !isHalfType(half))
      throw new ArgumentError(describe("load", "rest f16 or bf16", `"${half}"`));
    // Before there are scales, which stay f32.
    if (half) model.to(half);
    const bits = dtype === "int4" ? 4 : 8;
    this.#layers = quantized ? emptyQuantized(model, { bits, groupSize, targets }) : new Map();
    this.#cells = new Set([...model.namedTensors()].map(([, cell]) => cell));
  }

  /** Resolves when the value is in the model; it may be disposed of then. */
  async take(cell: Tensor, value: Tensor): Promise<void> {
    const layers = this.#layers.get(cell) ?? [];
    this.#layers.delete(cell);
    const filled = layers.flatMap((layer) => {
      const { weightQ, scales } = layer.assign(value);
      return [weightQ, scales];
    });
    if (layers.length === 0 || this.#cells.has(cell))
      filled.push(noGrad(() => cell.assign(value.to(cell.dtype))));
    await realize(...filled);
  }

  /** Quantises what no tensor of the file was for, from the values that it had. */
  async finish(): Promise<void> {
    for (const cell of [...this.#layers.keys()]) {
      const isNew = !handleOf(cell.node);
      await this.take(cell, cell);
      // Its floats came to be here, and nobody reads them: they go now, not when they are garbage.
      if (isNew && !this.#cells.has(cell)) cell.dispose();
    }
  }

  /** As finish, and computes what else the model has. */
  async finishAll(): Promise<void> {
    await this.finish();
    for (const cell of this.#cells) await realize(cell);
  }
}

const isHalfType = (dtype: string): boolean => dtype === "f16" || dtype === "bf16";

/**
 * Makes of a model in memory what loading with these options makes of a file. Values that nobody
 * has read yet are computed one tensor after the other, so that a model that was just made never
 * has all of its weights in f32 (what it shares with another model must have been read before).
 * Steps compiled before are traced again.
 * @throws ArgumentError if a target names no layer.
 */
export async function convertWeights<M extends Module>(
  model: M,
  options: ConvertOptions,
): Promise<M> {
  await new Receiver(model, options).finishAll();
  return model;
}
