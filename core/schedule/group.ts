/**
 * @file A group: nodes that one kernel computes, over an index space and without any schedule. This is level one of the
 * kernel language; kernel/lower.ts makes loops of it.
 */
import { is, type Node } from "../graph/node.ts";
import { rules } from "../graph/primitives.ts";
import type { Shape } from "../shape.ts";
import { backward, beneath, broadcastIndex, forward, isMovement } from "./access.ts";
import { isFree } from "./simplify.ts";
import { type Index, ivar } from "./symbolic.ts";

/**
 * `update`: a map over the part of its one member, a dynamicUpdateSlice, that is written. `attention`, `custom`, `loop`: a
 * region and its projections.
 */
export type GroupKind =
  | "map"
  | "row"
  | "matmul"
  | "attention"
  | "custom"
  | "scatter"
  | "scan"
  | "sort"
  | "loop"
  | "update";

const closed: ReadonlySet<GroupKind> = new Set([
  "attention",
  "custom",
  "scatter",
  "scan",
  "sort",
  "loop",
  "update",
]);
/** Groups of one node, which nothing else joins. */
export const isClosed = ({ kind }: { readonly kind: GroupKind }): boolean => closed.has(kind);

export interface Group {
  readonly id: number;
  kind: GroupKind;
  /** Extents of the space; variable i is `s{i}`. */
  space: Shape;
  /** Axes of the space that are reduced. */
  reduced: readonly number[];
  /** Member → its index in the space's variables, in topological order. */
  readonly members: Map<Node, readonly Index[]>;
  /** Groups that hold a direct source of a member. */
  readonly needs: Set<Group>;
  /** The groups that need this one. */
  readonly neededBy: Set<Group>;
  /** No group with a larger id is needed, directly or not: so most questions of order need no search. */
  reach: number;
  /** Members whose values are written to memory, with the reason. */
  readonly stores: Map<Node, string>;
}

export const spaceVars = (shape: Shape): Index[] => shape.map((d, i) => ivar(`s${i}`, d));

export const isReduce = (n: Node): boolean => rules[n.op].kind === "reduce";
/** What is not computed by any group. */
export const isLeaf = (n: Node): boolean => n.op === "placeholder" || isFree(n);
/** Nodes whose value at an element needs their sources at the same element only. */
export const isAligned = (n: Node): boolean => rules[n.op].kind === "elementwise";

/** Nodes that walk the lines of their source and need each of its elements once. */
export const isLine = (n: Node): boolean => rules[n.op].kind === "line";

/** Operands that a template, a scan or a gather reads as whole tensors, at elements of its own choice. */
export const readsWhole = (n: Node, source: number): boolean =>
  n.op === "dot" ||
  n.op === "scatterAdd" ||
  n.op === "cumulative" ||
  n.op === "argsort" ||
  n.op === "region" ||
  readsElsewhere(n, source);

/** A region that a kernel of its own computes. */
export const isAttention = (n: Node): n is Node<"region"> =>
  is(n, "region") && n.attrs.region.attention !== undefined;

/** Operands that are read at other elements than the node's own, at positions known only when the kernel runs. */
const readsElsewhere = ({ op }: Node, source: number): boolean =>
  source === 0
    ? op === "gather" || op === "dynamicSlice"
    : source === 1 && op === "dynamicUpdateSlice";

/** A node's index in the group's variables, pushed forward from the member below its movements. */
export function mapOf(x: Node, group: Group): readonly Index[] | null {
  const chain: Node[] = [];
  let base = x;
  while (isMovement(base)) {
    chain.push(base);
    base = base.src[0];
  }
  let map: readonly Index[] | null = group.members.get(base) ?? null;
  for (let i = chain.length - 1; i >= 0 && map; i--) map = forward(chain[i], map);
  return map;
}

export const sameIndex = (a: readonly Index[], b: readonly Index[]): boolean =>
  a.length === b.length && a.every((x, i) => x.key === b[i].key);

/** Does evaluating `n` at `map` need each source that is a member of `group` exactly where the group has it? */
export function agrees(n: Node, map: readonly Index[], group: Group): boolean {
  return n.src.every((source, i) => {
    if (!group.members.has(beneath(source))) return true;
    // These read their sources elsewhere than at their own element.
    if (readsElsewhere(n, i) || n.op === "concat") return false;
    let index: readonly Index[] = broadcastIndex(map, source.shape);
    let s = source;
    while (isMovement(s)) {
      const access = backward(s, index);
      if (access.mask === false || access.mask.length > 0) return false;
      index = access.index;
      s = s.src[0];
    }
    return sameIndex(index, group.members.get(s)!);
  });
}
