/**
 * @file Einstein summation: sums of products named by letters. Operands are contracted from left to right, each step a
 * matrix product whose batch, row, contraction and column axes are groups of letters; the product of all letters exists
 * nowhere. What it computes is numpy.einsum's and torch.einsum's definition; this file decides the order and the layout.
 */
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { numel } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { describeNode, nodeOf } from "./promotion.ts";

/** A node whose axes have names; each name at most once. */
interface Named {
  readonly node: Node;
  readonly labels: readonly string[];
}

/**
 * The sum of products that the equation names: `einsum("bij,bjk->bik", a, b)`. A letter per axis; a letter that the
 * result lacks is summed over, one that an operand repeats takes its diagonal, and "..." stands for any number of axes
 * that broadcast. Without "->" the result has the axes of "..." and then the letters that occur once, in alphabetical
 * order. Axes of size 1 broadcast. Operands may be given one by one or as an array.
 */
export function einsum(
  equation: string,
  ...operands: readonly (Tensor | readonly Tensor[])[]
): Tensor {
  const nodes = operands.flat().map((t) => nodeOf("einsum", t));
  const { inputs, output } = parse(equation, nodes);
  if (
    nodes.some((n) => n.dtype !== nodes[0].dtype) ||
    (nodes.length > 1 && nodes[0].dtype === "bool")
  )
    throw new DTypeError(
      describe("einsum", "numeric operands of one dtype", nodes.map(describeNode).join(", ")),
    );
  const sizes = sizesOf(equation, inputs, nodes);
  const named = nodes.map((n, i) => squeezed(diagonals({ node: n, labels: inputs[i] }), sizes));
  return fromNode(arranged(contracted(named, output), output, sizes));
}

// --- parsing -------------------------------------------------------------------------------------

/** The names of the axes that "..." stands for, counted from the right, as broadcasting aligns them. */
const dotted = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => `.${count - i}`);

function parse(equation: string, nodes: readonly Node[]): { inputs: string[][]; output: string[] } {
  const wrong = (expected: string, hint?: string): never => {
    const got = `"${equation}" for ${nodes.map(describeNode).join(", ") || "no operands"}`;
    throw new ArgumentError(describe("einsum", expected, got, hint));
  };
  const [left, right, ...more] = equation.replaceAll(" ", "").split("->");
  const terms = left.split(",");
  for (const term of [...terms, ...(right === undefined ? [] : [right])])
    if (!/^[a-zA-Z]*(\.\.\.)?[a-zA-Z]*$/.test(term))
      wrong('letters and at most one "..." per operand', `"${term}" is neither`);
  if (more.length > 0) wrong('one "->"');
  if (terms.length !== nodes.length || nodes.length === 0)
    wrong(`${terms.length} operands, one per term of the left-hand side`);

  const inputs = terms.map((term, i) => {
    const rank = nodes[i].shape.length;
    const letters = term.replace("...", "").length;
    if (term.includes("...") ? letters > rank : letters !== rank)
      wrong(`as many letters as axes for operand ${i}`, `"${term}" meets ${rank} axes`);
    return labelsOf(term, rank - letters);
  });
  const all = inputs.flat();
  const widest = Math.max(0, ...inputs.map((ls) => ls.filter((l) => l.startsWith(".")).length));
  if (right === undefined) {
    const once = all.filter((l) => !l.startsWith(".") && all.indexOf(l) === all.lastIndexOf(l));
    return { inputs, output: [...dotted(widest), ...once.sort()] };
  }
  const output = labelsOf(right, widest);
  for (const [i, label] of output.entries()) {
    if (!all.includes(label) && label.length === 1)
      wrong("letters on the right that occur on the left", `"${label}" does not`);
    if (output.indexOf(label) < i) wrong("each letter once on the right", `"${label}" is repeated`);
  }
  return { inputs, output };
}

/** "ab...c" with two axes for the dots: a, b, .2, .1, c. */
const labelsOf = (term: string, dots: number): string[] => {
  const [head, tail] = term.split("...");
  return tail === undefined ? [...head] : [...head, ...dotted(dots), ...tail];
};

/** The size of each label; axes of size 1 take that of the others. */
function sizesOf(
  equation: string,
  inputs: readonly (readonly string[])[],
  nodes: readonly Node[],
): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const [i, labels] of inputs.entries())
    for (const [axis, label] of labels.entries()) {
      const [known, size] = [sizes.get(label) ?? 1, nodes[i].shape[axis]];
      if (known !== 1 && size !== 1 && known !== size)
        throw new ShapeError(
          describe(
            "einsum",
            `one size for "${label.startsWith(".") ? "..." : label}" in "${equation}"`,
            `${known} and ${size} in ${nodes.map(describeNode).join(", ")}`,
          ),
        );
      sizes.set(label, known === 1 ? size : known);
    }
  return sizes;
}

