/**
 * @file torch.fft: discrete Fourier transforms, as `fft.rfft(x)`. There is no complex dtype: a
 * complex tensor is an f32 tensor with one more, last axis of size 2 (real and imaginary part),
 * PyTorch's `view_as_real`. `dim` counts the axes without it, so that -1 is the last axis that
 * PyTorch would see.
 *
 * Any length. A length that has factors is taken apart (Cooley & Tukey 1965) into transforms of at
 * most 64 elements, which are matrix products; a prime above 128 becomes a convolution of a power
 * of two (Bluestein 1970). Factors are computed in double precision on the host. All is products
 * and sums, so gradients of every order, vmap and jvp follow.
 */

import { isHalf } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { numel } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { axisOf } from "./axes.ts";
import { part } from "./compose.ts";
import { tensor } from "./create.ts";
import { roll } from "./movement.ts";
import { describeNode, floatNode } from "./promotion.ts";

/**
 * Where the factor 1/n is: in the inverse ("backward", the default), in the forward transform, or
 * its root in both.
 */
export type FFTNorm = "backward" | "forward" | "ortho";

export interface FFTOptions {
  /**
   * The length of the transform: the signal is cut off or filled up with zeros. Of the result for
   * `irfft`.
   */
  n?: number;
  /** The axis, -1 by default. */
  dim?: number;
  norm?: FFTNorm;
}

export interface FFT2Options {
  /** The two lengths. */
  s?: readonly [number, number];
  /** The two axes, [-2, -1] by default; the last of them is the halved one of `rfft2`. */
  dim?: readonly [number, number];
  norm?: FFTNorm;
}

/** `X[k] = Σ x[j]·e^(-2πi·jk/n)` of complex x [*, n, 2]. */
export function fft(x: Tensor, options: FFTOptions = {}): Tensor {
  const { node, axis } = complexOf("fft.fft", x, options.dim);
  return fromNode(along("fft.fft", node, axis, options.n, options.norm, false));
}

/** The inverse of `fft`: `x[j] = Σ X[k]·e^(2πi·jk/n)/n`. */
export function ifft(x: Tensor, options: FFTOptions = {}): Tensor {
  const { node, axis } = complexOf("fft.ifft", x, options.dim);
  return fromNode(along("fft.ifft", node, axis, options.n, options.norm, true));
}

/**
 * `fft` of real x [*, n], of which only the first n/2 + 1 values are not redundant: [*, ⌊n/2⌋ + 1,
 * 2].
 */
export function rfft(x: Tensor, options: FFTOptions = {}): Tensor {
  const { node, axis } = realOf("fft.rfft", x, options.dim);
  return fromNode(halved(along("fft.rfft", node, axis, options.n, options.norm, false), axis));
}

/**
 * The inverse of `rfft`: real [*, n] of complex [*, ⌊n/2⌋ + 1, 2]. n is 2·(size - 1) unless given:
 * an odd one is not seen in the spectrum. The imaginary parts of the first value and, n being even,
 * of the last do not count.
 */
export function irfft(x: Tensor, options: FFTOptions = {}): Tensor {
  const { node, axis } = complexOf("fft.irfft", x, options.dim);
  return fromNode(toReal("fft.irfft", node, axis, options.n, options.norm));
}

/** `fft` along two axes of complex x [*, h, w, 2]. */
export function fft2(x: Tensor, options: FFT2Options = {}): Tensor {
  return both("fft.fft2", x, options, false);
}

/** The inverse of `fft2`. */
export function ifft2(x: Tensor, options: FFT2Options = {}): Tensor {
  return both("fft.ifft2", x, options, true);
}

/** `fft2` of real x [*, h, w]: [*, h, ⌊w/2⌋ + 1, 2]. */
export function rfft2(x: Tensor, options: FFT2Options = {}): Tensor {
  const { s, dim = [-2, -1], norm } = options;
  const first = rfft(x, { n: s?.[1], dim: dim[1], norm });
  return fft(first, { n: s?.[0], dim: dim[0], norm });
}

/** The inverse of `rfft2`: real [*, h, w]; w as the n of `irfft`. */
export function irfft2(x: Tensor, options: FFT2Options = {}): Tensor {
  const { s, dim = [-2, -1], norm } = options;
  const first = ifft(x, { n: s?.[0], dim: dim[0], norm });
  return irfft(first, { n: s?.[1], dim: dim[1], norm });
}

