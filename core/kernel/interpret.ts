/**
 * @file Runs a kernel on the host, invocation by invocation and lane by lane, and finds what a compiled kernel would
 * only show as a wrong number: accesses outside a buffer, reads of what nobody wrote, and races, between iterations
 * of the parallel range, between the invocations of a workgroup or between lanes of a vector loop.
 *
 * Each statement becomes a closure once; variables live in numbered slots. Arithmetic is float32 (every operation
 * rounded) and wraps integers as the language says, so results agree with a backend up to the order of sums.
 * A race is found by the order-free rule (as Eraser does with locks): two invocations touch one element, of workgroup
 * memory between the same barriers, and at least one writes, whether or not this run's order gives the right result.
 *
 * Between two barriers invocations run one after the other; statements with a barrier inside run in lockstep.
 */
import { codecs, dtypes, floatToInt, isFloat, roundTo, type StoredArray } from "../dtype.ts";
import { KernelError } from "../errors.ts";
import { threefry2x32 } from "../math.ts";
import type { Atom, Cond, Index } from "../schedule/symbolic.ts";
import { reductionLevels } from "./gpu/reduction.ts";
import { matrixStatement } from "./interpret-matrix.ts";
import { type Memory, makeMemory, makeTracks, storedAs, type Tracks } from "./interpret-memory.ts";
import {
  type Accumulator,
  binary,
  bits,
  combine,
  compare,
  identity,
  kindOf,
  unary,
} from "./interpret-values.ts";
import { isMatrix, type Kernel, type Stmt, type Value } from "./ir.ts";
import { formatHead } from "./print.ts";

export interface InterpretOptions {
  /** The part of the parallel range to run; all of it by default. */
  readonly begin?: number;
  readonly end?: number;
  /** Look for races and uninitialised reads (default). Bounds are always checked. */
  readonly detect?: boolean;
}

export interface InterpretResult {
  /** The first `position` outside its size: which `position` statement (in program order), and the value. */
  error?: { position: number; value: number };
}

/** `buffers` as a device stores them: halves as Uint16Arrays of their bits. */
export function interpret(
  kernel: Kernel,
  buffers: readonly StoredArray[],
  scalars: Uint32Array,
  options: InterpretOptions = {},
): InterpretResult {
  return new Machine(kernel, buffers, scalars, options.detect ?? true).run(
    options.begin ?? 0,
    options.end ?? kernel.range.extent,
  );
}

/** Where a name's value is: a number, an accumulator, a private or workgroup array. */
type Slot = { readonly k: "number" | "acc" | "memory"; readonly slot: number };

/** One invocation, or one lane of it while a vector loop runs in lockstep. */
interface Invocation {
  readonly numbers: number[];
  readonly held: (Accumulator | Memory)[];
  /** Its number in the whole dispatch, from 1. */
  id: number;
  readonly lane: number;
}

type Eval = () => number;
type Run = () => void;
/** What all invocations of a workgroup run together. */
type Lockstep = (all: readonly Invocation[]) => void;
type Names = Map<string, Slot>;

/** Runs in lockstep: invocations wait for one another in it. */
function waits(s: Stmt): boolean {
  if (s.k === "loop" || s.k === "if") return s.body.some(waits);
  return s.k === "barrier" || s.k === "allReduce" || isMatrix(s);
}

class Machine {
  readonly kernel: Kernel;
  readonly detect: boolean;
  readonly memories: readonly Memory[];
  readonly scalars: Uint32Array;
  readonly result: InterpretResult = {};
  positions = 0;
  numbers: number[] = [];
  held: (Accumulator | Memory)[] = [];
  slots = 0;
  heldSlots = 0;
  /** The statement that runs, the invocation (from 1), the lane (from 1; 0 outside vector loops), the vector loop, and
   *  how many barriers have been passed. */
  stmt: Stmt | null = null;
  iteration = 0;
  lane = 0;
  epoch = 0;
  interval = 0;
  readonly loops: { name: string; slot: number }[] = [];
  /** Workgroup memory, which starts empty in each workgroup. */
  readonly workgroup: Memory[] = [];

