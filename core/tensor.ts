/**
 * @file Tensor: a cell that points at a value, a node of the graph. Operations make new cells; `assign` rebinds one
 * to version n+1 of its storage. This file keeps the rules of cells: who owns a leaf, which values somebody may
 * still read (so that no step overwrites them), gradient state, and what a compile trace sees instead. Operations
 * live in ops/ and are attached to the prototype; realising is realize.ts.
 */
import { cells, installCells, pendingCells } from "./cells.ts";
import { defaultDevice, deviceNamed } from "./device.ts";
import { type DType, isFloat, type TypedArray } from "./dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError, TransformError } from "./errors.ts";
import type { DeviceName, Node, Owner } from "./graph/node.ts";
import { is } from "./graph/node.ts";
import { bufferLeaf, node, placeholder } from "./graph/primitives.ts";
import { isGradEnabled } from "./mode.ts";
import { disposeCell, readCell } from "./realize.ts";
import { broadcast, formatShape, numel, type Shape, sameShape } from "./shape.ts";
import type { Handle } from "./storage.ts";
import { activeTrace, type CellState, cellState, refuseReading, type Trace } from "./trace.ts";
import { hooksOf, setHooks } from "./transform/hooks.ts";

export { enableGrad, isGradEnabled, noGrad } from "./mode.ts";
export { realize } from "./realize.ts";

/** Numbers (bool: booleans) nested as deep as the tensor has axes. */
export type Nested = number | boolean | Nested[];

export class Tensor implements Owner {
  #node: Node;
  /** The trace that made this tensor; null for one made outside. */
  readonly #trace: Trace | null;
  /** What the active trace knows of this cell, if it existed before. */
  #state: CellState | null = null;
  /** For the stand-in of a compiled function's argument: the argument. */
  #argument: Tensor | null = null;
  /** Nobody but this cell can reach the storage that it points at, so a step may overwrite it. */
  #exclusive: boolean;
  #requiresGrad = false;
  #grad: Tensor | null = null;
  /** Of a gradient: `.grad` has returned it to the program. */
  #held = false;
  #name: string | undefined;

