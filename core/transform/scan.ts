/**
 * @file The loop: `scan` carries values over the leading axis of its inputs. Making it, and its
 * three transforms, each of which is a scan again (as in JAX's lax.scan), so they nest without end.
 *
 * Body: parameters [carries…, slices of xs…, constants…] → results [new carries…, slices of ys…].
 * Every scan also stacks its carries as they were before each step. The backward loop reads those
 * and recomputes one step at a time; a schedule drops the stacks that nobody reads (region.ts,
 * lowerRegions).
 */
import { isFloat } from "../dtype.ts";
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import { expand, permute, zerosLike } from "../graph/build.ts";
import { is, type Node, peekId } from "../graph/node.ts";
import { node, randomBits } from "../graph/primitives.ts";
import { dependents, substitute, topological } from "../graph/walk.ts";
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
import { differentiable, plus } from "./gradient.ts";

type Param = Node<"placeholder">;

/**
 * A parameter of the body and what it stands for outside: the initial carry, the stacked x, the
 * constant.
 */
interface Binding {
  readonly param: Param;
  readonly value: Node;
}

interface Loop {
  readonly name: string;
  readonly length: number;
  readonly reverse: boolean;
  readonly carries: readonly (Binding & { readonly next: Node })[];
  readonly xs: readonly Binding[];
  readonly constants: readonly Binding[];
  readonly ys: readonly Node[];
}

const bind = (value: Node, shape = value.shape): Binding => ({
  param: parameterLike(value, shape),
  value,
});

/** Records a loop whose body is closed; drops inputs that the body does not read. */
function record(loop: Loop): { carries: Node[]; ys: Node[] } {
  const { name, length, reverse, carries } = loop;
  const stacks = carries.map((c) => c.param).filter((p) => !loop.ys.includes(p));
  const results = [...carries.map((c) => c.next), ...loop.ys, ...stacks];
  const read = new Set(topological(results));
  const xs = loop.xs.filter((x) => read.has(x.param));
  const inputs = [...carries, ...xs, ...loop.constants.filter((c) => read.has(c.param))];
  const out = callRegion(
    {
      kind: "scan",
      name,
      body: { params: inputs.map((i) => i.param), results },
      scan: { length, carries: carries.length, xs: xs.length, reverse },
    },
    inputs.map((i) => i.value),
  );
  return {
    carries: out.slice(0, carries.length),
    ys: out.slice(carries.length, carries.length + loop.ys.length),
  };
}

/**
 * Traces f for one step and records the loop. `xs` have the steps on their leading axis; without
 * any, `length` says how many there are. Random leaves made inside draw anew in each step: they
 * become inputs.
 */
export function scanNodes(
  f: (carries: Node[], xs: Node[]) => { carries: Node[]; ys: Node[] },
  init: readonly Node[],
  xs: readonly Node[],
  reverse = false,
  length: number | undefined = xs[0]?.shape[0],
): { carries: Node[]; ys: Node[] } {
  if (length === undefined || xs.some((x) => x.shape[0] !== length))
    throw new ShapeError(
      describe(
        "scan",
        "xs with one leading axis, or a length",
        xs.map(signature).join(", ") || "none",
      ),
    );
  const since = peekId();
  const carry = init.map((c) => bind(c));
  const slices = xs.map((x) => bind(x, x.shape.slice(1)));
  const traced = f(
    carry.map((c) => c.param),
    slices.map((x) => x.param),
  );
  if (traced.carries.length !== init.length)
    throw new ArgumentError(
      describe("scan", `${init.length} new carries`, `${traced.carries.length}`),
    );
  for (const [i, c] of traced.carries.entries())
    if (c.dtype !== init[i].dtype || !sameShape(c.shape, init[i].shape))
      throw new ShapeError(
        describe("scan", `carry ${i} to stay ${signature(init[i])}`, signature(c)),
      );

  const params = [...carry, ...slices].map((b) => b.param);
  const { body, captured } = closeOver([...traced.carries, ...traced.ys], params, since);
  const draws: Binding[] = [];
  const constants: Binding[] = [];
  for (const [i, value] of captured.entries()) {
    const param = body.params[params.length + i];
    if (is(value, "random") && value.id >= since) {
      const { key, counter } = value.attrs;
      draws.push({ param, value: randomBits([length, ...value.shape], key, counter) });
    } else constants.push({ param, value });
  }
  return record({
    name: "scan",
    length,
    reverse,
    carries: carry.map((c, i) => ({ ...c, next: body.results[i] })),
    xs: [...slices, ...draws],
    constants,
    ys: body.results.slice(init.length),
  });
}

