/**
 * @file MM1's simplest connector: the patch grid is averaged down to a smaller grid, each cell becomes one token of
 * the language model (https://arxiv.org/abs/2403.09611, §3.2).
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import type { Tensor } from "../../core/index.ts";
import { Linear, Module } from "../../nn/index.ts";

export interface ConnectorConfig {
  /** Width of the vision model, and patches per side. */
  readonly visionWidth: number;
  readonly patches: number;
  /** Image tokens per side. */
  readonly grid: number;
  /** Width of the language model. */
  readonly width: number;
}

/** [B, n², Dv] → [B, g², D]: n patches per side, g image tokens per side. */
export class AveragePoolConnector extends Module {
  projection: Linear;
  readonly config: ConnectorConfig;

  constructor(config: ConnectorConfig) {
    super();
    if (config.patches % config.grid !== 0)
      throw new ArgumentError(
        describe(
          "AveragePoolConnector",
          "patches per side divisible by the grid",
          `${config.patches} / ${config.grid}`,
        ),
      );
    this.config = config;
    this.projection = new Linear(config.visionWidth, config.width);
  }

  get tokens(): number {
    return this.config.grid ** 2;
  }

  forward(x: Tensor): Tensor {
    const { patches: n, grid: g } = this.config;
    const [B, , D] = x.shape;
    const cells = x.reshape([B, g, n / g, g, n / g, D]).mean([2, 4]); // [B, g, g, Dv]
    return this.projection.forward(cells.reshape([B, g * g, D]));
  }
}