/**
 * The frequencies of `fft`'s values: 0, 1, …, then the negative ones, over n·d, d the distance of
 * two samples.
 */
export function fftfreq(n: number, d = 1): Tensor {
  const positive = Math.ceil(n / 2);
  return frequencies("fft.fftfreq", n, d, n, (k) => (k < positive ? k : k - n));
}

/** The frequencies of `rfft`'s values: 0, 1, …, ⌊n/2⌋ over n·d. */
export function rfftfreq(n: number, d = 1): Tensor {
  return frequencies("fft.rfftfreq", n, d, Math.floor(n / 2) + 1, (k) => k);
}

/**
 * Moves frequency 0 to the middle of the given axes of x; by default of all, but the axes of what
 * may be complex, with a last axis of 2, must be named. `dim` counts all axes that x has.
 */
export function fftshift(x: Tensor, dim?: number | readonly number[]): Tensor {
  return shifted("fft.fftshift", x, dim, (n) => Math.floor(n / 2));
}

/** The inverse of `fftshift`. */
export function ifftshift(x: Tensor, dim?: number | readonly number[]): Tensor {
  return shifted("fft.ifftshift", x, dim, (n) => Math.ceil(n / 2));
}

// --- arguments -----------------------------------------------------------------------------------

function floats(op: string, x: Tensor): Node {
  const n = floatNode(op, x);
  if (isHalf(n.dtype))
    throw new DTypeError(describe(op, "f32", describeNode(n), "convert it with .float() first"));
  return n;
}

function complexOf(op: string, x: Tensor, dim = -1): { node: Node; axis: number } {
  const node = floats(op, x);
  if (node.shape.length < 2 || node.shape.at(-1) !== 2)
    throw new ShapeError(
      describe(op, "a complex tensor [*, n, 2]", describeNode(node), "rfft takes real ones"),
    );
  return { node, axis: axisOf(op, dim, node.shape.length - 1) };
}

/** A real tensor as a complex one. */
function realOf(op: string, x: Tensor, dim = -1): { node: Node; axis: number } {
  const n = floats(op, x);
  if (n.shape.length === 0) throw new ShapeError(describe(op, "an axis", describeNode(n)));
  const column = g.reshape(n, [...n.shape, 1]);
  const node = g.pad(
    column,
    column.shape.map(() => 0),
    [...n.shape.map(() => 0), 1],
  );
  return { node, axis: axisOf(op, dim, n.shape.length) };
}

function lengthOf(op: string, n: number): number {
  if (!(Number.isInteger(n) && n > 0))
    throw new ArgumentError(describe(op, "a positive length n", String(n)));
  return n;
}

function scaleOf(op: string, n: number, norm: FFTNorm = "backward", inverse: boolean): number {
  if (norm === "ortho") return 1 / Math.sqrt(n);
  if (norm !== "backward" && norm !== "forward")
    throw new ArgumentError(describe(op, "norm 'backward', 'forward' or 'ortho'", String(norm)));
  return (norm === "backward") === inverse ? 1 / n : 1;
}

function frequencies(op: string, n: number, d: number, count: number, at: (k: number) => number) {
  const by = lengthOf(op, n) * d;
  return tensor(Float32Array.from({ length: count }, (_, k) => at(k) / by));
}

function shifted(
  op: string,
  x: Tensor,
  dim: number | readonly number[] | undefined,
  by: (n: number) => number,
): Tensor {
  if (dim === undefined && x.shape.length > 1 && x.shape.at(-1) === 2)
    throw new ArgumentError(
      describe(op, "named axes for a last axis of 2", describeNode(x.node), "give dim"),
    );
  const dims = dim === undefined ? [...x.shape.keys()] : typeof dim === "number" ? [dim] : dim;
  const shifts = dims.map((d) => by(x.shape[axisOf(op, d, x.shape.length)]));
  return roll(x, shifts, dims);
}

// --- along one axis ------------------------------------------------------------------------------

