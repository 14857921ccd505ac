/** @file Perceptrons, plain and gated: the position-wise half of a transformer block. */
import type { Tensor } from "../core/index.ts";
import { Linear } from "./linear.ts";
import { Module } from "./module.ts";

export interface MlpOptions {
  /** Between the two maps: the exact GELU unless given. */
  readonly activation?: (x: Tensor) => Tensor;
  readonly bias?: boolean;
}

/** down(activation(up(x))): [..., D] → [..., D]. */
export class MLP extends Module {
  up: Linear;
  down: Linear;
  readonly activation: (x: Tensor) => Tensor;

  constructor(
    width: number,
    hidden: number,
    { activation = (x) => x.gelu(), bias }: MlpOptions = {},
  ) {
    super();
    this.up = new Linear(width, hidden, { bias });
    this.down = new Linear(hidden, width, { bias });
    this.activation = activation;
  }

  forward(x: Tensor): Tensor {
    return this.down.forward(this.activation(this.up.forward(x)));
  }
}

/** down(activation(gate(x)) · up(x)), without biases unless asked for: [..., D] → [..., D]. https://arxiv.org/abs/2002.05202 */
export class GatedMLP extends Module {
  gate: Linear;
  up: Linear;
  down: Linear;
  readonly activation: (x: Tensor) => Tensor;

  /** `activation`: SiLU unless given. */
  constructor(
    width: number,
    hidden: number,
    { activation = (x) => x.silu(), bias = false }: MlpOptions = {},
  ) {
    super();
    this.activation = activation;
    this.gate = new Linear(width, hidden, { bias });
    this.up = new Linear(width, hidden, { bias });
    this.down = new Linear(hidden, width, { bias });
  }

  forward(x: Tensor): Tensor {
    return this.down.forward(this.activation(this.gate.forward(x)).mul(this.up.forward(x)));
  }
}

/** down(silu(gate(x)) · up(x)): [..., D] → [..., D]. */
export class SwiGLU extends GatedMLP {
  constructor(width: number, hidden: number, { bias }: Pick<MlpOptions, "bias"> = {}) {
    super(width, hidden, { bias });
  }
}

/** down(gelu(gate(x)) · up(x)): [..., D] → [..., D]. */
export class GEGLU extends GatedMLP {
  constructor(width: number, hidden: number, { bias }: Pick<MlpOptions, "bias"> = {}) {
    super(width, hidden, { activation: (x) => x.gelu(), bias });
  }
}
