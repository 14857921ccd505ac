/**
 * @file The derivative of running combinations. A running product's is written without a division, so that any number
 * of zeros is fine, and every order of it: the sums it needs, S[i] = g[i] + x[i+1]·S[i+1], are a linear recurrence, which
 * log₂ n steps of doubling solve (Kogge & Stone 1973). A running maximum's goes to the position that attains it.
 */
import * as b from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import type { Derivative } from "./gradient.ts";

/** y[j] = x[j - by] along `axis`, `fill` where there is none. */
export function shifted(x: Node, axis: number, by: number, fill: number): Node {
  const at = (n: number) => x.shape.map((_, i) => (i === axis ? n : 0));
  const kept = x.shape.map((d, i) => (i === axis ? d - by : d));
  return b.pad(b.slice(x, at(0), kept), at(by), at(0), fill);
}

/** h[j] = a[j]·h[j-1] + x[j], with h[-1] = 0: n·log₂ n operations, no division. */
export function linearRecurrence(a: Node, x: Node, axis: number): Node {
  const n = x.shape[axis];
  let [factor, sum] = [a, x];
  for (let k = 1; k < n; k *= 2) {
    sum = b.add(sum, b.mul(factor, shifted(sum, axis, k, 0)));
    if (2 * k < n) factor = b.mul(factor, shifted(factor, axis, k, 1));
  }
  return sum;
}

/** `f` with the direction of the axis turned around if `reverse`. */
function directed(
  reverse: boolean,
  axis: number,
  xs: readonly Node[],
  f: (...xs: Node[]) => Node,
): Node {
  const turn = (x: Node) => (reverse ? b.flip(x, [axis]) : x);
  return turn(f(...xs.map(turn)));
}

/**
 * Where each running maximum or minimum `out` of x was found, i32: of equal elements the one met last, of NaN too, as
 * PyTorch's cummax.
 */
export function runningPosition(x: Node, out: Node, axis: number, reverse: boolean): Node {
  const along = x.shape.map((d, i) => (i === axis ? d : 1));
  const position = b.expand(b.reshape(b.iota(x.shape[axis]), along), x.shape);
  const hit = b.or(b.eq(x, out), b.not(b.eq(x, x)));
  const nowhere = b.scalarLike(position, reverse ? x.shape[axis] - 1 : 0);
  return b.cumulative(b.where(hit, position, nowhere), axis, reverse ? "min" : "max", reverse);
}

export const cumulative: Derivative<"cumulative"> = {
  vjp: (g, n) => {
    const { axis, combine, reverse } = n.attrs;
    const [x] = n.src;
    if (combine === "sum") return [b.cumulative(g, axis, "sum", !reverse)];
    if (combine !== "prod")
      return [b.scatterAdd(runningPosition(x, n, axis, reverse), g, axis, x.shape[axis])];
    if (n.shape.includes(0)) return [g];
    return [
      directed(reverse, axis, [g, x, n], (g, x, out) => {
        // d out[k] / d x[i] = (Π before i)·(Π of i+1 … k): the second factor is summed from the end.
        const after = directed(true, axis, [g, x], (g, x) =>
          linearRecurrence(shifted(x, axis, 1, 1), g, axis),
        );
        return b.mul(shifted(out, axis, 1, 1), after);
      }),
    ];
  },
  jvp: ([t], n) => {
    const { axis, combine, reverse } = n.attrs;
    const [x] = n.src;
    if (combine === "sum") return b.cumulative(t!, axis, "sum", reverse);
    if (combine !== "prod") return b.gather(t!, runningPosition(x, n, axis, reverse), axis);
    if (n.shape.includes(0)) return t;
    // T[k] = x[k]·T[k-1] + out[k-1]·t[k]
    return directed(reverse, axis, [t!, x, n], (t, x, out) =>
      linearRecurrence(x, b.mul(shifted(out, axis, 1, 1), t), axis),
    );
  },
};
