/**
 * @file A plan made executable on WebAssembly: kernels compiled in one module, argument blocks that stay in memory, and
 * lists of the words in them that change from run to run.
 *
 * Scratch addresses are written once (again only if the scratch moves), storages of inputs and outputs and random
 * words at each run. So a replayed step costs a few typed-array stores and one call per kernel.
 */
import { IndexOutOfRangeError } from "../../errors.ts";
import type { Node } from "../../graph/node.ts";
import type { Kernel, Stmt } from "../../kernel/ir.ts";
import type { Lowered } from "../../kernel/lower.ts";
import { formatKernel } from "../../kernel/print.ts";
import { lowerGroup } from "../../kernel/templates.ts";
import { bytesOf, carryBytes, type Place, type Plan, type Step } from "../../schedule/schedule.ts";
import { numel } from "../../shape.ts";
import type { KernelReport } from "../backend.ts";
import type { KernelTime } from "../observe.ts";

/** What a program needs of its backend. */
export interface Host {
  /** Compiled functions for kernels, compiled together if any is new. */
  compile(kernels: readonly Kernel[]): Compiled[];
  /** Memory that stays until the program dies. */
  reserve(bytes: number): number;
  /** Current views of the memory. */
  words(): Uint32Array;
  bytes(): Uint8Array;
  /** Start of the scratch for kernels' locals. */
  localsAddress(): number;
  pointer(address: number): number | bigint;
}

export interface Compiled {
  readonly run: (begin: number, end: number, args: number | bigint) => void;
  readonly scratchBytes: number;
}

/** Argument block: locals address, error flag, failing index, then 64-bit buffer addresses, then scalars. */
const header = 16;

interface Call {
  readonly compiled: Compiled;
  readonly lowered: Lowered;
  readonly report: KernelReport;
  readonly args: number;
  readonly extent: number;
  /** A cold call is made in this many pieces: V8 swaps in optimised code only between calls. */
  readonly pieces: number;
  readonly positions: readonly number[];
  /** Word index in memory and the place whose address goes there. */
  readonly slots: readonly { readonly word: number; readonly slot: number }[];
  readonly outputs: readonly { readonly word: number; readonly output: number }[];
  readonly scratch: readonly { readonly word: number; readonly offset: number }[];
  readonly scalars: readonly { readonly word: number; readonly from: number }[];
  /** What must be there before an update in place, where it is not the same memory. */
  readonly copy: { readonly from: Place; readonly to: Place; readonly bytes: number } | null;
}

type Action =
  | { readonly k: "call"; readonly call: Call }
  | { readonly k: "loop"; readonly loop: LoopAction };

interface LoopAction {
  readonly body: Program;
  readonly length: number;
  readonly reverse: boolean;
  /** Where each source of the scan is, and each result (null: nobody needs it). */
  readonly sources: readonly Place[];
  readonly results: readonly (Place | null)[];
  readonly carries: number;
  readonly xs: number;
  /** Bytes of one element of each result, and of each source. */
  readonly sizes: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
}

export class Program {
  readonly plan: Plan;
  readonly reports: KernelReport[] = [];
  /** Which slot's storage output i may take over. */
  readonly overwrites: readonly (number | null)[];
  localsBytes = 0;
  /** The first action that may write over an input. */
  private readonly firstOverwrite: number;
  private readonly host: Host;
  private readonly actions: Action[] = [];
  private scratchBase = -1;

  constructor(plan: Plan, randoms: readonly Node<"random">[], host: Host) {
    this.plan = plan;
    this.host = host;
    const producer = new Map<Node, Step>();
    for (const step of plan.steps) for (const n of step.group.stores.keys()) producer.set(n, step);
    const lowered = plan.steps.map((step) => {
      // An empty tensor that a loop reads has a place, but there is nothing to write.
      if (step.k === "loop" || numel(step.group.space) === 0) return null;
      const reads = new Set(step.reads);
      return lowerGroup(step.group, (n) => reads.has(n));
    });
    const kernels = lowered.filter((l) => l !== null);
    const compiled = host.compile(kernels.map((l) => l.kernel));
    let next = 0;
    plan.steps.forEach((step, i) => {
      const low = lowered[i];
      if (step.k === "loop") this.actions.push({ k: "loop", loop: this.loop(step) });
      else if (low) {
        const told = report(low, step.group.stores);
        const call = this.call(low, compiled[next++], randoms, this.copyBefore(step), told);
        this.actions.push({ k: "call", call });
        this.reports.push(told);
      }
    });
    this.overwrites = plan.outputs.map(({ first, overwrites }) => {
      if (overwrites === null) return null;
      const at = plan.steps.indexOf(producer.get(first)!);
      const old = plan.inputs[overwrites];
      return lowered[at]?.overwritable(old, first) ? overwrites : null;
    });
    const overwrites = (a: Action): boolean =>
      a.k === "call" && a.call.outputs.some((o) => this.overwrites[o.output] !== null);
    const first = this.actions.findIndex(overwrites);
    this.firstOverwrite = first < 0 ? this.actions.length : first;
  }

