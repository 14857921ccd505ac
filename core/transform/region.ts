/**
 * @file Regions: functions as nodes. Recording them, inlining them, and their three transforms.
 * Loops are scan.ts's.
 *
 * The walkers are passed in rather than imported: they call this file, at whatever nesting.
 */
import { isFloat } from "../dtype.ts";
import { ArgumentError, describe, TransformError } from "../errors.ts";
import { alias, expand, sum, zerosLike } from "../graph/build.ts";
import {
  type DeviceName,
  differentiating,
  freshUid,
  is,
  type Node,
  peekId,
} from "../graph/node.ts";
import { node, type OwnKernel, type Region } from "../graph/primitives.ts";
import { rebuild, substitute, topological } from "../graph/walk.ts";
import { sameShape } from "../shape.ts";
import type { Batched, BatchWalker, VmapOptions } from "./batching.ts";
import {
  batchedLike,
  callRegion,
  closeOver,
  type JvpWalker,
  parameterLike,
  signature,
  type VjpWalker,
} from "./closure.ts";
import { scanBatch, scanJvp, scanVjp } from "./scan.ts";

export { callRegion, closeOver } from "./closure.ts";

type OwnVjp = NonNullable<Region["vjp"]>;

/**
 * Calls f on parameters that stand for `args` and records it as one node. An own `vjp` is traced at
 * once: it may use anything that f made or captured, and closing over that is only possible here.
 */
export function regionNodes(
  kind: "custom" | "checkpoint",
  name: string,
  f: (params: Node[]) => Node[],
  args: readonly Node[],
  vjp?: OwnVjp,
  kernel?: OwnKernel,
): Node[] {
  const own = kernel && { kernel };
  const since = peekId();
  const params = args.map((a) => parameterLike(a));
  const results = f(params);
  if (!vjp) {
    const { body, captured } = closeOver(results, params, since);
    return callRegion({ kind, name, body, ...own }, [...args, ...captured]);
  }
  const outs = results.map((r) => parameterLike(r));
  const cts = results.map((r) => parameterLike(r));
  const back = vjp(params, outs, cts, () => true);
  const given = back.filter((g) => g !== null);
  // One closure for both, so that what the gradient captures is a source of the region as well.
  const closed = closeOver([...results, ...given], [...params, ...outs, ...cts], since);
  const extra = closed.body.params.slice(params.length + 2 * results.length);
  const backward = closed.body.results.slice(results.length);
  const pull: OwnVjp = (src, out, ct) => {
    const map = new Map<Node, Node>();
    for (const [from, to] of [
      [[...params, ...extra], src],
      [outs, out],
      [cts, ct],
    ])
      for (const [i, p] of from.entries()) map.set(p, to[i]);
    const found = substitute(backward, map);
    let next = 0;
    return back.map((g) => (g ? found[next++] : null));
  };
  const body = {
    params: [...params, ...extra],
    results: closed.body.results.slice(0, results.length),
  };
  return callRegion({ kind, name, body, vjp: pull, ...own }, [...args, ...closed.captured]);
}

/** f(args), of which only the arguments are kept: its gradient computes the inside anew. */
export const checkpointNodes = (f: (params: Node[]) => Node[], args: readonly Node[]): Node[] =>
  regionNodes("checkpoint", "checkpoint", f, args);

// --- inlining ------------------------------------------------------------------------------------

function inline(region: Region, args: readonly Node[], recompute: number): Node[] {
  const { params, results } = region.body;
  return substitute(results, new Map(params.map((p, i) => [p, args[i]])), recompute);
}

/** The body of a custom or checkpoint region on its sources: one node per projection. */
export function expandRegion(n: Node<"region">): Node[] {
  const { region } = n.attrs;
  if (region.kind === "scan") throw new ArgumentError(`${region.name}: a loop cannot be inlined`);
  return inline(region, n.src, n.recompute);
}

/**
 * The graph as a schedule wants it: custom and checkpoint regions inlined (except those that `keep`
 * claims), loops without the stacked results that nobody reads, and the same inside the loops'
 * bodies.
 */
export function lowerRegions(
  roots: readonly Node[],
  keep: (region: Region, device: DeviceName | null) => boolean = () => false,
): Node[] {
  const order = topological(roots);
  const used = new Map<Node, Set<number>>();
  for (const n of order)
    if (is(n, "project")) used.set(n.src[0], (used.get(n.src[0]) ?? new Set()).add(n.attrs.index));
  const made = new Map<Node, Node>();
  const values = new Map<Node, (Node | undefined)[]>();
  const get = (n: Node): Node => made.get(n) ?? n;

  for (const n of order) {
    if (is(n, "project") && values.has(n.src[0]))
      made.set(n, values.get(n.src[0])![n.attrs.index]!);
    else if (is(n, "region") && !keep(n.attrs.region, n.device))
      values.set(n, lowered(n, n.src.map(get), used.get(n)!));
    else if (n.src.some((s) => made.has(s))) made.set(n, rebuild(n, n.src.map(get)));
  }
  return roots.map(get);

  function lowered(n: Node<"region">, src: readonly Node[], wanted: ReadonlySet<number>) {
    const { region } = n.attrs;
    const carries = region.scan?.carries ?? 0;
    const indices = region.body.results.flatMap((_, i) =>
      i < carries || wanted.has(i) ? [i] : [],
    );
    const results = lowerRegions(
      indices.map((i) => region.body.results[i]),
      keep,
    );
    const smaller = { ...region, body: { params: region.body.params, results } };
    const out = region.scan ? callRegion(smaller, src) : inline(smaller, src, n.recompute);
    const byIndex: (Node | undefined)[] = [];
    for (const [k, i] of indices.entries()) byIndex[i] = out[k];
    return byIndex;
  }
}

