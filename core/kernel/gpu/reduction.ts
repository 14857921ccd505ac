/**
 * @file In which order an `allReduce` combines the invocations of a group, so that printers and the interpreter agree to the
 * bit. First the lanes of a subgroup, in a butterfly of exchanges, where the GPU has them: no barrier. Then what is left,
 * through workgroup memory: up to 16 one after the other; more in two levels, `steps` values that stand `rest` apart
 * each, then those `rest` results. Serial steps cost less than the barriers of a tree of halves.
 */
import type { Stmt } from "../ir.ts";
import { floorPow2 } from "./stage.ts";
import type { GpuTarget } from "./target.ts";

const serial = 16;

export function reductionLevels(width: number): { readonly steps: number; readonly rest: number } {
  if (width <= serial) return { steps: 1, rest: width };
  const steps = 2 ** Math.ceil(Math.log2(width) / 2);
  return { steps, rest: width / steps };
}

/** Combines an accumulator over `width` neighbours. Subgroups may be larger than the smallest, which serves all of them. */
export function allReduce(name: string, width: number, target: GpuTarget): Stmt {
  const lanes = target.subgroups ? Math.min(width, floorPow2(target.subgroupMin)) : 1;
  return { k: "allReduce", name, width, ...(lanes > 1 && { lanes }) };
}
