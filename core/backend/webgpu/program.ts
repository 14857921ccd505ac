/**
 * @file From a plan to commands (commands.ts): kernels lowered, printed and sent to the compiler, every storage given a
 * place in the table of a run, scratch values given whole buffers that are shared by disjoint lives.
 *
 * Two rules of WebGPU shape this file. A dispatch may not bind one buffer both read-only and writable, so where an output
 * takes over an input's storage the kernel's two buffers become one, and a run that may not overwrite copies the old
 * value into the new storage first: then the same kernel serves both. And errors are learned after the fact, so kernels
 * that write state look at a guard that an invalid index before them has set.
 */

import { dtypes } from "../../dtype.ts";
import { describe, LimitError } from "../../errors.ts";
import type { Node } from "../../graph/node.ts";
import {
  type GpuLowered,
  lowerForGpu,
  type Stage,
  type Temporary,
} from "../../kernel/gpu/lower.ts";
import type { Choose } from "../../kernel/gpu/matmul-tile.ts";
import type { GpuTarget } from "../../kernel/gpu/target.ts";
import type { Kernel } from "../../kernel/ir.ts";
import { formatKernel } from "../../kernel/print.ts";
import { mergeBuffers, type Pack, packBuffers } from "../../kernel/rebind.ts";
import { type Lifetime, planBuffers } from "../../schedule/memory.ts";
import { bytesOf, type Plan, type Step } from "../../schedule/schedule.ts";
import { formatShape, numel } from "../../shape.ts";
import type { KernelReport } from "../backend.ts";
import { padded } from "./buffers.ts";
import { type BoundBuffer, type Command, type Copy, Dispatch, type Ref } from "./commands.ts";
import type { KernelSource, Pipeline } from "./pipelines.ts";
import { copyBytes, copyBytesWorkgroups, flagStride, guarded, raiseGuard } from "./utility.ts";
import { printWgsl, type Wgsl } from "./wgsl.ts";

/** What a program needs of its backend. */
export interface Host {
  readonly target: GpuTarget;
  /** Which form matrix products take. */
  readonly choose: Choose;
  readonly maxBindingBytes: number;
  readonly maxWorkgroups: number;
  compile(source: KernelSource): Pipeline;
}

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

/** A kernel that checks positions: which flag it raises, and what to say then. */
export interface CheckedKernel {
  readonly name: string;
  readonly sizes: readonly number[];
  /** When it fails, no state has been overwritten yet. */
  stateIntact: boolean;
}

/** A stage with its kernel's final form. */
interface Code {
  readonly stage: Stage;
  /** What explain() and the profiler tell of it. */
  readonly report: KernelReport;
  readonly wgsl: Wgsl;
  readonly buffers: readonly (Node | Temporary | PackOf)[];
  /** Byte offset of its scalars in the uniforms. */
  readonly scalars: number;
  /** Its number among the kernels that check positions; -1 without. */
  readonly flag: number;
}

/** Several buffers of a kernel copied together. */
interface PackOf {
  readonly pack: Pack;
  readonly parts: readonly (Node | Temporary)[];
}

/** A step made ready, so that loops emit their bodies several times but compile them once. */
type Ready =
  | {
      readonly k: "group";
      readonly step: Extract<Step, { k: "group" }>;
      readonly code: readonly Code[];
      readonly lowered: GpuLowered;
    }
  | {
      readonly k: "loop";
      readonly step: Extract<Step, { k: "loop" }>;
      readonly body: readonly Ready[];
    };

const align = (n: number, to: number): number => Math.ceil(n / to) * to;
const uniformStride = 256;

/** Where a plan's slots and outputs are. */
interface Frame {
  readonly plan: Plan;
  readonly slots: readonly Ref[];
  readonly outputs: readonly Ref[];
  readonly scratch: Map<Node, Ref>;
}

