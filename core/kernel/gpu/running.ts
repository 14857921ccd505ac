/**
 * @file Running combinations (cumsum and its like) on a GPU. Many lines: one invocation walks each. Else a workgroup per
 * line takes it chunk by chunk: four elements per invocation, combined over the invocations by doubling steps (Hillis &
 * Steele 1986) in workgroup memory, and what came before the chunk carried on. Few long lines are cut into segments: the
 * segments' totals, their running combination, and then each segment on top of it (Sengupta et al. 2007, "Scan primitives
 * for GPU computing"). The cuts follow from the shape, so the bits do not depend on timing.
 */
import type { Node } from "../../graph/node.ts";
import type { Group } from "../../schedule/group.ts";
import {
  delinearize,
  type Index,
  iadd,
  imin,
  imul,
  isub,
  ivar,
  linearize,
  lt,
  num,
} from "../../schedule/symbolic.ts";
import { Evaluator } from "../evaluate.ts";
import { narrow, op, type Stmt, serial, type Value, variable, wideType } from "../ir.ts";
import type { Operand } from "../operand.ts";
import { operation } from "../running.ts";
import { operand } from "../templates.ts";
import { type NumberedLines, numberedLines, Scratch } from "./lines.ts";
import type { GpuLowered, Stage } from "./lower.ts";
import { allReduce } from "./reduction.ts";
import { floorPow2, groupVar, guarded, threadVar, workgroupSize } from "./stage.ts";
import type { GpuTarget } from "./target.ts";

/** Elements of a chunk per invocation. */
const perInvocation = 4;
/** From so many lines on, or up to such short ones, an invocation walks a line alone. */
const manyLines = 4096;
const shortLine = 32;
/** Lines are cut where fewer than `wantedGroups` would be at work, into segments of at least so many elements. */
const wantedGroups = 128;
const leastSegment = 8192;
/** A walked float sum is rounded block by block, so that errors grow with the number of blocks only. */
const blockLength = 128;

type Running = Node<"cumulative">;

interface Scan {
  readonly group: Group;
  readonly n: Running;
  readonly lines: NumberedLines;
  readonly target: GpuTarget;
  readonly scratch: Scratch;
}

export function lowerRunning(
  group: Group,
  inMemory: (n: Node) => boolean,
  target: GpuTarget,
): GpuLowered {
  const [n] = group.members.keys() as IterableIterator<Running>;
  const lines = numberedLines(n.shape, n.attrs.axis);
  const scan: Scan = { group, n, lines, target, scratch: new Scratch() };
  const overwritable = () => false;
  if (lines.lines >= manyLines || lines.count <= shortLine)
    return { stages: [walk(scan, inMemory)], overwritable };

  const possible = Math.floor(lines.count / leastSegment);
  const wanted = Math.ceil(wantedGroups / lines.lines);
  const segments = Math.max(1, Math.min(possible, wanted));
  if (segments === 1) return { stages: [chunks(scan, inMemory, 1, null)], overwritable };
  const totals = scan.scratch.make(wideType(n.dtype), lines.lines * segments);
  const before = scan.scratch.make(wideType(n.dtype), lines.lines * segments);
  return {
    stages: [
      segmentTotals(scan, inMemory, segments, totals),
      scanTotals(scan, segments, totals, before),
      chunks(scan, inMemory, segments, before),
    ],
    overwritable,
  };
}

/** Step j of a line is its element j, or counted from the end. */
const elementAt = ({ n, lines }: Scan, j: Index): Index =>
  n.attrs.reverse ? isub(num(lines.count - 1), j) : j;

const sourceAt = (scan: Scan, ev: Evaluator, line: Index, j: Index): Operand =>
  operand(ev, scan.n.src[0], scan.lines.at(line, elementAt(scan, j)));

function store(scan: Scan, ev: Evaluator, line: Index, j: Index, value: Value): Stmt {
  const { n, lines } = scan;
  const index = linearize(lines.at(line, elementAt(scan, j)), n.shape);
  return { k: "store", buffer: ev.buffer(n, "write"), index, value: narrow(value, n.dtype) };
}

