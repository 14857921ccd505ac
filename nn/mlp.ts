/** @file Perceptrons, plain and gated: the position-wise half of a transformer block. */
import type { Tensor } from "../core/index.ts";
import { Linear } from "./linear.ts";
import { Module } from "./module.ts";

/** down(gelu(up(x))): [..., D] → [..., D]. */
export class MLP extends Module {
  up: Linear;
  down: Linear;

  constructor(width: number, hidden: number) {
    super();
    this.up = new Linear(width, hidden);
    this.down = new Linear(hidden, width);
  }

  forward(x: Tensor): Tensor {
    return this.down.forward(this.up.forward(x).gelu());
  }
}

/** down(activation(gate(x)) · up(x)), without biases: [..., D] → [..., D]. https://arxiv.org/abs/2002.05202 */
abstract class GatedMLP extends Module {
  gate: Linear;
  up: Linear;
  down: Linear;

  constructor(width: number, hidden: number) {
    super();
    this.gate = new Linear(width, hidden, { bias: false });
    this.up = new Linear(width, hidden, { bias: false });
    this.down = new Linear(hidden, width, { bias: false });
  }

  forward(x: Tensor): Tensor {
    return this.down.forward(this.activation(this.gate.forward(x)).mul(this.up.forward(x)));
  }

  protected abstract activation(x: Tensor): Tensor;
}

/** down(silu(gate(x)) · up(x)), without biases: [..., D] → [..., D]. */
export class SwiGLU extends GatedMLP {
  protected activation(x: Tensor): Tensor {
    return x.silu();
  }
}

/** down(gelu(gate(x)) · up(x)), without biases: [..., D] → [..., D]. */
export class GEGLU extends GatedMLP {
  protected activation(x: Tensor): Tensor {
    return x.gelu();
  }
}
