/**
 * @file Differentiation of functions and of results, on tensors: PyTorch's `backward` and JAX's
 * `grad`, `vjp`, `jvp`. All are walks over the graph that return more graph (transform/), so they
 * nest in any order and to any depth.
 *
 * A transform gives each argument a fresh identity (an alias) and differentiates with respect to
 * that: whatever else the function reads is constant to it. `backward` differentiates with respect
 * to the leaves that require grad.
 */
import { isFloat } from "./dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError, TransformError } from "./errors.ts";
import * as g from "./graph/build.ts";
import type { Node } from "./graph/node.ts";
import { topological } from "./graph/walk.ts";
import { formatShape, numel, sameShape } from "./shape.ts";
import { enableGrad, fromNode, leafTensor, rebind, Tensor } from "./tensor.ts";
import { insideTransform } from "./trace.ts";
import { tangents } from "./transform/jvp.ts";
import { gradients as nodeGradients } from "./transform/vjp.ts";
import { flatten, sameStructure, type TreeSpec, unflatten } from "./tree.ts";

const text = (n: Node): string => `${n.dtype}${formatShape(n.shape)}`;

// --- results -------------------------------------------------------------------------------------

/**
 * Adds the gradient of this scalar to `.grad` of every leaf below it that requires grad. A tensor
 * that is no scalar needs `gradient`, the cotangent of its shape: what is added then is the
 * gradient of `(x · gradient).sum()`.
 */
export function backward(x: Tensor, gradient?: Tensor): void {
  const root = x.node;
  const cotangent = cotangentOf("backward", root, gradient);
  const isLeaf = (n: Node): boolean => n.owner?.requiresGrad ?? false;
  const reach = (closed: (n: Node) => boolean): Node[] =>
    topological([root], (n) => isLeaf(n) || n.op === "detach" || closed(n)).filter(isLeaf);
  // Regions have no dtype of their own: their projections have.
  let leaves = reach((n) => n.op !== "region" && !isFloat(n.dtype));
  // sign(w) depends on w through a comparison alone: its gradient is zero, and no mistake.
  if (leaves.length === 0) leaves = reach(() => false).filter((n) => isFloat(n.dtype));
  if (leaves.length === 0)
    throw new TransformError(
      describe(
        "backward",
        "a result of tensors that require grad",
        `${text(root)}, which depends on none`,
        "set requiresGrad on the parameters; results of noGrad and detach are constants",
      ),
    );
  const found = nodeGradients([root], [cotangent], leaves);
  for (const [i, leaf] of leaves.entries()) {
    const cell = leaf.owner as Tensor;
    const before = cell.grad;
    const grad = found[i] ?? g.zerosLike(leaf);
    // As PyTorch: the same cell receives the sum, so whoever holds `.grad` sees it grow until it is zeroed.
    if (before) rebind(before, g.detach(g.add(before.node, grad)));
    cell.grad = before ?? leafTensor(g.detach(grad));
  }
}

/** Forgets the gradients: `.grad = null` for each tensor. */
export function zeroGrad(tensors: Iterable<Tensor>): void {
  for (const t of tensors) t.grad = null;
}

export interface GradientsOptions {
  /** One cotangent per output; may be left out for scalars. */
  gradOutputs?: Tensor | readonly (Tensor | null)[];
  /** Makes the gradients differentiable in turn. */
  createGraph?: boolean;
  /** Gives null for an input that no output depends on, instead of an error. */
  allowUnused?: boolean;
}

/**
 * The gradients of results with respect to tensors they were computed from, leaves or not
 * (torch.autograd.grad). Nothing is accumulated.
 */
export function gradients(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  { gradOutputs, createGraph = false, allowUnused = false }: GradientsOptions = {},
): (Tensor | null)[] {
  const list = <T>(x: T | readonly T[]): readonly T[] => (Array.isArray(x) ? x : [x as T]);
  const outs = list<Tensor>(outputs).map((t) => t.node);
  const given = gradOutputs === undefined ? [] : list<Tensor | null>(gradOutputs);
  const cotangents = outs.map((n, i) => cotangentOf("gradients", n, given[i] ?? undefined));
  const wrt = list<Tensor>(inputs).map((t) => t.node);
  // Total derivatives: an input may have been computed from another one.
  return nodeGradients(outs, cotangents, wrt, true).map((n, i) => {
    if (n) return createGraph ? fromNode(n) : leafTensor(g.detach(n));
    if (allowUnused) return null;
    throw new TransformError(
      describe(
        "gradients",
        "inputs that the outputs depend on",
        `input ${i}, ${text(wrt[i])}, on which none depends`,
        "pass { allowUnused: true } to get null for it",
      ),
    );
  });
}

