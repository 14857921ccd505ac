/**
 * @file Makes every operator a method: `add(a, b)` is also `a.add(b)`. The methods' types and
 * docstrings are those of the functions, so nothing is written twice.
 */
import { backward, detach } from "../autograd.ts";
import type { DType } from "../dtype.ts";
import { describeTensor, print } from "../format.ts";
import type { DeviceName } from "../graph/node.ts";
import { registerHook } from "../hooks.ts";
import { dropout } from "../random.ts";
import { numel } from "../shape.ts";
import { Tensor } from "../tensor.ts";
import * as activation from "./activation.ts";
import * as activationMore from "./activation-more.ts";
import * as arithmetic from "./arithmetic.ts";
import type { Dim } from "./axes.ts";
import * as batchNorms from "./batch-norms.ts";
import * as compare from "./compare.ts";
import { to } from "./convert.ts";
import * as counting from "./counting.ts";
import * as cumulative from "./cumulative.ts";
import * as distances from "./distances.ts";
import * as dynamic from "./dynamic.ts";
import { max, median, min, type ValuesAndIndices } from "./extrema.ts";
import * as indexing from "./indexing.ts";
import { where } from "./join.ts";
import * as linearAlgebra from "./linear-algebra.ts";
import * as masking from "./masking.ts";
import * as matmul from "./matmul.ts";
import * as movement from "./movement.ts";
import * as norms from "./norms.ts";
import * as pairs from "./pairs.ts";
import type { Operand } from "./promotion.ts";
import type { VarianceOptions } from "./reduce.ts";
import * as reduce from "./reduce.ts";
import { multinomial } from "./sampling.ts";
import * as scatter from "./scatter.ts";
import * as searching from "./searching.ts";
import * as slicing from "./slicing.ts";
import * as sorting from "./sorting.ts";
import * as special from "./special.ts";
import * as trig from "./trig.ts";
import * as unary from "./unary.ts";
import * as windows from "./windows.ts";

/** A function of a tensor as the tensor's method. */
type Method<F> = F extends (x: never, ...rest: infer R) => infer O ? (...rest: R) => O : never;
/**
 * A module's functions as methods. Mapped property by property, so that editors show the functions'
 * docstrings.
 */
type MethodsOf<M> = { [K in keyof M]: Method<M[K]> };

declare module "../tensor.ts" {
  interface Tensor
    extends MethodsOf<typeof activation>,
      MethodsOf<typeof activationMore>,
      MethodsOf<typeof arithmetic>,
      MethodsOf<typeof batchNorms>,
      MethodsOf<typeof compare>,
      MethodsOf<typeof counting>,
      MethodsOf<typeof cumulative>,
      MethodsOf<typeof distances>,
      MethodsOf<typeof dynamic>,
      MethodsOf<typeof indexing>,
      MethodsOf<typeof linearAlgebra>,
      MethodsOf<typeof masking>,
      MethodsOf<typeof matmul>,
      MethodsOf<typeof movement>,
      MethodsOf<typeof norms>,
      MethodsOf<typeof pairs>,
      MethodsOf<typeof reduce>,
      MethodsOf<typeof scatter>,
      MethodsOf<typeof searching>,
      MethodsOf<typeof slicing>,
      MethodsOf<typeof sorting>,
      MethodsOf<typeof special>,
      MethodsOf<typeof trig>,
      MethodsOf<typeof unary>,
      MethodsOf<typeof windows>,
      MethodsOf<Functions> {
    /** The maximum of all elements; equal ones share the gradient. */
    max(): Tensor;
    /**
     * The maxima along `dim` and the positions of the first of them; the gradient goes there. NaN
     * wins.
     */
    max(dim: number, keepdim?: boolean): ValuesAndIndices;
    /** The minimum of all elements; equal ones share the gradient. */
    min(): Tensor;
    /**
     * The minima along `dim` and the positions of the first of them; the gradient goes there. NaN
     * wins.
     */
    min(dim: number, keepdim?: boolean): ValuesAndIndices;
    /** The lower median of all elements; equal ones share the gradient. */
    median(): Tensor;
    /** The lower medians along `dim` and where they are; the gradient goes there. NaN wins. */
    median(dim: number, keepdim?: boolean): ValuesAndIndices;
    /** In another dtype: floats truncate towards zero, anything but 0 is true. */
    to(dtype: DType): Tensor;
    /** A copy on another device, without gradient history; this tensor itself if it is there. */
    to(device: DeviceName): Promise<Tensor>;
    /** `condition ? this : other`, broadcasting all three. */
    where(condition: Tensor, other: Operand): Tensor;
    /** The variance; see `variance`. */
    var(dim?: Dim, options?: VarianceOptions): Tensor;
    /** The number of elements. */
    readonly numel: number;
    /** The number of axes. */
    readonly ndim: number;
    /** The axes in reverse order; the transpose of a matrix. */
    readonly T: Tensor;
    /** The last two axes exchanged: the transpose of each matrix of a batch. */
    readonly mT: Tensor;
    /** Shape, dtype, device, and the values if they are computed. */
    toString(): string;
  }
}

/** Single functions of other files that are methods as well. */
interface Functions {
  backward: typeof backward;
  detach: typeof detach;
  dropout: typeof dropout;
  multinomial: typeof multinomial;
  print: typeof print;
  registerHook: typeof registerHook;
}

const modules = [
  activation,
  activationMore,
  arithmetic,
  batchNorms,
  compare,
  counting,
  cumulative,
  distances,
  dynamic,
  indexing,
  linearAlgebra,
  masking,
  matmul,
  movement,
  norms,
  pairs,
  reduce,
  scatter,
  searching,
  slicing,
  sorting,
  special,
  trig,
  unary,
  windows,
];

type AnyFunction = (x: Tensor, ...rest: unknown[]) => unknown;

function attach(name: string, f: AnyFunction): void {
  Object.defineProperty(Tensor.prototype, name, {
    value(this: Tensor, ...rest: unknown[]) {
      return f(this, ...rest);
    },
    writable: true,
    configurable: true,
  });
}

for (const module of modules)
  for (const [name, f] of Object.entries(module)) attach(name, f as AnyFunction);
const single = {
  backward,
  detach,
  dropout,
  multinomial,
  print,
  registerHook,
  max,
  median,
  min,
  to,
  var: reduce.variance,
  toString: describeTensor,
};
for (const [name, f] of Object.entries(single)) attach(name, f as AnyFunction);
attach("where", ((x, condition, other) => where(condition, x, other)) as (
  x: Tensor,
  condition: Tensor,
  other: Operand,
) => Tensor as AnyFunction);

Object.defineProperties(Tensor.prototype, {
  numel: {
    configurable: true,
    get(this: Tensor) {
      return numel(this.shape);
    },
  },
  ndim: {
    configurable: true,
    get(this: Tensor) {
      return this.shape.length;
    },
  },
  T: {
    configurable: true,
    get(this: Tensor) {
      return movement.permute(this, [...this.shape.keys()].reverse());
    },
  },
  mT: {
    configurable: true,
    get(this: Tensor) {
      return movement.transpose(this, -2, -1);
    },
  },
  [Symbol.for("nodejs.util.inspect.custom")]: {
    configurable: true,
    value(this: Tensor) {
      return describeTensor(this);
    },
  },
});
