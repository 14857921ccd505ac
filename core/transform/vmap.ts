/**
 * @file vmap: one walk that gives every node which depends on a batched input a batch axis in
 * front. What does not depend on one is computed once. The rules are batching.ts's.
 */
import { describe, TransformError } from "../errors.ts";
import { copying, is, type Node } from "../graph/node.ts";
import { randomBits } from "../graph/primitives.ts";
import { rebuild, topological } from "../graph/walk.ts";
import { type Batched, type BatchRule, batchRules, type VmapOptions } from "./batching.ts";
import { regionBatch } from "./region.ts";

/**
 * The outputs of a traced function for a batch of `size`; `inputs` maps its placeholders to values
 * with the batch in front.
 */
export const batch = (
  outputs: readonly Node[],
  inputs: ReadonlyMap<Node, Node>,
  size: number,
  options: VmapOptions,
): Batched[] =>
  batchWith(
    outputs,
    new Map([...inputs].map(([p, value]) => [p, { node: value, batched: true }])),
    size,
    options,
  );

/** The same, where a placeholder may also get a value that all elements share. */
export function batchWith(
  outputs: readonly Node[],
  env: ReadonlyMap<Node, Batched>,
  size: number,
  options: VmapOptions,
): Batched[] {
  let floor = options.since;
  for (const p of env.keys()) floor = Math.min(floor, p.id);
  const made = new Map<Node, Batched>(env);
  const ofRegion = new Map<Node, readonly Batched[]>();
  const get = (n: Node): Batched => made.get(n) ?? { node: n, batched: false };

  for (const n of topological(outputs, (m) => m.id < floor || env.has(m))) {
    if (env.has(n) || n.id < floor) continue;
    copying(n);
    if (is(n, "random")) made.set(n, draw(n, size, options));
    if (is(n, "project") && ofRegion.has(n.src[0])) {
      made.set(n, ofRegion.get(n.src[0])![n.attrs.index]);
      continue;
    }
    const src = n.src.map(get);
    if (src.some((s) => s.batched)) {
      if (is(n, "region")) ofRegion.set(n, regionBatch(n, src, size, options, batchWith));
      else made.set(n, { node: (batchRules[n.op] as BatchRule)(n, src, size), batched: true });
    } else if (src.some((s, i) => s.node !== n.src[i]))
      made.set(n, {
        node: rebuild(
          n,
          src.map((s) => s.node),
        ),
        batched: false,
      });
  }
  copying(null);
  return outputs.map(get);
}

/**
 * Element i of the larger leaf is i's bits under the same key and counter, so batch 1 equals the
 * function alone.
 */
function draw(n: Node<"random">, size: number, { randomness, since }: VmapOptions): Batched {
  if (n.id < since || randomness === "same") return { node: n, batched: false };
  if (randomness === "different") {
    const { key, counter } = n.attrs;
    return { node: randomBits([size, ...n.shape], key, counter), batched: true };
  }
  throw new TransformError(
    describe(
      "vmap",
      "a function without randomness",
      "one that draws random numbers",
      'pass { randomness: "different" } or { randomness: "same" }',
    ),
  );
}
