/**
 * @file Through movement: which element of a source an element of a movement node is (backward), and the other way for
 * the movements that are one-to-one (forward). Both directions work on index expressions, one per axis.
 */
import type { Node } from "../graph/node.ts";
import type { Shape } from "../shape.ts";
import {
  type Cond,
  delinearize,
  ge,
  type Index,
  iadd,
  imul,
  isub,
  linearize,
  lt,
  num,
  simplifyCond,
} from "./symbolic.ts";

const movements = new Set(["reshape", "permute", "expand", "pad", "slice", "flip", "window"]);
/** Movement with one source: never computed, only addressed. */
export const isMovement = (n: Node): boolean => movements.has(n.op);

export interface Access {
  readonly index: readonly Index[];
  /** pad: where this fails the value is `attrs.value` and the index is meaningless. */
  readonly mask: Cond | false;
}

/** Aligns right and drops or zeroes the axes along which `from` repeats. */
export function broadcastIndex(index: readonly Index[], from: Shape): Index[] {
  const skip = index.length - from.length;
  return from.map((d, i) => (d === 1 ? num(0) : index[skip + i]));
}

/** The source element behind element `index` of a movement node. */
export function backward(n: Node, index: readonly Index[]): Access {
  const source = n.src[0].shape;
  switch (n.op) {
    case "reshape":
      return { index: delinearize(linearize(index, n.shape), source), mask: [] };
    case "permute": {
      const out = new Array<Index>(source.length);
      const { axes } = (n as Node<"permute">).attrs;
      for (let i = 0; i < axes.length; i++) out[axes[i]] = index[i];
      return { index: out, mask: [] };
    }
    case "expand":
      return { index: broadcastIndex(index, source), mask: [] };
    case "flip": {
      const { axes } = (n as Node<"flip">).attrs;
      const at = (x: Index, i: number) => (axes.includes(i) ? isub(num(source[i] - 1), x) : x);
      return { index: index.map(at), mask: [] };
    }
    case "slice": {
      const { start, step } = (n as Node<"slice">).attrs;
      return { index: index.map((x, i) => iadd(imul(x, step[i]), num(start[i]))), mask: [] };
    }
    case "window": {
      const { axis, stride, dilation } = (n as Node<"window">).attrs;
      const offset = imul(index[source.length], dilation);
      const at = (x: Index, i: number) => (i === axis ? iadd(imul(x, stride), offset) : x);
      return { index: index.slice(0, source.length).map(at), mask: [] };
    }
    case "pad": {
      const { lo } = (n as Node<"pad">).attrs;
      const at = index.map((x, i) => isub(x, num(lo[i])));
      const mask = simplifyCond(at.flatMap((x, i) => [ge(x, 0), lt(x, source[i])]));
      return { index: at, mask };
    }
  }
  throw new Error(`backward: ${n.op} is no movement`);
}

/** The element of `n` that element `index` of its source becomes; null where that is not one-to-one. */
export function forward(n: Node, index: readonly Index[]): Index[] | null {
  const source = n.src[0].shape;
  switch (n.op) {
    case "reshape":
      return delinearize(linearize(index, source), n.shape);
    case "permute":
      return (n as Node<"permute">).attrs.axes.map((a) => index[a]);
    case "flip": {
      const { axes } = (n as Node<"flip">).attrs;
      return index.map((x, i) => (axes.includes(i) ? isub(num(source[i] - 1), x) : x));
    }
  }
  return null;
}

/** The computed (or leaf) node below a chain of movements. */
export function beneath(n: Node): Node {
  while (isMovement(n)) n = n.src[0];
  return n;
}