  static {
    installCells({
      peek: (t) => t.#node,
      peekGrad: (t) => t.#grad,
      bind: (t, leaf, exclusive) => {
        t.#node = leaf;
        t.#exclusive = exclusive;
        leaf.owner ??= t;
      },
      bindGrad: (t, grad) => {
        t.#grad = grad;
      },
      isExclusive: (t) => t.#exclusive,
      isHeld: (grad) => grad.#held,
      isOutside: (t) => t.#trace !== activeTrace() || t.#argument !== null,
      standIn: (t) => {
        const { dtype, shape, device } = t.#node;
        const leaf = placeholder(dtype, shape, device, t.#name ?? "");
        const stand = new Tensor(leaf);
        leaf.owner = stand;
        stand.#requiresGrad = t.#requiresGrad;
        stand.#name = t.#name;
        stand.#argument = t;
        setHooks(stand, hooksOf(t) ?? []);
        return (stand.#state = { ...cellState(stand), valueLeaf: leaf });
      },
      leave: (state) => {
        const t = state.cell;
        state.valueAfter = t.#node;
        state.gradAfter = t.#grad;
        if (state.valueBefore) t.#node = state.valueBefore;
        if (state.gradSeen) t.#grad = state.gradBefore;
        t.#state = null;
      },
    });
  }

  /** Use `fromNode`, `leafTensor`, `uploadTensor` or a creation function. */
  constructor(value: Node, exclusive = false) {
    this.#node = value;
    this.#trace = activeTrace();
    this.#exclusive = exclusive;
    if (value.op === "buffer") value.owner ??= this;
  }

  /** The value as a graph node. Whoever reads it may keep this version: no step will overwrite it. */
  get node(): Node {
    const trace = activeTrace();
    if (this.#trace !== trace) return this.#fromOutside(trace);
    this.#exclusive = false;
    return this.#node;
  }

  get shape(): Shape {
    return this.#node.shape;
  }

  get dtype(): DType {
    return this.#node.dtype;
  }

  /** Where the value is, or will be computed. */
  get device(): DeviceName {
    return this.#node.device ?? defaultDevice().name;
  }

  /** A name for messages, such as a parameter's path. */
  get name(): string | undefined {
    return this.#name;
  }

  set name(name: string | undefined) {
    this.#name = name;
    if (is(this.#node, "buffer")) (this.#node.attrs.storage as Handle).name = name;
  }

  /** Whether `backward` accumulates a gradient in `.grad`. */
  get requiresGrad(): boolean {
    return this.#requiresGrad;
  }

  set requiresGrad(on: boolean) {
    if (on === this.#requiresGrad) return;
    if (on && !isFloat(this.dtype))
      throw new DTypeError(describe("requiresGrad", "a float dtype", this.#text(), "use .float()"));
    const trace = activeTrace();
    if (this.#trace !== trace || this.#argument)
      throw new TransformError(
        describe(
          "requiresGrad",
          "a change outside of compile",
          `one while "${trace?.name}" is traced, which a replay would not repeat`,
          "use detach() or noGrad() inside",
        ),
      );
    // A value that other cells share gets an identity of its own, where backward stops for this cell.
    if (on && this.#node.owner !== this) {
      this.#node = node("detach", [this.#node]);
      this.#node.owner = this;
    }
    this.#requiresGrad = on;
  }

  /** The gradient that `backward` has accumulated, a cell of the same shape; null forgets it. */
  get grad(): Tensor | null {
    const trace = activeTrace();
    if (trace && (this.#trace !== trace || this.#argument)) this.#enterGrad(trace, true);
    if (!trace && this.#grad) this.#grad.#held = true;
    return this.#grad;
  }

  set grad(grad: Tensor | null) {
    if (grad && (!sameShape(grad.shape, this.shape) || grad.dtype !== this.dtype))
      throw new ShapeError(describe("grad", this.#text(), grad.#text()));
    const trace = activeTrace();
    if (trace) {
      if (this.#trace !== trace || this.#argument) this.#enterGrad(trace, false);
    } else if (grad) pendingCells.add(this);
    this.#grad = grad;
  }

  /**
   * Makes this cell hold `value`: version n+1 of its storage, written when it is next realised. Broadcasts and casts
   * like PyTorch's `copy_`. Whoever has read the old version keeps it.
   */
  assign(value: Tensor): this {
    if (this.#requiresGrad && isGradEnabled())
      throw new TransformError(
        describe(
          "assign",
          "a tensor that needs no gradient",
          `a leaf that requires grad in an in-place operation: ${this.#text()}`,
          "wrap the update in noGrad(() => …)",
        ),
      );
    if (!(value instanceof Tensor))
      throw new ArgumentError(
        describe("assign", "a Tensor", String(value), "make one with tensor(data)"),
      );
    const trace = activeTrace();
    const old = this.#trace === trace ? this.#node : this.#fromOutside(trace);
    let source = value.node;
    if (source.dtype !== this.dtype) source = node("cast", [source], { dtype: this.dtype });
    if (!sameShape(source.shape, this.shape)) {
      const fit = broadcast(source.shape, this.shape);
      if (!fit || !sameShape(fit, this.shape))
        throw new ShapeError(
          describe("assign", `a value that broadcasts to ${this.#text()}`, value.#text()),
        );
      source = node("expand", [source], { shape: this.shape });
    }
    this.#node = node("assign", [old, recorded(source)]);
    this.#node.owner = this;
    if (!trace) pendingCells.add(this);
    return this;
  }

  /** A copy of the elements in row-major order (bool: 0 and 1; bf16: as f32), when they are computed. */
  data(): Promise<TypedArray> {
    refuseReading("data");
    if (this.#trace) this.#fromOutside(null);
    return readCell(this);
  }

  /** The only element. */
  item(): Promise<number | boolean> {
    if (numel(this.shape) !== 1)
      throw new ArgumentError(describe("item", "one element", this.#text(), "use data()"));
    return this.data().then(([x]) => (this.dtype === "bool" ? x !== 0 : x));
  }

  /** The elements as nested arrays, as deep as there are axes. */
  async tolist(): Promise<Nested> {
    const { shape, dtype } = this;
    const data = await this.data();
    let at = 0;
    const read = (axis: number): Nested => {
      if (axis === shape.length) return dtype === "bool" ? data[at++] !== 0 : data[at++];
      return Array.from({ length: shape[axis] }, () => read(axis + 1));
    };
    return read(0);
  }

  /**
   * Frees the value now instead of when it is garbage. Whatever was made of it must have been realised before: reading
   * it later throws.
   */
  dispose(): void {
    disposeCell(this);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** A cell of another scope is read or assigned: state of the active trace, or a leftover of a finished one. */
  #fromOutside(trace: Trace | null): Node {
    if (this.#trace !== null)
      throw new TransformError(
        describe(
          "tensor",
          "one made outside of compile, or returned by the compiled function",
          `${this.#text()} made while "${this.#trace.name}" was traced and left in a variable or field`,
          "return it, or assign() it to a tensor that exists before the call",
        ),
      );
    const state = this.#stateIn(trace!);
    if (!state.valueLeaf) {
      // For the rest of the trace a leaf stands for what the cell will hold at each replay.
      const { dtype, shape, device } = this.#node;
      const leaf = placeholder(dtype, shape, device, this.#name ?? "");
      leaf.owner = this;
      state.valueLeaf = leaf;
      state.valueBefore = this.#node;
      this.#node = leaf;
    }
    return this.#node;
  }

  /** The gradient of such a cell: from now on `#grad` is the trace's. */
  #enterGrad(trace: Trace, read: boolean): void {
    const state = this.#stateIn(trace);
    if (state.gradSeen) return;
    const before = (this.#argument ?? this).#grad;
    state.gradSeen = true;
    state.gradRead = read;
    state.gradBefore = before;
    this.#grad = null;
    if (!read || !before) return;
    const { dtype, shape, device } = before.#node;
    state.gradLeaf = placeholder(dtype, shape, device, `${this.#name ?? ""}.grad`);
    this.#grad = new Tensor(state.gradLeaf);
    state.gradLeaf.owner = this.#grad;
  }

  #stateIn(trace: Trace): CellState {
    if (!this.#state) {
      this.#state = cellState(this);
      trace.states.push(this.#state);
    }
    return this.#state;
  }

  #text(): string {
    return `${this.#name ? `${this.#name} ` : ""}${this.dtype}${formatShape(this.shape)}`;
  }
}

/** In noGrad a result is a constant to `backward`. */
const recorded = (n: Node): Node =>
  isGradEnabled() || n.op === "detach" || (n.src.length === 0 && !n.owner)
    ? n
    : node("detach", [n]);

/** The result of an operation. */
export const fromNode = (n: Node): Tensor => new Tensor(recorded(n));

/** A cell for a node as it is, also in noGrad. */
export const leafTensor = (n: Node): Tensor => new Tensor(n);

/** In-place methods of results: the cell holds `n` from now on, which may have another shape. */
export function rebind(t: Tensor, n: Node): void {
  // Reading first makes the cell state of the active trace, if there is one.
  void t.node;
  cells.bind(t, n, false);
}

/** A new leaf with a copy of `data`, in row-major order. */
export function uploadTensor(
  data: TypedArray,
  dtype: DType,
  shape: Shape,
  device: DeviceName = defaultDevice().name,
): Tensor {
  const handle = deviceNamed(device).upload(data, dtype, shape);
  return new Tensor(bufferLeaf(handle, dtype, shape, device), true);
}

/** A copy of `t` on another device; the same tensor if it is there. Without gradient history. */
export async function toDevice(t: Tensor, device: DeviceName): Promise<Tensor> {
  if (t.device === device) return t;
  return uploadTensor(await t.data(), t.dtype, t.shape, device);
}