const accumulator = ({ n }: Scan, name: string): Stmt => ({
  k: "acc",
  name,
  dtype: wideType(n.dtype),
  combine: n.attrs.combine,
});
const running = ({ n }: Scan, name: string): Value => variable(wideType(n.dtype), name);
const update = (name: string, value: Value): Stmt => ({ k: "update", name, value });
const combined = ({ n }: Scan, a: Value, b: Value): Value =>
  op(operation[n.attrs.combine], wideType(n.dtype), a, b);

/** One invocation per line. */
function walk(scan: Scan, inMemory: (n: Node) => boolean): Stage {
  const { lines, target } = scan;
  const ev = new Evaluator(inMemory);
  const threads = workgroupSize(lines.lines, target);
  const groups = Math.ceil(lines.lines / threads);
  const line = iadd(imul(ivar(groupVar, groups), threads), ivar(threadVar, threads));
  const step = (j: Index): Stmt[] => {
    const { stmts, value } = sourceAt(scan, ev, line, j);
    const total = combined(scan, running(scan, "past"), running(scan, "run"));
    return [...stmts, update("run", value), store(scan, ev, line, j, total)];
  };
  const blocks = Math.ceil(lines.count / blockLength);
  const begin = imul(ivar("block", blocks), blockLength);
  const extent = imin(num(blockLength), isub(num(lines.count), begin));
  const body = [
    accumulator(scan, "past"),
    serial("block", num(blocks), [
      accumulator(scan, "run"),
      serial("step", extent, step(iadd(begin, ivar("step", Math.min(blockLength, lines.count))))),
      update("past", running(scan, "run")),
    ]),
  ];
  return finish(scan, ev, { groups, threads }, guarded([lt(line, lines.lines)], body));
}

/** A workgroup per segment of each line; `before` holds what came before each segment, but for the first. */
function chunks(
  scan: Scan,
  inMemory: (n: Node) => boolean,
  segments: number,
  before: Node | null,
): Stage {
  const { lines, target } = scan;
  const ev = new Evaluator(inMemory);
  const { line, segment, begin, length, groups } = segmentsOf(lines, segments);
  const threads = threadsFor(length.max, target);
  const t = ivar(threadVar, threads);
  const perChunk = threads * perInvocation;
  const count = Math.ceil(length.max / perChunk);
  const chunk = imul(ivar("chunk", count), perChunk);
  const places = Array.from({ length: perInvocation }, (_, v) =>
    iadd(chunk, imul(t, perInvocation), num(v)),
  );
  const inside = (at: Index, body: readonly Stmt[]): readonly Stmt[] =>
    guarded([isub(isub(length, at), num(1))], body);
  const own: Stmt[] = places.flatMap((at, v) => {
    const { stmts, value } = sourceAt(scan, ev, line, iadd(begin, at));
    return [
      accumulator(scan, `own${v}`),
      ...(v > 0 ? [update(`own${v}`, running(scan, `own${v - 1}`))] : []),
      ...inside(at, [...stmts, update(`own${v}`, value)]),
    ];
  });
  const {
    stmts: across,
    shared,
    last,
  } = acrossInvocations(scan, threads, `own${perInvocation - 1}`);
  const read = (index: Index): Value => ({
    k: "localLoad",
    dtype: wideType(scan.n.dtype),
    local: last,
    index,
  });
  const body: Stmt[] = [...shared, accumulator(scan, "past")];
  if (before) {
    const value: Value = {
      k: "load",
      dtype: before.dtype,
      buffer: ev.buffer(before, "read"),
      index: isub(iadd(imul(line, segments), segment), num(1)),
    };
    body.push({ k: "if", cond: [isub(segment, num(1))], body: [update("past", value)] });
  }
  body.push(
    serial("chunk", num(count), [
      ...own,
      ...across,
      accumulator(scan, "base"),
      update("base", running(scan, "past")),
      ...guarded([isub(t, num(1))], [update("base", read(isub(t, num(1))))]),
      ...places.flatMap((at, v) => {
        const total = combined(scan, running(scan, "base"), running(scan, `own${v}`));
        return inside(at, [store(scan, ev, line, iadd(begin, at), total)]);
      }),
      update("past", read(num(threads - 1))),
      { k: "barrier" },
    ]),
  );
  return finish(scan, ev, { groups, threads }, body);
}

