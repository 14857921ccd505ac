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
abstract class GatedMLP extends Module {
  gate: Linear;
  up: Linear;
  down: Linear;

  constructor(width: number, hidden: number, { bias = false }: { readonly bias?: boolean } = {}) {
    super();
    this.gate = new Linear(width, hidden, { bias });
    this.up = new Linear(width, hidden, { bias });
    this.down = new Linear(hidden, width, { bias });
  }

  forward(x: Tensor): Tensor {
    return this.down.forward(this.activation(this.gate.forward(x)).mul(this.up.forward(x)));
  }

  protected abstract activation(x: Tensor): Tensor;
}

/** down(silu(gate(x)) · up(x)): [..., D] → [..., D]. */
export class SwiGLU extends GatedMLP {
  protected activation(x: Tensor): Tensor {
    return x.silu();
  }
}

/** down(gelu(gate(x)) · up(x)): [..., D] → [..., D]. */
export class GEGLU extends GatedMLP {
  protected activation(x: Tensor): Tensor {
    return x.gelu();
  }
}