  constructor(
    kernel: Kernel,
    buffers: readonly StoredArray[],
    scalars: Uint32Array,
    detect: boolean,
  ) {
    this.kernel = kernel;
    this.detect = detect;
    this.scalars = scalars;
    if (buffers.length !== kernel.buffers.length || scalars.length < kernel.scalars)
      throw new KernelError(
        `kernel ${kernel.name}: expected ${kernel.buffers.length} buffers and ${kernel.scalars} scalars, ` +
          `got ${buffers.length} and ${scalars.length}`,
      );
    // One storage bound twice (an update in place) is one memory to the detector.
    const shared = new Map<StoredArray, Tracks>();
    this.memories = kernel.buffers.map((info, i) => {
      const data = buffers[i];
      if (!(data instanceof storedAs(info.dtype)) || data.length < info.size)
        throw new KernelError(
          `kernel ${kernel.name}: buf${i} expected ${info.dtype}[${info.size}], ` +
            `got ${data.constructor.name}[${data.length}]`,
        );
      let tracks = shared.get(data) ?? null;
      if (detect && !tracks) shared.set(data, (tracks = makeTracks(data.length)));
      if (tracks && info.access !== "write") tracks.written.fill(1);
      return {
        label: `buf${i}`,
        data,
        codec: codecs[info.dtype],
        size: info.size,
        scope: "buffer",
        tracks,
      };
    });
  }

  run(begin: number, end: number): InterpretResult {
    const names: Names = new Map();
    const { range, threads, subgroups } = this.kernel;
    const slot = this.declareLoop(names, range.var);
    const threadSlot = threads ? this.declareLoop(names, threads.var) : -1;
    const subgroupSlot = subgroups ? this.declareLoop(names, subgroups.var) : -1;
    const body = this.lockstep(this.kernel.body, names);
    const count = threads?.extent ?? 1;
    const all = Array.from(
      { length: count },
      (): Invocation => ({ numbers: [], held: [], id: 0, lane: 0 }),
    );
    for (let i = begin; i < end; i++) {
      this.interval++;
      for (const m of this.workgroup) m.tracks?.written.fill(0);
      all.forEach((one, t) => {
        one.numbers[slot] = i;
        if (threads) one.numbers[threadSlot] = t;
        if (subgroups) one.numbers[subgroupSlot] = Math.floor(t / subgroups.width);
        one.id = i * count + t + 1;
      });
      body(all);
    }
    return this.result;
  }

  enter(one: Invocation): void {
    this.numbers = one.numbers;
    this.held = one.held;
    this.iteration = one.id;
    this.lane = one.lane;
  }

  /** An invocation's name in messages. */
  who(id: number): string {
    const { threads } = this.kernel;
    if (!threads) return `iteration ${id - 1}`;
    const t = (id - 1) % threads.extent;
    return `invocation ${t} of workgroup ${(id - 1 - t) / threads.extent}`;
  }

  fail(message: string): never {
    const at = this.loops
      .filter((l) => this.numbers[l.slot] !== undefined)
      .map((l) => `${l.name} = ${this.numbers[l.slot]}`);
    throw new KernelError(
      `kernel ${this.kernel.name}: ${message}\n  in: ${this.stmt ? formatHead(this.stmt) : "(start)"}` +
        `\n  at: ${at.join(", ")}`,
    );
  }

  declareNumber(names: Names, name: string): number {
    const slot = this.slots++;
    names.set(name, { k: "number", slot });
    return slot;
  }

  declareLoop(names: Names, name: string): number {
    const slot = this.declareNumber(names, name);
    this.loops.push({ name, slot });
    return slot;
  }

  // --- memory -----------------------------------------------------------------------------------------------

  checkIndex(m: Memory, i: number): void {
    if (!(i >= 0 && i < m.size)) this.fail(`${m.label}[${i}] is outside its ${m.size} elements`);
  }

  read(m: Memory, i: number): number {
    this.checkIndex(m, i);
    const t = m.tracks;
    if (t) {
      if (!t.written[i]) this.fail(`${m.label}[${i}] is read before it is written`);
      if (m.scope !== "private") {
        this.refresh(m, t, i);
        if (t.writer[i] !== 0 && t.writer[i] !== this.iteration)
          this.fail(
            `race: ${this.who(this.iteration)} reads ${m.label}[${i}], which ${this.who(t.writer[i])} writes`,
          );
        t.reader[i] = t.reader[i] === 0 || t.reader[i] === this.iteration ? this.iteration : -1;
      }
      if (this.lane !== 0) {
        this.refreshLanes(t, i);
        if (t.laneWriter[i] !== 0 && t.laneWriter[i] !== this.lane)
          this.fail(
            `race: lane ${this.lane - 1} reads ${m.label}[${i}], which lane ${t.laneWriter[i] - 1} writes`,
          );
        t.laneReader[i] = t.laneReader[i] === 0 || t.laneReader[i] === this.lane ? this.lane : -1;
      }
    }
    return m.codec ? m.codec.decode(m.data[i]) : m.data[i];
  }

