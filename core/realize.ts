/**
 * @file Realising: turns what cells point at into values on a device. One realisation takes along everything that is
 * pending there (assignments, accumulated gradients) and every value that a cell on the way owns, such as
 * a parameter's initial value, which would be computed again at each use otherwise.
 *
 * A realised node keeps its place in the graph, so `await loss.item(); loss.backward()` works. A cell whose value
 * no gradient can flow through is pointed at the buffer instead: its history is garbage from then on.
 */
import { cells, pendingCells } from "./cells.ts";
import {
  attach,
  type Device,
  defaultDevice,
  deviceNamed,
  firstVersion,
  handleOf,
} from "./device.ts";
import type { TypedArray } from "./dtype.ts";
import { TransformError } from "./errors.ts";
import type { Node } from "./graph/node.ts";
import { bufferLeaf } from "./graph/primitives.ts";
import type { Handle } from "./storage.ts";
import type { Tensor } from "./tensor.ts";
import { refuseReading } from "./trace.ts";

export interface RealizeOptions {
  /** Takes the run out of the queue if it was not submitted yet. */
  readonly signal?: AbortSignal;
}

const deviceOf = (t: Tensor): Device => {
  const { device } = cells.peek(t);
  return device ? deviceNamed(device) : defaultDevice();
};

/** Points `cell` at a fresh leaf for `handle`. */
export function bindHandle(cell: Tensor, handle: Handle, exclusive: boolean): void {
  if (cell.name !== undefined) handle.name = cell.name;
  cells.bind(cell, bufferLeaf(handle, handle.dtype, handle.shape, handle.device), exclusive);
}

/**
 * Records and enqueues what the cells need. `counts`: the run is a step that nobody awaits. Afterwards
 * `handleOf(cells.peek(t))` is a handle for each of them.
 */
export function realizeOn(
  device: Device,
  tensors: Iterable<Tensor>,
  { signal, counts }: RealizeOptions & { counts: boolean },
): void {
  const roots: Node[] = [];
  const targets: { cell: Tensor; cut: boolean }[] = [];
  const added = new Set<Tensor>();
  const add = (cell: Tensor, cut: boolean): void => {
    const n = cells.peek(cell);
    if (added.has(cell) || handleOf(n)) return;
    added.add(cell);
    roots.push(n);
    targets.push({ cell, cut });
  };
  const pending = [...pendingCells].filter((cell) => deviceOf(cell) === device);
  for (const cell of pending) {
    add(cell, true);
    const grad = cells.peekGrad(cell);
    if (grad) add(grad, true);
  }
  for (const t of tensors) add(t, false);
  const owned = (n: Node): void => {
    const cell = n.owner as Tensor;
    if (cells.peek(cell) === n) add(cell, true);
  };
  if (roots.length > 0) {
    try {
      const handles = device.evaluate(roots, { owned, signal, counts });
      for (const [i, { cell, cut }] of targets.entries()) {
        attach(roots[i], handles[i]);
        if (cut || !handles[i].history) bindHandle(cell, handles[i], false);
      }
    } catch (error) {
      dropBroken(device, pending);
      throw error;
    }
  }
  for (const cell of pending) pendingCells.delete(cell);
}

/**
 * A pending value that cannot be computed must not spoil every later realisation: its cell goes back a version, and a
 * gradient is forgotten.
 */
function dropBroken(device: Device, pending: readonly Tensor[]): void {
  const broken = (t: Tensor): boolean => {
    try {
      device.canonical([cells.peek(t)]);
      return false;
    } catch (error) {
      return error instanceof TransformError;
    }
  };
  for (const cell of pending) {
    const grad = cells.peekGrad(cell);
    if (grad && broken(grad)) cells.bindGrad(cell, null);
    if (!broken(cell)) continue;
    cells.bind(cell, firstVersion(cells.peek(cell)), false);
    pendingCells.delete(cell);
  }
}

/**
 * Computes the tensors' values together, and everything that is pending. The work is recorded and queued at the call;
 * the promise resolves when it is done, and need not be awaited.
 */
export function realize(...args: (Tensor | RealizeOptions)[]): Promise<void> {
  refuseReading("realize");
  const tensors = args.filter((a): a is Tensor => "dtype" in a);
  const options = args.find((a): a is RealizeOptions => !("dtype" in a)) ?? {};
  const groups = new Map<Device, Tensor[]>();
  for (const t of tensors.length > 0 ? tensors : pendingCells) {
    const device = deviceOf(t);
    if (!groups.has(device)) groups.set(device, []);
    groups.get(device)!.push(t);
  }
  for (const device of groups.keys()) device.queue.checkRoom("realize");
  const done = [...groups].map(([device, group]) => {
    realizeOn(device, group, { ...options, counts: true });
    return device.finished(group.map((t) => handleOf(cells.peek(t))!));
  });
  const all = Promise.all(done).then(() => {});
  // Whoever does not await it learns of a failure when a value is read.
  all.catch(() => {});
  return all;
}

export function readCell(t: Tensor): Promise<TypedArray> {
  const device = deviceOf(t);
  if (!handleOf(cells.peek(t))) realizeOn(device, [t], { counts: false });
  return device.read(handleOf(cells.peek(t))!);
}

export function disposeCell(t: Tensor): void {
  const n = cells.peek(t);
  const handle = handleOf(n);
  // A leaf that belongs to another cell is that cell's to free (x.float() of an f32 tensor is x's own leaf).
  if (!handle || (n.owner && n.owner !== t)) return;
  deviceOf(t).dispose(handle);
}
