/**
 * @file Sorting lines by merging: runs of 1, 2, 4 … elements are merged in workgroup memory, then, for lines that do not
 * fit, in passes over memory. An element's place in the merged run is its own place in its run plus its rank in the other
 * (Satish et al. 2009, "Designing efficient sorting algorithms for manycore GPUs"), so every element moves on its own,
 * equal ones keep their order, and nothing depends on timing.
 */

import type { Node } from "../../graph/node.ts";
import type { Group } from "../../schedule/group.ts";
import {
  type Cond,
  delinearize,
  type Index,
  iadd,
  idiv,
  imin,
  imod,
  imul,
  isub,
  ivar,
  lt,
  num,
} from "../../schedule/symbolic.ts";
import { Evaluator } from "../evaluate.ts";
import { type KernelKind, type Stmt, serial, type Value, variable } from "../ir.ts";
import type { Operand } from "../operand.ts";
import { int, lastKey } from "../sort-keys.ts";
import { bool, indexValue, rank, type Scratch } from "./lines.ts";
import type { Stage } from "./lower.ts";
import { ceilPow2, floorPow2, groupVar, threadVar } from "./stage.ts";
import type { GpuTarget } from "./target.ts";

/** Where sorted element `j` of a line, or the place that it had before, is written. */
export interface Sink {
  readonly node: Node;
  readonly what: "key" | "order";
  readonly at: (line: Index, j: Index) => Index;
}

export interface LineSort {
  readonly group: Group;
  readonly kind: KernelKind;
  readonly lines: number;
  readonly count: number;
  /** Evaluates the key, i32, of element j of a line. */
  readonly ev: Evaluator;
  readonly key: (line: Index, j: Index) => Operand;
  readonly sinks: readonly Sink[];
}

/** Two buffers of keys and of places in workgroup memory. */
const bytesPerElement = 16;
/** Short lines share workgroups of this many elements. */
const usualElements = 512;

export function sortLines(sort: LineSort, scratch: Scratch, target: GpuTarget): Stage[] {
  const most = floorPow2(target.sharedBytes / bytesPerElement);
  const padded = ceilPow2(sort.count);
  if (padded <= most) {
    const elements = Math.max(padded, Math.min(most, usualElements, padded * ceilPow2(sort.lines)));
    return [inWorkgroup(sort, scratch, target, elements, padded, null)];
  }
  const blocks = Math.ceil(sort.count / most);
  const size = sort.lines * blocks * most;
  const runs = (): Runs => ({ keys: scratch.make("i32", size), order: scratch.make("i32", size) });
  let from = runs();
  let to = runs();
  const stages = [inWorkgroup(sort, scratch, target, most, most, from)];
  for (let run = most; run < blocks * most; run *= 2) {
    const last = 2 * run >= blocks * most;
    stages.push(mergePass(sort, scratch, target, run, blocks * most, from, last ? null : to));
    [from, to] = [to, from];
  }
  return stages;
}

interface Runs {
  readonly keys: Node;
  readonly order: Node;
}

/** An element in hand: its number among those that are merged, what it is, and where it came from. */
interface Element {
  readonly at: Index;
  readonly key: Value;
  readonly order: Value;
}

/** The place of an element after its run of `run` elements and the neighbouring one, of which `inside` says what exists,
 *  are merged. */
function merged(
  { at, key }: Pick<Element, "at" | "key">,
  run: number,
  keyAt: (at: Index) => Value,
  inside?: (at: Index) => Cond,
): { stmts: Stmt[]; to: Index } {
  const second = imod(idiv(at, run), 2);
  const within = imod(at, run);
  const pair = isub(isub(at, within), imul(second, run));
  const other = iadd(pair, isub(num(run), imul(second, run)));
  const isSecond = bool("eq", indexValue(second), int(1));
  // Behind an equal element of the first run, before one of the second.
  const before = (probe: Index): Value => {
    const theirs = keyAt(iadd(other, probe));
    return bool("where", isSecond, bool("le", theirs, key), bool("lt", theirs, key));
  };
  const exists = inside && ((probe: Index) => inside(iadd(other, probe)));
  const { stmts, rank: after } = rank("rank", run, before, exists);
  return { stmts, to: iadd(pair, within, after) };
}