  write(m: Memory, i: number, value: number): void {
    this.checkIndex(m, i);
    const t = m.tracks;
    if (t) {
      if (m.scope !== "private") {
        this.refresh(m, t, i);
        this.conflict(m, i, t.writer[i], "writes");
        this.conflict(m, i, t.reader[i], "reads");
        t.writer[i] = this.iteration;
      }
      if (this.lane !== 0) {
        this.refreshLanes(t, i);
        this.laneConflict(m, i, t.laneWriter[i], "writes");
        this.laneConflict(m, i, t.laneReader[i], "reads");
        t.laneWriter[i] = this.lane;
      }
      t.written[i] = 1;
    }
    m.data[i] = m.codec ? m.codec.encode(value) : value;
  }

  conflict(m: Memory, i: number, other: number, did: "reads" | "writes"): void {
    if (other === 0 || other === this.iteration) return;
    const others = this.kernel.threads ? "several invocations" : "several iterations";
    const who = other < 0 ? `${others} ${did.slice(0, -1)}` : `${this.who(other)} ${did}`;
    this.fail(`race: ${this.who(this.iteration)} writes ${m.label}[${i}], which ${who}`);
  }

  laneConflict(m: Memory, i: number, other: number, did: "reads" | "writes"): void {
    if (other === 0 || other === this.lane) return;
    const who = other < 0 ? `several lanes ${did.slice(0, -1)}` : `lane ${other - 1} ${did}`;
    this.fail(`race: lane ${this.lane - 1} writes ${m.label}[${i}], which ${who}`);
  }

  /** What happened to workgroup memory before the last barrier is no race. */
  refresh(m: Memory, t: Tracks, i: number): void {
    if (m.scope !== "workgroup" || t.interval[i] === this.interval) return;
    t.interval[i] = this.interval;
    t.writer[i] = 0;
    t.reader[i] = 0;
  }

  /** Lane records of another vector loop are void. */
  refreshLanes(t: Tracks, i: number): void {
    if (t.epoch[i] === this.epoch) return;
    t.epoch[i] = this.epoch;
    t.laneWriter[i] = 0;
    t.laneReader[i] = 0;
  }

  // --- statements -------------------------------------------------------------------------------------------

  block(body: readonly Stmt[], outer: Names): Run {
    const names = new Map(outer);
    const steps = body.map((s) => ({ s, run: this.statement(s, names) }));
    return () => {
      for (const { s, run } of steps) {
        this.stmt = s;
        run();
      }
    };
  }

  /** As `block`, for all invocations: what nobody waits in, one invocation after the other. */
  lockstep(body: readonly Stmt[], outer: Names): Lockstep {
    const names = new Map(outer);
    const steps: Lockstep[] = [];
    let segment: { s: Stmt; run: Run }[] = [];
    const flush = (): void => {
      const runs = segment;
      segment = [];
      if (runs.length === 0) return;
      steps.push((all) => {
        for (const one of all) {
          this.enter(one);
          for (const { s, run } of runs) {
            this.stmt = s;
            run();
          }
        }
      });
    };
    for (const s of body) {
      if (!waits(s)) {
        segment.push({ s, run: this.statement(s, names) });
        continue;
      }
      flush();
      const step = this.together(s, names);
      steps.push((all) => {
        this.stmt = s;
        step(all);
      });
    }
    flush();
    return (all) => {
      for (const step of steps) step(all);
    };
  }

  /** A value that must be the same in all invocations, as others wait for each. */
  agreed(all: readonly Invocation[], what: string, value: Eval): number {
    let first = 0;
    all.forEach((one, i) => {
      this.enter(one);
      const own = value();
      if (i === 0) first = own;
      else if (own !== first)
        this.fail(
          `${what} around a barrier differs: ${first} in ${this.who(all[0].id)}, ${own} in ${this.who(one.id)}`,
        );
    });
    return first;
  }

