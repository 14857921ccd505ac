/**
 * @file Schedules a group for a GPU: one kernel, or several that hand each other partial results in temporaries. Which
 * schedule a group gets is decided by its kind.
 */
import type { DType } from "../../dtype.ts";
import type { Node } from "../../graph/node.ts";
import type { Group } from "../../schedule/group.ts";
import { customStage, type Shader } from "../custom.ts";
import type { Kernel } from "../ir.ts";
import { planNest } from "../nest.ts";
import { planRow } from "../phases.ts";
import { lowerAttention } from "./attention.ts";
import { chooseLayout } from "./layout.ts";
import { lowerMap } from "./map.ts";
import { lowerMatmul } from "./matmul.ts";
import type { Choose } from "./matmul-tile.ts";
import { lowerRows } from "./row.ts";
import { lowerRunning } from "./running.ts";
import { lowerScatter } from "./scatter.ts";
import { lowerSort } from "./sort.ts";
import type { GpuTarget } from "./target.ts";

/** Scratch of one step, between its stages; identity by object. */
export interface Temporary {
  readonly dtype: DType;
  readonly size: number;
}

export interface Stage {
  readonly kernel: Kernel;
  /** What is bound to each buffer of the kernel. */
  readonly buffers: readonly (Node | Temporary)[];
  /** Bytes that it reads and writes, where that may be less than all of its buffers. */
  readonly traffic?: number;
  /** Random leaves: words 3i … 3i+2 of the kernel's scalars. */
  readonly randoms: readonly Node<"random">[];
  /** What runs in place of the kernel's body, which then is empty. */
  readonly shader?: Shader;
}

export interface GpuLowered {
  /** Run one after the other; each sees what those before it wrote. */
  readonly stages: readonly Stage[];
  /** May the value `n`, stored here, be written over the storage of `old`, read here? */
  overwritable(old: Node, n: Node): boolean;
}

/** `choose`: the forms of matrix products, where they are not to be guessed. */
export function lowerForGpu(
  group: Group,
  inMemory: (n: Node) => boolean,
  target: GpuTarget,
  choose?: Choose,
): GpuLowered {
  switch (group.kind) {
    case "map":
    case "row":
    case "update": {
      const nest = planNest(group, inMemory);
      const plan = planRow(group);
      const layout = chooseLayout(nest, plan, target);
      return layout
        ? lowerRows(group, inMemory, nest, plan, layout, target)
        : lowerMap(group, inMemory, target, nest, plan);
    }
    case "matmul":
      return lowerMatmul(group, inMemory, target, choose);
    case "attention":
      return lowerAttention(group, inMemory, target);
    case "custom":
      return { stages: [customStage(group)], overwritable: () => false };
    case "scatter":
      return lowerScatter(group, inMemory, target);
    case "scan":
      return lowerRunning(group, inMemory, target);
    case "sort":
      return lowerSort(group, inMemory, target);
    case "loop":
      throw new Error("lowerForGpu: a loop is no kernel, its body's groups are");
  }
}