/** A scan's parts, by what they are. */
function partsOf(n: Node<"region">) {
  const { body, scan, name } = n.attrs.region;
  const { carries, xs } = scan!;
  const split = <T>(all: readonly T[]) => ({
    carries: all.slice(0, carries),
    xs: all.slice(carries, carries + xs),
    constants: all.slice(carries + xs),
  });
  return {
    name,
    scan: scan!,
    params: split(body.params),
    src: split(n.src),
    next: body.results.slice(0, carries),
    ys: body.results.slice(carries),
    split,
  };
}

/**
 * Grows a set of carries by `grow` until nothing is added: the carries that one step can reach, in
 * any number of steps.
 */
function fixpoint(start: readonly number[], grow: (live: readonly number[]) => number[]): number[] {
  let live = [...start];
  for (;;) {
    const more = [...new Set([...live, ...grow(live)])].sort((a, b) => a - b);
    if (more.length === live.length) return live;
    live = more;
  }
}

const indicesOf = <T>(all: readonly T[], keep: (x: T, i: number) => unknown): number[] =>
  all.flatMap((x, i) => (keep(x, i) ? [i] : []));

/** What a cotangent arriving at `roots` can reach. */
const reached = (roots: readonly Node[]): Set<Node> =>
  new Set(topological(roots, (n) => !differentiable(n)));

/**
 * A copy of the body on fresh parameters (a placeholder occurs in one body only), bound to
 * `values`.
 */
function copyBody({ attrs: { region } }: Node<"region">, values: readonly Node[]) {
  const { params, results } = region.body;
  const own = params.map((p, i): Binding => ({ param: parameterLike(p), value: values[i] }));
  return { own, inner: substitute(results, new Map(params.map((p, i) => [p, own[i].param]))) };
}

/**
 * The carries before each step, stacked by the loop itself; a loop that does not stack them runs
 * again.
 */
function stackedCarries(n: Node<"region">): Node[] {
  const { region } = n.attrs;
  const { params, results } = region.body;
  const carries = params.slice(0, region.scan!.carries);
  const at = carries.map((p) => results.indexOf(p, carries.length));
  if (!at.includes(-1)) return at.map((index) => node("project", [n], { index }));
  const body = { params, results: [...results, ...carries] };
  return callRegion({ ...region, body }, n.src).slice(results.length);
}

/** A scan over (carry, tangent) pairs. */
export function scanJvp(
  n: Node<"region">,
  t: readonly (Node | null)[],
  tangents: JvpWalker,
): (Node | null)[] {
  const { name, scan, params, src, next, ys, split } = partsOf(n);
  const given = split(t);
  const outside = new Set<Node>();
  for (const k of ["xs", "constants"] as const)
    for (const [i, p] of params[k].entries()) if (given[k][i]) outside.add(p);
  const live = fixpoint(
    indicesOf(given.carries, (x) => x),
    (now) => {
      const moving = dependents(
        next,
        new Set([...outside, ...now.map((i) => params.carries[i])]),
        differentiable,
      );
      return indicesOf(next, (r) => moving.has(r) && isFloat(r.dtype));
    },
  );

  const { own, inner } = copyBody(n, n.src);
  const parts = split(own);
  const moving = {
    carries: live.map((i) => ({
      of: parts.carries[i].param,
      ...bind(given.carries[i] ?? zerosLike(src.carries[i])),
    })),
    xs: indicesOf(given.xs, (x) => x).map((i) => ({
      of: parts.xs[i].param,
      ...bind(given.xs[i]!, params.xs[i].shape),
    })),
    constants: indicesOf(given.constants, (x) => x).map((i) => ({
      of: parts.constants[i].param,
      ...bind(given.constants[i]!),
    })),
  };
  const all = [...moving.carries, ...moving.xs, ...moving.constants];
  const moved = tangents(
    inner,
    all.map((m) => m.of),
    all.map((m) => m.param),
  );
  const movingYs = indicesOf(ys, (_, i) => moved[scan.carries + i]);
  const out = record({
    name: `jvp(${name})`,
    length: scan.length,
    reverse: scan.reverse,
    carries: [
      ...parts.carries.map((c, i) => ({ ...c, next: inner[i] })),
      ...moving.carries.map((c, k) => ({ ...c, next: moved[live[k]] ?? zerosLike(c.param) })),
    ],
    xs: [...parts.xs, ...moving.xs],
    constants: [...parts.constants, ...moving.constants],
    ys: movingYs.map((i) => moved[scan.carries + i]!),
  });
  const result: (Node | null)[] = [...next, ...ys].map(() => null);
  for (const [k, i] of live.entries()) result[i] = out.carries[scan.carries + k];
  for (const [k, i] of movingYs.entries()) result[scan.carries + i] = out.ys[k];
  return result;
}

/**
 * A scan in the other direction. It carries the carries' cotangents and the sums of the constants',
 * reads the carries that the forward loop stacked, and gives the xs' cotangents slice by slice.
 */
