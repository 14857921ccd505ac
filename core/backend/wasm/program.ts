/**
 * @file A plan made executable on WebAssembly: kernels compiled in one module, argument blocks that stay in memory, and
 * lists of the words in them that change from run to run.
 *
 * An address is written when it differs from that of the run before, and random words at each run. So a replayed step costs
 * little more than one call per kernel.
 */
import { bytesOf } from "../../dtype.ts";
import { IndexOutOfRangeError } from "../../errors.ts";
import type { Node } from "../../graph/node.ts";
import type { Kernel, Stmt } from "../../kernel/ir.ts";
import type { Lowered } from "../../kernel/lower.ts";
import { formatKernel } from "../../kernel/print.ts";
import type { CpuTarget } from "../../kernel/target.ts";
import { lowerGroup } from "../../kernel/templates.ts";
import { carryBytes, type Place, type Plan, type Step } from "../../schedule/schedule.ts";
import { numel } from "../../shape.ts";
import type { KernelReport } from "../backend.ts";
import type { KernelTime } from "../observe.ts";
import type { BoundKernel } from "./module.ts";
import type { FailedPosition, SharedCall, Threads } from "./threads.ts";

/** What a program needs of its backend. */
export interface Host {
  /** Compiled functions for kernels, compiled together if any is new. */
  compile(kernels: readonly Kernel[]): BoundKernel[];
  /** Memory that stays until the program dies. */
  reserve(bytes: number): number;
  /** Current views of the memory. */
  words(): Uint32Array;
  bytes(): Uint8Array;
  /** Scratch for kernels' locals: its start, and how many threads there is room for, each so many bytes after the other. */
  readonly locals: { readonly address: number; readonly stride: number; readonly threads: number };
  pointer(address: number): number | bigint;
  /** Those to share kernels with, and the least nanoseconds of one thread that are worth another one; null: none. */
  readonly threads: Threads | null;
  readonly grain: number;
  readonly target: CpuTarget;
}

/** Argument block: locals address, error flag, failing index, then 64-bit buffer addresses, then scalars. */
const header = 16;

interface Call {
  readonly compiled: BoundKernel;
  readonly lowered: Lowered;
  readonly report: KernelReport;
  readonly args: number;
  readonly extent: number;
  /** A cold call is made in this many pieces: V8 swaps in optimised code only between calls. */
  readonly pieces: number;
  /** The call as several threads do it, if it is worth that. */
  readonly shared: SharedCall | null;
  readonly positions: readonly number[];
  /** The outputs that it writes. */
  readonly outputs: readonly number[];
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
  /** Whether it has kernels that threads share. */
  shares = false;
  /** The first action that may write over an input. */
  private readonly firstOverwrite: number;
  private readonly host: Host;
  private readonly actions: Action[] = [];
  /** For each slot and output where in memory its address stands, in words, and what stands there. */
  private readonly slots: Addressed;
  private readonly outputs: Addressed;
  private readonly scratch: { readonly word: number; readonly offset: number }[] = [];
  private readonly scalars: { readonly word: number; readonly from: number }[] = [];
  /** Where each thread's argument blocks begin. */
  private readonly blocks: number[][] = [];
  private scratchBase = -1;
  private locals: Host["locals"] | null = null;

