/**
 * @file A plan as a program for the GPU: its commands, what they bind, and what a run has to bring along. Decides which
 * outputs take over their inputs' storages, and how a run that fails leaves state alone.
 *
 * An invalid index is learned only after the run. So before the first kernel that writes state a tiny kernel looks at the
 * flags of those before it and sets a guard, and whatever writes state does nothing then. Storages that do not lie
 * over the old ones begin as copies of them, so that either way the state is what it was.
 */
import { bytesOf } from "../../dtype.ts";
import type { Node } from "../../graph/node.ts";
import type { GpuLowered } from "../../kernel/gpu/lower.ts";
import type { Choose } from "../../kernel/gpu/matmul-tile.ts";
import { planBuffers } from "../../schedule/memory.ts";
import type { Plan, Step } from "../../schedule/schedule.ts";
import type { KernelReport } from "../backend.ts";
import { type CheckedKernel, CodeMaker, type Host, type Ready } from "./code.ts";
import type { Command, Ref } from "./commands.ts";
import { Emitter, type Frame, type TableLayout, wholeCopy } from "./emit.ts";
import type { Pipeline } from "./pipelines.ts";
import { flagStride, raiseGuard } from "./utility.ts";

export type { Host } from "./code.ts";

export class Program {
  readonly plan: Plan;
  readonly table: TableLayout;
  readonly commands: readonly Command[];
  readonly pipelines: ReadonlySet<Pipeline>;
  readonly reports: readonly KernelReport[];
  /** Which slot's storage output i may take over. */
  readonly overwrites: readonly (number | null)[];
  /** The kernels that check positions, by flag. */
  readonly checked: readonly CheckedKernel[];
  /** Bytes of the scratch buffers, largest first, and which of them each value has. */
  readonly scratch: { readonly sizes: readonly number[]; readonly buffer: readonly number[] };
  /** Bytes of the uniforms; the constant words at their end are written once. */
  readonly uniformBytes: number;
  readonly constants: Uint32Array;
  readonly constantsAt: number;
  /** For each scalar block: its first word and the random leaves (their numbers in the graph) that fill it. */
  readonly scalars: CodeMaker["scalars"];

  /** `state[i]`: the slot whose next version output i is, or null. */
  constructor(
    plan: Plan,
    randoms: readonly Node<"random">[],
    state: readonly (number | null)[],
    host: Host,
    choose: Choose,
  ) {
    this.plan = plan;
    const outputs = plan.inputs.length;
    const flags = outputs + plan.outputs.length;
    this.table = { outputs, flags, guard: flags + 1, uniforms: flags + 2, values: flags + 3 };

    const code = new CodeMaker(randoms, host, choose);
    const producer = new Map<Node, Step>();
    for (const step of plan.steps) for (const n of step.group.stores.keys()) producer.set(n, step);
    const lowered = new Map<Step, GpuLowered>();
    const merges = new Map<Node, Node>();
    this.overwrites = plan.outputs.map(({ first, overwrites }) => {
      const step = producer.get(first);
      if (overwrites === null || step?.k !== "group") return null;
      if (!lowered.has(step)) lowered.set(step, code.lower(step));
      const old = plan.inputs[overwrites];
      if (!lowered.get(step)!.overwritable(old, first)) return null;
      merges.set(first, old);
      return overwrites;
    });
    const ready = code.prepare(plan, lowered, merges);
    const emitter = new Emitter(this.table, host, code.scalarBytes);
    this.commands = emitAll(plan, ready, state, code, emitter);
    this.pipelines = emitter.pipelines;
    this.reports = code.reports;
    this.checked = code.checked;
    this.scratch = planBuffers(emitter.lives);
    this.scalars = code.scalars;
    this.constantsAt = code.scalarBytes;
    this.constants = new Uint32Array(emitter.constants);
    this.uniformBytes = this.constantsAt + this.constants.byteLength;
  }
}

function emitAll(
  plan: Plan,
  ready: readonly Ready[],
  state: readonly (number | null)[],
  { checked, merged }: CodeMaker,
  emitter: Emitter,
): Command[] {
  const { table } = emitter;
  const frame: Frame = {
    plan,
    slots: plan.inputs.map((_, i) => i),
    outputs: plan.outputs.map((_, i) => table.outputs + i),
    scratch: new Map(),
  };
  const commands: Command[] = [];
  const guarded = new Set<Ref>();
  state.forEach((slot, i) => {
    const { node, first } = plan.outputs[i];
    if (slot === null || (checked.length === 0 && !merged.has(first))) return;
    const copy = wholeCopy(slot, table.outputs + i, bytesOf(node));
    commands.push(copy);
    emitter.begun.set(copy.to, slot);
    if (checked.length > 0) guarded.add(copy.to);
  });

  let guards = false;
  const before = new Set<number>();
  for (const item of ready) {
    const stored = [...item.step.group.stores.keys()];
    const writes = stored.some((n) => guarded.has(emitter.ref(frame, n)));
    if (writes && !guards) {
      guards = true;
      if (before.size > 0)
        commands.push(
          emitter.dispatch(raiseGuard(checked.length), 1, [
            { ref: table.flags, offset: 0, bytes: flagStride * checked.length },
            { ref: table.guard, offset: 0, bytes: 16 },
          ]),
        );
    }
    if (!guards) for (const flag of flagsOf(item)) before.add(flag);
    emitter.emit(frame, item, commands, writes && before.size > 0);
  }
  // What is checked after the first write comes too late.
  if (guards)
    checked.forEach((kernel, flag) => {
      kernel.stateIntact = before.has(flag);
    });
  return commands;
}

const flagsOf = (item: Ready): number[] =>
  item.k === "loop"
    ? item.body.flatMap(flagsOf)
    : item.code.flatMap(({ flag }) => (flag < 0 ? [] : [flag]));
