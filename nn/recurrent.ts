/**
 * @file RNN, LSTM and GRU: layers and directions around a loop over time. The loop is one `scan`, so a sequence of 1000
 * steps has the kernels of one of 10, and the inputs of all steps are projected in one product before it. The equations
 * of a step are recurrent-cells.ts's.
 *
 * Shape letters: T steps, B batch, I input width, H width of the state, P width of the output (H, or projSize), N layers,
 * D directions (1 or 2), G gates.
 */
import { ArgumentError, describe, ShapeError } from "../core/errors.ts";
import {
  arange,
  cat,
  dropout,
  linear,
  scan,
  stack,
  Tensor,
  tensor,
  where,
  zeros,
} from "../core/index.ts";
import { formatShape } from "../core/shape.ts";
import { expectShape, positive } from "./checks.ts";
import { Module } from "./module.ts";
import {
  gruRecurrence,
  lstmRecurrence,
  type Nonlinearity,
  type Recurrence,
  recurrentUniform,
  simpleRecurrence,
} from "./recurrent-cells.ts";

export interface RecurrentOptions {
  readonly numLayers?: number;
  readonly bias?: boolean;
  /** Inputs and outputs are [B, T, …] instead of [T, B, …]; states are not concerned. */
  readonly batchFirst?: boolean;
  /** The probability with which an output of a layer, but of the last, is dropped while training. */
  readonly dropout?: number;
  /** A second pass from the end to the beginning, whose outputs stand behind those of the first. */
  readonly bidirectional?: boolean;
}

export interface RecurrentForward {
  /**
   * The true length of each sequence, [B] (a tensor, or numbers that become part of a compiled function), instead of
   * PyTorch's pack_padded_sequence: outputs beyond it are 0, the final state is that at the end of the sequence, and the
   * backward direction begins there. Sequences stay in their order, and the outputs keep T steps. At most T; a length of
   * 0, which PyTorch refuses, gives the initial state.
   */
  readonly lengths?: Tensor | readonly number[];
}

/** Parameters of one layer and direction. */
interface Weights {
  readonly ih: Tensor;
  readonly hh: Tensor;
  readonly biasIh: Tensor | null;
  readonly biasHh: Tensor | null;
  readonly hr: Tensor | null;
}

/**
 * What the three share. Parameters are fields `weightIhL0` [G·H, I], `weightHhL0` [G·H, P], `biasIhL0`, `biasHhL0` [G·H],
 * with a projection `weightHrL0` [P, H], and so on for each layer, `weightIhL0Reverse` … for the second direction:
 * PyTorch's `weight_ih_l0_reverse` in camelCase. All are uniform within ±1/√H at first.
 */
abstract class Recurrent extends Module {
  [weight: `weight${"Ih" | "Hh" | "Hr"}L${string}`]: Tensor;
  [bias: `bias${"Ih" | "Hh"}L${string}`]: Tensor;
  readonly inputSize: number;
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly bias: boolean;
  readonly batchFirst: boolean;
  readonly dropout: number;
  readonly bidirectional: boolean;
  /** Width of the outputs of a direction where it is not H; 0 without a projection. */
  readonly projSize: number;
  readonly #kind: Recurrence;

  constructor(
    kind: Recurrence,
    inputSize: number,
    hiddenSize: number,
    options: RecurrentOptions & { readonly projSize?: number },
  ) {
    super();
    const { numLayers = 1, bias = true, batchFirst = false, bidirectional = false } = options;
    const { projSize = 0, dropout = 0 } = options;
    const op = this.constructor.name;
    positive(op, { inputSize, hiddenSize, numLayers });
    if (!Number.isInteger(projSize) || projSize < 0 || projSize >= hiddenSize)
      throw new ArgumentError(describe(op, "a projSize below hiddenSize", `${projSize}`));
    if (!(dropout >= 0 && dropout <= 1))
      throw new ArgumentError(describe(op, "dropout within 0 … 1", `${dropout}`));
    this.#kind = kind;
    this.inputSize = inputSize;
    this.hiddenSize = hiddenSize;
    this.numLayers = numLayers;
    this.bias = bias;
    this.batchFirst = batchFirst;
    this.dropout = dropout;
    this.bidirectional = bidirectional;
    this.projSize = projSize;
    const rows = kind.gates * hiddenSize;
    const make = (...shape: number[]) => recurrentUniform(shape, hiddenSize);
    for (const [layer, suffix] of this.#passes()) {
      const width = layer === 0 ? inputSize : this.#width * this.#suffixes.length;
      this[`weightIh${suffix}`] = make(rows, width);
      this[`weightHh${suffix}`] = make(rows, this.#width);
      if (bias) {
        this[`biasIh${suffix}`] = make(rows);
        this[`biasHh${suffix}`] = make(rows);
      }
      if (projSize > 0) this[`weightHr${suffix}`] = make(projSize, hiddenSize);
    }
  }

  get #width(): number {
    return this.projSize || this.hiddenSize;
  }

