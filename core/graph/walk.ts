/**
 * @file Walks over a graph, none recursive: a chain of 100,000 nodes is as good as one of ten.
 *
 * Sources are older than their node, so sorting by id is a topological order, and nothing older
 * than the oldest node of interest can depend on it: a walk for `grad(f)(x)` never leaves what f
 * recorded, however much history x has. Walks follow `src` and do not enter the bodies of regions,
 * which are closed.
 */
import { copying, freshUid, type Node, rawNode } from "./node.ts";
import { node, rules } from "./primitives.ts";

/**
 * What `roots` reach, roots included, sources first. Nodes that `stop` names are included, not
 * looked below.
 */
export function topological(roots: readonly Node[], stop?: (n: Node) => boolean): Node[] {
  const seen = new Set<Node>(roots);
  const order = [...seen];
  // `order` is also the queue; sorting at the end makes the order of discovery irrelevant.
  for (let i = 0; i < order.length; i++) {
    if (stop?.(order[i])) continue;
    for (const s of order[i].src) {
      if (seen.has(s)) continue;
      seen.add(s);
      order.push(s);
    }
  }
  return order.sort((a, b) => a.id - b.id);
}

const oldest = (nodes: Iterable<Node>): number => {
  let id = Infinity;
  for (const n of nodes) id = Math.min(id, n.id);
  return id;
};

/**
 * The nodes below `roots` that reach one of `leaves`, leaves included. Does not look below a leaf,
 * unless `below`, and follows only nodes that `through` accepts.
 */
export function dependents(
  roots: readonly Node[],
  leaves: ReadonlySet<Node>,
  through: (n: Node) => boolean = () => true,
  below = false,
): Set<Node> {
  const floor = oldest(leaves);
  const found = new Set<Node>();
  for (const n of topological(roots, (m) => m.id <= floor || (!below && leaves.has(m))))
    if (leaves.has(n) || (n.src.some((s) => found.has(s)) && through(n))) found.add(n);
  return found;
}

/**
 * The same operation on other sources; `recompute` is the new node's mark. The owner stays behind:
 * the copy is not what the cell points at.
 */
export function rebuild(n: Node, src: readonly Node[], recompute: number = n.recompute): Node {
  const same = src.every((s, i) => s.dtype === n.src[i].dtype && s.shape === n.src[i].shape);
  const sameDevice = same && src.every((s, i) => s.device === n.src[i].device);
  copying(n);
  const made = sameDevice
    ? rawNode(n.op, src, n.attrs, n.dtype, n.shape, n.device, recompute)
    : node(n.op, src, n.attrs, recompute);
  copying(null);
  return made;
}

/**
 * `roots` with the keys of `map` replaced by their values; rebuilds only what depends on a key.
 *
 * With a mark, everything but leaves is rebuilt, so that the result is a second computation that
 * shares nothing with the first (a checkpoint's clone). Nodes that already carry a mark get one
 * more of their own, because two clones inside must not merge in the copy either.
 */
export function substitute(
  roots: readonly Node[],
  map: ReadonlyMap<Node, Node>,
  recompute = 0,
): Node[] {
  const floor = recompute ? 0 : oldest(map.keys());
  const marks = new Map([[0, recompute]]);
  const markOf = (old: number): number => {
    if (!recompute) return old;
    if (!marks.has(old)) marks.set(old, freshUid());
    return marks.get(old)!;
  };
  const made = new Map<Node, Node>(map);
  const get = (n: Node): Node => made.get(n) ?? n;
  for (const n of topological(roots, (m) => m.id <= floor || map.has(m))) {
    if (made.has(n) || rules[n.op].kind === "leaf") continue;
    if (recompute || (n.id > floor && n.src.some((s) => made.has(s))))
      made.set(n, rebuild(n, n.src.map(get), markOf(n.recompute)));
  }
  return roots.map(get);
}
