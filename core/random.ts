/**
 * @file Randomness: counter-based (Threefry, Salmon et al. 2011), so that a seed gives the same
 * bits on every device.
 *
 * A generator is a key and a counter. Each call makes one leaf, key and counter name its bits, and
 * the counter moves on by one; inside a compiled function the leaf reads the generator again at
 * every replay. Uniforms are exact everywhere: the upper 24 bits times 2⁻²⁴.
 */
import { type DType, isFloat } from "./dtype.ts";
import { ArgumentError, DTypeError, describe } from "./errors.ts";
import * as g from "./graph/build.ts";
import type { Node } from "./graph/node.ts";
import { constant, randomBits } from "./graph/primitives.ts";
import { checkShape } from "./ops/axes.ts";
import { checkDType, floatNode, inWide, literal, operandOf } from "./ops/promotion.ts";
import type { Shape } from "./shape.ts";
import { fromNode, type Tensor } from "./tensor.ts";
import { registerRandom } from "./trace.ts";

/** A generator's place: enough to continue, or to repeat, exactly. */
export interface GeneratorState {
  readonly seed: number;
  readonly counter: number;
}

/** A source of random bits with its own seed, independent of all others. */
export class Generator {
  #seed = 0;
  #counter = 0;

  constructor(seed = 0) {
    this.manualSeed(seed);
  }

  /** Starts anew from a seed: a non-negative integer up to 2⁵³ - 1. */
  manualSeed(seed: number): this {
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw new ArgumentError(describe("manualSeed", "an integer in 0 … 2⁵³ - 1", String(seed)));
    this.#seed = seed;
    this.#counter = 0;
    return this;
  }

  get seed(): number {
    return this.#seed;
  }