/** x as a constant: no gradient flows through the result. */
export function detach(x: Tensor): Tensor {
  return leafTensor(g.detach(x.node));
}

// --- functions -----------------------------------------------------------------------------------

/** A function of trees of tensors. */
// biome-ignore lint/suspicious/noExplicitAny: any function; its own types carry over to the result
type Fn<A extends any[], R> = (...args: A) => R;

export interface GradOptions<N> {
  /** The position(s) of the arguments to differentiate; 0 unless given. */
  argnums?: N;
}

/** The gradients by `argnums`: one argument's for a number, a tuple for several. */
// biome-ignore lint/suspicious/noExplicitAny: as above
export type GradOf<A extends any[], N> = N extends readonly number[]
  ? { [K in keyof N]: N[K] extends number ? A[N[K]] : never }
  : N extends number
    ? A[N]
    : never;

/**
 * The function that computes f's gradient: `grad(f)(x)` has x's structure. f returns a scalar;
 * arguments may be trees (arrays and objects) of tensors.
 */
// biome-ignore lint/suspicious/noExplicitAny: as above
export function grad<A extends any[], const N extends number | readonly number[] = 0>(
  f: Fn<A, Tensor>,
  options: GradOptions<N> = {},
): Fn<A, GradOf<A, N>> {
  const both = valueAndGrad(f, options);
  return (...args) => both(...args)[1];
}

/** As `grad`, but gives [f's value, gradient]. */
// biome-ignore lint/suspicious/noExplicitAny: as above
export function valueAndGrad<A extends any[], const N extends number | readonly number[] = 0>(
  f: Fn<A, Tensor>,
  { argnums }: GradOptions<N> = {},
): Fn<A, [Tensor, GradOf<A, N>]> {
  const which = (typeof argnums === "object" ? argnums : [argnums ?? 0]) as readonly number[];
  return (...args) => {
    const { call, picked, nodes } = aliased("grad", args, which);
    const out = transformed("grad", f, call);
    if (!(out instanceof Tensor))
      throw new TransformError(
        describe("grad", "a function that returns a scalar tensor", typeof out),
      );
    const cotangent = cotangentOf("grad", out.node);
    const found = nodeGradients([out.node], [cotangent], nodes).map((n, i) =>
      fromNode(n ?? g.zerosLike(nodes[i])),
    );
    const trees = split(picked, found);
    const grads = typeof argnums === "object" ? trees : trees[0];
    return [constantIfOff(out), grads as GradOf<A, N>];
  };
}

/**
 * f's value and its pull-back: `const [out, pull] = vjp(f, ...args)`; `pull(cotangent)` (with out's
 * structure) gives one cotangent per argument.
 */
// biome-ignore lint/suspicious/noExplicitAny: as above
export function vjp<A extends any[], R>(f: Fn<A, R>, ...args: A): [R, (cotangent: R) => A] {
  const { call, picked, nodes } = aliased("vjp", args, [...args.keys()], true);
  const out = transformed("vjp", f, call);
  const { spec, tensors } = flatten(out);
  const outs = tensors.map((t) => t.node);
  const pull = (cotangent: R): A => {
    const ct = flatten(cotangent);
    refuseStructure("vjp", "a cotangent with the structure of the result", spec, ct.spec);
    const cts = outs.map((n, i) =>
      isFloat(n.dtype) ? cotangentOf("vjp", n, ct.tensors[i]) : null,
    );
    const found = nodeGradients(outs, cts, nodes).map((n, i) =>
      fromNode(n ?? g.zerosLike(nodes[i])),
    );
    return split(picked, found) as A;
  };
  return [out, pull];
}