/** The axis cut off or filled up with zeros. */
function resized(x: Node, axis: number, n: number): Node {
  const size = x.shape[axis];
  if (size >= n) return part(x, axis, 0, n);
  const zeros = x.shape.map(() => 0);
  return g.pad(x, zeros, zeros.with(axis, n - size));
}

/** The scaled transform of a complex node along an axis. */
function along(
  op: string,
  x: Node,
  axis: number,
  given: number | undefined,
  norm: FFTNorm | undefined,
  inverse: boolean,
): Node {
  const n = lengthOf(op, given ?? x.shape[axis]);
  const scale = scaleOf(op, n, norm, inverse);
  const rank = x.shape.length - 1;
  const others = [...Array(rank).keys()].filter((a) => a !== axis);
  const lined = g.permute(resized(x, axis, n), [...others, axis, rank]);
  const lead = lined.shape.slice(0, -2);
  if (numel(lead) === 0) return resized(x, axis, n);
  const flat = transformed(g.reshape(lined, [numel(lead), n, 2]), inverse, x);
  const scaled = scale === 1 ? flat : g.mul(flat, g.scalarLike(flat, Math.fround(scale)));
  const back = Array.from({ length: rank }, (_, a) =>
    a === axis ? others.length : others.indexOf(a),
  );
  return g.permute(g.reshape(scaled, lined.shape), [...back, rank]);
}

const halved = (x: Node, axis: number): Node => part(x, axis, 0, Math.floor(x.shape[axis] / 2) + 1);

/**
 * Completes the spectrum of a real signal by its conjugate, and takes the real part of its inverse.
 */
function toReal(op: string, x: Node, axis: number, given?: number, norm?: FFTNorm): Node {
  const n = lengthOf(op, given ?? 2 * (x.shape[axis] - 1));
  const half = resized(x, axis, Math.floor(n / 2) + 1);
  const mirrored = g.flip(part(half, axis, 1, Math.ceil(n / 2)), [axis]);
  const conjugate = g.mul(mirrored, hostNode([1, -1], [2], x));
  const full = n > 2 ? g.concat([half, conjugate], axis) : half;
  const signal = along(op, full, axis, n, norm, true);
  const last = signal.shape.length - 1;
  return g.reshape(part(signal, last, 0, 1), signal.shape.slice(0, -1));
}

function both(op: string, x: Tensor, options: FFT2Options, inverse: boolean): Tensor {
  const { s, dim = [-2, -1], norm } = options;
  let { node } = complexOf(op, x);
  const axes = dim.map((d) => axisOf(op, d, node.shape.length - 1));
  if (axes.length !== 2 || axes[0] === axes[1])
    throw new ArgumentError(describe(op, "two different dims", `[${dim.join(", ")}]`));
  for (const [i, axis] of axes.entries()) node = along(op, node, axis, s?.[i], norm, inverse);
  return fromNode(node);
}

// --- the transform, [R, n, 2] --------------------------------------------------------------------

/**
 * Up to this length a transform is one product with a matrix; above, only if it is a prime up to
 * `largestPrime`.
 */
const largestMatrix = 64;
const largestPrime = 128;

/** Numbers made on the host, on x's device. */
const hostNode = (values: readonly number[] | Float32Array, shape: readonly number[], x: Node) =>
  tensor(Float32Array.from(values), { shape, device: x.device ?? undefined }).node;

/** e^(±2πi·k/n); k is reduced first, so that the angle has all digits. */
function root(k: number, n: number, inverse: boolean): [re: number, im: number] {
  const angle = ((inverse ? 2 : -2) * Math.PI * (k % n)) / n;
  return [Math.cos(angle), Math.sin(angle)];
}

/** The unscaled transform of each row. `like` names the device. */
function transformed(x: Node, inverse: boolean, like: Node): Node {
  const [rows, n] = x.shape;
  if (n === 1) return x;
  const factor = n <= largestMatrix ? n : factorOf(n);
  if (factor === n)
    return n <= largestPrime ? byMatrix(x, inverse, like) : bluestein(x, inverse, like);
  // j = j₁·m + j₂ and k = k₁ + factor·k₂: transforms over j₁, a rotation by e^(-2πi·j₂k₁/n),
  // transforms over j₂.
  const m = n / factor;
  const columns = g.permute(g.reshape(x, [rows, factor, m, 2]), [0, 2, 1, 3]);
  const inner = transformed(g.reshape(columns, [rows * m, factor, 2]), inverse, like);
  const angles: [number, number][] = [];
  for (let j = 0; j < m; j++) for (let k = 0; k < factor; k++) angles.push(root(j * k, n, inverse));
  const turned = times(g.reshape(inner, [rows, m, factor, 2]), angles, [m, factor], like);
  const lines = g.reshape(g.permute(turned, [0, 2, 1, 3]), [rows * factor, m, 2]);
  const outer = g.reshape(transformed(lines, inverse, like), [rows, factor, m, 2]);
  return g.reshape(g.permute(outer, [0, 2, 1, 3]), [rows, n, 2]);
}

