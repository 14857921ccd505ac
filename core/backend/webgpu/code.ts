/**
 * @file The kernels of a plan in their final form: lowered for the GPU, storages that are one merged into one binding, too
 * many of them packed, printed as WGSL. Where their storages lie is emit.ts's business.
 *
 * A dispatch may not bind one buffer both read-only and writable. So where an output takes over an input's storage the
 * kernel's two buffers become one, and a run that may not overwrite copies the old value into the new storage first:
 * then the same kernel serves both.
 */
import { bytesOf, dtypes } from "../../dtype.ts";
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
import { formatKernel } from "../../kernel/print.ts";
import { mergeBuffers, type Pack, packBuffers } from "../../kernel/rebind.ts";
import type { Plan, Step } from "../../schedule/schedule.ts";
import { formatShape, numel } from "../../shape.ts";
import type { KernelReport } from "../backend.ts";
import type { KernelSource, Pipeline } from "./pipelines.ts";
import { printWgsl, type Wgsl } from "./wgsl.ts";
import { printShader } from "./wgsl-custom.ts";

/** What a program needs of its backend. */
export interface Host {
  readonly target: GpuTarget;
  readonly maxBindingBytes: number;
  readonly maxWorkgroups: number;
  compile(source: KernelSource): Pipeline;
}

/** A kernel that checks positions: which flag it raises, and what to say then. */
export interface CheckedKernel {
  readonly name: string;
  readonly sizes: readonly number[];
  /** When it fails, no state has been overwritten yet. */
  stateIntact: boolean;
}

/** A stage with its kernel's final form. */
export interface Code {
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
export interface PackOf {
  readonly pack: Pack;
  readonly parts: readonly (Node | Temporary)[];
}

/** A step made ready, so that loops emit their bodies several times but compile them once. */
export type Ready =
  | {
      readonly k: "group";
      readonly step: Extract<Step, { k: "group" }>;
      readonly code: readonly Code[];
    }
  | {
      readonly k: "loop";
      readonly step: Extract<Step, { k: "loop" }>;
      readonly body: readonly Ready[];
    };

/** Uniforms are bound at multiples of this. */
export const uniformStride = 256;
export const align = (n: number, to: number): number => Math.ceil(n / to) * to;

export class CodeMaker {
  readonly reports: KernelReport[] = [];
  /** The kernels that check positions, by flag. */
  readonly checked: CheckedKernel[] = [];
  /** Outputs whose kernel reads the version before in the same binding. */
  readonly merged = new Set<Node>();
  /** For each scalar block: its first word and the random leaves (their numbers in the graph) that fill it. */
  readonly scalars: { readonly word: number; readonly randoms: readonly number[] }[] = [];
  scalarBytes = 0;
  readonly #randoms: readonly Node<"random">[];
  readonly #host: Host;
  /** Which form matrix products take. */
  readonly #choose: Choose;

  constructor(randoms: readonly Node<"random">[], host: Host, choose: Choose) {
    this.#randoms = randoms;
    this.#host = host;
    this.#choose = choose;
  }

  lower(step: Extract<Step, { k: "group" }>): GpuLowered {
    const reads = new Set(step.reads);
    return lowerForGpu(step.group, (n) => reads.has(n), this.#host.target, this.#choose);
  }

  /**
   * The steps of a plan, made ready; `lowered` has those that are lowered already, `merges` the inputs that outputs lie
   * over.
   */
  prepare(
    plan: Plan,
    lowered: ReadonlyMap<Step, GpuLowered>,
    merges: ReadonlyMap<Node, Node>,
  ): Ready[] {
    for (const n of plan.places.keys()) this.#checkSize(n);
    const ready: Ready[] = [];
    for (const step of plan.steps) {
      if (step.k === "loop") {
        const body = this.prepare(step.body, new Map(), new Map());
        ready.push({ k: "loop", step, body });
        continue;
      }
      // An empty tensor that a loop reads has a place, but there is nothing to write.
      if (numel(step.group.space) === 0) continue;
      const low = lowered.get(step) ?? this.lower(step);
      const code = low.stages.map((stage, i) => {
        const last = i === low.stages.length - 1;
        const made = this.#code(stage, plan, merges, last ? step.group.stores : new Map());
        this.reports.push(made.report);
        return made;
      });
      ready.push({ k: "group", step, code });
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
      if (buffers[from] === merges.get(written)) this.merged.add(written);
      const merged = mergeBuffers(kernel, from, into);
      kernel = merged.kernel;
      buffers = merged.kept.map((i) => buffers[i]);
      into = -1;
    }
    const { target } = this.#host;
    let wgsl = stage.shader ? printShader(kernel, stage.shader, target) : printWgsl(kernel, target);
    const limit = target.buffers - (wgsl.errors === null ? 0 : 1);
    if (buffers.length > limit) {
      const packed = stage.shader ? null : packBuffers(kernel, limit);
      if (!packed)
        throw new LimitError(
          describe(
            `webgpu: kernel ${kernel.name}`,
            `at most ${target.buffers} storage buffers`,
            `${buffers.length}${stage.shader ? "" : " of too many dtypes to put together"}`,
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
      report: report({ ...stage, kernel }, stores, stage.shader && wgsl.code),
      wgsl,
      buffers,
      scalars: this.#scalarBlock(stage),
      flag,
    };
  }

  #scalarBlock({ kernel, randoms }: Stage): number {
    if (kernel.scalars === 0) return 0;
    const at = this.scalarBytes;
    const numbers = randoms.map((n) => this.#randoms.indexOf(n));
    this.scalars.push({ word: at / 4, randoms: numbers });
    this.scalarBytes += align(4 * kernel.scalars, uniformStride);
    return at;
  }
}

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

function report(
  { kernel, traffic }: Stage,
  stores: ReadonlyMap<Node, string>,
  code: string | undefined,
): KernelReport {
  return {
    name: kernel.name,
    kind: kernel.kind,
    bytes:
      traffic ??
      kernel.buffers.reduce((sum, { size, dtype }) => sum + size * dtypes[dtype].bytes, 0),
    flops: kernel.flops,
    writes: [...stores].map(([n, reason]) => ({ shape: n.shape, dtype: n.dtype, reason })),
    get source() {
      return code ?? formatKernel(kernel);
    },
  };
}
