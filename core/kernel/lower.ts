/**
 * @file Schedules a group as loops for a CPU: maps, and rows of several reductions. (matmul and scatter: templates.ts.)
 *
 * The group is evaluated twice: once without a schedule, to see its addresses and from them which axes to split and merge
 * and where the lanes run; then into the chosen nest. A row's reductions run in phases: a phase is one pass over the
 * reduced axes, and whatever needs the result of an earlier reduction belongs to a later phase.
 */
import { isFloat } from "../dtype.ts";
import type { Node } from "../graph/node.ts";
import { rules } from "../graph/primitives.ts";
import { beneath } from "../schedule/access.ts";
import { type Group, mapOf, spaceVars, weightOf } from "../schedule/fuse.ts";
import {
  affineIn,
  freeVars,
  type Index,
  iadd,
  imin,
  imul,
  isub,
  ivar,
  num,
  substitute,
} from "../schedule/symbolic.ts";
import { numel } from "../shape.ts";
import { Evaluator } from "./evaluate.ts";
import { type Combine, type Kernel, type KernelKind, type Stmt, variable } from "./ir.ts";
import {
  type Axis,
  type Loop,
  laneOf,
  loopEnv,
  mapIndices,
  mergeAxes,
  splitAxes,
} from "./loops.ts";

export interface Lowered {
  readonly kernel: Kernel;
  /** The node whose storage each buffer is. */
  readonly nodes: readonly Node[];
  /** Random leaves: words 3i … 3i+2 of the kernel's scalars. */
  readonly randoms: readonly Node<"random">[];
  /** May the value `n`, stored here, be written over the storage of `old`, read here? */
  overwritable(old: Node, n: Node): boolean;
}

/** Elements per parallel iteration of a one-dimensional map: 16 KB of f32, large against a call, small against a cache. */
const block = 4096;
/** Sums longer than this are summed in blocks: the error then grows with the block, not with the whole. */
const sumBlock = 4096;
/** Elements of scratch that a row may keep between phases. */
const maxKept = 1 << 14;

const isReduce = (n: Node): boolean => rules[n.op].kind === "reduce";

const combineOf: Partial<Record<Node["op"], Combine>> = {
  sum: "sum",
  prod: "prod",
  amax: "max",
  amin: "min",
  argmax: "argmax",
};

/** A reduction's source element, in the group's variables. */
const sourceIndex = (n: Node, group: Group): readonly Index[] =>
  mapOf(n.src[0], group) ?? spaceVars(group.space);

interface Nest {
  /** Loops over kept axes, outer to inner; loops over reduced axes, outer to inner. The lanes run along one's end. */
  readonly kept: readonly Loop[];
  readonly reduced: readonly Loop[];
  readonly lanes: Loop | null;
  /** The group's variables in the nest's. */
  readonly env: ReadonlyMap<string, Index>;
}