// --- contraction ---------------------------------------------------------------------------------

const sizeIn = (x: Named, labels: readonly string[]): number[] =>
  labels.map((l) => x.node.shape[x.labels.indexOf(l)]);

/** Repeated labels become one: "ii" is the diagonal of its two axes. */
function diagonals(x: Named): Named {
  const at = x.labels.findIndex((l, i) => x.labels.indexOf(l) < i);
  if (at < 0) return x;
  const first = x.labels.indexOf(x.labels[at]);
  const [rows, columns] = [x.node.shape[first], x.node.shape[at]];
  const rest = x.labels.map((_, i) => i).filter((i) => i !== first && i !== at);
  const lead = rest.map((i) => x.node.shape[i]);
  if (rows !== columns)
    throw new ShapeError(
      describe("einsum", `equal sizes for the repeated "${x.labels[at]}"`, describeNode(x.node)),
    );
  // Flattened row-major, neighbours on the diagonal are columns + 1 apart.
  const flat = g.reshape(g.permute(x.node, [...rest, first, at]), [...lead, rows * columns]);
  const ones = lead.map(() => 1);
  const node = g.slice(flat, [...lead.map(() => 0), 0], [...lead, rows], [...ones, columns + 1]);
  return diagonals({ node, labels: [...rest.map((i) => x.labels[i]), x.labels[at]] });
}

/** Without the axes of size 1 that broadcast: they would be neither rows nor contraction. */
function squeezed(x: Named, sizes: ReadonlyMap<string, number>): Named {
  const stays = (label: string, i: number) => x.node.shape[i] === sizes.get(label);
  return {
    node: g.reshape(x.node, sizeIn(x, x.labels.filter(stays))),
    labels: x.labels.filter(stays),
  };
}

/** Summed over what nothing else names. */
function summed(x: Named, needed: ReadonlySet<string>): Named {
  const axes = x.labels.flatMap((l, i) => (needed.has(l) ? [] : [i]));
  return { node: g.sum(x.node, axes), labels: x.labels.filter((l) => needed.has(l)) };
}

function contracted(operands: readonly Named[], output: readonly string[]): Named {
  const neededBy = (...others: readonly (readonly string[])[]) =>
    new Set([...output, ...others.flat()]);
  const labels = operands.map((x) => x.labels);
  const alone = operands.map((x, i) => summed(x, neededBy(...labels.toSpliced(i, 1))));
  return alone.reduce((x, y, i) => product(x, y, neededBy(...labels.slice(i + 1))));
}

/** The product of two operands, summed over what both name and nothing later needs. */
function product(x: Named, y: Named, needed: ReadonlySet<string>): Named {
  const both = x.labels.filter((l) => y.labels.includes(l));
  const batch = both.filter((l) => needed.has(l));
  const inner = both.filter((l) => !needed.has(l));
  const rows = x.labels.filter((l) => !both.includes(l));
  const columns = y.labels.filter((l) => !both.includes(l));
  const grouped = (z: Named, ...groups: readonly (readonly string[])[]): Node =>
    g.reshape(
      g.permute(
        z.node,
        groups.flat().map((l) => z.labels.indexOf(l)),
      ),
      groups.map((ls) => numel(sizeIn(z, ls))),
    );
  const shape = [...sizeIn(x, batch), ...sizeIn(x, rows), ...sizeIn(y, columns)];
  const labels = [...batch, ...rows, ...columns];
  // Without a contraction there is nothing to add up, and without rows and columns nothing to reuse: plain products then.
  if (inner.length === 0) {
    const all = g.mul(
      g.reshape(grouped(x, batch, rows), [numel(sizeIn(x, batch)), numel(sizeIn(x, rows)), 1]),
      g.reshape(grouped(y, batch, columns), [
        numel(sizeIn(y, batch)),
        1,
        numel(sizeIn(y, columns)),
      ]),
    );
    return { node: g.reshape(all, shape), labels };
  }
  if (rows.length === 0 && columns.length === 0) {
    const products = g.mul(grouped(x, batch, inner), grouped(y, batch, inner));
    return { node: g.reshape(g.sum(products, [1]), shape), labels };
  }
  const dot = g.dot(grouped(x, batch, rows, inner), grouped(y, batch, inner, columns));
  return { node: g.reshape(dot, shape), labels };
}

/** The axes in the order of the output; those that only broadcast axes of size 1 have size 1. */
function arranged(x: Named, output: readonly string[], sizes: ReadonlyMap<string, number>): Node {
  const present = output.filter((l) => x.labels.includes(l));
  const ordered = g.permute(
    x.node,
    present.map((l) => x.labels.indexOf(l)),
  );
  return g.reshape(
    ordered,
    output.map((l) => sizes.get(l) ?? 1),
  );
}
