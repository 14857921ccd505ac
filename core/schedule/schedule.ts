/**
 * @file From a canonical graph to a plan: simplify, fuse, order the groups (order.ts), and give every stored value a place.
 */
import { bytesOf } from "../dtype.ts";
import type { Node } from "../graph/node.ts";
import { topological } from "../graph/walk.ts";
import { numel } from "../shape.ts";
import { beneath, isMovement } from "./access.ts";
import { type FuseOptions, fuse } from "./fuse.ts";
import { type Group, readsWhole } from "./group.ts";
import { hostValues, type Lifetime, planMemory } from "./memory.ts";
import { Order } from "./order.ts";
import { mergeSiblings } from "./siblings.ts";
import { type Claims, claimsNothing, copy, isFree, simplify } from "./simplify.ts";
import { asIs, type Rewrite } from "./split.ts";

export type Place =
  | { readonly k: "slot"; readonly slot: number }
  | { readonly k: "output"; readonly output: number }
  | { readonly k: "scratch"; readonly offset: number };

export type Step =
  | {
      readonly k: "group";
      readonly group: Group;
      readonly reads: readonly Node[];
      /** Of an update in place the version before: where that lies elsewhere, it is copied first. */
      readonly base: Node | null;
    }
  /** A scan: `body` runs once per element of the leading axis. Scratch of the body lies at `offset`. */
  | {
      readonly k: "loop";
      readonly group: Group;
      readonly region: Node<"region">;
      readonly body: Plan;
      readonly offset: number;
    };

export interface Plan {
  readonly inputs: readonly Node<"placeholder">[];
  readonly steps: readonly Step[];
  readonly places: ReadonlyMap<Node, Place>;
  readonly outputs: readonly PlannedOutput[];
  readonly scratchBytes: number;
}

export interface PlannedOutput {
  readonly node: Node;
  /** The slot that an assignment wants overwritten, if every other reader of it runs before. */
  readonly overwrites: number | null;
  /** What is written first in the output's storage: the value itself, or the first of several updates in place. */
  readonly first: Node;
}

export interface ScheduleOptions extends FuseOptions {
  /** What a loop repeats: its outputs lie where the loop puts them. */
  readonly isBody?: boolean;
}

/** `claims`: the regions that stay whole, as the backend has kernels for them; `rewrites`: what it would rather have. */
export function schedule(
  inputs: readonly Node<"placeholder">[],
  roots: readonly Node[],
  claims: Claims = claimsNothing,
  rewrites: Rewrite = asIs,
  options: ScheduleOptions = {},
): Plan {
  // Outputs are distinct computed tensors: what would only be a view, a leaf or a second name is copied.
  const targets: (number | null)[] = [];
  const results: Node[] = [];
  const found = new Set<Node>();
  for (const { node, target } of simplify(roots, inputs, claims, rewrites)) {
    const computed = !isMovement(node) && !isFree(node) && node.op !== "placeholder";
    const result = computed && !found.has(node) ? node : copy(node);
    found.add(result);
    results.push(result);
    targets.push(target);
  }
  const live = results.filter((n) => numel(n.shape) > 0);
  const nodes = topological(live);
  const reasons = new Map(
    results.map((n, i) => [n, targets[i] === null ? "output" : "new state"] as const),
  );
  const updates = findUpdates(results, targets, inputs);
  const { isBody = false, fused = true } = options;
  const { groups, floating } = fuse(nodes, reasons, updates, options);

  const producer = new Map<Node, Group>();
  for (const group of groups) for (const n of group.stores.keys()) producer.set(n, group);
  const reads = new Map(
    groups.map((group) => [group, readsOf(group, producer, floating)] as const),
  );

  if (fused) mergeSiblings({ reads, producer });
  const order = new Order(reads, producer);
  const places = new Map<Node, Place>(inputs.map((n, slot) => [n, { k: "slot", slot }]));
  results.forEach((n, output) => {
    places.set(n, { k: "output", output });
  });
  const readBefore = (old: Node, writer: Node): boolean =>
    order.readsGoBefore(old, producer.get(writer));
  // Several updates of one state share its storage, if whoever reads a version between them can go first.
  const firsts = results.map((result) => {
    let first = result;
    for (let base = first.src[0]; updates.has(first) && updates.has(base); base = first.src[0]) {
      if (places.has(base) || !readBefore(base, first)) break;
      places.set(base, places.get(result)!);
      first = base;
    }
    return first;
  });
  const overwrites = targets.map((target, i) =>
    target !== null && readBefore(inputs[target], firsts[i]) ? target : null,
  );
  const sorted = order.sorted();

  // Lives, in steps; outputs have allocations of their own.
  const position = new Map(sorted.map((group, i) => [group, i] as const));
  const last = new Map<Node, number>();
  for (const [group, nodes] of reads)
    for (const n of nodes) last.set(n, Math.max(last.get(n) ?? 0, position.get(group)!));
  const values: Node[] = [];
  const lives: Lifetime[] = [];
  const loops: { readonly group: Group; readonly body: Plan; readonly life: Lifetime }[] = [];
  for (const group of sorted) {
    const first = position.get(group)!;
    for (const n of group.stores.keys()) {
      if (places.has(n)) continue;
      lives.push({ bytes: bytesOf(n), first, last: Math.max(first, last.get(n) ?? first) });
      values.push(n);
    }
    if (group.kind === "loop") {
      const body = planBody(regionOf(group), claims, rewrites, options);
      const life = { bytes: loopScratch(regionOf(group), body), first, last: first };
      loops.push({ group, body, life });
    }
  }
  // An output that overwrites nothing has its memory from the beginning: until it is written, other values may use that (an
  // output's that is "written" by step 0, never).
  const fresh = results.map((n, i) => ({
    bytes: bytesOf(n),
    first: targets[i] === null ? (position.get(producer.get(n)!) ?? 0) : 0,
  }));
  const hosts = isBody ? [] : hostValues(lives, fresh);
  const own = lives.flatMap((_, i) => (hosts[i] === undefined ? [i] : []));
  const planned = [...own.map((i) => lives[i]), ...loops.map(({ life }) => life)];
  const { offsets, bytes } = planMemory(planned);
  values.forEach((n, i) => {
    if (hosts[i] !== undefined) places.set(n, { k: "output", output: hosts[i] });
  });
  own.forEach((i, j) => {
    places.set(values[i], { k: "scratch", offset: offsets[j] });
  });
  const bodies = new Map(
    loops.map(({ group, body }, i) => [group, { body, offset: offsets[own.length + i] }]),
  );
  const steps = sorted.map((group): Step => {
    if (group.kind !== "loop") {
      const [member] = group.members.keys();
      const base = group.kind === "update" ? member.src[0] : null;
      return { k: "group", group, reads: reads.get(group)!, base };
    }
    return { k: "loop", group, region: regionOf(group), ...bodies.get(group)! };
  });
  const outputs = results.map((node, i) => ({
    node,
    overwrites: overwrites[i],
    first: firsts[i],
  }));
  return { inputs, steps, places, outputs, scratchBytes: bytes };
}