  get #suffixes(): readonly string[] {
    return this.bidirectional ? ["", "Reverse"] : [""];
  }

  /** Each layer and direction in the order of the states. */
  *#passes(): Generator<[layer: number, suffix: `L${string}`]> {
    for (let layer = 0; layer < this.numLayers; layer++)
      for (const direction of this.#suffixes) yield [layer, `L${layer}${direction}`];
  }

  #weights(suffix: `L${string}`): Weights {
    return {
      ih: this[`weightIh${suffix}`],
      hh: this[`weightHh${suffix}`],
      biasIh: this.bias ? this[`biasIh${suffix}`] : null,
      biasHh: this.bias ? this[`biasHh${suffix}`] : null,
      hr: this.projSize > 0 ? this[`weightHr${suffix}`] : null,
    };
  }

  /** [T, B, I] and initial states [N·D, B, …] → outputs [T, B, D·P] and final states. */
  protected run(
    input: Tensor,
    initial: readonly Tensor[] | null | undefined,
    { lengths }: RecurrentForward,
  ): { output: Tensor; states: Tensor[] } {
    const op = this.constructor.name;
    const { inputSize, batchFirst } = this;
    const batched = input.ndim === 3;
    if ((!batched && input.ndim !== 2) || input.shape.at(-1) !== inputSize) {
      const want = batchFirst ? `[B, T, ${inputSize}]` : `[T, B, ${inputSize}]`;
      throw new ShapeError(
        describe(op, `an input ${want} or [T, ${inputSize}]`, formatShape(input.shape)),
      );
    }
    // Inside, time is the first axis and there is a batch.
    const toTime = (t: Tensor) => (batched ? (batchFirst ? t.transpose(0, 1) : t) : t.unsqueeze(1));
    const fromTime = (t: Tensor) => (batched ? (batchFirst ? t.transpose(0, 1) : t) : t.squeeze(1));
    let x = toTime(input);
    const [T, B] = x.shape;
    const count = this.numLayers * this.#suffixes.length;
    const widths = [this.#width, this.hiddenSize].slice(0, this.#kind.states);
    const { dtype } = this.weightHhL0;
    const starts = widths.map((width, i) => {
      const given = initial?.[i];
      if (!given) return zeros([count, B, width], { dtype });
      expectShape(op, "a state", given, batched ? [count, B, width] : [count, width]);
      return batched ? given : given.unsqueeze(1);
    });
    const alive = lengths === undefined ? null : aliveSteps(op, lengths, T, B);

    const finals: Tensor[][] = starts.map(() => []);
    let outputs: Tensor[] = [];
    for (const [pass, [layer, suffix]] of [...this.#passes()].entries()) {
      if (suffix === `L${layer}` && layer > 0) {
        x = cat(outputs, -1);
        outputs = [];
        if (this.dropout > 0 && this.training) x = dropout(x, this.dropout);
      }
      const state = starts.map((s) => s.select(0, pass));
      const reverse = suffix.endsWith("Reverse");
      const [last, output] = this.#loop(x, state, this.#weights(suffix), alive, reverse);
      outputs.push(output);
      for (const [i, s] of last.entries()) finals[i].push(s);
    }
    const whole = (list: readonly Tensor[]) => {
      const all = stack(list);
      return batched ? all : all.squeeze(1);
    };
    return { output: fromTime(cat(outputs, -1)), states: finals.map(whole) };
  }

  /** One layer in one direction. */
  #loop(
    x: Tensor,
    state: Tensor[],
    { ih, hh, biasIh, biasHh, hr }: Weights,
    alive: Tensor | null,
    reverse: boolean,
  ): [state: Tensor[], output: Tensor] {
    const projected = linear(x, ih, biasIh); // [T, B, G·H]
    const step = (before: Tensor[], [gates, live]: Tensor[]): [Tensor[], Tensor] => {
      const after = this.#kind.step(gates, linear(before[0], hh, biasHh), before);
      if (hr) after[0] = linear(after[0], hr);
      // Under autocast products are halves; the state is not.
      let next = after.map((s, i) => s.to(before[i].dtype));
      const [h] = next;
      if (!live) return [next, h];
      next = next.map((s, i) => where(live, s, before[i]));
      return [next, where(live, h, 0)];
    };
    return scan(step, state, alive ? [projected, alive] : [projected], { reverse });
  }

  override extraRepr(): string {
    const facts: string[] = [];
    for (const name of [
      "numLayers",
      "bias",
      "batchFirst",
      "dropout",
      "bidirectional",
      "projSize",
    ] as const)
      if (this[name] !== defaults[name]) facts.push(`${name}=${this[name]}`);
    return [this.inputSize, this.hiddenSize, ...facts].join(", ");
  }
}

