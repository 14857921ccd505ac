/**
 * @file The graph: immutable nodes. An operation on tensors adds one node and computes nothing.
 *
 * A node names a primitive, its sources, its attributes, and the dtype and shape that follow from them.
 * Sources are always older than the node (`src.id < id`), so ids order any graph topologically. Nodes are not
 * interned when they are made: that happens once per trace or realisation (schedule/canonical.ts), where it also
 * is the plan's key. Leaves carry a unique id and never merge.
 */
import type { DType } from "../dtype.ts";
import type { Shape } from "../shape.ts";
import type { AttrsOf, Primitive } from "./primitives.ts";

export type DeviceName = "webgpu" | "wasm" | "reference";

export interface Node<P extends Primitive = Primitive> {
  readonly id: number;
  readonly op: P;
  readonly src: readonly Node[];
  readonly attrs: AttrsOf[P];
  readonly dtype: DType;
  readonly shape: Shape;
  /** Inferred from the leaves; null while only constants and random leaves are below. */
  readonly device: DeviceName | null;
  /** 0, or the mark of a checkpoint's clone: clones never merge with the originals. */
  readonly recompute: number;
  /** The tensor cell that this leaf (or assignment) stands for: where `backward` stops and accumulates. */
  owner: Owner | null;
}

/** What the graph knows of a tensor cell; the Tensor class implements it. */
export interface Owner {
  readonly requiresGrad: boolean;
}

/** A function as a graph: its parameters are placeholders that occur nowhere else. */
export interface SubGraph {
  readonly params: readonly Node<"placeholder">[];
  readonly results: readonly Node[];
}

let nextId = 1;
/** The id that the next node will get: nodes made since a moment have an id not below it. */
export const peekId = (): number => nextId;

let nextUid = 1;
/** A fresh identity for leaves, aliases and regions. */
export const freshUid = (): number => nextUid++;

/** Makes a node from parts that are already checked; only primitives.ts and graph walks call it. */
export function rawNode<P extends Primitive>(
  op: P,
  src: readonly Node[],
  attrs: AttrsOf[P],
  dtype: DType,
  shape: Shape,
  device: DeviceName | null,
  recompute = 0,
): Node<P> {
  const made = { id: nextId++, op, src, attrs, dtype, shape, device, recompute, owner: null };
  if (observer) observer(made, differentiated, copied);
  return made;
}

/** Told of each new node, and of the node that a walk makes it of: as a part of its derivative, or in place of it. */
export type NodeObserver = (made: Node, differentiated: Node | null, copied: Node | null) => void;

let observer: NodeObserver | null = null;
let differentiated: Node | null = null;
let copied: Node | null = null;

/** Tells `observe` of every node from now on; returns who was told before. */
export function observeNodes(observe: NodeObserver | null): NodeObserver | null {
  const before = observer;
  observer = observe;
  return before;
}

/** What follows is a part of n's derivative, until this is called again; returns what it was before. */
export function differentiating(n: Node | null): Node | null {
  const before = differentiated;
  differentiated = n;
  return before;
}

/** What follows takes n's place, until this is called again. */
export function copying(n: Node | null): void {
  copied = n;
}

/** Narrows a node to one primitive. */
export const is = <P extends Primitive>(node: Node, op: P): node is Node<P> => node.op === op;

/** JSON that tells apart what JSON merges: -0, NaN and the infinities. For keys, not for parsing. */
export const exactJson = (value: unknown): string =>
  // Kernels are megabytes of it, and a replacer makes JSON.stringify five times as slow (November 2026).
  isPlain(value)
    ? JSON.stringify(value)
    : JSON.stringify(value, (_, v) =>
        typeof v === "number" && !isPlain(v) ? `#${Object.is(v, -0) ? "-0" : v}` : v,
      );

/** Is there no number in it that JSON changes? */
function isPlain(value: unknown): boolean {
  if (typeof value === "number") return Number.isFinite(value) && !Object.is(value, -0);
  if (typeof value !== "object" || value === null) return true;
  for (const key in value) if (!isPlain((value as Record<string, unknown>)[key])) return false;
  return true;
}
