/**
 * @file The rarer activations: scaled exponential, hard, shrinking and gated ones. Each has PyTorch's gradient at its
 * kinks. Every export is also a Tensor method.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { elu } from "./activation.ts";
import { along, axisOf } from "./axes.ts";
import { expm1, part, sigmoid } from "./compose.ts";
import { lit } from "./custom.ts";
import { softmax } from "./norms.ts";
import { describeNode, floatNode, floatUnary, inFloat32, isHalfTensor } from "./promotion.ts";

/** x where positive, `alpha·(e^(x/alpha) - 1)` elsewhere (Barron 2017, arXiv 1704.07483). */
export function celu(x: Tensor, alpha = 1): Tensor {
  if (alpha === 0) throw new ArgumentError(describe("celu", "an alpha other than 0", "0"));
  const formula = (n: Node): Node => {
    const positive = g.lt(lit(n, 0), n);
    // The branch not taken must not overflow: ∞ times a zero gradient would be NaN.
    const z = g.where(positive, lit(n, 0), n);
    return g.where(positive, n, g.mul(expm1(g.div(z, lit(n, alpha))), lit(n, alpha)));
  };
  return floatUnary("celu", formula, x);
}

/** `1.0507·elu(x, 1.6733)`, which keeps mean 0 and variance 1 (Klambauer et al. 2017, arXiv 1706.02515). */
export function selu(x: Tensor): Tensor {
  if (isHalfTensor(x)) return inFloat32("selu", selu, x);
  return elu(x, 1.6732632423543772).mul(1.0507009873554805);
}

/** `relu6(x + 3)/6`; the gradient at ±3 is 0. */
export function hardsigmoid(x: Tensor): Tensor {
  const formula = (n: Node): Node => {
    const inner = g.div(g.add(n, lit(n, 3)), lit(n, 6));
    return g.where(g.le(n, lit(n, -3)), lit(n, 0), g.where(g.le(lit(n, 3), n), lit(n, 1), inner));
  };
  return floatUnary("hardsigmoid", formula, x);
}

/** `x/(1 + |x|)`. */
export function softsign(x: Tensor): Tensor {
  return floatUnary("softsign", (n) => g.div(n, g.add(g.abs(n), lit(n, 1))), x);
}

/** x moved by `lambd` towards 0, and 0 within ±lambd. */
export function softshrink(x: Tensor, lambd = 0.5): Tensor {
  if (!(lambd >= 0))
    throw new ArgumentError(describe("softshrink", "a lambd of at least 0", String(lambd)));
  const formula = (n: Node): Node => {
    const by = lit(n, lambd);
    const below = g.where(g.lt(n, lit(n, -lambd)), g.add(n, by), flat(n));
    return g.where(g.lt(by, n), g.sub(n, by), below);
  };
  return floatUnary("softshrink", formula, x);
}

/** x outside ±lambd, and 0 within. */
export function hardshrink(x: Tensor, lambd = 0.5): Tensor {
  return floatUnary("hardshrink", (n) => g.where(g.le(g.abs(n), lit(n, lambd)), lit(n, 0), n), x);
}

/** `x - tanh(x)`. */
export function tanhshrink(x: Tensor): Tensor {
  return floatUnary("tanhshrink", (n) => g.sub(n, g.tanh(n)), x);
}

/** x above `threshold`, `value` elsewhere. */
export function threshold(x: Tensor, threshold: number, value: number): Tensor {
  const formula = (n: Node): Node => g.where(g.le(n, lit(n, threshold)), lit(n, value), n);
  return floatUnary("threshold", formula, x);
}

/** The first half along `dim` times the sigmoid of the second (Dauphin et al. 2017, arXiv 1612.08083). */
export function glu(x: Tensor, dim = -1): Tensor {
  if (isHalfTensor(x)) return inFloat32("glu", glu, x, dim);
  const n = floatNode("glu", x);
  const axis = axisOf("glu", dim, n.shape.length);
  const size = n.shape[axis] ?? 1;
  if (size % 2 !== 0)
    throw new ShapeError(describe("glu", `an even size of axis ${axis}`, describeNode(n)));
  const [a, b] = [part(n, axis, 0, size / 2), part(n, axis, size / 2, size)];
  return fromNode(g.mul(a, sigmoid(b)));
}

/** `softmax(-x)` along `dim`. */
export function softmin(x: Tensor, dim: number): Tensor {
  return softmax(fromNode(g.neg(floatNode("softmin", x))), dim);
}

/**
 * x where positive, `weight·x` elsewhere (He et al. 2015, arXiv 1502.01852). The weight has one element, or one per
 * channel (axis 1).
 */
export function prelu(x: Tensor, weight: Tensor): Tensor {
  const [n, w] = [floatNode("prelu", x), floatNode("prelu", weight)];
  const rank = n.shape.length;
  const count = w.shape.length === 0 ? 1 : w.shape[0];
  if (w.shape.length > 1 || (count !== 1 && count !== (rank === 1 ? 1 : n.shape[1])))
    throw new ShapeError(
      describe("prelu", "a weight with one element or one per channel (axis 1)", describeNode(w)),
    );
  const slope = count === 1 ? g.reshape(w, []) : along(w, 1, rank);
  return fromNode(g.where(g.lt(lit(n, 0), n), n, g.mul(n, slope)));
}

// --- helpers, on nodes ---------------------------------------------------------------------------

/** 0 without a gradient, but NaN where x is. */
const flat = (n: Node): Node => g.where(g.eq(n, n), lit(n, 0), n);
