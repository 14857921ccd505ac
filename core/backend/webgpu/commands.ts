/**
 * @file What a program does on the GPU, laid out in advance: dispatches, copies, and loops of them. Storages are named by
 * their place in a table that each run fills, so that replaying a step is one walk over this list; bind groups are
 * made anew only for storages that a dispatch has not seen lately.
 */
import type { Timed } from "../observe.ts";
import type { Block } from "./buffers.ts";
import type { Pipeline } from "./pipelines.ts";

/** Where a storage stands in the table of a run. */
export type Ref = number;

export interface BoundBuffer {
  readonly ref: Ref;
  readonly offset: number;
  readonly bytes: number;
}

/** Copies bytes where the two places are not the same. Offsets and size are multiples of 4. */
export interface Copy {
  readonly k: "copy";
  readonly from: Ref;
  readonly fromOffset: number;
  readonly to: Ref;
  readonly toOffset: number;
  readonly bytes: number;
}

export interface Loop {
  readonly k: "loop";
  readonly length: number;
  /** The commands of step t. */
  readonly at: (t: number) => readonly Command[];
}

export type Command = Dispatch | Copy | Loop;

/** Storages change places as training inputs alternate: as many groups are kept per dispatch. */
const keptGroups = 6;

interface CachedGroup {
  readonly ids: readonly number[];
  readonly group: GPUBindGroup;
}

export class Dispatch {
  readonly k = "dispatch";
  readonly pipeline: Pipeline;
  readonly bindings: readonly BoundBuffer[];
  /** The plan's kernel; null: one of the runtime's own. */
  readonly #kernel: Timed | null;
  readonly x: number;
  readonly y: number;
  /** Most recently used first. */
  readonly #groups: CachedGroup[] = [];

  constructor(
    pipeline: Pipeline,
    bindings: readonly BoundBuffer[],
    workgroups: number,
    maxPerDimension: number,
    kernel: Timed | null = null,
  ) {
    this.pipeline = pipeline;
    this.bindings = bindings;
    this.#kernel = kernel;
    this.y = Math.ceil(workgroups / maxPerDimension);
    this.x = Math.ceil(workgroups / this.y);
  }

  /** What the profiler calls it. */
  get kernel(): Timed {
    const bytes = this.bindings.reduce((sum, b) => sum + b.bytes, 0);
    return this.#kernel ?? { name: this.pipeline.source.name, kind: "runtime", bytes, flops: 0 };
  }

  group(device: GPUDevice, table: readonly Block[]): GPUBindGroup {
    const { bindings } = this;
    const groups = this.#groups;
    search: for (let g = 0; g < groups.length; g++) {
      const found = groups[g];
      for (let i = 0; i < bindings.length; i++)
        if (found.ids[i] !== table[bindings[i].ref].id) continue search;
      if (g > 0) {
        groups.splice(g, 1);
        groups.unshift(found);
      }
      return found.group;
    }
    const group = device.createBindGroup({
      layout: this.pipeline.layout,
      entries: bindings.map(({ ref, offset, bytes }, binding) => ({
        binding,
        resource: { buffer: table[ref].buffer, offset, size: bytes },
      })),
    });
    groups.unshift({ ids: bindings.map(({ ref }) => table[ref].id), group });
    if (groups.length > keptGroups) groups.pop();
    return group;
  }
}

/** What watches dispatches as they are encoded. */
export interface Watch {
  /** Asked for each dispatch: the description of a pass of its own, or null to do without. */
  pass(kernel: Timed): GPUComputePassDescriptor | null;
}

/** Writes commands into one encoder, with as few passes as the copies between them allow. */
export function encode(
  device: GPUDevice,
  encoder: GPUCommandEncoder,
  commands: readonly Command[],
  table: readonly Block[],
  watch: Watch | null = null,
): void {
  let pass: GPUComputePassEncoder | null = null;
  let current: Pipeline | null = null;
  const endPass = () => {
    pass?.end();
    pass = null;
    current = null;
  };
  const walk = (list: readonly Command[]): void => {
    for (const command of list) {
      if (command.k === "dispatch") {
        const own = watch?.pass(command.kernel);
        if (own) {
          endPass();
          pass = encoder.beginComputePass(own);
        } else pass ??= encoder.beginComputePass();
        if (command.pipeline !== current) {
          current = command.pipeline;
          pass.setPipeline(current.get());
        }
        pass.setBindGroup(0, command.group(device, table));
        pass.dispatchWorkgroups(command.x, command.y);
      } else if (command.k === "copy") {
        const from = table[command.from].buffer;
        const to = table[command.to].buffer;
        if (from === to && command.fromOffset === command.toOffset) continue;
        endPass();
        encoder.copyBufferToBuffer(from, command.fromOffset, to, command.toOffset, command.bytes);
      } else for (let t = 0; t < command.length; t++) walk(command.at(t));
    }
  };
  walk(commands);
  endPass();
}