export function lowerNest(group: Group, inMemory: (n: Node) => boolean): Lowered {
  const nest = planNest(group, inMemory);
  const { kept, reduced, lanes } = nest;
  const at = (map: readonly Index[]) => map.map((x) => substitute(x, nest.env));
  const ev = new Evaluator(inMemory);
  ev.push([]);

  // The range is the outermost kept loop; if only the lanes are left, blocks of them.
  const outer = kept.filter((loop) => loop !== lanes);
  const range = outer.shift() ?? null;
  const body = (): void => {
    // Sums down columns take a cache line or two of each row at a time.
    const unroll = reduced.length > 0 ? 8 : 0;
    if (lanes && !lanes.reduced)
      nestIn(ev, "vector", lanes, () => emitRow(group, ev, nest, at), unroll);
    else emitRow(group, ev, nest, at);
  };
  const serial = (i: number): void => {
    if (i === outer.length) body();
    else nestIn(ev, "serial", outer[i], () => serial(i + 1));
  };
  let rangeInfo = { var: "p", extent: 1 };
  let stmts: Stmt[];
  if (range) {
    rangeInfo = { var: laneOf(range), extent: range.extent };
    ev.push(range.axes.map((a) => a.name));
    serial(0);
    const inner = ev.pop().stmts;
    const by = ivar(rangeInfo.var, range.extent);
    stmts = [
      ...ev.pop().stmts,
      ...(range.axes.length > 1 ? mapIndices(inner, loopEnv(range, by)) : inner),
    ];
  } else {
    serial(0);
    stmts = ev.pop().stmts;
    const width = reduced.length > 0 ? 64 : block;
    if (lanes && !lanes.reduced && lanes.extent >= 2 * width) {
      stmts = blockLoop(stmts, laneOf(lanes), lanes.extent, width);
      rangeInfo = { var: "p", extent: Math.ceil(lanes.extent / width) };
    }
  }
  const hasReduce = [...group.members.keys()].some(isReduce);
  const onlyReduce = [...group.stores.keys()].every((n) => numel(n.shape) !== numel(group.space));
  const kind: KernelKind = !hasReduce ? "map" : onlyReduce ? "reduce" : "row";
  return finish(group, ev, kind, rangeInfo, stmts, ev.flopsPerElement * numel(group.space));
}

/** Turns the vector loop over `lane` into blocks of `width` lanes, block number `p`. */
function blockLoop(stmts: readonly Stmt[], lane: string, extent: number, width: number): Stmt[] {
  const p = ivar("p", Math.ceil(extent / width));
  const begin = imul(p, width);
  const env = new Map([[lane, iadd(begin, ivar(lane, width))]]);
  return stmts.map((s) =>
    s.k === "loop" && s.var === lane
      ? { ...s, extent: imin(num(width), isub(num(extent), begin)), body: mapIndices(s.body, env) }
      : s,
  );
}

/** Runs `emit` inside a loop and appends the loop to the enclosing scope. */
function nestIn(
  ev: Evaluator,
  mode: "serial" | "vector",
  loop: Loop,
  emit: () => void,
  unroll = 0,
): void {
  ev.push(loop.axes.map((a) => a.name));
  emit();
  const { stmts } = ev.pop();
  const name = laneOf(loop);
  const body =
    loop.axes.length > 1 ? mapIndices(stmts, loopEnv(loop, ivar(name, loop.extent))) : stmts;
  ev.scopes[ev.depth].stmts.push({
    k: "loop",
    mode,
    var: name,
    extent: num(loop.extent),
    ...(unroll > 0 ? { unroll } : {}),
    body,
  });
}

// --- one row ------------------------------------------------------------------------------------------------

function emitRow(
  group: Group,
  ev: Evaluator,
  nest: Nest,
  at: (map: readonly Index[]) => Index[],
): void {
  const rowDepth = ev.depth;
  const row = () => ev.scopes[rowDepth].stmts;
  const members = [...group.members.keys()];
  const reducedVars = new Set(group.reduced.map((i) => `s${i}`));
  const isFull = (n: Node): boolean =>
    group.members.get(n)!.some((x) => [...freeVars(x)].some((v) => reducedVars.has(v)));

  const phases = phasesOf(group);
  const last = Math.max(0, ...phases.values());
  const stores = [...group.stores.keys()];
  const keep =
    lanesReduced(nest) && extentOf(nest.reduced) <= maxKept
      ? rowsToKeep(group, phases, isFull)
      : null;

  for (let phase = 0; phase <= last; phase++) {
    const reductions = members.filter((n) => isReduce(n) && phases.get(n) === phase);
    const full = stores.filter((n) => !isReduce(n) && isFull(n) && phases.get(n) === phase);
    const rows = [...(keep?.get(phase) ?? [])];
    if (reductions.length + full.length + rows.length === 0) continue;
    emitPhase(group, ev, nest, at, rowDepth, reductions, full, rows);
  }
  for (const n of stores) {
    if (!isReduce(n) && isFull(n)) continue;
    const index = at(group.members.get(n)!);
    const value = ev.evaluate(n, index).value;
    row().push(ev.store(n, index, value));
  }
}

