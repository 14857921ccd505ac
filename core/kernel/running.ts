/**
 * @file Running combinations as a kernel: out[o, j, i] combines src[o, 0 … j, i].
 *
 * Lines are owned: a task walks some lines from one end to the other, so the order, hence the bits, does not depend on
 * threads. Along a wide inner axis the lanes are neighbouring lines and memory is read and written in its order, row by
 * row, with what each line has so far in scratch. Else a few lines are walked side by side in registers, since each is one
 * long chain of dependent operations. Sums of floats run in blocks, and a block's sum is added to that of the blocks
 * before it: rounding errors then grow with the number of blocks, not with that of the elements.
 */
import { type DType, isFloat } from "../dtype.ts";
import type { Running } from "../graph/primitives.ts";
import {
  delinearize,
  type Index,
  iadd,
  imin,
  imul,
  isub,
  ivar,
  lt,
  num,
} from "../schedule/symbolic.ts";
import {
  constValue,
  type Kernel,
  narrow,
  op,
  type Stmt,
  serial,
  type Value,
  variable,
  vector,
} from "./ir.ts";
import type { LineSpec } from "./lines.ts";

export interface RunningSpec extends LineSpec {
  readonly combine: Running;
  readonly reverse: boolean;
  /** What is combined, and what the result is stored as. */
  readonly dtype: DType;
  readonly outDType: DType;
}

/** Neighbouring lines of a task: 4 KB rows, so that memory streams, and scratch that stays in the nearest cache. */
const width = 1024;
/** Lines walked side by side otherwise. */
const together = 4;
/** Elements that are summed before the sum is added to that of what came before. */
const blockLength = 128;

export function runningKernel(spec: RunningSpec): Kernel {
  const { outer, count, inner } = spec;
  const { extent, body } = inner >= 4 ? rows(spec) : lines(spec);
  return {
    name: "scan",
    kind: "scan",
    buffers: spec.buffers,
    scalars: spec.scalars,
    range: { var: "task", extent },
    body,
    flops: outer * count * inner,
  };
}

/** Step j of a line is its element `at`. */
const elementAt = ({ reverse, count }: RunningSpec, j: Index): Index =>
  reverse ? isub(num(count - 1), j) : j;

interface Blocks {
  readonly count: number;
  /** The first step of block `block`, and how many it has. */
  readonly begin: Index;
  readonly extent: Index;
}

/** How a line is cut into blocks; null if it is combined as a whole. */
function blocksOf({ combine, dtype, count }: RunningSpec): Blocks | null {
  if (combine !== "sum" || !isFloat(dtype) || count <= blockLength) return null;
  const blocks = Math.ceil(count / blockLength);
  const begin = imul(ivar("block", blocks), blockLength);
  return { count: blocks, begin, extent: imin(num(blockLength), isub(num(count), begin)) };
}

export const operation = { sum: "add", prod: "mul", max: "max", min: "min" } as const;

