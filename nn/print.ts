/** @file A module as text, in PyTorch's layout: nested parentheses, equal neighbours counted. */
import { Tensor } from "../core/index.ts";
import { formatShape } from "../core/shape.ts";
import type { Module } from "./module.ts";

/** `within`: the modules around it, for those that refer back to one. */
export function moduleText(module: Module, within: readonly Module[] = []): string {
  const name = module.constructor.name;
  if (within.includes(module)) return `${name}(…)`;
  const children = [...module.namedChildren()].map(
    ([path, child]) => [path, moduleText(child, [...within, module])] as const,
  );
  const facts = module.extraRepr();
  if (children.length === 0) return `${name}(${facts})`;
  const lines = [...(facts ? [facts] : []), ...grouped(children)];
  return `${name}(\n${lines.join("\n").replace(/^/gm, "  ")}\n)`;
}

/** "(0): …" per child; "(0-11): 12 x …" for neighbours in a list that read the same. */
function grouped(children: readonly (readonly [path: string, text: string])[]): string[] {
  const lines: string[] = [];
  for (let i = 0, end = 1; i < children.length; i = end++) {
    const [path, text] = children[i];
    const [, list, first] = /^(.*?)(\d+)$/.exec(path) ?? [];
    const follows = (k: number): boolean =>
      first !== undefined &&
      children[k]?.[0] === `${list}${Number(first) + k - i}` &&
      children[k][1] === text;
    while (follows(end)) end++;
    const count = end - i;
    lines.push(
      count === 1
        ? `(${path}): ${text}`
        : `(${path}-${Number(first) + count - 1}): ${count} x ${text}`,
    );
  }
  return lines;
}

/** The facts of a module that says nothing else: its tensors and its plain fields. */
export function factsOf(members: Iterable<readonly [string, unknown]>): string {
  const facts: string[] = [];
  for (const [name, value] of members) {
    if (value instanceof Tensor) facts.push(`${name}=${value.dtype}${formatShape(value.shape)}`);
    else if (["number", "boolean", "string"].includes(typeof value)) facts.push(`${name}=${value}`);
  }
  return facts.join(", ");
}
