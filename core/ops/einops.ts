/**
 * @file einops: rearranging, reducing and repeating axes by a pattern that names them (Rogozhnikov 2022, "Einops: clear and
 * reliable tensor manipulations with Einstein-like notation"). A pattern is reshape, permute, reshape, so it costs what
 * these cost. The functions live in one object because `repeat` is also a method with another meaning.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { numel } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import {
  type Axis,
  type AxisSizes,
  axisSizes,
  type Group,
  isNumber,
  patternError,
  readPattern,
  spreadDots,
} from "./einops-pattern.ts";
import { stack } from "./join.ts";
import { describeNode, nodeOf } from "./promotion.ts";
import { amax, amin, mean, prod, sum } from "./reduce.ts";

export type { AxisSizes } from "./einops-pattern.ts";

/** How `einops.reduce` combines elements. */
export type EinopsReduction = "mean" | "sum" | "max" | "min" | "prod";

const reductions: Readonly<Record<EinopsReduction, (x: Tensor, dim: number[]) => Tensor>> = {
  mean,
  sum,
  max: amax,
  min: amin,
  prod,
};

/**
 * The same elements with the axes in another order, split or joined: `rearrange(x, "b (h w) c -> b c h w", { h: 4 })`.
 * Parentheses join axes, "..." stands for any axes, 1 for an axis of size 1; a size is needed where it does not follow.
 * An array of tensors counts as one tensor with a new first axis.
 */
function rearrange(x: Tensor | readonly Tensor[], pattern: string, sizes: AxisSizes = {}): Tensor {
  const plan = planned("rearrange", x, pattern, sizes);
  const { left, right } = plan;
  only("rearrange", pattern, right, left, "on both sides");
  only("rearrange", pattern, left, right, "on both sides");
  return fromNode(composed(plan, split(plan), names(left)));
}

/**
 * Axes that the right side lacks are combined: `reduce(x, "b c (h 2) (w 2) -> b c h w", "max")`. A number on the left is
 * an axis of that size to be combined.
 */
function reduce(
  x: Tensor | readonly Tensor[],
  pattern: string,
  reduction: EinopsReduction,
  sizes: AxisSizes = {},
): Tensor {
  if (!Object.hasOwn(reductions, reduction))
    throw new ArgumentError(
      describe("reduce", `a reduction of ${Object.keys(reductions).join(", ")}`, String(reduction)),
    );
  const plan = planned("reduce", x, pattern, sizes);
  const { left, right } = plan;
  only("reduce", pattern, right, left, "on the left side as well");
  const kept = new Set(names(right));
  const dims = names(left).flatMap((n, i) => (kept.has(n) ? [] : [i]));
  const whole = split(plan);
  const less = dims.length === 0 ? whole : reductions[reduction](fromNode(whole), dims).node;
  return fromNode(composed(plan, less, names(left).filter((n) => kept.has(n)))); // biome-ignore format: one line
}

/**
 * Axes that the left side lacks repeat the elements: `repeat(x, "h w -> (h 2) (w k)", { k: 3 })`. A number on the right is
 * an axis of that size.
 */
function repeat(x: Tensor | readonly Tensor[], pattern: string, sizes: AxisSizes = {}): Tensor {
  const plan = planned("repeat", x, pattern, sizes);
  const { left, right } = plan;
  only("repeat", pattern, left, right, "on the right side as well");
  const present = names(left);
  const added = elementary(right).filter((a) => !present.includes(a.name));
  for (const a of added)
    if (sizeOf(plan, a.name) === undefined)
      patternError("repeat", pattern, a.at, `a size for '${a.name}'`, "none");
  const counts = added.map((a) => sizeOf(plan, a.name)!);
  const n = split(plan);
  const wide = g.expand(g.reshape(n, [...n.shape, ...counts.map(() => 1)]), [
    ...n.shape,
    ...counts,
  ]);
  return fromNode(composed(plan, wide, [...present, ...added.map((a) => a.name)]));
}