export class Program {
  readonly plan: Plan;
  readonly table: TableLayout;
  readonly commands: readonly Command[];
  readonly pipelines: ReadonlySet<Pipeline>;
  readonly reports: KernelReport[] = [];
  /** Which slot's storage output i may take over. */
  readonly overwrites: readonly (number | null)[];
  /** The kernels that check positions, by flag. */
  readonly checked: CheckedKernel[] = [];
  /** Whether some outputs are the next versions of inputs. */
  readonly hasState: boolean;
  /** Bytes of the scratch buffers, largest first, and which of them each value has. */
  readonly scratch: { readonly sizes: readonly number[]; readonly buffer: readonly number[] };
  /** Bytes of the uniforms; the constant words at their end are written once. */
  readonly uniformBytes: number;
  readonly constants: Uint32Array;
  readonly constantsAt: number;
  /** For each scalar block: its first word and the random leaves (their numbers in the graph) that fill it. */
  readonly scalars: readonly { readonly word: number; readonly randoms: readonly number[] }[];

  readonly #host: Host;
  readonly #randoms: readonly Node<"random">[];
  readonly #scalars: { word: number; randoms: number[] }[] = [];
  #scalarBytes = 0;
  readonly #constants: number[] = [];
  readonly #lives: { bytes: number; first: number; last: number }[] = [];
  readonly #pipelines = new Set<Pipeline>();
  /** Outputs whose kernel reads the version before in the same binding. */
  readonly #merged = new Set<Node>();
  /** Outputs that begin as a copy of an input, where they are not that storage itself. */
  readonly #begun = new Map<Ref, Ref>();
  /** Numbers the commands as they are emitted: the clock of lives. */
  #now = 0;

