/** @file Gradient clipping by global norm, as torch.nn.utils.clip_grad_norm_. */

import { ArgumentError, describe } from "../../core/errors.ts";
import { noGrad, type Tensor } from "../../core/index.ts";

/** Scales all gradients so that their common 2-norm is at most `maxNorm`; returns the norm before, 0-d. */
export function clipGradNorm(params: Iterable<Tensor>, maxNorm: number): Tensor {
  return noGrad(() => {
    const withGrad = [...params].filter((p) => p.grad);
    if (withGrad.length === 0)
      throw new ArgumentError(
        describe("clipGradNorm", "parameters with gradients", "none", "call loss.backward() first"),
      );
    // In f32 also for halves, whose squares would overflow.
    const squares = withGrad.map((p) => p.grad!.float().square().sum());
    const norm = squares.reduce((a, b) => a.add(b)).sqrt();
    // The same small constant as PyTorch's, against a zero norm.
    const scale = norm.add(1e-6).reciprocal().mul(maxNorm).clamp(null, 1);
    for (const p of withGrad) p.grad = p.grad!.mul(scale);
    return norm;
  });
}