  declareHeld(names: Names, name: string): number {
    const slot = this.heldSlots++;
    names.set(name, { k: "memory", slot });
    return slot;
  }

  heldSlot(names: Names, name: string): number {
    return this.find(name, "memory", names).slot;
  }

  hold(slot: number, memory: Memory): void {
    this.held[slot] = memory;
  }

  memory(slot: number): Memory {
    return this.held[slot] as Memory;
  }

  /** A statement that invocations wait for one another in. */
  together(s: Stmt, outer: Names): Lockstep {
    if (!this.kernel.threads) this.fail(`${s.k}: the kernel has no invocations to wait for`);
    if (isMatrix(s)) return matrixStatement<Invocation, Names>(this, s, outer);
    switch (s.k) {
      case "barrier":
        return () => {
          this.interval++;
          this.epoch++;
        };
      case "allReduce":
        return this.allReduce(s, outer);
      case "if": {
        const cond = this.cond(s.cond, outer);
        const body = this.lockstep(s.body, outer);
        return (all) => {
          if (this.agreed(all, "a condition", () => Number(cond()))) body(all);
        };
      }
      case "loop":
        return this.loopTogether(s, outer);
      default:
        return this.fail(`${s.k} has no barrier in it`);
    }
  }

  loopTogether(s: Extract<Stmt, { k: "loop" }>, outer: Names): Lockstep {
    const names = new Map(outer);
    const extent = this.index(s.extent, names);
    const slot = this.declareLoop(names, s.var);
    const body = this.lockstep(s.body, names);
    return (all) => {
      const n = this.agreed(all, "a loop's extent", extent);
      if (s.mode === "vector") {
        this.epoch++;
        // Lanes have their own variables; what was declared before the loop they share.
        const lanes = all.flatMap((one) =>
          Array.from({ length: n }, (_, lane) => {
            const numbers = one.numbers.slice();
            numbers[slot] = lane;
            return { numbers, held: one.held.slice(), id: one.id, lane: lane + 1 };
          }),
        );
        body(lanes);
        return;
      }
      for (let i = 0; i < n; i++) {
        for (const one of all) one.numbers[slot] = i;
        body(all);
      }
      for (const one of all) one.numbers[slot] = undefined as unknown as number;
    };
  }

  allReduce(s: Extract<Stmt, { k: "allReduce" }>, names: Names): Lockstep {
    const { slot } = this.find(s.name, "acc", names);
    const inSubgroup = s.lanes ?? 1;
    const left = s.width / inSubgroup;
    const { steps, rest } = reductionLevels(left);
    const add = (to: Accumulator, from: Accumulator): void => {
      if (!from.empty || from.combine !== "argmax") combine(to, from.value, from.at);
    };
    return (all) => {
      const lanes = all.length / this.kernel.threads!.extent;
      const old = all.map((one) => ({ ...(one.held[slot] as Accumulator) }));
      for (let first = 0; first < all.length; first += s.width * lanes) {
        for (let lane = 0; lane < lanes; lane++) {
          let each = Array.from({ length: s.width }, (_, i) => old[first + i * lanes + lane]);
          for (let mask = 1; mask < inSubgroup; mask *= 2)
            each = each.map((own, i) => {
              const both = { ...own };
              add(both, each[i ^ mask]);
              return both;
            });
          const items = each.filter((_, i) => i % inSubgroup === 0);
          for (let j = 0; j < rest; j++)
            for (let i = 1; i < steps; i++) add(items[j], items[i * rest + j]);
          for (let j = 1; j < rest; j++) add(items[0], items[j]);
          for (let i = 0; i < s.width; i++) {
            const result = left === 1 ? each[i] : items[0];
            Object.assign(all[first + i * lanes + lane].held[slot], result);
          }
        }
      }
    };
  }

