/**
 * @file max, min and median: of everything one tensor, along an axis values with their positions, as in
 * PyTorch.
 */
import { isFloat } from "../dtype.ts";
import * as g from "../graph/build.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { axisOf } from "./axes.ts";
import { medianAlong, medianOfAll } from "./ordering.ts";
import { nodeOf } from "./promotion.ts";
import { amax, amin } from "./reduce.ts";
import { position } from "./reductions.ts";

/** The extrema along an axis and where (i32) they are. */
export interface ValuesAndIndices {
  values: Tensor;
  indices: Tensor;
}

/** The maximum of all elements; equal ones share the gradient. */
export function max(x: Tensor): Tensor;
/**
 * The maxima along `dim` and the positions of the first of them; the gradient goes there. NaN wins.
 */
export function max(x: Tensor, dim: number, keepdim?: boolean): ValuesAndIndices;
export function max(x: Tensor, dim?: number, keepdim = false): Tensor | ValuesAndIndices {
  return dim === undefined ? amax(x) : along("max", x, dim, keepdim, false);
}

/** The minimum of all elements; equal ones share the gradient. */
export function min(x: Tensor): Tensor;
/**
 * The minima along `dim` and the positions of the first of them; the gradient goes there. NaN wins.
 */
export function min(x: Tensor, dim: number, keepdim?: boolean): ValuesAndIndices;
export function min(x: Tensor, dim?: number, keepdim = false): Tensor | ValuesAndIndices {
  return dim === undefined ? amin(x) : along("min", x, dim, keepdim, true);
}

/** The lower median of all elements; equal ones share the gradient. */
export function median(x: Tensor): Tensor;
/** The lower medians along `dim` and where they are; the gradient goes there. NaN wins. */
export function median(x: Tensor, dim: number, keepdim?: boolean): ValuesAndIndices;
export function median(x: Tensor, dim?: number, keepdim = false): Tensor | ValuesAndIndices {
  const n = nodeOf("median", x);
  return dim === undefined ? fromNode(medianOfAll(n)) : medianAlong(n, dim, keepdim);
}

function along(
  op: string,
  x: Tensor,
  dim: number,
  keepdim: boolean,
  smallest: boolean,
): ValuesAndIndices {
  const n = nodeOf(op, x);
  const axis = axisOf(op, dim, n.shape.length);
  const indices = position(op, n, dim, true, smallest);
  const source = n.shape.length === 0 ? g.reshape(n, [1]) : n;
  // A maximum without ties needs no look-up unless a gradient has to find its way back.
  const values = isFloat(n.dtype)
    ? g.gather(
        source,
        g.reshape(
          indices,
          source.shape.map((d, i) => (i === axis ? 1 : d)),
        ),
        axis,
      )
    : (smallest ? amin : amax)(x, dim, true).node;
  const shape = keepdim
    ? indices.shape
    : indices.shape.filter((_, i) => n.shape.length > 0 && i !== axis);
  return {
    values: fromNode(g.reshape(values, shape)),
    indices: fromNode(g.reshape(indices, shape)),
  };
}
