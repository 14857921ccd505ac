/**
 * @file One row of a group: its reductions in phases, each a pass over the reduced axes. What needs the result of an
 * earlier reduction belongs to a later phase; costly values that several phases need are kept in scratch.
 */
import { isFloat } from "../dtype.ts";
import type { Node } from "../graph/node.ts";
import { beneath, broadcastIndex } from "../schedule/access.ts";
import { type Group, isReduce } from "../schedule/group.ts";
import { weightOf } from "../schedule/stores.ts";
import { freeVars, type Index, iadd, imin, imul, isub, ivar, num } from "../schedule/symbolic.ts";
import type { Evaluator } from "./evaluate.ts";
import { type Combine, type Stmt, variable } from "./ir.ts";
import { type Loop, laneOf, mapIndices } from "./loops.ts";
import { type Nest, nestIn, sourceIndex } from "./nest.ts";

/** Sums longer than this are summed in blocks (of so many elements over the lanes, of so many one by one). */
const sumBlock = 4096;
const serialBlock = 256;
/** Sums of blocks are added up in groups of this many. */
const sumFan = 64;
/** Elements of scratch that a row may keep between phases. */
const maxKept = 1 << 14;

const combineOf: Partial<Record<Node["op"], Combine>> = {
  sum: "sum",
  prod: "prod",
  amax: "max",
  amin: "min",
  argmax: "argmax",
};

export function emitRow(
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
    inner.extent > (inner === nest.lanes ? sumBlock : serialBlock) &&
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
        const [a, b] = x.src.map((s) => ev.evaluate(s, broadcastIndex(index, s.shape)).value);
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

/**
 * Replaces the loop just emitted by loops over blocks, each with sums of its own that are then added up, `sumFan` at a
 * time: no sum has more than some hundred terms, so the error hardly grows with the length.
 */
function blockSums(
  ev: Evaluator,
  loop: Loop,
  names: ReadonlyMap<Node, string>,
  blockNames: ReadonlyMap<Node, string>,
): void {
  const stmts = ev.scopes[ev.depth].stmts;
  const emitted = stmts.pop() as Extract<Stmt, { k: "loop" }>;
  const name = laneOf(loop);
  const width = emitted.mode === "vector" ? sumBlock : serialBlock;
  const blocks = Math.ceil(loop.extent / width);
  const groups = Math.ceil(blocks / sumFan);
  // Block g·sumFan + b covers elements from width times that.
  const block = iadd(
    imul(ivar(`${name}g`, groups), sumFan),
    ivar(`${name}b`, Math.min(sumFan, blocks)),
  );
  const begin = imul(block, width);
  const env = new Map([[name, iadd(begin, ivar(name, width))]]);
  const inner: Stmt = {
    ...emitted,
    extent: imin(num(width), isub(num(loop.extent), begin)),
    body: mapIndices(emitted.body, env),
  };
  const sums = [...blockNames];
  const added = (body: Stmt, from: (n: Node) => string, to: (n: Node) => string): Stmt[] => [
    ...sums.map(([n]): Stmt => ({ k: "acc", name: from(n), dtype: n.dtype, combine: "sum" })),
    body,
    ...sums.map(([n]): Stmt => ({ k: "update", name: to(n), value: variable(n.dtype, from(n)) })),
  ];
  const ofBlock = (n: Node): string => blockNames.get(n)!;
  const ofGroup = (n: Node): string => `${blockNames.get(n)!}g`;
  const ofAll = (n: Node): string => names.get(n)!;
  const over = (extent: Index, suffix: string, body: readonly Stmt[]): Stmt => ({
    k: "loop",
    mode: "serial",
    var: `${name}${suffix}`,
    extent,
    body,
  });
  if (groups === 1) {
    stmts.push(over(num(blocks), "b", added(inner, ofBlock, ofAll)));
    return;
  }
  const left = isub(num(blocks), imul(ivar(`${name}g`, groups), sumFan));
  const group = over(imin(num(sumFan), left), "b", added(inner, ofBlock, ofGroup));
  stmts.push(over(num(groups), "g", added(group, ofGroup, ofAll)));
}

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