  private call(
    lowered: Lowered,
    compiled: Compiled,
    randoms: readonly Node<"random">[],
    copy: Call["copy"],
    report: KernelReport,
  ): Call {
    const { kernel, nodes } = lowered;
    this.localsBytes = Math.max(this.localsBytes, compiled.scratchBytes);
    const args = this.host.reserve(header + 8 * nodes.length + 4 * kernel.scalars);
    const slots: { word: number; slot: number }[] = [];
    const outputs: { word: number; output: number }[] = [];
    const scratch: { word: number; offset: number }[] = [];
    nodes.forEach((n, i) => {
      const word = (args + header + 8 * i) / 4;
      const place = this.plan.places.get(n);
      if (!place) throw new Error(`wasm: ${n.op} has no place`);
      if (place.k === "slot") slots.push({ word, slot: place.slot });
      else if (place.k === "output") outputs.push({ word, output: place.output });
      else scratch.push({ word, offset: place.offset });
    });
    const first = (args + header + 8 * nodes.length) / 4;
    const scalars = lowered.randoms.flatMap((n, i) =>
      [0, 1, 2].map((j) => ({ word: first + 3 * i + j, from: 3 * randoms.indexOf(n) + j })),
    );
    const { extent } = kernel.range;
    // About a quarter of a millisecond of unoptimised code per piece.
    const pieces = Math.max(1, Math.min(extent, 64, Math.round(kernel.flops / 250_000)));
    const positions = positionsOf(kernel.body);
    return {
      compiled,
      lowered,
      report,
      args,
      extent,
      pieces,
      positions,
      slots,
      outputs,
      scratch,
      scalars,
      copy,
    };
  }

  private copyBefore({ base, group }: Extract<Step, { k: "group" }>): Call["copy"] {
    if (!base) return null;
    const [updated] = group.stores.keys();
    const { places } = this.plan;
    return { from: places.get(base)!, to: places.get(updated)!, bytes: bytesOf(base) };
  }

  private loop(step: Extract<Step, { k: "loop" }>): LoopAction {
    const { region, body, offset } = step;
    const { scan, body: graph } = region.attrs.region;
    const program = new Program(body, [], this.host);
    this.localsBytes = Math.max(this.localsBytes, program.localsBytes);
    this.reports.push(...program.reports);
    const results: (Place | null)[] = graph.results.map(() => null);
    for (const n of step.group.stores.keys())
      results[(n as Node<"project">).attrs.index] = this.plan.places.get(n)!;
    return {
      body: program,
      length: scan!.length,
      reverse: scan!.reverse,
      sources: region.src.map((s) => this.plan.places.get(s)!),
      results,
      carries: scan!.carries,
      xs: scan!.xs,
      sizes: graph.results.map(bytesOf),
      strides: graph.params.map(bytesOf),
      offset,
    };
  }

  /** Runs all kernels; addresses of slots and outputs, scratch base, and the random words are given. `times` is filled. */
  run(
    slots: ArrayLike<number>,
    outputs: ArrayLike<number>,
    scratch: number,
    words: ArrayLike<number>,
    times: KernelTime[] | null,
  ): void {
    const { host } = this;
    const memory = host.words();
    const moved = scratch !== this.scratchBase;
    const locals = host.localsAddress();
    for (const [index, action] of this.actions.entries()) {
      if (action.k === "loop") {
        try {
          this.runLoop(action.loop, slots, outputs, scratch, times);
        } catch (error) {
          if (error instanceof IndexOutOfRangeError && index >= this.firstOverwrite)
            error.stateIntact = false;
          throw error;
        }
        continue;
      }
      const { call } = action;
      const { args } = call;
      if (moved) for (const s of call.scratch) setAddress(memory, s.word, scratch + s.offset);
      for (const s of call.slots) setAddress(memory, s.word, slots[s.slot]);
      for (const s of call.outputs) setAddress(memory, s.word, outputs[s.output]);
      for (const s of call.scalars) memory[s.word] = words[s.from];
      setAddress(memory, args / 4, locals);
      if (call.copy) {
        const { from, to, bytes } = call.copy;
        const source = addressOf(from, slots, outputs, scratch);
        const target = addressOf(to, slots, outputs, scratch);
        if (source !== target) host.bytes().copyWithin(target, source, source + bytes);
      }
      const { run } = call.compiled;
      const pointer = host.pointer(args);
      const start = times ? performance.now() : 0;
      if (call.pieces === 1) run(0, call.extent, pointer);
      else
        for (let i = 0; i < call.pieces; i++) {
          const begin = Math.floor((i * call.extent) / call.pieces);
          run(begin, Math.floor(((i + 1) * call.extent) / call.pieces), pointer);
        }
      times?.push({ kernel: call.report, start, end: performance.now() });
      if (call.positions.length > 0 && memory[args / 4 + 2] !== 0)
        this.fail(call, memory, index < this.firstOverwrite);
    }
    this.scratchBase = scratch;
  }

