/**
 * @file Transforms of functions beyond derivatives, on tensors: vmap, Jacobians, hessian,
 * checkpoint, own gradients and loops. The walks are transform/'s; here trees become lists of nodes
 * and back.
 */
import { grad, jvp, transformed, vjp } from "./autograd.ts";
import { cells, pendingCells } from "./cells.ts";
import { ArgumentError, describe, ShapeError, TransformError } from "./errors.ts";
import * as g from "./graph/build.ts";
import { type Node, peekId } from "./graph/node.ts";
import { type OwnKernel, placeholder } from "./graph/primitives.ts";
import { dependents, substitute } from "./graph/walk.ts";
import { axisOf } from "./ops/axes.ts";
import { eye } from "./ops/create.ts";
import { formatShape, numel } from "./shape.ts";
import { fromNode, leafTensor, type Tensor } from "./tensor.ts";
import { activeTrace } from "./trace.ts";
import { callRegion, closeOver, regionNodes } from "./transform/region.ts";
import { scanNodes } from "./transform/scan.ts";
import { batch } from "./transform/vmap.ts";
import { flatten, sameStructure, type TreeSpec, unflatten } from "./tree.ts";

// biome-ignore lint/suspicious/noExplicitAny: any function; its own types carry over to the result
type Args = any[];

const text = (n: Node): string => `${n.dtype}${formatShape(n.shape)}`;
const nodesOf = (tree: unknown): { nodes: Node[]; spec: TreeSpec } => {
  const { tensors, spec } = flatten(tree);
  return { nodes: tensors.map((t) => t.node), spec };
};

export interface VmapOptions {
  /** The axis to map over, per argument or for all; null passes an argument whole. */
  inDims?: number | null | readonly (number | null)[];
  /** Where the results get the mapped axis, per result or for all. */
  outDims?: number | readonly number[];
  /** What random numbers in f do: refuse, be the same for every element, or differ. */
  randomness?: "error" | "same" | "different";
}

/**
 * f, written for one example, applied to a batch at once: `vmap(f)(xs)` is the stack of `f(x)` for
 * each x of xs, without a loop. Arguments and results may be trees of tensors.
 */
export function vmap<A extends Args, R>(
  f: (...args: A) => R,
  { inDims = 0, outDims = 0, randomness = "error" }: VmapOptions = {},
): (...args: A) => R {
  return (...args) => {
    const since = peekId();
    const inputs = new Map<Node, Node>();
    let size: number | undefined;
    const call = args.map((arg, i) => {
      const dim = typeof inDims === "object" && inDims !== null ? inDims[i] : inDims;
      if (dim === null || dim === undefined) return arg;
      const { nodes, spec } = nodesOf(arg);
      return unflatten(
        spec,
        nodes.map((n) => {
          const axis = axisOf("vmap", dim, n.shape.length);
          if (n.shape.length === 0 || (size ??= n.shape[axis]) !== n.shape[axis])
            throw new ShapeError(
              describe(
                "vmap",
                `${size ?? "an axis"} along dim ${dim}`,
                `${text(n)} as argument ${i}`,
              ),
            );
          const front = g.permute(n, [axis, ...[...n.shape.keys()].filter((a) => a !== axis)]);
          const one = placeholder(n.dtype, front.shape.slice(1), n.device);
          inputs.set(one, front);
          return leafTensor(one);
        }),
      );
    }) as A;
    if (size === undefined)
      throw new ArgumentError(describe("vmap", "at least one mapped tensor", "none", "see inDims"));
    const out = transformed("vmap", f, call);
    refuseLeaks("vmap", inputs);
    const { nodes, spec } = nodesOf(out);
    const count = size;
    const results = batch(nodes, inputs, count, { randomness, since }).map((b, i) => {
      const n = b.batched ? b.node : g.expand(b.node, [count, ...b.node.shape]);
      const dim = typeof outDims === "number" ? outDims : outDims[i];
      return fromNode(movedFromFront(n, axisOf("vmap", dim, n.shape.length)));
    });
    return unflatten(spec, results);
  };
}

/**
 * The Jacobian by reverse mode: `jacrev(f)(x)` is [*out, *in]. Cheaper than jacfwd for few outputs.
 */
