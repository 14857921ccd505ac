/**
 * @file Scatter-add as a kernel: out[o, :, i] = 0, then out[o, index(o, j, i), i] += src(o, j, i) for j in order.
 *
 * Elements are owned: a task has all positions of some columns (o, i) to itself, so nothing is shared, no atomics are
 * needed, and the sums have the same order, hence the same bits, at every thread count. Lanes run along the inner
 * axis; where there is none, each `o` is served serially. The caller says what index and source are.
 */
import type { DType } from "../dtype.ts";
import {
  delinearize,
  type Index,
  iadd,
  imin,
  imul,
  isub,
  ivalue,
  ivar,
  num,
} from "../schedule/symbolic.ts";
import { constValue, type Kernel, type Stmt, serial, type Value, vector } from "./ir.ts";
import type { LineSpec } from "./lines.ts";
import { type Operand, operand } from "./operand.ts";

export interface ScatterAddSpec extends Omit<LineSpec, "src"> {
  readonly name: string;
  /** Extent of the output along the scattered axis; `count` is that of the index and the source. */
  readonly size: number;
  readonly dtype: DType;
  /** The position of a source element, i32. */
  readonly index: (o: Index, j: Index, i: Index) => Value | Operand;
  /** Does the index vary along the inner axis? */
  readonly indexInner: boolean;
  readonly src: (o: Index, j: Index, i: Index) => Value | Operand;
}

/** Columns of a task: no fewer than a cache line of f32, and few enough that wide rows make several tasks. */
const minWidth = 16;
const maxWidth = 64;
const wantedTasks = 16;

export function scatterAddKernel(spec: ScatterAddSpec): Kernel {
  const { outer, size, count, inner, dtype, outBuffer } = spec;
  const share =
    Math.ceil(inner / Math.max(1, Math.ceil(wantedTasks / outer)) / minWidth) * minWidth;
  const width = Math.min(inner, Math.max(minWidth, Math.min(maxWidth, share)));
  const blocks = Math.ceil(inner / width);
  const [o, block] = delinearize(ivar("task", outer * blocks), [outer, blocks]);
  const first = imul(block, width);
  const extent = imin(num(width), isub(num(inner), first));
  const lane = ivar("lane", extent.max);
  const i = iadd(first, lane);
  const lanes = (body: readonly Stmt[]): Stmt => vector("lane", extent, body, 2);
  const zero = (p: Index, at: Index): Stmt => ({
    k: "store",
    buffer: outBuffer,
    index: spec.out(o, p, at),
    value: constValue(dtype, 0),
  });

  const j = ivar("from", count);
  const position = (at: Index): Stmt[] => {
    const { stmts, value } = operand(spec.index(o, j, at));
    return [...stmts, { k: "position", name: "position", value, size }];
  };
  const add = (at: Index): Stmt[] => {
    const { stmts, value } = operand(spec.src(o, j, at));
    const index = spec.out(o, ivalue("position", size), at);
    return [...stmts, { k: "storeAdd", buffer: outBuffer, index, value }];
  };

  const p = ivar("row", size);
  let body: Stmt[];
  if (inner === 1) {
    const clear = vector("row", num(size), [zero(p, num(0))], 2);
    body = [clear, serial("from", num(count), [...position(num(0)), ...add(num(0))])];
  } else {
    const clear = serial("row", num(size), [lanes([zero(p, i)])]);
    const scatter = spec.indexInner
      ? [lanes([...position(i), ...add(i)])]
      : [...position(num(0)), lanes(add(i))];
    body = [clear, serial("from", num(count), scatter)];
  }
  return {
    name: spec.name,
    kind: "scatter",
    buffers: spec.buffers,
    scalars: spec.scalars,
    range: { var: "task", extent: outer * blocks },
    body,
    flops: outer * count * inner,
  };
}