/**
 * f's value and its derivative along a direction: `const [out, tangentOut] = jvp(f, primals,
 * tangents)`, with one tangent of the same structure per primal.
 */
// biome-ignore lint/suspicious/noExplicitAny: as above
export function jvp<A extends any[], R>(
  f: Fn<A, R>,
  primals: readonly [...A],
  directions: readonly [...A],
): [R, R] {
  const { call, nodes, picked } = aliased("jvp", [...primals] as A, [...primals.keys()], true);
  const given = flatten([...directions]);
  refuseStructure(
    "jvp",
    "tangents with the structure of the primals",
    {
      k: "array",
      items: picked.map((p) => p.spec),
    },
    given.spec,
  );
  const moving = nodes.map((n, i) =>
    isFloat(n.dtype) ? cotangentOf("jvp", n, given.tensors[i]) : null,
  );
  const out = transformed("jvp", f, call);
  const { spec, tensors } = flatten(out);
  const outs = tensors.map((t) => t.node);
  const found = tangents(outs, nodes, moving).map((n, i) => fromNode(n ?? g.zerosLike(outs[i])));
  return [out, unflatten(spec, found) as R];
}

// --- helpers -------------------------------------------------------------------------------------

/** Runs f as a transform does: recording gradients, with compiled functions inlined. */
export function transformed<A extends unknown[], R>(op: string, f: (...args: A) => R, args: A): R {
  const out = insideTransform(() => enableGrad(() => f(...args)));
  if (out instanceof Promise)
    throw new TransformError(
      describe(
        op,
        "a function that returns tensors",
        "an async function",
        "await before or after it",
      ),
    );
  return out;
}

interface Picked {
  readonly spec: TreeSpec;
  readonly count: number;
}

/** The arguments with the tensors of those that `which` names replaced by aliases. */
function aliased<A extends unknown[]>(
  op: string,
  args: A,
  which: readonly number[],
  integers = false,
): { call: A; picked: Picked[]; nodes: Node[] } {
  const call = [...args] as A;
  const nodes: Node[] = [];
  const picked = which.map((at) => {
    const i = at < 0 ? at + args.length : at;
    if (!(i in args))
      throw new ArgumentError(describe(op, `argnums within ${args.length} arguments`, String(at)));
    const { spec, tensors } = flatten(args[i]);
    const fresh = tensors.map((t) => {
      const n = t.node;
      if (!integers && !isFloat(n.dtype))
        throw new DTypeError(
          describe(
            op,
            "floating-point arguments",
            `${text(n)} as argument ${i}`,
            "choose others with argnums",
          ),
        );
      return g.alias(n);
    });
    nodes.push(...fresh);
    call[i] = unflatten(spec, fresh.map(leafTensor));
    return { spec, count: fresh.length };
  });
  return { call, picked, nodes };
}

function split(picked: readonly Picked[], tensors: readonly Tensor[]): unknown[] {
  let at = 0;
  return picked.map(({ spec, count }) => unflatten(spec, tensors.slice(at, (at += count))));
}

function refuseStructure(op: string, expected: string, want: TreeSpec, got: TreeSpec): void {
  if (!sameStructure(want, got))
    throw new ArgumentError(describe(op, expected, "another one", "the same arrays and keys"));
}

/** A cotangent (or tangent) for a node: the given one, checked, or 1 for a scalar. */
function cotangentOf(op: string, n: Node, given?: Tensor): Node {
  if (!isFloat(n.dtype))
    throw new DTypeError(
      describe(op, "a floating-point result", text(n), "convert it with .float()"),
    );
  if (given) {
    const ct = given.node;
    if (!sameShape(ct.shape, n.shape) || ct.dtype !== n.dtype)
      throw new ShapeError(describe(op, `a gradient of ${text(n)}`, text(ct)));
    return ct;
  }
  if (numel(n.shape) !== 1)
    throw new ShapeError(
      describe(op, "a scalar", text(n), "reduce it with .sum() or .mean(), or give its gradient"),
    );
  return g.expand(g.scalarLike(n, 1), n.shape);
}

/**
 * The value that a transform returns beside a gradient is an ordinary result: constant under an
 * outer noGrad.
 */
const constantIfOff = (t: Tensor): Tensor => fromNode(t.node);
