/**
 * @file The loop nest of a group: an unscheduled evaluation shows its addresses, and from them follow the axes to split
 * and merge, their order, and where the lanes run.
 */
import type { Node } from "../graph/node.ts";
import { type Group, isReduce, mapOf, spaceVars } from "../schedule/group.ts";
import { affineIn, type Index, ivar, num } from "../schedule/symbolic.ts";
import { Evaluator } from "./evaluate.ts";
import { variable } from "./ir.ts";
import {
  type Axis,
  type Loop,
  laneOf,
  loopEnv,
  mapIndices,
  mergeAxes,
  splitAxes,
} from "./loops.ts";

export interface Nest {
  /** Loops over kept axes, outer to inner; loops over reduced axes, outer to inner. The lanes run along one's end. */
  readonly kept: readonly Loop[];
  readonly reduced: readonly Loop[];
  readonly lanes: Loop | null;
  /** The group's variables in the nest's. */
  readonly env: ReadonlyMap<string, Index>;
}

/** A reduction's source element, in the group's variables. */
export const sourceIndex = (n: Node, group: Group): readonly Index[] =>
  mapOf(n.src[0], group) ?? spaceVars(group.space);

export function planNest(group: Group, inMemory: (n: Node) => boolean): Nest {
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
    ev.write(group, n, map);
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
  // An access runs as often as the loops it depends on: one value per row weighs little beside the row.
  const times = accesses.map((x) =>
    [...kept, ...reduced]
      .filter((loop) => loop.axes.some((a) => affineIn(x, a.name) !== 0))
      .reduce((n, loop) => n * loop.extent, 1),
  );
  for (const loop of [...reduced].reverse().concat([...kept].reverse())) {
    const lane = laneOf(loop);
    let points = 0;
    accesses.forEach((x, i) => {
      const step = affineIn(x, lane);
      if (step === 1) points += times[i] * (stores[i] ? 3 : 2);
      else if (step === 0 && !stores[i]) points += 0.1 * times[i];
    });
    const idle = loop.extent < 4 ? 0.25 : loop.extent < 8 ? 0.75 : 1;
    if (points * idle > score) {
      best = loop;
      score = points * idle;
    }
  }
  return best;
}

/** Runs `emit` inside a loop and appends the loop to the enclosing scope. */
export function nestIn(
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