  statement(s: Stmt, names: Names): Run {
    switch (s.k) {
      case "loop":
        return this.loop(s, names);
      case "let": {
        const value = this.value(s.value, names);
        const slot = this.declareNumber(names, s.name);
        return () => {
          this.numbers[slot] = value();
        };
      }
      case "acc": {
        const slot = this.heldSlots++;
        names.set(s.name, { k: "acc", slot });
        const start = identity(s.combine, s.dtype);
        const { dtype } = s;
        const kind = s.combine;
        return () => {
          this.held[slot] = { dtype, combine: kind, value: start, at: 0, empty: true };
        };
      }
      case "update": {
        const { slot } = this.find(s.name, "acc", names);
        const value = this.value(s.value, names);
        const times = s.times ? this.value(s.times, names) : null;
        const at = s.at ? this.index(s.at, names) : () => 0;
        const product = binary.mul[kindOf(s.value.dtype)];
        const round = (x: number) => roundTo(s.value.dtype, x);
        if (times)
          return () => combine(this.held[slot] as Accumulator, round(product(value(), times())), 0);
        return () => combine(this.held[slot] as Accumulator, value(), at());
      }
      case "local": {
        const slot = this.declareHeld(names, s.name);
        return () => {
          const known = this.held[slot] as Memory | undefined;
          if (known) known.tracks?.written.fill(0);
          else this.held[slot] = makeMemory(s.name, s.dtype, s.size, "private", this.detect);
        };
      }
      case "shared": {
        const slot = this.declareHeld(names, s.name);
        const memory = makeMemory(s.name, s.dtype, s.size, "workgroup", this.detect);
        this.workgroup.push(memory);
        return () => {
          this.held[slot] = memory;
        };
      }
      case "localStore": {
        const { slot } = this.find(s.local, "memory", names);
        const index = this.index(s.index, names);
        const value = this.value(s.value, names);
        return () => this.write(this.held[slot] as Memory, index(), value());
      }
      case "store": {
        const memory = this.memories[s.buffer];
        const index = this.index(s.index, names);
        const value = this.value(s.value, names);
        const mask = s.mask ? this.cond(s.mask, names) : null;
        return () => {
          const v = value();
          if (!mask || mask()) this.write(memory, index(), v);
        };
      }
      case "storeAdd": {
        const memory = this.memories[s.buffer];
        const index = this.index(s.index, names);
        const value = this.value(s.value, names);
        const { dtype } = s.value;
        return () => {
          const i = index();
          this.write(memory, i, roundTo(dtype, this.read(memory, i) + value()));
        };
      }
      case "if": {
        const cond = this.cond(s.cond, names);
        const body = this.block(s.body, names);
        return () => {
          if (cond()) body();
        };
      }
      case "position": {
        const number = this.positions++;
        const value = this.value(s.value, names);
        const slot = this.declareNumber(names, s.name);
        return () => {
          const v = value();
          const inside = v >= 0 && v < s.size;
          if (!inside) this.result.error ??= { position: number, value: v };
          this.numbers[slot] = inside ? v : 0;
        };
      }
      default:
        return this.fail(`${s.k} inside a statement that runs alone`);
    }
  }

  loop(s: Extract<Stmt, { k: "loop" }>, outer: Names): Run {
    const names = new Map(outer);
    const extent = this.index(s.extent, names);
    const slot = this.declareLoop(names, s.var);
    const body = this.block(s.body, names);
    const vector = s.mode === "vector";
    return () => {
      const n = extent();
      const { lane } = this;
      if (vector) this.epoch++;
      for (let i = 0; i < n; i++) {
        this.numbers[slot] = i;
        if (vector) this.lane = i + 1;
        body();
      }
      this.lane = lane;
      this.numbers[slot] = undefined as unknown as number;
    };
  }

  find(name: string, k: Slot["k"], names: Names): Slot {
    const found = names.get(name);
    const what = { number: "a variable", acc: "an accumulator", memory: "a local" }[k];
    return found?.k === k ? found : this.fail(`"${name}" is not ${what} in scope`);
  }

  // --- expressions ------------------------------------------------------------------------------------------

  index(x: Index, names: Names): Eval {
    const { constant } = x;
    if (x.terms.length === 0) return () => constant;
    const terms = x.terms.map((t) => ({ atom: this.atom(t.atom, names), coef: t.coef }));
    if (terms.length === 1 && constant === 0 && terms[0].coef === 1) return terms[0].atom;
    const plain = x.terms.every((t) => t.atom.k === "var" || t.atom.k === "value");
    if (plain) {
      const slots = x.terms.map(
        (t) => this.find((t.atom as { name: string }).name, "number", names).slot,
      );
      const coefs = x.terms.map((t) => t.coef);
      return () => {
        const { numbers } = this;
        let sum = constant;
        for (let i = 0; i < slots.length; i++) sum += coefs[i] * numbers[slots[i]];
        return sum;
      };
    }
    return () => {
      let sum = constant;
      for (const t of terms) sum += t.coef * t.atom();
      return sum;
    };
  }