// --- transforms ----------------------------------------------------------------------------------

/**
 * Sources as separate variables: a node that is passed twice must not count its cotangent twice.
 */
const distinct = (src: readonly Node[]): Node[] =>
  src.map((s, i) => (src.indexOf(s) < i ? alias(s) : s));

/** Cotangents of n's sources from those of its projections. */
export function regionVjp(
  n: Node<"region">,
  cotangents: readonly (Node | null)[],
  need: (i: number) => boolean,
  gradients: VjpWalker,
): (Node | null)[] {
  const { region } = n.attrs;
  if (region.scan) return scanVjp(n, cotangents, need, gradients);
  if (region.vjp) {
    // With the region's mark: those of a checkpoint's clone are the projections that the clone has already.
    const project = (index: number) => node("project", [n], { index }, n.recompute);
    const out = region.body.results.map((_, index) => project(index));
    const found = region.vjp(
      n.src,
      out,
      out.map((o, i) => cotangents[i] ?? zerosLike(o)),
      need,
    );
    for (const [i, g] of found.entries())
      if (g && !(isFloat(g.dtype) && sameShape(g.shape, n.src[i].shape)))
        throw new TransformError(
          describe(
            `gradient of ${region.name}`,
            `${signature(n.src[i])} for source ${i}`,
            signature(g),
          ),
        );
    return found;
  }
  // Variables of their own: one that is passed twice must not count its cotangent twice, and what hangs on the sources
  // (hooks) is the outer walk's.
  const src = n.src.map((s) => alias(s));
  // A checkpoint's clone carries a fresh mark, so it never merges with the forward nodes, and those
  // need not be kept. Any other body gets the mark that its forward pass is inlined with: there
  // merging is the point.
  const mark = region.kind === "checkpoint" ? freshUid() : n.recompute;
  const outer = differentiating(null);
  const results = inline(region, src, mark);
  differentiating(outer);
  return gradients(results, cotangents, src);
}

/**
 * Tangents of n's projections. An own vjp says nothing about the forward direction, so the body is
 * differentiated.
 */
export function regionJvp(
  n: Node<"region">,
  t: readonly (Node | null)[],
  tangents: JvpWalker,
): (Node | null)[] {
  const { region } = n.attrs;
  if (region.scan) return scanJvp(n, t, tangents);
  const src = distinct(n.src);
  return tangents(inline(region, src, n.recompute), src, t);
}

/** The region of the batched body, applied to the batched sources. */
export function regionBatch(
  n: Node<"region">,
  src: readonly Batched[],
  size: number,
  options: VmapOptions,
  batchWith: BatchWalker,
): Batched[] {
  const { region } = n.attrs;
  if (region.scan) return scanBatch(n, src, size, options, batchWith);
  if (region.batch) return region.batch(src, size).map((n) => ({ node: n, batched: true }));
  const { params, results } = region.body;
  const inner = params.map((p, i) => batchedLike(p, src[i].batched, size));
  const env = new Map(params.map((p, i) => [p as Node, inner[i]]));
  const found = batchWith(results, env, size, options);
  const kernel = region.kernel?.batched(
    src.map((s) => s.batched),
    size,
  );
  // A kernel batches all of its results.
  if (kernel)
    for (const [i, { node, batched }] of found.entries())
      if (!batched) found[i] = { node: expand(node, [size, ...node.shape]), batched: true };
  const body = { params: inner.map((p) => p.node), results: found.map((r) => r.node) };
  const vjp = region.vjp && batchedVjp(region.vjp);
  const out = callRegion(
    { kind: region.kind, name: region.name, body, ...(vjp && { vjp }), ...(kernel && { kernel }) },
    src.map((s) => s.node),
  );
  return out.map((o, i) => ({ node: o, batched: found[i].batched }));

  function batchedVjp(own: OwnVjp): OwnVjp {
    return (args, outs, cts, need) => {
      const env = new Map<Node, Batched>();
      const bind = (unbatched: Node, value: Node, batched: boolean) => {
        const p = parameterLike(unbatched);
        env.set(p, { node: value, batched });
        return p;
      };
      const back = own(
        params.map((p, i) => bind(p, args[i], src[i].batched)),
        results.map((r, i) => bind(r, outs[i], found[i].batched)),
        results.map((r, i) => bind(r, cts[i], found[i].batched)),
        need,
      );
      const given = batchWith(
        back.filter((g) => g !== null),
        env,
        size,
        options,
      );
      let next = 0;
      return back.map((g, i) => {
        if (!g) return null;
        const b = given[next++];
        // What every element shares gets the sum of their cotangents.
        if (b.batched === src[i].batched) return b.node;
        return b.batched ? sum(b.node, [0]) : expand(b.node, [size, ...b.node.shape]);
      });
    };
  }
}