/** In which pass over the reduced axes a member can be evaluated; for a reduction: in which it runs. */
function phasesOf(group: Group): Map<Node, number> {
  const ready = new Map<Node, number>();
  for (const n of group.members.keys()) {
    let phase = 0;
    for (const s of n.src) {
      const source = beneath(s);
      if (!group.members.has(source)) continue;
      phase = Math.max(phase, ready.get(source)! + (isReduce(source) ? 1 : 0));
    }
    ready.set(n, phase);
  }
  return ready;
}

/**
 * Costly members that several phases need: computed in the first of them, kept in scratch for the others.
 * Returns them by that first phase.
 */
function rowsToKeep(
  group: Group,
  phases: ReadonlyMap<Node, number>,
  isFull: (n: Node) => boolean,
): Map<number, Set<Node>> {
  const usedIn = new Map<Node, Set<number>>();
  const roots = [...group.members.keys()].filter(
    (n) => isReduce(n) || (group.stores.has(n) && isFull(n)),
  );
  for (const root of roots) {
    const phase = phases.get(root)!;
    const stack = isReduce(root) ? [beneath(root.src[0])] : [root];
    const seen = new Set<Node>();
    for (let n = stack.pop(); n; n = stack.pop()) {
      if (seen.has(n) || !group.members.has(n) || isReduce(n) || !isFull(n)) continue;
      seen.add(n);
      const list = usedIn.get(n);
      if (list) list.add(phase);
      else usedIn.set(n, new Set([phase]));
      for (const s of n.src) stack.push(beneath(s));
    }
  }
  const keep = new Map<number, Set<Node>>();
  for (const [n, used] of usedIn) {
    if (used.size < 2 || weightOf(n) < 10) continue;
    const first = Math.min(...used);
    const list = keep.get(first);
    if (list) list.add(n);
    else keep.set(first, new Set([n]));
  }
  return keep;
}

const extentOf = (loops: readonly Loop[]): number => loops.reduce((n, loop) => n * loop.extent, 1);
const lanesReduced = (nest: Nest): boolean => nest.lanes?.reduced === true;

function emitPhase(
  group: Group,
  ev: Evaluator,
  nest: Nest,
  at: (map: readonly Index[]) => Index[],
  rowDepth: number,
  reductions: readonly Node[],
  full: readonly Node[],
  rows: readonly Node[],
): void {
  const row = ev.scopes[rowDepth].stmts;
  const names = new Map<Node, string>();
  for (const n of reductions) {
    const name = ev.fresh("a");
    names.set(n, name);
    row.push({
      k: "acc",
      name,
      dtype: n.op === "argmax" ? n.src[0].dtype : n.dtype,
      combine: combineOf[n.op]!,
    });
  }
  const inner = nest.reduced[nest.reduced.length - 1] ?? null;
  const blocked =
    inner !== null &&
    inner.extent > sumBlock &&
    reductions.some((n) => n.op === "sum" && isFloat(n.dtype));
  const blockNames = new Map<Node, string>();
  if (blocked) for (const n of reductions) if (n.op === "sum") blockNames.set(n, ev.fresh("b"));

  const body = (): void => {
    const into = () => ev.scopes[ev.depth].stmts;
    for (const n of rows) {
      const value = ev.evaluate(n, at(group.members.get(n)!)).value;
      const local = keepRow(ev, n, nest);
      into().push({ k: "localStore", local: local.name, index: local.index, value });
    }
    for (const n of reductions) {
      const index = at(sourceIndex(n, group));
      const x = n.src[0];
      const name = blockNames.get(n) ?? names.get(n)!;
      const product =
        n.op === "sum" &&
        x.op === "mul" &&
        isFloat(x.dtype) &&
        group.members.has(x) &&
        !ev.kept.has(x);
      if (product) {
        const [a, b] = x.src.map((s) => ev.evaluate(s, broadcastTo(index, s)).value);
        into().push({ k: "update", name, value: a, times: b });
      } else {
        const value = ev.evaluate(x, index).value;
        const where = n.op === "argmax" ? { at: index[(n as Node<"argmax">).attrs.axis] } : {};
        into().push({ k: "update", name, value, ...where });
      }
    }
    for (const n of full) {
      const index = at(group.members.get(n)!);
      const value = ev.evaluate(n, index).value;
      into().push(ev.store(n, index, value));
    }
  };
  const loops = nest.reduced;
  const walk = (i: number): void => {
    if (i === loops.length) {
      body();
      return;
    }
    const mode = loops[i] === nest.lanes ? "vector" : "serial";
    nestIn(ev, mode, loops[i], () => walk(i + 1));
    if (blocked && i === loops.length - 1) blockSums(ev, loops[i], names, blockNames);
  };
  walk(0);
  for (const [n, name] of names) {
    const dtype = n.op === "argmax" ? "i32" : n.dtype;
    ev.bound.set(n, { value: variable(dtype, name), depth: rowDepth });
  }
}

