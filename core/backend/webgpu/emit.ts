/**
 * @file Commands (commands.ts) from kernels (code.ts): every storage gets a place in the table of a run, scratch values a
 * life, small constants a place in the uniforms.
 */
import { bytesOf, dtypes } from "../../dtype.ts";
import type { Node } from "../../graph/node.ts";
import type { Temporary } from "../../kernel/gpu/lower.ts";
import type { Lifetime } from "../../schedule/memory.ts";
import type { Plan } from "../../schedule/schedule.ts";
import { numel } from "../../shape.ts";
import type { KernelReport } from "../backend.ts";
import { padded } from "./buffers.ts";
import { align, type Code, type Host, type Ready, uniformStride } from "./code.ts";
import { type BoundBuffer, type Command, type Copy, Dispatch, type Ref } from "./commands.ts";
import { emitLoop } from "./emit-loop.ts";
import type { KernelSource, Pipeline } from "./pipelines.ts";
import { copyBytes, copyBytesWorkgroups, flagStride, guarded } from "./utility.ts";

/** Where the parts of a run's table begin; slots come first. */
export interface TableLayout {
  readonly outputs: Ref;
  /** Error flags of this run. */
  readonly flags: Ref;
  readonly guard: Ref;
  /** Run-time scalars and other small constants. */
  readonly uniforms: Ref;
  readonly values: Ref;
}

/** Where a plan's slots and outputs are. */
export interface Frame {
  readonly plan: Plan;
  readonly slots: readonly Ref[];
  readonly outputs: readonly Ref[];
  readonly scratch: Map<Node, Ref>;
}

interface Life extends Lifetime {
  last: number;
}

export class Emitter {
  readonly table: TableLayout;
  readonly pipelines = new Set<Pipeline>();
  readonly lives: Life[] = [];
  /** Words of the uniforms behind the scalars, written once. */
  readonly constants: number[] = [];
  /** Outputs that begin as a copy of an input, where they are not that storage itself. */
  readonly begun = new Map<Ref, Ref>();
  /** Numbers the commands as they are emitted: the clock of lives. */
  now = 0;
  readonly #host: Host;
  readonly #constantsAt: number;

  /** `constantsAt`: bytes of the scalars, which the uniforms begin with. */
  constructor(table: TableLayout, host: Host, constantsAt: number) {
    this.table = table;
    this.#host = host;
    this.#constantsAt = constantsAt;
  }

  ref(frame: Frame, n: Node): Ref {
    const place = frame.plan.places.get(n);
    if (!place) throw new Error(`webgpu: ${n.op} has no place`);
    if (place.k === "slot") return frame.slots[place.slot];
    if (place.k === "output") return frame.outputs[place.output];
    let ref = frame.scratch.get(n);
    if (ref === undefined) frame.scratch.set(n, (ref = this.value(bytesOf(n))));
    return ref;
  }

  /** A new scratch value, which lives from now on. */
  value(bytes: number): Ref {
    this.lives.push({ bytes: padded(bytes), first: this.now, last: this.now });
    return this.table.values + this.lives.length - 1;
  }

  /** The value is in use now. */
  touch(ref: Ref): void {
    if (ref >= this.table.values) this.lives[ref - this.table.values].last = this.now;
  }

