/**
 * @file The few operations that the benchmark's programs are written in, once per framework: Hinode (hinode.ts), the peers
 * (../peers), and a recorder (record.ts), whose list Python and the ONNX writer read. Each framework uses its own best function.
 */
export interface Ops<T> {
  /** [..., m, k] · [..., k, n], or with b [..., n, k] where `transposed`. */
  matmul(a: T, b: T, transposed?: boolean): T;
  add(a: T, b: T): T;
  mul(a: T, b: T): T;
  /** x·scale + shift. */
  affine(x: T, scale: number, shift: number): T;
  /** With the error function. */
  gelu(x: T): T;
  silu(x: T): T;
  /** Over the last axis, as the two norms (epsilon 1e-5). */
  softmax(x: T): T;
  layerNorm(x: T, weight: T, bias: T): T;
  rmsNorm(x: T, weight: T): T;
  reshape(x: T, shape: readonly number[]): T;
  transpose(x: T, permutation: readonly number[]): T;
  slice(x: T, axis: number, start: number, length: number): T;
  concat(a: T, b: T, axis: number): T;
  mean(x: T, axis: number): T;
  embedding(table: T, ids: T): T;
  /** softmax(q·kᵀ/√d)·v of [B, H, T, d]. */
  attention(q: T, k: T, v: T, causal: boolean): T;
  /** [N, C, H, W] with [O, C, K, K]. */
  conv2d(x: T, weight: T, stride: number, padding: number): T;
  /** Mean over rows: logits [N, V], targets [N]. */
  crossEntropy(logits: T, targets: T): T;
  /** Ascending, along the last axis. */
  sort(x: T): T;
  /** The k largest of the last axis, descending. */
  topk(x: T, k: number): T;
}