/** Replaces the loop just emitted by a loop over blocks, each with sums of its own that are then added up. */
function blockSums(
  ev: Evaluator,
  loop: Loop,
  names: ReadonlyMap<Node, string>,
  blockNames: ReadonlyMap<Node, string>,
): void {
  const stmts = ev.scopes[ev.depth].stmts;
  const emitted = stmts.pop() as Extract<Stmt, { k: "loop" }>;
  const name = laneOf(loop);
  const blocks = Math.ceil(loop.extent / sumBlock);
  const begin = imul(ivar(`${name}b`, blocks), sumBlock);
  const env = new Map([[name, iadd(begin, ivar(name, sumBlock))]]);
  const inner: Stmt = {
    ...emitted,
    extent: imin(num(sumBlock), isub(num(loop.extent), begin)),
    body: mapIndices(emitted.body, env),
  };
  const sums = [...blockNames];
  stmts.push({
    k: "loop",
    mode: "serial",
    var: `${name}b`,
    extent: num(blocks),
    body: [
      ...sums.map(([n, b]): Stmt => ({ k: "acc", name: b, dtype: n.dtype, combine: "sum" })),
      inner,
      ...sums.map(
        ([n, b]): Stmt => ({ k: "update", name: names.get(n)!, value: variable(n.dtype, b) }),
      ),
    ],
  });
}

const broadcastTo = (index: readonly Index[], s: Node): Index[] => {
  const skip = index.length - s.shape.length;
  return s.shape.map((d, i) => (d === 1 ? num(0) : index[skip + i]));
};

/** Declares scratch for one row of `n` and makes later evaluations read it. */
function keepRow(ev: Evaluator, n: Node, nest: Nest): { name: string; index: Index } {
  const name = ev.fresh("k");
  let index: Index = num(0);
  for (const loop of nest.reduced)
    for (const axis of loop.axes)
      index = iadd(imul(index, axis.extent), ivar(axis.name, axis.extent));
  const size = extentOf(nest.reduced);
  ev.scopes[0].stmts.unshift({ k: "local", name, dtype: n.dtype, size });
  // In the phase that writes it the value is still in a register: known evaluations are found first.
  const depth = ev.depth;
  ev.kept.set(n, () => ({ value: { k: "localLoad", dtype: n.dtype, local: name, index }, depth }));
  return { name, index };
}

// --- the nest -----------------------------------------------------------------------------------------------

