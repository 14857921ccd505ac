/**
 * @file Automatic mixed precision: inside `autocast`, operators choose the type that they compute in by the table below.
 * Products run in a half, where accelerators are fast; what needs digits or range runs in f32; parameters stay f32 and so
 * do their gradients. Idea and rows: PyTorch's torch.autocast. The casts themselves are promotion.ts's, where every
 * operator gets its operands.
 */
import type { DType } from "./dtype.ts";
import { ArgumentError, describe, TransformError } from "./errors.ts";

export type HalfType = Extract<DType, "f16" | "bf16">;

export interface AutocastOptions {
  /** What products are computed in; f16 by default. It needs `GradScaler`, because small gradients underflow. */
  readonly dtype?: HalfType;
  /** false: inside `fn` every operator keeps the types that it is given, also within another autocast. */
  readonly enabled?: boolean;
}

/**
 * Which operators change the types of their floating-point operands:
 *
 * - half: all operands are cast to the half, which is the result's type; sums are accumulated in f32.
 * - f32: all operands are cast to f32, which is the result's type.
 * - widest: if operands have different float types, all are cast to f32; operators that would otherwise refuse to mix
 *   them, or that would give the first one's type.
 *
 * All others keep what they are given: element-wise ones and `cat`, `stack`, `where` promote (a half and f32 make f32), the
 * rest has the type of its input (an f16 input of `batchNorm` or `avgPool2d` is computed in f32 and rounded once).
 *
 * PyTorch's rows, and beyond them: means and variances, rmsNorm, and the binary losses are f32; `tensordot`, `inner` and
 * `bilinear`, which are products here, are halves.
 */
export const autocastOperators: Readonly<Record<AutocastPolicy, readonly string[]>> = {
  half: [
    ...["matmul", "mm", "bmm", "mv", "linear", "einsum", "tensordot", "inner", "bilinear"],
    ...["addmm", "addmv", "addbmm", "baddbmm", "addr", "multiDot", "matrixPower"],
    ...["conv1d", "conv2d", "conv3d", "convTranspose1d", "convTranspose2d", "convTranspose3d"],
    ...["scaledDotProductAttention", "prelu"],
  ],
  f32: [
    // Exponentials, logarithms, powers and what is steep.
    ...["exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow", "square", "rsqrt"],
    ...["reciprocal", "sinh", "cosh", "tan", "acos", "asin", "softplus", "erfinv", "logit"],
    ...["lgamma", "digamma", "logaddexp", "logaddexp2", "xlogy"],
    // Sums over many elements.
    ...["sum", "nansum", "prod", "mean", "nanmean", "variance", "std", "varMean", "norm"],
    ...["matrixNorm", "cumsum", "cumprod", "logcumsumexp", "logsumexp"],
    ...["cdist", "pdist", "pairwiseDistance", "cosineSimilarity"],
    // Softmax and norms.
    ...["softmax", "softmin", "logSoftmax", "layerNorm", "rmsNorm", "groupNorm", "instanceNorm"],
    ...["localResponseNorm", "normalize", "attentionWeights"],
    // Losses.
    ...["crossEntropy", "nllLoss", "mseLoss", "l1Loss", "smoothL1Loss", "huberLoss", "klDiv"],
    ...["binaryCrossEntropy", "binaryCrossEntropyWithLogits", "poissonNllLoss"],
    ...["gaussianNllLoss", "cosineEmbeddingLoss", "marginRankingLoss", "tripletMarginLoss"],
  ],
  widest: [
    ...["dot", "outer", "addcmul", "addcdiv", "lerp"],
    ...["scatter", "scatterAdd", "scatterReduce", "indexAdd", "indexCopy", "indexPut"],
  ],
};

export type AutocastPolicy = "half" | "f32" | "widest";

const policies = new Map(
  (Object.entries(autocastOperators) as [AutocastPolicy, string[]][]).flatMap(([policy, names]) =>
    names.map((name) => [name, policy] as const),
  ),
);

/** The row of an operator, by the name that its errors bear; undefined if it has none. */
export const autocastPolicy = (op: string): AutocastPolicy | undefined => policies.get(op);

let active: HalfType | null = null;

/** The half that products are computed in now; null outside of autocast. Part of a compiled function's signature. */
export const autocastType = (): HalfType | null => active;

/** Whether operators choose their types now; see `autocast`. */
export const isAutocastEnabled = (): boolean => active !== null;

/**
 * Runs the synchronous `fn` in mixed precision (`autocastOperators` is the table). For forward passes and losses; gradients
 * have the types of what they belong to, so `backward` may be called inside or outside.
 *
 *     const scaler = new optim.GradScaler();
 *     const step = compile((x: Tensor, y: Tensor) => {
 *       const loss = autocast({ dtype: "f16" }, () => crossEntropy(model.forward(x), y));
 *       adamw.zeroGrad();
 *       scaler.scale(loss).backward();
 *       scaler.step(adamw);
 *       scaler.update();
 *       return loss;
 *     });
 */
export function autocast<R>(options: AutocastOptions, fn: () => R): R {
  const { dtype = "f16", enabled = true } = options;
  if (dtype !== "f16" && dtype !== "bf16")
    throw new ArgumentError(describe("autocast", "dtype 'f16' or 'bf16'", `'${String(dtype)}'`));
  const before = active;
  active = enabled ? dtype : null;
  try {
    const result = fn();
    // Other code would run in this mode between its awaits, and it would end here in the middle.
    if (result instanceof Promise) {
      result.catch(() => {});
      throw new TransformError(
        describe("autocast", "a synchronous function", "one that returns a promise"),
      );
    }
    return result;
  } finally {
    active = before;
  }
}
