/**
 * @file MM1's simplest connector: the patch grid is averaged down to a smaller grid, each cell
 * becomes one token of the language model (https://arxiv.org/abs/2403.09611, §3.2).
 *
 * Shape letters: as in connector.ts; g image tokens per side.
 */
import { adaptiveAvgPool2d, type Tensor } from "../../core/index.ts";
import { Linear, Module } from "../../nn/index.ts";
import type { Grid } from "../vision/positions.ts";
import { type Connector, gridOf } from "./connector.ts";

export interface ConnectorConfig {
  /** Width of the vision model. */
  readonly visionWidth: number;
  /** Image tokens per side: 8 or 12 in MM1. */
  readonly grid: number;
  /** Width of the language model. */
  readonly width: number;
}

/**
 * Patches [B, h·w, Dv] → [B, g², D]. Cell i of g is the mean of the rows ⌊i·h/g⌋ … ⌈(i+1)·h/g⌉ − 1,
 * and so for columns: cells overlap where g does not divide the grid, as 12 cells of 27 patches.
 */
export class AveragePoolConnector extends Module implements Connector {
  projection: Linear;
  readonly config: ConnectorConfig;

  constructor(config: ConnectorConfig) {
    super();
    this.config = config;
    this.projection = new Linear(config.visionWidth, config.width);
  }

  get tokens(): number {
    return this.config.grid ** 2;
  }

  tokensOf(_grid: Grid): number {
    return this.tokens;
  }

  forward(features: Tensor, grid?: Grid): Tensor {
    const { grid: g, visionWidth } = this.config;
    const [h, w] = gridOf("AveragePoolConnector", features, visionWidth, grid);
    return this.projection.forward(poolGrid(features, [h, w], g)); // [B, g², D]
  }
}

/** Tokens [B, h·w, D] of a grid → their means in g × g cells, [B, g², D]. */
export function poolGrid(x: Tensor, [h, w]: Grid, g: number): Tensor {
  if (h === g && w === g) return x;
  const [B, , D] = x.shape;
  if (h % g === 0 && w % g === 0)
    return x.reshape([B, g, h / g, g, w / g, D]).mean([2, 4]).reshape([B, g * g, D]); // biome-ignore format: one line
  const planes = x.reshape([B, h, w, D]).permute([0, 3, 1, 2]); // [B, D, h, w]
  return adaptiveAvgPool2d(planes, g)
    .permute([0, 2, 3, 1])
    .reshape([B, g * g, D]);
}