/** Combines `name` over the invocations before and with each; shared[last][t] holds it. */
function acrossInvocations(
  scan: Scan,
  threads: number,
  name: string,
): { shared: Stmt[]; stmts: Stmt[]; last: string } {
  const dtype = wideType(scan.n.dtype);
  const t = ivar(threadVar, threads);
  const read = (local: string, index: Index): Value => ({ k: "localLoad", dtype, local, index });
  const write = (local: string, value: Value): Stmt => ({
    k: "localStore",
    local,
    index: t,
    value,
  });
  const stmts: Stmt[] = [write("scan0", running(scan, name)), { k: "barrier" }];
  let from = 0;
  for (let step = 1; step < threads; step *= 2) {
    const [source, to] = [`scan${from}`, `scan${1 - from}`];
    const both = combined(scan, read(source, isub(t, num(step))), read(source, t));
    stmts.push(write(to, read(source, t)), {
      k: "if",
      cond: [isub(t, num(step))],
      body: [write(to, both)],
    });
    stmts.push({ k: "barrier" });
    from = 1 - from;
  }
  const shared = ["scan0", "scan1"].map(
    (local): Stmt => ({ k: "shared", name: local, dtype, size: threads }),
  );
  return { shared, stmts, last: `scan${from}` };
}

/** Each segment's elements combined. */
function segmentTotals(
  scan: Scan,
  inMemory: (n: Node) => boolean,
  segments: number,
  totals: Node,
): Stage {
  const { lines, target } = scan;
  const ev = new Evaluator(inMemory);
  const { line, segment, begin, length, groups } = segmentsOf(lines, segments);
  const threads = threadsFor(length.max, target);
  const t = ivar(threadVar, threads);
  const passes = Math.ceil(length.max / threads);
  const at = iadd(imul(ivar("pass", passes), threads), t);
  const { stmts, value } = sourceAt(scan, ev, line, iadd(begin, at));
  const index = iadd(imul(line, segments), segment);
  const total = running(scan, "total");
  const body: Stmt[] = [
    accumulator(scan, "total"),
    serial(
      "pass",
      num(passes),
      guarded([isub(isub(length, at), num(1))], [...stmts, update("total", value)]),
    ),
    allReduce("total", threads, target),
    ...guarded(
      [isub(num(0), t)],
      [{ k: "store", buffer: ev.buffer(totals, "write"), index, value: total }],
    ),
  ];
  return finish(scan, ev, { groups, threads }, body);
}

/** before[line][s] = the totals up to segment s combined; there are few. */
function scanTotals(scan: Scan, segments: number, totals: Node, before: Node): Stage {
  const { lines, target } = scan;
  const ev = new Evaluator(() => true);
  const threads = workgroupSize(lines.lines, target);
  const groups = Math.ceil(lines.lines / threads);
  const line = iadd(imul(ivar(groupVar, groups), threads), ivar(threadVar, threads));
  const index = iadd(imul(line, segments), ivar("segment", segments));
  const value: Value = { k: "load", dtype: totals.dtype, buffer: ev.buffer(totals, "read"), index };
  const body: Stmt[] = [
    accumulator(scan, "total"),
    serial("segment", num(segments), [
      update("total", value),
      { k: "store", buffer: ev.buffer(before, "write"), index, value: running(scan, "total") },
    ]),
  ];
  return finish(scan, ev, { groups, threads }, guarded([lt(line, lines.lines)], body));
}

/** Segments of equal length, but for the last; one per workgroup. */
function segmentsOf(lines: NumberedLines, segments: number) {
  const groups = lines.lines * segments;
  const [line, segment] = delinearize(ivar(groupVar, groups), [lines.lines, segments]);
  const most = Math.ceil(lines.count / segments);
  const begin = imul(segment, most);
  const length = imin(num(most), isub(num(lines.count), begin));
  return { line, segment, begin, length, groups };
}

const threadsFor = (length: number, target: GpuTarget): number => {
  const most = floorPow2(Math.min(256, target.invocations));
  return Math.max(1, Math.min(most, floorPow2(2 * Math.ceil(length / perInvocation) - 1)));
};

function finish(
  { group, lines, scratch }: Scan,
  ev: Evaluator,
  shape: { groups: number; threads: number },
  body: readonly Stmt[],
): Stage {
  const flops = lines.lines * lines.count;
  return scratch.stage(group, ev, "scan", shape, body, flops);
}
