/**
 * @file The canonical form of a graph: nodes interned, leaves numbered by first use, and the whole written as one
 * string, which is the plan's key. Two steps of a loop that record the same computation have the same key, whatever
 * their nodes, buffers and random counters are, so the second one costs this walk and no planning.
 *
 * What a leaf may be is the caller's business (`slotOf`): realised values when tensors are read, placeholders when a
 * trace is planned. Interning is common-subexpression elimination at the same time (as in value numbering, Cocke 1969).
 */
import type { CanonicalGraph } from "./backend/backend.ts";
import { TransformError } from "./errors.ts";
import { copying, exactJson, is, type Node, rawNode, type SubGraph } from "./graph/node.ts";
import { type AttrsOf, placeholder, type Region } from "./graph/primitives.ts";

export interface Canonical<Slot extends object> {
  readonly key: string;
  /** One line per distinct value, in order of first use; `nodes[i]` is a node that has it. */
  readonly lines: readonly string[];
  readonly nodes: readonly Node[];
  readonly slots: readonly Slot[];
  readonly randoms: readonly Node<"random">[];
  /** The distinct outputs as value numbers, and for each root which output it is. */
  readonly outputs: readonly number[];
  readonly outputOf: readonly number[];
  /** For each root: whether a gradient may flow through it. */
  readonly history: readonly boolean[];
  /** Makes the graph anew, without the caller's leaves: a plan keeps nothing alive. */
  build(): CanonicalGraph;
}

export interface Leaves<Slot extends object> {
  /** The input that stands for this node, if it is one: the walk does not look below it. */
  slotOf(node: Node): Slot | undefined;
  /** Whether a gradient may flow into a slot. */
  hasHistory(slot: Slot, node: Node): boolean;
  /** Called for each node below the roots that a cell owns. */
  owned?(node: Node): void;
  /** Nothing will be overwritten, so roots that are assignments are their values: the version before is no input. */
  readonly pure?: boolean;
}

const literal = (x: number): string => (Object.is(x, -0) ? "-0" : String(x));

/** The attributes as text. Leaves and regions have their own lines. */
function attrsText(n: Node): string {
  switch (n.op) {
    case "constant":
      return `${n.dtype} ${literal((n as Node<"constant">).attrs.value)}`;
    case "pad": {
      const { lo, hi, value } = (n as Node<"pad">).attrs;
      return `${lo};${hi};${literal(value)}`;
    }
    case "window": {
      const { axis, size, stride, dilation } = (n as Node<"window">).attrs;
      return `${axis};${size};${stride};${dilation}`;
    }
    case "slice": {
      const { start, size, step } = (n as Node<"slice">).attrs;
      return `${start};${size};${step}`;
    }
    case "scatterAdd": {
      const { axis, size } = (n as Node<"scatterAdd">).attrs;
      return `${axis};${size}`;
    }
    case "reshape":
    case "expand":
      return (n as Node<"reshape">).attrs.shape.join();
    case "permute":
    case "flip":
    case "sum":
    case "prod":
    case "amax":
    case "amin":
      return (n as Node<"sum">).attrs.axes.join();
    case "cast":
    case "bitcast":
      return (n as Node<"cast">).attrs.dtype;
    case "concat":
    case "argmax":
    case "gather":
      return String((n as Node<"concat">).attrs.axis);
    case "iota":
      return String((n as Node<"iota">).attrs.length);
    case "project":
      return String((n as Node<"project">).attrs.index);
    case "cumulative": {
      const { axis, combine, reverse } = (n as Node<"cumulative">).attrs;
      return `${axis};${combine};${reverse}`;
    }
    case "alias":
      return "";
    default:
      // Most have none. What is not listed above must not be left out: two plans would share a key.
      for (const _ in n.attrs) return exactJson(n.attrs);
      return "";
  }
}

class Numbering<Slot extends object> {
  readonly #leaves: Leaves<Slot>;
  readonly lines: string[] = [];
  readonly nodes: Node[] = [];
  readonly sources: (readonly number[])[] = [];
  /** The smallest id that a value was recorded under: sorting by it gives the program's order. */
  readonly firstId: number[] = [];
  readonly slots: Slot[] = [];
  readonly randoms: Node<"random">[] = [];
  readonly #randomNumbers: number[] = [];
  readonly #slotNumbers = new Map<Slot, number>();
  readonly #byLine = new Map<string, number>();
  readonly #marks = new Map<number, number>();
  /** 2·number + 1 if a gradient may flow through the node; -1 while its sources are walked. */
  readonly #codes = new Map<Node, number>();