/**
 * Slices written into state (a KV cache) change nothing else there, so they are written in place: updates, one after the
 * other, that start from an input and end in an assignment to its storage.
 */
function findUpdates(
  results: readonly Node[],
  targets: readonly (number | null)[],
  inputs: readonly Node[],
): Set<Node> {
  const found = new Set<Node>();
  for (const [i, result] of results.entries()) {
    const chain: Node[] = [];
    let n = result;
    for (; n.op === "dynamicUpdateSlice"; n = n.src[0]) chain.push(n);
    const target = targets[i];
    if (target !== null && n === inputs[target]) for (const update of chain) found.add(update);
  }
  return found;
}

const regionOf = (group: Group): Node<"region"> => {
  const [first] = group.members.keys();
  return first as Node<"region">;
};

function planBody(
  region: Node<"region">,
  claims: Claims,
  rewrites: Rewrite,
  options: ScheduleOptions,
): Plan {
  const { params, results } = region.attrs.region.body;
  return schedule(params, results, claims, rewrites, { ...options, isBody: true });
}

/**
 * The body's own scratch, then for each carry its current and its next value, and for each y one element: a place to
 * write to where nobody needs the whole.
 */
export function loopScratch(region: Node<"region">, body: Plan): number {
  const { scan, body: graph } = region.attrs.region;
  const bytes = (c: Node, i: number) => carryBytes(c) * (i < scan!.carries ? 2 : 1);
  return graph.results.reduce((n, c, i) => n + bytes(c, i), body.scratchBytes);
}
export const carryBytes = (n: Node): number => Math.ceil(bytesOf(n) / 64) * 64 + 64;

/**
 * What a group loads: the placeholders and the values stored by other groups that its stored members reach, through
 * members and through values that it computes again.
 */
function readsOf(
  group: Group,
  producer: ReadonlyMap<Node, Group>,
  floating: ReadonlySet<Node>,
): Node[] {
  const found = new Set<Node>();
  const seen = new Set<Node>();
  const stack: Node[] = [...group.stores.keys()];
  if (group.kind === "loop") stack.push(regionOf(group));
  for (let n = stack.pop(); n; n = stack.pop()) {
    if (seen.has(n)) continue;
    seen.add(n);
    for (const [i, s] of n.src.entries()) {
      const source = beneath(s);
      const elsewhere = producer.has(source) && producer.get(source) !== group;
      const stored = elsewhere && (readsWhole(n, i) || !floating.has(source));
      if (source.op === "placeholder" || stored) found.add(source);
      else stack.push(source);
    }
  }
  return [...found].sort((a, b) => a.id - b.id);
}
