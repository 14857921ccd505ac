/** @file Muon (https://kellerjordan.github.io/posts/muon/), as torch.optim.Muon: momentum whose singular values are all near 1. */

import type { Tensor } from "../../core/index.ts";
import { getTotalNorm } from "./clip.ts";
import { type Decay, type Group, Optimizer, type Params, type Rule } from "./optimizer.ts";
import { average, complement, type Write } from "./rule.ts";

export interface MuonOptions {
  readonly lr?: number;
  /** Weights shrink by lr · weightDecay. */
  readonly weightDecay?: number;
  readonly momentum?: number;
  readonly nesterov?: boolean;
  /** The polynomial of a Newton–Schulz iteration: X ← aX + b(XXᵀ)X + c(XXᵀ)²X. */
  readonly nsCoefficients?: readonly [a: number, b: number, c: number];
  /** What the norm that the iteration starts by dividing by is at least. */
  readonly eps?: number;
  readonly nsSteps?: number;
  /**
   * How the rate follows the shape [A, B]: "original" (also null) multiplies by √max(1, A/B), "match_rms_adamw" by 0.2 · √max(A, B), so
   * that rates and weight decay that suit AdamW suit Muon (https://arxiv.org/abs/2502.16982).
   */
  readonly adjustLrFn?: "original" | "match_rms_adamw" | null;
}

type Complete = Required<MuonOptions>;
const defaults: Complete = {
  lr: 1e-3,
  weightDecay: 0.1,
  momentum: 0.95,
  nesterov: true,
  nsCoefficients: [3.4445, -4.775, 2.0315],
  eps: 1e-7,
  nsSteps: 5,
  adjustLrFn: null,
};

/**
 * For the matrices of hidden layers; give embeddings, heads and vectors to AdamW. The iteration is carried out in f32, not in bf16 as
 * PyTorch's. Note that `autocast` changes nothing about it: a step is outside of the forward pass.
 */
export class Muon extends Optimizer<Complete> {
  readonly velocity = this.cells("velocity");

  constructor(params: Params<MuonOptions>, options: MuonOptions = {}) {
    super(params, defaults, options);
    this.require("matrices", (_, group) => group.params.every((p) => p.shape.length === 2));
    this.require(
      "an integral nsSteps from 0 to 99",
      ({ nsSteps }) => Number.isInteger(nsSteps) && nsSteps >= 0 && nsSteps < 100,
    );
    this.require('adjustLrFn "original" or "match_rms_adamw"', ({ adjustLrFn }) =>
      Object.hasOwn(adjustments, adjustLrFn ?? "original"),
    );
  }

  protected override decay(): Decay {
    return "decoupled";
  }

  protected rule(group: Group<Complete>, _: Tensor, write: Write): Rule {
    const { options, lr } = group;
    const { nesterov, adjustLrFn } = options;
    const momentum = this.momentumOf(group);
    const adjustment = adjustments[adjustLrFn ?? "original"];
    return ({ i, w, g }) => {
      const v = average(write, this.velocity[i], momentum, g);
      const direction = nesterov ? g.mul(complement(momentum)).add(v.mul(momentum)) : v;
      const [rows, columns] = w.shape;
      const rate = lr.mul(adjustment(rows, columns));
      return w.sub(orthogonalized(direction, options).mul(rate));
    };
  }
}

const adjustments = {
  original: (a: number, b: number) => Math.sqrt(Math.max(1, a / b)),
  match_rms_adamw: (a: number, b: number) => 0.2 * Math.sqrt(Math.max(a, b)),
};

/** [A, B] with the same singular vectors, its singular values near 1. */
function orthogonalized(x: Tensor, { nsCoefficients, nsSteps, eps }: Complete): Tensor {
  const [a, b, c] = nsCoefficients;
  // The smaller of both Gram matrices.
  const tall = x.shape[0] > x.shape[1];
  let y = tall ? x.T : x;
  y = y.div(getTotalNorm([y]).clamp(eps));
  for (let k = 0; k < nsSteps; k++) {
    const gram = y.matmul(y.T);
    const polynomial = gram.mul(b).add(gram.matmul(gram).mul(c));
    y = y.mul(a).add(polynomial.matmul(y));
  }
  return tall ? y.T : y;
}