function rows(spec: RunningSpec): { extent: number; body: Stmt[] } {
  const { outer, count, inner, dtype } = spec;
  const tasks = Math.ceil(inner / width);
  const [o, task] = delinearize(ivar("task", outer * tasks), [outer, tasks]);
  const first = imul(task, width);
  const extent = imin(num(Math.min(width, inner)), isub(num(inner), first));
  const lane = ivar("lane", extent.max);
  const i = iadd(first, lane);
  const blocks = blocksOf(spec);

  const read = (local: string): Value => ({ k: "localLoad", dtype, local, index: lane });
  const write = (local: string, value: Value): Stmt => ({
    k: "localStore",
    local,
    index: lane,
    value,
  });
  const lanes = (body: readonly Stmt[]): Stmt => vector("lane", extent, body);
  /** One step of all lines; what they combined so far is in `run`, unless they start here. */
  const row = (j: Index, starts: boolean): Stmt => {
    const at = elementAt(spec, j);
    const { stmts, value } = spec.src(o, at, i);
    const next = variable(dtype, "next");
    const combined = starts ? value : op(operation[spec.combine], dtype, read("run"), value);
    const total = blocks ? op("add", dtype, read("past"), next) : next;
    return lanes([
      ...stmts,
      { k: "let", name: "next", value: combined },
      write("run", next),
      {
        k: "store",
        buffer: spec.outBuffer,
        index: spec.out(o, at, i),
        value: narrow(total, spec.outDType),
      },
    ]);
  };
  const local = (name: string): Stmt => ({ k: "local", name, dtype, size: extent.max });
  const later = (begin: Index, n: Index): Stmt => {
    const steps = isub(n, num(1));
    const step = ivar("step", Math.max(1, steps.max));
    return serial("step", steps, [row(iadd(begin, iadd(step, num(1))), false)]);
  };
  const body = !blocks
    ? [local("run"), row(num(0), true), later(num(0), num(count))]
    : [
        local("run"),
        local("past"),
        lanes([write("past", constValue(dtype, 0))]),
        serial("block", num(blocks.count), [
          row(blocks.begin, true),
          later(blocks.begin, blocks.extent),
          lanes([write("past", op("add", dtype, read("past"), read("run")))]),
        ]),
      ];
  return { extent: outer * tasks, body };
}

/** A line's place, and what the names of its accumulators end in. */
interface Line {
  readonly o: Index;
  readonly i: Index;
  readonly name: string;
}

function lines(spec: RunningSpec): { extent: number; body: Stmt[] } {
  const all = spec.outer * spec.inner;
  const extent = Math.ceil(all / together);
  const first = imul(ivar("task", extent), together);
  const line = (at: Index, name: string): Line => {
    const [o, i] = delinearize(at, [spec.outer, spec.inner]);
    return { o, i, name };
  };
  const rest = all % together;
  const group = (): Stmt[] => {
    const places = Array.from({ length: together }, (_, r) => iadd(first, num(r)));
    return walk(
      spec,
      places.map((at, r) => line(at, `_${r}`)),
    );
  };
  if (rest === 0) return { extent, body: group() };
  // The lines that make no full group are walked one by one, by the last task.
  const at = iadd(num(all - rest), ivar("rest", rest));
  const single = serial("rest", num(rest), walk(spec, [line(at, "")]));
  if (extent === 1) return { extent, body: [single] };
  return {
    extent,
    body: [
      { k: "if", cond: [lt(first, all - rest)], body: group() },
      { k: "if", cond: [isub(first, num(all - rest))], body: [single] },
    ],
  };
}

function walk(spec: RunningSpec, lines: readonly Line[]): Stmt[] {
  const { count, combine, dtype } = spec;
  const declare = (prefix: string): Stmt[] =>
    lines.map(({ name }) => ({ k: "acc", name: prefix + name, dtype, combine }));
  const step = (j: Index, result: (line: Line) => Value): Stmt[] => {
    const at = elementAt(spec, j);
    return lines.flatMap((line): Stmt[] => {
      const { stmts, value } = spec.src(line.o, at, line.i);
      const index = spec.out(line.o, at, line.i);
      return [
        ...stmts,
        { k: "update", name: `run${line.name}`, value },
        { k: "store", buffer: spec.outBuffer, index, value: narrow(result(line), spec.outDType) },
      ];
    });
  };
  const run = ({ name }: Line): Value => variable(dtype, `run${name}`);
  const blocks = blocksOf(spec);
  if (!blocks)
    return [...declare("run"), serial("step", num(count), step(ivar("step", count), run))];
  const past = ({ name }: Line): Value => variable(dtype, `past${name}`);
  const total = (line: Line): Value => op("add", dtype, past(line), run(line));
  return [
    ...declare("past"),
    serial("block", num(blocks.count), [
      ...declare("run"),
      serial("step", blocks.extent, step(iadd(blocks.begin, ivar("step", blockLength)), total)),
      ...lines.map((line): Stmt => ({ k: "update", name: `past${line.name}`, value: run(line) })),
    ]),
  ];
}
