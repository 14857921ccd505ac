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
  iadd,
  imin,
  ivalue,
  lt,
  num,
} from "../../schedule/symbolic.ts";
import { numel } from "../../shape.ts";
import type { Evaluator } from "../evaluate.ts";
import {
  constValue,
  type KernelKind,
  op,
  type Stmt,
  type Value,
  type ValueOp,
  variable,
} from "../ir.ts";
import { kernelOf } from "../lower.ts";
import { i32, int } from "../sort-keys.ts";
import type { Stage, Temporary } from "./lower.ts";
import { ceilPow2, groupVar, threadVar } from "./stage.ts";

export interface Lines {
  readonly lines: number;
  /** Elements of a line. */
  readonly count: number;
  readonly outer: number;
  readonly inner: number;
  /** The index, in the tensor's axes, of element `j` of line `line`. */
  at(line: Index, j: Index): Index[];
}

/** The lines of `shape` along `axis`; line number = outer · inner extent + inner. */
export function linesOf(shape: readonly number[], axis: number): Lines {
  const [before, after] = [shape.slice(0, axis), shape.slice(axis + 1)];
  const [outer, inner] = [numel(before), numel(after)];
  return {
    lines: outer * inner,
    count: shape[axis],
    outer,
    inner,
    at(line, j) {
      const [o, i] = delinearize(line, [outer, inner]);
      return [...delinearize(o, before), j, ...delinearize(i, after)];
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
export const serial = (name: string, extent: Index, body: readonly Stmt[]): Stmt => ({
  k: "loop",
  mode: "serial",
  var: name,
  extent,
  body,
});

/**
 * How many of the `length` ascending elements come before some value, by bisection; a position 0 … length. `before(probe)`
 * says whether element `probe` does; what `inside(probe)` denies does not, whatever `before` says.
 */
export function rank(
  name: string,
  length: number,
  before: (probe: Index) => Value,
  inside: (probe: Index) => Cond = () => [],
): { stmts: Stmt[]; rank: Index } {
  const sum = `${name}sum`;
  const stmts: Stmt[] = [{ k: "acc", name: sum, dtype: "i32", combine: "sum" }];
  const known = (suffix: string): Index => {
    const at = `${name}${suffix}`;
    const value = variable("i32", sum);
    stmts.push({ k: "position", name: at, value, size: length + 1, known: true });
    return ivalue(at, length + 1);
  };
  for (let step = ceilPow2(length + 1) / 2; step >= 1; step /= 2) {
    const probe = iadd(known(`at${step}`), num(step - 1));
    const safe = imin(probe, num(length - 1));
    const cond = [lt(probe, length), ...inside(safe)].filter((x) => x.min < 0);
    const a = before(safe);
    const found: Value = { k: "select", dtype: "bool", cond, a, b: constValue("bool", 0) };
    const value = i32("where", cond.length > 0 ? found : a, int(step), int(0));
    stmts.push({ k: "update", name: sum, value });
  }
  return { stmts, rank: known("") };
}