export function jacrev(f: (x: Tensor) => Tensor): (x: Tensor) => Tensor {
  return (x) => {
    const [out, pull] = vjp(f, x);
    const rows = vmap((ct: Tensor) => pull(ct)[0])(basis(out));
    return rows.reshape([...out.shape, ...x.shape]);
  };
}

/**
 * The Jacobian by forward mode: `jacfwd(f)(x)` is [*out, *in]. Cheaper than jacrev for few inputs.
 */
export function jacfwd(f: (x: Tensor) => Tensor): (x: Tensor) => Tensor {
  return (x) => {
    // f runs inside the mapped function, but on the same x: its random numbers are the same for
    // every direction.
    const column = (t: Tensor) => jvp(f, [x], [t])[1];
    const columns = vmap(column, { outDims: -1, randomness: "same" })(basis(x));
    return columns.reshape([...columns.shape.slice(0, -1), ...x.shape]);
  };
}

/**
 * The second derivatives of a scalar function: `hessian(f)(x)` is [*in, *in], forward over reverse
 * mode.
 */
export function hessian(f: (x: Tensor) => Tensor): (x: Tensor) => Tensor {
  return jacfwd(grad(f));
}

/**
 * f, of which only arguments and results are kept for the gradient; what lies between is computed
 * again in the backward pass (Chen et al. 2016, arXiv 1604.06174). Random numbers are the same both
 * times.
 */
export function checkpoint<A extends Args, R>(f: (...args: A) => R): (...args: A) => R {
  return (...args) => {
    const since = peekId();
    const { nodes, spec } = nodesOf(args);
    // f runs on aliases, not on parameters: whatever it assigns to state is then a value like any
    // other.
    const inner = nodes.map((n) => g.alias(n));
    const out = transformed("checkpoint", f, unflatten(spec, inner.map(leafTensor)) as A);
    const result = nodesOf(out);
    const params = nodes.map((n) => placeholder(n.dtype, n.shape, n.device));
    const own = new Map(inner.map((n, i) => [n, params[i]]));
    const body = own.size > 0 ? substitute(result.nodes, own) : result.nodes;
    const closed = closeOver(body, params, since);
    const region = { kind: "checkpoint", name: "checkpoint", body: closed.body } as const;
    const values = callRegion(region, [...nodes, ...closed.captured]);
    return unflatten(result.spec, values.map(fromNode)) as R;
  };
}

/** One gradient tree, or null for none, per argument. */
export type OwnGradient<A extends Args, R> = (
  cotangent: R,
  inputs: A,
  outputs: R,
) => { [K in keyof A]: A[K] | null };

/**
 * f with a gradient of its own: `backward(cotangent, inputs, outputs)` gives one gradient per
 * argument, or null. What f captures is constant. The gradient is itself differentiable. It is a rule for the reverse
 * direction: `jvp` differentiates f as it stands.
 */
export function customGradient<A extends Args, R>(
  f: (...args: A) => R,
  backward: OwnGradient<A, R>,
): (...args: A) => R {
  return (...args) => ownRegion("customGradient", f.name || "customGradient", f, args, backward);
}

/** f's call as one node, with a gradient or a kernel of its own. */
export function ownRegion<A extends Args, R>(
  op: string,
  name: string,
  f: (...args: A) => R,
  args: A,
  backward?: OwnGradient<A, R>,
  kernel?: OwnKernel,
): R {
  const { nodes, spec } = nodesOf(args);
  const tensors = (list: readonly Node[]) => list.map(leafTensor);
  let result: TreeSpec | undefined;
  const forward = (params: Node[]): Node[] => {
    const out = nodesOf(transformed(op, f, unflatten(spec, tensors(params)) as A));
    result = out.spec;
    return out.nodes;
  };
  const pull =
    backward &&
    ((src: readonly Node[], out: readonly Node[], ct: readonly Node[]) => {
      const inputs = unflatten(spec, tensors(src)) as A;
      const outputs = unflatten(result!, tensors(out)) as R;
      const cotangent = unflatten(result!, tensors(ct)) as R;
      const found = transformed(op, backward, [cotangent, inputs, outputs]);
      if (!Array.isArray(found) || found.length !== args.length)
        throw new ArgumentError(
          describe(op, `an array of ${args.length} gradients`, String(found)),
        );
      return found.flatMap((tree, i) => ownGradients(op, tree, args[i], i));
    });
  const values = regionNodes("custom", name, forward, nodes, pull, kernel);
  return unflatten(result!, values.map(fromNode)) as R;
}