/** Rearranging, reducing and repeating by patterns that name the axes. */
export const einops = { rearrange, reduce, repeat } as const;

// --- helpers -------------------------------------------------------------------------------------

interface Plan {
  readonly node: Node;
  readonly left: readonly Group[];
  readonly right: readonly Group[];
  readonly sizes: ReadonlyMap<string, number>;
}

const elementary = (side: readonly Group[]): Axis[] => side.flatMap((group) => [...group.axes]);
const names = (side: readonly Group[]): string[] => elementary(side).map((a) => a.name);

/** A number's name is made unique by its place ("2@7"): two axes of size 2 are different axes. */
const unique = (side: readonly Group[]): Group[] =>
  side.map((group) => ({
    ...group,
    axes: group.axes.map((a) => (isNumber(a) ? { ...a, name: `${a.name}@${a.at}` } : a)),
  }));
const baseName = (name: string): string => name.split("@")[0];
const sizeOf = ({ sizes }: Pick<Plan, "sizes">, name: string): number | undefined =>
  name.includes("@") ? Number(baseName(name)) : sizes.get(name);

function planned(op: string, x: Tensor | readonly Tensor[], text: string, given: AxisSizes): Plan {
  const node = nodeOf(op, Array.isArray(x) ? stack(x) : x);
  const read = readPattern(op, text);
  for (const a of elementary(read.left)) {
    if (isNumber(a) && op !== "reduce")
      patternError(op, text, a.at, "names, 1 or '...' on the left side", `the size ${a.name}`);
  }
  for (const a of elementary(read.right))
    if (isNumber(a) && op !== "repeat")
      patternError(op, text, a.at, "names, 1 or '...' on the right side", `the size ${a.name}`);
  for (const group of read.left)
    for (const a of group.axes)
      if (a.name === "..." && group.parenthesised)
        patternError(op, text, a.at, "'...' outside parentheses on the left side", "it inside");
  const dots = read.left.some((group) => group.axes.some((a) => a.name === "..."));
  const plain = read.left.length - (dots ? 1 : 0);
  const count = node.shape.length - plain;
  if (dots ? count < 0 : count !== 0)
    throw new ShapeError(
      describe(op, `${dots ? "at least " : ""}${plain} axes for "${text}"`, describeNode(node)),
    );
  const [left, right] = [read.left, read.right].map((side) => spreadDots(side, dots ? count : 0));
  if (!dots)
    for (const a of elementary(read.right))
      if (a.name === "...") patternError(op, text, a.at, "'...' on the left side as well", "none");
  const known = new Set([...names(left), ...names(right)]);
  for (const [name, size] of Object.entries(given)) {
    if (!known.has(name))
      throw new ArgumentError(describe(op, `sizes of axes in "${text}"`, `'${name}'`));
    if (!(Number.isInteger(size) && size >= 0))
      throw new ArgumentError(describe(op, `a size for '${name}'`, String(size)));
  }
  const sizes = axisSizes(op, text, left, node.shape, given);
  return { node, left: unique(left), right: unique(right), sizes };
}

/** Every axis of `side` must be on the other side, too. */
function only(
  op: string,
  text: string,
  side: readonly Group[],
  other: readonly Group[],
  where: string,
): void {
  const allowed = new Set(names(other));
  for (const a of elementary(side))
    if (!allowed.has(a.name))
      patternError(op, text, a.at, `'${baseName(a.name)}' ${where}`, "it on one side only");
}

/** The tensor with one axis per elementary axis of the left side. */
const split = (plan: Plan): Node =>
  g.reshape(
    plan.node,
    names(plan.left).map((n) => sizeOf(plan, n)!),
  );

/** From elementary axes, named in their order, to the right side. */
function composed(plan: Plan, n: Node, axes: readonly string[]): Node {
  const ordered = g.permute(
    n,
    names(plan.right).map((name) => axes.indexOf(name)),
  );
  const shape = plan.right.map((group) => numel(group.axes.map((a) => sizeOf(plan, a.name)!)));
  return g.reshape(ordered, shape);
}
