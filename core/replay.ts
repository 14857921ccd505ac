/**
 * @file A compiled step, ready to run again: which cells fill its inputs, where its outputs go, which storages it may
 * overwrite. A replay touches only arrays that were laid out when the function was traced, because its host
 * cost is paid at every step; it calls nothing of the user's but guards and random generators.
 */
import type { Executable } from "./backend/backend.ts";
import { cells } from "./cells.ts";
import { type Device, handleOf } from "./device.ts";
import type { DType } from "./dtype.ts";
import { DeviceError, describe } from "./errors.ts";
import { bufferLeaf } from "./graph/primitives.ts";
import { bindHandle, realizeOn } from "./realize.ts";
import { type Shape, sameShape } from "./shape.ts";
import type { StepIo } from "./step.ts";
import { Handle } from "./storage.ts";
import { Tensor } from "./tensor.ts";
import type { Draw } from "./trace.ts";
import { hooksOf, type NodeHook } from "./transform/hooks.ts";

/** A cell of the step: one that the function captured, or (null) the tensor passed as argument `index`. */
export interface CellRef {
  readonly cell: Tensor | null;
  readonly index: number;
}

/** A cell's value or its gradient. */
export interface Part extends CellRef {
  readonly grad: boolean;
}

/** Read from a cell at each replay, unless it is a value that the trace captured without a cell. */
export interface InputRef extends Part {
  readonly handle: Handle | null;
}

/** Who receives output `output`: result number `result`, or (-1) a cell as its next version. */
export interface OutputRef extends Part {
  readonly output: number;
  readonly result: number;
  /** The slot of the cell's version before; -1 when it is not read. */
  readonly input: number;
  readonly dtype: DType;
  readonly shape: Shape;
}

/** What must hold of a cell for the plan to hold. */
export interface CellGuard extends CellRef {
  readonly requiresGrad: boolean;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly hooks: readonly NodeHook[] | null;
  /** Whether it had a gradient, if the function asked. */
  readonly hasGrad: boolean | null;
}

export interface ReplayParts {
  readonly device: Device;
  readonly executable: Executable;
  readonly inputs: readonly InputRef[];
  /** Sorted by `output`. */
  readonly outputs: readonly OutputRef[];
  readonly results: number;
  readonly guards: readonly (() => boolean)[];
  readonly cellGuards: readonly CellGuard[];
  /** Cells that the function met otherwise than through its arguments. */
  readonly captured: ReadonlySet<Tensor>;
  /** For each argument the captured cell that it must be, or null: then it must be none of them. */
  readonly own: readonly (Tensor | null)[];
  /** Cells whose gradient the function forgot. */
  readonly cleared: readonly CellRef[];
  /** How each traced random leaf draws its counter, in the order of creation. */
  readonly randoms: readonly (() => Draw)[];
  /** For each of `randoms` the plan's random leaves that it fills: none if it is unused. */
  readonly positions: readonly (readonly number[])[];
  /** The words as the trace drew them. */
  readonly words: Uint32Array;
}

let stamps = 0;

export class Replay {
  readonly parts: ReplayParts;
  /** Which output fills each of the handles that a run passes on. */
  readonly #outputOf: readonly number[];

  constructor(parts: ReplayParts) {
    this.parts = parts;
    this.#outputOf = parts.outputs.map((ref) => ref.output);
  }

  /** Whether the plan holds now. */
  accepts(args: readonly Tensor[]): boolean {
    const { cellGuards, guards, captured, own, device } = this.parts;
    if (device.backend.lost) return false;
    for (let i = 0; i < own.length; i++)
      if (own[i] ? args[i] !== own[i] : captured.has(args[i])) return false;
    for (let i = 0; i < cellGuards.length; i++) {
      const guard = cellGuards[i];
      const cell = guard.cell ?? args[guard.index];
      if (cell.requiresGrad !== guard.requiresGrad || hooksOf(cell) !== guard.hooks) return false;
      const { dtype, shape } = cells.peek(cell);
      if (dtype !== guard.dtype) return false;
      if (shape !== guard.shape && !sameShape(shape, guard.shape)) return false;
      if (guard.hasGrad !== null && (cells.peekGrad(cell) !== null) !== guard.hasGrad) return false;
    }
    for (let i = 0; i < guards.length; i++) if (!guards[i]()) return false;
    return true;
  }