  get state(): GeneratorState {
    return { seed: this.#seed, counter: this.#counter };
  }

  set state({ seed, counter }: GeneratorState) {
    this.manualSeed(seed);
    this.#counter = counter;
  }

  /** The next leaf of random u32 bits; the counter moves on by one. */
  bits(shape: Shape): Node {
    const draw = () => ({
      key: [this.#seed >>> 0, Math.floor(this.#seed / 2 ** 32)] as const,
      counter: this.#counter++ >>> 0,
    });
    const { key, counter } = draw();
    const leaf = randomBits(shape, key, counter);
    registerRandom(leaf, draw, () => {
      this.#counter--;
    });
    return leaf;
  }
}

/** What functions use that are given no generator. */
export const defaultGenerator = new Generator();

/** Seeds the default generator. */
export function manualSeed(seed: number): Generator {
  return defaultGenerator.manualSeed(seed);
}

export interface RandomOptions {
  generator?: Generator;
  requiresGrad?: boolean;
}

export interface RandomFloatOptions extends RandomOptions {
  /** A float type, f32 by default. Halves are drawn as f32 and rounded to nearest. */
  dtype?: DType;
}

/** Uniform in [0, 1). Of f16 and bf16 the largest draws round to 1. */
export function rand(shape: Shape, options: RandomFloatOptions = {}): Tensor {
  return float("rand", uniformNode(bits("rand", shape, options)), options);
}

/** Normal with mean 0 and standard deviation 1. */
export function randn(shape: Shape, options: RandomFloatOptions = {}): Tensor {
  return float("randn", normalNode("randn", shape, options), options);
}

/** Uniform in [0, 1), in the shape and dtype of another tensor. */
export const randLike = (x: Tensor, options: RandomFloatOptions = {}): Tensor =>
  rand(x.shape, { dtype: x.dtype, ...options });

/** Normal with mean 0 and standard deviation 1, in the shape and dtype of another tensor. */
export const randnLike = (x: Tensor, options: RandomFloatOptions = {}): Tensor =>
  randn(x.shape, { dtype: x.dtype, ...options });

/** Integers low … high − 1, in the shape and dtype of another tensor. */
export const randintLike = (
  x: Tensor,
  low: number,
  high: number,
  options: RandomOptions & { dtype?: DType } = {},
): Tensor => randint(low, high, x.shape, { dtype: x.dtype, ...options });

/** Uniform in [low, high). */
export function uniform(shape: Shape, low = 0, high = 1, options: RandomFloatOptions = {}): Tensor {
  const u = uniformNode(bits("uniform", shape, options));
  const lit = (x: number) => literal("uniform", x, "f32");
  return float("uniform", g.add(g.mul(u, lit(high - low)), lit(low)), options);
}

/** Normal with the given mean and standard deviation. */
export function normal(shape: Shape, mean = 0, std = 1, options: RandomFloatOptions = {}): Tensor {
  if (!(std >= 0)) throw new ArgumentError(describe("normal", "std ≥ 0", String(std)));
  const z = normalNode("normal", shape, options);
  const lit = (x: number) => literal("normal", x, "f32");
  return float("normal", g.add(g.mul(z, lit(std)), lit(mean)), options);
}

/** Integers in [low, high), i32 unless `dtype` is given. */
export function randint(
  low: number,
  high: number,
  shape: Shape,
  { dtype = "i32", ...options }: RandomOptions & { dtype?: DType } = {},
): Tensor {
  const range = high - low;
  const fits = Number.isInteger(low) && Number.isInteger(high) && range > 0 && range < 2 ** 32;
  if (!fits || low < -(2 ** 31) || high > 2 ** 31)
    throw new ArgumentError(
      describe("randint", "32-bit integers low < high", `${low}, ${high}`, "high is excluded"),
    );
  const offset = g.cast(g.rem(bits("randint", shape, options), constant(range, "u32")), "i32");
  const n = low === 0 ? offset : g.add(offset, literal("randint", low, "i32"));
  return made(g.cast(n, dtype), options);
}

/**
 * 1 with the probability that each element of p gives, else 0; of p's shape and dtype. No gradient.
 */
export function bernoulli(p: Tensor, options: RandomOptions = {}): Tensor {
  const n = floatNode("bernoulli", p);
  const u = uniformNode(bits("bernoulli", n.shape, options));
  return made(g.cast(g.lt(u, g.cast(n, "f32")), n.dtype), options);
}

/**
 * Sets each element to 0 with probability p and scales the others by 1/(1 - p), in training; else x
 * itself (Srivastava et al. 2014). The mask is not stored: backward draws the same bits again.
 */
export function dropout(
  x: Tensor,
  p = 0.5,
  { training = true, generator }: { training?: boolean; generator?: Generator } = {},
): Tensor {
  if (!(p >= 0 && p <= 1)) throw new ArgumentError(describe("dropout", "p in 0 … 1", String(p)));
  if (!training || p === 0) return x;
  const n = floatNode("dropout", x);
  const zero = g.scalarLike(n, 0);
  if (p === 1) return fromNode(g.mul(n, zero));
  const u = uniformNode(bits("dropout", n.shape, { generator }));
  const keep = g.lt(u, operandOf("dropout", 1 - p, "f32"));
  const scaled = inWide((m) => g.mul(m, g.scalarLike(m, Math.fround(1 / (1 - p)))), n);
  return fromNode(g.where(keep, scaled, zero));
}

// --- helpers, on nodes ---------------------------------------------------------------------------

const bits = (op: string, shape: Shape, { generator = defaultGenerator }: RandomOptions): Node =>
  generator.bits(checkShape(op, shape));

function float(op: string, n: Node, options: RandomFloatOptions): Tensor {
  const { dtype = "f32" } = options;
  checkDType(op, dtype);
  if (!isFloat(dtype)) throw new DTypeError(describe(op, "a float dtype", dtype, "try randint"));
  return made(g.cast(n, dtype), options);
}

function made(n: Node, { requiresGrad }: RandomOptions): Tensor {
  const t = fromNode(n);
  if (requiresGrad) t.requiresGrad = true;
  return t;
}

/** The upper 24 bits as a multiple of 2⁻²⁴ in [0, 1): every one of them is an exact f32. */
const uniformNode = (b: Node): Node =>
  g.mul(g.cast(g.shr(b, constant(8, "u32")), "f32"), constant(2 ** -24, "f32"));

/**
 * Box and Muller (1958): √(-2 log(1 - u))·cos(2πv), from one leaf that holds both uniforms. 1 - u
 * is never 0, so the result is finite; its largest size is √(48 log 2) = 5.8.
 */
function normalNode(op: string, shape: Shape, options: RandomOptions): Node {
  const size = checkShape(op, shape);
  const both = uniformNode(bits(op, [2, ...size], options));
  const row = (i: number): Node =>
    g.reshape(g.slice(both, [i, ...size.map(() => 0)], [1, ...size]), size);
  const lit = (x: number) => constant(Math.fround(x), "f32");
  const radius = g.sqrt(g.mul(g.log(g.sub(lit(1), row(0))), lit(-2)));
  return g.mul(radius, g.cos(g.mul(row(1), lit(2 * Math.PI))));
}
