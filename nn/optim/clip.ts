/** @file Gradient clipping by global norm and by value, as in torch.nn.utils. */

import { ArgumentError, describe } from "../../core/errors.ts";
import { maximum, noGrad, type Tensor } from "../../core/index.ts";

export interface NormOptions {
  /** p > 0 of the p-norm; Infinity for the largest absolute value. 2 by default. */
  readonly normType?: number;
}

export interface ClipNormOptions extends NormOptions {
  /**
   * Throws an ArgumentError when the norm is infinite or NaN, before any gradient changes. For that the norm is read: the
   * result is a promise, and the call must be outside of compile.
   */
  readonly errorIfNonfinite?: boolean;
}

/** The norm of all tensors as one vector: 0-d, f32. */
export function getTotalNorm(
  tensors: readonly Tensor[],
  { normType = 2 }: NormOptions = {},
): Tensor {
  if (!(normType > 0))
    throw new ArgumentError(describe("getTotalNorm", "normType > 0", `${normType}`));
  if (tensors.length === 0)
    throw new ArgumentError(describe("getTotalNorm", "at least one tensor", "none"));
  // In f32 also for halves, whose squares would overflow.
  const all = tensors.map((t) => t.float());
  const sum = (terms: Tensor[]) => terms.map((t) => t.sum()).reduce((a, b) => a.add(b));
  if (normType === Infinity) return all.map((t) => t.abs().amax()).reduce((a, b) => maximum(a, b));
  if (normType === 1) return sum(all.map((t) => t.abs()));
  if (normType === 2) return sum(all.map((t) => t.square())).sqrt();
  return sum(all.map((t) => t.abs().pow(normType))).pow(1 / normType);
}

/**
 * Scales all gradients so that their common norm is at most `maxNorm`; returns the norm before, 0-d. Parameters without a
 * gradient do not count.
 */
export function clipGradNorm(
  params: Iterable<Tensor>,
  maxNorm: number,
  options?: NormOptions & { readonly errorIfNonfinite?: false },
): Tensor;
export function clipGradNorm(
  params: Iterable<Tensor>,
  maxNorm: number,
  options: NormOptions & { readonly errorIfNonfinite: true },
): Promise<Tensor>;
export function clipGradNorm(
  params: Iterable<Tensor>,
  maxNorm: number,
  { normType, errorIfNonfinite = false }: ClipNormOptions = {},
): Tensor | Promise<Tensor> {
  const withGrad = gradientsOf("clipGradNorm", params, maxNorm);
  return noGrad(() => {
    const norm = getTotalNorm(
      withGrad.map((p) => p.grad!),
      { normType },
    );
    const clip = () =>
      noGrad(() => {
        // The same small constant as PyTorch's, against a zero norm.
        const scale = norm.add(1e-6).reciprocal().mul(maxNorm).clamp(null, 1);
        for (const p of withGrad) p.grad = p.grad!.mul(scale);
        return norm;
      });
    if (!errorIfNonfinite) return clip();
    return norm.item().then((value) => {
      if (Number.isFinite(value)) return clip();
      throw new ArgumentError(
        describe(
          "clipGradNorm",
          "gradients of a finite norm",
          `${value}`,
          "errorIfNonfinite: false",
        ),
      );
    });
  });
}

/** Clamps each element of each gradient to −clipValue … clipValue. */
export function clipGradValue(params: Iterable<Tensor>, clipValue: number): void {
  const withGrad = gradientsOf("clipGradValue", params, clipValue);
  noGrad(() => {
    for (const p of withGrad) p.grad = p.grad!.clamp(-clipValue, clipValue);
  });
}

/** @throws ArgumentError if there is none, or the limit is no number ≥ 0. */
function gradientsOf(op: string, params: Iterable<Tensor>, limit: number): Tensor[] {
  const withGrad = [...params].filter((p) => p.grad);
  if (!(limit >= 0)) throw new ArgumentError(describe(op, "a limit ≥ 0", `${limit}`));
  if (withGrad.length > 0) return withGrad;
  throw new ArgumentError(
    describe(op, "parameters with gradients", "none", "call loss.backward() first"),
  );
}
