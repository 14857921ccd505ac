/**
 * @file What all connectors have in common: they take the patch tokens of an image encoder,
 * whatever the grid, and give image tokens of the language model's width. Which of them it is
 * matters little, how many tokens it gives matters a lot (MM1, https://arxiv.org/abs/2403.09611,
 * §3.2).
 *
 * Shape letters: B images, h × w the patch grid, Dv width of the encoder, k image tokens, D width
 * of the language model.
 */
import { ArgumentError, describe, ShapeError } from "../../core/errors.ts";
import type { Tensor } from "../../core/index.ts";
import { formatShape } from "../../core/shape.ts";
import { init, type LayerNorm, type Linear, type Module } from "../../nn/index.ts";
import type { Grid } from "../vision/positions.ts";

/** Patch tokens [B, h·w, Dv], row by row and without a class token, → image tokens [B, k, D]. */
export interface Connector extends Module {
  /** `grid`: h and w; a square unless given. */
  forward(features: Tensor, grid?: Grid): Tensor;
  /** k for a grid of h × w patches. */
  tokensOf(grid: Grid): number;
}

/**
 * The grid of patch tokens [B, N, Dv].
 * @throws ShapeError if N is no h · w, or, without `grid`, no square.
 */
export function gridOf(
  who: string,
  features: Tensor,
  width: number,
  grid: Grid | undefined,
): readonly [h: number, w: number] {
  const [, N, Dv] = features.shape;
  const side = Math.round(Math.sqrt(N));
  const [h, w] = grid ?? [side, side];
  if (features.ndim !== 3 || Dv !== width || h * w !== N)
    throw new ShapeError(
      describe(
        who,
        grid ? `[B, ${h} · ${w}, ${width}]` : `[B, N, ${width}] with N = n · n`,
        formatShape(features.shape),
        grid
          ? undefined
          : "a grid of another shape is the second argument; a class token is left out",
      ),
    );
  return [h, w];
}

/** √k of k tokens on a square. */
export function sideOf(who: string, tokens: number): number {
  const side = Math.sqrt(tokens);
  if (Number.isInteger(side) && side > 0) return side;
  throw new ArgumentError(
    describe(who, "a number of tokens that is a square", `${tokens}`, "64 = 8 · 8, 144 = 12 · 12"),
  );
}

/** Honeybee's first values: N(0, 0.02²) for weights, 0 for biases; norms stay as they are. */
export function initialize(module: Module): void {
  for (const layer of module.modules()) {
    if (!("weight" in layer) || isNorm(layer)) continue;
    const { weight, bias } = layer as Linear;
    init.normal_(weight, 0, 0.02);
    if (bias) init.zeros_(bias);
  }
}

const isNorm = (layer: Module): layer is LayerNorm => "eps" in layer;
