/**
 * @file torch.linalg: `linalg.solve(a, b)`.
 *
 * Meant for small matrices, alone or in batches of any number of axes: each is one loop over columns,
 * and all matrices of a batch go through it together. f32 only, as PyTorch refuses halves. PyTorch
 * raises an error for a singular or indefinite matrix; here nothing has been computed yet when a
 * function returns, so what does not exist is infinite or NaN. The algorithms are linalg-solve.ts's
 * and linalg-orthogonal.ts's.
 */
export * from "./linalg-factors.ts";
export * from "./linalg-measures.ts";
export * from "./linalg-systems.ts";
export { cross } from "./linear-algebra.ts";
export { matmul } from "./matmul.ts";
export { multiDot } from "./multi-dot.ts";