/** Sorts runs of `padded` elements, `elements` per workgroup; writes to the sinks, or, of longer lines, runs. */
function inWorkgroup(
  { group, kind, lines, count, ev, key, sinks }: LineSort,
  scratch: Scratch,
  target: GpuTarget,
  elements: number,
  padded: number,
  runs: Runs | null,
): Stage {
  const threads = Math.min(floorPow2(target.invocations), 256, elements);
  const perGroup = elements / padded;
  const blocks = runs ? Math.ceil(count / padded) : 1;
  const groups = runs ? lines * blocks : Math.ceil(lines / perGroup);
  const g = ivar(groupVar, groups);
  const e = iadd(ivar(threadVar, threads), imul(ivar("r", elements / threads), threads));
  const each = (body: readonly Stmt[]): Stmt => serial("r", num(elements / threads), body);
  const lineOf = (at: Index): Index =>
    runs ? idiv(g, blocks) : iadd(imul(g, perGroup), idiv(at, padded));
  const placeOf = (at: Index): Index =>
    runs ? iadd(imul(imod(g, blocks), padded), at) : imod(at, padded);
  const inside = (at: Index): Index[] =>
    [lt(placeOf(at), count), lt(lineOf(at), lines)].filter((x) => x.min < 0);

  const write = (to: number, index: Index, { key: k, order }: Element): Stmt[] => [
    { k: "localStore", local: `keys${to}`, index, value: k },
    { k: "localStore", local: `order${to}`, index, value: order },
  ];
  const read = (local: string, index: Index): Value => ({
    k: "localLoad",
    dtype: "i32",
    local,
    index,
  });
  const found = key(lineOf(e), placeOf(e));
  const order = indexValue(placeOf(e));
  const load: Stmt[] = [...found.stmts, ...write(0, e, { at: e, key: found.value, order })];
  const outside = inside(e);
  const body: Stmt[] = [];
  for (const name of ["keys0", "keys1", "order0", "order1"])
    body.push({ k: "shared", name, dtype: "i32", size: elements });
  // What fills a line up comes last: it has the largest key, and is behind all others.
  body.push(
    each(
      outside.length > 0
        ? [...write(0, e, { at: e, key: lastKey, order }), { k: "if", cond: outside, body: load }]
        : load,
    ),
  );
  let from = 0;
  for (let run = 1; run < padded; run *= 2) {
    const element = { at: e, key: variable("i32", "key"), order: read(`order${from}`, e) };
    const source = `keys${from}`;
    const { stmts, to } = merged(element, run, (at) => read(source, at));
    body.push({ k: "barrier" });
    body.push(
      each([
        { k: "let", name: "key", value: read(source, e) },
        ...stmts,
        ...write(1 - from, to, element),
      ]),
    );
    from = 1 - from;
  }
  body.push({ k: "barrier" });
  const result = { key: read(`keys${from}`, e), order: read(`order${from}`, e) };
  if (runs) {
    const at = iadd(imul(g, padded), e);
    body.push(
      each([
        { k: "store", buffer: ev.buffer(runs.keys, "write"), index: at, value: result.key },
        { k: "store", buffer: ev.buffer(runs.order, "write"), index: at, value: result.order },
      ]),
    );
  } else {
    const stores = sinks.map(
      ({ node, what, at }): Stmt => ({
        k: "store",
        buffer: ev.buffer(node, "write"),
        index: at(lineOf(e), placeOf(e)),
        value: result[what],
      }),
    );
    body.push(each(outside.length > 0 ? [{ k: "if", cond: outside, body: stores }] : stores));
  }
  return scratch.stage(
    group,
    ev,
    kind,
    { groups, threads },
    body,
    lines * count * 2 * Math.log2(2 * padded),
  );
}

/** Merges neighbouring runs of `run` elements of lines of `size`; without `to` these are the last, and go to the sinks. */
function mergePass(
  { group, kind, lines, count, sinks }: LineSort,
  scratch: Scratch,
  target: GpuTarget,
  run: number,
  size: number,
  from: Runs,
  to: Runs | null,
): Stage {
  const ev = new Evaluator(() => true);
  // The largest power of two that divides the line.
  const threads = Math.min(floorPow2(target.invocations), 256, size & -size);
  const perLine = size / threads;
  const [line, block] = delinearize(ivar(groupVar, lines * perLine), [lines, perLine]);
  const at = iadd(imul(block, threads), ivar(threadVar, threads));
  const start = imul(line, size);
  const load = (n: Node, index: Index, mask: Cond = []): Value => ({
    k: "load",
    dtype: "i32",
    buffer: ev.buffer(n, "read"),
    index: iadd(start, index),
    ...(mask.length > 0 ? { mask } : {}),
  });
  const inside = (x: Index): Cond => [lt(x, size)];
  const key = variable("i32", "key");
  const keyAt = (x: Index): Value => load(from.keys, x, inside(x));
  const merging = merged({ at, key }, run, keyAt, inside);
  // No bound that matters: next to a missing run the rank is 0, which the checker cannot know.
  const place = imin(merging.to, num(size - 1));
  const element = { key, order: variable("i32", "order") };
  const store = (n: Node, index: Index, value: Value): Stmt => ({
    k: "store",
    buffer: ev.buffer(n, "write"),
    index,
    value,
  });
  const write: Stmt[] = to
    ? [
        store(to.keys, iadd(start, place), element.key),
        store(to.order, iadd(start, place), element.order),
      ]
    : [
        {
          k: "if",
          cond: [lt(place, count)],
          body: sinks.map((s) => store(s.node, s.at(line, place), element[s.what])),
        },
      ];
  const body: Stmt[] = [
    { k: "let", name: "key", value: load(from.keys, at) },
    { k: "let", name: "order", value: load(from.order, at) },
    ...merging.stmts,
    ...write,
  ];
  const shape = { groups: lines * perLine, threads };
  return scratch.stage(group, ev, kind, shape, body, lines * size * 2 * Math.log2(run));
}
