/**
 * @file What processors would rather have than the graph as it is: of sorted lines only the first elements, where that is
 * all that is read of them (topk), windows of padded inputs laid out for products, and long reductions in two stages (split.ts).
 */
import { is, type Node } from "../graph/node.ts";
import { node } from "../graph/primitives.ts";
import { rebuild } from "../graph/walk.ts";
import { numel } from "../shape.ts";
import { isMovement } from "./access.ts";
import { copy } from "./simplify.ts";
import { type Rewrite, splitReduction } from "./split.ts";

/**
 * A network (kernel/sort-network.ts) that keeps the first k takes (log₂ k)² / 4 exchanges for each element, of several lines
 * at once; sorting by digits takes as long as with some hundreds.
 */
const mostSelected = 256;
const fewestLines = 4;

/** A slice `n` from the beginning of sorted lines `x`, which nothing else reads. */
const firstSorted: Rewrite = (n, x) => {
  if (!is(n, "slice") || !is(x, "argsort") || x.attrs.first !== undefined) return null;
  const { start, step } = n.attrs;
  const { axis } = x.attrs;
  const [first, count] = [n.shape[axis], x.shape[axis]];
  const whole = n.shape.every((d, i) => i === axis || d === x.shape[i]);
  if (!whole || start[axis] !== 0 || step[axis] !== 1) return null;
  if (first > mostSelected || count < 4 * first || numel(x.shape) / count < fewestLines)
    return null;
  return node("argsort", x.src, { ...x.attrs, first }, x.recompute);
};

/** For fewer elements a kernel more is not worth it. */
const leastLaidOut = 1 << 12;

/**
 * A product reads an element of its operands once per use. What would then be tested for each time (whether a window's element
 * is one of the zeros around) or be read in a bad order (mirrored weights) is laid out in memory first: packing windows of a
 * padded input took as long as the product itself.
 */
const laidOut: Rewrite = (n) => {
  if (!is(n, "dot")) return null;
  const src = n.src.map(operandLaidOut);
  return src.some((s, i) => s !== n.src[i]) ? rebuild(n, src) : null;
};

function operandLaidOut(x: Node): Node {
  const chain: Node[] = [];
  let windowed = false;
  for (let at = x; isMovement(at); at = at.src[0]) {
    if (is(at, "window")) windowed ||= at.attrs.size > 1;
    const late = at.op === "pad" ? windowed : at.op === "permute" && isMirrored(at);
    if (late && numel(at.shape) >= leastLaidOut)
      return chain.reduceRight((below, above) => rebuild(above, [below]), copy(at));
    chain.push(at);
  }
  return x;
}

function isMirrored(n: Node): boolean {
  return isMovement(n) && (n.op === "flip" || isMirrored(n.src[0]));
}

export const forCpu: Rewrite = (n: Node, x: Node) =>
  firstSorted(n, x) ?? laidOut(n, x) ?? splitReduction(n, x);