  atom(a: Atom, names: Names): Eval {
    switch (a.k) {
      case "var":
      case "value": {
        const { slot } = this.find(a.name, "number", names);
        return () => this.numbers[slot];
      }
      case "div": {
        const of = this.index(a.of, names);
        return () => Math.floor(of() / a.by);
      }
      case "mod": {
        const of = this.index(a.of, names);
        return () => {
          const x = of();
          return x - a.by * Math.floor(x / a.by);
        };
      }
      case "min": {
        const [x, y] = [this.index(a.a, names), this.index(a.b, names)];
        return () => Math.min(x(), y());
      }
    }
  }

  cond(cond: Cond, names: Names): () => boolean {
    const entries = cond.map((x) => this.index(x, names));
    return () => entries.every((e) => e() >= 0);
  }

  value(v: Value, names: Names): Eval {
    switch (v.k) {
      case "const": {
        const c = roundTo(v.dtype, v.value);
        return () => c;
      }
      case "var": {
        const found = names.get(v.name);
        const slot = found?.slot ?? this.fail(`"${v.name}" is not a value in scope`);
        if (found?.k === "number") return () => this.numbers[slot];
        return () => {
          const acc = this.held[slot] as Accumulator;
          return acc.combine === "argmax" ? acc.at : acc.value;
        };
      }
      case "load": {
        const memory = this.memories[v.buffer];
        const index = this.index(v.index, names);
        const mask = v.mask && v.mask.length > 0 ? this.cond(v.mask, names) : null;
        if (!mask) return () => this.read(memory, index());
        return () => (mask() ? this.read(memory, index()) : 0);
      }
      case "localLoad": {
        const { slot } = this.find(v.local, "memory", names);
        const index = this.index(v.index, names);
        return () => this.read(this.held[slot] as Memory, index());
      }
      case "index": {
        const index = this.index(v.index, names);
        return () => index() | 0;
      }
      case "select": {
        const cond = this.cond(v.cond, names);
        const [a, b] = [this.value(v.a, names), this.value(v.b, names)];
        return () => {
          const [x, y] = [a(), b()];
          return cond() ? x : y;
        };
      }
      case "scalar":
        return () => bits("u32", v.dtype, this.scalars[v.slot]);
      case "threefry": {
        const [k0, k1, c0, c1] = v.args.map((a) => this.value(a, names));
        return () => threefry2x32(k0(), k1(), c0(), c1());
      }
      case "op":
        return this.op(v, names);
    }
  }

  op(v: Extract<Value, { k: "op" }>, names: Names): Eval {
    const [a, b, c] = v.args.map((x) => this.value(x, names));
    const { dtype } = v;
    const from = v.args[0].dtype;
    switch (v.op) {
      case "where":
        return () => {
          const [p, x, y] = [a(), b(), c()];
          return p ? x : y;
        };
      case "cast":
        if (isFloat(from) && dtype !== "bool" && !isFloat(dtype))
          return () => floatToInt(dtype, a());
        return () => roundTo(dtype, a());
      case "bitcast":
        return () => bits(from, dtype, a());
      case "not":
        return from === "bool" ? () => 1 - a() : () => roundTo(dtype, ~a());
      case "shr":
        // A logical shift of u8 is one of its zero-extended word.
        if (!dtypes[dtype].signed) return () => a() >>> (b() & 31);
        return () => a() >> (b() & 31);
      case "lt":
      case "le":
      case "eq": {
        const f = compare[v.op];
        return () => (f(a(), b()) ? 1 : 0);
      }
    }
    if (v.op in binary) {
      const f = binary[v.op as keyof typeof binary][kindOf(dtype)];
      return () => roundTo(dtype, f(a(), b()));
    }
    const f = unary[v.op as keyof typeof unary];
    return () => roundTo(dtype, f(a()));
  }
}