const defaults = {
  numLayers: 1,
  bias: true,
  batchFirst: false,
  dropout: 0,
  bidirectional: false,
  projSize: 0,
};

/** [T, B, 1]: whether step t of sequence b is before its end. */
function aliveSteps(op: string, lengths: Tensor | readonly number[], T: number, B: number): Tensor {
  const given = lengths instanceof Tensor ? lengths : tensor([...lengths], { dtype: "i32" });
  expectShape(op, "lengths", given, [B]);
  const wrong =
    lengths instanceof Tensor ? [] : lengths.filter((n) => !Number.isInteger(n) || n < 0 || n > T);
  if (wrong.length > 0)
    throw new ArgumentError(describe(op, `lengths within 0 … ${T}`, `${wrong}`));
  return arange(T).reshape([T, 1, 1]).lt(given.unsqueeze(-1));
}

/**
 * Elman's network, h′ = tanh(W_ih x + b_ih + W_hh h + b_hh) or relu: x [T, B, I], h0 [N·D, B, H] (0 unless given) →
 * [output [T, B, D·H], hN [N·D, B, H]]; also without a batch. As PyTorch's nn.RNN.
 */
export class RNN extends Recurrent {
  readonly nonlinearity: Nonlinearity;

  constructor(
    inputSize: number,
    hiddenSize: number,
    options: RecurrentOptions & { readonly nonlinearity?: Nonlinearity } = {},
  ) {
    const { nonlinearity = "tanh" } = options;
    super(simpleRecurrence(nonlinearity), inputSize, hiddenSize, { ...options, projSize: 0 });
    this.nonlinearity = nonlinearity;
  }

  forward(
    x: Tensor,
    h0?: Tensor | null,
    options: RecurrentForward = {},
  ): [output: Tensor, hN: Tensor] {
    const { output, states } = this.run(x, h0 && [h0], options);
    return [output, states[0]];
  }
}

/**
 * Long short-term memory: x [T, B, I], (h0 [N·D, B, P], c0 [N·D, B, H]) (0 unless given) → [output [T, B, D·P], [hN, cN]];
 * also without a batch. As PyTorch's nn.LSTM; `projSize` P makes h = W_hr·(σ(o)·tanh(c)) (arXiv 1402.1128).
 */
export class LSTM extends Recurrent {
  constructor(
    inputSize: number,
    hiddenSize: number,
    options: RecurrentOptions & { readonly projSize?: number } = {},
  ) {
    super(lstmRecurrence, inputSize, hiddenSize, options);
  }

  forward(
    x: Tensor,
    state?: readonly [h0: Tensor, c0: Tensor] | null,
    options: RecurrentForward = {},
  ): [output: Tensor, state: [hN: Tensor, cN: Tensor]] {
    const { output, states } = this.run(x, state, options);
    return [output, states as [Tensor, Tensor]];
  }
}

/**
 * Gated recurrent units: x [T, B, I], h0 [N·D, B, H] (0 unless given) → [output [T, B, D·H], hN [N·D, B, H]]; also without a
 * batch. As PyTorch's nn.GRU.
 */
export class GRU extends Recurrent {
  constructor(inputSize: number, hiddenSize: number, options: RecurrentOptions = {}) {
    super(gruRecurrence, inputSize, hiddenSize, { ...options, projSize: 0 });
  }

  forward(
    x: Tensor,
    h0?: Tensor | null,
    options: RecurrentForward = {},
  ): [output: Tensor, hN: Tensor] {
    const { output, states } = this.run(x, h0 && [h0], options);
    return [output, states[0]];
  }
}
