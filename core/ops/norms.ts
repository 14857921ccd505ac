/**
 * @file Softmax and its kin, and normalisation over trailing axes. Each is a chain of reductions
 * along the same axes with element-wise work between, which becomes one `row` kernel. Every export
 * is also a Tensor method.
 */
import { isFloat } from "../dtype.ts";
import { DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { formatShape, type Shape, sameShape } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { axesOf, axisOf, type Dim, kept } from "./axes.ts";
import { rsqrt, square } from "./compose.ts";
import { describeNode, floatNode, inFloat32, inWide, isHalfTensor, nodeOf } from "./promotion.ts";
import { logSoftmaxNode, logsumexpNode, meanNode, moments, softmaxNode } from "./reductions.ts";

/** `log Σ eˣ` over `dim`; stable, also for infinite elements. */
export function logsumexp(x: Tensor, dim?: Dim, keepdim = false): Tensor {
  if (isHalfTensor(x)) return inFloat32("logsumexp", logsumexp, x, dim, keepdim);
  const n = floatNode("logsumexp", x);
  const axes = axesOf("logsumexp", dim, n.shape.length);
  const result = logsumexpNode(n, axes);
  const shape = n.shape.filter((_, i) => !axes.includes(i));
  return fromNode(keepdim ? result : g.reshape(result, shape));
}

/** `eˣ / Σ eˣ` along `dim`. */
export function softmax(x: Tensor, dim: number): Tensor {
  return alongOne("softmax", softmaxNode, x, dim);
}

/** `log(softmax(x))` along `dim`. */
export function logSoftmax(x: Tensor, dim: number): Tensor {
  return alongOne("logSoftmax", logSoftmaxNode, x, dim);
}

/**
 * Layer normalisation (Ba et al. 2016, arXiv 1607.06450): `(x - mean)/√(variance + eps)` over the
 * trailing axes `normalizedShape`, times weight, plus bias (both of that shape, both optional). x:
 * [*, ...normalizedShape].
 */
export function layerNorm(
  x: Tensor,
  normalizedShape: Shape | number,
  weight?: Tensor | null,
  bias?: Tensor | null,
  eps = 1e-5,
): Tensor {
  if (isHalfTensor(x))
    return inFloat32("layerNorm", layerNorm, x, normalizedShape, weight, bias, eps);
  const { n, axes } = trailing("layerNorm", x, normalizedShape);
  const { centred, variance } = moments(n, axes, 0);
  const scale = rsqrt(g.add(kept(variance, axes, n), g.scalarLike(n, Math.fround(eps))));
  return affine("layerNorm", g.mul(centred, scale), axes, weight, bias);
}

/**
 * Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv 1910.07467): `x/√(mean(x²) + eps)`
 * over the trailing axes `normalizedShape`, times weight. eps defaults to f32's epsilon, as in
 * PyTorch.
 */
export function rmsNorm(
  x: Tensor,
  normalizedShape: Shape | number,
  weight?: Tensor | null,
  eps = 2 ** -23,
): Tensor {
  if (isHalfTensor(x)) return inFloat32("rmsNorm", rmsNorm, x, normalizedShape, weight, eps);
  const { n, axes } = trailing("rmsNorm", x, normalizedShape);
  const power = kept(meanNode(square(n), axes), axes, n);
  const scale = rsqrt(g.add(power, g.scalarLike(n, Math.fround(eps))));
  return affine("rmsNorm", g.mul(n, scale), axes, weight, null);
}

/** x divided by its p-norm along `dim`, or by `eps` where that is larger. */
export function normalize(x: Tensor, p = 2, dim = 1, eps = 1e-12): Tensor {
  if (isHalfTensor(x)) return inFloat32("normalize", normalize, x, p, dim, eps);
  return x.div(x.norm(p, dim, true).clampMin(eps));
}

// --- helpers -------------------------------------------------------------------------------------

function alongOne(op: string, f: (x: Node, axis: number) => Node, x: Tensor, dim: number): Tensor {
  const n = floatNode(op, x);
  const axis = axisOf(op, dim, n.shape.length);
  // A 0-d tensor counts as one of a single element.
  const line = n.shape.length === 0 ? g.reshape(n, [1]) : n;
  const result = inWide((m) => f(m, axis), line);
  return fromNode(g.reshape(result, n.shape));
}

function trailing(op: string, x: Tensor, normalized: Shape | number): { n: Node; axes: number[] } {
  const n = floatNode(op, x);
  const shape = typeof normalized === "number" ? [normalized] : normalized;
  const first = n.shape.length - shape.length;
  if (shape.length === 0 || first < 0 || !sameShape(n.shape.slice(first), shape))
    throw new ShapeError(
      describe(op, `an input of shape [*, ${shape.join(", ")}]`, describeNode(n)),
    );
  return { n, axes: shape.map((_, i) => first + i) };
}

function affine(
  op: string,
  n: Node,
  axes: readonly number[],
  weight: Tensor | null | undefined,
  bias: Tensor | null | undefined,
): Tensor {
  const shape = axes.map((a) => n.shape[a]);
  const checked = (name: string, t: Tensor): Node => {
    const p = nodeOf(op, t);
    if (!sameShape(p.shape, shape))
      throw new ShapeError(describe(op, `${name} of shape ${formatShape(shape)}`, describeNode(p)));
    if (!isFloat(p.dtype)) throw new DTypeError(describe(op, `a float ${name}`, describeNode(p)));
    return p;
  };
  const scaled = weight ? g.mul(n, checked("weight", weight)) : n;
  return fromNode(bias ? g.add(scaled, checked("bias", bias)) : scaled);
}
