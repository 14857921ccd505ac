/**
 * @file Forward mode: one walk from the inputs up, carrying tangents beside the values. The rules
 * are gradient.ts's.
 */
import { differentiating, is, type Node } from "../graph/node.ts";
import { dependents } from "../graph/walk.ts";
import { derivativeOf, differentiable, fitTo } from "./gradient.ts";
import { regionJvp } from "./region.ts";

/**
 * The tangent of each output, null where it is structurally zero, when `wrt[i]` moves along
 * `tangentsIn[i]`.
 */
export function tangents(
  outputs: readonly Node[],
  wrt: readonly Node[],
  tangentsIn: readonly (Node | null)[],
): (Node | null)[] {
  const moving = new Map<Node, Node>();
  for (const [i, n] of wrt.entries())
    if (tangentsIn[i]) moving.set(n, fitTo(tangentsIn[i], n.shape));
  const inputs = new Set(wrt);
  const outer = differentiating(null);
  const ofRegion = new Map<Node, (Node | null)[]>();
  for (const n of dependents(outputs, inputs, differentiable)) {
    if (inputs.has(n)) continue;
    differentiating(n);
    const t = n.src.map((s) => moving.get(s) ?? null);
    if (is(n, "region")) {
      if (t.some(Boolean)) ofRegion.set(n, regionJvp(n, t, tangents));
      continue;
    }
    const found = is(n, "project")
      ? ofRegion.get(n.src[0])?.[n.attrs.index]
      : t.some(Boolean) && derivativeOf(n).jvp(t, n);
    if (found) moving.set(n, fitTo(found, n.shape));
  }
  differentiating(outer);
  return outputs.map((n) => moving.get(n) ?? null);
}