function ownGradients(op: string, tree: unknown, arg: unknown, position: number): (Node | null)[] {
  const want = nodesOf(arg);
  if (tree === null || tree === undefined) return want.nodes.map(() => null);
  const got = nodesOf(tree);
  const fits =
    sameStructure(got.spec, want.spec) &&
    got.nodes.every((n, i) => text(n) === text(want.nodes[i]));
  if (!fits)
    throw new ShapeError(
      describe(
        op,
        `a gradient like argument ${position}: ${want.nodes.map(text).join(", ")}`,
        got.nodes.map(text).join(", ") || "none",
      ),
    );
  return got.nodes;
}

export interface ScanOptions {
  /** Runs from the last element to the first. */
  reverse?: boolean;
  /** The number of steps where there are no xs. */
  length?: number;
}

/**
 * A loop as one node: `[carry, y] = f(carry, x)` for each x along the leading axis of xs; gives the
 * last carry and the stacked ys. The carry keeps its shapes and dtypes. All are trees of tensors.
 */
export function scan<C, X, Y>(
  f: (carry: C, x: X) => [C, Y],
  init: C,
  xs: X,
  { reverse = false, length }: ScanOptions = {},
): [C, Y] {
  const start = nodesOf(init);
  const steps = nodesOf(xs);
  let ySpec: TreeSpec | undefined;
  const step = (carries: Node[], slices: Node[]) => {
    const carry = unflatten(start.spec, carries.map(leafTensor)) as C;
    const x = unflatten(steps.spec, slices.map(leafTensor)) as X;
    const out = transformed("scan", f, [carry, x]);
    if (!Array.isArray(out) || out.length !== 2)
      throw new ArgumentError(describe("scan", "a function that returns [carry, y]", String(out)));
    const next = nodesOf(out[0]);
    if (!sameStructure(next.spec, start.spec))
      throw new ArgumentError(describe("scan", "a carry that keeps its structure", "another one"));
    const y = nodesOf(out[1]);
    ySpec = y.spec;
    refuseLeaks("scan", new Map([...carries, ...slices].map((n) => [n, n])));
    return { carries: next.nodes, ys: y.nodes };
  };
  const { carries, ys } = scanNodes(
    step,
    start.nodes,
    steps.nodes,
    reverse,
    length ?? steps.nodes[0]?.shape[0],
  );
  return [
    unflatten(start.spec, carries.map(fromNode)) as C,
    unflatten(ySpec!, ys.map(fromNode)) as Y,
  ];
}

// --- helpers -------------------------------------------------------------------------------------

/** The unit vectors of x's shape, stacked: [numel, ...shape]. */
function basis(x: Tensor): Tensor {
  const n = numel(x.shape);
  return eye(n).reshape([n, ...x.shape]);
}

function movedFromFront(n: Node, axis: number): Node {
  const rest = [...n.shape.keys()].slice(1);
  return g.permute(n, [...rest.slice(0, axis), 0, ...rest.slice(axis)]);
}

/**
 * A value of one element must not be assigned to a cell outside: it has no meaning there. The cell
 * goes back.
 */
function refuseLeaks(op: string, params: ReadonlyMap<Node, Node>): void {
  if (params.size === 0) return;
  const leaves = new Set(params.keys());
  const touched = [...pendingCells, ...(activeTrace()?.states.map((s) => s.cell) ?? [])];
  const depends = (n: Node): boolean => dependents([n], leaves).has(n);
  for (const cell of touched) {
    const grad = cells.peekGrad(cell);
    if (grad && depends(cells.peek(grad))) {
      cells.bindGrad(cell, null);
      throw new TransformError(
        describe(
          op,
          "a function that leaves no gradient of a single element outside",
          `backward() into ${cell.name ?? text(cells.peek(cell))}`,
          "use grad() inside, or backward() after the call",
        ),
      );
    }
    const n = cells.peek(cell);
    if (n.op !== "assign" || !depends(n)) continue;
    let before = n;
    while (before.op === "assign" && depends(before)) before = before.src[0];
    cells.bind(cell, before, false);
    throw new TransformError(
      describe(
        op,
        "a function that assigns no value of a single element to state outside",
        `an assignment to ${cell.name ?? text(n)}`,
        "return the value and assign it after the call",
      ),
    );
  }
}
