/** @file Factorisations of linalg: Cholesky, QR, eigenvalues of symmetric matrices, singular values. */
import { ArgumentError, describe } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import type { Tensor } from "../tensor.ts";
import { part } from "./compose.ts";
import { matrices, refuseEmpty, square } from "./linalg-operands.ts";
import { eighNode, qrNode, singularValues, svdNode } from "./linalg-orthogonal.ts";
import { choleskyNode, transposed } from "./linalg-solve.ts";

/**
 * The lower triangular L of `x = L·Lᵀ`, or with `upper` the U of `x = Uᵀ·U`, of symmetric positive
 * definite matrices [*, N, N], of which only that triangle is read. NaN where a matrix is not
 * positive definite.
 */
export function cholesky(x: Tensor, { upper = false }: { upper?: boolean } = {}): Tensor {
  const { node, back } = square("linalg.cholesky", x);
  if (node.shape.includes(0)) return x;
  const l = choleskyNode(upper ? transposed(node) : node);
  return back(upper ? transposed(l) : l);
}

export interface QR {
  readonly Q: Tensor;
  readonly R: Tensor;
}

/**
 * `x = Q·R` of [*, M, N], Q with orthonormal columns, R upper triangular. "reduced": Q [*, M, K], R
 * [*, K, N] with K = min(M, N); "complete": Q [*, M, M], R [*, M, N]. Signs are LAPACK's, as in
 * PyTorch. Gradients need full rank in the first K columns.
 */
export function qr(x: Tensor, { mode = "reduced" }: { mode?: "reduced" | "complete" } = {}): QR {
  const { node, back } = matrices("linalg.qr", x);
  if (mode !== "reduced" && mode !== "complete")
    throw new ArgumentError(describe("linalg.qr", "mode 'reduced' or 'complete'", String(mode)));
  refuseEmpty("linalg.qr", node);
  const [Q, R] = qrNode(node, mode === "complete").map(back);
  return { Q, R };
}

export interface Eigh {
  readonly eigenvalues: Tensor;
  readonly eigenvectors: Tensor;
}

export interface EighOptions {
  /** The triangle that is read; "L" by default. */
  uplo?: "L" | "U";
}

/**
 * Eigenvalues [*, N], ascending, and eigenvectors [*, N, N] as columns, of symmetric matrices.
 * Values are good to about N·2⁻²³ of the largest one. A vector's sign is arbitrary, and where
 * values are equal so are the vectors: only what does not depend on that has a meaningful gradient,
 * and vectors of equal values have none (NaN or infinite), as in PyTorch.
 */
export function eigh(x: Tensor, { uplo = "L" }: EighOptions = {}): Eigh {
  const { node, back } = square("linalg.eigh", x);
  refuseEmpty("linalg.eigh", node);
  if (uplo !== "L" && uplo !== "U")
    throw new ArgumentError(describe("linalg.eigh", "uplo 'L' or 'U'", String(uplo)));
  const [eigenvalues, eigenvectors] = eighNode(node, uplo === "U").map(back);
  return { eigenvalues, eigenvectors };
}

/** The eigenvalues of `eigh` alone. Their gradient is finite also where they are equal. */
export function eigvalsh(x: Tensor, options: EighOptions = {}): Tensor {
  return eigh(x, options).eigenvalues;
}

export interface SVD {
  /** [*, M, M], reduced [*, M, K] */
  readonly U: Tensor;
  /** [*, K], descending. */
  readonly S: Tensor;
  /** The right vectors as rows, [*, N, N], reduced [*, K, N]. */
  readonly Vh: Tensor;
}

/**
 * `x = U·diag(S)·Vh` of [*, M, N], K = min(M, N). U and Vh are orthonormal also where values are 0.
 * Gradients of the vectors as for `eigh`. With `fullMatrices` (default) U and Vh are square: the
 * vectors beyond the first K belong to no value, and have no gradient, as in PyTorch.
 */
export function svd(x: Tensor, { fullMatrices = true }: { fullMatrices?: boolean } = {}): SVD {
  const { node, back } = matrices("linalg.svd", x);
  refuseEmpty("linalg.svd", node);
  const [u, s, v] = svdNode(node);
  const whole = (q: Node): Node => {
    const [, m, k] = q.shape;
    if (!fullMatrices || m === k) return q;
    const [complete] = qrNode(g.detach(q), true);
    return g.concat([q, part(complete, 2, k, m)], 2);
  };
  return { U: back(whole(u)), S: back(s), Vh: back(transposed(whole(v))) };
}

/**
 * The singular values of [*, M, N], descending: [*, min(M, N)]. Their gradient is finite also where
 * they are equal.
 */
export function svdvals(x: Tensor): Tensor {
  const { node, back } = matrices("linalg.svdvals", x);
  refuseEmpty("linalg.svdvals", node);
  return back(singularValues(node));
}