export function scanVjp(
  n: Node<"region">,
  cotangents: readonly (Node | null)[],
  need: (i: number) => boolean,
  gradients: VjpWalker,
): (Node | null)[] {
  const { name, scan, params, src, next, ys, split } = partsOf(n);
  const back = indicesOf(ys, (y, i) => cotangents[scan.carries + i] && isFloat(y.dtype));
  const arriving = (live: readonly number[]) =>
    reached([...live.map((i) => next[i]), ...back.map((i) => ys[i])]);
  const live = fixpoint(
    indicesOf(next, (r, i) => cotangents[i] && isFloat(r.dtype)),
    (now) => {
      const found = arriving(now);
      return indicesOf(params.carries, (p) => found.has(p) && isFloat(p.dtype));
    },
  );
  const found = arriving(live);
  const wanted = (k: "xs" | "constants", offset: number) =>
    indicesOf(params[k], (p, i) => need(offset + i) && found.has(p) && isFloat(p.dtype));
  const xs = wanted("xs", scan.carries);
  const constants = wanted("constants", scan.carries + scan.xs);

  // One step again, from the stacked carries.
  const { own, inner } = copyBody(n, [...stackedCarries(n), ...src.xs, ...src.constants]);
  const parts = split(own);
  const ofCarries = live.map((i) => bind(cotangents[i] ?? zerosLike(src.carries[i])));
  const sums = constants.map((i) => bind(zerosLike(src.constants[i])));
  const ofYs = back.map((i) => bind(cotangents[scan.carries + i]!, ys[i].shape));
  const wrt = [
    ...live.map((i) => parts.carries[i].param),
    ...xs.map((i) => parts.xs[i].param),
    ...constants.map((i) => parts.constants[i].param),
  ];
  const g = gradients(
    [...live.map((i) => inner[i]), ...back.map((i) => inner[scan.carries + i])],
    [...ofCarries, ...ofYs].map((c) => c.param),
    wrt,
  );
  const [gCarries, gXs, gConstants] = [
    g.slice(0, live.length),
    g.slice(live.length, live.length + xs.length),
    g.slice(live.length + xs.length),
  ];
  const out = record({
    name: `vjp(${name})`,
    length: scan.length,
    reverse: !scan.reverse,
    carries: [
      ...ofCarries.map((c, k) => ({ ...c, next: gCarries[k] ?? zerosLike(c.param) })),
      ...sums.map((c, k) => ({ ...c, next: plus(c.param, gConstants[k])! })),
    ],
    xs: [...parts.carries, ...parts.xs, ...ofYs],
    constants: parts.constants,
    ys: xs.map((i, k) => gXs[k] ?? zerosLike(parts.xs[i].param)),
  });
  const result: (Node | null)[] = n.src.map(() => null);
  for (const [k, i] of live.entries()) result[i] = out.carries[k];
  for (const [k, i] of xs.entries()) result[scan.carries + i] = out.ys[k];
  for (const [k, i] of constants.entries())
    result[scan.carries + scan.xs + i] = out.carries[live.length + k];
  return result;
}

/** A scan over the batched body: a fixpoint finds the carries that become batched along the way. */
export function scanBatch(
  n: Node<"region">,
  src: readonly Batched[],
  size: number,
  options: VmapOptions,
  batchWith: BatchWalker,
): Batched[] {
  const { region } = n.attrs;
  const { params, results } = region.body;
  const { carries, xs } = region.scan!;
  const attempt = (live: readonly number[]) => {
    const own = params.map((p, i) =>
      batchedLike(p, i < carries ? live.includes(i) : src[i].batched, size),
    );
    const found = batchWith(results, new Map(params.map((p, i) => [p, own[i]])), size, options);
    return { own, found };
  };
  const batchedOnes = (all: readonly Batched[]) =>
    indicesOf(all.slice(0, carries), (x) => x.batched);
  const live = fixpoint(batchedOnes(src), (now) => batchedOnes(attempt(now).found));
  const { own, found } = attempt(live);

  // The batch axis is in front of a value, the steps in front of what is stacked.
  const swap = (x: Node) => permute(x, [1, 0, ...x.shape.slice(2).map((_, i) => i + 2)]);
  const front = (x: Batched) => (x.batched ? x.node : expand(x.node, [size, ...x.node.shape]));
  const args = src.map((s, i) => {
    if (i < carries) return live.includes(i) ? front(s) : s.node;
    return s.batched && i < carries + xs ? swap(s.node) : s.node;
  });
  const body = {
    params: own.map((p) => p.node),
    results: found.map((r, i) => (live.includes(i) ? front(r) : r.node)),
  };
  return callRegion({ ...region, body }, args).map((out, i) => {
    if (i < carries) return { node: out, batched: live.includes(i) };
    return { node: found[i].batched ? swap(out) : out, batched: found[i].batched };
  });
}
