/**
 * @file Activations, element by element on floating-point tensors. Each is stable for any input and
 * has PyTorch's gradient at its kinks. Every export is also a Tensor method.
 */

import { ArgumentError, describe } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import type { Tensor } from "../tensor.ts";
import * as c from "./compose.ts";
import { floatUnary } from "./promotion.ts";

/** Which GELU: exact with erf, or the tanh approximation. */
export type GeluOptions = { approximate?: "none" | "tanh" };

const lit = (x: Node, value: number): Node => g.scalarLike(x, Math.fround(value));

/** `max(x, 0)`; the gradient at 0 is 0. */
export function relu(x: Tensor): Tensor {
  return floatUnary("relu", c.relu, x);
}

/** `min(max(x, 0), 6)`; the gradient at both ends is 0. */
export function relu6(x: Tensor): Tensor {
  return floatUnary("relu6", (n) => limited(n, 0, 6), x);
}

/** x where positive, `slope·x` elsewhere. */
export function leakyRelu(x: Tensor, slope = 0.01): Tensor {
  const formula = (n: Node): Node => g.where(g.lt(lit(n, 0), n), n, g.mul(n, lit(n, slope)));
  return floatUnary("leakyRelu", formula, x);
}

/** x where positive, `alpha·(eˣ - 1)` elsewhere (Clevert et al. 2015, arXiv 1511.07289). */
export function elu(x: Tensor, alpha = 1): Tensor {
  const formula = (n: Node): Node => {
    const positive = g.lt(lit(n, 0), n);
    // The branch not taken must not overflow: ∞ times a zero gradient would be NaN.
    const curve = c.expm1(g.where(positive, lit(n, 0), n));
    return g.where(positive, n, alpha === 1 ? curve : g.mul(curve, lit(n, alpha)));
  };
  return floatUnary("elu", formula, x);
}

/**
 * `x·Φ(x)`, Φ the standard normal distribution function (Hendrycks & Gimpel 2016, arXiv
 * 1606.08415): with erf, or with `approximate: "tanh"` as `x/2·(1 + tanh(√(2/π)·(x +
 * 0.044715·x³)))`.
 */
export function gelu(x: Tensor, { approximate = "none" }: GeluOptions = {}): Tensor {
  if (approximate !== "none" && approximate !== "tanh")
    throw new ArgumentError(describe("gelu", "approximate 'none' or 'tanh'", String(approximate)));
  const inner = (n: Node): Node => {
    if (approximate === "none") return g.erf(g.mul(n, lit(n, Math.SQRT1_2)));
    // √(2/π)·x·(1 + 0.044715·x²): one multiplication fewer than with the cube.
    const cubic = g.add(g.mul(c.square(n), lit(n, 0.044715)), lit(n, 1));
    return g.tanh(g.mul(g.mul(n, lit(n, Math.sqrt(2 / Math.PI))), cubic));
  };
  const formula = (n: Node): Node => g.mul(g.mul(n, lit(n, 0.5)), g.add(inner(n), lit(n, 1)));
  return floatUnary("gelu", formula, x);
}

/** `x·sigmoid(1.702·x)`, the approximation of GELU that CLIP was trained with. */
export function quickGelu(x: Tensor): Tensor {
  return floatUnary("quickGelu", (n) => g.mul(n, c.sigmoid(g.mul(n, lit(n, 1.702)))), x);
}

/** `x·sigmoid(x)`, also called swish. */
export function silu(x: Tensor): Tensor {
  return floatUnary("silu", (n) => g.mul(n, c.sigmoid(n)), x);
}

/** `1/(1 + e⁻ˣ)`. */
export function sigmoid(x: Tensor): Tensor {
  return floatUnary("sigmoid", c.sigmoid, x);
}

/** `log(sigmoid(x))`. */
export function logSigmoid(x: Tensor): Tensor {
  return floatUnary("logSigmoid", c.logSigmoid, x);
}

/** `log(1 + e^(beta·x))/beta`; x itself where `beta·x > threshold`. */
export function softplus(x: Tensor, beta = 1, threshold = 20): Tensor {
  return floatUnary("softplus", (n) => c.softplus(n, beta, threshold), x);
}

/** `x·tanh(softplus(x))` (Misra 2019, arXiv 1908.08681). */
export function mish(x: Tensor): Tensor {
  return floatUnary("mish", (n) => g.mul(n, g.tanh(c.softplus(n))), x);
}

/** x limited to [min, max]; the gradient at both ends is 0. */
export function hardtanh(x: Tensor, min = -1, max = 1): Tensor {
  return floatUnary("hardtanh", (n) => limited(n, min, max), x);
}

/** `x·relu6(x + 3)/6` (Howard et al. 2019, arXiv 1905.02244). */
export function hardswish(x: Tensor): Tensor {
  const formula = (n: Node): Node => g.div(g.mul(n, limited(g.add(n, lit(n, 3)), 0, 6)), lit(n, 6));
  return floatUnary("hardswish", formula, x);
}

/** Limits with a gradient of 0 at both ends (clamp passes it there); NaN stays NaN. */
function limited(x: Node, min: number, max: number): Node {
  const [lo, hi] = [lit(x, min), lit(x, max)];
  return g.where(g.le(x, lo), lo, g.where(g.le(hi, x), hi, x));
}