  constructor(leaves: Leaves<Slot>) {
    this.#leaves = leaves;
  }

  /** The code of a node; walks below it with its own stack, as graphs may be deep. */
  visit(root: Node): number {
    const codes = this.#codes;
    const stack = [root];
    while (stack.length > 0) {
      const n = stack[stack.length - 1];
      const code = codes.get(n);
      if (code !== undefined && code >= 0) {
        stack.pop();
        continue;
      }
      if (code === undefined) {
        const slot = this.#leaves.slotOf(n);
        if (slot) {
          codes.set(n, 2 * this.#slotNumber(slot, n) + +this.#leaves.hasHistory(slot, n));
          stack.pop();
          continue;
        }
        if (n.owner) this.#leaves.owned?.(n);
        codes.set(n, -1);
        const height = stack.length;
        // Who reads an assignment reads its value: where that is stored concerns only the root (`visitRoot`).
        const first = n.op === "assign" ? 1 : 0;
        for (let i = n.src.length - 1; i >= first; i--)
          if (!codes.has(n.src[i])) stack.push(n.src[i]);
        if (stack.length > height) continue;
      }
      stack.pop();
      codes.set(n, this.#intern(n));
    }
    return codes.get(root)!;
  }

  /** A root: as any other node, but an assignment is kept, with the storage of its first version as the target. */
  visitRoot(root: Node): number {
    if (!is(root, "assign") || this.#leaves.pure) return this.visit(root);
    let target: Node = root;
    while (is(target, "assign")) target = target.src[0];
    const code = this.visit(root);
    const slot = this.#leaves.slotOf(target);
    // A value that was never stored leaves nothing to overwrite.
    if (!slot) return code;
    return 2 * this.#numberOf(root, [this.visit(target) >> 1, code >> 1]) + (code & 1);
  }

  #slotNumber(slot: Slot, n: Node): number {
    let number = this.#slotNumbers.get(slot);
    if (number === undefined) {
      number = this.#add(`$${this.slots.length} ${n.dtype}[${n.shape}]`, n, []);
      this.#slotNumbers.set(slot, number);
      this.slots.push(slot);
    }
    return number;
  }

  #add(line: string, n: Node, sources: readonly number[]): number {
    const number = this.lines.length;
    this.lines.push(line);
    this.nodes.push(n);
    this.sources.push(sources);
    this.firstId.push(n.id);
    return number;
  }

  #intern(n: Node): number {
    // Names of a value for transforms, dissolved here: running needs none.
    if (n.op === "alias") return this.#codes.get(n.src[0])! | 1;
    if (n.op === "detach")
      return (this.#codes.get(n.src[0])! & ~1) | (n.owner?.requiresGrad ? 1 : 0);
    if (n.op === "assign") {
      const code = this.#codes.get(n.src[1])!;
      return n.owner?.requiresGrad ? code | 1 : code;
    }
    const sources = new Array<number>(n.src.length);
    let history = n.owner?.requiresGrad ? 1 : 0;
    for (let i = 0; i < sources.length; i++) {
      const code = this.#codes.get(n.src[i])!;
      sources[i] = code >> 1;
      history |= code & 1;
    }
    return 2 * this.#numberOf(n, sources) + history;
  }

  #numberOf(n: Node, sources: readonly number[]): number {
    if (is(n, "random")) {
      // Distinct leaves stay distinct, even with equal counters: those are run-time words.
      const number = this.#add(`?${this.randoms.length} [${n.shape}]`, n, sources);
      this.randoms.push(n);
      this.#randomNumbers.push(number);
      return number;
    }
    let line = `${n.op} ${sources} `;
    if (is(n, "region")) {
      const { kind, name, body, scan, attention, kernel } = n.attrs.region;
      const loop = scan && `${scan.length},${scan.carries},${scan.xs},${scan.reverse}`;
      const own = attention && `${attention.pass},${attention.causal},${attention.scale}`;
      line += `${kind} ${name} ${loop ?? own ?? kernel?.key ?? ""} {${canonicalBody(body).key}}`;
    } else line += attrsText(n);
    // Clones of a checkpoint keep apart from the originals; which clone it is must not enter the key.
    if (n.recompute !== 0) {
      if (!this.#marks.has(n.recompute)) this.#marks.set(n.recompute, this.#marks.size + 1);
      line += ` ~${this.#marks.get(n.recompute)}`;
    }
    const known = this.#byLine.get(line);
    if (known === undefined) {
      const number = this.#add(line, n, sources);
      this.#byLine.set(line, number);
      return number;
    }
    if (n.id < this.firstId[known]) this.firstId[known] = n.id;
    return known;
  }

  /** Fresh nodes for all values, in the program's order; `inputs[i]` stands for slot i. */
  rebuild(inputs: readonly Node<"placeholder">[]): Rebuilt {
    const values = new Array<Node>(this.lines.length);
    let slot = 0;
    for (const number of this.#slotNumbers.values()) values[number] = inputs[slot++];
    const order = Array.from(this.lines.keys());
    for (const i of order.sort((a, b) => this.firstId[a] - this.firstId[b])) {
      if (values[i]) continue;
      const n = this.nodes[i];
      const src = this.sources[i].map((s) => values[s]);
      const attrs = (is(n, "region") ? canonicalRegion(n) : n.attrs) as AttrsOf[typeof n.op];
      copying(n);
      values[i] = rawNode(n.op, src, attrs, n.dtype, n.shape, n.device, n.recompute);
    }
    copying(null);
    const randoms = this.#randomNumbers.map((i) => values[i] as Node<"random">);
    return { values, randoms };
  }

  /** A placeholder per slot. */
  inputs(): Node<"placeholder">[] {
    const numbers = [...this.#slotNumbers.values()];
    return numbers.map((i) => {
      const { dtype, shape, device } = this.nodes[i];
      return placeholder(dtype, shape, device);
    });
  }
}

interface Rebuilt {
  readonly values: readonly Node[];
  readonly randoms: readonly Node<"random">[];
}

interface Body {
  readonly key: string;
  graph(): SubGraph;
}

const bodies = new WeakMap<SubGraph, Body>();

/** Bodies are closed, so their canonical form depends on nothing else and is kept. */
function canonicalBody(body: SubGraph): Body {
  const known = bodies.get(body);
  if (known) return known;
  const params = new Set<Node>(body.params);
  const numbering = new Numbering<Node>({
    slotOf: (n) => {
      if (params.has(n)) return n;
      if (n.op === "placeholder" || n.op === "buffer" || n.op === "random")
        throw new TransformError(
          `region: expected a body that depends on its parameters only, got a ${n.op} leaf in it` +
            "\n  hint: pass captured values and randomness as arguments",
        );
      return undefined;
    },
    hasHistory: () => false,
  });
  // Parameters first, also unused ones: their numbers are their positions.
  for (const p of body.params) numbering.visit(p);
  const results = body.results.map((r) => numbering.visit(r) >> 1);
  let graph: SubGraph | undefined;
  const made: Body = {
    key: `${numbering.lines.join("\n")}\n> ${results}`,
    graph: () => {
      if (graph) return graph;
      const fresh = body.params.map((p) => placeholder(p.dtype, p.shape, null, p.attrs.name));
      const { values } = numbering.rebuild(fresh);
      return (graph = { params: fresh, results: results.map((r) => values[r]) });
    },
  };
  bodies.set(body, made);
  return made;
}

/** The region without its own transforms, which may hold on to the caller's tensors. */
function canonicalRegion(n: Node<"region">): AttrsOf["region"] {
  const { vjp: _vjp, batch: _batch, ...rest } = n.attrs.region;
  const region: Region = { ...rest, body: canonicalBody(rest.body).graph() };
  return { uid: n.attrs.uid, region };
}

/**
 * Canonicalises what `roots` need. `roots` may grow while it is walked (`owned` appends): a value that a cell
 * owns is worth keeping once it is computed.
 */
export function canonicalize<Slot extends object>(
  roots: readonly Node[],
  leaves: Leaves<Slot>,
): Canonical<Slot> {
  const numbering = new Numbering(leaves);
  const outputs: number[] = [];
  const positions = new Map<number, number>();
  const outputOf: number[] = [];
  const history: boolean[] = [];
  for (let i = 0; i < roots.length; i++) {
    const code = numbering.visitRoot(roots[i]);
    const number = code >> 1;
    let position = positions.get(number);
    if (position === undefined) {
      position = outputs.push(number) - 1;
      positions.set(number, position);
    }
    outputOf.push(position);
    history.push((code & 1) === 1);
  }
  const { lines, nodes, slots, randoms } = numbering;
  const key = `${lines.join("\n")}\n> ${outputs}`;
  const build = (): CanonicalGraph => {
    const inputs = numbering.inputs();
    const { values, randoms } = numbering.rebuild(inputs);
    return { key, inputs, randoms, outputs: outputs.map((o) => values[o]) };
  };
  return { key, lines, nodes, slots, randoms, outputs, outputOf, history, build };
}