  /** Enqueues the step; `words` are the random words of the call that was traced. */
  run(name: string, args: readonly Tensor[], words?: Uint32Array): Tensor[] {
    const { device, executable, cleared, outputs } = this.parts;
    device.queue.checkRoom(name);
    const inputs = this.#inputs(args);
    const io = new Io(inputs, words ?? this.#draw());
    const results = new Array<Tensor>(this.parts.results);
    for (let i = 0; i < outputs.length; i++) {
      const ref = outputs[i];
      if (ref.result < 0) io.outputs[i] = this.#state(ref, args, io);
      else {
        io.outputs[i] = new Handle(device.name, ref.dtype, ref.shape);
        io.tells = true;
        results[ref.result] = leafOf(io.outputs[i]);
      }
    }
    if (outputs.length > 0) device.submit(executable, this.#outputOf, io, true);
    for (const ref of cleared) cells.bindGrad(ref.cell ?? args[ref.index], null);
    return results;
  }

  #inputs(args: readonly Tensor[]): Handle[] {
    const { device, inputs: refs } = this.parts;
    const inputs = new Array<Handle>(refs.length);
    let missing: Tensor[] | undefined;
    for (let i = 0; i < refs.length; i++) {
      const ref = refs[i];
      const target = ref.handle ? null : tensorOf(ref, args)!;
      const handle = ref.handle ?? handleOf(cells.peek(target!));
      if (!handle) (missing ??= []).push(target!);
      else if (handle.device === device.name) inputs[i] = handle;
      else throw new DeviceError(describe("compile", `tensors on ${device.name}`, handle.device));
    }
    if (!missing) return inputs;
    realizeOn(device, missing, { counts: false });
    return this.#inputs(args);
  }

  #draw(): Uint32Array {
    const { randoms, positions } = this.parts;
    const words = this.parts.words.slice();
    for (let i = 0; i < randoms.length; i++) {
      const { key, counter } = randoms[i]();
      for (const position of positions[i]) {
        words[3 * position] = key[0];
        words[3 * position + 1] = key[1];
        words[3 * position + 2] = counter;
      }
    }
    return words;
  }

  /** Where a cell's next version goes: into its own storage wherever that is safe, and then nothing is bound anew. */
  #state(ref: OutputRef, args: readonly Tensor[], io: Io): Handle {
    const current = tensorOf(ref, args);
    const old = current && handleOf(cells.peek(current));
    // A gradient made anew, not added to: whoever was given the one before keeps it.
    const target = ref.grad && ref.input < 0 && current && cells.isHeld(current) ? null : current;
    if (old && target && cells.isExclusive(target) && !old.disposed) {
      if (ref.input >= 0) {
        if (old.stamp === io.stamp) {
          io.donate[ref.input] = true;
          return old;
        }
      } else if (old.stamp !== io.stamp && old.stamp !== -io.stamp) {
        (io.overwritten ??= []).push(old);
        return old;
      }
    }
    const fresh = new Handle(this.parts.device.name, ref.dtype, ref.shape);
    if (old) (io.previous ??= []).push([fresh, old]);
    if (target) bindHandle(target, fresh, true);
    else {
      const cell = ref.cell ?? args[ref.index];
      const grad = leafOf(fresh);
      if (cell.name) grad.name = `${cell.name}.grad`;
      cells.bindGrad(cell, grad);
    }
    return fresh;
  }
}

/** What one run reads and writes. */
class Io implements StepIo {
  readonly inputs: readonly Handle[];
  readonly words: Uint32Array;
  readonly donate: boolean[];
  readonly outputs: Handle[] = [];
  overwritten: Handle[] | undefined;
  previous: [Handle, Handle][] | undefined;
  tells = false;
  /** Marks this run's inputs; negative on a handle that two of them share, which must keep its contents. */
  readonly stamp = ++stamps;

  constructor(inputs: readonly Handle[], words: Uint32Array) {
    this.inputs = inputs;
    this.words = words;
    this.donate = new Array<boolean>(inputs.length);
    for (let i = 0; i < inputs.length; i++) {
      const handle = inputs[i];
      const seen = handle.stamp === this.stamp || handle.stamp === -this.stamp;
      handle.stamp = seen ? -this.stamp : this.stamp;
      this.donate[i] = false;
    }
  }
}

const tensorOf = (ref: Part, args: readonly Tensor[]): Tensor | null => {
  const cell = ref.cell ?? args[ref.index];
  return ref.grad ? cells.peekGrad(cell) : cell;
};

const leafOf = (handle: Handle): Tensor =>
  new Tensor(bufferLeaf(handle, handle.dtype, handle.shape, handle.device), true);
