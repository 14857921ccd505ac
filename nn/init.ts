/**
 * @file Initial values. A name with an underscore fills a tensor in place, as in torch.nn.init, and returns it; one without
 * makes a fresh parameter, for layers. All draw from the global generator (`manualSeed` makes a model reproducible)
 * unless given another; none is seen by gradients.
 *
 * Decides: PyTorch's formulas and its definition of fan-in: weight [out, in, ...kernel]. What each layer starts with is
 * the layers' matter.
 */

import { handleOf } from "../core/device.ts";
import { ArgumentError, describe, ShapeError } from "../core/errors.ts";
import {
  arange,
  eye,
  type Generator,
  linalg,
  noGrad,
  normal as normalTensor,
  ones as onesTensor,
  rand,
  randn,
  type Tensor,
  uniform as uniformTensor,
  where,
  zeros as zerosTensor,
} from "../core/index.ts";
import { erf } from "../core/math.ts";
import { formatShape, numel } from "../core/shape.ts";
import { rebind } from "../core/tensor.ts";
import { activeTrace } from "../core/trace.ts";
import { parameter } from "./parameter.ts";

export interface InitOptions {
  readonly generator?: Generator;
}

/** What stands behind a layer; `calculateGain` has its factor. */
export type Nonlinearity = "linear" | "sigmoid" | "tanh" | "relu" | "leakyRelu" | "selu";

// --- in place -------------------------------------------------------------------------------------------------------

/** Uniform in [a, b). */
export function uniform_(t: Tensor, a = 0, b = 1, options: InitOptions = {}): Tensor {
  return filled(t, uniformTensor(t.shape, a, b, options));
}

/** Gaussian. */
export function normal_(t: Tensor, mean = 0, std = 1, options: InitOptions = {}): Tensor {
  return filled(t, normalTensor(t.shape, mean, std, options));
}

/** Gaussian, with what is outside [a, b] drawn again: by the inverse of its distribution function. */
export function truncNormal_(
  t: Tensor,
  mean = 0,
  std = 1,
  { a = -2, b = 2, ...options }: InitOptions & { readonly a?: number; readonly b?: number } = {},
): Tensor {
  if (!(std > 0 && a < b))
    throw new ArgumentError(
      describe("truncNormal_", "std > 0 and a < b", JSON.stringify({ std, a, b })),
    );
  const below = (x: number) => erf((x - mean) / (std * Math.SQRT2));
  const drawn = uniformTensor(t.shape, below(a), below(b), options);
  const values = drawn.erfinv().mul(std * Math.SQRT2);
  return filled(t, values.add(mean).clamp(a, b));
}

export const constant_ = (t: Tensor, value: number): Tensor => filled(t, onesTensor([]).mul(value));
export const ones_ = (t: Tensor): Tensor => constant_(t, 1);
export const zeros_ = (t: Tensor): Tensor => constant_(t, 0);

/** The identity, of a matrix. */
export function eye_(t: Tensor): Tensor {
  const [rows, columns] = axes("eye_", t, 2, 2).shape;
  return filled(t, eye(rows, columns));
}

/**
 * A convolution's weight [O, I, ...kernel] that passes channel i of each group on as its output i: 1 at the kernel's
 * centre.
 */
export function dirac_(t: Tensor, groups = 1): Tensor {
  const [O, I, ...kernel] = axes("dirac_", t, 3, 5).shape;
  if (!(Number.isInteger(groups) && groups > 0 && O % groups === 0))
    throw new ArgumentError(describe("dirac_", `groups that divide ${O}`, `${groups}`));
  const own = arange(O)
    .remainder(O / groups)
    .unsqueeze(1)
    .eq(arange(I)); // [O, I]
  const passed = kernel.reduce(
    (all, size) => all.unsqueeze(-1).logicalAnd(arange(size).eq(size >> 1)),
    own,
  );
  return filled(t, passed);
}

/** Glorot and Bengio (2010): uniform with the variance 2/(fanIn + fanOut)·gain². */
export function xavierUniform_(t: Tensor, options: InitOptions & { gain?: number } = {}): Tensor {
  const bound = Math.sqrt(3) * xavierStd("xavierUniform_", t, options.gain);
  return uniform_(t, -bound, bound, options);
}

/** As xavierUniform_, Gaussian. */
export function xavierNormal_(t: Tensor, options: InitOptions & { gain?: number } = {}): Tensor {
  return normal_(t, 0, xavierStd("xavierNormal_", t, options.gain), options);
}

export interface KaimingOptions extends InitOptions {
  /** The negative slope of leakyRelu, if it is that (default 0). */
  readonly a?: number;
  /** Keep the variance of the values ("fanIn", the default) or of the gradients ("fanOut"). */
  readonly mode?: "fanIn" | "fanOut";
  /** "leakyRelu" unless given. */
  readonly nonlinearity?: Nonlinearity;
}

/** He et al. (2015), arXiv 1502.01852: uniform with the variance gain²/fan. */
export function kaimingUniform_(t: Tensor, options: KaimingOptions = {}): Tensor {
  const bound = Math.sqrt(3) * kaimingStd("kaimingUniform_", t, options);
  return uniform_(t, -bound, bound, options);
}

/** As kaimingUniform_, Gaussian. */
export function kaimingNormal_(t: Tensor, options: KaimingOptions = {}): Tensor {
  return normal_(t, 0, kaimingStd("kaimingNormal_", t, options), options);
}