  /** `state[i]`: the slot whose next version output i is, or null. */
  constructor(
    plan: Plan,
    randoms: readonly Node<"random">[],
    state: readonly (number | null)[],
    host: Host,
  ) {
    this.plan = plan;
    this.#host = host;
    this.#randoms = randoms;
    const outputs = plan.inputs.length;
    const flags = outputs + plan.outputs.length;
    this.table = { outputs, flags, guard: flags + 1, uniforms: flags + 2, values: flags + 3 };
    this.hasState = state.some((slot) => slot !== null);

    const producer = new Map<Node, Step>();
    for (const step of plan.steps) for (const n of step.group.stores.keys()) producer.set(n, step);
    const lowered = new Map<Step, GpuLowered>();
    this.overwrites = plan.outputs.map(({ first, overwrites }) => {
      const step = producer.get(first);
      if (overwrites === null || step?.k !== "group") return null;
      if (!lowered.has(step)) lowered.set(step, this.#lower(step));
      const may = lowered.get(step)!.overwritable(plan.inputs[overwrites], first);
      return may ? overwrites : null;
    });
    const merges = new Map<Node, Node>();
    plan.outputs.forEach(({ first }, i) => {
      const slot = this.overwrites[i];
      if (slot !== null) merges.set(first, plan.inputs[slot]);
    });
    const ready = this.#prepare(plan, lowered, merges);
    this.commands = this.#emitAll(ready, state);
    this.pipelines = this.#pipelines;
    this.scratch = planBuffers(this.#lives as Lifetime[]);
    this.scalars = this.#scalars;
    this.constantsAt = this.#scalarBytes;
    this.constants = new Uint32Array(this.#constants);
    this.uniformBytes = this.#scalarBytes + this.constants.byteLength;
  }

  // --- lowering ---

  #lower(step: Extract<Step, { k: "group" }>): GpuLowered {
    const reads = new Set(step.reads);
    const { target, choose } = this.#host;
    return lowerForGpu(step.group, (n) => reads.has(n), target, choose);
  }

  #prepare(
    plan: Plan,
    lowered: ReadonlyMap<Step, GpuLowered>,
    merges: ReadonlyMap<Node, Node>,
  ): Ready[] {
    for (const n of plan.places.keys()) this.#checkSize(n);
    const ready: Ready[] = [];
    for (const step of plan.steps) {
      if (step.k === "loop") {
        const body = this.#prepare(step.body, new Map(), new Map());
        ready.push({ k: "loop", step, body });
        continue;
      }
      // An empty tensor that a loop reads has a place, but there is nothing to write.
      if (numel(step.group.space) === 0) continue;
      const low = lowered.get(step) ?? this.#lower(step);
      const code = low.stages.map((stage, i) => {
        const last = i === low.stages.length - 1;
        const made = this.#code(stage, plan, merges, last ? step.group.stores : new Map());
        this.reports.push(made.report);
        return made;
      });
      ready.push({ k: "group", step, code, lowered: low });
    }
    return ready;
  }

  #checkSize(n: Node): void {
    const bytes = bytesOf(n);
    if (bytes > this.#host.maxBindingBytes) throw tooLarge(n.op, n, this.#host.maxBindingBytes);
  }

  /** The final kernel of a stage: storages that are one merged, too many of them packed, printed. */
  #code(
    stage: Stage,
    plan: Plan,
    merges: ReadonlyMap<Node, Node>,
    stores: ReadonlyMap<Node, string>,
  ): Code {
    let { kernel } = stage;
    let buffers: readonly (Node | Temporary | PackOf)[] = stage.buffers;
    for (let into = 0; into < buffers.length; into++) {
      if (kernel.buffers[into].access === "read") continue;
      const written = buffers[into] as Node;
      const place = plan.places.get(written);
      // The version before that it lies over, or an update of the same state before it.
      const from = buffers.findIndex((b, i) => {
        if (i === into) return false;
        return b === merges.get(written) || (place && plan.places.get(b as Node) === place);
      });
      if (from < 0) continue;
      if (buffers[from] === merges.get(written)) this.#merged.add(written);
      const merged = mergeBuffers(kernel, from, into);
      kernel = merged.kernel;
      buffers = merged.kept.map((i) => buffers[i]);
      into = -1;
    }
    const { target } = this.#host;
    let wgsl = printWgsl(kernel, target);
    const limit = target.buffers - (wgsl.errors === null ? 0 : 1);
    if (buffers.length > limit) {
      const packed = packBuffers(kernel, limit);
      if (!packed)
        throw new LimitError(
          describe(
            `webgpu: kernel ${kernel.name}`,
            `at most ${target.buffers} storage buffers`,
            `${buffers.length} of too many dtypes to put together`,
          ),
        );
      const before = buffers as readonly (Node | Temporary)[];
      buffers = packed.buffers.map((b) =>
        typeof b === "number"
          ? before[b]
          : { pack: b, parts: b.parts.map((p) => before[p.buffer]) },
      );
      kernel = packed.kernel;
      wgsl = printWgsl(kernel, target);
    }
    let flag = -1;
    if (wgsl.errors !== null) {
      flag = this.checked.length;
      this.checked.push({ name: kernel.name, sizes: wgsl.positions, stateIntact: true });
    }
    return {
      stage: { ...stage, kernel },
      report: report(kernel, stores),
      wgsl,
      buffers,
      scalars: this.#scalarBlock(stage),
      flag,
    };
  }

  #scalarBlock({ kernel, randoms }: Stage): number {
    if (kernel.scalars === 0) return 0;
    const at = this.#scalarBytes;
    const numbers = randoms.map((n) => this.#randoms.indexOf(n));
    this.#scalars.push({ word: at / 4, randoms: numbers });
    this.#scalarBytes += align(4 * kernel.scalars, uniformStride);
    return at;
  }

  // --- emitting ---

