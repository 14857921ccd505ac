/**
 * @file One step of RNN, LSTM and GRU, and the cells that are only that. Decides the equations, the order of the gates in
 * the weights' rows and the initial values, all PyTorch's; recurrent.ts makes layers and the loop over time.
 *
 * Shape letters: B batch, I input width, H width of the state, G gates (RNN 1, GRU 3, LSTM 4).
 */
import { ArgumentError, describe, ShapeError } from "../core/errors.ts";
import { linear, type Tensor, zeros } from "../core/index.ts";
import { formatShape } from "../core/shape.ts";
import { expectShape, positive } from "./checks.ts";
import { uniform } from "./init.ts";
import { Module } from "./module.ts";

export type Nonlinearity = "tanh" | "relu";

/** One kind of recurrence. */
export interface Recurrence {
  readonly gates: number;
  /** How many tensors the state consists of: 2 for LSTM, (h, c). */
  readonly states: 1 | 2;
  /** The next state from W_ih x + b_ih and W_hh h + b_hh, both [B, G·H], and the state. */
  readonly step: (x: Tensor, h: Tensor, state: readonly Tensor[]) => Tensor[];
}

/** h′ = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu. */
export const simpleRecurrence = (nonlinearity: Nonlinearity): Recurrence => {
  if (nonlinearity !== "tanh" && nonlinearity !== "relu")
    throw new ArgumentError(describe("RNN", 'nonlinearity "tanh" or "relu"', `${nonlinearity}`));
  return { gates: 1, states: 1, step: (x, h) => [x.add(h)[nonlinearity]()] };
};

/**
 * Gates i, f, g, o: c′ = σ(f)·c + σ(i)·tanh(g), h′ = σ(o)·tanh(c′). Hochreiter and Schmidhuber 1997, with Gers' forget gate.
 */
export const lstmRecurrence: Recurrence = {
  gates: 4,
  states: 2,
  step(x, h, [, c]) {
    const [i, f, g, o] = x.add(h).chunk(4, -1);
    const memory = f.sigmoid().mul(c).add(i.sigmoid().mul(g.tanh()));
    return [o.sigmoid().mul(memory.tanh()), memory];
  },
};

/**
 * Gates r, z, n: n = tanh(x_n + r·h_n), h′ = (1 − z)·n + z·h, where h_n includes its bias, as in cuDNN and PyTorch. Cho et al.
 * 2014, arXiv 1406.1078.
 */
export const gruRecurrence: Recurrence = {
  gates: 3,
  states: 1,
  step(x, h, [state]) {
    const [xr, xz, xn] = x.chunk(3, -1);
    const [hr, hz, hn] = h.chunk(3, -1);
    const [r, z] = [xr.add(hr).sigmoid(), xz.add(hz).sigmoid()];
    const n = xn.add(r.mul(hn)).tanh();
    return [n.add(z.mul(state.sub(n)))];
  },
};

/** Initial values: uniform within ±1/√H, whatever the tensor. */
export const recurrentUniform = (shape: number[], hidden: number): Tensor =>
  uniform(shape, hidden > 0 ? 1 / Math.sqrt(hidden) : 0);

export interface CellOptions {
  readonly bias?: boolean;
}

/** What the three cells share: weights, checks, and inputs without a batch. */
abstract class Cell extends Module {
  /** [G·H, I] */
  weightIh: Tensor;
  /** [G·H, H] */
  weightHh: Tensor;
  /** [G·H] */
  biasIh: Tensor | null;
  biasHh: Tensor | null;
  readonly inputSize: number;
  readonly hiddenSize: number;
  readonly #kind: Recurrence;

  constructor(kind: Recurrence, inputSize: number, hiddenSize: number, options: CellOptions) {
    super();
    positive(this.constructor.name, { inputSize, hiddenSize });
    this.#kind = kind;
    this.inputSize = inputSize;
    this.hiddenSize = hiddenSize;
    const rows = kind.gates * hiddenSize;
    const make = (...shape: number[]) => recurrentUniform(shape, hiddenSize);
    this.weightIh = make(rows, inputSize);
    this.weightHh = make(rows, hiddenSize);
    this.biasIh = (options.bias ?? true) ? make(rows) : null;
    this.biasHh = (options.bias ?? true) ? make(rows) : null;
  }

  /** [B, I] or [I] and states [B, H] or [H] → the next states. */
  protected next(x: Tensor, state: readonly Tensor[] | null | undefined): Tensor[] {
    const op = this.constructor.name;
    const lead = x.shape.slice(0, -1);
    if (lead.length > 1 || x.shape.at(-1) !== this.inputSize)
      throw new ShapeError(
        describe(
          op,
          `an input [B, ${this.inputSize}] or [${this.inputSize}]`,
          formatShape(x.shape),
        ),
      );
    const shape = [...lead, this.hiddenSize];
    const { dtype } = this.weightHh;
    const from = state ?? Array.from({ length: this.#kind.states }, () => zeros(shape, { dtype }));
    for (const s of from) expectShape(op, "a state", s, shape);
    const given = linear(x, this.weightIh, this.biasIh);
    const own = linear(from[0], this.weightHh, this.biasHh);
    return this.#kind.step(given, own, from);
  }

  override extraRepr(): string {
    return `${this.inputSize}, ${this.hiddenSize}${this.biasIh ? "" : ", bias=false"}`;
  }
}

/** One step of an RNN: [B, I], h [B, H] → h′ [B, H]; without a batch as well. h is 0 unless given. */
export class RNNCell extends Cell {
  readonly nonlinearity: Nonlinearity;

  constructor(
    inputSize: number,
    hiddenSize: number,
    options: CellOptions & { readonly nonlinearity?: Nonlinearity } = {},
  ) {
    const { nonlinearity = "tanh" } = options;
    super(simpleRecurrence(nonlinearity), inputSize, hiddenSize, options);
    this.nonlinearity = nonlinearity;
  }

  forward(x: Tensor, h?: Tensor | null): Tensor {
    return this.next(x, h && [h])[0];
  }
}

/** One step of an LSTM: [B, I], (h, c) [B, H] each → (h′, c′); without a batch as well. The state is 0 unless given. */
export class LSTMCell extends Cell {
  constructor(inputSize: number, hiddenSize: number, options: CellOptions = {}) {
    super(lstmRecurrence, inputSize, hiddenSize, options);
  }

  forward(x: Tensor, state?: readonly [h: Tensor, c: Tensor] | null): [h: Tensor, c: Tensor] {
    return this.next(x, state) as [Tensor, Tensor];
  }
}

/** One step of a GRU: [B, I], h [B, H] → h′ [B, H]; without a batch as well. h is 0 unless given. */
export class GRUCell extends Cell {
  constructor(inputSize: number, hiddenSize: number, options: CellOptions = {}) {
    super(gruRecurrence, inputSize, hiddenSize, options);
  }

  forward(x: Tensor, h?: Tensor | null): Tensor {
    return this.next(x, h && [h])[0];
  }
}
