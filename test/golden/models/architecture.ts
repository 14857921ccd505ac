/** @file What the group `models` asks of a kind of model; index.ts says how it is used. */
import type { Tensor } from "hinode";
import type { NameMap } from "hinode/models";
import type { Module } from "hinode/nn";

export type Tensors = Readonly<Record<string, Tensor>>;

/**
 * A `models-<name>.json`: what every one has, and whatever else (`config`'s form is its class's).
 */
export interface Fixture {
  readonly model: string;
  readonly class: string;
  readonly weights: string;
  readonly tensors: string;
  // biome-ignore lint/suspicious/noExplicitAny: another form for every class
  readonly config: any;
  // biome-ignore lint/suspicious/noExplicitAny: settings of the class (`generate`, `probe`, …)
  readonly [setting: string]: any;
  readonly inputs: Readonly<Record<string, string>>;
  /** Arguments of the call beside tensors. */
  readonly input_args: Readonly<Record<string, unknown>>;
  readonly outputs: Readonly<Record<string, string>>;
  readonly extra?: Readonly<Record<string, string>>;
  readonly params: readonly string[];
  readonly dtypes?: Readonly<Record<string, string>>;
}

export interface Pass {
  readonly outputs: Tensors;
  readonly loss: Tensor;
}

export interface Architecture<M extends Module = Module> {
  /** Of which fixtures' `class` it is. */
  readonly class: RegExp;
  /**
   * The arguments of the call, beside tensors, that it takes: it finds them in the fixture's
   * `config`. Any other one is an error, but for those that change no number.
   */
  readonly arguments?: readonly string[];
  /** The model that the fixture's configuration describes; its values are loaded afterwards. */
  build(fixture: Fixture): M;
  /**
   * Where the checkpoint's weights (and the names below `buffers/`, if there are any) are in the
   * model.
   */
  weights(model: M, fixture: Fixture): NameMap;
  /**
   * The outputs by the fixture's names (others are not looked at) and the loss, from one forward
   * pass.
   */
  forward(model: M, inputs: Tensors, fixture: Fixture): Pass | Promise<Pass>;
  /**
   * What is in `extra`, computed with the weights as loaded, before any training step. `given` are
   * those entries of `extra` that are inputs (see isGiven in index.ts), beside the model's
   * `inputs`.
   */
  extra?(model: M, given: Tensors, fixture: Fixture, inputs: Tensors): Tensors | Promise<Tensors>;
}
