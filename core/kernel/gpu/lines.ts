/**
 * @file What the GPU schedules of sorting, running combinations and scatter-add share: the lines of a tensor along an axis,
 * stages whose temporaries are placeholders to the evaluator, and the rank of a value in a sorted line.
 */

import type { DType } from "../../dtype.ts";
import type { Node } from "../../graph/node.ts";
import { placeholder } from "../../graph/primitives.ts";
import type { Group } from "../../schedule/group.ts";
import {
  type Cond,
  delinearize,
  type Index,
  isub,
  ivalue,
  ivar,
  num,
} from "../../schedule/symbolic.ts";
import type { Evaluator } from "../evaluate.ts";
import {
  constValue,
  type KernelKind,
  op,
  type Stmt,
  serial,
  type Value,
  type ValueOp,
} from "../ir.ts";
import { linesOf } from "../lines.ts";
import { kernelOf } from "../lower.ts";
import { bind, i32, int, named } from "../sort-keys.ts";
import type { Stage, Temporary } from "./lower.ts";
import { ceilPow2, groupVar, threadVar } from "./stage.ts";

export interface NumberedLines {
  readonly lines: number;
  /** Elements of a line. */
  readonly count: number;
  /** The index, in the tensor's axes, of element `j` of line `line`. */
  at(line: Index, j: Index): Index[];
}

/** The lines of `shape` along `axis`; line number = outer · inner extent + inner. */
export function numberedLines(shape: readonly number[], axis: number): NumberedLines {
  const { outer, count, inner, at } = linesOf(shape, axis);
  return {
    lines: outer * inner,
    count,
    at(line, j) {
      const [o, i] = delinearize(line, [outer, inner]);
      return at(o, j, i);
    },
  };
}

/** Values that stages hand to each other. */
export class Scratch {
  readonly #temporaries = new Map<Node, Temporary>();

  /** A temporary, as the node that an evaluator knows it by. */
  make(dtype: DType, size: number): Node {
    const n = placeholder(dtype, [size], null);
    this.#temporaries.set(n, { dtype, size });
    return n;
  }

  stage(
    group: Group,
    ev: Evaluator,
    kind: KernelKind,
    shape: { readonly groups: number; readonly threads: number },
    body: readonly Stmt[],
    flops: number,
  ): Stage {
    const kernel = kernelOf(group, ev, {
      kind,
      range: { var: groupVar, extent: shape.groups },
      threads: { var: threadVar, extent: shape.threads },
      body,
      flops,
    });
    const buffers = ev.nodes.map((n) => this.#temporaries.get(n) ?? n);
    return { kernel, buffers, randoms: ev.randoms };
  }
}

export const bool = (name: ValueOp, ...args: Value[]): Value => op(name, "bool", ...args);
export const indexValue = (index: Index): Value => ({ k: "index", dtype: "i32", index });

/**
 * How many of the `length` ascending elements come before some value, by bisection; a position 0 … length. `before(probe)`
 * says whether element `probe` does; what `inside(probe)` denies does not, whatever `before` says. A loop, as unrolled steps
 * of many merges take drivers seconds to compile.
 */
export function rank(
  name: string,
  length: number,
  before: (probe: Index) => Value,
  inside: (probe: Index) => Cond = () => [],
): { stmts: Stmt[]; rank: Index } {
  const steps = Math.log2(ceilPow2(length + 1));
  const [sum, step, wanted, at] = ["sum", "step", "wanted", "at"].map((part) => `${name}_${part}`);
  const probe = ivalue(at, length);
  const cond = inside(probe).filter((x) => x.min < 0);
  const found = before(probe);
  const exists: Value =
    cond.length > 0
      ? { k: "select", dtype: "bool", cond, a: found, b: constValue("bool", 0) }
      : found;
  const taken = bool("and", exists, bool("lt", named(wanted), int(length)));
  const left = indexValue(isub(num(steps - 1), ivar(`${name}_i`, steps)));
  const stmts: Stmt[] = [
    { k: "acc", name: sum, dtype: "i32", combine: "sum" },
    serial(`${name}_i`, num(steps), [
      bind(step, i32("shl", int(1), left)),
      bind(wanted, i32("sub", i32("add", named(sum), named(step)), int(1))),
      {
        k: "position",
        name: at,
        value: i32("min", named(wanted), int(length - 1)),
        size: length,
        known: true,
      },
      { k: "update", name: sum, value: i32("where", taken, named(step), int(0)) },
    ]),
    { k: "position", name, value: named(sum), size: length + 1, known: true },
  ];
  return { stmts, rank: ivalue(name, length + 1) };
}