  constructor(plan: Plan, randoms: readonly Node<"random">[], host: Host) {
    this.plan = plan;
    this.host = host;
    this.slots = new Addressed(plan.inputs.length);
    this.outputs = new Addressed(plan.outputs.length);
    const producer = new Map<Node, Step>();
    for (const step of plan.steps) for (const n of step.group.stores.keys()) producer.set(n, step);
    const lowered = plan.steps.map((step) => {
      // An empty tensor that a loop reads has a place, but there is nothing to write.
      if (step.k === "loop" || numel(step.group.space) === 0) return null;
      const reads = new Set(step.reads);
      return lowerGroup(step.group, (n) => reads.has(n), host.target);
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
      a.k === "call" && a.call.outputs.some((o) => this.overwrites[o] !== null);
    const first = this.actions.findIndex(overwrites);
    this.firstOverwrite = first < 0 ? this.actions.length : first;
  }

  private call(
    lowered: Lowered,
    compiled: BoundKernel,
    randoms: readonly Node<"random">[],
    copy: Call["copy"],
    report: KernelReport,
  ): Call {
    const { kernel, nodes } = lowered;
    this.localsBytes = Math.max(this.localsBytes, compiled.scratchBytes);
    const shared = this.share(lowered, compiled);
    if (shared) this.shares = true;
    const args = shared?.args ?? this.host.reserve(argumentBytes(lowered));
    const outputs: number[] = [];
    for (let t = 0; t < (shared?.threads ?? 1); t++) {
      const block = (args + t * (shared?.stride ?? 0)) / 4;
      (this.blocks[t] ??= []).push(block);
      let word = block + header / 4;
      for (const n of nodes) {
        const place = this.plan.places.get(n);
        if (!place) throw new Error(`wasm: ${n.op} has no place`);
        if (place.k === "slot") this.slots.add(place.slot, word);
        else if (place.k === "output") this.outputs.add(place.output, word);
        else this.scratch.push({ word, offset: place.offset });
        if (place.k === "output") outputs.push(place.output);
        word += 2;
      }
      for (const n of lowered.randoms)
        for (let j = 0; j < 3; j++)
          this.scalars.push({ word: word++, from: 3 * randoms.indexOf(n) + j });
    }
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
      shared,
      positions,
      outputs,
      copy,
    };
  }

  /** How a kernel's range is shared, if the work is worth waking a thread for; sends its module to the workers. */
  private share(lowered: Lowered, compiled: BoundKernel): SharedCall | null {
    const { threads, grain } = this.host;
    const { name, range, body } = lowered.kernel;
    const worth = Math.min(range.extent, 1 + Math.floor(nanoseconds(lowered) / grain));
    if (!threads || worth < 2) return null;
    threads.share(compiled.unit);
    const stride = Math.ceil(argumentBytes(lowered) / 64) * 64;
    const count = Math.min(worth, threads.count);
    return {
      name,
      unit: compiled.unit,
      index: compiled.index,
      run: compiled.run,
      extent: range.extent,
      // Several for each, so that who is late does less; the same kernels are also called cold.
      pieces: Math.min(range.extent, Math.max(64, 4 * count), 4 * worth),
      threads: count,
      args: this.host.reserve(stride * count),
      stride,
      checks: positionsOf(body).length > 0,
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
    this.shares ||= program.shares;
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
    this.slots.write(memory, slots);
    this.outputs.write(memory, outputs);
    if (scratch !== this.scratchBase)
      for (const s of this.scratch) setAddress(memory, s.word, scratch + s.offset);
    this.scratchBase = scratch;
    for (const s of this.scalars) memory[s.word] = words[s.from];
    const { locals } = host;
    if (locals !== this.locals)
      for (const [t, blocks] of this.blocks.entries())
        if (t < locals.threads)
          for (const word of blocks) setAddress(memory, word, locals.address + t * locals.stride);
    this.locals = locals;
    for (let index = 0; index < this.actions.length; index++) {
      const action = this.actions[index];
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
      if (call.copy) {
        const { from, to, bytes } = call.copy;
        const source = addressOf(from, slots, outputs, scratch);
        const target = addressOf(to, slots, outputs, scratch);
        if (source !== target) host.bytes().copyWithin(target, source, source + bytes);
      }
      const start = times ? performance.now() : 0;
      const failed = this.execute(call, memory);
      times?.push({ kernel: call.report, start, end: performance.now() });
      if (failed) this.fail(call, failed, index < this.firstOverwrite);
    }
  }

  /** Computes a kernel whose arguments are written; tells of the first index that was out of range. */
  private execute(call: Call, memory: Uint32Array): FailedPosition | null {
    const { args, extent, pieces, shared } = call;
    const { locals, threads } = this.host;
    if (shared) {
      const n = Math.min(threads!.available(shared), locals.threads);
      if (n > 1) return threads!.run(shared, n, this.host.pointer(args), memory);
    }
    const { run } = call.compiled;
    const block = this.host.pointer(args);
    if (pieces === 1) run(0, extent, block);
    else
      for (let i = 0; i < pieces; i++) {
        const begin = Math.floor((i * extent) / pieces);
        run(begin, Math.floor(((i + 1) * extent) / pieces), block);
      }
    const flag = args / 4 + 2;
    if (call.positions.length === 0 || memory[flag] === 0) return null;
    const failed = { code: memory[flag], index: memory[flag + 1] | 0 };
    memory[flag] = 0;
    return failed;
  }

  private fail(call: Call, failed: FailedPosition, stateIntact: boolean): never {
    const size = call.positions[failed.code - 1];
    const { index } = failed;
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

/** Words of memory that hold addresses, by what they are the addresses of. */
class Addressed {
  private readonly words: number[][];
  private readonly known: number[];

  constructor(count: number) {
    this.words = Array.from({ length: count }, () => []);
    this.known = new Array<number>(count).fill(-1);
  }

  add(at: number, word: number): void {
    this.words[at].push(word);
  }

  /** Writes the addresses that are not there yet. */
  write(memory: Uint32Array, addresses: ArrayLike<number>): void {
    const { known } = this;
    for (let i = 0; i < known.length; i++) {
      if (known[i] === addresses[i]) continue;
      known[i] = addresses[i];
      for (const word of this.words[i]) setAddress(memory, word, addresses[i]);
    }
  }
}

const argumentBytes = ({ kernel, nodes }: Lowered): number =>
  header + 8 * nodes.length + 4 * kernel.scalars;

/** What a kernel takes on one thread, roughly: products at 50 GFLOP/s, other operations at 8, bytes at 20 GB/s. */
function nanoseconds({ kernel, traffic }: Lowered): number {
  const products =
    kernel.kind === "matmul" || kernel.kind === "conv" || kernel.kind === "attention";
  return Math.max(kernel.flops / (products ? 50 : 8), traffic / 20);
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