/**
 * The largest divisor of n up to `largestMatrix`; of what has none, the least prime factor; n
 * itself of a prime.
 */
function factorOf(n: number): number {
  for (let d = largestMatrix; d > 1; d--) if (n % d === 0) return d;
  for (let d = largestMatrix + 1; d * d <= n; d++) if (n % d === 0) return d;
  return n;
}

/** [R, n, 2] · a complex matrix [n, n], as a real one [2n, 2n]. */
function byMatrix(x: Node, inverse: boolean, like: Node): Node {
  const [rows, n] = x.shape;
  const matrix = new Float32Array(4 * n * n);
  for (let j = 0; j < n; j++)
    for (let k = 0; k < n; k++) {
      const [re, im] = root(j * k, n, inverse);
      matrix.set([re, im], 2 * j * 2 * n + 2 * k);
      matrix.set([-im, re], (2 * j + 1) * 2 * n + 2 * k);
    }
  const product = g.dot(g.reshape(x, [1, rows, 2 * n]), hostNode(matrix, [1, 2 * n, 2 * n], like));
  return g.reshape(product, [rows, n, 2]);
}

/** x [*, …shape, 2] times complex numbers, element by element. */
function times(x: Node, by: readonly [number, number][], shape: number[], like: Node): Node {
  const re = hostNode(
    by.flatMap(([c]) => [c, c]),
    [...shape, 2],
    like,
  );
  const im = hostNode(
    by.flatMap(([, s]) => [-s, s]),
    [...shape, 2],
    like,
  );
  return g.add(g.mul(x, re), g.mul(g.flip(x, [x.shape.length - 1]), im));
}

/**
 * jk = (j² + k² - (k - j)²)/2: with w = e^(-πi/n), X[k] = w^(k²)·Σ (x[j]·w^(j²))·w^(-(k-j)²), a
 * convolution, which a transform of a power of two computes.
 */
function bluestein(x: Node, inverse: boolean, like: Node): Node {
  const n = x.shape[1];
  const size = 2 ** Math.ceil(Math.log2(2 * n - 1));
  // j² mod 2n is exact: n is far below 2²⁶.
  const chirp = Array.from({ length: n }, (_, j) => root((j * j) % (2 * n), 2 * n, inverse));
  const kernel = Array.from({ length: size }, (_, j): [number, number] => {
    const at = j < n ? j : size - j;
    return at < n ? [chirp[at][0], -chirp[at][1]] : [0, 0];
  });
  const spectrum = hostFFT(kernel);
  const padded = resized(times(x, chirp, [n], like), 1, size);
  const product = times(transformed(padded, false, like), spectrum, [size], like);
  const convolved = part(transformed(product, true, like), 1, 0, n);
  return g.mul(times(convolved, chirp, [n], like), g.scalarLike(x, 1 / size));
}

/** The transform of a power of two of numbers on the host, in double precision. */
function hostFFT(x: readonly [number, number][]): [number, number][] {
  const n = x.length;
  if (n === 1) return [...x];
  const [even, odd] = [0, 1].map((r) => hostFFT(x.filter((_, i) => i % 2 === r)));
  const rotated = odd.map(([a, b], k): [number, number] => {
    const [c, s] = root(k, n, false);
    return [a * c - b * s, a * s + b * c];
  });
  const first = even.map(([a, b], k): [number, number] => [a + rotated[k][0], b + rotated[k][1]]);
  return [
    ...first,
    ...even.map(([a, b], k): [number, number] => [a - rotated[k][0], b - rotated[k][1]]),
  ];
}
