/**
 * @file Scatter-add on a GPU, without atomics on floats: out[o, p, i] is the sum of src(o, j, i) over the j with index(o, j, i)
 * = p, in the order of j. The indices are sorted first (stably, so the order stays); each result then finds its sources
 * as one stretch of the sorted line and adds them up alone, so the bits do not depend on timing. Few indices are just all
 * looked at.
 */
import type { Node } from "../../graph/node.ts";
import type { Group } from "../../schedule/group.ts";
import {
  affineIn,
  delinearize,
  type Index,
  iadd,
  imin,
  imul,
  ivalue,
  ivar,
  linearize,
  lt,
  num,
} from "../../schedule/symbolic.ts";
import { numel } from "../../shape.ts";
import { Evaluator } from "../evaluate.ts";
import { constValue, narrow, type Stmt, serial, type Value, variable, wideType } from "../ir.ts";
import { i32 } from "../sort-keys.ts";
import { operand } from "../templates.ts";
import { bool, indexValue, numberedLines, rank, Scratch } from "./lines.ts";
import type { GpuLowered, Stage } from "./lower.ts";
import { sortLines } from "./merge.ts";
import { groupVar, guarded, threadVar, workgroupSize } from "./stage.ts";
import type { GpuTarget } from "./target.ts";

/** Up to this many indices each result looks at all of them. */
const few = 32;

export function lowerScatter(
  group: Group,
  inMemory: (n: Node) => boolean,
  target: GpuTarget,
): GpuLowered {
  const [n] = group.members.keys() as IterableIterator<Node<"scatterAdd">>;
  const [where, source] = n.src;
  const { axis, size } = n.attrs;
  // An index that was expanded (an embedding's: one row for all features) is sorted once.
  const varies = axesOf(where, inMemory);
  const indexShape = where.shape.map((d, i) => (i === axis || varies[i] ? d : 1));
  const indices = numberedLines(indexShape, axis);
  const { count } = indices;
  const scratch = new Scratch();
  const stages: Stage[] = [];

  const ev = new Evaluator(inMemory);
  const out = ev.buffer(n, "write");
  const threads = workgroupSize(numel(n.shape), target);
  const groups = Math.ceil(numel(n.shape) / threads);
  const me = iadd(imul(ivar(groupVar, groups), threads), ivar(threadVar, threads));
  const at = delinearize(imin(me, num(numel(n.shape) - 1)), n.shape);
  const position = at[axis];
  const withRow = (j: Index): Index[] => at.map((x, i) => (i === axis ? j : x));
  const sum = variable(wideType(n.dtype), "sum");
  const add = (j: Index): Stmt[] => {
    const { stmts, value } = operand(ev, source, withRow(j));
    return [...stmts, { k: "update", name: "sum", value }];
  };

  let gather: Stmt[];
  if (count <= few) {
    const j = ivar("from", count);
    const { stmts, value } = operand(ev, where, withRow(j));
    const found = operand(ev, source, withRow(j));
    const mine = bool("eq", indexValue(ivalue("at", size)), indexValue(position));
    const zero = constValue(found.value.dtype, 0);
    const chosen: Value = {
      k: "op",
      dtype: zero.dtype,
      op: "where",
      args: [mine, found.value, zero],
    };
    gather = [
      serial("from", num(count), [
        ...stmts,
        { k: "position", name: "at", value, size },
        ...found.stmts,
        { k: "update", name: "sum", value: chosen },
      ]),
    ];
  } else {
    const keys = scratch.make("i32", indices.lines * count);
    const order = scratch.make("i32", indices.lines * count);
    const place = (line: Index, j: Index): Index => iadd(imul(line, count), j);
    const sorting = new Evaluator(inMemory);
    stages.push(
      ...sortLines(
        {
          group,
          kind: "scatter",
          lines: indices.lines,
          count,
          ev: sorting,
          key: (line, j) => {
            const { stmts, value } = operand(sorting, where, indices.at(line, j));
            const checked: Stmt = { k: "position", name: "at", value, size };
            return { stmts: [...stmts, checked], value: indexValue(ivalue("at", size)) };
          },
          sinks: [
            { node: keys, what: "key", at: place },
            { node: order, what: "order", at: place },
          ],
        },
        scratch,
        target,
      ),
    );
    const rest = indexShape.map((d, i) => (i === axis ? 1 : d));
    const outside = at.map((x, i) => (rest[i] === 1 ? num(0) : x));
    const start = imul(linearize(outside, rest), count);
    const load = (buffer: Node, index: Index, mask: readonly Index[] = []): Value => ({
      k: "load",
      dtype: "i32",
      buffer: ev.buffer(buffer, "read"),
      index: iadd(start, index),
      ...(mask.length > 0 ? { mask } : {}),
    });
    const first = rank("first", count, (probe) =>
      bool("lt", load(keys, probe), indexValue(position)),
    );
    const end = rank("end", count, (probe) => bool("le", load(keys, probe), indexValue(position)));
    const length: Value = i32("sub", indexValue(end.rank), indexValue(first.rank));
    const from = iadd(first.rank, ivar("from", count));
    gather = [
      ...first.stmts,
      ...end.stmts,
      { k: "position", name: "length", value: length, size: count + 1, known: true },
      serial("from", ivalue("length", count + 1), [
        {
          k: "position",
          name: "at",
          value: load(order, imin(from, num(count - 1))),
          size: count,
          known: true,
        },
        ...add(ivalue("at", count)),
      ]),
    ];
  }
  const body: Stmt[] = [
    { k: "acc", name: "sum", dtype: sum.dtype, combine: "sum" },
    ...gather,
    {
      k: "store",
      buffer: out,
      index: linearize(at, n.shape),
      value: narrow(sum, n.dtype),
    },
  ];
  const mine = [lt(me, numel(n.shape))];
  const shape = { groups, threads };
  const flops = numel(source.shape);
  stages.push(scratch.stage(group, ev, "scatter", shape, guarded(mine, body), flops));
  return { stages, overwritable: () => false };
}

/** Along which axes the values of `n` differ. */
function axesOf(n: Node, inMemory: (n: Node) => boolean): boolean[] {
  const ev = new Evaluator(inMemory);
  operand(
    ev,
    n,
    n.shape.map((d, i) => ivar(`x${i}`, d)),
  );
  const seen = [...ev.accesses.map((a) => a.index), ...ev.masks];
  return n.shape.map((_, i) => seen.some((x) => affineIn(x, `x${i}`) !== 0));
}