function planNest(group: Group, inMemory: (n: Node) => boolean): Nest {
  const space = spaceVars(group.space);
  const ev = new Evaluator(inMemory);
  ev.push([]);
  ev.push(group.space.map((_, i) => `s${i}`));
  for (const [n, map] of group.members) {
    if (isReduce(n)) {
      ev.evaluate(n.src[0], sourceIndex(n, group));
      ev.bound.set(n, { value: variable(n.dtype, ev.fresh("r")), depth: 1 });
    }
    if (!group.stores.has(n)) continue;
    const { value } = ev.evaluate(n, map);
    ev.store(n, map, value);
  }
  const axes = group.space.map(
    (extent, i): Axis => ({ name: `s${i}`, extent, reduced: group.reduced.includes(i) }),
  );
  // Kept rows are addressed by the reduced axes in order, which merging preserves.
  const all = [...ev.accesses.map((a) => a.index), ...ev.masks];
  const split = splitAxes(
    axes.filter((a) => a.extent > 1),
    space,
    all,
  );
  const loops = mergeAxes(split.axes, split.accesses);
  const memory = split.accesses.slice(0, ev.accesses.length);
  const kept = loops.filter((loop) => !loop.reduced);
  const reduced = loops.filter((loop) => loop.reduced);
  const lanes = chooseLanes(
    kept,
    reduced,
    memory,
    ev.accesses.map((a) => a.store),
  );
  const toEnd = (list: Loop[]) =>
    lanes && list.includes(lanes) ? [...list.filter((l) => l !== lanes), lanes] : list;
  const env = new Map(group.space.map((_, i) => [`s${i}`, split.space[i]] as const));
  return { kept: toEnd(kept), reduced: toEnd(reduced), lanes, env };
}

/**
 * The loop that most accesses walk with step 1. Of equals the reduced one (its loads are then one stream), but lanes
 * along an axis of a few elements would be mostly idle.
 */
function chooseLanes(
  kept: readonly Loop[],
  reduced: readonly Loop[],
  accesses: readonly Index[],
  stores: readonly boolean[],
): Loop | null {
  let best: Loop | null = null;
  let score = -1;
  for (const loop of [...reduced].reverse().concat([...kept].reverse())) {
    const lane = laneOf(loop);
    let points = 0;
    accesses.forEach((x, i) => {
      const step = affineIn(x, lane);
      if (step === 1) points += stores[i] ? 3 : 2;
      else if (step === 0 && !stores[i]) points += 0.1;
    });
    const idle = loop.extent < 4 ? 0.25 : loop.extent < 8 ? 0.75 : 1;
    if (points * idle > score) {
      best = loop;
      score = points * idle;
    }
  }
  return best;
}

// --- results ------------------------------------------------------------------------------------------------

export function finish(
  group: Group,
  ev: Evaluator,
  kind: KernelKind,
  range: { var: string; extent: number },
  body: readonly Stmt[],
  flops: number,
): Lowered {
  const gathers = [...group.members.keys()].some((n) => n.op === "gather");
  const kernel: Kernel = {
    name: nameOf(group, kind),
    kind: kind === "map" && gathers ? "gather" : kind,
    buffers: ev.buffers,
    scalars: 3 * ev.randoms.length,
    range,
    body,
    flops,
  };
  const overwritable = (old: Node, n: Node): boolean => {
    const buffer = ev.nodes.indexOf(old);
    const target = ev.nodes.indexOf(n);
    const write = ev.accesses.find((a) => a.buffer === target && a.store);
    if (!write || old.dtype !== n.dtype) return false;
    // A whole row is read in several passes: only what is written after the last of them may lie over an input.
    const rowStore = group.reduced.length > 0 && numel(n.shape) === numel(group.space);
    if (rowStore && numel(n.shape) > 1) return false;
    const reads = ev.accesses.filter((a) => a.buffer === buffer && !a.store);
    return reads.every((a) => !a.masked && a.index.key === write.index.key);
  };
  return { kernel, nodes: ev.nodes, randoms: ev.randoms, overwritable };
}

/** kind_op_op_shape: enough to recognise a kernel in a report. */
function nameOf(group: Group, kind: string): string {
  const ops = [...new Set([...group.members.keys()].map((n) => n.op))].filter(
    (o) => o !== "cast" && o !== "dot" && o !== "scatterAdd",
  );
  const shape = group.space.join("x") || "scalar";
  return [
    kind,
    ...ops.slice(0, 5),
    ...(ops.length > 5 ? [`${ops.length - 5}more`] : []),
    shape,
  ].join("_");
}