/**
 * Orthonormal rows or columns, of whichever there are fewer, times `gain` (Saxe et al. 2013, arXiv 1312.6120): Q of a
 * Gaussian matrix, with the signs that make it uniformly distributed. Axes behind the second count as columns.
 */
export function orthogonal_(t: Tensor, options: InitOptions & { gain?: number } = {}): Tensor {
  const [rows, ...rest] = axes("orthogonal_", t, 2, Infinity).shape;
  const columns = numel(rest);
  if (rows * columns === 0) return t;
  const [tall, narrow] = [Math.max(rows, columns), Math.min(rows, columns)];
  const { Q, R } = linalg.qr(randn([tall, narrow], options));
  const signed = Q.mul(R.diagonal().sign()).mul(options.gain ?? 1);
  return filled(t, (rows < columns ? signed.T : signed).reshape(t.shape));
}

/**
 * Gaussian, but the share `sparsity` of each column, rounded up, is 0 (Martens 2010): which rows, is drawn per column.
 */
export function sparse_(
  t: Tensor,
  sparsity: number,
  std = 0.01,
  options: InitOptions = {},
): Tensor {
  const [rows] = axes("sparse_", t, 2, 2).shape;
  if (!(sparsity >= 0 && sparsity <= 1))
    throw new ArgumentError(describe("sparse_", "a sparsity within 0 … 1", `${sparsity}`));
  // Each column of the positions that sort noise is a random permutation of the rows.
  const order = rand(t.shape, options).argsort({ dim: 0 });
  const drawn = normalTensor(t.shape, 0, std, options);
  return filled(t, where(order.lt(Math.ceil(sparsity * rows)), 0, drawn));
}

/** The factor that keeps variance across a nonlinearity; `param` is the negative slope of leakyRelu (default 0.01). */
export function calculateGain(nonlinearity: Nonlinearity, param?: number): number {
  const gains: Record<Nonlinearity, number> = {
    linear: 1,
    sigmoid: 1,
    tanh: 5 / 3,
    relu: Math.SQRT2,
    leakyRelu: Math.sqrt(2 / (1 + (param ?? 0.01) ** 2)),
    selu: 3 / 4,
  };
  if (Object.hasOwn(gains, nonlinearity)) return gains[nonlinearity];
  const known = Object.keys(gains).join(", ");
  throw new ArgumentError(describe("calculateGain", `one of ${known}`, String(nonlinearity)));
}

// --- fresh parameters -----------------------------------------------------------------------------------------------

/** Uniform in [−bound, bound). */
export const uniform = (shape: number[], bound: number): Tensor =>
  parameter(
    rand(shape)
      .mul(2 * bound)
      .sub(bound),
  );

/** Gaussian with mean 0. */
export const normal = (shape: number[], std = 1): Tensor => parameter(randn(shape).mul(std));

/**
 * PyTorch's default for weights and biases of linear maps and convolutions: uniform with bound 1/√fanIn, which is
 * kaimingUniform_ with a = √5.
 */
export const kaimingUniform = (shape: number[], fanIn: number): Tensor =>
  uniform(shape, fanIn > 0 ? 1 / Math.sqrt(fanIn) : 0);

export const zeros = (shape: number[]): Tensor => parameter(zerosTensor(shape));
export const ones = (shape: number[]): Tensor => parameter(onesTensor(shape));

// --- helpers --------------------------------------------------------------------------------------------------------

/**
 * An assignment must happen at the next realisation, whatever that is for. A tensor that has no storage yet is given the
 * value instead, to be computed when it is asked for: a large model costs nothing until its weights are loaded or used.
 */
function filled(t: Tensor, value: Tensor): Tensor {
  if (activeTrace() || handleOf(t.node) || t.device !== value.device)
    return noGrad(() => t.assign(value));
  const { requiresGrad } = t;
  t.requiresGrad = false;
  rebind(t, noGrad(() => value.to(t.dtype).expand(t.shape)).node);
  // A leaf again, of the new value.
  t.requiresGrad = requiresGrad;
  return t;
}

function axes(op: string, t: Tensor, least: number, most: number): Tensor {
  if (t.ndim >= least && t.ndim <= most) return t;
  const wanted = least === most ? `${least} axes` : `${least} … ${most} axes`;
  throw new ShapeError(describe(op, wanted, formatShape(t.shape)));
}

/** How many inputs an output of weight [out, in, ...kernel] is made of, and how many outputs an input goes to. */
function fans(op: string, t: Tensor): { fanIn: number; fanOut: number } {
  const [outputs, inputs, ...kernel] = axes(op, t, 2, Infinity).shape;
  const field = numel(kernel);
  return { fanIn: inputs * field, fanOut: outputs * field };
}

function xavierStd(op: string, t: Tensor, gain = 1): number {
  const { fanIn, fanOut } = fans(op, t);
  return gain * Math.sqrt(2 / Math.max(fanIn + fanOut, 1));
}

function kaimingStd(
  op: string,
  t: Tensor,
  { a = 0, mode = "fanIn", nonlinearity = "leakyRelu" }: KaimingOptions,
): number {
  if (mode !== "fanIn" && mode !== "fanOut")
    throw new ArgumentError(describe(op, "mode 'fanIn' or 'fanOut'", String(mode)));
  return calculateGain(nonlinearity, a) / Math.sqrt(Math.max(fans(op, t)[mode], 1));
}
