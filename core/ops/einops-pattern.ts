/**
 * @file The patterns of einops (Rogozhnikov 2022): "b (h w) c -> b c h w". This file reads them, checks them and gives each
 * axis its size; einops.ts moves the elements. Errors point at the token.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import { formatShape, type Shape } from "../shape.ts";

/** Sizes of axes by their names. */
export type AxisSizes = Readonly<Record<string, number>>;

/** An elementary axis: a name, or a number such as "2" that stands for its size, or "...". */
export interface Axis {
  readonly name: string;
  /** Where it stands in the pattern. */
  readonly at: number;
}

/** What makes one axis of a tensor: one elementary axis, several in parentheses, or none ("1" or "()"). */
export interface Group {
  readonly axes: readonly Axis[];
  readonly parenthesised: boolean;
}

export interface Pattern {
  readonly text: string;
  readonly left: readonly Group[];
  readonly right: readonly Group[];
}

/** Throws an error whose message shows the pattern with a mark under the token. */
export function patternError(
  op: string,
  text: string,
  at: number,
  expected: string,
  got: string,
): never {
  throw new ArgumentError(`${describe(op, expected, got)}\n  ${text}\n  ${" ".repeat(at)}^`);
}

export const isNumber = (axis: Axis): boolean => /^\d+$/.test(axis.name);

/** The two sides of a pattern, read but not yet compared. */
export function readPattern(op: string, text: string): Pattern {
  const arrow = text.indexOf("->");
  if (arrow < 0 || text.indexOf("->", arrow + 2) >= 0)
    patternError(op, text, Math.max(arrow, 0), "one '->' between two sides", `"${text}"`);
  return {
    text,
    left: readSide(op, text, 0, arrow),
    right: readSide(op, text, arrow + 2, text.length),
  };
}

function readSide(op: string, text: string, from: number, to: number): Group[] {
  const groups: Group[] = [];
  let open: Axis[] | null = null;
  let openedAt = 0;
  const seen = new Set<string>();
  const token = /\.\.\.|[A-Za-z_]\w*|\d+|[()]|\S/gy;
  const space = /\s*/y;
  for (let i = from; i < to; ) {
    space.lastIndex = i;
    i = space.exec(text)![0].length + i;
    if (i >= to) break;
    token.lastIndex = i;
    const [name] = token.exec(text)!;
    const axis: Axis = { name, at: i };
    if (name === "(") {
      if (open) patternError(op, text, i, "')' before another '('", "nested parentheses");
      [open, openedAt] = [[], i];
    } else if (name === ")") {
      if (!open) patternError(op, text, i, "'(' before ')'", "a ')' without it");
      groups.push({ axes: open!, parenthesised: true });
      open = null;
    } else {
      if (!/^(\.\.\.|[A-Za-z_]\w*|\d+)$/.test(name))
        patternError(op, text, i, "names, numbers, parentheses and '...'", `'${name}'`);
      if (name === "0") patternError(op, text, i, "a positive size", "0");
      if (!isNumber(axis) && seen.has(name))
        patternError(op, text, i, "each axis once per side", `'${name}' twice`);
      seen.add(name);
      // "1" is no axis of its own, only a place.
      const axes = name === "1" ? [] : [axis];
      if (open) open.push(...axes);
      else groups.push({ axes, parenthesised: false });
    }
    i += name.length;
  }
  if (open) patternError(op, text, openedAt, "')' for every '('", "one without");
  return groups;
}

/** The left side with "..." replaced by as many axes as the tensor has left for it, named "….0", "….1", … */
export function spreadDots(side: readonly Group[], count: number): Group[] {
  const named = (at: number): Axis[] =>
    Array.from({ length: count }, (_, i) => ({ name: `….${i}`, at }));
  return side.flatMap((group) => {
    const axes = group.axes.flatMap((a) => (a.name === "..." ? named(a.at) : [a]));
    if (group.parenthesised || !group.axes.some((a) => a.name === "..."))
      return [{ ...group, axes }];
    return axes.map((a) => ({ axes: [a], parenthesised: false }));
  });
}

/** The size of every elementary axis of the left side; at most one per group may be unknown. */
export function axisSizes(
  op: string,
  text: string,
  groups: readonly Group[],
  shape: Shape,
  given: AxisSizes,
): Map<string, number> {
  const sizes = new Map(Object.entries(given));
  for (const [i, { axes }] of groups.entries()) {
    const sizeOf = (a: Axis) => (isNumber(a) ? Number(a.name) : sizes.get(a.name));
    const unknown = axes.filter((a) => sizeOf(a) === undefined);
    const known = axes.reduce((n, a) => n * (sizeOf(a) ?? 1), 1);
    if (unknown.length > 1)
      patternError(
        op,
        text,
        unknown[1].at,
        `a size for '${unknown[1].name}' or '${unknown[0].name}'`,
        "neither",
      );
    const rest = unknown.length === 0 ? 1 : known === 0 ? 0 : shape[i] / known;
    if (!Number.isInteger(rest) || rest * known !== shape[i]) {
      const what = axes.length ? axes.map((a) => `${a.name}`).join("·") : "1";
      throw new ShapeError(
        `${describe(
          op,
          `axis ${i} to be ${what}${axes.length > 1 || known !== 1 ? `, a multiple of ${known}` : ""}`,
          `size ${shape[i]} in ${formatShape(shape)}`,
        )}\n  ${text}\n  ${" ".repeat(axes[0]?.at ?? 0)}^`,
      );
    }
    if (unknown.length === 1) sizes.set(unknown[0].name, rest);
  }
  return sizes;
}