  private fail(call: Call, memory: Uint32Array, stateIntact: boolean): never {
    const at = call.args / 4 + 2;
    const size = call.positions[memory[at] - 1];
    const index = memory[at + 1] | 0;
    memory[at] = 0;
    const error = new IndexOutOfRangeError(
      `gather: expected indices within 0 … ${size - 1}, got ${index} (kernel ${call.lowered.kernel.name})`,
    );
    error.stateIntact = stateIntact;
    throw error;
  }

  private runLoop(
    loop: LoopAction,
    slots: ArrayLike<number>,
    outputs: ArrayLike<number>,
    scratch: number,
    times: KernelTime[] | null,
  ): void {
    const address = (place: Place): number => addressOf(place, slots, outputs, scratch);
    const bytes = this.host.bytes();
    const { carries, xs, body, length } = loop;
    const params = loop.sources.map(address);
    const base = scratch + loop.offset;
    let free = base + body.plan.scratchBytes;
    const room = (i: number): number => {
      const at = free;
      free += carryBytes(body.plan.outputs[i].node);
      return at;
    };
    const copy = (to: number, from: number, i: number): void => {
      bytes.copyWithin(to, from, from + loop.sizes[i]);
    };
    const into: number[] = [];
    // The next carries are written beside the current ones, then copied over them.
    for (let i = 0; i < carries; i++) {
      const current = room(i);
      copy(current, params[i], i);
      params[i] = current;
      into.push(room(i));
    }
    const whole = loop.results.map((p) => (p ? address(p) : null));
    for (let i = carries; i < whole.length; i++) into.push(room(i));
    const first = params.slice();
    for (let step = 0; step < length; step++) {
      const t = loop.reverse ? length - 1 - step : step;
      for (let i = carries; i < carries + xs; i++) params[i] = first[i] + t * loop.strides[i];
      for (let i = carries; i < whole.length; i++)
        if (whole[i] !== null) into[i] = whole[i]! + t * loop.sizes[i];
      body.run(params, into, base, [], times);
      for (let i = 0; i < carries; i++) copy(params[i], into[i], i);
    }
    for (let i = 0; i < carries; i++) if (whole[i] !== null) copy(whole[i]!, params[i], i);
  }
}

function addressOf(
  place: Place,
  slots: ArrayLike<number>,
  outputs: ArrayLike<number>,
  scratch: number,
): number {
  if (place.k === "slot") return slots[place.slot];
  return place.k === "output" ? outputs[place.output] : scratch + place.offset;
}

function setAddress(memory: Uint32Array, word: number, address: number): void {
  memory[word] = address;
  if (address >= 4294967296 || memory[word + 1] !== 0)
    memory[word + 1] = Math.floor(address / 4294967296);
}

/** The sizes that a kernel's position statements check against, in the order of their numbers. */
function positionsOf(body: readonly Stmt[]): number[] {
  return body.flatMap((s) =>
    s.k === "position" ? [s.size] : s.k === "loop" || s.k === "if" ? positionsOf(s.body) : [],
  );
}

function report(lowered: Lowered, stores: ReadonlyMap<Node, string>): KernelReport {
  const { kernel } = lowered;
  return {
    name: kernel.name,
    kind: kernel.kind,
    bytes: lowered.traffic,
    flops: kernel.flops,
    writes: [...stores].map(([n, reason]) => ({ shape: n.shape, dtype: n.dtype, reason })),
    get source() {
      return formatKernel(kernel);
    },
  };
}
