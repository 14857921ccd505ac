/**
 * @file Connectors that keep every patch: one linear map, or LLaVA-1.5's two with an activation
 * between them (https://arxiv.org/abs/2310.03744). As many image tokens as patches: 576 for a grid
 * of 24 × 24.
 *
 * Shape letters: as in connector.ts.
 */
import type { Tensor } from "../../core/index.ts";
import { Linear, Module } from "../../nn/index.ts";
import { type ActivationName, activationNamed } from "../activations.ts";
import type { Grid } from "../vision/positions.ts";
import type { Connector } from "./connector.ts";

export interface ProjectionConfig {
  /** Dv */
  readonly visionWidth: number;
  /** D */
  readonly width: number;
  /** The default. */
  readonly bias?: boolean;
}

/** LLaVA's first connector: [B, N, Dv] → [B, N, D]. https://arxiv.org/abs/2304.08485 */
export class LinearConnector extends Module implements Connector {
  projection: Linear;

  constructor({ visionWidth, width, bias }: ProjectionConfig) {
    super();
    this.projection = new Linear(visionWidth, width, { bias });
  }

  tokensOf([h, w]: Grid): number {
    return h * w;
  }

  forward(features: Tensor, _grid?: Grid): Tensor {
    return this.projection.forward(features);
  }
}

export interface MlpConnectorConfig extends ProjectionConfig {
  /** Between the two maps: the exact GELU unless given. */
  readonly activation?: ActivationName;
}

/** LLaVA-1.5's `mlp2x_gelu`: down(GELU(up(x))), [B, N, Dv] → [B, N, D], with D in between. */
export class MlpConnector extends Module implements Connector {
  up: Linear;
  down: Linear;
  readonly activation: (x: Tensor) => Tensor;

  constructor({ visionWidth, width, bias, activation = "gelu" }: MlpConnectorConfig) {
    super();
    this.up = new Linear(visionWidth, width, { bias });
    this.down = new Linear(width, width, { bias });
    this.activation = activationNamed(activation);
  }

  tokensOf([h, w]: Grid): number {
    return h * w;
  }

  forward(features: Tensor, _grid?: Grid): Tensor {
    return this.down.forward(this.activation(this.up.forward(features)));
  }
}
