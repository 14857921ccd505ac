/**
 * @file Reverse mode: one walk from the outputs down, adding up cotangents. The rules are
 * gradient.ts's.
 *
 * Ids order the graph, so visiting the nodes between outputs and inputs by falling id meets each
 * one after all its users. A missing cotangent (null) is a structural zero and costs nothing.
 */
import { isFloat } from "../dtype.ts";
import { differentiating, is, type Node } from "../graph/node.ts";
import { dependents } from "../graph/walk.ts";
import { derivativeOf, differentiable, fitTo, plus } from "./gradient.ts";
import { hooked } from "./hooks.ts";
import { regionVjp } from "./region.ts";

/**
 * Σ over outputs of cotangent · ∂output/∂input, for each of `wrt`; null where nothing depends on
 * it. Stops at `wrt`: an input below another one counts as constant on the way through that one,
 * unless `below`, which asks for total derivatives.
 */
export function gradients(
  outputs: readonly Node[],
  cotangents: readonly (Node | null)[],
  wrt: readonly Node[],
  below = false,
): (Node | null)[] {
  const inputs = new Set(wrt);
  const active = dependents(outputs, inputs, differentiable, below);
  const ends = (n: Node): boolean =>
    inputs.has(n) && !(below && differentiable(n) && n.src.some((s) => active.has(s)));
  const total = new Map<Node, Node>();
  const ofRegion = new Map<Node, (Node | null)[]>();
  const accumulate = (n: Node, g: Node | null) => {
    if (g && isFloat(n.dtype) && active.has(n))
      total.set(n, plus(total.get(n) ?? null, fitTo(g, n.shape))!);
  };
  const outer = differentiating(null);
  for (const [i, out] of outputs.entries()) accumulate(out, cotangents[i]);

  for (const n of [...active].reverse()) {
    differentiating(n);
    const arrived = total.get(n);
    const g = arrived && hooked(n, arrived);
    if (g) total.set(n, g);
    if (ends(n)) continue;
    if (is(n, "project")) {
      // A region's projections all come before it in this order: when it is met, its cotangents are
      // complete.
      const cts = ofRegion.get(n.src[0]) ?? [];
      cts[n.attrs.index] = plus(cts[n.attrs.index] ?? null, g ?? null);
      ofRegion.set(n.src[0], cts);
      continue;
    }
    const need = (i: number) => active.has(n.src[i]) && isFloat(n.src[i].dtype);
    const found = is(n, "region")
      ? ofRegion.get(n)?.some(Boolean) && regionVjp(n, ofRegion.get(n)!, need, gradients)
      : g && derivativeOf(n).vjp(g, n, need);
    if (found) for (const [i, s] of n.src.entries()) if (need(i)) accumulate(s, found[i] ?? null);
  }
  differentiating(outer);
  return wrt.map((n) => total.get(n) ?? null);
}
