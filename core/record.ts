/**
 * @file Recording: runs a function once inside a trace and writes down what became of it: the values it returns, the
 * next version of every cell and gradient that it changed, and what must hold for the record to be valid again.
 */
import { type Canonical, canonicalize } from "./canonical.ts";
import { cells } from "./cells.ts";
import { handleOf, refusePlaceholder } from "./device.ts";
import { describe, TransformError } from "./errors.ts";
import { is, type Node } from "./graph/node.ts";
import { node } from "./graph/primitives.ts";
import type { CellGuard, CellRef, Part } from "./replay.ts";
import { formatShape } from "./shape.ts";
import type { Handle } from "./storage.ts";
import type { Tensor } from "./tensor.ts";
import { runTrace, Trace } from "./trace.ts";
import { hooksOf } from "./transform/hooks.ts";
import { flatten, type TreeSpec, unflatten } from "./tree.ts";

/** What one run of the function recorded. */
export interface Recorded {
  readonly trace: Trace;
  readonly roots: readonly Node[];
  /** Who receives each root. */
  readonly targets: readonly Target[];
  readonly result: TreeSpec;
  readonly results: number;
  readonly cleared: readonly CellRef[];
  /** Leaves that stand for cells. */
  readonly leaves: ReadonlyMap<Node, Part>;
  readonly cellGuards: readonly CellGuard[];
  /** Cells that the function met otherwise than through its arguments. */
  readonly captured: ReadonlySet<Tensor>;
}

export interface Target extends Part {
  /** Which tensor of the result, or -1: the root is a cell's next version. */
  readonly result: number;
  /** What stands for the version before. */
  readonly leaf: Node | null;
}

export const NO_CELL: Part = { cell: null, index: -1, grad: false };

/**
 * Runs the function on stand-ins, one for each cell among the arguments, and notes what became of every cell. A cell
 * that is passed and also captured must be one cell inside too: then the function runs again and gets that cell itself.
 */
export function record(
  fn: (...args: unknown[]) => unknown,
  name: string,
  tensors: readonly Tensor[],
  spec: TreeSpec,
): Recorded {
  const recorded = recordWith(fn, name, tensors, spec, new Set());
  const own = new Set(tensors.filter((t) => recorded.captured.has(t)));
  if (own.size === 0) return recorded;
  undoDraws(recorded.trace);
  return recordWith(fn, name, tensors, spec, own);
}

/** `own`: arguments that stand for themselves. */
function recordWith(
  fn: (...args: unknown[]) => unknown,
  name: string,
  tensors: readonly Tensor[],
  spec: TreeSpec,
  own: ReadonlySet<Tensor>,
): Recorded {
  const trace = new Trace(name);
  const roots: Node[] = [];
  const targets: Target[] = [];
  const cleared: CellRef[] = [];
  let result: TreeSpec = { k: "static", value: undefined };
  let results = 0;
  // The first states are those of the stand-ins.
  const standing = [...new Set(tensors)].filter((t) => !own.has(t));
  const cellRef = (i: number): CellRef =>
    i < standing.length
      ? { cell: null, index: tensors.indexOf(standing[i]) }
      : { cell: trace.states[i].cell, index: -1 };
  runTrace(trace, () => {
    try {
      for (const t of standing) trace.states.push(cells.standIn(t));
      const stands = new Map(standing.map((t, i) => [t, trace.states[i].cell]));
      const inner = tensors.map((t) => stands.get(t) ?? t);
      const value = fn(...(unflatten(spec, inner) as unknown[]));
      if (value instanceof Promise) {
        value.catch(() => {});
        throw new TransformError(
          describe(name, "a synchronous function", "one that returns a promise"),
        );
      }
      const flat = flatten(value);
      result = flat.spec;
      results = flat.tensors.length;
      for (const [i, t] of flat.tensors.entries()) {
        roots.push(t.node);
        targets.push({ ...NO_CELL, result: i, leaf: null });
      }
      // Reading a gradient may meet new cells, which join the end of the list that is walked here.
      for (const [i, state] of trace.states.entries()) {
        if (!state.gradSeen) continue;
        const of = cellRef(i);
        const grad = cells.peekGrad(state.cell);
        // Only the cell that the step began with is written again; one that replaced it is new at each call.
        const leaf = state.gradLeaf?.owner === grad ? state.gradLeaf : null;
        if (!grad) cleared.push(of);
        else if (grad.node !== leaf) {
          roots.push(leaf ? node("assign", [leaf, grad.node]) : grad.node);
          targets.push({ ...of, grad: true, result: -1, leaf });
        }
      }
    } finally {
      for (const state of trace.states) cells.leave(state);
    }
  });
  const leaves = new Map<Node, Part>();
  const cellGuards: CellGuard[] = [];
  for (const [i, state] of trace.states.entries()) {
    const { cell, valueLeaf, valueAfter, gradLeaf, gradRead, gradBefore } = state;
    const of = cellRef(i);
    if (gradLeaf) leaves.set(gradLeaf, { ...of, grad: true });
    const hasGrad = gradRead ? gradBefore !== null : null;
    // Shapes and flags of arguments are part of the signature.
    if (of.cell || hasGrad !== null)
      cellGuards.push({
        ...of,
        requiresGrad: cell.requiresGrad,
        dtype: cell.dtype,
        shape: cell.shape,
        hasGrad,
        hooks: hooksOf(cell),
      });
    if (!valueLeaf) continue;
    leaves.set(valueLeaf, { ...of, grad: false });
    if (valueAfter === valueLeaf) continue;
    roots.push(is(valueAfter!, "assign") ? valueAfter : node("assign", [valueLeaf, valueAfter!]));
    targets.push({ ...of, grad: false, result: -1, leaf: valueLeaf });
  }
  const captured = new Set(trace.states.slice(standing.length).map((s) => s.cell));
  return { trace, roots, targets, result, results, cleared, leaves, cellGuards, captured };
}

export const canonical = ({ roots, leaves }: Recorded): Canonical<Node | Handle> =>
  canonicalize<Node | Handle>(roots, {
    slotOf: (n) => {
      if (leaves.has(n)) return n;
      if (n.op === "placeholder") refusePlaceholder(n);
      return handleOf(n);
    },
    hasHistory: () => false,
  });

/** Gives back the counters that a trace has drawn without running. */
export function undoDraws(trace: Trace): void {
  for (const { undo } of [...trace.randoms].reverse()) undo?.();
}

/** Reports the first value that two traces computed differently. */
export function compare(name: string, a: Canonical<object>, b: Canonical<object>): void {
  if (a.key === b.key) return;
  let i = 0;
  while (i < a.lines.length && a.lines[i] === b.lines[i]) i++;
  const text = (c: Canonical<object>): string => {
    const n = c.nodes[i];
    if (!n) return "no further operation";
    return `${n.op} ${n.dtype}${formatShape(n.shape)} (${c.lines[i]})`;
  };
  throw new TransformError(
    describe(
      name,
      "the same graph from two traces",
      `a difference: first ${text(a)}, then ${text(b)}`,
      "a number that changes from call to call (Math.random, a counter) must be a tensor",
    ),
  );
}