  #emitAll(ready: readonly Ready[], state: readonly (number | null)[]): Command[] {
    const { plan, table } = this;
    const frame: Frame = {
      plan,
      slots: plan.inputs.map((_, i) => i),
      outputs: plan.outputs.map((_, i) => table.outputs + i),
      scratch: new Map(),
    };
    const guardedRefs = new Set<Ref>();
    const commands: Command[] = [];
    const guards = this.checked.length > 0;
    state.forEach((slot, i) => {
      // Where nothing is overwritten, a failed run must leave the old value in the new storage.
      if (slot === null || (!guards && !this.#merged.has(plan.outputs[i].first))) return;
      const copy = wholeCopy(slot, table.outputs + i, bytesOf(plan.outputs[i].node));
      commands.push(copy);
      this.#begun.set(copy.to, slot);
      if (guards) guardedRefs.add(copy.to);
    });
    let guardAt = -1;
    const checkedBefore = new Set<number>();
    for (const item of ready) {
      const writes = this.#writes(frame, item).some((ref) => guardedRefs.has(ref));
      if (writes && guardAt < 0) {
        guardAt = commands.length;
        if (checkedBefore.size > 0) commands.push(this.#raiseGuard());
      }
      const flags = flagsOf(item);
      if (guardAt < 0) for (const flag of flags) checkedBefore.add(flag);
      const guard = writes && checkedBefore.size > 0;
      this.#emit(frame, item, commands, guard);
    }
    if (guardAt >= 0)
      this.checked.forEach((kernel, flag) => {
        kernel.stateIntact = checkedBefore.has(flag);
      });
    return commands;
  }

  #raiseGuard(): Dispatch {
    const count = this.checked.length;
    return this.#dispatch(raiseGuard(count), 1, [
      { ref: this.table.flags, offset: 0, bytes: flagStride * count },
      { ref: this.table.guard, offset: 0, bytes: 16 },
    ]);
  }

  /** The storages that a step writes. */
  #writes(frame: Frame, { step }: Ready): Ref[] {
    return [...step.group.stores.keys()].map((n) => this.#ref(frame, n));
  }

  #ref(frame: Frame, n: Node): Ref {
    const place = frame.plan.places.get(n);
    if (!place) throw new Error(`webgpu: ${n.op} has no place`);
    if (place.k === "slot") return frame.slots[place.slot];
    if (place.k === "output") return frame.outputs[place.output];
    let ref = frame.scratch.get(n);
    if (ref === undefined) frame.scratch.set(n, (ref = this.#value(bytesOf(n))));
    return ref;
  }

  /** A new scratch value, which lives from now on. */
  #value(bytes: number): Ref {
    this.#lives.push({ bytes: padded(bytes), first: this.#now, last: this.#now });
    return this.table.values + this.#lives.length - 1;
  }

  /** The value is in use now. */
  #touch(ref: Ref): void {
    if (ref >= this.table.values) this.#lives[ref - this.table.values].last = this.#now;
  }

  #dispatch(
    source: KernelSource,
    workgroups: number,
    bindings: readonly BoundBuffer[],
    kernel: KernelReport | null = null,
  ): Dispatch {
    const pipeline = this.#host.compile(source);
    this.#pipelines.add(pipeline);
    this.#now++;
    for (const { ref } of bindings) this.#touch(ref);
    return new Dispatch(pipeline, bindings, workgroups, this.#host.maxWorkgroups, kernel);
  }

  #copy(copy: Omit<Copy, "k">): Copy {
    this.#now++;
    this.#touch(copy.from);
    this.#touch(copy.to);
    return { k: "copy", ...copy };
  }

  #emit(frame: Frame, item: Ready, into: Command[], guard = false): void {
    if (item.k === "loop") {
      this.#emitLoop(frame, item, into, guard);
      return;
    }
    const { base, group } = item.step;
    if (base) {
      const [updated] = group.stores.keys();
      const [from, to] = [this.#ref(frame, base), this.#ref(frame, updated)];
      if (from !== to && this.#begun.get(to) !== from)
        into.push(this.#copy(wholeCopy(from, to, bytesOf(base))));
    }
    const temporaries = new Map<Temporary, Ref>();
    const refOf = (b: Node | Temporary): Ref => {
      if ("op" in b) return this.#ref(frame, b);
      let ref = temporaries.get(b);
      if (ref === undefined)
        temporaries.set(b, (ref = this.#value(b.size * dtypes[b.dtype].bytes)));
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
      const ref = this.#value(bytes);
      b.pack.parts.forEach(({ offset }, j) => {
        const part = b.parts[j];
        const size = "op" in part ? numel(part.shape) : part.size;
        const copy = wholeCopy(refOf(part), ref, size * dtypes[part.dtype].bytes);
        const at = offset * dtypes[dtype].bytes;
        into.push(this.#copy({ ...copy, toOffset: at }));
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
    into.push(this.#dispatch(source, wgsl.workgroups, bindings, report));
    for (const copy of back) into.push(this.#copy(copy));
  }

  /**
   * A scan. Carries go back and forth between two buffers, so the body is emitted twice; slices of what runs along are
   * copied in and out, as a binding may begin only at a multiple of 256 bytes.
   */
  #emitLoop(
    frame: Frame,
    item: Extract<Ready, { k: "loop" }>,
    into: Command[],
    guard: boolean,
  ): void {
    const { region, body, group } = item.step;
    const { scan, body: graph } = region.attrs.region;
    const { length, carries, xs, reverse } = scan!;
    const begin = this.#now;
    const outer = this.#lives.length;
    const sources = region.src.map((s) => this.#ref(frame, s));
    const sizes = graph.results.map(bytesOf);
    const results: (Ref | null)[] = sizes.map(() => null);
    // What is written in a loop cannot be guarded kernel by kernel: it goes to state at the end.
    const later: Copy[] = [];
    for (const n of group.stores.keys()) {
      const { index } = (n as Node<"project">).attrs;
      const ref = this.#ref(frame, n);
      results[index] = ref;
      if (!guard || ref < this.table.outputs || ref >= this.table.flags) continue;
      results[index] = this.#value(bytesOf(n));
      later.push(wholeCopy(results[index]!, ref, bytesOf(n)));
    }
    const carry = [0, 1].map(() => sizes.slice(0, carries).map((bytes) => this.#value(bytes)));
    const ys = sizes.slice(carries).map((bytes) => this.#value(bytes));
    const slices = body.inputs.map((p, i) =>
      i >= carries && i < carries + xs ? this.#value(bytesOf(p)) : -1,
    );
    const inner = this.#lives.length;
    const start = carry[0].map((to, i) => this.#copy(wholeCopy(sources[i], to, sizes[i])));
    into.push(...start);

    const move = (
      from: Ref,
      fromAt: (t: number) => number,
      to: Ref,
      toAt: (t: number) => number,
      bytes: number,
    ) => this.#slices(length, from, fromAt, to, toAt, bytes);
    const at = (t: number) => (reverse ? length - 1 - t : t);
    const incoming = slices.flatMap((to, i) => {
      const bytes = to < 0 ? 0 : bytesOf(body.inputs[i]);
      return bytes > 0
        ? [
            move(
              sources[i],
              (t) => at(t) * bytes,
              to,
              () => 0,
              bytes,
            ),
          ]
        : [];
    });
    const bodies = [0, 1].map((parity) => {
      const params = sources.map((ref, i) =>
        i < carries ? carry[parity][i] : slices[i] < 0 ? ref : slices[i],
      );
      const outs = [...carry[1 - parity], ...ys];
      const frameOf: Frame = { plan: body, slots: params, outputs: outs, scratch: new Map() };
      const commands: Command[] = [];
      for (const inside of item.body) this.#emit(frameOf, inside, commands);
      return commands;
    });
    const outgoing = ys.flatMap((from, i) => {
      const whole = results[carries + i];
      const bytes = sizes[carries + i];
      if (whole === null || bytes === 0) return [];
      return [
        move(
          from,
          () => 0,
          whole,
          (t) => at(t) * bytes,
          bytes,
        ),
      ];
    });
    into.push({
      k: "loop",
      length,
      at: (t) => [...incoming.map((c) => c(t)), ...bodies[t % 2], ...outgoing.map((c) => c(t))],
    });
    carry[length % 2].forEach((from, i) => {
      const whole = results[i];
      if (whole !== null) into.push(this.#copy(wholeCopy(from, whole, sizes[i])));
    });
    // What a step of the loop reads, the next one may read again; and its own values stay until the end.
    const end = ++this.#now;
    for (const [i, life] of this.#lives.entries())
      if (i < outer ? life.last >= begin : i < inner) life.last = end;
    for (const ref of [...sources, ...results]) if (ref !== null) this.#touch(ref);
    for (const copy of later) into.push(this.#guardedCopy(copy));
  }

  /** The copies of one slice per step: by word where they can be. */
  #slices(
    length: number,
    from: Ref,
    fromAt: (t: number) => number,
    to: Ref,
    toAt: (t: number) => number,
    bytes: number,
  ): (t: number) => Command {
    const last = length - 1;
    const whole = [bytes, fromAt(0), toAt(0), fromAt(last), toAt(last)].every((n) => n % 4 === 0);
    if (whole) {
      const made = this.#copy({ from, fromOffset: 0, to, toOffset: 0, bytes });
      return (t) => ({ ...made, fromOffset: fromAt(t), toOffset: toAt(t) });
    }
    const copies = Array.from({ length }, (_, t) =>
      this.#copyBytes(from, fromAt(t), to, toAt(t), bytes),
    );
    return (t) => copies[t];
  }

  #copyBytes(
    from: Ref,
    fromAt: number,
    to: Ref,
    toAt: number,
    bytes: number,
    guard = false,
  ): Dispatch {
    const { uniforms, guard: guardRef } = this.table;
    const at = this.#constants.length * 4;
    this.#constants.push(fromAt, toAt, bytes);
    while (this.#constants.length % (uniformStride / 4) !== 0) this.#constants.push(0);
    const end = (start: number) => ({ offset: 0, bytes: padded(start + bytes) });
    const bindings: BoundBuffer[] = [
      { ref: from, ...end(fromAt) },
      { ref: to, ...end(toAt) },
      { ref: uniforms, offset: this.#scalarBytes + at, bytes: 16 },
    ];
    if (guard) bindings.push({ ref: guardRef, offset: 0, bytes: 16 });
    const source = guard ? guarded(copyBytes) : copyBytes;
    return this.#dispatch(source, copyBytesWorkgroups(bytes), bindings);
  }

  #guardedCopy({ from, to, bytes }: Copy): Dispatch {
    return this.#copyBytes(from, 0, to, 0, bytes, true);
  }
}

/** All of a value. Storages are padded, so copies may be rounded up to words. */
const wholeCopy = (from: Ref, to: Ref, bytes: number): Copy => ({
  k: "copy",
  from,
  fromOffset: 0,
  to,
  toOffset: 0,
  bytes: align(bytes, 4),
});

const flagsOf = (item: Ready): number[] =>
  item.k === "loop"
    ? item.body.flatMap(flagsOf)
    : item.code.flatMap(({ flag }) => (flag < 0 ? [] : [flag]));

export function tooLarge(
  op: string,
  { dtype, shape }: Pick<Node, "dtype" | "shape">,
  limit: number,
): LimitError {
  const bytes = numel(shape) * dtypes[dtype].bytes;
  return new LimitError(
    describe(
      `webgpu: ${op}`,
      `tensors of at most ${limit} bytes (maxStorageBufferBindingSize)`,
      `${dtype}${formatShape(shape)}, ${bytes} bytes`,
      "split it, or use a narrower dtype",
    ),
  );
}

function report(kernel: Kernel, stores: ReadonlyMap<Node, string>): KernelReport {
  return {
    name: kernel.name,
    kind: kernel.kind,
    bytes: kernel.buffers.reduce((sum, { size, dtype }) => sum + size * dtypes[dtype].bytes, 0),
    flops: kernel.flops,
    writes: [...stores].map(([n, reason]) => ({ shape: n.shape, dtype: n.dtype, reason })),
    get source() {
      return formatKernel(kernel);
    },
  };
}
