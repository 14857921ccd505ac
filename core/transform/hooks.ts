/**
 * @file Hooks: functions that see, and may replace, the gradient on its way back.
 *
 * A hook of a value hangs on its node (of a leaf: on its cell, which outlives the versions of the value), where the
 * reverse walk finds it when the gradient is complete; walks that rebuild nodes leave it behind. A *gate* is in the
 * graph: a region that passes its sources on and whose gradient is a function, so it survives every walk. Neither costs
 * a kernel.
 */
import type { Node } from "../graph/node.ts";
import type { Region } from "../graph/primitives.ts";
import { callRegion, parameterLike } from "./closure.ts";

export type NodeHook = (gradient: Node) => Node;

/** Lists are replaced, never changed: who has seen one can tell whether it is still the one. */
const lists = new WeakMap<object, readonly NodeHook[]>();
/** Most programs have no hooks, and then no walk looks for them. */
let any = false;

/** The hooks of a node without a cell, or of a cell; null if there are none. */
export const hooksOf = (key: object): readonly NodeHook[] | null =>
  any ? (lists.get(key) ?? null) : null;

export function setHooks(key: object, hooks: readonly NodeHook[]): void {
  if (hooks.length > 0) {
    any = true;
    lists.set(key, hooks);
  } else lists.delete(key);
}

/** The gradient of `n` after its hooks. */
export const hooked = (n: Node, gradient: Node): Node =>
  hooksOf(n.owner ?? n)?.reduce((g, hook) => hook(g), gradient) ?? gradient;

/**
 * The values themselves; on the way back `pull` turns their gradients (zeros where there are none) into those that go on.
 * `witnesses` get no gradient: through `need` the function learns whether one is asked for what is before them.
 */
export function gate(
  values: readonly Node[],
  witnesses: readonly Node[],
  pull: (gradients: readonly Node[], need: (i: number) => boolean) => readonly (Node | null)[],
): Node[] {
  const params = [...values, ...witnesses].map((n) => parameterLike(n));
  const vjp: Region["vjp"] = (_src, _out, gradients, need) => [
    ...pull(gradients, need),
    ...witnesses.map(() => null),
  ];
  const body = { params, results: params.slice(0, values.length) };
  return callRegion({ kind: "custom", name: "gate", body, vjp }, [...values, ...witnesses]);
}