  dispatch(
    source: KernelSource,
    workgroups: number,
    bindings: readonly BoundBuffer[],
    kernel: KernelReport | null = null,
  ): Dispatch {
    const pipeline = this.#host.compile(source);
    this.pipelines.add(pipeline);
    this.now++;
    for (const { ref } of bindings) this.touch(ref);
    return new Dispatch(pipeline, bindings, workgroups, this.#host.maxWorkgroups, kernel);
  }

  copy(copy: Omit<Copy, "k">): Copy {
    this.now++;
    this.touch(copy.from);
    this.touch(copy.to);
    return { k: "copy", ...copy };
  }

  /** Appends the commands of a step; `guard`: they write state, and do nothing once a kernel before has failed. */
  emit(frame: Frame, item: Ready, into: Command[], guard = false): void {
    if (item.k === "loop") {
      emitLoop(this, frame, item, into, guard);
      return;
    }
    const { base, group } = item.step;
    if (base) {
      const [updated] = group.stores.keys();
      const [from, to] = [this.ref(frame, base), this.ref(frame, updated)];
      if (from !== to && this.begun.get(to) !== from)
        into.push(this.copy(wholeCopy(from, to, bytesOf(base))));
    }
    const temporaries = new Map<Temporary, Ref>();
    const refOf = (b: Node | Temporary): Ref => {
      if ("op" in b) return this.ref(frame, b);
      let ref = temporaries.get(b);
      if (ref === undefined) temporaries.set(b, (ref = this.value(b.size * dtypes[b.dtype].bytes)));
      return ref;
    };
    for (const code of item.code) this.#emitCode(code, refOf, into, guard);
  }

  #emitCode(
    { wgsl, stage, report, buffers, scalars, flag }: Code,
    refOf: (b: Node | Temporary) => Ref,
    into: Command[],
    guard: boolean,
  ): void {
    const { table } = this;
    const { kernel } = stage;
    const back: Copy[] = [];
    const bindings: BoundBuffer[] = buffers.map((b, i) => {
      const { size, dtype } = kernel.buffers[i];
      const bytes = padded(size * dtypes[dtype].bytes);
      if (!("pack" in b)) return { ref: refOf(b), offset: 0, bytes };
      const ref = this.value(bytes);
      b.pack.parts.forEach(({ offset }, j) => {
        const part = b.parts[j];
        const size = "op" in part ? numel(part.shape) : part.size;
        const copy = wholeCopy(refOf(part), ref, size * dtypes[part.dtype].bytes);
        const at = offset * dtypes[dtype].bytes;
        into.push(this.copy({ ...copy, toOffset: at }));
        if (b.pack.access === "readwrite")
          back.push({ ...copy, from: ref, fromOffset: at, to: copy.from });
      });
      return { ref, offset: 0, bytes };
    });
    const kinds: KernelSource["bindings"][number][] = [...wgsl.access];
    const add = (binding: number | null, kind: (typeof kinds)[number], bound: BoundBuffer) => {
      if (binding === null) return;
      kinds[binding] = kind;
      bindings[binding] = bound;
    };
    const bytes = align(4 * kernel.scalars, 16);
    add(wgsl.scalars, "uniform", { ref: table.uniforms, offset: scalars, bytes });
    add(wgsl.errors, "readwrite", { ref: table.flags, offset: flagStride * flag, bytes: 8 });
    let source: KernelSource = { name: kernel.name, code: wgsl.code, bindings: kinds };
    if (guard) {
      source = guarded(source);
      bindings.push({ ref: table.guard, offset: 0, bytes: 16 });
    }
    into.push(this.dispatch(source, wgsl.workgroups, bindings, report));
    for (const copy of back) into.push(this.copy(copy));
  }

  copyBytes(
    from: Ref,
    fromAt: number,
    to: Ref,
    toAt: number,
    bytes: number,
    guard = false,
  ): Dispatch {
    const { uniforms, guard: guardRef } = this.table;
    const at = this.constants.length * 4;
    this.constants.push(fromAt, toAt, bytes);
    while (this.constants.length % (uniformStride / 4) !== 0) this.constants.push(0);
    const end = (start: number) => ({ offset: 0, bytes: padded(start + bytes) });
    const bindings: BoundBuffer[] = [
      { ref: from, ...end(fromAt) },
      { ref: to, ...end(toAt) },
      { ref: uniforms, offset: this.#constantsAt + at, bytes: 16 },
    ];
    if (guard) bindings.push({ ref: guardRef, offset: 0, bytes: 16 });
    const source = guard ? guarded(copyBytes) : copyBytes;
    return this.dispatch(source, copyBytesWorkgroups(bytes), bindings);
  }

  guardedCopy({ from, to, bytes }: Copy): Dispatch {
    return this.copyBytes(from, 0, to, 0, bytes, true);
  }
}

/** All of a value. Storages are padded, so copies may be rounded up to words. */
export const wholeCopy = (from: Ref, to: Ref, bytes: number): Copy => ({
  k: "copy",
  from,
  fromOffset: 0,
  to,
  toOffset: 0,
  bytes: align(bytes, 4),
});
