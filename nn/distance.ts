/** @file Similarity and distance of two tensors as modules: the functions with their options given once. */
import { cosineSimilarity, pairwiseDistance, type Tensor } from "../core/index.ts";
import { Module } from "./module.ts";

/** The cosine of the angle between vectors along `dim`. */
export class CosineSimilarity extends Module {
  readonly dim: number;
  readonly eps: number;

  constructor(options: { readonly dim?: number; readonly eps?: number } = {}) {
    super();
    this.dim = options.dim ?? 1;
    this.eps = options.eps ?? 1e-8;
  }

  forward(x1: Tensor, x2: Tensor): Tensor {
    return cosineSimilarity(x1, x2, this.dim, this.eps);
  }
}

/** The p-norm of x1 − x2 + eps along the last axis. */
export class PairwiseDistance extends Module {
  readonly p: number;
  readonly eps: number;
  readonly keepdim: boolean;

  constructor(
    options: { readonly p?: number; readonly eps?: number; readonly keepdim?: boolean } = {},
  ) {
    super();
    this.p = options.p ?? 2;
    this.eps = options.eps ?? 1e-6;
    this.keepdim = options.keepdim ?? false;
  }

  forward(x1: Tensor, x2: Tensor): Tensor {
    return pairwiseDistance(x1, x2, this.p, this.eps, this.keepdim);
  }
}
